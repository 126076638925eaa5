"""Ports: what the engine asks of the world outside. Integrations and tests implement them.

Every method that talks to a service takes many items and answers for each position, so that
records which run side by side share its calls. An answer is a value or an error for that
position; an exception out of the method counts for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, runtime_checkable

from msgspec import Struct

from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline
from pipeline.decisions.idempotency import Advance, ClaimReply, ClaimRequest, Entry, Renewal, Settlement
from pipeline.errors import SinkError, StoreUnavailable
from pipeline.output import Output
from pipeline.record import RawRecord

T = TypeVar("T")


class Clock(Protocol):
    """Time. The engine reads no other clock."""

    def now(self) -> float:
        """Epoch seconds."""
        ...

    def monotonic(self) -> float:
        """Seconds of the clock that deadlines are measured on: the event loop's."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Environment(Protocol):
    """One process, or one Lambda execution environment: what lives from batch to batch."""

    @property
    def clock(self) -> Clock: ...

    def chance(self) -> float:
        """A random number from [0, 1)."""
        ...

    def token(self) -> str:
        """A new unique token, to own a claim with."""
        ...

    async def once(self, key: Hashable, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What `make` yields, made at the first call and closed with the environment.

        A failure is not remembered: the next call tries again.
        """
        ...


class DeadLetter(Struct, frozen=True, kw_only=True):
    """A record that will never succeed, and why."""

    record: RawRecord
    handler: str  #: `pipeline.handler`
    cause: str  #: one line: the error's type and message
    attempts: int  #: runs that counted
    exhausted: bool  #: it used up its attempts, rather than being permanent at once
    made_by: str | None = None  #: `traceparent` of the run that it failed in


@runtime_checkable
class DeadLetters(Protocol):
    """Where records go that will never succeed."""

    async def put(
        self, letters: Sequence[DeadLetter], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Store the letters; for each position None, or why it could not be stored."""
        ...


@runtime_checkable
class Source(Protocol):
    """Where records come from."""

    @property
    def name(self) -> str:
        """The logical name."""
        ...

    @property
    def is_stream(self) -> bool:
        """True when the source keeps a place in an order, and so can neither delay nor skip a record.

        What comes back comes back at once, with all that stands behind it; nothing counts how often.
        So the engine waits in process. Several handlers may read one stream.
        """
        ...

    @property
    def dead_letters(self) -> DeadLetters:
        """Where this source's records go by default when they will never succeed."""
        ...

    def decode(self, event: Any) -> list[RawRecord]:
        """The records of an event, in order, identity and lane settled.

        A damaged record becomes a `RawRecord` with `error` set. Raises `EventError` when the
        event is not one of this source's, or when a record cannot even be named.
        """
        ...

    def unsettled_ids(self, result: BatchResult) -> list[str]:
        """The ids that the source must be told, so that it delivers the unsettled records again."""
        ...

    async def settle(self, result: BatchResult, environment: Environment, deadline: Deadline) -> None:
        """Ask the source to deliver each unsettled record after its outcome's delay; nothing for a stream.

        Best effort: what fails comes back in the source's own time. Raises nothing for it.
        """
        ...


@runtime_checkable
class Sink(Protocol):
    """Where outputs go. Any object with a `name` and this `write` can be one.

    Four optional attributes are honoured: `when`, a function of the value that says whether the
    sink takes it; `carries`, False when ids and hops cannot travel with an output; `described`, what the spans
    of its calls have as attributes (`telemetry.conventions`); and `gathers`, True when it writes few large things rather than many small ones: then the outputs of many records are
    gathered for it (to 16 MiB, or 2 seconds), and the lane of a record goes on while they wait. Then
    one call follows the other, also where an output's ordering key is not the record's lane.
    """

    @property
    def name(self) -> str:
        """The name that `Emit(to=)` uses; unique among a handler's sinks."""
        ...

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Write the outputs; for each position None once it is accepted, or why it was not.

        Outputs with the same ordering key must be accepted in the order given. `SinkUnavailable`
        hands the record back without an attempt; `SinkRefused` fails it.
        """
        ...


class Effect(Struct, frozen=True, kw_only=True):
    """Outputs of one record that are written together and once, and the mark by which that is known."""

    mark: str  #: of the record's key; at most 64 characters
    outputs: tuple[Output, ...]


@runtime_checkable
class FusedSink(Sink, Protocol):
    """A sink that can write a record's outputs together with a mark, so that a repeat of them is refused."""

    async def write_once(
        self, effects: Sequence[Effect], environment: Environment, deadline: Deadline
    ) -> Sequence[bool | SinkError]:
        """Write each effect whole or not at all; for each position True when it was written now, False when
        its mark shows that it had been written before, or why it was not.
        """
        ...


@runtime_checkable
class IdempotencyStore(Protocol):
    """Where idempotency entries live. The protocol itself is in `decisions.idempotency`."""

    async def claim(
        self, requests: Sequence[ClaimRequest], environment: Environment
    ) -> Sequence[ClaimReply | StoreUnavailable]:
        """Ask for claims. A `Claimed` reply means that the entry in the store names this owner."""
        ...

    async def settle(
        self, settlements: Sequence[Settlement], environment: Environment
    ) -> Sequence[bool | StoreUnavailable]:
        """End claims: True when done (now, or by an earlier try whose answer was lost), False when
        the owner no longer held the claim; then nothing was written."""
        ...

    async def renew(self, renewals: Sequence[Renewal], environment: Environment) -> Sequence[bool | StoreUnavailable]:
        """Prolong claims: False when the owner no longer holds the claim."""
        ...

    async def look(self, ids: Sequence[str], environment: Environment) -> Sequence[Entry | StoreUnavailable | None]:
        """The entries as they stand now, also expired ones; None where there is none. Reads are consistent."""
        ...

    async def mark(self, entries: Sequence[Entry], environment: Environment) -> Sequence[StoreUnavailable | None]:
        """Write entries whole, whatever stands in their place; of two with one id the last one stands."""
        ...

    async def advance(self, advances: Sequence[Advance], environment: Environment) -> Sequence[bool | StoreUnavailable]:
        """Move checkpoints forward: False when one stands further on already; then nothing was written."""
        ...
