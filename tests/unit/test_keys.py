"""Keys and lanes: read by a path, hashed as the real Powertools does."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import json
import pathlib
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest
from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig
from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyKeyError
from aws_lambda_powertools.utilities.idempotency.persistence.base import BasePersistenceLayer
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decisions.codec import Document
from pipeline.decisions.keys import at, check_path, entry_id, fields_of, key_text, reader
from pipeline.errors import ConfigurationError, KeyMissing


class PowertoolsLayer(BasePersistenceLayer):
    """The real key derivation, over a store that is never reached."""

    def _get_record(self, idempotency_key: str) -> Any: ...
    def _put_record(self, data_record: Any) -> None: ...
    def _update_record(self, data_record: Any) -> None: ...
    def _delete_record(self, data_record: Any) -> None: ...


def powertools_id(data: Any, *, path: str = "", prefix: str = "shop.price") -> str | None:
    layer = PowertoolsLayer()
    layer.configure(IdempotencyConfig(event_key_jmespath=path, raise_on_no_idempotency_key=True), key_prefix=prefix)
    return layer._get_hashed_idempotency_key(data)


def read(spec: Any, body: str, payload: Any = None) -> Any:
    return reader(spec, what="key")(Document(body), lambda: payload)


json_data = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(json_data)
def test_the_hash_is_powertools(data: Any) -> None:
    assert entry_id("p", key_text(data)) == f"p#{PowertoolsLayer()._generate_hash(data)}"


@given(json_data, st.sampled_from(["order", "order.id", "[order, other]"]))
def test_a_key_read_from_a_body_is_powertools(value: Any, jmespath: str) -> None:
    """The same id for the same document, or no key in both."""
    document = {"order": {"id": value}, "other": 7} if jmespath == "order.id" else {"order": value, "other": 7}
    body = json.dumps(document)
    spec = ("order", "other") if jmespath.startswith("[") else jmespath

    try:
        theirs = powertools_id(json.loads(body), path=jmespath)
    except IdempotencyKeyError:
        theirs = None
    try:
        ours = entry_id("shop.price", key_text(read(spec, body)))
    except KeyMissing:
        ours = None

    if ours is None and isinstance(spec, tuple):
        assert not value or at({"v": value}, ["v"]) == value  # ours refuses a part that is missing or empty
    else:
        assert ours == theirs


class Size(enum.Enum):
    BIG = "big"


@dataclass
class Part:
    name: str
    count: int


class Model(pydantic.BaseModel):
    name: str
    at: datetime.date


@pytest.mark.parametrize(
    "data",
    [
        Decimal("1.10"),
        Decimal("NaN"),
        Size.BIG,
        datetime.datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=datetime.UTC),
        datetime.date(2026, 1, 2),
        datetime.time(3, 4),
        uuid.UUID(int=5),
        pathlib.PurePosixPath("/a/b"),
        Part("x", 1),
        Model(name="x", at=datetime.date(2026, 1, 2)),
        ["a", Decimal(1), Part("y", 2)],
        {"b": 1, "a": [Size.BIG]},
    ],
)
def test_what_a_key_function_returns_is_hashed_as_powertools(data: Any) -> None:
    assert entry_id("p", key_text(data)) == f"p#{PowertoolsLayer()._generate_hash(data)}"


def test_golden_ids() -> None:
    """Deployed tables hold these: they never change. Powertools 3.37 made them."""
    assert entry_id("shop.price", key_text("o-1")) == "shop.price#cbcbdb948de16bfe7e49a81f91500ab1"
    assert entry_id("shop.price", key_text(7)) == "shop.price#8f14e45fceea167a5a36dedd4bea2543"
    assert entry_id("p", key_text({"b": "é", "a": [1, 2.0]})) == "p#67e6d3d655059f912b5634a2f139acd9"


@given(st.dictionaries(st.text(), st.integers(), min_size=2))
def test_the_order_of_members_does_not_matter(data: dict[str, int]) -> None:
    assert key_text(dict(reversed(data.items()))) == key_text(data)


def test_big_integers_stay_apart() -> None:
    one, other = (key_text(read("id", f'{{"id": {number}}}')) for number in (2**64 + 1, 2**64 + 2))

    assert one != other


def test_what_json_cannot_hold_is_an_error() -> None:
    with pytest.raises(TypeError, match="not JSON serializable"):
        key_text(object())


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("id", '{"id": "x"}', "x"),
        ("order.id", '{"order": {"id": 7}}', 7),
        ("lines.0.sku", '{"lines": [{"sku": "a"}]}', "a"),
        ("ids", '{"ids": [1, null]}', [1, None]),
        ("zero", '{"zero": 0}', 0),
        ("no", '{"no": false}', False),
        (("a", "b.c"), '{"a": 1, "b": {"c": "x"}}', [1, "x"]),
    ],
)
def test_paths(path: Any, body: str, expected: Any) -> None:
    assert read(path, body) == expected


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("id", "{}", "the record has no key 'id'"),
        ("id", "[]", "has no key 'id'"),
        ("id", '"id"', "has no key 'id'"),
        ("a.b", '{"a": 1}', "has no key 'a.b'"),
        ("a.b", '{"a": null}', "has no key 'a.b'"),
        ("a.1", '{"a": [1]}', "has no key 'a.1'"),
        ("a.-1", '{"a": [1]}', "has no key 'a.-1'"),
        ("id", '{"id": null}', "the record's key 'id' is empty"),
        ("id", '{"id": ""}', "is empty"),
        ("id", '{"id": []}', "is empty"),
        ("id", '{"id": {}}', "is empty"),
        ("id", '{"id": [null, null]}', "is empty"),
        ("id", '{"id": {"a": null}}', "is empty"),
        (("a", "b"), '{"a": 1}', "has no key 'b'"),
        (("a", "b"), '{"a": 1, "b": ""}', "key 'b' is empty"),
    ],
)
def test_a_missing_or_empty_key(path: Any, body: str, says: str) -> None:
    with pytest.raises(KeyMissing, match=says):
        read(path, body)


def test_a_key_function_gets_the_payload() -> None:
    assert read(lambda payload: payload.name, "not even JSON", Part("x", 1)) == "x"
    for empty in (None, "", (), (None, None)):
        with pytest.raises(KeyMissing, match="the key function's result is empty"):
            read(lambda _, empty=empty: empty, "{}")


def test_a_path_does_not_parse_the_payload() -> None:
    def payload() -> Any:
        raise AssertionError("the payload was parsed")

    assert reader("id", what="key")(Document('{"id": 1}'), payload) == 1


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b"])
def test_what_is_no_path(path: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a path"):
        reader(path, what="key")


def test_at_answers_none_for_nothing() -> None:
    assert at({"a": [{"b": 1}]}, ("a", "0", "b")) == 1
    assert at({"a": 1}, ("a", "b")) is None


# --- Paths against the annotated type -------------------------------------------------------------


class Customer(TypedDict):
    name: str
    parts: list[Part]


class Wire(msgspec.Struct, rename="camel", tag="wire"):
    order_id: str
    customer: Customer


@dataclass
class Order:
    order_id: str
    customer: Customer
    open: dict[str, Any]
    part: Part | None = None


class Aliased(pydantic.BaseModel):
    order_id: str = pydantic.Field(alias="orderId")
    note: str = ""


class Both(Aliased):
    model_config = pydantic.ConfigDict(populate_by_name=True)


class Open(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    order_id: str


class Choice(pydantic.BaseModel):
    order_id: str = pydantic.Field(validation_alias=pydantic.AliasChoices("a", "b"))


@pytest.mark.parametrize(
    ("path", "annotation"),
    [
        ("order_id", Order),
        ("customer.name", Order),
        ("customer.parts.0.name", Order),  # a list's members are not looked at
        ("open.whatever", Order),
        ("part.name", Order),
        ("orderId", Wire),
        ("type", Wire),
        ("customer.name", Wire),
        ("orderId", Aliased),
        ("order_id", Both),
        ("orderId", Both),
        ("anything", Open),
        ("anything", Choice),
        ("anything", dict),
        ("name", Part | Customer),
        ("anything", Part | dict),
    ],
)
def test_a_path_that_the_type_has(path: str, annotation: Any) -> None:
    check_path(path, annotation, what="key")


@pytest.mark.parametrize(
    ("path", "annotation", "says"),
    [
        ("id", Order, "key 'id': Order has no field 'id'; its fields are customer, open, order_id, part"),
        ("customer.id", Order, "Customer has no field 'id' of 'customer'; its fields are name, parts"),
        ("order_id.x", Order, "str has no field 'x' of 'order_id'; its fields are none"),
        ("part.size", Order, "has no field 'size' of 'part'; its fields are count, name"),
        ("part.count.x", Order, "int has no field 'x' of 'part.count'"),
        ("order_id", Wire, "Wire has no field 'order_id'; its fields are customer, orderId, type"),
        ("order_id", Aliased, "its fields are note, orderId"),
        ("x", str, "str has no field 'x'"),
        ("x", bytes, "bytes has no field 'x'"),
        ("size", Part | Customer, "its fields are count, name, parts"),
        ("a..b", Order, "is not a path"),
    ],
)
def test_a_path_that_the_type_cannot_have(path: str, annotation: Any, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_path(path, annotation, what="key")

    assert says in str(caught.value)


def test_the_fields_of_a_plain_class_are_open() -> None:
    assert fields_of(object) is None
    assert fields_of(list[Part]) is None
    assert dataclasses.is_dataclass(Part)
