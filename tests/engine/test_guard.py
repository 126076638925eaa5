"""Isolation: one bad record fails alone, whatever it does."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline import Backoff, Pipeline, Record, Reject, Retry, sinks, sources
from pipeline.engine.stage import Call
from pipeline.errors import EncodeError, KeyMissing, PayloadError, PipelineError
from pipeline.outcome import Failed, Rejected, Succeeded
from pipeline.testing import ainvoke


@dataclass
class Order:
    order_id: str
    quantity: int = 1


def shop() -> Pipeline:
    return Pipeline("shop")


GOOD = {"order_id": "good"}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "the body is empty"),
        ("not json", "the body is not JSON"),
        ('{"order_id": 7}', "Expected `str`, got `int`"),
        ("[1]", "Expected `object`, got `array`"),
        (b"\xff\xfe{", "not valid UTF-8"),
        ('{"order_id": "x"', "the body is not JSON"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
async def test_a_body_that_cannot_be_the_payload_is_rejected_and_no_other_record_suffers(body: Any, says: str) -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order) -> None: ...

    result = await ainvoke(price, [GOOD, body, GOOD | {"order_id": "other"}])

    first, damaged, last = result.outcomes
    assert isinstance(first, Succeeded)
    assert isinstance(last, Succeeded)
    assert isinstance(damaged, Rejected)
    assert isinstance(damaged.error, PayloadError)
    assert says in str(damaged.error)
    assert [letter.record.body for letter in result.dead_letters] == [body]


async def test_a_lone_surrogate_and_integers_beyond_64_bits_reach_the_handler_as_json_means_them() -> None:
    pipeline = shop()
    seen: list[Any] = []

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: dict[str, Any]) -> None:
        seen.append(order)

    await ainvoke(price, ['{"name": "\\ud800"}', '{"n": 123456789012345678901234567890}'])

    assert seen == [{"name": "\ud800"}, {"n": 123456789012345678901234567890}]


async def test_big_integers_stay_apart_as_keys() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"), key="n")
    async def price(order: dict[str, Any]) -> None: ...

    result = await ainvoke(price, ['{"n": 10000000000000000000001}', '{"n": 10000000000000000000002}'])

    assert len(result.of(Succeeded)) == 2


async def test_a_megabyte_body_is_handled() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"))
    async def price(text: str) -> None:
        assert len(text) == 1_048_576

    result = await ainvoke(price, ["x" * 1_048_576])

    assert len(result.of(Succeeded)) == 1


@pytest.mark.parametrize(
    "error",
    [ValueError("no"), SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError(), StopIteration(), TimeoutError()],
)
@pytest.mark.parametrize("kind", ["async", "sync"])
async def test_whatever_a_handler_raises_fails_its_own_record_only(error: BaseException, kind: str) -> None:
    pipeline = shop()

    def act(order: Order) -> None:
        if order.order_id == "bad":
            raise error

    if kind == "async":

        @pipeline.handler(sources.SQS("orders"))
        async def price(order: Order) -> None:
            act(order)
    else:

        @pipeline.handler(sources.SQS("orders"))
        def price(order: Order) -> None:
            act(order)

    result = await ainvoke(price, [GOOD, {"order_id": "bad"}, {"order_id": "third"}])

    assert isinstance(result.outcomes[0], Succeeded)
    assert isinstance(result.outcomes[1], Failed)
    assert isinstance(result.outcomes[2], Succeeded)
    assert [record.id for record in result.unsettled()] == ["record-1"]


async def test_a_result_that_json_cannot_hold_fails_its_record_and_names_the_type() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"), sinks=[sinks.Memory()])
    async def price(order: Order) -> object:
        return {"order": object()} if order.order_id == "bad" else {"fine": True}

    result = await ainvoke(price, [{"order_id": "bad"}, GOOD])

    failed, succeeded = result.outcomes
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, EncodeError)
    assert "object" in str(failed.error)
    assert isinstance(succeeded, Succeeded)
    assert result.outputs["memory"] == [{"fine": True}]


async def test_reject_goes_to_the_dead_letters_at_once_with_its_cause() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order) -> None:
        raise Reject("quantity must be at least 1")

    result = await ainvoke(price, [GOOD])

    (outcome,) = result.outcomes
    assert isinstance(outcome, Rejected)
    assert not outcome.exhausted
    assert result.unsettled() == []
    assert result.dead_letters[0].cause == "Reject: quantity must be at least 1"
    assert result.dead_letters[0].handler == "shop.price"


async def test_reject_on_names_errors_that_mean_never() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"), reject_on=LookupError)
    async def price(order: Order) -> None:
        raise KeyError(order.order_id)

    result = await ainvoke(price, [GOOD])

    assert isinstance(result.outcomes[0], Rejected)


async def test_retry_after_sets_the_delay_and_counts_the_run() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"), retry=Backoff(attempts=2))
    async def price(order: Order) -> None:
        raise Retry(after=42)

    first = await ainvoke(price, [GOOD])
    last = await ainvoke(price, [GOOD], receive_count=2, store=None)

    assert isinstance(first.outcomes[0], Failed)
    assert first.outcomes[0].delay == 42
    assert isinstance(last.outcomes[0], Failed)  # a store of its own: this is its first run


async def test_a_missing_or_empty_key_is_rejected() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"), key="order_id")
    async def price(order: dict[str, Any]) -> None: ...

    result = await ainvoke(price, [{"other": 1}, {"order_id": ""}, {"order_id": None}, {"order_id": 0}])

    assert [type(outcome) for outcome in result.outcomes] == [Rejected, Rejected, Rejected, Succeeded]
    assert all(isinstance(outcome.error, KeyMissing) for _, outcome in result.of(Rejected))


async def test_a_key_function_that_fails_rejects_its_record_only() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"), key=lambda order: order["customer"]["id"])
    async def price(order: dict[str, Any]) -> None: ...

    result = await ainvoke(price, [{"customer": {"id": 1}}, {"customer": None}])

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Rejected]


async def test_a_middleware_that_fails_fails_its_record() -> None:
    pipeline = shop()

    def refusing(call: Call) -> Call:
        async def wrapped(record: Record[Any], context: Any) -> Any:
            raise PipelineError("refused")

        return wrapped

    @pipeline.handler(sources.SQS("orders"), middleware=[refusing])
    async def price(order: Order) -> None: ...

    result = await ainvoke(price, [GOOD])

    assert isinstance(result.outcomes[0], Failed)


async def test_a_record_beyond_the_hop_limit_is_rejected_with_the_cause() -> None:
    from dataclasses import replace

    from pipeline.record import Carried, RawRecord
    from tests.engine.harness import process

    pipeline = Pipeline("shop", max_hops=3)

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order) -> None: ...

    records = [
        RawRecord(id=str(hops), source="orders", body='{"order_id": "a"}', carried=Carried(id=str(hops), hops=hops))
        for hops in (3, 4)
    ]
    result, letters = await process(replace(price.stage), records)

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Rejected]
    assert "has passed 4 handlers; the limit is 3" in letters.letters[0].cause


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


async def test_an_exception_that_cannot_be_told_fails_its_own_record_only() -> None:
    from tests.engine.harness import process, records

    @Pipeline("shop", idempotency=None).handler(sources.SQS("orders"))
    async def price(order: Order) -> None:
        if order.order_id == "bad":
            raise Unspeakable

    raw = records('{"order_id": "a"}', '{"order_id": "bad"}', '{"order_id": "c"}', receive_count=5)
    result, letters = await process(price.stage, raw)

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Rejected, Succeeded]
    assert letters.letters[0].cause == "Unspeakable: (no message: its __str__ raised RuntimeError)"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), asyncio.CancelledError(), GeneratorExit()])
async def test_whatever_a_key_function_raises_rejects_its_own_record_only(error: BaseException) -> None:
    def key(order: Any) -> str:
        if order["id"] == "bad":
            raise error
        return str(order["id"])

    @shop().handler(sources.SQS("orders"), key=key)
    async def price(order: dict[str, Any]) -> None: ...

    result = await ainvoke(price, [{"id": "a"}, {"id": "bad"}])

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Rejected]


async def test_an_observer_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(fact: Any) -> None:
        raise LookupError("broken")

    @shop().handler(sources.SQS("orders"), sinks=[sinks.Memory()])
    async def price(order: Order) -> Order:
        return order

    result = await ainvoke(price, [GOOD, "damaged"], observers=[broken])

    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Rejected]
    assert "an observer failed at BatchStarted" in caplog.text
