"""What DynamoDB does with a call: state, answers, and the capacity that it charges.

By AWS's rules (Amazon DynamoDB Developer Guide, "Read/write capacity"): a write costs one unit for each KB begun of the
larger of the item before and after; twice that in a transaction; a refused conditional write costs by the item that
stood in its way, and one unit where there was none. A read costs one unit for each 4 KB begun, half of that when it is
eventually consistent, and that of an absent item as much as one of the smallest.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks import dynamodb_expressions as expressions
from benchmarks.dynamodb_expressions import Attribute, Item
from pipeline.aws.dynamodb import item_size

#: The partition key of each table that the benchmarks use; there are no sort keys.
KEYS = {"shop-idempotency": "id", "ledger": "order_id", "dedup": "pk"}
MAX_STATEMENTS, MAX_WRITES, MAX_GETS, MAX_TRANSACTION = 25, 25, 100, 100


class Refused(Exception):
    """A call that is answered with status 400. The argument is the code without its prefix."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(code)
        self.answer = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message, **more}


class Tables:
    """Tables in memory, and what was asked of them."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[Any, Item]] = {name: {} for name in KEYS}
        self.calls: Counter[str] = Counter()
        self.write_units = 0.0
        self.read_units = 0.0
        self._answers: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "PutItem": self._put_item,
            "UpdateItem": self._update_item,
            "DeleteItem": self._delete_item,
            "GetItem": self._get_item,
            "BatchGetItem": self._batch_get_item,
            "BatchWriteItem": self._batch_write_item,
            "BatchExecuteStatement": self._batch_execute_statement,
            "TransactWriteItems": self._transact_write_items,
        }

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to a call. Raises `Refused`."""
        self.calls[operation] += 1
        return self._answers[operation](request)

    def counts(self) -> dict[str, Any]:
        """What was counted since the last time."""
        counted = {"calls": dict(self.calls), "write_units": self.write_units, "read_units": self.read_units}
        self.calls.clear()
        self.write_units = self.read_units = 0.0
        return counted

    def clear(self) -> None:
        """Forget all items and counts."""
        self.__init__()  # type: ignore[misc]

    # --- single items

    def _put_item(self, request: dict[str, Any]) -> dict[str, Any]:
        item = request["Item"]
        self._write(request, _key_of(request["TableName"], item), lambda _: item)
        return {}

    def _update_item(self, request: dict[str, Any]) -> dict[str, Any]:
        change = expressions.update(request["UpdateExpression"], _names(request))
        values = request.get("ExpressionAttributeValues", {})

        def changed(found: Item | None) -> Item:
            item = {**(found or request["Key"])}
            change(item, values)
            return item

        item = self._write(request, _key_of(request["TableName"], request["Key"]), changed)
        return {"Attributes": item} if request.get("ReturnValues") == "ALL_NEW" else {}

    def _delete_item(self, request: dict[str, Any]) -> dict[str, Any]:
        self._write(request, _key_of(request["TableName"], request["Key"]), lambda _: None)
        return {}

    def _get_item(self, request: dict[str, Any]) -> dict[str, Any]:
        found = self._read(request["TableName"], request["Key"], is_consistent=request.get("ConsistentRead", False))
        return {"Item": found} if found else {}

    def _write(
        self, request: Mapping[str, Any], key: Any, after: Callable[[Item | None], Item | None], *, factor: int = 1
    ) -> Item | None:
        """Do a conditional write of one item. Raises `Refused` when its condition is false."""
        table = self._tables[request["TableName"]]
        found = table.get(key)
        if not self._holds(request, found):
            self.write_units += factor * _write_units(found)
            shown = found if request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" else None
            more = {"Item": shown} if shown else {}
            raise Refused("ConditionalCheckFailedException", "The conditional request failed", **more)
        item = after(found)
        self.write_units += factor * max(_write_units(found), _write_units(item))
        if item is None:
            table.pop(key, None)
        else:
            table[key] = item
        return item

    def _holds(self, request: Mapping[str, Any], found: Item | None) -> bool:
        text = request.get("ConditionExpression")
        if text is None:
            return True
        return expressions.condition(text, _names(request))(found or {}, request.get("ExpressionAttributeValues", {}))

    def _read(self, table: str, key: Mapping[str, Attribute], *, is_consistent: bool) -> Item | None:
        found = self._tables[table].get(_key_of(table, key))
        self.read_units += _read_units(found) * (1 if is_consistent else 0.5)
        return found

    # --- batches

    def _batch_get_item(self, request: dict[str, Any]) -> dict[str, Any]:
        answers: dict[str, list[Item]] = {}
        for table, asked in request["RequestItems"].items():
            keys = [_key_of(table, key) for key in asked["Keys"]]
            _check(len(keys) <= MAX_GETS, "too many keys")
            _check(len(set(keys)) == len(keys), "a key twice")
            is_consistent = asked.get("ConsistentRead", False)
            found = [self._read(table, key, is_consistent=is_consistent) for key in asked["Keys"]]
            answers[table] = [item for item in found if item]
        return {"Responses": answers, "UnprocessedKeys": {}}

    def _batch_write_item(self, request: dict[str, Any]) -> dict[str, Any]:
        writes = [(table, write) for table, some in request["RequestItems"].items() for write in some]
        _check(len(writes) <= MAX_WRITES, "too many items")
        keys = set()
        for table, write in writes:
            item = write["PutRequest"]["Item"] if "PutRequest" in write else None
            key = _key_of(table, item or write["DeleteRequest"]["Key"])
            _check((table, key) not in keys, "an item twice")
            keys.add((table, key))
            self._write({"TableName": table}, key, lambda _, item=item: item)
        return {"UnprocessedItems": {}}

    def _transact_write_items(self, request: dict[str, Any]) -> dict[str, Any]:
        """All or nothing; each action costs twice, also a refused one."""
        actions = [next(iter(action.items())) for action in request["TransactItems"]]
        _check(len(actions) <= MAX_TRANSACTION, "too many actions")
        found = [self._tables[given["TableName"]].get(_action_key(given)) for _, given in actions]
        reasons = [self._reason(given, one) for (_, given), one in zip(actions, found, strict=True)]
        if any(reason["Code"] != "None" for reason in reasons):
            self.write_units += sum(2 * _write_units(one) for one in found)
            codes = ", ".join(reason["Code"] for reason in reasons)
            message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
            raise Refused("TransactionCanceledException", message, CancellationReasons=reasons)
        for kind, given in actions:
            self._write(given, _action_key(given), _after(kind, given), factor=2)
        return {}

    def _reason(self, given: Mapping[str, Any], found: Item | None) -> dict[str, Any]:
        if self._holds(given, found):
            return {"Code": "None"}
        is_shown = found and given.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        more = {"Item": found} if is_shown else {}
        return {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed", **more}

    # --- PartiQL

    def _batch_execute_statement(self, request: dict[str, Any]) -> dict[str, Any]:
        given = request["Statements"]
        _check(1 <= len(given) <= MAX_STATEMENTS, "more than 25 statements")
        parsed = [expressions.statement(one["Statement"]) for one in given]
        _check(len({one.kind == "SELECT" for one in parsed}) == 1, "reads beside writes")
        return {"Responses": [self._execute(*both) for both in zip(parsed, given, strict=True)]}

    def _execute(self, statement: expressions.Statement, given: Mapping[str, Any]) -> dict[str, Any]:
        values = dict(enumerate(given.get("Parameters", ())))
        name = KEYS[statement.table]
        if statement.kind == "INSERT":
            item = {member: value({}, values) for member, value in statement.item}
            return self._insert(statement.table, item)
        wanted = next((value for member, value in statement.equalities if member == name), None)
        _check(wanted is not None, "a statement of a batch names the whole primary key")
        key = wanted({}, values)
        if statement.kind == "SELECT":
            found = self._read(statement.table, {name: key}, is_consistent=given.get("ConsistentRead", False))
            is_match = found is not None and statement.condition(found, values)
            return {"TableName": statement.table, **({"Item": found} if is_match else {})}
        return self._change(statement, key, values, given)

    def _insert(self, table: str, item: Item) -> dict[str, Any]:
        key = _key_of(table, item)
        if found := self._tables[table].get(key):
            self.write_units += _write_units(found)
            return _error(table, "DuplicateItem", "Duplicate primary key exists in table")
        self._tables[table][key] = item
        self.write_units += _write_units(item)
        return {"TableName": table}

    def _change(
        self,
        statement: expressions.Statement,
        key: Attribute,
        values: Mapping[Any, Attribute],
        given: Mapping[str, Any],
    ) -> dict[str, Any]:
        """UPDATE and DELETE: unlike UpdateItem, they change nothing that is not there."""
        table = self._tables[statement.table]
        place = _key_of(statement.table, {KEYS[statement.table]: key})
        found = table.get(place)
        if found is None or not statement.condition(found, values):
            self.write_units += _write_units(found)
            shown = found if given.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD" else None
            return _error(statement.table, "ConditionalCheckFailed", "The conditional request failed", shown)
        if statement.update is None:
            del table[place]
            self.write_units += _write_units(found)
            return {"TableName": statement.table}
        item = {**found}
        statement.update(item, values)
        self.write_units += max(_write_units(found), _write_units(item))
        table[place] = item
        return {"TableName": statement.table}


def _after(kind: str, given: Mapping[str, Any]) -> Callable[[Item | None], Item | None]:
    if kind == "Put":
        return lambda _: given["Item"]
    if kind == "ConditionCheck":
        return lambda found: found
    if kind == "Delete":
        return lambda _: None
    change = expressions.update(given["UpdateExpression"], _names(given))

    def changed(found: Item | None) -> Item:
        item = {**(found or given["Key"])}
        change(item, given.get("ExpressionAttributeValues", {}))
        return item

    return changed


def _action_key(given: Mapping[str, Any]) -> Any:
    return _key_of(given["TableName"], given.get("Item") or given["Key"])


def _key_of(table: str, item: Mapping[str, Attribute]) -> Any:
    return next(iter(item[KEYS[table]].items()))


def _names(request: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(request.get("ExpressionAttributeNames", {}).items())


def _write_units(item: Item | None) -> int:
    return max(1, math.ceil(item_size(item) / 1024)) if item else 1


def _read_units(item: Item | None) -> int:
    return max(1, math.ceil(item_size(item) / 4096)) if item else 1


def _error(table: str, code: str, message: str, item: Item | None = None) -> dict[str, Any]:
    shown = {"Item": item} if item else {}
    return {"TableName": table, "Error": {"Code": code, "Message": message, **shown}}


def _check(is_right: bool, wrong: str) -> None:
    if not is_right:
        raise Refused("ValidationException", wrong)


#: What of a call's answer nobody here asks for: ConsumedCapacity, ItemCollectionMetrics.
__all__: Sequence[str] = ("KEYS", "Refused", "Tables")
