"""Claims: taken, renewed and settled for the records of one batch, in shared calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.decisions.deadline import Deadline
from pipeline.decisions.idempotency import (
    MAX_REJECTED,
    ClaimReply,
    ClaimRequest,
    Complete,
    Forget,
    Release,
    Renewal,
    Settlement,
    lease_until,
)
from pipeline.engine.coalesce import Activity, Coalescer
from pipeline.engine.stage import Claim
from pipeline.errors import StoreUnavailable
from pipeline.ports import Environment, IdempotencyStore

#: Claims that one shared call gathers at most.
_SHARED = 500
#: A claim is renewed when this part of its lease has passed.
_RENEW_AFTER = 1 / 3


class Held:
    """One claim that this batch holds."""

    __slots__ = ("attempt", "id", "is_lost", "lease_until", "outputs", "owner", "record", "rejected")

    def __init__(self, id: str, record: str, owner: str, until: float) -> None:  # noqa: A002 - the entry's id
        self.id = id
        self.record = record
        self.owner = owner
        self.lease_until = until
        self.attempt = 1
        self.outputs: str | None = None  #: kept outputs: deliver these, do not run
        self.rejected: tuple[str, ...] = ()  #: other records of the key, in the dead-letter queue
        self.is_lost = False  #: another owner took it over


class Claims:
    """The claims of one batch. Every answer is a value; trouble of the store is `StoreUnavailable`."""

    def __init__(
        self, mode: Claim, store: IdempotencyStore, environment: Environment, activity: Activity, deadline: Deadline
    ) -> None:
        self._mode = mode
        self._store = store
        self._environment = environment
        self._deadline = deadline
        self._claiming: Coalescer[ClaimRequest, ClaimReply | StoreUnavailable] = Coalescer(
            self._claim, activity, limit=_SHARED
        )
        self._settling: Coalescer[Settlement, bool | StoreUnavailable] = Coalescer(
            self._settle, activity, limit=_SHARED
        )
        self._held: dict[str, Held] = {}
        self._renewing: asyncio.Task[None] | None = None

    def request(self, entry_id: str, record: str) -> Held:
        """A claim to be asked for, with an owner of its own."""
        return Held(entry_id, record, self._environment.token(), self._lease_until())

    async def take(self, held: Held, *, is_alone: bool) -> ClaimReply | StoreUnavailable:
        """Ask for the claim. `is_alone`: no other record runs beside this one."""
        request = ClaimRequest(
            id=held.id,
            owner=held.owner,
            lease_until=held.lease_until,
            ttl=self._mode.ttl,
            record=held.record,
            is_alone=is_alone,
        )
        return (await self._claiming.submit([request]))[0]

    def keep(self, held: Held) -> None:
        """Renew it from now on."""
        self._held[held.owner] = held
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._renew_for_ever())

    async def complete(self, held: Held) -> bool | StoreUnavailable:
        """The work is done. False: another owner has the claim, and nothing was written."""
        return await self._end(held, Complete(id=held.id, owner=held.owner, ttl=self._mode.ttl))

    async def release(
        self, held: Held, *, attempts: int, outputs: str | None = None, is_rejected: bool = False
    ) -> bool | StoreUnavailable:
        """Give it back for a later run; `attempts` is what counts so far. `is_rejected`: this record is skipped then."""
        rejected = (*held.rejected, held.record)[-MAX_REJECTED:] if is_rejected else held.rejected
        return await self._end(
            held,
            Release(
                id=held.id,
                owner=held.owner,
                ttl=self._mode.ttl,
                attempts=attempts,
                outputs=outputs,
                rejected=rejected,
            ),
        )

    async def forget(self, held: Held) -> bool | StoreUnavailable:
        """Remove the entry, so that a redrive starts anew."""
        return await self._end(held, Forget(id=held.id, owner=held.owner, ttl=self._mode.ttl))

    async def aclose(self) -> None:
        """Stop renewing; claims that are still held lapse."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self._claiming.aclose()
        await self._settling.aclose()

    async def _end(self, held: Held, settlement: Settlement) -> bool | StoreUnavailable:
        try:
            return (await self._settling.submit([settlement]))[0]
        finally:
            # Renewed until the store has answered: a slow end must not let the lease lapse under it.
            self._held.pop(held.owner, None)

    async def _claim(self, requests: list[ClaimRequest]) -> Sequence[ClaimReply | StoreUnavailable]:
        try:
            return await self._store.claim(requests, self._environment)
        except Exception as error:
            return [unavailable(error)] * len(requests)

    async def _settle(self, settlements: list[Settlement]) -> Sequence[bool | StoreUnavailable]:
        try:
            return await self._store.settle(settlements, self._environment)
        except Exception as error:
            return [unavailable(error)] * len(settlements)

    async def _renew_for_ever(self) -> None:
        while True:
            await self._environment.clock.sleep(self._mode.lease * _RENEW_AFTER)
            await self._renew()

    async def _renew(self) -> None:
        held = list(self._held.values())
        if not held:
            return
        until = self._lease_until()
        try:
            answers = await self._store.renew(
                [Renewal(id=one.id, owner=one.owner, lease_until=until) for one in held], self._environment
            )
        except Exception:  # the next round tries again; the lease has two thirds left
            return
        for one, answer in zip(held, answers, strict=True):
            if answer is True:
                one.lease_until = until
            elif answer is False and one.owner in self._held:
                one.is_lost = True

    def _lease_until(self) -> float:
        clock = self._environment.clock
        hard = self._deadline.hard
        remaining = None if hard is None else hard - clock.monotonic()
        return lease_until(clock.now(), self._mode.lease, remaining)


def unavailable(error: Exception) -> StoreUnavailable:
    """The store's trouble as the engine's own error."""
    if isinstance(error, StoreUnavailable):
        return error
    return StoreUnavailable(f"{type(error).__name__}: {error}")
