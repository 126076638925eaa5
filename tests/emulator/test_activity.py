"""Waiting for news: a cancellation that arrives together with the news is not lost."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.emulator.activity import Activity


@pytest.mark.parametrize("steps", range(4))
async def test_a_cancellation_that_arrives_with_a_change_is_not_lost(steps: int) -> None:
    activity = Activity()
    task = asyncio.create_task(activity.wait(60))
    for _ in range(3):
        await asyncio.sleep(0)

    activity.happened()
    for _ in range(steps):  # the change is on its way to the waiter
        await asyncio.sleep(0)
    was_over = task.done()
    task.cancel()
    await asyncio.wait([task])

    assert was_over or task.cancelled()
