"""A stage: one declared handler with everything that runs it. A value; it does nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.decisions.checkpoint import Position
from pipeline.decisions.codec import Parse
from pipeline.decisions.keys import KeySpec, ReadKey
from pipeline.decisions.retry import Backoff
from pipeline.deployment import Function
from pipeline.engine.calling import Signature
from pipeline.engine.context import Context
from pipeline.engine.modes import Claim, Mode
from pipeline.ports import DeadLetters, IdempotencyStore, Sink, Source
from pipeline.record import RawRecord, Record

#: What a middleware wraps: the call of the handler for one record.
Call = Callable[[Record[Any], Context], Awaitable[Any]]
Middleware = Callable[[Call], Call]
#: Reads a record's lane from the raw record, when it is one of the source's (`by.message_group`).
SourceLane = Callable[[RawRecord], str | None]


#: Where a record stands in its source's order, when the source keeps one.
PositionOf = Callable[[RawRecord], Position | None]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One handler as declared and assembled."""

    pipeline: str
    name: str
    source: Source
    sinks: tuple[Sink, ...] = ()
    dead_letters: DeadLetters
    function: Callable[..., Any]
    signature: Signature  #: how the function is called
    parse: Parse
    key: ReadKey | None = None
    lane: ReadKey | None = None
    source_lane: SourceLane | None = None  #: replaces `lane` by one of the source's own orders
    concurrency: int = 100
    retry: Backoff | None = field(default_factory=Backoff)
    reject_on: tuple[type[BaseException], ...] = ()
    record_timeout: float | None = None
    middleware: tuple[Middleware, ...] = ()
    mode: Mode | None = None
    max_hops: int = 16
    log_level: str = "INFO"
    log_payloads: Callable[[RawRecord], dict[str, Any]] | None = None  #: a `Payloads`; None: they are in no line
    deploy: Function = field(default_factory=Function)

    store: IdempotencyStore | None = None  #: of `mode`, bound to this pipeline; None when the mode stores nothing
    validate: ReadKey | None = None  #: reads what must be the same in every record of a key
    fused: str | None = None  #: the sink that `Fused` writes its marks to
    position_of: PositionOf | None = None  #: for `Checkpoint`

    # As declared, for pictures and documents; the engine reads none of them.
    declared_key: KeySpec | None = None
    declared_lane: Any = None  #: a `KeySpec`, or one of `pipeline.by`
    payload_type: Any = Any

    @property
    def prefix(self) -> str:
        """What the stage's idempotency entries begin with."""
        return (self.mode.prefix if self.mode else None) or self.full_name

    @property
    def counts_attempts(self) -> bool:
        """True when runs that count are counted in the store."""
        return isinstance(self.mode, Claim)

    @property
    def lane_kind(self) -> str:
        """How lanes are told apart, as a name that changes when that does."""
        lane = self.declared_lane
        if lane is None:
            return "source"
        if isinstance(lane, (str, tuple)):
            return f"path {lane}"
        if callable(lane):  # not its text, which has an address in it, and so is another in each process
            return f"function {getattr(lane, '__qualname__', type(lane).__qualname__)}"
        return f"by.{lane.name}"

    @property
    def full_name(self) -> str:
        """`pipeline.handler`."""
        return f"{self.pipeline}.{self.name}"
