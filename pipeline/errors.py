"""Every error of the toolkit, in one small tree under `PipelineError`.

The type decides what happens: `ConfigurationError` stops the program when the pipeline is
assembled; `Retry` and `Reject` are a handler's own words about one record; the rest are what
the engine makes of a failing store or sink.
"""

from __future__ import annotations

import math


class PipelineError(Exception):
    """The root of the toolkit's errors."""


class ConfigurationError(PipelineError):
    """The pipeline is declared wrongly; raised while it is declared or assembled, never later."""


class EventError(PipelineError):
    """An event is not one of this source's; the whole invocation fails and nothing is lost."""


class Retry(PipelineError):
    """Raise it in a handler: the record fails now and comes back later.

    `after` is the delay in seconds; without it the handler's `Backoff` decides. The run counts
    as an attempt, so that a record that asks for ever ends in the dead-letter queue.
    """

    def __init__(self, reason: str = "the handler asked for a retry", *, after: float | None = None) -> None:
        if not isinstance(reason, str):
            raise TypeError(f"Retry({reason!r}): the reason is text; for a delay write Retry(after={reason!r})")
        if after is not None and not _is_seconds(after):
            raise ValueError(f"Retry(after={after!r}): give a number of seconds, 0 or more")
        super().__init__(reason)
        self.after = after


class Reject(PipelineError):
    """Raise it in a handler: the record can never succeed; it goes to the dead-letter queue at once."""

    def __init__(self, reason: str) -> None:
        if not isinstance(reason, str):
            raise TypeError(f"Reject({reason!r}): the reason is text; write Reject('why it can never succeed')")
        super().__init__(reason)
        self.reason = reason


class PayloadError(Reject):
    """A record's body cannot be decoded, or does not have the declared shape."""


class KeyMissing(Reject):
    """A record lacks its idempotency key or its lane, or has an empty one."""


class PayloadMismatch(Reject):
    """A record has the key of another one, and another payload: `Claim(validate=)` or `Mark(validate=)`."""


class HopLimit(Reject):
    """A record passed more handlers than `max_hops`: the pipeline feeds itself in a loop."""


class EncodeError(PipelineError):
    """A handler returned something that cannot be written as JSON."""


class RecordTimeout(PipelineError):
    """A handler did not finish in its time: `record_timeout`, or what the invocation had left."""


class Crashed(PipelineError):
    """Earlier runs of this record died without a result (the process was killed, or timed out)."""


class StoreUnavailable(PipelineError):
    """The idempotency store could not be reached, or did not answer in time."""

    @classmethod
    def of(cls, error: Exception) -> StoreUnavailable:
        """A store's trouble, whatever it was, as this error."""
        return error if isinstance(error, cls) else cls(f"{type(error).__name__}: {error}")


class ResourceUnavailable(PipelineError):
    """A resource of the handler did not open; its records come back, and the next batch tries again."""


class SinkError(PipelineError):
    """A sink did not take an output."""


class SinkRefused(SinkError):
    """The sink will not take this output however often it is tried (too large, say)."""


class SinkUnavailable(SinkError):
    """The sink could not take the output now: throttled, out of reach, or missing."""


def _is_seconds(value: object) -> bool:
    return not isinstance(value, bool) and isinstance(value, (int, float)) and 0 <= value < math.inf
