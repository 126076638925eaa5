"""The embedded server's DynamoDB: moto keeps the tables, and calls about items and streams are the service in memory's.

moto breaks a hundred of the rules that `tests/contract/test_table_service.py` asks: of statements nearly all. What is
left to it: tables and their settings, secondary indexes and reads of them, and the parameters that DynamoDB had before
expressions.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from moto.core.responses import ActionResult
from moto.dynamodb import models, responses
from moto.dynamodb.exceptions import ERROR_TYPE_PREFIX, DynamodbException, ResourceNotFoundException
from moto.dynamodb.models import table as tables
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.dynamo_type import Item as Kept
from moto.dynamodbstreams import responses as stream_responses

from pipeline.emulator.services.dynamodb import stream
from pipeline.emulator.services.dynamodb.items import OPERATIONS, Items
from pipeline.emulator.services.dynamodb.rows import Keys
from pipeline.emulator.services.dynamodb.stream import Stream
from pipeline.emulator.services.dynamodb.streams import STREAM_OPERATIONS, DynamoDBStreams
from pipeline.emulator.services.dynamodb.values import Item, invalid
from pipeline.emulator.services.dynamodb.writes import LEGACY
from pipeline.emulator.services.service import Operation, ServiceError

#: What its own code does, one call after the other.
_LOCKED = ("create_table", "delete_item", "delete_table", "put_item", "query", "scan", "update_item", "update_table")
#: Parameters of calls that it answers itself.
_MOTOS = ("IndexName", *LEGACY)

Replace = Callable[[Any, str, Any], None]
Locked = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Rows:
    """A table of moto's."""

    def __init__(self, table: tables.Table) -> None:
        self._table = table
        sort = None if table.range_key_attr is None else (table.range_key_attr, table.range_key_type or "S")
        self.keys = Keys.named((table.hash_key_attr, table.hash_key_type), sort)

    @property
    def name(self) -> str:
        return self._table.name

    def get(self, key: Item) -> Item | None:
        found = self._table.get_item(*self._key(key))
        return None if found is None else _plain(found)

    def put(self, key: Item, item: Item | None, now: float) -> None:
        partition, sort = self._key(key)
        old = self._table.get_item(partition, sort)
        made = None if item is None else _kept(partition, sort, item)
        # By partition key; of a table with a sort key what is there is by sort key again.
        items: Any = self._table.items if sort is None else self._table.items[partition]
        place = partition if sort is None else sort
        if made is not None:
            items[place] = made
        elif old is not None:
            del items[place]
        shard = self._table.stream_shard
        if shard is not None:
            shard.add(old, made)

    def every(self, after: Item | None = None) -> Iterable[Item]:
        start = None if after is None else self.keys.position(after)
        found = [(self.keys.position(item), item) for item in map(_plain, self._table.all_items())]
        return [item for at, item in sorted(found, key=lambda pair: pair[0]) if start is None or at > start]

    def of_partition(self, key: Item) -> Sequence[Item]:
        found: Any = self._table.items.get(DynamoType(key[self.keys.partition.name]), {})
        items = [_plain(one) for one in ([found] if isinstance(found, Kept) else found.values())]
        return sorted(items, key=self.keys.position)

    def _key(self, key: Item) -> tuple[DynamoType, DynamoType | None]:
        partition, *sort = (DynamoType(key[name]) for name in self.keys.names)
        return partition, sort[0] if sort else None


class _Tables:
    """The tables of moto's DynamoDB in one account and region, and their streams.

    It is kept there, and goes with it.
    """

    def __init__(self, backend: models.DynamoDBBackend) -> None:
        self._backend = backend
        self.streams: dict[str, Stream] = {}
        self.items: Mapping[str, Operation] = Items(self).operations
        self.stream_operations: Mapping[str, Operation] = DynamoDBStreams(self).operations

    def rows(self, name: str) -> _Rows:
        try:
            return _Rows(self._backend.get_table(name))
        except ResourceNotFoundException:
            raise ServiceError("ResourceNotFoundException", "Requested resource not found") from None

    def all_streams(self, now: float) -> Mapping[str, Stream]:
        return self.streams

    def next_change(self, now: float) -> float | None:
        return None

    @classmethod
    def of(cls, backend: models.DynamoDBBackend) -> _Tables:
        found = vars(backend).get("in_memory")
        if found is None:
            found = vars(backend)["in_memory"] = cls(backend)
        made: _Tables = found
        return made


class _Shard:
    """What stands in a table of moto's for its stream."""

    def __init__(self, table: tables.Table, told: Stream) -> None:
        self._keys = _Rows(table).keys
        self.stream = told

    def add(self, old: Kept | None, new: Kept | None) -> None:
        """moto's tables tell of each write."""
        before, after = (None if one is None else _plain(one) for one in (old, new))
        item = before if before is not None else after
        if self.stream.is_open and item is not None:
            key = {name: item[name] for name in self._keys.names}
            self.stream.add(key, before, after, time.time(), uuid.uuid4().hex, by_ttl=False)


