"""DynamoDB: tables and the calls about them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, Final

from pipeline.emulator.services.dynamodb import stream
from pipeline.emulator.services.dynamodb.items import Items, checked
from pipeline.emulator.services.dynamodb.rows import Rows
from pipeline.emulator.services.dynamodb.stream import Stream
from pipeline.emulator.services.dynamodb.streams import DynamoDBStreams
from pipeline.emulator.services.dynamodb.table import Table, billing_of
from pipeline.emulator.services.dynamodb.values import invalid
from pipeline.emulator.services.service import Operation, ServiceError

#: Seconds between an item's expiry and its removal. DynamoDB says "within a few days".
TTL_LAG: Final = 48 * 3_600.0
#: What each call must say.
_REQUIRED: Final = {
    "create_table": ("TableName", "KeySchema", "AttributeDefinitions"),
    "delete_table": ("TableName",),
    "describe_continuous_backups": ("TableName",),
    "describe_table": ("TableName",),
    "describe_time_to_live": ("TableName",),
    "list_tables": (),
    "update_continuous_backups": ("TableName", "PointInTimeRecoverySpecification"),
    "update_table": ("TableName",),
    "update_time_to_live": ("TableName", "TimeToLiveSpecification"),
}


class DynamoDB:
    """The tables of one account in one region.

    Without secondary indexes, and without the parameters that DynamoDB had before expressions: both are refused. Tables
    are ready at once, reads are always consistent, and capacity has no limit and is not told.

    `chance`: of the ids of streams' records. `ttl_lag`: seconds between an item's expiry and its removal, until when it
    is seen. `stream_shards`: of each table's stream; the items of one partition key are in one of them.
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
        own = {name: checked(getattr(self, f"_{name}"), required) for name, required in _REQUIRED.items()}
        self.operations: Mapping[str, Operation] = {
            name: self._in_time(call) for name, call in {**own, **Items(self).operations}.items()
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

    def _in_time(self, call: Operation) -> Operation:
        def operation(parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
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
                "Resource cannot be deleted as it is currently protected against deletion. "
                "Disable deletion protection first."
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


def _backups(table: Table) -> dict[str, Any]:
    status = "ENABLED" if table.recovery.get("PointInTimeRecoveryEnabled") else "DISABLED"
    recovery: dict[str, Any] = {"PointInTimeRecoveryStatus": status}
    if status == "ENABLED":
        recovery["RecoveryPeriodInDays"] = table.recovery.get("RecoveryPeriodInDays", 35)
    about = {"ContinuousBackupsStatus": "ENABLED", "PointInTimeRecoveryDescription": recovery}
    return {"ContinuousBackupsDescription": about}
