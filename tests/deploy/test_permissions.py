"""The role of each function allows what its code does, and nothing else.

The handlers are run as deployed, through everything that may happen to a record, and every call of AWS's API is heard;
what the calls need is held against the policy in the generated template, both ways.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import boto3
import pytest

from handlers import logs, webhooks
from pipeline import Pipeline, sinks, stores
from pipeline.aws.cloudformation.stack import Grant
from pipeline.decisions.deadline import Deadline
from pipeline.decisions.idempotency import Advance, ClaimRequest, Entry
from pipeline.deploy import lint
from pipeline.deploy.lint.code import Finder
from pipeline.deploy.template.function import Deployed as DeployedStage
from pipeline.emulator.clock import SkippingClock
from pipeline.emulator.isolation import isolated
from pipeline.emulator.services.service import REGION
from pipeline.engine.environment import ProcessEnvironment
from pipeline.output import Output
from pipeline.ports import Effect
from tests.deploy.template.rules import generate
from tests.support import calls, iam
from tests.support import permission_pipelines as made
from tests.support import permission_scenarios as scenarios
from tests.support.calls import Call, Site, Wire
from tests.support.deployed import (
    ACCOUNT,
    Boto,
    Deployed,
    Function,
    arn,
    make_bucket,
    make_bus,
    make_queue,
    make_stream,
    make_table,
)
from tests.support.iam import Request, Statement
from tests.support.permission_scenarios import MADE, OF_MODES, OURS, Case

CASES = {case.name: case for case in (*OURS, *MADE, *OF_MODES)}
#: Those that reach every place in the code.
ALL_PLACES = (
    "every.spread",
    "patient.linger",
    "theirs.lend",
    "theirs-patient.stay",
    "marked.note",
    "fused.book",
    "placed.issue",
)

#: What an event source mapping calls with the function's role (Lambda's guide: "Configuring an execution role" of
#: queues, "Create a Kinesis event source mapping" without SubscribeToShard, which is about enhanced fan-out's
#: consumers, and "Adding an on-failure destination", S3).
QUEUE = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
STREAM = tuple(
    f"kinesis:{name}"
    for name in ("DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards")
)
GIVEN_UP = {"s3:PutObject": "/*", "s3:ListBucket": ""}
LOG = ("logs:CreateLogStream", "logs:PutLogEvents")


@dataclass(frozen=True)
class Found:
    """A handler that was played: its function, and the calls that its code made."""

    case: Case
    function: Function
    calls: list[Call]

    @property
    def requests(self) -> list[Request]:
        return [request for call in self.calls for request in call.requests]

    @property
    def documented(self) -> set[tuple[str, str]]:
        """What Lambda itself needs, by AWS's documents."""
        function = self.function
        pairs = {(action, function.log) for action in LOG}
        if function.kind == "SQS":
            return pairs | {(action, function.mapping["Queue"]) for action in QUEUE}
        bucket = function.mapping["DestinationConfig"]["OnFailure"]["Destination"]
        pairs |= {(action, function.mapping["Stream"]) for action in STREAM}
        return pairs | {(action, bucket + within) for action, within in GIVEN_UP.items()}

    @property
    def for_lambda(self) -> list[Statement]:
        """The statements that hold nothing but that."""
        return [one for one in self.function.statements if set(one.pairs) <= self.documented]

    @property
    def for_code(self) -> list[Statement]:
        return [one for one in self.function.statements if one not in self.for_lambda]


#: The pipelines of each stack, by the pipelines' names.
STACKS = {one.name: stack for stack in ((webhooks.webhooks, logs.logs), made.CLAIMED, made.OF_MODES) for one in stack}


@dataclass
class Kept:
    """The stacks, by one pipeline of each, and what was found."""

    stacks: dict[str, Deployed] = field(default_factory=dict)
    found: dict[str, Found] = field(default_factory=dict)
    has_theirs: bool = False  #: what others have made is there


