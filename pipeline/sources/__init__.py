"""Sources: where records come from. Each is an immutable description; it connects when it must."""

from pipeline.sources.kinesis import Kinesis
from pipeline.sources.sqs import SQS

__all__ = ["SQS", "Kinesis"]
