"""A real store beside a model of it: any steps of any owners, and after each of them what must hold."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import Struct

from pipeline.decisions.idempotency import (
    COMPLETED,
    IN_PROGRESS,
    RELEASED,
    AlreadyDone,
    Busy,
    Claimed,
    ClaimReply,
    ClaimRequest,
    Complete,
    Entry,
    Forget,
    Lapsed,
    Release,
    Renewal,
    Settlement,
    Step,
)
from pipeline.ports import Environment, IdempotencyStore
from tests.protocol.conftest import HandClock
from tests.protocol.rules import PRODUCT

LEASE, TTL = 60.0, 1_000
#: Around a lease, a second, a millisecond, and the entry's own time.
PASSING = (LEASE + 0.001, 0.001, 1.0, LEASE - 1.0, LEASE, TTL - LEASE, TTL + 1.0)


@dataclass
class Bench:
    """A store, and how its coroutines are run."""

    store: IdempotencyStore
    environment: Environment
    clock: HandClock
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    keys: int = 0  #: each example has a key of its own

    def entry(self, key: str) -> Entry | None:
        (found,) = self.run(self.store.look([key], self.environment))
        assert found is None or isinstance(found, Entry)
        return found


class Owner(Struct):
    """A run, and what it believes."""

    name: str
    record: str
    until: float = 0.0
    is_granted: bool = False
    is_ending: bool = False  #: its ending is on its way, and may be asked for again
    attempt: int = 0
    outputs: str | None = None
    rejected: tuple[str, ...] = ()


class Driven(RuleBasedStateMachine):
    """Owners of one key at a real store. The model says what each reply and the entry must be."""

    def __init__(self, bench: Bench) -> None:
        super().__init__()
        self.bench = bench
        bench.keys += 1
        self.key = f"key{bench.keys}"
        self.owners: dict[str, Owner] = {}
        self.came = 0
        self.entry: Entry | None = None  #: the model's
        self.holder: str | None = None  #: who wrote the last claim and has not ended it
        self.begun = 0  #: claims since the entry began, without those that do not count
        self.owed: str | None = None
        self.done_until: float | None = None
        self.was_done = False
        self.dead: set[str] = set()

    @property
    def now(self) -> float:
        return self.bench.clock.time

    def some(self, data: st.DataObject, which: Callable[[Owner], bool]) -> Owner:
        return data.draw(st.sampled_from([owner for owner in self.owners.values() if which(owner)]))

    def ask(self, owner: Owner, *, is_alone: bool, is_answered: bool) -> None:
        request = self.request(owner, is_alone=is_alone)
        (reply,) = self.bench.run(self.bench.store.claim([request], self.bench.environment))
        assert reply == self.claim(request)
        if is_answered:
            self.hears(owner, reply)

    # Steps

    @precondition(lambda self: len(self.owners) < 4)
    @rule(record=st.sampled_from(["r", "s"]), is_alone=st.booleans(), is_answered=st.booleans())
    def comes_and_asks(self, record: str, is_alone: bool, is_answered: bool) -> None:
        self.came += 1
        owner = Owner(f"owner{self.came}", record, self.now + LEASE)
        self.owners[owner.name] = owner
        self.ask(owner, is_alone=is_alone, is_answered=is_answered)

    @precondition(lambda self: any(not owner.is_granted for owner in self.owners.values()))
    @rule(data=st.data(), is_answered=st.booleans())
    def asks_again(self, data: st.DataObject, is_answered: bool) -> None:
        owner = self.some(data, lambda owner: not owner.is_granted)
        self.ask(owner, is_alone=True, is_answered=is_answered)

    @precondition(lambda self: sum(not owner.is_granted for owner in self.owners.values()) > 1)
    @rule()
    def ask_together(self) -> None:
        owners = [owner for owner in self.owners.values() if not owner.is_granted]
        requests = [self.request(owner, is_alone=True) for owner in owners]
        before = self.entry
        replies = self.bench.run(self.bench.store.claim(requests, self.bench.environment))
        granted = [owner for owner, reply in zip(owners, replies, strict=True) if isinstance(reply, Claimed)]
        assert len(granted) <= 1
        # In whichever order the store took them: the one that was granted is the one to be told so.
        for owner in granted:
            if before is None or before.owner != owner.name or before.in_progress_expiration == RELEASED:
                self.claim(self.request(owner, is_alone=True))
        for owner, reply in zip(owners, replies, strict=True):
            self.hears(owner, reply)

    @precondition(lambda self: any(owner.is_granted and not owner.is_ending for owner in self.owners.values()))
    @rule(data=st.data(), is_answered=st.booleans())
    def renews(self, data: st.DataObject, is_answered: bool) -> None:
        owner = self.some(data, lambda owner: owner.is_granted and not owner.is_ending)
        renewal = Renewal(id=self.key, owner=owner.name, lease_until=self.now + LEASE, ttl=TTL)
        (answer,) = self.bench.run(self.bench.store.renew([renewal], self.bench.environment))
        assert answer is (self.holder == owner.name)
        if self.holder == owner.name and self.entry is not None:
            self.entry = PRODUCT.renewed(self.entry, renewal, self.now)
            if is_answered:
                owner.until = renewal.lease_until
        elif is_answered:
            del self.owners[owner.name]  # lost: it stops

    @precondition(lambda self: any(owner.is_granted for owner in self.owners.values()))
    @rule(
        data=st.data(),
        how=st.sampled_from(["complete", "fail", "outage", "keep", "reject", "forget"]),
        is_answered=st.booleans(),
    )
    def ends(self, data: st.DataObject, how: str, is_answered: bool) -> None:
        owner = self.some(data, lambda owner: owner.is_granted)
        settlement, counts = self.ending(owner, how)
        if how == "reject":
            self.dead.add(owner.record)
        (answer,) = self.bench.run(self.bench.store.settle([settlement], self.bench.environment))
        entry = self.entry
        if self.holder == owner.name and entry is not None:
            assert answer is True
            self.settle(entry, settlement, counts)
        elif isinstance(settlement, Complete):
            mine = entry is not None and entry.owner == owner.name and entry.status == COMPLETED
            assert answer is mine
        elif isinstance(settlement, Forget):
            assert answer is (entry is None)
        else:
            is_mine = entry is not None and entry.owner == owner.name and entry.in_progress_expiration == RELEASED
            assert answer is (is_mine and entry is not None and entry.status == IN_PROGRESS)
        if is_answered:
            del self.owners[owner.name]
        else:
            owner.is_ending = True

    @precondition(lambda self: self.owners)
    @rule(data=st.data())
    def dies(self, data: st.DataObject) -> None:
        del self.owners[self.some(data, lambda owner: True).name]

    @rule(seconds=st.sampled_from(PASSING))
    def time_passes(self, seconds: float) -> None:
        self.bench.clock.time += seconds
        if seconds > TTL:  # no run is meant to outlive its entry, and whoever asks asks before its lease is over
            self.owners.clear()
        for owner in list(self.owners.values()):
            if not owner.is_granted and owner.until < self.now:
                del self.owners[owner.name]

    # What must hold

    @invariant()
    def the_entry_is_the_models(self) -> None:
        assert self.bench.entry(self.key) == self.entry

    @invariant()
    def at_most_one_is_at_work(self) -> None:
        at_work = [
            owner
            for owner in self.owners.values()
            if owner.is_granted and not owner.is_ending and self.now <= owner.until
        ]
        assert len(at_work) <= 1

    @invariant()
    def attempts_and_outputs_are_what_they_should_be(self) -> None:
        if self.entry is not None and self.entry.status == IN_PROGRESS:
            assert self.entry.attempts == self.begun
            assert self.entry.outputs == self.owed

    def teardown(self) -> None:
        """Nobody is stuck: a lease later, whoever asks alone gets the claim, or an answer."""
        self.bench.clock.time += LEASE + 0.01
        request = self.request(Owner("last", "t", self.now + LEASE), is_alone=True)
        (reply,) = self.bench.run(self.bench.store.claim([request], self.bench.environment))
        assert isinstance(reply, (Claimed, AlreadyDone))

    # The model

    def request(self, owner: Owner, *, is_alone: bool) -> ClaimRequest:
        return ClaimRequest(
            id=self.key,
            owner=owner.name,
            lease_until=owner.until,
            ttl=TTL,
            record=owner.record,
            is_alone=is_alone,
        )

    def hears(self, owner: Owner, reply: ClaimReply) -> None:
        if not isinstance(reply, Claimed):
            if isinstance(reply, AlreadyDone):
                assert self.was_done or owner.record in self.dead
            if isinstance(reply, (Busy, Lapsed)):
                assert self.holder != owner.name
            del self.owners[owner.name]
            return
        assert self.done_until is None or self.now > self.done_until
        owner.is_granted = True
        owner.attempt, owner.outputs, owner.rejected = reply.attempt, reply.outputs, reply.rejected

    def claim(self, request: ClaimRequest) -> ClaimReply:
        entry, now = self.entry, self.now
        step = PRODUCT.step_of(PRODUCT.found_by(request, entry, now), request)
        if entry is None or step is Step.CREATE:
            self.entry = PRODUCT.created(request, now)
            self.begun, self.owed, self.done_until = 1, None, None
            self.dead.clear()
        elif step is Step.TAKE_OVER:
            self.entry = PRODUCT.taken_over(entry, request, now)
            self.begun += 1
        elif step is not Step.RUN:
            return PRODUCT.refusal(step, entry)
        self.holder = request.owner
        assert self.entry is not None
        return PRODUCT.claimed(self.entry)

    def ending(self, owner: Owner, how: str) -> tuple[Settlement, int]:
        """An owner's ending, and what its run counts as: 1, 0, or -1 for "start anew"."""
        if how == "complete":
            return Complete(id=self.key, owner=owner.name, ttl=TTL), 1
        if how == "forget":
            return Forget(id=self.key, owner=owner.name, ttl=TTL), -1
        counts = {"fail": 1, "reject": -1}.get(how, 0)
        attempts = 0 if counts < 0 else owner.attempt - 1 + counts
        others = [name for name in owner.rejected if name != owner.record]
        rejected = (*others, owner.record) if how == "reject" else owner.rejected
        outputs = "owed" if how == "keep" else None
        release = Release(id=self.key, owner=owner.name, ttl=TTL, attempts=attempts, outputs=outputs, rejected=rejected)
        return release, counts

    def settle(self, entry: Entry, settlement: Settlement, counts: int) -> None:
        self.holder = None
        if isinstance(settlement, (Complete, Release)):
            self.entry = PRODUCT.settled(entry, settlement, self.now)
            self.owed = settlement.outputs if isinstance(settlement, Release) else None
            self.begun = 0 if counts < 0 else self.begun - 1 + counts
        else:
            self.entry, self.begun, self.owed = None, 0, None
            self.dead.clear()
        if isinstance(settlement, Complete):
            self.was_done, self.done_until = True, self.now + TTL
