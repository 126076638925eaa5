"""Streams in the local run: with real handlers, with runtimes of the tests' own, and on a stream that reshards."""

import asyncio
import base64
import json
import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import Backoff, Claim, ConfigurationError, Function, Pipeline, Record, Reject, by, sinks, sources
from pipeline.emulator import embedded
from pipeline.emulator.run import DrainTimeout
from pipeline.errors import SinkUnavailable
from pipeline.testing import local
from tests.support import aggregates


class Answering:
    """A runtime that answers with what a function says of the event."""

    def __init__(self, answer: Callable[[dict[str, Any], Any], Any]) -> None:
        self.invoke = answer

    def close(self) -> None:
        pass


def one_stream(**options: Any) -> Pipeline:
    shop = Pipeline("shop")
    deploy = options.pop("deploy", Function(timeout=5))

    @shop.handler(sources.Kinesis("clicks", **{"shards": 1, "bisect": False, **options}), deploy=deploy)
    def score(click: dict[str, Any]) -> None: ...

    return shop


def data(record: dict[str, Any]) -> str:
    return base64.b64decode(record["kinesis"]["data"]).decode(errors="replace")


def failing(*names: str) -> Callable[[dict[str, Any], Any], Any]:
    """Names the records with this data as failed, always."""

    def answer(event: dict[str, Any], _: Any) -> Any:
        bad = [record["kinesis"]["sequenceNumber"] for record in event["Records"] if data(record) in names]
        return {"batchItemFailures": [{"itemIdentifier": number} for number in bad]}

    return answer


class Deliveries:
    """A runtime that notes what each invocation gets, and answers as told, else with success."""

    def __init__(self, *answers: Callable[[dict[str, Any], Any], Any]) -> None:
        self.batches: list[list[str]] = []
        self.events: list[dict[str, Any]] = []
        self._answers = list(answers)

    def invoke(self, event: dict[str, Any], context: Any) -> Any:
        self.events.append(event)
        self.batches.append([data(record) for record in event["Records"]])
        return self._answers.pop(0)(event, context) if self._answers else None

    def close(self) -> None:
        pass


async def test_four_shards_are_read_side_by_side_and_each_key_in_order() -> None:
    shop = Pipeline("shop")
    seen: dict[str, list[int]] = defaultdict(list)
    shards: dict[str, str] = {}

    @shop.handler(
        sources.Kinesis("clicks", shards=4, batch_size=7), sinks=[sinks.DynamoDB("ledger", partition_key="n")]
    )
    async def score(click: Record[dict[str, Any]]) -> dict[str, str]:
        seen[click.payload["user"]].append(click.payload["n"])
        shards[click.payload["user"]] = click.attributes["shard_id"]
        return {"n": str(click.payload["n"])}

    clicks = [{"user": f"u{n % 12}", "n": n} for n in range(120)]
    async with local(shop) as env:
        await env.send("clicks", clicks, key=lambda click: click["user"])
        report = await env.drain()
        ledger = await env.client("dynamodb").scan(TableName="ledger", Select="COUNT")
    assert ledger["Count"] == 120
    assert seen == {f"u{n}": list(range(n, 120, 12)) for n in range(12)}
    assert len(set(shards.values())) == 4
    assert (report.records, report.succeeded, report.deliveries) == (120, 120, 120)
    assert report.outputs == {"ledger": 120}


