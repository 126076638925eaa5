"""Lanes: which record may start next, and what a failure holds back."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Hashable, Sequence


class Schedule:
    """Hands out the positions of a batch so that lanes run in order, side by side.

    Positions that share a lane, or an idempotency key, never run at the same time; among those
    that may run, the earliest in the batch is handed out first. A failure holds back what stands
    behind it in its own lane, and later repeats of its own key; nothing else.

    A position that has run, and whose end is only to be heard, can let its lane go on (`hand_on`).
    """

    def __init__(self, lanes: Sequence[Hashable | None], keys: Sequence[Hashable]) -> None:
        self._lanes = lanes
        self._keys = keys
        self._next_in_chain, self._ready = _chain(lanes, keys)
        self._blocked: dict[tuple[str, Hashable], int] = {}  #: by lane and by key: the first that failed
        self._open: dict[Hashable, int] = {}  #: by key: positions that have handed on and are not done
        self._open_lanes: Counter[Hashable | None] = Counter()
        self._awaiting: dict[Hashable, int] = {}  #: by key: repeats of those

    @property
    def ready(self) -> int:
        """How many positions may start now."""
        return len(self._ready)

    def take(self) -> int | None:
        """The earliest position that may start now, or None."""
        return heapq.heappop(self._ready) if self._ready else None

    def done(self, position: int, *, settled: bool) -> list[int]:
        """Note how a position ended; return the positions that this holds back for good."""
        if self._open and self._open.get(self._keys[position]) == position:
            return self._done_after_handing_on(position, settled=settled)
        following = self._next_in_chain.get(position)
        if following is None:
            return []
        if not settled:
            self._block(position)
        return self._admit(following)

    def hand_on(self, position: int) -> list[int]:
        """Let the next of its lane begin, though not a repeat of its key; `done` follows. Returns what is held back."""
        if self._open.get(self._keys[position]) == position:
            return []  # it is tried again
        self._open[self._keys[position]] = position
        self._open_lanes[self._lanes[position]] += 1
        following = self._next_in_chain.get(position)
        return [] if following is None else self._admit(following)

    def hold_back(self, position: int) -> list[int]:
        """A position that has handed on has failed: return those behind it that have not begun."""
        self._block(position)
        behind = sorted(one for one in self._ready if self._is_blocked(one))
        self._ready = [one for one in self._ready if not self._is_blocked(one)]
        heapq.heapify(self._ready)
        return [held for one in behind for held in self._admit(one)]

    def is_behind_failure(self, position: int) -> bool:
        """True when an earlier position of its lane, or of its key, has failed."""
        return self._is_blocked(position)

    def is_behind_open(self, position: int) -> bool:
        """True when the end of an earlier position of its lane is still to be heard."""
        lane = self._lanes[position]
        return lane is not None and self._open_lanes[lane] > 0

    def _done_after_handing_on(self, position: int, *, settled: bool) -> list[int]:
        key = self._keys[position]
        del self._open[key]
        self._open_lanes[self._lanes[position]] -= 1
        held_back = [] if settled else self.hold_back(position)
        repeat = self._awaiting.pop(key, None)
        return held_back if repeat is None else held_back + self._admit(repeat)

    def _admit(self, position: int) -> list[int]:
        """Let a position begin, or the first behind it in its chain that nothing blocks; return those before that."""
        held_back: list[int] = []
        following: int | None = position
        while following is not None and self._is_blocked(following):
            self._block(following)
            held_back.append(following)
            following = self._next_in_chain.get(following)
        if following is None:
            return held_back
        key = self._keys[following]
        if key in self._open:
            self._awaiting[key] = following
        else:
            heapq.heappush(self._ready, following)
        return held_back

    def _block(self, position: int) -> None:
        lane = self._lanes[position]
        names: list[tuple[str, Hashable]] = [("key", self._keys[position])]
        for name in names if lane is None else [*names, ("lane", lane)]:
            self._blocked[name] = min(position, self._blocked.get(name, position))

    def _is_blocked(self, position: int) -> bool:
        """An earlier one has failed. A later one may have: its lane went on while this one's end was not heard."""
        if not self._blocked:
            return False
        first = min(
            self._blocked.get(("key", self._keys[position]), position),
            self._blocked.get(("lane", self._lanes[position]), position),
        )
        return first < position


def _chain(lanes: Sequence[Hashable | None], keys: Sequence[Hashable]) -> tuple[dict[int, int], list[int]]:
    """Join positions that share a lane or a key into chains.

    Returns each position's successor in its chain, and the first position of every chain. Chains
    that a later position joins (its lane from one, its key from another) become one.
    """
    if len(set(keys)) == len(keys):  # the common case: no repeats, so that each lane is a chain
        return _chain_lanes(lanes)
    root = _Roots(len(lanes))
    seen: dict[tuple[str, Hashable], int] = {}
    for position, (lane, key) in enumerate(zip(lanes, keys, strict=True)):
        root.join(seen.setdefault(("key", key), position), position)
        if lane is not None:
            root.join(seen.setdefault(("lane", lane), position), position)
    successor: dict[int, int] = {}
    heads: list[int] = []
    last: dict[int, int] = {}
    for position in range(len(lanes)):
        chain = root.of(position)
        if chain in last:
            successor[last[chain]] = position
        else:
            heads.append(position)
        last[chain] = position
    return successor, heads


def _chain_lanes(lanes: Sequence[Hashable | None]) -> tuple[dict[int, int], list[int]]:
    if lanes.count(None) == len(lanes):
        return {}, list(range(len(lanes)))
    successor: dict[int, int] = {}
    heads: list[int] = []
    last: dict[Hashable, int] = {}
    for position, lane in enumerate(lanes):
        if lane is None:
            heads.append(position)
            continue
        before = last.get(lane)
        if before is None:
            heads.append(position)
        else:
            successor[before] = position
        last[lane] = position
    return successor, heads


class _Roots:
    """A union-find over positions."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def of(self, position: int) -> int:
        parent = self._parent
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    def join(self, one: int, other: int) -> None:
        if one != other:
            self._parent[self.of(other)] = self.of(one)
