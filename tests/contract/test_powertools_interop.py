"""One table for two libraries: Powertools' idempotency utility itself, and our store, side by side.

The second half runs each fault that was found in the utility's version 3.37 against our store.
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyAlreadyInProgressError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import stores
from pipeline.aws.client import client
from pipeline.decisions.codec import Document
from pipeline.decisions.idempotency import AlreadyDone, Busy, Claimed, ClaimRequest, Complete, Forget, Release, Renewal
from pipeline.decisions.keys import entry_id, key_text
from pipeline.engine.environment import ProcessEnvironment

PREFIX = "shop.price"
TTL = 3_600


class Context:
    """A Lambda context with this much time left."""

    def __init__(self, milliseconds: int = 30_000) -> None:
        self._milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        return self._milliseconds


@dataclasses.dataclass
class Both:
    """One table, and both libraries at it."""

    table: str
    store: stores.DynamoDB
    environment: ProcessEnvironment
    clock: Any
    boto: Any

    def powertools(self, function: Callable[[Any], Any], milliseconds: int | None = 30_000) -> Callable[[Any], Any]:
        """The function made idempotent by Powertools, keyed by its whole argument."""
        config = IdempotencyConfig(expires_after_seconds=TTL)
        if milliseconds is not None:
            config.register_lambda_context(Context(milliseconds))  # type: ignore[arg-type]
        layer = DynamoDBPersistenceLayer(table_name=self.table, boto3_client=self.boto)

        @idempotent_function(data_keyword_argument="data", config=config, persistence_store=layer, key_prefix=PREFIX)
        def run(data: Any) -> Any:
            return function(data)

        return lambda data: run(data=data)

    async def claim(self, data: Any, owner: str = "us", lease: float = 60.0) -> Any:
        request = ClaimRequest(id=key(data), owner=owner, lease_until=self.clock.now() + lease, ttl=TTL, is_alone=True)
        (reply,) = await self.store.claim([request], self.environment)
        return reply

    async def complete(self, data: Any, owner: str = "us") -> Any:
        (reply,) = await self.store.settle([Complete(id=key(data), owner=owner, ttl=TTL)], self.environment)
        return reply

    async def item(self, data: Any) -> dict[str, Any]:
        service = await client(self.environment, "dynamodb")
        answer = await service.get_item(TableName=self.table, Key={"id": {"S": key(data)}})
        found: dict[str, Any] = answer.get("Item", {})
        return found


def key(data: Any) -> str:
    return entry_id(PREFIX, key_text(data))


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.dynamodb_local)], ids=["single", "batched"])
async def both(
    request: pytest.FixtureRequest, aws: str, environment: ProcessEnvironment, clock: Any, unique: str
) -> AsyncIterator[Both]:
    """Single writes on moto, and statements together on AWS's own DynamoDB Local."""
    if request.param:
        request.getfixturevalue("at_dynamodb_local")
    store = stores.DynamoDB(unique, batched=request.param)
    await store.create(environment)
    boto = boto3.client("dynamodb")
    yield Both(unique, store, environment, clock, boto)
    boto.close()


async def in_thread(function: Callable[[Any], Any], data: Any) -> Any:
    return await asyncio.to_thread(function, data)


# Keys


@pytest.fixture
def their_key(aws: str) -> Callable[[Any], str]:
    layer = DynamoDBPersistenceLayer(table_name="any", boto3_client=object())  # type: ignore[arg-type]
    layer.configure(IdempotencyConfig(), function_name="f", key_prefix=PREFIX)

    def of(data: Any) -> str:
        found = layer._get_hashed_idempotency_key(data=data)
        assert found is not None
        return found

    return of


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON.map(lambda data: {"key": data, "n": 1}))  # what holds nothing but null is no key to either
def test_every_json_key_has_the_same_id_in_both(their_key: Callable[[Any], str], data: Any) -> None:
    raw = Document(json.dumps(data)).value()
    assert key(raw) == their_key(data)


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Order:
    number: int
    name: str