class World:
    """The stacks on the tests' server, made when they are asked for; each handler is played once."""

    def __init__(self, endpoint_url: str, boto: Boto, tables: str, kept: Kept) -> None:
        self._endpoint_url = endpoint_url
        self._boto = boto
        self._tables = tables
        self._kept = kept

    def play(self, name: str) -> Found:
        found = self._kept.found
        if name not in found:
            case = CASES[name]
            function = self._stack(case.handler.stage.pipeline).function(case.handler)
            # What is others' is not reached by statements, and DynamoDB Local finds no table by its ARN.
            tables = None if name.startswith("theirs") else self._tables
            found[name] = Found(case, function, scenarios.played(case, function, self._boto, tables))
        return found[name]

    def _stack(self, pipeline: str) -> Deployed:
        pipelines = STACKS[pipeline]
        stacks, key = self._kept.stacks, pipelines[0].name
        if key not in stacks:
            name = f"s{uuid.uuid4().hex[:8]}"
            dead = {f"{queue}DlqArn": arn("sqs", "their-graveyard") for queue in ("Inbox", "Post")}
            stack = stacks[key] = Deployed(pipelines, name, self._endpoint_url, dead)
            stack.make(self._boto)
            stack.make(lambda service: self._boto(f"{service} local"), only="AWS::DynamoDB::Table")
            if not self._kept.has_theirs:
                _make_theirs(self._boto)
                self._kept.has_theirs = True
        return stacks[key]


@pytest.fixture(scope="session")
def kept() -> Kept:
    """As long as the server is there: a worker that takes over others' tests comes to this module several times."""
    return Kept()


@pytest.fixture(scope="module")
def world(moto_endpoint: str, dynamodb_local: str, kept: Kept) -> Iterator[World]:
    with isolated(moto_endpoint), ExitStack() as stack:
        clients: dict[str, Any] = {}

        def boto(service: str) -> Any:
            if service not in clients:
                name, _, is_local = service.partition(" ")
                endpoint = dynamodb_local if is_local else moto_endpoint
                clients[service] = boto3.client(name, endpoint_url=endpoint, region_name=REGION)
                stack.callback(clients[service].close)
            return clients[service]

        yield World(moto_endpoint, boto, dynamodb_local, kept)


@pytest.fixture(scope="module")
def sites() -> list[Site]:
    return calls.sites(calls.sources())


@pytest.fixture(scope="module", params=CASES)
def found(request: pytest.FixtureRequest, world: World) -> Found:
    return world.play(request.param)


def _make_theirs(boto: Boto) -> None:
    """What others have made before there was a stack."""
    make_queue(boto, "their-graveyard", {})
    for name in ("their-inbox", "their-post"):
        make_queue(boto, name, {"dead": arn("sqs", "their-graveyard")})
    for name in ("their-outbox", "their-mail", "their-refused"):
        make_queue(boto, name, {})
    for name in ("their-claims", "their-book"):
        key = {"AttributeName": "id"}
        described = {"AttributeDefinitions": [{**key, "AttributeType": "S"}], "KeySchema": [{**key, "KeyType": "HASH"}]}
        make_table(boto, name, {**described, "BillingMode": "PAY_PER_REQUEST"})
    for name in ("their-stream", "their-flow"):
        make_stream(boto, name, {})
    make_bus(boto, "their-bus", {})
    make_bucket(boto, "their-archive", {})


# Both ways


def test_the_role_allows_every_call_that_the_code_makes(found: Found) -> None:
    # What is meant for Lambda is no excuse: what the code needs stands among the code's own.
    assert found.requests
    assert iam.missing(found.for_code, found.requests) == []


def test_the_code_uses_everything_that_the_role_allows(found: Found) -> None:
    assert iam.unused(found.for_code, found.requests) == []


def test_lambda_itself_gets_what_aws_documents_and_no_more(found: Found) -> None:
    allowed = [pair for one in found.for_lambda for pair in one.pairs]
    marked = [
        action
        for grant in DeployedStage(found.case.handler.stage).grants()
        if grant.is_for_lambda
        for action in grant.actions
    ]

    assert sorted(allowed) == sorted(found.documented)
    assert sorted(action for action, _ in allowed) == sorted([*marked, *LOG])


