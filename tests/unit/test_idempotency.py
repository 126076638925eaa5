"""The claim protocol: what entries mean, and two owners in every interleaving."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decisions.idempotency import (
    CLAIM,
    COMPLETED,
    IN_PROGRESS,
    MAX_KEPT,
    RELEASED,
    ClaimRequest,
    Entry,
    Lapsed,
    State,
    Step,
    created,
    held_until,
    kept,
    lease_until,
    refusal,
    state_of,
    step_of,
)

NOW = 1_700_000_000.5
MILLISECONDS = 1_700_000_000_500

entries = st.builds(
    Entry,
    id=st.just("p#1"),
    status=st.sampled_from([IN_PROGRESS, COMPLETED]),
    expiration=st.integers(int(NOW) - 3, int(NOW) + 3),
    in_progress_expiration=st.none() | st.sampled_from([0, 1]) | st.integers(MILLISECONDS - 3, MILLISECONDS + 3),
    owner=st.none() | st.sampled_from(["me", "other"]),
)


def entry(**changes: Any) -> Entry:
    """A live claim of another run."""
    fields: dict[str, Any] = {
        "id": "p#1",
        "status": IN_PROGRESS,
        "expiration": int(NOW) + 60,
        "in_progress_expiration": MILLISECONDS + 1000,
        "owner": "other",
        "attempts": 1,
    }
    return Entry(**{**fields, **changes})


def test_every_state_has_its_step() -> None:
    assert set(CLAIM) == set(State)
    assert set(CLAIM.values()) == set(Step)


def test_only_what_nobody_holds_can_be_written() -> None:
    writing = {state for state, step in CLAIM.items() if step in (Step.CREATE, Step.TAKE_OVER, Step.COME_ALONE)}

    assert writing == {State.ABSENT, State.EXPIRED, State.RELEASED, State.LAPSED}
    assert [state for state, step in CLAIM.items() if step is Step.RUN] == [State.MINE]


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (None, State.ABSENT),
        (entry(), State.HELD),
        (entry(owner="me"), State.MINE),
        (entry(owner="me", in_progress_expiration=MILLISECONDS - 1), State.MINE),
        (entry(owner=None), State.HELD),
        (entry(status=COMPLETED), State.COMPLETED),
        (entry(status=COMPLETED, owner="me"), State.COMPLETED),
        (entry(in_progress_expiration=0), State.RELEASED),
        (entry(in_progress_expiration=0, owner="me"), State.RELEASED),
        # Boundaries: the last second, and the last millisecond, are still alive.
        (entry(expiration=int(NOW)), State.HELD),
        (entry(expiration=int(NOW) - 1), State.EXPIRED),
        (entry(status=COMPLETED, expiration=int(NOW)), State.COMPLETED),
        (entry(status=COMPLETED, expiration=int(NOW) - 1), State.EXPIRED),
        (entry(owner="me", expiration=int(NOW) - 1), State.EXPIRED),
        (entry(in_progress_expiration=MILLISECONDS), State.HELD),
        (entry(in_progress_expiration=MILLISECONDS - 1), State.LAPSED),
        # As Powertools writes them: no owner; no expiration of the claim without a Lambda context;
        # the claim's expiration stays on a completed entry.
        (Entry(id="p#1", status=IN_PROGRESS, expiration=int(NOW) + 9), State.HELD),
        (Entry(id="p#1", status=IN_PROGRESS, expiration=int(NOW) - 1), State.EXPIRED),
        (Entry(id="p#1", status=IN_PROGRESS, expiration=int(NOW), in_progress_expiration=5), State.LAPSED),
        (
            Entry(id="p#1", status=COMPLETED, expiration=int(NOW), in_progress_expiration=5, data="null"),
            State.COMPLETED,
        ),
    ],
)
def test_states(found: Entry | None, state: State) -> None:
    assert state_of(found, "me", NOW) is state


def may_powertools_write(found: Entry, now: float) -> bool:
    """Powertools' condition for a new claim, over an entry that exists."""
    return found.expiration < int(now) or (
        found.status == IN_PROGRESS
        and found.in_progress_expiration is not None
        and found.in_progress_expiration < int(now * 1000)
    )


@given(entries)
def test_a_claim_is_taken_exactly_when_powertools_takes_it(found: Entry) -> None:
    """So that a table which both write lets neither run while the other does."""
    step = CLAIM[state_of(found, "a new owner", NOW)]

    assert (step in (Step.CREATE, Step.TAKE_OVER, Step.COME_ALONE)) == may_powertools_write(found, NOW)
    assert step is not Step.RUN


