"""The public types, as a user's type checker sees them. Checked by mypy and pyright in strict mode.

A test imports it, so that every declaration is one that works; the functions at its end are never called.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict, assert_type

import msgspec
from pydantic import BaseModel

from pipeline import (
    Backoff,
    Batch,
    Claim,
    Context,
    Emit,
    Failure,
    Function,
    Handler,
    Middleware,
    Pipeline,
    Record,
    Reject,
    Retry,
    by,
    sinks,
    sources,
    stores,
)
from pipeline.engine.stage import Call
from pipeline.testing import InvokeResult, ainvoke, invoke, local


@dataclass
class Order:
    order_id: str
    quantity: int


@dataclass
class Priced:
    order_id: str
    cents: int


class Contact(TypedDict):
    name: str


class Point(msgspec.Struct):
    x: int


class Model(BaseModel):
    name: str


class Pool:
    async def fetch(self, key: str) -> int:
        return len(key)


shop = Pipeline(
    "shop",
    idempotency=Claim(store=stores.DynamoDB("entries"), lease=30),
    log_level="DEBUG",
    log_payloads=["card.number"],
    max_hops=4,
)
bare = Pipeline("bare", idempotency=None)


@shop.resource
async def pool() -> AsyncIterator[Pool]:
    yield Pool()


def timed(call: Call) -> Call:
    async def wrapped(record: Record[Any], context: Context) -> Any:
        return await call(record, context)

    return wrapped


middleware: Middleware = timed


@shop.handler(
    sources.SQS("orders", batch_size=100, batching_window=1, max_concurrency=5, max_receive_count=10),
    sinks=[
        sinks.DynamoDB("ledger", partition_key="order_id", sort_key=None),
        sinks.EventBridge("shop-events", detail_type="order.priced", source="shop"),
        sinks.SQS("priced", delay=5, name="out", when=lambda value: value is not None),
        sinks.File("out.ndjson"),
        sinks.Memory(),
    ],
    key="order_id",
    lane=("order_id",),
    concurrency=5,
    retry=Backoff(attempts=3, base=1, cap=60),
    reject_on=(KeyError, ValueError),
    rejects=sinks.SQS("rejected"),
    record_timeout=2.5,
    middleware=[timed],
    deploy=Function(timeout=60, memory=256),
)
async def price(order: Order, record: Record[Order], context: Context, pool: Pool) -> Priced:
    if order.quantity < 1:
        raise Reject("quantity")
    if (left := context.remaining()) is not None and left < 1:
        raise Retry(after=3)
    assert_type(record.payload, Order)
    assert_type(record.identity, str)
    assert_type(record.attempt, int)
    return Priced(order.order_id, await pool.fetch(order.order_id))


@shop.handler(sources.SQS("batched"), key=lambda order: order["id"])
async def batched(items: Batch[Order]) -> list[Priced | Failure | None]:
    for record in items:
        assert_type(record, Record[Order])
    assert_type(items[0].payload, Order)
    assert_type(items.payloads, list[Order])
    return [Failure(ValueError("no")) for _ in items]


@shop.handler(
    sources.Kinesis(
        "readings",
        shards=4,
        batch_size=500,
        batching_window=5,
        starting_position="LATEST",
        parallelization_factor=2,
        retry_attempts=100,
        max_record_age=3_600,
        bisect=False,
    ),
    sinks=[
        sinks.Kinesis("checked", partition_key="x", hash_key=None, carry=True, name="on", when=lambda value: True),
        sinks.S3("archive", prefix="{date}/{hour}/{key}/", compress=True),
    ],
    lane=by.partition_key,
    rejects=sinks.S3("rejected"),
)
async def check(reading: Point, record: Record[Point]) -> Point:
    assert_type(record.lane, str | None)
    assert_type(record.body, str | bytes)
    return reading


@bare.handler(
    sources.Kinesis("theirs", existing="arn:aws:kinesis:eu-west-1:111122223333:stream/theirs"),
    sinks=[sinks.S3("copies", existing="arn:aws:s3:::their-copies")],
    lane=by.shard,
    rejects=sinks.Kinesis("rejected"),
)
def copied(data: bytes) -> str:
    return data.hex()


out = sinks.Memory(name="out")


@bare.handler(sources.SQS("orders.fifo"), sinks=[out], lane=by.message_group, retry=None)
def plain(payload: Contact) -> Iterator[Emit[Contact]]:
    yield Emit(payload, to="out", key="k", id="i", attributes={"a": "b"}, delay=1)


@bare.handler(sources.SQS("structs"))
async def structs(payload: Point) -> AsyncIterator[Point]:
    yield payload


@bare.handler(sources.SQS("models"))
async def models(payload: Model) -> None: ...


class Custom:
    """Any object with a name and this `write` is a sink."""

    name = "custom"

    async def write(self, outputs: Any, environment: Any, deadline: Any) -> list[None]:
        return [None for _ in outputs]


@bare.handler(sources.SQS("custom"), sinks=[Custom()])
async def custom(payload: bytes) -> bytes | None:
    return None


handler_of_contacts: Handler[[Contact], Iterator[Emit[Contact]]] = plain


class LambdaContext:
    def get_remaining_time_in_millis(self) -> int:
        return 1000


def called() -> None:
    assert_type(Emit(1, to=out), Emit[int])
    assert_type(Emit(1, to=["out", out, Custom()]), Emit[int])
    assert_type(plain.function({"name": "a"}), Iterator[Emit[Contact]])
    assert_type(invoke(plain, [{"name": "a"}]), InvokeResult)
    assert_type(price({"Records": []}, LambdaContext()), dict[str, list[dict[str, str]]])


async def tested() -> None:
    assert_type(await price.function(Order("a", 1), _record(), _context(), Pool()), Priced)
    assert_type(await ainvoke(price, [Order("a", 1)], receive_count=2), InvokeResult)
    async with local(shop) as env:
        await env.send("orders", [{"order_id": "a"}], key="group", attributes={"a": "b"})
        report = await env.drain(timeout=5)
        assert_type(report.records, int)
        assert_type(report["price"].outputs["ledger"], int)
        await env.dead_letters("orders")
        env.client("dynamodb")
        assert_type(env.endpoint_url, str)


def _record() -> Record[Order]:
    raise NotImplementedError


def _context() -> Context:
    raise NotImplementedError


def refused() -> None:
    # What must be refused: an unused ignore is an error, so each of these lines is one.
    price.function("not an order")  # type: ignore[call-arg, arg-type, unused-coroutine]  # pyright: ignore[reportCallIssue, reportUnusedCoroutine]
    Pipeline(name=3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sources.SQS("q", 10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sources.Kinesis("s", 10)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sources.Kinesis("s", shards="2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sinks.S3("b", carry=False)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
