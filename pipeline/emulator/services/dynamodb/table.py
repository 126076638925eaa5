"""One table: its definition, its items, when they expire, and its stream."""

from __future__ import annotations

import heapq
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pipeline.emulator.services.dynamodb import stream, values
from pipeline.emulator.services.dynamodb.rows import Keys, hashed
from pipeline.emulator.services.dynamodb.stream import Stream, moment
from pipeline.emulator.services.dynamodb.values import Item, Value, invalid
from pipeline.emulator.services.service import ACCOUNT, REGION

_NAME = re.compile(r"[a-zA-Z0-9_.-]{3,255}")
#: TTL leaves what expired longer ago alone (developer guide, "Using time to live").
_TOO_OLD: Final = 5 * 365 * 86_400


class Table:
    """A table and its items, which are shared and never changed. `lag`: seconds between an item's expiry and its removal."""

    def __init__(self, parameters: Mapping[str, Any], now: float, lag: float, chance: random.Random) -> None:
        self.name = name_of(parameters)
        self.keys = keys_of(parameters)
        self.arn = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{self.name}"
        self.billing = billing_of(parameters)
        self.stream: Stream | None = None
        self.ttl: str | None = None
        self.recovery: Mapping[str, Any] = {}
        self.is_protected = bool(parameters.get("DeletionProtectionEnabled"))
        self._made = now
        self._lag = lag
        self._chance = chance
        #: By partition key and sort key.
        self._partitions: dict[Any, dict[Any, Item]] = {}
        #: When items expire, soonest first; what changed meanwhile is found out when its time comes.
        self._expiries: list[tuple[float, int, Item]] = []
        self._count = 0

    # Items

    def get(self, key: Item) -> Item | None:
        """See `Rows`."""
        partition, sort = self.keys.place(key)
        return self._partitions.get(partition, {}).get(sort)

    def put(self, key: Item, item: Item | None, now: float, *, by_ttl: bool = False) -> None:
        """See `Rows`. `by_ttl`: the item has expired, and the service takes it away."""
        partition, sort = self.keys.place(key)
        items = self._partitions.setdefault(partition, {})
        old = items.pop(sort, None)
        if item is not None:
            items[sort] = item
            self._expect(key, item)
        elif not items:
            del self._partitions[partition]
        if self.stream is not None and self.stream.is_open:
            self.stream.add(key, old, item, now, f"{self._chance.getrandbits(128):032x}", by_ttl=by_ttl)

    def every(self, after: Item | None = None) -> Iterable[Item]:
        """See `Rows`."""
        start = None if after is None else self.keys.position(after)
        for partition in sorted(self._partitions, key=hashed):
            if start is None or hashed(partition) >= start[0]:
                for item in self._in(partition):
                    if start is None or self.keys.position(item) > start:
                        yield item

    def of_partition(self, key: Item) -> Sequence[Item]:
        """See `Rows`."""
        return self._in(values.sort_key(key[self.keys.partition.name]))

    def _in(self, partition: Any) -> Sequence[Item]:
        items = self._partitions.get(partition, {})
        return [items[sort] for sort in sorted(items)] if len(items) > 1 else list(items.values())

    # Time to live

    def expire_by(self, attribute: str | None) -> None:
        """Let items expire by an attribute, or no more."""
        self.ttl = attribute
        self._expiries = []
        for item in self.every() if attribute is not None else ():
            self._expect(self.keys.of_item(item), item)

    def next_expiry(self) -> float | None:
        """When the next item is removed, at the soonest, epoch seconds."""
        return self._expiries[0][0] if self._expiries else None

    def expire(self, now: float) -> None:
        """Remove what expired long enough ago."""
        while self._expiries and self._expiries[0][0] <= now:
            at, _, key = heapq.heappop(self._expiries)
            item = self.get(key)
            if item is not None and self._removal(item) == at and at - self._lag > now - _TOO_OLD:
                self.put(key, None, at, by_ttl=True)

    def _expect(self, key: Item, item: Item) -> None:
        at = self._removal(item)
        if at is not None:
            self._count += 1
            heapq.heappush(self._expiries, (at, self._count, key))

    def _removal(self, item: Item) -> float | None:
        found: Value = {} if self.ttl is None else item.get(self.ttl, {})
        return float(found["N"]) + self._lag if "N" in found else None

    # Definition

    def specify_stream(self, asked: Mapping[str, Any], now: float, label: str, shards: int) -> None:
        """Enable a stream, or disable it. Raises `ServiceError` where that is so already."""
        wanted, is_on = bool(asked.get("StreamEnabled")), self.stream is not None and self.stream.is_open
        view = asked.get("StreamViewType")
        if wanted and is_on:
            raise invalid("Table already has an enabled stream")
        if not wanted and not is_on:
            raise invalid("Table has no stream to disable")
        if wanted:
            if view not in stream.VIEWS:
                raise invalid(
                    "Invalid StreamViewType: Stream ViewType must not be null or empty when enabling streams."
                )
            self.stream = Stream(self.name, self.arn, self._key_schema(), str(view), label, now, shards)
        elif self.stream is not None:
            self.stream.close()

    def described(self) -> dict[str, Any]:
        """As DescribeTable tells it."""
        items = [item for items in self._partitions.values() for item in items.values()]
        about: dict[str, Any] = {
            "TableName": self.name,
            "TableArn": self.arn,
            "TableStatus": "ACTIVE",
            "CreationDateTime": moment(self._made),
            "AttributeDefinitions": [
                {"AttributeName": one.name, "AttributeType": one.kind} for one in self.keys.attributes
            ],
            "KeySchema": self._key_schema(),
            "ItemCount": len(items),
            "TableSizeBytes": sum(map(values.item_size, items)),
            "DeletionProtectionEnabled": self.is_protected,
            "BillingModeSummary": {"BillingMode": self.billing},
        }
        if self.stream is not None:
            about["LatestStreamLabel"], about["LatestStreamArn"] = self.stream.label, self.stream.arn
            if self.stream.is_open:
                about["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": self.stream.view}
        return about

    def _key_schema(self) -> list[dict[str, str]]:
        kinds = ("HASH", "RANGE")
        return [{"AttributeName": name, "KeyType": kind} for name, kind in zip(self.keys.names, kinds, strict=False)]


