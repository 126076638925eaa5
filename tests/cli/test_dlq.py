"""`pipeline dlq peek`, from outside: against the embedded server, and against one that knows no routes of ours."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result

from pipeline.cli import kept
from pipeline.cli.commands import cli
from pipeline.emulator import embedded
from pipeline.emulator.isolation import variables
from tests.cli.stand_in import refused, stack_of, standing

SHOP = """
from pipeline import Pipeline, sinks, sources

shop = Pipeline("shop", idempotency=None)


@shop.handler(sources.SQS("orders"))
def price(order: dict) -> None: ...


@shop.handler(sources.SQS("tasks"), rejects=sinks.SQS("wrong-tasks"))
def work(task: dict) -> None: ...


@shop.handler(sources.Kinesis("readings"), rejects=sinks.DynamoDB("wrong-readings", partition_key="id"))
def measure(reading: dict) -> None: ...


@shop.handler(sources.Kinesis("readings"))
def count(reading: dict) -> None: ...
"""
TEMPLATE = Path(__file__).parents[2] / "template.yaml"
SAID = {"handler": "shop.price", "cause": "Reject: no\x1b[2J", "attempts": 2, "exhausted": False, "record_id": "r1"}


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in [name for name in os.environ if name.startswith(("AWS_", "PIPELINE_"))]:
        monkeypatch.delenv(name)
    (tmp_path / "letterbox.py").write_text(SHOP)
    yield tmp_path
    sys.modules.pop("letterbox", None)


@pytest.fixture
def server() -> Iterator[str]:
    leased = embedded.lease()
    yield leased.endpoint_url
    embedded.give_back(leased)


@pytest.fixture
def sqs(server: str) -> Iterator[Any]:
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    made = boto3.client("sqs", endpoint_url=server, region_name=variables(server)["AWS_REGION"], **keys)
    for name in ("orders", "tasks", "orders-dlq", "tasks-dlq", "wrong-tasks", "readings-stream-dlq"):
        made.create_queue(QueueName=name)
    yield made
    made.close()


def url_of(sqs: Any, name: str) -> str:
    url: str = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    return url


def put(sqs: Any, queue: str, body: str = '{"n": 1}', **attributes: str) -> str:
    named = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
    sent = sqs.send_message(QueueUrl=url_of(sqs, queue), MessageBody=body, MessageAttributes=named)
    return str(sent["MessageId"])


def received(sqs: Any, queue: str) -> list[int]:
    answer = sqs.receive_message(QueueUrl=url_of(sqs, queue), MaxNumberOfMessages=10, AttributeNames=["All"])
    return [int(one["Attributes"]["ApproximateReceiveCount"]) for one in answer.get("Messages", ())]


def peek(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["dlq", "peek", *arguments])


def test_letters_of_all_handlers_are_shown_and_the_queues_stay_as_they_are(server: str, sqs: Any) -> None:
    put(sqs, "orders-dlq", pipeline_cause=json.dumps(SAID))
    strange = put(sqs, "wrong-tasks")
    found = peek("letterbox", "--endpoint-url", server)
    assert found.exit_code == 0, found.output
    assert "orders-dlq: 1 dead letter (shop.price)" in found.stdout
    assert "rejected  shop.price: Reject: no\\u001b[2J" in found.stdout
    assert "look      pipeline trace r1\n" in found.stdout, "its lines are in a file"
    assert "wrong-tasks: 1 dead letter (shop.work)" in found.stdout
    assert "no cause of ours" in found.stdout
    assert f"pipeline trace {strange}\n" in found.stdout
    assert "tasks-dlq: no dead letters (shop.work)" in found.stdout
    assert "readings-stream-dlq: no dead letters (shop.measure, shop.count)" in found.stdout
    assert "shop.measure: rejected records go to 'wrong-readings', which is no queue" in found.stderr
    assert "\x1b" not in found.output
    assert '{"n": 1}' not in found.output, "bodies only when asked for"
    assert received(sqs, "orders-dlq") == [1], "nobody had received it"


def test_one_source_can_be_chosen_and_bodies_are_shown_when_asked_for(server: str, sqs: Any) -> None:
    put(sqs, "readings-stream-dlq", "eyJuIjogMX0=", pipeline_cause=json.dumps(SAID), encoding="base64", part="2/3")
    put(sqs, "orders-dlq", "x" * 3_000, token="s3cret")
    found = peek("letterbox", "--source", "readings", "--bodies", "--endpoint-url", server)
    assert 'body      {"n": 1}' in found.stdout
    assert "part 2/3" in found.stdout
    assert "orders-dlq" not in found.stdout
    cut = peek("letterbox", "--source", "price", "--bodies", "--endpoint-url", server)
    assert f"{'x' * 1_024}… (1976 characters more)" in cut.stdout
    (whole,) = json.loads(peek("--queue", "orders-dlq", "--bodies", "--json", "--endpoint-url", server).stdout)[
        "letters"
    ]
    assert whole["body"] == "x" * 3_000
    assert whole["attribute_values"] == {"token": "s3cret"}
    (without,) = json.loads(peek("--queue", "orders-dlq", "--json", "--endpoint-url", server).stdout)["letters"]
    assert "body" not in without
    assert without["attributes"] == ["token"]
    assert "s3cret" not in json.dumps(without)


def test_no_more_than_the_limit_is_shown(server: str, sqs: Any) -> None:
    for _ in range(3):
        put(sqs, "orders-dlq")
    found = peek("--queue", url_of(sqs, "orders-dlq"), "--limit", "2", "--endpoint-url", server)
    assert "orders-dlq: 3 dead letters, 2 of them seen" in found.stdout
    assert found.stdout.count("look") == 2


def test_the_run_in_this_directory_is_looked_into_by_default(server: str, sqs: Any) -> None:
    put(sqs, "orders-dlq", pipeline_cause=json.dumps(SAID))
    kept.announce(kept.Announced(server, "letterbox"))
    found = peek("--source", "orders")
    assert "orders-dlq: 1 dead letter (shop.price)" in found.stdout
    assert found.stdout.endswith("look      pipeline trace r1\n")


def test_of_a_template_the_redrive_policy_tells_where_letters_are(server: str, sqs: Any) -> None:
    arn = sqs.get_queue_attributes(QueueUrl=url_of(sqs, "orders-dlq"), AttributeNames=["QueueArn"])["Attributes"][
        "QueueArn"
    ]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 3})
    sqs.set_queue_attributes(QueueUrl=url_of(sqs, "orders"), Attributes={"RedrivePolicy": policy})
    put(sqs, "orders-dlq")
    kept.announce(kept.Announced(server, has_pipelines=False))
    assert "orders-dlq: 1 dead letter (orders)" in peek("--source", "orders").stdout
    assert "has no redrive policy" in peek("--source", "tasks").stderr
    assert "name a --source or a --queue" in peek().stderr


# -- A server without our routes, as AWS is one


def answering(server: str, **answers: Any) -> Any:
    return standing(answers, behind=server)


def test_elsewhere_letters_are_received_and_given_back_and_that_is_said(server: str, sqs: Any) -> None:
    for _ in range(3):
        put(sqs, "orders-dlq", pipeline_cause=json.dumps(SAID))
    with answering(server) as other:
        found = peek("--queue", "orders-dlq", "--limit", "2", "--endpoint-url", other.endpoint_url)
    assert "orders-dlq: about 3 dead letters, 2 of them seen" in found.stdout
    assert "each message's receive count has grown by one" in found.stderr
    assert sorted(received(sqs, "orders-dlq")) == [1, 2, 2]


def test_a_stacks_queue_is_known_by_its_name_too(server: str, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="shop-orders-dlq")["QueueUrl"]
    other = sqs.create_queue(QueueName="more-orders-dlq")["QueueUrl"]
    put(sqs, "shop-orders-dlq")
    resources = {"Other": ("AWS::SQS::Queue", other), "Renamed": ("AWS::SQS::Queue", url)}
    with answering(server, ListStackResources=stack_of(resources)) as stand_in:
        found = peek("letterbox", "--source", "orders", "--stack", "shop", "--endpoint-url", stand_in.endpoint_url)
    assert "shop-orders-dlq: 1 dead letter" in found.stdout


def deployed(sqs: Any) -> dict[str, tuple[str, str]]:
    """A stack whose queues have its name before theirs."""
    found = {"ShopPriceFunction": ("AWS::Lambda::Function", "shop-price")}
    for logical, name in (("OrdersDlqQueue", "shop-orders-dlq"), ("TasksDlqQueue", "shop-tasks-dlq")):
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        found[logical] = ("AWS::SQS::Queue", url)
    return found


def test_a_stacks_queues_are_found_by_their_logical_names(server: str, sqs: Any) -> None:
    resources = deployed(sqs)
    put(sqs, "shop-orders-dlq", pipeline_cause=json.dumps(SAID))
    with answering(server, ListStackResources=stack_of(resources)) as other:
        found = peek("letterbox", "--source", "orders", "--stack", "shop", "--endpoint-url", other.endpoint_url)
        assert len(other.calls("ListStackResources")) == 3
        missing = peek("letterbox", "--stack", "nosuch", "--endpoint-url", other.endpoint_url)
    assert "shop-orders-dlq: 1 dead letter (shop.price)" in found.stdout
    assert f"pipeline trace r1 --stack shop --endpoint-url {other.endpoint_url}" in found.stdout
    assert missing.exit_code == 1
    assert "the stack 'nosuch': ValidationError: Stack with id nosuch does not exist" in missing.stderr
    assert "PIPELINE_RESOURCES" not in os.environ


def test_a_queue_that_the_stack_lacks_is_not_looked_for_elsewhere(server: str, sqs: Any) -> None:
    put(sqs, "wrong-tasks", pipeline_cause=json.dumps(SAID))  # a stranger's, of the same name
    with answering(server, ListStackResources=stack_of(deployed(sqs))) as other:
        found = peek("letterbox", "--source", "tasks", "--stack", "shop", "--endpoint-url", other.endpoint_url)
    assert found.exit_code == 1
    assert "shop-tasks-dlq: no dead letters" in found.stdout
    assert "r1" not in found.stdout
    assert "the stack 'shop' has no queue 'wrong-tasks'" in found.stderr


def test_an_arn_of_the_run_here_is_looked_into_there(server: str, sqs: Any) -> None:
    put(sqs, "orders-dlq", pipeline_cause=json.dumps(SAID))
    arn = f"arn:aws:sqs:{variables(server)['AWS_REGION']}:{url_of(sqs, 'orders-dlq').split('/')[-2]}:orders-dlq"
    kept.announce(kept.Announced(server, "letterbox"))
    found = peek("--queue", arn)
    assert "orders-dlq: 1 dead letter" in found.stdout, found.stderr
    assert found.stdout.endswith("look      pipeline trace r1\n")


def test_what_is_denied_names_the_actions_that_are_needed(server: str, sqs: Any) -> None:
    with answering(server, ReceiveMessage=refused("AccessDenied"), ListStackResources=refused("AccessDenied")) as other:
        found = peek("--queue", "orders-dlq", "--endpoint-url", other.endpoint_url)
    assert found.exit_code == 1
    assert "It needs sqs:GetQueueUrl, sqs:GetQueueAttributes, sqs:ReceiveMessage" in found.stderr
    assert "Traceback" not in found.stderr


def run_as_printed(text: str) -> Result:
    """The command behind `pipeline`, as a reader pastes it."""
    return CliRunner().invoke(cli, shlex.split(text.partition("pipeline ")[2]))


@pytest.mark.parametrize("where", [[], ["--region", "REGION"], ["--stack", "shop"]])
def test_the_command_that_is_named_next_is_taken(server: str, sqs: Any, where: list[str]) -> None:
    put(sqs, "orders-dlq", pipeline_cause=json.dumps(SAID))
    where = [variables(server)["AWS_REGION"] if part == "REGION" else part for part in where]
    with answering(server, ListStackResources=stack_of(deployed(sqs))) as other:
        found = peek("--queue", "orders-dlq", *where, "--endpoint-url", other.endpoint_url)
        assert other.calls("ListStackResources") == [], "the queue is named: the stack is for the next command"
        (look,) = [text for text in found.stdout.splitlines() if "look" in text]
        taken = run_as_printed(look)
    assert f"--stack {'shop' if '--stack' in where else 'NAME'}" in look
    assert taken.exit_code != 2, taken.stderr


def test_a_local_runs_letters_lead_to_its_lines(server: str, sqs: Any) -> None:
    put(sqs, "orders-dlq", pipeline_cause=json.dumps(SAID))
    kept.DIRECTORY.mkdir()
    kept.LOG.write_text("")
    (look,) = [
        text for text in peek("--queue", "orders-dlq", "--endpoint-url", server).stdout.splitlines() if "look" in text
    ]
    assert "no line of a record in .pipeline/log.jsonl has the id 'r1'" in run_as_printed(look).stderr


@pytest.mark.parametrize("name", ["trace", "dlq peek"])
def test_what_an_alarm_names_next_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    values = {"AWS::StackName": "shop", "AWS::Region": "eu-west-1"}
    named = re.findall(rf"Next: (pipeline {name} [^'\"]*)['\"]", " ".join(TEMPLATE.read_text().split()))
    assert named
    for text in {
        re.sub(r"\$\{([^}]*)\}", lambda one: values.get(one[1], "arn:aws:sqs:eu-west-1:1:q"), one) for one in named
    }:
        assert "--stack shop --region eu-west-1" in text
        assert run_as_printed(text).exit_code != 2, text


def test_a_queue_that_is_not_there_does_not_hide_the_others(server: str, sqs: Any) -> None:
    sqs.delete_queue(QueueUrl=url_of(sqs, "tasks-dlq"))
    put(sqs, "orders-dlq")
    found = peek("letterbox", "--endpoint-url", server)
    assert found.exit_code == 1
    assert "orders-dlq: 1 dead letter" in found.stdout
    assert "tasks-dlq" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["letterbox", "--queue", "orders-dlq"], "--queue names the queue itself"),
        (["letterbox"], "no `pipeline dev` runs in this directory"),
        (
            ["letterbox", "--source", "nosuch", "--endpoint-url", "http://127.0.0.1:1"],
            "there is no source 'nosuch': orders",
        ),
        (["--endpoint-url", "http://127.0.0.1:1"], "there is no TARGET"),
        (["letterbox", "--endpoint-url", "127.0.0.1"], "is no URL"),
        (["letterbox", "--limit", "0"], "--limit"),
    ],
)
def test_misuse_is_exit_code_2(arguments: list[str], message: str) -> None:
    found = peek(*arguments)
    assert found.exit_code == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr


def test_a_server_that_is_gone_is_said_so() -> None:
    found = peek("--queue", "http://127.0.0.1:1/1/orders-dlq", "--endpoint-url", "http://127.0.0.1:1")
    assert found.exit_code == 1
    assert "nothing answers at http://127.0.0.1:1" in found.stderr


def test_no_credentials_and_no_region_are_plain_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    found = peek("--queue", "orders-dlq", "--region", "eu-west-1")
    assert found.exit_code == 1
    assert "there are no AWS credentials that work here" in found.stderr
    hosts = ("sqs.eu-west-1.amazonaws.com", "eu-west-1.queue.amazonaws.com", "sqs-fips.eu-west-1.amazonaws.com")
    for queue in ("arn:aws:sqs:eu-west-1:1:orders-dlq", *(f"https://{host}/1/orders-dlq" for host in hosts)):
        assert "there are no AWS credentials" in peek("--queue", queue).stderr, "its region is in its name"
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    assert "no region is given" in peek("--queue", "orders-dlq", "--stack", "shop").stderr
    found = peek("--queue", "orders-dlq", "--profile", "nosuch")
    assert "profile (nosuch) could not be found" in found.stderr
