"""Facts as JSON log lines, by Powertools' Logger: one a batch, one a failed or rejected record."""

from __future__ import annotations

import functools
import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.outcome import Failed, Rejected, Unprocessed, name_of, tally, text_of
from pipeline.telemetry.current import CURRENT
from pipeline.telemetry.events import (
    BatchFinished,
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

#: An error's message is cut to this many characters; the dead letter has the whole.
_MESSAGE = 500


class LogWriter:
    """Writes the lines of one handler. No payload: an error's own message is all that is quoted."""

    failures_only = True

    def __init__(self, logger: Logger, handler: str) -> None:
        self._logger = logger
        self._handler = handler

    def __call__(self, fact: Fact) -> None:
        if isinstance(fact, RecordFinished):
            if isinstance(fact.outcome, (Failed, Rejected)):
                self._record(fact, fact.outcome)
        elif isinstance(fact, RecordPostponed):
            self._postponed(fact)
        elif isinstance(fact, BatchFinished):
            self._batch(fact)
        elif isinstance(fact, SinkWritten):
            if fact.failed:
                names = {"sink": fact.sink, "outputs": fact.failed, **error_names(fact.error)}
                self._logger.warning("sink.failed", extra={"handler": self._handler, **names})
        elif isinstance(fact, CompletionLost):
            self._logger.warning("completion.lost", extra=self._names(fact.record.id) | error_names(fact.error))
        elif isinstance(fact, RejectionLost):
            self._logger.warning("rejection.lost", extra=self._names(fact.record.id) | error_names(fact.error))
        elif isinstance(fact, HookFailed):
            self._logger.warning("on_duplicate.failed", extra=self._names(fact.record.id) | error_names(fact.error))

    def _record(self, fact: RecordFinished, outcome: Failed | Rejected) -> None:
        word = name_of(outcome)
        write = self._logger.error if word == "exhausted" else self._logger.warning
        error = outcome.error
        write(
            f"record.{word}",
            extra=self._names(fact.record.id)
            | {"key_hash": fact.key_hash, "attempt": fact.attempt, "seconds": round(fact.seconds, 6)}
            | ({"delay": round(outcome.delay, 3)} if isinstance(outcome, Failed) and outcome.delay is not None else {})
            | error_names(error),
            exc_info=(type(error), error, error.__traceback__) if error.__traceback__ and word != "rejected" else None,
        )

    def _postponed(self, fact: RecordPostponed) -> None:
        error = getattr(fact.outcome, "error", None)
        extra = {"key_hash": fact.key_hash, "attempt": fact.attempt, "delay": round(fact.delay, 3)}
        reason = error_names(error) or {"reason": getattr(fact.outcome, "reason", None)}
        self._logger.warning("record.postponed", extra=self._names(fact.record.id) | extra | reason)

    def _batch(self, fact: BatchFinished) -> None:
        outages = [outcome.error for _, outcome in fact.result.of(Unprocessed) if outcome.error is not None]
        if outages:  # one line, not one a record: they all say the same
            names = {"records": len(outages), **error_names(outages[0])}
            self._logger.warning("store.failed", extra={"handler": self._handler, **names})
        counts = tally(fact.result.outcomes)
        extra: dict[str, Any] = {"handler": self._handler, "source": fact.source, "size": len(fact.result), **counts}
        extra["seconds"] = round(fact.seconds, 6)
        if fact.oldest is not None:
            extra["oldest"] = round(fact.oldest, 3)
        self._logger.info("batch.finished", extra=extra)

    def _names(self, record_id: str) -> dict[str, Any]:
        return {"handler": self._handler, "record_id": record_id}


def error_names(error: BaseException | None) -> dict[str, Any]:
    """An error as log keys."""
    if error is None:
        return {}
    return {"error": type(error).__name__, "reason": text_of(error)[:_MESSAGE]}


def logger_for(pipeline: str, level: str, stream: TextIO | None = None) -> Logger:
    """The pipeline's logger. Lines written while a record is handled carry that record's names.

    There is one of a name in a process, as everywhere in `logging`: the last caller's level and
    stream hold.
    """
    logger, handler = _made(pipeline)
    logger.setLevel(level)
    handler.given = stream
    return logger


@functools.cache
def _made(pipeline: str) -> tuple[Logger, _Stream]:
    from aws_lambda_powertools import Logger  # costly to import: only for what really logs

    handler = _Stream()
    handler.addFilter(_bind)
    return Logger(service=pipeline, logger_handler=handler), handler


def _bind(line: logging.LogRecord) -> bool:
    """Bind the names of the record that this task or thread works on, unless the line has its own."""
    current = CURRENT.get()
    if current is not None and not hasattr(line, "record_id"):
        line.handler = current.handler
        line.record_id = current.record_id
        line.key_hash = current.key_hash
        line.attempt = current.attempt
    return True


class _Stream(logging.StreamHandler[TextIO]):
    """Writes to the given stream, or to whatever `sys.stdout` is at the time."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.given: TextIO | None = None

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = self.given or sys.stdout
        super().emit(record)
