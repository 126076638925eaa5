"""Idempotency entries in a DynamoDB table, in the layout of Powertools' idempotency utility.

Every write is conditional on the entry still being what it was taken for. There are two strategies, with the same
protocol, conditions and attributes: `batched` sends the writes of many records in one call, `single` sends each alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pipeline.aws.client import client, store_error
from pipeline.aws.dynamodb import create_table
from pipeline.aws.names import Resource, resource
from pipeline.decisions.idempotency import Advance, ClaimReply, ClaimRequest, Entry, Renewal, Settlement
from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.ports import Environment
from pipeline.stores import batched, items, single
from pipeline.stores.table import Table
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack

#: What DynamoDB takes as a table's name (its developer guide, "Naming rules").
_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
#: What the names of AWS's own endpoints end with: the DNS suffixes of botocore's partitions.
_AWS = (
    *(".amazonaws.com", ".api.aws"),
    *(".amazonaws.com.cn", ".api.amazonwebservices.com.cn"),
    *(".amazonaws.eu", ".api.amazonwebservices.eu"),
    *(".c2s.ic.gov", ".api.aws.ic.gov"),
    *(".sc2s.sgov.gov", ".api.aws.scloud"),
    *(".cloud.adc-e.uk", ".api.cloud-aws.adc-e.uk"),
    *(".csp.hci.ic.gov", ".api.aws.hci.ic.gov"),
)


@dataclass(frozen=True)
class DynamoDB:
    """Keep entries in a table with the partition key `id` (string) and time to live on `expiration`.

    `table`: default `<pipeline>-idempotency`. `existing`: the ARN of a table that is not ours.

    `batched`: whether the writes of many records share calls. By default they do where the endpoint is AWS's own and
    the table is the pipeline's; leave it at that, unless a role or an emulator asks for one of them. The guarantee is
    the same, and so are the writes: two for a record, its claim and its end, each charged as one. What differs:

    - True: 25 records take one call for their claims and one for their ends (PartiQL, `BatchExecuteStatement`). Of those
      whose key is taken the entry is read once more: a repeat costs a refused write and a consistent read; a takeover, or
      a key whose entry has expired, another write too. Servers that imitate DynamoDB get conditions on statements wrong:
      moto accepts a second INSERT of one key. The embedded server of a local run answers them as DynamoDB does.
    - False: two calls a record, sent side by side. A repeat costs a refused write. Of a table that is named by `existing`
      that is the default: DynamoDB runs statements only on tables of the caller's own account. For one that is, in the
      function's own region, say `batched=True`.

    A function's role allows what its strategy calls, so say `batched=False` where deployed functions reach DynamoDB under
    another name than AWS's.
    """

    table: str | None = None
    batched: bool | None = None
    existing: str | None = None

    def __post_init__(self) -> None:
        if self.batched not in (None, True, False):
            raise ConfigurationError(f"stores.DynamoDB(batched={self.batched!r}): give True or False, or leave it out")
        if self.table is not None or self.existing is not None:
            # Without a table's name the pipeline's is taken.
            name = "idempotency" if self.table is None else self.table
            _check(resource("dynamodb", name, self.existing, declared="stores.DynamoDB"))

    def bound_to(self, pipeline: str) -> DynamoDB:
        """The same store with the pipeline's own table, unless it names one."""
        if self.table is not None:
            return self
        return DynamoDB(f"{pipeline}-idempotency", self.batched, self.existing)

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return conventions.table(conventions.DYNAMODB, self.resource.name)

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
        claim = batched.claim if await self._is_batched(environment) else single.claim
        return await claim(self._table(environment), requests)

    async def settle(
        self, settlements: Sequence[Settlement], environment: Environment
    ) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        settle = batched.settle if await self._is_batched(environment) else single.settle
        return await settle(self._table(environment), settlements)

    async def renew(self, renewals: Sequence[Renewal], environment: Environment) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port."""
        renew = batched.renew if await self._is_batched(environment) else single.renew
        return await renew(self._table(environment), renewals)

    async def look(self, ids: Sequence[str], environment: Environment) -> Sequence[Entry | StoreUnavailable | None]:
        """See the `IdempotencyStore` port."""
        return await self._table(environment).read(ids)

    async def mark(self, entries: Sequence[Entry], environment: Environment) -> Sequence[StoreUnavailable | None]:
        """See the `IdempotencyStore` port."""
        return await self._table(environment).replace(entries)

    async def advance(self, advances: Sequence[Advance], environment: Environment) -> Sequence[bool | StoreUnavailable]:
        """See the `IdempotencyStore` port.

        Always single writes: a batch has few lanes, and UpdateItem writes an entry whether there is one or not, for which
        statements need two.
        """
        return await single.advance(self._table(environment), advances)

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

    def grants(self, *, forgets: bool, mode: Literal["claim", "mark", "checkpoint"] = "claim") -> list[Grant]:
        """What a function needs for this store.

        `forgets`: dead letters may come back, so their claims are deleted. `mode`: whose calls: to claim, settle and renew;
        to look and mark; or to look and advance.
        """
        from pipeline.aws.cloudformation.stack import Grant

        if mode == "mark":
            why, names = "Look for marks: read. Mark: write.", ["BatchGetItem", "BatchWriteItem"]
        elif mode == "checkpoint":
            why, names = "Look for checkpoints: read. Advance: update.", ["BatchGetItem", "UpdateItem"]
        elif self._may_batch:
            why = "Claim: insert, read, update. Complete, renew, give back: update."
            names = ["PartiQLInsert", "BatchGetItem", "PartiQLUpdate"]
        else:
            why = "Claim: put or update. Complete, renew, give back: update."
            names = ["PutItem", "UpdateItem"]
        if forgets and mode == "claim":
            why += " Forget a dead letter: delete."
            names.append("PartiQLDelete" if self._may_batch else "DeleteItem")
        to = {"claim": "ClaimIn", "mark": "MarkIn", "checkpoint": "AdvanceIn"}[mode]
        actions = tuple(f"dynamodb:{name}" for name in names)
        return [Grant(to=to, resource=self.resource, actions=actions, why=why)]

    @property
    def _may_batch(self) -> bool:
        """Whether writes share calls where the endpoint is AWS's."""
        return self.existing is None if self.batched is None else self.batched

    async def _is_batched(self, environment: Environment) -> bool:
        if self.batched is not None or not self._may_batch:
            return self._may_batch
        try:
            dynamodb = await client(environment, "dynamodb")
        except Exception as error:
            raise store_error(error, f"idempotency table '{self.table}'") from None
        return _is_aws(dynamodb.meta.endpoint_url)

    def _table(self, environment: Environment) -> Table:
        return Table(self.resource.address, self.resource.physical, environment)


def _check(table: Resource) -> None:
    """Raise `ConfigurationError` for what cannot be a table, which would be found out by the first record."""
    if table.existing is None and not _NAME.fullmatch(table.name):
        raise ConfigurationError(
            f"stores.DynamoDB({table.name!r}): DynamoDB takes no such name: give 3 to 255 of a-z, A-Z, 0-9, '_', '.' and '-'"
        )
    if table.existing is not None and not re.fullmatch(f"table/{_NAME.pattern}", table.existing.split(":", 5)[5]):
        raise ConfigurationError(
            f"stores.DynamoDB(existing={table.existing!r}): that is no table: give an ARN that ends in ':table/<name>'; "
            "indexes and streams hold no entries"
        )


def _is_aws(endpoint_url: str) -> bool:
    return (urlsplit(endpoint_url).hostname or "").endswith(_AWS)
