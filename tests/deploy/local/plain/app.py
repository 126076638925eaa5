"""A plain Lambda handler with Powertools: this toolkit is not used. A repeated order is kept once; a bad one fails alone."""

from __future__ import annotations

import os
from typing import Any

import boto3
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)

processor = BatchProcessor(event_type=EventType.SQS)
persistence = DynamoDBPersistenceLayer(table_name=os.environ["IDEMPOTENCY_TABLE"])
config = IdempotencyConfig(event_key_jmespath="order_id")
ledger = boto3.resource("dynamodb").Table(os.environ["LEDGER_TABLE"])


def handle(record: SQSRecord) -> None:
    """One message."""
    keep(order=record.json_body)


@idempotent_function(data_keyword_argument="order", persistence_store=persistence, config=config)
def keep(order: dict[str, Any]) -> None:
    """Count how often an order was kept: once is right."""
    if order["quantity"] < 1:
        raise ValueError("quantity must be at least 1")
    ledger.update_item(
        Key={"order_id": order["order_id"]},
        UpdateExpression="ADD kept :one SET quantity = :quantity",
        ExpressionAttributeValues={":one": 1, ":quantity": order["quantity"]},
    )


def lambda_handler(event: dict[str, Any], context: Any) -> Any:
    """What Lambda calls."""
    config.register_lambda_context(context)
    return process_partial_response(event=event, record_handler=handle, processor=processor, context=context)
