"""Idempotency entries as DynamoDB items, and what the claim protocol writes into them.

The names are those of Powertools' table; `owner`, `attempts`, `outputs`, `rejected` and `position` are ours, and
Powertools ignores them. When Powertools takes an entry over it replaces the whole item, so the owner is gone
and every later write of ours is refused.

A `Change` says once what is written and what must stand there for it; `update_item` and the `statements` module say it
in DynamoDB's two languages, so that both strategies have the same fences.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from msgspec.structs import asdict

from pipeline.decisions.idempotency import (
    COMPLETED,
    IN_PROGRESS,
    NO_DATA,
    RELEASED,
    Complete,
    Entry,
    Release,
    Renewal,
    Settlement,
    expiration_of,
)
from pipeline.errors import StoreUnavailable

ID, STATUS, EXPIRATION = "id", "status", "expiration"
IN_PROGRESS_EXPIRATION, DATA = "in_progress_expiration", "data"
VALIDATION, POSITION = "validation", "position"
OWNER, ATTEMPTS, OUTPUTS, REJECTED = "owner", "attempts", "outputs", "rejected"
#: All attributes that an entry may have, the key apart.
_ATTRIBUTES = (
    STATUS, EXPIRATION, IN_PROGRESS_EXPIRATION, DATA, VALIDATION, POSITION, OWNER, ATTEMPTS, OUTPUTS, REJECTED,
)  # fmt: skip

#: An item without an expiration never expires.
_NEVER = 2**62

#: A value as the API wants it: `{"S": "text"}` or `{"N": "1"}`.
Value = dict[str, str]
Item = Mapping[str, Mapping[str, Any]]
Parameters = dict[str, Any]


@dataclass(frozen=True)
class Term:
    """What must be true of one attribute; without a value: it must be missing."""

    name: str
    operator: Literal["=", "<", "<=", ">"] = "="
    value: Value | None = None


@dataclass(frozen=True)
class Change:
    """An update of one item that is there, while all terms are true of it."""

    key: str
    where: tuple[Term, ...]
    sets: Mapping[str, Value]
    removes: tuple[str, ...] = ()


class ForeignEntry(Entry, frozen=True, kw_only=True):
    """An entry whose owner or lease stands there in another form than ours, so that the fields cannot say what was read."""

    read: Mapping[str, Value]  #: those attributes as they were read


def entry_of(item: Item | None) -> Entry | None:
    """An item as an entry. Raises `StoreUnavailable` for one that is no idempotency entry."""
    if not item:
        return None
    try:
        entry = Entry(
            id=item[ID]["S"],
            status=item[STATUS]["S"],
            expiration=_integer(item, EXPIRATION, _NEVER),
            in_progress_expiration=_integer(item, IN_PROGRESS_EXPIRATION, None),
            data=_text(item, DATA),
            validation=_text(item, VALIDATION),
            owner=_text(item, OWNER),
            attempts=_integer(item, ATTEMPTS, 0),
            outputs=_text(item, OUTPUTS),
            rejected=tuple(json.loads(_text(item, REJECTED) or "[]")),
            position=_text(item, POSITION),
        )
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        # Not the error's message: it may quote the value.
        raise StoreUnavailable(f"not an idempotency entry: {type(error).__name__}") from None
    read = {name: dict(item[name]) for name in (OWNER, IN_PROGRESS_EXPIRATION) if name in item}
    return entry if read == _read(entry) else ForeignEntry(**asdict(entry), read=read)


def item_of(entry: Entry) -> dict[str, Value]:
    """An entry as an item; what it does not have is left out."""
    texts = {
        ID: entry.id,
        STATUS: entry.status,
        DATA: entry.data,
        VALIDATION: entry.validation,
        OWNER: entry.owner,
        OUTPUTS: entry.outputs,
        REJECTED: json.dumps(entry.rejected) if entry.rejected else None,
        POSITION: entry.position,
    }
    numbers = {
        EXPIRATION: entry.expiration,
        IN_PROGRESS_EXPIRATION: entry.in_progress_expiration,
        ATTEMPTS: entry.attempts or None,
    }
    return {
        **{name: text(value) for name, value in texts.items() if value is not None},
        **{name: number(value) for name, value in numbers.items() if value is not None},
    }


def replace(mine: Entry, now: float) -> Change:
    """A first run's entry in the place of one that has expired: nothing of ours in that one stays."""
    item = item_of(mine)
    sets = {name: item[name] for name in _ATTRIBUTES if name in item}
    removes = tuple(name for name in _ATTRIBUTES if name not in item)
    return Change(mine.id, (Term(EXPIRATION, "<", number(int(now))),), sets, removes)


def take_over(found: Entry, mine: Entry) -> Change:
    """A free entry for its next owner, while it is still exactly as it was found.

    Status, owner and lease tell any two states of an entry apart, because every owner is new; attempts do where an owner
    asked twice.
    """
    read = _read(found)
    where = (
        *((Term(ATTEMPTS, value=number(found.attempts)),) if found.attempts else ()),
        Term(STATUS, value=text(found.status)),
        Term(OWNER, value=read.get(OWNER)),
        Term(IN_PROGRESS_EXPIRATION, value=read.get(IN_PROGRESS_EXPIRATION)),
    )
    sets = {
        OWNER: text(mine.owner),
        IN_PROGRESS_EXPIRATION: number(mine.in_progress_expiration),
        EXPIRATION: number(mine.expiration),
        ATTEMPTS: number(mine.attempts),
        **({VALIDATION: text(mine.validation)} if mine.validation else {}),
    }
    return Change(found.id, where, sets)


