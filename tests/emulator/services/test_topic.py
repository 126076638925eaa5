"""A Kafka topic in memory: the rules of Kafka's documentation, and the event that Lambda makes of its records."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from aws_lambda_powertools.utilities.data_classes import KafkaEvent

from pipeline.emulator.mappings.actions import Commit, Invoke, Read, Shard
from pipeline.emulator.mappings.answers import Returned
from pipeline.emulator.mappings.kafka import KafkaMapping
from pipeline.emulator.mappings.settings import KafkaSettings
from pipeline.emulator.services.service import ServiceError
from pipeline.emulator.services.topic import MAX_RECORD_BYTES, RETENTION, Consumer, Topic, murmur2

NOW = 1_800_000_000.0


def read(partition: int = 0, after: str | None = None, position: str = "TRIM_HORIZON", **options: Any) -> Read:
    return Read(f"orders-{partition}", after, position, options.get("timestamp"), options.get("limit", 500))


def numbers(consumer: Consumer, wanted: Read, now: float = NOW) -> list[str]:
    return [one.number for one in consumer.read(wanted, now).records]


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_keys_have_the_hashes_of_kafkas_own_tests(key: bytes, found: int) -> None:
    """`UtilsTest.testMurmur2` of Apache Kafka, where they are Java's signed numbers."""
    assert murmur2(key) == found & 0xFFFFFFFF


def test_a_key_keeps_its_partition_and_records_without_one_take_turns() -> None:
    topic = Topic("orders", partitions=3)
    assert len({topic.append(b"x", NOW, key=b"customer-7").partition for _ in range(5)}) == 1
    assert [topic.append(b"x", NOW).partition for _ in range(4)] == [0, 1, 2, 0]
    assert topic.append(b"x", NOW, key=b"customer-7", partition=2).partition == 2
    assert {topic.append(b"x", NOW, key=str(n).encode()).partition for n in range(50)} == {0, 1, 2}


def test_offsets_grow_by_one_in_each_partition() -> None:
    topic = Topic("orders", partitions=2)
    assert [topic.append(b"x", NOW, partition=0).offset for _ in range(3)] == [0, 1, 2]
    assert topic.append(b"x", NOW, partition=1).offset == 0
    assert (topic.beginning(0, NOW), topic.end(0, NOW), topic.end(1, NOW)) == (0, 3, 1)


def test_a_fetch_gives_from_an_offset_on_within_its_limits_and_one_at_least() -> None:
    """`max.partition.fetch.bytes`: "If the first record batch (...) is larger than this limit, [it] will still be returned." """
    topic = Topic("orders")
    for size in (10, 10, 700_000, 700_000):
        topic.append(b"x" * size, NOW)
    assert [one.offset for one in topic.fetch(0, 1, NOW)] == [1, 2]
    assert [one.offset for one in topic.fetch(0, 0, NOW, limit=1)] == [0]
    assert [one.offset for one in topic.fetch(0, 3, NOW, max_bytes=1)] == [3]
    assert topic.fetch(0, 4, NOW) == []


@pytest.mark.parametrize("offset", [0, 4])
def test_an_offset_that_is_gone_or_not_yet_there_is_out_of_range(offset: int) -> None:
    topic = Topic("orders")
    topic.append(b"x", NOW - RETENTION)
    topic.append(b"x", NOW)
    with pytest.raises(ServiceError, match="OFFSET_OUT_OF_RANGE"):
        topic.fetch(0, offset, NOW)


def test_the_retention_takes_records_and_their_offsets_are_not_given_again() -> None:
    topic = Topic("orders", retention=60)
    topic.append(b"a", NOW)
    topic.append(b"b", NOW + 30)
    assert topic.next_change(NOW + 30) == NOW + 60
    assert topic.beginning(0, NOW + 59) == 0
    assert topic.beginning(0, NOW + 60) == 1
    assert topic.beginning(0, NOW + 90) == 2
    assert topic.next_change(NOW + 90) is None
    assert topic.append(b"c", NOW + 90).offset == 2


def test_a_record_that_is_too_large_is_refused() -> None:
    topic = Topic("orders")
    topic.append(b"x" * (MAX_RECORD_BYTES - 6), NOW, key=b"key", headers=[("h", b"12")])
    with pytest.raises(ServiceError, match="MESSAGE_TOO_LARGE"):
        topic.append(b"x" * (MAX_RECORD_BYTES - 5), NOW, key=b"key", headers=[("h", b"12")])
    assert topic.end(0, NOW) == 1


def test_a_partition_that_is_not_there_is_unknown() -> None:
    with pytest.raises(ServiceError, match="UNKNOWN_TOPIC_OR_PARTITION"):
        Topic("orders").append(b"x", NOW, partition=1)


def test_a_timestamp_is_the_producers_or_the_logs() -> None:
    assert Topic("orders").append(b"x", NOW, timestamp=5.0).timestamp == 5.0
    assert Topic("orders").append(b"x", NOW).timestamp == NOW
    assert Topic("orders", timestamp_type="LOG_APPEND_TIME").append(b"x", NOW, timestamp=5.0).timestamp == NOW


# For a mapping


