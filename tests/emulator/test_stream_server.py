"""What the embedded server's Kinesis and S3 do, as far as the local run depends on it."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest

from pipeline import Pipeline, sinks, sources
from pipeline.emulator import embedded
from pipeline.emulator.embedded import EmbeddedServer
from pipeline.testing import local


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    leased = embedded.lease()
    yield leased
    embedded.give_back(leased)


@pytest.fixture
def kinesis(server: EmbeddedServer) -> Iterator[Any]:
    client = boto3.client(
        "kinesis",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_stream(StreamName="clicks", ShardCount=1)
    yield client
    client.close()


FIRST = "shardId-000000000000"


def read(
    kinesis: Any, iterator_type: str = "TRIM_HORIZON", limit: int = 10_000, shard: str = FIRST, **options: str
) -> list[Any]:
    """Every page, from a place to the shard's end."""
    iterator = kinesis.get_shard_iterator(
        StreamName="clicks", ShardId=shard, ShardIteratorType=iterator_type, **options
    )["ShardIterator"]
    pages: list[Any] = []
    while not pages or pages[-1]["MillisBehindLatest"]:
        pages.append(kinesis.get_records(ShardIterator=iterator, Limit=limit))
        iterator = pages[-1].get("NextShardIterator")
    return pages


def test_puts_side_by_side_lose_no_record_and_give_no_number_twice(kinesis: Any) -> None:
    def put(start: int) -> list[str]:
        records = [{"Data": f"{start}:{n}".encode(), "PartitionKey": "k"} for n in range(100)]
        return [one["SequenceNumber"] for one in kinesis.put_records(StreamName="clicks", Records=records)["Records"]]

    with ThreadPoolExecutor(8) as pool:
        numbers = list(itertools.chain(*pool.map(put, range(16))))
    assert len(set(numbers)) == 1_600
    records = list(itertools.chain(*(page["Records"] for page in read(kinesis))))
    assert [record["SequenceNumber"] for record in records] == sorted(numbers, key=int)
    assert {record["Data"] for record in records} == {f"{s}:{n}".encode() for s in range(16) for n in range(100)}


def test_a_read_gives_the_records_behind_its_iterator_up_to_its_limit_and_says_that_there_are_more(
    kinesis: Any,
) -> None:
    kinesis.put_records(StreamName="clicks", Records=[{"Data": b"x", "PartitionKey": "k"} for _ in range(5)])
    sizes = [len(page["Records"]) for page in read(kinesis, limit=2)]
    assert sizes == [2, 2, 1]
    after = read(kinesis, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber="3")
    assert [record["SequenceNumber"] for page in after for record in page["Records"]] == ["4", "5"]
    (latest,) = read(kinesis, "LATEST")
    assert latest["Records"] == []


def test_puts_beside_a_reshard_lose_no_record_and_give_no_number_twice(kinesis: Any) -> None:
    def put(start: int) -> list[str]:
        records = [{"Data": f"{start}:{n}".encode(), "PartitionKey": f"k{n}"} for n in range(50)]
        return [one["SequenceNumber"] for one in kinesis.put_records(StreamName="clicks", Records=records)["Records"]]

    def scale(target: int) -> list[str]:
        kinesis.update_shard_count(StreamName="clicks", TargetShardCount=target, ScalingType="UNIFORM_SCALING")
        return []

    with ThreadPoolExecutor(8) as pool:
        scaled = [pool.submit(scale, 2)]
        numbers = [pool.submit(put, n) for n in range(12)]
        scaled[0].result()
        scaled += [pool.submit(scale, 3)]
        numbers += [pool.submit(put, n) for n in range(12, 24)]
    assert [one.result() for one in scaled] == [[], []]
    given = list(itertools.chain(*(one.result() for one in numbers)))
    assert len(set(given)) == 1_200
    shards = [shard["ShardId"] for shard in kinesis.list_shards(StreamName="clicks")["Shards"]]
    records = [record for shard in shards for page in read(kinesis, shard=shard) for record in page["Records"]]
    assert sorted(record["SequenceNumber"] for record in records) == sorted(given)
    assert {record["Data"] for record in records} == {f"{s}:{n}".encode() for s in range(24) for n in range(50)}


def test_a_stream_is_made_as_it_is_asked_for(kinesis: Any) -> None:
    kinesis.create_stream(StreamName="large", ShardCount=2, MaxRecordSizeInKiB=2_048, Tags={"team": "shop"})
    found = kinesis.describe_stream_summary(StreamName="large")["StreamDescriptionSummary"]
    assert (found["OpenShardCount"], found["MaxRecordSizeInKiB"]) == (2, 2_048)
    assert kinesis.list_tags_for_stream(StreamName="large")["Tags"] == [{"Key": "team", "Value": "shop"}]


async def test_a_bucket_that_is_a_sink_is_made_and_can_be_read(tmp_path: Any) -> None:
    shop = Pipeline("shop")

    @shop.handler(sources.Kinesis("clicks", shards=1), sinks=[sinks.S3("archive")])
    async def keep(click: dict[str, int]) -> dict[str, int]:
        return click

    async with local(shop) as env:
        await env.send("clicks", [{"n": n} for n in range(3)])
        report = await env.drain()
        s3 = env.client("s3")
        found = await s3.list_objects_v2(Bucket="archive")
        bodies = []
        for one in found["Contents"]:
            answer = await s3.get_object(Bucket="archive", Key=one["Key"])
            bodies.append(await answer["Body"].read())
    assert report.outputs == {"archive": 3}
    assert b"".join(bodies)
