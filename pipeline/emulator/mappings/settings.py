"""A mapping's settings: what `CreateEventSourceMapping` takes, with its ranges. Raises `ConfigurationError` beyond them.

The ranges are those of Lambda's API model (botocore, `lambda`, `CreateEventSourceMappingRequest`) and of the developer
guide's pages on parameters for each kind of source.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from pipeline.decisions.patterns import Filter
from pipeline.emulator.services.service import ACCOUNT, REGION
from pipeline.errors import ConfigurationError

#: Settings that the source and the function give: nobody writes them.
GIVEN = frozenset(
    {"is_fifo", "function_timeout", "visibility_timeout", "function_name", "source_arn", "topics", "retention"}
)
#: The member of a record that holds the payload, which a filter's patterns look into; by the source's service.
PAYLOADS = {"sqs": "body", "kinesis": "data", "dynamodb": "dynamodb", "kafka": "value"}
#: Seconds for which a table's stream keeps a record (DynamoDB developer guide, "Change data capture for DynamoDB Streams").
TABLE_RETENTION = 86_400.0
#: Seconds after which a batch goes out at the latest.
MAX_WINDOW = 300
#: Records a batch has at most; the 6 MB of an event are reached first by most.
MAX_BATCH_SIZE = 10_000
_MAX_FIFO_BATCH_SIZE = 10
#: Of a Kafka mapping that declares no window. Once it was changed AWS cannot bring it back: it takes whole seconds.
KAFKA_WINDOW = 0.5
#: Of a function behind a Kafka mapping, seconds ("Configuring Amazon MSK event sources for Lambda").
MAX_KAFKA_FUNCTION_TIMEOUT = 840
_POSITIONS = ("TRIM_HORIZON", "LATEST", "AT_TIMESTAMP")
#: Kafka's names for topics, by Lambda's API model.
_TOPIC = re.compile(r"(?!\.)[a-zA-Z0-9._-]{2,249}")
#: Before the name of a topic that is a destination.
KAFKA_SCHEME = "kafka://"
_DESTINATIONS = ("arn:aws:sqs:", "arn:aws:sns:", "arn:aws:s3:", KAFKA_SCHEME)


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
        _whole("BatchSize", self.batch_size, 1, limit)
        _whole("MaximumBatchingWindowInSeconds", self.batching_window, 0, MAX_WINDOW)
        _is_flag("report_batch_item_failures", self.report_batch_item_failures)
        if self.is_fifo and self.batching_window:
            raise ConfigurationError("MaximumBatchingWindowInSeconds is not for FIFO queues: leave it out")
        if self.batch_size > 10 and self.batching_window < 1:
            raise ConfigurationError(
                f"BatchSize {self.batch_size} needs MaximumBatchingWindowInSeconds of at least 1: SQS hands out 10 at once"
            )
        if self.maximum_concurrency is not None:
            _whole("MaximumConcurrency", self.maximum_concurrency, 2, 1000)
            if self.provisioned is not None:
                raise ConfigurationError("MaximumConcurrency and ProvisionedPollerConfig exclude each other: keep one")
        if self.provisioned is not None:
            _whole("MinimumPollers", self.provisioned.minimum, 2, 200)
            _whole("MaximumPollers", self.provisioned.maximum, self.provisioned.minimum, 10_000)
        if self.visibility_timeout < self.function_timeout:
            raise ConfigurationError(
                f"the queue's visibility timeout ({self.visibility_timeout} s) is shorter than the function's timeout "
                f"({self.function_timeout} s): Lambda refuses that mapping; six times the timeout is recommended"
            )


@dataclass(frozen=True, kw_only=True)
class StreamSettings:
    """Of a mapping of a Kinesis or DynamoDB stream."""

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
    retention: float | None = None  #: seconds after which the stream itself forgets a record; None: it never does
    tumbling_window: float = 0  #: 0 to 900 seconds; 0: none; not beside a parallelization factor
    on_failure: str | None = None  #: the ARN of an SQS queue, an SNS topic or an S3 bucket
    function_name: str = "function"
    source_arn: str = ""

    def __post_init__(self) -> None:
        _check_stream(self)
        _whole("ParallelizationFactor", self.parallelization_factor, 1, 10)
        _whole("TumblingWindowInSeconds", self.tumbling_window, 0, 900)
        if self.tumbling_window and self.parallelization_factor > 1:
            raise ConfigurationError(
                "TumblingWindowInSeconds and ParallelizationFactor exclude each other: a shard has one state; keep one"
            )

    @property
    def function_arn(self) -> str:
        """The function's, also where only its name is known."""
        return function_arn(self.function_name)

    @property
    def age_limit(self) -> float:
        """Seconds after its arrival up to which a record is delivered: the mapping's limit, or the stream's."""
        own = math.inf if self.maximum_record_age == -1 else self.maximum_record_age
        return own if self.retention is None else min(own, self.retention)


