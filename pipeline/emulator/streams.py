"""The streams of a run: opened, filled, measured and read."""

from __future__ import annotations

import binascii
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from pipeline.aws import kinesis
from pipeline.aws.client import client, sink_error
from pipeline.aws.cloudformation.streams import given_up
from pipeline.aws.delivery import Entry, deliver
from pipeline.aws.names import Resource
from pipeline.decisions.deadline import Deadline
from pipeline.emulator.backend import Backend
from pipeline.emulator.dead_letters import DeadLetterQueue
from pipeline.emulator.driver import Handling, ShardDriver
from pipeline.emulator.functions.function import function_settings
from pipeline.emulator.local_source import DeadLetterMessage
from pipeline.emulator.mappings.settings import StreamSettings
from pipeline.emulator.mappings.stream import StreamMapping
from pipeline.emulator.payloads import Key, body_of, default_key
from pipeline.emulator.stream_ports import Ids, KinesisPort, Port, TableStreamPort
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError, SinkError, SinkRefused
from pipeline.sources.kinesis_dead_letters import ENCODING

#: A call's size. Kinesis takes 10 MiB, but other servers still the 5 MiB that it took before.
_CALL_BYTES = 5 * 1024 * 1024


@dataclass(frozen=True)
class Stream:
    """A stream, and how a mapping reads it."""

    name: str  #: its logical name
    arn: str
    kind: Literal["kinesis", "dynamodb"]
    settings: StreamSettings


@dataclass(frozen=True)
class StreamDepth:
    """What waits for a handler in a stream, as far as its mapping knows."""

    held: int  #: records that were read and are not behind the checkpoint
    millis_behind: int  #: how far its slowest shard was behind when it was last read

    @property
    def is_empty(self) -> bool:
        """Nothing is held, and nothing more was there at the last read."""
        return not self.held and not self.millis_behind

    @property
    def waiting(self) -> str:
        """For a table: a plus says that there is more."""
        return f"{self.held}{'+' if self.millis_behind else ''}"

    def __str__(self) -> str:
        return f"{self.held} records that are not settled, {self.millis_behind} ms behind"


class LocalStream:
    """A stream that a handler reads; see `LocalSource`. `key`: a payload's partition key when the sender names none."""

    is_stream = True
    #: What PutRecords takes at once.
    chunk = kinesis.LIMITS.count
    delaying_queues = ()

    def __init__(
        self,
        stream: Stream,
        port: Port,
        dead: DeadLetterQueue,
        environment: ProcessEnvironment,
        key: Key | None = None,
    ) -> None:
        self.name = stream.name
        self.arn = stream.arn
        self._stream = stream
        self._port = port
        self._dead = dead
        self._environment = environment
        self._key = key or (lambda _: uuid.uuid4().hex)
        self._driver: ShardDriver | None = None

    def driver(self, handling: Handling, limit: int) -> ShardDriver:
        """See `LocalSource`."""
        machine = StreamMapping(self._stream.settings, self._stream.kind, limit=limit)
        self._driver = ShardDriver(machine, self._port, handling)
        return self._driver

    async def offer(
        self, payloads: Sequence[Any], key: Key | None, attributes: Mapping[str, str] | None
    ) -> list[SinkError | None]:
        """See `LocalSource`. `key` gives the partition key; default: its own.

        One call after the other, so that the order of a key is kept. What a call did not take is put
        again alone: a server that is throttled may get a key's records out of order, as Kinesis may.
        """
        if attributes:
            raise ConfigurationError(f"the stream '{self.name}' has no message attributes: leave attributes= out")
        if self._stream.kind != "kinesis":
            raise ConfigurationError(f"'{self.name}' is the stream of a table: write to the table")
        entries = [_entry(payload, key or self._key) for payload in payloads]
        resource = Resource("kinesis", self.name, self.arn)
        put = partial(kinesis.put, stream=resource, environment=self._environment)
        errors: list[SinkError | None] = []
        for call in _calls(entries):
            errors += await deliver(call, put, kinesis.LIMITS, self._environment, Deadline())
        return errors

    async def is_full(self) -> bool:
        """Never: a stream forgets nothing, so that waiting would not make it shallower."""
        return False

    async def depth(self) -> StreamDepth:
        """What the mapping has read and not settled, and how far behind it is."""
        if self._driver is None:
            return StreamDepth(0, 0)
        return StreamDepth(self._driver.machine.held, self._driver.machine.millis_behind)

    async def lag(self) -> float | None:
        """How far its slowest shard was behind when it was last read."""
        return None if self._driver is None else self._driver.machine.millis_behind / 1000.0

    async def dead_letters(self) -> list[DeadLetterMessage]:
        """See `LocalSource`."""
        return [_with_data(letter) for letter in await self._dead.read()]

    async def dead_count(self) -> int:
        """See `LocalSource`."""
        return await self._dead.count()


async def open_stream(stage: Stage, environment: ProcessEnvironment, backend: Backend) -> LocalStream:
    """The stream of a handler that reads one. Raises `SinkError` when it is not there."""
    source: Any = stage.source
    made = await client(environment, "kinesis")
    try:
        found = await made.describe_stream_summary(**kinesis.stream_parameters(source.resource))
    except Exception as error:
        raise sink_error(error, f"stream '{source.name}'") from None
    summary = found["StreamDescriptionSummary"]
    arn: str = summary["StreamARN"]
    function = function_settings(stage).name
    settings = StreamSettings(
        batch_size=source.batch_size,
        batching_window=source.batching_window,
        filter=source.filter,
        report_batch_item_failures=True,
        starting_position=source.starting_position,
        parallelization_factor=source.parallelization_factor,
        bisect=source.bisect,
        maximum_retry_attempts=source.retry_attempts,
        maximum_record_age=source.max_record_age,
        retention=retention_of(summary),
        on_failure=f"arn:aws:s3:::{given_up(source.resource).physical}",
        function_name=function,
        source_arn=arn,
    )

    def ids(member: Mapping[str, Any]) -> tuple[str, ...]:
        """As the handler will know them: an aggregate holds several records."""
        return tuple(one.id for one in source.decode({"Records": [member]}))

    dead = DeadLetterQueue(source.dead_letters.queue.physical, environment, backend)
    stream = Stream(source.name, arn, "kinesis", settings)
    key = default_key(stage, lambda: uuid.uuid4().hex)
    return await opened(stream, function, dead, environment, backend, key=key, ids=ids)


async def opened(
    stream: Stream,
    function: str,
    dead: DeadLetterQueue,
    environment: ProcessEnvironment,
    backend: Backend,
    *,
    key: Key | None = None,
    ids: Ids | None = None,
) -> LocalStream:
    """A stream that is there. What is sent from now on is seen from "LATEST" too."""
    port: Port
    if stream.kind == "kinesis":
        is_filtered = stream.settings.filter is not None
        kinesis_client = backend.client("kinesis")
        port = KinesisPort(kinesis_client, stream.arn, function, backend, ids or _own_id, is_filtered=is_filtered)
    else:
        port = TableStreamPort(backend.client("dynamodbstreams"), stream.arn, backend, ids or _own_id)
    settings = stream.settings
    await port.start(await port.shards(), settings.starting_position, settings.starting_timestamp)
    return LocalStream(stream, port, dead, environment, key)


def retention_of(summary: Mapping[str, Any]) -> float:
    """Seconds for which a stream keeps a record, of `DescribeStreamSummary`'s answer."""
    return float(summary["RetentionPeriodHours"] * 3600)


def _own_id(member: Mapping[str, Any]) -> tuple[str, ...]:
    return (str(member["eventID"]),)


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
