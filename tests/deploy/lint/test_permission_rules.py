"""What a role allows, in the many ways that templates say it; and which actions there are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deploy import lint
from pipeline.deploy.lint import actions
from pipeline.deploy.lint.code import examine

HEAD = """\
Parameters: { Foreign: { Type: String } }
Resources:
  Orders: { Type: AWS::SQS::Queue, Properties: { QueueName: orders } }
  Others: { Type: AWS::SQS::Queue, Properties: { QueueName: others } }
  Unnamed: { Type: AWS::SQS::Queue }
  Ledger: { Type: AWS::DynamoDB::Table, Properties: { StreamSpecification: { StreamViewType: KEYS_ONLY } } }
  GivenUp: { Type: AWS::S3::Bucket }
  Failed: { Type: AWS::SNS::Topic }
  Clicks: { Type: AWS::Kinesis::Stream }
  Reader: { Type: AWS::Kinesis::StreamConsumer, Properties: { StreamARN: !GetAtt Clicks.Arn, ConsumerName: one } }
  Price: { Type: AWS::Lambda::Function, Properties: { Role: !GetAtt Role.Arn } }
"""
READING = "[sqs:ReceiveMessage, sqs:DeleteMessage, sqs:GetQueueAttributes]"
READING_STREAM = "[dynamodb:DescribeStream, dynamodb:GetRecords, dynamodb:GetShardIterator]"


def found(text: str) -> dict[str, str]:
    """The details of findings, by their rules."""
    return {one.rule.id: one.detail for one in lint.lint(lint.read(text.encode()))}


def role(*statements: str, more: str = "") -> str:
    listed = "".join(f"              - {one}\n" for one in statements)
    return (
        f"  Role:\n    Type: AWS::IAM::Role\n    Properties:\n{more}      Policies:\n        - PolicyName: it\n"
        f"          PolicyDocument:\n            Statement:\n{listed or '              []'}\n"
    )


def allow(action: str, resource: str, more: str = "") -> str:
    return f"{{ Effect: Allow, Action: {action}, Resource: {resource}{more} }}"


def mapping(source: str, more: str = "") -> str:
    return (
        "  Read:\n    Type: AWS::Lambda::EventSourceMapping\n"
        f"    Properties: {{ FunctionName: !Ref Price, EventSourceArn: {source}{more} }}\n"
    )


@pytest.mark.parametrize(
    "resource",
    [
        "!GetAtt Orders.Arn",
        '"*"',
        "arn:aws:sqs:eu-west-1:111122223333:orders",
        '!Sub "arn:${AWS::Partition}:sqs:${AWS::Region}:${AWS::AccountId}:orders"',
        '!Sub "arn:aws:sqs:*:*:ord*"',
        '!Join [":", [arn, aws, sqs, !Ref AWS::Region, !Ref AWS::AccountId, !GetAtt Orders.QueueName]]',
        "[!GetAtt Others.Arn, !GetAtt Orders.Arn]",
        "!Ref Foreign",
        '!Sub "arn:aws:sqs:eu-west-1:111122223333:${Foreign}"',
        "!ImportValue orders",
        '!Sub "arn:aws:${Foreign}:eu-west-1:111122223333:orders"',
    ],
)
def test_a_mapping_is_allowed(resource: str) -> None:
    assert "mapping-not-allowed" not in found(HEAD + mapping("!GetAtt Orders.Arn") + role(allow(READING, resource)))


@pytest.mark.parametrize(
    "resource",
    [
        "!GetAtt Others.Arn",
        "arn:aws:sqs:eu-west-1:111122223333:others",
        "arn:aws:sns:eu-west-1:111122223333:orders",
        '!Sub "arn:aws:sqs:*:*:orders-*"',
        '!Sub "${Others.Arn}"',
    ],
)
def test_a_mapping_is_not_allowed_on_something_else(resource: str) -> None:
    assert "mapping-not-allowed" in found(HEAD + mapping("!GetAtt Orders.Arn") + role(allow(READING, resource)))


def test_a_literal_name_is_not_a_name_that_cloudformation_makes_up() -> None:
    text = HEAD + mapping("!GetAtt Unnamed.Arn")

    assert "mapping-not-allowed" in found(text + role(allow(READING, "arn:aws:sqs:eu-west-1:111122223333:unnamed")))
    assert "mapping-not-allowed" not in found(text + role(allow(READING, '"arn:aws:sqs:eu-west-1:111122223333:*"')))


@pytest.mark.parametrize("action", ['"*"', '"sqs:*"', "[SQS:receivemessage, 'sqs:Delete*', 'sqs:Get?ueueAttributes']"])
def test_patterns_of_actions(action: str) -> None:
    text = HEAD + mapping("!GetAtt Orders.Arn") + role(allow(action, "!GetAtt Orders.Arn"))

    assert "mapping-not-allowed" not in found(text)


@pytest.mark.parametrize(
    ("statement", "is_known"),
    [
        ("{ Effect: Deny, Action: '*', Resource: '*' }", True),
        ("{ Effect: Allow, NotAction: 'iam:*', Resource: '*' }", False),
        ("{ Effect: Allow, Action: 'sqs:*', NotResource: !GetAtt Others.Arn }", False),
        ("{ Effect: !ImportValue effect, Action: 'sqs:*', Resource: '*' }", False),
        ("{ Effect: Allow, Action: !ImportValue actions, Resource: '*' }", False),
    ],
)
def test_what_cannot_be_told_counts_as_allowed(statement: str, is_known: bool) -> None:
    assert ("mapping-not-allowed" in found(HEAD + mapping("!GetAtt Orders.Arn") + role(statement))) is is_known


@pytest.mark.parametrize(
    ("managed", "is_lacking"),
    [
        ("arn:aws:iam::aws:policy/service-role/AWSLambdaSQSQueueExecutionRole", False),
        ("arn:aws:iam::aws:policy/AmazonSQSFullAccess", False),
        ("arn:aws:iam::aws:policy/AdministratorAccess", False),
        ("arn:aws:iam::aws:policy/SomethingElse", False),  # which is not known
        ("!Ref Foreign", False),
        ("arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole", True),
        ("arn:aws:iam::aws:policy/service-role/AWSLambdaKinesisExecutionRole", True),
    ],
)
def test_managed_policies(managed: str, is_lacking: bool) -> None:
    text = HEAD + mapping("!GetAtt Orders.Arn") + role(more=f"      ManagedPolicyArns: [{managed}]\n")

    assert ("mapping-not-allowed" in found(text)) is is_lacking


@pytest.mark.parametrize("kind", ["Policy", "ManagedPolicy", "RolePolicy"])
def test_policies_beside_the_role(kind: str) -> None:
    roles = "RoleName: !Ref Role" if kind == "RolePolicy" else "Roles: [!Ref Role]"
    policy = (
        f"  Beside:\n    Type: AWS::IAM::{kind}\n    Properties:\n      {roles}\n"
        f"      PolicyDocument: {{ Statement: {allow(READING, '!GetAtt Orders.Arn')} }}\n"
    )
    text = HEAD + mapping("!GetAtt Orders.Arn") + role()

    assert "mapping-not-allowed" in found(text)
    assert "mapping-not-allowed" not in found(text + policy)
    elsewhere = policy.replace("!Ref Role", "!Ref Foreign")
    assert "mapping-not-allowed" in found(text + elsewhere), "nobody knows a name that CloudFormation makes up"
    text = HEAD + mapping("!GetAtt Orders.Arn") + role(more="      RoleName: worker\n")
    assert "mapping-not-allowed" not in found(text + elsewhere)
    assert "mapping-not-allowed" not in found(text + policy.replace("!Ref Role", "worker"))
    assert "mapping-not-allowed" in found(text + policy.replace("!Ref Role", "other"))


@pytest.mark.parametrize(
    ("resource", "is_lacking"),
    [
        ("!GetAtt Ledger.StreamArn", False),
        ('!Sub "${Ledger.Arn}/stream/*"', False),
        ('!Sub "${Ledger.Arn}/*"', False),
        ("!GetAtt Ledger.Arn", True),
        ('!Sub "${Ledger.Arn}/index/*"', True),
    ],
)
def test_a_stream_is_not_its_table(resource: str, is_lacking: bool) -> None:
    text = HEAD + mapping("!GetAtt Ledger.StreamArn") + role(allow(READING_STREAM, resource))

    assert ("mapping-not-allowed" in found(text)) is is_lacking


def test_a_consumer_is_subscribed_to() -> None:
    text = HEAD + mapping("!Ref Reader")

    assert found(text + role())["mapping-not-allowed"] == "Role does not allow kinesis:SubscribeToShard"
    assert "mapping-not-allowed" not in found(text + role(allow("kinesis:SubscribeToShard", "!Ref Reader")))


@pytest.mark.parametrize(
    ("destination", "statements", "lacking"),
    [
        ("!GetAtt Others.Arn", [], "sqs:SendMessage on Others"),
        ("!GetAtt Others.Arn", [allow("sqs:SendMessage", "!GetAtt Others.Arn")], ""),
        ("!Ref Failed", [], "sns:Publish on Failed"),
        ("!Ref Failed", [allow("sns:Publish", "!Ref Failed")], ""),
        ("!GetAtt GivenUp.Arn", [allow('"s3:*"', "!GetAtt GivenUp.Arn")], "s3:PutObject on GivenUp"),
        ("!GetAtt GivenUp.Arn", [allow('"s3:*"', '!Sub "${GivenUp.Arn}/*"')], "s3:ListBucket on GivenUp"),
        ("!GetAtt GivenUp.Arn", [allow('"s3:*"', '!Sub "${GivenUp.Arn}*"')], ""),
        ("!GetAtt GivenUp.Arn", [allow('"s3:*"', '[!GetAtt GivenUp.Arn, !Sub "arn:aws:s3:::${GivenUp}/x/*"]')], ""),
        ("!Ref Foreign", [], ""),
    ],
)
def test_failure_destinations(destination: str, statements: list[str], lacking: str) -> None:
    more = f", DestinationConfig: {{ OnFailure: {{ Destination: {destination} }} }}"
    detail = found(HEAD + mapping("!GetAtt Clicks.Arn", more) + role(*statements)).get(
        "failure-destination-not-allowed"
    )

    assert detail == (f"Role does not allow {lacking}" if lacking else None)


@pytest.mark.parametrize(
    ("action", "resource", "more", "is_wide"),
    [
        ("sqs:SendMessage", '"*"', "", True),
        ("[xray:PutTraceSegments, sqs:SendMessage]", '"*"', "", True),
        ("sqs:SendMessage", '!Sub "arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:*"', "", True),
        ("dynamodb:PutItem", '"arn:aws:dynamodb:*:*:table/*"', "", True),
        ("s3:GetObject", '"arn:aws:s3:::*"', "", True),
        ("sqs:SendMessage", '!Sub "arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:shop-*"', "", False),
        ("sqs:SendMessage", '!Sub "arn:aws:sqs:${AWS::Region}:${AWS::AccountId}:${Foreign}*"', "", False),
        ("sqs:SendMessage", '"*"', ", Condition: { StringEquals: { 'aws:ResourceTag/a': b } }", False),
        ("[sqs:ListQueues, kinesis:ListStreams, dynamodb:ListStreams, sns:Publish]", '"*"', "", False),
        ("[logs:PutLogEvents, 'ec2:*NetworkInterface*', 'cloudwatch:PutMetricData']", '"*"', "", False),
        ("s3:GetObject", '!Sub "${GivenUp.Arn}/*"', "", False),
    ],
)
def test_wildcards_of_resources(action: str, resource: str, more: str, is_wide: bool) -> None:
    assert ("wildcard-resource" in found(HEAD + role(allow(action, resource, more)))) is is_wide


def test_a_role_that_no_function_has_is_not_judged() -> None:
    text = HEAD.replace("!GetAtt Role.Arn", "!Ref Foreign") + role(allow('"*"', '"*"'))

    assert "wildcard-action" not in found(text)
    assert "wildcard-action" in found(HEAD + role(allow('"*"', '"*"')))


@pytest.mark.parametrize(
    ("action", "instead"),
    [
        ("sqs:SendMesage", ("sqs:SendMessage",)),
        ("SQS:sendmessage", ()),
        ("sqs:SendMessageBatch", ("sqs:SendMessage",)),
        ("kinesis:PutRecord", ()),
        ("kinesis:DescribeStreams", ("kinesis:DescribeStream",)),
        ("dynamodb:TransactWriteItems", ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem")),
        ("s3:ListObjectsV2", ("s3:ListBucket",)),
        ("s3:GetObjects", ()),  # not all of S3's are known
        ("sqs:FoldMessage", ()),
        ("sqs:*", ()),
        ("sqs:", ()),
        ("", ()),
    ],
)
def test_names_of_actions(action: str, instead: tuple[str, ...]) -> None:
    assert actions.instead_of(action) == instead


@given(st.text())
def test_any_text_may_be_an_action(text: str) -> None:
    actions.instead_of(text)
    actions.is_narrowable(text)


def test_what_stands_instead_is_an_action() -> None:
    names = {"sqs:SendMessageBatch", "dynamodb:ExecuteStatement", "s3:CopyObject", "sns:PublishBatch"}

    assert {other for name in names for one in actions.instead_of(name) for other in actions.instead_of(one)} == set()


def test_a_name_beside_the_one_that_it_stands_for_does_no_harm() -> None:
    text = HEAD + role(allow("[sqs:SendMessage, sqs:SendMessageBatch]", "!GetAtt Orders.Arn"))

    assert "unknown-action" not in found(text)
    assert "unknown-action" in found(HEAD + role(allow("sqs:SendMessageBatch", "!GetAtt Orders.Arn")))


def test_one_finding_says_all_of_its_line() -> None:
    text = HEAD + role(allow("[sqs:SendMessages, sns:Publishh, 'events:*', 's3:*']", "!GetAtt Orders.Arn"))

    assert found(text)["unknown-action"] == "there is no 'sqs:SendMessages'; there is no 'sns:Publishh'"
    assert found(text)["wildcard-action"] == "it allows 'events:*'; it allows 's3:*'"


def test_statements_on_one_line_are_all_judged() -> None:
    one = [allow("sqs:SendMessage", "!GetAtt Orders.Arn"), allow("'*'", "'*'"), allow("dynamodb:PutItem", "'*'")]
    text = HEAD + role().replace("              []\n", f"              [{', '.join(one)}]\n")

    assert found(text)["wildcard-action"] == "it allows '*'"
    assert found(text)["wildcard-resource"] == "it allows dynamodb:PutItem on '*'"


def test_policies_of_queues_on_one_line_are_all_judged() -> None:
    one = [f"{{ Effect: Allow, Principal: '*', Action: 'sqs:{name}' }}" for name in ("SendMessage", "ReceiveMessage")]
    policy = (
        "  OrdersPolicy:\n    Type: AWS::SQS::QueuePolicy\n    Properties:\n      Queues: [!Ref Orders]\n"
        f"      PolicyDocument: {{ Statement: [{', '.join(one)}] }}\n"
    )
    detail = found(HEAD + policy + role())["queue-open-to-everybody"]

    assert "sqs:SendMessage" in detail
    assert "sqs:ReceiveMessage" in detail


@pytest.mark.parametrize(
    ("key", "is_lacking"),
    [
        ("!Ref Key", True),
        ("!Ref Alias", True),
        ("alias/mine", True),
        ('!Sub "arn:aws:kms:${AWS::Region}:${AWS::AccountId}:alias/mine"', True),
        ("alias/other", False),
        ("alias/aws/sqs", False),
        ("!Ref Foreign", False),
    ],
)
def test_keys_by_their_aliases(key: str, is_lacking: bool) -> None:
    keys = (
        f"  Secret: {{ Type: AWS::SQS::Queue, Properties: {{ KmsMasterKeyId: {key} }} }}\n"
        "  Key: { Type: AWS::KMS::Key }\n"
        "  Alias: { Type: AWS::KMS::Alias, Properties: { AliasName: alias/mine, TargetKeyId: !GetAtt Key.Arn } }\n"
    )
    text = HEAD + keys + mapping("!GetAtt Secret.Arn") + role(allow(READING, "!GetAtt Secret.Arn"))

    assert ("decrypt-not-allowed" in found(text)) is is_lacking


EMBEDDED = """\
  Third:
    Type: AWS::SQS::Queue
    Connectors: {{ It: {{ Properties: {{ Destination: {destination}, Permissions: [Read, Write] }} }} }}
