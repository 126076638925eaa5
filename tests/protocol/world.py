"""The world of the model: one entry, the runs that want it, and what has really happened, as one hashable value.

Times are relative: now is always `NOW`, and a tick moves everything else into the past. What lies so far
back that no clock tells it apart any more is moved to one place (`Setup.floor`). With that, and because the
names of owners that are gone are numbered by where they appear, the worlds of an endless run are finitely many.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import Struct
from msgspec.structs import replace

from pipeline.decisions.idempotency import RELEASED, Entry, Settlement

KEY = "p#1"
#: Epoch seconds of the true clock. The product's functions are called with whole seconds around it.
NOW = 1_000
#: An expiration that the search does not reach.
NEVER = 100_000

SLOTS = "abc"
#: Where a run stands.
ASKING, RUNNING, WRITING, LETTER, ENDING = "asking", "running", "writing", "letter", "ending"
#: While a run does one of these it has an effect.
AT_WORK = (RUNNING, WRITING, LETTER)


# The promises, each as what is wrong when it is broken.
OVERLAP = "two runs are at work at once, and each believes that it holds the claim"
AFTER_DONE = "a run begins although a completion counts"
NOT_DONE = "a run is told that the work is done, and no run whose sinks accepted was completed"
FOREIGN_END = "an owner that does not hold the claim ends it"
FOREIGN_RENEWAL = "an owner that does not hold the claim renews it"
FALSE_ANSWER = "a run is told that its ending was written, and it never was"
OWN_REFUSED = "the owner of the claim is refused its own claim"
ATTEMPTS = "the entry counts other attempts than were begun and count"
OUTPUTS = "kept outputs are lost, or stand in an entry that owes none"
STUCK = "somebody who keeps asking gets neither the claim nor an answer when the lease is over"

PROMISES = (
    OVERLAP,
    AFTER_DONE,
    NOT_DONE,
    FOREIGN_END,
    FOREIGN_RENEWAL,
    FALSE_ANSWER,
    OWN_REFUSED,
    ATTEMPTS,
    OUTPUTS,
    STUCK,
)


class Setup(Struct, frozen=True, kw_only=True):
    """What may happen in a search."""

    slots: int = 2  #: runs that live at once; when one is over another may come
    skews: tuple[int, ...] = (0, 0, 0)  #: seconds that the clock of each slot is ahead of the true one
    lease: int = 2  #: seconds
    remaining: int | None = None  #: seconds that an invocation has; then it is killed. None: runs may be late for ever
    ttl: int = NEVER  #: seconds; anything less passes
    is_batched: bool = False  #: INSERT, consistent read, conditional UPDATE; else writes that bring back the entry
    asks_late: bool = False  #: a run goes on asking when the lease that it asks for has passed
    asks_beside: bool = False  #: runs ask while others run beside them first, and alone only then
    is_crashing: bool = True
    loses_answers: bool = True
    #: "never"; "may": at any time or not; "in time": at each third of the lease, and the store answers before the next.
    renewals: str = "may"
    late_copies: tuple[str, ...] = ()  #: kinds of writes whose first copy may land long after the second
    endings: tuple[str, ...] = ("complete", "fail", "outage", "keep", "reject")
    is_stream: bool = False  #: a rejected record's name is kept; there are two records of the key
    cap: int = 1  #: attempts before the dead-letter queue
    peers: int = 0  #: slots, the last ones, in which Powertools runs
    peers_fail: bool = True  #: their functions may raise, which deletes the entry, whoever's it is
    peers_have_context: bool = True  #: without one they write no lease
    unwatched: tuple[str, ...] = ()  #: promises that are not looked at

    def only(self, *promises: str) -> Setup:
        """The same, with an eye on these promises alone."""
        return replace(self, unwatched=tuple(promise for promise in PROMISES if promise not in promises))

    @property
    def is_symmetric(self) -> bool:
        """Its slots are alike, so that worlds that differ in their order only are one."""
        return not self.peers and len(set(self.skews[: self.slots])) == 1

    @property
    def floor(self) -> int:
        """Seconds before which every clock calls a lease lapsed and an entry expired."""
        return NOW - max(abs(skew) for skew in self.skews) - 2


class Run(Struct, frozen=True, cache_hash=True):
    """One run's place in its program."""

    owner: str
    until: float  #: when its lease ends, by its own clock and as far as it knows
    doing: str = ASKING
    plan: str = "create"  #: while it asks: create, take, read, replace
    seen: Entry | None = None
    killed_at: float | None = None  #: its own clock
    is_alone: bool = True
    record: str = ""
    attempt: int = 0
    outputs: str | None = None
    rejected: tuple[str, ...] = ()
    is_lost: bool = False  #: a renewal was refused
    has_accepted: bool = False  #: the sinks have accepted its outputs
    ending: Settlement | None = None
    counts: int = 1  #: what its run counts as, when it gives the claim back: 1, 0, or -1 for "start anew"
    was_written: bool = False  #: its ending was written, and the answer lost
    is_peer: bool = False


