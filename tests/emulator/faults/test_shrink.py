"""Shrinking: the fewest faults with which it still fails."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.emulator.faults.shrink import shrunk

IDS = [f"fault {number}" for number in range(40)]


@settings(max_examples=40, deadline=None)
@given(planted=st.sets(st.sampled_from(IDS), max_size=4))
def test_exactly_the_planted_faults_are_found(planted: AbstractSet[str]) -> None:
    found = shrunk(IDS, lambda some: some >= planted, seconds=1e9)  # in as many runs as it has
    assert (found.ids, found.is_smallest) == (planted, True)


def test_none_can_be_taken_away_from_what_comes_out() -> None:
    # Two ways to fail: either is a smallest one.
    def fails(some: AbstractSet[str]) -> bool:
        return {IDS[3], IDS[30]} <= some or {IDS[7], IDS[8], IDS[31]} <= some

    found = shrunk(IDS, fails, seconds=1e9)
    assert found.is_smallest
    assert fails(found.ids)
    assert not any(fails(found.ids - {one}) for one in found.ids)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_none_can_be_taken_away_whatever_makes_it_fail(data: st.DataObject) -> None:
    """Also where fewer faults may fail and more of them not."""
    few = IDS[:7]
    failing = data.draw(st.sets(st.frozensets(st.sampled_from(few)), max_size=20)) | {frozenset(few)}
    found = shrunk(few, lambda some: some in failing, runs=10_000, seconds=1e9)
    assert found.ids in failing
    assert not any(found.ids - {one} in failing for one in found.ids)


def test_nothing_is_run_twice() -> None:
    runs: list[AbstractSet[str]] = []

    def fails(some: AbstractSet[str]) -> bool:
        runs.append(some)
        return len(some) > 5

    assert len(shrunk(IDS, fails, runs=10_000, seconds=1e9).ids) == 6
    assert len(runs) == len(set(runs))  # type: ignore[arg-type]


def test_it_stops_after_its_runs_and_after_its_time_with_what_it_has() -> None:
    runs = 0
    now = 0.0

    def fails(some: AbstractSet[str]) -> bool:
        nonlocal runs, now
        runs, now = runs + 1, now + 1.0
        return {IDS[0], IDS[39]} <= some

    found = shrunk(IDS, fails, runs=5, seconds=1e9)
    assert runs == 5
    assert (fails(found.ids), found.is_smallest) == (True, False)
    runs = 0
    assert not shrunk(IDS, fails, seconds=3.0, clock=lambda: now).is_smallest
    assert runs == 3
