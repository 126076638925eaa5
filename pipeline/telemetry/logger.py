"""Powertools' Logger, such that no line is lost and none has another record's names. Costly to import."""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from aws_lambda_powertools import Logger

from pipeline.telemetry.current import BATCH, CURRENT, OURS
from pipeline.telemetry.serialize import line_of, message_of, short

#: The part of the lines that is written at DEBUG: from 0 (none) to 1 (all). Asked anew for each batch.
_SAMPLE_RATE = "POWERTOOLS_LOGGER_SAMPLE_RATE"
#: Set by Lambda. The level is there with LogFormat JSON only: ApplicationLogLevel.
_FUNCTION_VERSION, _LAMBDA_LEVEL = "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_LOG_LEVEL"
#: By the names of the code's levels, and of Lambda's.
_LEVELS = {
    "TRACE": logging.DEBUG,
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARN": logging.WARNING,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "CRITICAL": logging.CRITICAL,
}

#: The name of our logger in `logging`. Powertools' Loggers of one service share what has its name, with the handler and
#: the format of whoever came first, such as a user's own `Logger(service="shop")`. So it is one that nobody else uses.
_NAME = "pipeline:{}"

#: Names that a line of `logging` has itself: it raises at an `extra` of the name, in the caller.
_TAKEN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}


def opened(pipeline: str, level: str, stream: TextIO | None) -> Logger:
    """See `telemetry.log.logger_for`."""
    logger, handler = _made(pipeline)
    # Not by Powertools' `setLevel`, to which Lambda's level is the level, also where the code wants less.
    logging.getLogger(logger.name).setLevel(_level(level, os.environ.get(_LAMBDA_LEVEL), logger.sampling_rate))
    logger.initial_log_level = logger.log_level  # what a batch that is not sampled goes back to
    logger.append_keys(function_version=os.environ.get(_FUNCTION_VERSION))
    handler.given = stream
    return logger


@functools.cache
def _made(pipeline: str) -> tuple[Logger, _Stream]:
    handler = _Stream(pipeline)
    handler.addFilter(_bind)
    logger = Logger(
        service=_NAME.format(pipeline),
        logger_handler=handler,
        sampling_rate=_sample_rate(os.environ.get(_SAMPLE_RATE)),
        json_serializer=functools.partial(_text_of, pipeline),
        json_deserializer=message_of,  # type: ignore[arg-type]
        utc=True,
        use_rfc3339=True,
        serialize_stacktrace=False,  # it would stand in the line a second time
    )
    logger.service = pipeline
    lines = logging.getLogger(logger.name)
    lines.makeRecord = _renaming(lines.makeRecord)  # type: ignore[method-assign]
    logging.getLogger(pipeline).addFilter(_bind)  # lines of a user's own Logger, which is often named so
    return logger, handler


def _text_of(pipeline: str, values: dict[str, Any]) -> str:
    if values.get("service") == _NAME.format(pipeline):
        values["service"] = pipeline
    if values.pop(OURS, False):
        values.pop("location", None)
    return line_of(values)


def _level(level: str, lambdas: str | None, sample_rate: float | str | None) -> int:
    """The level of the code's lines; `lambdas`: the one below which Lambda drops them, if it has one.

    Where somebody has set a function to DEBUG, its lines are; where that is for a sample's sake, the sample's are.
    """
    own = _LEVELS.get(level, logging.INFO)
    least = _LEVELS.get(lambdas or "")
    if least is None:
        return own
    if least <= logging.DEBUG and not sample_rate:
        return logging.DEBUG
    return max(own, least)


def _sample_rate(text: str | None) -> float | None:
    """The rate; None when there is none. What is no number is none: logging must not end the work."""
    try:
        return float(text) if text else None
    except ValueError:
        logging.getLogger("pipeline").warning("%s is no number: no batch is sampled", _SAMPLE_RATE)
        return 0.0  # None would make Powertools read the variable


def _renaming(make: Callable[..., logging.LogRecord]) -> Callable[..., logging.LogRecord]:
    """How a line is made, with a `_` after each name of an `extra` that `logging` has itself and would raise at."""

    def make_record(
        name: str,
        level: int,
        path: str,
        number: int,
        msg: object,
        args: Any,
        exc_info: Any,
        func: str | None = None,
        extra: dict[str, object] | None = None,
        sinfo: str | None = None,
    ) -> logging.LogRecord:
        if extra and not _TAKEN.isdisjoint(extra):
            extra = {f"{key}_" if key in _TAKEN else key: value for key, value in extra.items()}
        return make(name, level, path, number, msg, args, exc_info, func, extra, sinfo)

    return make_record


def _bind(line: logging.LogRecord) -> bool:
    """Bind the names of the record that this task or thread works on. What the line says itself stands.

    A line that is of no single record, as a batch handler's, gets the names of its batch.
    """
    current, batch = CURRENT.get(), BATCH.get()
    names = line.__dict__
    if current is not None:
        names.setdefault("handler", current.handler)
        names.setdefault("record_id", current.raw.id)
        names.setdefault("key_hash", current.key_hash)
        names.setdefault("attempt", current.attempt)
        names.setdefault("source", current.raw.source)
        names.setdefault("cold_start", None if batch is None else batch.is_cold)
        names.setdefault("receive_count", current.raw.receive_count)
        names.setdefault("spanId", current.span_id)
        names.setdefault("traceId", current.trace_id)  # CloudWatch Logs keeps an index of this name
    elif batch is not None:
        names.setdefault("handler", batch.handler)
        names.setdefault("source", batch.source)
        names.setdefault("cold_start", batch.is_cold)
        names.setdefault("spanId", batch.span_id)
        names.setdefault("traceId", batch.trace_id)
    return True


class _Stream(logging.StreamHandler[TextIO]):
    """Writes to the given stream, or to whatever `sys.stdout` is at the time."""

    def __init__(self, pipeline: str) -> None:
        super().__init__(sys.stdout)
        self._pipeline = pipeline
        self.given: TextIO | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line. Nothing in it loses it; only a stream that takes no text does."""
        stream = self.given or sys.stdout
        try:
            text = self._line(record)
            try:
                stream.write(text + "\n")
            except UnicodeEncodeError:  # a stream of another encoding: JSON can do with ASCII
                stream.write(json.dumps(json.loads(text), separators=(",", ":")) + "\n")
            stream.flush()
        except Exception:
            self.handleError(record)

    def _line(self, record: logging.LogRecord) -> str:
        try:
            return self.format(record)
        except Exception as error:
            return _unformatted(self._pipeline, record, error)


def _unformatted(pipeline: str, record: logging.LogRecord, error: Exception) -> str:
    """The line of a message that cannot be made, because it and its arguments do not go together."""
    line = {
        "level": record.levelname,
        "message": short(record.msg),
        "timestamp": datetime.fromtimestamp(record.created, tz=UTC).isoformat(timespec="milliseconds"),
        "service": pipeline,
        "unformatted": type(error).__name__,
    }
    if record.exc_info and record.exc_info[0] is not None:
        line["exception"] = logging.Formatter().formatException(record.exc_info)
    return line_of(line | {key: value for key, value in record.__dict__.items() if key not in _TAKEN})
