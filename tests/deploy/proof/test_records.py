"""Records through what was deployed: its queues, streams, tables and buckets, and the artifact that Lambda holds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from demo import logs_sample, webhooks_sample
from handlers.log_formats import partition_key
from tests.deploy.proof.artifact import Artifact
from tests.deploy.proof.deployment import Stack
from tests.deploy.proof.permissions import Recorder, Use, allowed
from tests.deploy.proof.polling import Invoke, Polled, poll_queue, poll_stream
from tests.deploy.proof.translate import REGION
from tests.flow.events import Invocation

pytestmark = pytest.mark.timeout(400)  # the first test builds and deploys

HANDLERS = ("handlers.webhooks.record", "handlers.webhooks.timeline", "handlers.logs.archive")
#: What the event source mapping and the runtime call with the function's role.
LAMBDAS_OWN = {
    *(
        f"kinesis:{name}"
        for name in ("DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards")
    ),
    *(f"sqs:{name}" for name in ("ReceiveMessage", "DeleteMessage", "GetQueueAttributes")),
    *(f"logs:{name}" for name in ("CreateLogStream", "PutLogEvents")),
    "s3:ListBucket",
}
#: A record that fails and comes back after a delay; an upload in parts that fails. Not in these feeds.
WHEN_SOMETHING_FAILS = {"sqs:ChangeMessageVisibility", "s3:AbortMultipartUpload"}


#: MiniStack's endpoint is not AWS's own, so claims are single writes here, each in the place of a statement, and repeats
#: are not read. `tests/deploy/test_permissions.py` holds the roles against the statements themselves.
STATEMENTS = {
    "dynamodb:PutItem": "dynamodb:PartiQLInsert",
    "dynamodb:UpdateItem": "dynamodb:PartiQLUpdate",
    "dynamodb:DeleteItem": "dynamodb:PartiQLDelete",
}


def as_on_aws(use: Use) -> Use:
    """The use of an idempotency table as it would be on AWS."""
    is_claimed_in = "IdempotencyTable" in use.resource
    return use._replace(action=STATEMENTS.get(use.action, use.action)) if is_claimed_in else use


class Deployed:
    """One deployed handler: its event source mapping, which we play, and the names that it was told."""

    def __init__(self, stack: Stack, handler: str, directory: Path) -> None:
        self.aws = stack.aws
        function = stack.function(handler)
        self.artifact = Artifact(stack.aws, function, directory)
        self._printed = directory / "stdout"
        self._told = json.loads(function["Configuration"]["Environment"]["Variables"]["PIPELINE_RESOURCES"])
        client = self.aws.client("lambda")
        name = function["Configuration"]["FunctionName"]
        (self.mapping,) = client.list_event_source_mappings(FunctionName=name)["EventSourceMappings"]
        # MiniStack polls too, but by rules of its own: batches of 10, and no partial responses of streams.
        client.update_event_source_mapping(UUID=self.mapping["UUID"], Enabled=False)
        account = self.aws.client("sts").get_caller_identity()["Account"]
        self.recorder = Recorder(self.aws.endpoint_url, account=account, region=REGION)
        self._role = function["Configuration"]["Role"].rpartition("/")[2]

    def name(self, service: str, logical: str) -> str:
        """What the deployed function was told that a resource is called."""
        return str(self._told[f"{service}:{logical}"])

    @property
    def source(self) -> str:
        """The name of what the mapping reads."""
        return str(self.mapping["EventSourceArn"].rpartition(":")[2].rpartition("/")[2])

    @property
    def queue(self) -> str:
        """The URL of the queue that the mapping reads."""
        return str(self.aws.client("sqs").get_queue_url(QueueName=self.source)["QueueUrl"])

    def poll(self) -> Polled:
        """To the end of the source, in one execution environment."""
        with self._printed.open("ab") as output:
            runtime = self.artifact.start(self.recorder.url, output)
            try:
                return self._poll(lambda event: runtime.invoke(event, Invocation(self.artifact.timeout)))
            finally:
                runtime.close()

    def _poll(self, invoke: Invoke) -> Polled:
        if ":kinesis:" in self.mapping["EventSourceArn"]:
            return poll_stream(self.aws, self.mapping, self.source, invoke)
        return poll_queue(self.aws, self.mapping, self.queue, invoke)

    def allowances(self) -> list[dict[str, Any]]:
        """What the deployed role's policies say."""
        client = self.aws.client("iam")
        names = client.list_role_policies(RoleName=self._role)["PolicyNames"]
        found = [client.get_role_policy(RoleName=self._role, PolicyName=name)["PolicyDocument"] for name in names]
        return [statement for policy in found for statement in policy["Statement"]]

    def printed(self) -> list[dict[str, Any]]:
        """What the function printed; everything is a line of JSON."""
        return [json.loads(line) for line in self._printed.read_text().splitlines() if line]


