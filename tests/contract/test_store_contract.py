"""What every idempotency store promises: the same suite over each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline import Claim, Pipeline, sources, stores
from pipeline.aws.client import client
from pipeline.decisions.idempotency import (
    Advance,
    AlreadyDone,
    Busy,
    Claimed,
    ClaimRequest,
    Complete,
    Entry,
    Forget,
    Lapsed,
    Mismatch,
    Release,
    Renewal,
    Settlement,
)
from pipeline.emulator.local import Local
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.ports import IdempotencyStore
from pipeline.stores import items
from tests.support.redis_server import RedisServer

TTL = 1_000
LEASE = 60.0


@dataclass
class Bench:
    """A store, and the few words that the tests speak with it."""

    store: IdempotencyStore
    environment: ProcessEnvironment
    clock: Any
    put: Callable[[Entry], Awaitable[None]]

    async def claim(self, owner: str, key: str = "k", *, is_alone: bool = True, record: str = "") -> Any:
        until = self.clock.now() + LEASE
        request = ClaimRequest(id=key, owner=owner, lease_until=until, ttl=TTL, is_alone=is_alone, record=record)
        (reply,) = await self.store.claim([request], self.environment)
        return reply

    async def settle(self, settlement: Settlement) -> Any:
        (reply,) = await self.store.settle([settlement], self.environment)
        return reply

    async def complete(self, owner: str, key: str = "k") -> Any:
        return await self.settle(Complete(id=key, owner=owner, ttl=TTL))

    async def release(self, owner: str, attempts: int = 1, outputs: str | None = None) -> Any:
        return await self.settle(Release(id="k", owner=owner, ttl=TTL, attempts=attempts, outputs=outputs))

    async def forget(self, owner: str) -> Any:
        return await self.settle(Forget(id="k", owner=owner, ttl=TTL))

    async def renew(self, owner: str, lease: float = LEASE) -> Any:
        renewal = Renewal(id="k", owner=owner, lease_until=self.clock.now() + lease, ttl=TTL)
        (reply,) = await self.store.renew([renewal], self.environment)
        return reply


@pytest.fixture
async def memory(environment: ProcessEnvironment, clock: Any) -> Bench:
    store = stores.Memory()

    async def put(entry: Entry) -> None:
        store._entries[entry.id] = entry

    return Bench(store, environment, clock, put)


async def tabled(store: stores.DynamoDB, environment: ProcessEnvironment, clock: Any) -> Bench:
    await store.create(environment)
    await store.create(environment)  # a second time changes nothing

    async def put(entry: Entry) -> None:
        service = await client(environment, "dynamodb")
        await service.put_item(TableName=store.table, Item=items.item_of(entry))

    return Bench(store, environment, clock, put)


@pytest.fixture
async def dynamodb(aws: str, environment: ProcessEnvironment, clock: Any, unique: str) -> Bench:
    """On moto: by the rule that is single writes."""
    return await tabled(stores.DynamoDB(unique), environment, clock)


@pytest.fixture
async def single(at_dynamodb_local: str, environment: ProcessEnvironment, clock: Any, unique: str) -> Bench:
    """Single writes on AWS's own DynamoDB Local."""
    return await tabled(stores.DynamoDB(unique, batched=False), environment, clock)


@pytest.fixture
async def batched(at_dynamodb_local: str, environment: ProcessEnvironment, clock: Any, unique: str) -> Bench:
    """Statements together, in a table with a name of every kind of character that one may have."""
    return await tabled(stores.DynamoDB(f"{unique}.Of-Tests_1", batched=True), environment, clock)


@pytest.fixture
async def redis(redis_server: RedisServer, environment: ProcessEnvironment, clock: Any, unique: str) -> Bench:
    store = stores.Redis(redis_server.url, prefix=f"{unique}:")
    await store.create(environment)

    async def put(entry: Entry) -> None:
        assert await store.mark([entry], environment) == [None]

    return Bench(store, environment, clock, put)


#: The stores on DynamoDB Local.
LOCAL = [pytest.param(name, marks=pytest.mark.dynamodb_local) for name in ("single", "batched")]


@pytest.fixture(params=["memory", "dynamodb", "redis", *LOCAL])
def bench(request: pytest.FixtureRequest) -> Bench:
    return request.getfixturevalue(request.param)


