"""What every source promises: the same suite over each of them. What is each one's own stands in its own file."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import sources
from pipeline.aws.client import client
from pipeline.batch import BatchResult
from pipeline.decisions import wire
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, EventError
from pipeline.outcome import Duplicate, Failed, HandBack, Outcome, Rejected, Succeeded, Unprocessed, is_settled
from pipeline.output import Output
from pipeline.ports import DeadLetter, DeadLetters, Source
from pipeline.record import Carried, RawRecord, TraceContext
from pipeline.runtimes.response import partial_response
from tests.flow.events import event, message, stream_record
from tests.support.aggregates import aggregate, opened, sealed

FOREVER = Deadline()
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SPAN = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
SAID = {"handler": "shop.price", "cause": "Reject: never", "attempts": 5, "exhausted": True}

#: A body, or None for a damaged record.
Bodies = Sequence[bytes | None]


@dataclass(frozen=True)
class Row:
    """One kind of source, and how a test sends to it and reads its dead letters."""

    make: Callable[..., Any]  #: from a name and options to the source
    event: Callable[[Bodies], dict[str, Any]]  #: what Lambda delivers, one record for each body
    carrying: Callable[[Output], dict[str, Any]]  #: an event of one record, as our own sink wrote it
    service: str  #: as in ARNs
    foreign: dict[str, Any]  #: a record of another service
    again: Callable[[Sequence[RawRecord], Sequence[str]], set[int]]  #: the positions that ids bring back
    put_back: Callable[[dict[str, Any]], dict[str, Any]]  #: an event of one record, from its dead letter
    suffix: str = ""  #: of every name


# The queues


def queue_event(bodies: Bodies) -> dict[str, Any]:
    return event(*(queue_record(position, body) for position, body in enumerate(bodies)))


def queue_record(position: int, body: bytes | None) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "receiptHandle": f"h{position}",
        "attributes": {"MessageGroupId": f"g{position}", "SentTimestamp": "1545082649183"},
    }
    return message(f"m{position}", body.decode() if body is not None else "half \ud800", **fields)


def queue_carrying(output: Output) -> dict[str, Any]:
    texts = {"pipeline": wire.carried_text(output), "traceparent": output.traceparent}
    attributes = {name: {"stringValue": text, "dataType": "String"} for name, text in texts.items()}
    return event(message("m0", output.body, messageAttributes=attributes))


def named_messages(records: Sequence[RawRecord], ids: Sequence[str]) -> set[int]:
    return {position for position, record in enumerate(records) if record.origin["messageId"] in ids}


def redriven(found: dict[str, Any]) -> dict[str, Any]:
    """A message of the dead-letter queue, moved back to its queue and delivered."""
    attributes = {
        name: {"stringValue": value["StringValue"], "dataType": value["DataType"]}
        for name, value in found["MessageAttributes"].items()
    }
    return event(message("m0", found["Body"], attributes=found["Attributes"], messageAttributes=attributes))


# The streams


def stream_event(bodies: Bodies) -> dict[str, Any]:
    records = [stream_record(9 + n, body or b"", key=f"g{n}", **damage(body)) for n, body in enumerate(bodies)]
    return event(*records)


def damage(body: bytes | None) -> dict[str, str]:
    return {"data": "no base64!"} if body is None else {}


def aggregates_event(bodies: Bodies) -> dict[str, Any]:
    """Two bodies to an aggregate; a damaged one by itself."""
    groups: list[list[tuple[str, bytes | None]]] = []
    for position, body in enumerate(bodies):
        place = (f"g{position}", body)
        if groups and len(groups[-1]) == 1 and None not in (body, groups[-1][0][1]):
            groups[-1].append(place)
        else:
            groups.append([place])
    return event(*(stream_record(9 + n, aggregated(group)) for n, group in enumerate(groups)))


def aggregated(group: list[tuple[str, bytes | None]]) -> bytes:
    whole = aggregate([(key, None, body or b"") for key, body in group])
    return whole if None not in [body for _, body in group] else sealed(opened(whole)[:-1])


def stream_carrying(output: Output) -> dict[str, Any]:
    return event(stream_record(9, member_first(output)))


def aggregates_carrying(output: Output) -> dict[str, Any]:
    return event(stream_record(9, aggregate([("k", None, member_first(output))])))


def member_first(output: Output) -> bytes:
    return json.dumps({wire.MEMBER: wire.carried_member(output), **json.loads(output.body)}).encode()


def from_the_lowest_on(records: Sequence[RawRecord], ids: Sequence[str]) -> set[int]:
    if not ids:
        return set()
    (checkpoint,) = ids
    numbers = [int(record.attributes["sequence_number"]) for record in records]
    assert int(checkpoint) in numbers
    return {position for position, number in enumerate(numbers) if number >= int(checkpoint)}


def put_again(found: dict[str, Any]) -> dict[str, Any]:
    """The data of a dead letter, put into the stream anew and delivered."""
    texts = {name: value["StringValue"] for name, value in found["MessageAttributes"].items()}
    assert texts["encoding"] == "base64"
    return event(stream_record(77, base64.b64decode(found["Body"]), key=texts["partition_key"]))


QUEUE = Row(
    make=sources.SQS,
    event=queue_event,
    carrying=queue_carrying,
    service="sqs",
    foreign={"eventSource": "aws:kinesis", "kinesis": {"sequenceNumber": "1", "data": ""}},
    again=named_messages,
    put_back=redriven,
)
STREAM = Row(
    make=sources.Kinesis,
    event=stream_event,
    carrying=stream_carrying,
    service="kinesis",
    foreign=message("m1", "{}"),
    again=from_the_lowest_on,
    put_back=put_again,
)


def varied(row: Row, **changes: Any) -> Row:
    return Row(**{**vars(row), **changes})


ROWS = {
    "SQS": QUEUE,
    "SQS FIFO": varied(QUEUE, suffix=".fifo"),
    "Kinesis": STREAM,
    "Kinesis aggregated": varied(STREAM, event=aggregates_event, carrying=aggregates_carrying),
}
every_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
outcomes = st.sampled_from(
    [
        Succeeded(),
        Duplicate(),
        Rejected(ValueError("never")),
        Failed(ValueError("now"), delay=1.0),
        Failed(ValueError("now")),
        Unprocessed(HandBack.DEADLINE),
        Unprocessed(HandBack.BEHIND, delay=0.0),
    ]
)


def declared(row: Row, name: str = "orders", **options: Any) -> Any:
    return row.make(name + row.suffix, **options)


def decode(row: Row, bodies: Bodies) -> list[RawRecord]:
    return list(declared(row).decode(row.event(bodies)))


def numbered(count: int) -> list[bytes]:
    return [json.dumps({"n": n}).encode() for n in range(count)]


def as_bytes(body: str | bytes) -> bytes:
    return body if isinstance(body, bytes) else body.encode()


# What it is


@every_row
def test_it_is_a_source_with_a_name_and_a_place_for_dead_letters(row: Row) -> None:
    source = declared(row)
    assert isinstance(source, Source)
    assert isinstance(source.dead_letters, DeadLetters)
    assert source.name == source.resource.name == source.resource.physical == "orders" + row.suffix
    assert source.is_stream is (row.service == "kinesis")


@every_row
def test_it_is_a_value(row: Row) -> None:
    assert declared(row) == declared(row)
    assert len({declared(row), declared(row), declared(row, "others")}) == 2
    with pytest.raises(AttributeError):
        declared(row).batch_size = 3


@every_row
def test_one_that_is_not_ours_keeps_its_logical_name_beside_its_own(row: Row) -> None:
    path = "stream/theirs" if row.service == "kinesis" else f"theirs{row.suffix}"
    source = declared(row, existing=f"arn:aws:{row.service}:eu-west-1:123456789012:{path}")
    assert source.name == "orders" + row.suffix
    assert source.resource.physical == "theirs" + row.suffix
    assert {record.source for record in source.decode(row.event(numbered(2)))} == {source.name}


@every_row
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"existing": "orders"}, "ARN"),
        ({"existing": "arn:aws:s3:::orders"}, "ARN"),
        ({"filter": {"body": {}}}, "names no field"),
        ({"filter": {"kind": "order"}}, "needs a list"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": True}, "whole number"),
        ({"batch_size": "10"}, "whole number"),
        ({"batching_window": 301}, "batching_window=301"),
    ],
)
def test_an_option_that_cannot_work_is_refused_when_declared(row: Row, options: Any, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        declared(row, **options)


@every_row
@pytest.mark.parametrize("name", ["", None, 7])
def test_a_name_is_needed(row: Row, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="logical name"):
        row.make(name)


# Decoding


@every_row
def test_records_come_in_order_with_their_bodies_lanes_and_source(row: Row) -> None:
    bodies = numbered(7)
    records = decode(row, bodies)
    assert [as_bytes(record.body) for record in records] == bodies
    assert {record.source for record in records} == {"orders" + row.suffix}
    assert {record.error for record in records} == {None}
    assert {record.receive_count for record in records} == {1}
    assert all(record.sent_at is not None and 1_545_000_000 < record.sent_at < 1_546_000_000 for record in records)
    has_order = row.service == "kinesis" or row.suffix == ".fifo"
    assert [record.lane for record in records] == [f"g{n}" if has_order else None for n in range(7)]


@every_row
def test_identities_are_unique_and_the_same_when_delivered_again(row: Row) -> None:
    first, second = decode(row, numbered(9)), decode(row, numbered(9))
    assert len({record.id for record in first}) == 9
    assert [record.id for record in first] == [record.id for record in second]


@every_row
@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_damaged_record_says_so_and_its_neighbours_are_untouched(row: Row, place: int) -> None:
    bodies: list[bytes | None] = list(numbered(5))
    bodies[place] = None
    records = decode(row, bodies)
    assert len(records) == 5
    assert len({record.id for record in records}) == 5
    for position, record in enumerate(records):
        assert (record.error is not None) is (position == place)
        assert position == place or as_bytes(record.body) == bodies[position]
    assert str(records[place].error)


@every_row
def test_a_damaged_record_is_the_same_record_when_delivered_again(row: Row) -> None:
    assert decode(row, [None])[0].id == decode(row, [None])[0].id


@every_row
def test_an_empty_batch_is_no_record_and_no_error(row: Row) -> None:
    assert declared(row).decode({"Records": []}) == []


@every_row
@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "the event is null"),
        ([], "the event is an array"),
        ("text", "the event is a text"),
        (7, "the event is a number"),
        ({}, "it has no Records, but nothing"),
        ({"detail": {"secret": 1}, "source": "aws.s3"}, "it has no Records, but detail, source"),
        ({"Records": None}, "its Records are null"),
        ({"Records": {"0": {}}}, "its Records are an object"),
        ({"Records": [None]}, "record 0 of the .* is null, not an object"),
        ({"Records": ["text"]}, "record 0 of the .* is a text, not an object"),
        ({"Records": [{}]}, "record 0 of the .* has no (messageId|sequenceNumber)"),
        ({"Records": [{"EventSource": "aws:sns", "Sns": {}}]}, "comes from 'aws:sns', not from 'aws:(sqs|kinesis)'"),
    ],
)
def test_an_event_of_something_else_is_refused_by_what_was_found(row: Row, given: Any, says: str) -> None:
    with pytest.raises(EventError, match=says) as raised:
        declared(row).decode(given)
    assert "secret" not in str(raised.value)


@every_row
def test_a_record_of_another_service_among_ours_is_refused(row: Row) -> None:
    given = row.event(numbered(1))
    given["Records"].append(row.foreign)
    with pytest.raises(EventError, match=r"record 1 of the .* comes from 'aws:\w+', not from"):
        declared(row).decode(given)


@every_row
def test_members_that_nobody_knows_are_no_error(row: Row) -> None:
    given = row.event(numbered(2))
    given["Records"] = [{**record, "later": [1], "window": None} for record in given["Records"]]
    assert [record.error for record in declared(row).decode({**given, "state": {}})] == [None, None]


@every_row
def test_what_an_earlier_stage_sent_along_is_read_and_taken_off(row: Row) -> None:
    made = Output(id="abc", sink="out", body='{"n":1}', default_key="k", hops=2, traceparent=TRACE)
    (record,) = declared(row).decode(row.carrying(made))
    assert record.carried == Carried(id="abc", hops=2, traceparent=TRACE)
    assert record.traces == (SPAN,)
    assert json.loads(record.body) == {"n": 1}
    assert not {"pipeline", "traceparent"} & set(record.attributes)


@every_row
def test_a_record_that_carries_nothing_has_nothing_carried(row: Row) -> None:
    assert decode(row, numbered(1))[0].carried is None


# Settling


@every_row
@given(ended=st.lists(outcomes, min_size=1, max_size=30), seed=st.integers())
def test_what_is_named_brings_back_every_unsettled_record(row: Row, ended: list[Outcome], seed: int) -> None:
    given_event = row.event(numbered(len(ended)))
    random.Random(seed).shuffle(given_event["Records"])
    source = declared(row)
    result = BatchResult(source.decode(given_event), ended)
    ids = source.unsettled_ids(result)
    unsettled = {position for position, outcome in enumerate(ended) if not is_settled(outcome)}
    assert unsettled <= row.again(result.records, ids)
    assert len(set(ids)) == len(ids)
    assert bool(ids) is bool(unsettled)
    assert partial_response(ids), "no id may be empty"


@every_row
@given(ended=st.lists(outcomes, min_size=1, max_size=9))
def test_nothing_before_the_first_unsettled_record_comes_back(row: Row, ended: list[Outcome]) -> None:
    source = declared(row)
    result = BatchResult(decode(row, numbered(len(ended))), ended)
    again = row.again(result.records, source.unsettled_ids(result))
    first = next((position for position, outcome in enumerate(ended) if not is_settled(outcome)), len(ended))
    # The records of one aggregate come back together, and nothing else does.
    together = 1 if row is ROWS["Kinesis aggregated"] else 0
    assert all(position >= first - together for position in again)


class Broken(ProcessEnvironment):
    """An environment in which nothing can be reached, and not for a reason of the service."""

    async def once(self, key: Any, make: Any) -> Any:
        raise LookupError("broken")


@every_row
async def test_settling_raises_nothing_whatever_happens(row: Row, aws: str, unique: str) -> None:
    source = declared(row, unique)  # it was never made
    result = BatchResult(decode(row, numbered(3)), [Failed(ValueError("x"), delay=1.0)] * 3)
    broken = Broken()
    environment = ProcessEnvironment()
    await source.settle(result, broken, FOREVER)
    await source.settle(result, environment, FOREVER)
    await source.settle(result, environment, Deadline(soft=-2.0, hard=-1.0))
    await environment.aclose()


# With a server


@dataclass
class Bench:
    """A source whose resources are made, and its dead letters."""

    row: Row
    source: Any
    environment: ProcessEnvironment

    async def put(self, *letters: DeadLetter) -> list[dict[str, Any]]:
        """Put letters, and read what then stands in the dead-letter queue."""
        answers = await self.source.dead_letters.put(letters, self.environment, FOREVER)
        assert list(answers) == [None] * len(letters)
        return await self.letters()

    async def letters(self) -> list[dict[str, Any]]:
        stem = self.source.name.removesuffix(".fifo")
        kind = "stream-dlq" if self.source.is_stream else "dlq"
        return await taken_off(self.environment, f"{stem}-{kind}{self.row.suffix}")

    def decode(self, bodies: Bodies) -> list[RawRecord]:
        return list(self.source.decode(self.row.event(bodies)))


async def taken_off(environment: ProcessEnvironment, queue: str) -> list[dict[str, Any]]:
    """Everything that is on a queue."""
    service = await client(environment, "sqs")
    url = (await service.get_queue_url(QueueName=queue))["QueueUrl"]
    found: list[dict[str, Any]] = []
    while True:
        answer = await service.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"], MessageAttributeNames=["All"]
        )
        if not answer.get("Messages"):
            return found
        for one in answer["Messages"]:
            await service.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
            found.append(one)


@pytest.fixture(params=ROWS.values(), ids=ROWS)
async def bench(request: pytest.FixtureRequest, aws: str, environment: ProcessEnvironment, unique: str) -> Bench:
    source = declared(request.param, unique)
    await source.create(environment, timeout=30)
    return Bench(request.param, source, environment)


def letter(record: RawRecord, **fields: Any) -> DeadLetter:
    return DeadLetter(record=record, **{**SAID, **fields})


def cause_of(found: dict[str, Any]) -> Any:
    """What a letter says, but for the record's id."""
    cause = json.loads(found["MessageAttributes"]["pipeline_cause"]["StringValue"])
    assert cause.pop("record_id")
    return cause


