"""Streams as their drivers read them: Kinesis, and the streams of DynamoDB tables."""

from __future__ import annotations

import base64
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pipeline.aws.client import code_of
from pipeline.decisions.aggregation import is_aggregate
from pipeline.emulator.backend import Backend
from pipeline.emulator.destinations import send
from pipeline.emulator.driver import Look
from pipeline.emulator.event import size_of, stream_record
from pipeline.emulator.mappings.actions import Commit, Read, SendToDestination, Shard, StreamRecord
from pipeline.emulator.mappings.machine import Page
from pipeline.emulator.services.service import REGION

_log = logging.getLogger(__name__)
#: Seconds after which an idle shard is looked at again at the latest: its iterator expires after 300 (Kinesis API
#: reference, GetRecords), and a new one for "LATEST" would pass over what came meanwhile.
_FRESH = 240.0

#: The ids of a record's member, as a handler knows them.
Ids = Callable[[Mapping[str, Any]], tuple[str, ...]]


class Port(ABC):
    """Common to both; see `ShardPort`."""

    def __init__(self, client: Any, arn: str, backend: Backend, ids: Ids) -> None:
        self._client = client
        self._arn = arn
        self._backend = backend
        self._ids = ids
        self._reading: dict[str, str] = {}  #: what each read is asked with, beside its place
        self._next: dict[tuple[str, str | None], str] = {}  #: by shard and the last number read: where to go on

    async def send(self, record: SendToDestination) -> None:
        """See `ShardPort`."""
        await send(record, self._backend)

    async def commit(self, wanted: Commit) -> None:  # noqa: B027 - not abstract: for streams there is nothing to do
        """See `ShardPort`: a stream's mapping asks for none."""

    async def read(self, wanted: Read, look: Look) -> Page:
        """See `ShardPort`."""
        return await patiently(self._read, wanted, look, self._backend)

    async def start(self, shards: Sequence[Shard], position: str, timestamp: float | None) -> None:
        """Remember where the shards that there are begin: what is sent from now on is seen from "LATEST" too."""
        for shard in shards:
            wanted = Read(shard.id, None, position, timestamp, 1)
            self._next[shard.id, None] = await self._iterator(wanted)

    async def _read(self, wanted: Read) -> Page:
        place = wanted.shard, wanted.after
        iterator = self._next.pop(place, None) or await self._iterator(wanted)
        try:
            answer = await self._get_records(iterator, wanted)
        except Exception as error:
            if code_of(error) != "ExpiredIteratorException":
                raise
            answer = await self._get_records(await self._iterator(wanted), wanted)
        records = [self._record(record, wanted.shard) for record in answer["Records"]]
        following = answer.get("NextShardIterator")
        if following is not None:
            self._next[wanted.shard, records[-1].number if records else wanted.after] = following
        return Page(records, following is None, answer.get("MillisBehindLatest") or 0)

    async def _get_records(self, iterator: str, wanted: Read) -> dict[str, Any]:
        answer: dict[str, Any] = await self._client.get_records(
            ShardIterator=iterator, Limit=wanted.limit, **self._reading
        )
        return answer

    async def _iterator(self, wanted: Read) -> str:
        where: dict[str, Any] = {"ShardIteratorType": wanted.position}
        if wanted.after is not None:
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": wanted.after}
        elif wanted.timestamp is not None:
            where["Timestamp"] = wanted.timestamp
        return await self._get_iterator(wanted.shard, where)

    @abstractmethod
    async def shards(self) -> Sequence[Shard]:
        """See `ShardPort`."""

    @abstractmethod
    async def _get_iterator(self, shard: str, where: Mapping[str, Any]) -> str: ...

    @abstractmethod
    def _record(self, record: Mapping[str, Any], shard: str) -> StreamRecord: ...


