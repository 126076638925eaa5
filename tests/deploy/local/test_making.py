"""A project's resources, made on the embedded server: what stands there afterwards, and what reaches the queues."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pipeline.aws.client import client
from pipeline.deploy.local import Made, Project, make, read
from pipeline.emulator.backend import ServerBackend
from pipeline.engine.environment import ProcessEnvironment
from tests.deploy.local.conftest import HERE, TEMPLATES

ClientFor = Callable[[str], Any]


@pytest.fixture
async def client_for(aws: str) -> AsyncIterator[ClientFor]:
    """Clients of the embedded server, as a run on it has them."""
    backend = ServerBackend(aws, skip_idle=False, time_scale=1.0)
    async with AsyncExitStack() as stack:
        await backend.open(stack)
        yield backend.client


async def made_of(project: Project, client_for: ClientFor) -> Made:
    made = await make(project, client_for)
    assert made.problems == ()
    return made


async def bodies(made: Made, queue: str, client_for: ClientFor) -> list[str]:
    """The messages of a queue, deleted."""
    sqs = client_for("sqs")
    url = made.names[queue].url
    found = (await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)).get("Messages", [])
    for one in found:
        await sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
    return [one["Body"] for one in found]


async def test_queues_have_their_attributes(client_for: ClientFor, aws: str) -> None:
    made = await made_of(read(TEMPLATES / "queue.yaml", endpoint=aws), client_for)
    sqs = client_for("sqs")
    found = await sqs.get_queue_attributes(QueueUrl=made.names["Orders"].url, AttributeNames=["All"])
    attributes = found["Attributes"]

    assert attributes["QueueArn"] == made.names["Orders"].arn
    assert (attributes["VisibilityTimeout"], attributes["DelaySeconds"]) == ("60", "5")
    assert (attributes["MessageRetentionPeriod"], attributes["ReceiveMessageWaitTimeSeconds"]) == ("86400", "20")
    assert json.loads(attributes["RedrivePolicy"]) == {
        "deadLetterTargetArn": made.names["Failed"].arn,
        "maxReceiveCount": 4,
    }


async def test_the_urls_that_functions_are_told_lead_to_the_queues(client_for: ClientFor, aws: str) -> None:
    project = read(TEMPLATES / "queue.yaml", endpoint=aws)
    made = await made_of(project, client_for)
    told = project.functions["Checkout"].environment["QUEUE_URL"]
    sqs = client_for("sqs")

    assert told == made.names["Orders"].url
    assert (await sqs.get_queue_attributes(QueueUrl=told, AttributeNames=["QueueArn"]))["Attributes"]


async def test_a_fifo_queue_deduplicates_by_content(client_for: ClientFor) -> None:
    made = await made_of(read(TEMPLATES / "fifo.yaml"), client_for)
    sqs = client_for("sqs")
    for body in ("a", "a", "b"):
        await sqs.send_message(QueueUrl=made.names["Payments"].url, MessageBody=body, MessageGroupId="g")

    assert await bodies(made, "Payments", client_for) == ["a", "b"]


async def test_a_stream_has_its_shards_and_retention(client_for: ClientFor) -> None:
    made = await made_of(read(TEMPLATES / "stream.json"), client_for)
    kinesis = client_for("kinesis")
    found = (await kinesis.describe_stream_summary(StreamName="Clicks"))["StreamDescriptionSummary"]

    assert found["StreamARN"] == made.names["Clicks"].arn
    assert (found["OpenShardCount"], found["RetentionPeriodHours"], found["StreamStatus"]) == (2, 48, "ACTIVE")
    await client_for("s3").head_bucket(Bucket="lost")


async def test_a_table_has_its_stream_whose_arn_is_known_then(client_for: ClientFor) -> None:
    made = await made_of(read(TEMPLATES / "table.yaml"), client_for)
    dynamodb = client_for("dynamodb")
    table = (await dynamodb.describe_table(TableName="accounts"))["Table"]
    ttl = (await dynamodb.describe_time_to_live(TableName="accounts"))["TimeToLiveDescription"]

    assert table["LatestStreamArn"] == made.names["Accounts"].stream_arn
    assert not made.names["Accounts"].stream_arn.endswith("/local")
    assert [one["KeyType"] for one in table["KeySchema"]] == ["HASH", "RANGE"]
    assert [one["IndexName"] for one in table["GlobalSecondaryIndexes"]] == ["by-bank"]
    assert (ttl["TimeToLiveStatus"], ttl["AttributeName"]) == ("ENABLED", "expires")


async def test_what_is_published_reaches_the_queues_that_want_it(client_for: ClientFor) -> None:
    made = await made_of(read(TEMPLATES / "topic.yaml"), client_for)
    sns = client_for("sns")
    await sns.publish(TopicArn=made.names["News"].arn, Message='{"section": "sports"}')
    await sns.publish(TopicArn=made.names["News"].arn, Message='{"section": "arts"}')

    assert await bodies(made, "Sports", client_for) == ['{"section": "sports"}']
    assert [json.loads(body)["Type"] for body in await bodies(made, "All", client_for)] == ["Notification"] * 2
    assert await bodies(made, "ReadOwnQueue", client_for) == []


async def test_events_reach_the_queues_of_their_rules(client_for: ClientFor) -> None:
    made = await made_of(read(TEMPLATES / "bus.json"), client_for)
    await bodies(made, "Orders", client_for)  # S3 tests a new notification with a message of its own
    events = client_for("events")
    for total in (50, 150):
        entry = {"Source": "shop.web", "DetailType": "order", "EventBusName": "shop"}
        await events.put_events(Entries=[{**entry, "Detail": json.dumps({"total": total})}])

    (detail,) = await bodies(made, "Orders", client_for)
    (event,) = await bodies(made, "Lines", client_for)
    assert json.loads(event)["detail"] == {"total": 150}
    # The rule has an InputPath, so EventBridge would send the detail alone; moto sends the whole event to queues.
    assert json.loads(detail)["detail"] == {"total": 150}


async def test_objects_are_told_of(client_for: ClientFor) -> None:
    made = await made_of(read(TEMPLATES / "bus.json"), client_for)
    await bodies(made, "Orders", client_for)  # S3 tests a new notification with a message of its own
    s3 = client_for("s3")
    await s3.put_object(Bucket="uploads", Key="a.csv", Body=b"1")
    await s3.put_object(Bucket="uploads", Key="a.txt", Body=b"1")

    (told,) = await bodies(made, "Orders", client_for)
    assert json.loads(told)["Records"][0]["s3"]["object"]["key"] == "a.csv"


async def test_what_is_there_is_kept_and_gets_the_templates_settings(client_for: ClientFor) -> None:
    project = read(HERE / "plain" / "template.yaml")
    made = await made_of(project, client_for)
    sqs = client_for("sqs")
    url = made.names["OrdersQueue"].url
    await sqs.set_queue_attributes(QueueUrl=url, Attributes={"VisibilityTimeout": "7"})
    await sqs.send_message(QueueUrl=url, MessageBody="kept")
    await made_of(project, client_for)
    found = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["VisibilityTimeout"])

    assert found["Attributes"]["VisibilityTimeout"] == "30"
    assert await bodies(made, "OrdersQueue", client_for) == ["kept"]


async def test_stand_ins_are_made_too(client_for: ClientFor, tmp_path: Path, unique: str) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(f"""
Resources:
  Q:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: {unique}
      RedrivePolicy: {{deadLetterTargetArn: 'arn:aws:sqs:eu-west-1:1:{unique}-dead', maxReceiveCount: 3}}
