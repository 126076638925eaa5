"""Turns: one works at a time, who is cancelled while it waits is passed over, and nobody keeps a turn for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline import Pipeline, sinks, sources
from pipeline.emulator.faults.plan import Faults
from pipeline.emulator.turns import Turns
from pipeline.testing import Emulator


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Each failed invocation is logged, and there are many."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


async def waiting(turns: Turns, count: int) -> list[tuple[object, asyncio.Task[None]]]:
    """So many that wait for a turn, in this order."""
    found: list[tuple[object, asyncio.Task[None]]] = []
    for _ in range(count):
        who = object()
        found.append((who, asyncio.create_task(turns.take(who))))
        await asyncio.sleep(0)
    return found


async def works(turns: Turns, task: asyncio.Task[None]) -> None:
    async with asyncio.timeout(5):
        await task


async def test_who_was_cancelled_while_it_waited_is_given_no_turn() -> None:
    turns, holder = Turns(), object()
    await turns.take(holder)
    (_, first), (second, task) = await waiting(turns, 2)
    first.cancel()
    turns.give_up(holder)  # in the same round of the loop: the first does not know it yet
    await works(turns, task)
    turns.give_up(second)
    await works(turns, asyncio.create_task(turns.take(object())))
    assert first.cancelled()


async def test_who_was_cancelled_just_when_it_was_given_a_turn_gives_it_back() -> None:
    turns, holder = Turns(), object()
    await turns.take(holder)
    (_, first), (_, second) = await waiting(turns, 2)
    turns.give_up(holder)
    first.cancel()
    await works(turns, second)


async def test_all_who_wait_may_be_cancelled() -> None:
    turns, holder = Turns(), object()
    await turns.take(holder)
    tasks = [task for _, task in await waiting(turns, 3)]
    for task in tasks:
        task.cancel()
    turns.give_up(holder)
    await asyncio.gather(*tasks, return_exceptions=True)
    await works(turns, asyncio.create_task(turns.take(object())))


async def test_a_handlers_threads_share_a_turn_and_one_that_is_cancelled_costs_the_others_none() -> None:
    turns, holder, shared = Turns(), object(), object()
    await turns.take(holder)
    gone, stays = (asyncio.create_task(turns.take(shared)) for _ in range(2))
    await asyncio.sleep(0)
    ((_, other),) = await waiting(turns, 1)
    gone.cancel()
    turns.give_up(holder)
    await works(turns, stays)
    assert not other.done()
    turns.give_up(shared)
    await works(turns, other)


def shop() -> Pipeline:
    """Plain handlers of a queue and of a stream: each runs in a thread, and they take turns."""
    made = Pipeline("shop")

    @made.handler(sources.SQS("orders"), sinks=[sinks.DynamoDB("ledger"), sinks.SQS("parcels")], key="id")
    def price(order: dict[str, Any]) -> dict[str, Any]:
        return {"id": order["id"]}

    @made.handler(sources.Kinesis("clicks"), sinks=[sinks.DynamoDB("seen")], key="id")
    def click(one: dict[str, Any]) -> dict[str, Any]:
        return {"id": one["id"]}

    return made


@pytest.mark.parametrize("first", range(0, 40, 20))
def test_plain_handlers_of_pipelines_come_to_their_end_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, first + 20):
        with Emulator(seed=seed, faults=Faults(seed)) as aws:
            aws.add(shop())
            aws.send("orders", [{"id": name} for name in "abcdef"])
            aws.send("clicks", [{"id": name} for name in "ghijkl"])
            aws.run()
            found = [sorted(item["id"] for item in aws.table(name).items) for name in ("ledger", "seen")]
            assert found == [list("abcdef"), list("ghijkl")], seed
            dead = [letter.body for letter in aws.dead_letters("orders")]
            assert not any('"id"' in body for body in dead), seed
