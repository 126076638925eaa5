"""DynamoDB's expressions: conditions, filters, key conditions, projections and updates, parsed into values.

The grammar is that of the developer guide ("Condition and filter expressions, operators, and functions", "Update
expressions", "Expression attribute names"). Names and values that an expression stands for (`#name`, `:value`) are put in
while it is parsed. Reserved words are taken as names: refusing them is left to DynamoDB.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from pipeline.emulator.services.dynamodb.values import TYPES, Value, invalid, sort_key, taken, type_of


@dataclass(frozen=True)
class Path:
    """Where a value stands: names, and places in lists."""

    parts: tuple[str | int, ...]

    def __str__(self) -> str:
        return "[" + ", ".join(f"[{part}]" if isinstance(part, int) else part for part in self.parts) + "]"


@dataclass(frozen=True)
class Constant:
    """A value of the request's."""

    value: Value


@dataclass(frozen=True)
class Size:
    """`size(what)`."""

    what: Path | Constant


Operand: TypeAlias = Path | Constant | Size


@dataclass(frozen=True)
class Comparison:
    """`left = right` and its like."""

    operator: str
    left: Operand
    right: Operand


@dataclass(frozen=True)
class Between:
    """`what BETWEEN low AND high`."""

    what: Operand
    low: Operand
    high: Operand


@dataclass(frozen=True)
class In:
    """`what IN (options)`."""

    what: Operand
    options: tuple[Operand, ...]


@dataclass(frozen=True)
class Test:
    """A function that is true or false of a value, or of a place where one may be."""

    function: str
    what: Operand
    operand: Operand | None = None


@dataclass(frozen=True)
class Both:
    """`AND`."""

    left: Condition
    right: Condition


@dataclass(frozen=True)
class Either:
    """`OR`."""

    left: Condition
    right: Condition


@dataclass(frozen=True)
class Negated:
    """`NOT`."""

    condition: Condition


Condition: TypeAlias = Comparison | Between | In | Test | Both | Either | Negated


@dataclass(frozen=True)
class Sum:
    """`left + right` or `left - right`."""

    operator: str
    left: Term
    right: Term


@dataclass(frozen=True)
class Default:
    """`if_not_exists(path, otherwise)`."""

    path: Path
    otherwise: Term


@dataclass(frozen=True)
class Appended:
    """`list_append(first, then)`."""

    first: Term
    then: Term


@dataclass(frozen=True)
class Union:
    """PartiQL's `set_add` and `set_delete`: a set with members more, or fewer."""

    function: str
    path: Path
    members: Term


Term: TypeAlias = Path | Constant | Sum | Default | Appended | Union


@dataclass(frozen=True)
class Update:
    """What an update does, each list in the order given."""

    sets: tuple[tuple[Path, Term], ...] = ()
    removes: tuple[Path, ...] = ()
    adds: tuple[tuple[Path, Value], ...] = ()
    deletes: tuple[tuple[Path, Value], ...] = ()

    @property
    def paths(self) -> list[Path]:
        """All that it writes to."""
        pairs = (*self.sets, *self.adds, *self.deletes)
        return [*(path for path, _ in pairs), *self.removes]


#: Of an item nothing is changed.
NOTHING: Final = Update()


@dataclass
class Names:
    """The names and values of a request, and which of them its expressions used."""

    names: Mapping[str, str] = field(default_factory=dict[str, str])
    values: Mapping[str, Value] = field(default_factory=dict[str, Value])
    used: set[str] = field(default_factory=set[str])

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Names:
        """What a call's parameters say. Raises `ServiceError` for values that are none."""
        for member in ("ExpressionAttributeNames", "ExpressionAttributeValues"):
            if parameters.get(member) == {}:
                raise invalid(f"{member} must not be empty")
        names = parameters.get("ExpressionAttributeNames") or {}
        values = parameters.get("ExpressionAttributeValues") or {}
        for key in names:
            if not re.fullmatch(r"#\w+", key):
                raise invalid(f'ExpressionAttributeNames contains invalid key: Syntax error; key: "{key}"')
        for key in values:
            if not re.fullmatch(r":\w+", key):
                raise invalid(f'ExpressionAttributeValues contains invalid key: Syntax error; key: "{key}"')
        return cls(names, {key: taken(value) for key, value in values.items()})

    def check_used(self, has_expression: bool) -> None:
        """Raise `ServiceError` where one is there in vain."""
        for member, given in (("ExpressionAttributeNames", self.names), ("ExpressionAttributeValues", self.values)):
            if given and not has_expression:
                raise invalid(f"{member} can only be specified when using expressions")
            unused = [key for key in given if key not in self.used]
            if unused:
                raise invalid(f"Value provided in {member} unused in expressions: keys: {{{', '.join(unused)}}}")


