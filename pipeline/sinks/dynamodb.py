"""Outputs as items of a DynamoDB table."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.aws import dynamodb, marks
from pipeline.aws.client import client, sink_error
from pipeline.aws.delivery import Entry, Limits, deliver
from pipeline.aws.dynamodb import Attribute
from pipeline.aws.names import Resource, resource
from pipeline.decisions import wire
from pipeline.decisions.deadline import Deadline
from pipeline.errors import ConfigurationError, SinkError, SinkRefused, SinkUnavailable
from pipeline.output import Output
from pipeline.ports import Effect, Environment
from pipeline.sinks.options import assign, check_name, check_when, refusal
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack

#: BatchWriteItem: 25 items and 16 MB a call.
LIMITS = Limits(count=25, size=16_000_000, entry_size=dynamodb.MAX_ITEM)
_PARTITION_KEY_BYTES, _SORT_KEY_BYTES = 2_048, 1_024


@dataclass(frozen=True, init=False)
class DynamoDB:
    """Put each output as one item; a later output with the same primary key replaces an earlier one.

    Outputs must be objects with the key attributes. Every item is written whole, so a repeat of a
    record leaves the same item. `carry=False` leaves out the member `_pipeline`, with which id and
    hops reach a handler behind the table's stream; with `Fused` it stays, and holds marks only.

    Limits: 400 KB an item; numbers of 38 digits (return others as text). A table that the toolkit
    makes has keys of type string; one of your own may have numbers.
    """

    table: str
    partition_key: str
    sort_key: str | None
    carry: bool
    existing: str | None
    name: str
    when: Callable[[Any], bool] | None

    #: A text or an array has no room for what an output carries: `rejects=` writes objects here.
    takes_objects_only = True

    def __init__(
        self,
        table: str,
        *,
        partition_key: str = "id",
        sort_key: str | None = None,
        carry: bool = True,
        existing: str | None = None,
        name: str | None = None,
        when: Callable[[Any], bool] | None = None,
    ) -> None:
        resource("dynamodb", table, existing, declared="sinks.DynamoDB")
        check_name(name, "sinks.DynamoDB")
        check_when(when, "sinks.DynamoDB")
        _check_keys(partition_key, sort_key)
        assign(self, table=table, partition_key=partition_key, sort_key=sort_key, carry=carry)
        assign(self, existing=existing, name=name or table, when=when)

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return conventions.table(conventions.DYNAMODB, self.table)

    @property
    def resource(self) -> Resource:
        """The table."""
        return Resource("dynamodb", self.table, self.existing)

    @property
    def carries(self) -> bool:
        """True when id and hops travel with each item."""
        return self.carry

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Put the outputs; see the `Sink` port."""
        if not outputs:
            return []
        entries = [self._entry(output) for output in outputs]
        send = partial(self._send, environment=environment)
        return await deliver(entries, send, LIMITS, environment, deadline)

    async def write_once(
        self, effects: Sequence[Effect], environment: Environment, deadline: Deadline
    ) -> Sequence[bool | SinkError]:
        """Write each effect's items with its mark, all or none; see the `FusedSink` port.

        One item is one conditional PutItem, and a second one when another key wrote the item before; several items
        are one transaction, at 2 write units a kilobyte (at most 100 items and 4 MB, none twice). A repeat costs one
        refused write.

        An item keeps the marks of the last 100 keys that wrote it, in `_pipeline.marks`. So a late repeat of an older
        record does not take a newer one's item away, as long as fewer than 100 other keys wrote that item since, nothing
        but this method wrote it, and nobody deleted it. A mark of 32 characters costs 33 bytes, the first one 54 together
        with the names around it; 100 of them are 3.3 KB, which count towards the item's 400 KB and are paid for with each
        write.

        False may also mean that this very call wrote it, in a try whose answer was lost. An effect without outputs
        leaves no mark, and is always True. Items with other keys than the first time are not recognised as a repeat.
        """
        writes = [self._write_of(effect) for effect in effects]
        return await marks.write_once(self.resource.address, writes, environment, deadline)

    async def create(self, environment: Environment) -> None:
        """Make the table when it is missing."""
        try:
            await dynamodb.create_table(
                self.resource, environment, partition_key=self.partition_key, sort_key=self.sort_key
            )
        except Exception as error:
            raise sink_error(error, f"creating the table '{self.table}'") from None

    def declare(self, stack: Stack) -> None:
        """Add the table to a template, unless it is not ours."""
        from pipeline.aws.cloudformation import tables

        tables.add_table(stack, self.resource, partition_key=self.partition_key, sort_key=self.sort_key)

    def grants(self, *, fused: bool = False) -> list[Grant]:
        """What a function needs for this sink; `fused`: outputs are written by `write_once`.

        A transaction needs what its actions need, and no permission of its own.
        """
        from pipeline.aws.cloudformation.stack import Grant

        action = "dynamodb:PutItem" if fused else "dynamodb:BatchWriteItem"
        return [Grant(to="WriteTo", resource=self.resource, actions=(action,))]

    def _write_of(self, effect: Effect) -> marks.Write:
        entries = [self._entry(output) for output in effect.outputs]
        keys = [entry.key for entry in entries if entry.key is not None]
        for error in [entry.error for entry in entries if entry.error is not None]:
            return marks.Write(mark=effect.mark, keys=tuple(keys), error=error)
        return marks.write_of(effect.mark, [entry.payload for entry in entries], keys)

    def _entry(self, output: Output) -> Entry:
        key: Hashable | None = None
        try:
            value = _decoded(output)
            key = self._key_of(value)
            if self.carry:
                value[wire.MEMBER] = wire.carried_member(output)
            item = {name: dynamodb.attribute(member) for name, member in value.items()}
            return Entry(payload=item, size=dynamodb.item_size(item), key=key)
        except Exception as error:
            return Entry(error=refusal(error), key=key)

    def _key_of(self, value: dict[str, Any]) -> Hashable:
        """The primary key: one call must not hold it twice, and the last one has to win."""
        first = _key_part(value, self.partition_key, _PARTITION_KEY_BYTES)
        return first, self.sort_key and _key_part(value, self.sort_key, _SORT_KEY_BYTES)

    async def _send(self, entries: Sequence[Entry], environment: Environment) -> list[SinkError | None]:
        requests = [{"PutRequest": {"Item": entry.payload}} for entry in entries]
        try:
            service = await client(environment, "dynamodb")
            answer = await service.batch_write_item(RequestItems={self.resource.address: requests})
        except Exception as error:
            raise sink_error(error, "DynamoDB BatchWriteItem") from None
        unprocessed = {
            self._identity(request["PutRequest"]["Item"])
            for left in answer.get("UnprocessedItems", {}).values()
            for request in left
        }
        reason = SinkUnavailable("DynamoDB left the item unprocessed: it is throttled")
        return [reason if self._identity(entry.payload) in unprocessed else None for entry in entries]

    def _identity(self, item: dict[str, Attribute]) -> Hashable:
        """An item's primary key as the API spells it, to find an unprocessed item again."""
        names = (self.partition_key, *([self.sort_key] if self.sort_key else []))
        return tuple((kind, _comparable(kind, held)) for name in names for kind, held in item[name].items())