class Copy(Struct, frozen=True, cache_hash=True):
    """A write that its owner has given up waiting for, and that is still on its way."""

    plan: str  #: create, take, renew, end
    owner: str
    until: float = 0
    seen: Entry | None = None
    ending: Settlement | None = None
    counts: int = 1


class World(Struct, frozen=True, cache_hash=True):
    """Everything. What stands below the copies is what has really happened, which no rule sees."""

    entry: Entry | None = None
    runs: tuple[Run | None, ...] = ()
    copies: tuple[Copy, ...] = ()
    holder: str | None = None  #: who wrote the last claim, and has not ended it
    counted: int = 0  #: claims that were written since the entry began, without those that do not count
    owed: str | None = None  #: outputs of a finished run that some sink lacks
    done: int | None = None  #: the seconds that a completion still has to count for; None: there is none
    was_done: bool = False  #: there was a completion whose sinks had accepted
    dead: tuple[str, ...] = ()  #: records in the dead-letter queue that the entry has to remember
    fault: str = ""  #: which promise is broken


def in_order(world: World) -> World:
    """The same world with its runs in an order of their own, for slots that are alike; empty slots come last."""
    runs = sorted(world.runs, key=lambda run: _place(run, world))
    if all(run is other for run, other in zip(runs, world.runs, strict=True)):
        return world
    names = {run.owner: SLOTS[slot] for slot, run in enumerate(runs) if run is not None}
    if all(old == new for old, new in names.items()):
        return replace(world, runs=tuple(runs))
    renamed = _renamed(replace(world, runs=tuple(runs)), names)
    return replace(renamed, runs=tuple(_called(run, names) for run in renamed.runs))


def _place(run: Run | None, world: World) -> tuple[object, ...]:
    if run is None:
        return (True,)
    is_owner = world.entry is not None and world.entry.owner == run.owner
    return (False, run.doing, run.plan, run.until, is_owner, run.is_lost, run.was_written, run.attempt, run.record)


def _called(run: Run | None, names: dict[str, str]) -> Run | None:
    if run is None:
        return None
    owner = names[run.owner]
    return replace(run, owner=owner, ending=None if run.ending is None else replace(run.ending, owner=owner))


def earlier(entry: Entry | None, floor: int, expires: bool) -> Entry | None:
    """An entry after one more second has passed."""
    return None if entry is None else _earlier(entry, floor, expires)


@lru_cache(maxsize=100_000)
def _earlier(entry: Entry, floor: int, expires: bool) -> Entry:
    lease = entry.in_progress_expiration
    if lease is not None and lease != RELEASED:
        lease = max(lease - 1000, floor * 1000)
    expiration = max(entry.expiration - 1, floor) if expires else entry.expiration
    return replace(entry, in_progress_expiration=lease, expiration=expiration)


def gone(world: World, owner: str) -> World:
    """The world after an owner has left: what still names it calls it by a name of its own."""
    if owner not in _named(world):
        return world
    return _renamed(world, {owner: "?"})


def tidy(world: World) -> World:
    """The same world with the owners that are gone numbered by where they appear."""
    names: dict[str, str] = {}
    for name in _named(world):
        if name is not None and name[0] not in SLOTS and name not in names:
            names[name] = f"gone{len(names)}"
    return world if all(old == new for old, new in names.items()) else _renamed(world, names)


def _named(world: World) -> list[str | None]:
    names: list[str | None] = [world.entry.owner if world.entry else None, world.holder]
    names += [run.seen.owner for run in world.runs if run is not None and run.seen is not None]
    for copy in world.copies:
        names += [copy.owner, copy.seen.owner if copy.seen else None]
    return names


def _renamed(world: World, names: dict[str, str]) -> World:
    def entry_of(entry: Entry | None) -> Entry | None:
        if entry is None or entry.owner not in names:
            return entry
        return replace(entry, owner=names[entry.owner])

    def copy_of(copy: Copy) -> Copy:
        owner = names.get(copy.owner, copy.owner)
        ending = None if copy.ending is None else replace(copy.ending, owner=owner)
        return replace(copy, owner=owner, seen=entry_of(copy.seen), ending=ending)

    def run_of(run: Run | None) -> Run | None:
        if run is None or (seen := entry_of(run.seen)) is run.seen:
            return run
        return replace(run, seen=seen)

    return replace(
        world,
        entry=entry_of(world.entry),
        runs=tuple([run_of(run) for run in world.runs]),
        copies=tuple([copy_of(copy) for copy in world.copies]) if world.copies else (),
        holder=None if world.holder is None else names.get(world.holder, world.holder),
    )
