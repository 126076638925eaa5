"""Outputs as events on an EventBridge bus."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.aws import tracing
from pipeline.aws.client import client, code_of, entry_error, sink_error
from pipeline.aws.delivery import Entry, Limits, deliver
from pipeline.aws.names import Resource, resource
from pipeline.aws.objects import object_text
from pipeline.decisions.deadline import Deadline
from pipeline.errors import ConfigurationError, SinkError, SinkRefused, SinkUnavailable
from pipeline.outcome import text_of
from pipeline.output import Output
from pipeline.ports import Environment
from pipeline.sinks.options import assign, check_name, check_when, refusal
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Grant, Stack

#: PutEvents: 10 entries and less than 1 MB a call. Which megabyte is not said, so calls are filled
#: by the smaller one, and an event between the two goes alone for EventBridge to decide.
LIMITS = Limits(count=10, size=1_000_000, entry_size=1_048_575)
_MAX_DETAIL_TYPE, _MAX_SOURCE = 128, 256
#: The size rule counts 14 bytes for a time, whether or not one is given.
_TIME_BYTES = 14

#: A fixed detail type, or a function of the value.
DetailType = str | Callable[[Any], str]


@dataclass(frozen=True, init=False)
class EventBridge:
    """Put each output as one event, whose detail is the output.

    `detail_type`: a text, or a function of the value. `source`: default the pipeline's name. The
    outputs must be objects; `carry=False` leaves out the member `_pipeline` of the detail.

    EventBridge keeps no order and no event: what no rule matches is gone. Limits: 10 events and
    1 MB a call.
    """

    bus: str
    detail_type: DetailType
    source: str | None
    carry: bool
    existing: str | None
    name: str
    when: Callable[[Any], bool] | None

    #: A text or an array has no room for what an output carries: `rejects=` writes objects here.
    takes_objects_only = True

    def __init__(
        self,
        bus: str,
        *,
        detail_type: DetailType,
        source: str | None = None,
        carry: bool = True,
        existing: str | None = None,
        name: str | None = None,
        when: Callable[[Any], bool] | None = None,
    ) -> None:
        resource("events", bus, existing, declared="sinks.EventBridge")
        check_name(name, "sinks.EventBridge")
        check_when(when, "sinks.EventBridge")
        _check_detail_type(detail_type)
        _check_source(source)
        assign(self, bus=bus, detail_type=detail_type, source=source, carry=carry)
        assign(self, existing=existing, name=name or bus, when=when)

    def bound_to(self, pipeline: str) -> EventBridge:
        """The same sink with the pipeline's name as the source of its events, unless it has one."""
        if self.source is not None:
            return self
        bound = copy(self)
        assign(bound, source=pipeline)
        return bound

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return conventions.sent(conventions.EVENTBRIDGE, self.bus)

    @property
    def resource(self) -> Resource:
        """The bus."""
        return Resource("events", self.bus, self.existing)

    @property
    def carries(self) -> bool:
        """True when id, hops and trace context travel with each event."""
        return self.carry

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Put the outputs; see the `Sink` port."""
        if not outputs:
            return []
        entries = [self._entry(output) for output in outputs]
        send = partial(self._send, environment=environment)
        return await deliver(entries, send, LIMITS, environment, deadline)

    async def create(self, environment: Environment) -> None:
        """Make the bus when it is missing."""
        name = self.resource.physical
        if name == "default":
            return
        try:
            events = await client(environment, "events")
            await events.create_event_bus(Name=name)
        except Exception as error:
            if code_of(error) != "ResourceAlreadyExistsException":
                raise sink_error(error, f"creating the bus '{name}'") from None

    def declare(self, stack: Stack) -> None:
        """Add the bus to a template, unless it is not ours."""
        from pipeline.aws.cloudformation import buses

        if not stack.has(self.resource):
            buses.add_bus(stack, self.resource)

    def grants(self) -> list[Grant]:
        """What a function needs for this sink."""
        from pipeline.aws.cloudformation.stack import Grant

        return [Grant(to="PutOn", resource=self.resource, actions=("events:PutEvents",))]

    def _entry(self, output: Output) -> Entry:
        if self.source is None:
            raise ConfigurationError(
                f"sinks.EventBridge('{self.bus}') has no source: give source=, or let a Pipeline assemble it"
            )
        try:
            return self._event(output, self.source)
        except Exception as error:
            return Entry(error=refusal(error))

    def _event(self, output: Output, source: str) -> Entry:
        detail = object_text(output, carry=self.carry, sink="EventBridge")
        detail_type = self._type_of(output)
        payload = {
            "EventBusName": self.resource.address,
            "Source": source,
            "DetailType": detail_type,
            "Detail": detail,
        }
        header = tracing.header_for(output.traceparent) if self.carry and output.traceparent else None
        if header is not None:
            payload["TraceHeader"] = header  # which EventBridge does not count
        counted = (source, detail_type, detail)
        size = _TIME_BYTES + sum(len(text.encode("utf-8", "surrogatepass")) for text in counted)
        return Entry(payload=payload, size=size)

    def _type_of(self, output: Output) -> str:
        if isinstance(self.detail_type, str):
            return self.detail_type
        try:
            found: object = self.detail_type(output.value)
        except Exception as error:
            raise SinkRefused(f"the detail_type function failed: {type(error).__name__}: {text_of(error)}") from error
        if not isinstance(found, str) or not 0 < len(found) <= _MAX_DETAIL_TYPE:
            what = f"text of {len(found)} characters" if isinstance(found, str) else f"a {type(found).__name__}"
            raise SinkRefused(f"the detail_type function gave {what}: give text of 1 to {_MAX_DETAIL_TYPE} characters")
        return found

    async def _send(self, entries: Sequence[Entry], environment: Environment) -> list[SinkError | None]:
        try:
            events = await client(environment, "events")
            answer = await events.put_events(Entries=[entry.payload for entry in entries])
        except Exception as error:
            raise sink_error(error, "EventBridge PutEvents") from None
        answers = answer.get("Entries", ())
        if len(answers) != len(entries):
            raise SinkUnavailable(f"EventBridge answered for {len(answers)} of {len(entries)} events")
        return [
            None
            if one.get("EventId") and not one.get("ErrorCode")
            else entry_error(one.get("ErrorCode"), one.get("ErrorMessage"), "EventBridge")
            for one in answers
        ]


def _check_detail_type(detail_type: object) -> None:
    if callable(detail_type):
        return
    if not isinstance(detail_type, str) or not 0 < len(detail_type) <= _MAX_DETAIL_TYPE:
        raise ConfigurationError(
            f"sinks.EventBridge(detail_type={detail_type!r}): give a text of 1 to {_MAX_DETAIL_TYPE} characters, "
            "such as 'order.priced', or a function of the value"
        )


def _check_source(source: object) -> None:
    if source is None:
        return
    if not isinstance(source, str) or not 0 < len(source) <= _MAX_SOURCE:
        raise ConfigurationError(f"sinks.EventBridge(source={source!r}): give a text, such as 'shop'")
    if source.startswith("aws."):
        raise ConfigurationError(f"sinks.EventBridge(source={source!r}): 'aws.' is reserved for AWS's own events")
