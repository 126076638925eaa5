"""What is known of a stream's records in this process alone: runs that counted, and dead letters."""

from __future__ import annotations

#: Records remembered at most. Those of one batch fail at the same time, and a batch has up to 10,000.
_REMEMBERED = 10_000


class Spent:
    """How many runs of a record have counted, in this process, and which records were put aside in it.

    A stream has no receive count, and only `Claim` has an entry to count in. A shard's batches mostly meet the same
    environment again, so that this finds nearly every record that fails for ever; the mapping's own limits find the
    rest.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._aside: dict[str, None] = {}

    def is_put_aside(self, record_id: str) -> bool:
        """It stands in the dead-letter queue, and has come again with what stands unsettled before it."""
        return record_id in self._aside

    def put_aside(self, record_id: str) -> None:
        """It stands in the dead-letter queue now."""
        self._aside[record_id] = None
        if len(self._aside) > _REMEMBERED:
            del self._aside[next(iter(self._aside))]

    def of(self, record_id: str) -> int:
        """Runs that counted; 0 for a record that is not known."""
        return self._counts.get(record_id, 0)

    def note(self, record_id: str, runs: int) -> None:
        """Remember; 0 forgets."""
        self._counts.pop(record_id, None)
        if runs:
            self._counts[record_id] = runs
        if len(self._counts) > _REMEMBERED:
            del self._counts[next(iter(self._counts))]
