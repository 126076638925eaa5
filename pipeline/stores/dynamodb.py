"""Idempotency entries in a DynamoDB table, in the layout of Powertools' idempotency utility.

Every write is conditional on the entry still being what it was taken for, and answers with the
entry as it stands when it is not, so a refused write costs no second read. Writes are single, and
those of records that run side by side are sent side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.aws.client import client, code_of, store_error
from pipeline.aws.dynamodb import create_table
from pipeline.aws.names import Resource, resource
from pipeline.decisions.idempotency import (
    Advance,
    Busy,
    Claimed,
    ClaimReply,
    ClaimRequest,
    Complete,
    Entry,
    Release,
    Renewal,
    Settlement,
    Step,
    claimed,
    created,
    found_by,
    refusal,
    step_of,
)
from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.ports import Environment
from pipeline.stores import items
from pipeline.stores.protocol import advanced, is_done, taken_over

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack

T = TypeVar("T")

#: BatchGetItem: 100 keys a call; BatchWriteItem: 25 items (the service's model).
_READ, _WRITTEN = 100, 25
#: How often a claim looks again when the entry changes under its hands, before it calls it busy.
_LOOKS = 4


@dataclass(frozen=True)
class DynamoDB:
    """Keep entries in a table with the partition key `id` (string) and time to live on `expiration`.

    `table`: default `<pipeline>-idempotency`. A record costs two writes: the claim and its end; a
    duplicate costs one. `batched=True` is not available yet.
    """

    table: str | None = None
    batched: bool | None = None
    existing: str | None = None

    def __post_init__(self) -> None:
        if self.batched:
            raise ConfigurationError("stores.DynamoDB(batched=True): there are no batched writes yet; leave it out")
        if self.table is not None:
            resource("dynamodb", self.table, self.existing, declared="stores.DynamoDB")

    def bound_to(self, pipeline: str) -> DynamoDB:
        """The same store with the pipeline's own table, unless it names one."""
        if self.table is not None:
            return self
        return DynamoDB(f"{pipeline}-idempotency", self.batched, self.existing)

    @property
    def resource(self) -> Resource:
        """The table."""
        if self.table is None:
            raise ConfigurationError("stores.DynamoDB() has no table: name one, or let a Pipeline assemble it")
        return Resource("dynamodb", self.table, self.existing)

    async def claim(
        self, requests: Sequence[ClaimRequest], environment: Environment
    ) -> Sequence[ClaimReply | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        table = self._table(environment)
        return await _each([_Claiming(table, request).run() for request in requests])

    async def settle(
        self, settlements: Sequence[Settlement], environment: Environment
    ) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        table = self._table(environment)
        return await _each([_settle(table, settlement) for settlement in settlements])

    async def renew(self, renewals: Sequence[Renewal], environment: Environment) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        table = self._table(environment)
        return await _each([_renew(table, renewal) for renewal in renewals])

    async def look(self, ids: Sequence[str], environment: Environment) -> Sequence[Entry | StoreUnavailable | None]:
        """See the `IdempotencyStore` port."""
        return await self._table(environment).read(ids)

    async def mark(self, entries: Sequence[Entry], environment: Environment) -> Sequence[StoreUnavailable | None]:
        """See the `IdempotencyStore` port."""
        return await self._table(environment).replace(entries)

    async def advance(self, advances: Sequence[Advance], environment: Environment) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        table = self._table(environment)
        return await _each([_advance(table, one) for one in advances])

    async def create(self, environment: Environment) -> None:
        """Make the table when it is missing, and let it expire entries."""
        try:
            await create_table(self.resource, environment, partition_key=items.ID, sort_key=None, ttl=items.EXPIRATION)
        except Exception as error:
            raise store_error(error, f"creating the table '{self.table}'") from None

    def declare(self, stack: Stack) -> None:
        """Add the table to a template, unless it is not ours."""
        from pipeline.aws.cloudformation import tables

        why = "Idempotency entries, in the layout of Powertools' idempotency utility, which may share the table."
        tables.add_table(stack, self.resource, partition_key=items.ID, sort_key=None, ttl=items.EXPIRATION, why=why)

    def grants(self, *, forgets: bool) -> list[Grant]:
        """What a function needs for this store; `forgets`: dead letters may come back, so their entries are deleted."""
        from pipeline.aws.cloudformation.stack import Grant

        why = "Claim: put or update. Complete, renew, give back: update." + (
            " Forget a dead letter: delete." if forgets else ""
        )
        actions = ("dynamodb:PutItem", "dynamodb:UpdateItem", *(("dynamodb:DeleteItem",) if forgets else ()))
        return [Grant(to="ClaimIn", resource=self.resource, actions=actions, why=why)]

    def _table(self, environment: Environment) -> _Table:
        return _Table(self.resource.address, environment)


@dataclass(frozen=True)
class _Refused:
    """A conditional write that was not done, and the entry that stood in its way."""

    found: Entry | None


class _Table:
    """Conditional writes to one table."""

    def __init__(self, name: str, environment: Environment) -> None:
        self._name = name
        self._environment = environment

    @property
    def now(self) -> float:
        return self._environment.clock.now()

    async def write(self, operation: str, parameters: dict[str, Any]) -> _Refused | None:
        """Do one write; None when it was done. Raises `StoreUnavailable`."""
        try:
            dynamodb = await client(self._environment, "dynamodb")
            call = getattr(dynamodb, operation)
            await call(TableName=self._name, ReturnValuesOnConditionCheckFailure="ALL_OLD", **parameters)
        except Exception as error:
            if code_of(error) == "ConditionalCheckFailedException":
                return _Refused(items.entry_of(getattr(error, "response", {}).get("Item")))
            raise store_error(error, f"idempotency table '{self._name}'") from None
        return None

    async def read(self, ids: Sequence[str]) -> list[Entry | StoreUnavailable | None]:
        """The entries, read consistently, in calls of 100 side by side."""
        found: dict[str, Entry | StoreUnavailable | None] = {}
        chunks = _chunks(list(dict.fromkeys(ids)), _READ)
        for read in await asyncio.gather(*(self._read(chunk) for chunk in chunks)):
            found.update(read)
        return [found.get(key) for key in ids]

    async def _read(self, ids: Sequence[str]) -> dict[str, Entry | StoreUnavailable | None]:
        keys = [{items.ID: {"S": key}} for key in ids]
        found: dict[str, Entry | StoreUnavailable | None] = {}
        try:
            dynamodb = await client(self._environment, "dynamodb")
            answer = await dynamodb.batch_get_item(RequestItems={self._name: {"Keys": keys, "ConsistentRead": True}})
            for item in _all(answer["Responses"]):  # by the table's name, also when it was asked for by its ARN
                entry = items.entry_of(item)
                if entry is not None:
                    found[entry.id] = entry
            left = [key for asked in answer.get("UnprocessedKeys", {}).values() for key in asked["Keys"]]
        except Exception as error:
            return dict.fromkeys(ids, store_error(error, f"idempotency table '{self._name}'"))
        return {**found, **{key[items.ID]["S"]: _throttled(self._name) for key in left}}

    async def replace(self, entries: Sequence[Entry]) -> list[StoreUnavailable | None]:
        """Write entries whole, in calls of 25 side by side."""
        last = {entry.id: entry for entry in entries}
        problems: dict[str, StoreUnavailable] = {}
        for failed in await asyncio.gather(*(self._replace(chunk) for chunk in _chunks(list(last.values()), _WRITTEN))):
            problems.update(failed)
        return [problems.get(entry.id) for entry in entries]

    async def _replace(self, entries: Sequence[Entry]) -> dict[str, StoreUnavailable]:
        requests = [{"PutRequest": {"Item": items.item_of(entry)}} for entry in entries]
        try:
            dynamodb = await client(self._environment, "dynamodb")
            answer = await dynamodb.batch_write_item(RequestItems={self._name: requests})
        except Exception as error:
            return {entry.id: store_error(error, f"idempotency table '{self._name}'") for entry in entries}
        left = _all(answer.get("UnprocessedItems", {}))
        return {request["PutRequest"]["Item"][items.ID]["S"]: _throttled(self._name) for request in left}


class _Claiming:
    """One run asking for one key: a conditional write, and decisions about what refused it."""

    def __init__(self, table: _Table, request: ClaimRequest) -> None:
        self._table = table
        self._request = request

    async def run(self) -> ClaimReply:
        write = self._create
        for _ in range(_LOOKS):
            now = self._table.now
            reply = await write(now)
            if isinstance(reply, Claimed):
                return reply
            entry = reply.found
            step = step_of(found_by(self._request, entry, now), self._request)
            if entry is None or step is Step.CREATE:
                write = self._create
            elif step is Step.TAKE_OVER:
                write = partial(self._take_over, entry)
            elif step is Step.RUN:
                # The answer to our own write was lost.
                return claimed(entry)
            else:
                return refusal(step, entry)
        return Busy(self._table.now + 1.0)

    async def _create(self, now: float) -> Claimed | _Refused:
        mine = created(self._request, now)
        refused = await self._table.write("put_item", items.put_new(mine, now))
        return refused or claimed(mine)

    async def _take_over(self, entry: Entry, now: float) -> Claimed | _Refused:
        mine = taken_over(entry, self._request, now)
        refused = await self._table.write("update_item", items.take_over(entry, mine))
        return refused or claimed(mine)


async def _settle(table: _Table, settlement: Settlement) -> bool:
    if isinstance(settlement, Complete):
        refused = await table.write("update_item", items.complete(settlement, table.now))
    elif isinstance(settlement, Release):
        refused = await table.write("update_item", items.release(settlement, table.now))
    else:
        refused = await table.write("delete_item", items.forget(settlement))
    return refused is None or is_done(settlement, refused.found)


async def _advance(table: _Table, advance: Advance) -> bool:
    moved = advanced(None, advance, table.now)
    assert moved is not None, "where nothing stands a checkpoint moves"
    return await table.write("update_item", items.advance(moved)) is None


def _throttled(table: str) -> StoreUnavailable:
    return StoreUnavailable(f"idempotency table '{table}': DynamoDB left the entry unprocessed: it is throttled")


def _all(by_table: Mapping[str, list[Any]]) -> list[Any]:
    return [one for some in by_table.values() for one in some]


def _chunks(values: Sequence[T], size: int) -> list[Sequence[T]]:
    return [values[start : start + size] for start in range(0, len(values), size)]


async def _renew(table: _Table, renewal: Renewal) -> bool:
    return await table.write("update_item", items.renew(renewal)) is None


async def _each(calls: Sequence[Awaitable[T]]) -> list[T | StoreUnavailable]:
    """What each call came to. Store trouble is that position's answer; anything else is raised."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    answers: list[T | StoreUnavailable] = []
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, StoreUnavailable):
            raise result
        answers.append(result)
    return answers
