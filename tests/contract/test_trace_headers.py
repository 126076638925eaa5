"""X-Ray's header of a call: what the services make of it, in memory and on the embedded server, through boto3."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from pipeline.decisions.tracing import parse_xray
from pipeline.emulator.services.trace_header import HEADER, in_call, passed_on
from pipeline.testing import Emulator

TRACE = "5759e988bd862e3fe1be46a994272793"
GIVEN = "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
OWN = "Root=1-5759e988-bd862e3fe1be46a994272794;Parent=53995c3f42cd8ad9;Sampled=0"
ROOT_ONLY = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
FULL = f"Self=1-5759e988-bd862e3fe1be46a994272793;{GIVEN};Lineage=1:e7ff9e16:3"

#: Makes a client of a service whose calls have this header.
Client = Callable[..., Any]


@pytest.fixture(params=["memory", "server"])
def client(request: pytest.FixtureRequest, unique: str) -> Iterator[Client]:
    def of(make: Callable[[str], Any], service: str, header: str | None) -> Any:
        made = make(service)
        if header is not None:
            made.meta.events.register("before-call", lambda params, **_: params["headers"].update({HEADER: header}))
        return made

    if request.param == "memory":
        with Emulator() as aws:
            yield lambda service, header=None: of(aws.client, service, header)
        return
    endpoint = request.getfixturevalue("moto_endpoint")
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    yield lambda service, header=None: of(
        lambda name: boto3.client(name, endpoint_url=endpoint, region_name="eu-west-1", **keys), service, header
    )


def own(header: str) -> dict[str, Any]:
    return {"MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "String", "StringValue": header}}}


def headers(client: Client, url: str) -> dict[str, str | None]:
    """The header of each message, by its body."""
    found = client("sqs").receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"])
    return {one["Body"]: one["Attributes"].get("AWSTraceHeader") for one in found.get("Messages", [])}


@pytest.mark.parametrize("header", [GIVEN, ROOT_ONLY, FULL])
def test_the_header_of_a_call_is_that_of_each_message_that_has_none_of_its_own(
    client: Client, unique: str, header: str
) -> None:
    """X-Ray guide, "Amazon SQS and AWS X-Ray": the HTTP header, or the system attribute, which overrides it."""
    queues = client("sqs", header)
    url = queues.create_queue(QueueName=unique)["QueueUrl"]
    queues.send_message(QueueUrl=url, MessageBody="one")
    queues.send_message(QueueUrl=url, MessageBody="own", **own(OWN))
    entries = [{"Id": "a", "MessageBody": "two"}, {"Id": "b", "MessageBody": "own too", **own(OWN)}]
    queues.send_message_batch(QueueUrl=url, Entries=entries)
    client("sqs").send_message(QueueUrl=url, MessageBody="none")
    assert headers(client, url) == {"one": header, "own": OWN, "two": header, "own too": OWN, "none": None}


@pytest.mark.parametrize("header", ["malformed", "Root=dummy", "Root=1-5759e988-bd862e3fe1be46a99427279;Sampled=1", ""])
def test_a_header_that_is_none_is_nobodys(client: Client, unique: str, header: str) -> None:
    queues = client("sqs", header)
    url = queues.create_queue(QueueName=unique)["QueueUrl"]
    queues.send_message(QueueUrl=url, MessageBody="one")
    queues.send_message_batch(QueueUrl=url, Entries=[{"Id": "a", "MessageBody": "two"}])
    assert headers(client, url) == {"one": None, "two": None}


def routed(client: Client, name: str) -> str:
    """A queue that gets every event of a bus; both have this name."""
    queues, buses = client("sqs"), client("events")
    url: str = queues.create_queue(QueueName=name)["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    buses.create_event_bus(Name=name)
    buses.put_rule(Name=name, EventBusName=name, EventPattern='{"source": ["shop"]}')
    buses.put_targets(Rule=name, EventBusName=name, Targets=[{"Id": "q", "Arn": arn}])
    return url


def test_an_events_header_reaches_the_queue_with_another_parent(client: Client, unique: str) -> None:
    """EventBridge guide, "Amazon EventBridge and AWS X-Ray": the entry's TraceHeader, or that of the call."""
    url = routed(client, unique)
    buses = client("events", OWN)
    entry = {"EventBusName": unique, "Source": "shop", "DetailType": "t"}
    given = [{"TraceHeader": GIVEN}, {"TraceHeader": FULL}, {}, {"TraceHeader": "malformed"}]
    answer = buses.put_events(Entries=[{**entry, "Detail": json.dumps({"n": n}), **one} for n, one in enumerate(given)])
    assert answer["FailedEntryCount"] == 0
    found = {json.loads(body)["detail"]["n"]: header for body, header in headers(client, url).items()}
    contexts = {number: parse_xray(header) for number, header in found.items()}
    sent = {0: parse_xray(GIVEN), 1: parse_xray(FULL), 2: parse_xray(OWN)}
    assert contexts.keys() == {0, 1, 2, 3}
    assert contexts[3] is None
    for number, context in sent.items():
        passed = contexts[number]
        assert passed is not None
        assert context is not None
        assert (passed.trace_id, passed.flags) == (context.trace_id, context.flags)
        assert passed.span_id != context.span_id
    assert len({context.span_id for context in contexts.values() if context is not None}) == 3
    assert str(found[1]).endswith(";Lineage=1:e7ff9e16:3")


