"""EventBridge's rules, asked of the service in memory, and of the local run's own server, where moto gets some wrong.

Sources: "model" is the API model of EventBridge in botocore, by operation or shape; "guide" the EventBridge user guide;
"recorded" what LocalStack's tests recorded against AWS (`tests/aws/services/events/test_events.snapshot.json`, 2024-12-06).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from pipeline import sinks
from pipeline.aws.client import provide
from pipeline.decisions.deadline import Deadline
from pipeline.emulator import embedded
from pipeline.emulator.services.bus import EventBridge
from pipeline.emulator.services.client import MemoryClient, News
from pipeline.emulator.services.memory import in_memory
from pipeline.emulator.services.service import ServiceError
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import SinkRefused
from pipeline.output import Output
from tests.contract.conftest import ManualClock

#: What moto does otherwise, by test. When it does as AWS does, the test fails, and its line goes.
DIFFERENCES: dict[str, str] = {
    "test_a_bus_has_no_space_in_its_name": "names are not checked",
    "test_a_bus_with_rules_is_not_deleted": "its rules go with it",
    "test_a_pattern_with_an_operator_that_is_none_is_refused": "operators are not checked; such a rule matches nothing",
    "test_a_pattern_that_is_no_object_is_refused": "500",
    "test_a_rule_has_up_to_five_targets": "takes any number",
    "test_an_event_has_its_members_and_no_others": "what an SQS queue gets lacks the account",
    "test_a_disabled_rule_matches_nothing": "a disabled rule goes on",
    "test_a_target_can_get_a_text_instead_of_the_event": "ignores Input",
    "test_a_target_can_get_a_part_of_the_event": "ignores InputPath",
    "test_a_detail_that_is_no_object_is_malformed": "takes any JSON",
    "test_whole_numbers_in_a_detail_have_64_bits": "takes any, also beyond",
    "test_a_detail_is_up_to_a_thousand_levels_deep": "500",
    "test_aws_own_sources_are_refused": "takes them",
    "test_a_detail_type_has_up_to_128_characters": "takes any, also beyond",
    "test_a_call_has_at_least_one_entry": "takes a call without any",
    "test_a_call_has_less_than_a_megabyte": "takes any size",
    "test_an_event_for_a_bus_that_is_not_there_is_taken_without_a_word": "the whole call fails",
}


@dataclass
class World:
    """One implementation, and a queue that its rules can lead to."""

    client: Any
    unique: str
    memory: EventBridge | None = None
    queue: Any = None
    sent: dict[str, list[str]] = field(default_factory=dict)

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

    async def bus(self, name: str = "") -> str:
        """The name of a new bus."""
        made = f"{self.unique}{name}"
        await self.call("create_event_bus", Name=made)
        return made

    async def rule(self, bus: str, pattern: Any, *, name: str = "all", **target: Any) -> str:
        """A queue that a new rule leads to: its ARN."""
        text = pattern if isinstance(pattern, str) else json.dumps(pattern)
        await self.call("put_rule", Name=name, EventBusName=bus, EventPattern=text)
        arn = f"arn:aws:sqs:us-east-1:123456789012:{bus}-{name}"
        if self.queue is not None:
            self.queue.create_queue(QueueName=f"{bus}-{name}")
        await self.call("put_targets", Rule=name, EventBusName=bus, Targets=[{"Id": "queue", "Arn": arn, **target}])
        return arn

    async def put(self, bus: str, *entries: dict[str, Any]) -> dict[str, Any]:
        whole = [{"EventBusName": bus, "Source": "shop", "DetailType": "t", "Detail": "{}", **one} for one in entries]
        return await self.call("put_events", Entries=[{n: v for n, v in one.items() if v is not None} for one in whole])

    def arrived(self, arn: str) -> list[Any]:
        """What a queue got."""
        if self.queue is None:
            return [json.loads(body) for body in self.sent.get(arn, [])]
        url = self.queue.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
        found = self.queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        return [json.loads(one["Body"]) for one in found]


def client_of(service: str, endpoint: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
    )


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Any, Any]]:
    leased = embedded.lease()
    clients = client_of("events", leased.endpoint_url), client_of("sqs", leased.endpoint_url)
    yield clients
    for client in clients:
        client.close()
    embedded.give_back(leased)


@pytest.fixture(params=["memory", "server"])
def world(request: pytest.FixtureRequest, clock: ManualClock, unique: str) -> World:
    if request.param == "memory":
        model = EventBridge(random.Random(1))
        made = World(MemoryClient(model, clock, News()), unique, memory=model)
        model.deliver = lambda arn, body, group, header: made.sent.setdefault(arn, []).append(body)
        return made
    if request.node.originalname in DIFFERENCES:
        request.applymarker(pytest.mark.xfail(strict=True, reason=DIFFERENCES[request.node.originalname]))
    client, queue = request.getfixturevalue("served")
    return World(client, unique, queue=queue)


# Buses


async def test_a_bus_is_made_once(world: World) -> None:
    """model, CreateEventBus."""
    arn = f"arn:aws:events:us-east-1:123456789012:event-bus/{world.unique}"
    assert (await world.call("create_event_bus", Name=world.unique))["EventBusArn"] == arn
    assert await world.refusal("create_event_bus", Name=world.unique) == "ResourceAlreadyExistsException"
    found = await world.call("describe_event_bus", Name=world.unique)
    assert (found["Name"], found["Arn"]) == (world.unique, arn)
    assert (await world.call("describe_event_bus", Name=arn))["Name"] == world.unique


async def test_the_default_bus_is_there_and_stays(world: World) -> None:
    """model, CreateEventBusRequest.Name: "You can't use the name default"."""
    assert (await world.call("describe_event_bus"))["Name"] == "default"
    assert await world.refusal("create_event_bus", Name="default") == "ResourceAlreadyExistsException"
    assert await world.refusal("delete_event_bus", Name="default") == "ValidationException"


async def test_a_bus_of_ones_own_has_no_slash_in_its_name(world: World) -> None:
    """model, CreateEventBusRequest.Name."""
    assert await world.refusal("create_event_bus", Name=f"{world.unique}/b") == "ValidationException"


async def test_a_bus_has_no_space_in_its_name(world: World) -> None:
    """model, EventBusName."""
    assert await world.refusal("create_event_bus", Name=f"{world.unique} b") == "ValidationException"


async def test_buses_are_listed_by_prefix_in_pages(world: World) -> None:
    """model, ListEventBuses."""
    for name in ("b", "a", "c"):
        await world.bus(name)
    first = await world.call("list_event_buses", NamePrefix=world.unique, Limit=2)
    rest = await world.call("list_event_buses", NamePrefix=world.unique, Limit=2, NextToken=first["NextToken"])
    names = [bus["Name"].removeprefix(world.unique) for bus in first["EventBuses"] + rest["EventBuses"]]
    assert sorted(names) == ["a", "b", "c"]
    assert "NextToken" not in rest


async def test_a_bus_that_is_gone_is_not_found(world: World) -> None:
    """model, DescribeEventBus, DeleteEventBus."""
    bus = await world.bus()
    await world.call("delete_event_bus", Name=bus)
    await world.call("delete_event_bus", Name=bus)
    assert await world.refusal("describe_event_bus", Name=bus) == "ResourceNotFoundException"
    assert await world.refusal("list_rules", EventBusName=bus) == "ResourceNotFoundException"


async def test_a_bus_with_rules_is_not_deleted(world: World) -> None:
    """model, DeleteEventBus: "All rules associated with this event bus need to be deleted." The code is not said."""
    bus = await world.bus()
    await world.rule(bus, {"source": ["shop"]})
    assert await world.refusal("delete_event_bus", Name=bus) == "ValidationException"


# Rules


async def test_a_rule_is_put_described_switched_and_deleted(world: World) -> None:
    """model, PutRule, DescribeRule, ListRules, DeleteRule."""
    bus = await world.bus()
    await world.rule(bus, {"source": ["shop"]})
    await world.call("put_rule", Name="all", EventBusName=bus, EventPattern='{"source": ["x"]}', Description="d")
    (found,) = (await world.call("list_rules", EventBusName=bus, NamePrefix="a"))["Rules"]
    assert (found["State"], found["EventBusName"], found["Description"]) == ("ENABLED", bus, "d")
    assert json.loads(found["EventPattern"]) == {"source": ["x"]}
    assert found["Arn"].endswith(f":rule/{bus}/all")
    targets = await world.call("list_targets_by_rule", Rule="all", EventBusName=bus)
    assert [one["Id"] for one in targets["Targets"]] == ["queue"]  # a rule that is put again keeps them
    await world.call("disable_rule", Name="all", EventBusName=bus)
    assert (await world.call("describe_rule", Name="all", EventBusName=bus))["State"] == "DISABLED"
    assert await world.refusal("delete_rule", Name="all", EventBusName=bus) == "ValidationException"
    await world.call("remove_targets", Rule="all", EventBusName=bus, Ids=["queue"])
    await world.call("delete_rule", Name="all", EventBusName=bus)
    assert await world.refusal("describe_rule", Name="all", EventBusName=bus) == "ResourceNotFoundException"


@pytest.mark.parametrize("pattern", ["{", '{"source": "shop"}', '{"source": []}'])
async def test_a_pattern_that_is_none_is_refused(world: World, pattern: str) -> None:
    """model, PutRule: InvalidEventPatternException; guide, "Creating event patterns"."""
    bus = await world.bus()
    refused = await world.refusal("put_rule", Name="all", EventBusName=bus, EventPattern=pattern)
    assert refused == "InvalidEventPatternException"


async def test_a_pattern_with_an_operator_that_is_none_is_refused(world: World) -> None:
    """guide, "Comparison operators"."""
    bus = await world.bus()
    pattern = '{"detail": {"n": [{"nearly": 1}]}}'
    refused = await world.refusal("put_rule", Name="all", EventBusName=bus, EventPattern=pattern)
    assert refused == "InvalidEventPatternException"


async def test_a_pattern_that_is_no_object_is_refused(world: World) -> None:
    """guide, "Creating event patterns"."""
    bus = await world.bus()
    refused = await world.refusal("put_rule", Name="all", EventBusName=bus, EventPattern='["source"]')
    assert refused == "InvalidEventPatternException"


async def test_a_rule_needs_a_pattern_and_its_bus(world: World) -> None:
    """model, PutRule."""
    bus = await world.bus()
    assert await world.refusal("put_rule", Name="all", EventBusName=bus) == "ValidationException"
    refused = await world.refusal("put_rule", Name="all", EventBusName=f"{bus}x", EventPattern='{"source": ["a"]}')
    assert refused == "ResourceNotFoundException"
    targets = [{"Id": "queue", "Arn": "arn:aws:sqs:us-east-1:123456789012:q"}]
    refused = await world.refusal("put_targets", Rule="none", EventBusName=bus, Targets=targets)
    assert refused == "ResourceNotFoundException"


async def test_targets_have_an_arn_and_a_fifo_queue_a_group(world: World) -> None:
    """model, Target.SqsParameters: the message group for a FIFO queue."""
    bus = await world.bus()
    await world.rule(bus, {"source": ["shop"]})
    for arn in ("queue", "arn:aws:sqs:us-east-1:123456789012:q.fifo"):
        targets = [{"Id": "two", "Arn": arn}]
        refused = await world.refusal("put_targets", Rule="all", EventBusName=bus, Targets=targets)
        assert refused == "ValidationException"


async def test_a_rule_has_up_to_five_targets(world: World) -> None:
    """guide, "Amazon EventBridge quotas": targets per rule."""
    bus = await world.bus()
    await world.rule(bus, {"source": ["shop"]})
    targets = [{"Id": str(n), "Arn": "arn:aws:sqs:us-east-1:123456789012:q"} for n in range(5)]
    refused = await world.refusal("put_targets", Rule="all", EventBusName=bus, Targets=targets)
    assert refused == "LimitExceededException"


# Events


async def test_an_event_reaches_the_queues_of_the_rules_that_it_matches(world: World) -> None:
    """guide, "Creating event patterns"."""
    bus = await world.bus()
    matched = await world.rule(bus, {"source": ["shop"], "detail": {"n": [{"numeric": [">", 1]}]}})
    other = await world.rule(bus, {"detail-type": ["else"]}, name="other")
    await world.put(bus, {"Detail": '{"n": 2}'}, {"Detail": '{"n": 1}'})
    assert [one["detail"] for one in world.arrived(matched)] == [{"n": 2}]
    assert world.arrived(other) == []


async def test_an_event_has_its_members_and_no_others(world: World) -> None:
    """guide, "Event structure"."""
    bus = await world.bus()
    matched = await world.rule(bus, {"source": ["shop"]})
    time = datetime(2026, 5, 1, 12, 30, 5, tzinfo=UTC)
    answer = await world.put(bus, {"Detail": '{"n": 2}', "Time": time, "Resources": ["arn:x"]})
    (found,) = world.arrived(matched)
    assert found == {
        "version": "0",
        "id": answer["Entries"][0]["EventId"],
        "detail-type": "t",
        "source": "shop",
        "account": "123456789012",
        "time": "2026-05-01T12:30:05Z",
        "region": "us-east-1",
        "resources": ["arn:x"],
        "detail": {"n": 2},
    }


async def test_a_disabled_rule_matches_nothing(world: World) -> None:
    """model, Rule.State."""
    bus = await world.bus()
    arn = await world.rule(bus, {"source": ["shop"]})
    await world.call("disable_rule", Name="all", EventBusName=bus)
    await world.put(bus, {})
    assert world.arrived(arn) == []
    await world.call("enable_rule", Name="all", EventBusName=bus)
    await world.put(bus, {})
    assert len(world.arrived(arn)) == 1


async def test_a_target_can_get_a_text_instead_of_the_event(world: World) -> None:
    """model, Target.Input: "nothing from the event itself is passed to the target"."""
    bus = await world.bus()
    arn = await world.rule(bus, {"source": ["shop"]}, Input='{"fixed": true}')
    await world.put(bus, {})
    assert world.arrived(arn) == [{"fixed": True}]


async def test_a_target_can_get_a_part_of_the_event(world: World) -> None:
    """model, Target.InputPath."""
    bus = await world.bus()
    arn = await world.rule(bus, {"source": ["shop"]}, InputPath="$.detail.order")
    await world.put(bus, {"Detail": '{"order": {"id": 1}}'})
    assert world.arrived(arn) == [{"id": 1}]


@pytest.mark.parametrize("missing", ["Source", "DetailType", "Detail"])
async def test_an_entry_without_source_type_or_detail_fails_alone(world: World, missing: str) -> None:
    """recorded, test_put_events_without_source, test_put_event_without_detail, test_put_event_without_detail_type."""
    bus = await world.bus()
    answer = await world.put(bus, {}, {missing: None}, {})
    assert answer["FailedEntryCount"] == 1
    assert [one.get("ErrorCode") for one in answer["Entries"]] == [None, "InvalidArgument", None]


async def test_a_call_of_failures_alone_is_no_failed_call(world: World) -> None:
    """recorded, test_put_events_without_source; model, PutEventsRequestEntry says that the whole request fails."""
    bus = await world.bus()
    assert (await world.put(bus, {"Source": None}))["FailedEntryCount"] == 1


async def test_a_detail_that_is_no_json_is_malformed(world: World) -> None:
    """recorded, test_put_event_malformed_detail[MALFORMED_JSON]."""
    bus = await world.bus()
    answer = await world.put(bus, {"Detail": "{"}, {})
    assert [one.get("ErrorCode") for one in answer["Entries"]] == ["MalformedDetail", None]


@pytest.mark.parametrize("detail", ['"text"', "[1]", "null", "1"])
async def test_a_detail_that_is_no_object_is_malformed(world: World, detail: str) -> None:
    """recorded, test_put_event_malformed_detail; model, PutEventsRequestEntry.Detail: "A valid JSON object"."""
    bus = await world.bus()
    answer = await world.put(bus, {"Detail": detail})
    assert [one.get("ErrorCode") for one in answer["Entries"]] == ["MalformedDetail"]


async def test_whole_numbers_in_a_detail_have_64_bits(world: World) -> None:
    """model, PutEvents; the code is not said."""
    bus = await world.bus()
    details = [f'{{"n": {number}}}' for number in (2**63 - 1, -(2**63), 2**63, -(2**63) - 1)]
    answer = await world.put(bus, *({"Detail": detail} for detail in details))
    assert ["EventId" in one for one in answer["Entries"]] == [True, True, False, False]


async def test_a_detail_is_up_to_a_thousand_levels_deep(world: World) -> None:
    """model, PutEvents; the code is not said."""
    bus = await world.bus()
    answer = await world.put(
        bus, {"Detail": '{"a":' * 100 + "{}" + "}" * 100}, {"Detail": '{"a":' * 1_000 + "{}" + "}" * 1_000}
    )
    assert [one.get("ErrorCode") for one in answer["Entries"]] == [None, "MalformedDetail"]


async def test_aws_own_sources_are_refused(world: World) -> None:
    """model, PutEventsResultEntry: NotAuthorizedForSourceException."""
    bus = await world.bus()
    answer = await world.put(bus, {"Source": "aws.ec2"})
    assert [one.get("ErrorCode") for one in answer["Entries"]] == ["NotAuthorizedForSourceException"]


async def test_a_detail_type_has_up_to_128_characters(world: World) -> None:
    """model, PutEventsRequestEntry.DetailType."""
    bus = await world.bus()
    answer = await world.put(bus, {"DetailType": "x" * 128}, {"DetailType": "x" * 129})
    assert [one.get("ErrorCode") for one in answer["Entries"]] == [None, "InvalidArgument"]


async def test_a_call_has_up_to_ten_entries(world: World) -> None:
    """model, PutEventsRequestEntryList; recorded, test_put_events_exceed_limit_ten_entries."""
    bus = await world.bus()
    assert (await world.put(bus, *[{}] * 10))["FailedEntryCount"] == 0
    with pytest.raises(ClientError, match="ValidationException"):
        await world.put(bus, *[{}] * 11)


async def test_a_call_has_at_least_one_entry(world: World) -> None:
    """model, PutEventsRequestEntryList."""
    assert await world.refusal("put_events", Entries=[]) == "ValidationException"


async def test_a_call_has_less_than_a_megabyte(world: World) -> None:
    """model, PutEvents: "the total entry size must be less than 1MB"; guide, "Calculating PutEvents event entry size": source,
    type, detail, resources, and 14 for a time; recorded, test_put_event_with_too_big_detail.
    """
    bus = await world.bus()
    beside = len("shop") + len("t") + len('{"x":""}') + 14 + len("arn:x")
    entry = {"Time": datetime(2026, 5, 1, tzinfo=UTC), "Resources": ["arn:x"]}
    largest = 1_048_575 - beside
    assert (await world.put(bus, {**entry, "Detail": f'{{"x":"{"a" * largest}"}}'}))["FailedEntryCount"] == 0
    with pytest.raises(ClientError, match="ValidationException"):
        await world.put(bus, {**entry, "Detail": f'{{"x":"{"a" * (largest + 1)}"}}'})


async def test_an_event_for_a_bus_that_is_not_there_is_taken_without_a_word(world: World) -> None:
    """https://github.com/aws/aws-cli/issues/9186, "Putting an event on an nonexistent EventBridge event bus returns a success"."""
    answer = await world.put(f"{world.unique}none", {})
    assert answer["FailedEntryCount"] == 0
    assert answer["Entries"][0]["EventId"]


