"""Queues: how long a message is hidden, where it goes in the end, who reads it."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity
from pipeline.deploy.lint.model import EventSource, Function, Model, Queue

#: AWS's advice for the visibility timeout: this many function timeouts, and the batching window on top.
TIMEOUTS = 6
#: AWS's advice for maxReceiveCount, and ours where records are handed back without being at fault.
RECEIVES = 5
RECEIVES_WITH_HAND_BACKS = 20
#: SQS's longest retention, in seconds: 14 days.
LONGEST_RETENTION = 1_209_600

VISIBILITY_BELOW_TIMEOUT = Rule(
    id="visibility-below-timeout",
    severity=Severity.ERROR,
    title="messages become visible while their invocation still runs",
    why="A second invocation gets the same messages beside the first; Lambda refuses such a mapping",
    fix="Set VisibilityTimeout to at least 6 x the function's Timeout + the batching window",
    source="AWS Lambda developer guide, Creating and configuring an Amazon SQS event source mapping",
)
VISIBILITY_TOO_SHORT = Rule(
    id="visibility-too-short",
    severity=Severity.WARNING,
    title="the visibility timeout leaves no room for throttled retries",
    why=(
        "While Lambda tries a throttled batch again, its messages become visible: they run twice, and each time costs "
        "one of their receives"
    ),
    fix="Set VisibilityTimeout to at least 6 x the function's Timeout + the batching window",
    source="AWS Lambda developer guide, Creating and configuring an Amazon SQS event source mapping",
)
NO_DEAD_LETTER_QUEUE = Rule(
    id="no-dead-letter-queue",
    severity=Severity.ERROR,
    title="a message that never succeeds is lost in the end",
    why=(
        "A message that fails each time comes back until its retention ends, is paid for each time, and is then "
        "deleted without a trace"
    ),
    fix="Add a RedrivePolicy with the ARN of a second queue and a maxReceiveCount of at least 5",
    source="AWS Lambda developer guide, Handling errors for an SQS event source; Amazon SQS developer guide, Dead-letter queues",
)
DEAD_LETTER_QUEUE_KIND = Rule(
    id="dead-letter-queue-kind",
    severity=Severity.ERROR,
    title="a queue and its dead-letter queue are of different kinds",
    why="SQS refuses the redrive policy: a FIFO queue's dead letters go to a FIFO queue, a standard queue's to a standard one",
    fix="Make both FIFO (`FifoQueue: true`, and a name that ends with .fifo), or neither",
    source="Amazon SQS API reference, SetQueueAttributes, RedrivePolicy",
)
DEAD_LETTER_RETENTION = Rule(
    id="dead-letter-retention",
    severity=Severity.WARNING,
    title="dead letters may expire as soon as they arrive",
    why=(
        "On standard queues a message's age counts from when it was first sent, also in the dead-letter queue: what "
        "waited long in the source is deleted there before anybody has looked"
    ),
    fix=f"Set the dead-letter queue's MessageRetentionPeriod to {LONGEST_RETENTION} (14 days), and the source's below it",
    source="Amazon SQS developer guide, Setting up dead-letter queue retention (FIFO queues begin anew, and are left out)",
)
RECEIVE_COUNT_TOO_LOW = Rule(
    id="receive-count-too-low",
    severity=Severity.WARNING,
    title="healthy messages go to the dead-letter queue",
    why=(
        "Throttled invocations, time-outs and crashes of a whole batch count as receives of every message in it, so "
        "that messages that nothing is wrong with use theirs up"
    ),
    fix=f"Set maxReceiveCount to at least {RECEIVES}",
    source="AWS Lambda developer guide, Creating and configuring an Amazon SQS event source mapping (at least 5)",
)
QUEUE_READ_TWICE = Rule(
    id="queue-read-twice",
    severity=Severity.ERROR,
    title="two event source mappings read one queue",
    why="Each message goes to one of them only, by chance; with filters, each deletes what is meant for the other",
    fix="Give each function a queue of its own, fed by an SNS topic or an EventBridge rule, or read it with one function",
    source="AWS Lambda developer guide, Using Lambda with Amazon SQS, and Lambda event filtering: filtered messages are deleted",
)
QUEUE_NOT_ENCRYPTED = Rule(
    id="queue-not-encrypted",
    severity=Severity.WARNING,
    title="a queue's encryption is turned off",
    why="Messages are stored in clear text. Left out, SQS encrypts new queues by itself, at no cost",
    fix="Take `SqsManagedSseEnabled: false` out, or name a key in KmsMasterKeyId",
    source="Amazon SQS developer guide, Server-side encryption: the default for new queues since October 2022",
)


def _readers(model: Model) -> Iterator[tuple[EventSource, Function, Queue]]:
    """Each mapping from a queue of this template to a function of it."""
    for mapping in model.mappings:
        queue, function = model.queue_of(mapping), model.function_of(mapping)
        if queue is not None and function is not None:
            yield mapping, function, queue


def visibility_below_timeout(model: Model) -> Iterator[Finding]:
    for mapping, function, queue in _readers(model):
        visible, timeout = queue.visibility.value, function.timeout.value
        if visible is not None and timeout is not None and visible < timeout:
            yield VISIBILITY_BELOW_TIMEOUT.at(
                queue.id,
                queue.visibility.line,
                f"{_hidden(queue)}, and {function.id} may run for {timeout} s",
                fix=_visibility_fix(mapping, timeout),
            )


def visibility_too_short(model: Model) -> Iterator[Finding]:
    for mapping, function, queue in _readers(model):
        visible, timeout, window = queue.visibility.value, function.timeout.value, mapping.window.value or 0
        if visible is not None and timeout is not None and timeout <= visible < TIMEOUTS * timeout + window:
            yield VISIBILITY_TOO_SHORT.at(
                queue.id,
                queue.visibility.line,
                f"{_hidden(queue)}, and {function.id} may run for {timeout} s"
                + (f" after a batching window of {window} s" if window else ""),
                fix=_visibility_fix(mapping, timeout),
            )


def _hidden(queue: Queue) -> str:
    seconds = f"{queue.visibility.value} s"
    return (
        f"messages are hidden for {seconds}" if queue.visibility.given else f"messages are hidden for SQS's {seconds}"
    )


def _visibility_fix(mapping: EventSource, timeout: int) -> str:
    window = mapping.window.value or 0
    sum_of = f"6 x {timeout} + {window}" if window else f"6 x {timeout}"
    return f"VisibilityTimeout: {TIMEOUTS * timeout + window} ({sum_of}), or a shorter Timeout"


def no_dead_letter_queue(model: Model) -> Iterator[Finding]:
    last_stops = {found.id for queue in model.queues.values() if (found := model.dead_letters_of(queue)) is not None}
    read = {queue.id: mapping for mapping in model.mappings if (queue := model.queue_of(mapping)) is not None}
    for queue_id, mapping in read.items():
        queue = model.queues[queue_id]
        if queue.redrive is None and queue_id not in last_stops:
            yield NO_DEAD_LETTER_QUEUE.at(queue_id, queue.line, f"{mapping.name} reads it, and it has no RedrivePolicy")


def dead_letter_queue_kind(model: Model) -> Iterator[Finding]:
    for queue, letters in _with_dead_letters(model):
        kinds = queue.fifo.value, letters.fifo.value
        if None not in kinds and kinds[0] != kinds[1]:
            one, other = ("FIFO", "a standard queue") if kinds[0] else ("a standard queue", "FIFO")
            yield DEAD_LETTER_QUEUE_KIND.at(queue.id, _redrive_line(queue), f"it is {one}, and {letters.id} is {other}")
    for queue in model.queues.values():
        text = queue.redrive.target.text if queue.redrive is not None and queue.redrive.target is not None else None
        name = (text or "").rpartition(":")[2]
        if not name or name.endswith("}") or queue.fifo.value is None or model.dead_letters_of(queue) is not None:
            continue
        if queue.fifo.value != name.endswith(".fifo"):
            one, other = ("FIFO", "a standard queue") if queue.fifo.value else ("a standard queue", "FIFO")
            yield DEAD_LETTER_QUEUE_KIND.at(queue.id, _redrive_line(queue), f"it is {one}, and '{name}' is {other}")


def dead_letter_retention(model: Model) -> Iterator[Finding]:
    for queue, letters in _with_dead_letters(model):
        kept, kept_there = queue.retention.value, letters.retention.value
        if queue.fifo.value is False and kept is not None and kept_there is not None and kept_there <= kept:
            yield DEAD_LETTER_RETENTION.at(
                letters.id,
                letters.retention.line,
                f"it keeps messages for {_days(kept_there)}, {queue.id} for {_days(kept)}",
            )


def receive_count_too_low(model: Model) -> Iterator[Finding]:
    reported: set[str] = set()
    for mapping in model.mappings:
        queue = model.queue_of(mapping)
        if queue is None or queue.redrive is None or queue.id in reported:
            continue
        count = queue.redrive.max_receives.value
        is_toolkit = model.code_of(mapping.function).is_toolkit
        enough = RECEIVES_WITH_HAND_BACKS if is_toolkit or queue.fifo.value else RECEIVES
        if count is None or count >= enough:
            continue
        reported.add(queue.id)
        why = ""
        if is_toolkit:
            why = "; this toolkit counts real runs itself, and what it hands back in between costs a receive too"
        elif queue.fifo.value:
            why = "; on a FIFO queue what stands behind a failing message is received with it each time"
        fix = f"Set maxReceiveCount to at least {enough}"
        yield RECEIVE_COUNT_TOO_LOW.at(
            queue.id, queue.redrive.max_receives.line, f"maxReceiveCount is {count}{why}", fix=fix
        )


def queue_read_twice(model: Model) -> Iterator[Finding]:
    first: dict[str, EventSource] = {}
    for mapping in model.mappings:
        if mapping.kind != "sqs" or mapping.source is None or mapping.enabled.value is False:
            continue
        queue = model.queue_of(mapping)
        name = queue.id if queue is not None else mapping.source.text
        if not name:
            continue
        other = first.setdefault(name, mapping)
        if other is not mapping:
            yield QUEUE_READ_TWICE.at(
                mapping.name,
                mapping.line,
                f"it reads the queue that {other.name} reads already",
                resource=mapping.owner,
            )


def queue_not_encrypted(model: Model) -> Iterator[Finding]:
    for queue in model.queues.values():
        if queue.encrypted.value is False:
            yield QUEUE_NOT_ENCRYPTED.at(queue.id, queue.encrypted.line, "`SqsManagedSseEnabled` is false")


def _with_dead_letters(model: Model) -> Iterator[tuple[Queue, Queue]]:
    for queue in model.queues.values():
        letters = model.dead_letters_of(queue)
        if letters is not None:
            yield queue, letters


def _redrive_line(queue: Queue) -> int:
    return queue.redrive.line if queue.redrive is not None else queue.line


def _days(seconds: int) -> str:
    days = seconds / 86_400
    return f"{days:g} days" if days.is_integer() else f"{seconds} s"


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (VISIBILITY_BELOW_TIMEOUT, visibility_below_timeout),
    (VISIBILITY_TOO_SHORT, visibility_too_short),
    (NO_DEAD_LETTER_QUEUE, no_dead_letter_queue),
    (DEAD_LETTER_QUEUE_KIND, dead_letter_queue_kind),
    (DEAD_LETTER_RETENTION, dead_letter_retention),
    (RECEIVE_COUNT_TOO_LOW, receive_count_too_low),
    (QUEUE_READ_TWICE, queue_read_twice),
    (QUEUE_NOT_ENCRYPTED, queue_not_encrypted),
)
