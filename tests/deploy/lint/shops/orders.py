"""A queue to a queue, with idempotency."""

from __future__ import annotations

from typing import Any

from pipeline import Claim, Pipeline, sinks, sources

shop = Pipeline("shop", idempotency=Claim(ttl=1_209_600))


@shop.handler(
    sources.SQS("orders", filter={"kind": ["order"]}), sinks=[sinks.SQS("priced"), sinks.S3("archive")], key="id"
)
def price(order: dict[str, Any]) -> dict[str, Any]:
    return order
