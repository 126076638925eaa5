"""`rejects=`: any sink as the place for records that will never succeed."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from pipeline.decisions import wire
from pipeline.decisions.deadline import Deadline
from pipeline.errors import SinkError
from pipeline.output import Output
from pipeline.ports import DeadLetter, Environment, Sink

#: The attribute that tells why.
CAUSE = "pipeline_cause"


class SinkDeadLetters:
    """Writes dead letters to a sink: the body unchanged, the cause in one attribute."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

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
        return Output(
            id=wire.output_id(letter.handler, "rejects", self._sink.name, record.id, 0),
            sink=self._sink.name,
            body=body,
            is_text=True,
            key=record.lane,
            default_key=record.lane or record.id,
            attributes={**record.attributes, CAUSE: cause_text(letter)},
            hops=record.carried.hops if record.carried else 0,
            traceparent=record.carried.traceparent if record.carried else None,
            value=body,
        )


def cause_text(letter: DeadLetter, limit: int = 2_048) -> str:
    """Why a record is dead, as JSON text of at most about `limit` bytes."""
    cause = letter.cause.encode("utf-8", "replace")[: limit - 256].decode("utf-8", "ignore")
    return orjson.dumps(
        {"handler": letter.handler, "cause": cause, "attempts": letter.attempts, "exhausted": letter.exhausted}
    ).decode()
