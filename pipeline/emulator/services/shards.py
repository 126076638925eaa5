"""The shards of a stream in memory: what each holds, what it covers, and how a stream is resharded.

Pure: times are arguments. The rules are those of the Kinesis Data Streams Developer Guide ("Resharding a stream",
"Complete the resharding action") and of the service's own API model.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

#: Hash keys go from 0 to one less: MD5 as a number of 128 bits (API model, `PutRecord`).
HASHES = 2**128
#: AWS's sequence numbers have 56 digits now; how they are made up is not said, but they grow and leave gaps.
_FIRST_NUMBER = 49_663_141_592_653_589_793_238_462_643_383_279_502_884_197_169_399_375_105
_INDEX_BITS, _COUNT_BITS = 32, 64


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a shard."""

    number: int  #: its sequence number
    key: str | None  #: its partition key; None where the stream distributes by itself and the producer gave none
    data: bytes
    arrived_at: float  #: epoch seconds
    encryption: str | None  #: "KMS", or None

    @property
    def size(self) -> int:
        """Bytes, as limits count them: data and partition key."""
        return len(self.data) + len((self.key or "").encode())


@dataclass(kw_only=True)
class Shard:
    """One shard: open, or closed by a reshard with its records still there."""

    index: int
    first_hash: int
    last_hash: int
    first_number: int  #: below those of all its records
    opened_at: float
    parents: tuple[str, ...] = ()  #: the shard that was split; the two that were merged, the one that was asked first
    last_number: int | None = None  #: above those of all its records; None while it is open
    closed_at: float | None = None
    records: list[Record] = field(default_factory=list[Record])
    numbers: list[int] = field(default_factory=list[int])  #: of `records`

    @property
    def id(self) -> str:
        """As the API has it: "shardId-000000000000"."""
        return shard_id(self.index)

    @property
    def is_open(self) -> bool:
        """Whether it takes records."""
        return self.last_number is None

    def append(self, record: Record) -> None:
        """Add a record at its end."""
        self.records.append(record)
        self.numbers.append(record.number)

    def after(self, number: int) -> int:
        """The position of the first record with a greater number."""
        return bisect_right(self.numbers, number)

    def at(self, moment: float) -> int:
        """The position of the first record that arrived at a time or later."""
        # A clock may have gone back: arrivals need not grow.
        return next((at for at, record in enumerate(self.records) if record.arrived_at >= moment), len(self.records))

    def trim(self, now: float, retention: float) -> None:
        """Forget the records that are older than `retention`, in seconds."""
        expired = 0
        while expired < len(self.records) and self.records[expired].arrived_at + retention <= now:
            expired += 1
        if expired:
            del self.records[:expired], self.numbers[:expired]


class Shards:
    """The shards of one stream, in the order of their ids."""

    def __init__(self, count: int, now: float) -> None:
        self._count = 0  #: sequence numbers that were given
        self._next_index = 0
        self.all: dict[str, Shard] = {}
        for first, last in even(count):
            self._open(first, last, (), now)

    @property
    def open(self) -> list[Shard]:
        """Those that take records, by the hash keys that they cover."""
        return sorted((shard for shard in self.all.values() if shard.is_open), key=lambda shard: shard.first_hash)

    @property
    def latest_number(self) -> int:
        """No record has a greater sequence number yet."""
        return _FIRST_NUMBER + (self._count << _INDEX_BITS) + (1 << _INDEX_BITS) - 1

    def covering(self, hash_key: int) -> Shard:
        """The open shard of a hash key."""
        return next(
            shard for shard in self.all.values() if shard.is_open and shard.first_hash <= hash_key <= shard.last_hash
        )

    def next_number(self, shard: Shard) -> int:
        """A sequence number greater than all that were given before: unique in the stream, growing in each shard."""
        return self._number(shard.index)

    def children(self, parent: Shard) -> list[Shard]:
        """The shards that a reshard made of a shard."""
        return [shard for shard in self.all.values() if parent.id in shard.parents]

    def trim(self, now: float, retention: float) -> None:
        """Forget the records that are older than `retention`, in seconds, and closed shards that held only such."""
        for shard in list(self.all.values()):
            shard.trim(now, retention)
            if shard.closed_at is not None and not shard.records and shard.closed_at + retention <= now:
                del self.all[shard.id]

    def split(self, shard: Shard, hash_key: int, now: float) -> None:
        """Close a shard and open two: the second one begins at a hash key."""
        self._close(shard, now)
        self._open(shard.first_hash, hash_key - 1, (shard.id,), now)
        self._open(hash_key, shard.last_hash, (shard.id,), now)

    def merge(self, shard: Shard, adjacent: Shard, now: float) -> None:
        """Close two adjacent shards and open one for both."""
        self._close(shard, now)
        self._close(adjacent, now)
        first, last = min(shard.first_hash, adjacent.first_hash), max(shard.last_hash, adjacent.last_hash)
        self._open(first, last, (shard.id, adjacent.id), now)

    def scale(self, count: int, now: float) -> None:
        """Split and merge until there are so many open shards, which cover equal ranges."""
        scale(
            count,
            self.covering,
            lambda shard, key: self.split(shard, key, now),
            lambda one, other: self.merge(one, other, now),
        )

    def _open(self, first: int, last: int, parents: tuple[str, ...], now: float) -> None:
        index = self._next_index
        self._next_index += 1
        number = self._number(index)
        shard = Shard(
            index=index, first_hash=first, last_hash=last, first_number=number, opened_at=now, parents=parents
        )
        self.all[shard.id] = shard

    def _close(self, shard: Shard, now: float) -> None:
        shard.last_number, shard.closed_at = self.next_number(shard), now

    def _number(self, index: int) -> int:
        self._count += 1
        return _FIRST_NUMBER + (self._count << _INDEX_BITS) + index


def scale(
    count: int,
    covering: Callable[[int], Shard],
    split: Callable[[Shard, int], None],
    merge: Callable[[Shard, Shard], None],
) -> None:
    """Reshard to so many shards of equal size. `covering`: the open shard of a hash key; `split` and `merge`: do so.

    What stands across a border of the ranges to be is split there, and then the pieces of each are merged, so that
    some shards live only meanwhile, as the API model says of `UpdateShardCount`.
    """
    wanted = even(count)
    for first, _ in wanted[1:]:
        shard = covering(first)
        if shard.first_hash != first:
            split(shard, first)
    for first, last in wanted:
        while (shard := covering(first)).last_hash != last:
            merge(shard, covering(shard.last_hash + 1))


def shard_id(index: int) -> str:
    """A shard's id, as the API has it."""
    return f"shardId-{index:012}"


def index_in(number: int) -> int | None:
    """The index of the shard that a sequence number was given for; None: it is none of ours."""
    count, index = divmod(number - _FIRST_NUMBER, 1 << _INDEX_BITS)
    return index if 0 < count < 1 << _COUNT_BITS else None


def even(count: int) -> Sequence[tuple[int, int]]:
    """All hash keys in so many ranges of equal size, each with its first and last one."""
    size = HASHES // count
    firsts = [index * size for index in range(count)]
    return list(zip(firsts, [first - 1 for first in firsts[1:]] + [HASHES - 1], strict=True))


def hash_of(partition_key: str) -> int:
    """A partition key's hash key. Raises `UnicodeEncodeError` for half a surrogate pair."""
    return int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest(), "big")
