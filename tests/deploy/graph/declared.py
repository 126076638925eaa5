"""Pipelines that name each kind of thing: a stream with two readers, a loop, queues that join, a sink of one's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import msgspec
import pydantic

from pipeline import Batch, Emit, Failure, Pipeline, Record, by, sinks, sources

ARN = "arn:aws:sqs:eu-west-1:111122223333:theirs.fifo"


class Console:
    """A user's own sink."""

    name = 'console "x" <y>'

    async def write(self, outputs: Any, environment: Any, deadline: Any) -> list[None]:
        return [None] * len(outputs)


@dataclass
class Click:
    user: str
    place: tuple[int, str]


class Paid(msgspec.Struct, tag="paid"):
    cents: int


class Refunded(msgspec.Struct, tag="refunded"):
    cents: int
    why: str | None = None


class Line(TypedDict):
    text: str


class Address(pydantic.BaseModel):
    city: str


class Customer(pydantic.BaseModel):
    name: str
    address: Address
    friends: list[Customer] = []


def shop_of(click: Click) -> str:
    return click.user


def is_large(value: Any, limit: int) -> bool:
    return len(str(value)) > limit


front = Pipeline("front")
back = Pipeline("back")
kept = sinks.Memory(name="kept")


@front.handler(
    sources.Kinesis("clicks", batch_size=1_000, batching_window=2, parallelization_factor=4),
    sinks=[sinks.SQS("payments"), sinks.Kinesis("clicks", partition_key="user"), kept],
    lane=by.partition_key,
    key=("user", "place"),
)
async def count(click: Click) -> Paid | Refunded | None: ...


@front.handler(
    sources.Kinesis("clicks"),
    sinks=[sinks.File("out/clicks.ndjson"), Console(), kept],
    lane=shop_of,
    key=lambda click: click.user,
    rejects=sinks.DynamoDB("rejected", partition_key="click"),
)
async def watch(clicks: Batch[Click]) -> list[Line | Failure]: ...


@back.handler(
    sources.SQS("payments", batch_size=20, batching_window=3, max_concurrency=5, filter={"body": {"cents": [1]}}),
    sinks=[
        sinks.EventBridge("shop-events", detail_type="payment.made"),
        sinks.DynamoDB("ledger", partition_key="id", sort_key="at"),
        sinks.S3("archive", prefix="{date}/", name="all", when=partial(is_large, limit=10)),
    ],
)
async def pay(payment: Paid | Refunded) -> AsyncIterator[Emit[list[Customer]]]:
    yield Emit([])


@back.handler(sources.SQS("orders", existing=ARN), sinks=[sinks.SQS("payments", name="again")], key="name")
def invoice(customer: Customer) -> tuple[Customer, ...]: ...


@back.handler(sources.SQS("payments-dlq"), sinks=[sinks.SQS("letters.fifo", group="id")])
def look(letter: Record[str]) -> str: ...


@back.handler(sources.SQS("letters.fifo"))
def file(letter: bytes) -> None: ...
