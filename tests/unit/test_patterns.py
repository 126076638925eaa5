"""Event patterns against the Lambda guide's table, a matcher written another way, and moto's.

moto's matcher differs, and those inputs are kept from it: it compares numbers by value (300 and 300.0) and
takes true for the number 1; it sees nothing below an array of objects; an empty array and an empty object exist to it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moto.events.models import EventPattern

from pipeline.decisions.patterns import MAX_PATTERN_CHARACTERS, Filter, read_filter
from pipeline.errors import ConfigurationError


def filtering(patterns: Any) -> Filter:
    found = read_filter(patterns, member="body", declared="sources.SQS")
    assert found is not None
    return found


def matches(pattern: dict[str, Any], document: Any) -> bool:
    return filtering(pattern).accepts(document if isinstance(document, str) else json.dumps(document))


# The guide's table, "Filter rule syntax", and its notes


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ({"UserID": [None]}, [{"UserID": None}], [{"UserID": ""}, {"UserID": "null"}, {}]),
        ({"LastName": [""]}, [{"LastName": ""}], [{"LastName": None}, {"LastName": " "}, {}]),
        (
            {"Name": ["Alice"]},
            [{"Name": "Alice"}],
            [{"Name": "alice"}, {"Name": ["Bob"]}, {"Name": {"Alice": "Alice"}}],
        ),
        ({"Name": [{"equals-ignore-case": "alice"}]}, [{"Name": "ALICE"}], [{"Name": "Alices"}, {"Name": 1}]),
        (
            {"Location": ["New York"], "Day": ["Monday"]},
            [{"Location": "New York", "Day": "Monday", "more": 1}],
            [{"Location": "New York"}, {"Day": "Monday"}, {"Location": "New York", "Day": "Sunday"}],
        ),
        ({"PaymentType": ["Credit", "Debit"]}, [{"PaymentType": "Debit"}], [{"PaymentType": "Cash"}]),
        (
            {"$or": [{"Location": ["New York"]}, {"Day": ["Monday"]}]},
            [{"Location": "New York"}, {"Day": "Monday", "Location": "Rome"}],
            [{"Location": "Rome", "Day": "Sunday"}, {}],
        ),
        (
            {"Weather": [{"anything-but": ["Raining"]}]},
            [{"Weather": "Sunny"}, {"Weather": None}, {"Weather": 3}, {"Weather": ["Raining", "Sunny"]}],
            [{"Weather": "Raining"}, {"Weather": []}, {}],
        ),
        (
            {"Price": [{"numeric": ["=", 100]}]},
            [{"Price": 100}, '{"Price": 1.00e2}'],
            [{"Price": "100"}, {"Price": 101}],
        ),
        (
            {"Price": [{"numeric": [">", 10, "<=", 20]}]},
            [{"Price": 10.5}, {"Price": 20}],
            [{"Price": 10}, {"Price": 20.5}, {"Price": True}, {"Price": None}],
        ),
        ({"ProductName": [{"exists": True}]}, [{"ProductName": None}, {"ProductName": 0}], [{"ProductName": []}, {}]),
        ({"ProductName": [{"exists": False}]}, [{}, {"ProductName": []}], [{"ProductName": None}]),
        ({"Region": [{"prefix": "us-"}]}, [{"Region": "us-east-1"}], [{"Region": "eu-us-"}, {"Region": 5}]),
        ({"FileName": [{"suffix": ".png"}]}, [{"FileName": "a.png"}], [{"FileName": "a.png.txt"}]),
        # "The Exists operator only works on leaf nodes."
        (
            {"person": {"address": [{"exists": True}]}},
            [{"person": {"address": "Rome"}}],
            [{"person": {"address": {"city": "Rome"}}}],
        ),
        # "300, 300.0, and 3.0e2 are not considered equal."
        ({"n": [300]}, ['{"n": 300}'], ['{"n": 300.0}', '{"n": 3.0e2}', '{"n": "300"}']),
        ({"n": [{"anything-but": 300}]}, ['{"n": 300.0}', '{"n": "300"}'], ['{"n": 300}']),
        ({"flag": [True]}, [{"flag": True}], [{"flag": 1}, {"flag": "true"}, {"flag": False}]),
        ({"flag": [1]}, [{"flag": 1}], [{"flag": True}]),
        ({"n": [12345678901234567890123]}, ['{"n": 12345678901234567890123}'], ['{"n": 12345678901234567890124}']),
    ],
)
def test_the_guides_operators(pattern: dict[str, Any], yes: list[Any], no: list[Any]) -> None:
    assert [document for document in yes if not matches(pattern, document)] == []
    assert [document for document in no if matches(pattern, document)] == []


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        # What is said below an array holds for one of its elements.
        (
            {"lines": {"sku": ["a"], "n": [2]}},
            [{"lines": [{"sku": "b", "n": 1}, {"sku": "a", "n": 2}]}, {"lines": [[{"sku": "a", "n": 2}]]}],
            [{"lines": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]}],
        ),
        # What is missing is missing everywhere, and a way to it need not be there.
        (
            {"lines": {"n": [{"exists": False}]}},
            [{}, {"lines": 5}, {"lines": [{"sku": "a"}]}],
            [{"lines": [{"sku": "a"}, {"n": None}]}],
        ),
        (
            {"kind": ["order"], "test": [{"exists": False}, False]},
            [{"kind": "order"}, {"kind": "order", "test": False}],
            [{"kind": "order", "test": True}, {"test": False}],
        ),
        (
            {"$or": [{"a": {"$or": [{"b": [1]}, {"c": [1]}]}}, {"d": [1], "e": [1]}]},
            [{"a": {"b": 1}}, {"a": {"c": 1}}, {"d": 1, "e": 1}],
            [{"a": {"b": 2}, "d": 1}, {}],
        ),
        # Beside and inside `$or` the same element of an array is meant.
        (
            {"a": {"b": [1]}, "$or": [{"a": {"c": [1]}}, {"d": [1]}]},
            [{"a": [{"b": 1, "c": 1}]}, {"a": [{"b": 1}], "d": 1}],
            [{"a": [{"b": 1}, {"c": 1}]}],
        ),
        (
            {"n": [{"numeric": ["<", 5_000_000_000]}]},
            ['{"n": -5e9}'],
            ['{"n": -6e9}', '{"n": -1e999999999999999999999}'],
        ),
        ({"ü": ["\N{GRINNING FACE}", "\ud800"]}, [{"ü": "\N{GRINNING FACE}"}, {"ü": "\ud800"}], [{"ü": "?"}]),
    ],
)
def test_arrays_absence_and_or(pattern: dict[str, Any], yes: list[Any], no: list[Any]) -> None:
    assert [document for document in yes if not matches(pattern, document)] == []
    assert [document for document in no if matches(pattern, document)] == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "order",
        "{",
        '{"a": 1} ',
        '{"a": NaN}',
        "\ufeff{}",
        b"\xff\xfe",
        b"\xf3\x89\x9a\xc2{}",
        "[" * 100_000,
        '{"a":1}x',
    ],
)
def test_a_body_that_is_not_json_is_never_accepted(body: str | bytes) -> None:
    is_json = body == '{"a": 1} '
    assert filtering({"b": [{"exists": False}]}).accepts(body) is is_json


@pytest.mark.parametrize("body", ["5", '"text"', "null", "[]", "[1, 2]", b"{}"])
def test_a_body_that_is_json_and_no_object_has_no_fields(body: str | bytes) -> None:
    assert filtering({"a": [{"exists": False}]}).accepts(body)
    assert not filtering({"a": [{"exists": True}]}).accepts(body)


def test_any_of_several_patterns_may_match() -> None:
    found = filtering([{"a": [1]}, {"b": [1]}])
    assert [found.accepts(body) for body in ('{"a":1}', '{"b":1}', '{"a":2,"b":2}')] == [True, True, False]


def test_the_mapping_gets_each_pattern_below_the_records_member_and_a_filter_is_a_value() -> None:
    given: dict[str, Any] = {"a": [("x",)[0], {"numeric": (">", 1)}]}
    found = read_filter(given, member="data", declared="sources.Kinesis")
    same = read_filter([{"a": ["x", {"numeric": [">", 1]}]}], member="data", declared="elsewhere")
    assert found == same
    assert hash(found) == hash(same)
    given["a"].append("y")
    assert found is not None
    assert found.patterns == [{"data": {"a": ["x", {"numeric": [">", 1]}]}}]
    found.patterns[0].clear()
    assert found.patterns
    assert not found.accepts('{"a": "y"}')
    assert read_filter(None, member="data", declared="x") is None


@pytest.mark.parametrize(
    ("patterns", "says"),
    [
        ("order", "give a pattern over the JSON payload"),
        (["order"], "give a pattern over the JSON payload"),
        ([], "0 patterns; give 1 to 5"),
        ([{"a": [1]}] * 6, "6 patterns; give 1 to 5"),
        ({}, "the pattern names no field"),
        ({"a": {}}, "'a' names no field"),
        ({"a": []}, "'a' needs a list"),
        ({"a": "x"}, "'a' needs a list"),
        ({"a": {"b": 5}}, "'a.b' needs a list"),
        ({1: ["x"]}, "named by a int"),
        ({"a": [float("nan")]}, "not JSON"),
        ({"a": [{1, 2}]}, "not JSON"),
        ({"a": [b"x"]}, "not JSON"),
        ({"a": [["x"]]}, "a rule that is a list"),
        ({"a": [{}]}, "one operator"),
        ({"a": [{"prefix": "x", "suffix": "y"}]}, "one operator"),
        ({"a": [{"cidr": "10.0.0.0/8"}]}, "'cidr' is no operator of Lambda's"),
        (
            {"a": [{"wildcard": "x*"}]},
            "'wildcard' is no operator of Lambda's event filtering, though EventBridge has it: use",
        ),
        ({"a": [{"prefx": "x"}]}, "use one of anything-but, equals-ignore-case, exists, numeric, prefix, suffix"),
        ({"a": [{"prefix": 5}]}, "'prefix' needs a string"),
        ({"a": [{"prefix": {"equals-ignore-case": "x"}}]}, "'prefix' needs a string"),
        ({"a": [{"suffix": None}]}, "'suffix' needs a string"),
        ({"a": [{"equals-ignore-case": ["x"]}]}, "'equals-ignore-case' needs a string"),
        ({"a": [{"exists": "yes"}]}, "'exists' needs True or False"),
        ({"a": [{"anything-but": []}]}, "'anything-but' needs"),
        ({"a": [{"anything-but": ["x", 1]}]}, "'anything-but' needs"),
        ({"a": [{"anything-but": None}]}, "'anything-but' needs"),
        ({"a": [{"anything-but": [True]}]}, "'anything-but' needs"),
        ({"a": [{"anything-but": {"prefix": "x"}}]}, "'anything-but' needs"),
        ({"a": [{"numeric": 5}]}, "'numeric' needs one comparison"),
        ({"a": [{"numeric": []}]}, "'numeric' needs one comparison"),
        ({"a": [{"numeric": ["==", 5]}]}, "'numeric' needs one comparison"),
        ({"a": [{"numeric": [[], 5]}]}, "'numeric' needs one comparison"),
        ({"a": [{"numeric": ["<", 5, ">", 0]}]}, "'numeric' needs one comparison"),
        ({"a": [{"numeric": ["=", 5, "<", 9]}]}, "'numeric' needs one comparison"),
        ({"a": [{"numeric": [">", 5, "<", 5]}]}, "end lies above"),
        ({"a": [{"numeric": [">", "5"]}]}, "'numeric' needs numbers"),
        ({"a": [{"numeric": [">", True]}]}, "'numeric' needs numbers"),
        ({"a": [{"numeric": [">", 5e9 + 1]}]}, "'numeric' needs numbers"),
        ({"a": [{"numeric": [">", 0.0000001]}]}, "6 digits"),
        ({"$or": {"a": [1]}}, "at least two patterns"),
        ({"$or": [{"a": [1]}]}, "at least two patterns"),
        ({"$or": [{"a": [1]}, "b"]}, "names no field"),
        ({"$or": [{"numeric": ["=", 1]}, {"a": [1]}]}, "a field called 'numeric'"),
        ({"a": [1], "$or": [{"a": [2]}, {"b": [1]}]}, "'a' stands both inside and beside"),
        ({f"f{n}": [{"exists": False}, 1] for n in range(10)}, "multiply to more than 1,000"),
        ({"a": ["x" * MAX_PATTERN_CHARACTERS]}, "Lambda takes 4,096"),
    ],
)
def test_a_wrong_pattern_is_refused_and_the_error_says_what_to_write(patterns: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        filtering(patterns)
    assert str(caught.value).startswith("sources.SQS(filter=...): ")
    assert says in str(caught.value)


def nested(depth: int) -> Any:
    pattern: Any = [1]
    for _ in range(depth):
        pattern = {"a": pattern}
    return pattern


def test_nesting_has_a_limit_and_what_is_within_it_works() -> None:
    assert matches(nested(100), nested(100))
    for depth in (101, 100_000):
        with pytest.raises(ConfigurationError):
            filtering(nested(depth))


def test_the_characters_of_a_pattern_are_counted_as_the_mapping_gets_it() -> None:
    rest = len('{"body": {"a": [""]}}')
    longest = "x" * (MAX_PATTERN_CHARACTERS - rest)
    assert matches({"a": [longest]}, {"a": longest})
    with pytest.raises(ConfigurationError, match="4,097 characters"):
        filtering({"a": [longest + "x"]})


# Against other matchers

NAMES = ("a", "b", "c")
TEXTS = ("", "x", "xy", "X", "yx")
NUMBERS = (2, 3, 5)
scalars = st.sampled_from([None, True, False, *TEXTS, *NUMBERS])
rules = st.one_of(
    scalars,
    st.builds(lambda name, text: {name: text}, st.sampled_from(["prefix", "suffix", "equals-ignore-case"]), st.sampled_from(TEXTS)),
    st.builds(lambda is_there: {"exists": is_there}, st.booleans()),
    st.builds(lambda values: {"anything-but": values}, st.lists(st.sampled_from(TEXTS), min_size=1, max_size=3)),
    st.builds(lambda values: {"anything-but": values}, st.lists(st.sampled_from(NUMBERS), min_size=1, max_size=3)),
    st.builds(lambda name, n: {"numeric": [name, n]}, st.sampled_from(["=", "<", "<=", ">", ">="]), st.sampled_from(NUMBERS)),
    st.builds(lambda low, high: {"numeric": [low, 2, high, 5]}, st.sampled_from([">", ">="]), st.sampled_from(["<", "<="])),
)  # fmt: skip
plain_patterns = st.recursive(
    st.dictionaries(st.sampled_from(NAMES), st.lists(rules, min_size=1, max_size=3), min_size=1, max_size=2),
    lambda inner: st.dictionaries(
        st.sampled_from(NAMES), st.one_of(inner, st.lists(rules, min_size=1, max_size=2)), min_size=1, max_size=3
    ),
    max_leaves=6,
)
#: `$or` names fields of its own, as which counts is not documented otherwise.
patterns_with_or = st.builds(
    lambda beside, inside: {**beside, "$or": inside},
    st.dictionaries(st.just("a"), plain_patterns, max_size=1),
    st.lists(
        st.dictionaries(st.sampled_from(["b", "c"]), st.one_of(plain_patterns, st.lists(rules, min_size=1, max_size=2)), min_size=1, max_size=2),
        min_size=2,
        max_size=3,
    ),
)  # fmt: skip
patterns = st.one_of(plain_patterns, patterns_with_or)
documents = st.recursive(
    st.dictionaries(st.sampled_from(NAMES), scalars, max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from(NAMES),
        st.one_of(inner, scalars, st.lists(st.one_of(inner, scalars, st.lists(scalars, max_size=2)), max_size=3)),
        max_size=3,
    ),
    max_leaves=12,
)
moto_scalars = scalars.filter(lambda value: not isinstance(value, bool))
moto_documents = st.recursive(
    st.dictionaries(st.sampled_from(NAMES), moto_scalars, min_size=1, max_size=3),
    lambda inner: st.dictionaries(
        st.sampled_from(NAMES), st.one_of(inner, moto_scalars, st.lists(moto_scalars, min_size=1, max_size=3)), min_size=1, max_size=3
    ),
    max_leaves=8,
)  # fmt: skip

#: A value, its path, and the element of each array that it stands in.
Leaf = tuple[Any, tuple[str, ...], dict[int, int]]


def leaves(value: Any, path: tuple[str, ...], within: dict[int, int], arrays: Iterator[int]) -> Iterator[Leaf]:
    if isinstance(value, dict):
        for name, one in value.items():
            yield from leaves(one, (*path, name), within, arrays)
    elif isinstance(value, list):
        array = next(arrays)
        for position, one in enumerate(value):
            inner = {**within, array: position} if isinstance(one, dict | list) else within
            yield from leaves(one, path, inner, arrays)
    else:
        yield value, path, within


def asked(pattern: dict[str, Any], path: tuple[str, ...] = ()) -> list[list[tuple[tuple[str, ...], list[Any]]]]:
    """The alternatives of a pattern, each a list of paths and what they may be."""
    ways: list[list[tuple[tuple[str, ...], list[Any]]]] = [[]]
    for name, value in pattern.items():
        if name == "$or":
            more = [way for one in value for way in asked(one, path)]
        elif isinstance(value, dict):
            more = asked(value, (*path, name))
        else:
            more = [[((*path, name), value)]]
        ways = [one + other for one in ways for other in more]
    return ways


def is_met(rule: Any, value: Any) -> bool:
    if not isinstance(rule, dict):
        return type(rule) is type(value) and rule == value
    ((name, wanted),) = rule.items()
    if name == "exists":
        return bool(wanted)
    if name == "anything-but":
        return value not in wanted
    if name == "numeric":
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        pairs = zip(wanted[::2], wanted[1::2], strict=True)
        return all(eval(f"{value} {'==' if sign == '=' else sign} {limit}") for sign, limit in pairs)  # noqa: S307
    if not isinstance(value, str):
        return False
    if name == "equals-ignore-case":
        return bool(value.upper() == wanted.upper())
    return value.startswith(wanted) if name == "prefix" else value.endswith(wanted)


def by_membership(pattern: dict[str, Any], document: Any) -> bool:
    """EventBridge's own way: a list of leaves, one for each path, that stand in the same elements of arrays."""
    found = list(leaves(document, (), {}, itertools.count()))

    def rest(way: list[tuple[tuple[str, ...], list[Any]]], within: dict[int, int]) -> bool:
        if not way:
            return True
        (path, given), *others = way
        at_path = [(value, inner) for value, where, inner in found if where == path]
        if not at_path and {"exists": False} in given and rest(others, within):
            return True
        return any(
            any(is_met(rule, value) for rule in given)
            and all(within.get(array, position) == position for array, position in inner.items())
            and rest(others, {**within, **inner})
            for value, inner in at_path
        )

    return any(rest(way, {}) for way in asked(pattern))


@given(patterns, documents)
def test_it_agrees_with_a_matcher_that_compares_array_membership(pattern: dict[str, Any], document: Any) -> None:
    assert matches(pattern, document) == by_membership(pattern, document)


@given(patterns, moto_documents)
def test_it_agrees_with_motos_matcher_where_that_follows_the_guide(pattern: dict[str, Any], document: Any) -> None:
    assert matches(pattern, document) == EventPattern.load(json.dumps(pattern)).matches_event(document)


@given(st.recursive(scalars, lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.sampled_from([*NAMES, "$or", "prefix", "numeric"]), inner))))  # fmt: skip
def test_whatever_is_given_is_a_filter_or_a_configuration_error(given_: Any) -> None:
    try:
        found = read_filter(given_, member="body", declared="sources.SQS")
    except ConfigurationError:
        return
    assert found is None or isinstance(found.accepts('{"a": 1}'), bool)
