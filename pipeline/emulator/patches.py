"""What we change in moto's SQS, Kinesis and DynamoDB, in the embedded server's process only.

SQS' time can be moved forward, a FIFO queue numbers its messages in order, all three are locked, and moto's own event
source mappings are off.
"""

from __future__ import annotations

import copy
import functools
import itertools
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from moto import backends
from moto.dynamodb import models as dynamodb
from moto.kinesis import models as kinesis
from moto.sqs import models

#: moto handles each request in a thread of its own and locks nothing: two receives at the same
#: moment hand out one message twice, and a send during a delete can vanish, because deleting
#: replaces the list of messages. AWS does neither, so each operation runs under this lock.
_lock = threading.RLock()
_LOCKED = (
    "send_message",
    "send_message_batch",
    "delete_message",
    "delete_message_batch",
    "change_message_visibility",
    "change_message_visibility_batch",
    "purge_queue",
    "get_queue_attributes",
    "create_queue",
)
#: Its Kinesis is the same: two puts at the same moment give two records one sequence number, and the
#: later one takes the other's place.
_LOCKED_KINESIS = (
    "create_stream",
    "delete_stream",
    "get_records",
    "get_shard_iterator",
    "list_shards",
    "merge_shards",
    "put_record",
    "put_records",
    "split_shard",
    "update_shard_count",
)
#: Its DynamoDB checks a condition and writes afterwards: two conditional writes of one item at the same
#: moment are both done.
_LOCKED_DYNAMODB = (
    "batch_execute_statement",
    "create_table",
    "delete_item",
    "delete_table",
    "execute_statement",
    "execute_transaction",
    "get_item",
    "put_item",
    "query",
    "scan",
    "transact_write_items",
    "update_item",
)
#: How often a waiting receive looks again when nothing was sent: a visibility timeout can end meanwhile.
_LONG_POLL_STEP = 0.25
#: SQS numbers the messages of a group in order, with 20 digits. moto's numbers are random, and whoever takes them for
#: places, as `Checkpoint` does, would pass over messages.
_numbers = itertools.count(10**19)


class ServerClock:
    """The time that moto's SQS sees: the machine's, plus what idle waiting was skipped."""

    def __init__(self) -> None:
        self.offset = 0.0

    def seconds(self, *_: Any) -> float:
        return time.time() + self.offset

    def milliseconds(self, *_: Any) -> float:
        return self.seconds() * 1000.0


def apply(clock: ServerClock) -> None:
    """Change moto in this process. Raises `RuntimeError` when this moto has other names."""
    _change_time(clock)
    _change_speed(clock)
    # moto would run the mappings itself, inside SendMessage, with Docker. Each queue sets this: it has no effect.
    mappings = property(lambda _: {}, lambda _, __: None)
    models.Queue.lambda_event_source_mappings = mappings  # type: ignore[assignment]
    for name in _LOCKED:
        _replace(models.SQSBackend, name, _locked(getattr(models.SQSBackend, name)))
    _replace(models.Queue, "add_message", _numbered(models.Queue.add_message))
    _replace(models.SQSBackend, "receive_message", _receive(models.SQSBackend.receive_message))
    _change_kinesis()
    for name in _LOCKED_DYNAMODB:
        _replace(dynamodb.DynamoDBBackend, name, _locked(getattr(dynamodb.DynamoDBBackend, name)))


def _change_time(clock: ServerClock) -> None:
    _replace(models, "unix_time", clock.seconds)
    _replace(models, "unix_time_millis", clock.milliseconds)


def _change_speed(clock: ServerClock) -> None:
    """What took most of its time, and can be had for less."""
    # Copies are only ever changed at the top, and deep ones were a third of a receive.
    _replace(models, "deepcopy", copy.copy)
    # A regular expression for each of fourteen names, for each message sent.
    _replace(models, "camelcase_to_underscores", functools.cache(vars(models)["camelcase_to_underscores"]))
    _replace(models, "generate_receipt_handle", lambda: uuid.uuid4().hex * 4)
    # Two questions about one message, answered in time proportional to the queue.
    _replace(models.Message, "had_receipt_handle", _had_receipt_handle)
    _replace(models.SQSBackend, "is_message_valid_based_on_retention_period", _is_retained(clock))
    # It lists its own directory for each request.
    modules = tuple(backends.list_of_moto_modules())
    _replace(backends, "list_of_moto_modules", lambda: modules)


