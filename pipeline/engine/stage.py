"""A stage: one declared handler with everything that runs it. A value; it does nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.decisions.codec import Parse
from pipeline.decisions.keys import ReadKey
from pipeline.decisions.retry import Backoff
from pipeline.deployment import Function
from pipeline.engine.context import Context
from pipeline.ports import DeadLetters, IdempotencyStore, Sink, Source
from pipeline.record import RawRecord, Record

#: What a middleware wraps: the call of the handler for one record.
Call = Callable[[Record[Any], Context], Awaitable[Any]]
Middleware = Callable[[Call], Call]
#: Reads a record's lane from the raw record, when it is one of the source's (`by.message_group`).
SourceLane = Callable[[RawRecord], str | None]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The idempotency mode `Claim` as a stage uses it."""

    store: IdempotencyStore
    prefix: str  #: entries are `prefix#hash`
    ttl: int  #: seconds that an entry lives
    lease: float  #: seconds that a claim holds unless it is renewed


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One handler as declared and assembled."""

    pipeline: str
    name: str
    source: Source
    sinks: tuple[Sink, ...] = ()
    dead_letters: DeadLetters
    function: Callable[..., Any]
    signature: Any  #: an `engine.calling.Signature`: how the function is called
    parse: Parse
    key: ReadKey | None = None
    lane: ReadKey | SourceLane | None = None
    concurrency: int = 100
    retry: Backoff | None = field(default_factory=Backoff)
    reject_on: tuple[type[BaseException], ...] = ()
    record_timeout: float | None = None
    middleware: tuple[Middleware, ...] = ()
    claim: Claim | None = None
    max_hops: int = 16
    log_level: str = "INFO"
    deploy: Function = field(default_factory=Function)

    @property
    def full_name(self) -> str:
        """`pipeline.handler`."""
        return f"{self.pipeline}.{self.name}"
