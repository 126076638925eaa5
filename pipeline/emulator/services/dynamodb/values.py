"""Attribute values: taken from a caller with DynamoDB's rules, copied, measured and compared.

Values stand in the API's form, `{"S": "text"}`, with numbers in one spelling and binaries as bytes. What is stored is never
changed afterwards, so items may share parts; what is handed out is a copy.

Sources of limits and rules: the DynamoDB developer guide, "Supported data types and naming rules" and "Quotas".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Context, Decimal
from typing import Any, Final

from pipeline.emulator.services.service import ServiceError

Value = dict[str, Any]
Item = dict[str, Value]

MAX_ITEM: Final = 409_600
_MAX_DEPTH: Final = 32
_MAX_DIGITS: Final = 38
_LARGEST, _SMALLEST = Decimal("9.9999999999999999999999999999999999999E+125"), Decimal("1E-130")
#: From 1E-130 to 9.9E+125, and a digit more.
_EXACT = Context(prec=300)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_SPELLED = re.compile(r"-?[1-9]\d{0,30}", re.ASCII)  # what most numbers look like, and need no work
_SETS: Final = {"SS": "S", "NS": "N", "BS": "B"}
TYPES: Final = ("S", "N", "B", "SS", "NS", "BS", "M", "L", "NULL", "BOOL")


def invalid(message: str) -> ServiceError:
    """The error of a request that is wrong whatever stands in the table."""
    return ServiceError("ValidationException", message)


def taken(value: object, depth: int = 1) -> Value:
    """A caller's value, checked, copied and in the one spelling. Raises `ServiceError` (ValidationException)."""
    if not isinstance(value, Mapping) or not value:
        raise invalid("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
    if len(value) > 1:
        raise invalid(
            "Supplied AttributeValue has more than one datatypes set, must contain exactly one of the supported datatypes"
        )
    if depth > _MAX_DEPTH:
        raise invalid("Nesting Levels have exceeded supported limits")
    ((kind, held),) = value.items()
    take = _TAKE.get(kind)
    if take is None:
        raise invalid("Supplied AttributeValue is empty, must contain exactly one of the supported datatypes")
    return {kind: take(held, depth)}


def taken_item(item: Mapping[str, object]) -> Item:
    """A caller's item; see `taken`."""
    return {name: taken(value) for name, value in item.items()}


def given(value: Value) -> Value:
    """A copy of a value, for a caller to keep."""
    ((kind, held),) = value.items()
    if kind == "M":
        return {kind: {name: given(member) for name, member in held.items()}}
    if kind == "L":
        return {kind: [given(member) for member in held]}
    return {kind: list(held) if kind in _SETS else held}


def given_item(item: Item) -> Item:
    """A copy of an item, for a caller to keep."""
    return {name: given(value) for name, value in item.items()}


def type_of(value: Value) -> str:
    """`S`, `N`, `M` and so on."""
    return next(iter(value))


def total(left: Value, right: Value, *, is_less: bool = False) -> Value:
    """Two numbers' sum or difference, exact. Raises `ServiceError` for one that DynamoDB cannot hold."""
    one, other = Decimal(left["N"]), Decimal(right["N"])
    return {"N": _spelled(_EXACT.subtract(one, other) if is_less else _EXACT.add(one, other))}


def is_equal(left: Value, right: Value) -> bool:
    """Whether two values are the same: of the same type, numbers by their amount, sets in any order."""
    return left == right  # numbers have one spelling, and sets stand in order


def is_ordered(left: Value, right: Value) -> bool:
    """Whether one of them can be less than the other: texts, numbers or binaries, both of one type."""
    return type_of(left) == type_of(right) and type_of(left) in ("S", "N", "B")


def sort_key(value: Value) -> Any:
    """What orders values of one type: numbers by amount, texts by their UTF-8 bytes."""
    ((kind, held),) = value.items()
    if kind == "N":
        return Decimal(held)
    return held.encode("utf-8", "surrogatepass") if kind == "S" else held


def members_of(value: Value) -> list[Value]:
    """The members of a list or of a set, as values."""
    ((kind, held),) = value.items()
    if kind == "L":
        return list(held)
    return [{_SETS[kind]: member} for member in held] if kind in _SETS else []


def set_of(kind: str, members: Sequence[Any]) -> Value:
    """A set of members that are spelled already, each once."""
    return {kind: _in_order(kind, set(members))}


def size(value: Value) -> int:
    """Bytes that count towards an item's 400 KB (developer guide, "Item sizes and formats")."""
    ((kind, held),) = value.items()
    if kind == "S":
        return _text_size(held)
    if kind == "N":
        return _number_size(held)
    if kind == "B":
        return len(held)
    if kind == "M":
        return 3 + sum(1 + _text_size(name) + size(member) for name, member in held.items())
    if kind == "L":
        return 3 + sum(1 + size(member) for member in held)
    return sum(size(member) for member in members_of(value)) if kind in _SETS else 1


def item_size(item: Item) -> int:
    """Bytes of an item: its names and its values."""
    return sum(_text_size(name) + size(value) for name, value in item.items())


def length(value: Value) -> int | None:
    """What the function `size` says: a text's characters, a binary's bytes, the number of members; None for other types."""
    ((kind, held),) = value.items()
    return len(held) if kind in ("S", "B", "M", "L", *_SETS) else None


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _number_size(text: str) -> int:
    digits = text.lstrip("-").replace(".", "").strip("0")
    return min((len(digits) + 1) // 2 + 1 + text.startswith("-"), 21)


def _text(held: object, _: int) -> str:
    if not isinstance(held, str):
        raise ServiceError("SerializationException", f"{type(held).__name__} can not be converted to an String")
    return held


def _number(held: object, _: int) -> str:
    text = _text(held, 0)
    if _SPELLED.fullmatch(text):
        return text
    return _spelled(Decimal(text) if _NUMBER.fullmatch(text) else None)


def _spelled(amount: Decimal | None) -> str:
    if amount is None or not amount.is_finite():
        raise invalid("The parameter cannot be converted to a numeric value")
    if not amount:
        return "0"
    sign, digits, exponent = amount.as_tuple()
    whole = "".join(map(str, digits)).lstrip("0")
    text = whole.rstrip("0")
    if len(text) > _MAX_DIGITS:
        raise invalid("Attempting to store more than 38 significant digits in a Number")
    if amount.copy_abs() > _LARGEST:
        raise invalid("Number overflow. Attempting to store a number with magnitude larger than supported range")
    if amount.copy_abs() < _SMALLEST:
        raise invalid("Number underflow. Attempting to store a number with magnitude smaller than supported range")
    point = int(exponent) + len(whole)  # where the digits' point stands
    if point <= 0:
        plain = "0." + "0" * -point + text
    elif point >= len(text):
        plain = text + "0" * (point - len(text))
    else:
        plain = f"{text[:point]}.{text[point:]}"
    return "-" * sign + plain


def _binary(held: object, _: int) -> bytes:
    if isinstance(held, str):  # botocore takes a text for its UTF-8 bytes
        return held.encode()
    inner = getattr(held, "value", held)  # boto3's `Binary`
    if not isinstance(inner, (bytes, bytearray, memoryview)):
        raise ServiceError("SerializationException", f"{type(held).__name__} can not be converted to a Blob")
    return bytes(inner)


def _null(held: object, _: int) -> bool:
    if held is not True:
        raise invalid(
            "One or more parameter values were invalid: Null attribute value types must have the value of true"
        )
    return True


def _boolean(held: object, _: int) -> bool:
    if not isinstance(held, bool):
        raise ServiceError("SerializationException", f"{type(held).__name__} can not be converted to a Boolean")
    return held


def _map(held: object, depth: int) -> Item:
    if not isinstance(held, Mapping):
        raise ServiceError("SerializationException", "Unexpected value type in payload")
    return {str(name): taken(member, depth + 1) for name, member in held.items()}


def _list(held: object, depth: int) -> list[Value]:
    return [taken(member, depth + 1) for member in _several(held)]


def _several(held: object) -> Sequence[Any]:
    if isinstance(held, (str, bytes, Mapping)) or not isinstance(held, (Sequence, set, frozenset)):
        raise ServiceError("SerializationException", "Unexpected value type in payload")
    return list(held)


def _set(kind: str, take: Callable[[object, int], Any]) -> Callable[[object, int], list[Any]]:
    def take_set(held: object, depth: int) -> list[Any]:
        members = [take(member, depth) for member in _several(held)]
        if not members:
            raise invalid(
                f"One or more parameter values were invalid: An {_SET_NAMES[kind]} set may not be empty",
            )
        if len(set(members)) < len(members):
            raise invalid("One or more parameter values were invalid: Input collection contains duplicates")
        return _in_order(kind, set(members))

    return take_set


def _in_order(kind: str, members: set[Any]) -> list[Any]:
    return sorted(members, key=lambda member: sort_key({_SETS[kind]: member}))


_SET_NAMES: Final = {"SS": "string", "NS": "number", "BS": "binary"}
_TAKE: Final[dict[str, Callable[[object, int], Any]]] = {
    "S": _text,
    "N": _number,
    "B": _binary,
    "NULL": _null,
    "BOOL": _boolean,
    "M": _map,
    "L": _list,
    "SS": _set("SS", _text),
    "NS": _set("NS", _number),
    "BS": _set("BS", _binary),
}