# What the model alone has


@pytest.fixture
def model() -> EventBridge:
    return EventBridge(random.Random(1))


ENTRY = {"Source": "shop", "DetailType": "t", "Detail": '{"n": 1}'}


def test_what_was_put_on_a_bus_can_be_looked_at_and_is_nobodys_to_change(model: EventBridge) -> None:
    entry = {**ENTRY, "Resources": ["arn:x"]}
    model.operations["put_events"]({"Entries": [entry, {**ENTRY, "EventBusName": "none"}]}, 5.0)
    entry["Resources"].append("arn:y")  # type: ignore[attr-defined]
    (found,) = model.events_on("default")
    assert (found["resources"], found["detail"], found["time"]) == (["arn:x"], {"n": 1}, "1970-01-01T00:00:05Z")
    found["detail"]["n"] = 2
    assert model.events_on()[0]["detail"] == {"n": 1}
    assert [event.detail for event in model.lost] == ['{"n": 1}']


def test_what_a_queue_refuses_goes_to_the_targets_dead_letters_or_is_kept(model: EventBridge) -> None:
    """model, Target.DeadLetterConfig; that nothing is tried for 24 hours is the model's own."""
    queue, dead = "arn:aws:sqs:us-east-1:123456789012:gone", "arn:aws:sqs:us-east-1:123456789012:dead"
    arrived: list[str] = []

    def deliver(arn: str, body: str, group: str | None, header: str | None) -> None:
        if arn == queue:
            raise ServiceError("AWS.SimpleQueueService.NonExistentQueue", "gone")
        arrived.append(arn)

    model.deliver = deliver
    model.operations["put_rule"]({"Name": "all", "EventPattern": '{"source": ["shop"]}'}, 5.0)
    targets = [{"Id": "one", "Arn": queue}, {"Id": "two", "Arn": queue, "DeadLetterConfig": {"Arn": dead}}]
    model.operations["put_targets"]({"Rule": "all", "Targets": targets}, 5.0)
    assert model.operations["put_events"]({"Entries": [ENTRY]}, 5.0)["FailedEntryCount"] == 0
    assert arrived == [dead]
    assert [(one.target, one.event.source) for one in model.undelivered] == [(queue, "shop")]


