"""Message move tasks: dead letters go back where they came from, or to a queue of choice."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.emulator.services.queue_checks import invalid, refusal
from pipeline.emulator.services.queue_state import Message, Queue


@dataclass(slots=True, eq=False)
class MoveTask:
    """One task. Without a rate everything is moved when it starts: AWS chooses a rate itself, and does not say which."""

    id: str
    source: Queue
    destination: str | None  #: an ARN; None: each message goes back to the queue that it came from
    rate: int | None  #: messages a second
    started_at: float
    to_move: int
    moved: int = 0
    status: str = "RUNNING"
    reason: str | None = None

    @property
    def handle(self) -> str:
        """What cancels it."""
        return base64.b64encode(json.dumps({"taskId": self.id, "sourceArn": self.source.arn}).encode()).decode()

    @property
    def next_at(self) -> float | None:
        """When it moves the next message; None: it has ended."""
        if self.status != "RUNNING":
            return None
        return self.started_at if self.rate is None else self.started_at + (self.moved + 1) / self.rate

    def described(self) -> dict[str, Any]:
        """As `ListMessageMoveTasks` shows it: only a running one has a handle."""
        shown = {
            "TaskHandle": self.handle if self.status == "RUNNING" else None,
            "Status": self.status,
            "SourceArn": self.source.arn,
            "DestinationArn": self.destination,
            "MaxNumberOfMessagesPerSecond": self.rate,
            "ApproximateNumberOfMessagesMoved": self.moved,
            "ApproximateNumberOfMessagesToMove": self.to_move,
            "FailureReason": self.reason,
            "StartedTimestamp": round(self.started_at * 1000),
        }
        return {name: value for name, value in shown.items() if value is not None}

    def pass_to(self, now: float, queue_of: Callable[[str], Queue | None], new_id: Callable[[], str]) -> None:
        """Move what is due. `queue_of` finds a queue by its ARN."""
        while self.next_at is not None and self.next_at <= now:
            self._move_one(self.next_at, queue_of, new_id)

    def _move_one(self, now: float, queue_of: Callable[[str], Queue | None], new_id: Callable[[], str]) -> None:
        self.source.pass_to(now)
        message = next((found for found in self.source.messages.values() if found.visible_at <= now), None)
        if message is None or self.moved >= self.to_move:
            self.status = "COMPLETED"
            return
        arn = self.destination or message.came_from
        if arn is None:
            self._fail("CouldNotDetermineMessageSource")
            return
        queue = queue_of(arn)
        if queue is None:
            self._fail("AWS.SimpleQueueService.NonExistentQueue")
            return
        queue.pass_to(now)
        self.source.remove(message)
        queue.add(_as_new(message, queue, new_id(), now))
        self.moved += 1
        if self.moved >= self.to_move:
            self.status = "COMPLETED"

    def _fail(self, reason: str) -> None:
        self.status, self.reason = "FAILED", reason


def task_named(handle: str, tasks_of: Callable[[str], list[MoveTask] | None]) -> MoveTask:
    """The running task of a handle. `tasks_of`: of a source's ARN; None: there is no such queue. Raises `ServiceError`."""
    try:
        read = json.loads(base64.b64decode(handle, validate=True))
        name, source = str(read["taskId"]), str(read["sourceArn"])
    except (ValueError, KeyError, TypeError):
        raise invalid("Value for parameter TaskHandle is invalid.") from None
    tasks = tasks_of(source)
    if tasks is None:
        raise not_found("SourceArn")
    for task in tasks:
        if task.id == name and task.status == "RUNNING":
            return task
    raise refusal("ResourceNotFoundException", "Task does not exist.")


def not_found(parameter: str) -> Exception:
    """The queue of an ARN is not there."""
    return refusal(
        "ResourceNotFoundException", f"The resource that you specified for the {parameter} parameter doesn't exist."
    )


def _as_new(message: Message, queue: Queue, name: str, now: float) -> Message:
    """What is moved counts as a new message, with an id and a retention of its own (SQS developer guide, "Configure a
    dead-letter queue redrive")."""
    return Message(
        id=name,
        body=message.body,
        attributes=message.attributes,
        sent_at=now,
        enqueued_at=now,
        visible_at=now + queue.number_of("DelaySeconds"),
        trace_header=message.trace_header,
        group=message.group,
        deduplication_id=message.deduplication_id,
        number=queue.next_number() if queue.fifo else None,
    )
