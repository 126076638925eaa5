"""A mapping's settings: what `CreateEventSourceMapping` takes, with its ranges. Raises `ConfigurationError` beyond them.

The ranges are those of Lambda's API model (botocore, `lambda`, `CreateEventSourceMappingRequest`) and of the developer
guide's pages on parameters for each kind of source.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.decisions.patterns import Filter
from pipeline.errors import ConfigurationError

#: Seconds after which a batch goes out at the latest.
MAX_WINDOW = 300
#: Records a batch has at most; the 6 MB of an event are reached first by most.
MAX_BATCH_SIZE = 10_000
_MAX_FIFO_BATCH_SIZE = 10
_POSITIONS = ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP")


@dataclass(frozen=True)
class ProvisionedPollers:
    """Pollers that stand ready. Default 2 to 200 for a queue."""

    minimum: int = 2
    maximum: int = 200


@dataclass(frozen=True, kw_only=True)
class QueueSettings:
    """Of a queue's mapping. `function_timeout` and `visibility_timeout`: seconds, the queue's and the function's own."""

    is_fifo: bool = False
    batch_size: int = 10  #: 1 to 10,000; FIFO 1 to 10; more than 10 needs a window
    batching_window: float = 0  #: 0 to 300 seconds; not FIFO
    filter: Filter | None = None  #: what it does not accept is deleted
    report_batch_item_failures: bool = False
    maximum_concurrency: int | None = None  #: 2 to 1,000
    provisioned: ProvisionedPollers | None = None  #: not beside `maximum_concurrency`
    function_timeout: float = 3
    visibility_timeout: float = 30

    def __post_init__(self) -> None:
        limit = _MAX_FIFO_BATCH_SIZE if self.is_fifo else MAX_BATCH_SIZE
        _within("BatchSize", self.batch_size, 1, limit)
        _within("MaximumBatchingWindowInSeconds", self.batching_window, 0, MAX_WINDOW)
        if self.is_fifo and self.batching_window:
            raise ConfigurationError("MaximumBatchingWindowInSeconds is not for FIFO queues: leave it out")
        if self.batch_size > 10 and self.batching_window < 1:
            raise ConfigurationError(
                f"BatchSize {self.batch_size} needs MaximumBatchingWindowInSeconds of at least 1: SQS hands out 10 at once"
            )
        if self.maximum_concurrency is not None:
            _within("MaximumConcurrency", self.maximum_concurrency, 2, 1000)
            if self.provisioned is not None:
                raise ConfigurationError("MaximumConcurrency and ProvisionedPollerConfig exclude each other: keep one")
        if self.provisioned is not None:
            _within("MinimumPollers", self.provisioned.minimum, 2, 200)
            _within("MaximumPollers", self.provisioned.maximum, self.provisioned.minimum, 10_000)
        if self.visibility_timeout < self.function_timeout:
            raise ConfigurationError(
                f"the queue's visibility timeout ({self.visibility_timeout} s) is shorter than the function's timeout "
                f"({self.function_timeout} s): Lambda refuses that mapping; six times the timeout is recommended"
            )


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """Of a mapping of a Kinesis or DynamoDB stream, and what Kafka's has of it."""

    batch_size: int = 100  #: 1 to 10,000
    batching_window: float = 0  #: 0 to 300 seconds
    filter: Filter | None = None  #: what it does not accept is passed over
    report_batch_item_failures: bool = False
    starting_position: str = "TRIM_HORIZON"
    starting_timestamp: float | None = None  #: of "AT_TIMESTAMP", epoch seconds
    parallelization_factor: int = 1  #: 1 to 10
    bisect: bool = False
    maximum_retry_attempts: int = -1  #: -1: until the record expires; 0 to 10,000
    maximum_record_age: float = -1  #: -1: until the record expires; 60 to 604,800 seconds
    tumbling_window: float = 0  #: 0 to 900 seconds; 0: none
    on_failure: str | None = None  #: the ARN of an SQS queue, an SNS topic or an S3 bucket
    function_name: str = "function"
    source_arn: str = ""

    def __post_init__(self) -> None:
        _within("BatchSize", self.batch_size, 1, MAX_BATCH_SIZE)
        _within("MaximumBatchingWindowInSeconds", self.batching_window, 0, MAX_WINDOW)
        _within("ParallelizationFactor", self.parallelization_factor, 1, 10)
        _within("MaximumRetryAttempts", self.maximum_retry_attempts, -1, 10_000)
        _within("TumblingWindowInSeconds", self.tumbling_window, 0, 900)
        if self.maximum_record_age != -1:
            _within("MaximumRecordAgeInSeconds", self.maximum_record_age, 60, 604_800)
        if self.starting_position not in _POSITIONS:
            raise ConfigurationError(f"StartingPosition {self.starting_position!r} is none of {', '.join(_POSITIONS)}")
        if (self.starting_position == "AT_TIMESTAMP") != (self.starting_timestamp is not None):
            raise ConfigurationError("StartingPositionTimestamp belongs to AT_TIMESTAMP: give both, or neither")


def _within(name: str, value: float, lowest: float, highest: float) -> None:
    if not lowest <= value <= highest:
        raise ConfigurationError(f"{name} {value} is out of range: {lowest} to {highest}")
