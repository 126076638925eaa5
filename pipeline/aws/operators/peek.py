"""Looking into an SQS queue, which has no call for it: messages are received, and given back.

What that does to a queue (SQS developer guide, "Visibility timeout" and "Dead-letter queues"): each message's receive count
grows by one; for a moment other readers, and a redrive that runs, do not see it; a FIFO group stands still while one of its
messages is looked at, so that at most ten of each group are seen. A queue whose own redrive policy counts receives would move
messages on: it is left alone unless that is wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from pipeline.aws.client import client, code_of, describe, sink_error
from pipeline.aws.sqs import message_size
from pipeline.errors import PipelineError
from pipeline.ports import Environment

#: Seconds for which a message that is looked at is hidden from others, should we die before we give it back; and for how
#: many messages it is one more: the first must not come back before the last is there, should each receive bring one only.
_HIDDEN, _MORE_FOR = 20, 5
#: Seconds that a receive waits: any wait makes SQS ask all of its servers, not a sample of them.
_WAIT = 1
_BATCH = 10
#: Actions that a look needs.
ACTIONS = ("sqs:GetQueueUrl", "sqs:GetQueueAttributes", "sqs:ReceiveMessage", "sqs:ChangeMessageVisibility")
_DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "InvalidClientTokenId", "ExpiredToken"}
)


class Message(Struct, frozen=True, kw_only=True):
    """A message as it stands in a queue."""

    id: str
    body: str
    attributes: Mapping[str, str]  #: those that are texts
    sent_at: float | None = None  #: epoch seconds
    receive_count: int | None = None  #: with this look, where a look counts
    group: str | None = None
    size: int | None = None  #: bytes, with its attributes


class Peeked(Struct, frozen=True, kw_only=True):
    """What a look saw."""

    messages: Sequence[Message]
    total: int | None  #: about how many messages there are, also those that somebody else works on


class HasRedrivePolicy(PipelineError):
    """The queue counts receives, and moves a message on after so many: looking would count."""


def denied(error: BaseException) -> bool:
    """An error of AWS's says that something is not allowed."""
    return isinstance(error, Exception) and code_of(error) in _DENIED


def why(error: Exception, what: str, actions: Sequence[str]) -> str:
    """A plain sentence for an error of a call, with what to do about it. A programming error is raised again."""
    name = type(error).__name__
    if name in ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"):
        return f"{what}: there are no AWS credentials that work here ({error}): log in, or name a --profile"
    if name == "NoRegionError":
        return f"{what}: no region is given: --region, or AWS_REGION"
    if name == "ProfileNotFound":
        return f"{what}: {error}"
    if denied(error):
        return f"{what}: {describe(error)}. It needs {', '.join(actions)}"
    return str(sink_error(error, what))


async def url_of(name: str, environment: Environment) -> str:
    """A queue's URL by its name or ARN. Raises what the client raises."""
    sqs = await client(environment, "sqs")
    owner = {}
    if name.startswith("arn:"):
        parts = name.split(":", 5)
        name, owner = parts[-1], {"QueueOwnerAWSAccountId": parts[4]} if len(parts) == 6 and parts[4] else {}
    found: str = (await sqs.get_queue_url(QueueName=name, **owner))["QueueUrl"]
    return found


async def peek(url: str, limit: int, environment: Environment, *, anyway: bool = False) -> Peeked:
    """Up to `limit` messages, which stay where they are.

    `anyway`: also where the queue has a redrive policy of its own. Raises `HasRedrivePolicy`, and what the client raises.
    """
    sqs = await client(environment, "sqs")
    answer = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
    attributes = answer.get("Attributes", {})
    policy = attributes.get("RedrivePolicy")
    if policy and not anyway:
        raise HasRedrivePolicy(
            f"{url.rpartition('/')[2]} has a redrive policy of its own ({_limit(policy)}): a look counts as a receive, and may "
            "move its messages on. --anyway looks all the same"
        )
    in_flight = _whole(attributes.get("ApproximateNumberOfMessagesNotVisible")) or 0
    visible = _whole(attributes.get("ApproximateNumberOfMessages"))
    received = await _received(sqs, url, limit)
    total = None if visible is None else max(visible + in_flight, len(received))
    return Peeked(messages=[message_of(one) for one in received], total=total)


async def _received(sqs: Any, url: str, limit: int) -> list[Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}  # the last receipt of each counts
    try:
        while len(found) < limit:
            answer = await sqs.receive_message(
                QueueUrl=url,
                MaxNumberOfMessages=min(_BATCH, limit - len(found)),
                VisibilityTimeout=_HIDDEN + limit // _MORE_FOR,
                WaitTimeSeconds=_WAIT,
                MessageAttributeNames=["All"],
                MessageSystemAttributeNames=["All"],
            )
            before = len(found)
            found.update((one["MessageId"], one) for one in answer.get("Messages", ()))
            if len(found) == before:  # nothing new in a round: that was all that can be seen
                break
    finally:
        await _give_back(sqs, url, list(found.values()))
    return list(found.values())


async def _give_back(sqs: Any, url: str, received: Sequence[Mapping[str, Any]]) -> None:
    """Make them visible again at once. What fails comes back by itself."""
    for start in range(0, len(received), _BATCH):
        entries = [
            {"Id": str(position), "ReceiptHandle": one["ReceiptHandle"], "VisibilityTimeout": 0}
            for position, one in enumerate(received[start : start + _BATCH])
        ]
        with contextlib.suppress(Exception):
            await asyncio.shield(sqs.change_message_visibility_batch(QueueUrl=url, Entries=entries))


def message_of(message: Mapping[str, Any]) -> Message:
    """A received message."""
    system = message.get("Attributes", {})
    attributes = message.get("MessageAttributes", {})
    sent = _whole(system.get("SentTimestamp"))
    body: str = message.get("Body", "")
    return Message(
        id=message["MessageId"],
        body=body,
        attributes={name: value["StringValue"] for name, value in attributes.items() if "StringValue" in value},
        sent_at=None if sent is None else sent / 1000,
        receive_count=_whole(system.get("ApproximateReceiveCount")),
        group=system.get("MessageGroupId"),
        size=message_size(body, attributes),
    )


def _whole(text: Any) -> int | None:
    try:
        return int(text)
    except (TypeError, ValueError):
        return None


def _limit(policy: str) -> str:
    try:
        return f"maxReceiveCount {int(json.loads(policy)['maxReceiveCount'])}"
    except (ValueError, TypeError, LookupError):
        return "which cannot be read"
