"""SQS' rules, asked of the service in memory, of the local run's own server, and of moto, which gets some of them wrong.

Sources: "model" is the API model of SQS in botocore, by operation; "guide" the SQS developer guide, by page; "recorded" what
LocalStack's tests recorded against AWS (`tests/aws/services/sqs/*.snapshot.json` in its repository).
"""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st
from moto import mock_aws
from moto.sqs import models as moto_sqs

from pipeline.emulator import embedded
from pipeline.emulator.embedded import EmbeddedServer
from pipeline.emulator.services.client import MemoryClient, News
from pipeline.emulator.services.queue import SQS
from pipeline.emulator.services.service import Service, ServiceError
from tests.contract.conftest import ManualClock

MIB = 1_048_576
HOUR = 3_600
DAY = 24 * HOUR

NO_CHECKS = "looks at the entries of messages that are sent only"
#: What moto does otherwise: by test, or by test and parameters. Where it does as AWS does after all, the test fails, and
#: its line goes.
DIFFERENCES: dict[str, str] = {
    # Queues
    "test_names_are_up_to_80_letters_digits_hyphens_and_underscores[q.fifo]": "makes a standard queue named .fifo",
    "test_attributes_have_ranges": "takes any number, and fails with 500 for what is none; MaximumMessageSize is checked "
    "when a queue is made, but not when it is changed",
    "test_attributes_of_other_names_or_of_the_other_type_are_unknown": "takes any name",
    "test_a_deleted_queues_name_is_not_to_be_had_for_a_minute": "makes it at once",
    'test_a_redrive_policy_names_a_queue[{"deadLetterTargetArn": "dead", "maxReceiveCount": 3}]': "has another code",
    "test_a_redrive_policy_names_a_queue[x]": "fails with 500",
    "test_a_redrive_policy_says_after_how_many_receives": "takes any number, and fails with 500 for what is none",
    "test_a_dead_letter_queue_exists_before_its_source": "has another code",
    "test_a_dead_letter_queue_is_of_its_sources_type": "has another code; takes a FIFO one of a standard queue",
    "test_a_dead_letter_queue_says_whose_it_is": "ignores RedriveAllowPolicy",
    "test_whose_it_is_names_up_to_ten_queues": "ignores RedriveAllowPolicy",
    # Sending
    "test_a_message_of_one_mebibyte_is_taken_with_its_attributes_and_no_longer_one": "counts characters, no attributes",
    "test_attributes_count_toward_a_batch": "does not count attributes",
    "test_a_batch_has_one_to_ten_entries_with_ids[ids0-EmptyBatchRequest-change_message_visibility_batch]": NO_CHECKS,
    **{
        f"test_a_batch_has_one_to_ten_entries_with_ids[ids{case}-{operation}_batch]": NO_CHECKS
        for case in (
            "1-TooManyEntriesInBatchRequest",
            "2-BatchEntryIdsNotDistinct",
            "3-InvalidBatchEntryId",
            "4-InvalidBatchEntryId",
        )
        for operation in ("delete_message", "change_message_visibility")
    },
    "test_a_batch_is_answered_entry_by_entry": "refuses the batch for an attribute, takes any character",
    "test_a_body_is_not_empty": "takes an empty one",
    "test_a_body_holds_what_xml_allows": "takes any character",
    **{
        f"test_message_attributes_have_rules[{case}]": "takes them"
        for case in ("eleven", "dots", "dot", "AWS", "amazon", "long", "empty", "number", "binary")
    },
    "test_a_delay_lasts_up_to_15_minutes": "takes a delay below 0",
    "test_a_trace_header_travels_in_a_batch": "loses it",
    "test_there_is_no_other_system_attribute_to_send": "takes any",
    "test_a_standard_queue_takes_groups_and_no_deduplication_ids": "takes deduplication ids, and gives them back",
    "test_group_and_deduplication_ids_are_ascii": "takes any",
    # Receiving
    "test_receiving_has_limits[{'VisibilityTimeout': -1}]": "takes it",
    "test_a_timeout_lasts_twelve_hours_from_the_receive_in_all": "counts from when the message was sent",
    "test_an_old_handle_deletes_nothing_and_is_no_error": "deletes the message that somebody else works on",
    "test_an_old_handle_hides_nothing": "hides the message that somebody else works on",
    "test_a_message_is_deleted_twice_and_hidden_no_more": "has another code",
    "test_a_message_is_gone_when_its_retention_ends": "counts it; a receive that meets it hands out none behind it",
    "test_another_retention_holds_for_messages_that_are_there": "counts it as in flight after a receive",
    # Dead letters
    "test_a_dead_letter_says_where_it_comes_from": "does not say it",
    "test_a_standard_queues_dead_letter_is_kept_from_when_it_was_sent": "counts it after its retention",
    "test_a_fifo_queues_dead_letter_is_kept_from_when_it_was_moved": "counts it after its retention",
    "test_a_fifo_queues_dead_letter_has_its_message_id_as_deduplication_id": "keeps its own, and so can lose it",
    "test_without_its_dead_letter_queue_a_message_stays": "loses it",
    # FIFO queues
    "test_a_fifo_queue_needs_a_group_and_a_deduplication_id": "has another code for batches",
    "test_another_delay_of_a_fifo_queue_holds_for_messages_that_are_there": "keeps the old delay for them",
    "test_an_earlier_message_comes_before_later_ones_again": "hands out the later ones first",
    "test_a_visible_message_waits_for_one_of_its_group_behind_it_that_is_in_flight": "hands out the later one first",
    "test_a_duplicate_is_accepted_with_the_first_ones_answer_and_not_delivered": "answers with another message id",
    "test_a_duplicate_is_known_for_five_minutes_also_when_the_first_is_deleted": "delivers it when the first is deleted",
    "test_duplicates_can_be_those_of_a_group": "ignores DeduplicationScope",
    "test_a_group_has_the_throughput_limit_where_it_has_the_deduplication": "takes it",
    "test_content_is_a_deduplication_id_where_the_queue_says_so": "answers with another message id",
    "test_sequence_numbers_have_20_digits_and_grow": "has random ones, and none without a deduplication id",
    "test_a_fifo_queue_refuses_a_handle_whose_timeout_has_ended": "deletes",
    # Moving dead letters back
    **dict.fromkeys(
        (
            "test_dead_letters_go_back_where_they_came_from",
            "test_dead_letters_go_to_a_queue_of_choice",
            "test_a_fifo_queues_dead_letters_go_back_in_order",
            "test_a_move_can_be_slow_and_cancelled",
            "test_moves_are_listed_newest_first",
            "test_what_a_move_must_know",
            "test_what_was_sent_to_the_dead_letters_directly_has_nowhere_to_go_back_to",
            "test_a_move_fails_when_its_destination_goes",
        ),
        "has no move tasks: 500",
    ),
}


@dataclass
class World:
    """One implementation, whose time tests move."""

    client: Any
    clock: ManualClock
    memory: SQS | None = None
    server: EmbeddedServer | None = None
    prefix: str = ""
    urls: dict[str, str] = field(default_factory=dict)

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        made = getattr(self.client, operation)(**parameters)
        answer: dict[str, Any] = await made if self.memory is not None else made
        answer.pop("ResponseMetadata")
        return answer

    async def refusal(self, operation: str, **parameters: Any) -> str:
        """The code with which a call is refused."""
        with pytest.raises(ClientError) as raised:
            await self.call(operation, **parameters)
        response: Any = raised.value.response
        return str(response["Error"]["Code"])

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if self.server is not None:
            self.server.advance(seconds)

    def peek(self, name: str) -> list[dict[str, Any]]:
        if self.server is not None:
            return self.server.peek(self.named(name))
        return [] if self.memory is None else self.memory.peek(self.named(name))

    def named(self, name: str) -> str:
        """A name that no other test has."""
        return f"{self.prefix}{name}"

    def arn(self, name: str) -> str:
        return f"arn:aws:sqs:us-east-1:123456789012:{self.named(name)}"

    async def queue(self, name: str = "orders", **attributes: str) -> str:
        """The URL of a new queue; a name that ends in `.fifo` makes it one."""
        fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        made = await self.call("create_queue", QueueName=self.named(name), Attributes={**fifo, **attributes})
        return str(made["QueueUrl"])

    async def pair(self, suffix: str = "", receives: int = 1, **attributes: str) -> tuple[str, str]:
        """A queue and its dead-letter queue: URLs."""
        dead = await self.queue(f"dead{suffix}")
        policy = json.dumps({"deadLetterTargetArn": self.arn(f"dead{suffix}"), "maxReceiveCount": receives})
        return await self.queue(f"orders{suffix}", RedrivePolicy=policy, **attributes), dead

    async def receive(self, url: str, count: int = 10, **options: Any) -> list[dict[str, Any]]:
        options = {"MessageSystemAttributeNames": ["All"], **options}
        answer = await self.call("receive_message", QueueUrl=url, MaxNumberOfMessages=count, **options)
        return list(answer.get("Messages", []))

    async def bodies(self, url: str, count: int = 10, **options: Any) -> list[str]:
        return [message["Body"] for message in await self.receive(url, count, **options)]

    async def send(self, url: str, body: str = "x", **options: Any) -> dict[str, Any]:
        return await self.call("send_message", QueueUrl=url, MessageBody=body, **options)

    async def send_to(self, url: str, group: str, *bodies: str) -> None:
        """To a message group, each with a deduplication id of its own."""
        for body in bodies:
            await self.send(url, body, MessageGroupId=group, MessageDeduplicationId=f"{group}-{body}")

    async def delete(self, url: str, message: dict[str, Any]) -> None:
        await self.call("delete_message", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    async def hide(self, url: str, message: dict[str, Any], seconds: int) -> None:
        await self.call(
            "change_message_visibility",
            QueueUrl=url,
            ReceiptHandle=message["ReceiptHandle"],
            VisibilityTimeout=seconds,
        )

    async def counts(self, url: str) -> tuple[int, int, int]:
        """Visible, in flight, delayed."""
        names = (
            "ApproximateNumberOfMessages",
            "ApproximateNumberOfMessagesNotVisible",
            "ApproximateNumberOfMessagesDelayed",
        )
        found = (await self.call("get_queue_attributes", QueueUrl=url, AttributeNames=list(names)))["Attributes"]
        visible, in_flight, delayed = (int(found[name]) for name in names)
        return visible, in_flight, delayed


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    leased = embedded.lease()
    yield leased
    embedded.give_back(leased)


def client_of(**options: Any) -> Any:
    return boto3.client(
        "sqs",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 1}),
        **options,
    )


