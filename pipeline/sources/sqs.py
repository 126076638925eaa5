"""Records from an SQS queue: standard, FIFO by its name, or fair."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from pipeline.aws import sqs
from pipeline.aws.client import client, sink_error
from pipeline.aws.names import Resource, arn_name, resource
from pipeline.batch import BatchResult
from pipeline.decisions.checkpoint import Position, place
from pipeline.decisions.deadline import Deadline
from pipeline.decisions.patterns import Filter, Patterns, read_filter
from pipeline.errors import ConfigurationError
from pipeline.outcome import Failed, Unprocessed
from pipeline.ports import Environment
from pipeline.record import RawRecord
from pipeline.sources import sqs_event
from pipeline.sources.sqs_dead_letters import SQSDeadLetters, dead_letter_queue
from pipeline.telemetry import conventions

if TYPE_CHECKING:
    from pipeline.aws.cloudformation.stack import Event, Grant, Reader, Stack

#: A dead letter is kept as long as SQS allows: its age counts from when it was first sent.
_DEAD_LETTER_SECONDS = 1_209_600
#: SQS counts a message's twelve hours from when it was received, which may be a whole run ago: 15 minutes.
_MAX_DELAY = sqs.MAX_VISIBILITY - 900


@dataclass(frozen=True)
class _Options:
    """The options in one place, so that their checks read as a list."""

    batch_size: int
    batching_window: int
    max_concurrency: int | None
    max_receive_count: int


@dataclass(frozen=True, init=False)
class SQS:
    """Read a queue; FIFO when its name ends in `.fifo`.

    `batch_size`: records an invocation gets at most (1 to 10,000; FIFO 1 to 10; more than 10 needs
    a window). `batching_window`: seconds that Lambda waits to fill a batch (0 to 300; not FIFO).
    `max_concurrency`: batches that run at the same time (2 to 1,000; default: Lambda's own limit).
    `max_receive_count`: the net for records that kill the process; the toolkit itself puts a record
    into the dead-letter queue after its attempts. `existing`: the ARN of a queue that is not ours.

    `filter`: a pattern in EventBridge's syntax, or a list of at most 5, of which any may match; for
    operators and rules see `pipeline.decisions.patterns`. A pattern is always over the JSON payload, as
    `{"kind": ["order"]}`: no `body` stands around it (the mapping gets that), and a message's attributes
    cannot be asked, because Lambda filters a queue by its bodies only. Lambda **deletes** a message that
    matches none, and one whose body is not JSON, before any function runs: no outcome, no dead letter, and
    nothing in the log. `pipeline dev` and `local` do the same and count it as `filtered`.

    Limits: 1 MiB a message, and 6 MB an invocation, whatever the batch size says; 4,096 characters a pattern.
    """

    queue: str
    batch_size: int
    batching_window: int
    max_concurrency: int | None
    max_receive_count: int
    filter: Filter | None
    existing: str | None

    #: Each message has its own place, delay and receive count, and goes to one reader.
    is_stream = False

    def __init__(
        self,
        queue: str,
        *,
        batch_size: int = 10,
        batching_window: int = 0,
        max_concurrency: int | None = None,
        max_receive_count: int = 20,
        filter: Patterns | None = None,  # noqa: A002 - the public name
        existing: str | None = None,
    ) -> None:
        target = resource("sqs", queue, existing, declared="sources.SQS")
        options = _Options(batch_size, batching_window, max_concurrency, max_receive_count)
        _check(options, is_fifo=sqs.is_fifo(existing or queue))
        found = read_filter(filter, member="body", declared="sources.SQS")
        fields = {"queue": target.name, "existing": target.existing, "filter": found, **vars(options)}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def name(self) -> str:
        """The logical name."""
        return self.queue

    @property
    def described(self) -> Mapping[str, str]:
        """What the spans of its calls say of it."""
        return conventions.received(conventions.SQS, self.name)

    @property
    def resource(self) -> Resource:
        """The queue."""
        return Resource("sqs", self.queue, self.existing)

    @property
    def is_fifo(self) -> bool:
        """True when the queue keeps the order of each message group."""
        return sqs.is_fifo(self.existing or self.queue)

    @property
    def dead_letters(self) -> SQSDeadLetters:
        """The queue's dead-letter queue."""
        return SQSDeadLetters(self.resource)

    @property
    def orders(self) -> Mapping[str, Callable[[RawRecord], str | None]]:
        """The orders that the queue itself keeps, by the names in `pipeline.by`."""
        return {"message_group": lambda raw: raw.lane} if self.is_fifo else {}

    @property
    def position_of(self) -> Callable[[RawRecord], Position | None] | None:
        """Where a record stands in its message group, on a FIFO queue.

        Of the queue that the record came from, which need not be the declared one; only without its ARN (`invoke`,
        events made by hand) that is taken for it.
        """
        return partial(_place_in_group, self.existing or self.queue) if self.is_fifo else None

    @property
    def filter_patterns(self) -> Sequence[Mapping[str, Any]]:
        """The patterns of `filter`, each over a record of Lambda's event, as `FilterCriteria` wants them."""
        return () if self.filter is None else self.filter.patterns

    def decode(self, event: Any) -> list[RawRecord]:
        """The records of a Lambda event; see the `Source` port."""
        return sqs_event.decode(event, self.queue, is_fifo=self.is_fifo)

    def unsettled_ids(self, result: BatchResult) -> list[str]:
        """The message ids of the unsettled records, each once, in order."""
        return list(dict.fromkeys(record.id for record in result.unsettled()))

    async def settle(self, result: BatchResult, environment: Environment, deadline: Deadline) -> None:
        """Make each unsettled record visible again after its delay, as far as SQS and the time allow.

        Raises nothing: a message whose delay SQS does not take, in part of a call or all of it,
        comes back when its visibility timeout ends. The longest delay is 11 hours and 45 minutes.
        """
        delays = _delays(result)
        if not delays:
            return
        left = None if deadline.hard is None else deadline.hard - environment.clock.monotonic()
        if left is not None and left <= 0:
            return
        try:
            async with asyncio.timeout(left):
                await self._delay(delays, environment)
        except TimeoutError:
            return  # what was not reached comes back when its visibility timeout ends

    async def create(self, environment: Environment, *, timeout: int) -> None:  # noqa: ASYNC109 - the function's
        """Make the queue and its dead-letter queue, or bring their attributes up to date.

        `timeout`: the function's, in seconds. AWS advises a visibility timeout of six times that
        and the batching window, so that a batch that is retried by the mapping stays invisible.
        """
        kept = {"MessageRetentionPeriod": str(_DEAD_LETTER_SECONDS)}
        dead_url, dead_arn = await sqs.create_queue(dead_letter_queue(self.resource), environment, kept)
        policy = {"deadLetterTargetArn": dead_arn, "maxReceiveCount": self.max_receive_count}
        wanted = {"VisibilityTimeout": str(self._visibility(timeout)), "RedrivePolicy": json.dumps(policy)}
        _, arn = await sqs.create_queue(self.resource, environment, wanted)
        allowed = {"redrivePermission": "byQueue", "sourceQueueArns": [arn]}
        await sqs.put_attributes(dead_url, environment, {"RedriveAllowPolicy": json.dumps(allowed)})

    def _visibility(self, timeout: int) -> int:
        return min(6 * timeout + self.batching_window, sqs.MAX_VISIBILITY)

    def declare(self, stack: Stack, reader: Reader) -> None:
        """Add the queue and its dead-letter queue to a template, unless they are not ours, and their alarms."""
        from pipeline.aws.cloudformation import mappings, queues

        if not stack.has(self.resource):
            queues.add_source(
                stack,
                self.resource,
                dead_letter_queue(self.resource),
                visibility=self._visibility(reader.timeout),
                timeout=reader.timeout,
                window=self.batching_window,
                max_receive_count=self.max_receive_count,
            )
        queues.watch_source(stack, self.resource, reader, visibility=self._visibility(reader.timeout))
        if self.filter_patterns:
            mappings.watch_filter(stack, self.queue, reader)

    def event(self, stack: Stack) -> Event:
        """The event source mapping."""
        from pipeline.aws.cloudformation import queues

        return queues.event(stack, self)

    def grants(self, *, delays: bool) -> list[Grant]:
        """What a function needs for this source; `delays`: it makes failed records visible after a time of its own."""
        from pipeline.aws.cloudformation.stack import Grant

        read = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
        grants = [Grant(to="Read", resource=self.resource, actions=read, is_for_lambda=True)]
        if delays:
            url = ("sqs:GetQueueUrl",) if self.existing else ()
            why = "The delay of each record that is handed back."
            actions = ("sqs:ChangeMessageVisibility", *url)
            grants.append(Grant(to="Delay", resource=self.resource, actions=actions, why=why))
        return grants

    async def _delay(self, delays: list[tuple[RawRecord, int]], environment: Environment) -> None:
        by_queue: dict[str, list[dict[str, Any]]] = {}
        for record, delay in delays:
            entry = {"ReceiptHandle": record.origin["receiptHandle"], "VisibilityTimeout": delay}
            by_queue.setdefault(_arn_of(record), []).append(entry)
        tens = [
            (arn, entries[start : start + 10])
            for arn, entries in by_queue.items()
            for start in range(0, len(entries), 10)
        ]
        results = await asyncio.gather(
            *(self._change(arn, ten, environment) for arn, ten in tens), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Exception):
                raise result

    async def _change(self, arn: str, entries: Sequence[dict[str, Any]], environment: Environment) -> None:
        url = await self._url(arn, environment)
        numbered = [{"Id": str(position), **entry} for position, entry in enumerate(entries)]
        try:
            service = await client(environment, "sqs")
            await service.change_message_visibility_batch(QueueUrl=url, Entries=numbered)
        except Exception as error:
            raise sink_error(error, "SQS ChangeMessageVisibilityBatch") from None

    async def _url(self, arn: str, environment: Environment) -> str:
        """The URL of the queue that a record came from: the declared one, or another that the event names."""
        if not arn or arn_name(arn) == self.resource.physical.rpartition("/")[2]:
            return await sqs.queue_url(self.resource, environment)
        return await sqs.queue_url(Resource("sqs", self.queue, arn), environment)


def _place_in_group(declared: str, raw: RawRecord) -> Position | None:
    """SQS numbers the messages of a group (the `SequenceNumber` attribute); an event made by hand may lack it."""
    found = raw.origin.get("attributes") if isinstance(raw.origin, Mapping) else None
    number = found.get("SequenceNumber") if isinstance(found, Mapping) else None
    if raw.lane is None or not isinstance(number, str) or not (number.isascii() and number.isdigit()):
        return None
    return Position(f"{_arn_of(raw) or declared}/{raw.lane}", place(number))


def _delays(result: BatchResult) -> list[tuple[RawRecord, int]]:
    """The records to come back after a delay of their own: in whole seconds, which SQS counts in."""
    delays: list[tuple[RawRecord, int]] = []
    for record, outcome in result:
        if not isinstance(outcome, (Failed, Unprocessed)) or outcome.delay is None:
            continue
        handle = record.origin.get("receiptHandle") if isinstance(record.origin, dict) else None
        if isinstance(handle, str) and handle:
            delays.append((record, _whole_seconds(outcome.delay)))
    return delays


def _whole_seconds(delay: float) -> int:
    """What SQS takes as a delay; the longest one for what is no time at all."""
    try:
        return min(max(math.ceil(delay), 0), _MAX_DELAY)
    except (TypeError, ValueError, OverflowError):
        return _MAX_DELAY


def _arn_of(record: RawRecord) -> str:
    arn = record.origin.get("eventSourceARN")
    return arn if isinstance(arn, str) and arn.count(":") >= 5 else ""


def _check(options: _Options, *, is_fifo: bool) -> None:
    def between(name: str, low: int, high: float) -> None:
        value = getattr(options, name)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            limits = f"{low} or more" if high == math.inf else f"{low} to {high:,}"
            raise ConfigurationError(f"sources.SQS({name}={value!r}): give a whole number, {limits}")

    between("batch_size", 1, 10_000)
    between("batching_window", 0, 300)
    between("max_receive_count", 1, 1_000)
    if options.max_concurrency is not None:
        between("max_concurrency", 2, 1_000)
    if is_fifo and options.batch_size > 10:
        raise ConfigurationError(
            f"sources.SQS(batch_size={options.batch_size}): a FIFO queue takes at most batch_size=10"
        )
    if is_fifo and options.batching_window:
        raise ConfigurationError("sources.SQS(batching_window=...): a FIFO queue has no batching window; leave it out")
    if options.batch_size > 10 and options.batching_window < 1:
        raise ConfigurationError(
            f"sources.SQS(batch_size={options.batch_size}): more than 10 needs a window; add batching_window=1"
        )
