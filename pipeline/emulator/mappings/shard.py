"""One shard of a stream on its way through the function: what was read, in lanes, and how far it is settled. Pure.

A lane is an order. A shard has one, or as many as its mapping's parallelization factor: then records of one partition key
share a lane, and at most one batch of a lane is at work.
"""

from __future__ import annotations

import json
import math
import zlib
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pipeline.emulator.mappings.actions import Read, StreamRecord
from pipeline.emulator.mappings.batching import MAX_EVENT_BYTES
from pipeline.emulator.mappings.machine import Page
from pipeline.emulator.mappings.settings import StreamSettings
from pipeline.emulator.mappings.windows import Window, start_of

#: What GetRecords gives in one call at most.
MAX_READ = 10_000
#: How long a read must have been under way, seconds, until it is plain that the shard has nothing more: a tumbling window
#: ends so much after its end, when no read has said so before.
WINDOW_GRACE = 2.0
#: With a parallelization factor, records that wait for each lane at least: so many keys, or more, are looked at.
_READ_AHEAD = 100
#: After a try that brought nothing: seconds until the next, twice as long each time, and at most this long.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
_RETRY_READ = 1.0


def pause(tries: int) -> float:
    """Seconds to wait after so many tries in a row that brought nothing."""
    return min(FIRST_PAUSE * 2.0 ** min(tries - 1, 20), LONGEST_PAUSE)


@dataclass
class Batch:
    """Records that are invoked with together: as they were collected, or what is left of that."""

    records: list[StreamRecord]
    retries: int = 0  #: that count towards the limit
    invocations: int = 0
    fruitless: int = 0  #: tries in a row that brought nothing
    not_before: float = -math.inf
    ends_window: bool = False  #: without records: the invocation that ends a tumbling window

    @property
    def ids(self) -> tuple[str, ...]:
        """Of its records, as a handler of the toolkit knows them."""
        return tuple(name for record in self.records for name in record.ids)

    def come_again(self, now: float) -> None:
        """Be tried again, after a pause that is longer each time."""
        self.fruitless += 1
        self.not_before = now + pause(self.fruitless)

    def halves(self) -> tuple[Batch, Batch]:
        """Two batches of their own. An odd record goes to the second."""
        middle = len(self.records) // 2
        return Batch(self.records[:middle]), Batch(self.records[middle:])


@dataclass
class Collected:
    """Records that become one batch."""

    ends_at: float  #: when the batching window ends
    window: float  #: start of the tumbling window that they belong to
    records: list[StreamRecord] = field(default_factory=list)
    size: int = 0


class Lane:
    """Records of a shard that keep their order: collected, then in batches that are tried one after the other."""

    def __init__(self, settings: StreamSettings) -> None:
        self.batches: deque[Batch] = deque()  #: being tried, or to be tried again; more than one: of a split batch
        self.is_at_work = False  #: with the first of them
        self.last_invoked = -1  #: the number of its last invocation: who waits longest is next
        self._settings = settings
        self._full: deque[Collected] = deque()
        self._open: Collected | None = None

    @property
    def is_free(self) -> bool:
        """It works on nothing, so that what is collected may go next."""
        return not self.batches

    @property
    def collected(self) -> int:
        """Records that are in no batch yet."""
        return sum(len(one.records) for one in self._all())

    @property
    def collected_bytes(self) -> int:
        """What they take in an event."""
        return sum(one.size for one in self._all())

    @property
    def held(self) -> int:
        """Records that were read and are not settled."""
        return self.collected + sum(len(batch.records) for batch in self.batches)

    @property
    def window(self) -> float | None:
        """The tumbling window of what goes next."""
        first = self._first()
        return None if first is None else first.window

    @property
    def last_window(self) -> float:
        """The tumbling window of the newest record that is collected."""
        last = self._open or (self._full[-1] if self._full else None)
        return -math.inf if last is None else last.window

    def add(self, record: StreamRecord, window: float, now: float) -> None:
        """Collect a record. The batching window starts with the first of a batch."""
        collecting = self._open
        if collecting is not None and (collecting.size + record.size > MAX_EVENT_BYTES or collecting.window != window):
            self._full.append(collecting)
            collecting = None
        if collecting is None:
            collecting = Collected(self._window_end(window, now), window)
        collecting.records.append(record)
        collecting.size += record.size
        self._open = collecting
        if len(collecting.records) >= self._settings.batch_size:
            self._full.append(collecting)
            self._open = None

    def form(self, now: float, *, is_last: bool) -> bool:
        """Make a batch of what was collected, if it is due and the lane is free. Gives whether there is a new one.

        `is_last`: nothing follows, so nothing is worth waiting for.
        """
        due_at = self.due_at
        if self.batches or due_at is None or (now < due_at and not is_last):
            return False
        collected = self._full.popleft() if self._full else self._open
        if collected is self._open:
            self._open = None
        assert collected is not None
        self.batches.append(Batch(collected.records))
        return True

    @property
    def due_at(self) -> float | None:
        """When what was collected goes out; None: there is nothing."""
        if self._full:
            return -math.inf
        return None if self._open is None else self._open.ends_at

    def _window_end(self, tumbling: float, now: float) -> float:
        """When the batching window of a record ends that came now: at the latest with the record's tumbling window."""
        ends_at = now + self._settings.batching_window
        over_at = tumbling + self._settings.tumbling_window
        return over_at if now < over_at < ends_at else ends_at

    def _first(self) -> Collected | None:
        return self._full[0] if self._full else self._open

    def _all(self) -> Iterable[Collected]:
        return (*self._full, self._open) if self._open is not None else self._full