def test_the_policy_says_what_aws_understands(found: Found) -> None:
    given = found.function.statements
    names = [one.sid for one in given]

    assert iam.unknown(given) == []
    assert sorted(names) == sorted(set(names)), "IAM takes each Sid once"
    assert all(name.isalnum() for name in names)


def test_nothing_is_allowed_by_a_pattern_but_a_buckets_objects_and_a_logs_streams(found: Found) -> None:
    pairs = [pair for one in found.function.statements for pair in one.pairs]
    wild = {one for pair in pairs for one in pair if "*" in one or "?" in one}

    assert {one for one in wild if not one.startswith(("arn:aws:s3:::", "arn:aws:logs:"))} == set()
    assert all(one.count("*") == 1 and one.endswith(("/*", ":*")) for one in wild)


def test_a_bucket_of_ours_that_is_another_accounts_by_now_is_not_written(found: Found) -> None:
    given = [one for one in found.function.statements if one.actions[0].startswith("s3:")]
    foreign = [
        Request(action, resource.replace("*", "x"), "444455556666")
        for one in given
        for action, resource in one.pairs
        if "their-" not in resource
    ]

    assert iam.missing(given, foreign) == sorted(map(str, foreign))


def test_every_call_was_made_at_a_place_that_is_found_by_reading(found: Found, sites: list[Site]) -> None:
    unread = {call.operation for call in found.calls if not any(site.is_hit_by(call) for site in sites)}

    assert unread == set()


# What is others'

THEIRS = "444455556666"


@pytest.mark.parametrize(
    "sink",
    [
        sinks.SQS("theirs", existing=f"arn:aws:sqs:{REGION}:{THEIRS}:orders-of-theirs"),
        sinks.DynamoDB("theirs", existing=f"arn:aws:dynamodb:{REGION}:{THEIRS}:table/orders"),
        sinks.EventBridge("theirs", detail_type="order", source="s", existing=f"arn:aws:events:{REGION}:{THEIRS}:event-bus/b"),
        sinks.Kinesis("theirs", existing=f"arn:aws:kinesis:{REGION}:{THEIRS}:stream/orders"),
        sinks.S3("theirs", existing="arn:aws:s3:::orders-of-theirs"),
    ],
    ids=lambda sink: type(sink).__name__,
)  # fmt: skip
async def test_a_sink_in_another_account_is_called_where_its_permission_is(sink: Any, wire: Wire) -> None:
    output = Output(id="1", sink=sink.name, body='{"id":"a"}', key=None, default_key="k", value={"id": "a"})
    await called(sink.write([output], environment := ProcessEnvironment(), Deadline(soft=0.0)), environment)

    _only_granted(wire, sink.grants())


@pytest.mark.parametrize("several", [False, True])
async def test_effects_in_another_account_are_written_where_their_permission_is(several: bool, wire: Wire) -> None:
    sink = sinks.DynamoDB("theirs", existing=f"arn:aws:dynamodb:{REGION}:{THEIRS}:table/orders")
    outputs = [
        Output(id=name, sink="theirs", body=f'{{"id":"{name}"}}', key=None, default_key="k", value={})
        for name in ("ab" if several else "a")
    ]
    effect = Effect(mark="m", outputs=tuple(outputs))
    environment = ProcessEnvironment(clock=SkippingClock())
    await called(sink.write_once([effect], environment, Deadline(soft=0.0)), environment)

    _only_granted(wire, sink.grants(fused=True))


CLAIM = ClaimRequest(id="k", owner="me", lease_until=0.0, ttl=60, record="m1", is_alone=True)
USES: Mapping[str, Callable[[Any, ProcessEnvironment], Awaitable[Any]]] = {
    "claim": lambda store, environment: store.claim([CLAIM], environment),
    "look": lambda store, environment: store.look(["k"], environment),
    "mark": lambda store, environment: store.mark(
        [Entry(id="k", status="COMPLETED", expiration=1, data="null")], environment
    ),
    "advance": lambda store, environment: store.advance([Advance(id="k", position="0011", ttl=60)], environment),
}
USES_OF: Mapping[Literal["claim", "mark", "checkpoint"], Sequence[str]] = {
    "claim": ("claim",),
    "mark": ("look", "mark"),
    "checkpoint": ("look", "advance"),
}


