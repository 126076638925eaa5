"""What a stream's event source mapping decides, shard by shard: batches, checkpoints, retries, which shards to read.

Pure: no clock, no stream. The rules are AWS's, from the Lambda developer guide's Kinesis pages;
where it says nothing, a comment says what was chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pipeline.emulator.mapping import MAX_EVENT_BYTES, Collecting
from pipeline.emulator.mappings.response import ResponseError, named_failures

T = TypeVar("T")

#: What GetRecords gives in one call at most.
MAX_READ = 10_000


@dataclass(frozen=True)
class Verdict:
    """What a response means for a shard's batch."""

    #: So many records, from the batch's first, lie behind the checkpoint now; the others come again.
    settled: int
    #: Why the whole batch failed although a response came; None: it was understood.
    fault: str | None = None


def all_failed(fault: str) -> Verdict:
    """The whole batch comes again: an error, a time-out, or a response that cannot be meant."""
    return Verdict(0, fault)


def judge(response: Any, numbers: Sequence[str]) -> Verdict:
    """What a handler's return value means for the batch of these sequence numbers, in their order.

    The lowest that it names, as a number, is the checkpoint: from there on everything comes again.
    """
    try:
        failed = named_failures(response, frozenset(numbers))
    except ResponseError as error:
        return all_failed(str(error))
    if not failed:
        return Verdict(len(numbers))
    return Verdict(numbers.index(min(failed, key=int)))


class ShardBatches(Generic[T]):
    """One shard's records between being read and being behind the checkpoint.

    A batch that comes again is what was left of it, not filled up with newer records, and waits for
    no window.
    """

    def __init__(
        self, batch_size: int, window: float, retry_attempts: int, *, max_bytes: int = MAX_EVENT_BYTES
    ) -> None:
        self._collecting: Collecting[T] = Collecting(batch_size, window, max_bytes, MAX_READ)
        self._retry_attempts = retry_attempts
        self._batch: list[T] = []
        self.retries = 0  #: how often the present batch was delivered again

    @property
    def held(self) -> int:
        """Records that were read and are not behind the checkpoint."""
        return len(self._batch) + len(self._collecting)

    @property
    def ends_at(self) -> float | None:
        """When the window of the batch that is being collected ends."""
        return self._collecting.ends_at

    def wanted(self) -> int:
        """How many records to read next."""
        return self._collecting.wanted()

    def add(self, item: T, size: int, now: float) -> None:
        """Take the shard's next record, of `size` bytes in the event. The window starts with the first."""
        self._collecting.add(item, size, now)

    def is_due(self, now: float, *, is_last: bool = False) -> bool:
        """A batch goes out now. `is_last`: the shard has ended, so nothing is worth waiting for."""
        return bool(self._batch) or self._collecting.is_due(now) or (is_last and bool(self._collecting))

    def take(self, now: float) -> list[T]:
        """The batch that goes out: what is left of the last one, else what was collected."""
        if not self._batch:
            self._batch = self._collecting.items
            self._collecting = self._collecting.following(now)
        return list(self._batch)

    def settle(self, verdict: Verdict) -> list[T]:
        """Move the checkpoint. Gives back the records that are given up, because their retries are used up."""
        del self._batch[: verdict.settled]
        if verdict.settled or not self._batch:
            # AWS does not say whether a batch keeps its count when its checkpoint moves. Here what
            # is left counts as a new one: a limit is for batches that get nowhere.
            self.retries = 0
            return []
        if 0 <= self._retry_attempts <= self.retries:
            given_up, self._batch, self.retries = self._batch, [], 0
            return given_up
        self.retries += 1
        return []


@dataclass(frozen=True)
class Shard:
    """A shard as the stream lists it."""

    id: str
    parents: tuple[str, ...] = ()


def startable(shards: Iterable[Shard], started: Collection[str], finished: Collection[str]) -> list[Shard]:
    """The shards whose reading may begin: parents before children, so that a key's order holds over a reshard.

    A parent that the stream no longer lists has lost its records to the retention: nobody waits for it.
    """
    listed = list(shards)
    waiting = {shard.id for shard in listed} - set(finished)
    return [shard for shard in listed if shard.id not in started and not waiting.intersection(shard.parents)]
