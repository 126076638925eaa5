"""The same function by Powertools and boto3, as its documentation shows; with its Tracer when `SHOP_TRACER` is set."""

from __future__ import annotations

import json
import os
import time

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent_function

TRACES = "SHOP_TRACER" in os.environ
if TRACES:
    from aws_lambda_powertools import Tracer

IMPORTED = time.process_time()

logger = Logger(service="shop")
metrics = Metrics(namespace="shop", service="shop")
processor = BatchProcessor(event_type=EventType.SQS)
store = DynamoDBPersistenceLayer(table_name="shop-idempotency")
config = IdempotencyConfig(event_key_jmespath="order_id")
sqs = boto3.client("sqs")
PRICED = f"{os.environ['AWS_ENDPOINT_URL']}/123456789012/priced"


@idempotent_function(data_keyword_argument="order", config=config, persistence_store=store)
def price(order: dict) -> None:
    priced = {"order_id": order["order_id"], "cents": sum(line["cents"] for line in order["lines"])}
    sqs.send_message(QueueUrl=PRICED, MessageBody=json.dumps(priced))


def on_record(record) -> None:
    price(order=record.json_body)


def handler(event, context):
    config.register_lambda_context(context)
    response = process_partial_response(event=event, record_handler=on_record, processor=processor, context=context)
    size, failed = len(event["Records"]), len(response["batchItemFailures"])
    logger.info("batch.finished", extra={"handler": "price", "size": size, "failed": failed})
    metrics.add_metric(name="RecordsSucceeded", unit="Count", value=size - failed)
    metrics.add_metric(name="RecordsFailed", unit="Count", value=failed)
    metrics.add_metric(name="BatchSize", unit="Count", value=size)
    metrics.flush_metrics()
    return response


if TRACES:
    tracer = Tracer(service="shop")
    price = tracer.capture_method(price)
    handler = tracer.capture_lambda_handler(handler)
