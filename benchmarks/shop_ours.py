"""A deployed function: idempotency in DynamoDB, an SQS sink, a log line and metrics."""

from __future__ import annotations

import time

from pipeline import Pipeline, sinks, sources

IMPORTED = time.process_time()

shop = Pipeline("shop")


@shop.handler(sources.SQS("orders"), sinks=[sinks.SQS("priced")], key="order_id")
async def handler(order: dict) -> dict:
    return {"order_id": order["order_id"], "cents": sum(line["cents"] for line in order["lines"])}
