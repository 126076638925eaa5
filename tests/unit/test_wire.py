"""What travels with an output. Deployed queues hold these forms, so the golden values never change."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decisions.wire import (
    ATTRIBUTE,
    MEMBER,
    TRACEPARENT,
    TRACESTATE,
    carried_member,
    carried_text,
    output_id,
    pack,
    read_carried,
    read_member,
    split_member,
    unpack,
)
from pipeline.output import Emit, Output
from pipeline.record import Carried

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
texts = st.text(st.characters(exclude_categories=["Cs"]))


def output(**changes: Any) -> Output:
    fields: dict[str, Any] = {"id": "a1", "sink": "ledger", "body": '{"n":1}', "default_key": "o-1"}
    return Output(**{**fields, **changes})


outputs = st.builds(
    Output,
    id=texts,
    sink=texts,
    body=texts.map(json.dumps),
    is_text=st.booleans(),
    key=st.none() | texts,
    default_key=texts,
    attributes=st.dictionaries(texts, texts, max_size=3),
    delay=st.none() | st.floats(0, 900),
    hops=st.integers(1, 16),
    traceparent=st.none() | st.just(PARENT),
    tracestate=st.none() | st.just("vendor=1"),
)


def test_golden_names() -> None:
    assert (ATTRIBUTE, TRACEPARENT, TRACESTATE, MEMBER) == ("pipeline", "traceparent", "tracestate", "_pipeline")


def test_golden_ids() -> None:
    assert output_id("shop", "price", "ledger", '"o-1"', 0) == "c9d8f503f981a6e46b7a07bea251cd4c"
    assert output_id("shop", "price", "ledger", '"o-1"', 1) == "7dcd3b2eb7085eebdbe08997699a98c2"
    assert output_id("é", "h", "s", "\U0001f600", 10) == "0abedf8437e3ec626ee94c231098911b"


def test_golden_forms() -> None:
    assert carried_text(output(hops=3, traceparent=PARENT)) == '{"id":"a1","hops":3}'
    assert carried_member(output(hops=3)) == {"id": "a1", "hops": 3}
    assert carried_member(output(traceparent=PARENT)) == {"id": "a1", "hops": 1, "traceparent": PARENT}
    member = {"id": "a1", "hops": 1, "traceparent": PARENT, "tracestate": "vendor=1"}
    assert carried_member(output(traceparent=PARENT, tracestate="vendor=1")) == member
    assert carried_member(output(tracestate="vendor=1")) == {"id": "a1", "hops": 1}
    assert pack([output(key="k", delay=1.5, tracestate="vendor=1")]) == (
        '[{"id":"a1","sink":"ledger","body":"{\\"n\\":1}","is_text":false,"key":"k","default_key":"o-1",'
        '"attributes":{},"delay":1.5,"hops":1,"traceparent":null}]'
    )


def test_half_a_surrogate_pair_is_kept_as_it_is() -> None:
    (back,) = unpack(pack([output(key="\ud800", attributes={"a": "\udfff"})]))

    assert (back.key, back.attributes) == ("\ud800", {"a": "\udfff"})


def test_outputs_kept_before_they_had_a_time_are_still_read() -> None:
    (back,) = unpack(pack([output(sent_at=12.5)]))
    assert back.sent_at == 12.5
    assert unpack(pack([output()]))[0].sent_at is None


parts = st.tuples(texts, texts, texts, texts, st.integers(0, 1000))


@given(parts, parts)
def test_ids_differ_exactly_when_their_parts_do(one: tuple[Any, ...], other: tuple[Any, ...]) -> None:
    assert (output_id(*one) == output_id(*other)) == (one == other)
    assert len(output_id(*one)) == 32
    assert set(output_id(*one)) <= set("0123456789abcdef")


def test_parts_do_not_run_together() -> None:
    assert output_id("a", "bc", "d", "e", 1) != output_id("ab", "c", "d", "e", 1)
    assert output_id("a", "b", "c", "d", 11) != output_id("a", "b", "c", "d1", 1)


@given(outputs.filter(lambda made: made.id))
def test_what_is_carried_comes_back(made: Output) -> None:
    state = made.tracestate if made.traceparent else None
    expected = Carried(id=made.id, hops=made.hops, traceparent=made.traceparent, tracestate=state)

    assert read_carried(carried_text(made), made.traceparent, made.tracestate) == expected
    assert read_member(carried_member(made)) == expected


@given(st.lists(outputs, max_size=4))
def test_kept_outputs_come_back(made: list[Output]) -> None:
    back = unpack(pack(made))

    assert pack(back) == pack(made)
    assert [item.attributes for item in back] == [dict(item.attributes) for item in made]
    for item, original in zip(back, made, strict=True):
        assert item.value == (original.body if original.is_text else json.loads(original.body))


@pytest.mark.parametrize(
    "text",
    [None, "", "x", "{", "[]", "null", "7", "{}", '{"id": 7}', '{"id": ""}', '{"id": "a", "hops": "1"}']
    + ['{"id": "a", "hops": -1}', '{"id": "a", "hops": true}', '{"id": "a", "hops": 1.0}', '{"hops": 1}', "\ud800"],
)
def test_a_strangers_attribute_is_no_error(text: str | None) -> None:
    assert read_carried(text) is None


def test_an_id_that_is_too_long_for_a_log_line_is_a_strangers() -> None:
    assert read_carried(json.dumps({"id": "x" * 512})) == Carried(id="x" * 512)
    assert read_carried(json.dumps({"id": "x" * 513})) is None
    assert read_member({"id": "x" * 150_000}) is None
    Emit(1, id="x" * 512)
    with pytest.raises(ValueError, match="513 characters: at most 512"):
        Emit(1, id="x" * 513)


@given(
    st.text(st.characters(exclude_categories=()))
    | st.recursive(st.none() | st.integers() | texts, st.lists).map(json.dumps)
)
def test_no_text_is_an_error(text: str) -> None:
    found = read_carried(text)

    assert found is None or isinstance(found, Carried)


def test_what_else_a_member_holds_is_ignored() -> None:
    assert read_member({"id": "a", "later": [1]}) == Carried(id="a")
    assert read_member({"id": "a", "traceparent": 7}) == Carried(id="a")
    old = {"id": "a", "traceparent": "old", "tracestate": "old=1"}
    assert read_member(old, "new") == Carried(id="a", traceparent="new")
    assert read_member(old, "new", "new=1") == Carried(id="a", traceparent="new", tracestate="new=1")
    assert read_member(old, None, "new=1") == Carried(id="a", traceparent="old", tracestate="old=1")
    assert read_member({**old, "tracestate": 7}) == Carried(id="a", traceparent="old")


# The reserved member


short_texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | short_texts | st.just("_pipeline"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short_texts | st.just("_pipeline"), inner, max_size=3),
    max_leaves=8,
)


@given(
    members=st.dictionaries(short_texts.filter(lambda name: name != "_pipeline"), values, max_size=4),
    place=st.integers(0, 4),
    style=st.sampled_from([(",", ":"), (", ", ": ")]),
    indent=st.sampled_from([None, 1]),
)
def test_wherever_the_member_stands_only_it_is_gone(
    members: dict[str, Any], place: int, style: tuple[str, str], indent: int | None
) -> None:
    pairs = list(members.items())
    document = dict([*pairs[:place], ("_pipeline", {"id": "abc", "hops": 2}), *pairs[place:]])
    body, carried = split_member(json.dumps(document, separators=style, indent=indent).encode())
    assert carried == Carried(id="abc", hops=2)
    assert json.loads(body) == members
    assert list(json.loads(body)) == list(members)


@given(st.binary(max_size=40) | values.map(lambda value: json.dumps(value).encode()))
def test_splitting_raises_for_nothing_and_keeps_what_carries_nothing(body: bytes) -> None:
    for given_body in (body, b'{"_pipeline":' + body, b'{"_pipeline":{"id":"a"}' + body, b'"_pipeline"' + body):
        left, carried = split_member(given_body)
        assert carried is not None or left == given_body
