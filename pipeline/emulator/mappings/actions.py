"""What a mapping wants done, and what it says about it. Values only.

A machine gives each action once. Those of the first part are answered by a call of the machine (it is named with each);
those of the second part are facts, for a report and a log.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Message:
    """A message as a queue handed it out."""

    id: str
    receipt: str
    member: Mapping[str, Any]  #: of the event's `Records`
    size: int  #: bytes that it takes there
    group: str | None = None  #: FIFO: its message group

    @property
    def body(self) -> str:
        """What a filter of the mapping sees."""
        text: str = self.member["body"]
        return text


@dataclass(frozen=True)
class StreamRecord:
    """A record as a shard, or a partition, handed it out."""

    number: str  #: its sequence number, or offset
    member: Mapping[str, Any]  #: of the event's `Records`, or of a partition's list in `records`
    size: int  #: bytes that it takes there
    arrived_at: float  #: epoch seconds: its age counts from there
    key: str = ""  #: the partition key: what a parallelization factor keeps together
    data: Any = None  #: what a filter's `data` sees: bytes, or a DynamoDB record's own object
    ids: tuple[str, ...] = ()  #: as a handler of the toolkit knows it: several for an aggregate


@dataclass(frozen=True)
class Shard:
    """A shard as its stream lists it."""

    id: str
    parents: tuple[str, ...] = ()


# -- What is to be done.


@dataclass(frozen=True)
class Receive:
    """Ask the queue for up to `count` messages, waiting for the first until `until`. Then `received` or `not_received`."""

    poll: int
    count: int  #: 1 to 10
    until: float | None  #: epoch seconds; None: as long as a long poll lasts
    visibility: float | None  #: seconds that they stay hidden; None: the queue's own


@dataclass(frozen=True)
class Delete:
    """Delete these from the queue. Nothing follows: what is not deleted comes back."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class ListShards:
    """List the stream's shards, or the topic's partitions. Then `listed` or `not_listed`."""


@dataclass(frozen=True)
class Read:
    """Read from a shard or partition. Then `was_read` or `not_read`."""

    shard: str
    after: str | None  #: a sequence number or offset; None: from `position` on
    position: str  #: "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"
    timestamp: float | None  #: of "AT_TIMESTAMP", epoch seconds
    limit: int


@dataclass(frozen=True)
class Commit:
    """Commit a partition's offset for the mapping's consumer group. Nothing follows: what is not committed comes again."""

    shard: str
    number: str  #: the next one to be read, as Kafka has it: the lowest that is not settled


@dataclass(frozen=True)
class Invoke:
    """Invoke the function with an event. Then `answered`."""

    batch: int
    event: Mapping[str, Any]
    ids: tuple[str, ...]  #: of the records in it, as a handler of the toolkit knows them


@dataclass(frozen=True)
class SendToDestination:
    """Send an invocation record to the on-failure destination. Then `sent` or `not_sent`."""

    send: int
    destination: str  #: its ARN
    record: Mapping[str, Any]  #: the metadata, as SQS and SNS get it
    payload: Mapping[str, Any]  #: the event, which S3 gets as well


# -- What happened.


@dataclass(frozen=True)
class Settled:
    """These are done with: deleted, or behind the checkpoint."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class Filtered:
    """The filter kept these from the function: deleted, or passed over."""

    ids: tuple[str, ...]


@dataclass(frozen=True)
class BatchFailed:
    """A batch, or a part of it, comes again."""

    batch: int
    reason: str
    is_whole: bool  #: the whole batch: the function failed, or its response could not be meant


@dataclass(frozen=True)
class GivenUp:
    """The mapping delivers these no more: their retries or their age are used up."""

    ids: tuple[str, ...]
    where: str  #: the shard or partition
    reason: str  #: as an on-failure destination spells it: "RetryAttemptsExhausted", "RecordAgeExceeded"


@dataclass(frozen=True)
class Dropped:
    """These were let go before the function could run, and their receive counted.

    The batch was throttled, or had no place, until they were visible again; or, of a FIFO queue, one before them in their
    group failed.
    """

    batch: int
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Undelivered:
    """The on-failure destination took no invocation record of these, however often it was tried."""

    ids: tuple[str, ...]
    destination: str  #: its ARN


Command = Receive | Delete | ListShards | Read | Commit | Invoke | SendToDestination
Fact = Settled | Filtered | BatchFailed | GivenUp | Dropped | Undelivered
Action = Command | Fact
