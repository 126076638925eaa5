"""Calling the user's function: what it asks for, batches, threads, resources, middleware."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline import Batch, Context, Failure, Pipeline, Record, Reject, sources
from pipeline.engine.stage import Call
from pipeline.errors import PipelineError
from pipeline.outcome import Failed, Rejected, Succeeded, Unprocessed
from pipeline.stores import Memory
from pipeline.testing import ainvoke
from tests.engine.harness import Sink, process, records


@dataclass
class Order:
    n: int


def shop() -> Pipeline:
    return Pipeline("shop")


async def test_a_function_may_take_its_payload_the_record_the_context_and_resources() -> None:
    pipeline = shop()
    seen: list[Any] = []

    @pipeline.handler(sources.SQS("orders"))
    async def price(context: Context, order: Order, record: Record[Order], verbose: bool = False) -> None:
        seen.append((context.pipeline, context.handler, context.remaining(), order, record))

    await ainvoke(price, ['{"n": 1}'], attributes={"tenant": "x"}, receive_count=3, remaining=60)

    ((name, handler, remaining, order, record),) = seen
    assert (name, handler, order) == ("shop", "price", Order(1))
    assert 0 < remaining < 60
    assert record.payload is order
    assert (record.id, record.source, record.attempt, record.receive_count) == ("record-0", "orders", 1, 3)
    assert (record.identity, record.body, record.hops) == ('"record-0"', '{"n": 1}', 0)
    assert record.attributes == {"tenant": "x"}


async def test_a_function_may_take_nothing_of_the_payload() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"))
    async def count() -> None: ...

    @pipeline.handler(sources.SQS("others"))
    async def look(record: Record[Any]) -> None: ...

    assert len((await ainvoke(count, ["not json"])).of(Succeeded)) == 1
    assert len((await ainvoke(look, ["not json"])).of(Rejected)) == 1


@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_a_batch_handler_gets_the_records_that_may_run_together_and_answers_each(kind: str) -> None:
    sink, calls = Sink(), list[list[int]]()

    def answers(orders: Batch[Order]) -> list[Any]:
        calls.append([order.payload.n for order in orders])
        return [
            None
            if n % 5 == 0
            else Failure(ValueError("no"))
            if n % 5 == 1
            else Failure(Reject("never"))
            if n % 5 == 2
            else n
            for n in (record.payload.n for record in orders)
        ]

    async def asynchronous(orders: Batch[Order]) -> list[Any]:
        return answers(orders)

    def plain(orders: Batch[Order]) -> list[Any]:
        return answers(orders)

    handler = shop().handler(sources.SQS("orders"), sinks=[sink], concurrency=100)(
        asynchronous if kind == "async" else plain
    )
    done, letters = await process(handler.stage, records(*(f'{{"n": {n}}}' for n in range(10)), "broken"))

    assert calls == [list(range(10))]
    kinds = [type(outcome) for outcome in done.outcomes]
    assert kinds == [Succeeded, Failed, Rejected, Succeeded, Succeeded] * 2 + [Rejected]
    assert sink.values == [3, 4, 8, 9]
    assert len(letters.letters) == 3


async def test_a_batch_handler_never_gets_two_records_of_a_lane() -> None:
    calls: list[list[int]] = []

    async def price(orders: Batch[Order]) -> list[None]:
        calls.append([order.payload.n for order in orders])
        return [None] * len(orders)

    handler = shop().handler(sources.SQS("orders.fifo"))(price)
    await ainvoke(handler, [f'{{"n": {n}}}' for n in range(6)], groups=["a", "a", "b", "b", "b", "c"])

    assert sorted(n for call in calls for n in call) == list(range(6))
    assert calls[0] == [0, 2, 5]
    assert [1, 3] in calls


@pytest.mark.parametrize(
    ("result", "says"),
    [([None], "for 2 records it returned 1 results"), (None, "returned NoneType"), ("ab", "returned str")],
)
async def test_a_batch_handler_that_does_not_answer_each_position_fails_them_all(result: Any, says: str) -> None:
    async def price(orders: Batch[Order]) -> Any:
        return result

    handler = shop().handler(sources.SQS("orders"))(price)
    done = await ainvoke(handler, ['{"n": 1}', '{"n": 2}'])

    assert len(done.of(Failed)) == 2
    assert all(says in str(outcome.error) for _, outcome in done.of(Failed))


async def test_a_batch_handler_that_raises_fails_every_record_of_the_call() -> None:
    async def price(orders: Batch[Order]) -> list[None]:
        raise LookupError("down")

    done = await ainvoke(shop().handler(sources.SQS("orders"))(price), ['{"n": 1}', '{"n": 2}'])

    assert [type(outcome.error) for _, outcome in done.of(Failed)] == [LookupError, LookupError]


async def test_a_record_that_failed_a_batch_call_comes_alone_the_next_time() -> None:
    calls: list[list[int]] = []

    async def price(orders: Batch[Order]) -> list[None]:
        calls.append([order.payload.n for order in orders])
        if any(order.payload.n == 3 for order in orders):
            raise LookupError("poison")
        return [None] * len(orders)

    handler, store = shop().handler(sources.SQS("orders"))(price), Memory()
    raw = records(*(f'{{"n": {n}}}' for n in range(6)))
    first, _ = await process(handler.stage, raw, store=store)
    second, _ = await process(handler.stage, raw, store=store)

    assert len(first.of(Failed)) == 6
    assert [type(outcome) for outcome in second.outcomes] == [Succeeded] * 3 + [Failed] + [Succeeded] * 2
    assert calls[0] == list(range(6))
    assert sorted(calls[1:]) == [[n] for n in range(6)]


def test_a_batch_is_a_sequence() -> None:
    record: Any = object()
    batch: Batch[Any] = Batch([record, record])

    assert len(batch) == 2
    assert batch[0] is record
    assert isinstance(batch[:1], Batch)
    assert list(batch) == [record, record]


async def test_plain_functions_run_in_threads_side_by_side_and_bounded() -> None:
    barrier = threading.Barrier(10, timeout=20)
    threads: set[int] = set()

    @shop().handler(sources.SQS("orders"))
    def price(order: Order) -> None:
        threads.add(threading.get_ident())
        barrier.wait()  # passes only when ten are here at once

    done = await ainvoke(price, [f'{{"n": {n}}}' for n in range(20)])

    assert len(done.of(Succeeded)) == 20
    assert len(threads) == 10
    assert threading.get_ident() not in threads


async def test_context_variables_of_the_caller_are_seen_in_threads() -> None:
    tenant: contextvars.ContextVar[str] = contextvars.ContextVar("tenant")
    seen: list[str] = []

    def for_tenant(call: Call) -> Call:
        async def wrapped(record: Record[Any], context: Context) -> Any:
            tenant.set(f"t{record.payload.n}")
            return await call(record, context)

        return wrapped

    @shop().handler(sources.SQS("orders"), middleware=[for_tenant])
    def price(order: Order) -> None:
        seen.append(f"{tenant.get()} of {order.n}")

    await ainvoke(price, ['{"n": 1}', '{"n": 2}'])

    assert sorted(seen) == ["t1 of 1", "t2 of 2"]


async def test_middleware_wraps_from_the_outside_in_and_may_change_the_result() -> None:
    steps: list[str] = []
    sink = Sink()

    def step(name: str) -> Any:
        def middleware(call: Call) -> Call:
            async def wrapped(record: Record[Any], context: Context) -> Any:
                steps.append(f"{name} in")
                result = await call(record, context)
                steps.append(f"{name} out")
                return {**result, name: True}

            return wrapped

        return middleware

    async def price(order: Order) -> dict[str, Any]:
        steps.append("price")
        return {"n": order.n}

    handler = shop().handler(sources.SQS("orders"), sinks=[sink], middleware=[step("outer"), step("inner")])(price)
    await process(handler.stage, records('{"n": 1}'))

    assert steps == ["outer in", "inner in", "price", "inner out", "outer out"]
    assert sink.values == [{"n": 1, "inner": True, "outer": True}]


class Pool:
    def __init__(self) -> None:
        self.open = True


async def test_a_resource_is_made_once_shared_and_closed_at_the_end() -> None:
    pipeline = shop()
    made: list[Pool] = []

    @pipeline.resource
    async def pool() -> AsyncIterator[Pool]:
        made.append(Pool())
        await asyncio.sleep(0)
        yield made[-1]
        made[-1].open = False

    used: list[Pool] = []

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order, pool: Pool) -> None:
        assert pool.open
        used.append(pool)

    await ainvoke(price, [f'{{"n": {n}}}' for n in range(5)])

    assert len(made) == 1
    assert used == made * 5
    assert not made[0].open


async def test_a_resource_that_does_not_open_fails_the_records_and_is_tried_again() -> None:
    pipeline = shop()
    tries: list[int] = []

    @pipeline.resource
    async def pool() -> AsyncIterator[Pool]:
        tries.append(1)
        if len(tries) == 1:
            raise ConnectionError("refused")
        yield Pool()

    @pipeline.handler(sources.SQS("orders"), concurrency=1)
    async def price(order: Order, pool: Pool) -> None: ...

    done = await ainvoke(price, ['{"n": 1}', '{"n": 2}'])

    assert [type(outcome) for outcome in done.outcomes] == [Failed, Succeeded]
    assert "the resource pool did not open: ConnectionError: refused" in str(done.of(Failed)[0][1].error)


async def test_a_resource_that_stays_away_costs_no_attempt() -> None:
    pipeline, store = shop(), Memory()

    @pipeline.resource
    async def pool() -> AsyncIterator[Pool]:
        raise ConnectionError("refused")
        yield Pool()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order, pool: Pool) -> None: ...

    for _ in range(8):
        done, letters = await process(price.stage, records('{"n": 1}'), store=store)

        assert len(done.of(Failed)) == 1
        assert letters.letters == []


async def test_a_resource_that_yields_nothing_fails_the_record_and_says_so() -> None:
    pipeline = shop()

    @pipeline.resource
    async def nothing() -> AsyncIterator[Pool]:
        if False:
            yield Pool()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order, pool: Pool) -> None: ...

    done = await ainvoke(price, ['{"n": 1}'])

    assert "the resource nothing yielded nothing" in str(done.of(Failed)[0][1].error)


async def test_a_resource_that_yields_twice_is_told_at_the_end() -> None:
    pipeline = shop()

    @pipeline.resource
    async def twice() -> AsyncIterator[Pool]:
        yield Pool()
        yield Pool()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order, pool: Pool) -> None: ...

    with pytest.raises(PipelineError, match="yielded twice"):
        await ainvoke(price, ['{"n": 1}'])


async def test_a_cancelled_batch_is_cancelled_and_claims_nothing_more() -> None:
    waiting = asyncio.Event()

    @shop().handler(sources.SQS("orders"))
    async def price(order: Order) -> None:
        waiting.set()
        await asyncio.Event().wait()

    running = asyncio.ensure_future(ainvoke(price, ['{"n": 1}']))
    await waiting.wait()
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_batch_handler_that_hangs_is_cut_off_with_the_deadline() -> None:
    async def price(orders: Batch[Order]) -> list[None]:
        await asyncio.Event().wait()
        return []

    done = await ainvoke(shop().handler(sources.SQS("orders"))(price), ['{"n": 1}', '{"n": 2}'], remaining=1)

    assert len(done.of(Failed)) == 2
    assert not done.of(Unprocessed)