async def test_what_is_there_already_is_made_again_without_harm(bench: Bench) -> None:
    await bench.source.create(bench.environment, timeout=60)
    assert len(await bench.put(letter(bench.decode(numbered(1))[0]))) == 1


async def test_no_letters_are_no_call(bench: Bench, faults: Callable[[str], Any]) -> None:
    fault = faults("sqs")
    await fault.record("SendMessageBatch")
    assert list(await bench.source.dead_letters.put([], bench.environment, FOREVER)) == []
    assert fault.calls == []


async def test_each_letter_holds_its_body_and_its_cause(bench: Bench) -> None:
    records = bench.decode(numbered(12))
    found = await bench.put(*(letter(record, cause=f"because {n}") for n, record in enumerate(records)))
    assert {cause_of(one)["cause"] for one in found} == {f"because {n}" for n in range(12)}
    for one in found:
        n = int(cause_of(one)["cause"].split()[1])
        assert cause_of(one) == {**SAID, "cause": f"because {n}"}
        (back,) = bench.source.decode(bench.row.put_back(one))
        assert as_bytes(back.body) == as_bytes(records[n].body)
        assert back.lane == records[n].lane


async def test_a_letter_that_is_put_back_is_the_same_work(bench: Bench) -> None:
    made = Output(id="abc", sink="out", body='{"n":1}', default_key="k", hops=2, traceparent=TRACE)
    (record,) = bench.source.decode(bench.row.carrying(made))
    (found,) = await bench.put(letter(record))
    (back,) = bench.source.decode(bench.row.put_back(found))
    assert back.carried == record.carried == Carried(id="abc", hops=2, traceparent=TRACE)
    assert back.traces == record.traces == (SPAN,)
    assert as_bytes(back.body) == as_bytes(record.body)