@pytest.fixture(scope="module")
def deployed(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Deployed]]:
    made: dict[str, Deployed] = {}

    def of(handler: str) -> Deployed:
        if handler not in made:
            made[handler] = Deployed(stack, handler, tmp_path_factory.mktemp("artifact"))
        return made[handler]

    yield of
    for one in made.values():
        one.recorder.stop()


def messages(one: Deployed, url: str) -> list[dict[str, Any]]:
    """Everything that stands in a queue, taken out of it."""
    client, found = one.aws.client("sqs"), list[dict[str, Any]]()
    while received := client.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], VisibilityTimeout=600
    ).get("Messages"):
        found += received
    return found


def waiting(one: Deployed, url: str) -> int:
    """Messages in a queue, those in flight among them."""
    names = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    ]
    found = one.aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return sum(int(found[name]) for name in names)


def items(one: Deployed, table: str) -> list[dict[str, Any]]:
    pages = one.aws.client("dynamodb").get_paginator("scan").paginate(TableName=table)
    return [item for page in pages for item in page["Items"]]


def complete(one: Deployed, table: str) -> int:
    """Idempotency entries of work that is done."""
    return sum(item["status"]["S"] == "COMPLETED" for item in items(one, table))


def send(one: Deployed, url: str, bodies: list[str]) -> None:
    client = one.aws.client("sqs")
    for position in range(0, len(bodies), 10):
        entries = [
            {"Id": str(number), "MessageBody": body} for number, body in enumerate(bodies[position : position + 10])
        ]
        assert not client.send_message_batch(QueueUrl=url, Entries=entries).get("Failed")


def listen(one: Deployed, bus: str) -> str:
    """A queue that gets whatever is put on a bus."""
    sqs, events = one.aws.client("sqs"), one.aws.client("events")
    url: str = sqs.create_queue(QueueName="listens")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    pattern = json.dumps({"detail-type": [{"prefix": "github."}]})
    events.put_rule(Name="all", EventBusName=bus, EventPattern=pattern)
    events.put_targets(Rule="all", EventBusName=bus, Targets=[{"Id": "listens", "Arn": arn}])
    return url


def test_webhooks_through_the_deployed_queues_and_artifacts(
    deployed: Callable[[str], Deployed], tmp_path: Path
) -> None:
    record, timeline = deployed("handlers.webhooks.record"), deployed("handlers.webhooks.timeline")
    expected = webhooks_sample.write(tmp_path / "deliveries")
    bodies = (tmp_path / "deliveries").read_text().splitlines()
    heard = listen(record, record.name("events", "webhook-events"))
    send(record, record.queue, bodies)

    polled = record.poll()

    assert (polled.records, polled.failed) == (len(bodies), [])
    assert polled.invocations < len(bodies) / 10, "batches of the deployed size"
    assert waiting(record, record.queue) == 0
    stored = items(record, record.name("dynamodb", "webhook-deliveries"))
    assert len(stored) == expected.succeeded
    events = [json.loads(one["Body"]) for one in messages(record, heard)]
    assert {one["detail"]["delivery"] for one in events} == {item["delivery"]["S"] for item in stored}
    assert len(events) == expected.succeeded
    dead = messages(record, record.name("sqs", "github-webhooks-dlq"))
    assert len(dead) == expected.rejected
    assert all(json.loads(one["MessageAttributes"]["pipeline_cause"]["StringValue"]) for one in dead)
    assert {one["Body"] for one in dead} <= set(bodies), "as they were sent"
    entries = record.name("dynamodb", "webhooks-idempotency")
    assert complete(record, entries) == expected.succeeded

    followed = timeline.poll()

    assert (followed.records, followed.failed) == (expected.moments, [])
    assert len(items(timeline, timeline.name("dynamodb", "repository-timeline"))) == expected.moments
    assert complete(timeline, entries) == expected.succeeded + expected.moments
    for one in (record, timeline):
        assert not [line for line in one.printed() if line.get("level") in ("ERROR", "CRITICAL")]
        assert sum("_aws" in line for line in one.printed()) >= 1, "a line of metrics for each invocation"


