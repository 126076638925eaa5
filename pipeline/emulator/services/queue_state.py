"""One queue: its messages, what is in flight, and what it remembers of messages that it was sent."""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.emulator.services.queue_attributes import redrive_policy
from pipeline.emulator.services.queue_checks import MAX_VISIBILITY, invalid, refusal

#: How long a FIFO queue knows a deduplication id (SQS developer guide, "Exactly-once processing"), seconds.
_DEDUPLICATION_SECONDS = 300
#: Where the sender of every message stands in its attributes: a user's id.
_SENDER = "AIDAINMEMORYSENDER001"


@dataclass(slots=True, eq=False)
class Message:
    """A message in a queue. Times are epoch seconds."""

    id: str
    body: str
    attributes: dict[str, dict[str, Any]]
    sent_at: float
    enqueued_at: float  #: what its retention counts from
    visible_at: float  #: the end of its delay, or of its visibility timeout
    trace_header: str | None = None
    group: str | None = None
    deduplication_id: str | None = None
    number: str | None = None  #: FIFO: its sequence number
    receive_count: int = 0  #: over all queues
    first_received_at: float | None = None
    received_at: float | None = None  #: the last time, here
    receipts: int = 0  #: how often this queue has handed it out
    came_from: str | None = None  #: the ARN of the queue whose dead letter it is

    def system_attributes(self) -> dict[str, str]:
        """What `MessageSystemAttributeNames=["All"]` gives."""
        found = {
            "SenderId": _SENDER,
            "SentTimestamp": _milliseconds(self.sent_at),
            "ApproximateReceiveCount": str(self.receive_count),
            "ApproximateFirstReceiveTimestamp": _milliseconds(self.first_received_at),
            "SequenceNumber": self.number,
            "MessageDeduplicationId": self.deduplication_id,
            "MessageGroupId": self.group,
            "AWSTraceHeader": self.trace_header,
            "DeadLetterQueueSourceArn": self.came_from,
        }
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Accepted:
    """What the sender is told: for a duplicate, what was told for the first."""

    id: str
    number: str | None


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt handle, read."""

    queue: str
    message: str
    number: int


@dataclass(slots=True, eq=False)
class Queue:
    """A queue. Call `pass_to` before anything else that has a time."""

    name: str
    serial: str  #: other than that of a deleted queue of the same name
    account: str
    region: str
    options: dict[str, str]
    created_at: float
    modified_at: float
    next_number: Callable[[], str]
    tags: dict[str, str] = field(default_factory=dict)
    purged_at: float | None = None
    messages: dict[str, Message] = field(default_factory=dict)  #: by id, in order
    in_flight: dict[str, Message] = field(default_factory=dict)  #: as of the last `pass_to`
    #: When something may change: (epoch seconds, message id). What is no longer so stays until its time.
    _moments: list[tuple[float, str]] = field(default_factory=list)
    #: What was sent in the last five minutes: until when it is known, and what its sender was told.
    _known: dict[tuple[str | None, str], tuple[float, Accepted]] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        """Its ARN."""
        return f"arn:aws:sqs:{self.region}:{self.account}:{self.name}"

    @property
    def url(self) -> str:
        """Its URL."""
        return f"https://sqs.{self.region}.amazonaws.com/{self.account}/{self.name}"

    @property
    def fifo(self) -> bool:
        """It is a FIFO queue."""
        return "FifoQueue" in self.options

    @property
    def redrive(self) -> tuple[str, int] | None:
        """The ARN of its dead-letter queue, and after how many receives a message goes there."""
        policy = self.options.get("RedrivePolicy")
        return redrive_policy(policy) if policy else None

    def number_of(self, option: str) -> int:
        """An attribute that is a number."""
        return int(self.options[option])

    def pass_to(self, now: float) -> None:
        """Let the time pass: visibility timeouts end, and messages that were kept long enough are gone."""
        while self._moments and self._moments[0][0] <= now:
            _, name = heapq.heappop(self._moments)
            message = self.messages.get(name)
            if message is None:
                continue
            if self._expires_at(message) <= now:
                self.remove(message)
            elif message.visible_at <= now:
                self.in_flight.pop(name, None)

    def next_change(self) -> float | None:
        """When the first message becomes visible or is gone; None: never."""
        while self._moments:
            moment, name = self._moments[0]
            message = self.messages.get(name)
            if message is not None and moment in (message.visible_at, self._expires_at(message)):
                return moment
            heapq.heappop(self._moments)
        return None

    def next_visible(self, now: float) -> float | None:
        """When the first message that is hidden now becomes visible; None: none is."""
        return min((found.visible_at for found in self.messages.values() if found.visible_at > now), default=None)

    def change_options(self, options: dict[str, str], now: float) -> None:
        """Another retention period holds for the messages that are here; a FIFO queue's other delay as well."""
        old, self.options, self.modified_at = self.options, options, now
        if self.fifo and old["DelaySeconds"] != options["DelaySeconds"]:
            for message in self.messages.values():
                if message.received_at is None:
                    self._hide(message, message.enqueued_at + self.number_of("DelaySeconds"))
        if old["MessageRetentionPeriod"] != options["MessageRetentionPeriod"]:
            for message in self.messages.values():
                heapq.heappush(self._moments, (self._expires_at(message), message.id))
        self.pass_to(now)

    def duplicate_of(self, group: str | None, deduplication_id: str, now: float) -> Accepted | None:
        """What the sender of the same deduplication id was told in the last five minutes, also when it is deleted."""
        while self._known and next(iter(self._known.values()))[0] <= now:
            del self._known[next(iter(self._known))]
        found = self._known.get((self._scope(group), deduplication_id))
        return None if found is None else found[1]

    def remember(self, message: Message, now: float) -> None:
        """Whoever sends this deduplication id again gets this message's answer."""
        assert message.deduplication_id is not None
        accepted = Accepted(message.id, message.number)
        self._known[self._scope(message.group), message.deduplication_id] = (now + _DEDUPLICATION_SECONDS, accepted)

    def add(self, message: Message) -> None:
        """Put a message at the end."""
        self.messages[message.id] = message
        heapq.heappush(self._moments, (self._expires_at(message), message.id))
        if message.visible_at > message.enqueued_at:
            heapq.heappush(self._moments, (message.visible_at, message.id))

    def remove(self, message: Message) -> None:
        """It is gone."""
        self.messages.pop(message.id, None)
        self.in_flight.pop(message.id, None)

    def receive(
        self, count: int, visibility: float, now: float, *, dead: Queue | None, shuffled: random.Random | None
    ) -> list[Message]:
        """Hand out up to `count` messages; what was received often enough before goes to `dead` instead.

        `shuffled`: in a random order; a FIFO queue keeps its own.
        """
        redrive = self.redrive if dead is not None else None
        taken: list[Message] = []
        used_up: list[Message] = []
        # A group waits while any of its messages is invisible (API model: `ReceiveRequestAttemptId`).
        locked = {message.group for message in self.in_flight.values()} if self.fifo else set()
        for message in self._in_order(shuffled):
            if len(taken) == count:
                break
            if message.visible_at > now:
                if self.fifo:
                    locked.add(message.group)
            elif self.fifo and message.group in locked:
                continue
            elif redrive is not None and message.receipts >= redrive[1]:
                used_up.append(message)
            else:
                taken.append(message)
        for message in used_up:
            assert dead is not None
            self.remove(message)
            dead.bury(message, self.arn, now)
        for message in taken:
            self._hand_out(message, visibility, now)
        return taken

    def bury(self, message: Message, source: str, now: float) -> None:
        """Take another queue's dead letter.

        On a standard queue its retention goes on, on a FIFO queue it begins again (SQS developer guide, "Setting-up
        dead-letter queue retention"). A FIFO queue gives it its message id as deduplication id (there, "configure a
        dead-letter queue redrive").
        """
        message.came_from, message.receipts, message.received_at, message.visible_at = source, 0, None, now
        if self.fifo:
            message.enqueued_at, message.deduplication_id, message.number = now, message.id, self.next_number()
        self.add(message)
        self.pass_to(now)

    def purge(self, now: float) -> None:
        """Empty it, what is in flight included."""
        self.purged_at = now
        self.messages.clear()
        self.in_flight.clear()

    def delete(self, handle: str) -> None:
        """Delete the message of a receipt handle.

        An old handle, and one of a message that is gone, deletes nothing and is no error. A FIFO queue refuses a handle
        whose visibility timeout has ended.
        """
        receipt = self._read(handle)
        message = self.messages.get(receipt.message)
        if message is None:
            return
        if self.fifo and not self._is_held(message, receipt):
            raise _expired(handle)
        if message.receipts == receipt.number:
            self.remove(message)

    def change_visibility(self, handle: str, seconds: int, now: float) -> None:
        """Hide the message of a receipt handle until `seconds` from now; 12 hours after its receive at most."""
        receipt = self._read(handle)
        message = self.messages.get(receipt.message)
        if message is None or message.receipts != receipt.number:
            raise invalid(
                f"Value {handle} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not "
                "available for visibility timeout change."
            )
        if self.fifo and not self._is_held(message, receipt):
            raise _expired(handle)
        assert message.received_at is not None
        if now + seconds - message.received_at > MAX_VISIBILITY:
            raise invalid(
                f"Value {seconds} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the "
                f"message is beyond the limit [{MAX_VISIBILITY} seconds]"
            )
        self._hide(message, now + seconds)
        self.in_flight[message.id] = message

    def handle(self, message: Message) -> str:
        """The receipt handle of a message that was just handed out."""
        return base64.b64encode(f"AQEB/{self.serial}/{self.arn}/{message.id}/{message.receipts}".encode()).decode()

    def counts(self, now: float) -> tuple[int, int, int]:
        """How many messages are visible, in flight, and delayed."""
        hidden = sum(message.visible_at > now for message in self.messages.values())
        in_flight = len(self.in_flight)
        return len(self.messages) - hidden, in_flight, hidden - in_flight

    def _scope(self, group: str | None) -> str | None:
        return group if self.options.get("DeduplicationScope") == "messageGroup" else None

    def _expires_at(self, message: Message) -> float:
        return message.enqueued_at + self.number_of("MessageRetentionPeriod")

    def _in_order(self, shuffled: random.Random | None) -> Iterable[Message]:
        if shuffled is None or self.fifo:
            return self.messages.values()
        found = list(self.messages.values())
        shuffled.shuffle(found)
        return found

    def _hand_out(self, message: Message, visibility: float, now: float) -> None:
        message.receive_count += 1
        message.receipts += 1
        message.received_at = now
        if message.first_received_at is None:
            message.first_received_at = now
        self._hide(message, now + visibility)
        self.in_flight[message.id] = message

    def _hide(self, message: Message, until: float) -> None:
        message.visible_at = until
        heapq.heappush(self._moments, (until, message.id))

    def _is_held(self, message: Message, receipt: Receipt) -> bool:
        return message.id in self.in_flight and message.receipts == receipt.number

    def _read(self, handle: str) -> Receipt:
        try:
            kind, serial, _, name, number = base64.b64decode(handle, validate=True).decode().split("/")
            receipt = Receipt(serial, name, int(number))
        except (binascii.Error, UnicodeDecodeError, ValueError):
            kind, receipt = "", Receipt("", "", 0)
        if kind != "AQEB" or receipt.queue != self.serial:
            raise refusal(
                "ReceiptHandleIsInvalid", f'The input receipt handle "{handle}" is not a valid receipt handle.'
            )
        return receipt


