"""A stage: one declared handler with everything that runs it. A value; it does nothing."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from msgspec import Struct

from pipeline.decisions.codec import Parse
from pipeline.decisions.keys import KeySpec, ReadKey
from pipeline.decisions.retry import Backoff, is_count, is_number
from pipeline.deployment import Function
from pipeline.engine.calling import Signature
from pipeline.engine.context import Context
from pipeline.errors import ConfigurationError
from pipeline.ports import DeadLetters, IdempotencyStore, Sink, Source
from pipeline.record import RawRecord, Record

#: What a middleware wraps: the call of the handler for one record.
Call = Callable[[Record[Any], Context], Awaitable[Any]]
Middleware = Callable[[Call], Call]
#: Reads a record's lane from the raw record, when it is one of the source's (`by.message_group`).
SourceLane = Callable[[RawRecord], str | None]


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


class Claim(Struct, frozen=True, kw_only=True):
    """The idempotency mode `Claim`: an owned lease before the run, a completion after the sinks.

    Guarantee: runs of one key never overlap and never follow a completion. A run that crashed is
    repeated, so the handler's own side effects are at least once; after a sink failure the outputs
    kept in the entry (to 300 KB) go only to the sinks that still lack them, without running again.
    Price: two writes a record.

    `store`: default a DynamoDB table `<pipeline>-idempotency`. `prefix`: of the entries' ids,
    default `pipeline.handler`. `ttl`: seconds that an entry lives, default 14 days. `lease`:
    seconds that a claim holds when its run dies, default 60; long runs renew it.
    """

    store: IdempotencyStore | None = None
    prefix: str | None = None
    ttl: int = 1_209_600
    lease: float = 60.0

    def __post_init__(self) -> None:
        if isinstance(self.store, type):
            raise ConfigurationError(
                f"Claim(store={self.store.__name__}): that is the class; call it: {self.store.__name__}()"
            )
        if not isinstance(self.store, IdempotencyStore | None):
            raise ConfigurationError(f"Claim(store={self.store!r}): give one of pipeline.stores, or leave it out")
        if self.prefix is not None and not _is_text(self.prefix):
            raise ConfigurationError(f"Claim(prefix={self.prefix!r}): give text that is not empty, or leave it out")
        if not is_count(self.ttl):
            raise ConfigurationError(f"Claim(ttl={self.ttl!r}): give a whole number of seconds, at least 1")
        if not is_number(self.lease) or not 1 <= self.lease < math.inf:
            raise ConfigurationError(f"Claim(lease={self.lease!r}): give a number of seconds, at least 1")


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
    claim: Claim | None = None
    max_hops: int = 16
    log_level: str = "INFO"
    deploy: Function = field(default_factory=Function)

    store: IdempotencyStore | None = None  #: of `claim`, bound to this pipeline

    # As declared, for pictures and documents; the engine reads none of them.
    declared_key: KeySpec | None = None
    declared_lane: Any = None  #: a `KeySpec`, or one of `pipeline.by`
    payload_type: Any = Any

    @property
    def prefix(self) -> str:
        """What the stage's idempotency entries begin with."""
        return (self.claim.prefix if self.claim else None) or self.full_name

    @property
    def full_name(self) -> str:
        """`pipeline.handler`."""
        return f"{self.pipeline}.{self.name}"
