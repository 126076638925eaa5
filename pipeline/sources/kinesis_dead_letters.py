"""Records of a stream that will never succeed, as messages on a queue that is made for it.

A letter's body is the record's data as the stream holds it (base64), so that it can be put back as it
was; its attributes say where it stood and why it is here. SQS takes 1 MiB a message and Kinesis up to
10 MiB a record: a larger record becomes several messages, numbered in the attribute `part`.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.aws import letters, sqs
from pipeline.aws.delivery import Entry, deliver
from pipeline.aws.names import Resource
from pipeline.decisions.deadline import Deadline
from pipeline.errors import SinkError
from pipeline.ports import DeadLetter, Environment
from pipeline.record import RawRecord
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack

#: A dead letter is kept as long as SQS allows: 14 days.
_SECONDS = 1_209_600
#: What is left of a message for its part of the body, beside its attributes (which are cut to fit):
#: a multiple of 4, so that each part is base64 by itself.
_PART = letters.MAX_BYTES - 16_384
#: An attribute's text is cut to this many characters; Kinesis' own names are shorter.
_LONGEST = 1_024

ENCODING = letters.ENCODING
PART = "part"  #: "2/3": the second of three messages that make up one record
HASH_KEY = "hash_key"


@dataclass(frozen=True)
class KinesisDeadLetters:
    """The dead-letter queue of a stream: `<stream>-stream-dlq`, standard."""

    stream: Resource

    @property
    def queue(self) -> Resource:
        """The queue; it is ours also when the stream is not."""
        return Resource("sqs", f"{self.stream.name}-stream-dlq")

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return conventions.sent(conventions.SQS, self.queue.name)

    async def put(
        self, letters: Sequence[DeadLetter], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Send the letters; see the `DeadLetters` port. Every part of one has to be accepted."""
        entries = [_entries(letter) for letter in letters]
        send = partial(sqs.send, url=partial(sqs.queue_url, self.queue, environment), environment=environment)
        flat = [entry for parts in entries for entry in parts]
        answers = iter(await deliver(flat, send, sqs.LIMITS, environment, deadline) if flat else ())
        answered = [[next(answers) for _ in parts] for parts in entries]
        return [next((error for error in errors if error is not None), None) for errors in answered]

    async def create(self, environment: Environment) -> None:
        """Make the queue where it is missing."""
        await sqs.create_queue(self.queue, environment, {"MessageRetentionPeriod": str(_SECONDS)})

    def declare(self, stack: Stack) -> None:
        """Add the queue to a template; several handlers of one stream share it."""
        from pipeline.aws.cloudformation import queues

        if not stack.has(self.queue):
            why = "The toolkit writes to it, each record with its cause: a stream has no redrive."
            queues.add_dead_letters(stack, self.queue, {}, why=why)

    def grants(self) -> list[Grant]:
        """What a function needs to put dead letters there."""
        from pipeline.aws.cloudformation.stack import Grant

        return [Grant(to="SendTo", resource=self.queue, actions=("sqs:SendMessage",))]


def _entries(letter: DeadLetter) -> list[Entry]:
    body, encoding = _body(letter.record)
    size = _PART if body.isascii() else _PART // 4  # a character takes up to four bytes
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return [_entry(letter, part, encoding, f"{number}/{len(parts)}") for number, part in enumerate(parts, 1)]


def _entry(letter: DeadLetter, part: str, encoding: str, number: str) -> Entry:
    attributes = _attributes(letter.record) | {ENCODING: encoding}
    if not number.endswith("/1"):
        attributes[PART] = number
    cause = letters.cause_text(letters.named(letter), letters.MAX_CAUSE)
    assert cause is not None, "there is room for a cause beside a part"
    attributes[letters.CAUSE] = cause
    named: dict[str, Mapping[str, Any]] = {name: sqs.text_attribute(text) for name, text in attributes.items()}
    payload = {"MessageBody": part, "MessageAttributes": named}
    # One key for the parts of a record: a reader finds them in order.
    key = None if number.endswith("/1") else letter.record.id
    return Entry(payload=payload, size=sqs.message_size(part, named), key=key)


def _body(record: RawRecord) -> tuple[str, str]:
    """The data as the stream holds it. SQS takes no empty body; a line's end is nothing in base64."""
    data = record.origin.data
    if isinstance(data, str):
        return letters.without_forbidden(data) or "\n", "as received"
    return binascii.b2a_base64(data, newline=False).decode() or "\n", "base64"


def _attributes(record: RawRecord) -> dict[str, str]:
    attributes = dict(record.attributes)
    if record.origin.hash_key is not None:
        attributes[HASH_KEY] = record.origin.hash_key
    return {name: letters.without_forbidden(text)[:_LONGEST] for name, text in attributes.items() if text}
