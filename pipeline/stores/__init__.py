"""Stores: where idempotency entries live."""

from pipeline.stores.dynamodb import DynamoDB
from pipeline.stores.memory import Memory
from pipeline.stores.redis import Redis

__all__ = ["DynamoDB", "Memory", "Redis"]
