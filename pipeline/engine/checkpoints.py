"""Checkpoints: how far each lane of one batch is settled, read when it begins and written when the batch ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pipeline.decisions.checkpoint import Position, checkpoint_id
from pipeline.decisions.idempotency import Advance, AlreadyDone, Claimed, ClaimReply, Entry
from pipeline.engine.asking import Asking
from pipeline.engine.coalesce import Activity, Coalescer
from pipeline.engine.modes import Checkpoint
from pipeline.engine.run import Run
from pipeline.engine.stage import Stage
from pipeline.errors import StoreUnavailable
from pipeline.outcome import Outcome, is_settled
from pipeline.ports import Environment, IdempotencyStore

#: Lanes that one shared call gathers at most.
_SHARED = 500
#: Kinds of lanes that are a whole scope: no record has to be read to know its lane.
_WHOLE = ("source", "by.shard", "by.message_group")

#: Told of a record that is settled although the place behind it could not be written, and why.
Lost = Callable[[Run, StoreUnavailable], None]


class _Lane:
    """How far one lane is settled: up to before the first of its records that is not."""

    __slots__ = ("id", "is_known", "known", "passed", "problem", "runs", "written")

    def __init__(self, id: str) -> None:  # noqa: A002 - the entry's id
        self.id = id
        self.runs: list[Run] = []  #: its records in this batch, in the source's order
        self.passed = 0  #: how many of them are settled, without a gap
        self.is_known = False  #: the store was asked
        self.known = ""  #: the place that it had
        self.written = ""  #: the place that it was told
        self.problem: StoreUnavailable | None = None  #: why it could not be told

    @property
    def place(self) -> str:
        """Settled up to here; empty when nothing of this batch is."""
        return _place(self.runs[self.passed - 1]) if self.passed else ""

    @property
    def is_owed(self) -> bool:
        """More is settled than the store knows."""
        return self.place > max(self.known, self.written)

    def go_on(self, settled: set[Position], limit: str | None) -> None:
        """Pass what is settled by now and stands before `limit`."""
        while self.passed < len(self.runs):
            run = self.runs[self.passed]
            if run.place not in settled or (limit is not None and _place(run) >= limit):
                return
            self.passed += 1


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
        ask: Asking,
    ) -> None:
        self._ask = ask
        self._stage = stage
        self._mode = mode
        self._store = store
        self._environment = environment
        self._lost = lost
        self._looking: Coalescer[str, Entry | StoreUnavailable | None] = Coalescer(self._look, activity, limit=_SHARED)
        self._kind = stage.lane_kind
        self._lanes: dict[tuple[str, str | None], _Lane] = {}
        self._unread: dict[str, list[Run]] = {}  #: by scope: records of no known lane, in order
        self._settled: set[Position] = set()
        self._writing: set[asyncio.Task[None]] = set()

    def begin(self, runs: Sequence[Run]) -> None:
        """See `Ledger`.

        A record whose lane cannot be read may belong to any lane, once the code has changed. So it counts as settled
        only with all that stands before it in its scope, and no lane of the scope passes it before it is.
        """
        placed = sorted((run for run in runs if run.place is not None), key=_place)  # a test's event has any order
        for run in placed:
            self._lane(run).runs.append(run)
            if self._name(run) is None:
                self._unread.setdefault(_scope(run), []).append(run)
        for scope in self._unread:
            self._lanes[scope, None].runs = [run for run in placed if _scope(run) == scope]

    async def admit(self, run: Run) -> ClaimReply | StoreUnavailable:
        """See `Ledger`. A record without a place is run: nothing can be known of it."""
        if run.place is None:
            return Claimed(run.attempt)
        lane = self._lane(run)
        if not lane.is_known:
            entry = (await self._looking.submit([lane.id]))[0]
            if isinstance(entry, StoreUnavailable):
                return entry
            lane.is_known = True
            if entry is not None and entry.position is not None:
                lane.known = entry.position
        # Not by the lane's place: a record that is out of order has not been settled by those behind it.
        is_done = run.place.place <= lane.known or run.place in self._settled
        return AlreadyDone() if is_done else Claimed(run.attempt)

    async def holds(self, run: Run) -> bool:
        """Nothing is held, so nothing can be lost."""
        return True

    async def complete(self, run: Run, data: str | None) -> bool | StoreUnavailable:
        """It is written when the batch ends."""
        return True

    async def release(self, run: Run, *, attempts: int, outputs: str | None) -> None:
        """Nothing is held."""

    async def reject(self, run: Run) -> bool | StoreUnavailable:
        """It is settled, as every other."""
        return True

    def note(self, run: Run, outcome: Outcome) -> None:
        """See `Ledger`. Records of a lane may end in another order: one is rejected while outputs before it wait."""
        if run.place is not None and is_settled(outcome):
            self._settled.add(run.place)

    def flush(self) -> None:
        """Write how far the lanes have come, and go on."""
        limits = {scope: self._first_unsettled(runs) for scope, runs in self._unread.items()}
        for (scope, _), lane in self._lanes.items():
            lane.go_on(self._settled, limits.get(scope))
        owed = [lane for lane in self._lanes.values() if lane.is_owed]
        if owed:
            writing = asyncio.get_running_loop().create_task(self._write(owed))
            self._writing.add(writing)
            writing.add_done_callback(self._writing.discard)

    async def aclose(self) -> None:
        """Write the rest; the batch may not be acknowledged before."""
        await self._looking.aclose()
        self.flush()
        if self._writing:
            await asyncio.gather(*self._writing)
        for lane in self._lanes.values():
            if lane.is_owed and lane.problem is not None:
                self._lost(lane.runs[lane.passed - 1], lane.problem)

    async def _write(self, lanes: Sequence[_Lane]) -> None:
        advances = [Advance(id=lane.id, position=lane.place, ttl=self._mode.ttl) for lane in lanes]
        answers = await self._ask("advance", lambda: self._store.advance(advances, self._environment), len(advances))
        for lane, advance, answer in zip(lanes, advances, answers, strict=True):
            if isinstance(answer, StoreUnavailable):
                lane.problem = answer
            else:  # False: a later batch of the lane came first
                lane.written = max(lane.written, advance.position)

    def _first_unsettled(self, runs: Sequence[Run]) -> str | None:
        return next((_place(run) for run in runs if run.place not in self._settled), None)

    def _name(self, run: Run) -> str | None:
        return None if run.error is not None and self._kind not in _WHOLE else run.lane

    def _lane(self, run: Run) -> _Lane:
        name = _scope(run), self._name(run)
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = _Lane(checkpoint_id(self._stage.prefix, name[0], self._kind, name[1]))
        return lane

    async def _look(self, ids: list[str]) -> Sequence[Entry | StoreUnavailable | None]:
        return await self._ask("look", lambda: self._store.look(ids, self._environment), len(ids))


def _place(run: Run) -> str:
    return run.place.place if run.place is not None else ""


def _scope(run: Run) -> str:
    return run.place.scope if run.place is not None else ""
