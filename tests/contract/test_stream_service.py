"""Kinesis' rules, over the stream in memory and over the embedded server.

Each test names the operation of the API reference whose text it holds (botocore has the same text in its model of
Kinesis), or the page of the Kinesis Data Streams Developer Guide.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.emulator.services.client import MemoryClient, News
from pipeline.emulator.services.stream import Kinesis
from pipeline.emulator.virtual import virtually
from tests.contract.conftest import ManualClock
from tests.support.blocking import Blocking, blocking

MIB = 1_048_576
HASHES = 2**128
MIDDLE = str(2**127)
FIRST, SECOND, THIRD, FOURTH, FIFTH = (f"shardId-{number:012}" for number in range(5))

#: Where the embedded server is not as AWS is, by test: each has to fail there.
DIFFERENCES = {
    "test_a_place_that_is_none_is_refused": "a sequence number of another shard, or of none, is a place",
    "test_a_time_to_come_is_no_place": "it is the end of the shard",
    "test_each_constraint_of_the_model_is_held": "it checks few of them",
    "test_what_is_listed_of_streams": "it lists by time, and all summaries whatever the limit",
    "test_tags_go_on_behind_the_last_one": "the list goes on with the tag that it is to go on behind",
    "test_a_retention_that_is_no_change_is_refused": "it takes the same retention again",
    "test_records_of_an_encrypted_stream_say_so": "it keeps the setting, and says nothing of it with records",
    "test_a_stream_that_distributes_by_itself_ignores_keys": "it has no record distribution strategy",
}


@pytest.fixture(scope="module")
def embedded(moto_endpoint: str) -> Iterator[Blocking]:
    with blocking("kinesis", moto_endpoint, Blocking) as client:
        yield client


@pytest.fixture(params=["memory", "embedded"])
def kinesis(request: pytest.FixtureRequest, clock: ManualClock) -> Any:
    if request.param == "memory":
        return MemoryClient(Kinesis(), clock, News())
    reason = DIFFERENCES.get(request.node.originalname)
    if reason is not None:
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    return request.getfixturevalue("embedded")


@pytest.fixture
def memory(clock: ManualClock) -> Any:
    """For what takes hours, and for what is chosen."""
    return MemoryClient(Kinesis(), clock, News())


async def create(kinesis: Any, name: str, shards: int = 1, **options: Any) -> None:
    await kinesis.create_stream(StreamName=name, ShardCount=shards, **options)


async def put(kinesis: Any, stream: str, *bodies: str, key: str = "k", **options: Any) -> list[str]:
    """Put records one after the other; gives their sequence numbers."""
    return [
        (await kinesis.put_record(StreamName=stream, Data=body.encode(), PartitionKey=key, **options))["SequenceNumber"]
        for body in bodies
    ]


async def place(kinesis: Any, stream: str, shard: str = FIRST, kind: str = "TRIM_HORIZON", **options: Any) -> str:
    answer = await kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType=kind, **options)
    found: str = answer["ShardIterator"]
    return found


async def bodies(
    kinesis: Any, stream: str, shard: str = FIRST, kind: str = "TRIM_HORIZON", **options: Any
) -> list[str]:
    """What a shard holds from a place on, by one read."""
    answer = await kinesis.get_records(ShardIterator=await place(kinesis, stream, shard, kind, **options))
    return [record["Data"].decode() for record in answer["Records"]]


async def shards(kinesis: Any, stream: str, **options: Any) -> list[str]:
    return [shard["ShardId"] for shard in (await kinesis.list_shards(StreamName=stream, **options))["Shards"]]


async def ranges(kinesis: Any, stream: str) -> list[tuple[int, int]]:
    """Of the open shards, in order."""
    found = (await kinesis.list_shards(StreamName=stream, ShardFilter={"Type": "AT_LATEST"}))["Shards"]
    keys = [(shard["HashKeyRange"]["StartingHashKey"], shard["HashKeyRange"]["EndingHashKey"]) for shard in found]
    return sorted((int(first), int(last)) for first, last in keys)


async def code(call: Any) -> str:
    with pytest.raises(ClientError) as raised:
        await call
    found: str = raised.value.response["Error"]["Code"]
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return found


# Streams


async def test_a_stream_is_described_by_its_name_and_by_its_arn(kinesis: Any, unique: str) -> None:
    """API reference, `DescribeStreamSummary`."""
    await create(kinesis, unique, 3)
    found = (await kinesis.describe_stream_summary(StreamName=unique))["StreamDescriptionSummary"]
    assert found["StreamARN"] == f"arn:aws:kinesis:us-east-1:123456789012:stream/{unique}"
    assert (found["StreamName"], found["StreamStatus"], found["OpenShardCount"]) == (unique, "ACTIVE", 3)
    assert (found["RetentionPeriodHours"], found["StreamModeDetails"]) == (24, {"StreamMode": "PROVISIONED"})
    assert found["StreamCreationTimestamp"].tzinfo is not None
    by_arn = await kinesis.describe_stream_summary(StreamARN=found["StreamARN"])
    assert by_arn["StreamDescriptionSummary"] == found


async def test_a_stream_on_demand_begins_with_four_shards(kinesis: Any, unique: str) -> None:
    """Developer Guide, "Choose the right mode for your stream": 4 MB/s of writes at first, at 1 MB/s a shard."""
    await kinesis.create_stream(StreamName=unique, StreamModeDetails={"StreamMode": "ON_DEMAND"})
    assert len(await shards(kinesis, unique)) == 4
    assert await code(
        kinesis.split_shard(StreamName=unique, ShardToSplit=FIRST, NewStartingHashKey="5")
    ) == "ValidationException"  # fmt: skip


async def test_a_stream_is_made_once(kinesis: Any, unique: str) -> None:
    """API reference, `CreateStream`: ResourceInUseException."""
    await create(kinesis, unique)
    assert await code(create(kinesis, unique)) == "ResourceInUseException"


async def test_a_stream_that_is_deleted_is_gone_and_its_iterators_with_it(kinesis: Any, unique: str) -> None:
    """API reference, `DeleteStream`."""
    await create(kinesis, unique)
    iterator = await place(kinesis, unique)
    await kinesis.delete_stream(StreamName=unique)
    assert await code(kinesis.describe_stream_summary(StreamName=unique)) == "ResourceNotFoundException"
    assert await code(kinesis.get_records(ShardIterator=iterator)) == "ResourceNotFoundException"


async def test_a_stream_that_is_not_there_is_not_found_by_any_call(kinesis: Any, unique: str) -> None:
    """API reference, each operation: ResourceNotFoundException."""
    record = {"Data": b"x", "PartitionKey": "k"}
    calls: list[Callable[[], Any]] = [
        lambda: kinesis.put_record(StreamName=unique, **record),
        lambda: kinesis.put_records(StreamName=unique, Records=[record]),
        lambda: kinesis.list_shards(StreamName=unique),
        lambda: kinesis.describe_stream(StreamName=unique),
        lambda: kinesis.get_shard_iterator(StreamName=unique, ShardId=FIRST, ShardIteratorType="LATEST"),
        lambda: kinesis.delete_stream(StreamARN=f"arn:aws:kinesis:us-east-1:123456789012:stream/{unique}"),
    ]
    assert [await code(call()) for call in calls] == ["ResourceNotFoundException"] * 6


async def test_what_is_listed_of_streams(kinesis: Any, unique: str) -> None:
    """API reference, `ListStreams`."""
    for letter in "cab":
        await create(kinesis, f"{unique}-{letter}")
    answer = await kinesis.list_streams(Limit=2, ExclusiveStartStreamName=unique)
    assert answer["StreamNames"] == [f"{unique}-a", f"{unique}-b"]
    assert answer["HasMoreStreams"] is True
    assert [one["StreamName"] for one in answer["StreamSummaries"]] == answer["StreamNames"]
    rest = await kinesis.list_streams(ExclusiveStartStreamName=f"{unique}-b", Limit=1)
    assert rest["StreamNames"] == [f"{unique}-c"]


async def test_tags_are_added_and_removed(kinesis: Any, unique: str) -> None:
    """API reference, `AddTagsToStream`: what is there is overwritten."""
    await create(kinesis, unique)
    await kinesis.add_tags_to_stream(StreamName=unique, Tags={"a": "1", "b": "2"})
    await kinesis.add_tags_to_stream(StreamName=unique, Tags={"b": "3", "c": "4"})
    await kinesis.remove_tags_from_stream(StreamName=unique, TagKeys=["a", "unheard of"])
    answer = await kinesis.list_tags_for_stream(StreamName=unique)
    assert answer["Tags"] == [{"Key": "b", "Value": "3"}, {"Key": "c", "Value": "4"}]
    assert answer["HasMoreTags"] is False


async def test_tags_go_on_behind_the_last_one(kinesis: Any, unique: str) -> None:
    """API reference, `ListTagsForStream`: ExclusiveStartTagKey."""
    await create(kinesis, unique)
    await kinesis.add_tags_to_stream(StreamName=unique, Tags={"a": "1", "b": "2", "c": "3"})
    first = await kinesis.list_tags_for_stream(StreamName=unique, Limit=2)
    assert first["HasMoreTags"] is True
    rest = await kinesis.list_tags_for_stream(StreamName=unique, ExclusiveStartTagKey="b")
    assert rest["Tags"] == [{"Key": "c", "Value": "3"}]


async def test_retention_is_a_day_to_a_year(kinesis: Any, unique: str) -> None:
    """API reference, `IncreaseStreamRetentionPeriod`, `DecreaseStreamRetentionPeriod`: 24 to 8,760 hours."""
    await create(kinesis, unique)
    for hours in (8_761, 23):
        assert await code(
            kinesis.increase_stream_retention_period(StreamName=unique, RetentionPeriodHours=hours)
        ) == "InvalidArgumentException"  # fmt: skip
    await kinesis.increase_stream_retention_period(StreamName=unique, RetentionPeriodHours=8_760)
    await kinesis.decrease_stream_retention_period(StreamName=unique, RetentionPeriodHours=48)
    found = await kinesis.describe_stream_summary(StreamName=unique)
    assert found["StreamDescriptionSummary"]["RetentionPeriodHours"] == 48
    assert await code(
        kinesis.decrease_stream_retention_period(StreamName=unique, RetentionPeriodHours=72)
    ) == "InvalidArgumentException"  # fmt: skip


async def test_a_retention_that_is_no_change_is_refused(kinesis: Any, unique: str) -> None:
    """API reference: it "must be more", and "must be less", than the current one."""
    await create(kinesis, unique)
    assert await code(
        kinesis.increase_stream_retention_period(StreamName=unique, RetentionPeriodHours=24)
    ) == "InvalidArgumentException"  # fmt: skip


async def test_records_of_an_encrypted_stream_say_so(kinesis: Any, unique: str) -> None:
    """API reference, `StartStreamEncryption`, `PutRecord`, `Record`: EncryptionType."""
    await create(kinesis, unique)
    await kinesis.start_stream_encryption(StreamName=unique, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    answer = await kinesis.put_record(StreamName=unique, Data=b"x", PartitionKey="k")
    assert answer["EncryptionType"] == "KMS"
    found = await kinesis.get_records(ShardIterator=await place(kinesis, unique))
    assert found["Records"][0]["EncryptionType"] == "KMS"
    await kinesis.stop_stream_encryption(StreamName=unique, EncryptionType="KMS", KeyId="alias/aws/kinesis")
    assert "EncryptionType" not in await kinesis.put_record(StreamName=unique, Data=b"x", PartitionKey="k")


async def test_each_constraint_of_the_model_is_held(kinesis: Any, unique: str) -> None:
    """The `min`, `max` and `pattern` of the service's API model."""
    await create(kinesis, unique)
    record = {"StreamName": unique, "Data": b"x", "PartitionKey": "k"}
    calls: list[Callable[[], Any]] = [
        lambda: create(kinesis, "no spaces"),
        lambda: create(kinesis, "n" * 129),
        lambda: create(kinesis, f"{unique}0", 0),
        lambda: kinesis.put_record(**{**record, "PartitionKey": ""}),
        lambda: kinesis.put_record(**{**record, "PartitionKey": "k" * 257}),
        lambda: kinesis.put_record(**{**record, "ExplicitHashKey": "-1"}),
        lambda: kinesis.put_records(StreamName=unique, Records=[]),
        lambda: kinesis.list_shards(StreamName=unique, MaxResults=0),
        lambda: kinesis.get_shard_iterator(StreamName=unique, ShardId=FIRST, ShardIteratorType="OLDEST"),
    ]
    assert [await code(call()) for call in calls] == ["ValidationException"] * len(calls)