@dataclass(frozen=True, kw_only=True)
class KafkaSettings:
    """Of a Kafka topic's mapping: Amazon MSK's, or a cluster's of one's own."""

    topics: tuple[str, ...]  #: one: Lambda's API takes no more
    batch_size: int = 100  #: 1 to 10,000
    batching_window: float = KAFKA_WINDOW  #: 0 to 300 seconds
    filter: Filter | None = None  #: over the records' values; what it does not accept is passed over
    report_batch_item_failures: bool = False
    starting_position: str = "TRIM_HORIZON"
    starting_timestamp: float | None = None  #: of "AT_TIMESTAMP", epoch seconds
    consumer_group: str = ""  #: the place that it has committed comes before the starting position
    bisect: bool = False
    maximum_retry_attempts: int = -1  #: -1: until the record expires; 0 to 10,000
    maximum_record_age: float = -1  #: -1: until the record expires; 60 to 604,800 seconds
    on_failure: str | None = None  #: the ARN of an SQS queue, an SNS topic or an S3 bucket; or "kafka://TOPIC"
    is_msk: bool = True
    bootstrap_servers: str = "localhost:9092"  #: with commas, as the event has them
    function_name: str = "function"
    function_timeout: float = 3  #: seconds, up to 840
    source_arn: str = ""  #: the cluster's, of Amazon MSK

    def __post_init__(self) -> None:
        _check_stream(self)
        if len(self.topics) != 1 or not _TOPIC.fullmatch(self.topics[0]):
            raise ConfigurationError(
                f"Topics {list(self.topics)!r}: give one name of 2 to 249 letters, digits, '.', '-' and '_'"
            )
        if self.function_timeout > MAX_KAFKA_FUNCTION_TIMEOUT:
            raise ConfigurationError(
                f"the function's timeout is {self.function_timeout} s: a Kafka mapping takes functions of up to "
                f"{MAX_KAFKA_FUNCTION_TIMEOUT} s"
            )
        if self.on_failure is not None and not self.on_failure.startswith(_DESTINATIONS):
            raise ConfigurationError(
                f"OnFailure {self.on_failure!r}: give the ARN of an SQS queue, an SNS topic or an S3 bucket, "
                "or a topic of the same cluster as kafka://TOPIC"
            )
        if self.on_failure == KAFKA_SCHEME + self.topics[0]:
            raise ConfigurationError(f"OnFailure {self.on_failure!r} is the source itself: give another topic")

    @property
    def function_arn(self) -> str:
        """The function's, also where only its name is known."""
        return function_arn(self.function_name)


def _check_stream(settings: StreamSettings | KafkaSettings) -> None:
    _whole("BatchSize", settings.batch_size, 1, MAX_BATCH_SIZE)
    if not (isinstance(settings, KafkaSettings) and settings.batching_window == KAFKA_WINDOW):
        _whole("MaximumBatchingWindowInSeconds", settings.batching_window, 0, MAX_WINDOW)
    _whole("MaximumRetryAttempts", settings.maximum_retry_attempts, -1, 10_000)
    if settings.maximum_record_age != -1:
        _whole("MaximumRecordAgeInSeconds", settings.maximum_record_age, 60, 604_800)
    _is_flag("report_batch_item_failures", settings.report_batch_item_failures)
    _is_flag("bisect", settings.bisect)
    position = settings.starting_position
    if position not in _POSITIONS:
        raise ConfigurationError(f"StartingPosition {position!r} is none of {', '.join(_POSITIONS)}")
    if (position == "AT_TIMESTAMP") != (settings.starting_timestamp is not None):
        raise ConfigurationError("StartingPositionTimestamp belongs to AT_TIMESTAMP: give both, or neither")


def _whole(name: str, value: object, lowest: int, highest: int) -> None:
    """A whole number, as AWS takes it; seconds may be a float that is one."""
    is_whole = isinstance(value, int | float) and not isinstance(value, bool) and float(value).is_integer()
    if not is_whole:
        raise ConfigurationError(f"{name} {value!r} is no whole number: give {lowest} to {highest}")
    if not lowest <= value <= highest:  # type: ignore[operator]
        raise ConfigurationError(f"{name} {value} is out of range: {lowest} to {highest}")


def _is_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name}={value!r}: give True or False")


def function_arn(name: str) -> str:
    """The ARN of the function of this name; an ARN as it is."""
    return name if name.startswith("arn:") else f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
