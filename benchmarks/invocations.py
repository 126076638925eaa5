"""What is measured: each function returns one way to handle an event, ready to be called.

A no-op handler, no idempotency, no sink, so that what is left is the machinery around the handler.
Each runs in a process of its own: importing one side must not slow the other down.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from benchmarks.events import Order

Invoke = Callable[[Any, Any], Any]


def _queue() -> Any:
    from pipeline import sources

    return sources.SQS("orders", batch_size=10_000, batching_window=1)


def ours(annotation: Any, source: Any) -> Any:
    from pipeline import Pipeline

    shop = Pipeline("shop", idempotency=None)

    async def price(order) -> None:
        pass

    price.__annotations__["order"] = annotation
    return shop.handler(source)(price)


def ours_dict() -> Invoke:
    return ours(dict, _queue())


def ours_dataclass() -> Invoke:
    return ours(Order, _queue())


def ours_silent(source: Any = None) -> Invoke:
    """The engine alone: decoding, `Processor`, response; no log line and no metrics, one thread."""
    from pipeline.engine.environment import ProcessEnvironment
    from pipeline.engine.processor import Processor
    from pipeline.runtimes.response import partial_response
    from pipeline.telemetry.log import logger_for
    from pipeline.telemetry.metrics import metrics_for

    stage = ours(dict, source or _queue()).stage
    processor = Processor(
        stage, ProcessEnvironment(), logger=logger_for("shop", "INFO"), metrics=metrics_for("shop", "price")
    )
    loop = asyncio.new_event_loop()

    def invoke(event: Any, context: Any) -> Any:
        result = loop.run_until_complete(processor.process(stage.source.decode(event)))
        return partial_response(stage.source.unsettled_ids(result))

    return invoke


def powertools_logger_and_metrics() -> Callable[[int], None]:
    from aws_lambda_powertools import Logger, Metrics

    logger = Logger(service="shop")
    metrics = Metrics(namespace="shop", service="shop")

    def tell(size: int) -> None:
        logger.info("batch.finished", extra={"handler": "price", "size": size})
        for name, value in {"RecordsSucceeded": size, "RecordsFailed": 0, "BatchSize": size}.items():
            metrics.add_metric(name=name, unit="Count", value=value)
        metrics.flush_metrics()

    return tell


def powertools_sync(*, tells: bool = False) -> Invoke:
    from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

    processor = BatchProcessor(event_type=EventType.SQS)
    tell = powertools_logger_and_metrics() if tells else None

    def price(record: Any) -> None:
        record.json_body  # noqa: B018 - decodes

    def invoke(event: Any, context: Any) -> Any:
        response = process_partial_response(event=event, record_handler=price, processor=processor, context=context)
        if tell:
            tell(len(event["Records"]))
        return response

    return invoke


def powertools_async(*, tells: bool = False) -> Invoke:
    from aws_lambda_powertools.utilities.batch import AsyncBatchProcessor, EventType, async_process_partial_response

    processor = AsyncBatchProcessor(event_type=EventType.SQS)
    tell = powertools_logger_and_metrics() if tells else None

    async def price(record: Any) -> None:
        record.json_body  # noqa: B018 - decodes

    def invoke(event: Any, context: Any) -> Any:
        response = async_process_partial_response(
            event=event, record_handler=price, processor=processor, context=context
        )
        if tell:
            tell(len(event["Records"]))
        return response

    return invoke


def _bare(loads: Callable[[str], Any]) -> Invoke:
    loop = asyncio.new_event_loop()

    async def price(order: dict[str, Any]) -> None:
        pass

    async def every(records: list[Any]) -> list[dict[str, str]]:
        failures = []
        for record in records:
            try:
                await price(loads(record["body"]))
            except Exception:
                failures.append({"itemIdentifier": record["messageId"]})
        return failures

    def invoke(event: Any, context: Any) -> Any:
        return {"batchItemFailures": loop.run_until_complete(every(event["Records"]))}

    return invoke


def bare_json() -> Invoke:
    return _bare(json.loads)


def bare_msgspec() -> Invoke:
    import msgspec

    return _bare(msgspec.json.decode)


#: Name in the tables -> what makes it.
INVOCATIONS: dict[str, Callable[[], Invoke]] = {
    "bare loop, json": bare_json,
    "bare loop, msgspec": bare_msgspec,
    "ours, dict": ours_dict,
    "ours, dataclass": ours_dataclass,
    "ours, dict, no log or metrics": ours_silent,
    "Powertools async": powertools_async,
    "Powertools async, log and metrics": lambda: powertools_async(tells=True),
    "Powertools sync": powertools_sync,
    "Powertools sync, log and metrics": lambda: powertools_sync(tells=True),
}
