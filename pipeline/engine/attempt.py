"""One record, in a straight line: guard( claim( middleware( handler ) -> sinks ) ) -> one outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from msgspec import Struct, structs

from pipeline.decisions import tracing, wire
from pipeline.decisions.deadline import expect
from pipeline.decisions.idempotency import AlreadyDone, Busy, Claimed, ClaimReply, Lapsed, Mismatch, kept
from pipeline.engine.context import Context
from pipeline.engine.endings import Endings, is_cancelled, is_running, uncancel
from pipeline.engine.fanout import Collected, Failures, FanOut, Origin, Standing
from pipeline.engine.hooks import Hooks
from pipeline.engine.ledger import Ledger
from pipeline.engine.modes import Watching
from pipeline.engine.recent import Recent
from pipeline.engine.run import Phase, Run
from pipeline.engine.spent import Spent
from pipeline.engine.stage import Call, Stage
from pipeline.errors import (
    ConfigurationError,
    Crashed,
    PayloadMismatch,
    PipelineError,
    RecordTimeout,
    SinkRefused,
    SinkUnavailable,
    StoreUnavailable,
)
from pipeline.outcome import Duplicate, HandBack, Outcome, Succeeded
from pipeline.output import Output
from pipeline.ports import Environment
from pipeline.telemetry.current import CURRENT
from pipeline.telemetry.events import CompletionLost, Observer, tell

#: Whether a function that this task called cannot be stopped and may still be at it.
LeftRunning = Callable[[asyncio.Task[Any] | None], bool]


_NONE: Failures = []


class Pace:
    """How long a record of this handler is expected to take; it lives from batch to batch."""

    def __init__(self) -> None:
        self.expected = 0.0

    def took(self, seconds: float) -> None:
        self.expected = expect(self.expected, seconds)


class Gathered(Struct, frozen=True):
    """A record that has run, and whose last outputs wait for company on their way to a sink that gathers many."""

    outputs: list[Output]
    others: int  #: outputs that were written already
    is_repeatable: bool  #: none of them was streamed, so what fails can be kept


class Attempt:
    """Carries the records of one batch through the trunk, each by itself."""

    def __init__(
        self,
        stage: Stage,
        environment: Environment,
        *,
        call: Call,
        context: Context,
        ledger: Ledger | None,
        recent: Recent,
        hooks: Hooks | None,
        spent: Spent,
        fanout: FanOut,
        endings: Endings,
        pace: Pace,
        observers: Sequence[Observer],
        names_outputs: bool,
        left_running: LeftRunning,
        standing: Callable[[Run], Standing],
        must_wait: Callable[[Run], bool],
    ) -> None:
        self._standing = standing
        self._must_wait = must_wait  #: an earlier record of its lane has not ended, and it may not end before
        self._left_running = left_running
        self._stage = stage
        self._clock = environment.clock
        self._call = call
        self._context = context
        self._ledger = ledger
        self._recent = recent
        self._hooks = hooks
        self._spent = spent
        self._fanout = fanout
        self._endings = endings
        self._pace = pace
        self._observers = observers
        self._names_outputs = names_outputs  #: somebody is told of every record, and of the ids of its outputs
        mode = stage.mode
        self._keeps_results = isinstance(mode, Watching) and mode.replay
        self._inside = 0  #: records that are in the handler
        self.most_at_once = 0  #: the most that they were
        self.is_dropped = False  #: the batch has ended without waiting for what still runs

    async def __call__(self, run: Run) -> Outcome | Gathered | None:
        """Its outcome. None: its last run died; call again when no other record is running.

        `Gathered`: the record has run; `finish` brings it to its outcome.
        """
        return await self._guarded(run, self._begin(run))

    async def finish(self, run: Run, gathered: Gathered) -> Outcome:
        """Write what was gathered. Its lane has gone on meanwhile, so a failure holds the rest of it back."""
        outcome = await self._guarded(run, self._write_gathered(run, gathered))
        assert isinstance(outcome, Outcome), "what is gathered ends"
        return outcome

    async def _guarded(self, run: Run, work: Awaitable[Outcome | Gathered | None]) -> Outcome | Gathered | None:
        """The guard: whatever happens to this record, it happens to no other."""
        CURRENT.set(run)
        try:
            if run.span is None:
                return await work
            with run.span.entered():
                return await work
        except asyncio.CancelledError:
            if not run.is_cut:
                raise
            uncancel()
            return self._endings.unfinished(run)
        except Exception as error:  # a fault of ours or of an integration: the record comes back
            return self._endings.broken(run, error)

    async def _begin(self, run: Run) -> Outcome | Gathered | None:
        if run.error is not None and not self._stage.source.is_stream:
            return await self._endings.failed(run, run.error)
        if self._ledger is None:
            return await self._handle(run)
        if self._spent.is_put_aside(run.raw.id):
            return Duplicate()
        # A stream delivers what is rejected again, with what stands before it: only an entry can tell.
        return await self._admit_and_go(self._ledger, run)

    async def _write_gathered(self, run: Run, gathered: Gathered) -> Outcome:
        standing = self._standing(run)
        if not await self._holds(run):
            standing.has_failed()
            return await self._lost(run, gathered.outputs if gathered.is_repeatable else [])
        failures: Failures = await self._fanout.write_gathered(gathered.outputs, standing)
        self._accepted(run, gathered.outputs, failures)
        if standing.is_behind() or failures:
            standing.has_failed()
            if standing.is_behind():  # also what was accepted: it stands behind what comes again
                error = SinkUnavailable("an earlier record of the same lane was not written")
                failures = [(output, error) for output in gathered.outputs]
            return await self._endings.unwritten(run, failures, is_repeatable=gathered.is_repeatable)
        return await self._succeed(run, gathered.others + len(gathered.outputs))

    async def _admit_and_go(self, ledger: Ledger, run: Run) -> Outcome | Gathered | None:
        run.phase = Phase.CLAIMING
        reply: ClaimReply | StoreUnavailable | None
        reply = self._recent.find(run.key_hash, run.validation, self._clock.now())
        if reply is None:
            reply = await ledger.admit(run)
        if isinstance(reply, Lapsed):
            run.phase = Phase.WAITING
            run.attempt = reply.attempts
            return None
        if not isinstance(reply, Claimed):
            return await self._not_admitted(run, reply)
        run.is_admitted = True
        run.attempt = reply.attempt
        if not await self._holds(run):  # the answer took longer than the lease
            await self._endings.release(run, attempts=max(run.attempt - 1, 0), outputs=reply.outputs)
            return self._endings.handed_back(run, HandBack.CLAIMED)
        retry = self._stage.retry
        if self._stage.counts_attempts and retry is not None and run.attempt > retry.attempts:
            error = Crashed(f"{run.attempt - 1} runs of this record ended without a result")
            return await self._endings.rejected(run, error, is_exhausted=True, owed=reply.outputs)
        if reply.outputs is not None:
            return await self._deliver(run, _sent_by(run, wire.unpack(reply.outputs)), was_kept=True)
        return await self._handle(run)

    async def _holds(self, run: Run) -> bool:
        """A refused renewal never means "go", and neither does one that nobody answered."""
        return run.held is None or self._ledger is None or await self._ledger.holds(run)

    async def _lost(self, run: Run, outputs: list[Output]) -> Outcome:
        """It may not go on. If nobody else has begun its key, what it made is kept for its next run."""
        owed = kept(wire.pack(outputs)) if outputs else None
        await self._endings.release(run, attempts=max(run.attempt - 1, 0), outputs=owed)  # no run has failed
        return self._endings.handed_back(run, HandBack.CLAIMED)

    async def _not_admitted(self, run: Run, reply: AlreadyDone | Mismatch | Busy | StoreUnavailable) -> Outcome:
        match reply:
            case AlreadyDone():
                return await self._repeated(run, reply.data)
            case Mismatch():
                error = PayloadMismatch("a record with the same key, and another payload, came before this one")
                return await self._endings.rejected(run, error, is_exhausted=False)
            case Busy():
                return self._endings.claimed_elsewhere(reply.until)
            case StoreUnavailable():
                return self._endings.handed_back(run, HandBack.STORE, reply)

    async def _repeated(self, run: Run, data: str | None) -> Outcome:
        """An earlier run is complete. Its outputs are sent again where that is asked for."""
        outputs = _sent_by(run, wire.replayable(data)) if self._keeps_results else []
        if outputs:
            run.phase = Phase.WRITING
            failures = await self._fanout.write_all(outputs, self._standing(run))
            self._accepted(run, outputs, failures)
            # What is refused, or owed to a sink that is gone, will never be taken: the record is done all the same.
            away = [error for _, error in failures if not isinstance(error, (SinkRefused, ConfigurationError))]
            if away:
                return self._endings.broken(run, away[0])
        if self._hooks is not None:
            self._hooks.call(run, [output.value for output in outputs])
        return Duplicate()

    async def _handle(self, run: Run) -> Outcome | Gathered:
        """Run the handler, then hand its outputs to the sinks."""
        if run.error is not None:
            return await self._endings.failed(run, run.error)
        run.phase = Phase.HANDLING
        seconds = self._stage.record_timeout
        limit: asyncio.Timeout | None = None
        begun = self._clock.monotonic()
        try:
            if seconds is None:
                outputs, streamed, failures = await self._run_handler(run)
            else:
                async with asyncio.timeout(seconds) as limit:
                    outputs, streamed, failures = await self._run_handler(run)
        except BaseException as raised:
            if isinstance(raised, GeneratorExit) and not is_running(run.task):
                raise  # not the handler's: this coroutine is being closed, and may await nothing more
            run.handled = run.handled_by(self._clock.monotonic())
            has_timed_out = limit is not None and limit.expired()
            return await self._endings.failed(run, self._handler_error(run, raised, has_timed_out))
        now = self._clock.monotonic()
        run.handled = run.handled_by(now)
        self._pace.took(now - begun)
        if failures:
            return await self._endings.unwritten(run, failures, is_repeatable=False)
        return await self._deliver(run, outputs, streamed=streamed)

    async def _run_handler(self, run: Run) -> Collected:
        record = run.record(self._stage)
        run.handling = self._clock.monotonic()
        self._inside += 1
        self.most_at_once = max(self.most_at_once, self._inside)
        try:
            result = await self._call(record, self._context)
            if result is None:
                return [], 0, []
            origin = Origin(run.identity, run.order_key, run.raw.carried, run.raw.sent_at, run.trace)
            try:
                return await self._fanout.collect(result, origin, self._standing(run), lambda: self._holds(run))
            finally:
                self._accepted(run, origin.streamed)
        finally:
            self._inside -= 1

    def _handler_error(self, run: Run, error: BaseException, has_timed_out: bool) -> BaseException:
        """What the handler's end means: its own error, or that it was cut off."""
        is_cut = isinstance(error, asyncio.CancelledError) and is_cancelled()
        if is_cut and not run.is_cut:
            if self.is_dropped:
                raise error
            uncancel()
            return PipelineError("the handler cancelled its own task")
        if not is_cut and not has_timed_out:
            if isinstance(error, asyncio.CancelledError):
                return PipelineError("the handler raised CancelledError")
            return error
        run.is_running_on = self._left_running(run.task)
        if is_cut:
            uncancel()
            return RecordTimeout("the handler did not finish before the invocation's time was up")
        return RecordTimeout(f"the handler did not finish within record_timeout={self._stage.record_timeout} seconds")

    async def _deliver(
        self, run: Run, outputs: list[Output], *, streamed: int = 0, was_kept: bool = False
    ) -> Outcome | Gathered:
        """Hand outputs to the sinks; only when all are accepted is the record done."""
        if not await self._holds(run):
            return await self._lost(run, outputs if streamed == 0 else [])
        if self._keeps_results and not was_kept and streamed == 0:
            run.data = kept(wire.pack(outputs))
        outputs, run.effect = self._fanout.fused_apart(outputs)
        if not outputs and not self._must_wait(run):
            return await self._succeed(run, streamed)
        run.phase = Phase.WRITING
        if run.effect:  # it is written last, so nothing else may still be on its way
            standing = self._standing(run)
            failures = await self._fanout.write_all(outputs, standing, must_wait=self._must_wait(run))
            self._accepted(run, outputs, failures)
            if failures or standing.is_behind():
                return await self._endings.unwritten(run, failures, is_repeatable=False)
            return await self._succeed(run, len(outputs) + streamed)
        at_once, gathered = self._fanout.parted(outputs)
        failures = await self._fanout.write(at_once) if at_once else []
        self._accepted(run, at_once, failures)
        if failures:
            failures += [(output, SinkUnavailable("other outputs were not written")) for output in gathered]
            return await self._endings.unwritten(run, failures, is_repeatable=streamed == 0)
        if gathered or self._must_wait(run):
            return Gathered(gathered, len(at_once) + streamed, streamed == 0)
        return await self._succeed(run, len(outputs) + streamed)

    async def _succeed(self, run: Run, outputs: int) -> Outcome:
        """Every other sink has accepted: write what is fused, and complete the entry."""
        if run.effect:
            run.phase = Phase.WRITING
            written = await self._fanout.write_once(f"{self._stage.prefix}#{run.key_hash}", run.effect)
            if isinstance(written, BaseException):
                failures: Failures = [(output, written) for output in run.effect]
                return await self._endings.unwritten(run, failures, is_repeatable=False)
            if not written:
                self._recent.add(run.key_hash, run.validation, self._clock.now())
                return await self._repeated(run, None)
            self._accepted(run, run.effect)
        outcome = run.decided = Succeeded(outputs + len(run.effect))
        run.phase = Phase.ENDING
        if self._ledger is not None:
            done = await self._ledger.complete(run, run.data)
            if done is not True:
                self.completion_lost(run, outcome, done or None)
            has_left_it = bool(run.effect) or self._stage.fused is None
            if done is not False and has_left_it:  # the work is done, also when the store could not be told
                self._recent.add(run.key_hash, run.validation, self._clock.now())
        return outcome

    def completion_lost(self, run: Run, outcome: Outcome, error: StoreUnavailable | None) -> None:
        """Tell that a record came to its outcome although its entry is not completed."""
        fact = CompletionLost(**run.told(self._stage, self._clock.now()), outcome=outcome, error=error)
        tell(self._observers, fact)

    def _accepted(self, run: Run, outputs: Sequence[Output], failures: Failures = _NONE) -> None:
        if self._names_outputs and outputs:
            run.accepted(outputs, failures)


def _sent_by(run: Run, outputs: list[Output]) -> list[Output]:
    """Outputs of an earlier run, which this one sends: they name its span, so that what they cause is found below it."""
    own = run.own_trace
    if own is None:
        return outputs
    traceparent = tracing.format_traceparent(own)
    return [structs.replace(output, traceparent=traceparent, tracestate=own.state) for output in outputs]