def _change_kinesis() -> None:
    kinesis.Stream.lambda_event_source_mappings = property(lambda _: {}, lambda _, __: None)  # type: ignore[assignment]
    for name in _LOCKED_KINESIS:
        _replace(kinesis.KinesisBackend, name, _locked(getattr(kinesis.KinesisBackend, name)))
    # A list of all sequence numbers for each record that is put, and a walk over all records for each read.
    _replace(kinesis.Shard, "get_max_sequence_number", lambda shard: next(reversed(shard.records), 0))
    _replace(kinesis.Shard, "get_records", _records_after)
    # Metrics of every put, kept for ever, that nobody reads here.
    _replace(kinesis.KinesisBackend, "_send_stream_metrics", lambda *_, **__: None)


def _records_after(shard: kinesis.Shard, last: str, limit: int | None) -> tuple[list[kinesis.Record], int, int]:
    """A shard's records after a sequence number, the last one's number, and how far behind the newest it is.

    moto numbers a shard's records 1, 2, 3 and so on, and never drops one.
    """
    first, newest = int(last) + 1, shard.get_max_sequence_number()
    end = newest if limit is None else min(newest, first + limit - 1)
    found = [shard.records[number] for number in range(first, end + 1)]
    if not found:
        return [], int(last), 0
    # moto says 0 for what was put in the same millisecond, although there is more.
    behind = (shard.records[newest].created_at - found[-1].created_at) * 1000
    return found, end, max(int(behind), end < newest)


def _replace(owner: Any, name: str, change: Any) -> None:
    if not hasattr(owner, name):
        raise RuntimeError(f"this moto has no {owner.__name__}.{name}: the local run needs moto 5.2")
    setattr(owner, name, change)


def _locked(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            return method(*args, **kwargs)

    return call


def _had_receipt_handle(message: models.Message, handle: str) -> bool:
    return handle == message.receipt_handle or handle in message._old_receipt_handles  # pyright: ignore[reportPrivateUsage]


def _is_retained(clock: ServerClock) -> Callable[[models.SQSBackend, str, models.Message], bool]:
    def is_retained(backend: models.SQSBackend, queue_name: str, message: models.Message) -> bool:
        queue: Any = backend.get_queue(queue_name)
        sent: Any = message.sent_timestamp
        return bool(queue.message_retention_period + sent / 1000 > clock.seconds())

    return is_retained


def _numbered(add: Callable[[models.Queue, models.Message], None]) -> Callable[[models.Queue, models.Message], None]:
    @functools.wraps(add)
    def call(queue: models.Queue, message: models.Message) -> None:
        if queue.fifo_queue:
            message.sequence_number = str(next(_numbers))
        add(queue, message)

    return call


def _receive(receive: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    """Receive under the lock, but wait for messages outside it: a long poll must not stop the others."""

    @functools.wraps(receive)
    def call(self: Any, queue_name: str, count: int, wait: int, visibility: int, names: Any = None) -> list[Any]:
        end = time.monotonic() + wait
        while True:
            with _lock:
                found = receive(self, queue_name, count, 0, visibility, names)
            left = end - time.monotonic()
            if found or left <= 0:
                return found
            self.get_queue(queue_name).wait_for_messages(min(left, _LONG_POLL_STEP))

    return call


def queues_named(names: Iterable[str]) -> list[models.Queue]:
    """The queues of these names, in every account and region."""
    wanted = set(names)
    return [
        queue
        for regions in list(models.sqs_backends.values())
        for backend in list(regions.values())
        for name, queue in list(backend.queues.items())
        if name in wanted
    ]


def next_visible(clock: ServerClock, names: Iterable[str]) -> float | None:
    """Seconds until the first waiting message of these queues becomes visible; None: none is waiting."""
    now = clock.milliseconds()
    with _lock:
        times = [max(m.visible_at, m.delayed_until) for queue in queues_named(names) for m in queue._messages]  # pyright: ignore[reportPrivateUsage]
    waiting = [moment for moment in times if moment >= now]
    return (min(waiting) - now) / 1000.0 if waiting else None


def peek(names: Iterable[str]) -> list[dict[str, Any]]:
    """Every message of these queues as it stands, without receiving it."""
    with _lock:
        return [_peeked(message) for queue in queues_named(names) for message in queue._messages]  # pyright: ignore[reportPrivateUsage]


def _peeked(message: models.Message) -> dict[str, Any]:
    attributes = message.message_attributes.items()
    return {
        "id": message.id,
        "body": message.body,
        "group": message.group_id,
        "receive_count": message.approximate_receive_count,
        "attributes": {
            name: value["StringValue"] for name, value in attributes if value.get("StringValue") is not None
        },
    }