@pytest.fixture(scope="module")
def served(server: EmbeddedServer) -> Iterator[Any]:
    client = client_of(endpoint_url=server.endpoint_url)
    yield client
    client.close()


@pytest.fixture(scope="module")
def mocked() -> Iterator[Any]:
    with mock_aws():
        client = client_of()
        yield client
        client.close()


def turned(test: Callable[..., Awaitable[None]], reason: str) -> Callable[..., Awaitable[None]]:
    """A test that passes where `test` fails."""

    @functools.wraps(test)
    async def passes(**arguments: Any) -> None:
        try:
            await test(**arguments)
        except (AssertionError, ClientError, pytest.fail.Exception):
            return
        except (
            KeyError,
            ValueError,
            NotImplementedError,
        ):  # an answer lacks a member; moto breaks, or has no such call
            return
        pytest.fail(f"moto does as AWS does here: take the line '{reason}' out of DIFFERENCES", pytrace=False)

    return passes


@pytest.fixture(params=["memory", "server", "moto"])
def world(request: pytest.FixtureRequest, clock: ManualClock, unique: str, monkeypatch: pytest.MonkeyPatch) -> World:
    prefix = f"{unique}-"
    if request.param == "memory":
        model = SQS()
        return World(MemoryClient(model, clock, News()), clock, memory=model, prefix=prefix)
    if request.param == "server":
        return World(request.getfixturevalue("served"), clock, server=request.getfixturevalue("server"), prefix=prefix)
    reason = DIFFERENCES.get(request.node.originalname) or DIFFERENCES.get(request.node.name.replace("moto-", "", 1))
    if reason is not None:
        # Not `xfail`: pytest would spend ten seconds on tracebacks that nobody sees.
        request.node.obj = turned(request.node.obj, reason)
    monkeypatch.setattr(moto_sqs, "unix_time", clock.now)
    monkeypatch.setattr(moto_sqs, "unix_time_millis", lambda: clock.now() * 1000)
    return World(request.getfixturevalue("mocked"), clock, prefix=prefix)


def text(value: str) -> dict[str, Any]:
    return {"DataType": "String", "StringValue": value}


# -- Queues


async def test_a_queue_is_made_once_and_keeps_its_attributes(world: World) -> None:
    """model, CreateQueue: the same name and values give the existing queue, other values an error."""
    url = await world.queue(VisibilityTimeout="20")
    assert await world.queue(VisibilityTimeout="20") == url
    assert await world.queue() == url  # only what is asked for is compared (model, QueueNameExists)
    refused = await world.refusal(
        "create_queue", QueueName=world.named("orders"), Attributes={"VisibilityTimeout": "21"}
    )
    assert refused == "QueueAlreadyExists"


@pytest.mark.parametrize("name", ["", "with space", "dots.in.it", "x" * 81, "q.fifo"])
async def test_names_are_up_to_80_letters_digits_hyphens_and_underscores(world: World, name: str) -> None:
    """model, CreateQueue.QueueName; a name ends in `.fifo` exactly where the queue is one."""
    assert await world.refusal("create_queue", QueueName=name) == "InvalidParameterValue"


async def test_a_fifo_queue_is_named_so(world: World) -> None:
    """model, CreateQueue.QueueName."""
    refused = await world.refusal("create_queue", QueueName=world.named("q"), Attributes={"FifoQueue": "true"})
    assert refused == "InvalidParameterValue"


async def test_a_new_queue_has_the_defaults(world: World) -> None:
    """model, CreateQueue.Attributes."""
    url = await world.queue()
    found = (await world.call("get_queue_attributes", QueueUrl=url, AttributeNames=["All"]))["Attributes"]
    expected = {
        "DelaySeconds": "0",
        "MaximumMessageSize": str(MIB),
        "MessageRetentionPeriod": str(4 * DAY),
        "QueueArn": world.arn("orders"),
        "ReceiveMessageWaitTimeSeconds": "0",
        "VisibilityTimeout": "30",
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["SqsManagedSseEnabled"] == "true"
    assert "FifoQueue" not in found
    assert "RedrivePolicy" not in found


async def test_a_fifo_queue_has_attributes_of_its_own(world: World) -> None:
    """recorded, test_fifo_set_content_based_deduplication_strategy."""
    url = await world.queue("q.fifo")
    found = (await world.call("get_queue_attributes", QueueUrl=url, AttributeNames=["All"]))["Attributes"]
    expected = {
        "ContentBasedDeduplication": "false",
        "DeduplicationScope": "queue",
        "FifoQueue": "true",
        "FifoThroughputLimit": "perQueue",
    }
    assert {name: found.get(name, "") for name in expected} == expected


async def test_without_names_there_are_no_attributes(world: World) -> None:
    """model, GetQueueAttributes.AttributeNames: the request returns empty results."""
    assert await world.call("get_queue_attributes", QueueUrl=await world.queue()) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DelaySeconds", "901"),
        ("MaximumMessageSize", "1023"),
        ("MaximumMessageSize", str(MIB + 1)),
        ("MessageRetentionPeriod", "59"),
        ("MessageRetentionPeriod", "1209601"),
        ("ReceiveMessageWaitTimeSeconds", "21"),
        ("VisibilityTimeout", "43201"),
        ("VisibilityTimeout", "soon"),
    ],
)
async def test_attributes_have_ranges(world: World, name: str, value: str) -> None:
    """model, CreateQueue.Attributes and InvalidAttributeValue."""
    refused = await world.refusal("create_queue", QueueName=world.named("q"), Attributes={name: value})
    assert refused == "InvalidAttributeValue"
    url = await world.queue()
    assert (
        await world.refusal("set_queue_attributes", QueueUrl=url, Attributes={name: value}) == "InvalidAttributeValue"
    )


async def test_attributes_of_other_names_or_of_the_other_type_are_unknown(world: World) -> None:
    """model, InvalidAttributeName; recorded, test_set_unsupported_attribute_fifo."""
    url = await world.queue()
    assert (
        await world.refusal("get_queue_attributes", QueueUrl=url, AttributeNames=["Colour"]) == "InvalidAttributeName"
    )
    for name in ("FifoQueue", "Colour", "ContentBasedDeduplication"):
        refused = await world.refusal("set_queue_attributes", QueueUrl=url, Attributes={name: "true"})
        assert refused == "InvalidAttributeName"


async def test_a_queue_that_is_not_there(world: World) -> None:
    """recorded, test_non_existent_queue."""
    missing = "AWS.SimpleQueueService.NonExistentQueue"
    assert await world.refusal("get_queue_url", QueueName=world.named("none")) == missing
    url = await world.queue()
    assert (await world.call("get_queue_url", QueueName=world.named("orders")))["QueueUrl"] == url
    await world.call("delete_queue", QueueUrl=url)
    for operation, parameters in {
        "send_message": {"MessageBody": "x"},
        "receive_message": {},
        "delete_queue": {},
        "purge_queue": {},
    }.items():
        assert await world.refusal(operation, QueueUrl=url, **parameters) == missing


async def test_a_deleted_queues_name_is_not_to_be_had_for_a_minute(world: World) -> None:
    """model, DeleteQueue and QueueDeletedRecently."""
    await world.call("delete_queue", QueueUrl=await world.queue())
    refused = await world.refusal("create_queue", QueueName=world.named("orders"))
    assert refused == "AWS.SimpleQueueService.QueueDeletedRecently"
    world.advance(61)
    assert await world.counts(await world.queue()) == (0, 0, 0)


async def test_queues_are_listed_in_pages(world: World) -> None:
    """model, ListQueues: a token only where MaxResults was asked for."""
    urls = [await world.queue(name) for name in ("a", "b", "c")]
    found = await world.call("list_queues", QueueNamePrefix=world.prefix)
    assert found == {"QueueUrls": urls}
    first = await world.call("list_queues", QueueNamePrefix=world.prefix, MaxResults=2)
    rest = await world.call("list_queues", QueueNamePrefix=world.prefix, MaxResults=2, NextToken=first["NextToken"])
    assert first["QueueUrls"] + rest["QueueUrls"] == urls
    assert "NextToken" not in rest
    assert await world.call("list_queues", QueueNamePrefix=world.named("z")) == {}


async def test_tags(world: World) -> None:
    """recorded, test_tag_untag_queue."""
    made = await world.call("create_queue", QueueName=world.named("q"), tags={"a": "1"})
    url = made["QueueUrl"]
    await world.call("tag_queue", QueueUrl=url, Tags={"b": "2", "a": "3"})
    assert (await world.call("list_queue_tags", QueueUrl=url))["Tags"] == {"a": "3", "b": "2"}
    await world.call("untag_queue", QueueUrl=url, TagKeys=["a", "none"])
    assert (await world.call("list_queue_tags", QueueUrl=url))["Tags"] == {"b": "2"}


async def test_a_purge_takes_what_is_in_flight_too(world: World) -> None:
    """model, PurgeQueue: including in-flight messages."""
    url = await world.queue()
    await world.send(url)
    await world.send(url)
    await world.receive(url, 1)
    await world.call("purge_queue", QueueUrl=url)
    assert await world.counts(url) == (0, 0, 0)


