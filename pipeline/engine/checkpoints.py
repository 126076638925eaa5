"""Checkpoints: how far each lane of one batch is settled, read when it begins and written when the batch ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pipeline.decisions.checkpoint import checkpoint_id
from pipeline.decisions.idempotency import Advance, AlreadyDone, Claimed, ClaimReply, Entry
from pipeline.engine.coalesce import Activity, Coalescer
from pipeline.engine.modes import Checkpoint
from pipeline.engine.run import Run
from pipeline.engine.stage import Stage
from pipeline.errors import StoreUnavailable
from pipeline.outcome import Outcome, is_settled
from pipeline.ports import Environment, IdempotencyStore

#: Lanes that one shared call gathers at most.
_SHARED = 500

#: Told of a record that is settled although the place behind it could not be written, and why.
Lost = Callable[[Run, StoreUnavailable], None]


class _Lane:
    """How far one lane is settled."""

    __slots__ = ("has_failed", "id", "is_known", "last", "place", "written")

    def __init__(self, id: str) -> None:  # noqa: A002 - the entry's id
        self.id = id
        self.is_known = False  #: the store was asked
        self.place = ""  #: settled up to here, as far as is known
        self.written = ""  #: and this is what the store was told
        self.last: Run | None = None  #: the record there
        self.has_failed = False  #: what is settled from here on stands behind a failure


class Checkpoints:
    """The ledger of `Checkpoint`."""

    def __init__(
        self,
        stage: Stage,
        mode: Checkpoint,
        store: IdempotencyStore,
        environment: Environment,
        activity: Activity,
        lost: Lost,
    ) -> None:
        self._stage = stage
        self._mode = mode
        self._store = store
        self._environment = environment
        self._lost = lost
        self._looking: Coalescer[str, Entry | StoreUnavailable | None] = Coalescer(self._look, activity, limit=_SHARED)
        self._lanes: dict[tuple[str, str | None], _Lane] = {}
        self._writing: set[asyncio.Task[None]] = set()

    async def admit(self, run: Run) -> ClaimReply | StoreUnavailable:
        """See `Ledger`. A record without a place is run: nothing can be known of it."""
        position = run.place
        lane = self._lane(run)
        if lane is None or position is None:
            return Claimed(run.attempt)
        if not lane.is_known:
            entry = (await self._looking.submit([lane.id]))[0]
            if isinstance(entry, StoreUnavailable):
                return entry
            lane.is_known = True
            if entry is not None and entry.position is not None:
                lane.place = lane.written = entry.position
        return AlreadyDone() if position.place <= lane.place else Claimed(run.attempt)

    async def complete(self, run: Run, data: str | None) -> bool | StoreUnavailable:
        """It is written when the batch ends."""
        return True

    async def release(self, run: Run, *, attempts: int, outputs: str | None) -> None:
        """Nothing is held."""

    async def reject(self, run: Run) -> None:
        """It is settled, as every other."""

    def note(self, run: Run, outcome: Outcome) -> None:
        """See `Ledger`. Records of a lane end in their order."""
        lane = self._lane(run)
        if lane is None or run.place is None:
            return
        if not is_settled(outcome):
            lane.has_failed = True
        elif not lane.has_failed and run.place.place > lane.place:
            lane.place, lane.last = run.place.place, run

    def flush(self) -> None:
        """Write how far the lanes have come, and go on."""
        moved = [lane for lane in self._lanes.values() if lane.last is not None and lane.place > lane.written]
        if moved:
            writing = asyncio.get_running_loop().create_task(self._write(moved))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)

    async def aclose(self) -> None:
        """Write the rest; the batch may not be acknowledged before."""
        await self._looking.aclose()
        self.flush()
        if self._writing:
            await asyncio.gather(*self._writing)

    async def _write(self, lanes: Sequence[_Lane]) -> None:
        advances = [Advance(id=lane.id, position=lane.place, ttl=self._mode.ttl) for lane in lanes]
        try:
            answers = await self._store.advance(advances, self._environment)
        except Exception as error:
            answers = [StoreUnavailable.of(error)] * len(lanes)
        for lane, advance, answer in zip(lanes, advances, answers, strict=True):
            if not isinstance(answer, StoreUnavailable):  # False: a later batch of the lane came first
                lane.written = max(lane.written, advance.position)
            elif lane.last is not None:
                self._lost(lane.last, answer)

    def _lane(self, run: Run) -> _Lane | None:
        if run.place is None:
            return None
        name = run.place.scope, run.lane
        lane = self._lanes.get(name)
        if lane is None:
            stage = self._stage
            lane = self._lanes[name] = _Lane(checkpoint_id(stage.prefix, run.place.scope, stage.lane_kind, run.lane))
        return lane

    async def _look(self, ids: list[str]) -> Sequence[Entry | StoreUnavailable | None]:
        try:
            return await self._store.look(ids, self._environment)
        except Exception as error:
            return [StoreUnavailable.of(error)] * len(ids)