# Putting


async def test_a_record_goes_to_the_shard_that_covers_the_md5_of_its_key(kinesis: Any, unique: str) -> None:
    """API reference, `PutRecord`."""
    await create(kinesis, unique, 3)
    size = HASHES // 3
    for number in range(12):
        hashed = int(hashlib.md5(f"k{number}".encode(), usedforsecurity=False).hexdigest(), 16)
        answer = await kinesis.put_record(StreamName=unique, Data=b"x", PartitionKey=f"k{number}")
        assert answer["ShardId"] == f"shardId-{min(hashed // size, 2):012}"


@pytest.mark.parametrize(
    ("hash_key", "shard"),
    [("0", FIRST), (str(2**127 - 1), FIRST), (MIDDLE, SECOND), (str(HASHES - 1), SECOND)],
)
async def test_an_explicit_hash_key_overrides_the_partition_key(
    kinesis: Any, unique: str, hash_key: str, shard: str
) -> None:
    """API reference, `PutRecord`: ExplicitHashKey. A range's last key belongs to it."""
    await create(kinesis, unique, 2)
    answer = await kinesis.put_record(StreamName=unique, Data=b"x", PartitionKey="k", ExplicitHashKey=hash_key)
    assert answer["ShardId"] == shard


async def test_a_hash_key_beyond_128_bits_is_refused(kinesis: Any, unique: str) -> None:
    """API reference, `PutRecord`: hash keys are 128-bit integers."""
    await create(kinesis, unique)
    assert await code(
        kinesis.put_record(StreamName=unique, Data=b"x", PartitionKey="k", ExplicitHashKey=str(HASHES))
    ) == "InvalidArgumentException"  # fmt: skip


