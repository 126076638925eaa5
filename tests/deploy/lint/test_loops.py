"""Ways by which records come back to where they were, and what ends them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deploy import lint
from pipeline.deploy.lint.flow import Step, loops

HEAD = """\
Transform: AWS::Serverless-2016-10-31
Resources:
  Orders: { Type: AWS::SQS::Queue }
  Told: { Type: AWS::SNS::Topic }
  Bus: { Type: AWS::Events::EventBus, Properties: { Name: bus } }
  Ledger: { Type: AWS::DynamoDB::Table, Properties: { StreamSpecification: { StreamViewType: KEYS_ONLY } } }
  Files: { Type: AWS::S3::Bucket }
"""


def paths(text: str) -> list[str]:
    findings = lint.lint(lint.read((HEAD + text).encode()))
    return [one.detail for one in findings if one.rule.id == "possible-loop"]


def function(policies: str, event: str) -> str:
    return (
        f"  Work:\n    Type: AWS::Serverless::Function\n    Properties:\n      Policies: {policies}\n"
        f"      Events: {{ In: {{ {event} }} }}\n"
    )


def writing(action: str, resource: str) -> str:
    return f"[{{ Statement: {{ Effect: Allow, Action: '{action}', Resource: {resource} }} }}]"


QUEUE = "Type: SQS, Properties: { Queue: !GetAtt Orders.Arn }"
STREAM = "Type: DynamoDB, Properties: { Stream: !GetAtt Ledger.StreamArn, StartingPosition: LATEST }"
TO_QUEUE = writing("sqs:SendMessage", "!GetAtt Orders.Arn")
TO_BUS = writing("events:PutEvents", "!GetAtt Bus.Arn")
EVERYTHING = "Type: EventBridgeRule, Properties: { EventBusName: !Ref Bus, Pattern: { source: [{ prefix: '' }] } }"


@pytest.mark.parametrize(
    ("policies", "event"),
    [
        (TO_QUEUE, QUEUE),
        (writing("sqs:Send*", '!Sub "${Orders.Arn}"'), QUEUE),
        ("[SQSSendMessagePolicy: { QueueName: !GetAtt Orders.QueueName }]", QUEUE),
        (writing("dynamodb:UpdateItem", "!GetAtt Ledger.Arn"), STREAM),
        ("[DynamoDBWritePolicy: { TableName: !Ref Ledger }]", STREAM),
        (TO_BUS, EVERYTHING),
        (TO_BUS, EVERYTHING.replace("source: [{ prefix: '' }]", "account: [!Ref AWS::AccountId]")),
        (writing("sns:Publish", "!Ref Told"), "Type: SNS, Properties: { Topic: !Ref Told }"),
        (
            writing("s3:PutObject", '!Sub "${Files.Arn}/*"'),
            "Type: S3, Properties: { Bucket: !Ref Files, Events: 's3:ObjectCreated:*' }",
        ),
    ],
)
def test_a_function_that_writes_to_what_it_reads(policies: str, event: str) -> None:
    assert len(paths(function(policies, event))) == 1


@pytest.mark.parametrize(
    ("policies", "event"),
    [
        (writing("sqs:*", "!GetAtt Orders.Arn"), QUEUE),  # of the lazy: nothing says that it sends
        (writing("sqs:ReceiveMessage", "!GetAtt Orders.Arn"), QUEUE),
        (TO_QUEUE.replace("Allow", "Deny"), QUEUE),
        (TO_QUEUE, QUEUE.replace(" } }", " }, Enabled: false }").replace("Arn }", "Arn, Enabled: false }")),
        (TO_QUEUE, QUEUE.replace("Arn }", "Arn, FilterCriteria: { Filters: [{ Pattern: '{}' }] } }")),
        ("[DynamoDBCrudPolicy: { TableName: !Ref Ledger }]", STREAM),  # of those that read, too
        (writing("dynamodb:GetRecords", "!GetAtt Ledger.StreamArn"), STREAM),
        (writing("dynamodb:*Item", "!GetAtt Ledger.StreamArn"), STREAM),
        (TO_BUS, EVERYTHING.replace("source: [{ prefix: '' }]", "detail-type: [question]")),
        (writing("sns:Publish", "!Ref Told"), "Type: SNS, Properties: { Topic: !Ref Told, FilterPolicy: { a: [b] } }"),
        (
            writing("s3:PutObject", '!Sub "${Files.Arn}/*"'),
            "Type: S3, Properties: { Bucket: !Ref Files, Events: 's3:ObjectRemoved:*' }",
        ),
    ],
)
def test_what_is_no_loop(policies: str, event: str) -> None:
    assert paths(function(policies, event)) == []


def test_the_path_over_a_topic_and_a_queue() -> None:
    text = function(writing("sns:Publish", "!Ref Told"), QUEUE) + (
        "  Subscribed:\n    Type: AWS::SNS::Subscription\n"
        "    Properties: { TopicArn: !Ref Told, Protocol: sqs, Endpoint: !GetAtt Orders.Arn }\n"
    )

    (path,) = paths(text)
    assert path.removeprefix("records may go ").split(" -> ")[0] in {"Told", "Work", "Orders"}
    assert set(path.removeprefix("records may go ").split(" -> ")) == {"Told", "Work", "Orders"}
    assert paths(text.replace("Protocol: sqs", "Protocol: sqs, FilterPolicy: { kind: [a] }")) == []


def test_the_path_over_a_rule_a_bucket_and_a_pipe() -> None:
    rule = (
        "  Rule:\n    Type: AWS::Events::Rule\n    Properties:\n      EventBusName: !Ref Bus\n"
        "      EventPattern: { account: [!Ref AWS::AccountId] }\n"
        "      Targets: [{ Id: one, Arn: !GetAtt Orders.Arn }]\n"
    )
    pipe = (
        "  Pipe:\n    Type: AWS::Pipes::Pipe\n"
        "    Properties: { Source: !GetAtt Ledger.StreamArn, Target: !GetAtt Orders.Arn }\n"
    )

    assert len(paths(function(TO_BUS, QUEUE) + rule)) == 1
    assert len(paths(function(writing("dynamodb:PutItem", "!GetAtt Ledger.Arn"), QUEUE) + pipe)) == 1


STEPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=20)


@given(STEPS)
def test_a_loop_is_a_way_back_and_there_is_one_where_one_can_be(pairs: list[tuple[int, int]]) -> None:
    steps = [Step(str(start), str(end), line, "owner") for line, (start, end) in enumerate(pairs)]
    circles = loops(steps)

    for circle in circles:
        assert set(circle) <= set(steps)
        assert [one.end for one in circle] == [one.start for one in circle[1:]] + [circle[0].start]
    assert bool(circles) is any(_reaches(pairs, start, start) for start, _ in pairs)


def _reaches(pairs: list[tuple[int, int]], start: int, goal: int) -> bool:
    """By another way: all that can be reached, until nothing is added."""
    reached = {end for begin, end in pairs if begin == start}
    while True:
        more = {end for begin, end in pairs if begin in reached} - reached
        if not more:
            return goal in reached
        reached |= more
