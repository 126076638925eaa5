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


@pytest.mark.parametrize(
    "more",
    [
        '  Fn::ForEach::Alarms: [Name, [A], { "${Name}": { Type: AWS::CloudWatch::Alarm } }]\n',
        "  Fn::Transform: { Name: AWS::Include, Parameters: { Location: s3://bucket/alarms.yaml } }\n",
    ],
)
def test_a_macro_may_hold_the_alarms(more: str) -> None:
    some = alarm("ApproximateAgeOfOldestMessage", "QueueName", "other")

    assert "no-alarms" in rules(QUEUES)
    assert rules(QUEUES + some) >= WATCHED
    assert "no-alarms" not in rules(QUEUES + more)
    assert not WATCHED & rules(QUEUES + some + more)


def test_an_alarm_on_another_of_sams_mappings() -> None:
    counted = "MetricsConfig: { Metrics: [EventCount] }, FilterCriteria: { Filters: [{ Pattern: '{}' }] }"
    text = QUEUES.replace("Queue: !GetAtt Orders.Arn", f"Queue: !GetAtt Orders.Arn, {counted}")
    other = "  Other: { Type: AWS::Serverless::Function, Properties: { Events: { In: { Type: SQS, Properties: { Queue: a } } } } }\n"

    def watched(by: str) -> bool:
        dropped = alarm("FilteredOutEventCount", "EventSourceMappingUUID", by, "AWS/Lambda")
        return "filter-without-alarm" not in rules(text + other + dropped)

    assert watched("!Ref PriceOrders")
    assert watched("!Ref Foreign")
    assert not watched("!Ref OtherIn")


@pytest.mark.parametrize(
    ("queue", "letters", "differs"),
    [
        ("FifoQueue: true", "arn:aws:sqs:eu-west-1:111122223333:dlq", True),
        ("FifoQueue: true", "arn:aws:sqs:eu-west-1:111122223333:dlq.fifo", False),
        ("DelaySeconds: 0", "arn:aws:sqs:eu-west-1:111122223333:dlq.fifo", True),
        ("DelaySeconds: 0", '!Sub "arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:dlq.fifo"', True),
        ("FifoQueue: true", '!Sub "arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:${Foreign}"', False),
        ("FifoQueue: true", "!ImportValue dlq", False),
    ],
)
def test_the_kind_of_dead_letters_elsewhere(queue: str, letters: str, differs: bool) -> None:
    text = f"  Q: {{ Type: AWS::SQS::Queue, Properties: {{ {queue}, RedrivePolicy: {{ deadLetterTargetArn: {letters} }} }} }}\n"

    assert ("dead-letter-queue-kind" in rules(text)) is differs


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ('{"deadLetterTargetArn": "arn:aws:sqs:eu-west-1:111122223333:dlq", "maxReceiveCount": 1}', True),
        ('{"deadLetterTargetArn": "arn:aws:sqs:eu-west-1:111122223333:dlq", "maxReceiveCount": "9"}', False),
        ("no JSON", False),
        ("[1]", False),
    ],
)
def test_a_redrive_policy_as_text(written: str, found: bool) -> None:
    text = QUEUES.replace("{ deadLetterTargetArn: !GetAtt OrdersDlq.Arn, maxReceiveCount: 5 }", f"'{written}'")

    assert ("receive-count-too-low" in rules(text)) is found
    assert "no-dead-letter-queue" not in rules(text)


@pytest.mark.parametrize(("pollers", "is_too_much"), [("100", True), ("1", False), ("!Ref Foreign", False)])
def test_pollers_and_reserved_concurrency(pollers: str, is_too_much: bool) -> None:
    provisioned = f"Queue: !GetAtt Orders.Arn, ProvisionedPollerConfig: {{ MaximumPollers: {pollers} }}"
    text = QUEUES.replace("Queue: !GetAtt Orders.Arn", provisioned).replace(
        "FunctionName: price", "ReservedConcurrentExecutions: 10"
    )

    assert ("reserved-without-maximum" in rules(text)) is is_too_much
