"""Claims: taken, renewed and settled for the records of one batch, in shared calls."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pipeline.decisions.deadline import Deadline
from pipeline.decisions.idempotency import (
    MAX_REJECTED,
    Claimed,
    ClaimReply,
    ClaimRequest,
    Complete,
    Forget,
    Release,
    Renewal,
    Settlement,
    lease_until,
)
from pipeline.engine.asking import Asking
from pipeline.engine.coalesce import Activity, Coalescer
from pipeline.engine.held import Held
from pipeline.engine.modes import Claim
from pipeline.engine.run import Run
from pipeline.engine.stage import Stage
from pipeline.errors import StoreUnavailable
from pipeline.outcome import Outcome
from pipeline.ports import Environment, IdempotencyStore

#: Claims that one shared call gathers at most.
_SHARED = 500
#: A claim is renewed when this part of its lease has passed.
_RENEW_AFTER = 1 / 3


class Claims:
    """The ledger of `Claim`."""

    def __init__(
        self,
        stage: Stage,
        mode: Claim,
        store: IdempotencyStore,
        environment: Environment,
        activity: Activity,
        deadline: Deadline,
        ask: Asking,
    ) -> None:
        self._ask = ask
        self._stage = stage
        self._mode = mode
        self._store = store
        self._environment = environment
        self._deadline = deadline
        self._activity = activity
        self._claiming: Coalescer[ClaimRequest, ClaimReply | StoreUnavailable] = Coalescer(
            self._claim, activity, limit=_SHARED
        )
        self._settling: Coalescer[Settlement, bool | StoreUnavailable] = Coalescer(
            self._settle, activity, limit=_SHARED
        )
        self._held: dict[str, Held] = {}
        self._renewing: asyncio.Task[None] | None = None

    def begin(self, runs: Sequence[Run]) -> None:
        """Nothing has to be known of the whole batch."""

    async def admit(self, run: Run) -> ClaimReply | StoreUnavailable:
        """See `Ledger`. A claim that is granted is renewed from then on."""
        held = Held(f"{self._stage.prefix}#{run.key_hash}", run.raw.id, self._environment.token(), self._lease_until())
        request = ClaimRequest(
            id=held.id,
            owner=held.owner,
            lease_until=held.lease_until,
            ttl=self._mode.ttl,
            record=held.record,
            validation=run.validation,
            is_alone=run.is_alone,
        )
        reply = (await self._claiming.submit([request]))[0]
        if isinstance(reply, Claimed):
            held.outputs, held.rejected = reply.outputs, reply.rejected
            run.held = held
            self._keep(held)
        return reply

    async def holds(self, run: Run) -> bool:
        """See `Ledger`. When its lease has passed, because the store was slow or away, it is asked for once more."""
        held = run.held
        if held is None:
            return True
        if not held.is_lost and self._environment.clock.now() >= held.lease_until:
            await self._renew([held])
        is_over = self._environment.clock.now() >= held.lease_until
        return not (held.is_lost or is_over)

    async def complete(self, run: Run, data: str | None) -> bool | StoreUnavailable:
        """See `Ledger`."""
        held = run.held
        if held is None:
            return True
        return await self._end(held, Complete(id=held.id, owner=held.owner, ttl=self._mode.ttl, data=data))

    async def release(self, run: Run, *, attempts: int, outputs: str | None) -> None:
        """See `Ledger`. What the store cannot be told lapses by itself."""
        held, run.held = run.held, None
        if held is not None:
            await self._release(held, attempts, outputs, held.rejected)

    async def reject(self, run: Run) -> bool | StoreUnavailable:
        """See `Ledger`. A redrive starts anew; what a stream delivers again is skipped, by its name in the entry."""
        held = run.held
        if held is None:
            return True
        if self._stage.source.is_stream:  # it comes back with what stands before it
            return await self._release(held, 0, None, (*held.rejected, held.record)[-MAX_REJECTED:])
        return await self._end(held, Forget(id=held.id, owner=held.owner, ttl=self._mode.ttl))

    def note(self, run: Run, outcome: Outcome) -> None:
        """Nothing is left to be told."""

    def flush(self) -> None:
        """Nothing is left to be written."""

    async def aclose(self) -> None:
        """Stop renewing; claims that are still held lapse."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
        await self._claiming.aclose()
        await self._settling.aclose()

    def _keep(self, held: Held) -> None:
        self._held[held.owner] = held
        if self._renewing is None:
            self._renewing = self._activity.begin(self._renew_for_ever())

    async def _release(
        self, held: Held, attempts: int, outputs: str | None, rejected: tuple[str, ...]
    ) -> bool | StoreUnavailable:
        release = Release(
            id=held.id, owner=held.owner, ttl=self._mode.ttl, attempts=attempts, outputs=outputs, rejected=rejected
        )
        return await self._end(held, release)

    async def _end(self, held: Held, settlement: Settlement) -> bool | StoreUnavailable:
        try:
            return (await self._settling.submit([settlement]))[0]
        finally:
            # Renewed until the store has answered: a slow end must not let the lease lapse under it.
            self._held.pop(held.owner, None)

    async def _claim(self, requests: list[ClaimRequest]) -> Sequence[ClaimReply | StoreUnavailable]:
        return await self._ask("claim", lambda: self._store.claim(requests, self._environment), len(requests))

    async def _settle(self, settlements: list[Settlement]) -> Sequence[bool | StoreUnavailable]:
        return await self._ask("settle", lambda: self._store.settle(settlements, self._environment), len(settlements))

    async def _renew_for_ever(self) -> None:
        while True:
            await self._environment.clock.sleep(self._mode.lease * _RENEW_AFTER)
            held = list(self._held.values())
            if held:
                await self._renew(held)

    async def _renew(self, held: Sequence[Held]) -> None:
        until = self._lease_until()
        held = [one for one in held if until > one.lease_until]  # at an invocation's end leases cannot get longer
        if not held:
            return
        renewals = [Renewal(id=one.id, owner=one.owner, lease_until=until, ttl=self._mode.ttl) for one in held]
        answers = await self._ask("renew", lambda: self._store.renew(renewals, self._environment), len(renewals))
        # What was not answered is asked for in the next round; the lease has two thirds left.
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
