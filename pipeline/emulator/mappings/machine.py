"""What a driver needs of a mapping's state machine. Every time is the wall clock's, in epoch seconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.emulator.mappings.actions import Action, Message, Shard, StreamRecord
from pipeline.emulator.mappings.answers import Answer


@dataclass(frozen=True)
class Page:
    """What one read of a shard or partition gave."""

    records: Sequence[StreamRecord]
    has_ended: bool = False  #: the shard is closed, and this was its last page
    millis_behind: int = 0  #: how far the last record is behind the shard's newest


class Machine(Protocol):
    """One mapping: it is told what happened, and says what is to be done."""

    def actions(self, now: float) -> list[Action]:
        """What is to be done now, and what happened, in order; each is given once. Call it after everything told."""
        ...

    @property
    def wakes_at(self) -> float | None:
        """When time alone brings the next action: a window's end, a throttled batch's next try. None: it does not."""
        ...

    @property
    def held(self) -> int:
        """Records that it was given and that are neither settled nor back at their source: collected, at work, waiting."""
        ...

    def answered(self, batch: int, answer: Answer, now: float) -> None:
        """An `Invoke` came to its end."""
        ...


class QueueMachine(Machine, Protocol):
    """A queue's."""

    def received(self, poll: int, messages: Sequence[Message], now: float) -> None:
        """A `Receive` came to its end; empty: nothing was there until its end."""
        ...

    def not_received(self, poll: int, now: float) -> None:
        """A `Receive` failed: the queue is away, or refuses. It is asked again a second later."""
        ...


class ShardMachine(Machine, Protocol):
    """A stream's, and a topic's: what is said of shards holds for partitions."""

    def listed(self, shards: Sequence[Shard], now: float) -> None:
        """A `ListShards` came to its end."""
        ...

    def not_listed(self, now: float) -> None:
        """A `ListShards` failed. It is asked again a second later."""
        ...

    def was_read(self, shard: str, page: Page, now: float) -> None:
        """A `Read` came to its end. After an empty page of a shard at its newest the driver waits before it calls this."""
        ...

    def not_read(self, shard: str, now: float) -> None:
        """A `Read` failed. It is asked again a second later."""
        ...

    def sent(self, send: int, now: float) -> None:
        """A `SendToDestination` was accepted."""
        ...

    def not_sent(self, send: int, now: float) -> None:
        """A `SendToDestination` failed."""
        ...

    @property
    def millis_behind(self) -> int:
        """How far the slowest shard was behind its newest record when it was last read."""
        ...