@pytest.mark.parametrize(
    "data",
    [
        "schöne Grüße 😀",
        2**70,
        -(2**64) - 1,
        0.1,
        1e22,
        1e400,
        123456789.123456789,
        True,
        ["a", 1, None],
        {"b": 1, "a": {"d": 2, "c": [3]}},
        {"ü": "\u2028", "plain": "\x00"},
        {"when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "day": date(2026, 1, 2), "amount": Decimal("1.10")},
        {"colour": Colour.RED, "id": uuid.UUID(int=7), "path": PurePosixPath("/a/b")},
        {"order": Order(1, "x")},
    ],
    ids=repr,
)
def test_keys_of_every_kind_have_the_same_id_in_both(their_key: Callable[[Any], str], data: Any) -> None:
    assert key(data) == their_key(data)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("order-1", "shop.price#729040816f7330c4cb31f54a56f59a7b"),
        ({"b": 1, "a": ["ü", 2**70]}, "shop.price#df272b3f4b2f289e34c8422168b4ac54"),
        (0.1, "shop.price#cb5ae17636e975f9bf71ddf5bc542075"),
    ],
)
def test_an_id_never_changes(their_key: Callable[[Any], str], data: Any, expected: str) -> None:
    assert key(data) == expected
    assert their_key(data) == expected


# The table


async def test_what_powertools_completed_is_a_duplicate_for_us(both: Both) -> None:
    assert await in_thread(both.powertools(lambda data: {"price": 1}), {"order": "ü", "n": 2**70}) == {"price": 1}
    assert await both.claim({"order": "ü", "n": 2**70}) == AlreadyDone('{"price": 1}')


async def test_what_we_completed_is_a_duplicate_for_powertools(both: Both) -> None:
    runs: list[Any] = []
    assert await both.claim("k") == Claimed(1)
    assert await both.complete("k") is True
    assert await in_thread(both.powertools(runs.append), "k") is None
    assert runs == []


async def test_while_we_hold_a_claim_powertools_does_not_run(both: Both) -> None:
    runs: list[Any] = []
    await both.claim("k")
    with pytest.raises(IdempotencyAlreadyInProgressError):
        await in_thread(both.powertools(runs.append), "k")
    assert runs == []