def name_of(parameters: Mapping[str, Any]) -> str:
    """The name of a table to be made. Raises `ServiceError` (ValidationException)."""
    name = parameters["TableName"]
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise invalid(
            "Invalid table/index name.  Table/index names must be between 3 and 255 characters long, and may contain only "
            "the characters a-z, A-Z, 0-9, '_', '-', and '.'"
        )
    return name


def keys_of(parameters: Mapping[str, Any]) -> Keys:
    """The primary key of a table to be made. Raises `ServiceError` (ValidationException)."""
    for index in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes"):
        if parameters.get(index):
            raise invalid(f"tables in memory have no {index}: leave them out, or use DynamoDB Local")
    schema = parameters["KeySchema"]
    kinds = {one["AttributeName"]: one["AttributeType"] for one in parameters["AttributeDefinitions"]}
    if [one["KeyType"] for one in schema] not in (["HASH"], ["HASH", "RANGE"]):
        raise invalid("Invalid KeySchema: one HASH key, and at most one RANGE key behind it")
    names = [one["AttributeName"] for one in schema]
    if set(names) != kinds.keys() or len(set(names)) < len(names):
        raise invalid(
            "One or more parameter values were invalid: Number of attributes in KeySchema does not exactly match number of "
            f"attributes defined in AttributeDefinitions: KeySchema {names}, AttributeDefinitions {sorted(kinds)}"
        )
    if not set(kinds.values()) <= {"S", "N", "B"}:
        raise invalid("Member must satisfy enum value set: [B, N, S]")
    pairs = [(name, kinds[name]) for name in names]
    return Keys.named(*pairs)


def billing_of(parameters: Mapping[str, Any]) -> str:
    """How a table is paid for. Raises `ServiceError` (ValidationException)."""
    billing, throughput = parameters.get("BillingMode") or "PROVISIONED", parameters.get("ProvisionedThroughput")
    if billing == "PROVISIONED" and not throughput:
        raise invalid("No provisioned throughput specified for the table")
    if billing == "PAY_PER_REQUEST" and throughput:
        raise invalid(
            "One or more parameter values were invalid: Neither ReadCapacityUnits nor WriteCapacityUnits can be specified "
            "when BillingMode is PAY_PER_REQUEST"
        )
    return str(billing)
