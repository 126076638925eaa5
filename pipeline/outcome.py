"""How a record ended. Every record of a batch ends in exactly one of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct


class HandBack(StrEnum):
    """Why a record was handed back without a run that counts."""

    DEADLINE = "deadline"  #: the invocation's time was nearly up
    BEHIND = "behind"  #: it stands behind a failure in its lane
    CLAIMED = "claimed"  #: another live run holds its key
    STORE = "store"  #: the idempotency store could not be asked


class Succeeded(Struct, frozen=True):
    """The handler finished and every sink accepted every output."""

    outputs: int = 0  #: how many outputs were written, over all sinks


class Duplicate(Struct, frozen=True):
    """An earlier run of the same key is complete; nothing was run."""


class Rejected(Struct, frozen=True):
    """The record will never succeed; it stands in the dead-letter queue with its cause."""

    error: BaseException
    exhausted: bool = False  #: True: it used up its attempts; False: it was permanent at once


class Failed(Struct, frozen=True):
    """The record did not succeed this time and comes back from the source."""

    error: BaseException
    delay: float | None = None  #: seconds until it should come back; None: the source's own time


class Unprocessed(Struct, frozen=True):
    """The record was handed back without a run; it costs no attempt."""

    reason: HandBack
    delay: float | None = None  #: seconds until it should come back; None: the source's own time
    error: BaseException | None = None  #: what the store said, for `HandBack.STORE`


Outcome = Succeeded | Duplicate | Rejected | Failed | Unprocessed

#: The outcomes after which the source may forget the record.
SETTLED = (Succeeded, Duplicate, Rejected)


def text_of(error: BaseException) -> str:
    """An error's message. An exception whose own message cannot be made must not become another failure."""
    try:
        return str(error)
    except Exception as second:
        return f"(no message: its __str__ raised {type(second).__name__})"


def is_settled(outcome: Outcome) -> bool:
    """True when the source may forget the record."""
    return isinstance(outcome, SETTLED)


def tally(outcomes: Sequence[Outcome]) -> Counter[str]:
    """How many ended in which way, by `name_of`."""
    kinds = Counter(map(type, outcomes))
    if Rejected in kinds:
        return Counter(map(name_of, outcomes))
    return Counter({kind.__name__.lower(): count for kind, count in kinds.items()})


def name_of(outcome: Outcome) -> str:
    """The outcome's word in logs, metrics and reports."""
    if isinstance(outcome, Rejected) and outcome.exhausted:
        return "exhausted"
    return type(outcome).__name__.lower()
