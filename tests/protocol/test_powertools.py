"""The mixed world: Powertools' runs on the same key, whose completions and deletions have no condition.

What holds there, and what cannot: each with the shortest story of how it breaks.
"""

from __future__ import annotations

import dataclasses

import pytest

from tests.protocol.patience import never_stuck
from tests.protocol.rules import PRODUCT, is_unchanged
from tests.protocol.search import search
from tests.protocol.world import (
    AFTER_DONE,
    ATTEMPTS,
    FALSE_ANSWER,
    FOREIGN_END,
    FOREIGN_RENEWAL,
    NOT_DONE,
    OUTPUTS,
    OVERLAP,
    OWN_REFUSED,
    PROMISES,
    STUCK,
    Setup,
)

#: One of ours at a time, and one of theirs; either may be late, and may die.
FAILING = Setup(peers=1, endings=("complete", "fail", "keep"))
SUCCEEDING = Setup(peers=1, endings=("complete", "fail", "keep"), peers_fail=False)

#: Whatever they do, ours never write where they do not hold the claim, believe no work done that nobody did,
#: and are stuck no longer than a lease.
ALWAYS = (NOT_DONE, FOREIGN_END, FOREIGN_RENEWAL, STUCK)
#: As long as their functions do not raise, which deletes the entry of whoever holds it by then.
UNLESS_THEY_FAIL = (OVERLAP, AFTER_DONE)
#: A takeover by them replaces the whole item; and a completion by them, late, looks like our own.
NEVER_SURE = (ATTEMPTS, OUTPUTS, FALSE_ANSWER)


def test_every_promise_is_spoken_of() -> None:
    assert {*ALWAYS, *UNLESS_THEY_FAIL, *NEVER_SURE, OWN_REFUSED} == set(PROMISES)


@pytest.mark.parametrize("has_context", [True, False], ids=["with a lease", "without a lease"])
def test_ours_never_write_where_they_do_not_hold_the_claim(has_context: bool) -> None:
    setup = Setup(
        peers=1, endings=("complete", "fail", "keep"), peers_have_context=has_context, loses_answers=False
    ).only(*ALWAYS)
    found = search(setup, look=never_stuck(setup, PRODUCT))
    print(found)

    assert not found.fault, found.told()
    assert found.is_whole
    assert found.worlds > 2_000
    assert "{} completes, whoever holds the entry" in found.seen
    assert "{}'s function raises, and it deletes the entry, whoever's it is" in found.seen
    assert "{}'s complete is refused, or was written before" in found.seen


@pytest.mark.parametrize("is_batched", [False, True], ids=["single writes", "batched"])
def test_runs_do_not_overlap_while_theirs_do_not_raise(is_batched: bool) -> None:
    setup = Setup(peers=1, endings=("complete", "fail"), peers_fail=False, is_batched=is_batched)
    found = search(setup.only(*ALWAYS, *UNLESS_THEY_FAIL))
    print(found)

    assert not found.fault, found.told()
    assert found.is_whole
    assert found.worlds > 4_000


@pytest.mark.parametrize("promise", UNLESS_THEY_FAIL)
def test_a_late_failure_of_theirs_breaks_the_lock(promise: str) -> None:
    found = search(FAILING.only(promise), limit=100_000)
    print(f"\n{found.told()}")

    assert found.fault == promise
    assert any("it deletes the entry" in line for line in found.story)


@pytest.mark.parametrize("promise", NEVER_SURE)
def test_what_a_takeover_or_a_late_completion_of_theirs_takes_away(promise: str) -> None:
    found = search(SUCCEEDING.only(promise), limit=100_000)
    print(f"\n{found.told()}")

    assert found.fault == promise
    assert any("Powertools" in line for line in found.story)


def test_a_batched_write_over_an_expired_entry_must_know_when_that_expired() -> None:
    """Theirs have no owner, and without a context no lease: two of their completions are told apart by that alone."""
    setup = Setup(
        peers=1,
        peers_have_context=False,
        peers_fail=False,
        is_batched=True,
        ttl=2,
        lease=1,
        endings=("complete",),
        renewals="never",
        loses_answers=False,
    ).only(AFTER_DONE)
    faulty = dataclasses.replace(PRODUCT, is_replaceable=is_unchanged)
    found = search(setup, faulty, limit=100_000)
    print(f"\n{found.told()}")

    assert found.fault == AFTER_DONE
    assert not search(setup).fault
