"""A partition of a topic, as its mapping reads it: what waits, what is at work, and the offset to commit."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from pipeline.emulator.mappings.actions import StreamRecord


@dataclass(eq=False)
class Partition:
    """Records are read in order, go into batches in order, and end in any order.

    `after` is the offset of the last record that was read; None: none was.
    """

    id: str  #: "<topic>-<number>"
    position: str  #: where to begin: "TRIM_HORIZON", "LATEST", "AT_TIMESTAMP"
    timestamp: float | None = None
    after: str | None = None
    is_reading: bool = False
    reads_at: float = 0.0  #: not before, epoch seconds
    millis_behind: int = 0
    at_work: int = 0  #: records that a batch, or a destination, has; none of the others goes out meanwhile
    bytes: int = 0  #: of what waits
    told: int | None = None  #: the offset that was committed last; at first where it began, which is no progress
    _waiting: deque[tuple[StreamRecord, float]] = field(default_factory=deque)
    _open: deque[int] = field(default_factory=deque)  #: offsets that were read, from the lowest that is not settled on
    _settled: set[int] = field(default_factory=set)  #: those of them that are, because a later one may end first

    def add(self, record: StreamRecord, now: float) -> None:
        """Take the partition's next record."""
        self.passed(record)
        self._waiting.append((record, now))
        self.bytes += record.size

    def passed(self, record: StreamRecord) -> None:
        """The partition's next record was read, and does not wait for a batch."""
        if self.after is None:
            self.told = int(record.number)
        self.after = record.number
        self._open.append(int(record.number))

    def take(self) -> StreamRecord:
        """The first that waits, for a batch."""
        record, _ = self._waiting.popleft()
        self.bytes -= record.size
        self.at_work += 1
        return record

    def settle(self, record: StreamRecord) -> None:
        """The record is done with."""
        self._settled.add(int(record.number))
        while self._open and self._open[0] in self._settled:
            self._settled.discard(self._open.popleft())

    @property
    def next(self) -> StreamRecord:
        """The first that waits."""
        return self._waiting[0][0]

    @property
    def waits_since(self) -> float:
        """When the first that waits was read."""
        return self._waiting[0][1]

    @property
    def waiting(self) -> int:
        """Records that wait for a batch."""
        return len(self._waiting)

    @property
    def is_free(self) -> bool:
        """Something waits, and may go out."""
        return bool(self._waiting) and not self.at_work

    @property
    def held(self) -> int:
        """Records that were read and are not settled."""
        return len(self._open) - len(self._settled)

    @property
    def committed(self) -> int | None:
        """The next offset to be read, for whoever goes on here: the lowest that is not settled. None: nothing was read."""
        if self._open:
            return self._open[0]
        return None if self.after is None else int(self.after) + 1