def test_a_consumer_begins_where_its_mapping_says() -> None:
    topic = Topic("orders")
    for moment in (NOW, NOW + 10, NOW + 20):
        topic.append(b"x", moment)
    assert numbers(Consumer(topic), read()) == ["0", "1", "2"]
    assert numbers(Consumer(topic), read(position="LATEST")) == []
    assert numbers(Consumer(topic), read(position="AT_TIMESTAMP", timestamp=NOW + 5)) == ["1", "2"]
    assert numbers(Consumer(topic), read(position="AT_TIMESTAMP", timestamp=NOW + 50)) == []
    assert numbers(Consumer(topic), read(after="0", limit=1)) == ["1"]


def test_latest_is_the_moment_of_the_first_read() -> None:
    topic = Topic("orders")
    consumer = Consumer(topic)
    assert numbers(consumer, read(position="LATEST")) == []
    topic.append(b"x", NOW)
    assert numbers(consumer, read(position="LATEST")) == ["0"]


def test_what_a_group_committed_comes_before_the_starting_position() -> None:
    """Lambda developer guide, "Customizable consumer group ID in Lambda"."""
    topic = Topic("orders", partitions=2)
    for _ in range(6):
        topic.append(b"x", NOW)
    Consumer(topic, "shop").commit(Commit("orders-0", "2"))
    assert topic.committed("shop") == {0: 2}
    assert topic.lag("shop", NOW) == 4
    assert numbers(Consumer(topic, "shop"), read(position="LATEST")) == ["2"]
    assert numbers(Consumer(topic, "shop"), read(partition=1, position="LATEST")) == []
    assert numbers(Consumer(topic, "other"), read()) == ["0", "1", "2"]
    Consumer(topic).commit(Commit("orders-0", "2"))
    assert topic.committed("") == {}


def test_records_that_the_retention_took_are_skipped() -> None:
    topic = Topic("orders", retention=60)
    consumer = Consumer(topic)
    for moment in (NOW, NOW + 1, NOW + 30):
        topic.append(b"x", moment)
    assert numbers(consumer, read(limit=1)) == ["0"]
    assert numbers(consumer, read(after="0"), NOW + 62) == ["2"]


def test_a_page_says_how_far_it_is_behind_the_newest_record() -> None:
    topic = Topic("orders")
    for moment in (NOW, NOW, NOW + 2.5):
        topic.append(b"x", moment)
    consumer = Consumer(topic)
    behind = [consumer.read(read(limit=limit), NOW).millis_behind for limit in (1, 2, 3)]
    assert behind == [2500, 2500, 0]
    assert Consumer(Topic("orders")).read(read(), NOW).millis_behind == 0
    topic.append(b"x", NOW + 2.5)
    assert consumer.read(read(limit=3), NOW).millis_behind == 1


def test_the_event_is_what_powertools_reads() -> None:
    topic = Topic("orders")
    topic.append(b'{"n": 1}', NOW + 0.25, key=b"k\xff", headers=[("trace", "ä".encode()), ("trace", b"b")])
    topic.append(None, NOW)
    records = list(Consumer(topic).read(read(), NOW).records)
    first, tombstone = [one.member for one in records]
    assert tombstone == {
        "topic": "orders",
        "partition": 0,
        "offset": 1,
        "timestamp": 1_800_000_000_000,
        "timestampType": "CREATE_TIME",
        "headers": [],
    }
    (found,) = KafkaEvent(
        {"eventSource": "aws:kafka", "bootstrapServers": "b", "records": {"orders-0": [first]}}
    ).records
    assert found.json_value == {"n": 1}
    assert found.decoded_key == b"k\xff"
    assert found.timestamp == 1_800_000_000_250
    assert base64.b64decode(first["value"]) == b'{"n": 1}'
    assert first["headers"] == [{"trace": [-61, -92]}, {"trace": [98]}]
    assert found.decoded_headers["trace"] in ("ä".encode(), b"b")
    assert records[0].size == len(json.dumps(first, separators=(",", ":"))) + 1
    assert (records[0].data, records[1].data) == (b'{"n": 1}', None)


def test_a_mapping_over_it_sees_every_record_and_commits_for_its_group() -> None:
    topic = Topic("orders", partitions=3)
    for number in range(20):
        topic.append(str(number).encode(), NOW, key=str(number % 5).encode())
    consumer, now = Consumer(topic, "shop"), NOW
    machine = KafkaMapping(KafkaSettings(topics=("orders",), batch_size=4, consumer_group="shop"))
    seen: list[str] = []
    assert consumer.shards() == [Shard("orders-0"), Shard("orders-1"), Shard("orders-2")]
    machine.actions(now)
    machine.listed(consumer.shards(), now)
    while len(seen) < 20 or machine.held:
        for action in machine.actions(now):
            match action:
                case Read():
                    machine.was_read(action.shard, consumer.read(action, now), now)
                case Commit():
                    consumer.commit(action)
                case Invoke():
                    members = [one for found in action.event["records"].values() for one in found]
                    seen += [base64.b64decode(one["value"]).decode() for one in members]
                    machine.answered(action.batch, Returned(None), now)
        now += 0.5
    for action in machine.actions(now):
        if isinstance(action, Commit):
            consumer.commit(action)
    assert sorted(seen, key=int) == [str(number) for number in range(20)]
    assert topic.lag("shop", now) == 0


def test_partitions_can_be_added() -> None:
    topic = Topic("orders")
    topic.add_partitions(2)
    assert topic.partitions == 3
    assert [one.id for one in Consumer(topic).shards()] == ["orders-0", "orders-1", "orders-2"]