async def test_records_are_read_in_the_order_in_which_they_were_put_with_all_that_they_have(
    kinesis: Any, unique: str
) -> None:
    """API reference, `PutRecord` (sequence numbers increase), `Record`."""
    await create(kinesis, unique)
    numbers = await put(kinesis, unique, *"abcdefghijkl")
    answer = await kinesis.get_records(ShardIterator=await place(kinesis, unique))
    assert [record["Data"] for record in answer["Records"]] == [letter.encode() for letter in "abcdefghijkl"]
    assert [record["SequenceNumber"] for record in answer["Records"]] == numbers
    assert sorted(numbers, key=int) == numbers
    first = answer["Records"][0]
    assert set(first) == {"SequenceNumber", "ApproximateArrivalTimestamp", "Data", "PartitionKey"}
    assert first["PartitionKey"] == "k"
    assert isinstance(first["ApproximateArrivalTimestamp"], datetime)
    assert first["ApproximateArrivalTimestamp"].tzinfo is not None


async def test_sequence_numbers_are_unique_in_the_stream(kinesis: Any, unique: str) -> None:
    """API reference, `PutRecord`: "unique across all records in the stream"."""
    await create(kinesis, unique, 2)
    records = [{"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": key} for key in ("0", MIDDLE) * 5]
    answer = await kinesis.put_records(StreamName=unique, Records=records)
    assert len({one["SequenceNumber"] for one in answer["Records"]}) == 10


async def test_answers_to_many_records_stand_in_their_order(kinesis: Any, unique: str) -> None:
    """API reference, `PutRecords`: natural ordering."""
    await create(kinesis, unique, 2)
    keys = ["0", MIDDLE, MIDDLE, "0"]
    records = [{"Data": bytes([n]), "PartitionKey": "k", "ExplicitHashKey": key} for n, key in enumerate(keys)]
    answer = await kinesis.put_records(StreamName=unique, Records=records)
    assert answer["FailedRecordCount"] == 0
    assert [one["ShardId"] for one in answer["Records"]] == [FIRST, SECOND, SECOND, FIRST]
    assert all(set(one) == {"SequenceNumber", "ShardId"} for one in answer["Records"])
    found = await kinesis.get_records(ShardIterator=await place(kinesis, unique, SECOND))
    assert [record["SequenceNumber"] for record in found["Records"]] == [
        answer["Records"][at]["SequenceNumber"] for at in (1, 2)
    ]


async def test_a_call_takes_500_records(kinesis: Any, unique: str) -> None:
    """API reference, `PutRecords`."""
    await create(kinesis, unique)
    record = {"Data": b"x", "PartitionKey": "k"}
    answer = await kinesis.put_records(StreamName=unique, Records=[record] * 500)
    assert len(answer["Records"]) == 500
    assert await code(kinesis.put_records(StreamName=unique, Records=[record] * 501)) == "ValidationException"
    assert len((await kinesis.get_records(ShardIterator=await place(kinesis, unique)))["Records"]) == 500


async def test_a_call_takes_10_mib_with_partition_keys_and_a_read_gives_them(kinesis: Any, unique: str) -> None:
    """API reference, `PutRecords`: "up to a limit of 10 MiB for the entire request, including partition keys".

    `GetRecords`: "The maximum size of data that GetRecords can return is 10 MiB".
    """
    await create(kinesis, unique)
    record = {"Data": bytes(MIB - 2), "PartitionKey": "ü"}
    answer = await kinesis.put_records(StreamName=unique, Records=[record] * 10)
    assert answer["FailedRecordCount"] == 0
    small = {"Data": b"", "PartitionKey": "k"}
    assert await code(
        kinesis.put_records(StreamName=unique, Records=[record] * 10 + [small])
    ) == "InvalidArgumentException"  # fmt: skip
    await kinesis.put_record(StreamName=unique, **small)
    first = await kinesis.get_records(ShardIterator=await place(kinesis, unique))
    assert (len(first["Records"]), first["MillisBehindLatest"] > 0) == (10, True)
    rest = await kinesis.get_records(ShardIterator=first["NextShardIterator"])
    assert (len(rest["Records"]), rest["MillisBehindLatest"]) == (1, 0)


async def test_a_record_has_1_mib_with_its_key_unless_the_stream_takes_more(kinesis: Any, unique: str) -> None:
    """Developer Guide, "Handle large records"; API reference, `CreateStream`: MaxRecordSizeInKiB."""
    await create(kinesis, unique)
    await create(kinesis, f"{unique}-large", MaxRecordSizeInKiB=10_240)
    largest, larger = ({"Data": bytes(MIB - less), "PartitionKey": "ü"} for less in (2, 1))
    await kinesis.put_record(StreamName=unique, **largest)
    with pytest.raises(ClientError):  # by which of its codes, the reference does not say
        await kinesis.put_record(StreamName=unique, **larger)
    with pytest.raises(ClientError):
        await kinesis.put_records(StreamName=unique, Records=[largest, larger])
    await kinesis.put_record(StreamName=f"{unique}-large", **larger)
    answer = await kinesis.put_records(StreamName=f"{unique}-large", Records=[largest, larger])
    assert answer["FailedRecordCount"] == 0


async def test_a_stream_that_distributes_by_itself_ignores_keys(kinesis: Any, unique: str) -> None:
    """API reference, `CreateStream`: RecordDistributionStrategy AUTO, for streams on demand."""
    mode = {"StreamMode": "ON_DEMAND"}
    await kinesis.create_stream(StreamName=unique, StreamModeDetails=mode, RecordDistributionStrategy="AUTO")
    records = [{"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": "0"}] * 4 + [{"Data": b"x"}] * 4
    answer = await kinesis.put_records(StreamName=unique, Records=records)
    assert len({one["ShardId"] for one in answer["Records"]}) == 4


# Reading


