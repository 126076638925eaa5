"""Events as Lambda delivers them from a queue: a JSON body of about 1 KB in each record."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

ARN = "arn:aws:sqs:eu-west-1:123456789012:orders"


@dataclass
class Address:
    name: str
    street: str
    city: str
    country: str


@dataclass
class Line:
    sku: str
    quantity: int
    cents: int
    title: str


@dataclass
class Order:
    """What a body holds."""

    order_id: str
    customer_id: int
    placed_at: str
    express: bool
    address: Address
    lines: list[Line]
    note: str


def body(number: int) -> str:
    """One order as JSON text, about 1 KB."""
    order = {
        "order_id": f"order-{number:08d}",
        "customer_id": 40_000_000 + number,
        "placed_at": "2025-11-03T09:14:22.318Z",
        "express": number % 3 == 0,
        "address": {"name": "Ada Lovelace", "street": "12 St James's Square", "city": "London", "country": "GB"},
        "lines": [
            {
                "sku": f"SKU-{number % 97:03d}-{line}",
                "quantity": line + 1,
                "cents": 1299 + line,
                "title": "Left-handed mug",
            }
            for line in range(6)
        ],
        "note": "Please leave the parcel with the neighbour at number 14 when nobody answers. " * 4,
    }
    return json.dumps(order)


def event(size: int, *, first: int = 0) -> dict[str, Any]:
    """An event of `size` records."""
    return {"Records": [_record(number) for number in range(first, first + size)]}


def event_text(size: int, *, first: int = 0) -> str:
    """The same as Lambda's runtime gets it, before it is decoded."""
    return json.dumps(event(size, first=first))


def _record(number: int) -> dict[str, Any]:
    text = body(number)
    digest = hashlib.md5(text.encode()).hexdigest()
    return {
        "messageId": f"{digest[:8]}-{digest[8:12]}-4{digest[13:16]}-8{digest[17:20]}-{digest[20:]}",
        "receiptHandle": f"AQEB{digest * 6}",
        "body": text,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": str(1_762_161_262_000 + number),
            "SenderId": "AIDAEXAMPLE",
            "ApproximateFirstReceiveTimestamp": str(1_762_161_262_100 + number),
        },
        "messageAttributes": {},
        "md5OfBody": digest,
        "eventSource": "aws:sqs",
        "eventSourceARN": ARN,
        "awsRegion": "eu-west-1",
    }


class LambdaContext:
    """Lambda's context object, as far as the two sides read it."""

    function_name = "orders"
    memory_limit_in_mb = 512
    invoked_function_arn = "arn:aws:lambda:eu-west-1:123456789012:function:orders"
    aws_request_id = "0f0e0d0c-0b0a-4908-8706-050403020100"

    def get_remaining_time_in_millis(self) -> int:
        return 900_000
