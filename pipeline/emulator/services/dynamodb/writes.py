"""Writes of single items: what a call asks for as a value, which is then carried out alone or with others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pipeline.emulator.services.dynamodb import values
from pipeline.emulator.services.dynamodb.evaluation import holds, updated
from pipeline.emulator.services.dynamodb.expressions import NOTHING, Condition, Names, Update, condition_of, update_of
from pipeline.emulator.services.dynamodb.rows import Rows, Tables
from pipeline.emulator.services.dynamodb.values import Item, invalid
from pipeline.emulator.services.service import ServiceError

#: What DynamoDB had before expressions. Whoever still says it gets no silent success.
LEGACY: Final = (
    "AttributesToGet", "AttributeUpdates", "ConditionalOperator", "Expected", "KeyConditions", "QueryFilter", "ScanFilter",
)  # fmt: skip


@dataclass(frozen=True)
class Write:
    """One write of one item, on a condition."""

    rows: Rows
    key: Item
    make: Callable[[Item | None], Item | None]  #: of what stands there, what shall
    condition: Condition | None = None
    update: Update = NOTHING
    brings_old: bool = False  #: a refusal shows what stands there
    duplicate: bool = False  #: a refusal means that the key is taken
    is_check: bool = False

    def outcome(self) -> tuple[Item | None, Item | None]:
        """What stands there, and what would. Raises `ServiceError`, also when the condition is false."""
        old = self.rows.get(self.key)
        if not holds(self.condition, old):
            raise self._refusal(old)
        return old, self.make(old)

    def carry_out(self, now: float) -> tuple[Item | None, Item | None]:
        """Do it; see `outcome`."""
        old, new = self.outcome()
        self.commit(new, now)
        return old, new

    def commit(self, new: Item | None, now: float) -> None:
        """Let what `outcome` said stand there."""
        if not self.is_check:
            self.rows.put(self.key, new, now)

    def _refusal(self, old: Item | None) -> ServiceError:
        if self.duplicate:
            return ServiceError("DuplicateItemException", "Duplicate primary key exists in table")
        members = {"Item": values.given_item(old)} if self.brings_old and old is not None else {}
        return ServiceError("ConditionalCheckFailedException", "The conditional request failed", members=members)


def put(tables: Tables, parameters: Mapping[str, Any]) -> Write:
    """PutItem, and a transaction's `Put`. Raises `ServiceError`."""
    rows, names = _begun(tables, parameters)
    condition = _condition(parameters, names)
    return replacing(rows, values.taken_item(parameters["Item"]), condition, brings_old=_brings_old(parameters))


def replacing(
    rows: Rows, item: Item, condition: Condition | None, *, brings_old: bool = False, duplicate: bool = False
) -> Write:
    """An item in the place of what stands there. Raises `ServiceError` for one without a key, or too large."""
    key = rows.keys.of_item(item)
    if values.item_size(item) > values.MAX_ITEM:
        raise invalid("Item size has exceeded the maximum allowed size")
    return Write(rows, key, lambda _: item, condition, brings_old=brings_old, duplicate=duplicate)


def update(tables: Tables, parameters: Mapping[str, Any]) -> Write:
    """UpdateItem, and a transaction's `Update`. Raises `ServiceError`."""
    rows, names = _begun(tables, parameters)
    change = update_of(parameters.get("UpdateExpression"), names)
    condition = _condition(parameters, names)
    key = rows.keys.taken(parameters["Key"])
    return changing(rows, key, change, condition, brings_old=_brings_old(parameters))


def changing(rows: Rows, key: Item, change: Update, condition: Condition | None, *, brings_old: bool = False) -> Write:
    """An item changed, or made of its key and the change. Raises `ServiceError` for a change of the key."""
    for path in change.paths:
        if path.parts[0] in rows.keys.names:
            raise invalid(
                "One or more parameter values were invalid: "
                f"Cannot update attribute {path.parts[0]}. This attribute is part of the key"
            )

    def make(old: Item | None) -> Item:
        new = updated(key if old is None else old, change)
        if values.item_size(new) > values.MAX_ITEM:
            raise invalid("Item size to update has exceeded the maximum allowed size")
        return new

    return Write(rows, key, make, condition, change, brings_old=brings_old)


def delete(tables: Tables, parameters: Mapping[str, Any]) -> Write:
    """DeleteItem, and a transaction's `Delete`. Raises `ServiceError`."""
    rows, names = _begun(tables, parameters)
    condition = _condition(parameters, names)
    key = rows.keys.taken(parameters["Key"])
    return Write(rows, key, lambda _: None, condition, brings_old=_brings_old(parameters))


def check(tables: Tables, parameters: Mapping[str, Any]) -> Write:
    """A transaction's `ConditionCheck`. Raises `ServiceError`."""
    rows, names = _begun(tables, parameters)
    if parameters.get("ConditionExpression") is None:
        raise invalid("The ConditionExpression of a ConditionCheck must not be empty")
    condition = _condition(parameters, names)
    key = rows.keys.taken(parameters["Key"])
    return Write(rows, key, lambda old: old, condition, brings_old=_brings_old(parameters), is_check=True)


def refuse_unknown(parameters: Mapping[str, Any]) -> None:
    """Raise `ServiceError` for what the model does not do, rather than do something else."""
    for name in LEGACY:
        if parameters.get(name) is not None:
            raise invalid(f"tables in memory do not know {name}: use the expression parameters")
    if parameters.get("IndexName") is not None:
        raise invalid("tables in memory have no secondary indexes: read the table itself, or use DynamoDB Local")


def _begun(tables: Tables, parameters: Mapping[str, Any]) -> tuple[Rows, Names]:
    refuse_unknown(parameters)
    rows = tables.rows(parameters["TableName"])
    return rows, Names.of(parameters)


def _condition(parameters: Mapping[str, Any], names: Names) -> Condition | None:
    """The condition, after all other expressions: what none of them used is refused."""
    text = parameters.get("ConditionExpression")
    found = condition_of(text, names)
    names.check_used(text is not None or parameters.get("UpdateExpression") is not None)
    return found


def _brings_old(parameters: Mapping[str, Any]) -> bool:
    return choice(parameters, "ReturnValuesOnConditionCheckFailure", ("NONE", "ALL_OLD")) == "ALL_OLD"


def choice(parameters: Mapping[str, Any], name: str, choices: tuple[str, ...]) -> str:
    """One of some words; the first one by default. Raises `ServiceError` for another one."""
    found = parameters.get(name) or choices[0]
    if found not in choices:
        raise invalid(
            f"1 validation error detected: Value '{found}' at '{name[0].lower()}{name[1:]}' failed to satisfy constraint: "
            f"Member must satisfy enum value set: [{', '.join(choices)}]"
        )
    return str(found)
