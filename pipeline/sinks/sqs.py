"""Outputs as messages on an SQS queue."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.aws import letters, sqs, tracing
from pipeline.aws.delivery import Entry, deliver
from pipeline.aws.names import Resource, resource
from pipeline.decisions import keys, wire
from pipeline.decisions.codec import loads
from pipeline.decisions.deadline import Deadline
from pipeline.errors import ConfigurationError, SinkError, SinkRefused
from pipeline.output import Output
from pipeline.ports import Environment
from pipeline.sinks.options import assign, check_name, check_when, refusal
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack


@dataclass(frozen=True, init=False)
class SQS:
    """Send each output as one message; FIFO when the queue's name ends in `.fifo`.

    `group`: a path into the output's value; the message group (FIFO), when `Emit(key=)` gives
    none. Without both, the group is the record's lane, or its key. `delay`: seconds until a message
    becomes visible (0 to 900, not on FIFO queues). `carry=False`: no id, hops or trace context
    travel along. On a standard queue `Emit(key=)` becomes the fair-queue group.

    A FIFO queue gets the output's id as deduplication id: a repeat within five minutes is dropped
    by SQS. Limits: 1 MiB a message with its attributes, ten attributes with the pipeline's two. What vendors add
    to a trace's context (`tracestate`) is a third where there is room for it, and is left out where there is none.
    """

    queue: str
    group: str | None
    delay: float
    carry: bool
    existing: str | None
    name: str
    when: Callable[[Any], bool] | None

    def __init__(
        self,
        queue: str,
        *,
        group: str | None = None,
        delay: float = 0,
        carry: bool = True,
        existing: str | None = None,
        name: str | None = None,
        when: Callable[[Any], bool] | None = None,
    ) -> None:
        target = resource("sqs", queue, existing, declared="sinks.SQS")
        check_name(name, "sinks.SQS")
        check_when(when, "sinks.SQS")
        _check_options(group, delay, is_fifo=_is_fifo(target))
        assign(self, queue=queue, group=group, delay=delay, carry=carry)
        assign(self, existing=existing, name=name or queue, when=when)

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return conventions.sent(conventions.SQS, self.queue)

    @property
    def resource(self) -> Resource:
        """The queue."""
        return Resource("sqs", self.queue, self.existing)

    @property
    def is_fifo(self) -> bool:
        """True when the queue keeps the order of each message group."""
        return _is_fifo(self.resource)

    @property
    def carries(self) -> bool:
        """True when id, hops and trace context travel with each message."""
        return self.carry

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Send the outputs; see the `Sink` port."""
        if not outputs:
            return []
        entries = [self._entry(output) for output in outputs]
        url = partial(sqs.queue_url, self.resource, environment)
        send = partial(sqs.send, url=url, environment=environment)
        return await deliver(entries, send, sqs.LIMITS, environment, deadline)

    async def create(self, environment: Environment) -> None:
        """Make the queue when it is missing."""
        await sqs.create_queue(self.resource, environment, {})

    def declare(self, stack: Stack) -> None:
        """Add the queue to a template, unless it is not ours or a handler reads it."""
        from pipeline.aws.cloudformation import queues

        if not stack.has(self.resource):
            queues.add_unread(stack, self.resource)

    def watch_letters(self, stack: Stack) -> None:
        """Add the alarm of a queue that takes what will never succeed."""
        from pipeline.aws.cloudformation import queues
        from pipeline.aws.cloudformation.stack import logical_id

        queues.watch_letters(stack, self.resource, logical_id(self.queue, "Queue"))

    def grants(self) -> list[Grant]:
        """What a function needs for this sink."""
        from pipeline.aws.cloudformation.stack import Grant

        url = ("sqs:GetQueueUrl",) if self.existing else ()
        return [Grant(to="SendTo", resource=self.resource, actions=("sqs:SendMessage", *url))]

    def _entry(self, output: Output) -> Entry:
        group: str | None = None
        try:
            group = self._group(output)
            return self._message(output, group)
        except Exception as error:
            return Entry(error=refusal(error), key=group if self.is_fifo else None)

    def _message(self, output: Output, group: str | None) -> Entry:
        attributes = {name: sqs.text_attribute(value) for name, value in output.attributes.items()}
        if self.carry:
            attributes[wire.ATTRIBUTE] = sqs.text_attribute(wire.carried_text(output))
            if output.traceparent:
                attributes[wire.TRACEPARENT] = sqs.text_attribute(output.traceparent)
                attributes.pop(wire.TRACESTATE, None)  # of the context that was just replaced
        body = output.body if output.is_text else _escape_noncharacters(output.body)
        sqs.check_message(body, attributes)
        size = sqs.message_size(body, attributes)
        if self.carry and output.traceparent and output.tracestate:
            size += _add_state(output.tracestate, attributes, size)
        payload: dict[str, Any] = {"MessageBody": body, "MessageAttributes": attributes}
        if self.carry and output.traceparent:
            payload |= tracing.system_attributes(tracing.header_for(output.traceparent))  # which SQS does not count
        if group is not None:
            payload["MessageGroupId"] = group
        if self.is_fifo:
            payload["MessageDeduplicationId"] = sqs.identifier(output.id)
        delay = self._delay(output)
        if delay:
            payload["DelaySeconds"] = delay
        return Entry(payload=payload, size=size, key=group if self.is_fifo else None)

    def _group(self, output: Output) -> str | None:
        """The message group; None for a standard queue's message without a tenant."""
        if output.key is not None:
            return sqs.identifier(output.key)
        if self.group is not None:
            return sqs.identifier(_at(output, self.group))
        return sqs.identifier(output.default_key) if self.is_fifo else None

    def _delay(self, output: Output) -> int:
        delay = self.delay if output.delay is None else output.delay
        if delay and self.is_fifo:
            raise SinkRefused(f"Emit(delay={delay}): a FIFO queue has no delay for single messages")
        if delay > sqs.MAX_DELAY:
            raise SinkRefused(f"Emit(delay={delay}): SQS takes at most {sqs.MAX_DELAY} seconds")
        return math.ceil(delay)


