"""The table store's statements: how many calls, what one statement's error means for the others, and the race for a key.

On AWS's own DynamoDB Local; what that never answers (throttling, conflicts) a proxy answers in its place.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import botocore
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import stores
from pipeline.decisions.idempotency import (
    Advance,
    AlreadyDone,
    Busy,
    Claimed,
    ClaimReply,
    ClaimRequest,
    Complete,
    Entry,
    Forget,
    Release,
    Renewal,
)
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import StoreUnavailable
from pipeline.stores import items
from tests.contract.conftest import Faults, ManualClock
from tests.flow.proxy import Act, Answer, Proxy, Request

pytestmark = pytest.mark.dynamodb_local

TTL = 1_000
LEASE = 60.0
#: What `create` calls.
MAKING = {"CreateTable", "DescribeTable", "DescribeTimeToLive", "UpdateTimeToLive"}
#: Seconds; what expires then is past by the tests' clock, and not yet by the server's, which deletes it.
SOON = 100
CALL = "BatchExecuteStatement"


@dataclass
class Bench:
    """A table, and one environment that reaches it through a proxy."""

    store: stores.DynamoDB
    environment: ProcessEnvironment
    clock: ManualClock
    proxy: Proxy

    def request(self, key: str, owner: str = "me", **more: Any) -> ClaimRequest:
        return ClaimRequest(id=key, owner=owner, lease_until=self.clock.now() + LEASE, ttl=TTL, **more)

    async def claim(self, *keys: str, owner: str = "me", **more: Any) -> list[ClaimReply | StoreUnavailable]:
        requests = [self.request(key, owner, **more) for key in keys]
        return list(await self.store.claim(requests, self.environment))

    async def put(self, *entries: Entry) -> None:
        assert set(await self.store.mark(entries, self.environment)) == {None}

    async def look(self, key: str) -> Any:
        (found,) = await self.store.look([key], self.environment)
        return found

    @property
    def statements(self) -> list[list[str]]:
        """Of each call, the first words of its statements."""
        return [[one["Statement"].split()[0] for one in call["Statements"]] for call in self.proxy.calls(CALL)]

    @property
    def reads(self) -> list[int]:
        """Of each read, how many keys it asked for."""
        return [
            len(asked["Keys"]) for call in self.proxy.calls("BatchGetItem") for asked in call["RequestItems"].values()
        ]


@pytest.fixture
def proxy(dynamodb_local: str) -> Iterator[Proxy]:
    made = Proxy(dynamodb_local)
    yield made
    made.stop()


@pytest.fixture
async def bench(
    aws: str, proxy: Proxy, environment: ProcessEnvironment, clock: Any, unique: str, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", proxy.url)
    store = stores.DynamoDB(unique, batched=True)
    await store.create(environment)
    return Bench(store, environment, clock, proxy)


# Calls


async def test_sixty_records_take_three_calls_to_claim_and_three_to_complete(bench: Bench) -> None:
    keys = [f"k{n}" for n in range(60)]
    assert await bench.claim(*keys) == [Claimed(1)] * 60
    assert sorted(map(len, bench.statements)) == [10, 25, 25]
    ends = [Complete(id=key, owner="me", ttl=TTL) for key in keys]
    assert await bench.store.settle(ends, bench.environment) == [True] * 60
    assert sorted(map(len, bench.statements)) == [10, 10, 25, 25, 25, 25]
    assert bench.reads == []


async def test_what_is_taken_is_read_in_one_call_and_what_is_free_is_taken_in_another(bench: Bench) -> None:
    now, lease = int(bench.clock.now()), int(bench.clock.now() * 1000)
    bench.clock.advance(SOON + 1)
    open_ = {"status": "INPROGRESS", "expiration": now + TTL, "owner": "o", "attempts": 1}
    await bench.put(
        *(Entry(id=f"done{n}", status="COMPLETED", expiration=now + TTL) for n in range(20)),
        *(Entry(id=f"lapsed{n}", in_progress_expiration=lease - 1, **open_) for n in range(20)),
        *(Entry(id=f"expired{n}", status="COMPLETED", expiration=now + SOON, outputs="[old]") for n in range(20)),
    )
    kinds = ("done", "lapsed", "expired", "new")
    keys = [f"{kind}{n}" for n in range(20) for kind in kinds]
    replies = await bench.claim(*keys, is_alone=True)
    assert replies == [AlreadyDone(), Claimed(2), Claimed(1), Claimed(1)] * 20
    assert [(set(call), len(call)) for call in sorted(bench.statements, key=lambda call: (call[0], len(call)))] == [
        ({"INSERT"}, 5),
        ({"INSERT"}, 25),
        ({"INSERT"}, 25),
        ({"INSERT"}, 25),
        ({"UPDATE"}, 15),
        ({"UPDATE"}, 25),
    ]
    assert bench.reads == [60]


async def test_requests_of_one_key_follow_one_another(bench: Bench) -> None:
    requests = [bench.request("k", owner) for owner in ("a", "b", "c")]
    first, *others = await bench.store.claim([*requests, bench.request("j")], bench.environment)
    assert first == Claimed(1)
    assert [type(one) for one in others] == [Busy, Busy, Claimed]
    assert [len(call) for call in bench.statements] == [2, 1, 1]
    ends = [
        Forget(id="k", owner="a", ttl=TTL),
        Complete(id="k", owner="a", ttl=TTL),
        Forget(id="k", owner="a", ttl=TTL),
    ]
    assert await bench.store.settle(ends, bench.environment) == [True, False, True]


async def test_large_kept_outputs_are_spread_over_calls(bench: Bench) -> None:
    keys = [f"k{n}" for n in range(10)]
    await bench.claim(*keys)
    kept = "x" * 300_000
    before = len(bench.statements)
    ends = [Release(id=key, owner="me", ttl=TTL, attempts=1, outputs=kept) for key in keys]
    assert await bench.store.settle(ends, bench.environment) == [True] * 10
    assert sorted(map(len, bench.statements[before:])) == [1, 3, 3, 3]
    assert await bench.claim(*keys, owner="next") == [Claimed(2, kept)] * 10


# One statement's error


def answering(*errors: str | None) -> Act:
    """Carry nothing out, and answer each statement with this error, or with success."""

    def act(request: Request, forward: Callable[[], Answer]) -> Answer:
        assert len(request.body["Statements"]) == len(errors)
        responses = [
            {"TableName": "t"} if code is None else {"Error": {"Code": code, "Message": "of 'secret'"}}
            for code in errors
        ]
        return Answer(200, json.dumps({"Responses": responses}).encode())

    return act


PASSING = (
    "ThrottlingError",
    "ProvisionedThroughputExceeded",
    "RequestLimitExceeded",
    "TransactionConflict",
    "InternalServerError",
)


@pytest.mark.parametrize("code", PASSING)
async def test_a_statement_that_met_passing_trouble_is_sent_again_by_itself(bench: Bench, code: str) -> None:
    bench.proxy.next(CALL, answering(None, code, None))
    assert await bench.claim("a", "b", "c") == [Claimed(1)] * 3
    assert [len(call) for call in bench.statements] == [3, 1]
    assert isinstance(await bench.look("b"), Entry)
    assert len(bench.clock.slept) == 1
    assert 0 <= bench.clock.slept[0] <= 0.1


@pytest.mark.parametrize("code", PASSING)
async def test_trouble_that_does_not_pass_is_an_outage_for_its_position_alone(bench: Bench, code: str) -> None:
    bench.proxy.next(CALL, answering(None, code), *[answering(code)] * 3)
    first, second = await bench.claim("a", "secret")
    assert first == Claimed(1)
    assert isinstance(second, StoreUnavailable)
    assert code in str(second)
    assert "secret" not in str(second)
    assert len(bench.clock.slept) == 3
    assert all(slept <= longest for slept, longest in zip(bench.clock.slept, (0.1, 0.2, 0.4), strict=True))


@pytest.mark.parametrize("code", ["ValidationError", "AccessDenied", "ResourceNotFound", "ItemCollectionSizeLimitExceeded", "NewOne"])  # fmt: skip
async def test_an_error_that_will_not_pass_is_told_at_once_by_its_code(bench: Bench, code: str) -> None:
    bench.proxy.next(CALL, answering(code, None))
    odd, fine = await bench.claim("a", "b")
    assert fine == Claimed(1)
    assert isinstance(odd, StoreUnavailable)
    assert code in str(odd)
    assert "secret" not in str(odd)
    assert bench.clock.slept == []
    bench.proxy.next(CALL, answering(None, code))
    ends = [Complete(id=key, owner="me", ttl=TTL) for key in ("a", "b")]
    done, odd = await bench.store.settle(ends, bench.environment)
    assert done is True
    assert isinstance(odd, StoreUnavailable)
    bench.proxy.next(CALL, answering(code))
    (odd,) = await bench.store.renew([Renewal(id="b", owner="me", lease_until=0.0, ttl=TTL)], bench.environment)
    assert isinstance(odd, StoreUnavailable)


async def test_an_internal_error_after_the_write_was_done_does_not_lose_the_claim(bench: Bench) -> None:
    def done_after_all(request: Request, forward: Callable[[], Answer]) -> Answer:
        forward()
        return answering("InternalServerError")(request, forward)  # type: ignore[return-value]

    bench.proxy.next(CALL, done_after_all)
    assert await bench.claim("a") == [Claimed(1)]
    bench.proxy.next(CALL, done_after_all)
    assert await bench.store.settle([Complete(id="a", owner="me", ttl=TTL)], bench.environment) == [True]


async def test_an_entry_that_comes_with_a_refused_insert_is_not_read_again(bench: Bench) -> None:
    there = Entry(id="k", status="COMPLETED", expiration=2**40, data="7")

    def bring(request: Request, forward: Callable[[], Answer]) -> Answer:
        error = {"Code": "DuplicateItem", "Item": items.item_of(there)}
        return Answer(200, json.dumps({"Responses": [{"Error": error}]}).encode())

    bench.proxy.next(CALL, bring)
    assert await bench.claim("k") == [AlreadyDone("7")]
    assert bench.reads == []


async def test_an_invalid_call_is_told_without_what_was_in_it(bench: Bench) -> None:
    def refuse(request: Request, forward: Callable[[], Answer]) -> Answer:
        return Answer(400, json.dumps({"__type": "ValidationException", "message": "of 'secret'"}).encode())

    bench.proxy.next(CALL, refuse)
    (reply,) = await bench.claim("secret")
    assert isinstance(reply, StoreUnavailable)
    assert "ValidationException" in str(reply)
    assert "secret" not in str(reply)


async def test_a_call_that_fails_fails_for_what_was_in_it(bench: Bench, faults: Callable[[str], Faults]) -> None:
    await faults("dynamodb").lose_requests(CALL)
    replies = await bench.claim(*(f"k{n}" for n in range(60)))
    assert [isinstance(reply, StoreUnavailable) for reply in replies] == [True] * 25 + [False] * 35
    assert replies[25:] == [Claimed(1)] * 35


async def test_a_lost_answer_loses_no_claim_of_its_call(bench: Bench, faults: Callable[[str], Faults]) -> None:
    await faults("dynamodb").lose_replies(CALL)
    keys = [f"k{n}" for n in range(60)]
    replies = await bench.claim(*keys)
    assert sum(isinstance(reply, StoreUnavailable) for reply in replies) in (10, 25)
    assert await bench.claim(*keys) == [Claimed(1)] * 60


async def test_a_failed_read_is_an_outage_of_those_whose_key_is_taken(
    bench: Bench, faults: Callable[[str], Faults]
) -> None:
    await bench.claim("a", "b")
    await faults("dynamodb").lose_requests("BatchGetItem")
    first, fresh, second = await bench.claim("a", "c", "b", owner="other")
    assert isinstance(first, StoreUnavailable)
    assert isinstance(second, StoreUnavailable)
    assert fresh == Claimed(1)


# What ends a run is tried for longer


def throttled(request: Request, forward: Callable[[], Answer]) -> Answer:
    """Refuse the whole call."""
    return Answer(400, json.dumps({"__type": "ThrottlingException", "message": "slowly"}).encode())


@pytest.mark.parametrize("code", PASSING)
async def test_an_end_is_tried_again_for_seconds(bench: Bench, code: str) -> None:
    await bench.claim("a", "b")
    bench.proxy.next(CALL, answering(None, code), *[answering(code)] * 9)
    ends = [Release(id=key, owner="me", ttl=TTL, attempts=1) for key in ("a", "b")]
    assert await bench.store.settle(ends, bench.environment) == [True, True]
    longest = (0.1, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0)
    assert all(slept <= most for slept, most in zip(bench.clock.slept, longest, strict=True))
    assert (await bench.look("b")).in_progress_expiration == 0


async def test_an_end_that_cannot_be_written_is_given_up(bench: Bench) -> None:
    await bench.claim("secret")
    bench.proxy.next(CALL, *[answering("ThrottlingError")] * 10)
    (done,) = await bench.store.settle([Complete(id="secret", owner="me", ttl=TTL)], bench.environment)
    assert isinstance(done, StoreUnavailable)
    assert "ThrottlingError, 10 times" in str(done)
    assert "secret" not in str(done)
    assert len(bench.clock.slept) == 9


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("word", ["complete", "release", "forget", "mark", "advance"])
async def test_an_end_outlasts_the_client_where_whole_calls_are_throttled(
    bench: Bench, word: str, batched: bool
) -> None:
    store = stores.DynamoDB(bench.store.table, batched=batched)
    await bench.claim("k")
    name = {"forget": "DeleteItem", "mark": "BatchWriteItem"}.get(word, "UpdateItem")
    bench.proxy.next(CALL if batched and word not in ("mark", "advance") else name, *[throttled] * 7)
    answers: Any
    if word == "mark":
        answers = await store.mark([Entry(id="k", status="COMPLETED", expiration=2**40)], bench.environment)
    elif word == "advance":
        answers = await store.advance([Advance(id="lane", position="1", ttl=TTL)], bench.environment)
    else:
        answers = await store.settle([_end(word, {"id": "k", "owner": "me", "ttl": TTL}, None)], bench.environment)
    assert answers == [None if word == "mark" else True]


@pytest.mark.parametrize("batched", [True, False])
async def test_a_claim_is_given_up_with_the_client(bench: Bench, batched: bool) -> None:
    store = stores.DynamoDB(bench.store.table, batched=batched)
    bench.proxy.next(CALL if batched else "PutItem", *[throttled] * 3)
    (reply,) = await store.claim([bench.request("k")], bench.environment)
    assert isinstance(reply, StoreUnavailable)
    assert await bench.claim("k") == [Claimed(1)]


# Reads and whole writes that are left undone


def unread(*left: int) -> Act:
    """Read all but these."""

    def act(request: Request, forward: Callable[[], Answer]) -> Answer:
        ((table, asked),) = request.body["RequestItems"].items()
        answer = forward()
        body = json.loads(answer.body)
        keys = [asked["Keys"][number] for number in left]
        body["Responses"][table] = [one for one in body["Responses"][table] if {"id": one["id"]} not in keys]
        body["UnprocessedKeys"] = {table: {**asked, "Keys": keys}}
        return Answer(answer.status, json.dumps(body).encode())

    return act


def unwritten(request: Request, forward: Callable[[], Answer]) -> Answer:
    """Write nothing."""
    return Answer(200, json.dumps({"UnprocessedItems": request.body["RequestItems"]}).encode())


async def test_what_a_read_left_out_is_read_again(bench: Bench) -> None:
    written = [Entry(id=f"k{n}", status="COMPLETED", expiration=2**40, data=str(n)) for n in range(3)]
    await bench.put(*written)
    bench.proxy.next("BatchGetItem", unread(0, 2, 3), unread(1))
    found = await bench.store.look(["k0", "k1", "k2", "absent"], bench.environment)
    assert found == [*written, None]
    assert bench.reads == [4, 3, 1]
    assert len(bench.clock.slept) == 2


async def test_a_read_that_brings_one_entry_at_a_time_brings_them_all(bench: Bench) -> None:
    """As of entries so large that few fit into an answer."""
    written = [Entry(id=f"k{n}", status="COMPLETED", expiration=2**40, data=str(n)) for n in range(12)]
    await bench.put(*written)
    bench.proxy.next("BatchGetItem", *(unread(*range(1, left)) for left in range(12, 1, -1)))
    assert await bench.store.look([entry.id for entry in written], bench.environment) == written
    assert bench.reads == list(range(12, 0, -1))
    assert max(bench.clock.slept) <= 0.1, "what brings something is no failure"


async def test_what_is_never_read_is_an_outage_and_not_absent(bench: Bench) -> None:
    bench.proxy.next("BatchGetItem", unread(1), *[unread(0)] * 4)
    absent, unknown = await bench.store.look(["a", "b"], bench.environment)
    assert absent is None
    assert isinstance(unknown, StoreUnavailable)


async def test_what_was_left_unwritten_is_written_again(bench: Bench) -> None:
    written = [Entry(id=f"k{n}", status="COMPLETED", expiration=2**40) for n in range(30)]
    bench.proxy.next("BatchWriteItem", unwritten, unwritten)
    await bench.put(*written)
    assert await bench.store.look([entry.id for entry in written], bench.environment) == written
    bench.proxy.next("BatchWriteItem", *[unwritten] * 10)
    (failed,) = await bench.store.mark([Entry(id="k", status="COMPLETED", expiration=1)], bench.environment)
    assert isinstance(failed, StoreUnavailable)


# The race


@pytest.fixture
async def beside(bench: Bench, clock: ManualClock) -> AsyncIterator[Bench]:
    """Another process at the same table."""
    made = ProcessEnvironment(clock=clock)
    yield replace(bench, environment=made)
    await made.aclose()


@pytest.mark.parametrize("before", ["nothing", "lapsed", "expired"])
async def test_of_fifty_owners_each_key_has_one(bench: Bench, beside: Bench, before: str) -> None:
    now, lease = int(bench.clock.now()), int(bench.clock.now() * 1000)
    bench.clock.advance(SOON + 1)
    keys = [f"k{n}" for n in range(20)]
    old = {"status": "INPROGRESS", "owner": "o", "attempts": 1, "in_progress_expiration": lease - 1}
    if before != "nothing":
        expiration = now + (SOON if before == "expired" else TTL)
        await bench.put(*(Entry(id=key, expiration=expiration, **old) for key in keys))

    async def play(number: int) -> list[ClaimReply | StoreUnavailable]:
        one = (bench, beside)[number % 2]
        return await one.claim(*keys, owner=f"o{number}", is_alone=True)

    replies = await asyncio.gather(*map(play, range(50)))
    for number, key in enumerate(keys):
        answers = [reply[number] for reply in replies]
        (winner,) = [owner for owner, answer in enumerate(answers) if isinstance(answer, Claimed)]
        assert sum(isinstance(answer, Busy) for answer in answers) == 49
        found = await bench.look(key)
        assert found.owner == f"o{winner}"
        assert found.attempts == (2 if before == "lapsed" else 1)


@pytest.mark.parametrize("change", ["renewed", "completed", "taken"])
async def test_what_changed_between_the_read_and_the_takeover_is_not_taken(bench: Bench, change: str) -> None:
    """The entry is read as lapsed, and then its owner comes back, or another one is quicker."""
    now, lease = int(bench.clock.now()), int(bench.clock.now() * 1000)
    lapsed = Entry(
        id="k", status="INPROGRESS", expiration=now + TTL, owner="o", attempts=1, in_progress_expiration=lease - 1
    )
    await bench.put(lapsed)
    changes = {"in_progress_expiration": lease + 9_000}
    after = {
        "renewed": Entry(**{**_fields(lapsed), **changes}),
        "completed": Entry(**{**_fields(lapsed), "status": "COMPLETED", "data": "7"}),
        "taken": Entry(**{**_fields(lapsed), **changes, "owner": "quicker", "attempts": 2}),
    }[change]
    bench.proxy.next("BatchGetItem", _then_put(bench, after))
    (reply,) = await bench.claim("k", is_alone=True)
    assert reply == (AlreadyDone("7") if change == "completed" else Busy((lease + 9_000) / 1000))
    assert await bench.look("k") == after
    assert bench.statements == [["INSERT"], ["UPDATE"]]


async def test_what_another_took_and_gave_back_meanwhile_is_taken_as_that_one_left_it(bench: Bench) -> None:
    """Both times it is released, with the same lease: none."""
    common = {
        "id": "k",
        "status": "INPROGRESS",
        "expiration": int(bench.clock.now()) + TTL,
        "in_progress_expiration": 0,
    }
    await bench.put(Entry(**common, owner="o", attempts=1))
    after = Entry(**common, owner="quicker", attempts=2, outputs="[kept]")
    bench.proxy.next("BatchGetItem", _then_put(bench, after))
    assert await bench.claim("k") == [Claimed(3, "[kept]")]
    assert bench.statements == [["INSERT"], ["UPDATE"], ["UPDATE"]]


async def test_a_key_that_changes_under_its_claimers_hands_is_called_busy_in_the_end(bench: Bench) -> None:
    """Each time it is read as absent, and each time somebody is quicker and gone again."""
    bench.proxy.next(CALL, *[answering("DuplicateItem")] * 4)
    (reply,) = await bench.claim("k")
    assert isinstance(reply, Busy)
    assert len(bench.statements) == 4


def _then_put(bench: Bench, entry: Entry) -> Act:
    """Read, and then let somebody else write this in its place before the answer arrives."""

    def act(request: Request, forward: Callable[[], Answer]) -> Answer:
        answer = forward()
        body = json.dumps({"TableName": bench.store.table, "Item": items.item_of(entry)}).encode()
        assert bench.proxy.forward("/", _signed("PutItem"), body).status == 200
        return answer

    return act


def _fields(entry: Entry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


def _signed(operation: str) -> dict[str, str]:
    """DynamoDB Local takes any signature; the key and the region say whose tables are meant."""
    scope = f"{os.environ['AWS_ACCESS_KEY_ID']}/20260101/{os.environ['AWS_REGION']}/dynamodb/aws4_request"
    return {
        "Content-Type": "application/x-amz-json-1.0",
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        "X-Amz-Date": "20260101T000000Z",
        "Authorization": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
    }


# The same answers as in memory

OWNERS = st.sampled_from(["a", "b", "c"])
KEYS = st.sampled_from(["k1", "k2", "k3"])
CLAIMS = st.lists(
    st.tuples(KEYS, OWNERS, st.booleans(), st.sampled_from(["r1", "r2"]), st.sampled_from([None, "v1", "v2"])),
    min_size=1,
    max_size=4,
).map(lambda claims: ("claim", claims))
ENDS = st.lists(
    st.tuples(
        st.sampled_from(["complete", "release", "reject", "forget"]), KEYS, OWNERS, st.sampled_from([None, "[1]"])
    ),
    min_size=1,
    max_size=4,
).map(lambda ends: ("settle", ends))
RENEWALS = st.tuples(st.just("renew"), st.lists(st.tuples(KEYS, OWNERS), min_size=1, max_size=3))
PAUSES = st.sampled_from([1.0, LEASE + 1, TTL + 2.0]).map(lambda seconds: ("pause", seconds))
_numbers = itertools.count()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(CLAIMS | ENDS | RENEWALS | PAUSES, max_size=12))
def test_any_calls_are_answered_as_they_are_in_memory(
    at_dynamodb_local: str, worker_table: str, steps: Sequence[tuple[str, Any]]
) -> None:
    asyncio.run(_compare(stores.DynamoDB(worker_table, batched=True), steps))


@pytest.fixture
def worker_table(at_dynamodb_local: str, unique: str) -> str:
    async def make() -> None:
        environment = ProcessEnvironment()
        await stores.DynamoDB(unique).create(environment)
        await environment.aclose()

    asyncio.run(make())
    return unique


async def _compare(store: stores.DynamoDB, steps: Sequence[tuple[str, Any]]) -> None:
    clock, prefix, memory = ManualClock(), f"{next(_numbers)}-", stores.Memory()
    environment = ProcessEnvironment(clock=clock)
    try:
        for word, what in steps:
            if word == "pause":
                clock.advance(what)
                continue
            asked = _asked(word, what, prefix, clock.now())
            found, expected = [await getattr(one, word)(asked, environment) for one in (store, memory)]
            assert list(found) == list(expected), (word, what)
        ids = [prefix + key for key in ("k1", "k2", "k3")]
        assert await store.look(ids, environment) == await memory.look(ids, environment)
    finally:
        await environment.aclose()


def _asked(word: str, what: Any, prefix: str, now: float) -> list[Any]:
    if word == "claim":
        return [
            ClaimRequest(
                id=prefix + key, owner=owner, lease_until=now + LEASE, ttl=TTL, is_alone=alone, record=record,
                validation=validation,
            )
            for key, owner, alone, record, validation in what
        ]  # fmt: skip
    if word == "renew":
        return [Renewal(id=prefix + key, owner=owner, lease_until=now + 2 * LEASE, ttl=TTL) for key, owner in what]
    return [_end(end, {"id": prefix + key, "owner": owner, "ttl": TTL}, text) for end, key, owner, text in what]


def _end(word: str, common: dict[str, Any], text: str | None) -> Complete | Release | Forget:
    match word:
        case "complete":
            return Complete(**common, data=text)
        case "release":
            return Release(**common, attempts=1, outputs=text)
        case "reject":
            return Release(**common, attempts=0, rejected=("r1",))
        case _:
            return Forget(**common)


# Which strategy


async def test_where_the_endpoint_is_not_awss_own_writes_are_single(
    bench: Bench, faults: Callable[[str], Faults]
) -> None:
    by_rule = stores.DynamoDB(bench.store.table)
    assert await by_rule.claim([bench.request("k")], bench.environment) == [Claimed(1)]
    assert bench.statements == []
    assert len(bench.proxy.calls("PutItem")) == 1


ANSWER = {"Responses": [{}]}


@pytest.mark.parametrize(
    ("region", "is_dual_stack"),
    [
        ("eu-west-1", False),
        ("eu-west-1", True),
        ("cn-north-1", False),
        ("us-gov-west-1", False),
        ("us-iso-east-1", False),
    ],
)
async def test_where_it_is_they_share_calls(
    environment: ProcessEnvironment,
    faults: Callable[[str], Faults],
    aws: str,
    monkeypatch: pytest.MonkeyPatch,
    region: str,
    is_dual_stack: bool,
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_REGION", region)
    monkeypatch.setenv("AWS_USE_DUALSTACK_ENDPOINT", str(is_dual_stack).lower())
    calls = faults("dynamodb")
    await calls.record(CALL)
    await calls.answer(CALL, ANSWER)
    request = ClaimRequest(id="k", owner="me", lease_until=1.0, ttl=1)
    assert await stores.DynamoDB("ours").claim([request], environment) == [Claimed(1)]
    assert len(calls.calls) == 1


async def test_a_table_of_others_is_written_to_by_single_writes_unless_it_is_said_to_be_in_reach(
    environment: ProcessEnvironment, faults: Callable[[str], Faults], aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    arn = "arn:aws:dynamodb:eu-west-1:111122223333:table/theirs"
    request = ClaimRequest(id="k", owner="me", lease_until=1.0, ttl=1)
    calls = faults("dynamodb")
    for operation, answer in (("PutItem", {}), (CALL, ANSWER)):
        await calls.record(operation)
        await calls.answer(operation, answer)
    await stores.DynamoDB("t", existing=arn).claim([request], environment)
    await stores.DynamoDB("t", existing=arn, batched=True).claim([request], environment)
    put, together = calls.calls
    assert put["TableName"] == arn
    assert together["Statements"][0]["Statement"].startswith('INSERT INTO "theirs" ')


@pytest.mark.parametrize(
    "partition",
    json.loads((Path(botocore.__file__).parent / "data/partitions.json").read_text())["partitions"],
    ids=lambda partition: partition["id"],
)
def test_every_partition_of_awss_is_known(partition: dict[str, Any]) -> None:
    from pipeline.stores.dynamodb import _is_aws

    for suffix in (partition["outputs"]["dnsSuffix"], partition["outputs"]["dualStackDnsSuffix"]):
        assert _is_aws(f"https://dynamodb.some-region-1.{suffix}")
        assert _is_aws(f"https://vpce-1-2.dynamodb.some-region-1.vpce.{suffix}:443/")
        assert not _is_aws(f"https://dynamodb.{suffix}.example.org")
        assert not _is_aws(f"http://localhost:8000/{suffix}")


@pytest.mark.parametrize(
    ("store", "actions"),
    [
        (stores.DynamoDB("ours"), "PartiQLInsert BatchGetItem PartiQLUpdate PartiQLDelete"),
        (stores.DynamoDB("ours", batched=True), "PartiQLInsert BatchGetItem PartiQLUpdate PartiQLDelete"),
        (stores.DynamoDB("ours", batched=False), "PutItem UpdateItem DeleteItem"),
        (stores.DynamoDB("t", existing="arn:aws:dynamodb:eu-west-1:1:table/theirs"), "PutItem UpdateItem DeleteItem"),
    ],
    ids=["by rule", "batched", "single", "existing"],
)
def test_a_role_allows_what_the_strategy_calls(store: stores.DynamoDB, actions: str) -> None:
    (with_deletes,) = store.grants(forgets=True)
    (without,) = store.grants(forgets=False)
    assert with_deletes.actions == tuple(f"dynamodb:{name}" for name in actions.split())
    assert without.actions == with_deletes.actions[:-1]


@pytest.mark.parametrize("forgets", [True, False])
@pytest.mark.parametrize(
    ("mode", "calls"),
    [("mark", {"BatchGetItem", "BatchWriteItem"}), ("checkpoint", {"BatchGetItem", "UpdateItem"})],
)
async def test_the_other_modes_are_allowed_their_own_calls(
    bench: Bench, mode: Any, calls: set[str], forgets: bool
) -> None:
    entry = Entry(id="k", status="COMPLETED", expiration=1)
    await bench.store.look(["k"], bench.environment)
    if mode == "mark":
        await bench.store.mark([entry], bench.environment)
    else:
        await bench.store.advance([Advance(id="k", position="1", ttl=TTL)], bench.environment)
    made = {request.operation for request in bench.proxy.requests} - MAKING
    (grant,) = bench.store.grants(forgets=forgets, mode=mode)
    assert made == calls
    assert set(grant.actions) == {f"dynamodb:{name}" for name in calls}


async def test_no_statement_holds_a_value(bench: Bench) -> None:
    """What is a parameter cannot be read as a statement."""
    values = "Robert'; DELETE FROM x", "[out'puts]", "{}", "rec", "hash"
    now = bench.clock.now()
    for _ in range(2):  # the second time over an entry that has expired
        await bench.claim(values[0], owner=values[3], validation=values[4])
        common = {"id": values[0], "owner": values[3], "ttl": TTL}
        await bench.store.renew([Renewal(id=values[0], owner=values[3], lease_until=now, ttl=TTL)], bench.environment)
        await bench.store.settle(
            [Release(**common, attempts=1, outputs=values[1], rejected=("rec",))], bench.environment
        )
        await bench.claim(values[0], owner=values[3] + "2", validation=values[4])
        await bench.store.settle([Complete(**{**common, "owner": "rec2"}, data=values[2])], bench.environment)
        await bench.store.settle([Forget(**common)], bench.environment)
        bench.clock.advance(TTL + 2)
    texts = {one["Statement"] for call in bench.proxy.calls(CALL) for one in call["Statements"]}
    assert {text.split()[0] for text in texts} == {"INSERT", "UPDATE", "DELETE"}
    assert [text for text in texts for value in values if value.strip("{}[]") and value in text] == []
