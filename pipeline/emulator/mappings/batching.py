"""A batch while it is collected: when it goes out, and what it takes.

The rules hold for queues and for streams: a batch goes out when it has its size, when its window ends, or when the event
reaches 6 MB (Lambda developer guide, "How Lambda processes records from stream and queue-based event sources").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

#: Lambda's limit for a synchronous event, bytes (Lambda quotas); what each record's metadata takes counts towards it.
MAX_EVENT_BYTES = 6 * 1024 * 1024


@dataclass
class Collecting(Generic[T]):
    """A batch while it is collected: it is due by its size, by its window's end, or by 6 MB."""

    batch_size: int
    window: float  #: seconds, from the first item on
    max_bytes: int = MAX_EVENT_BYTES
    items: list[T] = field(default_factory=list)
    #: When the window ends, on the clock of `add`; None while nothing was received.
    ends_at: float | None = None
    _bytes: int = 0
    _over: list[tuple[T, int]] = field(default_factory=list)

    def wanted(self) -> int:
        """How many more the batch takes; 0: it has its size."""
        return 0 if self._is_full else self.batch_size - len(self.items)

    def add(self, item: T, size: int, now: float) -> None:
        """Take one received item, of `size` bytes in the event. The window starts with the first."""
        if self.ends_at is None:
            self.ends_at = now + self.window
        # One that is too large by itself still goes out, alone: nobody else could take it.
        fits = self._bytes + size <= self.max_bytes and len(self.items) < self.batch_size
        if self._over or (self.items and not fits):
            self._over.append((item, size))
            return
        self.items.append(item)
        self._bytes += size

    def is_due(self, now: float) -> bool:
        """The batch goes out now."""
        return self.ends_at is not None and (self._is_full or now >= self.ends_at)

    def everything(self) -> list[T]:
        """All that it holds, in the order in which it came: the batch, and what did not fit."""
        return [*self.items, *(item for item, _ in self._over)]

    def __len__(self) -> int:
        return len(self.items) + len(self._over)

    def following(self, now: float) -> Collecting[T]:
        """The next batch: it starts with what did not fit into this one."""
        successor: Collecting[T] = Collecting(self.batch_size, self.window, self.max_bytes)
        for item, size in self._over:
            successor.add(item, size, now)
        return successor

    @property
    def _is_full(self) -> bool:
        return bool(self._over) or len(self.items) >= self.batch_size or self._bytes >= self.max_bytes
