"""Named profiles: how often each kind of fault happens."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.emulator.faults.kinds import Kind, check_kind, is_whole
from pipeline.errors import ConfigurationError


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How often each kind happens at each point that it can happen at, from 0 to 1; kinds that are missing never do.

    `seconds`: of the run; afterwards nothing goes wrong any more, so that everything can come to rest.
    `spoiled`: invocations by each mapping that may meet what costs a record a receive or an attempt. A source that
    gives up earlier lowers it: a healthy record among the dead letters is then always a bug.
    """

    name: str
    rates: Mapping[Kind, float] = field(default_factory=dict)
    seconds: float = 3600.0
    spoiled: int = 3

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for what cannot be meant."""
        for kind, rate in self.rates.items():
            check_kind(kind)
            if not _is_number(rate) or not 0 <= rate <= 1:
                raise ConfigurationError(f"{self.name}: rates: {str(kind)!r}: {rate!r}: give a number from 0 to 1")
        if not _is_number(self.seconds) or not self.seconds >= 0:
            raise ConfigurationError(f"{self.name}: seconds={self.seconds!r}: give seconds, at least 0")
        if not is_whole(self.spoiled, 0):
            raise ConfigurationError(f"{self.name}: spoiled={self.spoiled!r}: give a whole number, at least 0")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_DUPLICATES = {Kind.DUPLICATE: 0.2, Kind.OVERLAP: 0.2, Kind.REPEAT: 0.3, Kind.LOST_RESPONSE: 0.15, Kind.REORDERING: 0.5}
_CRASHES = {Kind.CRASH: 0.08}
_THROTTLES = {
    Kind.THROTTLED_INVOCATION: 0.15,
    Kind.THROTTLED_CALL: 0.1,
    Kind.PARTIAL_FAILURE: 0.15,
    Kind.TIME_OUT: 0.08,
}
_SLOW = {Kind.SLOW_CALL: 0.1, Kind.SLOW_HANDLER: 0.1, Kind.LATE_RESPONSE: 0.1}
_SKEW = {Kind.SKEW: 0.5}
_POISON = {Kind.POISON: 0.3}

PROFILES: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        Profile(name="duplicates", rates=_DUPLICATES),
        Profile(name="crashes", rates=_CRASHES),
        Profile(name="throttles", rates=_THROTTLES),
        Profile(name="slow", rates=_SLOW),
        Profile(name="skew", rates=_SKEW),
        Profile(name="poison", rates=_POISON),
        Profile(
            name="everything",
            # Less of each, so that about as much goes wrong in all.
            rates={
                kind: rate / 2 for kind, rate in (_DUPLICATES | _CRASHES | _THROTTLES | _SLOW | _SKEW | _POISON).items()
            },
        ),
    )
}

#: Of a run on a server, in real time. It may last for days, so nothing is counted and nothing stops: that a record meets so
#: much that it is given up is less likely than one in a million.
SERVER = Profile(
    name="server",
    rates={
        Kind.DUPLICATE: 0.05,
        Kind.OVERLAP: 0.05,
        Kind.REPEAT: 0.1,
        Kind.LOST_RESPONSE: 0.1,
        Kind.THROTTLED_INVOCATION: 0.05,
        Kind.CRASH: 0.003,
    },
    seconds=math.inf,
    spoiled=sys.maxsize,
)


def profile_named(name: str) -> Profile:
    """A profile by its name. Raises `ConfigurationError` that lists them."""
    found = PROFILES.get(name)
    if found is None:
        raise ConfigurationError(f"there is no fault profile {name!r}: there is {', '.join(PROFILES)}")
    return found