async def test_a_queue_is_purged_once_a_minute(world: World) -> None:
    """model, PurgeQueueInProgress; recorded, test_successive_purge_calls_fail."""
    url = await world.queue()
    await world.call("purge_queue", QueueUrl=url)
    assert await world.refusal("purge_queue", QueueUrl=url) == "AWS.SimpleQueueService.PurgeQueueInProgress"
    world.advance(61)
    await world.call("purge_queue", QueueUrl=url)


async def test_messages_are_counted_by_what_they_wait_for(world: World) -> None:
    """model, GetQueueAttributes: available, in flight, delayed."""
    url = await world.queue()
    for delay in (0, 0, 0, 10):
        await world.send(url, DelaySeconds=delay)
    await world.receive(url, 1)
    assert await world.counts(url) == (2, 1, 1)
    world.advance(11)
    assert await world.counts(url) == (3, 1, 0)
    world.advance(20)
    assert await world.counts(url) == (4, 0, 0)


@pytest.mark.parametrize(
    "policy", ['{"deadLetterTargetArn": "dead", "maxReceiveCount": 3}', '{"maxReceiveCount": 3}', "x"]
)
async def test_a_redrive_policy_names_a_queue(world: World, policy: str) -> None:
    """recorded, test_invalid_dead_letter_arn_rejected_before_lookup."""
    refused = await world.refusal("create_queue", QueueName=world.named("q"), Attributes={"RedrivePolicy": policy})
    assert refused == "InvalidParameterValue"


@pytest.mark.parametrize("receives", ["0", "1001", "often"])
async def test_a_redrive_policy_says_after_how_many_receives(world: World, receives: str) -> None:
    """guide, "Configure a dead-letter queue": 1 to 1,000."""
    await world.queue("dead")
    policy = json.dumps({"deadLetterTargetArn": world.arn("dead"), "maxReceiveCount": receives})
    refused = await world.refusal("create_queue", QueueName=world.named("q"), Attributes={"RedrivePolicy": policy})
    assert refused == "InvalidParameterValue"


async def test_a_dead_letter_queue_exists_before_its_source(world: World) -> None:
    """guide, "Using dead-letter queues": you must first create a new queue before configuring it."""
    policy = json.dumps({"deadLetterTargetArn": world.arn("none"), "maxReceiveCount": 3})
    refused = await world.refusal("create_queue", QueueName=world.named("q"), Attributes={"RedrivePolicy": policy})
    assert refused == "InvalidParameterValue"


async def test_a_dead_letter_queue_is_of_its_sources_type(world: World) -> None:
    """model, CreateQueue.Attributes: FIFO with FIFO, standard with standard."""
    await world.queue("dead")
    await world.queue("dead.fifo")
    for name, target in {"q.fifo": "dead", "q": "dead.fifo"}.items():
        policy = json.dumps({"deadLetterTargetArn": world.arn(target), "maxReceiveCount": 3})
        attributes = {"RedrivePolicy": policy, **({"FifoQueue": "true"} if name == "q.fifo" else {})}
        refused = await world.refusal("create_queue", QueueName=world.named(name), Attributes=attributes)
        assert refused == "InvalidParameterValue"


async def test_a_dead_letter_queue_says_whose_it_is(world: World) -> None:
    """model, CreateQueue.Attributes: RedriveAllowPolicy."""
    allowed = {"redrivePermission": "byQueue", "sourceQueueArns": [world.arn("q")]}
    await world.queue("dead", RedriveAllowPolicy=json.dumps(allowed))
    policy = json.dumps({"deadLetterTargetArn": world.arn("dead"), "maxReceiveCount": 3})
    await world.queue("q", RedrivePolicy=policy)
    refused = await world.refusal("create_queue", QueueName=world.named("other"), Attributes={"RedrivePolicy": policy})
    assert refused == "InvalidParameterValue"


@pytest.mark.parametrize(
    "policy",
    [
        {"redrivePermission": "some"},
        {"redrivePermission": "byQueue"},
        {"redrivePermission": "allowAll", "sourceQueueArns": []},
        {
            "redrivePermission": "byQueue",
            "sourceQueueArns": [f"arn:aws:sqs:us-east-1:123456789012:{n}" for n in range(11)],
        },
    ],
)
async def test_whose_it_is_names_up_to_ten_queues(world: World, policy: dict[str, Any]) -> None:
    """model, CreateQueue.Attributes: RedriveAllowPolicy."""
    attributes = {"RedriveAllowPolicy": json.dumps(policy)}
    refused = await world.refusal("create_queue", QueueName=world.named("q"), Attributes=attributes)
    assert refused == "InvalidAttributeValue"


async def test_the_sources_of_a_dead_letter_queue_are_listed(world: World) -> None:
    """model, ListDeadLetterSourceQueues."""
    orders, dead = await world.pair()
    assert (await world.call("list_dead_letter_source_queues", QueueUrl=dead))["queueUrls"] == [orders]
    assert (await world.call("list_dead_letter_source_queues", QueueUrl=orders))["queueUrls"] == []
    await world.call("set_queue_attributes", QueueUrl=orders, Attributes={"RedrivePolicy": ""})
    assert (await world.call("list_dead_letter_source_queues", QueueUrl=dead))["queueUrls"] == []


# -- Sending


