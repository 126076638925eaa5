"""What an SQS event source mapping decides: when a batch goes out, and what a response means.

Pure: no clock, no queue. The rules are AWS's, from the Lambda developer guide's SQS pages.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

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
    items: list[T] = field(default_factory=list)
    #: When the window ends, on the clock of `add`; None while nothing was received.
    ends_at: float | None = None
    _bytes: int = 0
    _over: list[tuple[T, int]] = field(default_factory=list)

    def wanted(self) -> int:
        """How many to ask the queue for next; 0: the batch has its size."""
        return 0 if self._over else min(MAX_RECEIVE, self.batch_size - len(self.items))

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

    def following(self, now: float) -> Collecting[T]:
        """The next batch: it starts with what did not fit into this one."""
        successor: Collecting[T] = Collecting(self.batch_size, self.window, self.max_bytes)
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
    """What a handler's return value means, with ReportBatchItemFailures on.

    An empty response, or one without `batchItemFailures`, is complete success. What is not JSON
    or not an object, and an item without an id of this batch, is complete failure.
    """
    try:
        # What Lambda sees is the text: a value that has none is an error of the runtime's.
        response = json.loads(json.dumps(response, allow_nan=False))
    except (TypeError, ValueError) as error:
        return all_failed(ids, f"the response cannot be written as JSON: {error}")
    if response is None:
        return Verdict(frozenset(ids), frozenset())
    if not isinstance(response, dict):
        return all_failed(ids, f"the response is not an object: {response!r:.80}")
    items = response.get("batchItemFailures")
    if items is None:
        return Verdict(frozenset(ids), frozenset())
    if not isinstance(items, list):
        return all_failed(ids, f"batchItemFailures is not a list: {items!r:.80}")
    return _judge_items(items, frozenset(ids))


def _judge_items(items: list[Any], ids: frozenset[str]) -> Verdict:
    failed: set[str] = set()
    for item in items:
        identifier = item.get("itemIdentifier") if isinstance(item, dict) else None
        if not isinstance(identifier, str) or not identifier:
            return all_failed(tuple(ids), f"an item has no itemIdentifier: {item!r:.80}")
        if identifier not in ids:
            return all_failed(tuple(ids), f"itemIdentifier {identifier!r:.80} is not in the batch")
        failed.add(identifier)
    return Verdict(ids - failed, frozenset(failed))
