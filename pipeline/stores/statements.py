"""The claim protocol's writes as PartiQL statements, which travel together: `BatchExecuteStatement`.

Every value is a parameter, and a statement's text holds nothing but our own attributes' names and the table's, both
quoted: some of the names are reserved words. A table is named, and never by its ARN, for which PartiQL has no place.
What a statement says when it is refused (DynamoDB's API reference, and seen on DynamoDB Local 2.6.1):

- INSERT of a key that is there: `DuplicateItem`, without the item.
- UPDATE or DELETE whose condition is false: `ConditionalCheckFailed`, with the item. An UPDATE of an item that is not
  there too, without one; a DELETE of it succeeds.
"""

from __future__ import annotations

from typing import Any

from pipeline.decisions.idempotency import Entry, Settlement
from pipeline.stores import items
from pipeline.stores.items import Change, Term, Value

Statement = dict[str, Any]


def insert(table: str, entry: Entry) -> Statement:
    """A new entry, where there is none at all: an expired one stands in its way too."""
    item = items.item_of(entry)
    members = ", ".join(f"'{name}': ?" for name in item)
    return _statement(f"INSERT INTO {_quoted(table)} VALUE {{{members}}}", [*item.values()])


def update(table: str, change: Change) -> Statement:
    """A change of an entry that is there."""
    sets = " ".join(f"SET {_quoted(name)} = ?" for name in change.sets)
    removes = "".join(f" REMOVE {_quoted(name)}" for name in change.removes)
    condition, values = _where(change.key, change.where)
    return _statement(
        f"UPDATE {_quoted(table)} {sets}{removes} WHERE {condition}",
        [*change.sets.values(), *values],
    )


def forget(table: str, settlement: Settlement) -> Statement:
    """A held claim, deleted; nothing there is as good."""
    condition, values = _where(settlement.id, items.held(settlement.owner))
    return _statement(f"DELETE FROM {_quoted(table)} WHERE {condition}", values)  # noqa: S608 - see above


def size_of(statement: Statement) -> int:
    """About how many bytes it takes in a request; never fewer than its values."""
    values: list[Value] = statement["Parameters"]
    return len(statement["Statement"]) + sum(
        16 + len(str(text).encode("utf-8", "surrogatepass"))
        for value in values
        for text in value.values()  # others' may be of any type
    )


def _where(key: str, terms: tuple[Term, ...]) -> tuple[str, list[Value]]:
    parts, values = [f"{_quoted(items.ID)} = ?"], [items.text(key)]
    for term in terms:
        if term.value is None:
            parts.append(f"{_quoted(term.name)} IS MISSING")
        else:
            parts.append(f"{_quoted(term.name)} {term.operator} ?")
            values.append(term.value)
    return " AND ".join(parts), values


def _statement(text: str, parameters: list[Value]) -> Statement:
    return {"Statement": text, "Parameters": parameters, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
