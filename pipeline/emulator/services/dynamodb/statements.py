"""ExecuteStatement, BatchExecuteStatement and ExecuteTransaction: PartiQL carried out on tables.

Sources: the API references of the three, `BatchStatementError` among them, and the developer guide's pages on PartiQL. What
those leave open is as on DynamoDB Local: an INSERT's refusal is without the item; an UPDATE of an item that is not there is
refused; a DELETE of one succeeds.
"""

from __future__ import annotations

import ast
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pipeline.emulator.services.dynamodb import partiql, transactions, values, writes
from pipeline.emulator.services.dynamodb.evaluation import found, holds, projected, touched
from pipeline.emulator.services.dynamodb.expressions import Both, Comparison, Condition, Constant, Either, Path, Test
from pipeline.emulator.services.dynamodb.partiql import Change, Insert, Remove, Select, Statement
from pipeline.emulator.services.dynamodb.rows import Rows, Tables
from pipeline.emulator.services.dynamodb.transactions import Tokens
from pipeline.emulator.services.dynamodb.values import Item, Value, invalid, taken
from pipeline.emulator.services.dynamodb.writes import Write
from pipeline.emulator.services.service import ServiceError

#: Statements of one batch, and of one transaction.
_MAX_BATCH, _MAX_TRANSACTION = 25, 100
#: Bytes that one page of a SELECT looks at.
_PAGE: Final = 1_048_576


@dataclass(frozen=True)
class _Asked:
    """A statement that is about one item: to be read, or written."""

    statement: Statement
    rows: Rows
    key: Item
    write: Write | None = None

    def carry_out(self, now: float) -> dict[str, Any]:
        """Do it, and say what it answers: `Item`, if anything. Raises `ServiceError`."""
        if self.write is None:
            return self.read()
        return self.written(*self.write.carry_out(now))

    def read(self) -> dict[str, Any]:
        """The item of a SELECT, if it is there and its condition holds."""
        assert isinstance(self.statement, Select)
        item = self.rows.get(self.key)
        return {} if item is None else {"Item": values.given_item(projected(item, self.statement.paths))}

    def written(self, old: Item | None, new: Item | None) -> dict[str, Any]:
        """What RETURNING asks for."""
        returning = self.statement.returning if isinstance(self.statement, (Change, Remove)) else "NONE"
        if returning == "NONE":
            return {}
        item = {"ALL_OLD": old, "ALL_NEW": new}.get(returning)
        if item is None and isinstance(self.statement, Change):
            item = touched(old, new or {}, self.statement.update, is_new=returning == "UPDATED_NEW")
        return {"Item": values.given_item(item)} if item else {}


