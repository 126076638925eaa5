"""Places: texts that stand in the order of what they name, and the entries that hold them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decisions.checkpoint import checkpoint_id, place
from pipeline.decisions.idempotency import Advance, Entry
from pipeline.stores.protocol import advanced

numbers = st.integers(0, 10**129 - 1) | st.integers(0, 200)
places = st.tuples(numbers, st.integers(0, 9_999_999) | st.integers(0, 12))
texts = st.text(max_size=4) | st.sampled_from(["a", "a/b", "b", '"', ",", "#", "source", "path a"])


@given(places, places)
def test_places_compare_as_the_numbers_do(one: tuple[int, int], other: tuple[int, int]) -> None:
    assert (place(*one) < place(*other)) == (one < other)
    assert (place(*one) == place(*other)) == (one == other)


@given(numbers, st.integers(0, 9_999_999))
def test_a_number_may_be_given_as_its_text(number: int, index: int) -> None:
    assert place(str(number), index) == place(number, index)
    assert place(number, index) > ""


@pytest.mark.parametrize(
    ("number", "index", "text"),
    [
        (0, 0, "0010.0000000"),
        ("49590338271490256608559692538361571095921575989136588898", 3,
         "05649590338271490256608559692538361571095921575989136588898.0000003"),
    ],
)  # fmt: skip
def test_a_place_never_changes(number: int | str, index: int, text: str) -> None:
    """It is in somebody's table."""
    assert place(number, index) == text


def test_a_checkpoints_id_never_changes() -> None:
    assert checkpoint_id("shop.price", "orders/g", "source", "g") == "shop.price#615e715da6b3da55bc1d7b08eb592adc"


@given(st.lists(st.tuples(texts, texts, texts | st.none()), unique=True, min_size=2, max_size=8))
def test_every_scope_kind_and_lane_has_an_entry_of_its_own(rows: list[tuple[str, str, str | None]]) -> None:
    ids = {checkpoint_id("shop.price", *row) for row in rows}
    assert len(ids) == len(rows)
    assert all(found.startswith("shop.price#") and len(found) == len("shop.price#") + 32 for found in ids)


@given(st.lists(st.tuples(places, st.floats(0, 10_000)), max_size=12))
def test_a_place_never_moves_back_whatever_comes_when(moves: list[tuple[tuple[int, int], float]]) -> None:
    entry: Entry | None = None
    now = 0.0
    for (number, index), passed in moves:
        now += passed
        before = "" if entry is None or entry.position is None else entry.position
        moved = advanced(entry, Advance(id="k", position=place(number, index), ttl=60), now)
        if moved is None:
            assert before >= place(number, index)
        else:
            assert (moved.position or "") > before
            assert moved.expiration == int(now) + 60
            entry = moved
    furthest = max((place(*found) for found, _ in moves), default="")
    assert ("" if entry is None else entry.position) == furthest


def test_what_stands_before_a_place_is_before_it_in_every_order_of_arrival() -> None:
    wanted = [place(number, index) for number, index in [(9, 0), (9, 1), (10, 0), (10, 11), (99, 0), (100, 2)]]
    for order in itertools.permutations(wanted):
        assert sorted(order) == wanted