@given(entries)
def test_one_owner_at_most(found: Entry) -> None:
    states = [state_of(found, owner, NOW) for owner in ("me", "other")]

    assert states.count(State.MINE) <= 1


def test_a_created_entry_is_its_owners() -> None:
    request = ClaimRequest(id="p#1", owner="me", lease_until=NOW + 60, ttl=100)
    new = created(request, NOW)

    assert new == Entry(
        id="p#1",
        status=IN_PROGRESS,
        expiration=int(NOW) + 100,
        in_progress_expiration=MILLISECONDS + 60_000,
        owner="me",
        attempts=1,
    )
    assert new.is_owned_by("me")
    assert not new.is_owned_by("other")
    assert not msgspec.structs.replace(new, status=COMPLETED).is_owned_by("me")
    assert state_of(new, "me", NOW) is State.MINE
    assert state_of(new, "other", NOW + 60) is State.HELD
    assert state_of(new, "other", NOW + 60.002) is State.LAPSED


def test_a_rejected_record_is_known_by_its_own_name_only() -> None:
    found = entry(in_progress_expiration=RELEASED, rejected=("shard/5", "shard/7"))

    assert state_of(found, "me", NOW, "shard/7") is State.REJECTED
    assert state_of(found, "me", NOW, "shard/70") is State.RELEASED
    assert state_of(found, "me", NOW) is State.RELEASED
    assert state_of(entry(in_progress_expiration=RELEASED), "me", NOW, "") is State.RELEASED
    assert CLAIM[State.REJECTED] is Step.SKIP


def test_when_a_held_claim_lapses() -> None:
    found = entry(in_progress_expiration=MILLISECONDS + 250)

    assert held_until(found) == NOW + 0.25
    without = entry(in_progress_expiration=None)
    assert state_of(without, "me", held_until(without) - 1) is State.HELD
    assert state_of(without, "me", held_until(without)) is State.EXPIRED


def test_a_lapsed_claim_is_taken_over_only_by_somebody_who_runs_alone() -> None:
    beside = ClaimRequest(id="p#1", owner="me", lease_until=NOW + 60, ttl=100)
    alone = msgspec.structs.replace(beside, is_alone=True)

    assert step_of(State.LAPSED, beside) is Step.COME_ALONE
    assert step_of(State.LAPSED, alone) is Step.TAKE_OVER
    assert refusal(Step.COME_ALONE, entry(attempts=3)) == Lapsed(3)
    for state in set(State) - {State.LAPSED}:
        assert step_of(state, beside) is step_of(state, alone) is CLAIM[state]


def test_a_claim_given_back_can_be_taken_at_once() -> None:
    for owner in ("me", "other"):
        assert state_of(entry(in_progress_expiration=RELEASED), owner, NOW) is State.RELEASED


@pytest.mark.parametrize(("remaining", "expected"), [(None, 60), (100, 60), (59, 60), (10, 11), (0, 1), (-5, 1)])
def test_a_lease_ends_with_the_invocation(remaining: float | None, expected: float) -> None:
    assert lease_until(NOW, 60, remaining) == NOW + expected


