"""Rules that broke a promise once, as the search found them, and what they are now.

Each is planted again here: the search must find what it did, and nothing where the product's rules are in their place.
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
from tests.protocol.conftest import HandClock
from tests.protocol.patience import never_stuck
from tests.protocol.rules import PRODUCT, Rules
from tests.protocol.search import search
from tests.protocol.world import ATTEMPTS, OVERLAP, Setup


def created_for_its_ttl(request: ClaimRequest, now: float) -> Entry:
    """It expired after its time to live, whatever its lease."""
    return replace(idempotency.created(request, now), expiration=int(now) + request.ttl)


def taken_over_for_its_ttl(entry: Entry, request: ClaimRequest, now: float) -> Entry:
    return replace(protocol.taken_over(entry, request, now), expiration=int(now) + request.ttl)


def renewed_until_it_expires(entry: Entry, renewal: Renewal, now: float) -> Entry:
    """A renewal moved the lease, and not the expiration."""
    return replace(protocol.renewed(entry, renewal, now), expiration=entry.expiration)


def renewed_backwards(entry: Entry, renewal: Renewal, now: float) -> Entry:
    """A renewal that came late took back what a later one had given."""
    return replace(entry, in_progress_expiration=int(renewal.lease_until * 1000))


def is_unchanged_but_for_attempts(entry: Entry | None, found: Entry) -> bool:
    return entry is not None and (entry.status, entry.owner, entry.in_progress_expiration) == (
        found.status,
        found.owner,
        found.in_progress_expiration,
    )


SHORT = ("complete", "fail")

MENDED: dict[str, tuple[Setup, str, Rules]] = {
    "an entry that lives no longer than its lease": (
        Setup(ttl=1, lease=3, endings=SHORT, renewals="never", is_crashing=False),
        OVERLAP,
        dataclasses.replace(PRODUCT, created=created_for_its_ttl, taken_over=taken_over_for_its_ttl),
    ),
    "a run that outlives its entry by renewing": (
        Setup(ttl=3, endings=SHORT, is_crashing=False, loses_answers=False),
        OVERLAP,
        dataclasses.replace(PRODUCT, renewed=renewed_until_it_expires),
    ),
    "a renewal whose first copy lands after the next renewal": (
        Setup(late_copies=("renew",), endings=("complete",), lease=3, is_crashing=False, loses_answers=False),
        OVERLAP,
        dataclasses.replace(PRODUCT, renewed=renewed_backwards),
    ),
    "an owner that asks on when its lease has passed": (
        Setup(asks_late=True, endings=("complete",), renewals="never"),
        ATTEMPTS,
        dataclasses.replace(PRODUCT, is_unchanged=is_unchanged_but_for_attempts),
    ),
}


@pytest.mark.parametrize("name", MENDED)
def test_the_rule_as_it_was_breaks_a_promise_and_the_rule_as_it_is_does_not(name: str) -> None:
    setup, promise, faulty = MENDED[name]
    found = search(setup, faulty, look=never_stuck(setup, faulty))
    print(f"\n{name}: {found.told()}")
    assert found.fault == promise, found.told()

    whole = search(setup, look=never_stuck(setup, PRODUCT))
    print(whole)

    assert not whole.fault, whole.told()
    assert whole.is_whole
    assert whole.worlds > 1_000


# The first three at the real stores.


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
        renewal = Renewal(id="k", owner=owner, lease_until=self.clock.time + lease, ttl=90)
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


def test_a_claim_is_held_when_its_entry_has_expired(bench: Bench) -> None:
    assert bench.claim("a", ttl=1, lease=60.0) == Claimed(1)
    bench.clock.time += 2.0

    assert isinstance(bench.claim("b", ttl=1, lease=60.0), Busy)


def test_a_claim_that_is_renewed_is_held_beyond_its_ttl(bench: Bench) -> None:
    assert bench.claim("a", ttl=90, lease=60.0) == Claimed(1)
    for _ in range(5):
        bench.clock.time += 20.0
        assert bench.renew("a", 60.0) is True

    assert isinstance(bench.claim("b", ttl=90, lease=60.0), Busy)


def test_a_renewal_that_comes_late_takes_nothing_back_and_is_no_loss(bench: Bench) -> None:
    assert bench.claim("a", ttl=90, lease=60.0) == Claimed(1)
    assert bench.renew("a", 60.0) is True
    assert bench.renew("a", 10.0) is True, "an older renewal of the owner's own says that the claim is lost"
    bench.clock.time += 30.0

    assert isinstance(bench.claim("b", ttl=90, lease=60.0), Busy)
