"""Event patterns: which records a filter lets through.

The syntax is the part of EventBridge's that Lambda's event filtering lists ("Filter rule syntax" in the Lambda
developer guide): equal to a string, a number, true, false or null; `anything-but`, `equals-ignore-case`, `exists`,
`numeric`, `prefix`, `suffix`; and `$or` over several fields. EventBridge's others (`cidr`, `wildcard`, a prefix
that ignores case, `anything-but` over a prefix) are not in that list and are refused: whether Lambda takes them
would be seen only when it deletes records.

What matches:

- All fields of a pattern must match, and for each field any of its rules. Fields that it does not name do not count.
- In an array any element may match. What a pattern says below an array must all hold for one of its elements.
- Numbers are equal when they are written alike: 300, 300.0 and 3e2 differ, as the guide says (EventBridge's open
  source matcher also takes the same value written otherwise). `numeric` compares values, from -5e9 to 5e9.
- `exists` looks at leaves. A field that holds an object does not exist, nor does an empty array; null exists.
- `anything-but` needs the field: one that is missing does not match. In an array one other element is enough.
- A body that is not JSON, and data that is not, never matches a pattern. One that is an array is searched as any
  array is; the guide does not say so.
"""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from pipeline.errors import ConfigurationError

#: Lambda's default for one event source mapping; a quota increase allows 10.
MAX_PATTERNS = 5
#: Lambda's limit for one pattern.
MAX_PATTERN_CHARACTERS = 4_096
#: EventBridge's limit for what the `$or`s of one pattern multiply to.
MAX_COMBINATIONS = 1_000
#: EventBridge's limits for `numeric`: the value, and the digits behind the point.
MAX_NUMERIC, MAX_DECIMALS = Decimal(5_000_000_000), 6
_MAX_DEPTH = 100
#: The payload of a DynamoDB record: an object, which comes alone or in its record.
_OBJECT = "dynamodb"

