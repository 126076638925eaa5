"""Facts as JSON log lines: one a batch; one a failed, rejected or slow record; one of every record at DEBUG."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.outcome import Duplicate, Failed, Outcome, Rejected, Succeeded, Unprocessed, name_of, tally, text_of
from pipeline.record import RawRecord, TraceContext
from pipeline.telemetry.current import OURS
from pipeline.telemetry.events import (
    BatchFinished,
    BatchStarted,
    CompletionLost,
    Fact,
    HookFailed,
    RecordFinished,
    RecordPostponed,
    RejectionLost,
    SinkWritten,
)

if TYPE_CHECKING:
    from aws_lambda_powertools import Logger

    from pipeline.telemetry.surplus import Surplus

#: An error's message is cut to this many characters; the dead letter has the whole.
_MESSAGE = 500

#: What is bound to the lines of a handler (see `telemetry.logger`). A line of ours says itself which record it is of:
#: the one that its task works on may be another, because calls are shared. None is not written.
_UNBOUND: dict[str, Any] = {
    OURS: True,
    **dict.fromkeys(("record_id", "key_hash", "attempt", "source", "receive_count", "traceId", "spanId")),
}


#: Of the lines of records by outcome; the others are written at DEBUG.
_LEVELS = {"failed": logging.WARNING, "rejected": logging.WARNING, "exhausted": logging.ERROR}

#: What is written of a record's payload, by the names of a line.
ReadPayload = Callable[[RawRecord], dict[str, Any]]

#: A fact of one record.
_RecordFact = RecordFinished | RecordPostponed | CompletionLost | RejectionLost | HookFailed


class LogWriter:
    """Writes the lines of one handler in one environment. Only an error's own message is quoted.

    `is_cold`: the next batch is the first of its environment. `payloads`: reads a record's payload for its line; None:
    payloads are in no line.
    """

    def __init__(
        self, logger: Logger, handler: str, *, is_cold: bool = True, payloads: ReadPayload | None = None
    ) -> None:
        self._logger = logger
        self._handler = handler
        self._is_cold = is_cold
        self._payload_of = payloads
        self._lines = logging.getLogger(logger.name)
        self._tells_all = self._lines.isEnabledFor(logging.DEBUG)
        self._surplus: Surplus | None = None  #: made when something goes wrong
        self._write = {logging.DEBUG: logger.debug, logging.WARNING: logger.warning, logging.ERROR: logger.error}

    @property
    def failures_only(self) -> bool:
        """False while every record gets a line. The engine asks once a batch, after it has told that it starts."""
        return not self._tells_all

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, RecordFinished):
            self._record(fact)
        elif isinstance(fact, BatchStarted):
            self._begin()
        elif isinstance(fact, BatchFinished):
            self._batch(fact)
            self._is_cold = False
        elif isinstance(fact, RecordPostponed):
            self._postponed(fact)
        elif isinstance(fact, SinkWritten):
            if fact.failed and self._may_write("sink.failed", logging.WARNING, fact.error):
                names = {"sink": fact.sink, "outputs": fact.failed, **error_names(fact.error)}
                self._logger.warning("sink.failed", extra=self._names() | names)
        elif isinstance(fact, CompletionLost):
            self._aside("completion.lost", fact, name_of(fact.outcome))
        elif isinstance(fact, RejectionLost):
            self._aside("rejection.lost", fact, name_of(fact.outcome))
        elif isinstance(fact, HookFailed):
            self._aside("on_duplicate.failed", fact, "duplicate")

    def _begin(self) -> None:
        """Sampling is by batch, so that what one batch did is there as a whole, or not at all."""
        if self._logger.sampling_rate:
            self._logger.refresh_sample_rate_calculation()
        self._tells_all = self._lines.isEnabledFor(logging.DEBUG)

    def _may_write(self, event: str, level: int, error: BaseException | None) -> bool:
        """Asked before the line is made. At DEBUG everything is written."""
        if not self._lines.isEnabledFor(level):
            return False
        if self._tells_all:
            return True
        if self._surplus is None:
            from pipeline.telemetry.surplus import Surplus  # a start that goes well does without

            self._surplus = Surplus()
        return self._surplus.admits(event, level, error)

    def _record(self, fact: RecordFinished) -> None:
        outcome = fact.outcome
        word = name_of(outcome)
        event, level = f"record.{word}", _LEVELS.get(word, logging.DEBUG)
        if fact.is_slow and isinstance(outcome, (Succeeded, Duplicate)):
            event, level = "record.slow", logging.WARNING
        error: BaseException | None = getattr(outcome, "error", None)
        if not self._may_write(event, level, error):
            return
        extra = self._record_names(fact, word) | {
            "seconds": round(fact.seconds, 6),
            "handled": _rounded(fact.handled, 6),
            "output_ids": list(fact.output_ids) or None,
            **_details(outcome),
        }
        if self._payload_of is not None:
            extra |= self._payload_of(fact.record)
        trace = _traceback(error) if word in ("failed", "exhausted") else None
        self._write[level](event, extra=extra, exc_info=trace)

    def _postponed(self, fact: RecordPostponed) -> None:
        if not self._may_write("record.postponed", logging.WARNING, getattr(fact.outcome, "error", None)):
            return
        names = self._record_names(fact, name_of(fact.outcome))
        extra = names | _details(fact.outcome) | {"delay": round(fact.delay, 3)}
        self._logger.warning("record.postponed", extra=extra)

    def _aside(self, event: str, fact: CompletionLost | RejectionLost | HookFailed, outcome: str) -> None:
        """Something that went wrong beside a record, and changes nothing of what it came to."""
        if self._may_write(event, logging.WARNING, fact.error):
            self._logger.warning(event, extra=self._record_names(fact, outcome) | error_names(fact.error))

    def _batch(self, fact: BatchFinished) -> None:
        ended = tally(fact.result.outcomes)
        back = [outcome for _, outcome in fact.result.of(Unprocessed)] if ended["unprocessed"] else []
        outages = [outcome.error for outcome in back if outcome.error is not None]
        if outages:  # one line, not one a record: they all say the same
            names = {"records": len(outages), **error_names(outages[0])}
            self._logger.warning("store.failed", extra=self._names() | names)
        omitted = None if self._surplus is None else self._surplus.take()
        if omitted is not None:
            level, counts = omitted
            self._write[level]("lines.omitted", extra=self._names() | {"source": fact.source} | counts)
        extra = {
            **self._names(),
            "traceId": None if fact.span is None else fact.span.trace_id,
            "spanId": None if fact.span is None or not fact.span.is_sampled else fact.span.span_id,
            "source": fact.source,
            "size": len(fact.result),
            **ended,
            "handed_back": dict(Counter(outcome.reason.value for outcome in back)) or None,
            "seconds": round(fact.seconds, 6),
            "oldest": _rounded(fact.oldest, 3),
        }
        self._logger.info("batch.finished", extra=extra)

    def _names(self) -> dict[str, Any]:
        return _UNBOUND | {"handler": self._handler, "cold_start": self._is_cold}

    def _record_names(self, fact: _RecordFact, outcome: str) -> dict[str, Any]:
        raw = fact.record
        return {
            **self._names(),
            "record_id": raw.id,
            "key_hash": fact.key_hash,
            "source": raw.source,
            "attempt": fact.attempt,
            "receive_count": raw.receive_count,
            "age": _rounded(fact.age, 3),
            "outcome": outcome,
            **_trace_names(fact.span, raw),
            "caused_by": raw.carried.id if raw.carried else None,
        }


def logger_for(pipeline: str, level: str, stream: TextIO | None = None) -> Logger:
    """The pipeline's logger. Lines written while a record is handled carry that record's names.

    There is one of a name in a process, as everywhere in `logging`: the last caller's level and
    stream hold.
    """
    from pipeline.telemetry.logger import opened  # costly to import: only for what really logs

    return opened(pipeline, level, stream)


def error_names(error: BaseException | None) -> dict[str, Any]:
    """An error as log keys."""
    if error is None:
        return {}
    return {"error": type(error).__name__, "reason": text_of(error)[:_MESSAGE]}


def _details(outcome: Outcome) -> dict[str, Any]:
    """What an outcome says, beside its name. An outage of the store has its own line."""
    if isinstance(outcome, Succeeded):
        return {"outputs": outcome.outputs}
    if isinstance(outcome, Rejected):
        return error_names(outcome.error)
    if isinstance(outcome, Failed):
        return {**error_names(outcome.error), "delay": _rounded(outcome.delay, 3)}
    if isinstance(outcome, Unprocessed):
        reason = error_names(outcome.error) or {"reason": outcome.reason.value}
        return {**reason, "delay": _rounded(outcome.delay, 3)}
    return {}


def _trace_names(span: TraceContext | None, raw: RawRecord) -> dict[str, str | None]:
    """The trace of a record's line, and the span where one is kept."""
    if span is None:
        return {"traceId": raw.trace_id}
    return {"traceId": span.trace_id, "spanId": span.span_id if span.is_sampled else None}


def _rounded(seconds: float | None, digits: int) -> float | None:
    return None if seconds is None else round(seconds, digits)


def _traceback(error: BaseException | None) -> Any:
    if error is None or error.__traceback__ is None:
        return None
    return type(error), error, error.__traceback__
