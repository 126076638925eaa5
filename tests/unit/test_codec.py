"""Bodies to payloads, and outputs to text."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import json
import math
import uuid
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.decisions.codec import Document, encode, loads, parser
from pipeline.errors import ConfigurationError, EncodeError, PayloadError

SECRET = "s3cr3t"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
#: What stands in JSON, put together at random: mostly damaged, sometimes not.
json_fragments = st.lists(
    st.sampled_from(
        ["{", "}", "[", "]", ",", ":", '"', "\\", "\\u", "d800", "dc00", "\\ud83d", "\\ude00", "NaN", "Infinity"]
        + ["-", "-0", "0", "1", "1e400", "1E5", ".5", "0.1", "true", "null", '"a"', " ", "\n", "\t", "\x00", "\ufeff"]
        + ["18446744073709551616", "9007199254740993", "é", "\ud800", "/**/"]
    ),
    max_size=10,
).map("".join)


def result_of(function: Any, text: str | bytes) -> tuple[str, str]:
    """What a decoder makes of a text, with the types and the digits: 1 is not 1.0, -0.0 not 0.0."""
    try:
        return "value", repr(function(text))
    except (ValueError, RecursionError):
        return "error", ""


@given(json_values, st.booleans())
def test_loads_equals_json_loads_on_json(value: Any, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii)

    assert result_of(loads, text) == result_of(json.loads, text)


@given(st.text(st.characters(exclude_categories=())) | json_fragments)
@example("12345678901234567890123")
@example("[NaN, -Infinity, 1e400, -0, -0.0, 1.0]")
@example('"\\ud800"')
@example('"\\ud83d\\ude00"')
@example('{"a": 1, "a": 2}')
@example('"\ud800"')
@example("\ufeff{}")
@example("9" * 5000)
@example("[" * 100_000)
def test_loads_equals_json_loads_on_any_text(text: str) -> None:
    assert result_of(loads, text) == result_of(json.loads, text)


@given(
    st.binary()
    | json_fragments.map(lambda text: text.encode("utf-8", "surrogatepass"))
    | json_values.map(lambda value: json.dumps(value).encode("utf-16"))
)
@example(b'"\xff"')
@example(b'"\xed\xa0\x80"')
@example(b"\xef\xbb\xbf{}")
@example(b"")
def test_loads_equals_json_loads_on_any_bytes(body: bytes) -> None:
    assert result_of(loads, body) == result_of(json.loads, body)


def test_a_document_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    document = Document('{"a": [1]}')

    assert document.value() is document.value()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("", "empty"),
        (b" \n", "empty"),
        ("{", "not JSON"),
        (b'"\xff"', "not valid UTF-8"),
        ("[" * 100_000, "nested too deeply"),
        ('"\ud800', "not JSON"),
    ],
)
def test_a_damaged_body_is_a_payload_error(body: str | bytes, says: str) -> None:
    with pytest.raises(PayloadError, match=says):
        Document(body).value()


# --- Payload types --------------------------------------------------------------------------------


@dataclass
class Line:
    sku: str
    quantity: int = 1


@dataclass
class OrderData:
    order_id: str
    lines: list[Line]
    at: datetime.datetime | None = None


class OrderDict(TypedDict):
    order_id: str
    lines: list[Line]


class OrderStruct(msgspec.Struct):
    order_id: str
    lines: list[Line]


class OrderModel(pydantic.BaseModel):
    order_id: str
    lines: list[Line]


BODY = '{"order_id": "o-1", "lines": [{"sku": "x"}], "unknown": 1}'


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (OrderData, OrderData("o-1", [Line("x")])),
        (OrderDict, {"order_id": "o-1", "lines": [Line("x")]}),
        (OrderStruct, OrderStruct("o-1", [Line("x")])),
        (OrderModel, OrderModel(order_id="o-1", lines=[Line("x")])),
        (dict, {"order_id": "o-1", "lines": [{"sku": "x"}], "unknown": 1}),
        (dict[str, Any], {"order_id": "o-1", "lines": [{"sku": "x"}], "unknown": 1}),
        (Any, {"order_id": "o-1", "lines": [{"sku": "x"}], "unknown": 1}),
        (object, {"order_id": "o-1", "lines": [{"sku": "x"}], "unknown": 1}),
        (str, BODY),
        (bytes, BODY.encode()),
        (OrderData | None, OrderData("o-1", [Line("x")])),
    ],
)
@pytest.mark.parametrize("is_bytes", [False, True])
def test_each_payload_type(annotation: Any, expected: Any, is_bytes: bool) -> None:
    document = Document(BODY.encode() if is_bytes else BODY)

    payload = parser(annotation)(document)

    assert payload == expected
    assert type(payload) is type(expected)


def test_a_list_of_payloads() -> None:
    assert parser(list)(Document("[1, 2]")) == [1, 2]
    assert parser(list[Line])(Document('[{"sku": "x"}]')) == [Line("x")]


@given(st.text(st.characters(exclude_categories=())))
def test_str_and_bytes_are_the_body_itself(text: str) -> None:
    raw = text.encode("utf-8", "surrogatepass")

    assert parser(str)(Document(text)) == text
    assert parser(bytes)(Document(text)) == raw
    assert parser(bytes)(Document(raw)) == raw


def test_text_that_is_no_utf8() -> None:
    with pytest.raises(PayloadError, match="not valid UTF-8: invalid start byte at byte 1"):
        parser(str)(Document(b"a\xff"))


@pytest.mark.parametrize(
    ("annotation", "body", "says"),
    [
        (dict, "[]", "expected a JSON object, got an array"),
        (list, "{}", "expected a JSON array, got an object"),
        (dict, "null", "got null"),
        (dict, '"x"', "got a string"),
        (dict, "true", "got a boolean"),
        (dict, "1.5", "got a number"),
        (OrderData, "[]", "not a OrderData"),
        (OrderData, "{}", "order_id"),
        (OrderModel, "{}", "order_id: Field required"),
        (OrderModel, "[]", r"\(root\)"),
        (OrderModel, "{", "not JSON"),
        (list[Line], '[{"sku": 1}]', r"\$\[0\]\.sku"),
    ],
)
def test_a_wrong_shape_is_a_payload_error(annotation: Any, body: str, says: str) -> None:
    with pytest.raises(PayloadError, match=says):
        parser(annotation)(Document(body))


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Strict:
    colour: Colour | None = None
    kind: Literal["a", "b"] = "a"
    number: int = 0
    at: datetime.datetime | None = None
    ident: uuid.UUID | None = None
    price: Decimal | None = None
    raw: bytes = b""
    short: Annotated[str, msgspec.Meta(max_length=3)] = ""
    table: dict[int, int] = dataclasses.field(default_factory=dict)


class CatTag(msgspec.Struct, tag="cat"):
    name: str


class DogTag(msgspec.Struct, tag="dog"):
    name: str


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Owner(pydantic.BaseModel):
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")] | None = None
    number: int = 0
    colour: Colour | None = None
    at: datetime.datetime | None = None


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    number: int = 0
    inner: Closed | None = None


class ClosedModel(pydantic.BaseModel, extra="forbid"):
    number: int = 0
    balances: dict[str, int] = {}
    inner: ClosedModel | None = None
    by_alias: int = pydantic.Field(0, validation_alias=pydantic.AliasChoices("aliased", "also"))
    table: dict[int, list[Dog]] = {}


wrong_bodies = [
    (Closed, {SECRET: 1}),
    (Closed, {"inner": {SECRET: 1}}),
    (ClosedModel, {SECRET: 1}),
    (ClosedModel, {"inner": {SECRET: 1}}),
    (ClosedModel, {"balances": {SECRET: "x"}}),
    (ClosedModel, {"table": {SECRET: []}}),
    *[(Strict, {name: SECRET}) for name in ("colour", "kind", "number", "at", "ident", "price", "raw", "short")],
    (Strict, {"table": {SECRET: 1}}),
    (Strict, {"table": {"1": SECRET}}),
    (CatTag | DogTag, {"type": SECRET, "name": "x"}),
    (Owner, {"pet": {"kind": SECRET}}),
    *[(Owner, {name: SECRET}) for name in ("number", "colour", "at")],
    (dict, SECRET),
    (list, SECRET),
    (OrderData, SECRET),
]


@pytest.mark.parametrize(("annotation", "value"), wrong_bodies)
@pytest.mark.parametrize("disguise", ["{}", "{}' - at `$.x`", '{}"', "{}\n' - at `", "' {}", "-{}-", "x` - at `$.{}"])
def test_errors_quote_no_payload(annotation: Any, value: Any, disguise: str) -> None:
    body = json.dumps(value).replace(SECRET, json.dumps(disguise.format(SECRET))[1:-1])

    with pytest.raises(PayloadError) as caught:
        parser(annotation)(Document(body))

    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # nor in a traceback


@given(st.text(min_size=1, max_size=20))
def test_damaged_json_is_not_quoted(tail: str) -> None:
    with pytest.raises(PayloadError) as caught:
        Document(f'{{"{SECRET}": "{SECRET}{tail}').value()

    assert SECRET not in str(caught.value)


def test_errors_say_where() -> None:
    with pytest.raises(PayloadError, match=r"the body is not a Strict: Invalid enum value - at `\$\.colour`"):
        parser(Strict)(Document('{"colour": "mauve"}'))
    with pytest.raises(PayloadError, match="the body is not a Owner: pet: Input tag is none of the expected tags"):
        parser(Owner)(Document('{"pet": {"kind": "cow"}}'))
    with pytest.raises(PayloadError, match=r"Object contains unknown field$"):
        parser(Closed)(Document('{"inner": {"x": 1}}'))
    for body, place in [
        ('{"balances": {"x": "y"}}', r"balances\.\*: Input should be a valid integer"),
        ('{"inner": {"number": "x"}}', r"inner\.number: Input should be"),
        ('{"inner": {"x": 1}}', r"inner\.\*: Extra inputs are not permitted"),
        ('{"aliased": "x"}', r"aliased: Input should be"),
        ('{"table": {"1": [{"kind": "dog"}, {"kind": "cat"}]}}', r"table\.\*\.1\.kind: Input should be 'dog'"),
    ]:
        with pytest.raises(PayloadError, match=place):
            parser(ClosedModel)(Document(body))


def test_a_payload_whose_own_check_fails() -> None:
    @dataclass
    class Positive:
        number: int

        def __post_init__(self) -> None:
            if self.number < 0:
                raise ValueError("must not be negative")

    with pytest.raises(PayloadError, match="must not be negative"):
        parser(Positive)(Document('{"number": -1}'))


class Plain:
    """A class without declared fields."""


@pytest.mark.parametrize("annotation", [complex, Plain, Plain | None, Line | OrderData, "Missing"])
def test_an_annotation_that_no_body_fits(annotation: Any) -> None:
    with pytest.raises(ConfigurationError, match="cannot be parsed into"):
        parser(annotation)


# --- Outputs --------------------------------------------------------------------------------------

encodable = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(encodable)
@example(2**64)
@example({"deep": [-(2**70), {"more": 2**100}]})
def test_what_is_encoded_reads_the_same(value: Any) -> None:
    assert json.loads(encode(value)) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Line("x", 2), '{"sku":"x","quantity":2}'),
        (OrderStruct("o", [Line("x")]), '{"order_id":"o","lines":[{"sku":"x","quantity":1}]}'),
        (OrderModel(order_id="o", lines=[]), '{"order_id":"o","lines":[]}'),
        ([OrderModel(order_id="o", lines=[])], '[{"order_id":"o","lines":[]}]'),
        ({"at": datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)}, '{"at":"2026-01-02T03:04:05+00:00"}'),
        (Decimal("1.10"), '"1.10"'),
        (Colour.RED, '"red"'),
        (b"\x00\xff", '"AP8="'),
        (uuid.UUID(int=0), '"00000000-0000-0000-0000-000000000000"'),
        ({1: "x"}, '{"1":"x"}'),
        ({"big": 2**64, "line": Line("x")}, '{"big":18446744073709551616,"line":{"sku":"x","quantity":1}}'),
        ("é", '"é"'),
        ((1, 2), "[1,2]"),
        (math.nan, "null"),
    ],
)
def test_encoded_forms(value: Any, text: str) -> None:
    assert encode(value) == text


def endless() -> list[Any]:
    nested: list[Any] = []
    nested.append(nested)
    return nested


@pytest.mark.parametrize("value", [object(), {"a": object()}, "\ud800", {"x": 1j}, endless(), [2**64, object()]])
def test_what_json_cannot_hold(value: Any) -> None:
    with pytest.raises(EncodeError, match=f"cannot write a {type(value).__name__} as JSON"):
        encode(value)


def test_an_endless_output_with_a_big_integer() -> None:
    nested = [2**64, *endless()]

    with pytest.raises(EncodeError):
        encode(nested)


@dataclass
class Everything:
    when: datetime.datetime
    day: datetime.date
    amount: Decimal
    id: uuid.UUID
    raw: bytes
    by_number: dict[int, str]
    size: int
    ratio: float
    tags: set[str]


TYPED = (
    '{"when": "2026-01-02T03:04:05Z", "day": "2026-01-02", "amount": "1.50", "raw": "aGk=", "ratio": 2, '
    '"id": "12345678-1234-5678-1234-567812345678", "by_number": {"7": "x"}, "size": 12345678901234567890123, '
    '"tags": ["a", "b"]}'
)


def test_a_type_is_read_the_same_whether_the_document_was_decoded_before_or_not() -> None:
    parse = parser(Everything)
    fresh, read = Document(TYPED), Document(TYPED)
    read.value()

    assert parse(fresh) == parse(read)
    assert parse(fresh).by_number == {7: "x"}
    assert parse(fresh).size == 12345678901234567890123


@pytest.mark.parametrize("damage", [('"size": 1', '"size": "1'), ('"amount"', '"amount_"'), ("[", "{"), ("}", "")])
def test_what_is_wrong_is_told_the_same_whether_the_document_was_decoded_before_or_not(damage: tuple[str, str]) -> None:
    parse, body = parser(Everything), TYPED.replace(*damage)
    read = Document(body)
    with contextlib.suppress(PayloadError):
        read.value()

    with pytest.raises(PayloadError) as first:
        parse(Document(body))
    with pytest.raises(PayloadError) as second:
        parse(read)

    assert str(first.value) == str(second.value)


@dataclass
class Money:
    amount: Decimal


def test_a_decimal_keeps_every_digit_of_its_number_also_after_a_key_was_read() -> None:
    document = Document('{"amount": 12345678901234567.123456789}')
    document.value()

    assert parser(Money)(document).amount == Decimal("12345678901234567.123456789")
