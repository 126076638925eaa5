"""DynamoDB's expressions and PartiQL statements, compiled to functions of an item: as much of them as clients here send.

Conditions and updates have one grammar in both languages; they differ in how they name values (`:now`, `?`) and
attributes (`#id`, `"id"`). What is not understood raises `ValueError`, so that nothing is measured that was not done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

#: `{"S": "text"}`, `{"N": "1"}`, ...
Attribute = Mapping[str, Any]
Item = dict[str, Any]
#: What `:now` or the position of a `?` stands for.
Values = Mapping[Any, Attribute]
Condition = Callable[[Item, Values], bool]
Operand = Callable[[Item, Values], Attribute | None]
#: Changes an item in place.
Update = Callable[[Item, Values], None]
Path = tuple[str, ...]

_TOKEN = re.compile(
    r"""\s*(?:(?P<text>'(?:[^']|'')*')|(?P<quoted>"[^"]*")|(?P<number>-?\d+(?:\.\d+)?)"""
    r"""|(?P<word>[\#:]?[A-Za-z_]\w*)|(?P<mark><<|>>|<>|<=|>=|!=|[=<>(),?.\[\]{}:+\-*]))"""
)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda one, other: one == other,
    "<>": lambda one, other: one != other,
    "!=": lambda one, other: one != other,
    "<": lambda one, other: one < other,
    "<=": lambda one, other: one <= other,
    ">": lambda one, other: one > other,
    ">=": lambda one, other: one >= other,
}


@dataclass(frozen=True)
class Statement:
    """One PartiQL statement."""

    kind: str  #: INSERT, UPDATE, DELETE or SELECT
    table: str
    item: tuple[tuple[str, Operand], ...] = ()  #: what INSERT inserts
    update: Update | None = None
    condition: Condition | None = None
    equalities: tuple[tuple[str, Operand], ...] = ()  #: `name = value` of the WHERE clause, where all must hold


@lru_cache(maxsize=1024)
def condition(text: str, names: tuple[tuple[str, str], ...] = ()) -> Condition:
    """A condition expression; `names`: the expression's attribute names, as pairs."""
    parser = _Parser(text, dict(names))
    compiled, _ = parser.condition()
    parser.end()
    return compiled


@lru_cache(maxsize=1024)
def update(text: str, names: tuple[tuple[str, str], ...] = ()) -> Update:
    """An update expression."""
    parser = _Parser(text, dict(names))
    compiled = parser.update()
    parser.end()
    return compiled


@lru_cache(maxsize=1024)
def statement(text: str) -> Statement:
    """A PartiQL statement; its `?` are numbered from 0."""
    parser = _Parser(text, {})
    compiled = parser.statement()
    parser.end()
    return compiled


