"""The streams of a local run: opened, filled, measured and read."""

from __future__ import annotations

import binascii
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.aws import kinesis
from pipeline.aws.client import client, code_of, sink_error
from pipeline.aws.delivery import Entry, deliver
from pipeline.decisions.deadline import Deadline
from pipeline.emulator.dead_letters import DeadLetterQueue
from pipeline.emulator.embedded import EmbeddedServer
from pipeline.emulator.event import size_of, stream_record
from pipeline.emulator.invocation import Handling
from pipeline.emulator.isolation import REGION
from pipeline.emulator.local_source import DeadLetterMessage
from pipeline.emulator.payloads import Key, body_of, default_key
from pipeline.emulator.stream_mapping import Shard
from pipeline.emulator.stream_poller import IteratorExpired, Page, Received, Stream, StreamDepth, StreamMapping
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError, SinkError, SinkRefused
from pipeline.ports import Environment
from pipeline.sources.kinesis import Kinesis
from pipeline.sources.kinesis_dead_letters import ENCODING

#: A call's size. Kinesis takes 10 MiB, but other servers still the 5 MiB that it took before.
_CALL_BYTES = 5 * 1024 * 1024


class KinesisReader:
    """Reads a stream through its API; see `StreamReader`."""

    def __init__(self, client: Any, stage: Stage, source: Kinesis, arn: str) -> None:
        self._client = client
        self._stage = stage
        self._source = source
        self._arn = arn
        self._stream = kinesis.stream_parameters(source.resource)

    async def shards(self) -> list[Shard]:
        """See `StreamReader`."""
        found: list[Shard] = []
        request: dict[str, str] = self._stream
        while True:
            answer = await self._client.list_shards(**request)
            found += [_shard(shard) for shard in answer["Shards"]]
            if not answer.get("NextToken"):
                return found
            request = {"NextToken": answer["NextToken"]}

    async def iterator(self, shard: str, *, after: str | None, position: str) -> str:
        """See `StreamReader`."""
        where = {"ShardIteratorType": position}
        if after is not None:
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after}
        answer = await self._client.get_shard_iterator(ShardId=shard, **where, **self._stream)
        iterator: str = answer["ShardIterator"]
        return iterator

    async def read(self, shard: str, iterator: str, limit: int) -> Page:
        """See `StreamReader`."""
        arn = {name: value for name, value in self._stream.items() if name == "StreamARN"}
        try:
            answer = await self._client.get_records(ShardIterator=iterator, Limit=limit, **arn)
        except Exception as error:
            if code_of(error) == "ExpiredIteratorException":
                raise IteratorExpired from None
            raise
        records = [self._received(record, shard) for record in answer["Records"]]
        return Page(records, answer.get("NextShardIterator"), answer.get("MillisBehindLatest") or 0)

    def _received(self, record: Mapping[str, Any], shard: str) -> Received:
        function = f"{self._stage.pipeline}-{self._stage.name}"
        member = stream_record(record, shard=shard, arn=self._arn, region=REGION, function=function)
        # As the handler will know them: an aggregate holds several records.
        ids = tuple(one.id for one in self._source.decode({"Records": [member]}))
        return Received(record["SequenceNumber"], member, size_of(member), ids)


