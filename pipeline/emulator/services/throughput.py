"""How much a shard of a stream takes and gives a second.

The numbers are the API model's of Kinesis (`PutRecords`, `GetRecords`); how AWS measures a second is not said. A shard
has a tank that is refilled at a steady rate, which is how the Developer Guide's page "Handle large records" has it.
"""

from __future__ import annotations

from dataclasses import dataclass

_RECORDS, _BYTES = 1_000, 1_048_576
_READS, _READ_BYTES = 5, 2 * 1_048_576
#: Epoch seconds are no exact numbers: what was refilled for a second is a little off.
_SLACK = 1e-3


@dataclass
class Tank:
    """Units that a shard has at hand, refilled each second."""

    rate: float
    capacity: float
    left: float
    filled_at: float

    @classmethod
    def full(cls, rate: float, capacity: float, now: float) -> Tank:
        """One that was not used for a while."""
        return cls(rate, capacity, capacity, now)

    def has(self, units: float, now: float) -> bool:
        """Whether so much is at hand."""
        self.left = min(self.capacity, self.left + max(0.0, now - self.filled_at) * self.rate)
        self.filled_at = now
        return self.left + _SLACK >= units


class Throughput:
    """What one shard can take and give."""

    def __init__(self, max_record: int, now: float) -> None:
        """`max_record`: bytes of the largest record; it passes when the shard was idle for long enough before."""
        self._records = Tank.full(_RECORDS, _RECORDS, now)
        self._bytes = Tank.full(_BYTES, max(_BYTES, max_record), now)
        self._reads = Tank.full(_READS, _READS, now)
        self._free_at = now

    def takes(self, size: int, now: float) -> bool:
        """Whether the shard takes a record of so many bytes now; if so, it has."""
        if not (self._records.has(1, now) and self._bytes.has(size, now)):
            return False
        self._records.left -= 1
        self._bytes.left -= size
        return True

    def gives(self, now: float) -> bool:
        """Whether the shard can be read now; if so, it was."""
        if now + _SLACK < self._free_at or not self._reads.has(1, now):
            return False
        self._reads.left -= 1
        return True

    def gave(self, size: int, now: float) -> None:
        """So many bytes were read: 10 MiB are those of five seconds."""
        self._free_at = now + size / _READ_BYTES