async def test_a_damaged_record_has_its_letter_between_its_neighbours(bench: Bench) -> None:
    records = bench.decode([b'{"n": 0}', None, b'{"n": 2}'])
    found = await bench.put(*map(letter, records))
    assert [cause_of(one) for one in found] == [SAID] * 3
    assert all(one["Body"] for one in found)
    assert len({one["Body"] for one in found}) == 3


@pytest.mark.parametrize("body", [b"", b"text", b"\x00\x01", "ä😀￿".encode()], ids=["empty", "text", "control", "odd"])
async def test_a_letter_of_any_body_is_stored(bench: Bench, body: bytes) -> None:
    (found,) = await bench.put(letter(bench.decode([body])[0]))
    assert cause_of(found) == SAID


# aiohttp would rather be given a file for a body of a MiB, which is as large as SQS's get.
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_the_letter_of_a_body_of_a_mebibyte_is_stored_whole(bench: Bench) -> None:
    body = bytes(random.Random(7).choices(b"abcdefgh", k=1_048_576))
    found = await bench.put(letter(bench.decode([body])[0]))
    whole = {**found[0], "Body": "".join(one["Body"] for one in sorted(found, key=part_of))}
    if bench.source.is_stream:
        (back,) = bench.source.decode(bench.row.put_back(whole))
        assert back.body == body
    else:
        assert whole["Body"].encode() == body


def part_of(found: dict[str, Any]) -> int:
    return int(found.get("MessageAttributes", {}).get("part", {"StringValue": "1/1"})["StringValue"].split("/")[0])


async def test_letters_with_nowhere_to_go_say_so(
    environment: ProcessEnvironment, aws: str, unique: str, bench: Bench
) -> None:
    nowhere = declared(bench.row, f"{unique}-nowhere")
    records = bench.decode(numbered(2))
    answers: Awaitable[Any] = nowhere.dead_letters.put([letter(one) for one in records], environment, FOREVER)
    assert [type(error).__name__ for error in await answers] == ["SinkUnavailable"] * 2


@pytest.mark.parametrize("operation", ["lose_requests", "lose_replies"])
async def test_a_broken_connection_loses_no_letter(bench: Bench, faults: Callable[[str], Any], operation: str) -> None:
    await getattr(faults("sqs"), operation)("SendMessageBatch", times=1)
    assert await bench.put(letter(bench.decode(numbered(1))[0]))