async def test_a_message_of_one_mebibyte_is_taken_with_its_attributes_and_no_longer_one(world: World) -> None:
    """model, SendMessage.MessageBody: 1,048,576 bytes; guide, "Amazon SQS message attributes": name, type, value count."""
    url = await world.queue()
    attributes = {"a": text("12345")}
    room = MIB - len("a" + "String" + "12345")
    await world.send(url, "é" * (room // 2), MessageAttributes=attributes)
    refused = await world.refusal(
        "send_message", QueueUrl=url, MessageBody="é" * (room // 2) + "xx", MessageAttributes=attributes
    )
    assert refused == "InvalidParameterValue"


async def test_a_queue_can_take_less(world: World) -> None:
    """recorded, test_send_message_with_updated_maximum_message_size."""
    url = await world.queue(MaximumMessageSize="1024")
    await world.send(url, "x" * 1024)
    assert await world.refusal("send_message", QueueUrl=url, MessageBody="x" * 1025) == "InvalidParameterValue"


async def test_a_batch_takes_one_mebibyte(world: World) -> None:
    """model, SendMessageBatch; recorded, test_send_message_batch_with_oversized_contents."""
    url = await world.queue()
    half = "x" * (MIB // 2)
    entries = [{"Id": "a", "MessageBody": half}, {"Id": "b", "MessageBody": half}]
    assert len((await world.call("send_message_batch", QueueUrl=url, Entries=entries))["Successful"]) == 2
    entries[1]["MessageBody"] += "x"
    refused = await world.refusal("send_message_batch", QueueUrl=url, Entries=entries)
    assert refused == "AWS.SimpleQueueService.BatchRequestTooLong"


async def test_attributes_count_toward_a_batch(world: World) -> None:
    """guide, "Amazon SQS message attributes"; recorded, test_send_message_batch_with_oversized_contents."""
    url = await world.queue()
    body = "x" * (MIB // 2 - 5)
    entries = [{"Id": name, "MessageBody": body, "MessageAttributes": {"a": text("1")}} for name in "ab"]
    refused = await world.refusal("send_message_batch", QueueUrl=url, Entries=entries)
    assert refused == "AWS.SimpleQueueService.BatchRequestTooLong"


BATCHES: dict[str, dict[str, Any]] = {
    "send_message_batch": {"MessageBody": "x"},
    "delete_message_batch": {"ReceiptHandle": "x"},
    "change_message_visibility_batch": {"ReceiptHandle": "x", "VisibilityTimeout": 1},
}


@pytest.mark.parametrize("operation", BATCHES)
@pytest.mark.parametrize(
    ("ids", "code"),
    [
        ([], "EmptyBatchRequest"),
        ([str(n) for n in range(11)], "TooManyEntriesInBatchRequest"),
        (["a", "a"], "BatchEntryIdsNotDistinct"),
        (["a:b"], "InvalidBatchEntryId"),
        (["x" * 81], "InvalidBatchEntryId"),
    ],
)
async def test_a_batch_has_one_to_ten_entries_with_ids(world: World, operation: str, ids: list[str], code: str) -> None:
    """recorded, test_too_many_entries_in_batch_request, test_invalid_batch_id, test_delete_message_batch_*."""
    # Receipt handles differ, so that only the ids are wrong.
    entries = [
        {"Id": name, **BATCHES[operation], **({"ReceiptHandle": f"r{n}"} if "send" not in operation else {})}
        for n, name in enumerate(ids)
    ]
    refused = await world.refusal(operation, QueueUrl=await world.queue(), Entries=entries)
    assert refused == f"AWS.SimpleQueueService.{code}"


async def test_a_batch_is_answered_entry_by_entry(world: World) -> None:
    """model, SendMessageBatch: the result of each message is reported individually."""
    url = await world.queue()
    entries: list[dict[str, Any]] = [
        {"Id": "good", "MessageBody": "x"},
        {"Id": "late", "MessageBody": "x", "DelaySeconds": 901},
        {"Id": "odd", "MessageBody": "\x00"},
        {"Id": "empty", "MessageBody": "x", "MessageAttributes": {"a": text("")}},
    ]
    answer = await world.call("send_message_batch", QueueUrl=url, Entries=entries)
    assert [entry["Id"] for entry in answer["Successful"]] == ["good"]
    assert {entry["Id"]: (entry["Code"], entry["SenderFault"]) for entry in answer["Failed"]} == {
        "late": ("InvalidParameterValue", True),
        "odd": ("InvalidMessageContents", True),
        "empty": ("InvalidParameterValue", True),
    }
    assert await world.bodies(url) == ["x"]


async def test_a_body_is_not_empty(world: World) -> None:
    """model, SendMessage.MessageBody: the minimum size is one character."""
    assert await world.refusal("send_message", QueueUrl=await world.queue(), MessageBody="") == "MissingParameter"


@pytest.mark.parametrize("character", ["\x00", "\x0b", "\x1f", "\ufffe", "\uffff"])
async def test_a_body_holds_what_xml_allows(world: World, character: str) -> None:
    """model, SendMessage.MessageBody and InvalidMessageContents."""
    url = await world.queue()
    allowed = "\t\n\r \ud7ff\ue000\ufffd\U00010000\U0010ffff"
    await world.send(url, allowed)
    refused = await world.refusal("send_message", QueueUrl=url, MessageBody=f"a{character}")
    assert refused == "InvalidMessageContents"
    assert await world.bodies(url) == [allowed]


@pytest.mark.parametrize(
    "attributes",
    [
        {str(n): text("x") for n in range(11)},
        {"a..b": text("x")},
        {".a": text("x")},
        {"AWS.a": text("x")},
        {"amazon.a": text("x")},
        {"a b": text("x")},
        {"x" * 257: text("x")},
        {"a": text("")},
        {"a": {"DataType": "Text", "StringValue": "x"}},
        {"a": {"DataType": "Number", "StringValue": "seven"}},
        {"a": {"DataType": "Binary", "StringValue": "x"}},
    ],
    ids=["eleven", "dots", "dot", "AWS", "amazon", "space", "long", "empty", "type", "number", "binary"],
)
async def test_message_attributes_have_rules(world: World, attributes: dict[str, Any]) -> None:
    """model, ReceiveMessage.MessageAttributeNames; guide, "Amazon SQS message metadata"; recorded, empty values."""
    refused = await world.refusal(
        "send_message", QueueUrl=await world.queue(), MessageBody="x", MessageAttributes=attributes
    )
    assert refused == "InvalidParameterValue"


async def test_ten_message_attributes_with_custom_types_are_taken(world: World) -> None:
    """guide, "Amazon SQS message metadata"."""
    url = await world.queue()
    attributes: dict[str, Any] = {f"a-{n}_.{n}": text("x") for n in range(8)}
    attributes["n"] = {"DataType": "Number.int", "StringValue": "-1.5e3"}
    attributes["b"] = {"DataType": "Binary.png", "BinaryValue": b"\x00\xff"}
    await world.send(url, MessageAttributes=attributes)
    (message,) = await world.receive(url, MessageAttributeNames=["All"])
    assert message["MessageAttributes"] == attributes


async def test_a_delay_lasts_up_to_15_minutes(world: World) -> None:
    """model, SendMessage.DelaySeconds."""
    url = await world.queue()
    for seconds in (901, -1):
        refused = await world.refusal("send_message", QueueUrl=url, MessageBody="x", DelaySeconds=seconds)
        assert refused == "InvalidParameterValue"
    await world.send(url, DelaySeconds=900)
    world.advance(890)
    assert await world.receive(url) == []
    world.advance(11)
    assert await world.bodies(url) == ["x"]


async def test_a_queues_delay_holds_where_a_message_has_none_of_its_own(world: World) -> None:
    """model, SendMessage.DelaySeconds; changing a standard queue's delay does not touch what it holds (guide, "Delay queues")."""
    url = await world.queue(DelaySeconds="60")
    await world.send(url, "late")
    await world.send(url, "now", DelaySeconds=0)
    assert await world.bodies(url) == ["now"]
    await world.call("set_queue_attributes", QueueUrl=url, Attributes={"DelaySeconds": "0"})
    assert await world.receive(url) == []
    world.advance(61)
    assert sorted(await world.bodies(url)) == ["late", "now"]


#: Recorded by AWS: test_receive_message_message_attribute_names_filters, test_send_message_with_binary_attributes.
ATTRIBUTES = {"General": text("Kenobi"), "Hello": text("There"), "Help.Me": text("Me")}
BINARY = b"traceparent\x1e00-774062d6c37081a5a0b9b5b88e30627c-2d2482211f6489da-01"


async def test_digests_are_those_of_aws(world: World) -> None:
    """recorded, see above."""
    url = await world.queue()
    sent = await world.send(url, "msg", MessageAttributes=ATTRIBUTES)
    assert sent["MD5OfMessageBody"] == "6e2baaf3b97dbeef01c0043275f9a0e7"
    assert sent["MD5OfMessageAttributes"] == "4c360f3fdafd970e05fae2f149d997f5"
    sent = await world.send(url, "test", MessageAttributes={"attr1": {"DataType": "Binary", "BinaryValue": BINARY}})
    assert sent["MD5OfMessageBody"] == "098f6bcd4621d373cade4e832627b4f6"
    assert sent["MD5OfMessageAttributes"] == "8cbe4db156db8a94db8b801b7addb984"
    assert "MD5OfMessageAttributes" not in await world.send(url)


@pytest.mark.parametrize(
    ("asked", "given", "digest"),
    [
        ([], [], None),
        (["All"], ["General", "Hello", "Help.Me"], "4c360f3fdafd970e05fae2f149d997f5"),
        ([".*"], ["General", "Hello", "Help.Me"], "4c360f3fdafd970e05fae2f149d997f5"),
        (["Foo"], [], None),
        (["General", "Hello"], ["General", "Hello"], "fca026605781cb4126a1e9044df24232"),
        (["Hello", "Foo"], ["Hello"], "a311262e065454b75da111d535b8dacd"),
        (["Hel.*"], ["Hello", "Help.Me"], "83fee93c1bcd8b9a5a923ffacdc636c7"),
    ],
)
async def test_only_attributes_that_are_asked_for_are_given(
    world: World, asked: list[str], given: list[str], digest: str | None
) -> None:
    """recorded, test_receive_message_message_attribute_names_filters."""
    url = await world.queue()
    await world.send(url, "msg", MessageAttributes=ATTRIBUTES)
    (message,) = await world.receive(url, MessageAttributeNames=asked)
    assert sorted(message.get("MessageAttributes", {})) == given
    assert message.get("MD5OfMessageAttributes") == digest


async def test_system_attributes_are_given_when_asked_for(world: World) -> None:
    """recorded, test_receive_message_attribute_names_filters."""
    url = await world.queue()
    await world.send(url)
    (message,) = await world.receive(url, VisibilityTimeout=0)
    assert sorted(message["Attributes"]) == [
        "ApproximateFirstReceiveTimestamp",
        "ApproximateReceiveCount",
        "SenderId",
        "SentTimestamp",
    ]
    (message,) = await world.receive(url, MessageSystemAttributeNames=["SenderId"], VisibilityTimeout=0)
    assert list(message["Attributes"]) == ["SenderId"]
    (message,) = await world.receive(
        url, MessageSystemAttributeNames=[], AttributeNames=["SentTimestamp"], VisibilityTimeout=0
    )
    assert list(message["Attributes"]) == ["SentTimestamp"]
    (message,) = await world.receive(url, MessageSystemAttributeNames=[])
    assert "Attributes" not in message


TRACE = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"


async def test_a_trace_header_travels_and_takes_no_room(world: World) -> None:
    """model, SendMessage.MessageSystemAttributes."""
    url = await world.queue(MaximumMessageSize="1024")
    await world.send(url, "x" * 1024, MessageSystemAttributes={"AWSTraceHeader": text(TRACE)})
    (message,) = await world.receive(url)
    assert message["Attributes"]["AWSTraceHeader"] == TRACE


async def test_a_trace_header_travels_in_a_batch(world: World) -> None:
    """model, SendMessageBatchRequestEntry.MessageSystemAttributes."""
    url = await world.queue()
    entry = {"Id": "a", "MessageBody": "x", "MessageSystemAttributes": {"AWSTraceHeader": text(TRACE)}}
    await world.call("send_message_batch", QueueUrl=url, Entries=[entry])
    (message,) = await world.receive(url)
    assert message["Attributes"]["AWSTraceHeader"] == TRACE


async def test_there_is_no_other_system_attribute_to_send(world: World) -> None:
    """model, SendMessage.MessageSystemAttributes: only AWSTraceHeader, of type String."""
    url = await world.queue()
    for attributes in ({"SenderId": text("me")}, {"AWSTraceHeader": {"DataType": "Number", "StringValue": "1"}}):
        refused = await world.refusal("send_message", QueueUrl=url, MessageBody="x", MessageSystemAttributes=attributes)
        assert refused == "InvalidParameterValue"


async def test_a_standard_queue_takes_groups_and_no_deduplication_ids(world: World) -> None:
    """model, SendMessage.MessageGroupId (fair queues) and MessageDeduplicationId (only FIFO)."""
    url = await world.queue()
    await world.send(url, "1", MessageGroupId="tenant")
    await world.send(url, "2", MessageGroupId="tenant")
    found = await world.receive(url)
    assert [message["Attributes"]["MessageGroupId"] for message in found] == ["tenant", "tenant"]
    refused = await world.refusal("send_message", QueueUrl=url, MessageBody="x", MessageDeduplicationId="d")
    assert refused == "InvalidParameterValue"


@pytest.mark.parametrize("value", ["", "a b", "é", "x" * 129])
async def test_group_and_deduplication_ids_are_ascii(world: World, value: str) -> None:
    """model, SendMessage: letters, digits and punctuation, 1 to 128."""
    url = await world.queue("q.fifo")
    good = {"MessageGroupId": "!~" * 64, "MessageDeduplicationId": "!~" * 64}
    await world.send(url, **good)
    for name in good:
        refused = await world.refusal("send_message", QueueUrl=url, MessageBody="x", **{**good, name: value})
        assert refused == "InvalidParameterValue"


# -- Receiving


async def test_a_received_message_is_invisible_until_its_timeout_ends(world: World) -> None:
    """model, ReceiveMessage.VisibilityTimeout; each receive has a handle of its own (DeleteMessage)."""
    url = await world.queue()
    sent = await world.send(url)
    (first,) = await world.receive(url)
    assert first["MessageId"] == sent["MessageId"]
    assert await world.receive(url) == []
    world.advance(20)
    assert await world.receive(url) == []
    world.advance(11)
    (second,) = await world.receive(url)
    assert second["MessageId"] == first["MessageId"]
    assert second["ReceiptHandle"] != first["ReceiptHandle"]
    one, two = first["Attributes"], second["Attributes"]
    assert (one["ApproximateReceiveCount"], two["ApproximateReceiveCount"]) == ("1", "2")
    assert one["ApproximateFirstReceiveTimestamp"] == two["ApproximateFirstReceiveTimestamp"]
    assert one["SentTimestamp"] == two["SentTimestamp"]
    assert len(one["SentTimestamp"]) == 13  # milliseconds


async def test_a_receive_can_have_a_timeout_of_its_own(world: World) -> None:
    """model, ReceiveMessage.VisibilityTimeout; 0 leaves it visible."""
    url = await world.queue(VisibilityTimeout="600")
    await world.send(url)
    for timeout, waiting in ((0, 0.01), (10, 11), (None, 601)):
        options = {} if timeout is None else {"VisibilityTimeout": timeout}
        assert len(await world.receive(url, **options)) == 1
        world.advance(waiting)
    assert len(await world.receive(url)) == 1


async def test_up_to_ten_messages_come_at_once_and_one_unless_asked(world: World) -> None:
    """model, ReceiveMessage.MaxNumberOfMessages. Both hand out in the order of sending, which AWS does not promise."""
    url = await world.queue()
    bodies = [str(n) for n in range(12)]
    for body in bodies:
        await world.send(url, body)
    (first,) = (await world.call("receive_message", QueueUrl=url))["Messages"]
    assert [first["Body"], *await world.bodies(url, 10), *await world.bodies(url, 10)] == bodies


@pytest.mark.parametrize(
    "options",
    [
        {"MaxNumberOfMessages": 0},
        {"MaxNumberOfMessages": 11},
        {"WaitTimeSeconds": 21},
        {"VisibilityTimeout": 43_201},
        {"VisibilityTimeout": -1},
    ],
    ids=str,
)
async def test_receiving_has_limits(world: World, options: dict[str, int]) -> None:
    """model, ReceiveMessage; recorded, test_send_receive_max_number_of_messages."""
    refused = await world.refusal("receive_message", QueueUrl=await world.queue(), **options)
    assert refused == "InvalidParameterValue"


async def test_a_changed_timeout_counts_from_the_change_and_holds_once(world: World) -> None:
    """model, ChangeMessageVisibility: it reverts to the queue's the next time the message is received."""
    url = await world.queue(VisibilityTimeout="60")
    await world.send(url)
    (message,) = await world.receive(url)
    world.advance(15)
    await world.hide(url, message, 30)
    world.advance(20)
    assert await world.receive(url) == []
    world.advance(11)
    assert len(await world.receive(url)) == 1
    world.advance(30)
    assert await world.receive(url) == []
    world.advance(31)
    assert len(await world.receive(url)) == 1


async def test_a_timeout_of_nothing_gives_a_message_back(world: World) -> None:
    """guide, "Amazon SQS visibility timeout": terminating it."""
    url = await world.queue()
    await world.send(url)
    (message,) = await world.receive(url)
    await world.hide(url, message, 0)
    world.advance(0.01)
    assert await world.counts(url) == (1, 0, 0)
    assert len(await world.receive(url)) == 1


async def test_a_timeout_lasts_twelve_hours_from_the_receive_in_all(world: World) -> None:
    """guide, "Amazon SQS visibility timeout": from when the message is received, not from the last change."""
    url = await world.queue()
    await world.send(url)
    world.advance(11 * HOUR)  # waiting before is not part of it
    (message,) = await world.receive(url)
    change = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    for seconds in (43_201, -1):
        refused = await world.refusal("change_message_visibility", **change, VisibilityTimeout=seconds)
        assert refused == "InvalidParameterValue"
    await world.hide(url, message, 11 * HOUR)
    world.advance(10 * HOUR)
    refused = await world.refusal("change_message_visibility", **change, VisibilityTimeout=2 * HOUR + 60)
    assert refused == "InvalidParameterValue"
    await world.hide(url, message, 2 * HOUR - 60)


async def test_the_newest_handle_still_hides_a_message_whose_timeout_has_ended(world: World) -> None:
    """recorded, test_change_message_visibility_after_visibility_timeout_expiration."""
    url = await world.queue()
    await world.send(url)
    (message,) = await world.receive(url)
    world.advance(31)
    await world.hide(url, message, 60)
    assert await world.receive(url) == []
    assert await world.counts(url) == (0, 1, 0)


async def test_the_newest_handle_still_deletes_a_message_whose_timeout_has_ended(world: World) -> None:
    """model, DeleteMessage: the handle from the most recent receive."""
    url = await world.queue()
    await world.send(url)
    (message,) = await world.receive(url)
    world.advance(31)
    await world.delete(url, message)
    assert await world.counts(url) == (0, 0, 0)


async def test_an_old_handle_deletes_nothing_and_is_no_error(world: World) -> None:
    """model, DeleteMessage: the request will succeed, but the message might not be deleted."""
    url = await world.queue()
    await world.send(url)
    (old,) = await world.receive(url)
    world.advance(31)
    (new,) = await world.receive(url)
    await world.delete(url, old)
    assert await world.counts(url) == (0, 1, 0)
    answer = await world.call(
        "delete_message_batch", QueueUrl=url, Entries=[{"Id": "a", "ReceiptHandle": old["ReceiptHandle"]}]
    )
    assert [entry["Id"] for entry in answer["Successful"]] == ["a"]
    assert await world.counts(url) == (0, 1, 0)
    await world.delete(url, new)
    assert await world.counts(url) == (0, 0, 0)


async def test_an_old_handle_hides_nothing(world: World) -> None:
    """Who has it no longer holds the message. The code is known from AWS's answers only: it is not documented."""
    url = await world.queue()
    await world.send(url)
    (old,) = await world.receive(url)
    world.advance(31)
    await world.receive(url, VisibilityTimeout=10)
    change = {"ReceiptHandle": old["ReceiptHandle"], "VisibilityTimeout": 600}
    assert await world.refusal("change_message_visibility", QueueUrl=url, **change) == "InvalidParameterValue"
    answer = await world.call("change_message_visibility_batch", QueueUrl=url, Entries=[{"Id": "a", **change}])
    assert [entry["Code"] for entry in answer["Failed"]] == ["InvalidParameterValue"]
    world.advance(11)
    assert len(await world.receive(url)) == 1


async def test_a_message_is_deleted_twice_and_hidden_no_more(world: World) -> None:
    """guide, "Amazon SQS queue and message identifiers"; deleting again is no error."""
    url = await world.queue()
    await world.send(url)
    (message,) = await world.receive(url)
    await world.delete(url, message)
    await world.delete(url, message)
    change = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"], "VisibilityTimeout": 1}
    assert await world.refusal("change_message_visibility", **change) == "InvalidParameterValue"


async def test_what_is_no_handle_of_this_queue_is_refused(world: World) -> None:
    """model, ReceiptHandleIsInvalid."""
    url, other = await world.queue(), await world.queue("other")
    await world.send(other)
    (message,) = await world.receive(other)
    for handle in ("x", message["ReceiptHandle"]):
        assert await world.refusal("delete_message", QueueUrl=url, ReceiptHandle=handle) == "ReceiptHandleIsInvalid"
        entries = [{"Id": "a", "ReceiptHandle": handle}]
        answer = await world.call("delete_message_batch", QueueUrl=url, Entries=entries)
        assert [entry["Code"] for entry in answer["Failed"]] == ["ReceiptHandleIsInvalid"]
        refused = await world.refusal(
            "change_message_visibility", QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=1
        )
        assert refused == "ReceiptHandleIsInvalid"


async def test_a_message_is_gone_when_its_retention_ends(world: World) -> None:
    """model, CreateQueue.Attributes: MessageRetentionPeriod; DeleteMessage: automatically deleted."""
    url = await world.queue(MessageRetentionPeriod="60", VisibilityTimeout="600")
    await world.send(url, "in flight")
    await world.send(url, "delayed", DelaySeconds=300)
    await world.receive(url)
    world.advance(30)
    await world.send(url, "young")
    world.advance(31)
    assert await world.counts(url) == (1, 0, 0)
    assert await world.bodies(url) == ["young"]


async def test_another_retention_holds_for_messages_that_are_there(world: World) -> None:
    """model, SetQueueAttributes: changes will impact existing messages."""
    url = await world.queue()
    await world.send(url)
    world.advance(120)
    await world.call("set_queue_attributes", QueueUrl=url, Attributes={"MessageRetentionPeriod": "60"})
    assert await world.receive(url) == []
    assert await world.counts(url) == (0, 0, 0)


# -- Dead letters


async def test_what_was_received_often_enough_goes_to_the_dead_letters_at_the_next_receive(world: World) -> None:
    """model, CreateQueue.Attributes: when the receive count exceeds maxReceiveCount; the count is over all queues (ReceiveMessage)."""
    url, dead = await world.pair(receives=2)
    sent = await world.send(url, "x", MessageAttributes={"a": text("b")})
    for _ in range(2):
        assert await world.bodies(url) == ["x"]
        world.advance(31)
    assert await world.counts(url) == (1, 0, 0)
    assert await world.receive(url) == []
    assert await world.counts(url) == (0, 0, 0)
    (message,) = await world.receive(dead, MessageAttributeNames=["All"])
    assert message["MessageId"] == sent["MessageId"]
    assert message["MessageAttributes"] == {"a": text("b")}
    assert message["Attributes"]["ApproximateReceiveCount"] == "3"


async def test_a_dead_letter_says_where_it_comes_from(world: World) -> None:
    """model, MessageSystemAttributeName: DeadLetterQueueSourceArn."""
    url, dead = await world.pair()
    await world.send(url)
    await world.receive(url)
    world.advance(31)
    await world.receive(url)
    (message,) = await world.receive(dead)
    assert message["Attributes"]["DeadLetterQueueSourceArn"] == world.arn("orders")


async def test_a_message_that_is_given_back_after_its_last_receive_is_a_dead_letter_too(world: World) -> None:
    """As Lambda's partial batch responses with a visibility timeout of nothing do; maxReceiveCount counts receives."""
    url, dead = await world.pair()
    await world.send(url)
    (message,) = await world.receive(url)
    await world.hide(url, message, 0)
    world.advance(0.01)
    assert await world.receive(url) == []
    assert await world.bodies(dead) == ["x"]


async def test_a_standard_queues_dead_letter_is_kept_from_when_it_was_sent(world: World) -> None:
    """guide, "Setting-up dead-letter queue retention"."""
    url, dead = await world.pair()
    await world.send(url)
    await world.receive(url)
    world.advance(DAY)
    await world.receive(url)
    assert await world.counts(dead) == (1, 0, 0)
    world.advance(3 * DAY + 60)
    assert await world.counts(dead) == (0, 0, 0)


async def test_a_fifo_queues_dead_letter_is_kept_from_when_it_was_moved(world: World) -> None:
    """guide, "Setting-up dead-letter queue retention"."""
    url, dead = await world.pair(".fifo")
    await world.send_to(url, "g", "1")
    await world.receive(url)
    world.advance(DAY)
    await world.receive(url)
    world.advance(3 * DAY + 60)
    assert await world.counts(dead) == (1, 0, 0)
    world.advance(DAY)
    assert await world.counts(dead) == (0, 0, 0)


async def test_a_fifo_queues_dead_letter_has_its_message_id_as_deduplication_id(world: World) -> None:
    """guide, "Configure a dead-letter queue redrive", note."""
    url, dead = await world.pair(".fifo")
    sent = await world.send(url, MessageGroupId="g", MessageDeduplicationId="d")
    await world.receive(url)
    world.advance(31)
    await world.receive(url)
    (message,) = await world.receive(dead)
    assert message["Attributes"]["MessageDeduplicationId"] == sent["MessageId"]


async def test_a_group_goes_on_behind_a_dead_letter(world: World) -> None:
    """guide, "Using dead-letter queues": the order of a group does not wait for it."""
    url, dead = await world.pair(".fifo")
    await world.send_to(url, "g", "1", "2")
    assert await world.bodies(url, 1) == ["1"]
    world.advance(31)
    assert await world.bodies(url) == ["2"]
    assert await world.bodies(dead) == ["1"]


async def test_without_its_dead_letter_queue_a_message_stays(world: World) -> None:
    """Not documented; so nothing is lost."""
    url, dead = await world.pair()
    await world.send(url)
    await world.call("delete_queue", QueueUrl=dead)
    for _ in range(3):
        assert await world.bodies(url) == ["x"]
        world.advance(31)


# -- FIFO queues


async def test_a_fifo_queue_needs_a_group_and_a_deduplication_id(world: World) -> None:
    """recorded, test_posting_to_fifo_requires_deduplicationid_group_id and test_send_batch_missing_*."""
    url = await world.queue("q.fifo")
    refused = await world.refusal("send_message", QueueUrl=url, MessageBody="x", MessageDeduplicationId="d")
    assert refused == "MissingParameter"
    refused = await world.refusal("send_message", QueueUrl=url, MessageBody="x", MessageGroupId="g")
    assert refused == "InvalidParameterValue"
    good = {"Id": "a", "MessageBody": "x", "MessageGroupId": "g", "MessageDeduplicationId": "d"}
    for lacking in ({"MessageGroupId": "g"}, {"MessageDeduplicationId": "d"}):
        entries = [good, {"Id": "b", "MessageBody": "x", **lacking}]
        assert await world.refusal("send_message_batch", QueueUrl=url, Entries=entries) == "InvalidParameterValue"
    assert await world.counts(url) == (0, 0, 0)


async def test_a_fifo_queues_messages_have_no_delay_of_their_own(world: World) -> None:
    """model, SendMessage.DelaySeconds; recorded, test_fifo_queue_send_message_with_delay_seconds_fails."""
    url = await world.queue("q.fifo", DelaySeconds="60")
    ids = {"MessageGroupId": "g", "MessageDeduplicationId": "d"}
    refused = await world.refusal("send_message", QueueUrl=url, MessageBody="x", DelaySeconds=2, **ids)
    assert refused == "InvalidParameterValue"
    await world.send(url, **ids)
    assert await world.receive(url) == []
    world.advance(61)
    assert len(await world.receive(url)) == 1


async def test_another_delay_of_a_fifo_queue_holds_for_messages_that_are_there(world: World) -> None:
    """guide, "Delay queues": for FIFO queues the setting is retroactive."""
    url = await world.queue("q.fifo", DelaySeconds="600")
    await world.send_to(url, "g", "1")
    await world.call("set_queue_attributes", QueueUrl=url, Attributes={"DelaySeconds": "0"})
    world.advance(0.01)
    assert await world.bodies(url) == ["1"]


async def test_groups_keep_their_order_and_come_in_one_batch(world: World) -> None:
    """guide, "FIFO queue delivery logic": as many messages of one group as possible."""
    url = await world.queue("q.fifo")
    await world.send_to(url, "a", "1", "2", "3")
    await world.send_to(url, "b", "4")
    assert await world.bodies(url) == ["1", "2", "3", "4"]


async def test_a_group_waits_while_one_of_its_messages_is_in_flight(world: World) -> None:
    """model, ReceiveMessage.ReceiveRequestAttemptId: no more messages of the group until the visibility timeout expires."""
    url = await world.queue("q.fifo")
    await world.send_to(url, "a", "1", "2", "3")
    await world.send_to(url, "b", "4")
    one, two = await world.receive(url, 2)
    assert await world.bodies(url) == ["4"]
    await world.delete(url, one)
    assert await world.receive(url) == []
    await world.delete(url, two)
    assert await world.bodies(url) == ["3"]


async def test_an_earlier_message_comes_before_later_ones_again(world: World) -> None:
    """guide, "FIFO queue delivery logic"."""
    url = await world.queue("q.fifo")
    await world.send_to(url, "a", "1", "2", "3")
    await world.receive(url, 2)
    world.advance(31)
    assert await world.bodies(url) == ["1", "2", "3"]


async def test_a_visible_message_waits_for_one_of_its_group_behind_it_that_is_in_flight(world: World) -> None:
    """model, ReceiveMessage.ReceiveRequestAttemptId: while messages of a group are invisible."""
    url = await world.queue("q.fifo")
    await world.send_to(url, "a", "1", "2")
    one, _ = await world.receive(url)
    await world.hide(url, one, 0)
    world.advance(0.01)
    assert await world.receive(url) == []
    world.advance(31)
    assert await world.bodies(url) == ["1", "2"]


async def test_a_duplicate_is_accepted_with_the_first_ones_answer_and_not_delivered(world: World) -> None:
    """model, SendMessage.MessageDeduplicationId: accepted, but not delivered, for 5 minutes."""
    url = await world.queue("q.fifo")
    ids = {"MessageGroupId": "g", "MessageDeduplicationId": "d"}
    first = await world.send(url, "1", **ids)
    again = await world.send(url, "2", **ids)
    assert (again["MessageId"], again["SequenceNumber"]) == (first["MessageId"], first["SequenceNumber"])
    batch = await world.call("send_message_batch", QueueUrl=url, Entries=[{"Id": "a", "MessageBody": "3", **ids}])
    assert [entry["MessageId"] for entry in batch["Successful"]] == [first["MessageId"]]
    assert await world.bodies(url) == ["1"]


async def test_a_duplicate_is_known_for_five_minutes_also_when_the_first_is_deleted(world: World) -> None:
    """model, SendMessage.MessageDeduplicationId: also after the message is received and deleted."""
    url = await world.queue("q.fifo")
    ids = {"MessageGroupId": "g", "MessageDeduplicationId": "d"}
    first = await world.send(url, "1", **ids)
    (message,) = await world.receive(url)
    await world.delete(url, message)
    world.advance(280)
    assert (await world.send(url, "2", **ids))["MessageId"] == first["MessageId"]
    assert await world.receive(url) == []
    world.advance(21)
    assert (await world.send(url, "3", **ids))["MessageId"] != first["MessageId"]
    assert await world.bodies(url) == ["3"]


async def test_a_duplicate_is_one_in_another_group_too(world: World) -> None:
    """recorded, test_fifo_deduplication_not_on_message_group_id."""
    url = await world.queue("q.fifo")
    for group in "ab":
        await world.send(url, group, MessageGroupId=group, MessageDeduplicationId="d")
    assert await world.bodies(url) == ["a"]


async def test_duplicates_can_be_those_of_a_group(world: World) -> None:
    """model, CreateQueue.Attributes: DeduplicationScope."""
    url = await world.queue("q.fifo", DeduplicationScope="messageGroup")
    for group in "aab":
        await world.send(url, group, MessageGroupId=group, MessageDeduplicationId="d")
    assert await world.bodies(url) == ["a", "b"]


async def test_a_group_has_the_throughput_limit_where_it_has_the_deduplication(world: World) -> None:
    """model, CreateQueue.Attributes: perMessageGroupId is allowed only when DeduplicationScope is messageGroup."""
    attributes = {"FifoQueue": "true", "FifoThroughputLimit": "perMessageGroupId"}
    refused = await world.refusal("create_queue", QueueName=world.named("q.fifo"), Attributes=attributes)
    assert refused == "InvalidAttributeValue"


async def test_content_is_a_deduplication_id_where_the_queue_says_so(world: World) -> None:
    """model, SendMessage.MessageDeduplicationId: SHA-256 of the body, not of the attributes; an explicit id overrides."""
    url = await world.queue("q.fifo", ContentBasedDeduplication="true")
    first = await world.send(url, "x", MessageGroupId="g")
    same = await world.send(url, "x", MessageGroupId="g", MessageAttributes={"a": text("b")})
    other = await world.send(url, "x", MessageGroupId="g", MessageDeduplicationId="own")
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    named = await world.send(url, "y", MessageGroupId="g", MessageDeduplicationId=digest)
    assert same["MessageId"] == named["MessageId"] == first["MessageId"] != other["MessageId"]
    found = await world.receive(url)
    assert [message["Attributes"]["MessageDeduplicationId"] for message in found] == [digest, "own"]


async def test_sequence_numbers_have_20_digits_and_grow(world: World) -> None:
    """model, SendMessage.SequenceNumber; recorded, test_fifo_message_attributes."""
    url = await world.queue("q.fifo", ContentBasedDeduplication="true")
    told = [(await world.send(url, str(n), MessageGroupId="g"))["SequenceNumber"] for n in range(3)]
    entries = [{"Id": str(n), "MessageBody": str(n), "MessageGroupId": "g"} for n in (3, 4)]
    batch = await world.call("send_message_batch", QueueUrl=url, Entries=entries)
    told += [entry["SequenceNumber"] for entry in batch["Successful"]]
    assert {len(number) for number in told} == {20}
    assert told == sorted(set(told))
    found = await world.receive(url)
    assert [message["Attributes"]["SequenceNumber"] for message in found] == told
    assert {message["Attributes"]["MessageGroupId"] for message in found} == {"g"}


async def test_a_fifo_queue_refuses_a_handle_whose_timeout_has_ended(world: World) -> None:
    """recorded, test_fifo_delete_message_with_expired_receipt_handle; model, ReceiveMessage.ReceiveRequestAttemptId."""
    url = await world.queue("q.fifo")
    await world.send_to(url, "g", "1")
    (message,) = await world.receive(url)
    world.advance(31)
    handle = message["ReceiptHandle"]
    assert await world.refusal("delete_message", QueueUrl=url, ReceiptHandle=handle) == "InvalidParameterValue"
    answer = await world.call("delete_message_batch", QueueUrl=url, Entries=[{"Id": "a", "ReceiptHandle": handle}])
    assert [entry["Code"] for entry in answer["Failed"]] == ["InvalidParameterValue"]
    assert await world.bodies(url) == ["1"]


# -- Moving dead letters back


async def bury(world: World, *suffixes: str) -> None:
    """Make `orders` and `dead` where they are not there yet, and a dead letter of each of these bodies."""
    for body in suffixes:
        await world.send(await world.queue(), body)
    for _ in range(2):
        await world.receive(await world.queue())
        world.advance(31)


async def test_dead_letters_go_back_where_they_came_from(world: World) -> None:
    """model, StartMessageMoveTask; recorded, test_move_task_workflow_with_default_destination."""
    url, dead = await world.pair()
    await bury(world, "1", "2")
    old = {message["id"] for message in world.peek("dead")}
    await world.call("start_message_move_task", SourceArn=world.arn("dead"))
    (task,) = (await world.call("list_message_move_tasks", SourceArn=world.arn("dead")))["Results"]
    assert task.pop("StartedTimestamp") > 1_600_000_000_000
    assert task == {
        "Status": "COMPLETED",
        "SourceArn": world.arn("dead"),
        "ApproximateNumberOfMessagesMoved": 2,
        "ApproximateNumberOfMessagesToMove": 2,
    }
    assert await world.counts(dead) == (0, 0, 0)
    found = await world.receive(url)
    assert [message["Body"] for message in found] == ["1", "2"]
    # They are new messages (guide, "Configure a dead-letter queue redrive").
    assert not old & {message["MessageId"] for message in found}
    assert {message["Attributes"]["ApproximateReceiveCount"] for message in found} == {"1"}
    assert not any("DeadLetterQueueSourceArn" in message["Attributes"] for message in found)


async def test_dead_letters_go_to_a_queue_of_choice(world: World) -> None:
    """recorded, test_basic_move_task_workflow."""
    _, dead = await world.pair()
    other = await world.queue("other")
    await bury(world, "1")
    await world.send(dead, "direct")
    await world.call("start_message_move_task", SourceArn=world.arn("dead"), DestinationArn=world.arn("other"))
    (task,) = (await world.call("list_message_move_tasks", SourceArn=world.arn("dead")))["Results"]
    assert (task["Status"], task["DestinationArn"]) == ("COMPLETED", world.arn("other"))
    assert await world.bodies(other) == ["1", "direct"]


async def test_a_fifo_queues_dead_letters_go_back_in_order(world: World) -> None:
    """guide, "Configure a dead-letter queue redrive": in the order they are received, starting with the oldest."""
    url, _ = await world.pair(".fifo")
    await world.send_to(url, "g", "1", "2")
    await world.receive(url)
    world.advance(31)
    await world.receive(url)
    await world.send_to(url, "g", "3")
    await world.call("start_message_move_task", SourceArn=world.arn("dead.fifo"))
    found = await world.receive(url)
    assert [message["Body"] for message in found] == ["3", "1", "2"]
    numbers = [int(message["Attributes"]["SequenceNumber"]) for message in found]
    assert numbers == sorted(numbers)


async def test_a_move_can_be_slow_and_cancelled(world: World) -> None:
    """model, StartMessageMoveTask.MaxNumberOfMessagesPerSecond, CancelMessageMoveTask; recorded, test_move_task_cancel."""
    url, dead = await world.pair()
    await bury(world, *"0123456789")
    start = {"SourceArn": world.arn("dead"), "MaxNumberOfMessagesPerSecond": 1}
    # One a second is the slowest that there is, and the server's time passes meanwhile.
    task = await world.call("start_message_move_task", **start)
    (shown,) = (await world.call("list_message_move_tasks", SourceArn=world.arn("dead")))["Results"]
    assert (shown["Status"], shown["TaskHandle"]) == ("RUNNING", task["TaskHandle"])
    assert (shown["ApproximateNumberOfMessagesToMove"], shown["MaxNumberOfMessagesPerSecond"]) == (10, 1)
    assert await world.refusal("start_message_move_task", **start) == "InvalidParameterValue"
    world.advance(1)
    cancelled = await world.call("cancel_message_move_task", TaskHandle=task["TaskHandle"])
    moved = cancelled["ApproximateNumberOfMessagesMoved"]
    assert 1 <= moved < 10
    world.advance(10)
    (shown,) = (await world.call("list_message_move_tasks", SourceArn=world.arn("dead")))["Results"]
    assert (shown["Status"], shown["ApproximateNumberOfMessagesMoved"]) == ("CANCELLED", moved)
    assert "TaskHandle" not in shown
    assert await world.counts(url) == (moved, 0, 0)
    assert await world.counts(dead) == (10 - moved, 0, 0)
    refused = await world.refusal("cancel_message_move_task", TaskHandle=task["TaskHandle"])
    assert refused == "ResourceNotFoundException"


async def test_moves_are_listed_newest_first(world: World) -> None:
    """model, ListMessageMoveTasks.MaxResults: one unless asked."""
    await world.pair()
    await bury(world, "1")
    for _ in range(3):
        await world.call("start_message_move_task", SourceArn=world.arn("dead"))
    assert len((await world.call("list_message_move_tasks", SourceArn=world.arn("dead")))["Results"]) == 1
    found = await world.call("list_message_move_tasks", SourceArn=world.arn("dead"), MaxResults=10)
    assert [task["ApproximateNumberOfMessagesMoved"] for task in found["Results"]] == [0, 0, 1]


async def test_what_a_move_must_know(world: World) -> None:
    """recorded, test_source_needs_redrive_policy, test_destination_needs_to_exist, test_cancel_with_invalid_*."""
    await world.pair()
    missing, invalid = "ResourceNotFoundException", "InvalidParameterValue"
    assert await world.refusal("start_message_move_task", SourceArn=world.arn("none")) == missing
    assert await world.refusal("list_message_move_tasks", SourceArn=world.arn("none")) == missing
    assert await world.refusal("start_message_move_task", SourceArn=world.arn("orders")) == invalid
    both = {"SourceArn": world.arn("dead"), "DestinationArn": world.arn("none")}
    assert await world.refusal("start_message_move_task", **both) == missing
    for rate in (0, 501):
        options = {"SourceArn": world.arn("dead"), "MaxNumberOfMessagesPerSecond": rate}
        assert await world.refusal("start_message_move_task", **options) == invalid
    assert await world.refusal("cancel_message_move_task", TaskHandle="x") == invalid


async def test_what_was_sent_to_the_dead_letters_directly_has_nowhere_to_go_back_to(world: World) -> None:
    """guide, "Troubleshooting dead-letter queue redrive": CouldNotDetermineMessageSource."""
    _, dead = await world.pair()
    await world.send(dead)
    await world.call("start_message_move_task", SourceArn=world.arn("dead"))
    (task,) = (await world.call("list_message_move_tasks", SourceArn=world.arn("dead")))["Results"]
    assert (task["Status"], task["FailureReason"]) == ("FAILED", "CouldNotDetermineMessageSource")
    assert await world.counts(dead) == (1, 0, 0)


async def test_a_move_fails_when_its_destination_goes(world: World) -> None:
    """recorded, test_move_task_delete_destination_queue_while_running."""
    _, dead = await world.pair()
    other = await world.queue("other")
    await bury(world, *"0123456789")
    options = {"DestinationArn": world.arn("other"), "MaxNumberOfMessagesPerSecond": 1}
    await world.call("start_message_move_task", SourceArn=world.arn("dead"), **options)
    await world.call("delete_queue", QueueUrl=other)
    world.advance(10)
    (task,) = (await world.call("list_message_move_tasks", SourceArn=world.arn("dead")))["Results"]
    assert (task["Status"], task["FailureReason"]) == ("FAILED", "AWS.SimpleQueueService.NonExistentQueue")
    assert await world.counts(dead) == (10 - task["ApproximateNumberOfMessagesMoved"], 0, 0)


# -- What is ours: to look without receiving


@pytest.mark.parametrize("world", ["memory", "server"], indirect=True)
async def test_a_look_changes_nothing(world: World) -> None:
    url = await world.queue()
    await world.send(
        url,
        "x",
        MessageGroupId="g",
        MessageAttributes={"a": text("b"), "c": {"DataType": "Binary", "BinaryValue": b"d"}},
    )
    (sent,) = await world.receive(url)
    expected = {
        "id": sent["MessageId"],
        "body": "x",
        "group": "g",
        "receive_count": 1,
        "attributes": {"a": "b"},
    }
    for _ in range(2):
        (seen,) = world.peek("orders")
        assert seen.pop("sent_at") > 0
        assert seen == expected


# -- The service in memory only: its time, its chance, and what no test can wait for


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def now(self) -> float:
        return self.time


def asked(model: SQS, operation: str, now: float = 1_800_000_000.0, **parameters: Any) -> dict[str, Any]:
    return model.operations[operation](parameters, now)


def made(model: SQS, name: str = "q", **attributes: str) -> str:
    fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    return str(asked(model, "create_queue", QueueName=name, Attributes={**fifo, **attributes})["QueueUrl"])


@pytest.mark.parametrize("name", ["q", "q.fifo"])
def test_in_flight_messages_are_limited(name: str) -> None:
    """model, ChangeMessageVisibility: 120,000; a standard queue says OverLimit, a FIFO queue hands out none, without an error."""
    model = SQS()
    assert model.in_flight_limit == 120_000
    model.in_flight_limit = 3
    url = made(model, name)
    for number in range(5):
        ids: dict[str, Any] = {"MessageGroupId": str(number), "MessageDeduplicationId": str(number)}
        asked(model, "send_message", QueueUrl=url, MessageBody=str(number), **(ids if name == "q.fifo" else {}))
    taken = asked(model, "receive_message", QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    assert len(taken) == 3
    if name == "q.fifo":
        assert asked(model, "receive_message", QueueUrl=url) == {}
    else:
        with pytest.raises(ServiceError) as raised:
            asked(model, "receive_message", QueueUrl=url)
        assert raised.value.code == "OverLimit"
    asked(model, "delete_message", QueueUrl=url, ReceiptHandle=taken[0]["ReceiptHandle"])
    assert len(asked(model, "receive_message", QueueUrl=url)["Messages"]) == 1


def test_a_group_waits_for_a_message_that_is_delayed() -> None:
    """The order of a group is kept also where a dead letter, which is not delayed, comes behind one that is."""
    model, now = SQS(), 1_800_000_000.0
    dead = made(model, "dead.fifo", DelaySeconds="60")
    policy = {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:dead.fifo", "maxReceiveCount": 1}
    url = made(model, "q.fifo", RedrivePolicy=json.dumps(policy))
    for target, body in ((url, "letter"), (dead, "direct")):
        ids: dict[str, Any] = {"MessageGroupId": "g", "MessageDeduplicationId": body}
        asked(model, "send_message", now, QueueUrl=target, MessageBody=body, **ids)
    for moment in (now, now + 30):
        asked(model, "receive_message", moment, QueueUrl=url)
    assert asked(model, "receive_message", now + 30, QueueUrl=dead) == {}
    found = asked(model, "receive_message", now + 60, QueueUrl=dead, MaxNumberOfMessages=10)["Messages"]
    assert [message["Body"] for message in found] == ["direct", "letter"]


def test_errors_are_those_that_botocore_shows() -> None:
    """recorded, test_non_existent_queue: the old code, the new one, and whose fault it is."""
    with pytest.raises(ServiceError) as raised:
        asked(SQS(), "get_queue_url", QueueName="none")
    assert raised.value.status == 400
    assert raised.value.members["Error"] == {
        "Code": "AWS.SimpleQueueService.NonExistentQueue",
        "Message": "The specified queue does not exist.",
        "QueryErrorCode": "QueueDoesNotExist",
        "Type": "Sender",
    }


@pytest.mark.parametrize("name", ["q", "q.fifo"])
def test_a_standard_queue_can_be_shuffled(name: str) -> None:
    """guide, "Amazon SQS standard queues": best-effort ordering. A FIFO queue keeps its order."""
    model = SQS(random.Random(7))
    model.shuffled = True
    url = made(model, name, **({"ContentBasedDeduplication": "true"} if name == "q.fifo" else {}))
    bodies = [str(n) for n in range(10)]
    group: dict[str, Any] = {"MessageGroupId": "g"} if name == "q.fifo" else {}
    for body in bodies:
        asked(model, "send_message", QueueUrl=url, MessageBody=body, **group)
    found = asked(model, "receive_message", QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    got = [message["Body"] for message in found]
    assert sorted(got) == bodies
    assert (got == bodies) == (name == "q.fifo")


def test_the_same_calls_give_the_same_answers() -> None:
    def run() -> list[Any]:
        model = SQS(random.Random(3))
        url = made(model)
        sent = asked(model, "send_message", QueueUrl=url, MessageBody="x")
        return [sent, asked(model, "receive_message", QueueUrl=url, MessageSystemAttributeNames=["All"])]

    assert run() == run()


def test_it_shares_nothing_with_its_callers() -> None:
    model = SQS()
    url = made(model)
    binary = bytearray(b"c")
    attributes = {"a": text("b"), "d": {"DataType": "Binary", "BinaryValue": binary}}
    asked(model, "send_message", QueueUrl=url, MessageBody="x", MessageAttributes=attributes)
    attributes["a"]["StringValue"] = "changed"
    binary[:] = b"changed"
    for _ in range(2):
        answer = asked(model, "receive_message", QueueUrl=url, MessageAttributeNames=["All"], VisibilityTimeout=0)
        (message,) = answer["Messages"]
        assert message["MessageAttributes"] == {"a": text("b"), "d": {"DataType": "Binary", "BinaryValue": b"c"}}
        message["MessageAttributes"]["a"]["StringValue"] = "changed"
        model.peek("q")[0]["attributes"]["a"] = "changed"


def test_a_slow_move_is_a_change() -> None:
    """model, StartMessageMoveTask.MaxNumberOfMessagesPerSecond."""
    model, now = SQS(), 1_800_000_000.0
    dead = made(model, "dead")
    arn = "arn:aws:sqs:us-east-1:123456789012:"
    made(model, "q", RedrivePolicy=json.dumps({"deadLetterTargetArn": f"{arn}dead", "maxReceiveCount": 1}))
    for body in "ab":
        asked(model, "send_message", now, QueueUrl=dead, MessageBody=body)
    rate = {"SourceArn": f"{arn}dead", "DestinationArn": f"{arn}q", "MaxNumberOfMessagesPerSecond": 2}
    model.operations["start_message_move_task"](rate, now)
    moments = []
    for _ in range(2):
        then = model.next_change(now)
        assert then is not None
        now = then
        moments.append((now, len(model.peek("dead"))))
        asked(model, "list_queues", now)
        assert len(model.peek("dead")) == moments[-1][1] - 1
    assert [moment for moment, _ in moments] == [1_800_000_000.5, 1_800_000_001.0]


async def test_it_is_a_service_for_clients() -> None:
    clock = Clock()
    service: Service = SQS()
    async with MemoryClient(service, clock, News()) as client:  # type: ignore[arg-type]  # it only asks for `now`
        url = (await client.create_queue(QueueName="q"))["QueueUrl"]
        await client.send_message(QueueUrl=url, MessageBody="x", DelaySeconds=10)
        clock.time += 10
        assert len((await client.receive_message(QueueUrl=url))["Messages"]) == 1
    assert service.name == "sqs"


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 40)),
        st.tuples(st.just("receive"), st.integers(0, 40)),
        st.tuples(st.just("delete"), st.integers(0, 3)),
        st.tuples(st.just("hide"), st.integers(0, 90)),
        st.tuples(st.just("pass"), st.integers(1, 50)),
    ),
    max_size=30,
)


def state(model: SQS, now: float) -> list[Any]:
    """What calls of this moment see."""
    names = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    ]
    url = "https://sqs.us-east-1.amazonaws.com/123456789012/"
    return [
        asked(model, "get_queue_attributes", now, QueueUrl=url + name, AttributeNames=names)["Attributes"]
        for name in ("q", "dead")
    ]


@given(STEPS)
def test_nothing_changes_before_the_next_change_and_something_does_then(steps: list[tuple[str, int]]) -> None:
    """A world in virtual time jumps from one change to the next, and must miss none. No message is lost on the way."""
    model, now = SQS(), 1_800_000_000.0
    made(model, "dead", MessageRetentionPeriod="200")
    policy = {"deadLetterTargetArn": "arn:aws:sqs:us-east-1:123456789012:dead", "maxReceiveCount": 2}
    url = made(model, "q", MessageRetentionPeriod="100", RedrivePolicy=json.dumps(policy))
    sent: dict[str, float] = {}
    deleted: set[str] = set()
    received: list[dict[str, Any]] = []
    for step, number in steps:
        if step == "send":
            answer = asked(model, "send_message", now, QueueUrl=url, MessageBody="x", DelaySeconds=number)
            sent[answer["MessageId"]] = now
        elif step == "receive":
            found = asked(model, "receive_message", now, QueueUrl=url, MaxNumberOfMessages=3, VisibilityTimeout=number)
            received += found.get("Messages", [])
        elif step == "delete" and number < len(received):
            asked(model, "delete_message", now, QueueUrl=url, ReceiptHandle=received[number]["ReceiptHandle"])
            deleted.add(received[number]["MessageId"])
        elif step == "hide" and received:
            change = {"ReceiptHandle": received[-1]["ReceiptHandle"], "VisibilityTimeout": number}
            with contextlib.suppress(ServiceError):
                asked(model, "change_message_visibility", now, QueueUrl=url, **change)
        elif step == "pass":
            now += number

        before = state(model, now)
        here = {message["id"] for name in ("q", "dead") for message in model.peek(name)}
        young = {name for name, moment in sent.items() if now < moment + 100}
        assert young - deleted <= here <= sent.keys()
        then = model.next_change(now)
        if then is not None:
            assert then > now
            # A copy is asked: a look ahead must not be part of the history.
            later = copy.deepcopy(model)
            assert state(later, then - 0.001) == before
            assert state(later, then) != before
        else:
            assert here == set()
