"""`Faults`: what goes wrong in a run, decided by a seed or named one by one.

A decision depends on the seed, the point's name and how often that point was reached, and on nothing else. So the same
seed gives the same faults, and taking one away leaves the others where they are.
"""

from __future__ import annotations

import hashlib
import random
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from pipeline.emulator.faults.kinds import COSTLY, Kind, Point
from pipeline.emulator.faults.lines import Line, Lines
from pipeline.emulator.faults.profiles import Profile, profile_named
from pipeline.emulator.faults.rules import Rule
from pipeline.errors import ConfigurationError, PipelineError

_NONE = Profile(name="none")
#: Points and faults that are kept of a run without end: more than one in virtual time ever has.
_MOST = 100_000

#: Asks the time of a run.
Now = Callable[[], float]


@dataclass(frozen=True)
class Fired:
    """A fault that happened."""

    at: float  #: seconds since the run began
    point: Point
    occurrence: int  #: how often the point was reached, from 1
    kind: Kind

    @property
    def id(self) -> str:
        """What names this fault in every run of the same seed."""
        return _id(self.kind, self.point, self.occurrence)

    def __str__(self) -> str:
        times = "" if self.occurrence == 1 else f", the {self.occurrence}. time"
        return f"{self.kind}: {self.point.name}{times}"


