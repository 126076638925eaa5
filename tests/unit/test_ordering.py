"""Lanes: any batch, any interleaving of outcomes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.decisions.ordering import Schedule

lanes_and_keys = st.lists(st.tuples(st.sampled_from([None, None, "a", "b", "c"]), st.integers(0, 9)), max_size=14)


def share(lanes: Sequence[str | None], keys: Sequence[int], one: int, other: int) -> bool:
    """True when two positions may not run side by side."""
    return keys[one] == keys[other] or (lanes[one] is not None and lanes[one] == lanes[other])


def chain_of(lanes: Sequence[str | None], keys: Sequence[int], position: int) -> set[int]:
    """Everything that is joined to a position, directly or through others: by brute force."""
    chain = {position}
    while True:
        more = {p for p in range(len(lanes)) if any(share(lanes, keys, p, q) for q in chain)}
        if more <= chain:
            return chain
        chain |= more


@given(lanes_and_keys, st.data())
def test_any_batch_in_any_interleaving(rows: list[tuple[str | None, int]], data: st.DataObject) -> None:
    lanes, keys = [row[0] for row in rows], [row[1] for row in rows]
    chains = [chain_of(lanes, keys, position) for position in range(len(rows))]
    schedule = Schedule(lanes, keys)
    waiting, running, held_back = set(range(len(rows))), list[int](), set[int]()
    unsettled = set[int]()
    taken = list[int]()
    assert schedule.ready == len({min(chain) for chain in chains})

    while waiting or running:
        startable = {p for p in waiting if not any(q < p for q in chains[p] & (waiting | set(running)))}
        if startable and (not running or data.draw(st.booleans(), label="start another")):
            position = schedule.take()
            assert position == min(startable)  # the earliest of those that may run
            assert position is not None
            waiting.remove(position)
            running.append(position)
            taken.append(position)
        else:
            if not startable:
                assert schedule.take() is None
            position = running.pop(data.draw(st.integers(0, len(running) - 1), label="ends"))
            settled = data.draw(st.booleans(), label="settled")
            if not settled:
                unsettled.add(position)
            newly = schedule.done(position, settled=settled)
            assert newly == sorted(newly)
            assert waiting.issuperset(newly)
            waiting -= set(newly)
            held_back |= set(newly)
        assert not any(share(lanes, keys, p, q) for p in running for q in running if p < q)

    assert schedule.take() is None
    assert sorted([*taken, *held_back]) == list(range(len(rows)))  # each exactly once
    for position in range(len(rows)):  # held back if and only if it stands behind something unsettled
        before = {q for q in range(position) if share(lanes, keys, q, position)}
        assert (position in held_back) == bool(before & (unsettled | held_back))
    for position in taken:  # and within a lane, in the batch's order
        earlier = [q for q in taken if q < position and share(lanes, keys, q, position)]
        assert all(taken.index(q) < taken.index(position) for q in earlier)


@given(lanes_and_keys, st.data())
def test_any_batch_whose_lanes_go_on_before_the_end_is_heard(
    rows: list[tuple[str | None, int]], data: st.DataObject
) -> None:
    lanes, keys = [row[0] for row in rows], [row[1] for row in rows]
    schedule = Schedule(lanes, keys)
    running, heard_later = list[int](), list[int]()
    taken, held_back, failed = list[int](), set[int](), set[int]()

    def hold_back(positions: list[int]) -> None:
        assert not held_back & set(positions)
        held_back.update(positions)
        assert not held_back & set(taken)

    while True:
        steps = ["take"] * bool(schedule.ready) + ["end", "hand on"] * bool(running) + ["hear"] * bool(heard_later)
        if not steps:
            break
        step = data.draw(st.sampled_from(steps), label="step")
        if step == "take":
            position = schedule.take()
            assert position is not None
            assert not any(share(lanes, keys, position, other) for other in running)
            assert keys[position] not in {keys[other] for other in heard_later}  # a repeat waits for the end
            # Nothing begins behind a failure that is known.
            assert not any(share(lanes, keys, q, position) for q in failed | held_back if q < position)
            taken.append(position)
            running.append(position)
        elif step == "hand on":
            position = running.pop(data.draw(st.integers(0, len(running) - 1), label="hands on"))
            heard_later.append(position)
            hold_back(schedule.hand_on(position))
        else:
            among = running if step == "end" else heard_later
            position = among.pop(data.draw(st.integers(0, len(among) - 1), label="ends"))
            settled = data.draw(st.booleans(), label="settled")
            if not settled:
                failed.add(position)
            hold_back(schedule.done(position, settled=settled))
        for position in taken:
            behind = any(share(lanes, keys, q, position) for q in failed if q < position)
            assert schedule.is_behind_failure(position) or not behind

    assert schedule.take() is None
    assert sorted([*taken, *held_back]) == list(range(len(rows)))
    for position in held_back:
        assert any(share(lanes, keys, q, position) for q in failed | held_back if q < position)
    for position in taken:
        earlier = [q for q in taken if q < position and share(lanes, keys, q, position)]
        assert all(taken.index(q) < taken.index(position) for q in earlier)


@given(st.lists(st.integers(), unique=True, max_size=30))
@example([])
def test_without_lanes_and_repeats_all_start_in_order(keys: list[int]) -> None:
    schedule = Schedule([None] * len(keys), keys)

    assert schedule.ready == len(keys)
    assert [schedule.take() for _ in keys] == list(range(len(keys)))
    assert all(schedule.done(position, settled=False) == [] for position in range(len(keys)))
    assert schedule.take() is None


def test_a_failure_holds_back_its_lane_only() -> None:
    schedule = Schedule(["a", "b", "a", "b", "a"], [1, 2, 3, 4, 5])

    assert [schedule.take(), schedule.take(), schedule.take()] == [0, 1, None]
    assert schedule.done(0, settled=False) == [2, 4]
    assert schedule.done(1, settled=True) == []
    assert schedule.take() == 3


def test_a_failure_holds_back_repeats_of_its_key_and_what_stands_behind_those() -> None:
    schedule = Schedule(["a", "b", "b", "c"], ["k", "k", "x", "y"])

    assert [schedule.take(), schedule.take(), schedule.take()] == [0, 3, None]
    assert schedule.done(0, settled=False) == [1, 2]


def test_an_earlier_record_of_a_joined_lane_is_not_held_back() -> None:
    """2 joins the lanes of 0 and 1 by its key; 3, behind 1 only, runs although 0 failed."""
    schedule = Schedule(["a", "b", "a", "b"], ["x", "k", "k", "y"])

    assert schedule.take() == 0
    assert schedule.done(0, settled=False) == []
    assert schedule.take() == 1
    assert schedule.done(1, settled=True) == [2]
    assert schedule.take() == 3


def test_none_is_no_lane() -> None:
    schedule = Schedule([None, None], ["x", "y"])

    assert [schedule.take(), schedule.take()] == [0, 1]


@pytest.mark.parametrize("lanes", [[None] * 10_000, [f"lane {i % 100}" for i in range(10_000)]])
def test_the_largest_batch(lanes: list[str | None]) -> None:
    schedule = Schedule(lanes, range(10_000))
    order = []
    while (position := schedule.take()) is not None:
        order.append(position)
        assert schedule.done(position, settled=True) == []

    assert len(order) == 10_000
