"""Single faults, for a test that wants one thing to go wrong: `crash(after="handler")`.

Steps of every function: "handler", and each call that it makes to a service, such as "dynamodb.put_item". Of a pipeline's
handler also: "claim", "sink <name>", "completion", "dead letter", "acknowledgement".
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from pipeline.emulator.faults.kinds import Kind, Point, check_kind, is_whole
from pipeline.emulator.faults.partial import PARTIAL
from pipeline.emulator.services.client import READS
from pipeline.emulator.services.memory import in_memory
from pipeline.errors import ConfigurationError

_STEPS = ("handler", "claim", "completion", "dead letter", "acknowledgement")
_SINK = "sink "
#: The one step of kinds that have one.
_ONLY: Mapping[Kind, str] = {
    Kind.DUPLICATE: "deletion",
    Kind.OVERLAP: "invocation",
    Kind.REPEAT: "invocation",
    Kind.REORDERING: "order",
    Kind.LOST_RESPONSE: "invocation",
    Kind.LATE_RESPONSE: "invocation",
    Kind.THROTTLED_INVOCATION: "invocation",
    Kind.SLOW_HANDLER: "handler",
    Kind.SKEW: "environment",
    Kind.POISON: "receive",
}
#: Why a kind may never happen, though its name is right.
_NEEDS: Mapping[Kind, str] = {
    Kind.DUPLICATE: "only a queue hands out again what was deleted",
    Kind.OVERLAP: "only a standard queue hands out the same messages twice at once",
    Kind.REPEAT: "only a stream's batch is repeated",
    Kind.LATE_RESPONSE: "only a queue's messages are visible again after a while",
    Kind.SKEW: "only a pipeline's environments have clocks of their own: a plain handler reads this machine's",
    Kind.POISON: "it needs a queue with dead letters, or a stream's or topic's mapping with on_failure=; tables get none",
}


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One kind of fault at a step, from the `nth` time on that the step is reached, `times` times."""

    kind: Kind
    step: str | None = None  #: None: wherever it can happen
    function: str | None = None  #: a function's name, also as one of its mappings calls it, or a source's; None: any
    nth: int = 1
    times: int = 1

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for what can never happen."""
        check_kind(self.kind)
        for name, value in (("nth", self.nth), ("times", self.times)):
            if not is_whole(value, 1):
                raise ConfigurationError(f"{name}={value!r}: give a whole number, at least 1")
        if self.step is not None:
            _check_step(self.kind, self.step)

    def __str__(self) -> str:
        step = f" {self.step}" if self.step is not None else ""
        where = f" at {self.function}" if self.function is not None else ""
        return f"{self.kind}{step}{where}" + (f", the {self.nth}. time" if self.nth > 1 else "")

    def missed(self, met: int) -> str:
        """That it never happened, though its point was reached `met` times, and what may be why."""
        if met:
            return f"{self}: that was reached {met} {'time' if met == 1 else 'times'}"
        needs = f"; {_NEEDS[self.kind]}" if self.kind in _NEEDS else ""
        return f"{self}: nothing came there{needs}"

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


@cache
def _calls() -> frozenset[str]:
    """What can be called in memory, such as "dynamodb.put_item"."""
    services = in_memory(random.Random(0), lambda: 0.0)
    return frozenset(f"{service.name}.{operation}" for service in services for operation in service.operations)


def _check_step(kind: Kind, step: str) -> None:
    """Raise `ConfigurationError` for a step that is none of this kind."""
    if kind is Kind.CRASH:
        side, _, name = step.partition(" ")
        is_sink = name.startswith(_SINK) and name != _SINK
        if side not in ("before", "after") or not (name in _STEPS or is_sink or _changes(name)):
            known = ", ".join(map(repr, (*_STEPS, f"{_SINK}NAME")))
            raise ConfigurationError(
                f"{kind} {side} {name!r}: steps are {known}, and calls that change something, as 'dynamodb.put_item'"
            )
    elif kind is Kind.PARTIAL_FAILURE:
        if step not in PARTIAL:
            raise ConfigurationError(f"{kind} {step!r}: what can fail in part is {', '.join(PARTIAL)}")
    elif kind is Kind.TIME_OUT:
        if not _changes(step):
            raise ConfigurationError(f"{kind} {step!r}: give a call that changes something, as 'dynamodb.put_item'")
    elif kind in _ONLY:
        if step != _ONLY[kind]:
            raise ConfigurationError(f"{kind} {step!r}: its step is {_ONLY[kind]!r}; it may be left out")
    elif step not in _calls():
        raise ConfigurationError(f"{kind} {step!r}: there is no such call here: give one as 'dynamodb.put_item'")


def _changes(call: str) -> bool:
    return call in _calls() and not call.partition(".")[2].startswith(READS)
