"""`rejects=`: any sink as the place for records that will never succeed."""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.aws import letters
from pipeline.aws.letters import ENCODING, said
from pipeline.decisions import tracing, wire
from pipeline.decisions.deadline import Deadline
from pipeline.errors import ConfigurationError, SinkError
from pipeline.output import Output
from pipeline.ports import DeadLetter, Environment, Sink
from pipeline.record import NO_ATTRIBUTES, RawRecord
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack

#: What an attribute takes besides its name and value: its type.
_TYPE_BYTES = len("String")
#: What the sink adds to carry id, hops and trace context.
_CARRIED_BYTES = 200


class SinkDeadLetters:
    """Writes dead letters to a sink: the body unchanged, the cause in one attribute.

    A stream's body is bytes: its letter has them as base64, and says so (`encoding`). A sink that takes
    objects only, or has no attributes, gets the object `{"id", "body", "cause", "attributes"}`, with
    `encoding` beside them. In a table, the id stands under the `partition_key`, and a `sort_key` holds the
    handler. A letter that is larger than the sink takes stays on its source.

    Raises `ConfigurationError` for a sink that could take no letter.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        takes_objects = getattr(sink, "takes_objects_only", False)
        self._writes_objects = takes_objects or not getattr(sink, "has_attributes", True)
        # A table's key is a name in the object; a stream's is a path into values, and a letter has no such value.
        self._id: str = getattr(sink, "partition_key", "id") if takes_objects else "id"
        self._handler: str | None = getattr(sink, "sort_key", None) if takes_objects else None
        self._reads_key = any(_option(sink, name) for name in ("group", "partition_key")) and not takes_objects
        taken = {"body", "cause", "attributes", ENCODING} & {self._id, self._handler}
        if taken:
            raise ConfigurationError(
                f"rejects='{sink.name}': a rejected record is stored with its '{taken.pop()}', so no key attribute "
                "can have that name: use another table"
            )
        if _option(sink, "hash_key"):
            raise ConfigurationError(
                f"rejects='{sink.name}': a rejected record has no hash key, so the stream would take none: "
                "declare the sink without hash_key="
            )

    @property
    def sink(self) -> Sink:
        """Where the letters go."""
        return self._sink

    @property
    def described(self) -> Mapping[str, str]:
        """What the sink says of itself."""
        return conventions.described_by(self._sink)

    async def put(
        self, letters: Sequence[DeadLetter], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        return await self._sink.write([self._output(letter) for letter in letters], environment, deadline)

    async def create(self, environment: Environment) -> None:
        """Make the sink's resource, where sinks can be made (local runs)."""
        create = getattr(self._sink, "create", None)
        if create is not None:
            await create(environment)

    def declare(self, stack: Stack) -> None:
        """Add the sink's resource to a template, where it has one."""
        declare = getattr(self._sink, "declare", None)
        if declare is not None:
            declare(stack)
        watch = getattr(self._sink, "watch_letters", None)
        if watch is not None:
            watch(stack)

    def grants(self) -> list[Grant]:
        """What the sink needs."""
        grants = getattr(self._sink, "grants", None)
        return [] if grants is None else grants()

    def _output(self, letter: DeadLetter) -> Output:
        record = letter.record
        body, encoding = _body(record)
        if self._writes_objects:
            value: Any = self._object(letter, body, encoding)
            text, attributes = letters.compact(value), NO_ATTRIBUTES
        else:
            # No service takes an empty text; a line's end is nothing in base64.
            value = text = body or "\n"
            attributes = self._attributes(letter, text, encoding)
        return Output(
            id=wire.output_id(letter.handler, "rejects", self._sink.name, record.id, 0),
            sink=self._sink.name,
            body=text,
            is_text=not self._writes_objects,
            key=self._key(record),
            default_key=record.lane or record.id,
            attributes=attributes,
            hops=record.carried.hops if record.carried else 0,
            traceparent=tracing.carried_on(record.traces),
            tracestate=tracing.state_of(record.traces),
            sent_at=record.sent_at,
            value=value,
        )

    def _key(self, record: RawRecord) -> str | None:
        """The record's own lane. A sink that reads its ordering key from a value finds none in a letter's."""
        return record.lane or (record.id if self._reads_key else None)

    def _object(self, letter: DeadLetter, body: str, encoding: Mapping[str, str]) -> dict[str, Any]:
        keys = {self._id: letter.record.id}
        if self._handler is not None:
            keys[self._handler] = letter.handler
        cause = {**said(letter), "cause": letter.cause[: letters.MAX_CAUSE]}
        return {**keys, "body": body, **encoding, "cause": cause, "attributes": dict(letter.record.attributes)}

    def _attributes(self, letter: DeadLetter, body: str, encoding: Mapping[str, str]) -> Mapping[str, str]:
        """The record's attributes and the cause: ten at most, with what the sink adds, and no more than fit."""
        attributes = {name: value for name, value in letter.record.attributes.items() if name != letters.CAUSE}
        carries = getattr(self._sink, "carries", True)
        added = {letters.CAUSE, *encoding, *((wire.ATTRIBUTE, wire.TRACEPARENT) if carries else ())}
        if len(attributes.keys() | added) > letters.MAX_ATTRIBUTES:
            attributes = {letters.FOLDED: letters.folded({n: ("String", v) for n, v in attributes.items()})}
        attributes |= encoding
        room = letters.MAX_BYTES - _size(body) - (_CARRIED_BYTES if carries else 0)
        room -= sum(_size(name) + _TYPE_BYTES + _size(value) for name, value in attributes.items())
        cause = letters.cause_text(letters.named(letter), room - len(letters.CAUSE) - _TYPE_BYTES)
        return attributes if cause is None else {**attributes, letters.CAUSE: cause}


def _body(record: RawRecord) -> tuple[str, Mapping[str, str]]:
    """The body as text, with the attribute that says how: bytes are base64, and nothing is said of a text."""
    if isinstance(record.body, bytes):
        return binascii.b2a_base64(record.body, newline=False).decode(), {ENCODING: "base64"}
    return letters.storable(record.body, record.origin), NO_ATTRIBUTES


def _option(sink: Sink, name: str) -> Any:
    return getattr(sink, name, None)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
