"""DynamoDB and DynamoDB Streams in memory."""

from pipeline.emulator.services.dynamodb.service import DynamoDB
from pipeline.emulator.services.dynamodb.streams import DynamoDBStreams

__all__ = ["DynamoDB", "DynamoDBStreams"]