"""
CONNECTOR = """\
  Connector:
    Type: AWS::Serverless::Connector
    Properties: {{ Source: {{ Id: Orders }}, Destination: {destination}, Permissions: [Read, Write] }}
"""


@pytest.mark.parametrize("connector", [EMBEDDED, CONNECTOR])
@pytest.mark.parametrize(
    ("destination", "is_lacking"),
    [
        ("{ Id: Price }", False),
        ("[{ Id: Orders }, { Id: Price }]", False),
        ("{ Id: Sharing }", False),  # which has the same role
        ("{ Arn: !Ref Foreign, Type: AWS::Lambda::Function, RoleName: !Ref Role }", False),
        ("!ImportValue destination", False),
        ("{ Id: Others }", True),
    ],
)
def test_connectors_allow_what_they_connect(connector: str, destination: str, is_lacking: bool) -> None:
    shared = "  Sharing: { Type: AWS::Lambda::Function, Properties: { Role: !GetAtt Role.Arn } }\n"
    text = HEAD + shared + connector.format(destination=destination) + mapping("!GetAtt Orders.Arn") + role()

    assert ("mapping-not-allowed" in found(text)) is is_lacking


def test_a_connector_of_the_function_itself() -> None:
    text = HEAD.replace(
        "Price: { Type: AWS::Lambda::Function,",
        "Price: { Type: AWS::Lambda::Function, Connectors: { It: { Properties: { Destination: { Id: Others } } } },",
    )

    assert "mapping-not-allowed" not in found(text + mapping("!GetAtt Orders.Arn") + role())


@pytest.mark.parametrize(
    ("deny", "lacking"),
    [
        ("Action: sqs:DeleteMessage, Resource: '*'", "sqs:DeleteMessage"),
        ("Action: 'sqs:*', Resource: !GetAtt Orders.Arn", "sqs:ReceiveMessage, sqs:DeleteMessage, sqs:GetQueueAttributes"),
        ("Action: sqs:DeleteMessage, Resource: !GetAtt Others.Arn", ""),
        ("Action: sqs:DeleteMessage, Resource: !Ref Foreign", ""),
        ("Action: sqs:DeleteMessage, Resource: '*', Condition: { Bool: { aws:SecureTransport: false } }", ""),
        ("NotAction: sqs:DeleteMessage, Resource: '*'", ""),
        ("Action: sqs:DeleteMessage, NotResource: !GetAtt Orders.Arn", ""),
    ],
)  # fmt: skip
def test_what_is_denied_is_not_allowed(deny: str, lacking: str) -> None:
    text = (
        HEAD + mapping("!GetAtt Orders.Arn") + role(allow(READING, "!GetAtt Orders.Arn"), f"{{ Effect: Deny, {deny} }}")
    )

    detail = f"Role does not allow {lacking}" if lacking else None
    assert found(text).get("mapping-not-allowed") == detail


def test_statements_under_a_role_that_is_not_known_to_its_end() -> None:
    code = """\
