"""DynamoDB's own form of values and tables: what the table sink and the table store share.

Limits (the service model of DynamoDB, 2026-11): items of 400 KB, numbers of 38 digits between
1E-130 and 9.9E+125, partition keys of 2,048 and sort keys of 1,024 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from pipeline.aws.client import client, code_of
from pipeline.aws.names import Resource
from pipeline.errors import SinkRefused
from pipeline.ports import Environment

#: A value as the API wants it: `{"S": "text"}`, `{"N": "1"}`, ...
Attribute = dict[str, Any]

MAX_ITEM = 409_600
_MAX_DIGITS = 38
_LARGEST, _SMALLEST = Decimal("9.9999999999999999999999999999999999999E+125"), Decimal("1E-130")


def attribute(value: Any) -> Attribute:
    """A decoded JSON value (with `Decimal` for fractions) as an attribute value."""
    match value:
        case str():
            return {"S": value}
        case bool():
            return {"BOOL": value}
        case int() | Decimal():
            return {"N": _number(value)}
        case None:
            return {"NULL": True}
        case dict():
            return {"M": {name: attribute(member) for name, member in value.items()}}
        case list():
            return {"L": [attribute(member) for member in value]}
        case _:
            raise SinkRefused(f"DynamoDB cannot hold a {type(value).__name__} from JSON")


def size_of(value: Attribute) -> int:
    """The bytes that DynamoDB counts for a value; at most a few too many for a number."""
    ((kind, held),) = value.items()
    match kind:
        case "S":
            return _text_size(held)
        case "N":
            return min(len(held) // 2 + 2, 21)
        case "M":
            return 3 + sum(1 + _text_size(name) + size_of(member) for name, member in held.items())
        case "L":
            return 3 + sum(1 + size_of(member) for member in held)
        case _:
            return 1


def item_size(item: Mapping[str, Attribute]) -> int:
    """The bytes that DynamoDB counts for an item: its names and its values."""
    return sum(_text_size(name) + size_of(value) for name, value in item.items())


async def create_table(
    table: Resource, environment: Environment, *, partition_key: str, sort_key: str | None, ttl: str | None = None
) -> None:
    """Make a table with string keys, paid per request, when it is missing; wait until it is usable."""
    dynamodb = await client(environment, "dynamodb")
    name = table.physical
    keys = [(partition_key, "HASH"), *([(sort_key, "RANGE")] if sort_key else [])]
    try:
        await dynamodb.create_table(
            TableName=name,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key, _ in keys],
            KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in keys],
        )
    except Exception as error:
        if code_of(error) != "ResourceInUseException":
            raise
    waiter = dynamodb.get_waiter("table_exists")
    await waiter.wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    if ttl is not None:
        await _expire_by(ttl, dynamodb, name)


async def _expire_by(name: str, dynamodb: Any, table: str) -> None:
    found = await dynamodb.describe_time_to_live(TableName=table)
    if found["TimeToLiveDescription"]["TimeToLiveStatus"] in ("ENABLED", "ENABLING"):
        return
    wanted = {"Enabled": True, "AttributeName": name}
    await dynamodb.update_time_to_live(TableName=table, TimeToLiveSpecification=wanted)


def _number(value: int | Decimal) -> str:
    exact = Decimal(value)
    if not exact.is_finite():
        raise SinkRefused("DynamoDB cannot hold NaN or an infinity; return it as text or leave it out")
    digits = "".join(map(str, exact.as_tuple().digits)).strip("0")
    if len(digits) > _MAX_DIGITS:
        raise SinkRefused(f"a number of {len(digits)} digits: DynamoDB holds {_MAX_DIGITS}; return it as text")
    if exact and not _SMALLEST <= abs(exact) <= _LARGEST:
        raise SinkRefused("a number beyond DynamoDB's range (1E-130 to 9.9E+125); return it as text")
    return str(value)


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
