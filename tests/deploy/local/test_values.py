"""What intrinsic functions, parameters and conditions come to on this machine."""

from __future__ import annotations

import pytest

from pipeline.deploy.local import Project
from tests.deploy.local.conftest import Reading, said

TEMPLATE = """
Transform: [AWS::Serverless-2016-10-31, AWS::LanguageExtensions]
Parameters:
  Name: {Type: String, Default: shop}
  Zones: {Type: CommaDelimitedList, Default: 'a, b ,c'}
  Secret: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /shop/secret}
  Missing: {Type: String}
Mappings:
  Sizes: {small: {Memory: 128}, large: {Memory: 1024}}
Conditions:
  IsShop: !Equals [!Ref Name, shop]
  IsOther: !Not [!Condition IsShop]
  Both: !And [!Condition IsShop, !Condition IsOther]
  Either: !Or [!Condition IsShop, !Condition IsOther]
Resources:
  Q: {Type: AWS::SQS::Queue}
  Db: {Type: AWS::RDS::DBInstance}
  Gone: {Type: AWS::SQS::Queue, Condition: IsOther}
  Secrets: {Type: AWS::SecretsManager::Secret}
  F:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.12
      CodeUri: src
      Handler: app.lambda_handler
      Environment: {Variables: {V: %s}}
      Events: {Q: {Type: SQS, Properties: {Queue: !GetAtt Q.Arn}}}
"""


def variable(project: Project) -> str:
    return project.functions["F"].environment["V"]


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("text", "text"),
        ("7", "7"),
        ("true", "true"),
        ("'${Name}'", "${Name}"),  # no Sub: nothing is put in
        ("!Ref Name", "shop"),
        ("!Ref AWS::AccountId", "123456789012"),
        ("!Sub '${AWS::StackName}/${Name}/${!Literal}'", "local/shop/${Literal}"),
        ("!Sub ['${A}-${Q.QueueName}', {A: !Ref Name}]", "shop-Q"),
        ("!Sub '${Q.QueueName}/${!Literal}'", "Q/${Literal}"),
        ("!Join ['+', [!Ref Name, !Ref AWS::NoValue, 2]]", "shop+2"),
        ("!Join ['+', !Ref Zones]", "a+b+c"),
        ("!Select [1, !Ref Zones]", "b"),
        ("!Select ['0', !Split ['.', 'x.y']]", "x"),
        ("!Select [0, !GetAZs '']", "us-east-1a"),
        ("!FindInMap [Sizes, large, Memory]", "1024"),
        ("!FindInMap [Sizes, huge, Memory, {DefaultValue: 1}]", "1"),
        ("!If [IsShop, one, other]", "one"),
        ("!If [IsOther, one, other]", "other"),
        ("!If [Both, one, other]", "other"),
        ("!If [Either, one, other]", "one"),
        ("!Base64 ab", "YWI="),
        ("{'Fn::Length': !Ref Zones}", "3"),
        ("{'Fn::ToJsonString': {a: !Ref Name}}", '{"a":"shop"}'),
        ("!Ref Q", "https://sqs.us-east-1.amazonaws.com/123456789012/Q"),
        ("!GetAtt Q.Arn", "arn:aws:sqs:us-east-1:123456789012:Q"),
        ("{'Fn::GetAtt': [Q, QueueUrl]}", "https://sqs.us-east-1.amazonaws.com/123456789012/Q"),
        ("!GetAtt F.Arn", "arn:aws:lambda:us-east-1:123456789012:function:F"),
        ("!GetAtt FRole.Arn", "arn:aws:iam::123456789012:role/FRole"),
        ("!Ref F.Alias", "arn:aws:lambda:us-east-1:123456789012:function:F:live"),
        ("!Ref Secrets", "arn:aws:secretsmanager:us-east-1:123456789012:secret:Secrets"),
        ("!Ref Db", "Db"),
    ],
)
def test_what_can_be_known(reading: Reading, written: str, value: str) -> None:
    found = reading(TEMPLATE % written)

    assert variable(found) == value
    assert said(found) == []


@pytest.mark.parametrize(
    ("written", "value", "told"),
    [
        ("!Ref Missing", "Missing", "7: note: the parameter Missing has no default and was not given"),
        ("!Ref Secret", "Secret", "6: note: the parameter Secret has no default and was not given"),
        ("!Ref Nobody", "Nobody", "26: note: what Nobody is, only AWS knows"),
        ("!GetAtt Db.Endpoint.Address", "Db.Endpoint.Address", "26: note: what Db.Endpoint.Address is"),
        ("!Sub 'x-${Db.Endpoint.Port}'", "x-Db.Endpoint.Port", "26: note: what Db.Endpoint.Port is"),
        ("!Ref Gone", "Gone", "26: note: what Gone is, only AWS knows"),
        ("!ImportValue net-Queue", "net-Queue", "26: note: 'net-Queue' is imported from another stack"),
        ("'{{resolve:ssm:/x}}'", "{{resolve:ssm:/x}}", "26: note: '{{resolve:ssm:/x}}' is looked up by CloudFormation"),
        ("!FindInMap [Sizes, huge, Memory]", "", "26: error: Fn::FindInMap as it is written here cannot be worked out"),
        ("!Select [9, !Ref Zones]", "", "26: error: Fn::Select as it is written here"),
        ("{'Fn::Cidr': [10.0.0.0/16, 2]}", "", "26: error: Fn::Cidr as it is written here"),
    ],
)
def test_what_only_aws_knows_has_a_stand_in_and_is_told(reading: Reading, written: str, value: str, told: str) -> None:
    found = reading(TEMPLATE % written)

    assert variable(found) == value
    assert [one for one in said(found) if one.startswith(told)] == said(found) != []


