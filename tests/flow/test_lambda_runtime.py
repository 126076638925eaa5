"""The Lambda entry point around its records: what it opens, when, and what it prints."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline import Claim, Context, Handler, Pipeline, PipelineError, Record, Reject, sinks, sources, stores
from tests.flow.events import Invocation, event, failed, json_lines, log_lines, message, metric_lines, orders

Keep = Callable[[Handler[..., Any]], Handler[..., Any]]
Order = dict[str, Any]
SECRET = "hunter2-marker"


def shop(name: str = "shop", **options: Any) -> Pipeline:
    return Pipeline(name, idempotency=Claim(store=stores.Memory()), **options)


# Opening and closing


async def test_calling_a_handler_inside_a_running_loop_raises_and_names_the_way_out(closing: Keep) -> None:
    pipeline, ran = shop(), list[str]()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order) -> None:
        ran.append(order["order_id"])

    with pytest.raises(PipelineError, match=r"price was called inside a running event loop.*await price\.ainvoke\("):
        price(orders("a"), Invocation())

    assert ran == []
    assert failed(await closing(price).ainvoke(orders("a"), Invocation())) == []
    assert ran == ["a"]


def test_importing_a_module_that_declares_a_pipeline_opens_nothing() -> None:
    script = """
        import sys, threading
        opened = []
        sys.addaudithook(lambda name, given: opened.append(name) if name.startswith(("socket.", "subprocess.")) else None)
        import tests.flow.shop as module
        import asyncio
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        clients = sorted(name for name in sys.modules if name.startswith(("aiobotocore", "botocore", "boto3", "aiohttp")))
        print([opened, threading.active_count(), clients, module.price.name])
    """
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent.parent,
    )  # fmt: skip

    assert found.stdout.strip() == "[[], 1, [], 'price']"
    assert found.stderr == ""


def test_nothing_is_opened_before_the_first_record_and_one_thread_and_loop_serve_every_invocation(
    closing: Keep,
) -> None:
    pipeline, seen = shop(), list[tuple[int, int]]()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order) -> None:
        seen.append((id(asyncio.get_running_loop()), threading.get_ident()))

    closing(price)
    before = threading.active_count()
    price(event(), Invocation())
    unopened = threading.active_count()
    for name in "abc":
        assert failed(price(orders(name), Invocation())) == []
    price.close()

    assert unopened == before
    assert len(set(seen)) == 1
    assert threading.active_count() == before


def test_a_closed_handler_opens_anew(closing: Keep) -> None:
    pipeline, ran = shop(), list[str]()

    @pipeline.handler(sources.SQS("orders"), key="order_id")
    async def price(order: Order) -> None:
        ran.append(order["order_id"])

    closing(price)
    for names in (["a"], ["a", "b"]):
        assert failed(price(orders(*names), Invocation())) == []
        price.close()
        price.close()

    assert ran == ["a", "b"]


def test_environments_in_which_something_hangs_leave_no_more_behind_than_the_hanging_threads(
    closing: Keep, capfd: Any
) -> None:
    pipeline, go_on = shop(), threading.Event()

    @pipeline.handler(sources.SQS("orders"))
    def price(order: Order) -> None:
        go_on.wait(30)

    before = set(threading.enumerate())
    for name in "abc":
        assert failed(closing(price)(orders(name), Invocation(0.6))) == ["m0"]
    price.close()
    go_on.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(10)

    assert set(threading.enumerate()) <= before
    assert capfd.readouterr().err == ""


# What it prints


@dataclass
class Login:
    user: str
    attempts: int


@pytest.mark.parametrize(
    "body",
    [
        f"{SECRET} is no JSON",
        f'{{"user": "{SECRET}"',
        f'{{"user": "{SECRET}", "attempts": "{SECRET}"}}',
        f'{{"user": "{SECRET}", "attempts": 1, "user": {{"{SECRET}": 1}}}}',
        f'["{SECRET}"]',
        f'"{SECRET}"',
        f"{SECRET} \ud800",
    ],
)
@pytest.mark.parametrize("dead_letters", ["there", "missing"])
def test_a_rejected_records_text_is_in_no_line_that_is_printed(
    closing: Keep, capfd: Any, body: str, dead_letters: str
) -> None:
    class Refusing:
        name = "rejects"

        async def write(self, outputs: Any, environment: Any, deadline: Any) -> Any:
            raise OSError("out of reach")

    pipeline = shop(log_level="DEBUG")
    rejects: Any = sinks.Memory() if dead_letters == "there" else Refusing()

    @pipeline.handler(sources.SQS("orders"), rejects=rejects)
    async def login(attempt: Login) -> None: ...

    response = closing(login)(event(message("bad", body)), Invocation())

    out, err = capfd.readouterr()
    assert failed(response) == ([] if dead_letters == "there" else ["bad"])
    assert log_lines(out, "record.rejected" if dead_letters == "there" else "record.failed")[0]["record_id"] == "bad"
    assert SECRET not in out
    assert err == ""


def named(line: dict[str, Any]) -> tuple[Any, ...]:
    return (line["service"], line["handler"], line["record_id"], line["attempt"], line["order_id"])


def test_log_lines_of_interleaved_records_carry_their_own_records_names(closing: Keep, capsys: Any) -> None:
    pipeline = shop()
    together = asyncio.Barrier(2)

    @pipeline.handler(sources.SQS("orders"), key="order_id")
    async def price(order: Order, context: Context) -> None:
        for step in range(3):
            context.logger.info("step", extra={"order_id": order["order_id"], "step": step})
            await together.wait()

    closing(price)(orders("a", "b"), Invocation())

    lines = log_lines(capsys.readouterr().out, "step")
    assert [line["step"] for line in lines] == [0, 0, 1, 1, 2, 2], "they interleave"
    assert {named(line) for line in lines} == {("shop", "price", "m0", 1, "a"), ("shop", "price", "m1", 1, "b")}
    hashes = {line["order_id"]: line["key_hash"] for line in lines}
    assert len({(line["order_id"], line["key_hash"]) for line in lines}) == len(set(hashes.values())) == 2


def test_log_lines_of_threads_side_by_side_carry_their_own_records_names(closing: Keep, capsys: Any) -> None:
    pipeline = shop()
    together = threading.Barrier(3)

    @pipeline.handler(sources.SQS("orders"), key="order_id")
    def price(record: Record[Order], context: Context) -> None:
        together.wait(10)
        context.logger.info("step", extra={"order_id": record.payload["order_id"]})
        together.wait(10)

    closing(price)(orders("a", "b", "c"), Invocation())

    lines = log_lines(capsys.readouterr().out, "step")
    expected = [("shop", "price", f"m{position}", 1, name) for position, name in enumerate("abc")]
    assert sorted(named(line) for line in lines) == expected
    assert len({line["key_hash"] for line in lines}) == 3


def test_the_attempt_in_a_log_line_counts_runs_and_the_engines_own_lines_name_the_record_too(
    closing: Keep, capsys: Any
) -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"), key="order_id")
    async def price(order: Order, context: Context) -> None:
        context.logger.info("step", extra={"order_id": order["order_id"]})
        raise ValueError("no")

    for _ in range(2):
        closing(price)(orders("a"), Invocation())

    out = capsys.readouterr().out
    assert [line["attempt"] for line in log_lines(out, "step")] == [1, 2]
    lines = log_lines(out, "record.failed")
    assert [(line["record_id"], line["attempt"], line["error"], line["reason"]) for line in lines] == [
        ("m0", 1, "ValueError", "no"),
        ("m0", 2, "ValueError", "no"),
    ]
    assert [line["key_hash"] for line in lines] == [line["key_hash"] for line in log_lines(out, "step")]
    assert not any("record_id" in line for line in log_lines(out, "batch.finished")), "it is of no single record"


def test_each_invocation_prints_one_metrics_line_with_the_count_of_each_outcome(closing: Keep, capsys: Any) -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"), key="order_id", rejects=sinks.Memory())
    async def price(order: Order, context: Context) -> None:
        context.metrics.add_metric(name="Priced", unit="Count", value=1)
        if order["order_id"] == "never":
            raise Reject("never")
        if order["order_id"] == "later":
            raise ValueError("later")

    closing(price)(orders("a", "never", "later", "a", "later"), Invocation())
    first = metric_lines(capsys.readouterr().out)
    price(orders("b"), Invocation())
    second = metric_lines(capsys.readouterr().out)

    names = [f"Records{name}" for name in ("Succeeded", "Duplicate", "Rejected", "Exhausted", "Failed", "HandedBack")]
    assert [[line.get(name) for name in names] for line in first] == [[[1.0], [1.0], [1.0], None, [1.0], [1.0]]]
    assert [[line.get(name) for name in names] for line in second] == [[[1.0], *[None] * 5]]
    assert first[0]["BatchSize"] == [5.0]
    assert first[0]["Priced"] == [1.0, 1.0, 1.0]
    assert (first[0]["service"], first[0]["handler"]) == ("shop", "price")
    assert first[0]["_aws"]["CloudWatchMetrics"][0]["Namespace"] == "shop"


def test_an_invocation_that_runs_out_of_time_prints_its_metrics_line_all_the_same(closing: Keep, capsys: Any) -> None:
    pipeline, go_on = shop(), threading.Event()

    @pipeline.handler(sources.SQS("orders"), key="order_id")
    async def price(order: Order) -> None:
        go_on.wait(30)

    response = closing(price)(orders("blocks"), Invocation(0.6))
    out = capsys.readouterr().out
    go_on.set()

    assert failed(response) == ["m0"]
    (line,) = metric_lines(out)
    assert line["RecordsFailed"] == [1.0]
    assert [found["record_id"] for found in log_lines(out, "record.failed")] == ["m0"]


def test_every_printed_line_is_json(closing: Keep, capsys: Any) -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order) -> None:
        raise ValueError("two\nlines")

    closing(price)(orders("a"), Invocation())

    assert len(json_lines(capsys.readouterr().out)) == 3


def test_a_key_function_that_hangs_does_not_hold_the_answer_up(closing: Keep) -> None:
    pipeline, go_on = shop(), threading.Event()

    def key(order: Order) -> str:
        if order["order_id"] == "slow":
            go_on.wait(30)
        return order["order_id"]

    @pipeline.handler(sources.SQS("orders"), key=key)
    async def price(order: Order) -> None: ...

    started = time.monotonic()
    response = closing(price)(orders("a", "slow", "c"), Invocation(0.6))
    took = time.monotonic() - started
    go_on.set()

    assert failed(response) == ["m0", "m1", "m2"]
    assert took < 0.6
