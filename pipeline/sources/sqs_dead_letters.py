"""Records that will never succeed, as messages on their queue's dead-letter queue.

A letter is the message as it was received, with one attribute more that says why, so that a
redrive brings back the same record: same body, same attributes, same identity.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.aws import letters, sqs, tracing
from pipeline.aws.delivery import Entry, deliver
from pipeline.aws.names import Resource, arn_name
from pipeline.decisions import wire
from pipeline.decisions.deadline import Deadline
from pipeline.decisions.tracing import MESSAGE_HEADER
from pipeline.errors import SinkError, SinkRefused, SinkUnavailable
from pipeline.ports import DeadLetter, Environment
from pipeline.record import RawRecord
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack

_KEPT_APART = (wire.ATTRIBUTE, wire.TRACEPARENT, wire.TRACESTATE)


def dead_letter_queue(queue: Resource) -> Resource:
    """The dead-letter queue of a queue of ours: `<name>-dlq`, and FIFO when that is."""
    return Resource("sqs", _with_suffix(queue.name), None if queue.existing is None else _arn(queue.existing))


def named_elsewhere(queue: Resource) -> Resource:
    """In a template, the dead-letter queue of a queue that is not ours. No queue of ours can have this name."""
    return Resource("sqs", f"dead letters of {queue.name}")


@dataclass(frozen=True)
class SQSDeadLetters:
    """The dead-letter queue of a queue: ours is `<name>-dlq`, another's is what its policy names."""

    queue: Resource

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return conventions.sent(conventions.SQS, dead_letter_queue(self.queue).name)

    async def put(
        self, letters: Sequence[DeadLetter], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Send the letters; see the `DeadLetters` port."""
        if not letters:
            return []
        entries = [self._entry(letter) for letter in letters]
        send = partial(sqs.send, url=partial(self.url, environment), environment=environment)
        return await deliver(entries, send, sqs.LIMITS, environment, deadline)

    async def url(self, environment: Environment) -> str:
        """The URL of the dead-letter queue."""
        if self.queue.existing is None:
            return await sqs.queue_url(dead_letter_queue(self.queue), environment)
        source = await sqs.queue_url(self.queue, environment)
        target = await sqs.dead_letter_target(source, environment)
        if target is None:
            raise SinkUnavailable(f"the queue '{self.queue.physical}' has no redrive policy, so no dead-letter queue")
        return await sqs.url_of(arn_name(target), Resource("sqs", self.queue.name, target).account, environment)

    def declare(self, stack: Stack) -> None:
        """Add nothing: the queue brings its dead-letter queue. Another's queue has one that only it knows: a parameter."""
        from pipeline.aws.cloudformation import queues

        if self.queue.existing is not None:
            queues.ask_for_dead_letters(stack, self.queue)

    def grants(self) -> list[Grant]:
        """What a function needs to put dead letters there."""
        from pipeline.aws.cloudformation.stack import Grant

        if self.queue.existing is None:
            return [Grant(to="SendTo", resource=dead_letter_queue(self.queue), actions=("sqs:SendMessage",))]
        find = Grant(to="FindDeadLettersOf", resource=self.queue, actions=("sqs:GetQueueUrl", "sqs:GetQueueAttributes"))
        send = Grant(to="SendTo", resource=named_elsewhere(self.queue), actions=("sqs:SendMessage", "sqs:GetQueueUrl"))
        return [find, send]

    @property
    def is_fifo(self) -> bool:
        """True when the queue, and so its dead-letter queue, keeps the order of message groups."""
        return sqs.is_fifo(self.queue.existing or self.queue.name)

    def _entry(self, letter: DeadLetter) -> Entry:
        record = letter.record
        body = _body(record)
        attributes = _attributes(letter, body)
        payload: dict[str, Any] = {"MessageBody": body, "MessageAttributes": attributes}
        payload |= tracing.system_attributes(_header(record))
        group = sqs.identifier(record.lane or record.id) if self.is_fifo else None
        if group is not None:
            payload |= {"MessageGroupId": group, "MessageDeduplicationId": sqs.identifier(record.id)}
        try:
            sqs.check_message(body, attributes)
        except SinkRefused as error:
            return Entry(error=error, key=group)
        return Entry(payload=payload, size=sqs.message_size(body, attributes), key=group)


def _body(record: RawRecord) -> str:
    """The body unchanged; a damaged one in the nearest form that SQS takes."""
    if isinstance(record.body, bytes):
        return base64.b64encode(record.body).decode()
    return letters.storable(record.body, record.origin)


def _attributes(letter: DeadLetter, body: str) -> dict[str, Mapping[str, Any]]:
    attributes = _original(letter.record)
    attributes.pop(letters.CAUSE, None)  # of an earlier stay in this queue
    if len(attributes) >= letters.MAX_ATTRIBUTES:
        attributes = _folded(attributes)
    room = letters.MAX_BYTES - sqs.message_size(body, attributes) - len(letters.CAUSE) - len("String")
    cause = letters.cause_text(letters.named(letter), room)
    if cause is not None:
        attributes[letters.CAUSE] = sqs.text_attribute(cause)
    return attributes


def _original(record: RawRecord) -> dict[str, Mapping[str, Any]]:
    """The message attributes as they came: Lambda spells their fields with small letters.

    One that is not as SQS writes them is left out: it must not keep the letter from being sent.
    """
    found = record.origin.get("messageAttributes") if isinstance(record.origin, dict) else None
    attributes: dict[str, Mapping[str, Any]] = {}
    for name, given in found.items() if isinstance(found, dict) else ():
        attribute = _attribute(given)
        if attribute is not None:
            attributes[name] = attribute
    return attributes


def _header(record: RawRecord) -> str | None:
    """X-Ray's header as it came: else the letter would get that of the invocation that rejects it."""
    system = record.origin.get("attributes") if isinstance(record.origin, dict) else None
    found = system.get(MESSAGE_HEADER) if isinstance(system, dict) else None
    return None if found is None else tracing.renewed(found)


def _attribute(given: Any) -> Mapping[str, Any] | None:
    kind = given.get("dataType", "String") if isinstance(given, dict) else None
    if not isinstance(kind, str):
        return None
    text, binary = given.get("stringValue"), given.get("binaryValue")
    if isinstance(binary, str):
        try:
            return {"DataType": kind, "BinaryValue": base64.b64decode(binary, validate=True)}
        except ValueError:
            return None
    return {"DataType": kind, "StringValue": text} if isinstance(text, str) else None


def _folded(attributes: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """All attributes in one, but for those by which a redriven record is known again."""
    kept = {name: attributes[name] for name in _KEPT_APART if name in attributes}
    others = {name: (value["DataType"], _plain(value)) for name, value in attributes.items() if name not in kept}
    return {**kept, letters.FOLDED: sqs.text_attribute(letters.folded(others))}


def _plain(value: Mapping[str, Any]) -> str:
    if "BinaryValue" in value:
        return base64.b64encode(value["BinaryValue"]).decode()
    return str(value["StringValue"])


def _with_suffix(name: str) -> str:
    stem = name.removesuffix(".fifo")
    return f"{stem}-dlq{name[len(stem) :]}"


def _arn(arn: str) -> str:
    head, _, name = arn.rpartition(":")
    return f"{head}:{_with_suffix(name)}"
