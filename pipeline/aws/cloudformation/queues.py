"""SQS queues in a template: sources, sinks and dead-letter queues."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline.aws import sqs
from pipeline.aws.cloudformation import mappings
from pipeline.aws.cloudformation.policies import tls_only
from pipeline.aws.cloudformation.stack import TRACE, Event, Reader, Series, Stack, logical_id, metric
from pipeline.aws.cloudformation.values import Att, NameOfArn, Noted, Ref, Sub
from pipeline.aws.names import Resource, arn_name
from pipeline.errors import ConfigurationError
from pipeline.sources.sqs_dead_letters import dead_letter_queue, named_elsewhere

if TYPE_CHECKING:
    from pipeline.sources.sqs import SQS

#: SQS's longest retention, 14 days (the service model of SQS, 2026-11).
LONGEST_RETENTION = 1_209_600
#: SQS's default retention, 4 days.
RETENTION = 345_600
#: SQS takes 80 characters (CreateQueue, 2026); a stack's name and a dash take at least two.
_LONGEST_NAME = 78
_NAME = re.compile(r"[A-Za-z0-9_-]+(\.fifo)?")

_SKIPPED = {
    "CKV_AWS_27": "Encrypted with the keys that SQS manages (SSE-SQS): no key to pay for, and EventBridge and SNS may send."
}


def add_queue(stack: Stack, queue: Resource, properties: Mapping[str, Any], *, why: str | None = None) -> str:
    """Add an encrypted queue that is reached over TLS only; return its logical id.

    Raises `ConfigurationError` for a name that SQS does not take.
    """
    if not _NAME.fullmatch(queue.name) or len(queue.name) > _LONGEST_NAME:
        raise ConfigurationError(
            f"the queue '{queue.name}' has a name that SQS does not take: give letters, digits, '-' and '_' ('.fifo' "
            f"at the end), at most {_LONGEST_NAME} characters, because the stack's name stands before it and SQS takes 80"
        )
    fifo = {"FifoQueue": True} if sqs.is_fifo(queue.name) else {}
    named = {"QueueName": physical_name(queue), **fifo, **properties, "SqsManagedSseEnabled": True}
    name = stack.keep(queue, "AWS::SQS::Queue", named, why=why, skipped_checks=_SKIPPED)
    policy = {"Queues": [Ref(name)], "PolicyDocument": tls_only("sqs:*", Att(name))}
    stack.add(f"{name}Policy", "AWS::SQS::QueuePolicy", policy)
    return name


def add_source(
    stack: Stack,
    queue: Resource,
    dead: Resource,
    *,
    visibility: int,
    timeout: int,
    window: int,
    max_receive_count: int,
) -> None:
    """Add a queue that is read, and its dead-letter queue."""
    formula = f"6 x timeout + batching window (6 x {timeout} + {window})" if window else f"6 x timeout (6 x {timeout})"
    redrive = {
        "deadLetterTargetArn": Att(logical_id(dead.name, "Queue")),
        "maxReceiveCount": Noted(
            max_receive_count,
            "Only the net for records that kill the process: a hand-back costs a receive too, so a small number\n"
            "would dead-letter healthy messages. The toolkit itself gives up after its own attempts.",
        ),
    }
    name = add_queue(
        stack,
        queue,
        {
            "VisibilityTimeout": Noted(
                visibility,
                f"{formula}, as AWS advises: while Lambda retries a throttled batch, its messages must not\n"
                "become visible to a second poller.",
            ),
            "MessageRetentionPeriod": Noted(
                RETENTION,
                "SQS's default, 4 days: well within the dead-letter queue's 14, because age counts on there.",
            ),
            "RedrivePolicy": redrive,
        },
    )
    stack.outputs[f"{name}Url"] = {"Description": f"Where records for {queue.name} are sent", "Value": Ref(name)}
    stack.outputs[f"{name}Arn"] = {"Description": "The same, as a redrive names it", "Value": Att(name)}
    own_arn = Sub("arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:" + physical_name(queue).text)
    allowed = {
        "redrivePermission": "byQueue",
        "sourceQueueArns": Noted([own_arn], "By name: the queues name each other, and attributes would make a circle."),
    }
    add_dead_letters(stack, dead, {"RedriveAllowPolicy": allowed})


def add_unread(stack: Stack, queue: Resource) -> None:
    """Add a queue that no handler reads."""
    retention = Noted(LONGEST_RETENTION, "14 days, SQS's longest: what is sent outlasts a reader that is away.")
    why = (
        "Nothing here reads it. Whoever does gives it the visibility timeout of their reader, and a redrive policy\n"
        "with a dead-letter queue of their own: without a reader, there is nothing to move there."
    )
    name = add_queue(stack, queue, {"MessageRetentionPeriod": retention}, why=why)
    stack.outputs[f"{name}Url"] = {
        "Description": f"What is sent to {queue.name}; nothing here reads it",
        "Value": Ref(name),
    }


def add_dead_letters(stack: Stack, dead: Resource, properties: Mapping[str, Any], *, why: str | None = None) -> str:
    """Add a dead-letter queue, and the alarm that rings when something is in it."""
    retention = Noted(
        LONGEST_RETENTION, "14 days, SQS's longest: the age of a dead letter counts from when it was first sent."
    )
    name = add_queue(stack, dead, {"MessageRetentionPeriod": retention, **properties}, why=why)
    watch_letters(stack, dead, name)
    stack.outputs[f"{name}Url"] = {
        "Description": "Records that will never succeed, with their cause",
        "Value": Ref(name),
    }
    stack.outputs[f"{name}Arn"] = {"Description": "The same, as a redrive names it", "Value": Att(name)}
    return name


def watch_letters(stack: Stack, dead: Resource, name: str) -> None:
    """Add the alarm that rings when something is in a queue of dead letters; `name`: what its alarm is called by."""
    if f"{name}NotEmpty" in stack.resources:
        return
    watched = metric(
        "AWS/SQS", "ApproximateNumberOfMessagesVisible", {"QueueName": queue_name(stack, dead)}, "Maximum", 60
    )
    threshold = Noted(1, "What is there, not what was sent: NumberOfMessagesSent does not count redriven messages.")
    stack.alarm(
        f"{name}NotEmpty",
        f"{dead.name}: there are dead letters; read their cause, then redrive",
        {**watched, "EvaluationPeriods": 1, "Threshold": threshold},
        command=(
            f"pipeline dlq peek --queue ${{{name}.Arn}} --stack ${{AWS::StackName}} --region ${{AWS::Region}}"
            if name in stack.resources
            else ""
        ),
    )


def physical_name(queue: Resource) -> Sub:
    """The queue's name: the stack's, because two stacks may stand in one account."""
    return Sub("${AWS::StackName}-" + queue.name)


def ask_for_dead_letters(stack: Stack, queue: Resource) -> None:
    """Add a parameter for the dead-letter queue of a queue that is not ours: only its redrive policy names it."""
    dead = dead_letter_queue(queue)
    name = logical_id(dead.name, "Arn")
    stack.parameters[name] = {
        "Type": "String",
        "AllowedPattern": "arn:[a-z-]+:sqs:.+",
        "Description": f"ARN of the dead-letter queue that the redrive policy of {queue.physical} names",
    }
    theirs = named_elsewhere(queue)
    if not stack.has(theirs):
        stack.place(theirs, None, Ref(name))
        watch_letters(stack, theirs, logical_id(dead.name, "Queue"))


def watch_source(stack: Stack, queue: Resource, reader: Reader, *, visibility: int) -> None:
    """Add the alarm of a queue that is read too late, and its graph."""
    dimensions = {"QueueName": queue_name(stack, queue)}
    threshold = max(600, 3 * visibility, reader.retrying + visibility)
    reason = Noted(
        threshold,
        f"Seconds: three visibility timeouts ({visibility} s, after which a crashed batch comes back), or all the retries of\n"
        f"one record ({reader.retrying} s) and one of them. A backlog stays longer.",
    )
    age = metric("AWS/SQS", "ApproximateAgeOfOldestMessage", dimensions, "Maximum", 60)
    stack.alarm(
        logical_id(queue.name, "QueueAge"),
        f"{queue.name}: the oldest message waits too long",
        {**age, "EvaluationPeriods": 5, "Threshold": reason},
        command=TRACE,
    )
    stack.graph(
        reader.function,
        f"{queue.name}: waiting, and seconds of the oldest",
        [
            Series(namespace="AWS/SQS", metric=name, dimensions=dimensions, statistic="Maximum")
            for name in ("ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage")
        ],
    )


def queue_name(stack: Stack, queue: Resource) -> Any:
    """A queue's real name, as metrics have it."""
    if queue.existing is not None:
        return arn_name(queue.existing)
    arn = stack.arn(queue)
    return NameOfArn(arn.name) if isinstance(arn, Ref) else Att(arn.name, "QueueName")


def event(stack: Stack, source: SQS) -> Event:
    """The event source mapping of a queue."""
    properties: dict[str, Any] = {
        "Queue": stack.arn(source.resource),
        "BatchSize": Noted(source.batch_size, "An invocation takes 6 MB, whatever the batch size says."),
    }
    if source.batching_window:
        properties["MaximumBatchingWindowInSeconds"] = source.batching_window
    if source.max_concurrency is not None:
        properties["ScalingConfig"] = Noted(
            {"MaximumConcurrency": source.max_concurrency},
            "Rather than reserved concurrency, whose throttling sends healthy messages to the dead letters.",
        )
    properties |= mappings.filtered(
        source.filter_patterns, "A message that matches none of these is deleted, and counted by its alarm only."
    )
    properties |= mappings.reporting("Without it Lambda ignores which records failed, and acknowledges all of them.")
    return Event(kind="SQS", properties=properties)