def test_a_parameter_can_be_given(reading: Reading) -> None:
    assert variable(reading(TEMPLATE % "!Ref Missing", Missing="there")) == "there"
    assert variable(reading(TEMPLATE % "!Ref Secret", Secret="s3cret")) == "s3cret"
    assert variable(reading(TEMPLATE % "!If [IsShop, one, other]", Name="else")) == "other"
    assert "Gone" in reading(TEMPLATE % "x", Name="else").queues


def test_wrong_parameters_are_told(reading: Reading) -> None:
    text = "Parameters:\n  Stage: {Type: String, Default: dev, AllowedValues: [dev, prod]}\nResources: {}\n"

    assert said(reading(text, Stage="test", Other="x")) == [
        "1: error: there is no parameter Other: it can be Stage",
        "2: error: the parameter Stage cannot be 'test': it can be dev, prod",
        "3: error: nothing to run: template.yaml has no event source mapping",
    ]


SECRET = """
Parameters:
  Password: {Type: String, NoEcho: true, AllowedValues: [one-secret, hunter2]}
  Pin: {Type: String, NoEcho: true, Default: '7'}
Resources:
  Q: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: !Ref Password, DelaySeconds: !Sub '1000${Pin}'}}
  F:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.12
      CodeUri: !Ref Password
      Handler: %s
      Timeout: !Ref Pin
      Events: {E: {Type: SQS, Properties: {Queue: !Sub 'x${Password}x'}}}
"""


@pytest.mark.parametrize("handler", ["!Ref Password", "app.lambda_handler", "!Ref Pin"])
@pytest.mark.parametrize("password", ["hunter2", "s3cret"])
def test_what_a_parameter_without_echo_holds_is_never_told(reading: Reading, handler: str, password: str) -> None:
    found = said(reading(SECRET % handler, Password=password))

    assert found
    assert not [one for one in found if password in one or "one-secret" in one or "'7'" in one]
    assert ("3: error: the parameter Password cannot be '****': it is none of its AllowedValues" in found) == (
        password == "s3cret"
    )
    assert not [one for one in found if "DelaySeconds" in one and "10007" not in one], "only whole words of one letter"


def test_a_circle_of_conditions_is_told(reading: Reading) -> None:
    conditions = "Conditions:\n  A: !Condition B\n  B: !Not [!Condition A]\n"
    found = reading(f"{conditions}Resources:\n  Q: {{Type: AWS::SQS::Queue, Condition: A}}\n")

    assert "2: note: the condition A leads back to itself: there it counts as false" in said(found)


@pytest.mark.parametrize(
    "conditions",
    ["{A: !Condition A}", "{A: !Not [!Condition B], B: !Condition A}", "{A: [1]}", "{A: !Equals [1]}", "{A: nothing}"],
)
def test_conditions_that_are_none_are_told_or_false(reading: Reading, conditions: str) -> None:
    found = reading(f"Conditions: {conditions}\nResources:\n  Q: {{Type: AWS::SQS::Queue, Condition: A}}\n")

    assert found.problems
    assert list(found.queues) in ([], ["Q"])


def test_a_name_that_leads_back_to_itself_ends(reading: Reading) -> None:
    found = reading(
        "Resources:\n"
        "  A: {Type: AWS::SQS::Queue, Properties: {QueueName: !GetAtt B.QueueName}}\n"
        "  B: {Type: AWS::SQS::Queue, Properties: {QueueName: !GetAtt A.QueueName}}\n"
    )

    assert set(found.queues) == {"A", "B"}


def test_names_are_those_that_are_given_or_the_logical_ids(reading: Reading) -> None:
    found = reading(
        """
        Resources:
          Q: {Type: AWS::SQS::Queue, Properties: {QueueName: !Sub '${AWS::StackName}-q'}}
          T: {Type: AWS::DynamoDB::Table, Properties: {KeySchema: []}}
          B: {Type: AWS::S3::Bucket, Properties: {BucketName: !Sub 'b-${AWS::AccountId}'}}
          LogsBucket: {Type: AWS::S3::Bucket}
          R: {Type: AWS::Events::Rule, Properties: {EventBusName: shop}}
        """
    )
    names = {name: (one.name, one.arn) for name, one in found.names.items() if name in "QTBRLogsBucket"}

    assert names == {
        "Q": ("local-q", "arn:aws:sqs:us-east-1:123456789012:local-q"),
        "T": ("T", "arn:aws:dynamodb:us-east-1:123456789012:table/T"),
        "B": ("b-123456789012", "arn:aws:s3:::b-123456789012"),
        "LogsBucket": ("logsbucket", "arn:aws:s3:::logsbucket"),
        "R": ("R", "arn:aws:events:us-east-1:123456789012:rule/shop/R"),
    }