def _check_keys(partition_key: object, sort_key: object) -> None:
    if not isinstance(partition_key, str) or not partition_key:
        raise ConfigurationError(f"sinks.DynamoDB(partition_key={partition_key!r}): give the key attribute's name")
    if sort_key is not None and (not isinstance(sort_key, str) or not sort_key or sort_key == partition_key):
        raise ConfigurationError(
            f"sinks.DynamoDB(sort_key={sort_key!r}): give the sort key attribute's name, or leave it out"
        )


def _decoded(output: Output) -> dict[str, Any]:
    value = None if output.is_text else json.loads(output.body, parse_float=Decimal)
    if not isinstance(value, dict):
        raise SinkRefused("a DynamoDB item is a JSON object: return a dataclass, a Struct, a model or a dict")
    return value


def _key_part(value: dict[str, Any], name: str, limit: int) -> Hashable:
    found = value.get(name)
    if isinstance(found, str) and found:
        size = len(found.encode("utf-8", "surrogatepass"))
        if size > limit:
            raise SinkRefused(f"the key attribute '{name}' has {size:,} bytes: DynamoDB takes {limit:,}")
        return found
    if isinstance(found, (int, Decimal)) and not isinstance(found, bool):
        return found
    raise SinkRefused(f"the output has no key attribute '{name}': a text that is not empty, or a number")


def _comparable(kind: str, held: str) -> Hashable:
    # A number may come back in another spelling.
    return Decimal(held) if kind == "N" else held