class KinesisPort(Port):
    """Reads a Kinesis stream."""

    def __init__(
        self, client: Any, arn: str, function: str, backend: Backend, ids: Ids, *, is_filtered: bool = False
    ) -> None:
        super().__init__(client, arn, backend, ids)
        self._reading = {"StreamARN": arn}
        self._function = function
        self._warns = is_filtered  #: a filter passes over aggregates, once that is said

    async def shards(self) -> Sequence[Shard]:
        """See `ShardPort`."""
        found: list[Shard] = []
        request = {"StreamARN": self._arn}
        while True:
            answer = await self._client.list_shards(**request)
            found += [_shard(shard, "ParentShardId", "AdjacentParentShardId") for shard in answer["Shards"]]
            if not answer.get("NextToken"):
                return found
            request = {"NextToken": answer["NextToken"]}

    async def _get_iterator(self, shard: str, where: Mapping[str, Any]) -> str:
        answer = await self._client.get_shard_iterator(StreamARN=self._arn, ShardId=shard, **where)
        return str(answer["ShardIterator"])

    def _record(self, record: Mapping[str, Any], shard: str) -> StreamRecord:
        member = stream_record(record, shard=shard, arn=self._arn, region=REGION, function=self._function)
        if self._warns and is_aggregate(record["Data"]):
            self._warns = False
            _log.warning(
                "%s: %s of %s holds aggregated records: with a filter all that they hold is passed over, as Lambda does",
                self._function, shard, self._arn,
            )  # fmt: skip
        return StreamRecord(
            record["SequenceNumber"],
            member,
            size_of(member),
            record["ApproximateArrivalTimestamp"].timestamp(),
            record["PartitionKey"],
            record["Data"],
            self._ids(member),
        )


class TableStreamPort(Port):
    """Reads the stream of a DynamoDB table."""

    async def shards(self) -> Sequence[Shard]:
        """See `ShardPort`."""
        found: list[Shard] = []
        request = {"StreamArn": self._arn}
        while True:
            described = (await self._client.describe_stream(**request))["StreamDescription"]
            found += [_shard(shard, "ParentShardId") for shard in described["Shards"]]
            last = described.get("LastEvaluatedShardId")
            if not last:
                return found
            request["ExclusiveStartShardId"] = last

    async def _iterator(self, wanted: Read) -> str:
        if wanted.after is None:
            return await self._get_iterator(wanted.shard, {"ShardIteratorType": wanted.position})
        where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": wanted.after}
        try:
            return await self._get_iterator(wanted.shard, where)
        except Exception as error:
            if code_of(error) != "TrimmedDataAccessException":
                raise
            # It is forgotten by now: what is left of the shard came after it.
            return await self._get_iterator(wanted.shard, {"ShardIteratorType": "TRIM_HORIZON"})

    async def _get_iterator(self, shard: str, where: Mapping[str, Any]) -> str:
        answer = await self._client.get_shard_iterator(StreamArn=self._arn, ShardId=shard, **where)
        return str(answer["ShardIterator"])

    def _record(self, record: Mapping[str, Any], shard: str) -> StreamRecord:
        member: dict[str, Any] = {**_plain(record), "eventSourceARN": self._arn}
        change = member["dynamodb"]
        keys = repr(sorted(change.get("Keys", {}).items()))  # what belongs together: one item's changes
        arrived_at = float(change.get("ApproximateCreationDateTime") or self._backend.clock.now())
        number = str(change["SequenceNumber"])
        return StreamRecord(number, member, size_of(member), arrived_at, keys, member, self._ids(member))


async def patiently(read: Callable[[Read], Awaitable[Page]], wanted: Read, look: Look, backend: Backend) -> Page:
    """What a read finds, repeated while it is nothing, for as long as the backend has patience."""
    looks, end = 0, backend.clock.now() + backend.patience
    while True:
        count = look.activity.count
        page = await read(wanted)
        left = end - backend.clock.now()
        # Kinesis also gives empty pages on the way to a shard's end.
        if page.records or page.has_ended or left <= 0:
            return page
        if not page.millis_behind:
            look.found_nothing(count)
        await backend.pause(look.activity, count, looks, min(left, _FRESH))
        looks += 1


def _shard(shard: Mapping[str, Any], *parents: str) -> Shard:
    return Shard(shard["ShardId"], tuple(shard[name] for name in parents if shard.get(name)))


def _plain(value: Any) -> Any:
    """As JSON has it: Lambda writes times as seconds and binary values as base64."""
    if isinstance(value, Mapping):
        return {name: _plain(member) for name, member in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(member) for member in value]
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value
