"""Records: what a source delivered, and what a handler sees of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from msgspec import Struct

P = TypeVar("P")

NO_ATTRIBUTES: Mapping[str, str] = {}


class Carried(Struct, frozen=True):
    """What an earlier stage sent along with a record."""

    id: str  #: the output's deterministic id; this stage's default key
    hops: int = 0  #: how many handlers the record has passed
    traceparent: str | None = None  #: W3C trace context as it was received; `RawRecord.traces` has what it says
    tracestate: str | None = None  #: what vendors add to it, as it was received


class TraceContext(Struct, frozen=True):
    """A span of somebody's trace, by W3C's ids. What made a record is named so, whatever notation it came in."""

    trace_id: str  #: 32 hexadecimal digits in lower case, not all zero
    span_id: str  #: 16 of them, not all zero
    flags: int = 0  #: 1: sampled; 2: the trace id is random; their sum: both
    state: str | None = None  #: what vendors add to it, `tracestate`

    @property
    def is_sampled(self) -> bool:
        """Whoever made the span keeps it."""
        return bool(self.flags & 1)


class RawRecord(Struct, frozen=True, kw_only=True):
    """One record as its source delivered it: identity and lane settled, body untouched."""

    id: str  #: what the source calls it: an SQS message id, a Kinesis sequence number
    source: str  #: the logical name of the source
    body: str | bytes  #: as received
    lane: str | None = None  #: the source's own order: FIFO message group, shard, partition key
    receive_count: int = 1  #: how often the source has handed it out, this time included
    attributes: Mapping[str, str] = NO_ATTRIBUTES  #: the producer's attributes, as text
    sent_at: float | None = None  #: when the producer sent it, epoch seconds
    carried: Carried | None = None  #: from an earlier stage
    traces: tuple[TraceContext, ...] = ()  #: what made it, whoever did: at most one of a trace, the best known first
    error: Exception | None = None  #: why it cannot be decoded, if it cannot
    origin: Any = None  #: the source's own form of the record; only the source looks inside

    @property
    def trace_id(self) -> str | None:
        """The trace that it belongs to, as log lines name it; None: it came with none."""
        return self.traces[0].trace_id if self.traces else None


class Record(Struct, Generic[P], frozen=True, kw_only=True):
    """One record as a handler sees it; annotate a parameter with `Record[Order]` to get it."""

    id: str  #: what the source calls it: an SQS message id, a Kinesis sequence number
    source: str  #: the logical name of the source
    payload: P  #: the body, parsed into the annotated type
    identity: str  #: the idempotency key as JSON text, or the source's id without idempotency
    attempt: int  #: the number of this run, from 1; hand-backs do not count
    receive_count: int  #: how often the source has handed it out, this time included
    lane: str | None  #: records of one lane run in order; None: no order
    attributes: Mapping[str, str]  #: the producer's attributes, as text
    sent_at: float | None  #: when the producer sent it, epoch seconds
    hops: int  #: how many handlers it passed before this one
    body: str | bytes  #: the body as received
