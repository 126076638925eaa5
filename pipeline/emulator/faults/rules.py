"""Single faults, for a test that wants one thing to go wrong: `crash(after="handler")`.

Steps of every function: "handler", and each call that it makes to a service, such as "dynamodb.put_item". Of a pipeline's
handler also: "claim", "sink <name>", "completion", "dead letter", "acknowledgement".
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.emulator.faults.kinds import Kind, Point
from pipeline.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One kind of fault at a step, from the `nth` time on that the step is reached, `times` times."""

    kind: Kind
    step: str | None = None  #: None: wherever it can happen
    function: str | None = None  #: a function's name, also as one of its mappings calls it, or a source's; None: any
    nth: int = 1
    times: int = 1

    def __post_init__(self) -> None:
        for name, value in (("nth", self.nth), ("times", self.times)):
            if isinstance(value, bool) or value < 1:
                raise ConfigurationError(f"{name}={value!r}: give a whole number, at least 1")

    def fits(self, point: Point) -> bool:
        """It may happen here."""
        return self.step in (None, point.step) and self.function in (None, point.where, point.function)


def crash(
    *,
    before: str | None = None,
    after: str | None = None,
    function: str | None = None,
    nth: int = 1,
    times: int = 1,
) -> Rule:
    """The execution environment is killed before or after a step; nothing in it sees that coming."""
    if (before is None) == (after is None):
        raise ConfigurationError("crash(): say before or after which step, as in crash(after='handler')")
    step = f"before {before}" if before is not None else f"after {after}"
    return Rule(kind=Kind.CRASH, step=step, function=function, nth=nth, times=times)


def throttle(call: str | None = None, *, function: str | None = None, nth: int = 1, times: int = 1) -> Rule:
    """A call ("dynamodb.put_item") is refused as one too many; without `call` the invocation itself is."""
    kind = Kind.THROTTLED_INVOCATION if call is None else Kind.THROTTLED_CALL
    return Rule(kind=kind, step=call, function=function, nth=nth, times=times)


def fail_partly(call: str, *, function: str | None = None, nth: int = 1, times: int = 1) -> Rule:
    """Some entries of a batch call ("sqs.send_message_batch") fail inside its 200."""
    return Rule(kind=Kind.PARTIAL_FAILURE, step=call, function=function, nth=nth, times=times)


def time_out(call: str, *, function: str | None = None, nth: int = 1, times: int = 1) -> Rule:
    """A write ("dynamodb.put_item") is done, and its answer never comes."""
    return Rule(kind=Kind.TIME_OUT, step=call, function=function, nth=nth, times=times)


def slow_down(call: str | None = None, *, function: str | None = None, nth: int = 1, times: int = 1) -> Rule:
    """A call is slow; without `call` the handler is."""
    kind = Kind.SLOW_HANDLER if call is None else Kind.SLOW_CALL
    return Rule(kind=kind, step=call, function=function, nth=nth, times=times)


def lose_response(*, function: str | None = None, nth: int = 1, times: int = 1) -> Rule:
    """The function runs, and the mapping never hears of it."""
    return Rule(kind=Kind.LOST_RESPONSE, function=function, nth=nth, times=times)


def delay_response(*, function: str | None = None, nth: int = 1, times: int = 1) -> Rule:
    """A queue's mapping hears of it only when the messages are visible again."""
    return Rule(kind=Kind.LATE_RESPONSE, function=function, nth=nth, times=times)


def duplicate(*, at_once: bool = False, source: str | None = None, nth: int = 1, times: int = 1) -> Rule:
    """What was deleted from a queue comes once more. `at_once`: while the first delivery is at work (standard queues).

    `source`: a queue's name; with `at_once` the function's.
    """
    return Rule(kind=Kind.OVERLAP if at_once else Kind.DUPLICATE, function=source, nth=nth, times=times)


def repeat(*, function: str | None = None, nth: int = 1, times: int = 1) -> Rule:
    """A stream's batch comes again after it was done."""
    return Rule(kind=Kind.REPEAT, function=function, nth=nth, times=times)


def poison(source: str | None = None) -> Rule:
    """One more record in a source, which can never be processed."""
    return Rule(kind=Kind.POISON, function=source)


def skew(*, function: str | None = None, nth: int = 1, times: int = 1) -> Rule:
    """The clock of an execution environment is wrong."""
    return Rule(kind=Kind.SKEW, function=function, nth=nth, times=times)


def shuffle() -> Rule:
    """Standard queues hand out in any order."""
    return Rule(kind=Kind.REORDERING)
