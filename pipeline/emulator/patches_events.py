"""What we change in moto's EventBridge, in the embedded server's process only: trace headers reach the queues of targets."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from functools import partial
from typing import Any, TypeVar

from moto.events import models, responses
from moto.sqs import models as queues

from pipeline.emulator.services.event import MAX_ENTRIES
from pipeline.emulator.services.trace_header import HEADER, in_call, passed_on, system_attributes

T = TypeVar("T")

Replace = Callable[[Any, str, Any], None]

#: Of the call, of the event at hand, and of the message that a target is sent.
_CALL: ContextVar[Any] = ContextVar("call_header", default=None)
_EVENT: ContextVar[Any] = ContextVar("event_header", default=None)
_MESSAGE: ContextVar[str | None] = ContextVar("message_header", default=None)


def apply(replace: Replace) -> None:
    """Hand trace headers on, in this process; after SQS was changed."""
    answer = responses.EventsHandler.put_events
    put = models.EventsBackend.put_events
    target: Any = vars(models.Rule)["_send_to_sqs_queue"]
    send: Any = queues.SQSBackend.send_message

    def put_events(handler: responses.EventsHandler) -> str:
        return _while(_CALL, handler.headers.get(HEADER), partial(answer, handler))

    def put_each(backend: models.EventsBackend, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        entries = in_call("events", "put_events", {"Entries": events}, _CALL.get())["Entries"]
        if len(entries) > MAX_ENTRIES:
            return put(backend, entries)  # it is refused
        answers: list[dict[str, Any]] = []
        for entry in entries:
            answers += _while(_EVENT, entry.get("TraceHeader"), partial(put, backend, [entry]))
        return answers

    def send_to_queue(rule: models.Rule, resource_id: str, event: dict[str, Any], group_id: str | None = None) -> None:
        header = passed_on(_EVENT.get(), str(event.get("id")))
        _while(_MESSAGE, header, partial(target, rule, resource_id, event, group_id))

    def send_message(backend: queues.SQSBackend, *args: Any, **given: Any) -> Any:
        header = _MESSAGE.get()
        if header is not None:
            given.setdefault("system_attributes", system_attributes(header))
        return send(backend, *args, **given)

    replace(responses.EventsHandler, "put_events", put_events)
    replace(models.EventsBackend, "put_events", put_each)
    replace(models.Rule, "_send_to_sqs_queue", send_to_queue)
    replace(queues.SQSBackend, "send_message", send_message)


def _while(variable: ContextVar[Any], value: Any, work: Callable[[], T]) -> T:
    token = variable.set(value)
    try:
        return work()
    finally:
        variable.reset(token)
