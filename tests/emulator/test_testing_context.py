"""`testing.context`: a handler's `Context` in a plain test."""

from __future__ import annotations

import json

import pytest

from pipeline import Batch, Context, Pipeline, sources
from pipeline.engine.environment import SystemClock
from pipeline.errors import PipelineError
from pipeline.outcome import Failed
from pipeline.testing import context, invoke


class Stopped(SystemClock):
    """A clock that stands."""

    def now(self) -> float:  # type: ignore[override]
        return 100.0

    def monotonic(self) -> float:  # type: ignore[override]
        return 5.0


def test_it_is_what_the_engine_makes(capsys: pytest.CaptureFixture[str]) -> None:
    given = context(pipeline="shop", handler="price")
    given.logger.info("step", extra={"sku": "a"})
    given.metrics.add_metric("Priced", "Count", 1)
    given.span.set_attribute("sku", "a")
    given.span.add_event("priced")

    line = json.loads(capsys.readouterr().out)
    assert (line["message"], line["service"], line["sku"]) == ("step", "shop", "a")
    assert given.metrics.metric_set["Priced"]["Value"] == [1.0]
    assert (given.pipeline, given.handler, given.remaining()) == ("shop", "price", None)
    assert not given.span.is_recording()


def test_its_time_runs_out() -> None:
    left = context(remaining=30, clock=Stopped()).remaining()
    assert left is not None
    assert 0 < left < 30


def test_invoke_tells_what_a_handler_measured() -> None:
    shop = Pipeline("shop", idempotency=None)

    @shop.handler(sources.SQS("orders"))
    async def weigh(order: dict[str, int], context: Context) -> None:
        context.metrics.add_metric("Grams", "Count", order["grams"])

    assert invoke(weigh, [{"grams": 3}, {"grams": 4}]).metrics == {"Grams": [3.0, 4.0]}
    assert invoke(weigh, []).metrics == {}


def test_invoke_names_the_handler_in_the_lines_of_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    shop = Pipeline("shop", idempotency=None)

    @shop.handler(sources.SQS("orders"))
    async def price(orders: Batch[str], context: Context) -> list[None]:
        context.logger.warning("price list is stale")
        return [None for _ in orders]

    invoke(price, ["a", "b"])

    line = json.loads(capsys.readouterr().out)
    assert (line["handler"], line["source"], line["cold_start"]) == ("price", "orders", True)
    assert "record_id" not in line


def test_an_error_under_invoke_has_only_the_handlers_own_context(capsys: pytest.CaptureFixture[str]) -> None:
    shop = Pipeline("shop", idempotency=None)
    contexts: list[BaseException | None] = []

    @shop.handler(sources.SQS("orders"))
    async def price(order: str, context: Context) -> None:
        try:
            raise ValueError("no such sku")
        except ValueError as error:
            contexts.append(error.__context__)
            context.logger.exception("not priced")
            raise

    result = invoke(price, ['"a"'])

    (failed,) = result.outcomes
    assert contexts == [None]
    assert isinstance(failed, Failed)
    assert failed.error.__context__ is None
    line = json.loads(capsys.readouterr().out)
    assert "no such sku" in line["exception"]
    assert "event loop" not in line["exception"]


async def test_invoke_says_what_to_call_inside_a_loop() -> None:
    shop = Pipeline("shop", idempotency=None)

    @shop.handler(sources.SQS("orders"))
    async def price(order: str) -> None: ...

    with pytest.raises(PipelineError, match="await ainvoke"):
        invoke(price, [])