class Faults:
    """What goes wrong. One object is for one run.

    `profile`: one of `PROFILES`, or a `Profile` of your own. `only`: the ids of the faults that may happen, of those that
    the seed would let happen; for replaying and shrinking.
    """

    def __init__(
        self,
        seed: int = 0,
        profile: str | Profile = "everything",
        *,
        only: Collection[str] | None = None,
        rules: Iterable[Rule] = (),
    ) -> None:
        self.seed = seed
        self.profile = profile if isinstance(profile, Profile) else profile_named(profile)
        self.only = None if only is None else frozenset(only)
        self.fired: list[Fired] = []
        self._lines = Lines()
        self._rules = list(rules)
        self._met = [0] * len(self._rules)
        self._happened = [False] * len(self._rules)
        self._reached: dict[str, int] = {}  #: how often each point was
        self._limits: dict[str, int] = {}
        self._accounts: dict[str, str] = {}
        self._spoiled: dict[str, set[str]] = {}
        self._began_at: float | None = None
        self._lock = threading.Lock()  # a local run asks from several threads

    @classmethod
    def of(cls, *rules: Rule) -> Self:
        """Exactly these faults, each when its point is reached: `Faults.of(crash(after="handler"), throttle(...))`."""
        return cls(0, _NONE, rules=rules)

    @property
    def lines(self) -> list[Line]:
        """What happened; of a long run what is around its faults, and its beginning and end."""
        return self._lines.kept

    @property
    def has_begun(self) -> bool:
        """A run has asked it."""
        return self._began_at is not None

    def again(self, only: Collection[str] | None = None) -> Faults:
        """The same once more, for another run, with only these of its faults; None: with all."""
        return Faults(self.seed, self.profile, only=only, rules=self._rules)

    def allow(self, where: str, spoiled: int | None) -> None:
        """Of a function, at most so many invocations may meet what costs a receive or an attempt; None: the profile's."""
        if spoiled is not None:
            self._limits[where] = min(max(spoiled, 0), self._limits.get(where, self.profile.spoiled))

    def share(self, queue: str, function: str) -> None:
        """What costs a receive at a queue counts as if its function had met it; of several functions, one for all."""
        account = self._accounts.setdefault(queue, function)
        if account != function:  # a message may go from one to the other
            self._accounts[function] = account
            self.allow(account, self._limits.get(function))

    def at(self, point: Point, kinds: Collection[Kind], now: float) -> Kind | None:
        """What goes wrong at this point, of what can; None: nothing. `now`: in any seconds, always the same."""
        with self._lock:
            occurrence = self._occurrence(point)
            elapsed = self._elapsed(now)
            kind = self._by_rule(point, kinds)
            if kind is None:
                kind = self._by_chance(point, occurrence, kinds, elapsed)
            if kind is not None:
                fired = Fired(elapsed, point, occurrence, kind)
                _keep_newest(self.fired)
                self.fired.append(fired)
                self._lines.add(elapsed, point.scope, str(fired), is_fault=True)
            return kind

    def check_happened(self) -> None:
        """Raise `PipelineError` for a single fault that never happened: what was to be seen by it was not."""
        found = zip(self._rules, self._met, self._happened, strict=True)
        missed = [rule.missed(met) for rule, met, happened in found if not happened]
        if missed:
            raise PipelineError(f"this never happened: {'; and '.join(missed)}")

    def chance(self, point: Point, what: str) -> random.Random:
        """The chance of a fault's details at its point as it was reached last: how slow, say, or which entries."""
        return random.Random(f"{self.seed}:{point.name}:{self._reached.get(point.name, 0)}:{what}")

    def note(self, where: str, text: str, now: float, records: Sequence[str] = (), rest: str = "") -> None:
        """Keep what happened, for the story. `records`: the ids of those that it says something of."""
        with self._lock:
            self._lines.add(self._elapsed(now), where, text, records, rest)

    def _occurrence(self, point: Point) -> int:
        # Points that stand, such as a queue's receive, come last again; those of an invocation that is long over go.
        occurrence = self._reached.pop(point.name, 0) + 1
        if len(self._reached) >= _MOST:
            for name in list(self._reached)[: _MOST // 2]:
                del self._reached[name]
        self._reached[point.name] = occurrence
        return occurrence

    def _elapsed(self, now: float) -> float:
        if self._began_at is None:
            self._began_at = now
        return now - self._began_at

    def _by_rule(self, point: Point, kinds: Collection[Kind]) -> Kind | None:
        found: Kind | None = None
        for index, rule in enumerate(self._rules):
            if rule.kind not in kinds or not rule.fits(point):
                continue
            is_due = rule.nth <= self._met[index] + 1 < rule.nth + rule.times
            if is_due and found is not None:
                continue  # one thing at a time: it happens the next time that the point is reached
            self._met[index] += 1
            if is_due:
                found, self._happened[index] = rule.kind, True
        return found

    def _by_chance(self, point: Point, occurrence: int, kinds: Collection[Kind], elapsed: float) -> Kind | None:
        if elapsed > self.profile.seconds:
            return None
        for kind in Kind:
            rate = self.profile.rates.get(kind, 0.0)
            if kind not in kinds or not rate:
                continue
            identifier = _id(kind, point, occurrence)
            if _draw(f"{self.seed}:{identifier}") >= rate:
                continue
            # What is left out gives its place to no other: the others stay where they are.
            is_meant = self.only is None or identifier in self.only
            return kind if is_meant and (kind not in COSTLY or self._may_spoil(point)) else None
        return None

    def _may_spoil(self, point: Point) -> bool:
        """A record is in one invocation at a time: what one invocation meets costs each record one receive."""
        account = self._accounts.get(point.where, point.where)
        limit = self._limits.get(account, self.profile.spoiled)
        if limit == sys.maxsize:
            return True
        spoiled = self._spoiled.setdefault(account, set())
        scope = point.scope if point.invocation is not None else f"{point.scope} {self._reached.get(point.name, 0)}"
        if scope not in spoiled:
            if len(spoiled) >= limit:
                return False
            spoiled.add(scope)
        return True


def faults_of(given: Faults | Rule | Iterable[Rule] | str | int | None, seed: int) -> Faults | None:
    """What a user gave as faults: a plan, single faults, a profile's name, or a seed. Raises `ConfigurationError`."""
    if isinstance(given, Faults) and given.has_begun:
        raise ConfigurationError("these faults have happened already: give each run its own, as by faults.again()")
    if given is None or isinstance(given, Faults):
        return given
    if isinstance(given, str):
        return Faults(seed, given)
    if isinstance(given, Rule):
        return Faults(seed, _NONE, rules=[given])
    if isinstance(given, int) and not isinstance(given, bool):
        return Faults(given)
    rules = list(given) if isinstance(given, Iterable) else []
    if not rules or not all(isinstance(rule, Rule) for rule in rules):
        raise ConfigurationError(f"faults={given!r}: give a profile's name, Faults(seed), or faults such as crash(...)")
    return Faults(seed, _NONE, rules=rules)


def _keep_newest(fired: list[Fired]) -> None:
    if len(fired) >= _MOST:
        del fired[: _MOST // 2]


def _id(kind: Kind, point: Point, occurrence: int) -> str:
    return f"{kind} at {point.name} #{occurrence}"


def _draw(text: str) -> float:
    """A number from [0, 1) that depends on the text alone, in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
