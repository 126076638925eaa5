"""TransactWriteItems and TransactGetItems: all or none, and once for each token.

Sources: the API reference of TransactWriteItems and of TransactionCanceledException (the service model's documentation).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.emulator.services.dynamodb import reads, values, writes
from pipeline.emulator.services.dynamodb.rows import Tables, WrongKey
from pipeline.emulator.services.dynamodb.values import Item, invalid
from pipeline.emulator.services.dynamodb.writes import Write
from pipeline.emulator.services.service import ServiceError

#: Actions, and bytes of the items, of one transaction; by 4 MB the service means 4 MiB.
_MAX_ACTIONS, _MAX_BYTES = 100, 4_194_304
#: For how many seconds a token's repeat is answered as the first call was.
_TOKEN_SECONDS: Final = 600
_MAX_TOKEN: Final = 36
_KINDS: Final[dict[str, Callable[[Tables, Mapping[str, Any]], Write]]] = {
    "ConditionCheck": writes.check,
    "Put": writes.put,
    "Update": writes.update,
    "Delete": writes.delete,
}


@dataclass(frozen=True)
class _Done:
    """A transaction that was carried out under a token, and until when that is known, epoch seconds."""

    asked: str
    until: float


class Tokens:
    """The tokens of the last ten minutes' transactions. Only those that were carried out are kept."""

    def __init__(self) -> None:
        self._done: dict[str, _Done] = {}

    def is_repeat(self, token: str, asked: str, now: float) -> bool:
        """Whether this very transaction was done. Raises `ServiceError` when another one was, under the same token."""
        self._done = {known: done for known, done in self._done.items() if done.until > now}
        done = self._done.get(token)
        if done is not None and done.asked != asked:
            raise ServiceError(
                "IdempotentParameterMismatchException",
                "ClientRequestToken was used before with other parameters",
                members={"Message": "ClientRequestToken was used before with other parameters"},
            )
        return done is not None

    def add(self, token: str, asked: str, now: float) -> None:
        """It was carried out."""
        self._done[token] = _Done(asked, now + _TOKEN_SECONDS)


def write(tables: Tables, tokens: Tokens, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
    """TransactWriteItems. Raises `ServiceError`."""
    actions = _actions(parameters)
    token = parameters.get("ClientRequestToken")
    if token is not None and not 1 <= len(token) <= _MAX_TOKEN:
        raise invalid(
            f"1 validation error detected: Value '{token}' at 'clientRequestToken' failed to satisfy constraint: "
            f"Member must have length less than or equal to {_MAX_TOKEN}"
        )
    asked = json.dumps(actions, default=repr, sort_keys=True)
    prepared = _all_prepared(tables, actions)
    if token is not None and tokens.is_repeat(token, asked, now):
        return {}
    together(prepared, now)
    if token is not None:
        tokens.add(token, asked, now)
    return {}


def together(prepared: Sequence[Write], now: float) -> list[tuple[Item | None, Item | None]]:
    """Carry out all writes or none; what stood there, and what does. Raises `ServiceError`."""
    keys = [(write.rows.name, json.dumps(write.key, default=repr, sort_keys=True)) for write in prepared]
    if len(set(keys)) < len(keys):
        raise invalid("Transaction request cannot include multiple operations on one item")
    outcomes: list[tuple[Item | None, Item | None]] = []
    reasons: list[dict[str, Any]] = []
    for one in prepared:
        try:
            outcomes.append(one.outcome())
            reasons.append({"Code": "None"})
        except ServiceError as error:
            reasons.append(told(error))
    if len(outcomes) < len(prepared):
        raise _cancelled(reasons)
    written = sum(
        values.item_size(new if new is not None else one.key) for one, (_, new) in zip(prepared, outcomes, strict=True)
    )
    if written > _MAX_BYTES:
        raise invalid(f"Transaction payload size cannot exceed 4MB. Payload Size: {written}")
    for one, (_, new) in zip(prepared, outcomes, strict=True):
        one.commit(new, now)
    return outcomes


def told(error: ServiceError) -> dict[str, Any]:
    """An error within an answer: of a cancelled transaction's action, or of a batch's statement."""
    code = "ValidationError" if error.code == "ValidationException" else error.code.removesuffix("Exception")
    return {"Code": code, "Message": error.message, **error.members}


def get(tables: Tables, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """TransactGetItems. Raises `ServiceError`."""
    responses: list[dict[str, Any]] = []
    for action in _actions(parameters):
        asked = action.get("Get")
        if asked is None or len(action) > 1:
            raise invalid("TransactItems can only contain one Get each")
        item = reads.one(tables.rows(asked["TableName"]), asked["Key"], reads.projection(asked))
        responses.append({} if item is None else {"Item": item})
    return {"Responses": responses}


def _actions(parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    actions: Sequence[Mapping[str, Any]] = parameters["TransactItems"]
    if not 1 <= len(actions) <= _MAX_ACTIONS:
        bound = "greater than or equal to 1" if not actions else f"less than or equal to {_MAX_ACTIONS}"
        raise invalid(
            "1 validation error detected: Value at 'transactItems' failed to satisfy constraint: "
            f"Member must have length {bound}"
        )
    return actions


def _all_prepared(tables: Tables, actions: Sequence[Mapping[str, Any]]) -> list[Write]:
    prepared: list[Write | WrongKey] = []
    for action in actions:
        try:
            prepared.append(_prepared(tables, action))
        except WrongKey as error:
            prepared.append(error)
    good = [one for one in prepared if isinstance(one, Write)]
    if len(good) < len(prepared):
        raise _cancelled([{"Code": "None"} if isinstance(one, Write) else told(one) for one in prepared])
    return good


def _prepared(tables: Tables, action: Mapping[str, Any]) -> Write:
    if len(action) != 1 or not action.keys() <= _KINDS.keys():
        raise invalid("TransactItems can only contain one of Check, Put, Update or Delete")
    ((kind, asked),) = action.items()
    return _KINDS[kind](tables, asked)


def _cancelled(reasons: Sequence[Mapping[str, Any]]) -> ServiceError:
    codes = ", ".join(str(reason["Code"]) for reason in reasons)
    message = f"Transaction cancelled, please refer cancellation reasons for specific reasons [{codes}]"
    return ServiceError(
        "TransactionCanceledException", message, members={"Message": message, "CancellationReasons": list(reasons)}
    )
