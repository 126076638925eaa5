"""The value next to the one that is found: each rule's template, mended as little as possible."""

from __future__ import annotations

import datetime

import pytest

from pipeline.deploy import lint
from pipeline.deploy.lint import suppression
from pipeline.deploy.lint.rules import mappings, queues, runtimes, streams
from tests.deploy.lint.test_rules import TEMPLATES, TODAY

#: By rule: what is written in the place of what, so that nothing is found any more.
MENDED: list[tuple[str, str, str]] = [
    ("visibility-too-short", "180 # here", "181"),
    ("dead-letter-retention", "345600 # here", "345601"),
    ("receive-count-too-low", "4 # here", "5"),
    ("fifo-batch-too-large", "11 # here", "10"),
    ("batch-without-window", "11 # here", "10"),
    ("batch-without-window", "11 # here", "11\n            MaximumBatchingWindowInSeconds: 1"),
    ("window-on-fifo", "5 # here", "0"),
    ("reserved-below-concurrency", "9 # here", "10"),
    ("reserved-without-maximum", "BatchSize: 10", "BatchSize: 10\n            ScalingConfig: { MaximumConcurrency: 10 }"),
    ("reserved-without-maximum", "BatchSize: 10", "BatchSize: 10\n            ProvisionedPollerConfig: { MaximumPollers: 1 }"),
    ("concurrency-with-pollers", "            ScalingConfig: { MaximumConcurrency: 10 }\n", ""),
    ("partial-failures-off", "BatchSize: 10", "BatchSize: 1"),
    ("no-dead-letter-queue", "            Queue: !GetAtt Orders.Arn\n", "            Queue: !ImportValue Orders\n"),
    ("bisect-off", "false # here", "false\n      BatchSize: 1"),
    ("bisect-off", "      BisectBatchOnFunctionError: false # here\n", "      BatchSize: 1\n"),
    ("record-age-above-retention", "172800 # here", "172799"),
    ("record-age-above-retention", "RetentionPeriodHours: 48", "RetentionPeriodHours: 49"),
    ("parallel-aggregates", "2 # here", "1"),
    ("parallel-aggregates", "Aggregated: true", "Aggregated: false"),
    ("tumbling-window-partial", "60 # here", "0"),
    ("tumbling-window-unsupported", "60 # here", "0"),
    ("mapping-disabled", "false # here", "true"),
    ("runtime-deprecated", "python3.10 # here", "python3.11"),
    ("runtime-blocked", "python3.7 # here", "python3.14"),
    ("queue-not-encrypted", "false # here", "false\n      KmsMasterKeyId: alias/aws/sqs"),
    ("ignore-unused", "VisibilityTimeout: 181", "VisibilityTimeout: 180"),
]  # fmt: skip


#: Other topics' rules may find something in these templates too.
TOPICS = (mappings, queues, runtimes, streams)
RULES = {rule.id for topic in TOPICS for rule, _ in topic.CHECKS} | {rule.id for rule in suppression.RULES}


def findings(text: str, today: datetime.date = TODAY) -> list[lint.Finding]:
    return [one for one in lint.lint(lint.read(text.encode()), today=today) if one.rule.id in RULES]


def found(text: str, today: datetime.date = TODAY) -> list[str]:
    return [one.rule.id for one in findings(text, today)]


@pytest.mark.parametrize(("rule", "old", "new"), MENDED, ids=[f"{rule}-{new.strip()}" for rule, _, new in MENDED])
def test_the_next_value_is_right(rule: str, old: str, new: str) -> None:
    text = (TEMPLATES / f"{rule}.yaml").read_text()
    assert old in text

    assert found(text.replace(old, new)) == []


def test_the_dates_themselves_count() -> None:
    text = (TEMPLATES / "runtime-deprecated.yaml").read_text()

    def on(month: int, day: int, year: int = 2026) -> list[str]:
        return found(text, datetime.date(year, month, day))

    assert (on(10, 30), on(10, 31)) == ([], ["runtime-deprecated"])
    assert (on(1, 31, 2027), on(2, 1, 2027)) == (["runtime-deprecated"], ["runtime-blocked"])
    assert found(text.replace("python3.10", "python9.9")) == []
    assert found(text.replace("python3.10", "dotnet9"), datetime.date(2030, 1, 1)) == ["runtime-deprecated"]


QUEUES = """
Resources:
  Orders: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: %s, RedrivePolicy: {maxReceiveCount: %s}%s}}
  Price: {Type: AWS::Lambda::Function, Properties: {Timeout: 30}}
  Read:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: !Ref Price
      EventSourceArn: !GetAtt Orders.Arn
      FunctionResponseTypes: [ReportBatchItemFailures]
"""


@pytest.mark.parametrize(
    ("visibility", "receives", "fifo", "rules"),
    [
        (29, 5, False, ["visibility-below-timeout"]),
        (30, 5, False, ["visibility-too-short"]),
        (179, 5, False, ["visibility-too-short"]),
        (180, 5, False, []),
        (180, 4, False, ["receive-count-too-low"]),
        (180, 19, True, ["receive-count-too-low"]),
        (180, 20, True, []),
    ],
)
def test_limits_of_a_queue(visibility: int, receives: int, fifo: bool, rules: list[str]) -> None:
    assert found(QUEUES % (visibility, receives, ", FifoQueue: true" if fifo else "")) == rules