import boto3

ledger = boto3.client("dynamodb")


def price(event, context):
    ledger.execute_statement(Statement="INSERT INTO ledger VALUE {'id': '1'}")
"""

    def judged(*statements: str, more: str = "") -> bool:
        text = HEAD + role(allow("dynamodb:PutItem", "!GetAtt Ledger.Arn"), *statements, more=more)
        root = lint.read(text.encode())
        known = {"Price": examine(code, "price")}
        return "statements-not-allowed" in [one.rule.id for one in lint.lint(root, code=lambda _: known)]

    assert judged()
    assert not judged(allow("dynamodb:PartiQLInsert", "!GetAtt Ledger.Arn"))
    assert not judged(more="      ManagedPolicyArns: [!Ref Foreign]\n")
    assert not judged(more="      ManagedPolicyArns: [arn:aws:iam::aws:policy/AmazonDynamoDBFullAccess]\n")


@pytest.mark.parametrize(
    ("principal", "more", "is_open"),
    [
        ('"*"', "", True),
        ('{ AWS: "*" }', "", True),
        ('{ AWS: [!Ref AWS::AccountId, "*"] }', "", True),
        ("{ AWS: !Ref AWS::AccountId }", "", False),
        ("{ Service: sns.amazonaws.com }", "", False),
        ('"*"', ", Condition: { StringEquals: { aws:PrincipalOrgID: o-1 } }", False),
        ('"*"', ', Condition: { Bool: { "aws:SecureTransport": "true" } }', True),
        ('"*"', ', Condition: { ArnLike: { "aws:SourceArn": "*" } }', True),
        ('"*"', ', Condition: { ForAnyValue:StringLike: { "aws:PrincipalArn": [a, "*"] } }', True),
        ('"*"', ", Condition: { IpAddress: { aws:SourceIp: 0.0.0.0/0 } }", True),
        ('"*"', ', Condition: { ArnEquals: { "aws:SourceArn": "*" } }', True),
        ('"*"', ', Condition: { StringEquals: { "aws:SourceAccount": "*" } }', False),
        ('"*"', ', Condition: { Bool: { "aws:SecureTransport": "true", aws:ViaAWSService: true } }', False),
        ('"*"', ', Condition: { ArnLike: { "aws:SourceArn": !Ref Foreign } }', False),
        ('"*"', ", Condition: !ImportValue condition", False),
    ],
)
def test_principals_of_queues(principal: str, more: str, is_open: bool) -> None:
    policy = (
        "  OrdersPolicy:\n    Type: AWS::SQS::QueuePolicy\n    Properties:\n      Queues: [!Ref Orders]\n"
        f"      PolicyDocument: {{ Statement: {{ Effect: Allow, Principal: {principal}, Action: 'sqs:*'{more} }} }}\n"
    )
    assert ("queue-open-to-everybody" in found(HEAD + policy + role())) is is_open
    assert "queue-open-to-everybody" not in found(HEAD + policy.replace("Allow", "Deny") + role())
    inline = policy.replace("QueuePolicy", "QueueInlinePolicy").replace("Queues: [!Ref Orders]", "Queue: !Ref Orders")
    assert ("queue-open-to-everybody" in found(HEAD + inline + role())) is is_open


@pytest.mark.parametrize(
    ("condition", "is_safe"),
    [
        ("Bool: { aws:SecureTransport: false }", True),
        ('Bool: { "aws:SecureTransport": "false" }', True),
        ("BoolIfExists: { AWS:securetransport: false }", True),
        ("Bool: { aws:SecureTransport: true }", False),
        ("StringEquals: { aws:SourceVpce: vpce-1 }", False),
    ],
)
def test_calls_without_tls(condition: str, is_safe: bool) -> None:
    policy = (
        "  OrdersPolicy:\n    Type: AWS::SQS::QueuePolicy\n    Properties:\n      Queues: [!Ref Orders]\n"
        "      PolicyDocument:\n"
        f"        Statement: {{ Effect: Deny, Principal: '*', Action: 'sqs:*', Condition: {{ {condition} }} }}\n"
    )
    assert ("queue-without-tls" not in found(HEAD + policy + role())) is is_safe