@pytest.mark.parametrize(("mode", "use"), [(mode, use) for mode, uses in USES_OF.items() for use in uses])
async def test_a_table_in_another_account_is_used_where_its_permission_is(
    mode: Literal["claim", "mark", "checkpoint"], use: str, wire: Wire
) -> None:
    store = stores.DynamoDB("theirs", existing=f"arn:aws:dynamodb:{REGION}:{THEIRS}:table/claims")
    environment = ProcessEnvironment()
    await called(USES[use](store, environment), environment)

    _only_granted(wire, store.grants(forgets=True, mode=mode))


@pytest.fixture
def wire(world: World, monkeypatch: pytest.MonkeyPatch) -> Wire:
    made = Wire()
    made.connect(monkeypatch)
    return made


async def called(work: Awaitable[Any], environment: ProcessEnvironment) -> None:
    """The server knows one account, so what is asked for is all that counts. Names are of nothing that stands there, whose own
    account it would answer with."""
    try:
        await work
    finally:
        await environment.aclose()


def _only_granted(wire: Wire, grants: Sequence[Grant]) -> None:
    given = [Statement(one.to, one.actions, (f"{one.resource.existing}{one.within}",), {}) for one in grants]
    asked = [request for call in wire.calls for request in call.requests]

    assert asked
    assert iam.missing(given, asked) == []


# Without a store


def test_a_fused_pipeline_has_no_table_of_entries_and_no_permission_for_one() -> None:
    found = generate(made.fused)
    stages = made.fused.stages()
    tables = found.of_type("AWS::DynamoDB::Table")
    kinds = {grant.to for stage in stages for grant in DeployedStage(stage).grants()}

    assert list(tables) == ["JournalTable", "TallyTable", "FilesTable", "OddFilesTable"]
    assert "dempoten" not in found.text
    assert "TimeToLive" not in found.text, "marks live as long as their items"
    assert found.granted("book")["JournalTable"] == {"dynamodb:PutItem"}
    assert found.granted("file")["FilesTable"] == {"dynamodb:PutItem"}
    assert found.granted("file")["OddFilesTable"] == {"dynamodb:BatchWriteItem"}
    assert kinds & {"ClaimIn", "MarkIn", "AdvanceIn"} == set()
    today, code = datetime.now(UTC).date(), Finder(Path(), stages).find
    assert lint.lint(lint.read(found.text.encode()), code=code, today=today, stages=stages) == []


@pytest.mark.parametrize(
    ("pipeline", "actions"),
    [
        (made.marked, {"dynamodb:BatchGetItem", "dynamodb:BatchWriteItem"}),
        (made.placed, {"dynamodb:BatchGetItem", "dynamodb:UpdateItem"}),
    ],
    ids=["Mark", "Checkpoint"],
)
def test_a_role_has_no_permission_that_only_claims_need(pipeline: Pipeline, actions: set[str]) -> None:
    for stage in pipeline.stages():
        grants = [grant for grant in DeployedStage(stage).grants() if grant.resource.service == "dynamodb"]

        assert {action for grant in grants for action in grant.actions} == actions


# The code, read


def test_every_place_in_the_code_that_calls_aws_is_reached(world: World, sites: list[Site]) -> None:
    """So a new call cannot stay without a permission: it is named here until a scenario reaches it."""
    heard = [call for name in ALL_PLACES for call in world.play(name).calls]
    unreached = [str(site) for site in sites if not any(map(site.is_hit_by, heard))]

    assert unreached == []


# The eyes of these tests


def test_each_action_that_is_taken_away_is_missed(found: Found) -> None:
    unnoticed = []
    for one in found.for_code:
        others = [other for other in found.for_code if other is not one]
        for action in one.actions:
            left = tuple(other for other in one.actions if other != action)
            if not iam.missing([*others, replace(one, actions=left)], found.requests):
                unnoticed.append((one.sid, action))

    # Two statements let it find a queue of others: one to delay messages there, one to find the dead letters.
    twice = [("DelayInbox", "sqs:GetQueueUrl"), ("FindDeadLettersOfInbox", "sqs:GetQueueUrl")]
    assert unnoticed == (twice if found.case.name == "theirs.lend" else [])


