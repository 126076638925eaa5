"""One record on its way through a batch: what is known of it so far."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from enum import Enum, auto
from itertools import chain, islice
from typing import Any, TypedDict

import msgspec
from msgspec import UNSET, Struct

from pipeline.decisions.checkpoint import Position
from pipeline.decisions.codec import Document
from pipeline.decisions.keys import entry_id, key_text
from pipeline.engine.held import Held
from pipeline.engine.modes import Keyed
from pipeline.engine.stage import Stage
from pipeline.errors import KeyMissing
from pipeline.outcome import Outcome
from pipeline.output import Output
from pipeline.record import RawRecord, Record, TraceContext
from pipeline.telemetry.events import MAX_OUTPUT_IDS
from pipeline.telemetry.spans import RunSpan


class ToldOfRun(TypedDict):
    """Members that all facts of a record's run have."""

    pipeline: str
    handler: str
    record: RawRecord
    key_hash: str | None
    attempt: int
    age: float | None
    span: TraceContext | None


class Phase(Enum):
    """Where a record stands. What a deadline does to it depends on this."""

    WAITING = auto()
    CLAIMING = auto()
    HANDLING = auto()
    WRITING = auto()  #: its outputs are on their way to the sinks
    ENDING = auto()  #: its outcome is decided; the store or the dead-letter queue is being told


#: Phases that the soft deadline cuts off; the others are left to finish until the hard one.
CUT = (Phase.CLAIMING, Phase.HANDLING)


