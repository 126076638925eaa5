"""Filters from end to end: every record that is sent is accounted for, and only what matches has effects."""

from __future__ import annotations

import json
from typing import Any

from pipeline import Pipeline, Reject, sinks, sources
from pipeline.testing import ainvoke, local

shop = Pipeline("shop")


@shop.handler(
    sources.SQS("events", batch_size=50, batching_window=1, filter=[{"kind": ["order"]}, {"urgent": [True]}]),
    sinks=[sinks.Kinesis("orders", partition_key="id")],
    key="id",
)
def take(event: dict[str, Any]) -> dict[str, Any]:
    if "total" not in event:
        raise Reject("an event needs a total")
    return event


@shop.handler(
    sources.Kinesis(
        "orders",
        shards=2,
        filter={"$or": [{"total": [{"numeric": [">", 100]}]}, {"customer": {"tier": [{"prefix": "go"}]}}]},
    ),
    sinks=[sinks.DynamoDB("large", partition_key="id")],
    key="id",
)
def keep(order: dict[str, Any]) -> dict[str, Any]:
    return {"id": order["id"]}


def events() -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for n in range(60):
        event: dict[str, Any] = {"id": f"e{n}", "kind": ("order", "refund", "visit")[n % 3], "total": n * 5}
        if n % 7 == 0:
            event["urgent"] = True
        if n % 11 == 0:
            event["customer"] = {"tier": "gold"}
        if n % 30 == 0:
            del event["total"]
        made.append(event)
    return made


async def test_every_record_is_taken_filtered_or_rejected_and_only_what_matches_goes_on() -> None:
    sent = events()
    wanted = [event for event in sent if event["kind"] == "order" or "urgent" in event]
    taken = [event for event in wanted if "total" in event]
    large = {event["id"] for event in taken if event["total"] > 100 or "customer" in event}
    async with local(shop) as env:
        await env.send("events", [*sent, "not json", sent[3]])
        report = await env.drain()
        table = await env.client("dynamodb").scan(TableName="large")
        assert {item["id"]["S"] for item in table["Items"]} == large
        assert len(await env.dead_letters("events")) == len(wanted) - len(taken)
    first, second = report["take"], report["keep"]
    assert 0 < len(large) < len(taken) < len(wanted) < len(sent)
    assert (first.succeeded, first.duplicates, first.rejected) == (len(taken), 1, len(wanted) - len(taken))
    assert first.records + first.filtered == len(sent) + 2
    assert second.succeeded == second.records == len(large)
    assert second.records + second.filtered == first.outputs["orders"] == len(taken)
    assert (report.exhausted, report.totals.unsettled) == (0, 0)


async def test_lost_responses_and_repeats_change_nothing_about_what_is_filtered() -> None:
    sent = events()
    async with local(shop, faults=4) as env:
        await env.send("events", sent)
        report = await env.drain()
    assert report["take"].records + report["take"].filtered == len(sent)
    assert report["keep"].records + report["keep"].filtered >= report["take"].succeeded


async def test_invoke_runs_whatever_it_is_given() -> None:
    result = await ainvoke(take, [{"id": "a", "kind": "visit", "total": 1}])
    assert [json.loads(json.dumps(value))["id"] for value in result.outputs["orders"]] == ["a"]