@pytest.fixture(params=["dynamodb", *LOCAL])
def table(request: pytest.FixtureRequest) -> Bench:
    """The stores that are a table."""
    return request.getfixturevalue(request.param)


async def test_the_first_claim_is_granted_and_the_second_is_busy_until_the_lease_ends(bench: Bench) -> None:
    until = bench.clock.now() + LEASE
    assert await bench.claim("a") == Claimed(1)
    reply = await bench.claim("b")
    assert isinstance(reply, Busy)
    assert reply.until == pytest.approx(until, abs=0.01)


async def test_a_completed_key_is_a_duplicate_for_everybody(bench: Bench) -> None:
    await bench.claim("a")
    assert await bench.complete("a") is True
    assert await bench.claim("b") == AlreadyDone()
    assert await bench.claim("a") == AlreadyDone()


async def test_asking_again_for_an_own_claim_is_answered_as_before(bench: Bench) -> None:
    await bench.claim("a")
    assert await bench.claim("a") == Claimed(1)


async def test_a_lapsed_claim_is_taken_over_and_then_held(bench: Bench) -> None:
    await bench.claim("a")
    bench.clock.advance(LEASE + 1)
    assert await bench.claim("b") == Claimed(2)
    assert isinstance(await bench.claim("c"), Busy)


async def test_a_lapsed_claim_is_not_taken_by_a_run_with_others_beside_it(bench: Bench) -> None:
    await bench.claim("a")
    bench.clock.advance(LEASE + 1)
    assert await bench.claim("b", is_alone=False) == Lapsed(1)
    assert await bench.claim("b", is_alone=False) == Lapsed(1), "the first answer took something"
    assert await bench.complete("a") is True, "the claim was taken from its owner"


async def test_a_released_claim_is_taken_by_a_run_with_others_beside_it(bench: Bench) -> None:
    await bench.claim("a")
    await bench.release("a")
    assert await bench.claim("b", is_alone=False) == Claimed(2)


async def test_many_asking_for_one_lapsed_claim_get_it_once(bench: Bench) -> None:
    await bench.claim("a")
    bench.clock.advance(LEASE + 1)
    until = bench.clock.now() + LEASE
    requests = [ClaimRequest(id="k", owner=f"w{n}", lease_until=until, ttl=TTL, is_alone=True) for n in range(8)]
    replies = await bench.store.claim(requests, bench.environment)
    assert sum(isinstance(reply, Claimed) for reply in replies) == 1
    assert sum(isinstance(reply, Busy) for reply in replies) == 7


async def test_an_owner_that_lost_its_claim_can_write_nothing(bench: Bench) -> None:
    await bench.claim("a")
    bench.clock.advance(LEASE + 1)
    await bench.claim("b")
    assert await bench.complete("a") is False
    assert await bench.release("a") is False
    assert await bench.forget("a") is False
    assert await bench.renew("a") is False
    assert isinstance(await bench.claim("c"), Busy), "b's claim must stand untouched"
    assert await bench.complete("b") is True


async def test_a_late_owner_cannot_undo_a_completion(bench: Bench) -> None:
    await bench.claim("a")
    bench.clock.advance(LEASE + 1)
    await bench.claim("b")
    await bench.complete("b")
    assert await bench.forget("a") is False
    assert await bench.release("a") is False
    assert await bench.complete("a") is False
    assert await bench.claim("c") == AlreadyDone()


async def test_an_owner_whose_lease_ran_out_unnoticed_still_completes(bench: Bench) -> None:
    await bench.claim("a")
    bench.clock.advance(LEASE + 1)
    assert await bench.complete("a") is True


async def test_a_release_keeps_attempts_and_outputs_for_the_next_run(bench: Bench) -> None:
    await bench.claim("a")
    assert await bench.release("a", attempts=1, outputs="[kept]") is True
    assert await bench.claim("b") == Claimed(2, "[kept]")
    assert await bench.release("b", attempts=1) is True
    assert await bench.claim("c") == Claimed(2, None)


async def test_a_completion_drops_the_kept_outputs(bench: Bench) -> None:
    await bench.claim("a")
    await bench.release("a", attempts=1, outputs="[kept]")
    await bench.claim("b")
    await bench.complete("b")
    bench.clock.advance(TTL + 2)
    assert await bench.claim("c") == Claimed(1, None)


