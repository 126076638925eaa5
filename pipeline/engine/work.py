"""The work on one batch: its lanes, its workers and its deadline."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Coroutine, Sequence
from typing import Any

from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline, may_start
from pipeline.decisions.ordering import Schedule
from pipeline.decisions.retry import HAND_BACK
from pipeline.engine.attempt import Attempt, Gathered, LeftRunning, Pace
from pipeline.engine.coalesce import Activity
from pipeline.engine.context import Context
from pipeline.engine.endings import Endings
from pipeline.engine.fanout import FanOut
from pipeline.engine.hooks import Hooks
from pipeline.engine.ledger import ledger
from pipeline.engine.recent import Recent
from pipeline.engine.run import CUT, Run
from pipeline.engine.spent import Spent
from pipeline.engine.stage import Call, Stage
from pipeline.errors import HopLimit, KeyMissing, PipelineError, StoreUnavailable
from pipeline.outcome import Duplicate, Failed, HandBack, Outcome, Rejected, Succeeded, Unprocessed, is_settled
from pipeline.ports import Environment
from pipeline.record import RawRecord
from pipeline.telemetry import spans
from pipeline.telemetry.current import CURRENT
from pipeline.telemetry.events import Observer, RecordFinished, RecordPostponed, tell

#: Slow records of one batch that all observers are told of: when everything is slow, the first few say it.
_SLOW_TOLD = 10


class Work:
    """One batch under way."""

    def __init__(
        self,
        stage: Stage,
        environment: Environment,
        records: Sequence[RawRecord],
        deadline: Deadline,
        *,
        call: Call,
        context: Context,
        activity: Activity,
        pace: Pace,
        spent: Spent,
        recent: Recent,
        left_running: LeftRunning,
        observers: Sequence[Observer] = (),
        span: spans.BatchSpan | None = None,
    ) -> None:
        self._stage = stage
        self._span = span
        self._environment = environment
        self._clock = environment.clock
        self._is_stream = stage.source.is_stream
        self._spent = spent
        self._counts_here = self._is_stream and not stage.counts_attempts
        self._deadline = deadline
        self._activity = activity
        self._company = Activity()  #: workers that may still bring something for a sink that gathers
        self._pace = pace
        self._observers = observers
        self._success_observers = [o for o in observers if not getattr(o, "failures_only", False)]
        self.slowest = 0.0  #: seconds that the slowest record took so far
        # Half of the time: two such records in one lane, and the second is cut off.
        self._slow = math.inf if deadline.soft is None else (deadline.soft - self._clock.monotonic()) / 2
        self._slow_left = _SLOW_TOLD
        self.ages: list[float] = []  #: of the settled records, when they were, in seconds
        self.handled: list[float] = []  #: seconds of each run of the handler
        self._ledger = ledger(stage, environment, activity, deadline, self._completion_lost, observers)
        self._fanout = FanOut(stage, environment, activity, self._company, deadline, observers)
        self._hooks = _hooks(stage, environment, observers)
        self._endings = Endings(stage, environment, self._ledger, activity, deadline, observers)
        self._attempt = Attempt(
            stage,
            environment,
            call=call,
            context=context,
            ledger=self._ledger,
            recent=recent,
            hooks=self._hooks,
            spent=spent,
            fanout=self._fanout,
            endings=self._endings,
            pace=pace,
            observers=observers,
            names_outputs=bool(self._success_observers),
            left_running=left_running,
            standing=lambda run: _Standing(self, run),
            must_wait=self._must_wait,
        )
        self._runs = [
            Run.of(position, raw, stage.name, self._spent_before(raw)) for position, raw in enumerate(records)
        ]
        self._outcomes: list[Outcome | None] = [None] * len(records)
        self._lapsed: list[Run] = []
        self._postponed: list[tuple[float, int]] = []  #: a heap: when to wake, and the position
        self._tasks: list[asyncio.Task[None]] = []
        self._workers = 0  #: that have not ended
        self._finishing: set[asyncio.Task[None]] = set()  #: of records whose last outputs are being gathered
        self._is_stopping = False
        self._has_begun = False  #: a record of this batch was let start
        self._is_concluded = False
        self._schedule = Schedule([], [])  # until the keys are read

    async def finish(self) -> None:
        """Bring every record to its outcome, or as far as the deadline lets it."""
        for activity in (self._activity, self._company):
            activity.settle_here()
        # On the loop, where whoever waits for the answer does not wait for a key function that hangs.
        for run in self._runs:
            self._read_keys(run)
            if run.error is not None and self._is_stream and self._ledger is not None:
                run.read_own_key()
            if self._stage.position_of is not None:
                run.place = self._stage.position_of(run.raw)
        if self._ledger is not None:
            self._ledger.begin(self._runs)
        self._schedule = Schedule([run.lane for run in self._runs], [run.identity for run in self._runs])
        try:
            await self._drive()
            while self._lapsed:
                # The one that has died least goes first, so that the one that kills goes last.
                run = min(self._lapsed, key=lambda run: run.attempt)
                self._lapsed.remove(run)
                run.is_alone = True
                await self._drive(run)
        finally:
            if self._ledger is not None:
                await self._ledger.aclose()
            await self._fanout.aclose()
            await self._endings.aclose()
            if self._hooks is not None:
                await self._hooks.aclose(self._deadline)

    def result(self) -> BatchResult:
        """The result as it stands; a record without an outcome gets the one that its phase calls for.

        It may be called from another thread, when the loop itself is blocked.
        """
        self._is_concluded = True
        outcomes: list[Outcome] = []
        for run, outcome in zip(self._runs, list(self._outcomes), strict=True):
            if outcome is None:
                outcome = self._endings.unfinished(run)  # noqa: PLW2901 - the outcome it has not got yet
                self._observe(run, outcome)
                if isinstance(outcome, Succeeded):  # the sinks have accepted; the store has not answered in time
                    error = StoreUnavailable("no answer before the time was up")
                    self._attempt.completion_lost(run, outcome, error)
            outcomes.append(outcome)
        return BatchResult([run.raw for run in self._runs], outcomes)

    @property
    def most_at_once(self) -> int:
        """How many records were in the handler at once, at most."""
        return self._attempt.most_at_once

    @property
    def is_abandoned(self) -> bool:
        """True when something could not be stopped and may still be running."""
        return None in self._outcomes or any(run.is_running_on for run in self._runs)

    async def _drive(self, alone: Run | None = None) -> None:
        """Run workers until they end, or until the deadline ends them."""
        tasks: list[asyncio.Task[None]]
        tasks = self._tasks = []
        try:
            await self._start(alone)
            while running := [task for task in (*tasks, *self._finishing) if not task.done()]:
                left = self._deadline.left(self._clock.monotonic())
                _, late = await asyncio.wait(running, timeout=None if left is None else max(left, 0.0))
                if late:
                    self._cut_off()
                    await self._until_hard(tasks)
                    break
        finally:
            tasks += self._finishing
            self._finishing = set()
            self._attempt.is_dropped = not all(task.done() for task in tasks)
            for task in tasks:
                task.cancel()
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()  # a fault in the engine itself is raised, never swallowed

    async def _until_hard(self, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for what is still on its way, and for what that brings about, until the hard deadline."""
        assert self._deadline.hard is not None, "a soft deadline has a hard one behind it"
        now = self._clock.monotonic()
        # Half of the rest is for keeping what a slow sink was to get: else every record of it would run again.
        await asyncio.wait(
            [task for task in (*tasks, *self._finishing) if not task.done()],
            timeout=max(self._deadline.hard - now, 0.0) / 2,
        )
        self._fanout.give_up()
        while running := [task for task in (*tasks, *self._finishing) if not task.done()]:
            left = self._deadline.hard - self._clock.monotonic()
            if left <= 0:
                return
            await asyncio.wait(running, timeout=left)

    async def _start(self, alone: Run | None) -> None:
        """Start a worker for each record that may run; one alone shows first whether records wait at all.

        A task costs as much as everything else about a record, and a handler that never waits needs one.
        A claim is always waited for.
        """
        self._activity.join()  # while workers begin, no shared call may go out without them
        self._company.join()
        try:
            if alone is not None or self._ledger is None:
                self._begin(1, alone)
                await asyncio.sleep(0)
            if alone is None:
                self._begin(min(self._schedule.ready, self._stage.concurrency - len(self._tasks)))
        finally:
            self._activity.leave()
            self._company.leave()

    def _begin(self, workers: int, alone: Run | None = None) -> None:
        self._workers += workers
        self._activity.join(workers)
        self._company.join(workers)
        self._tasks += [asyncio.ensure_future(self._take_turns(alone)) for _ in range(workers)]

    def _cut_off(self) -> None:
        """The soft deadline: stop what can be stopped; let the rest tell what it came to."""
        self._is_stopping = True
        if self._ledger is not None:
            self._ledger.flush()
        for run in self._runs:
            if run.task is not None and run.phase in CUT:
                run.is_cut = True
                run.task.cancel()

    async def _take_turns(self, first: Run | None = None) -> None:
        """A worker: one record after the other, until none may start."""
        task = asyncio.current_task()
        try:
            if first is not None:
                await self._turn(first, task)
            while True:
                position = self._due() if self._postponed else None
                if position is None:
                    position = self._schedule.take()
                if position is None:
                    if not self._postponed:
                        break
                    position = await self._wait_for_postponed()
                await self._turn(self._runs[position], task)
        finally:
            self._workers -= 1
            self._activity.leave()
            self._company.leave()

    async def _turn(self, run: Run, task: asyncio.Task[Any] | None) -> None:
        now = run.started = self._clock.monotonic()
        run.task = task
        if self._is_stopping or not self._may_start(now) or (run.last and self.is_behind_failure(run)):
            self._finished(run, run.last or self._endings.handed_back(run, HandBack.DEADLINE))
            return
        if run.last is not None:
            run.begin_again()
        self._has_begun = True
        if self._span is not None:
            run.span = spans.begin_run(self._span, run.raw, self._clock.now())
        outcome = await self._attempt(run)
        if outcome is None:
            self._has_begun = False  # it did not run, and its turn is still to come
            run.end_span(Unprocessed(HandBack.CLAIMED), self._clock.now())
            self._lapsed.append(run)
        elif isinstance(outcome, Gathered):
            finishing = self._gather(run, outcome)
            if self._fanout.is_full:
                await self._idle(asyncio.wait([finishing]))
        elif not self._is_stream or not self._postpone(run, outcome):
            self._finished(run, outcome)

    def _gather(self, run: Run, gathered: Gathered) -> asyncio.Task[None]:
        """Let its outputs wait for company. Its lane and its place go on; else each would be a write of its own."""
        run.task = None
        for activity in (self._activity, self._company):
            activity.join()  # before this worker leaves: nothing may go out without these outputs
        finishing = asyncio.ensure_future(self._finish_gathered(run, gathered))
        self._finishing.add(finishing)
        self._hand_back(run, self._schedule.hand_on(run.position), Unprocessed(HandBack.BEHIND))
        return finishing

    async def _finish_gathered(self, run: Run, gathered: Gathered) -> None:
        try:
            outcome = await self._attempt.finish(run, gathered)
            # Its lane has gone on: the handler may not run again beside the next of it, only kept outputs go out.
            if not self._is_stream or not self._postpone(run, outcome, is_last=not run.is_kept):
                self._finished(run, outcome)
            # Repeats of its key, or its own next run, may have nobody left who would take them.
            if (self._schedule.ready or self._postponed) and self._workers < self._stage.concurrency:
                self._begin(1)
        finally:
            self._activity.leave()
            self._company.leave()

    def is_behind_failure(self, run: Run) -> bool:
        """An earlier record of its lane has failed."""
        return self._schedule.is_behind_failure(run.position)

    def has_failed(self, run: Run) -> None:
        """It has failed after its lane went on: hand back what has not begun behind it."""
        self._hand_back(run, self._schedule.hold_back(run.position), Unprocessed(HandBack.BEHIND))

    def _must_wait(self, run: Run) -> bool:
        return self._fanout.gathers and self._schedule.is_behind_open(run.position)

    def _postpone(self, run: Run, outcome: Outcome, *, is_last: bool = False) -> bool:
        """Let a stream's record wait here for its next run; False when its outcome stands.

        `is_last`: there is no next run in this batch, only the waiting.

        A stream would deliver it again at once. So it waits to the end of the time even when that is
        not enough: an outage must not use up its attempts, nor the mapping's, in a few seconds.
        """
        delay = self._wait_of(run, outcome)
        soft = self._deadline.soft
        if delay is None or soft is None or self._is_stopping or run.is_running_on:
            return False
        self._measure_handler(run, self._clock.monotonic())
        span = run.end_span(outcome, self._clock.now())
        run.postpone(outcome)
        # At the soft deadline nothing may start any more, so it ends then in what it came to now.
        due = soft if is_last else min(self._clock.monotonic() + delay, soft)
        heapq.heappush(self._postponed, (due, run.position))
        fact = RecordPostponed(
            pipeline=self._stage.pipeline,
            handler=self._stage.name,
            record=run.raw,
            key_hash=run.key_hash,
            attempt=run.attempt,
            outcome=outcome,
            delay=delay,
            handled=run.handled,
            span=span,
            age=run.age(self._clock.now()),
        )
        tell(self._observers, fact)
        return True

    def _wait_of(self, run: Run, outcome: Outcome) -> float | None:
        """Seconds until its next run; None when there is none, or when the source's own time is to decide."""
        if not isinstance(outcome, (Failed, Unprocessed)) or outcome.delay is None:
            return None
        if isinstance(outcome, Unprocessed) and outcome.reason is HandBack.CLAIMED:
            # The other run may end long before its lease does.
            return min(outcome.delay, HAND_BACK.delay(run.waits + 1, self._environment.chance()))
        return outcome.delay

    def _due(self) -> int | None:
        """A postponed record whose time has come: it stands before those that have not begun."""
        is_due = self._postponed[0][0] <= self._clock.monotonic()
        return heapq.heappop(self._postponed)[1] if is_due else None

    async def _wait_for_postponed(self) -> int:
        """The postponed record that is due next, when it is. Whoever else is postponed is waited for by others."""
        due, position = heapq.heappop(self._postponed)
        CURRENT.set(None)
        await self._idle(self._clock.sleep(max(due - self._clock.monotonic(), 0.0)))
        return position

    async def _idle(self, waiting: Coroutine[Any, Any, Any]) -> None:
        """Wait, as a worker who brings nothing for any shared call meanwhile."""
        self._activity.leave()
        self._company.leave()
        try:
            await waiting
        finally:
            self._activity.join()
            self._company.join()

    def _may_start(self, now: float) -> bool:
        left = self._deadline.left(now)
        if may_start(left, self._pace.expected):
            return True
        # The first of a batch has all the time that there is: waiting for more would be for ever.
        return not self._has_begun and may_start(left, 0.0)

    def _finished(self, run: Run, outcome: Outcome) -> None:
        self._tell(run, outcome)
        self._hand_back(run, self._schedule.done(run.position, settled=is_settled(outcome)), outcome)

    def _hand_back(self, run: Run, positions: Sequence[int], outcome: Outcome) -> None:
        """Hand back what stands behind a record that is not settled."""
        for position in positions:
            behind = self._runs[position]
            behind.started = self._clock.monotonic()
            self._tell(behind, self._endings.behind(behind, run, outcome))

    def _tell(self, run: Run, outcome: Outcome) -> None:
        self._outcomes[run.position] = outcome
        run.task = None
        if self._counts_here:
            self._spent.note(run.raw.id, 0 if is_settled(outcome) else run.spent)
        if self._is_stream and isinstance(outcome, Rejected):
            self._spent.put_aside(run.raw.id)
        if self._ledger is not None:
            self._ledger.note(run, outcome)
        run.forget()
        if not self._is_concluded:  # else its outcome has been told already
            self._observe(run, outcome)

    def _observe(self, run: Run, outcome: Outcome) -> None:
        now = self._clock.monotonic()
        seconds = now - run.started if run.started is not None else 0.0
        self.slowest = max(self.slowest, seconds)
        if run.last is None:  # else the run was measured before the record waited
            self._measure_handler(run, now)
        age = run.age(self._clock.now())
        if age is not None and is_settled(outcome):
            self.ages.append(age)
        span = run.end_span(outcome, self._clock.now())
        observers, is_slow = self._observers, False
        if isinstance(outcome, (Succeeded, Duplicate)):
            is_slow = seconds > self._slow and self._slow_left > 0
            if is_slow:
                self._slow_left -= 1
            else:
                observers = self._success_observers
        if not observers:
            return
        fact = RecordFinished(
            pipeline=self._stage.pipeline,
            handler=self._stage.name,
            record=run.raw,
            key_hash=run.key_hash,
            attempt=run.attempt,
            outcome=outcome,
            seconds=seconds,
            age=age,
            handled=run.handled_by(now),
            span=span,
            is_slow=is_slow,
            output_ids=run.output_ids,
        )
        tell(observers, fact)

    def _measure_handler(self, run: Run, now: float) -> None:
        handled = run.handled_by(now)
        if handled is not None:
            self.handled.append(handled)

    def _completion_lost(self, run: Run, error: StoreUnavailable) -> None:
        outcome = self._outcomes[run.position]
        assert outcome is not None, "a place moves only over records that have ended"
        self._attempt.completion_lost(run, outcome, error)

    def _spent_before(self, raw: RawRecord) -> int:
        if self._counts_here:
            return self._spent.of(raw.id)
        return raw.receive_count - 1

    def _read_keys(self, run: Run) -> None:
        """Settle identity and lane; what goes wrong here goes wrong for this record only."""
        if self._stage.source_lane is not None:  # a damaged record has its place too
            run.lane = self._stage.source_lane(run.raw)
        if run.error is not None:
            return
        try:
            run.read_keys(self._stage)
            if run.hops > self._stage.max_hops:
                raise HopLimit(f"the record has passed {run.hops} handlers; the limit is {self._stage.max_hops}")
        except PipelineError as error:
            run.error = error
        except BaseException as error:
            run.error = KeyMissing(f"the key, lane or validate function raised {type(error).__name__}")
            run.error.__cause__ = error


class _Standing:
    """Where a record stands in its lane."""

    __slots__ = ("_run", "_work")

    def __init__(self, work: Work, run: Run) -> None:
        self._work = work
        self._run = run

    def is_behind(self) -> bool:
        return self._work.is_behind_failure(self._run)

    def has_failed(self) -> None:
        self._work.has_failed(self._run)


def _hooks(stage: Stage, environment: Environment, observers: Sequence[Observer]) -> Hooks | None:
    hook = stage.mode.on_duplicate if stage.mode is not None else None
    return None if hook is None else Hooks(stage, hook, environment.clock, observers)
