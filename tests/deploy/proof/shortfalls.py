"""What the stand-ins do not do of a template, and how it is proved instead. docs/deploy.md shows these tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import boto3

from tests.deploy.proof.read_back import Clients, Properties


@dataclass(frozen=True)
class NotKept:
    """A property that MiniStack's CloudFormation takes and forgets."""

    kind: str
    name: str
    instead: str  #: how it is proved
    #: Sets the property as CloudFormation would, through the service's own API; None: the API forgets it too.
    apply: Callable[[Clients, str, Any], None] | None = None


@dataclass(frozen=True)
class LeftOut:
    """Resources that MiniStack's CloudFormation refuses: they are not in the template that it gets."""

    kind: str  #: in the translated template; `*` stands for the rest of a service
    what: str
    instead: str
    is_one: Callable[[Properties], bool]


def _live(aws: Clients, table: str, asked: Any) -> None:
    aws.client("dynamodb").update_time_to_live(TableName=table, TimeToLiveSpecification=asked)


def _recover(aws: Clients, table: str, asked: Any) -> None:
    aws.client("dynamodb").update_continuous_backups(TableName=table, PointInTimeRecoverySpecification=asked)


def _encrypt(aws: Clients, stream: str, asked: Any) -> None:
    aws.client("kinesis").start_stream_encryption(StreamName=stream, **asked)


def _expire(aws: Clients, bucket: str, asked: Any) -> None:
    # The API wants to know which objects a rule is for; the template's default is all of them.
    rules = [{"ID": rule["Id"], "Filter": {"Prefix": ""}, **_without(rule, "Id")} for rule in asked["Rules"]]
    aws.client("s3").put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})


def _without(members: Properties, name: str) -> Properties:
    return {key: value for key, value in members.items() if key != name}


_BY_API = "set through the service's own API on the deployed resource, and read back"
_BY_MODEL = "the values are held against the service's own model (botocore) and CloudFormation's schema (cfn-lint)"

NOT_KEPT = [
    NotKept("AWS::DynamoDB::Table", "TimeToLiveSpecification", _BY_API, _live),
    NotKept("AWS::DynamoDB::Table", "PointInTimeRecoverySpecification", _BY_API, _recover),
    NotKept("AWS::Kinesis::Stream", "StreamEncryption", _BY_API, _encrypt),
    NotKept("AWS::S3::Bucket", "LifecycleConfiguration", _BY_API, _expire),
    NotKept("AWS::Lambda::EventSourceMapping", "MetricsConfig", _BY_MODEL),
    NotKept("AWS::Logs::LogGroup", "FieldIndexPolicies", _BY_MODEL),
]

LEFT_OUT = [
    LeftOut(
        "AWS::CloudWatch::Alarm",
        "alarms on metric math (`Metrics`)",
        "made in moto through PutMetricAlarm, with the deployed stack's names, and read back",
        lambda properties: "Metrics" in properties,
    ),
    LeftOut(
        "AWS::CodeDeploy::*",
        "gradual deployments (`Function(canary=)`)",
        "the values are held against CloudFormation's schema (cfn-lint); the version and the alias are deployed",
        lambda properties: True,
    ),
    LeftOut(
        "AWS::IAM::Role",
        "the role of a gradual deployment: it names alarms that are left out",
        "cfn-lint and checkov, on the template and behind the transform",
        lambda properties: "codedeploy.amazonaws.com" in json.dumps(properties["AssumeRolePolicyDocument"]),
    ),
]


def left_out(template: dict[str, Any]) -> Iterator[str]:
    """The logical ids of what a template must not hold when MiniStack gets it."""
    for name, resource in template["Resources"].items():
        if any(fnmatchcase(resource["Type"], one.kind) and one.is_one(resource["Properties"]) for one in LEFT_OUT):
            yield name


def deployable(template: dict[str, Any]) -> dict[str, Any]:
    """A SAM template, or a plain one, without what is left out."""
    template = json.loads(json.dumps(template))
    for name in list(left_out(template)):
        del template["Resources"][name]
    for resource in template["Resources"].values():
        resource.get("Properties", {}).pop("DeploymentPreference", None)
        resource.pop("UpdatePolicy", None)  # of the alias: by CodeDeploy
    return template


def taken_by_model(service: str, operation: str, parameters: Properties) -> list[str]:
    """What AWS's own description of a call says against its parameters: types, names, and listed values."""
    from botocore.validate import ParamValidator

    shape = (
        boto3.Session(region_name="us-east-1").client(service).meta.service_model.operation_model(operation).input_shape
    )
    others = [name for name in shape.required_members if name not in parameters]
    report = ParamValidator().validate({**dict.fromkeys(others, "given"), **parameters}, shape).generate_report()
    return [line for line in report.splitlines() if line] + list(_unlisted(parameters, shape, operation))


def _unlisted(value: Any, shape: Any, path: str) -> Iterator[str]:
    """Values that stand in no list of the model; botocore leaves those to the service."""
    if shape.type_name == "structure":
        for name, one in value.items():
            if name in shape.members:
                yield from _unlisted(one, shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for one in value:
            yield from _unlisted(one, shape.member, path)
    elif getattr(shape, "enum", None) and value not in shape.enum:
        yield f"{path}: {value} is none of {', '.join(shape.enum)}"