""")
    made = await made_of(read(path), client_for)
    sqs = client_for("sqs")
    found = await sqs.get_queue_attributes(QueueUrl=made.names["Q"].url, AttributeNames=["RedrivePolicy"])

    assert json.loads(found["Attributes"]["RedrivePolicy"])["deadLetterTargetArn"].endswith(f":{unique}-dead")


async def test_what_the_endpoint_refuses_is_a_problem_and_the_rest_is_made(
    client_for: ClientFor, tmp_path: Path, unique: str
) -> None:
    path = tmp_path / "template.yaml"
    path.write_text(f"""
Resources:
  Bad: {{Type: AWS::SQS::Queue, Properties: {{QueueName: 'no spaces, please'}}}}
  Good: {{Type: AWS::SQS::Queue, Properties: {{QueueName: {unique}}}}}
""")
    made = await make(read(path), client_for)

    assert [one.line for one in made.problems] == [3]
    assert made.failed == {"Bad"}
    assert made.problems[0].message.startswith("the queue no spaces, please could not be made: ")
    assert made.names["Good"].url.endswith(unique)


@pytest.mark.usefixtures("aws")
async def test_a_broken_connection_is_raised(environment: ProcessEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    sqs = await client(environment, "sqs")

    with pytest.raises(Exception, match=r"127\.0\.0\.1:1"):
        await make(read(TEMPLATES / "queue.yaml"), lambda _: sqs)


class Context:
    """As much of Lambda's context as Powertools asks for."""

    function_name = "OrdersFunction"
    memory_limit_in_mb = 256
    invoked_function_arn = "arn:aws:lambda:us-east-1:123456789012:function:OrdersFunction"
    aws_request_id = "r-1"

    def get_remaining_time_in_millis(self) -> int:
        return 5_000


async def test_the_plain_projects_handler_fails_in_part_and_keeps_an_order_once(
    client_for: ClientFor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the handler of `plain/` does, without a mapping: a local run must bring the same about."""
    project = read(HERE / "plain" / "template.yaml")
    await made_of(project, client_for)
    function = project.functions["OrdersFunction"]
    for name, value in function.environment.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("plain_app", function.directory / "app.py")
    assert spec is not None
    assert spec.loader is not None
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    orders = [("m-1", "o-1", 2), ("m-2", "o-2", 0), ("m-3", "o-1", 2)]
    records = [
        {"messageId": message, "body": json.dumps({"order_id": order, "quantity": quantity}), "eventSource": "aws:sqs"}
        for message, order, quantity in orders
    ]

    answer = app.lambda_handler({"Records": records}, Context())
    dynamodb = client_for("dynamodb")
    kept = await dynamodb.get_item(TableName="ledger", Key={"order_id": {"S": "o-1"}})

    assert answer == {"batchItemFailures": [{"itemIdentifier": "m-2"}]}
    assert kept["Item"]["kept"] == {"N": "1"}
