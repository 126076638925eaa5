"""Lanes: which record may start next, and what a failure holds back."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Sequence


class Schedule:
    """Hands out the positions of a batch so that lanes run in order, side by side.

    Positions that share a lane, or an idempotency key, never run at the same time; among those
    that may run, the earliest in the batch is handed out first. A failure holds back what stands
    behind it in its own lane, and later repeats of its own key; nothing else.
    """

    def __init__(self, lanes: Sequence[Hashable | None], keys: Sequence[Hashable]) -> None:
        self._lanes = lanes
        self._keys = keys
        self._next_in_chain, self._ready = _chain(lanes, keys)
        self._blocked: set[tuple[str, Hashable]] = set()

    @property
    def ready(self) -> int:
        """How many positions may start now."""
        return len(self._ready)

    def take(self) -> int | None:
        """The earliest position that may start now, or None."""
        return heapq.heappop(self._ready) if self._ready else None

    def done(self, position: int, *, settled: bool) -> list[int]:
        """Note how a position ended; return the positions that this holds back for good."""
        following = self._next_in_chain.get(position)
        if following is None:
            return []
        if not settled:
            self._block(position)
        held_back: list[int] = []
        while following is not None and self._is_blocked(following):
            self._block(following)
            held_back.append(following)
            following = self._next_in_chain.get(following)
        if following is not None:
            heapq.heappush(self._ready, following)
        return held_back

    def _block(self, position: int) -> None:
        self._blocked.add(("key", self._keys[position]))
        lane = self._lanes[position]
        if lane is not None:
            self._blocked.add(("lane", lane))

    def _is_blocked(self, position: int) -> bool:
        if not self._blocked:
            return False
        return ("key", self._keys[position]) in self._blocked or ("lane", self._lanes[position]) in self._blocked


def _chain(lanes: Sequence[Hashable | None], keys: Sequence[Hashable]) -> tuple[dict[int, int], list[int]]:
    """Join positions that share a lane or a key into chains.

    Returns each position's successor in its chain, and the first position of every chain. Chains
    that a later position joins (its lane from one, its key from another) become one.
    """
    if lanes.count(None) == len(lanes) and len(set(keys)) == len(keys):
        return {}, list(range(len(keys)))  # the common case: nothing shares anything
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
