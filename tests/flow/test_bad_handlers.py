"""Handlers that misbehave, through the Lambda entry point: the answer is right, in time, and the next one works."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from pipeline import Batch, Claim, Context, Failure, Handler, Pipeline, sinks, sources, stores
from pipeline.outcome import Failed, Succeeded
from pipeline.output import Output
from pipeline.telemetry.events import BatchFinished, Fact
from pipeline.testing import ainvoke
from tests.flow.events import Invocation, event, failed, log_lines, message, orders

Keep = Callable[[Handler[..., Any]], Handler[..., Any]]
Order = dict[str, Any]


class Kept:
    """A pipeline whose claims, outputs and rejected records stay in this process."""

    def __init__(self, **claim: Any) -> None:
        self.store = stores.Memory()
        self.pipeline = Pipeline("shop", idempotency=Claim(store=self.store, **claim))
        self.sink = sinks.Memory()
        self.rejects = sinks.Memory(name="rejects")
        self.ran: list[str] = []
        self.loops: list[asyncio.AbstractEventLoop] = []

    def handler(self, **options: Any) -> Callable[[Callable[..., Any]], Handler[..., Any]]:
        return self.pipeline.handler(
            sources.SQS("orders"), sinks=[self.sink], rejects=self.rejects, key="order_id", **options
        )

    @property
    def written(self) -> list[str]:
        return sorted(value["order_id"] for value in self.sink.values)

    def statuses(self) -> list[str]:
        return sorted(entry.status for entry in self.store.entries.values())


def reasons(out: str) -> dict[str, str]:
    """Why each record failed, by its id, as the log tells it."""
    return {line["record_id"]: line["reason"] for line in log_lines(out, "record.failed")}


# What it raises

RAISED = [
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    asyncio.CancelledError(),
    StopIteration(),
    StopAsyncIteration(),
]


def raising(kind: str, act: Callable[[Order], Order]) -> Callable[..., Any]:
    async def coroutine(order: Order) -> Order:
        return act(order)

    def plain(order: Order) -> Order:
        return act(order)

    async def async_generator(order: Order) -> AsyncIterator[Order]:
        yield act(order)

    def generator(order: Order) -> Iterator[Order]:
        yield act(order)

    return locals()[kind]  # type: ignore[no-any-return]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", ["coroutine", "plain", "async_generator", "generator"])
def test_whatever_a_handler_raises_only_its_own_record_comes_back_and_the_environment_lives_on(
    closing: Keep, kind: str, error: BaseException
) -> None:
    kept = Kept()

    def act(order: Order) -> Order:
        kept.ran.append(order["order_id"])
        if order["order_id"] == "bad" and kept.ran.count("bad") == 1:
            raise error
        return order

    price = closing(kept.handler()(raising(kind, act)))

    first = failed(price(orders("a", "bad", "c"), Invocation()))
    again = failed(price(orders("a", "bad", "c"), Invocation()))

    assert first == ["m1"]
    assert again == []
    assert sorted(kept.ran) == ["a", "bad", "bad", "c"]
    assert kept.written == ["a", "bad", "c"]


def test_a_handler_that_cancels_its_own_task_fails_alone(closing: Keep) -> None:
    kept = Kept()

    @kept.handler(concurrency=1)
    async def price(order: Order) -> Order:
        if order["order_id"] == "bad":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(0)
        return order

    response = closing(price)(orders("a", "bad", "c"), Invocation())

    assert failed(response) == ["m1"]
    assert kept.written == ["a", "c"]


def test_a_key_function_that_exits_rejects_its_own_record_only(closing: Keep) -> None:
    pipeline, rejects = Pipeline("shop", idempotency=Claim(store=stores.Memory())), sinks.Memory()

    def key(order: Order) -> str:
        if order["order_id"] == "bad":
            raise SystemExit(3)
        return str(order["order_id"])

    @pipeline.handler(sources.SQS("orders"), key=key, rejects=rejects)
    async def price(order: Order) -> None: ...

    assert failed(closing(price)(orders("a", "bad", "c"), Invocation())) == []
    assert len(rejects.outputs) == 1


# Handlers that do not end


def test_a_handler_that_hangs_in_an_await_is_answered_in_time_and_the_environment_is_kept(
    closing: Keep, capsys: Any
) -> None:
    kept = Kept()

    @kept.handler()
    async def price(order: Order) -> Order:
        kept.loops.append(asyncio.get_running_loop())
        if order["order_id"] == "hangs":
            await asyncio.Event().wait()
        return order

    invocation = Invocation(1.0)
    response = closing(price)(orders("a", "hangs", "c"), invocation)
    took = invocation.took
    price(orders("d"), Invocation())

    assert failed(response) == ["m1"]
    assert took < 1.0
    assert reasons(capsys.readouterr().out) == {"m1": "the handler did not finish before the invocation's time was up"}
    assert kept.written == ["a", "c", "d"]
    assert len(set(kept.loops)) == 1, "nothing was left running, so nothing is given up"


def test_a_handler_that_hangs_in_a_thread_is_answered_in_time_keeps_its_claim_and_the_next_invocation_works(
    closing: Keep, capsys: Any
) -> None:
    kept = Kept()
    go_on = threading.Event()

    @kept.handler()
    def price(order: Order) -> Order:
        kept.ran.append(order["order_id"])
        if order["order_id"] == "hangs":
            go_on.wait(30)
        return order

    invocation = Invocation(1.0)
    response = closing(price)(orders("a", "hangs", "c"), invocation)
    took = invocation.took
    statuses = kept.statuses()
    again = price(event(message("m1", {"order_id": "hangs"}), message("m3", {"order_id": "d"})), Invocation())
    go_on.set()

    assert failed(response) == ["m1"]
    assert took < 1.0
    assert "did not finish before the invocation's time was up" in reasons(capsys.readouterr().out)["m1"]
    assert statuses == ["COMPLETED", "COMPLETED", "INPROGRESS"]
    assert failed(again) == ["m1"], "its claim is still held"
    assert kept.written == ["a", "c", "d"]
    assert kept.ran.count("hangs") == 1


@pytest.mark.parametrize("how", ["blocks", "spins"])
def test_a_handler_that_blocks_the_loop_is_answered_in_time_and_the_finished_records_keep_their_success(
    closing: Keep, capsys: Any, how: str
) -> None:
    kept = Kept()
    go_on = threading.Event()

    @kept.handler(concurrency=2)
    async def price(order: Order) -> Order:
        kept.ran.append(order["order_id"])
        kept.loops.append(asyncio.get_running_loop())
        if order["order_id"] == "hangs":
            while kept.written != ["a", "b"]:  # noqa: ASYNC110 - a sink of the pipeline's tells nobody
                await asyncio.sleep(0)
            if how == "blocks":
                go_on.wait(30)
            while how == "spins" and not go_on.is_set():
                pass
        return order

    invocation = Invocation(1.2)
    response = closing(price)(orders("a", "b", "hangs", "c"), invocation)
    took = invocation.took
    again = price(orders("a", "b", "d"), Invocation())
    written = kept.written
    go_on.set()

    assert took < 1.2
    assert "m2" in failed(response)
    assert {"m0", "m1"}.isdisjoint(failed(response))
    assert "did not finish before the invocation's time was up" in reasons(capsys.readouterr().out)["m2"]
    assert failed(again) == []
    assert [name for name in written if name != "c"] == ["a", "b", "d"]
    assert len(set(kept.loops)) == 2, "the blocked environment was given up"


def test_a_thread_that_ends_late_writes_nothing_any_more(closing: Keep) -> None:
    kept = Kept()
    go_on, ended = threading.Event(), threading.Event()

    @kept.handler()
    def price(order: Order) -> Order:
        go_on.wait(30)
        ended.set()
        return order

    response = closing(price)(orders("a"), Invocation(0.6))
    go_on.set()
    ended.wait(5)
    price(orders("b"), Invocation())  # gives what was given up a turn to do harm

    assert failed(response) == ["m0"]
    assert kept.written == ["b"]


# What it returns

COUNT = 10_000


class Slow:
    """A sink that knows how far the handler is ahead of it."""

    name = "slow"

    def __init__(self) -> None:
        self.made = 0
        self.taken: list[Any] = []
        self.calls: list[int] = []
        self.bytes: list[int] = []
        self.ahead = 0

    def count(self, value: Any) -> Any:
        self.made += 1
        self.ahead = max(self.ahead, self.made - len(self.taken))
        return value

    async def write(self, outputs: Sequence[Output], environment: Any, deadline: Any) -> list[None]:
        self.calls.append(len(outputs))
        self.bytes.append(sum(len(output.body) for output in outputs))
        await asyncio.sleep(0)
        self.taken += [output.value for output in outputs]
        return [None] * len(outputs)


async def streamed(kind: str, values: Callable[[], Iterator[Any]]) -> tuple[Any, Slow]:
    sink = Slow()
    pipeline = Pipeline("shop")

    async def async_generator(order: Order) -> AsyncIterator[Any]:
        for value in values():
            yield sink.count(value)

    def generator(order: Order) -> Iterator[Any]:
        for value in values():
            yield sink.count(value)

    def list_(order: Order) -> list[Any]:
        return [sink.count(value) for value in values()]

    price = pipeline.handler(sources.SQS("orders"), sinks=[sink])(locals()[kind])
    return await ainvoke(price, [{}]), sink


@pytest.mark.parametrize(("kind", "ahead"), [("list_", COUNT), ("generator", 1_100), ("async_generator", 1_000)])
async def test_ten_thousand_outputs_all_arrive_in_order_and_a_generator_is_never_far_ahead(
    kind: str, ahead: int
) -> None:
    result, sink = await streamed(kind, lambda: iter(range(COUNT)))

    (outcome,) = result.outcomes
    assert outcome == Succeeded(COUNT)
    assert sink.taken == list(range(COUNT))
    assert sink.ahead <= ahead
    assert kind == "list_" or max(sink.calls) <= 1_000


@pytest.mark.parametrize(("kind", "ahead"), [("generator", 111), ("async_generator", 11)])
async def test_large_outputs_are_held_up_to_a_mebibyte(kind: str, ahead: int) -> None:
    large = "x" * 100_000

    result, sink = await streamed(kind, lambda: iter([large] * 300))

    assert isinstance(result.outcomes[0], Succeeded)
    assert len(sink.taken) == 300
    assert max(sink.bytes) < 1_048_576 + 100_000
    assert sink.ahead <= ahead


@pytest.mark.parametrize("kind", ["generator", "async_generator"])
async def test_a_failure_before_the_limit_leaves_nothing_written(kind: str) -> None:
    def values() -> Iterator[Any]:
        yield from range(999)
        raise ValueError("no")

    result, sink = await streamed(kind, values)

    assert isinstance(result.outcomes[0], Failed)
    assert str(result.outcomes[0].error) == "no"
    assert sink.taken == []


async def test_an_output_that_cannot_be_encoded_leaves_nothing_of_its_record_written() -> None:
    result, sink = await streamed("async_generator", lambda: iter([1, 2, object(), 4]))

    (outcome,) = result.outcomes
    assert isinstance(outcome, Failed)
    assert "cannot write a object as JSON" in str(outcome.error)
    assert sink.taken == []


# Batch handlers


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda items: [None], "for 3 records it returned 1 results"),
        (lambda items: [None] * 4, "for 3 records it returned 4 results"),
        (lambda items: None, "for 3 records it returned NoneType"),
        (lambda items: {"a": 1}, "for 3 records it returned dict"),
        (lambda items: 1 / 0, "division by zero"),
        (lambda items: (_ for _ in ()).throw(SystemExit(3)), "3"),
        (lambda items: (_ for _ in ()).throw(GeneratorExit()), "GeneratorExit"),
    ],
    ids=["too few", "too many", "nothing", "no list", "raises", "exits", "closes"],
)
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_batch_handler_without_a_result_for_each_position_fails_them_all_and_says_why(
    closing: Keep, capsys: Any, answer: Callable[..., Any], says: str, kind: str
) -> None:
    kept = Kept()
    if kind == "async":

        @kept.handler()
        async def price(items: Batch[Order]) -> Any:
            kept.ran.append("once")
            return answer(items) if len(kept.ran) == 1 else list(items.payloads)
    else:

        @kept.handler()
        def price(items: Batch[Order]) -> Any:
            kept.ran.append("once")
            return answer(items) if len(kept.ran) == 1 else list(items.payloads)

    response = closing(price)(orders("a", "b", "c"), Invocation())
    found = reasons(capsys.readouterr().out)
    again = price(orders("a", "b", "c"), Invocation())

    assert failed(response) == ["m0", "m1", "m2"]
    assert set(found) == {"m0", "m1", "m2"}
    assert all(says in reason for reason in found.values())
    assert failed(again) == []
    assert kept.written == ["a", "b", "c"]


def test_a_batch_handlers_failure_of_one_position_fails_that_record_only(closing: Keep, capsys: Any) -> None:
    kept = Kept()

    @kept.handler()
    async def price(items: Batch[Order]) -> list[Any]:
        return [Failure(ValueError("no")) if item["order_id"] == "bad" else item for item in items.payloads]

    response = closing(price)(orders("a", "bad", "c"), Invocation())

    assert failed(response) == ["m1"]
    assert reasons(capsys.readouterr().out) == {"m1": "no"}
    assert kept.written == ["a", "c"]


def test_a_damaged_record_takes_no_place_in_a_batch_handlers_batch(closing: Keep) -> None:
    kept = Kept()

    @kept.handler()
    async def price(items: Batch[Order]) -> list[Any]:
        kept.ran += [item["order_id"] for item in items.payloads]
        return list(items.payloads)

    given = event(message("m0", {"order_id": "a"}), message("bad", "not json"), message("m2", {"order_id": "c"}))

    assert failed(closing(price)(given, Invocation())) == []
    assert sorted(kept.ran) == ["a", "c"]
    assert len(kept.rejects.outputs) == 1


# Resources


class Pool:
    pass


@pytest.mark.parametrize("error", [OSError("refused"), SystemExit(3), asyncio.CancelledError()], ids=repr)
def test_a_resource_that_fails_to_open_fails_the_records_and_the_next_batch_tries_again(
    closing: Keep, capsys: Any, error: BaseException
) -> None:
    kept = Kept()
    opened: list[str] = []

    @kept.pipeline.resource
    async def pool() -> AsyncIterator[Pool]:
        opened.append("open")
        if len(opened) == 1:
            raise error
        yield Pool()
        opened.append("close")

    @kept.handler()
    async def price(order: Order, pool: Pool) -> Order:
        return order

    invocation = Invocation(5)
    first = failed(price(orders("a", "b"), invocation))
    took = invocation.took
    found = reasons(capsys.readouterr().out)
    again = failed(price(orders("a", "b"), Invocation()))
    price(orders("c"), Invocation())
    price.close()

    assert first == ["m0", "m1"]
    assert took < 2, "it is known at once"
    assert set(found) == {"m0", "m1"}
    assert again == []
    assert kept.written == ["a", "b", "c"]
    assert opened == ["open", "open", "close"]


def test_a_resource_that_hangs_while_it_opens_is_tried_anew_by_the_next_invocation(closing: Keep) -> None:
    kept = Kept()
    opened: list[str] = []

    @kept.pipeline.resource
    async def pool() -> AsyncIterator[Pool]:
        opened.append("open")
        if len(opened) == 1:
            await asyncio.Event().wait()
        yield Pool()

    @kept.handler()
    async def price(order: Order, pool: Pool) -> Order:
        return order

    first = failed(closing(price)(orders("a"), Invocation(0.6)))
    again = failed(price(orders("a"), Invocation(2)))

    assert (first, again) == (["m0"], [])
    assert kept.written == ["a"]


def test_a_resource_of_an_environment_that_was_given_up_is_closed_too(closing: Keep) -> None:
    kept = Kept()
    go_on, closed = threading.Event(), threading.Event()

    @kept.pipeline.resource
    async def pool() -> AsyncIterator[Pool]:
        try:
            yield Pool()
        finally:
            closed.set()

    @kept.handler()
    def price(order: Order, pool: Pool) -> Order:
        if order["order_id"] == "hangs":
            go_on.wait(30)
        return order

    response = closing(price)(orders("hangs"), Invocation(0.6))
    was_closed = closed.wait(5)
    go_on.set()

    assert failed(response) == ["m0"]
    assert was_closed


def test_a_resource_that_fails_to_close_does_not_keep_the_others_open(closing: Keep) -> None:
    kept = Kept()
    closed: list[str] = []

    @kept.pipeline.resource
    async def first() -> AsyncIterator[Pool]:
        yield Pool()
        closed.append("first")

    @kept.pipeline.resource
    async def second() -> AsyncIterator[Kept]:
        yield kept
        raise OSError("already gone")

    @kept.handler()
    async def price(order: Order, one: Pool, two: Kept, context: Context) -> Order:
        return order

    assert failed(price(orders("a"), Invocation())) == []
    with pytest.raises(OSError, match="already gone"):
        price.close()
    assert closed == ["first"]


def test_every_record_has_one_outcome_and_the_facts_agree_with_the_answer() -> None:
    from pipeline.runtimes.awslambda import LambdaRuntime

    kept, facts = Kept(), list[Fact]()

    @kept.handler()
    def price(order: Order) -> Order:
        if order["order_id"] == "bad":
            raise SystemExit(3)
        return order

    runtime = LambdaRuntime(price.stage, observers=[facts.append])
    started = time.monotonic()
    response = runtime.invoke(orders("a", "bad", "a"), Invocation())
    runtime.close()

    (finished,) = [fact for fact in facts if isinstance(fact, BatchFinished)]
    assert [type(outcome).__name__ for outcome in finished.result.outcomes] == ["Succeeded", "Failed", "Duplicate"]
    assert [record.id for record in finished.result.unsettled()] == failed(response) == ["m1"]
    assert time.monotonic() - started < 10


def test_a_task_that_a_handler_left_behind_cannot_end_the_loop_under_the_others() -> None:
    kept = Kept()
    left: list[asyncio.Task[None]] = []

    async def stray() -> None:
        raise SystemExit(3)

    @kept.handler()
    async def price(order: dict[str, str]) -> dict[str, str]:
        if order["order_id"] == "bad":
            left.append(asyncio.create_task(stray()))
            for _ in range(2):
                await asyncio.sleep(0)
        return order

    assert failed(price(orders("a", "bad", "c"), Invocation(3))) == []
    assert failed(price(orders("d"), Invocation(3))) == []
    assert isinstance(left[0].exception(), SystemExit)
    price.close()


def test_a_resource_that_fails_to_close_leaves_no_loop_behind() -> None:
    kept = Kept()

    @kept.pipeline.resource
    async def second() -> AsyncIterator[Kept]:
        yield kept
        raise OSError("already gone")

    @kept.handler()
    async def price(order: dict[str, str], two: Kept) -> dict[str, str]:
        return order

    price(orders("a"), Invocation())
    before = threading.active_count()
    with pytest.raises(OSError, match="already gone"):
        price.close()

    assert threading.active_count() < before