def test_without_a_header_an_event_brings_none(client: Client, unique: str) -> None:
    url = routed(client, unique)
    client("events").put_events(Entries=[{"EventBusName": unique, "Source": "shop", "DetailType": "t", "Detail": "{}"}])
    assert list(headers(client, url).values()) == [None]


@pytest.mark.parametrize("header", [None, 7, b"\xff", "", "Root"])
def test_what_is_no_header_changes_no_call(header: Any) -> None:
    parameters = {"MessageBody": "x"}
    assert in_call("sqs", "send_message", parameters, header) is parameters
    assert passed_on(header, "e") is None


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("receive_message", {"QueueUrl": "q"}),
        ("send_message_batch", {"Entries": None}),
        ("send_message_batch", {"Entries": ["x"]}),
        ("send_message", {"MessageSystemAttributes": 7}),
    ],
)
def test_a_call_that_sends_nothing_or_is_none_stays_as_it_is(operation: str, parameters: dict[str, Any]) -> None:
    assert in_call("sqs", operation, parameters, GIVEN) == parameters


def test_a_plain_handlers_calls_have_lambdas_own_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Lambda: where nobody traces, what a function sends names a trace that nobody kept."""
    seen: list[str | None] = []

    def handler(event: Any, context: Any) -> None:
        seen.append(os.environ.get("_X_AMZN_TRACE_ID"))
        sqs = boto3.client("sqs", region_name="us-east-1")
        sqs.send_message(QueueUrl=sqs.get_queue_url(QueueName="out")["QueueUrl"], MessageBody=context.aws_request_id)

    monkeypatch.delenv("_X_AMZN_TRACE_ID", raising=False)
    with Emulator() as aws:
        sqs = aws.client("sqs")
        url = sqs.create_queue(QueueName="out")["QueueUrl"]
        source = aws.queue("in")
        aws.map(source, handler)
        for body in ("a", "b"):
            aws.send(source.name, [body])
            aws.run()
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, MessageSystemAttributeNames=["All"])[
            "Messages"
        ]
    assert len(set(seen)) == 2
    assert {one["Attributes"]["AWSTraceHeader"] for one in found} == set(seen)
    for one in found:
        context = parse_xray(one["Attributes"]["AWSTraceHeader"])
        assert context is not None
        assert not context.is_sampled
        assert context.trace_id[8:] == one["Body"].replace("-", "")[:24]
