"""Idempotency entries in this process: for tests, and for `invoke`."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from pipeline.decisions.idempotency import (
    Advance,
    ClaimReply,
    ClaimRequest,
    Complete,
    Entry,
    Release,
    Renewal,
    Settlement,
    State,
    Step,
    claimed,
    created,
    found_by,
    refusal,
    state_of,
    step_of,
)
from pipeline.errors import StoreUnavailable
from pipeline.ports import Environment
from pipeline.stores.protocol import advanced, is_done, is_held, renewed, settled, taken_over

_SWEEP_FROM = 1_024


class Memory:
    """Keep entries in this process; threads and event loops may share one.

    Everything is forgotten with the process, so it makes nothing idempotent across two of them.
    Expired entries are dropped as it grows.
    """

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._lock = threading.Lock()
        self._sweep_at = _SWEEP_FROM

    @property
    def entries(self) -> Mapping[str, Entry]:
        """A copy of what is stored, by id."""
        with self._lock:
            return dict(self._entries)

    async def claim(
        self, requests: Sequence[ClaimRequest], environment: Environment
    ) -> Sequence[ClaimReply | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        now = environment.clock.now()
        with self._lock:
            self._sweep(now)
            return [self._claim(request, now) for request in requests]

    async def settle(
        self, settlements: Sequence[Settlement], environment: Environment
    ) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        now = environment.clock.now()
        with self._lock:
            return [self._settle(settlement, now) for settlement in settlements]

    async def renew(self, renewals: Sequence[Renewal], environment: Environment) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        now = environment.clock.now()
        with self._lock:
            return [self._renew(renewal, now) for renewal in renewals]

    async def look(self, ids: Sequence[str], environment: Environment) -> Sequence[Entry | StoreUnavailable | None]:
        """See the `IdempotencyStore` port."""
        with self._lock:
            return [self._entries.get(key) for key in ids]

    async def mark(self, entries: Sequence[Entry], environment: Environment) -> Sequence[StoreUnavailable | None]:
        """See the `IdempotencyStore` port."""
        with self._lock:
            self._sweep(environment.clock.now())
            self._entries.update({entry.id: entry for entry in entries})
        return [None] * len(entries)

    async def advance(self, advances: Sequence[Advance], environment: Environment) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        now = environment.clock.now()
        with self._lock:
            return [self._advance(advance, now) for advance in advances]

    async def create(self, environment: Environment) -> None:
        """Nothing is to be made."""

    def _claim(self, request: ClaimRequest, now: float) -> ClaimReply:
        entry = self._entries.get(request.id)
        step = step_of(found_by(request, entry, now), request)
        if step is Step.CREATE or entry is None:
            mine = created(request, now)
        elif step is Step.TAKE_OVER:
            mine = taken_over(entry, request, now)
        elif step is Step.RUN:
            mine = entry
        else:
            return refusal(step, entry)
        self._entries[request.id] = mine
        return claimed(mine)

    def _settle(self, settlement: Settlement, now: float) -> bool:
        entry = self._entries.get(settlement.id)
        if entry is None or not is_held(entry, settlement.owner):
            return is_done(settlement, entry)
        if isinstance(settlement, (Complete, Release)):
            self._entries[settlement.id] = settled(entry, settlement, now)
        else:
            del self._entries[settlement.id]
        return True

    def _renew(self, renewal: Renewal, now: float) -> bool:
        entry = self._entries.get(renewal.id)
        if entry is None or not is_held(entry, renewal.owner):
            return False
        self._entries[renewal.id] = renewed(entry, renewal, now)
        return True

    def _advance(self, advance: Advance, now: float) -> bool:
        moved = advanced(self._entries.get(advance.id), advance, now)
        if moved is not None:
            self._entries[advance.id] = moved
        return moved is not None

    def _sweep(self, now: float) -> None:
        if len(self._entries) < self._sweep_at:
            return
        self._entries = {
            key: entry for key, entry in self._entries.items() if state_of(entry, "", now) is not State.EXPIRED
        }
        self._sweep_at = max(_SWEEP_FROM, 2 * len(self._entries))
