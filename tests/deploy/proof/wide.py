"""Declarations that use what the project's own pipelines do not, so that their template is proved too."""

from __future__ import annotations

from typing import Any

from pipeline import Claim, Function, Pipeline, sinks, sources, stores

ACCOUNT = "us-east-1:000000000000"

parcels = Pipeline("parcels", idempotency=Claim(store=stores.DynamoDB("parcel-keys")))
meters = Pipeline("meters")
places = Pipeline("places", idempotency=None)


@parcels.handler(
    sources.SQS("parcels.fifo", max_receive_count=5, filter={"state": [{"prefix": "s"}]}),
    sinks=[
        sinks.SQS("labels.fifo", group="parcel"),
        sinks.Kinesis("moves", partition_key="parcel"),
        sinks.DynamoDB("ledger", existing=f"arn:aws:dynamodb:{ACCOUNT}:table/shared-ledger"),
        sinks.S3("scans"),
    ],
    key="parcel",
    deploy=Function(
        timeout=900, memory=1769, environment={"CARRIER": "north"}, canary="Canary10Percent5Minutes",
    ),
)  # fmt: skip
async def ship(parcel: dict[str, Any]) -> dict[str, Any]:
    return parcel


@parcels.handler(
    sources.SQS("returns", existing=f"arn:aws:sqs:{ACCOUNT}:old-returns", batch_size=1_000, batching_window=300),
    sinks=[sinks.EventBridge("default", detail_type="parcel.returned")],
    rejects=sinks.SQS("bad-returns"),
)
async def take_back(parcel: dict[str, Any]) -> dict[str, Any]:
    return parcel


@meters.handler(
    sources.Kinesis(
        "readings", shards=2, batch_size=10_000, batching_window=5, starting_position="LATEST",
        parallelization_factor=3, retry_attempts=7, max_record_age=3_600, bisect=False, filter={"celsius": [{"numeric": [">", 80]}]},
    ),
    sinks=[sinks.EventBridge("heat", detail_type="too.hot")],
    deploy=Function(timeout=120),
)  # fmt: skip
async def watch(reading: dict[str, Any]) -> dict[str, Any]:
    return reading


@places.handler(
    sources.Kinesis("moves"),
    sinks=[sinks.DynamoDB("places", partition_key="parcel", sort_key="at")],
    rejects=sinks.SQS("bad-moves.fifo"),
)
async def follow(move: dict[str, Any]) -> dict[str, Any]:
    return move