async def test_a_hand_back_counts_no_attempt(bench: Bench) -> None:
    await bench.claim("a")
    await bench.release("a", attempts=0)
    assert await bench.claim("b") == Claimed(1)


async def test_after_a_release_the_owner_holds_nothing(bench: Bench) -> None:
    await bench.claim("a")
    await bench.release("a")
    assert await bench.complete("a") is False
    assert await bench.renew("a") is False
    assert await bench.forget("a") is False


async def test_forgetting_lets_the_key_start_anew(bench: Bench) -> None:
    await bench.claim("a")
    await bench.release("a", attempts=4)
    await bench.claim("b")
    assert await bench.forget("b") is True
    assert await bench.claim("c") == Claimed(1)


async def test_a_rejected_record_is_skipped_and_another_of_its_key_starts_anew(bench: Bench) -> None:
    async def reject(owner: str, *records: str) -> Any:
        return await bench.settle(Release(id="k", owner=owner, ttl=TTL, attempts=0, rejected=records))

    await bench.claim("a", record="shard/7")
    assert await reject("a", "shard/7") is True
    assert await bench.claim("b", record="shard/7") == AlreadyDone()
    assert await bench.claim("c", record="shard/9") == Claimed(1, None, ("shard/7",))
    assert await reject("c", "shard/7", "shard/9") is True
    assert await bench.claim("d", record="shard/7") == AlreadyDone()
    assert await bench.claim("e", record="shard/9") == AlreadyDone()
    assert await bench.claim("f", record="shard/11") == Claimed(1, None, ("shard/7", "shard/9"))
    bench.clock.advance(LEASE + 1)  # also through a takeover from a run that died
    assert await bench.claim("g", record="shard/12") == Claimed(2, None, ("shard/7", "shard/9"))
    assert await bench.complete("g") is True
    assert await bench.claim("h", record="shard/13") == AlreadyDone()


async def test_a_renewed_claim_outlives_its_first_lease(bench: Bench) -> None:
    await bench.claim("a")
    bench.clock.advance(LEASE - 1)
    assert await bench.renew("a") is True
    bench.clock.advance(2)
    assert isinstance(await bench.claim("b"), Busy)


async def test_every_settlement_may_be_repeated_when_its_answer_was_lost(bench: Bench) -> None:
    await bench.claim("a")
    assert [await bench.release("a"), await bench.release("a")] == [True, True]
    await bench.claim("b")
    assert [await bench.forget("b"), await bench.forget("b")] == [True, True]
    await bench.claim("c")
    assert [await bench.complete("c"), await bench.complete("c")] == [True, True]


async def test_an_expired_entry_counts_for_nothing(bench: Bench) -> None:
    await bench.claim("a")
    await bench.complete("a")
    bench.clock.advance(TTL + 2)
    assert await bench.claim("b") == Claimed(1)
    assert await bench.complete("a") is False


async def test_keys_do_not_touch_one_another(bench: Bench) -> None:
    until = bench.clock.now() + LEASE
    requests = [ClaimRequest(id=f"key-{n}", owner="a", lease_until=until, ttl=TTL) for n in range(30)]
    assert await bench.store.claim(requests, bench.environment) == [Claimed(1)] * 30
    settlements = [Complete(id=f"key-{n}", owner="a" if n % 2 else "b", ttl=TTL) for n in range(30)]
    assert await bench.store.settle(settlements, bench.environment) == [bool(n % 2) for n in range(30)]


async def test_a_foreign_claim_without_an_end_is_held_until_it_expires(bench: Bench) -> None:
    expiration = int(bench.clock.now()) + 100
    await bench.put(Entry(id="k", status="INPROGRESS", expiration=expiration))
    assert await bench.claim("a") == Busy(float(expiration + 1))
    bench.clock.advance(102)
    assert await bench.claim("a") == Claimed(1)


async def test_a_foreign_claim_that_lapsed_is_taken_over(bench: Bench) -> None:
    now = bench.clock.now()
    entry = Entry(id="k", status="INPROGRESS", expiration=int(now) + 100, in_progress_expiration=int(now * 1000) - 1)
    await bench.put(entry)
    assert await bench.claim("a") == Claimed(1)
    assert await bench.complete("a") is True