def apply(replace: Replace, locked: Locked) -> None:
    """Put the service in memory behind moto's front, in this process."""
    for name in _LOCKED:
        replace(models.DynamoDBBackend, name, locked(getattr(models.DynamoDBBackend, name)))
    for name in OPERATIONS:
        handler = responses.DynamoHandler
        replace(handler, name, locked(_action(name, getattr(handler, name))))
    for name in STREAM_OPERATIONS:
        replace(stream_responses.DynamoDBStreamsHandler, name, locked(_stream_action(name)))
    replace(tables.Table, "set_stream_specification", _set_stream)
    replace(models.DynamoDBBackend, "update_table_streams", _update_stream)
    replace(models.DynamoDBBackend, "delete_table", _delete_table(models.DynamoDBBackend.delete_table))


def _action(operation: str, motos: Callable[[Any], ActionResult]) -> Callable[[Any], ActionResult]:
    """What moto's front calls for an operation on items; `motos`: its own."""

    def action(response: responses.DynamoHandler) -> ActionResult:
        parameters: Mapping[str, Any] = response.body
        inner = parameters.get("RequestItems") if operation == "batch_get_item" else None
        asked = [parameters, *(inner.values() if isinstance(inner, Mapping) else ())]
        if any(name in one for one in asked for name in _MOTOS):
            return motos(response)
        return ActionResult(_answer(_Tables.of(response.dynamodb_backend).items[operation], parameters))

    return action


def _stream_action(operation: str) -> Callable[[Any], ActionResult]:
    """What moto's front calls for an operation on streams."""

    def action(response: stream_responses.DynamoDBStreamsHandler) -> ActionResult:
        kept = _Tables.of(response.backend.dynamodb)
        return ActionResult(_answer(kept.stream_operations[operation], json.loads(response.body)))

    return action


def _answer(operation: Operation, parameters: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return operation(parameters, time.time())
    except ServiceError as error:
        raise _as_moto_has_it(error) from None


def _as_moto_has_it(error: ServiceError) -> DynamodbException:
    made = DynamodbException(ERROR_TYPE_PREFIX + error.code, error.message)
    members = {"__type": made.error_type, "message": error.message, **error.members}
    made.description = json.dumps(members, default=lambda binary: base64.b64encode(binary).decode())
    made.code = error.status
    return made


def _set_stream(table: Any, asked: Mapping[str, Any] | None) -> None:
    """Enable a table's stream, or disable it."""
    wanted = asked or {}
    if table.stream_shard is not None:
        table.stream_shard.stream.close()
        table.stream_shard = None
    table.stream_specification = {"StreamEnabled": False}
    if not wanted.get("StreamEnabled"):
        return
    view, now = wanted.get("StreamViewType"), time.time()
    if view not in stream.VIEWS:
        raise _as_moto_has_it(invalid("Invalid StreamViewType: give one when enabling streams."))
    streams = _Tables.of(models.dynamodb_backends[table.account_id][table.region_name]).streams
    label = stream.label_of(now, lambda label: f"{table.table_arn}/stream/{label}" in streams)
    made = Stream(table.name, table.table_arn, table.schema, view, label, now)
    streams[made.arn] = made
    table.stream_specification = {"StreamEnabled": True, "StreamViewType": view}
    table.latest_stream_label = label
    table.stream_shard = _Shard(table, made)


def _update_stream(_: models.DynamoDBBackend, table: tables.Table, asked: dict[str, Any]) -> None:
    if bool(asked.get("StreamEnabled")) == (table.stream_shard is not None):
        so = "already has an enabled stream" if asked.get("StreamEnabled") else "has no stream to disable"
        raise _as_moto_has_it(invalid(f"Table {so}"))
    table.set_stream_specification(asked)


def _delete_table(delete: Callable[..., tables.Table]) -> Callable[..., tables.Table]:
    def delete_table(backend: models.DynamoDBBackend, name: str) -> tables.Table:
        table = delete(backend, name)
        shard: Any = table.stream_shard
        if shard is not None:
            shard.stream.close()
        return table

    return delete_table


def _plain(kept: Kept) -> Item:
    """An item of moto's as the service in memory has it."""
    return {name: _plain_value(value) for name, value in kept.attrs.items()}


def _plain_value(value: DynamoType) -> dict[str, Any]:
    held = value.value
    if value.type == "M":
        return {"M": {name: _plain_value(member) for name, member in held.items()}}
    if value.type == "L":
        return {"L": [_plain_value(member) for member in held]}
    return {value.type: held}


def _kept(partition: DynamoType, sort: DynamoType | None, item: Item) -> Any:
    made = Kept(partition, sort, {})
    # Past its own limit, which is less than DynamoDB's.
    dict.update(vars(made)["attrs"], {name: DynamoType(value) for name, value in item.items()})
    return made
