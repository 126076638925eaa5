"""Where the product's rules do break a promise, each with the least change that mends it.

The first tests of each pair are expected to fail; when one passes, the rules have been mended: take the mark away.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from pipeline import stores
from pipeline.decisions import idempotency
from pipeline.decisions.idempotency import Busy, Claimed, ClaimRequest, Entry, Renewal
from pipeline.engine.environment import ProcessEnvironment
from pipeline.stores import protocol
from tests.protocol import rules
from tests.protocol.conftest import HandClock
from tests.protocol.patience import never_stuck
from tests.protocol.rules import PRODUCT, Rules
from tests.protocol.search import search
from tests.protocol.world import ATTEMPTS, OVERLAP, Setup


def as_long_as_the_lease(entry: Entry, lease_until: float) -> Entry:
    """An entry does not expire before its lease."""
    return replace(entry, expiration=max(entry.expiration, int(lease_until) + 1))


def created(request: ClaimRequest, now: float) -> Entry:
    return as_long_as_the_lease(idempotency.created(request, now), request.lease_until)


def taken_over(entry: Entry, request: ClaimRequest, now: float) -> Entry:
    return as_long_as_the_lease(protocol.taken_over(entry, request, now), request.lease_until)


def renewed_with_its_expiration(entry: Entry, renewal: Renewal) -> Entry:
    return as_long_as_the_lease(rules.renewed(entry, renewal), renewal.lease_until)


def renewed_forwards(entry: Entry, renewal: Renewal) -> Entry:
    """A renewal that comes late does not take back what a later one gave."""
    until = int(renewal.lease_until * 1000)
    return replace(entry, in_progress_expiration=max(entry.in_progress_expiration or 0, until))


def is_unchanged_with_attempts(entry: Entry | None, found: Entry) -> bool:
    return rules.is_unchanged(entry, found) and entry is not None and entry.attempts == found.attempts


SHORT = ("complete", "fail")

WEAKNESSES: dict[str, tuple[Setup, str, Rules]] = {
    "an entry that lives no longer than its lease": (
        Setup(ttl=1, lease=3, endings=SHORT, renewals="never", is_crashing=False),
        OVERLAP,
        dataclasses.replace(PRODUCT, created=created, taken_over=taken_over),
    ),
    "a run that outlives its entry by renewing": (
        Setup(ttl=3, endings=SHORT, is_crashing=False, loses_answers=False),
        OVERLAP,
        dataclasses.replace(PRODUCT, created=created, taken_over=taken_over, renewed=renewed_with_its_expiration),
    ),
    "a renewal whose first copy lands after the next renewal": (
        Setup(late_copies=("renew",), endings=("complete",), lease=3, is_crashing=False, loses_answers=False),
        OVERLAP,
        dataclasses.replace(PRODUCT, renewed=renewed_forwards),
    ),
    "an owner that asks on when its lease has passed": (
        Setup(asks_late=True, endings=("complete",), renewals="never"),
        ATTEMPTS,
        dataclasses.replace(PRODUCT, is_unchanged=is_unchanged_with_attempts),
    ),
}


@pytest.mark.xfail(raises=AssertionError)
@pytest.mark.parametrize("name", WEAKNESSES)
def test_the_products_rules_are_not_weak(name: str) -> None:
    setup, _, _ = WEAKNESSES[name]
    found = search(setup, look=never_stuck(setup, PRODUCT))

    assert not found.fault, found.told()


@pytest.mark.parametrize("name", WEAKNESSES)
def test_a_change_of_one_rule_mends_it(name: str) -> None:
    setup, promise, mended = WEAKNESSES[name]
    found = search(setup, look=never_stuck(setup, PRODUCT))
    print(f"\n{name}: {found.told()}")
    assert found.fault in (promise, "")

    whole = search(setup, mended, look=never_stuck(setup, mended))
    print(whole)

    assert not whole.fault, whole.told()
    assert whole.is_whole
    assert whole.worlds > 1_000


# The first two at the real stores.


@dataclasses.dataclass
class Bench:
    store: Any
    environment: ProcessEnvironment
    clock: HandClock
    runner: asyncio.Runner

    def claim(self, owner: str, ttl: int, lease: float) -> Any:
        request = ClaimRequest(id="k", owner=owner, lease_until=self.clock.time + lease, ttl=ttl, is_alone=True)
        (reply,) = self.runner.run(self.store.claim([request], self.environment))
        return reply

    def renew(self, owner: str, lease: float) -> Any:
        renewal = Renewal(id="k", owner=owner, lease_until=self.clock.time + lease)
        (reply,) = self.runner.run(self.store.renew([renewal], self.environment))
        return reply


@pytest.fixture(params=["memory", "dynamodb"])
def bench(request: pytest.FixtureRequest, clock: HandClock, unique: str) -> Iterator[Bench]:
    if request.param == "dynamodb":
        request.getfixturevalue("aws")
    store = stores.Memory() if request.param == "memory" else stores.DynamoDB(unique)
    environment = ProcessEnvironment(clock=clock)
    with asyncio.Runner() as runner:
        runner.run(store.create(environment))
        yield Bench(store, environment, clock, runner)
        runner.run(environment.aclose())


@pytest.mark.xfail(raises=AssertionError)
def test_a_claim_is_held_when_its_entry_has_expired(bench: Bench) -> None:
    assert bench.claim("a", ttl=1, lease=60.0) == Claimed(1)
    bench.clock.time += 2.0

    assert isinstance(bench.claim("b", ttl=1, lease=60.0), Busy)


@pytest.mark.xfail(raises=AssertionError)
def test_a_claim_that_is_renewed_is_held_beyond_its_ttl(bench: Bench) -> None:
    assert bench.claim("a", ttl=90, lease=60.0) == Claimed(1)
    for _ in range(5):
        bench.clock.time += 20.0
        assert bench.renew("a", 60.0) is True

    assert isinstance(bench.claim("b", ttl=90, lease=60.0), Busy)