def test_a_fix_says_what_to_write() -> None:
    (one,) = findings(QUEUES % (30, 5, ""))
    assert one.fix == "VisibilityTimeout: 180 (6 x 30), or a shorter Timeout"

    (one,) = findings((TEMPLATES / "visibility-too-short.yaml").read_text())
    assert one.fix == "VisibilityTimeout: 181 (6 x 30 + 1), or a shorter Timeout"


STREAM = """
Resources:
  Items: {Type: AWS::DynamoDB::Table}
  Index: {Type: AWS::Lambda::Function, Properties: {Timeout: 30}}
  Read:
    Type: AWS::Lambda::EventSourceMapping
    Properties:
      FunctionName: !Ref Index
      EventSourceArn: !GetAtt Items.StreamArn
      StartingPosition: LATEST
      BisectBatchOnFunctionError: true
      FunctionResponseTypes: [ReportBatchItemFailures]
      DestinationConfig: {OnFailure: {Destination: !ImportValue somewhere}}
      MaximumRetryAttempts: %s
      MaximumRecordAgeInSeconds: %s
"""


@pytest.mark.parametrize(
    ("retries", "age", "rules"),
    [
        (-1, -1, ["retries-without-limit"]),
        (0, -1, []),
        (-1, 60, []),
        ("!ImportValue x", -1, []),
        (-1, 86_399, []),
        (-1, 86_400, ["record-age-above-retention"]),
    ],
)
def test_limits_of_a_stream(retries: int | str, age: int, rules: list[str]) -> None:
    assert found(STREAM % (retries, age)) == rules


def test_an_alarm_of_another_mapping_is_none_of_this_one() -> None:
    text = (TEMPLATES / "filter-without-alarm.yaml").read_text()
    alarm = "  Alarm: {Type: AWS::CloudWatch::Alarm, Properties: {%s Dimensions: [{Name: EventSourceMappingUUID, Value: %s}]}}\n"
    other = """
  Other:
    Type: AWS::Lambda::EventSourceMapping
    Properties: {FunctionName: !Ref Price, EventSourceArn: !ImportValue x}
"""
    simple = "Namespace: AWS/Lambda, MetricName: FilteredOutEventCount,"
    several = "Metrics: [{MetricStat: {Metric: {Namespace: AWS/Lambda, MetricName: DroppedEventCount}}}],"

    for metric in (simple, several):
        assert found(text + other + alarm % (metric, "!Ref PriceOrders")) == []
        assert found(text + other + alarm % (metric, "!ImportValue uuid")) == []
    assert found(text + other + alarm % (simple, "!Ref Other")) == ["filter-without-alarm"]
    assert found(text + other + alarm % (simple.replace("FilteredOut", "Invoked"), "!Ref PriceOrders")) != []
    assert found(text.replace("            MetricsConfig: { Metrics: [EventCount] }\n", "")) == ["filter-without-alarm"]


def test_an_ignored_finding_is_gone_and_an_ill_ignored_one_stays() -> None:
    text = (TEMPLATES / "queue-not-encrypted.yaml").read_text()

    def ignoring(entry: str) -> list[str]:
        where = "    Type: AWS::SQS::Queue\n    Properties:\n      VisibilityTimeout"
        assert where in text
        return found(text.replace(where, f"    Metadata: {{Pipeline: {{Ignore: {entry}}}}}\n{where}"))

    assert ignoring("[{Rule: queue-not-encrypted, Reason: Nothing in it is secret.}]") == []
    assert ignoring("{Rule: queue-not-encrypted, Reason: Nothing in it is secret.}") == []
    assert ignoring("[{Rule: queue-not-encrypted}]") == ["ignore-without-reason", "queue-not-encrypted"]
    assert ignoring("[{Rule: queue-not-encrypted, Reason: ' '}]") == ["ignore-without-reason", "queue-not-encrypted"]
    assert ignoring("[{Rule: no-such-rule, Reason: text}]") == ["ignore-unused", "queue-not-encrypted"]
    assert ignoring("[text]") == ["ignore-without-reason", "queue-not-encrypted"]


def test_a_disabled_mapping_reads_no_queue() -> None:
    text = (TEMPLATES / "queue-read-twice.yaml").read_text()
    head, _, tail = text.rpartition("            Queue: !GetAtt Orders.Arn\n")

    assert found(f"{head}            Queue: !GetAtt Orders.Arn\n            Enabled: false\n{tail}") == [
        "mapping-disabled"
    ]
    assert found(f"{head}{tail}") == []
    assert found(text.replace("!GetAtt Orders.Arn", "!Ref OrdersArn")) == ["queue-read-twice"]


def test_a_fifo_queue_s_dead_letters_begin_anew() -> None:
    text = (TEMPLATES / "dead-letter-queue-kind.yaml").read_text()
    letters = "  MovesDeadLetters:\n    Type: AWS::SQS::Queue\n    Properties:\n"
    assert letters in text

    assert found(text.replace(letters, f"{letters}      FifoQueue: true\n").replace("1209600", "345600")) == []