async def test_the_event_is_the_one_that_lambda_sends_member_for_member() -> None:
    deliveries = Deliveries()
    async with local(one_stream(), runtime=lambda *_: deliveries) as env:
        await env.send("clicks", [b"\xff\xfe"], key="u1")
        await env.drain()
    (record,) = deliveries.events[0]["Records"]
    arrived = record["kinesis"].pop("approximateArrivalTimestamp")
    assert isinstance(arrived, float)
    assert arrived > 1_700_000_000
    number = record["kinesis"]["sequenceNumber"]
    assert record == {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "u1",
            "sequenceNumber": number,
            "data": base64.b64encode(b"\xff\xfe").decode(),
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000000:{number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/shop-score",
        "awsRegion": "us-east-1",
        "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/clicks",
    }


async def test_after_its_retries_a_batch_is_given_up_counted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    deliveries = Deliveries(*[failing("b")] * 4)
    shop = one_stream(retry_attempts=2, batch_size=3)
    with caplog.at_level(logging.ERROR, logger="pipeline.emulator"):
        async with local(shop, runtime=lambda *_: deliveries) as env:
            await env.send("clicks", list("abcd"), key="k")
            report = await env.drain()
    # The checkpoint moved behind "a", so "b" and "c" have their two retries from there.
    assert deliveries.batches[-1] == ["d"]
    assert deliveries.batches[:-1][-3:] == [["b", "c"]] * 3
    assert (report.succeeded, report.exhausted, report.records) == (2, 2, 4)
    assert "score: shardId-000000000000: 2 records are given up: RetryAttemptsExhausted" in caplog.text


async def test_two_handlers_read_one_stream_each_with_its_own_checkpoints_and_counts() -> None:
    shop = Pipeline("shop")
    first: list[int] = []
    second: list[int] = []
    source = sources.Kinesis("clicks", shards=2)

    @shop.handler(source, key="n")
    async def score(click: dict[str, int]) -> None:
        if click["n"] == 3:
            raise Reject("three")
        first.append(click["n"])

    @shop.handler(source, key="n", retry=Backoff(attempts=2, base=0.01))
    async def archive(click: dict[str, int]) -> None:
        if click["n"] in (4, 5):
            raise RuntimeError("poison")
        second.append(click["n"])

    async with local(shop) as env:
        await env.send("clicks", [{"n": n} for n in range(20)])
        report = await env.drain()
        letters = await env.dead_letters("clicks")
    assert sorted(first) == [n for n in range(20) if n != 3]
    assert sorted(second) == [n for n in range(20) if n not in (4, 5)]
    score_counts, archive_counts = report["score"], report["archive"]
    assert (score_counts.records, score_counts.rejected, score_counts.dead_lettered) == (20, 1, 1)
    assert (archive_counts.records, archive_counts.exhausted, archive_counts.dead_lettered) == (20, 2, 2)
    handlers = [(letter.payload["n"], json.loads(letter.attributes["pipeline_cause"])["handler"]) for letter in letters]
    assert sorted(handlers) == [(3, "shop.score"), (4, "shop.archive"), (5, "shop.archive")]


async def test_draining_follows_records_through_a_stream_into_the_next_handler() -> None:
    shop = Pipeline("shop")
    arrived: dict[str, list[int]] = defaultdict(list)

    @shop.handler(sources.SQS("orders"), sinks=[sinks.Kinesis("prices", partition_key="user")])
    async def price(order: dict[str, Any]) -> dict[str, Any]:
        return order

    @shop.handler(sources.Kinesis("prices", shards=3), sinks=[sinks.SQS("parcels")])
    async def pack(priced: dict[str, Any]) -> dict[str, Any]:
        arrived[priced["user"]].append(priced["n"])
        return priced

    @shop.handler(sources.SQS("parcels"))
    async def send(parcel: dict[str, Any]) -> None: ...

    async with local(shop) as env:
        await env.send("orders", [{"user": f"u{n % 3}", "n": n} for n in range(30)])
        report = await env.drain()
        found = await env.client("kinesis").list_shards(StreamName="prices")
    assert len(found["Shards"]) == 3  # the source's settings, not the sink's
    assert {user: sorted(numbers) for user, numbers in arrived.items()} == {
        f"u{n}": list(range(n, 30, 3)) for n in range(3)
    }
    assert [report[name].succeeded for name in ("price", "pack", "send")] == [30, 30, 30]


async def test_a_dead_letter_holds_the_data_as_the_stream_did_and_its_cause() -> None:
    shop = Pipeline("shop")

    @shop.handler(sources.Kinesis("clicks", shards=1))
    async def score(click: dict[str, Any]) -> None:
        raise Reject("no")

    async with local(shop) as env:
        await env.send("clicks", [{"n": 1}, b"\xff\xfe"], key="u")
        report = await env.drain()
        first, second = await env.dead_letters("clicks")
    assert first.payload == {"n": 1}
    assert first.body == base64.b64encode(b'{"n":1}').decode()
    assert first.attributes["partition_key"] == "u"
    assert "Reject: no" in first.attributes["pipeline_cause"]
    assert second.data == b"\xff\xfe"
    assert (report.rejected, report.dead_lettered) == (2, 2)


async def test_an_aggregate_is_delivered_whole_and_its_records_are_counted_one_by_one() -> None:
    shop = Pipeline("shop")
    runs: list[str] = []

    @shop.handler(sources.Kinesis("clicks", shards=1), retry=None)
    async def score(click: dict[str, str]) -> None:
        runs.append(click["n"])
        if click["n"] == "b" and runs.count("b") == 1:
            raise RuntimeError("once")

    data = aggregates.aggregate([(f"u{name}", None, json.dumps({"n": name}).encode()) for name in "abc"])
    async with local(shop) as env:
        await env.send("clicks", [data, {"n": "d"}], key="k")
        report = await env.drain()
    assert sorted(set(runs)) == ["a", "b", "c", "d"]
    assert runs.count("a") == runs.count("c") == 1
    assert (report.records, report.succeeded) == (4, 4)


async def test_faults_lose_nothing_and_do_what_was_done_no_second_time() -> None:
    # A killed run's claim lapses soon: on a stream it is waited for in real time.
    shop = Pipeline("shop", idempotency=Claim(lease=3))
    runs: list[int] = []

    @shop.handler(sources.Kinesis("clicks", shards=2, batch_size=3), key="n")
    async def score(click: dict[str, int]) -> None:
        runs.append(click["n"])

    async with local(shop, faults=1) as env:
        await env.send("clicks", [{"n": n} for n in range(60)])
        report = await env.drain(timeout=50)
    assert set(runs) == set(range(60))
    # A run that was killed before its completion is run again; one that was killed after it is a duplicate.
    assert (report.records, report.succeeded + report.duplicates) == (60, 60)
    assert report.deliveries > 60


async def test_the_partition_key_is_the_senders_else_the_lane_else_the_key_else_chance() -> None:
    def declare(**options: Any) -> Pipeline:
        shop = Pipeline("shop")

        @shop.handler(sources.Kinesis("clicks", shards=1), **options)
        def score(click: dict[str, Any]) -> None: ...

        return shop

    async def partition_keys(shop: Pipeline, **options: Any) -> list[str]:
        deliveries = Deliveries()
        async with local(shop, runtime=lambda *_: deliveries) as env:
            await env.send("clicks", [{"n": 1, "user": "u"}, {"n": 2, "user": "u"}, "not json"], **options)
            await env.drain()
        return [record["kinesis"]["partitionKey"] for event in deliveries.events for record in event["Records"]]

    assert await partition_keys(declare(lane="user", key="n"), key="x") == ["x", "x", "x"]
    assert (await partition_keys(declare(lane="user", key="n")))[:2] == ["u", "u"]
    assert (await partition_keys(declare(lane=by.shard, key="n")))[:2] == ["1", "2"]
    assert len(set(await partition_keys(declare()))) == 3


async def test_from_latest_only_what_was_sent_since_the_start_is_delivered() -> None:
    server = embedded.lease()
    try:
        async with local(one_stream(), endpoint_url=server.endpoint_url) as env:
            await env.send("clicks", ["old"])
            await env.drain()
        deliveries = Deliveries()
        shop = one_stream(starting_position="LATEST")
        async with local(shop, endpoint_url=server.endpoint_url, runtime=lambda *_: deliveries) as env:
            await env.send("clicks", ["new"])
            await env.drain()
        assert deliveries.batches == [["new"]]
    finally:
        embedded.give_back(server)


async def test_a_run_that_is_started_again_reads_from_its_starting_position_and_does_nothing_twice() -> None:
    server = embedded.lease()
    runs: list[int] = []
    try:
        for expected in (1, 2):
            shop = Pipeline("shop")

            @shop.handler(sources.Kinesis("clicks", shards=2), key="n")
            async def score(click: dict[str, int]) -> None:
                runs.append(click["n"])

            async with local(shop, endpoint_url=server.endpoint_url) as env:
                await env.send("clicks", [{"n": expected}])
                report = await env.drain()
                assert (report.records, report.succeeded, report.duplicates) == (expected, 1, expected - 1)
        assert runs == [1, 2]
    finally:
        embedded.give_back(server)


async def test_a_stream_that_is_not_ours_and_not_there_is_said_to_be_missing() -> None:
    shop = Pipeline("shop")

    @shop.handler(sources.Kinesis("clicks", existing="arn:aws:kinesis:us-east-1:123456789012:stream/theirs"))
    def score(click: dict[str, Any]) -> None: ...

    with pytest.raises(SinkUnavailable, match="stream 'clicks': ResourceNotFoundException"):
        async with local(shop):
            raise AssertionError


async def test_attributes_have_no_place_on_a_stream() -> None:
    async with local(one_stream()) as env:
        with pytest.raises(ConfigurationError, match="the stream 'clicks' has no message attributes"):
            await env.send("clicks", ["a"], attributes={"x": "y"})


async def test_one_name_for_a_queue_and_a_stream_is_refused_when_it_is_used() -> None:
    shop = one_stream()

    @shop.handler(sources.SQS("clicks"))
    def other(click: dict[str, Any]) -> None: ...

    async with local(shop) as env:
        with pytest.raises(
            ConfigurationError, match=r"several sources are called 'clicks', in arn:aws:kinesis.* and arn"
        ):
            await env.send("clicks", ["a"])


async def test_a_drain_that_takes_too_long_counts_what_a_handler_holds() -> None:
    began, release = threading.Event(), threading.Event()

    def answer(event: dict[str, Any], _: Any) -> None:
        began.set()
        release.wait(30)

    async with local(one_stream(deploy=Function(timeout=30)), runtime=lambda *_: Answering(answer)) as env:
        await env.send("clicks", ["a", "b"], key="k")
        assert await asyncio.to_thread(began.wait, 20)
        with pytest.raises(DrainTimeout, match=r"'clicks' holds 2 records that are not settled.*1 invocations running"):
            await env.drain(timeout=0.1)
        release.set()


async def test_a_reshard_loses_nothing_and_its_children_are_read() -> None:
    deliveries = Deliveries()
    async with local(one_stream(), runtime=lambda *_: deliveries) as env:
        await env.client("kinesis").split_shard(
            StreamName="clicks", ShardToSplit="shardId-000000000000", NewStartingHashKey=str(2**127)
        )
        await env.send("clicks", list("ab"), key="k")
        report = await env.drain()
    assert [name for batch in deliveries.batches for name in batch] == ["a", "b"]
    assert report.succeeded == 2
