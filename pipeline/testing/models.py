"""What `invoke` writes to: the toolkit's sinks, over services in memory that have AWS's limits and errors."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from typing import Any

from pipeline import sinks
from pipeline.aws.client import provide
from pipeline.aws.names import Resource
from pipeline.decisions.deadline import Deadline
from pipeline.emulator.services.client import MemoryClient, News
from pipeline.emulator.services.service import ACCOUNT, REGION, Service
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, PipelineError, SinkError
from pipeline.output import Output
from pipeline.ports import Clock, Effect, Environment, Sink

#: The sinks whose service is in memory, and how their resources' ARNs begin. Others with a resource are only recorded.
_KINDS: dict[type[Any], str] = {
    sinks.SQS: f"sqs:{REGION}:{ACCOUNT}:",
    sinks.DynamoDB: f"dynamodb:{REGION}:{ACCOUNT}:table/",
    sinks.Kinesis: f"kinesis:{REGION}:{ACCOUNT}:stream/",
    sinks.EventBridge: f"events:{REGION}:{ACCOUNT}:event-bus/",
    sinks.S3: "s3:::",
}


def has_model(sink: Sink) -> bool:
    """True for a sink whose service is in memory."""
    return isinstance(sink, tuple(_KINDS))


class Models:
    """Fresh services, of those that are asked for. `clock`: whose time they have."""

    def __init__(self, clock: Clock) -> None:
        #: Its clients reach them. Not the handler's own environment: a store of the caller's has its clients there.
        self.environment = ProcessEnvironment(clock=clock)
        self._chance = random.Random(0)
        self._news = News()
        self._clients: dict[str, MemoryClient] = {}

    async def bound(self, sink: Any) -> Sink:
        """The sink over its service, its resource made. Raises `ConfigurationError` for one that AWS would not make."""
        resource: Resource = sink.resource
        if resource.service not in self._clients:
            service = _service(resource.service, self._chance)
            self._clients[resource.service] = MemoryClient(service, self.environment.clock, self._news)
            provide(self.environment, service.name, self._clients[resource.service])
        made = copy.copy(sink)
        # By an ARN here: somebody else's resource is made as well, and what the process's variables say of a
        # deployment does not count.
        object.__setattr__(made, "existing", f"arn:aws:{_prefix(sink)}{_name(resource)}")
        if resource.existing is not None and isinstance(made, sinks.DynamoDB):
            return _ForeignTable(made, self._clients["dynamodb"])
        try:
            await made.create(self.environment)
        except PipelineError as error:
            raise ConfigurationError(f"the sink '{sink.name}' could not be made: {error}") from error
        bound: Sink = made
        return bound

    async def aclose(self) -> None:
        """Forget them."""
        await self.environment.aclose()


class _ForeignTable:
    """Somebody else's table: whether its keys are text or numbers is seen from the first item."""

    def __init__(self, sink: sinks.DynamoDB, client: MemoryClient) -> None:
        self.name = sink.name
        self._sink = sink
        self._client = client
        self._is_made = False

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        self._make(outputs)
        return await self._sink.write(outputs, environment, deadline)

    async def write_once(
        self, effects: Sequence[Effect], environment: Environment, deadline: Deadline
    ) -> Sequence[bool | SinkError]:
        self._make([output for effect in effects for output in effect.outputs])
        return await self._sink.write_once(effects, environment, deadline)

    def _make(self, outputs: Sequence[Output]) -> None:
        keys = [key for key in (self._sink.partition_key, self._sink.sort_key) if key is not None]
        for item in map(_decoded, outputs):
            if self._is_made or not item.keys() >= set(keys):
                continue  # the sink refuses an item without its keys, whatever table there is
            self._is_made = True
            kinds = {key: "S" if isinstance(item[key], str) else "N" for key in keys}
            self._client.call_now(
                "create_table",
                {
                    "TableName": self._sink.resource.physical,
                    "BillingMode": "PAY_PER_REQUEST",
                    "AttributeDefinitions": [{"AttributeName": key, "AttributeType": kinds[key]} for key in keys],
                    "KeySchema": [
                        {"AttributeName": key, "KeyType": kind}
                        for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
                    ],
                },
            )


def _decoded(output: Output) -> dict[str, Any]:
    found = None if output.is_text else json.loads(output.body)
    return found if isinstance(found, dict) else {}


def _prefix(sink: Any) -> str:
    return next(prefix for kind, prefix in _KINDS.items() if isinstance(sink, kind))


def _name(resource: Resource) -> str:
    """As a deployed resource is called: after its stack."""
    if resource.existing is not None:
        return resource.physical
    is_there_anyway = resource.service == "events" and resource.name == "default"
    return resource.name if is_there_anyway else f"stack-{resource.name}"


def _service(name: str, chance: random.Random) -> Service:
    # Imported one by one: each is large, and a test suite pays for those that it uses.
    if name == "sqs":
        from pipeline.emulator.services.queue import SQS

        return SQS(chance)
    if name == "dynamodb":
        from pipeline.emulator.services.dynamodb.service import DynamoDB

        return DynamoDB(chance)
    if name == "kinesis":
        from pipeline.emulator.services.stream import Kinesis

        return Kinesis()
    if name == "events":
        from pipeline.emulator.services.bus import EventBridge

        return EventBridge(chance, lambda arn, body, group, header: None)  # there are no rules
    from pipeline.emulator.services.bucket import S3

    return S3()
