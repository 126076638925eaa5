"""The real stores, driven by any steps of any owners, beside the model: replies and entries are the model's."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

from pipeline import stores
from pipeline.decisions.idempotency import (
    RELEASED,
    ClaimReply,
    ClaimRequest,
    Renewal,
    Settlement,
    State,
    Step,
    found_by,
    step_of,
)
from pipeline.engine.environment import ProcessEnvironment
from tests.protocol.conftest import HandClock
from tests.protocol.driven import Bench, Driven

#: In CI the search is the same each time.
_SETTINGS = settings(
    deadline=None,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def driving(bench: Bench) -> type[Driven]:
    """The machine at this bench."""

    class Driving(Driven):
        def __init__(self) -> None:
            super().__init__(bench)

    return Driving


def at_once(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never waits: those of the store in memory do not."""
    try:
        work.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("the store in memory waited")


def test_the_store_in_memory_is_the_model(clock: HandClock) -> None:
    bench = Bench(stores.Memory(), ProcessEnvironment(clock=clock), clock, at_once)

    run_state_machine_as_test(driving(bench), settings=settings(_SETTINGS, max_examples=100, stateful_step_count=30))

    assert bench.keys >= 100


class EndsForAnybody(stores.Memory):
    """Ends a claim for whoever asks."""

    def _settle(self, settlement: Settlement, now: float) -> bool:
        entry = self._entries.get(settlement.id)
        owner = settlement.owner if entry is None or entry.owner is None else entry.owner
        return super()._settle(replace(settlement, owner=owner), now)


class RenewsForAnybody(stores.Memory):
    """Renews a claim for whoever asks."""

    def _renew(self, renewal: Renewal, now: float) -> bool:
        entry = self._entries.get(renewal.id)
        owner = renewal.owner if entry is None or entry.owner is None else entry.owner
        return super()._renew(replace(renewal, owner=owner), now)


class CountsAnew(stores.Memory):
    """Writes a new entry where it takes one over."""

    def _claim(self, request: ClaimRequest, now: float) -> ClaimReply:
        entry = self._entries.get(request.id)
        if step_of(found_by(request, entry, now), request) is Step.TAKE_OVER:
            del self._entries[request.id]
        return super()._claim(request, now)


class GrantsWhatIsHeld(stores.Memory):
    """Takes a held claim over."""

    def _claim(self, request: ClaimRequest, now: float) -> ClaimReply:
        entry = self._entries.get(request.id)
        if entry is not None and found_by(request, entry, now) is State.HELD:
            self._entries[request.id] = replace(entry, in_progress_expiration=RELEASED)
        return super()._claim(request, now)


@pytest.mark.parametrize("faulty", [EndsForAnybody, RenewsForAnybody, CountsAnew, GrantsWhatIsHeld])
def test_a_faulty_store_is_noticed(clock: HandClock, faulty: type[stores.Memory]) -> None:
    bench = Bench(faulty(), ProcessEnvironment(clock=clock), clock, at_once)
    quick = settings(
        _SETTINGS, max_examples=1_000, stateful_step_count=20, derandomize=True, database=None, phases=[Phase.generate]
    )

    with pytest.raises(AssertionError):
        run_state_machine_as_test(driving(bench), settings=quick)


def test_the_store_in_dynamodb_is_the_model(aws: str, clock: HandClock, unique: str) -> None:
    with asyncio.Runner() as runner:
        environment = ProcessEnvironment(clock=clock)
        store = stores.DynamoDB(unique)
        runner.run(store.create(environment))
        bench = Bench(store, environment, clock, runner.run)

        try:
            run_state_machine_as_test(
                driving(bench), settings=settings(_SETTINGS, max_examples=8, stateful_step_count=15)
            )
        finally:
            runner.run(environment.aclose())

    assert bench.keys >= 8
