"""Every interleaving of two and of three owners under the product's own rules: no promise is ever broken.

`python -m tests.protocol` searches more and larger worlds; see docs/protocol.md.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decisions.idempotency import ClaimRequest, State, created, lease_until, state_of
from tests.protocol.patience import never_stuck
from tests.protocol.rules import PRODUCT
from tests.protocol.search import Found, search
from tests.protocol.setups import BOUNDED, SHORT, WHOLE
from tests.protocol.world import OVERLAP, Setup


def is_proven(name: str, setup: Setup, limit: int = 2_000_000) -> Found:
    found = search(setup, limit=limit, look=never_stuck(setup, PRODUCT))
    print(f"{name}: {found}")
    assert not found.fault, found.told()
    return found


@pytest.mark.parametrize("name", WHOLE)
def test_every_interleaving_of_two_owners(name: str) -> None:
    setup, least = WHOLE[name]
    found = is_proven(name, setup)

    assert found.is_whole
    assert found.worlds >= least
    # And the search is not vacuous: what is dangerous does happen in it.
    assert "{} takes the entry over" in found.seen
    assert "{}'s complete is written" in found.seen
    assert "{} is told AlreadyDone" in found.seen
    if setup.remaining is None and setup.renewals != "in time":
        assert "{}'s complete is refused, or was written before" in found.seen
    if setup.loses_answers:
        assert "{} finds its own claim" in found.seen
    if setup.renewals == "may" and setup.remaining is None:
        assert "{}'s renewal is refused" in found.seen
    if setup.asks_beside:
        assert "{} is told Lapsed" in found.seen


@pytest.mark.parametrize("name", BOUNDED)
def test_every_interleaving_near_enough(name: str) -> None:
    setup, least = BOUNDED[name]
    found = is_proven(name, setup, limit=least)

    assert found.worlds >= least
    assert found.depth >= 12


@pytest.mark.parametrize(
    ("setup", "story"),
    [
        (Setup(lease=4, remaining=1, skews=(0, 2), renewals="never", endings=SHORT), "takes the entry over"),
        (Setup(lease=3, skews=(0, 3), renewals="in time", endings=SHORT), "takes the entry over"),
    ],
    ids=["killed", "renews in time"],
)
def test_beyond_the_margin_two_runs_overlap(setup: Setup, story: str) -> None:
    found = search(setup)

    assert found.fault == OVERLAP
    assert story in found.story[-1]


# The margin to the millisecond: an invocation's own time, a second more, and the strict comparison.

EPOCH = 1_800_000_000
milliseconds = st.integers(0, 100_000)


@given(began=milliseconds, remaining=milliseconds, lease=st.integers(1, 100), skew=st.integers(-2_000, 1_000))
def test_a_clock_a_second_ahead_finds_the_claim_held_until_the_invocation_is_over(
    began: int, remaining: int, lease: int, skew: int
) -> None:
    now = EPOCH + began / 1_000
    until = lease_until(now, lease, remaining / 1_000)
    entry = created(ClaimRequest(id="p#1", owner="a", lease_until=until, ttl=1_000), now)
    end = now + min(remaining / 1_000, lease - 1.0)  # the invocation's, or of what was not renewed

    # A millisecond for what a float of this size, and cutting to milliseconds, may lose.
    assert state_of(entry, "b", end + (skew - 1) / 1_000) is State.HELD
    assert state_of(entry, "b", end + 1.003) is State.LAPSED