async def test_a_foreign_completion_is_honoured(bench: Bench) -> None:
    entry = Entry(id="k", status="COMPLETED", expiration=int(bench.clock.now()) + 100, data='{"any": 1}')
    await bench.put(entry)
    assert await bench.claim("a") == AlreadyDone('{"any": 1}')


async def test_a_completion_keeps_what_the_run_returned_for_its_repeats(bench: Bench) -> None:
    await bench.claim("a")
    assert await bench.settle(Complete(id="k", owner="a", ttl=TTL, data='{"price": "1 €"}')) is True
    assert await bench.claim("b") == AlreadyDone('{"price": "1 €"}')


async def test_a_key_that_is_in_use_for_another_payload_is_refused(bench: Bench) -> None:
    async def claim(owner: str, validation: str | None) -> Any:
        until = bench.clock.now() + LEASE
        request = ClaimRequest(id="k", owner=owner, lease_until=until, ttl=TTL, validation=validation, is_alone=True)
        (reply,) = await bench.store.claim([request], bench.environment)
        return reply

    assert await claim("a", "one") == Claimed(1)
    assert await claim("b", "two") == Mismatch()
    bench.clock.advance(LEASE + 1)
    assert await claim("c", "one") == Claimed(2), "a takeover keeps the hash"
    assert await bench.complete("c") is True
    assert await claim("d", "two") == Mismatch()
    assert await claim("e", "one") == AlreadyDone()
    assert await claim("f", None) == AlreadyDone()
    bench.clock.advance(TTL + 2)
    assert await claim("g", "two") == Claimed(1), "an expired one's hash counts for nothing"
    assert await claim("h", "one") == Mismatch()


async def test_nothing_of_an_expired_entry_survives(bench: Bench) -> None:
    old = Entry(
        id="k",
        status="COMPLETED",
        expiration=int(bench.clock.now()) + 100,
        in_progress_expiration=5,
        data="{}",
        validation="old",
        owner="o",
        attempts=7,
        outputs="[old]",
        rejected=("r1",),
        position="9",
    )
    await bench.put(old)
    bench.clock.advance(102)  # a server's own clock, by which it deletes what has expired, stays behind
    assert await bench.claim("a") == Claimed(1)
    (found,) = await bench.store.look(["k"], bench.environment)
    now = bench.clock.now()
    assert found == Entry(
        id="k",
        status="INPROGRESS",
        expiration=int(now) + TTL,
        in_progress_expiration=int((now + LEASE) * 1000),
        owner="a",
        attempts=1,
    )


async def test_a_release_remembers_the_rejected_records_that_it_names(bench: Bench) -> None:
    for owner, rejected in (("a", ("r1",)), ("b", ())):
        await bench.claim(owner)
        assert await bench.settle(Release(id="k", owner=owner, ttl=TTL, attempts=0, rejected=rejected)) is True
    (found,) = await bench.store.look(["k"], bench.environment)
    assert isinstance(found, Entry)
    assert found.rejected == ()


async def test_an_id_may_hold_any_text(bench: Bench) -> None:
    ids = ["shop#'; DELETE", 'a"b', "ü € 😀", "?", "{'id': ?}", " ", "\\", "x" * 2_000]
    until = bench.clock.now() + LEASE
    requests = [ClaimRequest(id=key, owner=f"o'{key}"[:50], lease_until=until, ttl=TTL) for key in ids]
    assert await bench.store.claim(requests, bench.environment) == [Claimed(1)] * len(ids)
    ends = [Complete(id=request.id, owner=request.owner, ttl=TTL, data=f"'{request.id}\"") for request in requests]
    assert await bench.store.settle(ends, bench.environment) == [True] * len(ids)
    found = await bench.store.look(ids, bench.environment)
    assert [(entry.id, entry.data) for entry in found if isinstance(entry, Entry)] == [(e.id, e.data) for e in ends]