_TOKEN = re.compile(
    r"\s*(?:(?P<name>[A-Za-z_]\w*)|(?P<place>#\w+)|(?P<value>:\w+)|(?P<number>\d+)|(?P<sign><>|<=|>=|[=<>(),.\[\]+-]))"
)
COMPARATORS: Final = ("=", "<>", "<", "<=", ">", ">=")
_TESTS: Final = ("attribute_exists", "attribute_not_exists", "attribute_type", "begins_with", "contains")
_MAX_OPTIONS: Final = 100


@dataclass(frozen=True)
class Token:
    """A piece of an expression: `kind` is the name of a group in the pattern, "end" after the last one."""

    kind: str
    text: str
    at: int


class Parser:
    """One expression on its way to a value. `what`: the parameter's name, for errors."""

    def __init__(self, text: str, what: str, names: Names) -> None:
        self._text = text
        self._what = what
        self._names = names
        self._tokens = list(self._read())
        self._at = 0
        self._groups: dict[int, int] = {}  # where brackets begin, and what follows them
        if len(self._tokens) == 1:
            raise self.wrong("The expression can not be empty;")

    def wrong(self, why: str) -> Exception:
        """The error of this expression."""
        return invalid(f"Invalid {self._what}: {why}")

    def end(self) -> None:
        """Nothing may follow."""
        if self._next.kind != "end":
            raise self._syntax()

    # Conditions

    def condition(self) -> Condition:
        """`a OR b`: the weakest of the operators."""
        found = self._conjunction()
        while self._takes_word("OR"):
            found = Either(found, self._conjunction())
        return found

    def _conjunction(self) -> Condition:
        found = self._negation()
        while self._takes_word("AND"):
            found = Both(found, self._negation())
        return found

    def _negation(self) -> Condition:
        return Negated(self._negation()) if self._takes_word("NOT") else self._single()

    def _single(self) -> Condition:
        if self._next.text == "(":
            return self._group()
        if self._next.kind == "name" and self._peek(1).text == "(" and self._next.text != "size":
            return self._test()
        what = self._operand()
        if self._takes_word("BETWEEN"):
            low = self._operand()
            self._expect_word("AND")
            return self._between(what, low, self._operand())
        if self._takes_word("IN"):
            self._expect("(")
            return self._in(what, self._list(self._operand))
        operator = self._next.text
        if operator not in COMPARATORS:
            raise self._syntax()
        self._at += 1
        return self.comparison(operator, what, self._operand())

    def _group(self) -> Condition:
        start = self._at
        self._expect("(")
        found = self.condition()
        self._expect(")")
        if self._groups.get(start + 1) == self._at - 1:
            raise self.wrong("The expression has redundant parentheses;")
        self._groups[start] = self._at
        return found

    def comparison(self, operator: str, left: Operand, right: Operand) -> Comparison:
        """Two operands compared. Raises `ServiceError` for what can never be compared."""
        if left == right and isinstance(left, Path):
            raise self.wrong(
                "The first operand must be distinct from the remaining operands for this operator or function; "
                f"operator: {operator}, first operand: {left}"
            )
        if operator not in ("=", "<>"):
            self._check_ordered(operator, left, right)
        return Comparison(operator, left, right)

    def _between(self, what: Operand, low: Operand, high: Operand) -> Between:
        self._check_ordered("BETWEEN", what, low, high)
        if isinstance(low, Constant) and isinstance(high, Constant):
            if type_of(low.value) != type_of(high.value):
                raise self.wrong("The BETWEEN operator requires same data type for lower and upper bounds")
            if sort_key(low.value) > sort_key(high.value):
                raise self.wrong("The BETWEEN operator requires upper bound to be greater than or equal to lower bound")
        return Between(what, low, high)

    def _in(self, what: Operand, options: list[Operand]) -> In:
        if len(options) > _MAX_OPTIONS:
            raise self.wrong(f"The IN operator is provided with too many operands; number of operands: {len(options)}")
        return In(what, tuple(options))

    def _check_ordered(self, operator: str, *operands: Operand) -> None:
        for operand in operands:
            if isinstance(operand, Constant) and type_of(operand.value) not in ("S", "N", "B"):
                raise self._wrong_type(operator, type_of(operand.value))

    def _wrong_type(self, function: str, kind: str) -> Exception:
        return self.wrong(
            f"Incorrect operand type for operator or function; operator or function: {function}, operand type: {kind}"
        )

    def _test(self) -> Test:
        function = self._next.text
        if function not in _TESTS:
            raise self.wrong(f"Invalid function name; function: {function}")
        self._at += 2
        operands = self._list(self._operand)
        wanted = 1 if function in ("attribute_exists", "attribute_not_exists") else 2
        if len(operands) != wanted:
            raise self.wrong(
                f"Incorrect number of operands for operator or function; operator or function: {function}, "
                f"number of operands: {len(operands)}"
            )
        if function.startswith("attribute_") and not isinstance(operands[0], Path):
            raise self.wrong(f"Operator or function requires a document path; operator or function: {function}")
        return self.checked(Test(function, *operands))

    def checked(self, test: Test) -> Test:
        """A test, if its operand can be one. Raises `ServiceError`."""
        if isinstance(test.operand, Constant):
            kind = type_of(test.operand.value)
            if test.function == "attribute_type":
                if kind != "S":
                    raise self._wrong_type(test.function, kind)
                if test.operand.value["S"] not in TYPES:
                    raise self.wrong(
                        f"Invalid attribute type name found; type: {test.operand.value['S']}, "
                        f"valid types: {{{','.join(TYPES)}}}"
                    )
            if test.function == "begins_with" and kind not in ("S", "B"):
                raise self._wrong_type(test.function, kind)
        return test

    def _operand(self) -> Operand:
        if self._next.kind == "name" and self._peek(1).text == "(":
            if self._next.text != "size":
                raise self.wrong(
                    f"The function is not allowed to be used this way in an expression; function: {self._next.text}"
                )
            self._at += 2
            what = self._constant() if self._next.kind == "value" else self.path()
            self._expect(")")
            return Size(what)
        return self._constant() if self._next.kind == "value" else self.path()

    # Paths and values

    def paths(self) -> tuple[Path, ...]:
        """Paths, with commas between them, of which none is in another."""
        found = tuple(self._several(self.path))
        self.check_apart(found)
        return found

    def check_apart(self, paths: Iterable[Path]) -> None:
        """Raise `ServiceError` where one path leads through another, or one needs a map where another needs a list."""
        known: list[Path] = []
        for path in paths:
            for other in known:
                if _overlap(path.parts, other.parts):
                    raise self.wrong(
                        "Two document paths overlap with each other; must remove or rewrite one of these paths; "
                        f"path one: {other}, path two: {path}"
                    )
            known.append(path)

    def path(self) -> Path:
        """A path such as `a.#b[3]`."""
        parts: list[str | int] = [self._name()]
        while True:
            if self._takes("."):
                parts.append(self._name())
            elif self._takes("["):
                parts.append(self._member())
                self._expect("]")
            else:
                return Path(tuple(parts))

    def _member(self) -> str | int:
        """What stands between square brackets."""
        if self._next.kind != "number":
            raise self._syntax()
        return int(self._take().text)

    def _name(self) -> str:
        token = self._take()
        if token.kind == "name":
            return token.text
        if token.kind != "place":
            self._at -= 1
            raise self._syntax()
        if token.text not in self._names.names:
            raise self.wrong(
                f"An expression attribute name used in the document path is not defined; attribute name: {token.text}"
            )
        self._names.used.add(token.text)
        return self._names.names[token.text]

    def _constant(self) -> Constant:
        token = self._take()
        if token.kind != "value":
            self._at -= 1
            raise self._syntax()
        if token.text not in self._names.values:
            raise self.wrong(
                f"An expression attribute value used in expression is not defined; attribute value: {token.text}"
            )
        self._names.used.add(token.text)
        return Constant(self._names.values[token.text])

    # Updates

    def update(self) -> Update:
        """`SET`, `REMOVE`, `ADD` and `DELETE`, each at most once."""
        found: dict[str, list[Any]] = {}
        clauses: dict[str, Callable[[], object]] = {
            "SET": self._set,
            "REMOVE": self.path,
            "ADD": lambda: self._change("ADD", ("N", "SS", "NS", "BS")),
            "DELETE": lambda: self._change("DELETE", ("SS", "NS", "BS")),
        }
        while self._next.kind == "name" and self._next.text.upper() in clauses:
            word = self._take().text.upper()
            if word in found:
                raise self.wrong(f'The "{word}" section can only be used once in an update expression;')
            found[word] = self._several(clauses[word])
        self.end()
        made = Update(
            tuple(found.get("SET", ())),
            tuple(found.get("REMOVE", ())),
            tuple(found.get("ADD", ())),
            tuple(found.get("DELETE", ())),
        )
        self.check_apart(made.paths)
        return made

    def _set(self) -> tuple[Path, Term]:
        path = self.path()
        self._expect("=")
        return path, self._sum()

    def _sum(self) -> Term:
        left = self._term()
        if self._next.text not in ("+", "-") or self._next.kind != "sign":
            return left
        operator = self._take().text
        return self.sum(operator, left, self._term())

    def sum(self, operator: str, left: Term, right: Term) -> Sum:
        """A sum. Raises `ServiceError` when a part is a constant that is no number."""
        for part in (left, right):
            if isinstance(part, Constant) and type_of(part.value) != "N":
                raise self._wrong_type(operator, type_of(part.value))
        return Sum(operator, left, right)

    def _term(self) -> Term:
        if self._next.kind == "name" and self._peek(1).text == "(":
            function = self._take().text
            self._at += 1
            if function not in ("if_not_exists", "list_append"):
                raise self.wrong(f"Invalid function name; function: {function}")
            return self.function(function, self._list(self._term))
        if self._takes("("):
            found = self._sum()
            self._expect(")")
            return found
        return self._constant() if self._next.kind == "value" else self.path()

    def function(self, function: str, operands: list[Term]) -> Term:
        """A function that makes a value. Raises `ServiceError`."""
        if len(operands) != 2:
            raise self.wrong(
                f"Incorrect number of operands for operator or function; operator or function: {function}, "
                f"number of operands: {len(operands)}"
            )
        first, second = operands
        if function == "list_append":
            for part in operands:
                if isinstance(part, Constant) and type_of(part.value) != "L":
                    raise self._wrong_type(function, type_of(part.value))
            return Appended(first, second)
        if not isinstance(first, Path):
            raise self.wrong(f"Operator or function requires a document path; operator or function: {function}")
        if function == "if_not_exists":
            return Default(first, second)
        return Union(function, first, second)

    def _change(self, word: str, kinds: tuple[str, ...]) -> tuple[Path, Value]:
        path, value = self.path(), self._constant().value
        if type_of(value) not in kinds:
            raise self.wrong(
                f"Incorrect operand type for operator or function; operator: {word}, operand type: {type_of(value)}"
            )
        return path, value

    # Tokens

    def _read(self) -> Iterable[Token]:
        at, text = 0, self._text.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None:
                rest = text[at:].lstrip()
                raise self.wrong(f'Syntax error; token: "{rest[:1]}", near: "{rest[:20]}"')
            kind = found.lastgroup or ""
            yield Token(kind, found[kind], found.start(kind))
            at = found.end()
        yield Token("end", "<EOF>", len(text))

    @property
    def _next(self) -> Token:
        return self._tokens[self._at]

    def _peek(self, ahead: int) -> Token:
        return self._tokens[min(self._at + ahead, len(self._tokens) - 1)]

    def _take(self) -> Token:
        token = self._next
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _takes(self, sign: str) -> bool:
        if self._next.kind != "sign" or self._next.text != sign:
            return False
        self._at += 1
        return True

    def _takes_word(self, word: str) -> bool:
        if self._next.kind != "name" or self._next.text.upper() != word:
            return False
        self._at += 1
        return True

    def _expect(self, sign: str) -> None:
        if not self._takes(sign):
            raise self._syntax()

    def _expect_word(self, word: str) -> None:
        if not self._takes_word(word):
            raise self._syntax()

    def _several(self, one: Callable[[], Any]) -> list[Any]:
        found = [one()]
        while self._takes(","):
            found.append(one())
        return found

    def _list(self, one: Callable[[], Any]) -> list[Any]:
        """What stands in brackets, of which the first was read."""
        found = self._several(one)
        self._expect(")")
        return found

    def _syntax(self) -> Exception:
        near = self._text[self._next.at :][:20]
        return self.wrong(f'Syntax error; token: "{self._next.text}", near: "{near}"')


def condition_of(text: str | None, names: Names, what: str = "ConditionExpression") -> Condition | None:
    """A condition, or None where there is none. Raises `ServiceError` (ValidationException)."""
    if text is None:
        return None
    parser = Parser(text, what, names)
    found = parser.condition()
    parser.end()
    return found


def update_of(text: str | None, names: Names) -> Update:
    """An update; without one nothing is changed. Raises `ServiceError` (ValidationException)."""
    return NOTHING if text is None else Parser(text, "UpdateExpression", names).update()


def projection_of(text: str | None, names: Names) -> tuple[Path, ...] | None:
    """What a read gives back, or None for all of it. Raises `ServiceError` (ValidationException)."""
    if text is None:
        return None
    parser = Parser(text, "ProjectionExpression", names)
    found = parser.paths()
    parser.end()
    return found


def _overlap(one: tuple[str | int, ...], other: tuple[str | int, ...]) -> bool:
    """One is in the other; or they part where one wants a name and the other a place in a list."""
    for left, right in zip(one, other, strict=False):
        if left != right:
            return isinstance(left, int) is not isinstance(right, int)
    return True
