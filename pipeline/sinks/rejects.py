"""`rejects=`: any sink as the place for records that will never succeed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.aws import letters
from pipeline.aws.letters import said
from pipeline.decisions import wire
from pipeline.decisions.deadline import Deadline
from pipeline.errors import ConfigurationError, SinkError
from pipeline.output import Output
from pipeline.ports import DeadLetter, Environment, Sink
from pipeline.record import NO_ATTRIBUTES, RawRecord

#: What an attribute takes besides its name and value: its type.
_TYPE_BYTES = len("String")
#: What the sink adds to carry id, hops and trace context.
_CARRIED_BYTES = 200


class SinkDeadLetters:
    """Writes dead letters to a sink: the body unchanged, the cause in one attribute.

    A sink that takes objects only gets one: `{"id", "body", "cause", "attributes"}`. On a sink with
    a `partition_key`, that is the id's name, and a `sort_key` holds the handler.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._takes_objects = getattr(sink, "takes_objects_only", False)
        self._id = getattr(sink, "partition_key", "id")
        self._handler: str | None = getattr(sink, "sort_key", None)
        taken = {"body", "cause", "attributes"} & {self._id, self._handler}
        if self._takes_objects and taken:
            raise ConfigurationError(
                f"rejects='{sink.name}': a rejected record is stored with its '{taken.pop()}', so no key attribute "
                "can have that name: use another table"
            )

    async def put(
        self, letters: Sequence[DeadLetter], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        return await self._sink.write([self._output(letter) for letter in letters], environment, deadline)

    async def create(self, environment: Environment) -> None:
        """Make the sink's resource, where sinks can be made (local runs)."""
        create = getattr(self._sink, "create", None)
        if create is not None:
            await create(environment)

    def _output(self, letter: DeadLetter) -> Output:
        record = letter.record
        body = record.body if isinstance(record.body, str) else record.body.decode("utf-8", "backslashreplace")
        body = letters.storable(body, record.origin)
        value = self._object(letter, body) if self._takes_objects else body
        return Output(
            id=wire.output_id(letter.handler, "rejects", self._sink.name, record.id, 0),
            sink=self._sink.name,
            body=letters.compact(value) if self._takes_objects else body,
            is_text=not self._takes_objects,
            key=self._key(record),
            default_key=record.lane or record.id,
            attributes=NO_ATTRIBUTES if self._takes_objects else self._attributes(letter, body),
            hops=record.carried.hops if record.carried else 0,
            traceparent=record.carried.traceparent if record.carried else None,
            value=value,
        )

    def _key(self, record: RawRecord) -> str | None:
        """The record's own lane. A sink that reads its group from a value finds none in a letter's."""
        if record.lane is None and getattr(self._sink, "group", None) is not None:
            return record.id
        return record.lane

    def _object(self, letter: DeadLetter, body: str) -> dict[str, Any]:
        keys = {self._id: letter.record.id}
        if self._handler is not None:
            keys[self._handler] = letter.handler
        return {**keys, "body": body, "cause": said(letter), "attributes": dict(letter.record.attributes)}

    def _attributes(self, letter: DeadLetter, body: str) -> Mapping[str, str]:
        """The record's attributes and the cause: ten at most, with what the sink adds, and no more than fit."""
        attributes = {name: value for name, value in letter.record.attributes.items() if name != letters.CAUSE}
        carries = getattr(self._sink, "carries", True)
        added = {letters.CAUSE, *((wire.ATTRIBUTE, wire.TRACEPARENT) if carries else ())}
        if len(attributes.keys() | added) > letters.MAX_ATTRIBUTES:
            attributes = {letters.FOLDED: letters.folded({n: ("String", v) for n, v in attributes.items()})}
        room = letters.MAX_BYTES - _size(body) - (_CARRIED_BYTES if carries else 0)
        room -= sum(_size(name) + _TYPE_BYTES + _size(value) for name, value in attributes.items())
        cause = letters.cause_text(said(letter), room - len(letters.CAUSE) - _TYPE_BYTES)
        return attributes if cause is None else {**attributes, letters.CAUSE: cause}


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