async def test_where_the_five_kinds_of_iterators_begin(kinesis: Any, unique: str, clock: ManualClock) -> None:
    """API reference, `GetShardIterator`: ShardIteratorType."""
    await create(kinesis, unique)
    numbers = await put(kinesis, unique, "a", "b", "c")
    assert await bodies(kinesis, unique, kind="TRIM_HORIZON") == ["a", "b", "c"]
    assert await bodies(kinesis, unique, kind="AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1]) == ["b", "c"]
    assert await bodies(kinesis, unique, kind="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[1]) == ["c"]
    assert await bodies(kinesis, unique, kind="AT_TIMESTAMP", Timestamp=datetime(2001, 1, 1, tzinfo=UTC)) == [*"abc"]
    latest = await place(kinesis, unique, kind="LATEST")
    assert (await kinesis.get_records(ShardIterator=latest))["Records"] == []
    await put(kinesis, unique, "d")
    assert [one["Data"] for one in (await kinesis.get_records(ShardIterator=latest))["Records"]] == [b"d"]


async def test_an_iterator_leads_to_the_next_one_and_can_be_used_again(kinesis: Any, unique: str) -> None:
    """API reference, `GetRecords`: NextShardIterator."""
    await create(kinesis, unique)
    await put(kinesis, unique, "a", "b", "c")
    first = await place(kinesis, unique)
    pages = [await kinesis.get_records(ShardIterator=first, Limit=2)]
    pages.append(await kinesis.get_records(ShardIterator=pages[-1]["NextShardIterator"], Limit=2))
    pages.append(await kinesis.get_records(ShardIterator=pages[-1]["NextShardIterator"], Limit=2))
    assert [[record["Data"] for record in page["Records"]] for page in pages] == [[b"a", b"b"], [b"c"], []]
    assert pages[0]["MillisBehindLatest"] > 0
    assert [page["MillisBehindLatest"] for page in pages[1:]] == [0, 0]
    assert "ChildShards" not in pages[-1]
    again = await kinesis.get_records(ShardIterator=first, Limit=2)
    assert again["Records"] == pages[0]["Records"]


async def test_an_iterator_by_arn_needs_no_arn_when_it_is_read(kinesis: Any, unique: str) -> None:
    """API reference, `GetRecords`: StreamARN is not required."""
    await create(kinesis, unique)
    await put(kinesis, unique, "a")
    arn = f"arn:aws:kinesis:us-east-1:123456789012:stream/{unique}"
    found = await kinesis.get_shard_iterator(StreamARN=arn, ShardId=FIRST, ShardIteratorType="TRIM_HORIZON")
    answer = await kinesis.get_records(ShardIterator=found["ShardIterator"])
    assert [record["Data"] for record in answer["Records"]] == [b"a"]


async def test_reads_are_answered_for_the_stream_of_the_iterator_only(kinesis: Any, unique: str) -> None:
    """API reference, `GetRecords`: InvalidArgumentException for parameters that cannot be."""
    await create(kinesis, unique)
    await create(kinesis, f"{unique}-other")
    arn = f"arn:aws:kinesis:us-east-1:123456789012:stream/{unique}-other"
    assert await code(
        kinesis.get_records(ShardIterator=await place(kinesis, unique), StreamARN=arn)
    ) == "InvalidArgumentException"  # fmt: skip


async def test_a_read_asks_for_10_000_records_at_most(kinesis: Any, unique: str) -> None:
    """API reference, `GetRecords`: Limit."""
    await create(kinesis, unique)
    iterator = await place(kinesis, unique)
    assert await code(kinesis.get_records(ShardIterator=iterator, Limit=10_001)) == "InvalidArgumentException"
    assert (await kinesis.get_records(ShardIterator=iterator, Limit=10_000))["Records"] == []


async def test_a_read_gives_10_000_records_at_most(memory: Any) -> None:
    """API reference, `GetRecords`."""
    await create(memory, "clicks")
    for _ in range(21):
        await memory.put_records(StreamName="clicks", Records=[{"Data": b"", "PartitionKey": "k"}] * 500)
    assert len((await memory.get_records(ShardIterator=await place(memory, "clicks")))["Records"]) == 10_000


async def test_of_what_is_no_iterator_an_argument_is_invalid(kinesis: Any, unique: str) -> None:
    """API reference, `GetRecords`: InvalidArgumentException."""
    for text in ("nonsense", base64.b64encode(b"[1]").decode(), ""):
        assert await code(kinesis.get_records(ShardIterator=text)) == "InvalidArgumentException"


async def test_a_place_that_is_none_is_refused(kinesis: Any, unique: str) -> None:
    """API reference, `GetShardIterator`: a sequence number is that of a record in the shard."""
    await create(kinesis, unique, 2)
    (number,) = await put(kinesis, unique, "a", ExplicitHashKey="0")
    calls: list[Callable[[], Any]] = [
        lambda: place(kinesis, unique, SECOND, "AT_SEQUENCE_NUMBER", StartingSequenceNumber=number),
        lambda: place(kinesis, unique, FIRST, "AFTER_SEQUENCE_NUMBER", StartingSequenceNumber="7"),
        lambda: place(kinesis, unique, FIRST, "AFTER_SEQUENCE_NUMBER"),
        lambda: place(kinesis, unique, FIRST, "AT_TIMESTAMP"),
    ]
    assert [await code(call()) for call in calls] == ["InvalidArgumentException"] * 4


async def test_a_time_to_come_is_no_place(kinesis: Any, unique: str) -> None:
    """Told by the service: "The timestampInMillis parameter cannot be greater than the currentTimestampInMillis"."""
    await create(kinesis, unique)
    assert await code(
        place(kinesis, unique, kind="AT_TIMESTAMP", Timestamp=datetime(2100, 1, 1, tzinfo=UTC))
    ) == "InvalidArgumentException"  # fmt: skip


async def test_a_shard_that_is_not_there_is_not_found(kinesis: Any, unique: str) -> None:
    """API reference, `GetShardIterator`: ResourceNotFoundException."""
    await create(kinesis, unique)
    assert await code(place(kinesis, unique, SECOND)) == "ResourceNotFoundException"


# Resharding: Developer Guide, "Complete the resharding action", and the operations' pages of the API reference


async def split(kinesis: Any, stream: str, shard: str = FIRST, key: str = MIDDLE) -> None:
    await kinesis.split_shard(StreamName=stream, ShardToSplit=shard, NewStartingHashKey=key)


async def test_after_a_split_new_records_go_to_the_children_and_the_old_ones_stay(kinesis: Any, unique: str) -> None:
    """Developer Guide: "any data records that were in the parent shards before the reshard remain"."""
    await create(kinesis, unique)
    before = await put(kinesis, unique, "a", "b", ExplicitHashKey="0")
    await split(kinesis, unique)
    low = await put(kinesis, unique, "c", ExplicitHashKey=str(2**127 - 1))
    high = await put(kinesis, unique, "d", ExplicitHashKey=MIDDLE)
    assert [await bodies(kinesis, unique, shard) for shard in (FIRST, SECOND, THIRD)] == [["a", "b"], ["c"], ["d"]]
    # So that whoever compares places finds a child's behind its parent's.
    assert max(map(int, before)) < min(map(int, low + high))


async def test_a_closed_shard_ends_and_names_its_children(kinesis: Any, unique: str) -> None:
    """API reference, `GetRecords`: NextShardIterator is null, and ChildShards come, at the end of a closed shard."""
    await create(kinesis, unique)
    waiting = await place(kinesis, unique, kind="LATEST")
    await put(kinesis, unique, "a", "b")
    await split(kinesis, unique)
    page = await kinesis.get_records(ShardIterator=waiting, Limit=1)
    assert "ChildShards" not in page
    seen = [page]
    while page.get("NextShardIterator"):
        page = await kinesis.get_records(ShardIterator=page["NextShardIterator"], Limit=1)
        seen.append(page)
    assert [record["Data"] for one in seen for record in one["Records"]] == [b"a", b"b"]
    children = page["ChildShards"]
    assert [(child["ShardId"], child["ParentShards"]) for child in children] == [(SECOND, [FIRST]), (THIRD, [FIRST])]
    assert children[1]["HashKeyRange"] == {"StartingHashKey": MIDDLE, "EndingHashKey": str(HASHES - 1)}
    assert page["MillisBehindLatest"] == 0


async def test_the_end_of_a_closed_shard_can_be_asked_for(kinesis: Any, unique: str) -> None:
    """API reference, `GetShardIterator`: "If the shard is closed", it "returns a valid iterator for the last" number."""
    await create(kinesis, unique)
    (number,) = await put(kinesis, unique, "a")
    await split(kinesis, unique)
    for kind, options in (("LATEST", {}), ("AFTER_SEQUENCE_NUMBER", {"StartingSequenceNumber": number})):
        page = await kinesis.get_records(ShardIterator=await place(kinesis, unique, kind=kind, **options))
        assert (page["Records"], page.get("NextShardIterator")) == ([], None)
        assert len(page["ChildShards"]) == 2


async def test_shards_say_where_they_come_from_what_they_cover_and_where_they_end(kinesis: Any, unique: str) -> None:
    """API reference, `Shard`: an open one has no EndingSequenceNumber."""
    await create(kinesis, unique)
    (number,) = await put(kinesis, unique, "a")
    await split(kinesis, unique)
    await kinesis.merge_shards(StreamName=unique, ShardToMerge=THIRD, AdjacentShardToMerge=SECOND)
    parent, low, high, merged = (await kinesis.list_shards(StreamName=unique))["Shards"]
    assert "ParentShardId" not in parent
    first, last = (int(parent["SequenceNumberRange"][name]) for name in _NUMBERS)
    assert first <= int(number) <= last
    assert int(low["SequenceNumberRange"]["StartingSequenceNumber"]) >= int(number)
    assert low["ParentShardId"] == high["ParentShardId"] == FIRST
    assert (merged["ParentShardId"], merged["AdjacentParentShardId"]) == (THIRD, SECOND)
    assert merged["HashKeyRange"] == {"StartingHashKey": "0", "EndingHashKey": str(HASHES - 1)}
    assert ["EndingSequenceNumber" in one["SequenceNumberRange"] for one in (low, high, merged)] == [True, True, False]
    described = (await kinesis.describe_stream(StreamName=unique))["StreamDescription"]
    assert described["Shards"] == [parent, low, high, merged]
    summary = (await kinesis.describe_stream_summary(StreamName=unique))["StreamDescriptionSummary"]
    assert summary["OpenShardCount"] == 1


_NUMBERS = ("StartingSequenceNumber", "EndingSequenceNumber")


async def test_after_a_merge_the_child_takes_what_both_would_have_taken(kinesis: Any, unique: str) -> None:
    """API reference, `MergeShards`."""
    await create(kinesis, unique, 2)
    await put(kinesis, unique, "a", ExplicitHashKey="0")
    await put(kinesis, unique, "b", ExplicitHashKey=MIDDLE)
    await kinesis.merge_shards(StreamName=unique, ShardToMerge=FIRST, AdjacentShardToMerge=SECOND)
    await put(kinesis, unique, "c", ExplicitHashKey="0")
    await put(kinesis, unique, "d", ExplicitHashKey=MIDDLE)
    assert [await bodies(kinesis, unique, shard) for shard in (FIRST, SECOND, THIRD)] == [["a"], ["b"], ["c", "d"]]
    page = await kinesis.get_records(ShardIterator=await place(kinesis, unique, SECOND))
    assert [child["ParentShards"] for child in page["ChildShards"]] == [[FIRST, SECOND]]


async def test_what_cannot_be_resharded_is_refused(kinesis: Any, unique: str) -> None:
    """API reference, `SplitShard`, `MergeShards`."""
    await create(kinesis, unique, 3)
    merge = {"StreamName": unique, "ShardToMerge": FIRST}
    assert await code(kinesis.merge_shards(**merge, AdjacentShardToMerge=THIRD)) == "InvalidArgumentException"
    assert await code(kinesis.merge_shards(**merge, AdjacentShardToMerge=FIFTH)) == "ResourceNotFoundException"
    assert await code(split(kinesis, unique, FIRST, "0")) == "InvalidArgumentException"
    assert await code(split(kinesis, unique, FIRST, str(HASHES - 1))) == "InvalidArgumentException"
    await kinesis.merge_shards(**merge, AdjacentShardToMerge=SECOND)
    assert await code(split(kinesis, unique, FIRST, "5")) == "InvalidArgumentException"
    assert await code(kinesis.merge_shards(**merge, AdjacentShardToMerge=SECOND)) == "InvalidArgumentException"
    assert len(await shards(kinesis, unique)) == 4


async def put_at(kinesis: Any, stream: str, keys: list[str], age: str) -> None:
    records = [{"Data": f"{age} {key}".encode(), "PartitionKey": "k", "ExplicitHashKey": key} for key in keys]
    await kinesis.put_records(StreamName=stream, Records=records)


@pytest.mark.parametrize(("count", "target"), [(1, 2), (2, 4), (4, 2), (4, 6), (3, 2), (5, 5)])
async def test_a_stream_is_scaled_to_shards_of_equal_size(kinesis: Any, unique: str, count: int, target: int) -> None:
    """API reference, `UpdateShardCount`: uniform scaling, by splits and merges."""
    await create(kinesis, unique, count)
    keys = [str(HASHES // 24 * at) for at in range(24)]
    await put_at(kinesis, unique, keys, "old")
    answer = await kinesis.update_shard_count(StreamName=unique, TargetShardCount=target, ScalingType="UNIFORM_SCALING")
    assert (answer["CurrentShardCount"], answer["TargetShardCount"]) == (count, target)
    size = HASHES // target
    found = await ranges(kinesis, unique)
    assert [first for first, _ in found] == [at * size for at in range(target)]
    assert [last for _, last in found] == [at * size - 1 for at in range(1, target)] + [HASHES - 1]
    await put_at(kinesis, unique, keys, "new")
    everything = [body for shard in await shards(kinesis, unique) for body in await bodies(kinesis, unique, shard)]
    assert sorted(everything) == sorted([f"{age} {key}" for age in ("old", "new") for key in keys])


async def test_a_shard_is_scaled_to_half_or_double_at_most(kinesis: Any, unique: str) -> None:
    """API reference, `UpdateShardCount`: by default, no more than double and no less than half."""
    await create(kinesis, unique, 5)
    for target in (11, 2):
        assert await code(
            kinesis.update_shard_count(StreamName=unique, TargetShardCount=target, ScalingType="UNIFORM_SCALING")
        ) == "InvalidArgumentException"  # fmt: skip
    assert len(await shards(kinesis, unique)) == 5


async def test_lists_of_shards_can_be_filtered(kinesis: Any, unique: str) -> None:
    """API reference, `ListShards`: ShardFilter."""
    await create(kinesis, unique)
    await put(kinesis, unique, "a")
    await split(kinesis, unique)
    long_ago, later = datetime(2001, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)

    async def filtered(kind: str, **options: Any) -> list[str]:
        return await shards(kinesis, unique, ShardFilter={"Type": kind, **options})

    assert await filtered("FROM_TRIM_HORIZON") == [FIRST, SECOND, THIRD]
    assert await filtered("AT_LATEST") == [SECOND, THIRD]
    assert await filtered("AT_TRIM_HORIZON") == [FIRST]
    assert await filtered("AFTER_SHARD_ID", ShardId=SECOND) == [THIRD]
    assert await filtered("AT_TIMESTAMP", Timestamp=long_ago) == []
    assert await filtered("AT_TIMESTAMP", Timestamp=later) == [SECOND, THIRD]
    assert await filtered("FROM_TIMESTAMP", Timestamp=long_ago) == [FIRST, SECOND, THIRD]
    assert await filtered("FROM_TIMESTAMP", Timestamp=later) == [SECOND, THIRD]
    assert await code(filtered("AFTER_SHARD_ID")) == "InvalidArgumentException"


async def test_a_long_list_of_shards_comes_in_pages(kinesis: Any, unique: str) -> None:
    """API reference, `ListShards`: MaxResults, NextToken, ExclusiveStartShardId."""
    await create(kinesis, unique, 5)
    first = await kinesis.list_shards(StreamName=unique, MaxResults=2)
    second = await kinesis.list_shards(NextToken=first["NextToken"], MaxResults=2)
    last = await kinesis.list_shards(NextToken=second["NextToken"])
    assert [[one["ShardId"] for one in page["Shards"]] for page in (first, second, last)] == [
        [FIRST, SECOND], [THIRD, FOURTH], [FIFTH],
    ]  # fmt: skip
    assert last.get("NextToken") is None
    assert await shards(kinesis, unique, ExclusiveStartShardId=THIRD) == [FOURTH, FIFTH]
    assert await code(
        kinesis.list_shards(NextToken=first["NextToken"], StreamName=unique)
    ) == "InvalidArgumentException"  # fmt: skip


async def follow(kinesis: Any, stream: str, limit: int) -> list[tuple[str, str]]:
    """Every record of a stream with its key, as a reader gets them that goes from closed shards to their children."""
    seen: list[tuple[str, str]] = []
    found = await kinesis.list_shards(StreamName=stream, ShardFilter={"Type": "AT_TRIM_HORIZON"})
    waiting, finished = [shard["ShardId"] for shard in found["Shards"]], set[str]()
    while waiting:
        shard = waiting.pop(0)
        iterator = await place(kinesis, stream, shard)
        while True:
            page = await kinesis.get_records(ShardIterator=iterator, Limit=limit)
            seen += [(record["PartitionKey"], record["Data"].decode()) for record in page["Records"]]
            is_at_tip = not page["Records"] and not page["MillisBehindLatest"]
            if not page.get("NextShardIterator") or is_at_tip:
                break
            iterator = page["NextShardIterator"]
        finished.add(shard)
        waiting += [
            child["ShardId"] for child in page.get("ChildShards", ()) if finished.issuperset(child["ParentShards"])
        ]
    return seen


async def test_who_follows_the_children_reads_each_record_once_and_each_key_in_order(kinesis: Any, unique: str) -> None:
    """Developer Guide, "Complete the resharding action": read a parent to its end, then its children."""
    await create(kinesis, unique, 2)
    count = 0
    for reshard in (split_first, merge_ends, to_three, to_two):
        records = [{"Data": str(count + n).encode(), "PartitionKey": f"k{n % 8}"} for n in range(24)]
        await kinesis.put_records(StreamName=unique, Records=records)
        count += 24
        await reshard(kinesis, unique)
    seen = await follow(kinesis, unique, 5)
    assert sorted(int(body) for _, body in seen) == list(range(count))
    for key in {key for key, _ in seen}:
        numbers = [int(body) for one, body in seen if one == key]
        assert numbers == sorted(numbers)


async def split_first(kinesis: Any, stream: str) -> None:
    await split(kinesis, stream, FIRST, str(2**126))


async def merge_ends(kinesis: Any, stream: str) -> None:
    await kinesis.merge_shards(StreamName=stream, ShardToMerge=SECOND, AdjacentShardToMerge=FOURTH)


async def to_three(kinesis: Any, stream: str) -> None:
    await kinesis.update_shard_count(StreamName=stream, TargetShardCount=3, ScalingType="UNIFORM_SCALING")


async def to_two(kinesis: Any, stream: str) -> None:
    await kinesis.update_shard_count(StreamName=stream, TargetShardCount=2, ScalingType="UNIFORM_SCALING")


# In memory only: what takes hours, what the embedded server has not got, and what is chosen

HOUR = 3_600.0


async def test_a_record_is_kept_for_its_streams_retention(memory: Any, clock: ManualClock) -> None:
    """API reference, `PutRecord`: "By default, data records are accessible for 24 hours"."""
    await create(memory, "clicks")
    await put(memory, "clicks", "old")
    clock.advance(HOUR)
    numbers = await put(memory, "clicks", "new")
    clock.advance(23 * HOUR - 1)
    assert await bodies(memory, "clicks") == ["old", "new"]
    clock.advance(1.001)
    assert await bodies(memory, "clicks") == ["new"]
    clock.advance(HOUR)
    assert await bodies(memory, "clicks") == []
    assert await bodies(memory, "clicks", kind="AT_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[0]) == []
    await put(memory, "clicks", "newest")
    assert await bodies(memory, "clicks", kind="AFTER_SEQUENCE_NUMBER", StartingSequenceNumber=numbers[0]) == ["newest"]


async def test_a_longer_retention_keeps_what_is_there_and_brings_nothing_back(memory: Any, clock: ManualClock) -> None:
    """API reference, `IncreaseStreamRetentionPeriod`; `DecreaseStreamRetentionPeriod` loses what is older at once."""
    await create(memory, "clicks")
    await put(memory, "clicks", "lost")
    clock.advance(23 * HOUR)
    await put(memory, "clicks", "kept")
    clock.advance(2 * HOUR)
    await memory.increase_stream_retention_period(StreamName="clicks", RetentionPeriodHours=48)
    clock.advance(24 * HOUR)
    assert await bodies(memory, "clicks") == ["kept"]
    await memory.decrease_stream_retention_period(StreamName="clicks", RetentionPeriodHours=24)
    await memory.increase_stream_retention_period(StreamName="clicks", RetentionPeriodHours=48)
    assert await bodies(memory, "clicks") == []


async def test_a_closed_shard_is_listed_until_all_that_it_held_has_expired(memory: Any, clock: ManualClock) -> None:
    """Developer Guide, "Complete the resharding action": EXPIRED shards are not listed."""
    await create(memory, "clicks")
    await put(memory, "clicks", "a")
    clock.advance(HOUR)
    await split(memory, "clicks")
    clock.advance(24 * HOUR - 1)
    assert await shards(memory, "clicks") == [FIRST, SECOND, THIRD]
    assert await shards(memory, "clicks", ShardFilter={"Type": "AT_TRIM_HORIZON"}) == [FIRST]
    clock.advance(1.001)
    assert await shards(memory, "clicks") == [SECOND, THIRD]
    assert await shards(memory, "clicks", ShardFilter={"Type": "AT_TRIM_HORIZON"}) == [SECOND, THIRD]
    assert await code(place(memory, "clicks", FIRST)) == "ResourceNotFoundException"
    (child, _) = (await memory.list_shards(StreamName="clicks"))["Shards"]
    assert child["ParentShardId"] == FIRST


async def test_shards_are_listed_that_were_open_at_a_time(memory: Any, clock: ManualClock) -> None:
    """API reference, `ShardFilter`: AT_TIMESTAMP, FROM_TIMESTAMP."""
    await create(memory, "clicks")
    clock.advance(10)
    await split(memory, "clicks")
    clock.advance(10)
    await split(memory, "clicks", SECOND, "5")
    clock.advance(10)
    now = clock.now()

    async def at(kind: str, seconds_ago: float) -> list[str]:
        moment = datetime.fromtimestamp(now - seconds_ago, UTC)
        return await shards(memory, "clicks", ShardFilter={"Type": kind, "Timestamp": moment})

    assert await at("AT_TIMESTAMP", 40) == []
    assert await at("AT_TIMESTAMP", 25) == [FIRST]
    assert await at("AT_TIMESTAMP", 15) == [SECOND, THIRD]
    assert await at("AT_TIMESTAMP", 5) == [THIRD, FOURTH, FIFTH]
    assert await at("FROM_TIMESTAMP", 15) == [SECOND, THIRD, FOURTH, FIFTH]
    assert await at("FROM_TIMESTAMP", 5) == [THIRD, FOURTH, FIFTH]


async def test_an_iterator_expires_after_five_minutes(memory: Any, clock: ManualClock) -> None:
    """API reference, `GetShardIterator`: "A shard iterator expires 5 minutes after it is returned"."""
    await create(memory, "clicks")
    iterator = await place(memory, "clicks")
    clock.advance(299)
    following = (await memory.get_records(ShardIterator=iterator))["NextShardIterator"]
    clock.advance(1)
    assert await code(memory.get_records(ShardIterator=iterator)) == "ExpiredIteratorException"
    assert (await memory.get_records(ShardIterator=following))["Records"] == []


async def test_the_token_of_a_list_expires_after_300_seconds(memory: Any, clock: ManualClock) -> None:
    """API reference, `ListShards`: ExpiredNextTokenException."""
    await create(memory, "clicks", 2)
    token = (await memory.list_shards(StreamName="clicks", MaxResults=1))["NextToken"]
    clock.advance(300)
    assert await code(memory.list_shards(NextToken=token)) == "ExpiredNextTokenException"


async def test_a_stream_of_the_same_name_is_another_one(memory: Any) -> None:
    """API reference, `DeleteStream`: shards and records are deleted with it."""
    await create(memory, "clicks")
    await put(memory, "clicks", "a")
    iterator = await place(memory, "clicks")
    await memory.delete_stream(StreamName="clicks")
    await create(memory, "clicks")
    assert await code(memory.get_records(ShardIterator=iterator)) == "ResourceNotFoundException"
    assert await bodies(memory, "clicks") == []


async def test_a_place_in_time_is_the_first_record_from_then_on(memory: Any, clock: ManualClock) -> None:
    """API reference, `GetShardIterator`: AT_TIMESTAMP, with the precision of milliseconds."""
    await create(memory, "clicks")
    for letter in "abc":
        await put(memory, "clicks", letter)
        clock.advance(0.0107)
    answer = await memory.get_records(ShardIterator=await place(memory, "clicks"))
    times = [record["ApproximateArrivalTimestamp"] for record in answer["Records"]]
    assert [await bodies(memory, "clicks", kind="AT_TIMESTAMP", Timestamp=moment) for moment in times] == [
        ["a", "b", "c"], ["b", "c"], ["c"],
    ]  # fmt: skip
    between = times[0].timestamp() + 0.001
    assert await bodies(memory, "clicks", kind="AT_TIMESTAMP", Timestamp=between) == ["b", "c"]


async def test_how_far_behind_a_reader_is(memory: Any, clock: ManualClock) -> None:
    """API reference, `GetRecords`: MillisBehindLatest is 0 for whoever has caught up."""
    await create(memory, "clicks")
    await put(memory, "clicks", "a", "b")
    clock.advance(7)
    iterator = await place(memory, "clicks")
    assert (await memory.get_records(ShardIterator=iterator, Limit=1))["MillisBehindLatest"] in (7_000, 7_001)
    assert (await memory.get_records(ShardIterator=iterator, Limit=2))["MillisBehindLatest"] == 0


async def test_a_stream_is_scaled_ten_times_a_day(memory: Any, clock: ManualClock) -> None:
    """API reference, `UpdateShardCount`: not "more than ten times per rolling 24-hour period per stream"."""
    await create(memory, "clicks")
    scale = {"StreamName": "clicks", "ScalingType": "UNIFORM_SCALING"}
    for number in range(10):
        await memory.update_shard_count(**scale, TargetShardCount=2 - number % 2)
    assert await code(memory.update_shard_count(**scale, TargetShardCount=2)) == "LimitExceededException"
    clock.advance(24 * HOUR)
    await memory.update_shard_count(**scale, TargetShardCount=2)


async def test_a_shard_that_is_full_for_this_second_refuses_records_and_the_others_pass(clock: ManualClock) -> None:
    """API reference, `PutRecords`: 1,000 records a second and shard; ErrorCode, and the other records are processed."""
    kinesis = MemoryClient(Kinesis(throttles=True), clock, News())
    await create(kinesis, "clicks", 2)
    full = [{"Data": b"x", "PartitionKey": "k", "ExplicitHashKey": "0"}]
    for _ in range(2):
        assert (await kinesis.put_records(StreamName="clicks", Records=full * 500))["FailedRecordCount"] == 0
    other = {"Data": b"y", "PartitionKey": "k", "ExplicitHashKey": MIDDLE}
    answer = await kinesis.put_records(StreamName="clicks", Records=[*full, other, *full])
    assert answer["FailedRecordCount"] == 2
    assert answer["Records"][1]["ShardId"] == SECOND
    refused = answer["Records"][2]
    assert refused["ErrorCode"] == "ProvisionedThroughputExceededException"
    assert "clicks" in refused["ErrorMessage"]
    assert FIRST in refused["ErrorMessage"]
    put_one = {"StreamName": "clicks", **full[0]}
    assert await code(kinesis.put_record(**put_one)) == "ProvisionedThroughputExceededException"
    clock.advance(0.5)
    answer = await kinesis.put_records(StreamName="clicks", Records=full * 500)
    assert answer["FailedRecordCount"] == 0
    assert await code(kinesis.put_record(**put_one)) == "ProvisionedThroughputExceededException"


async def test_a_shard_takes_1_mib_a_second_and_a_large_record_after_a_rest(clock: ManualClock) -> None:
    """API reference, `PutRecords`; Developer Guide, "Handle large records": a tank that is refilled at a steady rate."""
    kinesis = MemoryClient(Kinesis(throttles=True), clock, News())
    await create(kinesis, "clicks", MaxRecordSizeInKiB=10_240)
    large = {"StreamName": "clicks", "Data": bytes(8 * MIB), "PartitionKey": "k"}
    await kinesis.put_record(**large)
    assert await code(kinesis.put_record(**large)) == "ProvisionedThroughputExceededException"
    await kinesis.put_record(**{**large, "Data": bytes(MIB)})
    clock.advance(7.1)
    await kinesis.put_record(**large)


async def test_a_shard_is_read_five_times_and_2_mib_a_second(clock: ManualClock) -> None:
    """API reference, `GetRecords`: five transactions a second and shard; after 10 MiB, nothing for 5 seconds."""
    kinesis = MemoryClient(Kinesis(throttles=True), clock, News())
    await create(kinesis, "clicks", 10, MaxRecordSizeInKiB=10_240)
    iterator = await place(kinesis, "clicks")
    for _ in range(5):
        await kinesis.get_records(ShardIterator=iterator)
    assert await code(kinesis.get_records(ShardIterator=iterator)) == "ProvisionedThroughputExceededException"
    await kinesis.get_records(ShardIterator=await place(kinesis, "clicks", SECOND))
    large = {"Data": bytes(10 * MIB - 1), "PartitionKey": "k", "ExplicitHashKey": "0"}
    await kinesis.put_record(StreamName="clicks", **large)
    clock.advance(1)
    await kinesis.get_records(ShardIterator=iterator)
    clock.advance(4.9)
    assert await code(kinesis.get_records(ShardIterator=iterator)) == "ProvisionedThroughputExceededException"
    clock.advance(0.2)
    await kinesis.get_records(ShardIterator=iterator)


async def test_a_stream_takes_its_time_to_be_made_and_to_be_resharded(clock: ManualClock) -> None:
    """API reference, `CreateStream`, `SplitShard`: CREATING, and UPDATING, in which it is written and read."""
    service = Kinesis(settling=30)
    kinesis = MemoryClient(service, clock, News())
    await create(kinesis, "clicks")

    async def status() -> str:
        found: str = (await kinesis.describe_stream_summary(StreamName="clicks"))["StreamDescriptionSummary"][
            "StreamStatus"
        ]
        return found

    assert await status() == "CREATING"
    assert await code(put(kinesis, "clicks", "a")) == "ResourceNotFoundException"
    assert await code(split(kinesis, "clicks")) == "ResourceInUseException"
    assert service.next_change(clock.now()) == clock.now() + 30
    clock.advance(30)
    assert await status() == "ACTIVE"
    await split(kinesis, "clicks")
    assert await status() == "UPDATING"
    assert await code(split(kinesis, "clicks", SECOND, "5")) == "ResourceInUseException"
    await put(kinesis, "clicks", "a", ExplicitHashKey="0")
    assert await bodies(kinesis, "clicks", SECOND) == ["a"]


def test_the_next_change_is_when_a_record_expires() -> None:
    service, now = Kinesis(), 1_800_000_000.0
    assert service.next_change(now) is None
    service.operations["create_stream"]({"StreamName": "clicks", "ShardCount": 1}, now)
    assert service.next_change(now) is None
    record = {"StreamName": "clicks", "Data": b"x", "PartitionKey": "k"}
    service.operations["put_record"](record, now + 10)
    service.operations["put_record"](record, now + 20)
    assert service.next_change(now + 30) == now + 10 + 24 * HOUR


def test_what_is_put_is_copied_and_the_same_calls_give_the_same_answers() -> None:
    def answers() -> list[Any]:
        service = Kinesis()
        data = bytearray(b"before")
        records = [{"Data": data, "PartitionKey": f"k{n}"} for n in range(3)]
        calls: list[tuple[str, dict[str, Any]]] = [
            ("create_stream", {"StreamName": "clicks", "ShardCount": 1, "Tags": {"a": "b"}}),
            ("put_records", {"StreamName": "clicks", "Records": records}),
            ("get_shard_iterator", {"StreamName": "clicks", "ShardId": FIRST, "ShardIteratorType": "TRIM_HORIZON"}),
        ]
        found = [service.operations[name](given, 1_800_000_000.0) for name, given in calls]
        data[:] = b"after!"
        iterator = found[-1]["ShardIterator"]
        found.append(service.operations["get_records"]({"ShardIterator": iterator}, 1_800_000_001.0))
        return found

    first = answers()
    assert first == answers()
    assert [record["Data"] for record in first[-1]["Records"]] == [b"before"] * 3


RESHARD = st.one_of(
    st.tuples(st.just("split"), st.integers(0, 30), st.integers(1, 100)),
    st.tuples(st.just("merge"), st.integers(0, 30), st.just(0)),
    st.tuples(st.just("scale"), st.integers(1, 6), st.just(0)),
    st.tuples(st.just("put"), st.integers(1, 20), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.lists(RESHARD, max_size=12), st.integers(1, 7))
def test_whatever_is_resharded_no_hash_key_is_uncovered_no_record_lost_and_no_order_broken(
    count: int, steps: list[tuple[str, int, int]], limit: int
) -> None:
    virtually(_resharded_at_will(count, steps, limit))


async def _resharded_at_will(count: int, steps: list[tuple[str, int, int]], limit: int) -> None:
    kinesis = MemoryClient(Kinesis(), ManualClock(), News())
    await create(kinesis, "clicks", count)
    sent = 0
    for kind, number, share in steps:
        found = await kinesis.list_shards(StreamName="clicks", ShardFilter={"Type": "AT_LATEST"})
        ordered = sorted(found["Shards"], key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
        at = number % len(ordered)
        first, last = (int(ordered[at]["HashKeyRange"][name]) for name in ("StartingHashKey", "EndingHashKey"))
        if kind == "put":
            records = [{"Data": str(sent + n).encode(), "PartitionKey": f"k{n % 5}"} for n in range(number)]
            await kinesis.put_records(StreamName="clicks", Records=records)
            sent += number
        elif kind == "split" and last > first:
            await split(kinesis, "clicks", ordered[at]["ShardId"], str(first + max(1, (last - first) * share // 100)))
        elif kind == "merge" and at + 1 < len(ordered):
            one, other = ordered[at]["ShardId"], ordered[at + 1]["ShardId"]
            await kinesis.merge_shards(StreamName="clicks", ShardToMerge=one, AdjacentShardToMerge=other)
        elif kind == "scale" and len(ordered) / 2 <= number <= len(ordered) * 2:
            await kinesis.update_shard_count(
                StreamName="clicks", TargetShardCount=number, ScalingType="UNIFORM_SCALING"
            )
        covered = await ranges(kinesis, "clicks")
        assert [covered[0][0], covered[-1][1]] == [0, HASHES - 1]
        assert all(before[1] + 1 == after[0] for before, after in pairwise(covered))
    seen = await follow(kinesis, "clicks", limit)
    assert sorted(int(body) for _, body in seen) == list(range(sent))
    for key in {key for key, _ in seen}:
        numbers = [int(body) for one, body in seen if one == key]
        assert numbers == sorted(numbers)