class Reader:
    """One shard: reads, filters, gives records to lanes, and knows how far all of it is settled."""

    def __init__(self, shard: str, settings: StreamSettings, *, position: str, timestamp: float | None) -> None:
        self.shard = shard
        self.lanes = [Lane(settings) for _ in range(settings.parallelization_factor)]
        self.window: Window | None = None  #: the tumbling window that is open
        self.has_ended = False  #: the shard is closed and read to its end
        self.checkpoint: str | None = None  #: the sequence number up to which everything is settled
        self.millis_behind = 0
        self._settings = settings
        self._position = position
        self._timestamp = timestamp
        self._after: str | None = None
        self._is_reading = False
        self._not_before = -math.inf  #: when a read that failed is tried again
        self._asked_at = -math.inf
        self._newest_at = -math.inf  #: when the last read was begun that found nothing more
        self._unsettled: deque[str] = deque()
        self._settled: set[str] = set()

    @property
    def held(self) -> int:
        """Records that were read and are not settled."""
        return sum(lane.held for lane in self.lanes)

    @property
    def is_finished(self) -> bool:
        """Nothing of it is left."""
        return self.has_ended and self.window is None and not self.held and all(lane.is_free for lane in self.lanes)

    # -- Reading.

    @property
    def reads_at(self) -> float | None:
        """When it is read next; None: not as things stand. While all lanes work, Lambda waits for results, and reads not."""
        size = sum(lane.collected_bytes for lane in self.lanes)
        is_full = self._wanted <= 0 or size >= MAX_EVENT_BYTES * len(self.lanes)
        if self._is_reading or self.has_ended or is_full or not any(lane.is_free for lane in self.lanes):
            return None
        return self._not_before

    def read(self, now: float) -> Read | None:
        """What to read now."""
        reads_at = self.reads_at
        if reads_at is None or now < reads_at:
            return None
        self._is_reading, self._asked_at = True, now
        return Read(self.shard, self._after, self._position, self._timestamp, min(self._wanted, MAX_READ))

    @property
    def _wanted(self) -> int:
        count = len(self.lanes)
        each = self._settings.batch_size if count == 1 else max(self._settings.batch_size, _READ_AHEAD)
        return each * count - sum(lane.collected for lane in self.lanes)

    def was_read(self, page: Page, now: float) -> list[StreamRecord]:
        """Take a page. Gives back what the filter passes over; that is settled."""
        self._is_reading = False
        self.has_ended = page.has_ended
        self.millis_behind = page.millis_behind
        if not page.records and not page.millis_behind:
            self._newest_at = self._asked_at
        passed_over: list[StreamRecord] = []
        for record in page.records:
            self._after = record.number
            self._unsettled.append(record.number)
            if self._is_accepted(record):
                self._lane(record).add(record, self._window_of(record), now)
            else:
                passed_over.append(record)
        self.settle(passed_over)
        return passed_over

    def not_read(self, now: float) -> None:
        """A read failed."""
        self._is_reading, self._not_before = False, now + _RETRY_READ

    def settle(self, records: Sequence[StreamRecord]) -> None:
        """These are done with. The checkpoint stands before the first, in the shard's order, that is not."""
        self._settled.update(record.number for record in records)
        while self._unsettled and self._unsettled[0] in self._settled:
            self.checkpoint = self._unsettled.popleft()
            self._settled.remove(self.checkpoint)

    def _is_accepted(self, record: StreamRecord) -> bool:
        if self._settings.filter is None:
            return True
        data = record.data
        return self._settings.filter.accepts(
            data if isinstance(data, str | bytes) else json.dumps(data, default=str), record.member
        )

    def _lane(self, record: StreamRecord) -> Lane:
        if len(self.lanes) == 1:
            return self.lanes[0]
        return self.lanes[zlib.crc32(record.key.encode("utf-8", "surrogatepass")) % len(self.lanes)]

    # -- Tumbling windows: a shard that has them has one lane.

    def _window_of(self, record: StreamRecord) -> float:
        if not self._settings.tumbling_window:
            return 0.0
        opened = -math.inf if self.window is None else self.window.start
        # Arrival times are approximate: windows of a shard never go back, as its records do not.
        return max(start_of(record.arrived_at, self._settings.tumbling_window), opened, self.lanes[0].last_window)

    def form(self, now: float) -> None:
        """Make batches of what is due, and end windows."""
        if not self._settings.tumbling_window:
            for lane in self.lanes:
                lane.form(now, is_last=self.has_ended)
            return
        lane = self.lanes[0]
        if not lane.is_free:
            return
        if self._ends_window(lane, now):
            lane.batches.append(Batch([], ends_window=True))
            return
        window = lane.window
        if lane.form(now, is_last=self.has_ended) and self.window is None and window is not None:
            self.window = Window(window, self._settings.tumbling_window)

    @property
    def window_ends_at(self) -> float | None:
        """When a window that nothing more comes for ends; None: none is open, or something may come."""
        window, lane = self.window, self.lanes[0]
        if window is None or not lane.is_free or lane.collected:
            return None
        if self._newest_at >= window.end:
            return window.end
        return max(window.end, self._asked_at) + WINDOW_GRACE if self._is_reading else None

    def _ends_window(self, lane: Lane, now: float) -> bool:
        if self.window is None:
            return False
        if self.window.is_too_large:
            return True
        if lane.window is not None:
            return lane.window > self.window.start
        ends_at = self.window_ends_at
        return self.has_ended or (ends_at is not None and now >= ends_at)