def test_each_action_that_is_added_is_found_unused(found: Found) -> None:
    for action in ("sqs:PurgeQueue", "dynamodb:GetItem", "s3:GetObject", "kinesis:PutRecord", "events:PutRule"):
        more = [replace(one, actions=(*one.actions, action)) for one in found.for_code]

        assert len(iam.unused(more, found.requests)) == len(more)


def test_each_resource_that_is_added_is_found_unused(found: Found) -> None:
    more = [replace(one, resources=(*one.resources, "*-more")) for one in found.for_code]

    assert len(iam.unused(more, found.requests)) == sum(len(one.actions) for one in more)


def test_what_lambda_needs_is_in_awss_own_policies() -> None:
    # Imported here: it takes seconds.
    from moto.iam.aws_managed_policies import aws_managed_policies_data

    policies = json.loads(aws_managed_policies_data)

    def actions(name: str) -> set[str]:
        (statement,) = policies[name]["Document"]["Statement"]
        return set(statement["Action"])

    # The log group is the template's; the others are about consumers, and about streams that it does not read.
    spared = {"logs:CreateLogGroup", "kinesis:SubscribeToShard", "kinesis:ListStreams"}
    assert actions("AWSLambdaSQSQueueExecutionRole") - spared == {*QUEUE, *LOG}
    assert actions("AWSLambdaKinesisExecutionRole") - spared == {*STREAM, *LOG}


QUEUE_ARN, TABLE_ARN = arn("sqs", "orders"), arn("dynamodb", "table/orders")


@pytest.mark.parametrize(
    ("statement", "request_", "is_allowed"),
    [
        (Statement("", ("sqs:SendMessage",), (QUEUE_ARN,), {}), Request("sqs:SendMessage", QUEUE_ARN, ACCOUNT), True),
        (Statement("", ("SQS:sendmessage",), (QUEUE_ARN,), {}), Request("sqs:SendMessage", QUEUE_ARN, ACCOUNT), True),
        (Statement("", ("sqs:Send*",), (QUEUE_ARN,), {}), Request("sqs:SendMessage", QUEUE_ARN, ACCOUNT), True),
        (Statement("", ("sqs:SendMessage",), (QUEUE_ARN,), {}), Request("sqs:SendMessage", f"{QUEUE_ARN}-dlq", ""), False),
        (Statement("", ("sqs:SendMessage",), (TABLE_ARN,), {}), Request("sqs:SendMessage", QUEUE_ARN, ACCOUNT), False),
        (Statement("", ("sqs:ReceiveMessage",), (QUEUE_ARN,), {}), Request("sqs:SendMessage", QUEUE_ARN, ""), False),
        (Statement("", ("s3:PutObject",), ("arn:aws:s3:::b/*",), {}), Request("s3:PutObject", "arn:aws:s3:::b/a/c", ""), True),
        (Statement("", ("s3:PutObject",), ("arn:aws:s3:::b",), {}), Request("s3:PutObject", "arn:aws:s3:::b/a", ""), False),
        (Statement("", ("s3:PutObject",), ("arn:aws:s3:::b/*",), {}), Request("s3:PutObject", "arn:aws:s3:::bc/a", ""), False),
    ],
)  # fmt: skip
def test_a_policy_is_read_as_iam_reads_it(statement: Statement, request_: Request, is_allowed: bool) -> None:
    assert statement.allows(request_) == is_allowed


@pytest.mark.parametrize(
    "member",
    [{"Effect": "Deny"}, {"NotAction": "s3:*"}, {"Condition": {"StringLike": {"s3:prefix": "a"}}}],
)
def test_a_policy_with_something_unheard_of_is_refused(member: Mapping[str, Any]) -> None:
    given = {"Sid": "A", "Effect": "Allow", "Action": "sqs:SendMessage", "Resource": QUEUE_ARN, **member}

    with pytest.raises(ValueError, match="teach it"):
        iam.statements({"Statement": [given]})


