"""Sinks: where outputs go. Each is an immutable description; it connects when it first writes."""

from pipeline.sinks.dynamodb import DynamoDB
from pipeline.sinks.eventbridge import EventBridge
from pipeline.sinks.file import File
from pipeline.sinks.kinesis import Kinesis
from pipeline.sinks.memory import Memory
from pipeline.sinks.s3 import S3
from pipeline.sinks.sqs import SQS

__all__ = ["S3", "SQS", "DynamoDB", "EventBridge", "File", "Kinesis", "Memory"]
