"""Query and Scan: which items, in what order, in pages.

Sources: the developer guide, "Querying tables in DynamoDB" and "Scanning tables in DynamoDB".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pipeline.emulator.services.dynamodb import values, writes
from pipeline.emulator.services.dynamodb.evaluation import holds, projected
from pipeline.emulator.services.dynamodb.expressions import (
    Between,
    Both,
    Comparison,
    Condition,
    Constant,
    Names,
    Path,
    Test,
    condition_of,
    projection_of,
)
from pipeline.emulator.services.dynamodb.rows import Keys, Rows
from pipeline.emulator.services.dynamodb.values import Item, Value, invalid, type_of

#: Bytes that one page looks at.
_PAGE: Final = 1_048_576


def projection(parameters: Mapping[str, Any]) -> Sequence[Path] | None:
    """The paths that a call about single items asks for; None: all. Raises `ServiceError`."""
    names = Names.of(parameters)
    paths = projection_of(parameters.get("ProjectionExpression"), names)
    names.check_used(paths is not None)
    return paths


def one(rows: Rows, key: Mapping[str, Any], paths: Sequence[Path] | None) -> dict[str, Any] | None:
    """The item of a key, as an answer has it; None: there is none. Raises `ServiceError`."""
    item = rows.get(rows.keys.taken(key))
    return None if item is None else values.given_item(projected(item, paths))


def query(rows: Rows, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Query. Raises `ServiceError`."""
    writes.refuse_unknown(parameters)
    names = Names.of(parameters)
    wanted = condition_of(parameters.get("KeyConditionExpression"), names, "KeyConditionExpression")
    if wanted is None:
        raise invalid("Either the KeyConditions or KeyConditionExpression parameter must be specified in the request.")
    partition, rest = _split(wanted, rows.keys)
    start = _start(rows, parameters)
    if start is not None and start[rows.keys.partition.name] != partition[rows.keys.partition.name]:
        raise invalid("The provided starting key is outside query boundaries based on provided conditions")
    found = [item for item in rows.of_partition(partition) if holds(rest, item)]
    ordered = found if parameters.get("ScanIndexForward", True) else found[::-1]
    if start is not None:
        at, is_forward = rows.keys.position(start), parameters.get("ScanIndexForward", True)
        ordered = [
            item for item in ordered if rows.keys.position(item) != at and (rows.keys.position(item) > at) == is_forward
        ]
    return _page(rows, ordered, parameters, names, rows.keys.names)


