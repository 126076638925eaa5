"""DynamoDB: tables and the calls about them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pipeline.emulator.services.dynamodb import reads, statements, stream, transactions, values, writes
from pipeline.emulator.services.dynamodb.evaluation import projected, touched
from pipeline.emulator.services.dynamodb.expressions import Names, projection_of
from pipeline.emulator.services.dynamodb.rows import Rows
from pipeline.emulator.services.dynamodb.stream import Stream
from pipeline.emulator.services.dynamodb.streams import DynamoDBStreams
from pipeline.emulator.services.dynamodb.table import Table, billing_of
from pipeline.emulator.services.dynamodb.values import Item, invalid
from pipeline.emulator.services.dynamodb.writes import Write
from pipeline.emulator.services.service import Operation, ServiceError

#: Seconds between an item's expiry and its removal. DynamoDB says "within a few days".
TTL_LAG: Final = 48 * 3_600.0
#: BatchGetItem: keys and bytes of a call; BatchWriteItem: requests and bytes.
_MAX_KEYS, _MAX_READ = 100, 16 * 1_048_576
_MAX_REQUESTS, _MAX_WRITTEN = 25, 16 * 1_048_576

#: What each call must say.
_REQUIRED: Final = {
    "batch_execute_statement": ("Statements",),
    "batch_get_item": ("RequestItems",),
    "batch_write_item": ("RequestItems",),
    "create_table": ("TableName", "KeySchema", "AttributeDefinitions"),
    "delete_item": ("TableName", "Key"),
    "delete_table": ("TableName",),
    "describe_continuous_backups": ("TableName",),
    "describe_table": ("TableName",),
    "describe_time_to_live": ("TableName",),
    "execute_statement": ("Statement",),
    "execute_transaction": ("TransactStatements",),
    "get_item": ("TableName", "Key"),
    "list_tables": (),
    "put_item": ("TableName", "Item"),
    "query": ("TableName",),
    "scan": ("TableName",),
    "transact_get_items": ("TransactItems",),
    "transact_write_items": ("TransactItems",),
    "update_continuous_backups": ("TableName", "PointInTimeRecoverySpecification"),
    "update_item": ("TableName", "Key"),
    "update_table": ("TableName",),
    "update_time_to_live": ("TableName", "TimeToLiveSpecification"),
}


class DynamoDB:
    """The tables of one account in one region.

    Without secondary indexes, and without the parameters that DynamoDB had before expressions: both are refused. Tables
    are ready at once, reads are always consistent, and capacity has no limit and is not told.

    `chance`: of the ids of streams' records. `ttl_lag`: seconds between an item's expiry and its removal, until when it is seen. `stream_shards`: of each table's
    stream; the items of one partition key are in one of them.
    """

    name = "dynamodb"

    def __init__(
        self, chance: random.Random | None = None, *, ttl_lag: float = TTL_LAG, stream_shards: int = 1
    ) -> None:
        self._chance = chance or random.Random(0)
        self._lag = ttl_lag
        self._shards = stream_shards
        self._tables: dict[str, Table] = {}
        self._streams: dict[str, Stream] = {}
        self.streams = DynamoDBStreams(self)  #: the service that reads the tables' streams
        self._tokens = transactions.Tokens()
        self._statement_tokens = transactions.Tokens()
        self.operations: Mapping[str, Operation] = {
            name: self._operation(getattr(self, f"_{name}"), required) for name, required in _REQUIRED.items()
        }

    def next_change(self, now: float) -> float | None:
        """When the next item is removed because it expired; see `Service`."""
        times = [at for table in self._tables.values() if (at := table.next_expiry()) is not None]
        return min(times, default=None)

    def pass_time(self, now: float) -> None:
        """Let happen what happens by itself: expired items go, and old records of streams."""
        for table in self._tables.values():
            table.expire(now)
        for arn, one in list(self._streams.items()):
            for shard in one.shards:
                shard.trim(now)
            is_latest = one.table in self._tables and self._tables[one.table].stream is one
            if not one.is_open and not is_latest and not any(shard.records for shard in one.shards):
                del self._streams[arn]

    def all_streams(self, now: float) -> Mapping[str, Stream]:
        """The tables' streams by their ARNs, those of deleted tables too, while something of them is kept."""
        self.pass_time(now)
        return self._streams

    def rows(self, name: str) -> Rows:
        """See `Tables`."""
        return self._table(name)

    def _operation(self, call: Operation, required: Sequence[str]) -> Operation:
        def operation(parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
            for name in required:
                if parameters.get(name) is None:
                    raise invalid(
                        f"1 validation error detected: Value null at '{name[0].lower()}{name[1:]}' failed to satisfy "
                        "constraint: Member must not be null"
                    )
            self.pass_time(now)
            return call(parameters, now)

        return operation

    def _table(self, name: str, *, is_told: bool = False) -> Table:
        table = self._tables.get(name.rpartition(":table/")[2] if name.startswith("arn:") else name)
        if table is None or (name.startswith("arn:") and table.arn != name):
            more = f": Table: {name} not found" if is_told else ""
            raise ServiceError("ResourceNotFoundException", f"Requested resource not found{more}")
        return table

    # Tables

    def _create_table(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        table = Table(parameters, now, self._lag, self._chance)
        if table.name in self._tables:
            raise ServiceError("ResourceInUseException", f"Table already exists: {table.name}")
        asked = parameters.get("StreamSpecification") or {}
        if asked.get("StreamEnabled"):
            self._specify_stream(table, asked, now)
        self._tables[table.name] = table
        return {"TableDescription": {**table.described(), "TableStatus": "CREATING"}}

    def _delete_table(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        table = self._table(parameters["TableName"], is_told=True)
        if table.is_protected:
            raise invalid(
                "Resource cannot be deleted as it is currently protected against deletion. Disable deletion protection first."
            )
        if table.stream is not None and table.stream.is_open:
            table.stream.close()
        del self._tables[table.name]
        return {"TableDescription": {**table.described(), "TableStatus": "DELETING"}}

    def _describe_table(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return {"Table": self._table(parameters["TableName"], is_told=True).described()}

    def _list_tables(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        start, limit = parameters.get("ExclusiveStartTableName") or "", parameters.get("Limit") or 100
        names = [name for name in sorted(self._tables) if name > start]
        more = {"LastEvaluatedTableName": names[limit - 1]} if len(names) > limit else {}
        return {"TableNames": names[:limit], **more}

    def _update_table(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        table = self._table(parameters["TableName"], is_told=True)
        if parameters.get("GlobalSecondaryIndexUpdates") or parameters.get("ReplicaUpdates"):
            raise invalid("tables in memory have neither secondary indexes nor replicas: use DynamoDB Local")
        if parameters.get("BillingMode") is not None:
            table.billing = billing_of(parameters)
        if parameters.get("DeletionProtectionEnabled") is not None:
            table.is_protected = bool(parameters["DeletionProtectionEnabled"])
        if parameters.get("StreamSpecification") is not None:
            self._specify_stream(table, parameters["StreamSpecification"], now)
        return {"TableDescription": table.described()}

    def _specify_stream(self, table: Table, asked: Mapping[str, Any], now: float) -> None:
        label = stream.label_of(now, lambda label: f"{table.arn}/stream/{label}" in self._streams)
        table.specify_stream(asked, now, label, self._shards)
        if table.stream is not None:
            self._streams[table.stream.arn] = table.stream

    def _describe_time_to_live(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        table = self._table(parameters["TableName"], is_told=True)
        on = {"TimeToLiveStatus": "ENABLED", "AttributeName": table.ttl}
        return {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"} if table.ttl is None else on}

    def _update_time_to_live(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        table = self._table(parameters["TableName"], is_told=True)
        asked = parameters["TimeToLiveSpecification"]
        wanted = asked["AttributeName"] if asked["Enabled"] else None
        if table.ttl is None and wanted is None:
            raise invalid("TimeToLive is already disabled")
        if table.ttl is not None and asked["AttributeName"] != table.ttl:
            raise invalid("TimeToLive is active on a different AttributeName: current AttributeName is " + table.ttl)
        if table.ttl is not None and wanted is not None:
            raise invalid("TimeToLive is already enabled")
        table.expire_by(wanted)
        return {"TimeToLiveSpecification": {"Enabled": bool(asked["Enabled"]), "AttributeName": asked["AttributeName"]}}

    def _describe_continuous_backups(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return _backups(self._table(parameters["TableName"], is_told=True))

    def _update_continuous_backups(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        table = self._table(parameters["TableName"], is_told=True)
        table.recovery = dict(parameters["PointInTimeRecoverySpecification"])
        return _backups(table)

    # Items

    def _put_item(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        returned = writes.choice(parameters, "ReturnValues", ("NONE", "ALL_OLD"))
        old, _ = writes.put(self, parameters).carry_out(now)
        return _attributes(old if returned == "ALL_OLD" else None)

    def _delete_item(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        returned = writes.choice(parameters, "ReturnValues", ("NONE", "ALL_OLD"))
        old, _ = writes.delete(self, parameters).carry_out(now)
        return _attributes(old if returned == "ALL_OLD" else None)

    def _update_item(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        choices = ("NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW")
        returned = writes.choice(parameters, "ReturnValues", choices)
        write = writes.update(self, parameters)
        old, new = write.carry_out(now)
        return _attributes(returned_of(write, old, new, returned))

    def _get_item(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        writes.refuse_unknown(parameters)
        item = _one(self._table(parameters["TableName"]), parameters["Key"], _projection(parameters))
        return {} if item is None else {"Item": item}

    def _batch_get_item(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        asked: Mapping[str, Mapping[str, Any]] = parameters["RequestItems"]
        if not asked or sum(len(one["Keys"]) for one in asked.values()) > _MAX_KEYS:
            raise invalid(
                "Too many items requested for the BatchGetItem call" if asked else _no_requests("BatchGetItem")
            )
        found: dict[str, list[Item]] = {}
        unread: dict[str, Any] = {}
        size = 0
        for address, one in asked.items():
            writes.refuse_unknown(one)
            table, paths = self._table(address), _projection(one)
            keys = [table.keys.taken(key) for key in one["Keys"]]
            _check_distinct((table.name, key) for key in keys)
            items = found.setdefault(table.name, [])
            for key in keys:
                item = table.get(key)
                size += values.item_size(item) if item is not None else 0
                if size > _MAX_READ:
                    unread.setdefault(address, {**one, "Keys": []})["Keys"].append(values.given_item(key))
                elif item is not None:
                    items.append(values.given_item(projected(item, paths)))
        return {"Responses": found, "UnprocessedKeys": unread}

    def _batch_write_item(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        asked: Mapping[str, Sequence[Mapping[str, Any]]] = parameters["RequestItems"]
        if not asked or not all(asked.values()):
            raise invalid(_no_requests("BatchWriteItem"))
        if sum(map(len, asked.values())) > _MAX_REQUESTS:
            raise invalid("Too many items requested for the BatchWriteItem call")
        wanted = [self._request(address, request) for address, requests in asked.items() for request in requests]
        _check_distinct((write.rows.name, write.key) for write in wanted)
        outcomes = [write.outcome()[1] for write in wanted]
        if sum(values.item_size(new) for new in outcomes if new is not None) > _MAX_WRITTEN:
            raise ServiceError("RequestEntityTooLargeException", "The request is larger than 16 MB", status=413)
        for write, new in zip(wanted, outcomes, strict=True):
            write.commit(new, now)
        return {"UnprocessedItems": {}}

    def _request(self, address: str, request: Mapping[str, Any]) -> Write:
        if len(request) != 1 or not request.keys() <= {"PutRequest", "DeleteRequest"}:
            raise invalid(
                "Supplied AttributeValue has more than one datatypes set, must contain exactly one of PutRequest, DeleteRequest"
            )
        ((kind, asked),) = request.items()
        if kind == "PutRequest":
            return writes.put(self, {"TableName": address, "Item": asked["Item"]})
        return writes.delete(self, {"TableName": address, "Key": asked["Key"]})

    def _query(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return reads.query(self._table(parameters["TableName"]), parameters)

    def _scan(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return reads.scan(self._table(parameters["TableName"]), parameters)

    # Transactions and statements

    def _transact_write_items(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return transactions.write(self, self._tokens, parameters, now)

    def _transact_get_items(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return transactions.get(self, parameters)

    def _execute_statement(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return statements.execute(self, parameters, now)

    def _batch_execute_statement(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return statements.batch(self, parameters, now)

    def _execute_transaction(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return statements.transaction(self, self._statement_tokens, parameters, now)


def returned_of(write: Write, old: Item | None, new: Item | None, returned: str) -> Item | None:
    """What `ReturnValues` asks for; None: nothing."""
    match returned:
        case "ALL_OLD":
            return old
        case "ALL_NEW":
            return new
        case "UPDATED_OLD" | "UPDATED_NEW":
            return touched(old, new or {}, write.update, is_new=returned == "UPDATED_NEW")
        case _:
            return None


def _attributes(item: Item | None) -> dict[str, Any]:
    return {"Attributes": values.given_item(item)} if item else {}


def _projection(parameters: Mapping[str, Any]) -> Any:
    names = Names.of(parameters)
    paths = projection_of(parameters.get("ProjectionExpression"), names)
    names.check_used(paths is not None)
    return paths


def _one(table: Table, key: Mapping[str, Any], paths: Any) -> Item | None:
    item = table.get(table.keys.taken(key))
    return None if item is None else values.given_item(projected(item, paths))


def _check_distinct(keys: Iterable[tuple[str, Item]]) -> None:
    seen: list[tuple[str, Item]] = []
    for key in keys:
        if key in seen:
            raise invalid("Provided list of item keys contains duplicates")
        seen.append(key)


def _no_requests(operation: str) -> str:
    return f"{operation} cannot have a null or no requests set"


def _backups(table: Table) -> dict[str, Any]:
    status = "ENABLED" if table.recovery.get("PointInTimeRecoveryEnabled") else "DISABLED"
    recovery: dict[str, Any] = {"PointInTimeRecoveryStatus": status}
    if status == "ENABLED":
        recovery["RecoveryPeriodInDays"] = table.recovery.get("RecoveryPeriodInDays", 35)
    about = {"ContinuousBackupsStatus": "ENABLED", "PointInTimeRecoveryDescription": recovery}
    return {"ContinuousBackupsDescription": about}