def execute(tables: Tables, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
    """ExecuteStatement. Raises `ServiceError`."""
    statement = _parsed(parameters, _parameters(parameters))
    if isinstance(statement, Select):
        if statement.is_check:
            raise invalid("EXISTS is a condition of a transaction: use ExecuteTransaction")
        return _select(tables, statement, parameters)
    answer = _prepared(tables, statement, parameters).carry_out(now)
    return {"Items": [answer["Item"]] if "Item" in answer else []}


def batch(tables: Tables, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
    """BatchExecuteStatement: each statement by itself, with its own answer. Raises `ServiceError` for the whole call."""
    asked: Sequence[Mapping[str, Any]] = parameters["Statements"]
    _check_count(asked, _MAX_BATCH, "statements")
    prepared: list[_Asked | ServiceError] = []
    for one, given in [(one, _parameters(one)) for one in asked]:
        try:
            prepared.append(_prepared(tables, _parsed(one, given), one))
        except ServiceError as error:
            prepared.append(error)
    usable = [one for one in prepared if isinstance(one, _Asked)]
    _check_alike(usable)
    _check_distinct(usable)
    return {"Responses": [_response(one, now) for one in prepared]}


def transaction(tables: Tables, tokens: Tokens, parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
    """ExecuteTransaction: all statements or none. Raises `ServiceError`."""
    asked: Sequence[Mapping[str, Any]] = parameters["TransactStatements"]
    _check_count(asked, _MAX_TRANSACTION, "transactStatements")
    prepared = [_prepared(tables, _parsed(one, _parameters(one)), one) for one in asked]
    token, text = parameters.get("ClientRequestToken"), json.dumps(asked, default=repr, sort_keys=True)
    if any(getattr(one.statement, "returning", "NONE") != "NONE" for one in prepared):
        raise invalid("RETURNING clause is not supported in ExecuteTransaction.")
    reads = [one for one in prepared if one.write is None]
    if len(reads) == len(prepared):
        return {"Responses": [one.read() for one in prepared]}
    if reads:
        raise invalid("Read and write requests together in the same transaction are not supported.")
    if token is not None and tokens.is_repeat(token, text, now):
        return {"Responses": [{} for _ in prepared]}
    transactions.together([one.write for one in prepared if one.write is not None], now)
    if token is not None:
        tokens.add(token, text, now)
    return {"Responses": [{} for _ in prepared]}


def _response(asked: _Asked | ServiceError, now: float) -> dict[str, Any]:
    if isinstance(asked, ServiceError):
        return {"Error": transactions.told(asked)}
    try:
        return {"TableName": asked.rows.name, **asked.carry_out(now)}
    except ServiceError as error:
        return {"TableName": asked.rows.name, "Error": transactions.told(error)}


def _parameters(asked: Mapping[str, Any]) -> list[Value]:
    """A bad value spoils the whole call."""
    given = asked.get("Parameters")
    if given is not None and not given:
        raise invalid(
            "1 validation error detected: Value '[]' at 'parameters' failed to satisfy constraint: "
            "Member must have length greater than or equal to 1"
        )
    return [taken(value) for value in given or ()]


def _parsed(asked: Mapping[str, Any], parameters: list[Value]) -> Statement:
    return partiql.parse(asked["Statement"], parameters)


def _prepared(tables: Tables, statement: Statement, asked: Mapping[str, Any]) -> _Asked:
    rows = tables.rows(statement.table)
    wanted = writes.choice(asked, "ReturnValuesOnConditionCheckFailure", ("NONE", "ALL_OLD"))
    brings_old = wanted == "ALL_OLD"
    partition = Path((rows.keys.partition.name,))
    if isinstance(statement, Insert):
        is_free = Test("attribute_not_exists", partition)
        write = writes.replacing(rows, statement.item, is_free, duplicate=True)
        return _Asked(statement, rows, write.key, write)
    key = _key(rows, statement.where)
    if isinstance(statement, Select) and not statement.is_check:
        if len(_parts(statement.where)) > len(rows.keys.names):
            raise invalid("Select statements within a batch or a transaction have conditions on the primary key only")
        return _Asked(statement, rows, key)
    if isinstance(statement, Select):
        check = Write(rows, key, lambda old: old, statement.where, brings_old=brings_old, is_check=True)
        return _Asked(statement, rows, key, check)
    if isinstance(statement, Change):
        where: Condition = Both(Test("attribute_exists", partition), statement.where)
        return _Asked(statement, rows, key, writes.changing(rows, key, statement.update, where, brings_old=brings_old))
    where = Either(Test("attribute_not_exists", partition), statement.where)
    return _Asked(statement, rows, key, Write(rows, key, lambda _: None, where, brings_old=brings_old))


def _key(rows: Rows, where: Condition | None) -> Item:
    """The one item that a condition is about. Raises `ServiceError` when it may be several."""
    equal = dict(pair for part in _parts(where) for pair in _equality(part))
    if any(name not in equal for name in rows.keys.names):
        raise invalid("Where clause does not contain a mandatory equality on all key attributes")
    return rows.keys.taken({name: equal[name] for name in rows.keys.names})


def _parts(condition: Condition | None) -> list[Condition]:
    """What a condition says of an item, all of which has to be true."""
    if isinstance(condition, Both):
        return [*_parts(condition.left), *_parts(condition.right)]
    return [] if condition is None else [condition]


def _equality(condition: Condition) -> list[tuple[str, Value]]:
    match condition:
        case Comparison("=", Path((str() as name,)), Constant(value)):
            return [(name, value)]
        case Comparison("=", Constant(value), Path((str() as name,))):
            return [(name, value)]
        case _:
            return []


def _check_count(asked: Sequence[object], limit: int, name: str) -> None:
    if not 1 <= len(asked) <= limit:
        bound = "greater than or equal to 1" if not asked else f"less than or equal to {limit}"
        raise invalid(
            f"1 validation error detected: Value at '{name}' failed to satisfy constraint: Member must have length {bound}"
        )


def _check_alike(asked: Sequence[_Asked]) -> None:
    if any(isinstance(one.statement, Select) and one.statement.is_check for one in asked):
        raise invalid("EXISTS is a condition of a transaction: use ExecuteTransaction")
    if len({one.write is None for one in asked}) > 1:
        raise invalid("Read and write requests together in the same batch is not supported.")


def _check_distinct(asked: Sequence[_Asked]) -> None:
    keys = [(one.rows.name, repr(one.key)) for one in asked]
    if len(set(keys)) < len(keys):
        raise invalid("Provided list of item keys contains duplicates")


def _select(tables: Tables, statement: Select, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """One page of a SELECT's items, in the order of the table."""
    rows, limit = tables.rows(statement.table), parameters.get("Limit")
    token = parameters.get("NextToken")
    answer: dict[str, Any] = {"Items": []}
    size = 0
    for looked_at, item in enumerate(rows.every(None if token is None else _start(token)), 1):
        size += values.item_size(item)
        if holds(statement.where, item):
            answer["Items"].append(_selected(item, statement.paths))
        if looked_at == limit or size >= _PAGE:
            answer["NextToken"] = base64.b64encode(repr(rows.keys.of_item(item)).encode()).decode()
            break
    return answer


def _start(token: str) -> Item:
    try:
        key: Item = ast.literal_eval(base64.b64decode(token, validate=True).decode())
    except (ValueError, SyntaxError):
        raise invalid("NextToken is invalid") from None
    return key


def _selected(item: Item, paths: Sequence[Path] | None) -> Item:
    """What a SELECT gives of an item: each path by its last name."""
    if paths is None:
        return values.given_item(item)
    chosen = [(_label(path), found(item, path)) for path in paths]
    return {name: values.given(value) for name, value in chosen if value is not None}


def _label(path: Path) -> str:
    """The last name, with the places in a list that follow it."""
    names = [place for place, part in enumerate(path.parts) if isinstance(part, str)]
    name, *places = path.parts[names[-1] :]
    return f"{name}{''.join(f'[{place}]' for place in places)}"