@pytest.mark.filterwarnings("ignore:Couldn't determine the remaining time left:UserWarning")
@pytest.mark.parametrize("milliseconds", [30_000, None])
async def test_while_powertools_runs_we_wait(both: Both, milliseconds: int | None) -> None:
    loop = asyncio.get_running_loop()

    def nested(data: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(both.claim(data), loop).result()

    reply = await in_thread(both.powertools(lambda data: isinstance(nested(data), Busy), milliseconds), "k")
    assert reply is True


async def test_a_claim_that_we_released_or_let_lapse_is_free_for_powertools(both: Both) -> None:
    runs: list[Any] = []
    await both.claim("released")
    await both.store.settle([Release(id=key("released"), owner="us", ttl=TTL, attempts=1)], both.environment)
    await in_thread(both.powertools(runs.append), "released")
    await both.claim("lapsed", lease=-1.0)
    await in_thread(both.powertools(runs.append), "lapsed")
    assert runs == ["released", "lapsed"]


async def test_a_run_of_powertools_that_died_is_taken_over_by_us(both: Both) -> None:
    def die(data: Any) -> None:
        raise SystemExit  # Powertools does not catch it, as it does not see a time-out

    with pytest.raises(SystemExit):
        both.powertools(die, milliseconds=0)("k")
    both.clock.advance(TTL / 2)  # Powertools reads the machine's clock, which went on since ours was set
    assert await both.claim("k") == Claimed(1)
    assert await both.complete("k") is True


async def test_a_failure_in_powertools_frees_the_key_for_us(both: Both) -> None:
    def fail(data: Any) -> None:
        raise ValueError("no price")

    with pytest.raises(ValueError, match="no price"):
        await in_thread(both.powertools(fail), "k")
    assert await both.claim("k") == Claimed(1)


async def test_after_powertools_took_over_we_can_write_nothing(both: Both) -> None:
    await both.claim("k", lease=-1.0)
    await in_thread(both.powertools(lambda data: "theirs"), "k")
    assert await both.complete("k") is False
    end = {"id": key("k"), "owner": "us", "ttl": TTL}
    assert await both.store.settle([Forget(**end), Release(**end, attempts=1)], both.environment) == [False, False]
    renewal = Renewal(id=key("k"), owner="us", lease_until=both.clock.now() + 60, ttl=100)
    assert await both.store.renew([renewal], both.environment) == [False]
    assert (await both.item("k"))["data"] == {"S": '"theirs"'}


async def test_our_entries_have_the_types_that_powertools_reads(both: Both) -> None:
    await both.claim("k")
    await both.complete("k")
    found = await both.item("k")
    assert {name: next(iter(value)) for name, value in found.items()} == {
        "id": "S",
        "status": "S",
        "expiration": "N",
        "in_progress_expiration": "N",
        "data": "S",
        "owner": "S",
        "attempts": "N",
    }
    assert (found["status"], found["data"]) == ({"S": "COMPLETED"}, {"S": "null"})


# The faults of the utility, which ours does not have


async def test_one_store_may_be_used_by_a_run_inside_another(both: Both) -> None:
    """There, the outer entry stays in progress, and the inner prefix gets the outer result."""
    assert await both.claim("outer", "o") == Claimed(1)
    assert await both.claim("inner", "i") == Claimed(1)
    assert await both.complete("inner", "i") is True
    assert await both.complete("outer", "o") is True
    assert await both.claim("outer") == AlreadyDone()
    assert await both.claim("inner") == AlreadyDone()
    service = await client(both.environment, "dynamodb")
    assert (await service.scan(TableName=both.table))["Count"] == 2


async def test_one_store_serves_handlers_that_are_configured_differently(both: Both) -> None:
    """There, a store keeps the first configuration that it is given."""
    now = both.clock.now()
    short = ClaimRequest(id=entry_id("shop.a", '"k"'), owner="a", lease_until=now + 10, ttl=100, is_alone=True)
    long = ClaimRequest(id=entry_id("shop.b", '"k"'), owner="b", lease_until=now + 500, ttl=9_000, is_alone=True)
    assert await both.store.claim([short, long], both.environment) == [Claimed(1), Claimed(1)]
    service = await client(both.environment, "dynamodb")
    items = (await service.scan(TableName=both.table))["Items"]
    assert {int(item["expiration"]["N"]) - int(now) for item in items} == {100, 9_000}
    assert {int(item["in_progress_expiration"]["N"]) for item in items} == {
        int((now + 10) * 1000),
        int((now + 500) * 1000),
    }


async def test_a_late_run_neither_deletes_nor_overwrites_the_next_ones_result(both: Both) -> None:
    """There, completing and failing are unconditional writes."""
    await both.claim("k", "late", lease=1.0)
    both.clock.advance(2)
    assert await both.claim("k", "next") == Claimed(2)
    assert await both.complete("k", "next") is True
    before = await both.item("k")
    end = {"id": key("k"), "owner": "late", "ttl": TTL}
    ends = [Forget(**end), Release(**end, attempts=1), Complete(**end)]
    for settlement in ends:
        assert await both.store.settle([settlement], both.environment) == [False]
    assert await both.item("k") == before


async def test_completing_keeps_what_else_stands_in_the_entry(both: Both) -> None:
    """There, the Redis layer loses the payload's hash on completion, so that a retry is refused."""
    now = both.clock.now()
    foreign = {
        "id": {"S": key("k")},
        "status": {"S": "INPROGRESS"},
        "expiration": {"N": str(int(now) + 100)},
        "in_progress_expiration": {"N": str(int(now * 1000) - 1)},
        "validation": {"S": "hash"},
        "theirs": {"S": "too"},
    }
    service = await client(both.environment, "dynamodb")
    await service.put_item(TableName=both.table, Item=foreign)
    assert await both.claim("k") == Claimed(1)
    assert await both.complete("k") is True
    found = await both.item("k")
    assert (found["validation"], found["theirs"]) == ({"S": "hash"}, {"S": "too"})


async def test_many_coroutines_claim_and_complete_at_the_same_time(both: Both) -> None:
    """There, an async function does not run at all, and its entry stays in progress."""

    async def once(number: int) -> Any:
        assert await both.claim(f"k{number}", f"o{number}") == Claimed(1)
        await asyncio.sleep(0)
        return await both.complete(f"k{number}", f"o{number}")

    assert await asyncio.gather(*map(once, range(20))) == [True] * 20
