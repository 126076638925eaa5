"""The calls about items, over tables that anybody may keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pipeline.emulator.services.dynamodb import reads, statements, transactions, values, writes
from pipeline.emulator.services.dynamodb.evaluation import projected, touched
from pipeline.emulator.services.dynamodb.rows import Tables
from pipeline.emulator.services.dynamodb.values import Item, invalid
from pipeline.emulator.services.dynamodb.writes import Write
from pipeline.emulator.services.service import Operation, ServiceError

#: BatchGetItem: keys and bytes of a call; BatchWriteItem: requests and bytes.
_MAX_KEYS, _MAX_READ = 100, 16 * 1_048_576
_MAX_REQUESTS, _MAX_WRITTEN = 25, 16 * 1_048_576

#: What each call must say.
_REQUIRED: Final = {
    "batch_execute_statement": ("Statements",),
    "batch_get_item": ("RequestItems",),
    "batch_write_item": ("RequestItems",),
    "delete_item": ("TableName", "Key"),
    "execute_statement": ("Statement",),
    "execute_transaction": ("TransactStatements",),
    "get_item": ("TableName", "Key"),
    "put_item": ("TableName", "Item"),
    "query": ("TableName",),
    "scan": ("TableName",),
    "transact_get_items": ("TransactItems",),
    "transact_write_items": ("TransactItems",),
    "update_item": ("TableName", "Key"),
}
#: The operations' names.
OPERATIONS: Final = tuple(_REQUIRED)


class Items:
    """The calls about the items of some tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._tokens = transactions.Tokens()
        self._statement_tokens = transactions.Tokens()
        self.operations: Mapping[str, Operation] = {
            name: checked(getattr(self, f"_{name}"), required) for name, required in _REQUIRED.items()
        }

    def _put_item(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        returned = writes.choice(parameters, "ReturnValues", ("NONE", "ALL_OLD"))
        old, _ = writes.put(self._tables, parameters).carry_out(now)
        return _attributes(old if returned == "ALL_OLD" else None)

    def _delete_item(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        returned = writes.choice(parameters, "ReturnValues", ("NONE", "ALL_OLD"))
        old, _ = writes.delete(self._tables, parameters).carry_out(now)
        return _attributes(old if returned == "ALL_OLD" else None)

    def _update_item(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        choices = ("NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW")
        returned = writes.choice(parameters, "ReturnValues", choices)
        write = writes.update(self._tables, parameters)
        old, new = write.carry_out(now)
        return _attributes(returned_of(write, old, new, returned))

    def _get_item(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        writes.refuse_unknown(parameters)
        item = reads.one(self._tables.rows(parameters["TableName"]), parameters["Key"], reads.projection(parameters))
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
            rows, paths = self._tables.rows(address), reads.projection(one)
            keys = [rows.keys.taken(key) for key in one["Keys"]]
            _check_distinct((rows.name, key) for key in keys)
            items = found.setdefault(rows.name, [])
            for key in keys:
                item = rows.get(key)
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
            return writes.put(self._tables, {"TableName": address, "Item": asked["Item"]})
        return writes.delete(self._tables, {"TableName": address, "Key": asked["Key"]})

    def _query(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return reads.query(self._tables.rows(parameters["TableName"]), parameters)

    def _scan(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return reads.scan(self._tables.rows(parameters["TableName"]), parameters)

    # Transactions and statements

    def _transact_write_items(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return transactions.write(self._tables, self._tokens, parameters, now)

    def _transact_get_items(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return transactions.get(self._tables, parameters)

    def _execute_statement(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return statements.execute(self._tables, parameters, now)

    def _batch_execute_statement(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return statements.batch(self._tables, parameters, now)

    def _execute_transaction(self, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        return statements.transaction(self._tables, self._statement_tokens, parameters, now)


def checked(call: Operation, required: Sequence[str]) -> Operation:
    """An operation that refuses calls without what they must say."""

    def operation(parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
        for name in required:
            if parameters.get(name) is None:
                raise invalid(
                    f"1 validation error detected: Value null at '{name[0].lower()}{name[1:]}' failed to satisfy "
                    "constraint: Member must not be null"
                )
        return call(parameters, now)

    return operation


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


def _check_distinct(keys: Iterable[tuple[str, Item]]) -> None:
    seen: list[tuple[str, Item]] = []
    for key in keys:
        if key in seen:
            raise invalid("Provided list of item keys contains duplicates")
        seen.append(key)


def _no_requests(operation: str) -> str:
    return f"{operation} cannot have a null or no requests set"