async def test_each_position_has_its_own_answer_in_a_call_with_entries_of_every_kind(bench: Bench) -> None:
    now = int(bench.clock.now())
    bench.clock.advance(102)
    lease = int(bench.clock.now() * 1000)
    common = {"status": "INPROGRESS", "expiration": now + TTL, "owner": "o", "attempts": 3}
    for entry in (
        Entry(id="held", **{**common, "in_progress_expiration": lease + 5_000}),
        Entry(id="released", **{**common, "in_progress_expiration": 0, "outputs": "[kept]"}),
        Entry(id="lapsed", **{**common, "in_progress_expiration": lease - 1}),
        Entry(id="expired", **{**common, "in_progress_expiration": 0, "outputs": "[kept]", "expiration": now + 100}),
        Entry(id="rejected", **{**common, "in_progress_expiration": 0, "rejected": ("r",)}),
        Entry(id="mine", **{**common, "in_progress_expiration": lease + 5_000, "owner": "me"}),
        Entry(id="done", status="COMPLETED", expiration=now + TTL, data="1"),
    ):
        await bench.put(entry)
    ids = ["new", "held", "released", "lapsed", "expired", "rejected", "mine", "done", "newer"]
    until = bench.clock.now() + LEASE
    requests = [ClaimRequest(id=key, owner="me", lease_until=until, ttl=TTL, record="r") for key in ids]
    assert await bench.store.claim(requests, bench.environment) == [
        Claimed(1),
        Busy((lease + 5_000) / 1000),
        Claimed(4, "[kept]"),
        Lapsed(3),
        Claimed(1),
        AlreadyDone(),
        Claimed(3),
        AlreadyDone("1"),
        Claimed(1),
    ]


async def test_what_was_marked_is_found_when_looked_for(bench: Bench) -> None:
    whole = Entry(
        id="k0",
        status="COMPLETED",
        expiration=int(bench.clock.now()) + TTL,
        in_progress_expiration=17,
        data='{"a": 1}',
        validation="hash",
        owner="o",
        attempts=2,
        outputs="[kept]",
        rejected=("r1", "r2"),
        position="0007",
    )
    plain = [Entry(id=f"k{n}", status="COMPLETED", expiration=whole.expiration, data=str(n)) for n in range(1, 130)]
    written = [Entry(id="k0", status="INPROGRESS", expiration=1, outputs="[old]"), *plain, whole]
    assert await bench.store.mark(written, bench.environment) == [None] * len(written)
    ids = ["k0", "absent", *(entry.id for entry in plain), "k0"]
    assert await bench.store.look(ids, bench.environment) == [whole, None, *plain, whole]


async def test_a_mark_stands_in_the_place_of_whatever_was_there(bench: Bench) -> None:
    await bench.claim("a")
    await bench.release("a", attempts=1, outputs="[kept]")
    done = Entry(id="k", status="COMPLETED", expiration=int(bench.clock.now()) + TTL)
    assert await bench.store.mark([done], bench.environment) == [None]
    assert await bench.store.look(["k"], bench.environment) == [done]


async def test_a_checkpoint_only_moves_forward(bench: Bench) -> None:
    async def advance(*positions: str) -> Any:
        moves = [Advance(id=f"lane{n}", position=position, ttl=TTL) for n, position in enumerate(positions)]
        return await bench.store.advance(moves, bench.environment)

    assert await advance("05", "1") == [True, True]
    assert await advance("05", "2") == [False, True]
    assert await advance("04", "1") == [False, False]
    bench.clock.advance(TTL + 2)
    assert await advance("04") == [False], "an expired one still counts"
    assert await advance("06") == [True]
    found = await bench.store.look(["lane0", "lane1"], bench.environment)
    assert [entry.position for entry in found if isinstance(entry, Entry)] == ["06", "2"]


# What only a store behind a network can get wrong.


@pytest.fixture
def operation(table: Bench) -> Callable[[str], str]:
    """The call by which a table's store does a write."""
    assert isinstance(table.store, stores.DynamoDB)
    return lambda name: "BatchExecuteStatement" if table.store.batched else name  # type: ignore[attr-defined]


async def test_a_lost_answer_to_a_claim_does_not_lose_the_claim(table: Bench, operation: Any, faults: Any) -> None:
    await faults("dynamodb").lose_replies(operation("PutItem"))
    assert isinstance(await table.claim("a"), StoreUnavailable)
    assert await table.claim("a") == Claimed(1)


async def test_a_lost_answer_to_a_takeover_does_not_lose_it(table: Bench, operation: Any, faults: Any) -> None:
    await table.claim("a")
    await table.release("a", attempts=1, outputs="[kept]")
    # By statements the first call is an INSERT, which finds the key taken.
    await faults("dynamodb").lose_replies(operation("UpdateItem"), passing=1 if operation("") else 0)
    assert isinstance(await table.claim("b"), StoreUnavailable)
    assert await table.claim("b") == Claimed(2, "[kept]")


