"""Order: lanes run in order, side by side, within one bound."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pipeline import Backoff, Pipeline, Record, sources
from pipeline.outcome import Duplicate, Failed, HandBack, Rejected, Succeeded, Unprocessed
from pipeline.testing import ainvoke
from tests.engine.harness import process, records


def job(**fields: Any) -> dict[str, Any]:
    return fields


async def test_a_failure_holds_back_its_own_message_group_only() -> None:
    pipeline = Pipeline("shop")
    seen: list[str] = []

    @pipeline.handler(sources.SQS("orders.fifo"))
    async def price(order: dict[str, Any]) -> None:
        seen.append(order["n"])
        if order["n"] == "a1":
            raise ValueError("no")

    result = await ainvoke(
        price, [job(n="a0"), job(n="b0"), job(n="a1"), job(n="b1"), job(n="a2")], groups=["a", "b", "a", "b", "a"]
    )

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Succeeded, Failed, Succeeded, Unprocessed]
    behind = result.outcomes[4]
    assert isinstance(behind, Unprocessed)
    assert behind.reason is HandBack.BEHIND
    assert behind.delay == 0, "visible at once: the queue itself holds the group back"
    assert "a2" not in seen


async def test_a_dead_letter_lets_its_lane_go_on() -> None:
    pipeline = Pipeline("shop")

    @pipeline.handler(sources.SQS("orders.fifo"))
    async def price(order: dict[str, int]) -> None: ...

    result = await ainvoke(price, ["poison", job(n=1), job(n=2)], groups=["a", "a", "a"])

    assert [type(outcome) for outcome in result.outcomes] == [Rejected, Succeeded, Succeeded]


async def test_records_of_a_lane_never_overlap_and_lanes_do() -> None:
    pipeline = Pipeline("shop", idempotency=None)
    running: set[str] = set()
    most = 0
    order_seen: dict[str, list[int]] = {}

    @pipeline.handler(sources.SQS("orders"), lane="customer")
    async def price(order: dict[str, Any]) -> None:
        nonlocal most
        customer = order["customer"]
        assert customer not in running
        running.add(customer)
        most = max(most, len(running))
        for _ in range(3):
            await asyncio.sleep(0)
        order_seen.setdefault(customer, []).append(order["n"])
        running.discard(customer)

    result = await ainvoke(price, [job(customer=f"c{n % 5}", n=n) for n in range(50)])

    assert len(result.of(Succeeded)) == 50
    assert most == 5
    assert all(seen == sorted(seen) for seen in order_seen.values())


async def test_at_most_the_declared_concurrency_is_in_flight() -> None:
    pipeline = Pipeline("shop")
    running = most = 0

    @pipeline.handler(sources.SQS("orders"), concurrency=7)
    async def price(order: dict[str, Any]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    await ainvoke(price, [job(n=n) for n in range(100)])

    assert most == 7


async def test_the_same_key_twice_in_a_batch_runs_once() -> None:
    pipeline = Pipeline("shop")
    runs: list[str] = []

    @pipeline.handler(sources.SQS("orders"), key="id")
    async def price(record: Record[dict[str, Any]]) -> None:
        runs.append(record.id)
        await asyncio.sleep(0)

    result = await ainvoke(price, [job(id=1), job(id=2), job(id=1)])

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Succeeded, Duplicate]
    assert runs == ["record-0", "record-1"]


async def test_the_same_message_id_twice_in_an_event_runs_once() -> None:
    pipeline = Pipeline("shop")

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None: ...

    result = await ainvoke(price, [job(n=1), job(n=1)], ids=["same", "same"])

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Duplicate]


@pytest.mark.parametrize("retry", [Backoff(), None])
async def test_a_hand_back_behind_a_failure_on_a_standard_queue_waits_no_shorter_than_the_failure(
    retry: Backoff | None,
) -> None:
    pipeline = Pipeline("shop")

    @pipeline.handler(sources.SQS("orders"), lane="customer", retry=retry)
    async def price(order: dict[str, Any]) -> None:
        raise ValueError("no")

    result, _ = await process(price.stage, records('{"customer": 1}', '{"customer": 1}'))

    failed, behind = result.outcomes
    assert isinstance(failed, Failed)
    assert isinstance(behind, Unprocessed)
    if retry is None:
        assert failed.delay is None
        assert behind.delay is None
    else:
        assert failed.delay is not None
        assert behind.delay is not None
        assert behind.delay >= failed.delay
