"""The search finds what it should: each rule broken on purpose, and the shortest story of what comes of it.

`pytest -s` prints the stories.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from pipeline.decisions import idempotency
from pipeline.decisions.idempotency import COMPLETED, IN_PROGRESS, ClaimRequest, Complete, Entry, State, Step
from pipeline.stores import protocol
from tests.protocol.patience import never_stuck
from tests.protocol.rules import PRODUCT, Rules
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
    STUCK,
    Setup,
)

#: Small, so that the story is about the fault.
PLAIN = Setup(endings=("complete", "fail"), renewals="never")
SURE = Setup(endings=("complete", "fail"), renewals="never", loses_answers=False)


def broken(**rules: Any) -> Rules:
    return dataclasses.replace(PRODUCT, **rules)


def milliseconds_later(by: int) -> Callable[[ClaimRequest, Entry | None, float], State]:
    """The comparison of a lease off by this much: negative, and it lapses too early."""

    def found_by(request: ClaimRequest, entry: Entry | None, now: float) -> State:
        lease = entry.in_progress_expiration if entry is not None else None
        if entry is not None and lease and entry.owner != request.owner:
            entry = replace(entry, in_progress_expiration=lease + by)
        return idempotency.found_by(request, entry, now)

    return found_by


def taken_for(state: State, other: State) -> Callable[[ClaimRequest, Entry | None, float], State]:
    """One state is taken for another."""

    def found_by(request: ClaimRequest, entry: Entry | None, now: float) -> State:
        found = idempotency.found_by(request, entry, now)
        return other if found is state else found

    return found_by


def run_when_held(found: State, request: ClaimRequest) -> Step:
    return Step.RUN if found is State.HELD else idempotency.step_of(found, request)


def is_in_progress(entry: Entry | None, owner: str) -> bool:
    """Held by whomever."""
    return entry is not None and entry.status == IN_PROGRESS


def is_there(entry: Entry | None, owner: str) -> bool:
    """Powertools' own: completing and deleting have no condition at all."""
    return entry is not None


def is_owner(entry: Entry | None, owner: str) -> bool:
    """An owner stays an owner after it gave the claim back."""
    return entry is not None and entry.status == IN_PROGRESS and entry.owner == owner


def started_anew(entry: Entry, request: ClaimRequest, now: float) -> Entry:
    """A takeover that writes a new entry, as Powertools does."""
    return idempotency.created(request, now)


def without_outputs(entry: Entry, request: ClaimRequest, now: float) -> Entry:
    return replace(protocol.taken_over(entry, request, now), outputs=None)


def no_longer_than_the_invocation(now: float, lease: float, remaining: float | None) -> float:
    """A lease without the second for a slow clock."""
    return now + (lease if remaining is None else min(lease, max(remaining, 0.0)))


def done_when_completed(settlement: Any, entry: Entry | None) -> bool:
    """Somebody's completion is taken for one's own."""
    return isinstance(settlement, Complete) and entry is not None and entry.status == COMPLETED


def release_that_leaves_no_lease(entry: Entry, settlement: Any, now: float) -> Entry:
    new = protocol.settled(entry, settlement, now)
    return new if isinstance(settlement, Complete) else replace(new, in_progress_expiration=None)


FAULTS: dict[str, tuple[Rules, Setup, str]] = {
    "completion without the owner in its condition": (broken(is_held=is_in_progress), SURE, FOREIGN_END),
    "release that does not check the owner, and what comes of it": (
        broken(is_held=is_in_progress),
        Setup(endings=("complete", "fail"), renewals="never", is_crashing=False, loses_answers=False),
        OVERLAP,
    ),
    "unconditional completion and deletion, as Powertools'": (
        broken(is_held=is_there),
        Setup(endings=("complete", "reject"), renewals="never", loses_answers=False),
        FOREIGN_END,
    ),
    "unconditional completion and deletion, and what comes of it": (
        broken(is_held=is_there),
        Setup(endings=("complete", "reject"), renewals="never", loses_answers=False),
        AFTER_DONE,
    ),
    "renewal that does not check the owner": (
        broken(may_renew=is_in_progress),
        Setup(endings=("complete",)),
        FOREIGN_RENEWAL,
    ),
    "renewal that revives a claim given back": (broken(may_renew=is_owner), Setup(endings=("fail",)), FOREIGN_RENEWAL),
    "takeover that is not conditional on what was read": (
        broken(is_unchanged=lambda entry, found: True),
        PLAIN,
        OVERLAP,
    ),
    "takeover that forgets the owner in its condition": (
        broken(is_unchanged=lambda entry, found: entry is not None and entry.status == found.status),
        PLAIN,
        OVERLAP,
    ),
    "creation that is not conditional": (broken(may_create=lambda found: True), PLAIN, OVERLAP),
    "refused write taken as go": (broken(refused_means_go=True), PLAIN, OVERLAP),
    "lease that lapses a millisecond early": (broken(found_by=milliseconds_later(-1)), PLAIN, OVERLAP),
    "lease that lapses a second late": (broken(found_by=milliseconds_later(1_000)), PLAIN, STUCK),
    "lease without the second for a slow clock": (
        broken(lease_until=no_longer_than_the_invocation),
        Setup(lease=4, remaining=2, skews=(0, 1), endings=("complete",), renewals="never"),
        OVERLAP,
    ),
    "a held claim is run": (broken(step_of=run_when_held), PLAIN, OVERLAP),
    "one's own claim is taken for another's": (
        broken(found_by=taken_for(State.MINE, State.HELD)),
        PLAIN,
        OWN_REFUSED,
    ),
    "one owner for all runs of a record": (broken(has_token_per_run=False), PLAIN, OVERLAP),
    "a completed entry is taken for a released one": (
        broken(found_by=taken_for(State.COMPLETED, State.RELEASED)),
        PLAIN,
        AFTER_DONE,
    ),
    "completion before the sinks have accepted": (broken(completes_before_sinks=True), PLAIN, NOT_DONE),
    "takeover that counts anew": (broken(taken_over=started_anew), PLAIN, ATTEMPTS),
    "takeover that drops kept outputs": (
        broken(taken_over=without_outputs),
        Setup(endings=("complete", "keep"), renewals="never"),
        OUTPUTS,
    ),
    "another's completion is taken for one's own": (broken(is_done=done_when_completed), PLAIN, FALSE_ANSWER),
    "release that leaves no lease": (broken(settled=release_that_leaves_no_lease), SURE, STUCK),
    "batched: a read that may be stale": (
        broken(reads_are_consistent=False),
        Setup(is_batched=True, endings=("complete",), renewals="never", asks_late=True),
        AFTER_DONE,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    rules, setup, promise = FAULTS[name]
    watched = setup.only(promise)
    found = search(watched, rules, limit=100_000, look=never_stuck(watched, rules))
    print(f"\n{name}: {found.told()}")

    assert found.fault == promise
    assert 2 <= len(found.story) <= 20


@pytest.mark.parametrize("setup", {setup: None for _, setup, _ in FAULTS.values()})
def test_without_the_fault_the_same_search_finds_none(setup: Setup) -> None:
    found = search(setup, limit=6_000, look=never_stuck(setup, PRODUCT))

    assert not found.fault, found.told()
    assert found.worlds > 300