@pytest.mark.parametrize(
    ("word", "name"), [("complete", "UpdateItem"), ("release", "UpdateItem"), ("forget", "DeleteItem")]
)
async def test_a_lost_answer_to_a_settlement_shows_as_done(
    table: Bench, operation: Any, faults: Any, word: str, name: str
) -> None:
    await table.claim("a")
    await faults("dynamodb").lose_replies(operation(name))
    assert isinstance(await getattr(table, word)("a"), StoreUnavailable)
    assert await getattr(table, word)("a") is True


async def test_a_lost_request_fails_only_its_own_position(dynamodb: Bench, faults: Any) -> None:
    await faults("dynamodb").lose_requests("PutItem")
    until = dynamodb.clock.now() + LEASE
    requests = [ClaimRequest(id=f"key-{n}", owner="a", lease_until=until, ttl=TTL) for n in range(3)]
    replies = await dynamodb.store.claim(requests, dynamodb.environment)
    assert sorted(type(reply).__name__ for reply in replies) == ["Claimed", "Claimed", "StoreUnavailable"]


@pytest.mark.parametrize("is_batched", [False, pytest.param(True, marks=pytest.mark.dynamodb_local)])
async def test_a_missing_table_is_an_outage_and_not_a_go(
    aws: str, request: pytest.FixtureRequest, environment: ProcessEnvironment, clock: Any, is_batched: bool
) -> None:
    if is_batched:
        request.getfixturevalue("at_dynamodb_local")
    store = stores.DynamoDB("no-such-table", batched=is_batched)
    wanted = ClaimRequest(id="k", owner="a", lease_until=clock.now() + LEASE, ttl=TTL, is_alone=True)
    (reply,) = await store.claim([wanted], environment)
    assert isinstance(reply, StoreUnavailable)
    assert "no-such-table" in str(reply)


async def test_an_item_that_is_no_entry_is_an_outage_and_not_a_go(table: Bench) -> None:
    service = await client(table.environment, "dynamodb")
    assert isinstance(table.store, stores.DynamoDB)
    await service.put_item(TableName=table.store.table, Item={"id": {"S": "k"}, "colour": {"S": "red"}})
    until = table.clock.now() + LEASE
    requests = [ClaimRequest(id=key, owner="a", lease_until=until, ttl=TTL) for key in ("j", "k", "l")]
    first, odd, last = await table.store.claim(requests, table.environment)
    assert (first, last) == (Claimed(1), Claimed(1))
    assert isinstance(odd, StoreUnavailable)
    assert "red" not in str(odd)
    _, odd, _ = await table.store.look(["j", "k", "l"], table.environment)
    assert isinstance(odd, StoreUnavailable)


async def test_an_item_that_is_no_entry_is_told_without_what_is_in_it(table: Bench) -> None:
    service = await client(table.environment, "dynamodb")
    assert isinstance(table.store, stores.DynamoDB)
    odd = {"status": {"S": "INPROGRESS"}, "in_progress_expiration": {"N": "0"}, "rejected": {"S": "secret"}}
    await service.put_item(TableName=table.store.table, Item={"id": {"S": "k"}, **odd})
    (found,) = await table.store.look(["k"], table.environment)
    for told in (found, await table.claim("a")):
        assert isinstance(told, StoreUnavailable)
        assert "not an idempotency entry: JSONDecodeError" in str(told)
        assert "secret" not in str(told)
        assert "char" not in str(told)
    service = await client(table.environment, "dynamodb")
    await service.put_item(TableName=table.store.table, Item={"id": {"S": "k"}, "status": {"N": "7"}})
    (found,) = await table.store.look(["k"], table.environment)
    assert str(found).endswith("not an idempotency entry: KeyError")


