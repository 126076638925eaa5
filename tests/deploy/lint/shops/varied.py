"""What templates are generated from in many ways: options, filters, canaries, somebody else's resources, a store of one's own."""

from __future__ import annotations

from typing import Any

from pipeline import Claim, Function, Pipeline, sinks, sources, stores

Order = dict[str, Any]

_THEIRS = "arn:aws:{}:eu-west-1:444455556666:{}"

varied = Pipeline("varied", idempotency=Claim(store=stores.DynamoDB("seen")))
lent = Pipeline("lent")
told = Pipeline("told", idempotency=None)


@varied.handler(
    sources.SQS("Many_orders", batch_size=1_000, batching_window=20, max_concurrency=7, filter=[{"a": [1]}, {"b": [{"exists": False}]}]),
    sinks=[sinks.EventBridge("default", detail_type="order"), sinks.DynamoDB("book", partition_key="id", sort_key="at")],
    key="id",
    deploy=Function(timeout=900, memory=1_769, environment={"MODE": "fast"}, canary="Canary10Percent5Minutes"),
)  # fmt: skip
def sort(order: Order) -> Order:
    """Sorts."""
    return order


@varied.handler(sources.SQS("turns.fifo", max_receive_count=30), sinks=[sinks.SQS("next.fifo")], key="id", retry=None)
def turn(order: Order) -> Order:
    return order


@varied.handler(sources.SQS("next.fifo"), sinks=[sinks.Kinesis("ticks")], key="id")
def tick(order: Order) -> Order:
    return order


@varied.handler(
    sources.Kinesis(
        "ticks", shards=2, batch_size=7, batching_window=3, starting_position="LATEST", parallelization_factor=2,
        retry_attempts=9, max_record_age=300_000, filter={"kind": ["tick"]},
    ),
    rejects=sinks.S3("odd"),
    key="id",
)  # fmt: skip
def count(order: Order) -> None: ...


@lent.handler(
    sources.SQS("theirs", existing=_THEIRS.format("sqs", "inbox"), filter={"kind": ["order"]}),
    sinks=[
        sinks.SQS("out", existing=_THEIRS.format("sqs", "outbox")),
        sinks.S3("archive", existing="arn:aws:s3:::their-archive"),
    ],
    key="id",
)
def lend(order: Order) -> Order:
    return order


@lent.handler(sources.Kinesis("river", existing=_THEIRS.format("kinesis", "stream/river")), key="id")
def listen(order: Order) -> None: ...


@told.handler(sources.SQS("news"), sinks=[sinks.SQS("letters")])
def tell(order: Order) -> Order:
    return order


@told.handler(sources.Kinesis("ticks"))
def watch(order: Order) -> None: ...
