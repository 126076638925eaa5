"""Outputs as records of a Kinesis stream."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.aws import kinesis
from pipeline.aws.delivery import Entry, deliver
from pipeline.aws.names import Resource, resource
from pipeline.aws.objects import object_text
from pipeline.decisions import keys
from pipeline.decisions.codec import loads
from pipeline.decisions.deadline import Deadline
from pipeline.errors import ConfigurationError, SinkError, SinkRefused
from pipeline.output import Output
from pipeline.ports import Environment
from pipeline.sinks.options import assign, check_name, check_when, refusal
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack

_STREAM = re.compile(r"stream/[a-zA-Z0-9_.-]+")
_HASH_KEY = re.compile("0|[1-9][0-9]{0,38}")
_MAX_HASH_KEY = 2**128 - 1


@dataclass(frozen=True, init=False)
class Kinesis:
    """Put each output as one record.

    `partition_key`: a path into the output's value; the partition key, when `Emit(key=)` gives
    none. Without both, it is the record's lane, or its key. One of more than 256 characters becomes
    its SHA-256. `hash_key`: a path to the explicit hash key, 0 to 2**128 - 1 as a number or decimal
    text, which chooses the shard in the partition key's place. `carry=False`: no id, hops or trace
    context travel along; in any case they travel in objects only, as the member `_pipeline`.

    At least once: what was not answered for is put again. Records of one partition key are accepted
    in order, each call holding one of them at most, and a repeat stands behind its first copy. So
    many outputs of one key take many calls. Two things undo the order on a stream: different hash
    keys for one partition key, and the record distribution strategy AUTO, which ignores both.

    Limits: 500 records and 10 MiB a call, 1 MiB a record with its key unless the stream was set to
    take up to 10 MiB. Provisioned streams cost $0.014 per million PUT units of 25 KB, beside
    their shards: a record of 1 KB counts as much as one of 25.
    """

    stream: str
    partition_key: str | None
    hash_key: str | None
    carry: bool
    existing: str | None
    name: str
    when: Callable[[Any], bool] | None

    #: A record has no place for message attributes.
    has_attributes = False

    def __init__(
        self,
        stream: str,
        *,
        partition_key: str | None = None,
        hash_key: str | None = None,
        carry: bool = True,
        existing: str | None = None,
        name: str | None = None,
        when: Callable[[Any], bool] | None = None,
    ) -> None:
        resource("kinesis", stream, existing, declared="sinks.Kinesis")
        check_name(name, "sinks.Kinesis")
        check_when(when, "sinks.Kinesis")
        _check_existing(existing)
        _check_path("partition_key", partition_key)
        _check_path("hash_key", hash_key)
        assign(self, stream=stream, partition_key=partition_key, hash_key=hash_key, carry=carry)
        assign(self, existing=existing, name=name or stream, when=when)

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return conventions.sent(conventions.KINESIS, self.stream)

    @property
    def resource(self) -> Resource:
        """The stream."""
        return Resource("kinesis", self.stream, self.existing)

    @property
    def carries(self) -> bool:
        """True when id, hops and trace context travel with each object."""
        return self.carry

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Put the outputs; see the `Sink` port."""
        if not outputs:
            return []
        entries = [self._entry(output) for output in outputs]
        send = partial(kinesis.put, stream=self.resource, environment=environment)
        return await deliver(entries, send, kinesis.LIMITS, environment, deadline)

    async def create(self, environment: Environment) -> None:
        """Make the stream, on demand, when it is missing."""
        await kinesis.create_stream(self.resource, environment, None)

    def declare(self, stack: Stack) -> None:
        """Add the stream to a template, unless it is not ours or a handler reads it."""
        from pipeline.aws.cloudformation import streams

        if not stack.has(self.resource):
            streams.add_stream(stack, self.resource, shards=None)

    def grants(self) -> list[Grant]:
        """What a function needs for this sink."""
        from pipeline.aws.cloudformation.stack import Grant

        return [Grant(to="PutOn", resource=self.resource, actions=("kinesis:PutRecords",))]

    def _entry(self, output: Output) -> Entry:
        key: str | None = None
        try:
            key = self._partition_key(output)
            return self._record(output, key)
        except Exception as error:
            return Entry(error=refusal(error), key=key)

    def _record(self, output: Output, key: str) -> Entry:
        data = self._text(output).encode()
        payload: dict[str, Any] = {"Data": data, "PartitionKey": key}
        if self.hash_key is not None:
            payload["ExplicitHashKey"] = _hash_key(output, self.hash_key)
        return Entry(payload=payload, size=len(data) + len(key.encode()), key=key)

    def _text(self, output: Output) -> str:
        if self.carry and not output.is_text and output.body.startswith("{"):
            return object_text(output, carry=True, sink="Kinesis")
        return output.body

    def _partition_key(self, output: Output) -> str:
        if output.key is not None:
            return kinesis.partition_key(output.key)
        if self.partition_key is None:
            return kinesis.partition_key(output.default_key)
        found = _at(output, self.partition_key)
        if found is None or found == "":
            raise SinkRefused(
                f"the output has no '{self.partition_key}', which is its partition key: return one, or use Emit(key=)"
            )
        return kinesis.partition_key(found if isinstance(found, str) else keys.key_text(found))


def _check_existing(existing: str | None) -> None:
    if existing is not None and not _STREAM.fullmatch(existing.split(":", 5)[5]):
        raise ConfigurationError(
            f"sinks.Kinesis(existing={existing!r}): give the ARN of a stream, such as "
            "'arn:aws:kinesis:eu-west-1:111122223333:stream/orders'"
        )


def _check_path(option: str, path: object) -> None:
    if path is None:
        return
    if not isinstance(path, str):
        raise ConfigurationError(
            f"sinks.Kinesis({option}={path!r}): give a path into the output, such as 'customer.id'"
        )
    keys.split(path)


def _at(output: Output, path: str) -> Any:
    """What stands at a path of the output's value, or None."""
    # From the body, not from what the handler returned: outputs kept from an earlier run have no more.
    value = None if output.is_text else loads(output.body)
    return keys.at(value, keys.split(path))


def _hash_key(output: Output, path: str) -> str:
    found = _at(output, path)
    if isinstance(found, int) and not isinstance(found, bool) and 0 <= found <= _MAX_HASH_KEY:
        return str(found)
    if isinstance(found, str) and _HASH_KEY.fullmatch(found) and int(found) <= _MAX_HASH_KEY:
        return found
    raise SinkRefused(
        f"the output's '{path}' is no hash key: Kinesis takes an integer from 0 to 2**128 - 1, "
        "as a number or as decimal text without leading zeros"
    )