def _check_options(group: object, delay: object, *, is_fifo: bool) -> None:
    if group is not None:
        if not isinstance(group, str):
            raise ConfigurationError(f"sinks.SQS(group={group!r}): give a path into the output, such as 'customer.id'")
        keys.split(group)
    if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay <= sqs.MAX_DELAY:
        raise ConfigurationError(f"sinks.SQS(delay={delay!r}): give seconds from 0 to {sqs.MAX_DELAY}")
    if delay and is_fifo:
        raise ConfigurationError(
            f"sinks.SQS(delay={delay!r}): a FIFO queue delays all messages or none; leave delay out and set "
            "DelaySeconds on the queue"
        )


def _is_fifo(queue: Resource) -> bool:
    return sqs.is_fifo(queue.existing or queue.name)


def _at(output: Output, path: str) -> str:
    """What stands at a path of the output's value, as text."""
    # From the body, not from what the handler returned: outputs kept from an earlier run have no more.
    value = None if output.is_text else loads(output.body)
    found = keys.at(value, keys.split(path))
    if found is None or found == "":
        raise SinkRefused(f"the output has no '{path}', which is its message group: return one, or use Emit(key=)")
    return found if isinstance(found, str) else keys.key_text(found)


def _add_state(state: str, attributes: dict[str, Any], size: int) -> int:
    """Add `tracestate` to a message of this size, if SQS takes it then; the bytes that it adds."""
    attribute = sqs.text_attribute(state)
    more = sqs.message_size("", {wire.TRACESTATE: attribute})
    if len(attributes) >= letters.MAX_ATTRIBUTES or size + more > sqs.LIMITS.entry_size:
        return 0
    attributes[wire.TRACESTATE] = attribute
    return more


def _escape_noncharacters(body: str) -> str:
    """JSON can spell the two characters that it allows and SQS does not."""
    if body.isascii():
        return body
    return body.replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
