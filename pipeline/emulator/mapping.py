"""What an SQS event source mapping decides: when a batch goes out, and what a response means.

Pure: no clock, no queue. The rules are AWS's, from the Lambda developer guide's SQS pages.
`Collecting` holds for streams too; what is theirs alone is in `stream_mapping`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pipeline.emulator.mappings.response import ResponseError, named_failures

T = TypeVar("T")

#: Lambda's limit for a synchronous event; what each record's envelope takes counts towards it.
MAX_EVENT_BYTES = 6 * 1024 * 1024
#: What SQS hands out in one call at most.
MAX_RECEIVE = 10


@dataclass
class Collecting(Generic[T]):
    """A batch while it is collected: it is due by size, by its window's end, or by 6 MB."""

    batch_size: int
    window: float
    max_bytes: int = MAX_EVENT_BYTES
    max_receive: int = MAX_RECEIVE
    items: list[T] = field(default_factory=list)
    #: When the window ends, on the clock of `add`; None while nothing was received.
    ends_at: float | None = None
    _bytes: int = 0
    _over: list[tuple[T, int]] = field(default_factory=list)

    def wanted(self) -> int:
        """How many to ask the source for next; 0: the batch has its size."""
        return 0 if self._over else min(self.max_receive, self.batch_size - len(self.items))

    def add(self, item: T, size: int, now: float) -> None:
        """Take one received item, of `size` bytes in the event. The window starts with the first."""
        if self.ends_at is None:
            self.ends_at = now + self.window
        # One that is too large by itself still goes out, alone: nobody else could take it.
        if self._over or (self.items and self._bytes + size > self.max_bytes):
            self._over.append((item, size))
            return
        self.items.append(item)
        self._bytes += size

    def is_due(self, now: float) -> bool:
        """The batch goes out now."""
        if not self.items or self.ends_at is None:
            return False
        return bool(self._over) or len(self.items) >= self.batch_size or now >= self.ends_at

    def __len__(self) -> int:
        return len(self.items) + len(self._over)

    def following(self, now: float) -> Collecting[T]:
        """The next batch: it starts with what did not fit into this one."""
        successor: Collecting[T] = Collecting(self.batch_size, self.window, self.max_bytes, self.max_receive)
        for item, size in self._over:
            successor.add(item, size, now)
        return successor


@dataclass(frozen=True)
class Verdict:
    """What a response means for the batch's messages."""

    #: The ids whose messages the mapping deletes.
    succeeded: frozenset[str]
    #: The ids whose messages come back.
    failed: frozenset[str]
    #: Why the whole batch failed although a response came; None: it was understood.
    fault: str | None = None


def all_failed(ids: Sequence[str], fault: str) -> Verdict:
    """The whole batch comes back: an error, a time-out, or a response that cannot be meant."""
    return Verdict(frozenset(), frozenset(ids), fault)


def judge(response: Any, ids: Sequence[str]) -> Verdict:
    """What a handler's return value means: the messages that it names come back."""
    everything = frozenset(ids)
    try:
        failed = named_failures(response, everything)
    except ResponseError as error:
        return all_failed(ids, str(error))
    return Verdict(everything - failed, failed)
