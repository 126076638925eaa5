"""What calls about items need of a table, whoever keeps it; and what a primary key is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pipeline.emulator.services.dynamodb.values import Item, Value, invalid, sort_key, taken, type_of
from pipeline.emulator.services.service import ServiceError

#: Bytes of a partition key, and of a sort key (developer guide, "Quotas").
_MAX_PARTITION, _MAX_SORT = 2_048, 1_024
_EMPTY: Final = ("", b"")


class WrongKey(ServiceError):
    """A key that does not fit the table's schema. In a transaction it is the action's error, and not the call's."""

    def __init__(self, message: str) -> None:
        super().__init__("ValidationException", message)


@dataclass(frozen=True)
class KeyAttribute:
    """An attribute of the primary key; `kind`: S, N or B."""

    name: str
    kind: str
    max_bytes: int


@dataclass(frozen=True)
class Keys:
    """A table's primary key."""

    partition: KeyAttribute
    sort: KeyAttribute | None = None

    @classmethod
    def named(cls, partition: tuple[str, str], sort: tuple[str, str] | None = None) -> Keys:
        """By names and kinds."""
        return cls(KeyAttribute(*partition, _MAX_PARTITION), None if sort is None else KeyAttribute(*sort, _MAX_SORT))

    @property
    def attributes(self) -> tuple[KeyAttribute, ...]:
        """The partition key, and the sort key if there is one."""
        return (self.partition,) if self.sort is None else (self.partition, self.sort)

    @property
    def names(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(attribute.name for attribute in self.attributes)

    def place(self, item: Item) -> tuple[Any, Any]:
        """What tells the partition of an item or key, and what orders it there."""
        partition = sort_key(item[self.partition.name])
        return partition, 0 if self.sort is None else sort_key(item[self.sort.name])

    def position(self, item: Item) -> tuple[bytes, Any]:
        """Where an item or key stands: partitions by a hash of their keys, whose order nobody knows in DynamoDB either."""
        partition, sort = self.place(item)
        return hashed(partition), sort

    def of_item(self, item: Item) -> Item:
        """The key of an item. Raises `ServiceError` (ValidationException) for one without a usable key."""
        for attribute in self.attributes:
            if attribute.name not in item:
                raise WrongKey(
                    f"One or more parameter values were invalid: Missing the key {attribute.name} in the item"
                )
            kind = type_of(item[attribute.name])
            if kind != attribute.kind:
                raise WrongKey(
                    f"One or more parameter values were invalid: Type mismatch for key {attribute.name} "
                    f"expected: {attribute.kind} actual: {kind}"
                )
            self._check(attribute, item[attribute.name])
        return {name: item[name] for name in self.names}

    def taken(self, key: Mapping[str, object]) -> Item:
        """A caller's `Key`. Raises `ServiceError` (ValidationException) for what is no key of this table."""
        made = {name: taken(value) for name, value in key.items()}
        if made.keys() != set(self.names) or any(type_of(made[one.name]) != one.kind for one in self.attributes):
            raise WrongKey("The provided key element does not match the schema")
        for attribute in self.attributes:
            self._check(attribute, made[attribute.name])
        return {name: made[name] for name in self.names}

    def _check(self, attribute: KeyAttribute, value: Value) -> None:
        if attribute.kind == "N":
            return
        held = value[attribute.kind]
        if held in _EMPTY:
            what = "string" if attribute.kind == "S" else "binary"
            raise invalid(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an "
                f"empty {what} value. Key: {attribute.name}"
            )
        if len(held.encode("utf-8", "surrogatepass") if attribute.kind == "S" else held) > attribute.max_bytes:
            which = "rangekey" if attribute is self.sort else "hashkey"
            raise invalid(
                "One or more parameter values were invalid: "
                f"Size of {which} has exceeded the maximum size limit of {attribute.max_bytes} bytes"
            )


def hashed(partition: Any) -> bytes:
    """What orders partitions."""
    return hashlib.sha256(repr(partition).encode("utf-8", "surrogatepass")).digest()


class Rows(Protocol):
    """The items of one table. They are shared, and nobody changes them."""

    @property
    def name(self) -> str:
        """The table's name."""
        ...

    @property
    def keys(self) -> Keys:
        """Its primary key."""
        ...

    def get(self, key: Item) -> Item | None:
        """The item of a key."""
        ...

    def put(self, key: Item, item: Item | None, now: float) -> None:
        """From now on this item, or none, stands there."""
        ...

    def every(self, after: Item | None = None) -> Iterable[Item]:
        """All items, or those behind a key, by their `Keys.position`."""
        ...

    def of_partition(self, key: Item) -> Sequence[Item]:
        """The items with a partition key, by their sort keys."""
        ...


class Tables(Protocol):
    """The tables of an account in a region."""

    def rows(self, name: str) -> Rows:
        """The table of a name or ARN. Raises `ServiceError` (ResourceNotFoundException)."""
        ...