@pytest.mark.parametrize(
    ("action", "resource", "conditions", "says"),
    [
        ("sqs:SendMessageBatch", QUEUE_ARN, {}, "no action"),
        ("sqs:SendMessage", TABLE_ARN, {}, "is about queue"),
        ("dynamodb:PutItem", f"{TABLE_ARN}/index/a", {}, "is about table"),
        ("s3:PutObject", "arn:aws:s3:::orders", {}, "is about"),
        ("s3:ListBucket", "arn:aws:s3:::orders/*", {}, "is about"),
        ("sqs:SendMessage", QUEUE_ARN, {"StringEquals": {"s3:ResourceAccount": ACCOUNT}}, "has no condition"),
    ],
)
def test_what_aws_does_not_know_is_found(action: str, resource: str, conditions: Any, says: str) -> None:
    (trouble,) = iam.unknown([Statement("A", (action,), (resource,), conditions)])

    assert says in trouble


def test_only_operations_without_an_action_of_their_name_are_translated() -> None:
    assert [key for key in calls.ACTIONS if iam.is_action(*key)] == []
    assert all(iam.is_action(service, action) for (service, _), action in calls.ACTIONS.items())
    assert not iam.is_action("dynamodb", "TransactWriteItems")
    assert all(iam.is_action("dynamodb", action) for action in calls.TRANSACTED.values())


def test_a_transaction_needs_what_its_actions_need_each_on_its_own_table() -> None:
    items = [{"Put": {"TableName": "a"}}, {"Delete": {"TableName": "b"}}, {"Put": {"TableName": f"{TABLE_ARN}-c"}}]
    call = Call("dynamodb", "TransactWriteItems", {"TransactItems": items}, frozenset())

    assert [str(request) for request in call.requests] == [
        f"dynamodb:PutItem on {arn('dynamodb', 'table/a')}",
        f"dynamodb:DeleteItem on {arn('dynamodb', 'table/b')}",
        f"dynamodb:PutItem on {TABLE_ARN}-c",
    ]


def test_what_is_handed_on_is_found_by_reading_where_it_is_said_to_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    handed_on = calls.HANDED_ON
    monkeypatch.setattr(calls, "HANDED_ON", frozenset())
    found = {(site.file, site.function, site.operation) for site in calls.sites(calls.sources())}

    assert handed_on
    assert handed_on <= found


READ = """
from pipeline.aws import s3
from pipeline.aws.client import client

async def send(environment):
    sqs = await client(environment, "sqs")
    await sqs.send_message(QueueUrl="x")
    await s3.put_object("ours")
    await (await client(environment, "s3")).delete_object(Bucket="x")

class Table:
    async def _create(self):
        await self._write("put_item", 1)

async def create(environment):
    await (await client(environment, "dynamodb")).create_table()
    await _wait(environment)

async def _wait(environment):
    await environment.describe_table()

async def look(environment):
    async def ask():
        environment.get_paginator("list_objects_v2")
    await ask()
"""


def test_every_way_to_call_is_seen() -> None:
    found = calls.sites({"a.py": READ})

    assert {(site.function, site.operation) for site in found} == {
        ("send", "send_message"),
        ("send", "delete_object"),
        ("_create", "put_item"),
        ("look", "get_paginator"),
        ("look", "list_objects_v2"),
    }
    assert str(found[0]) == "a.py:7: send calls send_message"


def test_what_only_makes_resources_counts_as_soon_as_others_call_it() -> None:
    found = calls.sites({"a.py": READ, "b.py": "async def write(environment):\n    await _wait(environment)\n"})

    assert ("_wait", "describe_table") in {(site.function, site.operation) for site in found}


def test_an_operation_without_a_known_action_is_named() -> None:
    call = Call("sqs", "DeleteMessageBatch", {"QueueUrl": "http://h/1/q"}, frozenset())

    with pytest.raises(ValueError, match="sqs: DeleteMessageBatch is no action's name"):
        _ = call.requests