class _Parser:
    def __init__(self, text: str, names: Mapping[str, str]) -> None:
        self._text = text
        self._names = names
        self._tokens: list[tuple[str, str]] = []
        self._at = 0
        self._parameters = 0
        position = 0
        while position < len(text.rstrip()):
            found = _TOKEN.match(text, position)
            if not found:
                raise ValueError(f"not understood at {position}: {text}")
            self._tokens.append((str(found.lastgroup), found.group(str(found.lastgroup))))
            position = found.end()

    # --- tokens

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise ValueError(f"not understood from '{self._tokens[self._at][1]}': {self._text}")

    def _peek(self) -> str:
        if self._at == len(self._tokens):
            return ""
        kind, token = self._tokens[self._at]
        return token.upper() if kind == "word" else token

    def _take(self, *wanted: str) -> bool:
        if self._peek() not in wanted:
            return False
        self._at += 1
        return True

    def _need(self, wanted: str) -> None:
        if not self._take(wanted):
            raise ValueError(f"'{wanted}' is missing before '{self._peek()}': {self._text}")

    def _token(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise ValueError(f"it ends too early: {self._text}")
        self._at += 1
        return self._tokens[self._at - 1]

    # --- operands

    def _name(self) -> str:
        kind, token = self._token()
        if kind == "quoted":
            return token[1:-1]
        if kind == "text":  # PartiQL's names of members
            return token[1:-1]
        if kind != "word" or token.startswith(":"):
            raise ValueError(f"a name is missing before '{token}': {self._text}")
        return self._names[token] if token.startswith("#") else token

    def _path(self) -> Path:
        path = [self._name()]
        while self._take("."):
            path.append(self._name())
        return tuple(path)

    def _operand(self) -> tuple[Operand, Path | None]:
        """A value, and the path when it is one."""
        kind, token = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if token == "?":
            self._at += 1
            self._parameters += 1
            return _value(self._parameters - 1), None
        if kind == "text":
            self._at += 1
            return _constant({"S": token[1:-1].replace("''", "'")}), None
        if kind == "number":
            self._at += 1
            return _constant({"N": token}), None
        if kind == "word" and token.startswith(":"):
            self._at += 1
            return _value(token), None
        if kind == "word" and self._at + 1 < len(self._tokens) and self._tokens[self._at + 1][1] == "(":
            return self._function(), None
        path = self._path()
        return _at(path), path

    def _function(self) -> Operand:
        name = self._token()[1].lower()
        self._need("(")
        one, path = self._operand()
        if name == "size":
            self._need(")")
            return lambda item, values: {"N": str(_size(one(item, values)))}
        self._need(",")
        other, _ = self._operand()
        self._need(")")
        if name == "if_not_exists" and path:
            return lambda item, values: one(item, values) or other(item, values)
        if name == "list_append":
            return lambda item, values: {"L": [*(one(item, values) or {})["L"], *(other(item, values) or {})["L"]]}
        raise ValueError(f"the function {name} is not known: {self._text}")

    # --- conditions; beside each its equalities that must hold

    def condition(self) -> tuple[Condition, tuple[tuple[str, Operand], ...]]:
        one, equalities = self._all()
        while self._take("OR"):
            one, equalities = _either(one, self._all()[0]), ()
        return one, equalities

    def _all(self) -> tuple[Condition, tuple[tuple[str, Operand], ...]]:
        one, equalities = self._single()
        while self._take("AND"):
            other, more = self._single()
            one, equalities = _both(one, other), (*equalities, *more)
        return one, equalities

    def _single(self) -> tuple[Condition, tuple[tuple[str, Operand], ...]]:
        if self._take("NOT"):
            refused, _ = self._single()
            return (lambda item, values: not refused(item, values)), ()
        if self._take("("):
            inner = self.condition()
            self._need(")")
            return inner
        if self._peek() in _PREDICATES and self._tokens[self._at + 1][1] == "(":
            return self._predicate(), ()
        one, path = self._operand()
        if self._take("IS"):
            return self._is(one), ()
        if self._take("IN"):
            return self._in(one), ()
        if self._take("BETWEEN"):
            low, _ = self._operand()
            self._need("AND")
            high, _ = self._operand()
            return _both(_compared("<=", low, one), _compared("<=", one, high)), ()
        _, operator = self._token()
        if operator not in _COMPARISONS:
            raise ValueError(f"the comparison {operator} is not known: {self._text}")
        other, _ = self._operand()
        equalities = ((path[0], other),) if operator == "=" and path and len(path) == 1 else ()
        return _compared(operator, one, other), equalities

    def _predicate(self) -> Condition:
        name = self._token()[1].upper()
        self._need("(")
        one, _ = self._operand()
        other: Operand = _constant({})
        if self._take(","):
            other, _ = self._operand()
        self._need(")")
        check = _PREDICATES[name]
        return lambda item, values: check(one(item, values), other(item, values))

    def _is(self, one: Operand) -> Condition:
        is_not = self._take("NOT")
        if self._take("MISSING"):
            return lambda item, values: (one(item, values) is None) is not is_not
        self._need("NULL")
        return lambda item, values: ("NULL" in (one(item, values) or {})) is not is_not

    def _in(self, one: Operand) -> Condition:
        opening = self._token()[1]
        others = [self._operand()[0]]
        while self._take(","):
            others.append(self._operand()[0])
        self._need("]" if opening == "[" else ")")
        return lambda item, values: any(_compare("=", one(item, values), other(item, values)) for other in others)

    # --- updates

    def update(self) -> Update:
        changes: list[Update] = []
        while self._peek() in ("SET", "REMOVE", "ADD"):
            clause = self._token()[1].upper()
            changes.append(self._change(clause))
            while self._take(","):
                changes.append(self._change(clause))
        if not changes:
            raise ValueError(f"no SET, REMOVE or ADD: {self._text}")

        def every(item: Item, values: Values) -> None:
            for change in changes:
                change(item, values)

        return every

    def _change(self, clause: str) -> Update:
        path = self._path()
        if clause == "REMOVE":
            return lambda item, values: _put(item, path, None)
        if clause == "ADD":
            added, _ = self._operand()
            total = _sum("+", _at(path), added)
            return lambda item, values: _put(item, path, total(item, values))
        self._need("=")
        new, _ = self._operand()
        while self._peek() in ("+", "-"):
            sign = self._token()[1]
            new = _sum(sign, new, self._operand()[0])
        return lambda item, values: _put(item, path, new(item, values))

    # --- statements

    def statement(self) -> Statement:
        kind = self._token()[1].upper()
        if kind == "INSERT":
            self._need("INTO")
            table = self._name()
            self._need("VALUE")
            return Statement(kind, table, item=self._members())
        if kind == "UPDATE":
            table = self._name()
            changed = self.update()
            return self._where(kind, table, changed)
        if kind == "SELECT":
            while not self._take("FROM"):
                self._token()  # what is selected does not change what it costs
        elif kind == "DELETE":
            self._need("FROM")
        else:
            raise ValueError(f"the statement {kind} is not known: {self._text}")
        return self._where(kind, self._name(), None)

    def _members(self) -> tuple[tuple[str, Operand], ...]:
        self._need("{")
        members = []
        while not self._take("}"):
            name = self._name()
            self._need(":")
            members.append((name, self._operand()[0]))
            self._take(",")
        return tuple(members)

    def _where(self, kind: str, table: str, changed: Update | None) -> Statement:
        self._need("WHERE")
        compiled, equalities = self.condition()
        if self._take("RETURNING"):
            self._at = len(self._tokens)
        return Statement(kind, table, update=changed, condition=compiled, equalities=equalities)


def _constant(value: Attribute) -> Operand:
    return lambda item, values: value


def _value(name: Any) -> Operand:
    return lambda item, values: values[name]


def _at(path: Path) -> Operand:
    if len(path) == 1:
        (name,) = path
        return lambda item, values: item.get(name)

    def find(item: Item, values: Values) -> Attribute | None:
        held: Any = {"M": item}
        for name in path:
            held = (held or {}).get("M", {}).get(name)
        return held

    return find


def _put(item: Item, path: Path, value: Attribute | None) -> None:
    for name in path[:-1]:
        item[name] = {"M": dict(item[name]["M"])}
        item = item[name]["M"]
    if value is None:
        item.pop(path[-1], None)
    else:
        item[path[-1]] = value


def _both(one: Condition, other: Condition) -> Condition:
    return lambda item, values: one(item, values) and other(item, values)


def _either(one: Condition, other: Condition) -> Condition:
    return lambda item, values: one(item, values) or other(item, values)


def _compared(operator: str, one: Operand, other: Operand) -> Condition:
    return lambda item, values: _compare(operator, one(item, values), other(item, values))


def _compare(operator: str, one: Attribute | None, other: Attribute | None) -> bool:
    """False where an attribute is missing; values of different types are merely unequal."""
    if one is None or other is None:
        return False
    ((kind, held),), ((other_kind, other_held),) = one.items(), other.items()
    if kind != other_kind:
        return operator in ("<>", "!=")
    if kind == "N":
        held, other_held = Decimal(held), Decimal(other_held)
    return _COMPARISONS[operator](held, other_held)


def _sum(sign: str, one: Operand, other: Operand) -> Operand:
    def total(item: Item, values: Values) -> Attribute:
        first, second = (Decimal((operand(item, values) or {"N": "0"})["N"]) for operand in (one, other))
        return {"N": str(first + second if sign == "+" else first - second)}

    return total


def _size(value: Attribute | None) -> int:
    return 0 if value is None else len(next(iter(value.values())))


def _texts(one: Attribute | None, other: Attribute | None) -> Sequence[str]:
    return (one or {}).get("S", ""), (other or {}).get("S", "\0")


def _contains(one: Attribute | None, other: Attribute | None) -> bool:
    held: Any = next(iter((one or {"L": []}).values()))
    wanted: Any = other if "L" in (one or {}) else next(iter((other or {"S": "\0"}).values()))
    return wanted in held


_PREDICATES: dict[str, Callable[[Attribute | None, Attribute | None], bool]] = {
    "ATTRIBUTE_EXISTS": lambda one, other: one is not None,
    "ATTRIBUTE_NOT_EXISTS": lambda one, other: one is None,
    "ATTRIBUTE_TYPE": lambda one, other: (other or {}).get("S") in (one or {}),
    "BEGINS_WITH": lambda one, other: _texts(one, other)[0].startswith(_texts(one, other)[1]),
    "CONTAINS": _contains,
}
