"""Endings: what a record comes to when it does not simply succeed, and the telling of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from pipeline.decisions import tracing, wire
from pipeline.decisions.deadline import Deadline
from pipeline.decisions.idempotency import kept
from pipeline.decisions.retry import HAND_BACK
from pipeline.engine.coalesce import Activity, Coalescer
from pipeline.engine.fanout import Failures
from pipeline.engine.ledger import Ledger
from pipeline.engine.run import Phase, Run
from pipeline.engine.stage import Stage
from pipeline.errors import RecordTimeout, Reject, ResourceUnavailable, Retry, SinkUnavailable
from pipeline.outcome import Failed, HandBack, Outcome, Rejected, Unprocessed, text_of
from pipeline.ports import DeadLetter, Environment
from pipeline.telemetry import conventions as names
from pipeline.telemetry import spans
from pipeline.telemetry.conventions import described_by
from pipeline.telemetry.events import Observer, RejectionLost, tell

#: A lease ends within a millisecond; who asks again in the same one is told the same.
_LEAST = 0.01
#: Dead letters that one shared call gathers at most.
_SHARED = 100


class Endings:
    """Decides, releases the claim, and writes the dead letter, for the records of one batch."""

    def __init__(
        self,
        stage: Stage,
        environment: Environment,
        ledger: Ledger | None,
        activity: Activity,
        deadline: Deadline,
        observers: Sequence[Observer],
    ) -> None:
        self._stage = stage
        self._environment = environment
        self._ledger = ledger
        self._deadline = deadline
        self._observers = observers
        self._letters: Coalescer[DeadLetter, BaseException | None] = Coalescer(
            self._put_letters, activity, limit=_SHARED
        )

    async def failed(self, run: Run, error: BaseException) -> Outcome:
        """A run that counts has failed: retry, or the dead-letter queue."""
        stage = self._stage
        if isinstance(error, Reject) or (stage.reject_on and isinstance(error, stage.reject_on)):
            return await self.rejected(run, error, is_exhausted=False)
        if isinstance(error, ResourceUnavailable):  # nothing was run: an outage costs no attempt
            outcome = self._decide(run, Failed(error, self._jitter(run)))
            await self.release(run, attempts=max(run.attempt - 1, 0))
            return outcome
        if stage.retry is not None and stage.retry.is_exhausted(run.attempt):
            return await self.rejected(run, error, is_exhausted=True)
        if run.is_running_on:
            run.spent = run.attempt
            return Failed(error, self._cut_delay(run))  # the claim lapses by itself
        outcome = self._decide(run, Failed(error, self._retry_delay(run, error)))
        await self.release(run, attempts=run.attempt)
        return outcome

    async def unwritten(self, run: Run, failures: Failures, *, is_repeatable: bool) -> Outcome:
        """Some outputs were not accepted. They are kept, so that only they are tried again."""
        # Without any it has to come again only because of the record before it.
        errors = [error for _, error in failures] or [SinkUnavailable("an earlier record of the lane was not written")]
        is_outage = all(isinstance(error, SinkUnavailable) for error in errors)
        error = next((error for error in errors if not isinstance(error, SinkUnavailable)), errors[0])
        owed = kept(wire.pack([output for output, _ in failures])) if is_repeatable else None
        retry = self._stage.retry
        if not is_outage and retry is not None and retry.is_exhausted(run.attempt):
            return await self.rejected(run, error, is_exhausted=True, owed=owed)
        delay = self._jitter(run) if is_outage else self._retry_delay(run, error)
        outcome = self._decide(run, Failed(error, delay))
        run.is_kept = owed is not None and run.held is not None
        await self.release(run, attempts=run.attempt - is_outage, outputs=owed)
        return outcome

    async def rejected(self, run: Run, error: BaseException, *, is_exhausted: bool, owed: str | None = None) -> Outcome:
        """Put the record into the dead-letter queue; only then is it settled.

        `owed`: the outputs of a finished run, kept for when the queue cannot be reached.
        """
        letter = DeadLetter(
            record=run.raw,
            handler=self._stage.full_name,
            cause=cause_of(error),
            attempts=run.attempt,
            exhausted=is_exhausted,
            made_by=None if run.trace is None else tracing.format_traceparent(run.trace),
        )
        run.phase = Phase.WRITING
        problem = (await self._letters.submit([letter]))[0]
        if problem is not None:
            problem.__cause__ = error
            failed = self._decide(run, Failed(problem, self._jitter(run)))
            await self.release(run, attempts=max(run.attempt - 1, 0), outputs=owed)
            return failed
        outcome = self._decide(run, Rejected(error, is_exhausted))
        if self._ledger is not None and run.is_admitted and not run.is_running_on:
            told = await self._ledger.reject(run)
            if told is not True:
                names_of_run = run.told(self._stage, self._environment.clock.now())
                tell(self._observers, RejectionLost(**names_of_run, outcome=outcome, error=told or None))
        return outcome

    async def release(self, run: Run, *, attempts: int, outputs: str | None = None) -> None:
        """It comes again: tell the store, where it keeps anything of it."""
        run.spent = attempts
        if self._ledger is not None:
            await self._ledger.release(run, attempts=attempts, outputs=outputs)

    def broken(self, run: Run, error: BaseException) -> Outcome:
        """Something went wrong that is not the record's: it comes back. It counts, lest it be for ever."""
        run.spent = run.attempt
        return run.decided or Failed(error, self._jitter(run))

    def handed_back(self, run: Run, reason: HandBack, error: BaseException | None = None) -> Unprocessed:
        """Not run; it comes back after a short, jittered while."""
        return Unprocessed(reason, self._jitter(run), error)

    def claimed_elsewhere(self, until: float) -> Unprocessed:
        """Another live run holds the key; it comes back when that lease ends."""
        return Unprocessed(HandBack.CLAIMED, self._delay(max(until - self._environment.clock.now(), _LEAST)))

    def behind(self, run: Run, head: Run, outcome: Outcome) -> Unprocessed:
        """Not run, because a record before it in its lane is not settled."""
        if run.raw.lane is not None and run.raw.lane == head.raw.lane:
            # The source itself keeps its own lane back behind the head: waiting longer gains nothing.
            return Unprocessed(HandBack.BEHIND, self._delay(0.0))
        wait = getattr(outcome, "delay", None) or 0.0
        return Unprocessed(HandBack.BEHIND, self._delay(wait + (self._jitter(run) or 0.0)))

    def unfinished(self, run: Run) -> Outcome:
        """What a record comes to that the deadline found on its way."""
        if run.decided is not None:
            return run.decided
        if run.phase in (Phase.WAITING, Phase.CLAIMING):
            return self.handed_back(run, HandBack.DEADLINE)
        error = RecordTimeout("the record did not finish before the invocation's time was up")
        return Failed(error, self._cut_delay(run))

    async def aclose(self) -> None:
        await self._letters.aclose()

    async def _put_letters(self, letters: list[DeadLetter]) -> Sequence[BaseException | None]:
        described = described_by(self._stage.dead_letters)
        name = (
            f"{names.SEND} {described[names.DESTINATION]}" if names.DESTINATION in described else "write dead letters"
        )
        made_by = ((letter.made_by, None) for letter in letters)
        with spans.call(name, described, self._environment.clock.now, made_by) as span:
            errors: Sequence[BaseException | None]
            try:
                errors = await self._stage.dead_letters.put(letters, self._environment, self._deadline)
            except Exception as error:
                errors = [error] * len(letters)
            failed = [error for error in errors if error is not None]
            if failed:
                span.failed(failed[0], len(failed), is_whole=len(failed) == len(letters))
        return errors

    def _decide(self, run: Run, outcome: Outcome) -> Outcome:
        """From here on only the telling is left: a deadline cannot change the outcome any more."""
        run.decided = outcome
        run.phase = Phase.ENDING
        return outcome

    def _retry_delay(self, run: Run, error: BaseException) -> float | None:
        retry = self._stage.retry
        if retry is None:
            return None
        if isinstance(error, Retry) and error.after is not None:
            return error.after
        return retry.delay(run.attempt, self._environment.chance())

    def _jitter(self, run: Run) -> float | None:
        return self._delay(HAND_BACK.delay(run.raw.receive_count + run.waits, self._environment.chance()))

    def _delay(self, seconds: float) -> float | None:
        return None if self._stage.retry is None else seconds

    def _cut_delay(self, run: Run) -> float | None:
        """When a record comes back that may still be running: when its claim ends, if it holds one."""
        if run.held is None:
            return self._retry_delay(run, RecordTimeout())
        return self._delay(max(run.held.lease_until - self._environment.clock.now(), 0.0))


def cause_of(error: BaseException) -> str:
    """An error as one line: its type and what it says."""
    return " ".join(f"{type(error).__name__}: {text_of(error)}".split())


def is_cancelled() -> bool:
    """True when the running task was cancelled from outside, rather than by what it called."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def is_running(task: asyncio.Task[Any] | None) -> bool:
    """True in a step of this task."""
    try:
        return task is not None and asyncio.current_task() is task
    except RuntimeError:  # no loop runs here
        return False


def uncancel() -> None:
    """Take a cancellation back: the task has something to tell yet."""
    task = asyncio.current_task()
    if task is not None:
        task.uncancel()
