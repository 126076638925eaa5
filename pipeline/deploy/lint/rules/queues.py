"""Queues that a function reads: how long a message is hidden, and where it goes in the end."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity
from pipeline.deploy.lint.model import EventSource, Function, Model, Queue

#: AWS's advice: this many function timeouts, and the batching window on top.
TIMEOUTS = 6

VISIBILITY_BELOW_TIMEOUT = Rule(
    id="visibility-below-timeout",
    severity=Severity.ERROR,
    title="messages become visible while their invocation still runs",
    why="A second invocation gets the same messages beside the first; Lambda refuses such a mapping",
    fix="Set VisibilityTimeout to at least 6 x the function's Timeout + the batching window",
    source="Lambda developer guide, Amazon SQS event sources: the queue's visibility timeout",
)
VISIBILITY_TOO_SHORT = Rule(
    id="visibility-too-short",
    severity=Severity.WARNING,
    title="the visibility timeout leaves no room for throttled retries",
    why=(
        "While Lambda retries a batch that was throttled, its messages become visible again: they run twice, and "
        "each time costs one of their receives"
    ),
    fix="Set VisibilityTimeout to at least 6 x the function's Timeout + the batching window",
    source="Lambda developer guide, Configuring a queue to use with Lambda: 6 x timeout + MaximumBatchingWindowInSeconds",
)


def _readers(model: Model) -> Iterator[tuple[EventSource, Function, Queue]]:
    """Each mapping from a queue of this template to a function of it."""
    for mapping in model.mappings:
        queue, function = model.queue_of(mapping), model.function_of(mapping)
        if queue is not None and function is not None:
            yield mapping, function, queue


def visibility_below_timeout(model: Model) -> Iterator[Finding]:
    for mapping, function, queue in _readers(model):
        visible, timeout = queue.visibility.value, function.timeout.value
        if visible is not None and timeout is not None and visible < timeout:
            yield VISIBILITY_BELOW_TIMEOUT.at(
                queue.id,
                queue.visibility.line,
                f"messages are hidden for {visible} s, and {function.id} may run for {timeout} s",
                fix=_visibility_fix(mapping, timeout),
            )


def visibility_too_short(model: Model) -> Iterator[Finding]:
    for mapping, function, queue in _readers(model):
        visible, timeout, window = queue.visibility.value, function.timeout.value, mapping.window.value or 0
        if visible is None or timeout is None or visible < timeout:
            continue
        if visible < TIMEOUTS * timeout + window:
            yield VISIBILITY_TOO_SHORT.at(
                queue.id,
                queue.visibility.line,
                f"messages are hidden for {visible} s; {function.id} may run for {timeout} s"
                + (f" after a batching window of {window} s" if window else ""),
                fix=_visibility_fix(mapping, timeout),
            )


def _visibility_fix(mapping: EventSource, timeout: int) -> str:
    window = mapping.window.value or 0
    return f"VisibilityTimeout: {TIMEOUTS * timeout + window} (6 x {timeout} + {window}), or a shorter Timeout"


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (VISIBILITY_BELOW_TIMEOUT, visibility_below_timeout),
    (VISIBILITY_TOO_SHORT, visibility_too_short),
)