def scan(rows: Rows, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Scan. Raises `ServiceError`."""
    writes.refuse_unknown(parameters)
    names = Names.of(parameters)
    items = rows.every(_start(rows, parameters))
    segment, segments = parameters.get("Segment"), parameters.get("TotalSegments")
    if (segment is None) is not (segments is None) or (segments is not None and not 0 <= (segment or 0) < segments):
        raise invalid("The Segment parameter must be less than TotalSegments, and both are given or none")
    if segments is not None:
        items = [item for item in items if rows.keys.position(item)[0][0] % segments == segment]
    return _page(rows, items, parameters, names, ())


def _page(
    rows: Rows, items: Iterable[Item], parameters: Mapping[str, Any], names: Names, unfiltered: Sequence[str]
) -> dict[str, Any]:
    """One page of items: of at most `Limit` looked at, and of a megabyte."""
    limit = parameters.get("Limit")
    if limit is not None and limit < 1:
        raise invalid(
            "1 validation error detected: Value at 'limit' failed to satisfy constraint: "
            "Member must have value greater than or equal to 1"
        )
    wanted = condition_of(parameters.get("FilterExpression"), names, "FilterExpression")
    for name in _names_in(wanted):
        if name in unfiltered:
            raise invalid(
                f"Filter Expression can only contain non-primary key attributes: Primary key attribute: {name}"
            )
    paths = projection_of(parameters.get("ProjectionExpression"), names)
    asked = ("KeyConditionExpression", "FilterExpression", "ProjectionExpression")
    names.check_used(any(parameters.get(name) is not None for name in asked))
    select = writes.choice(parameters, "Select", ("ALL_ATTRIBUTES", "SPECIFIC_ATTRIBUTES", "COUNT"))
    if paths is None and select == "SPECIFIC_ATTRIBUTES":
        raise invalid(
            "Must specify the AttributesToGet or ProjectionExpression when choosing to get SPECIFIC_ATTRIBUTES"
        )
    found: list[Item] = []
    looked_at, size, last = 0, 0, None
    for item in items:
        looked_at += 1
        size += values.item_size(item)
        if holds(wanted, item):
            found.append(item)
        if looked_at == limit or size >= _PAGE:
            last = item
            break
    answer: dict[str, Any] = {"Count": len(found), "ScannedCount": looked_at}
    if select != "COUNT":
        answer["Items"] = [values.given_item(projected(item, paths)) for item in found]
    if last is not None:
        answer["LastEvaluatedKey"] = values.given_item(rows.keys.of_item(last))
    return answer


def _start(rows: Rows, parameters: Mapping[str, Any]) -> Item | None:
    key = parameters.get("ExclusiveStartKey")
    return None if key is None else rows.keys.taken(key)


def _split(wanted: Condition, keys: Keys) -> tuple[Item, Condition | None]:
    """The partition key that a key condition asks for, and what it says of the sort key. Raises `ServiceError`."""
    parts = [wanted.left, wanted.right] if isinstance(wanted, Both) else [wanted]
    by_name: dict[str, Condition] = {}
    for part in parts:
        name = _key_name(part)
        if name in by_name:
            raise invalid("KeyConditionExpressions must only contain one condition per key")
        by_name[name] = part
    found = by_name.pop(keys.partition.name, None)
    if found is None or (by_name and (keys.sort is None or keys.sort.name not in by_name)):
        raise invalid(f"Query condition missed key schema element: {keys.partition.name}")
    if not isinstance(found, Comparison) or found.operator != "=" or not isinstance(found.right, Constant):
        raise invalid("Query key condition not supported")
    key = {keys.partition.name: found.right.value}
    rest = next(iter(by_name.values()), None)
    for attribute, condition in ((keys.partition, found), (keys.sort, rest)):
        if attribute is None or condition is None:
            continue
        for value in _values_in(condition):
            if type_of(value) != attribute.kind:
                raise invalid(
                    "One or more parameter values were invalid: Condition parameter type does not match schema type"
                )
            if value[attribute.kind] in ("", b""):
                raise invalid(
                    "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an "
                    f"empty string value. Key: {attribute.name}"
                )
    return key, rest


def _key_name(part: Condition) -> str:
    """The attribute that one half of a key condition is about. Raises `ServiceError` for what can be none."""
    match part:
        case Comparison(operator, Path((str() as name,)), Constant()) if operator != "<>":
            return name
        case Between(Path((str() as name,)), Constant(), Constant()):
            return name
        case Test("begins_with", Path((str() as name,)), Constant()):
            return name
        case _:
            raise invalid(f"Invalid operator used in KeyConditionExpression: {_operator(part)}")


def _operator(part: Condition) -> str:
    match part:
        case Comparison(operator):
            return operator
        case Test(function):
            return function
        case _:
            return {"Both": "AND", "Either": "OR", "Negated": "NOT"}.get(
                type(part).__name__, type(part).__name__.upper()
            )


def _values_in(condition: Condition) -> list[Value]:
    match condition:
        case Comparison(_, _, Constant(value)) | Test(_, _, Constant(value)):
            return [value]
        case Between(_, Constant(low), Constant(high)):
            return [low, high]
        case _:
            return []


def _names_in(condition: object) -> set[str]:
    """The top-level attributes that a condition is about."""
    if isinstance(condition, Path):
        return {str(condition.parts[0])}
    if isinstance(condition, tuple):
        return {name for one in condition for name in _names_in(one)}
    inner = getattr(condition, "__dict__", {})
    return {name for one in inner.values() for name in _names_in(one)}