def test_log_lines_through_the_deployed_stream_and_artifact(
    deployed: Callable[[str], Deployed], tmp_path: Path
) -> None:
    archive = deployed("handlers.logs.archive")
    expected = logs_sample.write(tmp_path / "lines")
    lines = (tmp_path / "lines").read_bytes().splitlines()
    for position in range(0, len(lines), 100):
        records = [
            {"Data": line, "PartitionKey": partition_key(line.decode(errors="replace"))}
            for line in lines[position : position + 100]
        ]
        put = archive.aws.client("kinesis").put_records(StreamName=archive.source, Records=records)
        assert put["FailedRecordCount"] == 0

    polled = archive.poll()

    assert (polled.records, polled.failed) == (len(lines), [])
    s3, bucket = archive.aws.client("s3"), archive.name("s3", "log-archive")
    objects = [one["Key"] for one in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    archived = [
        json.loads(line)
        for key in objects
        for line in gzip.decompress(s3.get_object(Bucket=bucket, Key=key)["Body"].read()).splitlines()
    ]
    assert len({line["id"] for line in archived}) == len(archived) == expected.lines
    assert len(messages(archive, archive.name("sqs", "log-alerts"))) == expected.alerts
    dead = messages(archive, archive.name("sqs", "log-lines-stream-dlq"))
    assert len(dead) == expected.unknown + expected.undecodable
    assert complete(archive, archive.name("dynamodb", "logs-idempotency")) == expected.lines
    assert not [line for line in archive.printed() if line.get("level") in ("ERROR", "CRITICAL")]


def test_every_call_is_one_that_the_functions_role_allows(deployed: Callable[[str], Deployed]) -> None:
    """No stand-in refuses what a role does not allow. After the tests above."""
    handlers = [deployed(name) for name in HANDLERS]
    if not all(one.recorder.used for one in handlers):
        pytest.skip("nothing ran before: run the whole file")
    for one in handlers:
        assert [use for use in map(as_on_aws, one.recorder.used) if not allowed(use, one.allowances())] == []

    used = {as_on_aws(use).action for one in handlers for use in one.recorder.used}
    granted = {action for one in handlers for statement in one.allowances() for action in statement["Action"]}
    assert granted - used == LAMBDAS_OWN | WHEN_SOMETHING_FAILS | {"dynamodb:BatchGetItem"}


def test_every_metric_that_is_watched_is_one_that_the_deployed_functions_print(
    stack: Stack, deployed: Callable[[str], Deployed]
) -> None:
    """By namespace and dimensions: an alarm on a metric that nobody writes never rings. After the tests above."""
    printed: dict[str, set[str]] = {}
    for handler in HANDLERS:
        for line in deployed(handler).printed():
            for emitted in line.get("_aws", {}).get("CloudWatchMetrics", []):
                for names in emitted["Dimensions"]:
                    series = series_of(emitted["Namespace"], {name: line[name] for name in names})
                    printed.setdefault(series, set()).update(metric["Name"] for metric in emitted["Metrics"])
    if not printed:
        pytest.skip("nothing ran before: run the whole file")

    ours = [series for series in watched(stack) if not json.loads(series)[0].startswith("AWS/")]
    assert set(ours) <= set(printed)
    assert len(ours) > len(HANDLERS)
    assert {"RecordsRejected", "RecordsSucceeded", "RecordsDuplicate"} <= set().union(*printed.values())


def watched(stack: Stack) -> Iterator[str]:
    """What the template's alarms and dashboard look at, those alarms that MiniStack refuses among them."""
    for one in stack.complete["Resources"].values():
        if one["Type"] == "AWS::CloudWatch::Alarm":
            alarm = stack.resolver.resolve(one["Properties"])
            queries = [query["MetricStat"]["Metric"] for query in alarm.get("Metrics", []) if "MetricStat" in query]
            for metric in queries or [alarm]:
                dimensions = {each["Name"]: each["Value"] for each in metric["Dimensions"]}
                yield series_of(metric["Namespace"], dimensions)
        elif one["Type"] == "AWS::CloudWatch::Dashboard":
            body = json.loads(stack.resolver.resolve(one["Properties"])["DashboardBody"])
            for widget in body["widgets"]:
                for namespace, _, *rest in widget["properties"].get("metrics", []):
                    pairs = [each for each in rest if isinstance(each, str)]
                    yield series_of(namespace, dict(zip(pairs[::2], pairs[1::2], strict=True)))


def series_of(namespace: str, dimensions: dict[str, str]) -> str:
    return json.dumps([namespace, dimensions], sort_keys=True)
