"""The pipelines as an AsyncAPI 3.0 document: channels are resources, operations what handlers do with them.

It says what is declared, and so nothing of servers: which account and region that is, a deployment decides. The fields are
those of the specification, 3.0.0 (asyncapi.com); bindings are given where it defines them for a service, which is SQS
(binding version 0.2.0, the latest that the schema of 3.0.0 knows) and neither Kinesis, DynamoDB, EventBridge nor S3.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Sequence
from typing import Any

from pipeline.app import Pipeline
from pipeline.aws.letters import CAUSE
from pipeline.deploy.graph import places
from pipeline.deploy.graph.model import Kind
from pipeline.deploy.graph.names import Ids, type_name, visible
from pipeline.deploy.graph.places import Place
from pipeline.deploy.graph.schemas import Schemas, outputs_of
from pipeline.engine.stage import Stage

_VERSION = "3.0.0"
_SQS_BINDING = "0.2.0"
#: Of the document, which is made anew with each change: the specification wants one.
_DOCUMENT_VERSION = "0.0.0"
#: Names of messages whose type has no name of its own.
_NAMES = ((Any, "Anything"), (object, "Anything"), (dict, "Object"), (list, "Array"), (str, "Text"), (bytes, "Bytes"))


def write(pipelines: Iterable[Pipeline]) -> str:
    """The document as JSON text. Raises `ConfigurationError` where a pipeline cannot be assembled."""
    return (
        json.dumps(document(pipelines), indent=2, ensure_ascii=False).encode(errors="backslashreplace").decode() + "\n"
    )


def document(pipelines: Iterable[Pipeline]) -> dict[str, Any]:
    """The document; see `write`."""
    declared = [(pipeline, pipeline.stages()) for pipeline in pipelines]
    stages = [stage for _, some in declared for stage in some]
    types = [one for stage in stages for one in (stage.payload_type, *outputs_of(stage.function))]
    made = _Document(Schemas(types))
    for stage in stages:
        made.add(stage)
    return {
        "asyncapi": _VERSION,
        "info": {"title": ", ".join(pipeline.name for pipeline, _ in declared), "version": _DOCUMENT_VERSION},
        "defaultContentType": "application/json",
        "channels": made.channels,
        "operations": made.operations,
        "components": made.components,
    }


class _Document:
    """The document while it is being made."""

    def __init__(self, schemas: Schemas) -> None:
        self.channels: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self._messages: dict[str, Any] = {}
        self._named: list[tuple[Any, str]] = []  # a type may have no hash
        self._rejected_name: str | None = None
        self._schemas = schemas
        self._channel_ids: dict[Hashable, str] = {}
        self._ids, self._operation_ids, self._message_ids = Ids(), Ids(), Ids()

    @property
    def components(self) -> dict[str, Any]:
        parts = {"messages": self._messages, "schemas": self._schemas.components}
        return {name: held for name, held in parts.items() if held}

    def add(self, stage: Stage) -> None:
        dead = places.of_dead_letters(stage)
        source = self._channel(places.of_source(stage.source))
        self._bind_dead_letters(stage, source, dead)
        taken = self._message(stage.payload_type)
        self._operation(stage, "receive", source, [taken], ", ".join(places.read_details(stage.source)))
        made = [self._message(one) for one in outputs_of(stage.function)]
        for sink in stage.sinks:
            channel = self._channel(places.of_sink(sink))
            self._operation(stage, "send", channel, made, ", ".join(places.write_details(sink)))
        self._operation(stage, "send", self._channel(dead), [self._rejected()], "records that will never succeed")

    def _channel(self, place: Place) -> str:
        found = self._channel_ids.get(place.key)
        if found is not None:
            return found
        name = self._channel_ids[place.key] = self._ids.new(place.kind.value, place.name)
        channel: dict[str, Any] = {
            "address": None if place.address is None else visible(place.address),
            "title": visible(place.name),
            "summary": place.caption,
            "messages": {},
        }
        if place.kind in (Kind.QUEUE, Kind.FIFO) and place.address is not None:
            channel["bindings"] = {"sqs": {"queue": _queue(place), "bindingVersion": _SQS_BINDING}}
        self.channels[name] = channel
        return name

    def _bind_dead_letters(self, stage: Stage, channel: str, dead: Place) -> None:
        """Say in a queue's binding where its policy puts what was received too often."""
        binding = self.channels[channel].get("bindings", {}).get("sqs")
        limit = getattr(stage.source, "max_receive_count", None)
        # A sink of the user's choice gets what the handler rejects; the queue's own policy knows nothing of it.
        if binding is None or limit is None or not dead.is_dead_letters or dead.address is None:
            return
        policy = {"deadLetterQueue": {"name": visible(dead.address)}, "maxReceiveCount": limit}
        binding["queue"]["redrivePolicy"] = policy
        binding["deadLetterQueue"] = _queue(dead)

    def _operation(self, stage: Stage, action: str, channel: str, messages: Sequence[str], summary: str) -> None:
        for message in messages:
            self.channels[channel]["messages"][message] = {"$ref": f"#/components/messages/{message}"}
        name = self._operation_ids.new(stage.name, action if action == "receive" else f"{action}_{channel}")
        operation: dict[str, Any] = {
            "action": action,
            "channel": {"$ref": f"#/channels/{channel}"},
            "title": f"{stage.full_name} {action}s",
            **({"summary": visible(summary)} if summary else {}),
            "tags": [{"name": stage.pipeline}],
            "messages": [{"$ref": f"#/channels/{channel}/messages/{message}"} for message in messages],
        }
        self.operations[name] = operation

    def _message(self, annotation: Any) -> str:
        """The name of a type's message, which is added when it is new."""
        for known, name in self._named:
            if known == annotation:
                return name
        title = next((name for known, name in _NAMES if known == annotation), None) or visible(type_name(annotation))
        name = self._message_ids.new("", title)
        self._named.append((annotation, name))
        self._messages[name] = {"name": name, "title": title, **self._content(annotation)}
        return name

    def _content(self, annotation: Any) -> dict[str, Any]:
        if annotation is str:
            return {"contentType": "text/plain", "payload": {"type": "string"}}
        if annotation is bytes:
            return {"contentType": "application/octet-stream", "payload": {"type": "string", "format": "binary"}}
        return {"contentType": "application/json", "payload": self._schemas.of(annotation)}

    def _rejected(self) -> str:
        """The name of the message that stands in every dead-letter queue."""
        if self._rejected_name is None:
            name = self._rejected_name = self._message_ids.new("", "Rejected")
            cause = {"type": "string", "description": "JSON: handler, cause, attempts and exhausted."}
            self._messages[name] = {
                "name": name,
                "title": "Rejected record",
                "summary": "A record as it was received (of a stream as base64), with the cause beside it.",
                "headers": {"type": "object", "properties": {CAUSE: cause}},
                "payload": {},
            }
        return self._rejected_name


def _queue(place: Place) -> dict[str, Any]:
    return {"name": visible(place.address or place.name), "fifoQueue": place.kind is Kind.FIFO}
