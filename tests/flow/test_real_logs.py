"""Whole logs through a stream of four shards: every line is accounted for, in order, and once where that is promised."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from handlers.log_formats import is_alert, parse, partition_key
from handlers.logs import archive, logs
from pipeline import Emit, Function, Pipeline, sinks, sources
from pipeline.emulator.local import Local
from pipeline.testing import local
from tests.support import log_lines
from tests.support.log_lines import FILES, REAL, Line, Version

pytestmark = pytest.mark.timeout(600 if REAL else 180)
#: For one drain, which waits for real services, and for whoever else is busy on the machine.
_SECONDS = 280 if REAL else 80
#: Lines of a file when there are no real ones.
_SAMPLE = 30
SOURCE = sources.Kinesis("log-lines", shards=4, batch_size=500, batching_window=5)
#: How error and worse stand in a line, told apart from the handler's own reading.
ALERT = {
    FILES[0]: re.compile(rb"^\[[^]]+\] \[(?:emerg|alert|crit|error)\]", re.MULTILINE),
    FILES[1]: re.compile(rb"^\d+ \d+ \d+ (?:FATAL|ERROR) ", re.MULTILINE),
}


def of_four_shards() -> Pipeline:
    """The log pipeline as it is, on a stream whose shards are counted."""
    (stage,) = logs.stages()
    made = Pipeline(logs.name)
    made.handler(SOURCE, sinks=stage.sinks, lane=partition_key, reject_on=stage.reject_on, deploy=stage.deploy)(
        archive.function
    )
    return made


@dataclass(frozen=True)
class Numbered:
    file: str
    number: int
    line: str


@dataclass(frozen=True)
class Stored:
    place: str
    entry: Any


def keyed() -> Pipeline:
    """A line is known by its file and number, so that a line that is fed again is no new one."""
    made = Pipeline("numbered")

    @made.handler(
        SOURCE,
        sinks=[
            sinks.DynamoDB("lines", partition_key="place"),
            sinks.S3("lines", compress=True, name="archived"),
            sinks.SQS("alerts"),
        ],
        key=("file", "number"),
        lane=lambda numbered: partition_key(numbered.line),
        deploy=Function(timeout=60),
    )
    async def store(numbered: Numbered) -> list[Emit[Any]]:
        entry = parse(numbered.line)
        stored = Stored(f"{numbered.file}:{numbered.number}", entry)
        return [Emit(stored, to=["lines", "archived"])] + ([Emit(stored, to="alerts")] if is_alert(entry) else [])

    return made


async def test_every_line_is_archived_in_order_and_alerts_are_those_that_a_search_finds() -> None:
    files = {file: log_lines.lines_of(file, _SAMPLE) for file in FILES}
    sent = [line for lines in files.values() for line in lines]
    alerts = {file: len(ALERT[file].findall(b"\n".join(lines))) for file, lines in files.items()}
    if REAL:
        assert alerts == {"apache_error.log": 595, "hdfs.log": 0}
    async with local(of_four_shards()) as env:
        await feed(env, sent)
        report = await env.drain(_SECONDS)
        stream, objects = log_lines.in_stream(env.endpoint_url), log_lines.in_archive(env.endpoint_url)
        told = (await depth(env, "log-alerts")), await env.dead_letters("log-lines")

        assert (report.records, report.succeeded, report.deliveries) == (len(sent),) * 3
        assert report.outputs == {"log-archive": len(sent), "log-alerts": sum(alerts.values())}
        assert told == (sum(alerts.values()), [])
        assert sorted(line.data for line in stream.values()) == sorted(sent)
        assert len({line.id.split(":")[0] for line in stream.values()}) == 4, "every shard has lines"
        check_archive(objects, stream)
        tell("first feed", report.records, objects)

        # The same lines are new records of the stream, and nothing in them says that they are not new lines.
        await feed(env, sent)
        again = await env.drain(_SECONDS)
        stream, objects = log_lines.in_stream(env.endpoint_url), log_lines.in_archive(env.endpoint_url)
        assert (again.records, again.succeeded, again.duplicates) == (2 * len(sent), 2 * len(sent), 0)
        assert again.outputs == {"log-archive": 2 * len(sent), "log-alerts": 2 * sum(alerts.values())}
        check_archive(objects, stream)
        tell("both feeds", again.records, objects)


async def test_lines_with_a_key_of_their_own_are_done_once_although_they_are_fed_twice() -> None:
    numbered = [
        Numbered(file, number, line.decode())
        for file in FILES
        for number, line in enumerate(log_lines.lines_of(file, _SAMPLE), 1)
    ]
    alerts = sum(is_alert(parse(one.line)) for one in numbered)
    async with local(keyed()) as env:
        await feed_numbered(env, numbered)
        await env.drain(_SECONDS)
        await feed_numbered(env, numbered)
        report = await env.drain(_SECONDS)
        pages = env.client("dynamodb").get_paginator("scan").paginate(TableName="lines")
        rows = [row["place"]["S"] async for page in pages for row in page["Items"]]
        objects = log_lines.in_archive(env.endpoint_url, "lines")
        told = await depth(env, "alerts")

    places = sorted(f"{one.file}:{one.number}" for one in numbered)
    assert (report.records, report.succeeded, report.duplicates) == (2 * len(numbered), len(numbered), len(numbered))
    assert report.outputs == {"lines": len(numbered), "archived": len(numbered), "alerts": alerts}
    assert sorted(rows) == places
    assert sorted(line["place"] for one in objects for line in one.lines) == places
    assert told == alerts > 0


async def feed(env: Local, lines: Sequence[bytes]) -> None:
    await env.send("log-lines", lines, key=log_lines.key_of)


async def feed_numbered(env: Local, lines: Sequence[Numbered]) -> None:
    await env.send("log-lines", [asdict(one) for one in lines], key=lambda one: partition_key(one["line"]))


async def depth(env: Local, queue: str) -> int:
    sqs = env.client("sqs")
    url = (await sqs.get_queue_url(QueueName=queue))["QueueUrl"]
    found = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["ApproximateNumberOfMessages"])
    return int(found["Attributes"]["ApproximateNumberOfMessages"])


def check_archive(objects: Sequence[Version], stream: dict[str, Line]) -> None:
    """Each line of the stream once, as it reads, and in its key's order within each object."""
    lines = {line["id"]: line for one in objects for line in one.lines}
    assert sum(len(one.lines) for one in objects) == len(lines), "nothing stands twice"
    assert lines.keys() == stream.keys()
    for name, line in stream.items():
        entry = asdict(parse(line.data.decode()))
        assert lines[name]["key"] == line.key
        assert lines[name]["entry"] == {**entry, "refers_to": list(entry["refers_to"])}
    log_lines.assert_in_order(objects, stream)


def tell(what: str, records: int, objects: Sequence[Version]) -> None:
    sizes = Counter(len(one.lines) for one in objects)
    print(
        f"{what}: {records} lines in {len(objects)} objects of {min(sizes)} to {max(sizes)} lines: "
        f"{1_000 * len(objects) / records:.1f} objects per 1,000 lines"
    )
