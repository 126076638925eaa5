"""Events that nobody should send: each bad record ends alone, with its cause, and none is lost."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline import Claim, Handler, Pipeline, Record, Reject, sinks, sources, stores
from pipeline.errors import EventError
from tests.flow.events import Invocation, Queues, event, failed, make, message, orders

Keep = Callable[[Handler[..., Any]], Handler[..., Any]]


@dataclass
class Order:
    order_id: str
    quantity: int = 1


@dataclass
class Shop:
    """A handler in memory: what it ran, wrote and rejected."""

    handler: Handler[..., Any]
    ran: list[Any] = field(default_factory=list)
    taken: sinks.Memory = field(default_factory=sinks.Memory)
    rejects: sinks.Memory = field(default_factory=lambda: sinks.Memory(name="rejects"))

    def __call__(self, given: Any) -> list[str]:
        return failed(self.handler(given, Invocation()))


def shop(keep: Keep, annotation: Any = Order, key: Any = None) -> Shop:
    pipeline = Pipeline("shop", idempotency=Claim(store=stores.Memory()))
    made = Shop(None)  # type: ignore[arg-type]

    async def price(order: Any) -> Any:
        made.ran.append(order)
        if getattr(order, "quantity", 1) < 0:
            raise ValueError("a negative quantity")
        return order

    price.__annotations__["order"] = annotation
    declare = pipeline.handler(sources.SQS("orders"), sinks=[made.taken], rejects=made.rejects, key=key)
    made.handler = keep(declare(price))
    return made


def names(found: list[Any]) -> list[str]:
    return sorted(order.order_id for order in found)


# The event as a whole


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "the event is null"),
        ("text", "the event is a text"),
        ([], "the event is an array"),
        ({}, "it has no Records, but nothing"),
        ({"detail": {"secret": 1}, "source": "aws.s3"}, "it has no Records, but detail, source"),
        ({"Records": {"0": 1}}, "its Records are an object"),
        (
            {"Records": [message("m0", {"order_id": "a"}), None]},
            "record 1 of the queue 'orders' is null, not an object",
        ),
        (
            {"Records": [message("m0", {"order_id": "a"}), {"eventSource": "aws:kinesis", "kinesis": {}}]},
            "record 1 of the queue 'orders' comes from 'aws:kinesis', not from 'aws:sqs'",
        ),
        ({"Records": [{"EventSource": "aws:sns", "Sns": {}}]}, "comes from 'aws:sns', not from 'aws:sqs'"),
        ({"Records": [{"eventSource": "aws:sqs", "body": "{}"}]}, "has no messageId, but body, eventSource"),
    ],
)
def test_an_event_that_is_not_the_queues_is_refused_before_anything_runs(closing: Keep, given: Any, says: str) -> None:
    made = shop(closing)

    with pytest.raises(EventError) as raised:
        made.handler(given, Invocation())

    assert says in str(raised.value)
    assert made.ran == made.taken.values == made.rejects.values == []
    assert made(orders("after")) == []


def test_an_empty_list_of_records_is_success_and_prints_nothing(closing: Keep, capsys: Any) -> None:
    assert shop(closing)(event()) == []
    assert capsys.readouterr().out == ""


# One record


@pytest.mark.parametrize(
    ("body", "cause", "letter"),
    [
        ("", "PayloadError: the body is empty", None),
        ("not json", "PayloadError: the body is not JSON: Expecting value: line 1 column 1 (char 0)", "not json"),
        ('{"order_id"', "PayloadError: the body is not JSON", '{"order_id"'),
        ('{"order_id": 7}', "PayloadError: the body is not a Order: Expected `str`, got `int` - at `$.order_id`", '{"order_id": 7}'),
        ("[1]", "Expected `object`, got `array`", "[1]"),
        ('"text"', "Expected `object`, got `str`", '"text"'),
        ("half \ud800 a pair", "the body is not valid UTF-8: surrogates not allowed at character 5", "half \\ud800 a pair"),
        ("[" * 200_000, "the body is nested too deeply to decode", "[" * 200_000),
        pytest.param(
            "x" * 1_048_576, None, "x" * 1_048_576,
            # aiohttp's opinion of large bodies; nobody sees it without "-W error".
            marks=pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"),
        ),
    ],
    ids=["empty", "no JSON", "cut off", "wrong type", "array", "text", "lone surrogate", "deep", "1 MiB"],
)  # fmt: skip
def test_a_damaged_body_goes_to_the_dead_letter_queue_with_its_cause_and_its_neighbours_succeed(
    aws: str, unique: str, queues: Queues, closing: Keep, body: str, cause: str | None, letter: str | None
) -> None:
    pipeline = Pipeline(unique, idempotency=Claim(store=stores.Memory()))
    ran: list[str] = []

    @pipeline.handler(sources.SQS(unique))
    async def price(order: Order) -> None:
        ran.append(order.order_id)

    make(closing(price))
    bad = message("bad", body)
    response = price(event(message("m0", {"order_id": "a"}), bad, message("m2", {"order_id": "c"})), Invocation())

    (found,) = queues.messages(f"{unique}-dlq")
    assert failed(response) == []
    assert sorted(ran) == ["a", "c"]
    assert found["Body"] == letter or letter is None
    if cause is None:
        assert "pipeline_cause" not in found.get("MessageAttributes", {}), "there is no room for it"
    else:
        told = json.loads(found["MessageAttributes"]["pipeline_cause"]["StringValue"])
        assert cause in told["cause"]
        assert (told["handler"], told["exhausted"]) == (f"{unique}.price", False)


@pytest.mark.parametrize("body", [None, 7, {"order_id": "a"}, ["a"]])
def test_a_body_that_is_no_text_is_rejected_with_what_it_is(closing: Keep, body: Any) -> None:
    made = shop(closing)
    bad = message("bad", "") | {"body": body}

    assert made(event(bad, message("m1", {"order_id": "b"}))) == []

    assert names(made.ran) == ["b"]
    (letter,) = made.rejects.outputs
    says = "no body" if body is None else "not a text"
    assert says in json.loads(letter.attributes["pipeline_cause"])["cause"]


def test_a_body_without_a_body_member_is_rejected(closing: Keep) -> None:
    made = shop(closing)

    assert made(event({"messageId": "bad"}, message("m1", {"order_id": "b"}))) == []

    assert names(made.ran) == ["b"]
    assert len(made.rejects.outputs) == 1


def test_a_megabyte_is_handled_like_anything_else(closing: Keep) -> None:
    made = shop(closing)
    large = message("m0", {"order_id": "x" * (1_048_576 - 16)})
    assert len(large["body"]) == 1_048_576

    assert made(event(large, message("m1", {"order_id": "b"}))) == []

    assert len(made.ran) == len(made.taken.values) == 2


def test_an_unpaired_surrogate_escape_reaches_the_handler_and_only_its_own_output_is_refused(closing: Keep) -> None:
    made = shop(closing, dict, key="order_id")
    lone = message("lone", '{"order_id": "\\ud800"}')

    assert made(event(message("m0", {"order_id": "a"}), lone, message("m2", {"order_id": "c"}))) == ["lone"]

    assert {"order_id": "\ud800"} in made.ran
    assert sorted(value["order_id"] for value in made.taken.values) == ["a", "c"]


def test_what_a_failing_handler_says_with_a_lone_surrogate_is_logged_all_the_same(
    closing: Keep, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kept from pytest's own log: its workers cannot send such a text to each other.
    monkeypatch.setattr(logging.getLogger("pipeline:surrogates"), "propagate", False)
    pipeline = Pipeline("surrogates", idempotency=None)

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: dict[str, str]) -> None:
        raise ValueError(f"no price for {order['order_id']}")

    response = closing(price)(event(message("lone", '{"order_id": "\\ud800"}')), Invocation())

    out, err = capfd.readouterr()
    assert failed(response) == ["lone"]
    assert "record.failed" in out
    assert err == ""


def test_integers_beyond_64_bits_keep_every_digit_from_key_to_output(
    aws: str, unique: str, queues: Queues, closing: Keep
) -> None:
    pipeline = Pipeline(unique, idempotency=Claim(store=stores.Memory()))

    @pipeline.handler(sources.SQS(unique), sinks=[sinks.SQS(f"{unique}-out")], key="n")
    async def price(order: dict[str, int]) -> dict[str, int]:
        return order

    make(closing(price))
    big = 10**30
    bodies = [f'{{"n": {number}}}' for number in (big + 1, big + 2, big + 1)]
    response = price(event(*(message(f"m{at}", body) for at, body in enumerate(bodies))), Invocation())

    assert failed(response) == []
    assert sorted(queues.bodies(f"{unique}-out")) == [f'{{"n":{big + 1}}}', f'{{"n":{big + 2}}}']


# Records and their neighbours


def test_one_message_id_twice_is_one_piece_of_work_and_named_once_when_it_fails(closing: Keep) -> None:
    made = shop(closing)
    good, bad = {"order_id": "a"}, {"order_id": "b", "quantity": -1}

    response = made(event(message("m0", good), message("m1", bad), message("m0", good), message("m1", bad)))

    assert response == ["m1"]
    assert names(made.ran) == ["a", "b"]
    assert names(made.taken.values) == ["a"]


def test_one_key_twice_runs_once_and_when_it_fails_both_come_back_in_order(closing: Keep) -> None:
    made = shop(closing, key="order_id")
    bad = {"order_id": "b", "quantity": -1}

    response = made(
        event(*(message(f"m{at}", body) for at, body in enumerate([{"order_id": "a"}, bad, {"order_id": "a"}, bad])))
    )

    assert response == ["m1", "m3"]
    assert names(made.ran) == ["a", "b"]
    assert names(made.taken.values) == ["a"]


def test_attributes_may_be_missing(closing: Keep) -> None:
    pipeline = Pipeline("shop", idempotency=None)
    seen: list[Record[dict[str, str]]] = []

    @pipeline.handler(sources.SQS("orders"))
    async def price(record: Record[dict[str, str]]) -> None:
        seen.append(record)

    assert failed(closing(price)({"Records": [{"messageId": "m0", "body": "{}"}]}, Invocation())) == []
    (record,) = seen
    assert (record.attempt, record.receive_count, record.sent_at, record.attributes) == (1, 1, None, {})


ODD = [
    {"messageAttributes": None},
    {"messageAttributes": "text"},
    {"messageAttributes": ["text"]},
    {"messageAttributes": {"colour": None}},
    {"messageAttributes": {"colour": "red"}},
    {"messageAttributes": {"colour": {}}},
    {"messageAttributes": {"colour": {"stringValue": 7, "dataType": "String"}}},
    {"messageAttributes": {"colour": {"stringValue": "red", "dataType": None}}},
    {"messageAttributes": {"colour": {"stringValue": "", "dataType": "String"}}},
    {"messageAttributes": {"colour": {"binaryValue": "no base64!", "dataType": "Binary"}}},
    {"messageAttributes": {"pipeline": {"stringValue": "[1]", "dataType": "String"}}},
    {"messageAttributes": {"pipeline": {"stringValue": '{"id": 7, "hops": "many"}', "dataType": "String"}}},
    {"messageAttributes": {"no good name!": {"stringValue": "red", "dataType": "String"}}},
    {"attributes": None},
    {"attributes": ["text"]},
    {"attributes": {"ApproximateReceiveCount": "many", "SentTimestamp": None}},
    {"attributes": {"ApproximateReceiveCount": -1, "SentTimestamp": "9" * 400}},
    {"attributes": {"ApproximateReceiveCount": float("inf"), "SentTimestamp": float("nan")}},
    {"attributes": {"MessageGroupId": 7}},
    {"eventSourceARN": None},
    {"receiptHandle": None},
]


UNSENDABLE = [
    {"messageAttributes": {"colour": {"stringValue": "", "dataType": "String"}}},
    {"messageAttributes": {"no good name!": {"stringValue": "red", "dataType": "String"}}},
]


@pytest.mark.parametrize("fields", ODD, ids=json.dumps)
def test_a_record_with_odd_attributes_is_handled(closing: Keep, fields: dict[str, Any]) -> None:
    made = shop(closing)

    assert made(event(message("m0", {"order_id": "odd"}, **fields), message("m1", {"order_id": "b"}))) == []

    assert names(made.ran) == ["b", "odd"]


def test_records_with_odd_attributes_that_are_rejected_take_no_other_dead_letter_with_them(
    aws: str, unique: str, queues: Queues, closing: Keep
) -> None:
    pipeline = Pipeline(unique, idempotency=None)

    @pipeline.handler(sources.SQS(unique))
    async def price(order: Order) -> None:
        raise Reject("never")

    make(closing(price))
    odd = [message(f"odd{at}", {"order_id": f"odd{at}"}, **fields) for at, fields in enumerate(ODD)]
    response = price(event(message("m0", {"order_id": "a"}), *odd, message("m2", {"order_id": "c"})), Invocation())

    dead = [json.loads(body)["order_id"] for body in queues.bodies(f"{unique}-dlq")]
    refused = {f"odd{at}" for at, fields in enumerate(ODD) if fields in UNSENDABLE}
    assert set(failed(response)) == refused, "SQS itself would not take these as they are"
    assert sorted(dead + failed(response)) == sorted(["a", "c", *(f"odd{at}" for at in range(len(ODD)))])
