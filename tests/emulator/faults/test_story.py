"""The story of a run: one name for each record, whatever its source, and of a long one what matters."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline import Pipeline, sinks, sources
from pipeline.emulator.faults.functions import Hidden
from pipeline.emulator.faults.kinds import Kind, Point
from pipeline.emulator.faults.plan import Faults
from pipeline.emulator.faults.rules import Rule, crash, duplicate, lose_response
from pipeline.emulator.faults.sources import FaultyQueue
from pipeline.emulator.faults.story import tell
from pipeline.emulator.mappings.actions import Message
from pipeline.testing import Emulator


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    """Each failed invocation is logged."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def said(faults: Faults) -> list[str]:
    """The story without its times."""
    return [line.partition(" s ")[2].strip() for line in tell(faults).splitlines()]


def of_plain(rule: Rule, fill: Any, handler: Any, **settings: Any) -> list[str]:
    faults = Faults.of(rule)
    with Emulator(faults=faults) as aws:
        source, send = fill(aws)
        aws.map(source, handler, name="f", report_batch_item_failures=True, **settings)
        send()
        aws.run()
    return said(faults)


def fill_queue(aws: Emulator) -> Any:
    queue = aws.queue("orders")
    return queue, lambda: queue.send("a", "b")


def fill_stream(aws: Emulator) -> Any:
    stream = aws.stream("clicks")
    return stream, lambda: stream.put("a", "b", key="k")


def fill_table(aws: Emulator) -> Any:
    table = aws.table("items", stream="NEW_IMAGE")
    return table, lambda: [table.put({"id": "a"}), table.put({"id": "b"})]


def fill_topic(aws: Emulator) -> Any:
    topic = aws.topic("orders")
    return topic, lambda: topic.send("a", "b")


def last_of(event: Any) -> Any:
    """What a handler names the last record of a batch by."""
    if "records" in event:
        ((name, records),) = event["records"].items()
        return {"partition": name, "offset": records[-1]["offset"]}
    record = event["Records"][-1]
    return (
        record.get("messageId")
        or record.get("kinesis", {}).get("sequenceNumber")
        or record["dynamodb"]["SequenceNumber"]
    )


@pytest.mark.parametrize("fill", [fill_queue, fill_stream, fill_table, fill_topic])
def test_a_record_that_fails_goes_by_the_name_that_it_was_given_by(fill: Any) -> None:
    failures: list[Any] = []

    def handler(event: Any, context: Any) -> Any:
        if failures:
            return None
        failures.append(last_of(event))
        return {"batchItemFailures": [{"itemIdentifier": failures[0]}]}

    assert of_plain(lose_response(nth=2), fill, handler, batching_window=1)[:4] == [
        "f[1]  is given #1, #2",
        "f[1]  returns, and fails #2",
        "f[2]  is given #2",
        "! f[2]  lost response: f[2] invocation",
    ]


@pytest.mark.parametrize("source", [sources.SQS("orders"), sources.Kinesis("orders")], ids=["queue", "stream"])
def test_a_pipelines_records_go_by_one_name(source: Any) -> None:
    shop = Pipeline("shop")

    @shop.handler(source, sinks=[sinks.DynamoDB("ledger")], key="id")
    async def price(order: dict[str, Any]) -> dict[str, Any]:
        return order

    faults = Faults.of(crash(before="sink ledger"))
    with Emulator(faults=faults) as aws:
        aws.add(shop)
        aws.send("orders", [{"id": "a"}, {"id": "b"}], key="k")
        aws.run()
    story = said(faults)
    assert story[0] == "price[1]  is given #1, #2"
    assert {line.partition("runs ")[2] for line in story if "  runs " in line} == {"#1", "#2"}
    assert "#3" not in " ".join(story)


def test_what_an_aggregate_holds_is_named_by_it() -> None:
    faults = Faults()
    faults.note("price[1]", "is given", 0.0, ["clicks/shardId-0:17", "clicks/shardId-0:18"])
    faults.note("price[1]", "runs", 0.0, ["clicks/shardId-0:18:1"])
    assert said(faults) == ["price[1]  is given #1, #2", "price[1]  runs #2.1"]


def test_a_function_may_have_any_name() -> None:
    faults = Faults.of(crash(after="handler"))
    with Emulator(faults=faults) as aws:
        orders = aws.queue("orders")
        aws.map(orders, lambda event, context: None)
        orders.send("a")
        aws.run()
    assert said(faults)[:2] == ["<lambda>[1]  is given #1", "! <lambda>[1]  crash: <lambda>[1] after handler"]


def long_run(lines: int, *rules: Rule) -> Faults:
    faults = Faults.of(*rules)
    for number in range(lines):
        point = Point("price", "after handler", number)
        faults.note(point.scope, f"line {number}", 0.0)
        faults.at(point, (Kind.CRASH,), 0.0)
    return faults


def test_of_a_long_run_what_is_around_its_faults_its_beginning_and_its_end_is_told() -> None:
    faults = long_run(10_000, Rule(kind=Kind.CRASH, nth=3_000), Rule(kind=Kind.CRASH, nth=9_000))
    story = said(faults)
    left_out = [line for line in tell(faults).splitlines() if line.startswith("... ")]
    assert len(story) == 80 + len(left_out)
    assert len(left_out) == 3
    assert sum(int(line.split()[1].replace(",", "")) for line in left_out) == 10_002 - 80
    assert "price[0]  line 0" in story
    assert "price[9999]  line 9999" in story
    for number in (2_999, 8_999):
        at = story.index(f"! price[{number}]  crash: price[{number}] after handler")
        assert [story[at - 1], story[at + 1]] == [
            f"price[{number}]  line {number}",
            f"price[{number + 1}]  line {number + 1}",
        ]


def test_what_is_kept_of_a_run_without_end_is_bounded() -> None:
    assert len(long_run(30_000).lines) < 4_000
    many = long_run(9_000, Rule(kind=Kind.CRASH, times=9_000))
    assert len(many.lines) < 4_000
    assert said(many)[-1] == "! price[8999]  crash: price[8999] after handler"


class Deleting:
    """A queue that deletes what it is told to."""

    def __init__(self) -> None:
        self.deleted: list[Message] = []

    async def delete(self, messages: Any) -> None:
        self.deleted.extend(messages)


async def test_a_line_names_a_few_records_however_many_there_are() -> None:
    faults, inner = Faults.of(duplicate()), Deleting()
    port: Any = inner
    queue = FaultyQueue(port, "orders", faults, lambda: 0.0, None, Hidden(30))
    message: Any = Message
    messages = [message(**{**dict.fromkeys(Message.__dataclass_fields__), "id": f"m{n}"}) for n in range(20_000)]
    await queue.delete(messages)
    assert 5_000 < len(inner.deleted) < 15_000
    line = faults.lines[-1]
    assert (len(line.records), line.more) == (6, 20_000 - len(inner.deleted) - 6)
    assert said(faults)[-1] == f"orders  will hand out #1, #2, #3, #4, #5, #6 and {line.more:,} more once more"
    assert not {message.id for message in inner.deleted} & set(line.records)
