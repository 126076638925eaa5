"""Stores: where idempotency entries live."""

from pipeline.stores.dynamodb import DynamoDB
from pipeline.stores.memory import Memory

__all__ = ["DynamoDB", "Memory"]
