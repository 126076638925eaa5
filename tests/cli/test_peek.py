"""Looking into a queue by receiving, on the embedded server: what was there stays there."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from pipeline.aws.client import client
from pipeline.aws.operators.peek import HasRedrivePolicy, peek, why
from pipeline.engine.environment import ProcessEnvironment


@pytest.fixture
def sqs(aws: str) -> Any:
    made = boto3.client("sqs")
    yield made
    made.close()


@pytest.fixture
def queue(sqs: Any, unique: str) -> Callable[..., str]:
    def make(count: int, suffix: str = "", **attributes: str) -> str:
        url: str = sqs.create_queue(QueueName=unique + suffix, Attributes=attributes)["QueueUrl"]
        for number in range(count):
            fifo = {"MessageGroupId": f"g{number % 2}"} if suffix.endswith(".fifo") else {}
            sqs.send_message(QueueUrl=url, MessageBody=f"body {number}", **fifo)
        return url

    return make


def counts(sqs: Any, url: str) -> tuple[int, int]:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return int(found[names[0]]), int(found[names[1]])


@pytest.mark.parametrize(
    ("count", "limit", "seen"), [(0, 10, 0), (3, 10, 3), (25, 12, 12), (25, 100, 25), (10, 10, 10)]
)
async def test_messages_are_seen_once_and_given_back(
    queue: Callable[..., str], sqs: Any, environment: ProcessEnvironment, count: int, limit: int, seen: int
) -> None:
    url = queue(count)
    found = await peek(url, limit, environment)
    assert len({one.id for one in found.messages}) == len(found.messages) == seen
    assert found.total == count
    assert counts(sqs, url) == (count, 0)
    assert all(one.receive_count == 1 and one.sent_at and one.size for one in found.messages)


async def test_of_a_fifo_queue_each_group_is_seen_and_given_back_in_order(
    queue: Callable[..., str], sqs: Any, environment: ProcessEnvironment
) -> None:
    url = queue(4, ".fifo", FifoQueue="true", ContentBasedDeduplication="true")
    found = await peek(url, 10, environment)
    assert {one.group for one in found.messages} == {"g0", "g1"}
    assert counts(sqs, url) == (4, 0)
    again = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert {one["Body"] for one in again} >= {"body 0", "body 1"}


async def test_a_queue_that_counts_looks_is_left_alone(
    queue: Callable[..., str], sqs: Any, environment: ProcessEnvironment, unique: str
) -> None:
    dead = sqs.create_queue(QueueName=f"{unique}-dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    url = queue(1, RedrivePolicy=f'{{"deadLetterTargetArn": "{arn}", "maxReceiveCount": 3}}')
    with pytest.raises(HasRedrivePolicy, match=r"redrive policy of its own .maxReceiveCount 3.: a look counts"):
        await peek(url, 10, environment)
    assert sqs.receive_message(QueueUrl=url, AttributeNames=["All"])["Messages"][0]["Attributes"][
        "ApproximateReceiveCount"
    ] == "1"  # fmt: skip
    assert (await peek(url, 10, environment, anyway=True)).total == 1


async def test_what_was_received_is_given_back_when_the_look_ends_in_the_middle(
    queue: Callable[..., str], sqs: Any, environment: ProcessEnvironment
) -> None:
    url = queue(15)
    made = await client(environment, "sqs")
    receive = made.receive_message
    rounds = iter([receive])

    async def failing(**parameters: Any) -> Any:
        return await next(rounds, _broken)(**parameters)

    made.receive_message = failing
    with pytest.raises(ConnectionError):
        await peek(url, 100, environment)
    assert counts(sqs, url) == (15, 0)


async def test_a_round_without_news_is_the_last(queue: Callable[..., str], environment: ProcessEnvironment) -> None:
    """A message that comes again while the look lasts, as it does when its time-out is over, is no news."""
    url = queue(2)
    made = await client(environment, "sqs")
    first = await made.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
    rounds = 0

    async def again(**_: Any) -> Any:
        nonlocal rounds
        rounds += 1
        assert rounds <= 2
        return first

    made.receive_message = again
    assert len((await peek(url, 10, environment)).messages) == 2


async def test_the_more_is_looked_for_the_longer_is_it_hidden(
    queue: Callable[..., str], environment: ProcessEnvironment
) -> None:
    """Else the first of a thousand are back, and seen by others, before the last has come."""
    url = queue(1)
    made = await client(environment, "sqs")
    receive, hidden = made.receive_message, []

    async def seen(**parameters: Any) -> Any:
        hidden.append(parameters["VisibilityTimeout"])
        return await receive(**parameters)

    made.receive_message = seen
    await peek(url, 10, environment)
    few = hidden[-1]
    await peek(url, 1_000, environment)
    assert few < 60, "of a look that dies"
    assert hidden[-1] >= 200, "a fifth of a second for each receive, should each bring one"


async def _broken(**_: Any) -> Any:
    raise ConnectionError("gone")


async def test_giving_back_may_fail_and_the_look_stands(
    queue: Callable[..., str], environment: ProcessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = queue(2)
    made = await client(environment, "sqs")
    monkeypatch.setattr(made, "change_message_visibility_batch", _broken, raising=False)
    assert len((await peek(url, 10, environment)).messages) == 2


def _botocore() -> Iterator[tuple[Exception, str]]:
    from botocore.exceptions import ClientError, NoCredentialsError, NoRegionError, ProfileNotFound

    denied: Any = {"Error": {"Code": "AccessDenied", "Message": "no"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    yield NoCredentialsError(), "the queue: there are no AWS credentials that work here .*: log in, or name a --profile"
    yield NoRegionError(), "the queue: no region is given: --region, or AWS_REGION"
    yield ProfileNotFound(profile="x"), "the queue: The config profile .x. could not be found"
    yield ClientError(denied, "ReceiveMessage"), "the queue: AccessDenied: no. It needs sqs:A, sqs:B"
    other: Any = {"Error": {"Code": "Throttling", "Message": "slow"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    yield ClientError(other, "ReceiveMessage"), "the queue: Throttling: slow"


@pytest.mark.parametrize(("error", "text"), list(_botocore()), ids=lambda one: type(one).__name__)
def test_errors_of_aws_are_plain_sentences(error: Exception, text: str) -> None:
    assert re.fullmatch(text, why(error, "the queue", ("sqs:A", "sqs:B")))


def test_a_mistake_in_a_program_is_no_error_of_aws() -> None:
    with pytest.raises(ZeroDivisionError):
        why(ZeroDivisionError(), "the queue", ())