def test_a_fifo_queue_gets_its_group(model: EventBridge) -> None:
    groups: list[str | None] = []
    model.deliver = lambda arn, body, group, header: groups.append(group)
    model.operations["put_rule"]({"Name": "all", "EventPattern": '{"source": ["shop"]}'}, 5.0)
    target = {"Id": "q", "Arn": "arn:aws:sqs:us-east-1:123456789012:q.fifo", "SqsParameters": {"MessageGroupId": "g"}}
    model.operations["put_targets"]({"Rule": "all", "Targets": [target]}, 5.0)
    model.operations["put_events"]({"Entries": [ENTRY]}, 5.0)
    assert groups == ["g"]


@pytest.mark.parametrize(
    ("header", "arrives"),
    [
        ("Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1", True),
        ("Root=dummy", False),
        (None, False),
    ],
)
def test_a_trace_header_reaches_the_queue_and_is_no_part_of_the_event(
    model: EventBridge, header: str | None, arrives: bool
) -> None:
    """guide, Monitoring EventBridge with X-Ray: it is passed to targets; one that is none is not."""
    headers: list[str | None] = []
    model.deliver = lambda arn, body, group, header: headers.append(header)
    model.operations["put_rule"]({"Name": "all", "EventPattern": '{"source": ["shop"]}'}, 5.0)
    target = {"Id": "q", "Arn": "arn:aws:sqs:us-east-1:123456789012:q"}
    model.operations["put_targets"]({"Rule": "all", "Targets": [target]}, 5.0)
    entry = ENTRY if header is None else {**ENTRY, "TraceHeader": header}
    assert model.operations["put_events"]({"Entries": [entry]}, 5.0)["FailedEntryCount"] == 0
    (found,) = headers
    assert (found is not None) is arrives
    # The parent is EventBridge's own span.
    assert found is None or (found[:48], found[64:]) == (str(header)[:48], str(header)[64:])
    assert "Root" not in json.dumps(model.events_on())


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("put_rule", {"Name": "r", "ScheduleExpression": "rate(1 minute)"}),
        (
            "put_targets",
            {"Rule": "all", "Targets": [{"Id": "f", "Arn": "arn:aws:lambda:us-east-1:123456789012:function:f"}]},
        ),
        (
            "put_targets",
            {
                "Rule": "all",
                "Targets": [
                    {
                        "Id": "q",
                        "Arn": "arn:aws:sqs:us-east-1:123456789012:q",
                        "InputTransformer": {"InputTemplate": '"x"'},
                    }
                ],
            },
        ),
    ],
)
def test_what_would_be_left_out_in_silence_is_refused(model: EventBridge, operation: str, parameters: Any) -> None:
    model.operations["put_rule"]({"Name": "all", "EventPattern": '{"source": ["shop"]}'}, 5.0)
    with pytest.raises(ServiceError, match="NotImplemented"):
        model.operations[operation](parameters, 5.0)


