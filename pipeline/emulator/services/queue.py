"""SQS in memory: standard and FIFO queues with AWS's limits, errors and times.

What AWS lets take up to a minute (deletion, changes of attributes, counts) is so at once. A receive does not wait for
messages: `WaitTimeSeconds` is checked and else left to whoever calls. What no documentation says is listed in
`docs/emulator.md`.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from pipeline.emulator.services import queue_attributes
from pipeline.emulator.services import queue_checks as checks
from pipeline.emulator.services.queue_checks import invalid, old_refusal, refusal, required
from pipeline.emulator.services.queue_moves import MoveTask, not_found, task_named
from pipeline.emulator.services.queue_state import (
    Accepted,
    Message,
    Queue,
    content_id,
    md5_of,
    md5_of_attributes,
    size_of,
)
from pipeline.emulator.services.service import ACCOUNT, REGION, Operation, ServiceError

#: A queue's name, and its purge, are not to be had again for so long (API model), seconds.
_PAUSE_SECONDS = 60
#: Sequence numbers have 20 digits and leave gaps.
_FIRST_NUMBER, _STEP = 18_800_000_000_000_000_000, 256
_PAGE = 1_000

Parameters = Mapping[str, Any]


class SQS:
    """The queues of one account in one region."""

    name = "sqs"

    def __init__(self, chance: random.Random | None = None, *, account: str = ACCOUNT, region: str = REGION) -> None:
        #: Standard queues hand out in a random order, and else in that of sending. AWS promises neither.
        self.shuffled = False
        #: Messages that may be in flight in each queue (API model: `ChangeMessageVisibility`).
        self.in_flight_limit = 120_000
        self._chance = chance or random.Random(0)
        self._account = account
        self._region = region
        self._queues: dict[str, Queue] = {}
        self._deleted: dict[str, float] = {}
        self._tasks: dict[str, list[MoveTask]] = {}  #: by the source's name, the newest first
        self._serial = 0
        self._number = _FIRST_NUMBER
        self._operations: dict[str, Operation] = {
            name: partial(self._timed, call)
            for name, call in {
                "cancel_message_move_task": self._cancel_message_move_task,
                "change_message_visibility": self._change_message_visibility,
                "change_message_visibility_batch": self._change_message_visibility_batch,
                "create_queue": self._create_queue,
                "delete_message": self._delete_message,
                "delete_message_batch": self._delete_message_batch,
                "delete_queue": self._delete_queue,
                "get_queue_attributes": self._get_queue_attributes,
                "get_queue_url": self._get_queue_url,
                "list_dead_letter_source_queues": self._list_dead_letter_source_queues,
                "list_message_move_tasks": self._list_message_move_tasks,
                "list_queue_tags": self._list_queue_tags,
                "list_queues": self._list_queues,
                "purge_queue": self._purge_queue,
                "receive_message": self._receive_message,
                "send_message": self._send_message,
                "send_message_batch": self._send_message_batch,
                "set_queue_attributes": self._set_queue_attributes,
                "start_message_move_task": self._start_message_move_task,
                "tag_queue": self._tag_queue,
                "untag_queue": self._untag_queue,
            }.items()
        }

    @property
    def operations(self) -> Mapping[str, Operation]:
        """See `Service`."""
        return self._operations

    def next_change(self, now: float) -> float | None:
        """See `Service`: a delay or a visibility timeout ends, a message is kept no longer, a task moves one."""
        self._pass_to(now)
        moments = [queue.next_change() for queue in self._queues.values()]
        moments += [task.next_at for tasks in self._tasks.values() for task in tasks]
        return min((moment for moment in moments if moment is not None), default=None)

    def next_visible(self, queue_name: str, now: float) -> float | None:
        """When the first message of a queue that is hidden now becomes visible, epoch seconds; None: none is."""
        queue = self._queues.get(queue_name)
        return None if queue is None else queue.next_visible(now)

    def peek(self, queue_name: str) -> list[dict[str, Any]]:
        """A queue's messages as they stood at the last call, without receiving them; none when there is no such queue."""
        queue = self._queues.get(queue_name)
        return [] if queue is None else [_peeked(message) for message in queue.messages.values()]

    def oldest(self, queue_name: str) -> float | None:
        """When the oldest message of a queue was sent, epoch seconds; None: it is empty, or not there."""
        queue = self._queues.get(queue_name)
        return None if queue is None else min((message.sent_at for message in queue.messages.values()), default=None)

    # -- Queues

    def _create_queue(self, parameters: Parameters, now: float) -> dict[str, Any]:
        name: str = required(parameters, "QueueName")
        given: Mapping[str, str] = parameters.get("Attributes") or {}
        fifo = str(given.get("FifoQueue", "")).lower() == "true"
        checks.queue_name(name, fifo=fifo)
        options = queue_attributes.of_new(given, fifo=fifo)
        queue = self._queues.get(name)
        if queue is not None:
            different = queue_attributes.differing(queue.options, given)
            if different is not None:
                raise refusal(
                    "QueueAlreadyExists",
                    f"A queue already exists with the same name and a different value for attribute {different}",
                )
            return {"QueueUrl": queue.url}
        if now < self._deleted.get(name, 0.0):
            raise old_refusal(
                "QueueDeletedRecently",
                f"You must wait {_PAUSE_SECONDS} seconds after deleting a queue before you can create another with the "
                "same name.",
            )
        self._serial += 1
        queue = Queue(name, f"q{self._serial}", self._account, self._region, options, now, now, self._next_number)
        self._check_redrive(queue, options)
        queue.tags = {str(key): str(value) for key, value in (parameters.get("tags") or {}).items()}
        self._queues[name] = queue
        return {"QueueUrl": queue.url}

    def _delete_queue(self, parameters: Parameters, now: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        del self._queues[queue.name]
        self._tasks.pop(queue.name, None)
        self._deleted[queue.name] = now + _PAUSE_SECONDS
        return {}

    def _get_queue_url(self, parameters: Parameters, _: float) -> dict[str, Any]:
        queue = self._queues.get(required(parameters, "QueueName"))
        if queue is None:
            raise checks.missing_queue()
        return {"QueueUrl": queue.url}

    def _list_queues(self, parameters: Parameters, _: float) -> dict[str, Any]:
        prefix = parameters.get("QueueNamePrefix") or ""
        urls = [queue.url for name, queue in sorted(self._queues.items()) if name.startswith(prefix)]
        return _page(parameters, urls, "QueueUrls")

    def _list_dead_letter_source_queues(self, parameters: Parameters, _: float) -> dict[str, Any]:
        target = self._queue(parameters).arn
        urls = [queue.url for _, queue in sorted(self._queues.items()) if queue.redrive and queue.redrive[0] == target]
        return {"queueUrls": [], **_page(parameters, urls, "queueUrls")}

    def _get_queue_attributes(self, parameters: Parameters, now: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        names: set[str] = set(parameters.get("AttributeNames") or ())
        for name in names:
            if name not in queue_attributes.KNOWN:
                raise refusal("InvalidAttributeName", f"Unknown Attribute {name}.")
        visible, in_flight, delayed = queue.counts(now)
        found = {
            "QueueArn": queue.arn,
            "ApproximateNumberOfMessages": str(visible),
            "ApproximateNumberOfMessagesNotVisible": str(in_flight),
            "ApproximateNumberOfMessagesDelayed": str(delayed),
            "CreatedTimestamp": str(int(queue.created_at)),
            "LastModifiedTimestamp": str(int(queue.modified_at)),
            **queue.options,
        }
        wanted = {name: value for name, value in found.items() if name in names or "All" in names}
        return {"Attributes": wanted} if wanted else {}

    def _set_queue_attributes(self, parameters: Parameters, now: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        given: Mapping[str, str] = required(parameters, "Attributes")
        options = queue_attributes.changed(queue.options, given, fifo=queue.fifo)
        if "RedrivePolicy" in given:
            self._check_redrive(queue, options)
        queue.change_options(options, now)
        return {}

    def _tag_queue(self, parameters: Parameters, _: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        queue.tags |= {str(key): str(value) for key, value in required(parameters, "Tags").items()}
        return {}

    def _untag_queue(self, parameters: Parameters, _: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        for key in required(parameters, "TagKeys"):
            queue.tags.pop(key, None)
        return {}

    def _list_queue_tags(self, parameters: Parameters, _: float) -> dict[str, Any]:
        tags = self._queue(parameters).tags
        return {"Tags": dict(tags)} if tags else {}

    def _purge_queue(self, parameters: Parameters, now: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        if queue.purged_at is not None and now < queue.purged_at + _PAUSE_SECONDS:
            raise old_refusal(
                "PurgeQueueInProgress",
                f"Only one PurgeQueue operation on {queue.name} is allowed every {_PAUSE_SECONDS} seconds.",
            )
        queue.purge(now)
        return {}

    # -- Sending

    def _send_message(self, parameters: Parameters, now: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        if queue.fifo:
            checks.fifo_identifiers([parameters], content_based=_content_based(queue), is_batch=False)
        return self._sent(queue, parameters, now)

    def _send_message_batch(self, parameters: Parameters, now: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        entries = checks.entries(parameters, "SendMessageBatchRequestEntry")
        checks.total_size(
            size_of(entry.get("MessageBody") or "", entry.get("MessageAttributes") or {}) for entry in entries
        )
        if queue.fifo:
            checks.fifo_identifiers(entries, content_based=_content_based(queue), is_batch=True)
        return _each(entries, lambda entry: self._sent(queue, entry, now))

    def _sent(self, queue: Queue, entry: Parameters, now: float) -> dict[str, Any]:
        body = checks.body(entry)
        attributes = checks.attributes(entry.get("MessageAttributes") or {})
        trace_header = checks.trace_header(entry.get("MessageSystemAttributes") or {})
        checks.message_size(size_of(body, attributes), queue.number_of("MaximumMessageSize"))
        delay = checks.delay(entry, fifo=queue.fifo)
        message = Message(
            id=self._new_id(),
            body=body,
            attributes=attributes,
            sent_at=now,
            enqueued_at=now,
            visible_at=now + (queue.number_of("DelaySeconds") if delay is None else delay),
            trace_header=trace_header,
            group=checks.identifier(entry, "MessageGroupId"),
        )
        accepted = self._accept(queue, message, checks.identifier(entry, "MessageDeduplicationId"), now)
        answer = {"MessageId": accepted.id, "MD5OfMessageBody": md5_of(body)}
        if attributes:
            answer["MD5OfMessageAttributes"] = md5_of_attributes(attributes)
        if trace_header is not None:
            system = {"AWSTraceHeader": {"DataType": "String", "StringValue": trace_header}}
            answer["MD5OfMessageSystemAttributes"] = md5_of_attributes(system)
        if accepted.number is not None:
            answer["SequenceNumber"] = accepted.number
        return answer

    def _accept(self, queue: Queue, message: Message, deduplication_id: str | None, now: float) -> Accepted:
        if queue.fifo:
            message.deduplication_id = deduplication_id or content_id(message.body)
            duplicate = queue.duplicate_of(message.group, message.deduplication_id, now)
            if duplicate is not None:
                return duplicate
            message.number = self._next_number()
            queue.remember(message, now)
        elif deduplication_id is not None:
            raise checks.not_for_this_type("MessageDeduplicationId", deduplication_id)
        queue.add(message)
        return Accepted(message.id, message.number)

    # -- Receiving

    def _receive_message(self, parameters: Parameters, now: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        count = checks.whole_number(parameters, "MaxNumberOfMessages", 1, 10) or 1
        visibility = checks.whole_number(parameters, "VisibilityTimeout", 0, checks.MAX_VISIBILITY)
        checks.whole_number(parameters, "WaitTimeSeconds", 0, checks.MAX_WAIT)
        room = self.in_flight_limit - len(queue.in_flight)
        if room <= 0 and not queue.fifo:
            raise refusal("OverLimit", f"The maximum number of in flight messages is reached: {self.in_flight_limit}.")
        redrive = queue.redrive
        messages = queue.receive(
            min(count, room),
            queue.number_of("VisibilityTimeout") if visibility is None else visibility,
            now,
            # Without its dead-letter queue a message stays, and is handed out again.
            dead=None if redrive is None else self._queue_of(redrive[0]),
            shuffled=self._chance if self.shuffled else None,
        )
        system = {*(parameters.get("AttributeNames") or ()), *(parameters.get("MessageSystemAttributeNames") or ())}
        own = parameters.get("MessageAttributeNames") or ()
        found = [_received(queue, message, system, own) for message in messages]
        return {"Messages": found} if found else {}

    def _delete_message(self, parameters: Parameters, _: float) -> dict[str, Any]:
        self._queue(parameters).delete(required(parameters, "ReceiptHandle"))
        return {}

    def _delete_message_batch(self, parameters: Parameters, _: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        entries = checks.entries(parameters, "DeleteMessageBatchRequestEntry")
        return _each(entries, lambda entry: queue.delete(required(entry, "ReceiptHandle")))

    def _change_message_visibility(self, parameters: Parameters, now: float) -> dict[str, Any]:
        _change_visibility(self._queue(parameters), parameters, now)
        return {}

    def _change_message_visibility_batch(self, parameters: Parameters, now: float) -> dict[str, Any]:
        queue = self._queue(parameters)
        entries = checks.entries(parameters, "ChangeMessageVisibilityBatchRequestEntry")
        return _each(entries, lambda entry: _change_visibility(queue, entry, now))

    # -- Moving dead letters back

    def _start_message_move_task(self, parameters: Parameters, now: float) -> dict[str, Any]:
        source = self._queue_of(required(parameters, "SourceArn"))
        if source is None:
            raise not_found("SourceArn")
        if not any(queue.redrive and queue.redrive[0] == source.arn for queue in self._queues.values()):
            raise invalid("Source queue must be configured as a Dead Letter Queue.")
        arn = parameters.get("DestinationArn")
        target = None if arn is None else self._queue_of(arn)
        if arn is not None and target is None:
            raise not_found("DestinationArn")
        if target is not None and (target is source or target.fifo != source.fifo):
            raise invalid("The destination must be another queue, and of the same type as the source.")
        rate = checks.move_rate(parameters)
        tasks = self._tasks.setdefault(source.name, [])
        if any(task.status == "RUNNING" for task in tasks):
            raise invalid(
                "There is already a task running. Only one active task is allowed for a source queue arn at a given "
                "time."
            )
        source.pass_to(now)
        task = MoveTask(self._new_id(), source, arn, rate, now, to_move=source.counts(now)[0])
        tasks.insert(0, task)
        handle = task.handle
        self._move(task, now)
        return {"TaskHandle": handle}

    def _list_message_move_tasks(self, parameters: Parameters, _: float) -> dict[str, Any]:
        source = self._queue_of(required(parameters, "SourceArn"))
        if source is None:
            raise not_found("SourceArn")
        most = checks.whole_number(parameters, "MaxResults", 1, 10) or 1
        return {"Results": [task.described() for task in self._tasks.get(source.name, ())[:most]]}

    def _cancel_message_move_task(self, parameters: Parameters, _: float) -> dict[str, Any]:
        def tasks_of(arn: str) -> list[MoveTask] | None:
            source = self._queue_of(arn)
            return None if source is None else self._tasks.get(source.name, [])

        task = task_named(required(parameters, "TaskHandle"), tasks_of)
        task.status = "CANCELLED"
        return {"ApproximateNumberOfMessagesMoved": task.moved}

    def _move(self, task: MoveTask, now: float) -> None:
        task.pass_to(now, self._queue_of, self._new_id)

    # -- What they share

    def _timed(
        self, call: Callable[[Parameters, float], dict[str, Any]], parameters: Parameters, now: float
    ) -> dict[str, Any]:
        self._pass_to(now)
        return call(parameters, now)

    def _pass_to(self, now: float) -> None:
        for tasks in self._tasks.values():
            for task in tasks:
                self._move(task, now)
        for queue in self._queues.values():
            queue.pass_to(now)

    def _queue(self, parameters: Parameters) -> Queue:
        url: str = required(parameters, "QueueUrl")
        queue = self._queues.get(url.rpartition("/")[2])
        if queue is None:
            raise checks.missing_queue()
        return queue

    def _queue_of(self, arn: str) -> Queue | None:
        queue = self._queues.get(arn.rpartition(":")[2])
        return queue if queue is not None and queue.arn == arn else None

    def _check_redrive(self, queue: Queue, options: Mapping[str, str]) -> None:
        policy = options.get("RedrivePolicy")
        if policy is None:
            return
        target = self._queue_of(queue_attributes.redrive_policy(policy)[0])
        described = None if target is None else (target.fifo, target.options)
        queue_attributes.check_redrive(policy, source=queue.arn, fifo=queue.fifo, target=described)

    def _new_id(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def _next_number(self) -> str:
        self._number += _STEP
        return str(self._number)


def _content_based(queue: Queue) -> bool:
    return queue.options.get("ContentBasedDeduplication") == "true"


def _change_visibility(queue: Queue, entry: Parameters, now: float) -> None:
    required(entry, "VisibilityTimeout")
    seconds = checks.whole_number(entry, "VisibilityTimeout", 0, checks.MAX_VISIBILITY)
    assert seconds is not None
    queue.change_visibility(required(entry, "ReceiptHandle"), seconds, now)


def _each(entries: Sequence[Parameters], call: Callable[[Parameters], dict[str, Any] | None]) -> dict[str, Any]:
    """The answer to a batch: an entry that is refused does not keep the others from being done."""
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for entry in entries:
        try:
            done.append({"Id": entry["Id"], **(call(entry) or {})})
        except ServiceError as error:
            failed.append({"Id": entry["Id"], "SenderFault": True, "Code": error.code, "Message": error.message})
    return {"Successful": done, "Failed": failed}


def _received(queue: Queue, message: Message, system: set[str], own: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "MessageId": message.id,
        "ReceiptHandle": queue.handle(message),
        "MD5OfBody": md5_of(message.body),
        "Body": message.body,
    }
    shown = {name: value for name, value in message.system_attributes().items() if name in system or "All" in system}
    if shown:
        found["Attributes"] = shown
    attributes = {name: dict(value) for name, value in message.attributes.items() if _is_wanted(name, own)}
    if attributes:
        found["MessageAttributes"] = attributes
        found["MD5OfMessageAttributes"] = md5_of_attributes(attributes)
    return found


def _is_wanted(name: str, own: Iterable[str]) -> bool:
    """By its name, by "All" or ".*", or by the beginning of its name, as in "bar.*"."""
    return any(wanted in (name, "All") or (wanted.endswith(".*") and name.startswith(wanted[:-2])) for wanted in own)


def _page(parameters: Parameters, found: Sequence[str], name: str) -> dict[str, Any]:
    """One page of names. There is a token for the next only where `MaxResults` was asked for."""
    most = checks.whole_number(parameters, "MaxResults", 1, _PAGE)
    start = int(parameters.get("NextToken") or 0)
    end = start + (most or _PAGE)
    page: dict[str, Any] = {name: list(found[start:end])} if found[start:end] else {}
    return {**page, "NextToken": str(end)} if most and end < len(found) else page


def _peeked(message: Message) -> dict[str, Any]:
    return {
        "id": message.id,
        "body": message.body,
        "group": message.group,
        "sent_at": message.sent_at,
        "receive_count": message.receive_count,
        "attributes": {
            name: value["StringValue"] for name, value in message.attributes.items() if "StringValue" in value
        },
    }
