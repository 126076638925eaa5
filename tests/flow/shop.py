"""A pipeline for the flow scenarios: every outcome, two sinks, standard and FIFO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline import Backoff, Pipeline, Record, Reject, sinks, sources

shop = Pipeline("shop")


@dataclass
class Order:
    order_id: str
    quantity: int = 1
    fails: int = 0  #: how many runs of it fail


@dataclass
class Priced:
    order_id: str
    cents: int
    attempt: int


QUICK = Backoff(attempts=3, base=1)


@shop.handler(
    sources.SQS("orders", batch_size=10),
    sinks=[sinks.DynamoDB("ledger", partition_key="order_id"), sinks.SQS("priced")],
    key="order_id",
    retry=QUICK,
)
async def price(record: Record[Order]) -> Priced:
    order = record.payload
    if order.quantity < 1:
        raise Reject("quantity must be at least 1")
    if record.attempt <= order.fails:
        raise ValueError(f"run {record.attempt} fails")
    return Priced(order.order_id, 250 * order.quantity, record.attempt)


@shop.handler(
    sources.SQS("parcels.fifo"),
    sinks=[sinks.SQS("shipped.fifo")],
    key=("parcel", "n"),
    retry=QUICK,
)
def ship(record: Record[dict[str, Any]]) -> dict[str, Any]:
    if record.attempt <= record.payload.get("fails", 0):
        raise ValueError(f"run {record.attempt} fails")
    return {"parcel": record.payload["parcel"], "n": record.payload["n"]}
