"""The embedded server's SQS: moto speaks AWS's protocols, and the service in memory answers.

moto's own SQS differs from AWS in more than can be mended there (`docs/emulator.md`). Its queues stay as what its other
services see of them: SNS, EventBridge and S3 send to them, CloudFormation makes them.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from moto.core.responses import ActionResult, EmptyResult
from moto.sqs import exceptions, models, responses

from pipeline.emulator.services.queue import SQS
from pipeline.emulator.services.queue_attributes import COMPUTED, KNOWN
from pipeline.emulator.services.service import ServiceError
from pipeline.emulator.services.trace_header import HEADER, in_call

#: Requests come in threads of their own; a waiting receive looks again when somebody has called.
_changed = threading.Condition(threading.RLock())
#: How often it looks when nobody has: a visibility timeout can end meanwhile, and the clock can be moved.
_LONG_POLL_STEP = 0.25
_SETTABLE = KNOWN - {*COMPUTED, "All"}
_MISSING = "AWS.SimpleQueueService.NonExistentQueue"


Replace = Callable[[Any, str, Any], None]
Ask = Callable[[models.SQSBackend, str, Mapping[str, Any]], dict[str, Any]]


def apply(seconds: Callable[[], float], replace: Replace) -> None:
    """Put the service in memory behind moto's front, in this process. `seconds`: the time that it sees, epoch seconds."""

    def ask(backend: models.SQSBackend, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        with _changed:
            try:
                answer = _service(backend).operations[operation](parameters, seconds())
            except ServiceError as error:
                raise _as_moto_has_it(error) from None
            _mirror(backend, operation, parameters)
            _changed.notify_all()
            return answer

    for name in SQS().operations:
        setattr(responses.SQSResponse, name, _action(name, ask))  # moto has not all of them
    _change_backend(ask, replace)


def next_visible(seconds: float, names: Iterable[str]) -> float | None:
    """Seconds until the first waiting message of these queues becomes visible; None: none is waiting."""
    with _changed:
        wanted = list(names)
        moments = [service.next_visible(name, seconds) for service in _services() for name in wanted]
    return min((moment - seconds for moment in moments if moment is not None), default=None)


def oldest(seconds: float, names: Iterable[str]) -> float | None:
    """Seconds since the oldest message of these queues was sent; None: they are empty."""
    with _changed:
        wanted = list(names)
        moments = [service.oldest(name) for service in _services() for name in wanted]
    return max((seconds - moment for moment in moments if moment is not None), default=None)


def peek(names: Iterable[str]) -> list[dict[str, Any]]:
    """Every message of these queues as it stands, without receiving it."""
    with _changed:
        wanted = list(names)
        return [message for service in _services() for name in wanted for message in service.peek(name)]


def _action(operation: str, ask: Ask) -> Callable[[responses.SQSResponse], ActionResult]:
    """What moto's front calls for an operation."""

    def action(response: responses.SQSResponse) -> ActionResult:
        parameters: dict[str, Any] = dict(response.params)
        # Older clients name the queue in the address only.
        parameters.setdefault("QueueUrl", response._get_queue_name())  # pyright: ignore[reportPrivateUsage]
        parameters = dict(in_call("sqs", operation, parameters, response.headers.get(HEADER)))
        backend = response.sqs_backend
        if operation == "receive_message":
            answer = _receive(backend, parameters, ask)
        else:
            answer = ask(backend, operation, parameters)
        return ActionResult(_addressed(answer, response.uri, backend.region_name)) if answer else EmptyResult()

    return action


def _receive(backend: models.SQSBackend, parameters: Mapping[str, Any], ask: Ask) -> dict[str, Any]:
    """Receive, and wait for messages without holding the others up."""
    wait = parameters.get("WaitTimeSeconds")
    if wait is None:
        asked = {"QueueUrl": parameters["QueueUrl"], "AttributeNames": ["ReceiveMessageWaitTimeSeconds"]}
        wait = int(ask(backend, "get_queue_attributes", asked)["Attributes"]["ReceiveMessageWaitTimeSeconds"])
    end = time.monotonic() + wait
    with _changed:
        while True:
            answer = ask(backend, "receive_message", parameters)
            left = end - time.monotonic()
            if answer or left <= 0:
                return answer
            _changed.wait(min(left, _LONG_POLL_STEP))


def _change_backend(ask: Ask, replace: Replace) -> None:
    """What moto's other services call."""

    def create_queue(
        self: models.SQSBackend, name: str, tags: Mapping[str, str] | None = None, **properties: Any
    ) -> models.Queue:
        ask(self, "create_queue", {"QueueName": name, "tags": tags or {}, "Attributes": _attributes(properties)})
        return self.queues[name]

    def delete_queue(self: models.SQSBackend, queue_name: str) -> None:
        ask(self, "delete_queue", {"QueueUrl": queue_name})

    def get_queue_attributes(self: models.SQSBackend, queue_name: str, attribute_names: list[str]) -> dict[str, Any]:
        asked = {"QueueUrl": queue_name, "AttributeNames": attribute_names}
        found: dict[str, Any] = ask(self, "get_queue_attributes", asked).get("Attributes", {})
        return found

    def set_queue_attributes(self: models.SQSBackend, queue_name: str, attributes: dict[str, Any]) -> models.Queue:
        ask(self, "set_queue_attributes", {"QueueUrl": queue_name, "Attributes": attributes})
        return self.queues[queue_name]

    def send_message(
        self: models.SQSBackend,
        queue_name: str,
        message_body: str,
        message_attributes: Mapping[str, Any] | None = None,
        delay_seconds: int | None = None,
        deduplication_id: str | None = None,
        group_id: str | None = None,
        system_attributes: Mapping[str, Any] | None = None,
        validate_group_id: bool = True,
    ) -> None:
        parameters = {
            "QueueUrl": queue_name,
            "MessageBody": message_body,
            "MessageAttributes": message_attributes,
            "DelaySeconds": delay_seconds,
            "MessageDeduplicationId": deduplication_id,
            "MessageGroupId": group_id,
            "MessageSystemAttributes": system_attributes,
        }
        ask(self, "send_message", {name: value for name, value in parameters.items() if value is not None})

    def update(  # as moto calls it of the class
        _: type[models.Queue],
        original_resource: models.Queue,
        new_resource_name: str,
        cloudformation_json: Mapping[str, Any],
        account_id: str,
        region_name: str,
    ) -> models.Queue:
        backend = models.sqs_backends[account_id][region_name]
        attributes = _attributes(cloudformation_json["Properties"])
        attributes.pop("FifoQueue", None)
        return set_queue_attributes(backend, original_resource.name, attributes)

    for method in (create_queue, delete_queue, get_queue_attributes, set_queue_attributes, send_message):
        replace(models.SQSBackend, method.__name__, method)
    replace(models.Queue, "update_from_cloudformation_json", classmethod(update))


def _service(backend: models.SQSBackend) -> SQS:
    """The service of an account in a region. It stands in moto's, so that it goes when that is reset."""
    found = vars(backend).get("in_memory")
    if found is None:
        found = SQS(random.Random(), account=backend.account_id, region=backend.region_name)
        vars(backend)["in_memory"] = found
    service: SQS = found
    return service


def _services() -> Iterator[SQS]:
    for regions in list(models.sqs_backends.values()):
        for backend in list(regions.values()):
            yield _service(backend)


def _mirror(backend: models.SQSBackend, operation: str, parameters: Mapping[str, Any]) -> None:
    """moto's own list of queues: what its other services look for."""
    if operation == "create_queue":
        name = parameters["QueueName"]
        if name not in backend.queues:
            kind = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
            make: Any = models.Queue
            queue = make(name, backend.region_name, backend.account_id, **kind)
            queue.tags = dict(parameters.get("tags") or {})
            backend.queues[name] = queue
    elif operation == "delete_queue":
        backend.queues.pop(parameters["QueueUrl"].rpartition("/")[2], None)


def _attributes(properties: Mapping[str, Any]) -> dict[str, str]:
    """A template's properties as attributes."""
    return {name: _text(value) for name, value in properties.items() if name in _SETTABLE and value is not None}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value)  # also true, as the API spells it


def _addressed(answer: dict[str, Any], uri: str, region: str) -> dict[str, Any]:
    """The answer with URLs that lead to this server."""
    asked = urlsplit(uri)
    theirs, ours = f"https://sqs.{region}.amazonaws.com/", f"{asked.scheme}://{asked.netloc}/"
    changed = dict(answer)
    if "QueueUrl" in changed:
        changed["QueueUrl"] = changed["QueueUrl"].replace(theirs, ours)
    for name in ("QueueUrls", "queueUrls"):
        if name in changed:
            changed[name] = [url.replace(theirs, ours) for url in changed[name]]
    return changed


def _as_moto_has_it(error: ServiceError) -> Exception:
    """Its other services know some errors by their classes."""
    if error.code == _MISSING:
        return exceptions.QueueDoesNotExist()
    if error.code == "MissingParameter":
        return exceptions.MissingParameter(error.message.rstrip(".").rpartition(" ")[2])
    return exceptions.SQSException(error.code, error.message)
