"""PartiQL statements about single items, and reads, parsed into values.

What DynamoDB's developer guide shows of the language ("PartiQL - a SQL-compatible query language for DynamoDB"): INSERT,
UPDATE with any number of SET and REMOVE, DELETE, each by a whole primary key; SELECT of paths with any condition. No
joins, no nested queries, no ORDER BY.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, TypeAlias

from pipeline.emulator.services.dynamodb.expressions import (
    Condition,
    Constant,
    Names,
    Negated,
    Operand,
    Parser,
    Path,
    Size,
    Term,
    Test,
    Token,
    Update,
)
from pipeline.emulator.services.dynamodb.values import Item, Value, invalid, taken, type_of


@dataclass(frozen=True)
class Insert:
    """`INSERT INTO table VALUE item`."""

    table: str
    item: Item


@dataclass(frozen=True)
class Change:
    """`UPDATE table ... WHERE ...`; `returning` as `ReturnValues` says it."""

    table: str
    update: Update
    where: Condition
    returning: str = "NONE"


@dataclass(frozen=True)
class Remove:
    """`DELETE FROM table WHERE ...`."""

    table: str
    where: Condition
    returning: str = "NONE"


@dataclass(frozen=True)
class Select:
    """`SELECT paths FROM table WHERE ...`; no paths: all of each item. `is_check`: `EXISTS(SELECT ...)`."""

    table: str
    paths: tuple[Path, ...] | None
    where: Condition | None = None
    is_check: bool = False


Statement: TypeAlias = Insert | Change | Remove | Select

_TOKEN = re.compile(
    r"""(?:\s|--[^\n]*(?:\n|$))*(?:
        (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
      | (?P<name>[A-Za-z_$][\w$]*)
      | "(?P<quoted>(?:[^"]|"")*)"
      | '(?P<text>(?:[^']|'')*)'
      | (?P<parameter>\?)
      | (?P<end>$)
      | (?P<sign><<|>>|<>|!=|<=|>=|[=<>(){},.:;\[\]+*-])
    )""",
    re.VERBOSE,
)
_RETURNED: Final = {
    ("ALL", "OLD"): "ALL_OLD",
    ("ALL", "NEW"): "ALL_NEW",
    ("MODIFIED", "OLD"): "UPDATED_OLD",
    ("MODIFIED", "NEW"): "UPDATED_NEW",
}
_FUNCTIONS: Final = ("if_not_exists", "list_append", "set_add", "set_delete")


def parse(text: str, parameters: Sequence[Value]) -> Statement:
    """A statement with its parameters put in, which were taken before. Raises `ServiceError` (ValidationException)."""
    parser = _Statement(text, parameters)
    found = parser.statement()
    if parser.parameters_left:
        raise invalid("Number of parameters in request and statement don't match.")
    return found


class _Statement(Parser):
    """One statement on its way to a value."""

    def __init__(self, text: str, parameters: Sequence[Value]) -> None:
        self._parameters = list(parameters)
        super().__init__(text, "statement", Names())

    def wrong(self, why: str) -> Exception:
        return _wrong(why)

    @property
    def parameters_left(self) -> int:
        """Parameters for which there was no `?`."""
        return len(self._parameters)

    def statement(self) -> Statement:
        """The whole of it."""
        found = self._statement()
        self._takes(";")
        self.end()
        return found

    def _statement(self) -> Statement:
        if self._takes_word("INSERT"):
            self._expect_word("INTO")
            table = self._table()
            self._expect_word("VALUE")
            return Insert(table, self._item())
        if self._takes_word("UPDATE"):
            table, update = self._table(), self._changes()
            return Change(table, update, self._where(), self._returning())
        if self._takes_word("DELETE"):
            self._expect_word("FROM")
            table, where = self._table(), self._where()
            returning = self._returning()
            if returning not in ("NONE", "ALL_OLD"):
                raise invalid("Invalid returning clause. Only RETURNING ALL OLD * is allowed in DELETE statements.")
            return Remove(table, where, returning)
        if self._takes_word("EXISTS"):
            self._expect("(")
            self._expect_word("SELECT")
            found = self._select(is_check=True)
            self._expect(")")
            return found
        self._expect_word("SELECT")
        return self._select(is_check=False)

    def _select(self, *, is_check: bool) -> Select:
        paths = None if self._takes("*") else tuple(self._several(self.path))
        self._expect_word("FROM")
        table = self._table()
        if self._next.text == "." and self._next.kind == "sign":
            raise invalid("tables in memory have no secondary indexes: read the table itself, or use DynamoDB Local")
        where = self._where() if self._next.text.upper() == "WHERE" else None
        if self._takes_word("ORDER"):
            raise invalid("tables in memory have no ORDER BY: use Query, or DynamoDB Local")
        return Select(table, paths, where, is_check)

    def _table(self) -> str:
        name = self._identifier()
        if not re.fullmatch(r"[a-zA-Z0-9_.-]{3,255}", name):
            raise invalid(
                "Table name should be within the length [3, 255] and only contain 'a-z', 'A-Z', '0-9', '-', '_', '.'."
            )
        return name

    def _item(self) -> Item:
        if self._next.text != "{" or self._next.kind != "sign":
            raise invalid(
                "Unsupported format in item expression. Please use struct format {...} to express item values"
            )
        self._take()
        return self._map(self._literal)

    def _changes(self) -> Update:
        sets: list[tuple[Path, Term]] = []
        removes: list[Path] = []
        while True:
            if self._takes_word("SET"):
                sets += self._several(self._set)
            elif self._takes_word("REMOVE"):
                removes += self._several(self.path)
            else:
                break
        if not sets and not removes:
            raise self._syntax()
        made = Update(tuple(sets), tuple(removes))
        self.check_apart(made.paths)
        return made

    def _where(self) -> Condition:
        self._expect_word("WHERE")
        return self.condition()

    def _returning(self) -> str:
        if not self._takes_word("RETURNING"):
            return "NONE"
        which = (self._take().text.upper(), self._take().text.upper())
        self._expect("*")
        if which not in _RETURNED:
            raise self.wrong(f"RETURNING {' '.join(which)}")
        return _RETURNED[which]

    # What differs from the other expressions

    def _single(self) -> Condition:
        at = self._at
        if self._next.kind in ("name", "quoted") and not self._is_call():
            path = self.path()
            if self._takes_word("IS"):
                is_not = self._takes_word("NOT")
                found = self._is(path)
                return Negated(found) if is_not else found
            if self._takes_word("NOT"):
                self._expect_word("IN")
                return Negated(self._in(path, self._options()))
            if self._takes_word("IN"):
                return self._in(path, self._options())
            self._at = at
        return super()._single()

    def _is_call(self) -> bool:
        return self._next.kind == "name" and self._peek(1).text == "(" and self._peek(1).kind == "sign"

    def _is(self, path: Path) -> Condition:
        if self._takes_word("MISSING"):
            return Test("attribute_not_exists", path)
        self._expect_word("NULL")
        return Test("attribute_type", path, Constant({"S": "NULL"}))

    def _options(self) -> list[Operand]:
        if self._takes("["):
            found = self._several(self._operand)
            self._expect("]")
            return found
        self._expect("(")
        return self._list(self._operand)

    def _operand(self) -> Operand:
        if self._is_call():
            if self._next.text.lower() != "size":
                raise self.wrong(f"Invalid function name; function: {self._next.text}")
            self._at += 2
            what = Constant(self._literal()) if self._is_literal() else self.path()
            self._expect(")")
            return Size(what)
        return Constant(self._literal()) if self._is_literal() else self.path()

    def _term(self) -> Term:
        if self._is_call():
            function = self._take().text.lower()
            self._at += 1
            if function not in _FUNCTIONS:
                raise self.wrong(f"Invalid function name; function: {function}")
            return self.function(function, self._list(self._term))
        return Constant(self._literal()) if self._is_literal() else self.path()

    def _name(self) -> str:
        return self._identifier()

    def _member(self) -> str | int:
        if self._next.kind == "text":
            return self._take().text.replace("''", "'")
        if not self._next.text.isdigit():
            raise self._syntax()
        return int(self._take().text)

    def _identifier(self) -> str:
        if self._next.kind not in ("name", "quoted"):
            raise self._syntax()
        token = self._take()
        return token.text.replace('""', '"') if token.kind == "quoted" else token.text

    def _group(self) -> Condition:
        self._expect("(")
        found = self.condition()
        self._expect(")")
        return found

    # Literals

    def _is_literal(self) -> bool:
        token = self._next
        if token.kind == "name":
            return token.text.upper() in ("TRUE", "FALSE", "NULL")
        if token.kind == "sign" and token.text == "-":
            return self._peek(1).kind == "number"
        return token.kind in ("number", "text", "parameter") or (
            token.kind == "sign" and token.text in ("{", "[", "<<")
        )

    def _literal(self) -> Value:
        token = self._take()
        if token.kind == "parameter":
            if not self._parameters:
                raise invalid("Number of parameters in request and statement don't match.")
            return self._parameters.pop(0)
        if token.kind == "text":
            return {"S": token.text.replace("''", "'")}
        if token.kind == "number":
            return taken({"N": token.text})
        if token.kind == "sign" and token.text == "-" and self._next.kind == "number":
            return taken({"N": f"-{self._take().text}"})
        if token.kind == "name" and token.text.upper() in ("TRUE", "FALSE"):
            return {"BOOL": token.text.upper() == "TRUE"}
        if token.kind == "name" and token.text.upper() == "NULL":
            return {"NULL": True}
        if token.kind == "sign" and token.text == "{":
            return {"M": self._map(self._inner)}
        if token.kind == "sign" and token.text == "[":
            return {"L": self._until("]")}
        if token.kind == "sign" and token.text == "<<":
            return self._set_of(self._until(">>"))
        self._at -= 1
        raise self._syntax()

    def _until(self, sign: str) -> list[Value]:
        if self._takes(sign):
            return []
        found: list[Any] = self._several(self._inner)
        self._expect(sign)
        return found

    def _inner(self) -> Value:
        """A value within a value, which is no parameter: as on DynamoDB Local; not documented."""
        if self._next.kind == "parameter":
            raise invalid("Unsupported data type: Parameter within a list, a set or a map; give the whole value as one")
        return self._literal()

    def _map(self, member: Callable[[], Value]) -> Item:
        found: Item = {}
        while not self._takes("}"):
            if found:
                self._expect(",")
            token = self._take()
            if token.kind not in ("text", "quoted"):
                self._at -= 1
                raise self._syntax()
            name = token.text.replace("''", "'") if token.kind == "text" else token.text.replace('""', '"')
            if name in found:
                raise invalid(f"Duplicate keys in tuple. Key: {name}")
            self._expect(":")
            found[name] = member()
        return found

    def _set_of(self, members: list[Value]) -> Value:
        kinds = {type_of(member) for member in members}
        if len(kinds) != 1 or not kinds <= {"S", "N", "B"}:
            raise invalid("A set holds texts, numbers or binaries, all of one type, and at least one")
        (kind,) = kinds
        return taken({f"{kind}S": [member[kind] for member in members]})

    # Tokens

    def _read(self) -> Iterable[Token]:
        return _tokens(self._text)

    def _syntax(self) -> Exception:
        """No part of the statement is quoted: it may hold values."""
        return self.wrong(f"Unexpected {self._next.kind} near position {self._next.at + 1}")


@lru_cache(maxsize=256)
def _tokens(statement: str) -> tuple[Token, ...]:
    """What a statement is made of: those of a program differ in their parameters only, and come again and again."""
    at, text = 0, statement.rstrip()
    tokens: list[Token] = []
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise _wrong(f"Syntax error near position {at + 1}")
        kind = found.lastgroup or ""
        if kind == "end":
            break
        tokens.append(Token(kind, "<>" if found[kind] == "!=" and kind == "sign" else found[kind], found.start(kind)))
        at = found.end()
    return (*tokens, Token("end", "<EOF>", len(text)))


def _wrong(why: str) -> Exception:
    return invalid(f"Statement wasn't well formed, can't be processed: {why}")
