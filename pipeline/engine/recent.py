"""Keys known to be done, kept in the process: a repeat of one of them costs no call."""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from pipeline.decisions.idempotency import AlreadyDone, Mismatch

#: Seconds that a key is known. An entry that somebody deletes, so that its record may run again, is found gone by then.
KNOWN_FOR = 300.0


class _Known(Struct, frozen=True):
    until: float
    validation: str | None


class Recent:
    """The last keys that were done in this process; `limit` of them at most.

    What the store said is done is not kept: when its entry ends is not known here.
    """

    def __init__(self, limit: int, ttl: int) -> None:
        self._limit = limit
        self._ttl = min(float(ttl), KNOWN_FOR)
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def find(self, key_hash: str | None, validation: str | None, now: float) -> AlreadyDone | Mismatch | None:
        """What is known of a key at `now` (epoch seconds); None when nothing is."""
        known = self._known.get(key_hash) if key_hash is not None else None
        if known is None or key_hash is None:
            return None
        if known.until < now:
            del self._known[key_hash]
            return None
        self._known.move_to_end(key_hash)
        differs = validation is not None and known.validation not in (None, validation)
        return Mismatch() if differs else AlreadyDone()

    def add(self, key_hash: str | None, validation: str | None, now: float) -> None:
        """A key is done."""
        if key_hash is None or self._limit == 0:
            return
        self._known[key_hash] = _Known(now + self._ttl, validation)
        self._known.move_to_end(key_hash)
        while len(self._known) > self._limit:
            self._known.popitem(last=False)

    def __len__(self) -> int:
        return len(self._known)
