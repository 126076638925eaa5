"""What every idempotency store promises: the same suite over each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from pipeline import stores
from pipeline.aws.client import client
from pipeline.decisions.idempotency import (
    AlreadyDone,
    Busy,
    Claimed,
    ClaimRequest,
    Complete,
    Entry,
    Forget,
    Lapsed,
    Release,
    Renewal,
    Settlement,
)
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
        renewal = Renewal(id="k", owner=owner, lease_until=self.clock.now() + lease)
        (reply,) = await self.store.renew([renewal], self.environment)
        return reply


@pytest.fixture
async def memory(environment: ProcessEnvironment, clock: Any) -> Bench:
    store = stores.Memory()

    async def put(entry: Entry) -> None:
        store._entries[entry.id] = entry

    return Bench(store, environment, clock, put)


@pytest.fixture
async def dynamodb(aws: str, environment: ProcessEnvironment, clock: Any, unique: str) -> Bench:
    store = stores.DynamoDB(unique)
    await store.create(environment)
    await store.create(environment)  # a second time changes nothing

    async def put(entry: Entry) -> None:
        service = await client(environment, "dynamodb")
        await service.put_item(TableName=unique, Item=items.item_of(entry))

    return Bench(store, environment, clock, put)


@pytest.fixture
async def redis(redis_server: RedisServer, environment: ProcessEnvironment, clock: Any, unique: str) -> Bench:
    store = stores.Redis(redis_server.url, prefix=f"{unique}:")
    await store.create(environment)

    async def put(entry: Entry) -> None:
        assert await store.mark([entry], environment) == [None]

    return Bench(store, environment, clock, put)


@pytest.fixture(params=["memory", "dynamodb", "redis"])
def bench(request: pytest.FixtureRequest) -> Bench:
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


# What only a store behind a network can get wrong.


async def test_a_lost_answer_to_a_claim_does_not_lose_the_claim(dynamodb: Bench, faults: Any) -> None:
    await faults("dynamodb").lose_replies("PutItem")
    assert isinstance(await dynamodb.claim("a"), StoreUnavailable)
    assert await dynamodb.claim("a") == Claimed(1)


async def test_a_lost_answer_to_a_takeover_does_not_lose_it(dynamodb: Bench, faults: Any) -> None:
    await dynamodb.claim("a")
    await dynamodb.release("a", attempts=1, outputs="[kept]")
    await faults("dynamodb").lose_replies("UpdateItem")
    assert isinstance(await dynamodb.claim("b"), StoreUnavailable)
    assert await dynamodb.claim("b") == Claimed(2, "[kept]")


@pytest.mark.parametrize(
    ("word", "operation"), [("complete", "UpdateItem"), ("release", "UpdateItem"), ("forget", "DeleteItem")]
)
async def test_a_lost_answer_to_a_settlement_shows_as_done(
    dynamodb: Bench, faults: Any, word: str, operation: str
) -> None:
    await dynamodb.claim("a")
    await faults("dynamodb").lose_replies(operation)
    assert isinstance(await getattr(dynamodb, word)("a"), StoreUnavailable)
    assert await getattr(dynamodb, word)("a") is True


async def test_a_lost_request_fails_only_its_own_position(dynamodb: Bench, faults: Any) -> None:
    await faults("dynamodb").lose_requests("PutItem")
    until = dynamodb.clock.now() + LEASE
    requests = [ClaimRequest(id=f"key-{n}", owner="a", lease_until=until, ttl=TTL) for n in range(3)]
    replies = await dynamodb.store.claim(requests, dynamodb.environment)
    assert sorted(type(reply).__name__ for reply in replies) == ["Claimed", "Claimed", "StoreUnavailable"]


async def test_a_missing_table_is_an_outage_and_not_a_go(aws: str, environment: ProcessEnvironment, clock: Any) -> None:
    store = stores.DynamoDB("no-such-table")
    request = ClaimRequest(id="k", owner="a", lease_until=clock.now() + LEASE, ttl=TTL, is_alone=True)
    (reply,) = await store.claim([request], environment)
    assert isinstance(reply, StoreUnavailable)
    assert "no-such-table" in str(reply)


async def test_an_item_that_is_no_entry_is_an_outage_and_not_a_go(dynamodb: Bench) -> None:
    service = await client(dynamodb.environment, "dynamodb")
    assert isinstance(dynamodb.store, stores.DynamoDB)
    await service.put_item(TableName=dynamodb.store.table, Item={"id": {"S": "k"}, "colour": {"S": "red"}})
    assert isinstance(await dynamodb.claim("a"), StoreUnavailable)


def test_batched_writes_are_refused_by_name() -> None:
    with pytest.raises(ConfigurationError, match="batched"):
        stores.DynamoDB("table", batched=True)


def test_a_store_without_a_table_takes_the_pipelines() -> None:
    assert stores.DynamoDB().bound_to("shop").resource.physical == "shop-idempotency"
    assert stores.DynamoDB("mine").bound_to("shop").resource.physical == "mine"
    with pytest.raises(ConfigurationError, match="no table"):
        _ = stores.DynamoDB().resource


async def test_a_memory_store_does_not_keep_what_has_expired(memory: Bench) -> None:
    assert isinstance(memory.store, stores.Memory)
    for first in range(0, 4_000, 500):
        until = memory.clock.now() + LEASE
        requests = [ClaimRequest(id=f"k{first + n}", owner="a", lease_until=until, ttl=TTL) for n in range(500)]
        await memory.store.claim(requests, memory.environment)
        memory.clock.advance(TTL + 2)
    assert len(memory.store.entries) <= 2_048
