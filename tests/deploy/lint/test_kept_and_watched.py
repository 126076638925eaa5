"""Which tables keep idempotency entries, what is kept when a stack goes, and which alarms watch what."""

from __future__ import annotations

import pytest

from pipeline.deploy import lint

TABLE = "{ Type: AWS::DynamoDB::Table, Properties: { KeySchema: [{ AttributeName: id, KeyType: HASH }] } }"
QUEUES = """\
  Orders:
    Type: AWS::SQS::Queue
    Properties:
      QueueName: orders
      RedrivePolicy: { deadLetterTargetArn: !GetAtt OrdersDlq.Arn, maxReceiveCount: 5 }
  OrdersDlq: { Type: AWS::SQS::Queue, Properties: { QueueName: !Sub "${AWS::StackName}-dlq" } }
  Clicks: { Type: AWS::Kinesis::Stream, Properties: { Name: clicks } }
  Price:
    Type: AWS::Serverless::Function
    Properties:
      FunctionName: price
      Events:
        Orders: { Type: SQS, Properties: { Queue: !GetAtt Orders.Arn } }
        Clicks: { Type: Kinesis, Properties: { Stream: !GetAtt Clicks.Arn, StartingPosition: LATEST } }
"""
WATCHED = {"dead-letters-without-alarm", "queue-without-age-alarm", "stream-without-age-alarm"}


def rules(resources: str) -> set[str]:
    text = f"Parameters: {{ Foreign: {{ Type: String }} }}\nResources:\n{resources}"
    return {one.rule.id for one in lint.lint(lint.read(text.encode()))}


def alarm(metric: str, dimension: str, value: str, namespace: str = "AWS/SQS") -> str:
    return (
        f"  A{abs(hash((metric, value)))}:\n    Type: AWS::CloudWatch::Alarm\n"
        f"    Properties: {{ Namespace: {namespace}, MetricName: {metric}, "
        f"Dimensions: [{{ Name: {dimension}, Value: {value} }}] }}\n"
    )


@pytest.mark.parametrize(
    ("resources", "is_kept_there"),
    [
        (f"  Idempotency: {TABLE}\n", True),
        (f"  Seen: {TABLE.replace('Properties: {', 'Properties: { TableName: shop-idempotency,')}\n", True),
        (f"  Seen: {TABLE}\n", False),
        ("  IdempotencyTable: { Type: AWS::Serverless::SimpleTable }\n", True),
        ("  IdempotencyQueue: { Type: AWS::SQS::Queue }\n", False),
        (
            (
                f"  Seen: {TABLE}\n  Work:\n    Type: AWS::Lambda::Function\n"
                "    Properties: { Environment: { Variables: { POWERTOOLS_IDEMPOTENCY_TABLE: !Ref Seen } } }\n"
            ),
            True,
        ),
        (
            (
                f"  Seen: {TABLE}\n  Work:\n    Type: AWS::Lambda::Function\n"
                "    Properties: { Environment: { Variables: { TABLE_NAME: !Ref Seen } } }\n"
            ),
            False,
        ),
    ],
)
def test_tables_of_idempotency_entries(resources: str, is_kept_there: bool) -> None:
    assert ("entries-never-expire" in rules(resources)) is is_kept_there


@pytest.mark.parametrize(
    ("ttl", "is_missing"),
    [
        ("{ AttributeName: expiration, Enabled: true }", False),
        ("{ AttributeName: expiration, Enabled: false }", True),
        ("{ AttributeName: expiration }", True),
        ("!ImportValue ttl", False),
    ],
)
def test_time_to_live(ttl: str, is_missing: bool) -> None:
    table = TABLE.replace("Properties: {", f"Properties: {{ TimeToLiveSpecification: {ttl},")

    assert ("entries-never-expire" in rules(f"  Idempotency: {table}\n")) is is_missing


@pytest.mark.parametrize(
    ("resources", "count"),
    [
        ("  A: { Type: AWS::SQS::Queue }\n  B: { Type: AWS::Kinesis::Stream }\n", 1),
        ("  A: { Type: AWS::SQS::Queue, DeletionPolicy: Retain }\n  B: { Type: AWS::Kinesis::Stream }\n", 1),
        (
            (
                "  A: { Type: AWS::SQS::Queue, DeletionPolicy: Retain }\n  B: { Type: AWS::Kinesis::Stream }\n"
                "  C: { Type: AWS::SQS::Queue }\n"
            ),
            2,
        ),
        ("  A: { Type: AWS::SQS::Queue, DeletionPolicy: Delete }\n", 0),
        ("  A: { Type: AWS::DynamoDB::Table, Properties: { DeletionProtectionEnabled: true } }\n", 0),
        ("  A: { Type: AWS::S3::Bucket }\n", 0),
    ],
)
def test_what_becomes_of_the_data(resources: str, count: int) -> None:
    found = lint.lint(lint.read(f"Resources:\n{resources}".encode()))

    assert len([one for one in found if one.rule.id == "data-not-retained"]) == count


def test_a_template_without_alarms_has_one_note() -> None:
    assert rules(QUEUES) & (WATCHED | {"no-alarms"}) == {"no-alarms"}
    assert (
        rules(QUEUES + alarm("Errors", "FunctionName", "!Ref Price", "AWS/Lambda"))
        & {
            *WATCHED,
            "no-alarms",
        }
        == WATCHED
    )


@pytest.mark.parametrize(
    ("watching", "still"),
    [
        (alarm("ApproximateNumberOfMessagesVisible", "QueueName", "!GetAtt OrdersDlq.QueueName"), "queue stream"),
        (alarm("ApproximateNumberOfMessagesVisible", "QueueName", '!Sub "${AWS::StackName}-dlq"'), "queue stream"),
        (alarm("NumberOfMessagesSent", "QueueName", "!GetAtt OrdersDlq.QueueName"), "letters queue stream"),
        (alarm("ApproximateAgeOfOldestMessage", "QueueName", "!GetAtt Orders.QueueName"), "letters stream"),
        (alarm("ApproximateAgeOfOldestMessage", "QueueName", "orders"), "letters stream"),
        (alarm("ApproximateAgeOfOldestMessage", "QueueName", "others"), "letters queue stream"),
        (alarm("IteratorAge", "FunctionName", "!Ref Price", "AWS/Lambda"), "letters queue"),
        (alarm("IteratorAge", "FunctionName", "price", "AWS/Lambda"), "letters queue"),
        (alarm("IteratorAge", "FunctionName", "!ImportValue name", "AWS/Lambda"), "letters queue"),
        (alarm("GetRecords.IteratorAgeMilliseconds", "StreamName", "!Ref Clicks", "AWS/Kinesis"), "letters queue"),
        (alarm("Duration", "FunctionName", "!Ref Price", "AWS/Lambda"), "letters queue stream"),
    ],
)
def test_what_an_alarm_watches(watching: str, still: str) -> None:
    names = {
        "letters": "dead-letters-without-alarm",
        "queue": "queue-without-age-alarm",
        "stream": "stream-without-age-alarm",
    }
    assert rules(QUEUES + watching) & WATCHED == {names[one] for one in still.split()}