def content_id(body: str) -> str:
    """The deduplication id of a message without one: of its body, not of its attributes."""
    return hashlib.sha256(body.encode()).hexdigest()


def size_of(body: str, attributes: Mapping[str, Mapping[str, Any]]) -> int:
    """Bytes by SQS's rule: body, and name, type and value of each attribute."""
    size = len(body.encode("utf-8", "surrogatepass"))
    for name, value in attributes.items():
        content = value.get("StringValue") or value.get("BinaryValue") or b""
        size += len(name.encode()) + len(str(value.get("DataType", ""))) + len(_bytes(content))
    return size


def md5_of(data: str) -> str:
    """The MD5 digest of a body."""
    return hashlib.md5(data.encode(), usedforsecurity=False).hexdigest()


def md5_of_attributes(attributes: Mapping[str, Mapping[str, Any]]) -> str:
    """As SQS does it (developer guide, "Calculating the MD5 message digest for message attributes")."""
    digest = hashlib.md5(usedforsecurity=False)
    for name, value in sorted(attributes.items()):
        text = "StringValue" in value
        content = _bytes(value["StringValue" if text else "BinaryValue"])
        for part in (name.encode(), value["DataType"].encode()):
            digest.update(len(part).to_bytes(4, "big") + part)
        digest.update((b"\x01" if text else b"\x02") + len(content).to_bytes(4, "big") + content)
    return digest.hexdigest()


def _bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)


def _expired(handle: str) -> Exception:
    return invalid(f"Value {handle} for parameter ReceiptHandle is invalid. Reason: The receipt handle has expired.")


def _milliseconds(moment: float | None) -> str | None:
    return None if moment is None else str(round(moment * 1000))
