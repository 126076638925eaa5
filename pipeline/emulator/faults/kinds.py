"""What can go wrong, and where."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from pipeline.errors import ConfigurationError


class Kind(StrEnum):
    """A kind of fault. Each is something that AWS's documentation says can happen; none of them loses anything."""

    DUPLICATE = "duplicate"  #: a deletion does not take: what was done comes once more
    OVERLAP = "overlap"  #: a standard queue hands the same messages out twice at once
    REPEAT = "repeat"  #: a stream's batch comes again after it was done: the checkpoint was lost
    REORDERING = "reordering"  #: standard queues hand out in any order
    LOST_RESPONSE = "lost response"  #: the function ran, and the mapping never heard of it
    LATE_RESPONSE = "late response"  #: the mapping heard of it when the messages were visible again
    THROTTLED_INVOCATION = "throttled invocation"
    THROTTLED_CALL = "throttled call"  #: a service refuses a call that it would take later
    PARTIAL_FAILURE = "partial failure"  #: a call succeeds, and some of its entries do not
    TIME_OUT = "time-out after the write"  #: a call is done, and its answer never comes
    SLOW_CALL = "slow call"
    SLOW_HANDLER = "slow handler"
    CRASH = "crash"  #: the execution environment is gone between two steps, as by SIGKILL
    SKEW = "clock skew"  #: of an execution environment's clock
    POISON = "poison record"  #: one more record in a source, which can never be processed


def check_kind(kind: str) -> None:
    """Raise `ConfigurationError` for what is no kind."""
    if kind not in set(Kind):
        known = ", ".join(repr(str(one)) for one in Kind)
        raise ConfigurationError(f"there is no kind of fault {kind!r}: there is {known}")


def is_whole(value: object, least: int) -> bool:
    """A whole number, at least so great."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


#: What can cost a record a receive or an attempt: only so many invocations by a mapping meet these.
COSTLY = frozenset(
    {
        *(Kind.DUPLICATE, Kind.LOST_RESPONSE, Kind.LATE_RESPONSE, Kind.THROTTLED_INVOCATION, Kind.THROTTLED_CALL),
        *(Kind.PARTIAL_FAILURE, Kind.TIME_OUT, Kind.SLOW_CALL, Kind.SLOW_HANDLER, Kind.CRASH),
    }
)


@dataclass(frozen=True)
class Point:
    """A place where something can go wrong.

    `where`: a function as its mapping calls it, or a source. `step`: such as "after handler", "dynamodb.put_item",
    "invocation". `invocation`: by that mapping, counted from 1; None where there is none. `function`: the function's own
    name, where that is another: one with several mappings.
    """

    where: str
    step: str
    invocation: int | None = None
    function: str | None = None

    @property
    def scope(self) -> str:
        """The function's invocation, or the source."""
        return self.where if self.invocation is None else f"{self.where}[{self.invocation}]"

    @property
    def name(self) -> str:
        """As it stands in the ids of faults."""
        return f"{self.scope} {self.step}"
