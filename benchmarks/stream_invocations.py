"""What is measured of streams: each function returns one way to handle an event of a Kinesis stream.

As in `invocations`: a handler that does nothing, no idempotency, no sink. Powertools and the bare loop
do not take aggregates apart, so they are given what AWS's own library makes of them, in both.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from typing import Any

from benchmarks.invocations import Invoke, ours, ours_silent, powertools_logger_and_metrics

#: Makes the records to handle of those of the event.
Unpack = Callable[[list[Any]], list[Any]]


def _stream() -> Any:
    from pipeline import sources

    return sources.Kinesis("orders", batch_size=10_000, batching_window=1)


def _deaggregate() -> Unpack:
    from aws_kinesis_agg.deaggregator import deaggregate_records

    return deaggregate_records


def _as_they_are() -> Unpack:
    return list


def bare(unpacks: Callable[[], Unpack] = _as_they_are) -> Invoke:
    unpack = unpacks()
    loop = asyncio.new_event_loop()

    async def price(order: dict[str, Any]) -> None:
        pass

    async def every(records: list[Any]) -> list[dict[str, str]]:
        for record in records:
            found = record["kinesis"]
            try:
                await price(json.loads(base64.b64decode(found["data"])))
            except Exception:  # a stream delivers everything behind the first failure again
                return [{"itemIdentifier": found["sequenceNumber"]}]
        return []

    def invoke(event: Any, context: Any) -> Any:
        return {"batchItemFailures": loop.run_until_complete(every(unpack(event["Records"])))}

    return invoke


def powertools_sync(unpacks: Callable[[], Unpack] = _as_they_are, *, tells: bool = False) -> Invoke:
    from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

    unpack = unpacks()
    processor = BatchProcessor(event_type=EventType.KinesisDataStreams)
    tell = powertools_logger_and_metrics() if tells else None

    def price(record: Any) -> None:
        record.kinesis.data_as_json()

    def invoke(event: Any, context: Any) -> Any:
        records = unpack(event["Records"])
        response = process_partial_response(
            event={"Records": records}, record_handler=price, processor=processor, context=context
        )
        if tell:
            tell(len(records))
        return response

    return invoke


def powertools_async(unpacks: Callable[[], Unpack] = _as_they_are, *, tells: bool = False) -> Invoke:
    from aws_lambda_powertools.utilities.batch import AsyncBatchProcessor, EventType, async_process_partial_response

    unpack = unpacks()
    processor = AsyncBatchProcessor(event_type=EventType.KinesisDataStreams)
    tell = powertools_logger_and_metrics() if tells else None

    async def price(record: Any) -> None:
        record.kinesis.data_as_json()

    def invoke(event: Any, context: Any) -> Any:
        records = unpack(event["Records"])
        response = async_process_partial_response(
            event={"Records": records}, record_handler=price, processor=processor, context=context
        )
        if tell:
            tell(len(records))
        return response

    return invoke


#: Name in the tables -> what makes it.
PLAIN: dict[str, Callable[[], Invoke]] = {
    "bare loop, json": bare,
    "ours, dict": lambda: ours(dict, _stream()),
    "ours, dict, no log or metrics": lambda: ours_silent(_stream()),
    "Powertools async": powertools_async,
    "Powertools async, log and metrics": lambda: powertools_async(tells=True),
    "Powertools sync": powertools_sync,
    "Powertools sync, log and metrics": lambda: powertools_sync(tells=True),
}
AGGREGATED: dict[str, Callable[[], Invoke]] = {
    "deaggregate, bare loop, json": lambda: bare(_deaggregate),
    "ours, dict": PLAIN["ours, dict"],
    "ours, dict, no log or metrics": PLAIN["ours, dict, no log or metrics"],
    "deaggregate, Powertools async, log and metrics": lambda: powertools_async(_deaggregate, tells=True),
    "deaggregate, Powertools sync, log and metrics": lambda: powertools_sync(_deaggregate, tells=True),
}
