"""Bad input on a stream: each bad record ends alone, the checkpoint never passes one that is not settled, none is lost."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline import Backoff, Claim, Handler, Pipeline, Reject, sinks, sources, stores
from pipeline.errors import EventError
from tests.flow.events import Invocation, Queues, event, failed, log_lines, make, message, stream_record
from tests.support.aggregates import aggregate, sealed

Keep = Callable[[Handler[..., Any]], Handler[..., Any]]

DAMAGED = sealed(b"\xff")


@dataclass
class Reading:
    name: str
    value: int = 1


@dataclass
class Station:
    """A handler of a stream, in memory: what it ran, wrote and rejected. It fails for the names in `failing`."""

    handler: Handler[..., Any]
    failing: set[str] = field(default_factory=set)
    ran: list[str] = field(default_factory=list)
    taken: sinks.Memory = field(default_factory=sinks.Memory)
    rejects: sinks.Memory = field(default_factory=lambda: sinks.Memory(name="rejects"))

    def __call__(self, given: Any) -> list[str]:
        return failed(self.handler(given, Invocation()))

    @property
    def causes(self) -> list[str]:
        """The causes of what was rejected."""
        return [json.loads(letter.attributes["pipeline_cause"])["cause"] for letter in self.rejects.outputs]


def station(keep: Keep, *, store: Any = True, retry: Backoff | None = None, **options: Any) -> Station:
    """`retry` None: a failure ends its invocation at once; else it would wait in process for its next run."""
    pipeline = Pipeline("weather", idempotency=Claim(store=stores.Memory()) if store else None)
    made = Station(None)  # type: ignore[arg-type]

    async def note(reading: Reading) -> Reading:
        made.ran.append(reading.name)
        if reading.name in made.failing:
            raise ValueError(f"no {reading.name}")
        if reading.value < 0:
            raise Reject("negative")
        return reading

    declare = pipeline.handler(
        sources.Kinesis("orders"), sinks=[made.taken], rejects=made.rejects, retry=retry, **options
    )
    made.handler = keep(declare(note))
    return made


def reading(number: int, name: str, *, key: str | None = None, value: int = 1) -> dict[str, Any]:
    return stream_record(number, {"name": name, "value": value}, key=key or name)


def aggregated(number: int, *names: str) -> dict[str, Any]:
    """An aggregate of readings, each with a partition key of its own."""
    return stream_record(number, aggregate([(name, None, json.dumps({"name": name}).encode()) for name in names]))


# The event as a whole


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "not an event of the stream 'orders': the event is null"),
        ({}, "it has no Records, but nothing"),
        ({"Records": "text"}, "its Records are a text"),
        (event(reading(1, "a"), None), "record 1 of the stream 'orders' is null, not an object"),
        (event(reading(1, "a"), message("m1", "{}")), "comes from 'aws:sqs', not from 'aws:kinesis'"),
        (event(reading(1, "a"), {"eventSource": "aws:kinesis"}), "record 1 of the stream 'orders' has no sequenceNumber"),
        (event(reading(1, "a"), stream_record(2, sequenceNumber="second")), "is no decimal number"),
    ],
)  # fmt: skip
def test_an_event_that_is_not_the_streams_is_refused_before_anything_runs(closing: Keep, given: Any, says: str) -> None:
    made = station(closing)

    with pytest.raises(EventError) as raised:
        made.handler(given, Invocation())

    assert says in str(raised.value)
    assert made.ran == made.taken.values == made.rejects.values == []
    assert made(event(reading(1, "after"))) == []


def test_an_empty_batch_is_success_and_prints_nothing(closing: Keep, capsys: Any) -> None:
    assert station(closing)(event()) == []
    assert capsys.readouterr().out == ""


# One record


BAD = [
    pytest.param(stream_record(2, data="no base64!"), "the data is not base64", "no base64!", id="no base64"),
    pytest.param(stream_record(2, data="YQ"), "the data is not base64", "YQ", id="no padding"),
    pytest.param(stream_record(2, data=None), "the record has no data", "\n", id="no data"),
    pytest.param(stream_record(2, data={"a": 1}), "the data is an object, not a text", '{"a": 1}', id="object"),
    pytest.param(stream_record(2, DAMAGED), "the aggregated record is damaged", DAMAGED, id="aggregate"),
    pytest.param(
        stream_record(2, aggregate([("a", None, b"{}")])[:-1]),
        "its MD5 digest does not match", aggregate([("a", None, b"{}")])[:-1], id="digest",
    ),
    pytest.param(stream_record(2, b""), "the body is empty", b"", id="empty"),
    pytest.param(stream_record(2, b'"\xff"'), "the body is not valid UTF-8", b'"\xff"', id="no UTF-8"),
    pytest.param(stream_record(2, b"not json"), "the body is not JSON", b"not json", id="no JSON"),
    pytest.param(stream_record(2, [1]), "Expected `object`, got `array`", b"[1]", id="array"),
    pytest.param(stream_record(2, {"name": 7}), "Expected `str`, got `int`", b'{"name": 7}', id="wrong type"),
    pytest.param(stream_record(2, b"[" * 200_000), "nested too deeply", b"[" * 200_000, id="deep"),
    pytest.param(
        stream_record(2, {"_pipeline": {"id": "a", "hops": 17}, "name": "loop"}),
        "HopLimit", b'{"_pipeline": {"id": "a", "hops": 17}, "name": "loop"}', id="hops",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "cause", "stored"), BAD)
def test_a_bad_record_goes_to_the_dead_letter_queue_with_its_cause_and_its_neighbours_succeed(
    aws: str, unique: str, queues: Queues, closing: Keep, bad: Any, cause: str, stored: str | bytes
) -> None:
    pipeline = Pipeline(unique, idempotency=Claim(store=stores.Memory()))
    ran: list[str] = []

    @pipeline.handler(sources.Kinesis(unique))
    async def note(reading: Reading) -> None:
        ran.append(reading.name)

    make(closing(note))
    response = note(event(reading(1, "a"), bad, reading(3, "c")), Invocation())

    (found,) = queues.messages(f"{unique}-stream-dlq")
    texts = {name: value["StringValue"] for name, value in found["MessageAttributes"].items()}
    told = json.loads(texts["pipeline_cause"])
    assert failed(response) == []
    assert sorted(ran) == ["a", "c"]
    assert cause in told["cause"]
    assert (told["handler"], told["exhausted"]) == (f"{unique}.note", False)
    assert texts["sequence_number"] == "2"
    if isinstance(stored, bytes):
        assert (texts["encoding"], base64.b64decode(found["Body"])) == ("base64", stored)
    else:
        assert (texts["encoding"], found["Body"]) == ("as received", stored)


@pytest.mark.parametrize("store", [True, False])
def test_a_batch_of_nothing_but_bad_records_is_settled(closing: Keep, store: bool) -> None:
    made = station(closing, store=store)
    records: list[Any] = [parameter.values[0] for parameter in BAD]
    records = [
        {**record, "kinesis": {**record["kinesis"], "sequenceNumber": str(n)}} for n, record in enumerate(records)
    ]
    random.Random(7).shuffle(records)

    assert made(event(*records)) == []

    assert made.ran == made.taken.values == []
    assert len(made.rejects.outputs) == len(BAD)


def test_rejected_bytes_are_base64_on_a_sink_of_ones_own(closing: Keep) -> None:
    made = station(closing)

    assert made(event(stream_record(1, b"\xff"), stream_record(2, data="no base64!"), reading(3, "c", value=-1))) == []

    letters = {output.attributes["sequence_number"]: output for output in made.rejects.outputs}
    assert (letters["1"].body, letters["1"].attributes["encoding"]) == ("/w==", "base64")
    assert (letters["2"].body, letters["2"].attributes.get("encoding")) == ("no base64!", None)
    assert json.loads(base64.b64decode(letters["3"].body)) == {"name": "c", "value": -1}
    assert max(made.causes) == "Reject: negative"


def test_a_record_as_large_as_an_invocation_can_hold_is_handled_like_anything_else(closing: Keep) -> None:
    made = station(closing)

    assert made(event(reading(1, "x" * 4_500_000), reading(2, "b"))) == []

    assert sorted(map(len, made.ran)) == [1, 4_500_000]


def test_records_without_their_places_are_handled(closing: Keep) -> None:
    made = station(closing)
    data = base64.b64encode(b'{"name": "a"}').decode()

    assert made(event({"kinesis": {"sequenceNumber": "5", "data": data}})) == []
    assert made(event({"kinesis": {"sequenceNumber": "5", "data": data}})) == []

    assert made.ran == ["a"]


def test_one_sequence_number_twice_is_one_piece_of_work(closing: Keep) -> None:
    made = station(closing)

    assert made(event(reading(1, "a"), reading(1, "a"))) == []

    assert made.ran == ["a"]


# What is reported


def test_the_lowest_number_is_reported_as_a_number_in_whatever_order_records_came(closing: Keep) -> None:
    made = station(closing)
    made.failing = {"nine", "ten", "hundred"}
    records = [reading(10, "ten"), reading(100, "hundred"), reading(8, "eight"), reading(9, "nine"), reading(101, "z")]

    assert made(event(*records)) == ["9"]
    made.failing = {"hundred", "ten"}
    assert made(event(*records)) == ["10"]
    made.failing = {"hundred"}
    assert made(event(*records)) == ["100"]
    made.failing = set()
    assert made(event(*records)) == []

    assert made.ran.count("eight") == made.ran.count("z") == 1, "what had succeeded does not run again"
    assert (made.ran.count("nine"), made.ran.count("ten"), made.ran.count("hundred")) == (2, 3, 4)


def test_a_failure_holds_back_its_partition_key_and_no_other(closing: Keep) -> None:
    made = station(closing)
    made.failing = {"a1"}
    records = [
        reading(1, "a1", key="a"),
        reading(2, "b1", key="b"),
        reading(3, "a2", key="a"),
        reading(4, "b2", key="b"),
    ]

    assert made(event(*records)) == ["1"]
    assert made.ran == ["a1", "b1", "b2"]
    made.failing = set()
    assert made(event(*records)) == []

    assert made.ran == ["a1", "b1", "b2", "a1", "a2"]


def test_without_idempotency_nothing_runs_beyond_a_failure(closing: Keep) -> None:
    made = station(closing, store=False)
    made.failing = {"b"}
    records = [reading(9, "a"), reading(10, "b"), reading(11, "c")]

    assert made(event(*records)) == ["10"]
    assert made.ran == ["a", "b"]
    made.failing = set()
    assert made(event(*records[1:])) == []

    assert made.ran == ["a", "b", "b", "c"]


# Aggregates


def test_a_failing_record_of_an_aggregate_brings_back_its_aggregate_and_only_that_runs_again(closing: Keep) -> None:
    made = station(closing)
    made.failing = {"bad"}
    records = [aggregated(9, "a", "bad", "c"), aggregated(10, "d", "e")]

    assert made(event(*records)) == ["9"]
    assert sorted(made.ran) == ["a", "bad", "c", "d", "e"]
    made.failing = set()
    assert made(event(*records)) == []

    assert sorted(made.ran) == ["a", "bad", "bad", "c", "d", "e"]
    assert sorted(value.name for value in made.taken.values) == ["a", "bad", "c", "d", "e"]


def test_a_failing_aggregate_behind_others_brings_none_of_them_back(closing: Keep) -> None:
    made = station(closing)
    made.failing = {"bad"}

    assert made(event(aggregated(9, "a", "b"), reading(10, "c"), aggregated(100, "d", "bad"))) == ["100"]


def test_a_bad_record_of_an_aggregate_is_rejected_alone(closing: Keep) -> None:
    made = station(closing)
    pair = aggregate([("a", None, b'{"name": "a"}'), ("b", None, b"\xff"), ("c", None, b'{"name": "c"}')])

    assert made(event(stream_record(9, pair))) == []

    assert sorted(made.ran) == ["a", "c"]
    (letter,) = made.rejects.outputs
    assert (letter.body, letter.attributes["subsequence_number"]) == ("/w==", "1")


def test_a_damaged_aggregate_is_one_rejected_record_and_the_aggregates_beside_it_are_handled(closing: Keep) -> None:
    made = station(closing)

    assert made(event(aggregated(9, "a", "b"), stream_record(10, DAMAGED), aggregated(11, "c", "d"))) == []

    assert sorted(made.ran) == ["a", "b", "c", "d"]
    (letter,) = made.rejects.outputs
    assert base64.b64decode(letter.body) == DAMAGED
    assert "the aggregated record is damaged" in made.causes[0]


def test_an_aggregate_of_thousands_is_handled_once_each(closing: Keep) -> None:
    made = station(closing)
    names = [f"n{number}" for number in range(2_000)]
    made.failing = {"n1999"}

    assert made(event(aggregated(9, *names))) == ["9"]
    made.failing = set()
    assert made(event(aggregated(9, *names))) == []

    assert sorted(made.ran) == sorted([*names, "n1999"])


# Dead letters


def test_attempts_are_used_up_in_process_and_the_checkpoint_goes_on(
    aws: str, unique: str, queues: Queues, closing: Keep
) -> None:
    pipeline = Pipeline(unique, idempotency=Claim(store=stores.Memory()))
    attempts: list[str] = []

    @pipeline.handler(sources.Kinesis(unique), retry=Backoff(attempts=3, base=0))
    async def note(reading: Reading) -> None:
        attempts.append(reading.name)
        if reading.name == "bad":
            raise ValueError("never")

    make(closing(note))
    response = note(event(reading(9, "bad", key="k"), reading(10, "b", key="k")), Invocation())

    assert failed(response) == []
    assert attempts == ["bad", "bad", "bad", "b"]
    (found,) = queues.messages(f"{unique}-stream-dlq")
    told = json.loads(found["MessageAttributes"]["pipeline_cause"]["StringValue"])
    assert (told["cause"], told["attempts"], told["exhausted"]) == ("ValueError: never", 3, True)


def test_what_was_rejected_beyond_an_unsettled_record_has_one_letter_when_it_comes_back(closing: Keep) -> None:
    made = station(closing)
    made.failing = {"a"}
    records = [
        reading(9, "a"),
        reading(10, "b", value=-1),
        stream_record(11, data="no base64!"),
        stream_record(12, DAMAGED),
    ]

    for _ in range(3):
        assert made(event(*records)) == ["9"]
    made.failing = set()
    assert made(event(*records)) == []

    assert len(made.rejects.outputs) == 3
    assert made.ran.count("b") == 1


@pytest.mark.parametrize(
    "bad", [stream_record(10, data="no base64!"), stream_record(10, DAMAGED), stream_record(10, b"x")]
)
def test_a_bad_record_that_cannot_be_put_aside_is_not_passed(
    aws: str, unique: str, queues: Queues, closing: Keep, capsys: Any, bad: Any
) -> None:
    pipeline = Pipeline(unique, idempotency=Claim(store=stores.Memory()))
    ran: list[str] = []

    @pipeline.handler(sources.Kinesis(unique), retry=None)
    async def note(reading: Reading) -> None:
        ran.append(reading.name)

    given = event(reading(9, "a"), bad, reading(11, "c"))
    closing(note)
    assert failed(note(given, Invocation())) == ["10"], "there is no dead-letter queue yet"
    assert sorted(ran) == ["a", "c"]
    (line,) = log_lines(capsys.readouterr().out, "record.failed")
    assert "SinkUnavailable" in json.dumps(line)

    make(note)
    assert failed(note(given, Invocation())) == []
    assert sorted(ran) == ["a", "c"]
    assert len(queues.messages(f"{unique}-stream-dlq")) == 1