async def test_the_sink_writes_to_it(model: EventBridge, clock: ManualClock, environment: ProcessEnvironment) -> None:
    """What `sinks.EventBridge` calls, and what it reads of the answers."""
    provide(environment, "events", MemoryClient(model, clock, News()))
    sink = sinks.EventBridge("shop-events", detail_type="order.priced").bound_to("shop")
    await sink.create(environment)
    await sink.create(environment)
    values = [({"n": 1}, '{"n":1}'), ([1], "[1]")]
    written = [
        Output(id=f"{n:032x}", sink="out", body=body, value=one, default_key='"k"')
        for n, (one, body) in enumerate(values)
    ]
    results = await sink.write(written, environment, Deadline())
    assert [type(result) for result in results] == [type(None), SinkRefused]
    (found,) = model.events_on("shop-events")
    assert (found["source"], found["detail-type"], found["detail"]["n"]) == ("shop", "order.priced", 1)


def test_between_services_in_memory_a_trace_header_becomes_the_messages() -> None:
    """guide, Monitoring EventBridge with X-Ray: SQS gets it as `AWSTraceHeader`. Its parent is EventBridge's own span."""
    services = {service.name: service for service in in_memory(random.Random(1), lambda: 5.0)}
    queues, buses = services["sqs"].operations, services["events"].operations
    url = queues["create_queue"]({"QueueName": "q"}, 5.0)["QueueUrl"]
    buses["put_rule"]({"Name": "all", "EventPattern": '{"source": ["shop"]}'}, 5.0)
    target = {"Id": "q", "Arn": "arn:aws:sqs:us-east-1:123456789012:q"}
    buses["put_targets"]({"Rule": "all", "Targets": [target]}, 5.0)
    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    buses["put_events"]({"Entries": [{**ENTRY, "TraceHeader": header}, ENTRY]}, 5.0)
    asked = {"QueueUrl": url, "MaxNumberOfMessages": 10, "AttributeNames": ["All"]}
    found = queues["receive_message"](asked, 5.0)["Messages"]
    first, second = [message["Attributes"].get("AWSTraceHeader") for message in found]
    assert (first[:48], first[64:], second) == (header[:48], header[64:], None)
    assert first != header
