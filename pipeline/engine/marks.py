"""Marks: a look before the run, one write after the sinks, for the records of one batch in shared calls."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.decisions.idempotency import (
    COMPLETED,
    IN_PROGRESS,
    MAX_REJECTED,
    NO_DATA,
    RELEASED,
    AlreadyDone,
    Busy,
    Claimed,
    ClaimReply,
    Entry,
    Mismatch,
    State,
    held_until,
    state_of,
)
from pipeline.engine.asking import Asking
from pipeline.engine.coalesce import Activity, Coalescer
from pipeline.engine.modes import Mark
from pipeline.engine.run import Run
from pipeline.engine.stage import Stage
from pipeline.errors import StoreUnavailable
from pipeline.outcome import Outcome
from pipeline.ports import Environment, IdempotencyStore

#: Entries that one shared call gathers at most.
_SHARED = 500


class Marks:
    """The ledger of `Mark`. It holds nothing, so it has nothing to give back."""

    def __init__(
        self,
        stage: Stage,
        mode: Mark,
        store: IdempotencyStore,
        environment: Environment,
        activity: Activity,
        ask: Asking,
    ) -> None:
        self._ask = ask
        self._stage = stage
        self._mode = mode
        self._store = store
        self._environment = environment
        self._looking: Coalescer[str, Entry | StoreUnavailable | None] = Coalescer(self._look, activity, limit=_SHARED)
        self._marking: Coalescer[Entry, StoreUnavailable | None] = Coalescer(self._mark, activity, limit=_SHARED)

    def begin(self, runs: Sequence[Run]) -> None:
        """Nothing has to be known of the whole batch."""

    async def admit(self, run: Run) -> ClaimReply | StoreUnavailable:
        """See `Ledger`. Outputs that a `Claim` kept before the mode was changed are delivered."""
        entry = (await self._looking.submit([self._id(run)]))[0]
        if isinstance(entry, StoreUnavailable):
            return entry
        found = state_of(entry, "", self._environment.clock.now(), run.raw.id, run.validation)
        if entry is None or found is State.EXPIRED:
            return Claimed(run.attempt)
        if found is State.MISMATCH:
            return Mismatch()
        if found in (State.COMPLETED, State.REJECTED):
            return AlreadyDone(None if entry.data == NO_DATA else entry.data)
        run.rejected = entry.rejected
        if found is State.HELD:  # by a `Claim` of an earlier deployment, or by Powertools
            return Busy(held_until(entry))
        return Claimed(run.attempt, entry.outputs, entry.rejected)

    async def holds(self, run: Run) -> bool:
        """Nothing is held, so nothing can be lost."""
        return True

    async def complete(self, run: Run, data: str | None) -> bool | StoreUnavailable:
        """See `Ledger`."""
        problem = await self._write(run, status=COMPLETED, data=data or NO_DATA)
        return True if problem is None else problem

    async def release(self, run: Run, *, attempts: int, outputs: str | None) -> None:
        """Nothing is held."""

    async def reject(self, run: Run) -> bool | StoreUnavailable:
        """A stream delivers it again, with what stands unsettled before it: then it is skipped. A redrive runs."""
        if not self._stage.source.is_stream:
            return True
        # Another record of the key may have ended meanwhile, and this write is of the whole entry.
        entry = (await self._looking.submit([self._id(run)]))[0]
        if isinstance(entry, StoreUnavailable):
            return entry  # it may be complete: put aside again is better than run again
        if entry is None or entry.expiration < int(self._environment.clock.now()):
            entry = None
        if entry is not None and entry.status == COMPLETED:
            return True
        before = run.rejected if entry is None else entry.rejected
        rejected = (*before, run.raw.id)[-MAX_REJECTED:]
        problem = await self._write(run, status=IN_PROGRESS, rejected=rejected, in_progress_expiration=RELEASED)
        return True if problem is None else problem

    def note(self, run: Run, outcome: Outcome) -> None:
        """Nothing is left to be told."""

    def flush(self) -> None:
        """Nothing is left to be written."""

    async def aclose(self) -> None:
        """Cancel what is still on its way."""
        await self._looking.aclose()
        await self._marking.aclose()

    async def _write(
        self,
        run: Run,
        *,
        status: str,
        data: str | None = None,
        rejected: tuple[str, ...] = (),
        in_progress_expiration: int | None = None,
    ) -> StoreUnavailable | None:
        entry = Entry(
            id=self._id(run),
            status=status,
            expiration=int(self._environment.clock.now()) + self._mode.ttl,
            in_progress_expiration=in_progress_expiration,
            data=data,
            validation=run.validation,
            rejected=rejected,
        )
        return (await self._marking.submit([entry]))[0]

    def _id(self, run: Run) -> str:
        return f"{self._stage.prefix}#{run.key_hash}"

    async def _look(self, ids: list[str]) -> Sequence[Entry | StoreUnavailable | None]:
        return await self._ask("look", lambda: self._store.look(ids, self._environment), len(ids))

    async def _mark(self, entries: list[Entry]) -> Sequence[StoreUnavailable | None]:
        return await self._ask("mark", lambda: self._store.mark(entries, self._environment), len(entries))
