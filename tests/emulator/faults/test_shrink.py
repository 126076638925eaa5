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
    found = shrunk(IDS, lambda some: some >= planted, runs=10_000, seconds=1e9)
    assert found == planted


def test_none_can_be_taken_away_from_what_comes_out() -> None:
    # Two ways to fail: either is a smallest one.
    def fails(some: AbstractSet[str]) -> bool:
        return {IDS[3], IDS[30]} <= some or {IDS[7], IDS[8], IDS[31]} <= some

    found = shrunk(IDS, fails, runs=10_000, seconds=1e9)
    assert fails(found)
    assert not any(fails(found - {one}) for one in found)


def test_it_stops_after_its_runs_and_after_its_time_with_what_it_has() -> None:
    runs = 0
    now = 0.0

    def fails(some: AbstractSet[str]) -> bool:
        nonlocal runs, now
        runs, now = runs + 1, now + 1.0
        return {IDS[0], IDS[39]} <= some

    assert fails(shrunk(IDS, fails, runs=5, seconds=1e9))
    assert runs == 6
    runs = 0
    shrunk(IDS, fails, seconds=3.0, clock=lambda: now)
    assert runs == 3