def complete(settlement: Complete, now: float) -> Change:
    """A held claim, completed."""
    sets = {
        STATUS: text(COMPLETED),
        DATA: text(settlement.data or NO_DATA),
        EXPIRATION: number(int(now) + settlement.ttl),
    }
    return Change(settlement.id, held(settlement.owner), sets, (OUTPUTS,))


def release(settlement: Release, now: float) -> Change:
    """A held claim, given back. The owner stays, so that a lost answer can be told."""
    sets = {
        IN_PROGRESS_EXPIRATION: number(RELEASED),
        EXPIRATION: number(int(now) + settlement.ttl),
        ATTEMPTS: number(settlement.attempts),
    }
    if settlement.outputs is not None:
        sets[OUTPUTS] = text(settlement.outputs)
    if settlement.rejected:
        sets[REJECTED] = text(json.dumps(settlement.rejected))
    removes = tuple(name for name in (OUTPUTS, REJECTED) if name not in sets)
    return Change(settlement.id, held(settlement.owner), sets, removes)


def renew(renewal: Renewal, now: float) -> Change:
    """A held claim, prolonged; refused, too, when it holds longer already."""
    lease = number(int(renewal.lease_until * 1000))
    where = (*held(renewal.owner), Term(IN_PROGRESS_EXPIRATION, "<=", lease))
    expiration = number(expiration_of(now, renewal.ttl, renewal.lease_until))
    return Change(renewal.id, where, {IN_PROGRESS_EXPIRATION: lease, EXPIRATION: expiration})


def held(owner: str) -> tuple[Term, ...]:
    """The owner holds the claim: it neither ended it nor lost it to another run."""
    return (
        Term(OWNER, value=text(owner)),
        Term(STATUS, value=text(IN_PROGRESS)),
        Term(IN_PROGRESS_EXPIRATION, ">", number(RELEASED)),
    )


def update_item(change: Change) -> Parameters:
    """A change as the parameters of UpdateItem."""
    values = {f":new_{name}": value for name, value in change.sets.items()}
    update = "SET " + ", ".join(f"#{name} = :new_{name}" for name in change.sets)
    if change.removes:
        update += " REMOVE " + ", ".join(f"#{name}" for name in change.removes)
    condition = _condition(change.where, values)
    return _keyed(change.key, _expressions(condition, update, values))


def forget(settlement: Settlement) -> Parameters:
    """DeleteItem of a held claim; nothing there is as good."""
    values: dict[str, Value] = {}
    condition = f"attribute_not_exists(#{ID}) OR ({_condition(held(settlement.owner), values)})"
    return _keyed(settlement.id, _expressions(condition, None, values))


def put_new(entry: Entry, now: float) -> Parameters:
    """PutItem of a first run's entry, where there is none or one that has expired."""
    condition = f"attribute_not_exists(#{ID}) OR #{EXPIRATION} < :now"
    return {"Item": item_of(entry), **_expressions(condition, None, {":now": number(int(now))})}


def advance(moved: Entry) -> Parameters:
    """UpdateItem of a checkpoint, unless it stands there, or further on, already."""
    item = item_of(moved)
    sets = (POSITION, STATUS, DATA, EXPIRATION)
    values = {f":new_{name}": item[name] for name in sets}
    update = "SET " + ", ".join(f"#{name} = :new_{name}" for name in sets)
    condition = f"attribute_not_exists(#{POSITION}) OR #{POSITION} < :new_{POSITION}"
    return _keyed(moved.id, _expressions(condition, update, values))


def text(value: str | None) -> Value:
    """A text as the API wants it."""
    return {"S": value or ""}


def number(value: int | None) -> Value:
    """A number as the API wants it."""
    return {"N": str(value or 0)}


def _condition(where: tuple[Term, ...], values: dict[str, Value]) -> str:
    """The terms as a condition; their values are added to `values`."""
    parts: list[str] = []
    for place, term in enumerate(where):
        if term.value is None:
            parts.append(f"attribute_not_exists(#{term.name})")
        else:
            mark = f":found_{term.name}_{place}"
            values[mark] = term.value
            parts.append(f"#{term.name} {term.operator} {mark}")
    return " AND ".join(parts)


def _keyed(key: str, parameters: Parameters) -> Parameters:
    return {"Key": {ID: text(key)}, **parameters}


def _expressions(condition: str, update: str | None, values: Mapping[str, Value]) -> Parameters:
    # Some of the names are reserved words, so all of them are written `#name`; one that is not used is refused.
    used = {name: name[1:] for name in re.findall(r"#\w+", f"{condition} {update or ''}")}
    parameters: Parameters = {
        "ConditionExpression": condition,
        "ExpressionAttributeNames": used,
        "ExpressionAttributeValues": values,
    }
    if update is not None:
        parameters["UpdateExpression"] = update
    return parameters


def _read(entry: Entry) -> Mapping[str, Value]:
    """The owner and the lease as they stand in the table; one that is missing is left out."""
    if isinstance(entry, ForeignEntry):
        return entry.read
    read: dict[str, Value] = {}
    if entry.owner is not None:
        read[OWNER] = text(entry.owner)
    if entry.in_progress_expiration is not None:
        read[IN_PROGRESS_EXPIRATION] = number(entry.in_progress_expiration)
    return read


def _text(item: Item, name: str) -> str | None:
    value = item.get(name)
    return None if value is None else value.get("S")


def _integer(item: Item, name: str, default: Any) -> Any:
    value = item.get(name)
    # Others may write fractions of a second; the part below one decides nothing.
    return default if value is None or "N" not in value else math.floor(Decimal(value["N"]))