_OPERATORS = ("anything-but", "equals-ignore-case", "exists", "numeric", "prefix", "suffix")
#: In EventBridge's list ("Comparison operators for use in event patterns"), and not in Lambda's.
_EVENTBRIDGE_ONLY = ("cidr", "wildcard")
#: Inside `$or` EventBridge takes a field of such a name for an operator.
_RESERVED = {*_OPERATORS, *_EVENTBRIDGE_ONLY, "exactly", "=", "<", "<=", ">", ">="}
_COMPARISONS: dict[str, Callable[[Decimal, Decimal], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}

#: One pattern, or several of which any may match.
Patterns = dict[str, Any] | Sequence[dict[str, Any]]

_Path = tuple[str, ...]
#: Whether a leaf of a document is what one rule asks for.
_Rule = Callable[[Any], bool]


class _Number(NamedTuple):
    """A JSON number as it is written."""

    text: str


@dataclass(frozen=True)
class _Field:
    """What a pattern asks of the values at one path, and of the members below."""

    rules: list[_Rule] = field(default_factory=list)
    members: dict[str, _Field] = field(default_factory=dict)


@dataclass(frozen=True)
class _Alternative:
    """A pattern without `$or`: fields that must match, and paths that must lead to no leaf."""

    root: _Field
    absent: tuple[_Path, ...]


@dataclass(frozen=True)
class Filter:
    """Patterns over the payloads of a source's records. Two of the same patterns are equal."""

    member: str  #: of a record in Lambda's event that holds its payload
    texts: tuple[str, ...]  #: the patterns over a payload, as JSON
    _alternatives: tuple[_Alternative, ...] = field(compare=False, repr=False)

    @property
    def patterns(self) -> list[dict[str, Any]]:
        """As an event source mapping wants them: over a record, so below the member that holds the payload."""
        return [{self.member: json.loads(text)} for text in self.texts]

    def accepts(self, body: Any, record: Mapping[str, Any] | None = None) -> bool:
        """True when any pattern matches; never for a body that is not JSON. `record` is for a `RecordFilter`."""
        del record
        try:
            document = _loads(body)
        except (ValueError, RecursionError):
            return False
        return any(_is_match(alternative, document) for alternative in self._alternatives)


@dataclass(frozen=True)
class RecordFilter(Filter):
    """Patterns as a template writes them: over a whole record, with its payload parsed in the member `member`.

    The guide lists the payload alone for each source; `eventName` beside `dynamodb` is in everybody's use. What a
    pattern says of other members is held against the record as Lambda's event has it, and for Kinesis against its
    member `kinesis` too.

    - A pattern over a payload that is not JSON never matches ("Filtering behavior" in the Lambda developer guide).
    - `{"body": ["text"]}`, a list, is over a body that is plain text; a JSON object does not match it.
    """

    _wants_json: tuple[bool, ...] = field(compare=False, repr=False)  #: of each alternative

    @property
    def patterns(self) -> list[dict[str, Any]]:
        """As an event source mapping wants them."""
        return [json.loads(text) for text in self.texts]

    def accepts(self, body: Any, record: Mapping[str, Any] | None = None) -> bool:
        """True when any pattern matches. `body`: the payload, as text, bytes or an object; `record`: what it stands in."""
        payload, is_json = _payload(body)
        beside = dict(record or {})
        if isinstance(payload, dict) and self.member == _OBJECT in payload:
            beside, payload = payload, payload[_OBJECT]
        if isinstance(beside.get("kinesis"), dict):
            beside |= beside["kinesis"]
        document = {**_loads(json.dumps(beside, default=str)), self.member: payload}
        return any(
            (is_json or not wants_json) and _is_match(alternative, document)
            for alternative, wants_json in zip(self._alternatives, self._wants_json, strict=True)
        )


def read_filter(patterns: Patterns | None, *, member: str, declared: str) -> Filter | None:
    """The filter that the option `filter=` means. `member`: see `Filter`; `declared`: who is declared, for errors.

    Raises `ConfigurationError` for what Lambda would refuse, and for what it does not document.
    """
    if patterns is None:
        return None
    what = f"{declared}(filter=...)"
    given = [patterns] if isinstance(patterns, dict) else patterns
    if not isinstance(given, list | tuple) or not all(isinstance(one, dict) for one in given):
        raise ConfigurationError(
            f"{what}: give a pattern over the JSON payload, as {{'kind': ['order']}}, or a list of patterns"
        )
    if not 1 <= len(given) <= MAX_PATTERNS:
        raise ConfigurationError(
            f"{what}: {len(given)} patterns; give 1 to {MAX_PATTERNS}, or join several with '$or'; None filters nothing"
        )
    texts = tuple(_text(one, member, what) for one in given)
    alternatives = [alternative for one in given for alternative in _alternatives_of(one, what)]
    return Filter(member, texts, tuple(alternatives))


def read_record_filter(patterns: Sequence[dict[str, Any]], *, member: str, declared: str) -> RecordFilter:
    """The filter of patterns over whole records. `member`: holds the payload; `declared`: what they stand in, for errors.

    Raises `ConfigurationError` for what Lambda would refuse, and for what it does not document.
    """
    if not 1 <= len(patterns) <= MAX_PATTERNS:
        raise ConfigurationError(f"{declared}: {len(patterns)} patterns; Lambda takes 1 to {MAX_PATTERNS}")
    texts = tuple(_text(one, None, declared) for one in patterns)
    found = [(one, alternative) for one in patterns for alternative in _alternatives_of(one, declared)]
    wants_json = tuple(_wants_json(one, member) for one, _ in found)
    return RecordFilter(member, texts, tuple(alternative for _, alternative in found), wants_json)


def _wants_json(pattern: dict[str, Any], member: str) -> bool:
    """Whether a pattern looks into the payload."""
    ways = [pattern, *(one for one in pattern.get("$or", ()) if isinstance(one, dict))]
    return any(isinstance(one.get(member), dict) for one in ways)


def _payload(body: Any) -> tuple[Any, bool]:
    """A payload as a document, and whether it is JSON; text that is not stands for itself."""
    try:
        found = _loads(body if isinstance(body, str | bytes) else json.dumps(body, default=str))
    except (ValueError, RecursionError):
        return (body.decode("utf-8", "replace") if isinstance(body, bytes) else body), False
    # A number or a word is valid JSON too, and plain text to everybody.
    return (found, True) if isinstance(found, dict | list) else (body, False)


# Reading a pattern


def _text(pattern: dict[str, Any], member: str | None, what: str) -> str:
    try:
        text = json.dumps(pattern, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ConfigurationError(
            f"{what}: the pattern is not JSON: use dicts, lists, strings, finite numbers, True, False and None"
        ) from None
    # With its spaces and escapes: whoever writes it more tightly is within the limit too.
    size = len(text if member is None else json.dumps({member: pattern}))
    if size > MAX_PATTERN_CHARACTERS:
        raise ConfigurationError(
            f"{what}: a pattern has {size:,} characters as JSON; Lambda takes {MAX_PATTERN_CHARACTERS:,}: "
            "split it into several, of which any may match"
        )
    return text


#: What one way through the `$or`s asks: the rules at each path; None: the path must lead to no leaf.
_Branch = Mapping[_Path, list[_Rule] | None]


def _alternatives_of(pattern: dict[str, Any], what: str) -> list[_Alternative]:
    return [_alternative(branch) for branch in _branches(pattern, (), what, in_or=False)]


def _alternative(branch: _Branch) -> _Alternative:
    root = _Field()
    for path, rules in branch.items():
        if rules is None:
            continue
        place = root
        for name in path:
            place = place.members.setdefault(name, _Field())
        place.rules.extend(rules)
    return _Alternative(root, tuple(path for path, rules in branch.items() if rules is None))


def _branches(pattern: Any, path: _Path, what: str, *, in_or: bool) -> list[_Branch]:
    """The ways in which a pattern may be met: `$or` is multiplied out."""
    if not isinstance(pattern, dict) or not pattern:
        raise ConfigurationError(f"{what}: {_at(path)} names no field; write {{'field': ['value']}}")
    if len(path) >= _MAX_DEPTH:
        raise ConfigurationError(f"{what}: the pattern is nested more than {_MAX_DEPTH} deep; write it flatter")
    found: list[_Branch] = [{}]
    for name, value in pattern.items():
        found = _product(found, _ways(name, value, path, what, in_or=in_or), what)
    return found


def _ways(name: Any, value: Any, path: _Path, what: str, *, in_or: bool) -> list[_Branch]:
    """The ways in which one member of a pattern may be met."""
    if not isinstance(name, str):
        raise ConfigurationError(f"{what}: {_at(path)} has a member that is named by a {type(name).__name__}: use text")
    if name == "$or":
        return _ways_of_or(value, path, what)
    if in_or and name in _RESERVED:
        raise ConfigurationError(
            f"{what}: a field called '{name}' cannot stand inside '$or', where it is an operator: "
            "write several patterns instead"
        )
    below = (*path, name)
    if isinstance(value, dict):
        return _branches(value, below, what, in_or=in_or)
    if not isinstance(value, list | tuple) or not value:
        raise ConfigurationError(f"{what}: {_at(below)} needs a list of values or rules: write ['value']")
    rules = [_rule(one, below, what) for one in value]
    # That a field is missing is asked of the whole document, so it is a way of its own.
    given = [rule for rule in rules if rule is not None]
    ways: list[_Branch] = [{below: given}] if given else []
    return [*ways, {below: None}] if None in rules else ways


def _ways_of_or(value: Any, path: _Path, what: str) -> list[_Branch]:
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise ConfigurationError(f"{what}: '$or' needs a list of at least two patterns")
    return [branch for one in value for branch in _branches(one, path, what, in_or=True)]


def _product(left: list[_Branch], right: list[_Branch], what: str) -> list[_Branch]:
    if len(left) * len(right) > MAX_COMBINATIONS:
        raise ConfigurationError(
            f"{what}: the alternatives of the pattern multiply to more than {MAX_COMBINATIONS:,}; write several patterns"
        )
    for one in left:
        for other in right:
            for path in one.keys() & other.keys():
                raise ConfigurationError(
                    f"{what}: {_at(path)} stands both inside and beside '$or', which counts is not documented: "
                    "write it once in each alternative"
                )
    return [{**one, **other} for one in left for other in right]


def _rule(rule: Any, path: _Path, what: str) -> _Rule | None:
    """One member of a field's list. None: the field must be missing."""
    if isinstance(rule, str | int | float) or rule is None:
        return _equals([rule])
    if not isinstance(rule, dict) or len(rule) != 1:
        raise ConfigurationError(
            f"{what}: {_at(path)} has a rule that is a {type(rule).__name__}: give a value, or one operator, "
            "as {'prefix': 'eu-'}"
        )
    ((name, value),) = rule.items()
    if name == "exists":
        _expect(isinstance(value, bool), name, "True or False", path, what)
        return _exists if value else None
    if name in _TEXT_RULES:
        _expect(isinstance(value, str), name, "a string", path, what)
        return _TEXT_RULES[name](value)
    if name == "anything-but":
        return _anything_but(value, path, what)
    if name == "numeric":
        return _numeric(value, path, what)
    elsewhere = ", though EventBridge has it" if name in _EVENTBRIDGE_ONLY else ""
    raise ConfigurationError(
        f"{what}: {_at(path)}: {name!r} is no operator of Lambda's event filtering{elsewhere}: "
        f"use one of {', '.join(_OPERATORS)}"
    )


def _anything_but(value: Any, path: _Path, what: str) -> _Rule:
    values = value if isinstance(value, list | tuple) else [value]
    is_text = all(isinstance(one, str) for one in values)
    is_number = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    _expect(bool(values) and (is_text or is_number), "anything-but", "strings, or numbers, not both", path, what)
    equals = _equals(values)
    return lambda leaf: not equals(leaf)


def _numeric(value: Any, path: _Path, what: str) -> _Rule:
    usage = "one comparison, as ['=', 5] or ['<', 5], or a range from below, as ['>', 0, '<=', 5]"
    _expect(isinstance(value, list | tuple) and len(value) in (2, 4), "numeric", usage, path, what)
    names, numbers = list(value[::2]), list(value[1::2])
    is_known = all(isinstance(name, str) and name in _COMPARISONS for name in names)
    is_range = len(names) == 1 or (names[0] in (">", ">=") and names[1] in ("<", "<="))
    _expect(is_known and is_range, "numeric", usage, path, what)
    limits = [_limit(number, path, what) for number in numbers]
    _expect(limits == sorted(set(limits)), "numeric", "a range whose end lies above its beginning", path, what)
    comparisons = [(_COMPARISONS[name], limit) for name, limit in zip(names, limits, strict=True)]

    def rule(leaf: Any) -> bool:
        found = _value(leaf)
        return found is not None and all(compare(found, limit) for compare, limit in comparisons)

    return rule


def _limit(number: Any, path: _Path, what: str) -> Decimal:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    found = Decimal(json.dumps(number)) if is_number else Decimal("NaN")
    exponent = found.normalize().as_tuple().exponent
    is_precise = isinstance(exponent, int) and -exponent <= MAX_DECIMALS
    usage = f"numbers from -5e9 to 5e9 with at most {MAX_DECIMALS} digits behind the point"
    _expect(is_precise and abs(found) <= MAX_NUMERIC, "numeric", usage, path, what)
    return found


def _expect(is_so: bool, name: str, usage: str, path: _Path, what: str) -> None:
    if not is_so:
        raise ConfigurationError(f"{what}: {_at(path)}: '{name}' needs {usage}")


def _at(path: _Path) -> str:
    return f"'{'.'.join(path)}'" if path else "the pattern"


# Rules


def _equals(values: Sequence[Any]) -> _Rule:
    # As they come out of a document: numbers by their text, so that 1 is no `True`.
    wanted = {_loads(json.dumps(value)) for value in values}
    return lambda leaf: leaf in wanted


def _exists(_: Any) -> bool:
    return True


def _prefix(start: str) -> _Rule:
    return lambda leaf: isinstance(leaf, str) and leaf.startswith(start)


def _suffix(end: str) -> _Rule:
    return lambda leaf: isinstance(leaf, str) and leaf.endswith(end)


def _equals_ignore_case(text: str) -> _Rule:
    wanted = text.lower()
    return lambda leaf: isinstance(leaf, str) and leaf.lower() == wanted


_TEXT_RULES: dict[str, Callable[[str], _Rule]] = {
    "equals-ignore-case": _equals_ignore_case,
    "prefix": _prefix,
    "suffix": _suffix,
}


def _value(leaf: Any) -> Decimal | None:
    """A number's value; None for anything else, and beyond EventBridge's limits."""
    if not isinstance(leaf, _Number):
        return None
    try:
        found = Decimal(leaf.text)
    except ArithmeticError:  # an exponent beyond all limits
        return None
    return found if abs(found) <= MAX_NUMERIC else None


# Matching


def _is_match(alternative: _Alternative, document: Any) -> bool:
    if any(_leads_to_a_leaf(document, path) for path in alternative.absent):
        return False
    return _fits(alternative.root, document)


def _fits(place: _Field, value: Any) -> bool:
    if place.rules and not any(rule(leaf) for leaf in _leaves(value) for rule in place.rules):
        return False
    return not place.members or any(_has_members(place, one) for one in _elements(value))


def _has_members(place: _Field, value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    return all(name in value and _fits(member, value[name]) for name, member in place.members.items())


def _leads_to_a_leaf(document: Any, path: _Path) -> bool:
    values = [document]
    for name in path:
        values = [one[name] for value in values for one in _elements(value) if isinstance(one, dict) and name in one]
    return any(True for value in values for _ in _leaves(value))


def _leaves(value: Any) -> Iterator[Any]:
    return (one for one in _elements(value) if not isinstance(one, dict))


def _elements(value: Any) -> Iterator[Any]:
    """What stands here: the elements of an array, also of arrays within it, or the value itself."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, list):
            waiting.extend(one)
        else:
            yield one


def _loads(body: str | bytes) -> Any:
    """JSON with its numbers as they are written. Raises `ValueError` for what is not JSON, NaN included."""
    text = body if isinstance(body, str) else body.decode()
    return json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_no_constant)


def _no_constant(_: str) -> Any:
    raise ValueError