@pytest.mark.parametrize(
    "odd",
    [
        {"in_progress_expiration": lambda lease: {"N": f"{lease}.5"}},
        {"in_progress_expiration": lambda lease: {"N": "-0.5"}},
        {"owner": lambda _: {"N": "7"}},
        {"owner": lambda _: {"NULL": True}},
        {"owner": lambda _: {"M": {"name": {"S": "o"}}}},
    ],
    ids=["fraction", "negative", "number", "null", "map"],
)
async def test_a_foreign_claim_in_another_form_is_taken_over_while_it_is_what_was_read(table: Bench, odd: Any) -> None:
    now = table.clock.now()
    lease = int(now * 1000) - 5_000
    entry = Entry(id="k", status="INPROGRESS", expiration=int(now) + TTL, in_progress_expiration=lease)
    service = await client(table.environment, "dynamodb")
    assert isinstance(table.store, stores.DynamoDB)
    item = {**items.item_of(entry), **{name: value(lease) for name, value in odd.items()}}
    await service.put_item(TableName=table.store.table, Item=item)
    (stale,) = await table.store.look(["k"], table.environment)
    assert isinstance(stale, Entry)
    assert await table.claim("a") == Claimed(1)
    assert isinstance(await table.claim("b"), Busy)
    change = items.update_item(items.take_over(stale, entry))
    with pytest.raises(Exception, match="ConditionalCheckFailed"):
        await service.update_item(TableName=table.store.table, **change)
    assert await table.complete("a") is True


@pytest.mark.parametrize("name", ["my table!", "ab", "a" * 256, "täble", "shop:table", "table\n"])
def test_what_can_be_no_tables_name_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="3 to 255"):
        stores.DynamoDB(name)


@pytest.mark.parametrize("name", ["abc", "a" * 255, "Shop_entries-1.2"])
def test_every_name_that_a_table_may_have_is_taken(name: str) -> None:
    assert stores.DynamoDB(name).resource.name == name


@pytest.mark.parametrize("table", [None, "theirs"])
@pytest.mark.parametrize(
    "place",
    ["table/claims/index/by-owner", "table/claims/stream/2026-01-01T00:00:00.000", "table/", "table/ab", "claims",
     "global-table/claims", "table/my claims", "table/claims\n"],
)  # fmt: skip
def test_what_is_no_tables_arn_is_refused(table: str | None, place: str) -> None:
    with pytest.raises(ConfigurationError, match="table/<name>"):
        stores.DynamoDB(table, existing=f"arn:aws:dynamodb:eu-west-1:111122223333:{place}")


def test_a_tables_arn_is_taken() -> None:
    arn = "arn:aws-cn:dynamodb:cn-north-1:111122223333:table/claims"
    assert stores.DynamoDB(existing=arn).bound_to("shop").resource.physical == "claims"
    assert stores.DynamoDB("a label", existing=arn).resource.address == arn


@pytest.mark.parametrize("batched", ["yes", 2])
def test_a_strategy_is_said_with_true_or_false(batched: Any) -> None:
    with pytest.raises(ConfigurationError, match="batched="):
        stores.DynamoDB("table", batched=batched)


def test_a_store_without_a_table_takes_the_pipelines() -> None:
    assert stores.DynamoDB().bound_to("shop").resource.physical == "shop-idempotency"
    assert stores.DynamoDB("mine").bound_to("shop").resource.physical == "mine"
    with pytest.raises(ConfigurationError, match="no table"):
        _ = stores.DynamoDB().resource


def _shop(store: stores.DynamoDB) -> Pipeline:
    shop = Pipeline("shop", idempotency=Claim(store=store))

    @shop.handler(sources.SQS("orders"), key="id")
    def price(order: dict[str, Any]) -> None: ...

    return shop


@pytest.mark.parametrize("batched", [None, True])
async def test_a_local_run_has_statements_too(*, batched: bool | None) -> None:
    async with Local(_shop(stores.DynamoDB("entries", batched=batched))) as run:
        await run.send("orders", [{"id": 1}, {"id": 1}])
        counts = (await run.drain()).handlers["price"]
    assert (counts.succeeded, counts.duplicates) == (1, 1)


async def test_a_memory_store_does_not_keep_what_has_expired(memory: Bench) -> None:
    assert isinstance(memory.store, stores.Memory)
    for first in range(0, 4_000, 500):
        until = memory.clock.now() + LEASE
        requests = [ClaimRequest(id=f"k{first + n}", owner="a", lease_until=until, ttl=TTL) for n in range(500)]
        await memory.store.claim(requests, memory.environment)
        memory.clock.advance(TTL + 2)
    assert len(memory.store.entries) <= 2_048
