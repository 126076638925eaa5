"""What expressions say about an item: whether a condition holds, what a projection leaves, what an update makes."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, Final, TypeVar

from pipeline.emulator.services.dynamodb import values
from pipeline.emulator.services.dynamodb.expressions import (
    Appended,
    Between,
    Both,
    Comparison,
    Condition,
    Constant,
    Default,
    Either,
    In,
    Negated,
    Operand,
    Path,
    Size,
    Sum,
    Term,
    Test,
    Union,
    Update,
)
from pipeline.emulator.services.dynamodb.values import Item, Value, invalid, is_equal, type_of

T = TypeVar("T")

_ORDERS: Final = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
_NO_PATH = "The document path provided in the update expression is invalid for update"
_NO_ATTRIBUTE = "The provided expression refers to an attribute that does not exist in the item"
_WRONG_TYPE = "An operand in the update expression has an incorrect data type"


def holds(condition: Condition | None, item: Item | None) -> bool:
    """Whether a condition is true of an item, or of none. What is missing is equal to nothing, and not less than anything."""
    return condition is None or _holds(condition, item or {})


def _holds(condition: Condition, item: Item) -> bool:
    match condition:
        case Both(left, right):
            return _holds(left, item) and _holds(right, item)
        case Either(left, right):
            return _holds(left, item) or _holds(right, item)
        case Negated(negated):
            return not _holds(negated, item)
        case Comparison(sign, left, right):
            return _compares(sign, _value(left, item), _value(right, item))
        case Between(what, low, high):
            value = _value(what, item)
            return _compares(">=", value, _value(low, item)) and _compares("<=", value, _value(high, item))
        case In(what, options):
            value = _value(what, item)
            return any(_compares("=", value, _value(option, item)) for option in options)
        case Test():
            return _passes(condition, item)


def _compares(sign: str, left: Value | None, right: Value | None) -> bool:
    if sign == "<>":
        return left is None or right is None or not is_equal(left, right)
    if left is None or right is None:
        return False
    if sign == "=":
        return is_equal(left, right)
    return values.is_ordered(left, right) and bool(_ORDERS[sign](values.sort_key(left), values.sort_key(right)))


def _passes(test: Test, item: Item) -> bool:
    value = _value(test.what, item)
    if test.function == "attribute_exists":
        return value is not None
    if test.function == "attribute_not_exists":
        return value is None
    operand = None if test.operand is None else _value(test.operand, item)
    if value is None or operand is None:
        return False
    if test.function == "attribute_type":
        return operand.get("S") == type_of(value)
    if test.function == "begins_with":
        kind = type_of(value)
        return kind in ("S", "B") and kind in operand and bool(value[kind].startswith(operand[kind]))
    return _contains(value, operand)


def _contains(value: Value, operand: Value) -> bool:
    kind = type_of(value)
    if kind in ("S", "B"):
        return kind in operand and operand[kind] in value[kind]
    return any(is_equal(member, operand) for member in values.members_of(value))


def _value(operand: Operand, item: Item) -> Value | None:
    match operand:
        case Constant(value):
            return value
        case Size(what):
            value_there = _value(what, item)
            length = None if value_there is None else values.length(value_there)
            return None if length is None else {"N": str(length)}
        case Path():
            return found(item, operand)


def found(item: Item, path: Path) -> Value | None:
    """What stands at a path, if anything does."""
    here: Any = {"M": item}
    for part in path.parts:
        here = _step(here, part)
        if here is None:
            return None
    return dict(here)


def _step(here: Value, part: str | int) -> Value | None:
    if isinstance(part, str):
        members: Item = here.get("M", {})
        return members.get(part)
    several: list[Value] = here.get("L", [])
    return several[part] if part < len(several) else None


def projected(item: Item, paths: Iterable[Path] | None) -> Item:
    """What the paths name of an item, in its shape; of lists the members close up."""
    if paths is None:
        return item
    places: dict[str | int, Any] = {}
    for path in paths:
        here = places
        for part in path.parts:
            here = here.setdefault(part, {})
    left = _kept({"M": item}, places)
    return dict(left["M"]) if left is not None else {}


def _kept(value: Value, places: dict[str | int, Any]) -> Value | None:
    """A value with only what the places name; None when nothing of it is left. No places: all of it."""
    if not places:
        return value
    ((kind, held),) = value.items()
    if kind == "M":
        members = {name: _kept(held[name], inner) for name, inner in places.items() if name in held}
        left = {str(name): member for name, member in members.items() if member is not None}
        return {"M": left} if left else None
    if kind != "L":
        return None
    numbers = sorted(part for part in places if isinstance(part, int))
    several = [_kept(held[number], places[number]) for number in numbers if number < len(held)]
    kept = [member for member in several if member is not None]
    return {"L": kept} if kept else None


def updated(item: Item, update: Update) -> Item:
    """What an update makes of an item. Every operand is as it was before. Raises `ServiceError` (ValidationException)."""
    made = values.given_item(item)
    sets = [(path, _made(term, item)) for path, term in update.sets]
    adds = [(path, _sum_of(found(item, path), value)) for path, value in update.adds]
    lefts = [(path, _less(found(item, path), value)) for path, value in update.deletes]
    removes = [*update.removes]
    for path, value in (*sets, *adds, *lefts):
        if value is None:
            removes.append(path)
        else:
            _put(made, path, value)
    # From the back, so that the places of a list's members stay what they were.
    for path in sorted(removes, key=lambda path: [part for part in path.parts if isinstance(part, int)], reverse=True):
        _remove(made, path)
    return made


def _made(term: Term, item: Item) -> Value | None:
    """What SET writes; None for a set of which nothing is left."""
    if isinstance(term, Union):
        members = _term(term.members, item)
        there = found(item, term.path) if term.function == "set_add" else _there(term.path, item)
        return _sum_of(there, members) if term.function == "set_add" else _less(there, members)
    return _term(term, item)


def _term(term: Term, item: Item) -> Value:
    match term:
        case Constant(value):
            return values.given(value)
        case Path():
            return values.given(_there(term, item))
        case Sum(sign, left, right):
            first, second = _term(left, item), _term(right, item)
            if "N" not in first or "N" not in second:
                raise invalid(_WRONG_TYPE)
            return values.total(first, second, is_less=sign == "-")
        case Default(path, otherwise):
            value_there = found(item, path)
            return _term(otherwise, item) if value_there is None else values.given(value_there)
        case Appended(first_part, then):
            lists = [_term(first_part, item), _term(then, item)]
            if any("L" not in one for one in lists):
                raise invalid(_WRONG_TYPE)
            return {"L": [*lists[0]["L"], *lists[1]["L"]]}
        case Union():
            raise invalid("set_add and set_delete make the whole of what SET writes")


def _there(path: Path, item: Item) -> Value:
    value = found(item, path)
    if value is None:
        raise invalid(_NO_ATTRIBUTE)
    return value


def _sum_of(there: Value | None, value: Value) -> Value:
    """What ADD makes: a sum, or a set with more members; of nothing, the value."""
    if there is None:
        return values.given(value)
    kind = type_of(value)
    if type_of(there) != kind:
        raise invalid(_WRONG_TYPE)
    if kind == "N":
        return values.total(there, value)
    return values.set_of(kind, [*there[kind], *value[kind]])


def _less(there: Value | None, value: Value) -> Value | None:
    """What DELETE leaves of a set: None for nothing."""
    if there is None:
        return None
    kind = type_of(value)
    if type_of(there) != kind:
        raise invalid(_WRONG_TYPE)
    left = [member for member in there[kind] if member not in value[kind]]
    return {kind: left} if left else None


def _put(item: Item, path: Path, value: Value) -> None:
    *way, last = path.parts
    here = _container(item, way)
    if isinstance(last, str):
        if "M" not in here:
            raise invalid(_NO_PATH)
        here["M"][last] = value
        return
    if "L" not in here:
        raise invalid(_NO_PATH)
    several: list[Value] = here["L"]
    if last < len(several):
        several[last] = value
    else:
        several.append(value)  # beyond the end: it becomes the last one


def _remove(item: Item, path: Path) -> None:
    *way, last = path.parts
    here = _container(item, way)
    if isinstance(last, str):
        if "M" not in here:
            raise invalid(_NO_PATH)
        here["M"].pop(last, None)
        return
    if "L" not in here:
        raise invalid(_NO_PATH)
    if last < len(here["L"]):
        del here["L"][last]


def _container(item: Item, way: Iterable[str | int]) -> Value:
    here: Value | None = {"M": item}
    for part in way:
        here = None if here is None else _step(here, part)
    if here is None:
        raise invalid(_NO_PATH)
    return here


def touched(before: Item | None, after: Item, update: Update, *, is_new: bool) -> Item:
    """UPDATED_OLD and UPDATED_NEW: the attributes that an update names, as they were or as they are."""
    paths = update.paths
    return projected(after if is_new else before or {}, paths) if paths else {}
