"""DynamoDB's expressions and statements: whatever is asked, they are parsed or refused, and mean what Python means."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.emulator.services.dynamodb import partiql, values
from pipeline.emulator.services.dynamodb.evaluation import holds, updated
from pipeline.emulator.services.dynamodb.expressions import (
    Both,
    Comparison,
    Constant,
    Either,
    Names,
    Negated,
    Path,
    condition_of,
    projection_of,
    update_of,
)
from pipeline.emulator.services.service import ServiceError

NUMBERS = st.decimals(min_value=-(10**20), max_value=10**20, places=6)
LEAVES = st.one_of(
    st.text(max_size=5).map(lambda text: {"S": text}),
    NUMBERS.map(lambda number: {"N": str(number)}),
    st.binary(max_size=4).map(lambda binary: {"B": binary}),
    st.booleans().map(lambda boolean: {"BOOL": boolean}),
    st.just({"NULL": True}),
    st.sets(st.text(max_size=3), min_size=1, max_size=3).map(lambda texts: {"SS": list(texts)}),
    st.sets(st.integers(-9, 9), min_size=1, max_size=3).map(lambda numbers: {"NS": list(map(str, numbers))}),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda several: {"L": several}),
        st.dictionaries(st.text(max_size=3), inner, max_size=3).map(lambda members: {"M": members}),
    ),
    max_leaves=6,
)
WORDS = st.sampled_from(
    [
        *(
            "a",
            "b.c",
            "d[0]",
            "#n",
            ":v",
            "(",
            ")",
            ",",
            "=",
            "<>",
            "<",
            "AND",
            "OR",
            "NOT",
            "BETWEEN",
            "IN",
            "size(a)",
        ),
        *("SET", "REMOVE", "ADD", "DELETE", "+", "-", "if_not_exists(a, :v)", "list_append(a, :v)", "[", "]", "1", "?"),
        *("SELECT", "*", "FROM", "INSERT", "INTO", "VALUE", "{'a': 1}", "WHERE", "UPDATE", '"t-t"', "'x'", "<<", ">>"),
        *(
            "IS",
            "MISSING",
            "NULL",
            "RETURNING",
            "ALL OLD *",
            "EXISTS",
            ";",
            "attribute_exists(a)",
            "begins_with(a, :v)",
        ),
    ]
)


def names(**given: Any) -> Names:
    return Names({"#n": "name"}, {f":{name}": values.taken(value) for name, value in given.items()})


def refusal(parse: Callable[[], object]) -> str | None:
    try:
        parse()
    except ServiceError as error:
        return error.code
    return None


@given(st.lists(WORDS, max_size=12).map(" ".join))
def test_any_words_are_parsed_or_refused(text: str) -> None:
    for parse in (
        lambda: condition_of(text, names(v={"N": "1"})),
        lambda: update_of(text, names(v={"N": "1"})),
        lambda: projection_of(text, names(v={"N": "1"})),
        lambda: partiql.parse(text, [{"N": "1"}]),
    ):
        assert refusal(parse) in (None, "ValidationException")


@given(st.text(max_size=20))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    for parse in (lambda: condition_of(text, names()), lambda: partiql.parse(text, [])):
        assert refusal(parse) in (None, "ValidationException")


def test_and_binds_more_than_or_and_not_more_than_and() -> None:
    a, b, c = (Comparison("=", Path((name,)), Constant({"N": "1"})) for name in "abc")
    expected = Either(a, Both(Negated(b), c))
    assert condition_of("a = :v OR NOT b = :v AND c = :v", names(v={"N": "1"})) == expected
    statement = partiql.parse("SELECT * FROM ttt WHERE a = 1 OR NOT b = 1 AND c = ?", [{"N": "1"}])
    assert isinstance(statement, partiql.Select)
    assert statement.where == expected


def test_a_name_stands_for_one_part_of_a_path() -> None:
    given = Names({"#n": "with.dot"})
    assert condition_of("attribute_exists(a.#n[2].b)", given) is not None
    assert projection_of("#n.x, y[0]", given) == (Path(("with.dot", "x")), Path(("y", 0)))
    assert given.used == {"#n"}


@pytest.mark.parametrize("name", ["it's", 'a"b', "select", "x y", "ünï"])
def test_names_in_statements_may_be_anything_in_quotes(name: str) -> None:
    quoted = name.replace('"', '""')
    found = partiql.parse(f"UPDATE ttt SET \"{quoted}\" = ? WHERE id = 'it''s'", [{"S": "x"}])
    assert isinstance(found, partiql.Change)
    assert found.update.sets == ((Path((name,)), Constant({"S": "x"})),)
    assert found.where == Comparison("=", Path(("id",)), Constant({"S": "it's"}))


def test_an_error_of_a_statement_quotes_no_value() -> None:
    with pytest.raises(ServiceError) as refused:
        partiql.parse("INSERT INTO ttt VALUE {'id': 'secret' oops}", [])
    assert "secret" not in refused.value.message


@given(VALUES)
def test_a_value_that_was_taken_is_taken_as_it_is(value: Any) -> None:
    taken = values.taken(value)
    assert values.taken(taken) == taken
    assert values.given(taken) == taken


@given(NUMBERS, NUMBERS)
def test_numbers_compare_and_add_as_amounts(one: Decimal, other: Decimal) -> None:
    item = values.taken_item({"a": {"N": str(one)}})
    asked = names(v={"N": str(other)})
    for sign, expected in (("=", one == other), ("<", one < other), (">=", one >= other), ("<>", one != other)):
        assert holds(condition_of(f"a {sign} :v", asked), item) is expected
    found = updated(item, update_of("SET b = a - :v, c = a + :v ADD a :v", asked))
    assert {name: Decimal(value["N"]) for name, value in found.items()} == {
        "a": one + other,
        "b": one - other,
        "c": one + other,
    }


@given(st.text(max_size=4), st.text(max_size=4))
def test_texts_compare_by_their_bytes(one: str, other: str) -> None:
    item, asked = {"a": {"S": one}}, names(v={"S": other})
    assert holds(condition_of("a < :v", asked), item) is (one.encode() < other.encode())
    assert holds(condition_of("begins_with(a, :v)", asked), item) is one.startswith(other)
    assert holds(condition_of("contains(a, :v)", asked), item) is (other in one)


@given(VALUES, VALUES)
def test_a_condition_and_its_negation_are_never_both_true(one: Any, other: Any) -> None:
    item = values.taken_item({"a": one})
    asked = names(v=other)
    for text in ("a = :v", "a <> :v", "contains(a, :v)", "a IN (:v)", "attribute_exists(a.b)"):
        assert holds(condition_of(text, asked), item) is not holds(condition_of(f"NOT {text}", asked), item)
    assert holds(condition_of("a = :v", asked), item) is not holds(condition_of("a <> :v", asked), item)


@given(VALUES, VALUES)
def test_an_update_leaves_the_item_that_it_is_made_of(one: Any, other: Any) -> None:
    item = values.taken_item({"a": one, "l": {"L": [other, one]}, "m": {"M": {"x": one}}})
    before = values.given_item(item)
    made = updated(item, update_of("SET b = :v, l[0] = a, m.y = :v REMOVE l[1], m.x", names(v=other)))
    assert item == before
    assert made == {
        "a": item["a"],
        "b": values.taken(other),
        "l": {"L": [item["a"]]},
        "m": {"M": {"y": values.taken(other)}},
    }


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ({"S": "é"}, 2),
        ({"B": b"123"}, 3),
        ({"BOOL": True}, 1),
        ({"NULL": True}, 1),
        ({"N": "100"}, 2),
        ({"N": "-123.45"}, 5),
        ({"SS": ["a", "bc"]}, 3),
        ({"L": [{"S": "a"}, {"BOOL": True}]}, 3 + 2 + 2),
        ({"M": {"ab": {"S": "c"}}}, 3 + 1 + 2 + 1),
    ],
)
def test_what_counts_towards_an_items_size(value: Any, size: int) -> None:
    """DynamoDB developer guide, "Item sizes and formats": one byte for two digits, and one; three for a list or map."""
    assert values.size(values.taken(value)) == size