def test_outputs_too_large_to_keep() -> None:
    assert kept("x" * MAX_KEPT) == "x" * MAX_KEPT
    assert kept("x" * (MAX_KEPT + 1)) is None
    assert kept("é" * (MAX_KEPT // 2 + 1)) is None  # bytes count, not characters


# --- Two owners over one entry, in every interleaving ---------------------------------------------
#
# A small model of a table with conditional writes, and of runs that follow the protocol: read;
# write on condition that the entry is still what was read; run; complete or give back on condition
# of still owning it. A run may die, or lose the answer to its write, at any point. Time passes in
# ticks; a lease is two ticks long. A run honours its lease: it ends, or stops, before it is over.

LEASE, TICK, END = 2.0, 1.0, 5


class Run(msgspec.Struct, frozen=True):
    """One run's place in its program."""

    name: str
    doing: str = "asking"  #: asking, writing, running, over
    seen: Entry | None = None
    until: float = 0.0  #: when its lease ends
    has_completed: bool = False


class World(msgspec.Struct, frozen=True):
    """Everything: the clock, the entry, the runs; beside it what has happened."""

    tick: int = 0
    entry: Entry | None = None
    runs: tuple[Run, ...] = ()
    completions: int = 0
    work_after_completion: int = 0

    @property
    def now(self) -> float:
        return NOW + self.tick * TICK


def is_honoured(world: World, run: Run) -> bool:
    return run.doing == "running" and world.now < run.until


def after(world: World, index: int, run: Run, **changes: Any) -> World:
    runs = (*world.runs[:index], run, *world.runs[index + 1 :])
    return msgspec.structs.replace(world, runs=runs, **changes)


def start(world: World, index: int, run: Run, **changes: Any) -> World:
    late = world.work_after_completion + bool(world.completions)
    return after(
        world, index, msgspec.structs.replace(run, doing="running", seen=None), work_after_completion=late, **changes
    )


def steps(world: World) -> Iterator[World]:
    """Every world that can come next."""
    if world.tick < END:
        yield msgspec.structs.replace(world, tick=world.tick + 1)
    for index, run in enumerate(world.runs):
        move = msgspec.structs.replace
        if run.doing != "over":
            yield after(world, index, move(run, doing="over", seen=None))  # it dies
        if run.doing == "asking":
            step = CLAIM[state_of(world.entry, run.name, world.now)]
            if step in (Step.CREATE, Step.TAKE_OVER, Step.COME_ALONE):
                yield after(world, index, move(run, doing="writing", seen=world.entry))
            elif step is Step.RUN and world.now < run.until:
                yield start(world, index, run)
            elif step is Step.SKIP:
                yield after(world, index, move(run, doing="over"))
        elif run.doing == "writing":
            if world.entry != run.seen:
                yield after(world, index, move(run, doing="asking", seen=None))  # refused: never "go"
                continue
            until = world.now + LEASE
            request = ClaimRequest(id="p#1", owner=run.name, lease_until=until, ttl=100)
            new = created(request, world.now)
            if CLAIM[state_of(run.seen, run.name, world.now)] in (Step.TAKE_OVER, Step.COME_ALONE):
                assert run.seen is not None
                new = move(new, attempts=run.seen.attempts + 1)
            yield start(world, index, move(run, until=until), entry=new)
            yield after(world, index, move(run, doing="asking", seen=None, until=until), entry=new)  # answer lost
        elif run.doing == "running":
            owns = world.entry is not None and world.entry.is_owned_by(run.name)
            done = move(run, doing="over", has_completed=owns)
            if owns:
                assert world.entry is not None
                yield after(
                    world, index, done, entry=move(world.entry, status=COMPLETED), completions=world.completions + 1
                )
                yield after(world, index, move(run, doing="over"), entry=move(world.entry, in_progress_expiration=0))
            else:
                yield after(world, index, done)  # refused: the claim was taken over


def every_world(first: World) -> set[World]:
    found, new = {first}, [first]
    while new:
        for world in steps(new.pop()):
            if world not in found:
                assert len(found) < 100_000, "the protocol never comes to rest"
                found.add(world)
                new.append(world)
    return found


@pytest.mark.parametrize(
    "found",
    [
        None,
        entry(owner="dead", in_progress_expiration=MILLISECONDS - 1),
        entry(owner="dead", in_progress_expiration=MILLISECONDS + 1000),
        entry(owner="dead", in_progress_expiration=0),
        entry(owner="dead", expiration=int(NOW) - 1, status=COMPLETED),
    ],
    ids=["absent", "lapsed", "held", "released", "expired"],
)
def test_two_owners_in_every_interleaving(found: Entry | None) -> None:
    worlds = every_world(World(entry=found, runs=(Run("one"), Run("two"))))

    assert len(worlds) > 500
    for world in worlds:
        running = [run for run in world.runs if is_honoured(world, run)]
        assert len(running) <= 1, f"two runs at once: {world}"
        assert world.completions <= 1, f"completed twice: {world}"
        assert world.work_after_completion == 0, f"run after a completion: {world}"
        if world.completions:
            assert world.entry is not None
            completer = next(run for run in world.runs if run.has_completed)
            assert world.entry.owner == completer.name, f"completed by a lost owner: {world}"
    # And the model is not vacuous: runs do lose their claims, retry and complete.
    assert any(world.completions for world in worlds)
    assert any(world.entry is not None and world.entry.attempts >= 2 for world in worlds)


def test_a_completed_key_is_never_run() -> None:
    worlds = every_world(World(entry=entry(status=COMPLETED), runs=(Run("one"), Run("two"))))

    assert all(run.doing != "running" for world in worlds for run in world.runs)