class LocalStream:
    """A handler's stream; see `LocalSource`."""

    is_stream = True
    #: What PutRecords takes at once.
    chunk = kinesis.LIMITS.count
    delaying_queues = ()

    def __init__(self, stage: Stage, source: Kinesis, stream: Stream, dead: DeadLetterQueue, environment: Environment):
        self.name = source.name
        self.arn = stream.arn
        self._stage = stage
        self._source = source
        self._stream = stream
        self._dead = dead
        self._environment = environment
        self._mapping: StreamMapping | None = None

    def mapping(self, handling: Handling) -> StreamMapping:
        """See `LocalSource`."""
        self._mapping = StreamMapping(self._stream, handling)
        return self._mapping

    async def offer(
        self, payloads: Sequence[Any], key: Key | None, attributes: Mapping[str, str] | None
    ) -> list[SinkError | None]:
        """See `LocalSource`. `key` gives the partition key; default see `default_key`, or one of its own for each.

        One call after the other, so that the order of a key is kept. What a call did not take is put
        again alone: a server that is throttled may get a key's records out of order, as Kinesis may.
        """
        if attributes:
            raise ConfigurationError(f"the stream '{self.name}' has no message attributes: leave attributes= out")
        partition = key or default_key(self._stage, lambda: uuid.uuid4().hex)
        entries = [_entry(payload, partition) for payload in payloads]
        put = partial(kinesis.put, stream=self._source.resource, environment=self._environment)
        errors: list[SinkError | None] = []
        for call in _calls(entries):
            errors += await deliver(call, put, kinesis.LIMITS, self._environment, Deadline())
        return errors

    async def is_full(self) -> bool:
        """Never: a stream forgets nothing, so that waiting would not make it shallower."""
        return False

    async def depth(self) -> StreamDepth:
        """What the mapping has read and not settled, and how far behind it is."""
        return StreamDepth(0, 0) if self._mapping is None else self._mapping.depth

    async def dead_letters(self) -> list[DeadLetterMessage]:
        """See `LocalSource`."""
        return [_with_data(letter) for letter in await self._dead.read()]

    async def dead_count(self) -> int:
        """See `LocalSource`."""
        return await self._dead.count()


async def open_stream(stage: Stage, environment: Environment, server: EmbeddedServer | None) -> LocalStream:
    """The stream of a handler that reads one. What is sent from now on is seen from "LATEST" too.

    Raises `SinkError` when it is not there.
    """
    source: Any = stage.source
    made = await client(environment, "kinesis")
    try:
        found = await made.describe_stream_summary(**kinesis.stream_parameters(source.resource))
    except Exception as error:
        raise sink_error(error, f"stream '{source.name}'") from None
    arn: str = found["StreamDescriptionSummary"]["StreamARN"]
    reader = KinesisReader(made, stage, source, arn)
    iterators = {
        shard.id: await reader.iterator(shard.id, after=None, position=source.starting_position)
        for shard in await reader.shards()
    }
    stream = Stream(
        name=source.name,
        arn=arn,
        reader=reader,
        iterators=iterators,
        starting_position=source.starting_position,
        batch_size=source.batch_size,
        batching_window=source.batching_window,
        retry_attempts=source.retry_attempts,
        filter=source.filter,
    )
    dead = DeadLetterQueue(source.dead_letters.queue.physical, environment, server)
    return LocalStream(stage, source, stream, dead, environment)


def _shard(shard: Mapping[str, Any]) -> Shard:
    parents = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
    return Shard(shard["ShardId"], tuple(parent for parent in parents if parent))


def _entry(payload: Any, key: Key) -> Entry:
    body = body_of(payload)
    try:
        data = body.encode() if isinstance(body, str) else body
    except UnicodeEncodeError:
        return Entry(error=SinkRefused("the text holds half a surrogate pair, which is no UTF-8: send bytes"))
    partition_key = kinesis.partition_key(key(payload))
    return Entry(payload={"Data": data, "PartitionKey": partition_key}, size=len(data) + len(partition_key.encode()))


def _calls(entries: Sequence[Entry]) -> list[list[Entry]]:
    """The entries in order, each list what one call takes."""
    calls: list[list[Entry]] = []
    size = 0
    for entry in entries:
        if calls and len(calls[-1]) < kinesis.LIMITS.count and size + entry.size <= _CALL_BYTES:
            calls[-1].append(entry)
            size += entry.size
        else:
            calls.append([entry])
            size = entry.size
    return calls


def _with_data(letter: DeadLetterMessage) -> DeadLetterMessage:
    if letter.attributes.get(ENCODING) != "base64":
        return letter
    return replace(letter, data=binascii.a2b_base64(letter.body))
