"""Idempotency entries as DynamoDB items, and the conditional writes of the claim protocol.

The names are those of Powertools' table; `owner`, `attempts`, `outputs`, `rejected` and `position` are ours, and
Powertools ignores them. When Powertools takes an entry over it replaces the whole item, so the owner is gone
and every later write of ours is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

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
)
from pipeline.errors import StoreUnavailable

ID, STATUS, EXPIRATION = "id", "status", "expiration"
IN_PROGRESS_EXPIRATION, DATA = "in_progress_expiration", "data"
VALIDATION, POSITION = "validation", "position"
OWNER, ATTEMPTS, OUTPUTS, REJECTED = "owner", "attempts", "outputs", "rejected"

#: An item without an expiration never expires.
_NEVER = 2**62
#: Some of the names are reserved words, so expressions use these for all of them.
_NAMES = {
    "#id": ID,
    "#status": STATUS,
    "#expiration": EXPIRATION,
    "#lease": IN_PROGRESS_EXPIRATION,
    "#data": DATA,
    "#owner": OWNER,
    "#attempts": ATTEMPTS,
    "#outputs": OUTPUTS,
    "#rejected": REJECTED,
    "#position": POSITION,
}
#: The owner holds the claim: it neither ended it nor lost it to another run.
_HELD = "#owner = :owner AND #status = :inprogress AND #lease > :released"

Item = Mapping[str, Mapping[str, Any]]
Parameters = dict[str, Any]


def entry_of(item: Item | None) -> Entry | None:
    """An item as an entry. Raises `StoreUnavailable` for one that is no idempotency entry."""
    if not item:
        return None
    try:
        return Entry(
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
    except (KeyError, TypeError, ValueError) as error:
        raise StoreUnavailable(f"not an idempotency entry: {type(error).__name__} {error}") from None


def item_of(entry: Entry) -> dict[str, dict[str, str]]:
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
        **{name: _s(text) for name, text in texts.items() if text is not None},
        **{name: _n(number) for name, number in numbers.items() if number is not None},
    }


def put_new(entry: Entry, now: float) -> Parameters:
    """PutItem of a first run's entry, where there is none or one that has expired."""
    condition = "attribute_not_exists(#id) OR #expiration < :now"
    return {"Item": item_of(entry), **_expressions(condition, None, {":now": _n(int(now))})}


def advance(moved: Entry) -> Parameters:
    """UpdateItem of a checkpoint, unless it stands there, or further on, already."""
    update = "SET #position = :position, #status = :status, #data = :data, #expiration = :expiration"
    values = {
        ":position": _s(moved.position),
        ":status": _s(moved.status),
        ":data": _s(moved.data),
        ":expiration": _n(moved.expiration),
    }
    condition = "attribute_not_exists(#position) OR #position < :position"
    return _keyed(moved.id, _expressions(condition, update, values))


def take_over(found: Entry, mine: Entry) -> Parameters:
    """UpdateItem of a free entry, while it is still exactly as it was found.

    Status, owner and lease tell any two states of an entry apart: every owner is new.
    """
    values = {
        ":mine": _s(mine.owner),
        ":lease": _n(mine.in_progress_expiration),
        ":expiration": _n(mine.expiration),
        ":attempts": _n(mine.attempts),
        ":status": _s(found.status),
    }
    condition = ["#status = :status"]
    for name, value in (
        ("owner", None if found.owner is None else _s(found.owner)),
        ("lease", None if found.in_progress_expiration is None else _n(found.in_progress_expiration)),
    ):
        condition.append(f"attribute_not_exists(#{name})" if value is None else f"#{name} = :found_{name}")
        if value is not None:
            values[f":found_{name}"] = value
    update = "SET #owner = :mine, #lease = :lease, #expiration = :expiration, #attempts = :attempts"
    return _keyed(found.id, _expressions(" AND ".join(condition), update, values))


def complete(settlement: Complete, now: float) -> Parameters:
    """UpdateItem that completes a held claim."""
    update = "SET #status = :completed, #data = :data, #expiration = :expiration REMOVE #outputs"
    data = settlement.data or NO_DATA
    values = {":completed": _s(COMPLETED), ":data": _s(data), ":expiration": _n(int(now) + settlement.ttl)}
    return _held(settlement.id, settlement.owner, update, values)


def release(settlement: Release, now: float) -> Parameters:
    """UpdateItem that gives a held claim back. The owner stays, so that a lost answer can be told."""
    update = "SET #lease = :released, #expiration = :expiration, #attempts = :attempts"
    values = {
        ":expiration": _n(int(now) + settlement.ttl),
        ":attempts": _n(settlement.attempts),
    }
    for name, text in (
        ("outputs", settlement.outputs),
        ("rejected", json.dumps(settlement.rejected) if settlement.rejected else None),
    ):
        if text is not None:
            update += f", #{name} = :{name}"
            values[f":{name}"] = _s(text)
    if settlement.outputs is None:
        update += " REMOVE #outputs"
    return _held(settlement.id, settlement.owner, update, values)


def renew(renewal: Renewal) -> Parameters:
    """UpdateItem that prolongs a held claim."""
    values = {":lease": _n(int(renewal.lease_until * 1000))}
    return _held(renewal.id, renewal.owner, "SET #lease = :lease", values)


def forget(settlement: Settlement) -> Parameters:
    """DeleteItem of a held claim; nothing there is as good."""
    values = {":owner": _s(settlement.owner), ":inprogress": _s(IN_PROGRESS), ":released": _n(RELEASED)}
    condition = f"attribute_not_exists(#id) OR ({_HELD})"
    return _keyed(settlement.id, _expressions(condition, None, values))


def _held(key: str, owner: str, update: str, values: dict[str, Any]) -> Parameters:
    fence = {":owner": _s(owner), ":inprogress": _s(IN_PROGRESS), ":released": _n(RELEASED)}
    return _keyed(key, _expressions(_HELD, update, {**fence, **values}))


def _keyed(key: str, parameters: Parameters) -> Parameters:
    return {"Key": {ID: _s(key)}, **parameters}


def _expressions(condition: str, update: str | None, values: dict[str, Any]) -> Parameters:
    text = f"{condition} {update or ''}"
    # DynamoDB refuses a name that no expression uses.
    names = {mark: name for mark, name in _NAMES.items() if mark in text}
    parameters: Parameters = {
        "ConditionExpression": condition,
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    }
    if update is not None:
        parameters["UpdateExpression"] = update
    return parameters


def _s(text: str | None) -> dict[str, str]:
    return {"S": text or ""}


def _n(number: int | None) -> dict[str, str]:
    return {"N": str(number or 0)}


def _text(item: Item, name: str) -> str | None:
    value = item.get(name)
    return None if value is None else value.get("S")


def _integer(item: Item, name: str, default: Any) -> Any:
    value = item.get(name)
    # Others may write fractions of a second; the part below one decides nothing.
    return default if value is None or "N" not in value else int(float(value["N"]))
