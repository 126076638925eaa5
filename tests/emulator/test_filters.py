"""Filters in the local run: what no pattern matches is deleted, or passed over, and counted."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from pipeline import Function, Pipeline, sources
from pipeline.cli import progress
from pipeline.emulator.report import Counts, Report, Tally
from pipeline.testing import local
from tests.support import aggregates

ORDERS = {"kind": ["order"]}


class Deliveries:
    """A runtime that notes the payloads of each invocation, and answers as told, else with success."""

    def __init__(self, *answers: Callable[[dict[str, Any]], Any]) -> None:
        self.batches: list[list[Any]] = []
        self._answers = list(answers)

    def invoke(self, event: dict[str, Any], context: Any) -> Any:
        self.batches.append([payload(record) for record in event["Records"]])
        return self._answers.pop(0)(event) if self._answers else None

    def close(self) -> None:
        pass


def payload(record: dict[str, Any]) -> Any:
    return json.loads(record["body"] if "body" in record else base64.b64decode(record["kinesis"]["data"]))


def reading(source: Any) -> Pipeline:
    shop = Pipeline("shop")

    @shop.handler(source, deploy=Function(timeout=5))
    def work(item: dict[str, Any]) -> None: ...

    return shop


def numbered(kinds: str) -> list[dict[str, Any]]:
    """An order for each "o", a refund for each "r"."""
    return [{"n": n, "kind": {"o": "order", "r": "refund"}[kind]} for n, kind in enumerate(kinds)]


async def test_a_message_that_does_not_match_is_deleted_and_takes_no_place_in_a_batch() -> None:
    source = sources.SQS("orders", batch_size=20, batching_window=60, filter=ORDERS)
    seen = Deliveries()
    async with local(reading(source), runtime=lambda *_: seen) as env:
        await env.send(
            "orders", [*numbered("ro" * 20), "order", '"order"', "5", '[{"kind":"order"}]', '{"kind":"order"']
        )
        report = await env.drain()
        assert await env.dead_letters("orders") == []
    # An array is searched too; what is not JSON, or no object, holds no "kind".
    orders = [item for item in numbered("ro" * 20) if item["kind"] == "order"]
    found = [item for batch in seen.batches for item in batch]
    assert len(found) == 21
    assert [item for item in orders if item not in found] == []
    assert [{"kind": "order"}] in found
    # One full batch, and what was left at the end of its window.
    assert [len(batch) for batch in seen.batches] == [20, 1]
    counts = report["work"]
    assert (counts.records, counts.succeeded, counts.filtered, counts.deliveries) == (21, 21, 24, 21)
    assert (counts.dead_lettered, counts.unsettled) == (0, 0)


@pytest.mark.parametrize(
    "source",
    [
        sources.SQS("items", batching_window=60, filter=ORDERS),
        sources.SQS("items.fifo", filter=[{"kind": ["none"]}, ORDERS]),
        sources.Kinesis("items", shards=2, filter=ORDERS),
    ],
    ids=["standard", "FIFO", "stream"],
)
async def test_a_run_whose_records_are_all_filtered_comes_to_its_end_without_an_invocation(source: Any) -> None:
    seen = Deliveries()
    async with local(reading(source), runtime=lambda *_: seen) as env:
        await env.send(source.name, numbered("r" * 30))
        report = await env.drain()
        again = await env.drain()
    assert seen.batches == []
    assert (report.records, report.filtered, report.deliveries) == (0, 30, 0)
    assert again == report


async def test_a_filtered_head_does_not_hold_its_group_up() -> None:
    seen = Deliveries()
    async with local(reading(sources.SQS("tasks.fifo", filter=ORDERS)), runtime=lambda *_: seen) as env:
        await env.send("tasks.fifo", numbered("rorroo"), key="g")
        report = await env.drain()
    assert [item["n"] for batch in seen.batches for item in batch] == [1, 4, 5]
    assert (report.succeeded, report.filtered) == (3, 3)


async def test_the_checkpoint_passes_what_is_filtered_and_stops_at_what_failed() -> None:
    def third_fails(event: dict[str, Any]) -> Any:
        return {"batchItemFailures": [{"itemIdentifier": event["Records"][2]["kinesis"]["sequenceNumber"]}]}

    seen = Deliveries(third_fails)
    source = sources.Kinesis("clicks", shards=1, batching_window=60, filter=ORDERS)
    async with local(reading(source), runtime=lambda *_: seen) as env:
        await env.send("clicks", numbered("roroorrorr"))
        report = await env.drain()
    assert [[item["n"] for item in batch] for batch in seen.batches] == [[1, 3, 4, 7], [4, 7]]
    counts = report["work"]
    assert (counts.records, counts.succeeded, counts.filtered, counts.deliveries) == (4, 4, 6, 6)


async def test_each_handler_of_a_stream_has_its_own_filter() -> None:
    shop = Pipeline("shop")
    seen: dict[str, list[int]] = {"orders": [], "refunds": [], "everything": []}

    @shop.handler(sources.Kinesis("events", shards=2, filter=ORDERS))
    def orders(item: dict[str, Any]) -> None:
        seen["orders"].append(item["n"])

    @shop.handler(sources.Kinesis("events", shards=2, filter={"kind": ["refund"], "n": [{"numeric": [">=", 5]}]}))
    def refunds(item: dict[str, Any]) -> None:
        seen["refunds"].append(item["n"])

    @shop.handler(sources.Kinesis("events", shards=2))
    def everything(item: dict[str, Any]) -> None:
        seen["everything"].append(item["n"])

    async with local(shop) as env:
        await env.send("events", [*numbered("oorrorrr"), b"\xff"])
        report = await env.drain()
    assert {name: sorted(found) for name, found in seen.items()} == {
        "orders": [0, 1, 4],
        "refunds": [5, 6, 7],
        "everything": list(range(8)),
    }
    assert {name: (counts.records, counts.filtered) for name, counts in report.handlers.items()} == {
        "orders": (3, 6),
        "refunds": (3, 6),
        "everything": (9, 0),  # what is not JSON is rejected
    }
    assert (report["everything"].rejected, report.filtered) == (1, 12)


async def test_an_aggregate_is_passed_over_whole_and_a_warning_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    inside = [("k", None, json.dumps(item).encode()) for item in numbered("oor")]
    seen = Deliveries()
    with caplog.at_level(logging.WARNING, logger="pipeline.emulator"):
        async with local(reading(sources.Kinesis("clicks", shards=1, filter=ORDERS)), runtime=lambda *_: seen) as env:
            await env.send("clicks", [aggregates.aggregate(inside), *numbered("o"), aggregates.aggregate(inside)])
            report = await env.drain()
    assert seen.batches == [[{"n": 0, "kind": "order"}]]
    assert (report.records, report.filtered) == (1, 6)
    (message,) = [record.getMessage() for record in caplog.records if "aggregated" in record.getMessage()]
    assert "passed over" in message


# What a person is told


def test_a_message_that_comes_twice_is_filtered_once() -> None:
    tally = Tally()
    tally.filtered(["a", "b"])
    tally.filtered(["b"])
    assert tally.counts(dead_lettered=0, drained=True) == Counts(filtered=2)


def test_the_report_counts_what_is_filtered_beside_the_records() -> None:
    report = Report({"first": Counts(succeeded=1, filtered=2), "second": Counts(filtered=3)})
    assert (report.records, report.filtered) == (1, 5)
    document = report.to_dict()
    assert (document["records"], document["filtered"], document["handlers"]["first"]["filtered"]) == (1, 5, 2)


def test_what_is_filtered_is_shown_only_when_there_is_any() -> None:
    some = Report({"price": Counts(succeeded=1, filtered=2), "ship": Counts()})
    assert ", 2 filtered" in progress.line("price", some["price"])
    assert "filtered" not in progress.line("ship", some["ship"])
    assert "filtered" in shown(some)
    assert "filtered" not in shown(Report({"ship": Counts()}))


def shown(report: Report) -> str:
    out = StringIO()
    Console(file=out, width=160).print(progress.table(report, {}))
    return out.getvalue()
