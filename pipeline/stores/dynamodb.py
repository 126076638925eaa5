"""Idempotency entries in a DynamoDB table, in the layout of Powertools' idempotency utility.

Every write is conditional on the entry still being what it was taken for, and answers with the
entry as it stands when it is not, so a refused write costs no second read. Writes are single, and
those of records that run side by side are sent side by side.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.aws.client import client, code_of, store_error
from pipeline.aws.dynamodb import create_table
from pipeline.aws.names import Resource, resource
from pipeline.decisions.idempotency import (
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
    refusal,
    state_of,
    step_of,
)
from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.ports import Environment
from pipeline.stores import items
from pipeline.stores.protocol import is_done, taken_over

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack

T = TypeVar("T")

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
            found = state_of(entry, self._request.owner, now, self._request.record)
            step = step_of(found, self._request)
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
