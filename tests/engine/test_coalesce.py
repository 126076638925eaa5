"""Shared calls that are ended from without: whoever still waits is told, and nothing is complained of."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from pipeline import Context, Pipeline, sinks, sources
from pipeline.emulator.faults.rules import Rule, crash
from pipeline.engine.coalesce import Activity, Coalescer
from pipeline.testing import Emulator


@pytest.mark.parametrize(
    "dies",
    [
        crash(before="dynamodb.batch_write_item"),
        crash(after="dynamodb.batch_write_item"),
        crash(before="sqs.send_message_batch"),
        crash(before="dynamodb.batch_execute_statement"),
    ],
    ids=str,
)
def test_a_killed_environment_leaves_no_answer_that_nobody_reads(dies: Rule, caplog: pytest.LogCaptureFixture) -> None:
    """Its calls and those that wait for them are let go of together: asyncio would complain of each at the very end."""
    shop = Pipeline("shop", log_level="CRITICAL")

    @shop.handler(sources.SQS("orders"), key="id", sinks=[sinks.DynamoDB("ledger"), sinks.SQS("parcels")])
    async def price(order: dict[str, Any], context: Context) -> dict[str, Any]:
        await context.clock.sleep(1)
        return order

    with caplog.at_level(logging.ERROR, logger="asyncio"):
        with Emulator(faults=dies) as aws:
            aws.add(shop)
            aws.send("orders", [{"id": "a"}, {"id": "b"}])
            aws.run()
        gc.collect()

    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


async def test_whoever_waits_hears_of_a_call_that_was_cancelled() -> None:
    async def hanging(_: list[int]) -> Sequence[int]:
        await asyncio.get_running_loop().create_future()
        return []

    activity = Activity()
    activity.join()
    calls: Coalescer[int, int] = Coalescer(hanging, activity, limit=1)
    waiting = asyncio.create_task(calls.submit([1]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await calls.aclose()
    with pytest.raises(RuntimeError, match="a shared call ended with CancelledError"):
        await waiting
