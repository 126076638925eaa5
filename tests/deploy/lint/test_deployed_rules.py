"""Declared handlers beside templates that are not quite theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.deploy import lint
from pipeline.deploy.lint.code import Finder
from tests.deploy.lint.shops import orders, varied

GOOD = (Path(__file__).parent / "good" / "target.yaml").read_text()
STAGES = list(orders.shop.stages())


def details(text: str) -> dict[str, str]:
    findings = lint.lint(lint.read(text.encode()), code=Finder(Path(), STAGES).find, stages=STAGES)
    return {one.rule.id: one.detail for one in findings}


def changed(*pairs: tuple[str, str]) -> dict[str, str]:
    text = GOOD
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return details(text)


def test_the_good_one() -> None:
    assert details(GOOD) == {}


@pytest.mark.parametrize(
    "pair",
    [
        ("QueueName: !Sub ${AWS::StackName}-orders", "QueueName: orders"),
        ('"sqs:priced": "${Priced}"', '"sqs:priced": "${Priced.QueueName}"'),
        ('"sqs:priced": "${Priced}"', '"sqs:priced": "somewhere"'),
        ("Timeout: 30", 'Timeout: "30"'),
        ("BatchSize: 10", "Enabled: true"),  # 10 is AWS's default
        ("tests.deploy.lint.shops.orders.price", "tests/deploy/lint/shops/orders.price"),
        ("Role: !GetAtt PriceRole.Arn", "Role: !ImportValue role"),
    ],
)
def test_other_ways_of_saying_the_same(pair: tuple[str, str]) -> None:
    assert changed(pair) == {}


def test_a_variable_that_is_no_json() -> None:
    detail = changed(('{"sqs:orders"', '{sqs:orders"'))["resource-not-mapped"]

    assert detail == "PIPELINE_RESOURCES is no JSON object of names"


def test_variables_that_cannot_be_read_say_nothing() -> None:
    assert changed(('{"sqs:orders"', '${Foreign}{"sqs:orders"')) == {}


def test_a_queue_that_redrives_somewhere_else() -> None:
    found = changed(("deadLetterTargetArn: !GetAtt OrdersDlq.Arn", "deadLetterTargetArn: !GetAtt Priced.Arn"))

    assert found["setting-differs"] == "it redrives to Priced, and shop.price's dead letters are OrdersDlq"


def test_a_function_without_its_variable_finds_a_resource_by_its_real_name() -> None:
    text = GOOD.replace("PIPELINE_RESOURCES", "OTHER_RESOURCES")

    assert "resource-not-mapped" in details(text)
    named = text.replace("  Priced:\n    Type: AWS::SQS::Queue\n", "  Priced:\n    Type: AWS::SQS::Queue\n    Properties: { QueueName: priced }\n")  # fmt: skip
    assert "'sqs:priced'" in details(text)["resource-not-mapped"]
    assert "'s3:archive'" in details(named)["resource-not-mapped"]
    assert "'sqs:priced'" not in details(named)["resource-not-mapped"]


@pytest.mark.parametrize(
    ("pair", "detail"),
    [
        (("Timeout: 30\n", "Timeout: 20\n"), "`Timeout` is 20, and shop.price declares 30"),
        (("      MemorySize: 512\n", ""), "`MemorySize` is left out, which is 128, and shop.price declares 512"),
        (("BatchSize: 10", "BatchSize: 5"), "`BatchSize` is 5, and shop.price declares 10"),
        (
            ("BatchSize: 10", "ScalingConfig: { MaximumConcurrency: 5 }"),
            "`MaximumConcurrency` is 5, and shop.price declares none",
        ),
        (("maxReceiveCount: 20", "maxReceiveCount: 30"), "`maxReceiveCount` is 30, and shop.price declares 20"),
    ],
)
def test_what_differs(pair: tuple[str, str], detail: str) -> None:
    assert changed(pair)["setting-differs"] == detail


@pytest.mark.parametrize(
    ("pair", "detail"),
    [
        (("${Archive}", "${Entries}"), "'s3:archive' leads to Entries, which is an AWS::DynamoDB::Table"),
        (("${Priced}", "${Priced.Arn}"), "'sqs:priced' leads to Priced, by its ARN, where a URL is wanted"),
        (
            ("  Priced:\n    Type: AWS::SQS::Queue\n", "  Priced:\n    Type: AWS::SQS::Queue\n    Properties: { FifoQueue: true }\n"),
            "'sqs:priced' leads to Priced, which is a FIFO queue",
        ),
    ],
)  # fmt: skip
def test_names_that_mislead(pair: tuple[str, str], detail: str) -> None:
    assert changed(pair)["resource-of-wrong-type"] == detail


def test_a_mapping_of_another_kind() -> None:
    found = changed(("Type: SQS\n", "Type: Kinesis\n"), ("Queue: !GetAtt Orders.Arn", "Stream: !ImportValue stream"))

    assert found["source-differs"] == "shop.price reads 'orders', and this is a mapping of kinesis"


EVENT = GOOD[GOOD.index("      Events:\n") : GOOD.index("  PriceRole:")]


def test_a_source_that_nothing_reads() -> None:
    assert changed((EVENT, ""))["source-not-read"] == "no mapping calls it, and shop.price reads 'orders'"


@pytest.mark.parametrize(
    "instead",
    [
        EVENT.replace("          Type: SQS\n", "          Type: SQS\n").replace("BatchSize: 10", "Enabled: true"),
        "      Events: !ImportValue events\n",
        "      Events: { Fn::ForEach::Queues: [Name, [A], {}], Other: { Type: Api } }\n",
        "      Events: { Fn::Transform: { Name: AWS::Include } }\n",
        '  Fn::ForEach::Mappings: [Name, [A], { "${Name}": { Type: AWS::Lambda::EventSourceMapping } }]\n',
        "  Read: { Type: AWS::Lambda::EventSourceMapping, Properties: { FunctionName: !ImportValue f } }\n",
        "  Read: { Type: AWS::Lambda::EventSourceMapping, Properties: { FunctionName: !GetAtt Price.Arn } }\n",
        "  Read: { Type: AWS::Pipes::Pipe, Properties: { Target: !GetAtt Price.Arn } }\n",
    ],
)
def test_what_may_read_the_source(instead: str) -> None:
    assert "source-not-read" not in changed((EVENT, instead))


def test_a_handler_below_code_uri_is_deployed() -> None:
    assert "handler-not-deployed" not in changed(("tests.deploy.lint.shops.orders.price", "orders.price"))
    assert "handler-not-deployed" in changed(("tests.deploy.lint.shops.orders.price", "other.price"))
    assert "handler-not-deployed" not in changed(("tests.deploy.lint.shops.orders.price", "!ImportValue handler"))


def test_a_handler_under_another_name_is_deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varied, "exported", orders.price, raising=False)

    assert changed(("tests.deploy.lint.shops.orders.price", "tests.deploy.lint.shops.varied.exported")) == {}


def test_a_handler_in_an_image_is_deployed() -> None:
    handler = "Handler: tests.deploy.lint.shops.orders.price"
    image = "PackageType: Image"
    command = "ImageConfig: { Command: [tests.deploy.lint.shops.orders.price] }"

    assert changed((handler, f"{image}\n      {command}")) == {}
    assert "handler-not-deployed" not in changed((handler, image)), "only the image knows"
    assert "handler-not-deployed" in changed((handler, f"{image}\n      {command.replace('orders.', 'other.')}"))


def test_a_declared_event_that_a_rule_brings_back() -> None:
    stages = list(varied.varied.stages())
    text = """\
Resources:
  Bus: {{ Type: AWS::Events::EventBus, Properties: {{ Name: default }} }}
  Queue: {{ Type: AWS::SQS::Queue }}
  Back:
    Type: AWS::Events::Rule
    Properties:
      EventBusName: !Ref Bus
      EventPattern: {{ detail-type: [{detail_type}] }}
      Targets: [{{ Id: back, Arn: !GetAtt Queue.Arn }}]
  Sort:
    Type: AWS::Serverless::Function
    Properties:
      Handler: tests.deploy.lint.shops.varied.sort
      Events: {{ In: {{ Type: SQS, Properties: {{ Queue: !GetAtt Queue.Arn }} }} }}
"""

    def found(detail_type: str) -> set[str]:
        root = lint.read(text.format(detail_type=detail_type).encode())
        return {one.rule.id for one in lint.lint(root, code=Finder(Path(), stages).find, stages=stages)}

    assert "possible-loop" in found("order")
    assert "possible-loop" not in found("answer")