class Run(Struct, eq=False):
    """One record of a batch. Its fields fill as it goes."""

    position: int
    raw: RawRecord
    handler: str
    document: Document
    identity: str
    lane: str | None
    attempt: int
    error: BaseException | None  #: why it can never run
    order_key: str  #: the default ordering key of its outputs
    key_hash: str | None = None
    held: Held | None = None
    phase: Phase = Phase.WAITING
    started: float | None = None  #: on the monotonic clock; None: not yet
    handling: float | None = None  #: on the monotonic clock: when the handler was called; None: it was not
    handled: float | None = None  #: seconds in the handler; None: it has not ended
    task: asyncio.Task[Any] | None = None
    is_cut: bool = False  #: the deadline has cut it off
    is_alone: bool = False  #: the run before died; this one has waited for the others
    is_running_on: bool = False  #: the handler could not be stopped, and may still be at it
    decided: Outcome | None = None  #: what it comes to, when only the telling is left
    spent: int = 0  #: runs that count so far
    waits: int = 0  #: how often it has waited in process to be tried again
    last: Outcome | None = None  #: what it came to before it waited
    is_kept: bool = False  #: its outputs are kept: its next run only delivers them
    validation: str | None = None  #: hash of what must be the same in every record of the key
    rejected: tuple[str, ...] = ()  #: other records of the key, in the dead-letter queue
    place: Position | None = None  #: in its source's order, where that is asked for
    is_admitted: bool = False  #: it may run, or has run
    data: str | None = None  #: what to keep of it for repeats
    effect: list[Output] = msgspec.field(default_factory=list)  #: what `Fused` writes last, with its mark
    output_ids: tuple[str, ...] = ()  #: of what sinks accepted; see `RecordFinished`
    span: RunSpan | None = None  #: of the run that is under way; None: nobody traces
    named: TraceContext | None = None  #: of the run that is over
    _payload: Any = UNSET

    @classmethod
    def of(cls, position: int, raw: RawRecord, handler: str, spent: int) -> Run:
        """The run of a record that has just arrived. `spent`: runs that count so far, as far as is known yet."""
        return cls(
            position, raw, handler, Document(raw.body), raw.id, raw.lane, spent + 1, raw.error, raw.id, spent=spent
        )

    @property
    def record_id(self) -> str:
        return self.raw.id

    @property
    def hops(self) -> int:
        """How many handlers the record has passed."""
        return self.raw.carried.hops if self.raw.carried else 0

    @property
    def trace(self) -> TraceContext | None:
        """The span that its lines name, and that what it causes is caused by: its own, or else what made it."""
        return self.own_trace or (self.raw.traces[0] if self.raw.traces else None)

    @property
    def own_trace(self) -> TraceContext | None:
        """The span of the run that is under way, or of the last one."""
        return self.named if self.span is None else self.span.trace

    @property
    def trace_id(self) -> str | None:
        """The trace of its lines."""
        return None if self.trace is None else self.trace.trace_id

    @property
    def span_id(self) -> str | None:
        """The span of its lines; None: no span is kept."""
        own = self.own_trace
        return own.span_id if own is not None and own.is_sampled else None

    def end_span(self, outcome: Outcome, now: float) -> TraceContext | None:
        """Its run is over; returns the span that tells of it. `now`: epoch seconds."""
        span, self.span = self.span, None
        if span is not None:
            self.named = span.end(outcome, self.attempt, self.key_hash, now)
        return self.named

    def payload(self, stage: Stage) -> Any:
        """The parsed body. Raises `PayloadError`."""
        if self._payload is UNSET:
            self._payload = stage.parse(self.document)
        return self._payload

    def read_keys(self, stage: Stage) -> None:
        """Settle identity and lane. Raises `KeyMissing`, `PayloadError`, or what a key function raises."""
        carried_id = self.raw.carried.id if self.raw.carried else self.raw.id
        data = self._key(stage) if stage.key else carried_id
        if isinstance(stage.mode, Keyed):
            self.identity = key_text(data)
            self.key_hash = _hash(self.identity)
        if stage.validate is not None:
            self.validation = _hash(key_text(stage.validate(self.document, lambda: self.payload(stage))))
        if stage.source_lane is None and stage.lane is not None:
            self.lane = _plain(stage.lane(self.document, lambda: self.payload(stage)))
        self.order_key = self.lane or _plain(data)

    def _key(self, stage: Stage) -> Any:
        assert stage.key is not None, "only where there is one"
        try:
            return stage.key(self.document, lambda: self.payload(stage))
        except KeyMissing:
            if isinstance(stage.mode, Keyed) and stage.mode.missing_key == "pass":
                return self.raw.id
            raise

    def read_own_key(self) -> None:
        """Settle the identity of a record whose key cannot be read: it is its source's own id."""
        self.identity = key_text(self.raw.id)
        self.key_hash = _hash(self.identity)

    def record(self, stage: Stage) -> Record[Any]:
        """The record as the handler sees it. Raises `PayloadError`."""
        raw = self.raw
        return Record(
            id=raw.id,
            source=raw.source,
            payload=self.payload(stage),
            identity=self.identity,
            attempt=self.attempt,
            receive_count=raw.receive_count,
            lane=self.lane,
            attributes=raw.attributes,
            sent_at=raw.sent_at,
            hops=self.hops,
            body=raw.body,
        )

    def age(self, now: float) -> float | None:
        """Seconds since it was sent, by the wall clock; None when its source does not say when."""
        sent_at = self.raw.sent_at
        return None if sent_at is None else max(now - sent_at, 0.0)

    def told(self, stage: Stage, now: float) -> ToldOfRun:
        """What every fact of the record says. `now`: epoch seconds."""
        return {
            "pipeline": stage.pipeline,
            "handler": stage.name,
            "record": self.raw,
            "key_hash": self.key_hash,
            "attempt": self.attempt,
            "age": self.age(now),
            "span": self.own_trace,
        }

    def accepted(self, outputs: Iterable[Output], failures: Sequence[tuple[Output, BaseException]] = ()) -> None:
        """Note the ids of outputs that sinks accepted, which are all but the failures: the first few."""
        refused = {(output.id, output.sink) for output, _ in failures}
        ids = (output.id for output in outputs if (output.id, output.sink) not in refused)
        self.output_ids = tuple(islice(dict.fromkeys(chain(self.output_ids, ids)), MAX_OUTPUT_IDS))

    def handled_by(self, now: float) -> float | None:
        """Seconds in the handler, up to `now` if it is still in it; None when it was not called."""
        return now - self.handling if self.handled is None and self.handling is not None else self.handled

    def postpone(self, outcome: Outcome) -> None:
        """It waits in process, and keeps what it came to for the case that there is no next time."""
        self.last = outcome
        self.waits += 1
        self.task = None
        self.forget_payload()

    def begin_again(self) -> None:
        """It has waited: its next run starts from nothing."""
        self.phase, self.held, self.decided, self.last = Phase.WAITING, None, None, None
        self.is_kept = False
        self.handling, self.handled = None, None
        self.effect, self.data, self.is_admitted = [], None, False
        self.attempt = self.spent + 1
        self.named = None

    def forget(self) -> None:
        """Let go of all that it held: it has ended, and its batch may go on for long."""
        self.forget_payload()
        self.effect, self.data = [], None
        if self.held is not None:
            self.held.outputs = None

    def forget_payload(self) -> None:
        """Let go of the parsed body: a large batch must not hold all of them to its end."""
        self._payload = UNSET
        self.document.forget()


def _hash(text: str) -> str:
    return entry_id("", text)[1:]


def _plain(data: Any) -> str:
    return data if isinstance(data, str) else key_text(data)
