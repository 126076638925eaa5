"""What the tests of faults run: a plain handler that counts in a table, and a pipeline with two handlers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import boto3

from pipeline import Pipeline, Reject, sinks, sources
from pipeline.emulator.faults.kinds import Kind
from pipeline.emulator.faults.plan import Faults
from pipeline.emulator.faults.rules import Rule
from pipeline.testing import Emulator, Invocation

_MADE: dict[str, Any] = {}


def client(service: str) -> Any:
    """boto3's, made once: that takes longer than a run. No call of it leaves the process."""
    if service not in _MADE:
        _MADE[service] = boto3.client(
            service, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )
    return _MADE[service]


@dataclass
class Counted:
    """A run of the counting handler."""

    faults: Faults
    counts: dict[str, int]
    invocations: list[Invocation]
    is_empty: bool
    dead: list[Any]
    seconds: float
    batches: list[list[str]] = field(default_factory=list)

    @property
    def fired(self) -> list[Kind]:
        return [one.kind for one in self.faults.fired]


def count(
    faults: Faults | Rule | Iterable[Rule] | str, *bodies: str, seed: int = 0, name: str = "orders", **settings: Any
) -> Counted:
    """Send bodies to a queue, and count each in a table: a handler that does twice what comes twice."""
    batches: list[list[str]] = []

    def handler(event: Any, context: Any) -> Any:
        batches.append([record["body"] for record in event["Records"]])
        failed = []
        for record in event["Records"]:
            key = {"id": {"S": record["body"]}}
            one = {":one": {"N": "1"}}
            try:
                client("dynamodb").update_item(
                    TableName="counts", Key=key, UpdateExpression="ADD n :one", ExpressionAttributeValues=one
                )
            except Exception:
                failed.append({"itemIdentifier": record["messageId"]})
        return {"batchItemFailures": failed}

    with Emulator(seed=seed, faults=faults) as aws:
        orders = aws.queue(name, max_receive_count=4)
        counts = aws.table("counts")
        mapping = aws.map(orders, handler, report_batch_item_failures=True, **settings)
        orders.send(*bodies, group="g" if name.endswith(".fifo") else None)
        start = aws.now
        aws.run()
        assert aws.faults is not None
        assert orders.dead_letters is not None
        found = {item["id"]: item["n"] for item in counts.items}
        return Counted(
            aws.faults,
            found,
            mapping.invocations,
            orders.is_empty,
            orders.dead_letters.bodies,
            aws.now - start,
            batches,
        )


@dataclass
class Sold:
    """A run of the shop."""

    faults: Faults
    runs: list[str]
    shipped: list[str]
    ledger: set[str]
    dead: list[str]
    report: Any


def sell(
    faults: Faults | Rule | Iterable[Rule] | str | None, *names: str, is_async: bool = True, seed: int = 0
) -> Sold:
    """Orders go into a table and to a FIFO queue, and from there to a second handler; "no" is rejected."""
    shop = Pipeline("shop", log_level="CRITICAL")
    runs: list[str] = []
    shipped: list[str] = []

    def run(order: dict[str, Any]) -> dict[str, Any]:
        runs.append(order["id"])
        if order["id"] == "no":
            raise Reject("no")
        return order

    declared = shop.handler(
        sources.SQS("orders"), sinks=[sinks.DynamoDB("ledger"), sinks.SQS("parcels.fifo")], key="id"
    )
    if is_async:

        @declared
        async def price(order: dict[str, Any]) -> dict[str, Any]:
            return run(order)
    else:

        @declared
        def price(order: dict[str, Any]) -> dict[str, Any]:
            return run(order)

    @shop.handler(sources.SQS("parcels.fifo"), key="id")
    def ship(parcel: dict[str, Any]) -> None:
        shipped.append(parcel["id"])

    with Emulator(seed=seed, faults=faults) as aws:
        aws.add(shop)
        aws.send("orders", [{"id": name} for name in names])
        report = aws.run()
        items = aws.client("dynamodb").scan(TableName="ledger")["Items"]
        dead = [json.loads(letter.body)["id"] for letter in aws.dead_letters("orders") if letter.body.startswith("{")]
        assert aws.dead_letters("parcels.fifo") == [] or "poison" in str(aws.dead_letters("parcels.fifo"))
        return Sold(aws.faults or Faults(), runs, shipped, {item["id"]["S"] for item in items}, sorted(dead), report)
