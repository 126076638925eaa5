"""A generated template as it stands in an account: references resolved, and its resources made in the tests' server."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from pipeline import Handler, Pipeline
from pipeline.deploy.template.assembly import template
from pipeline.deploy.template.document import text_of
from pipeline.emulator.services.service import REGION
from tests.support import iam

ACCOUNT = "123456789012"

_PSEUDO = {"AWS::Partition": "aws", "AWS::AccountId": ACCOUNT, "AWS::Region": REGION}
_PLACEHOLDER = re.compile(r"\$\{(!?)([^}]*)\}")
#: The property that holds a resource's name, and its ARN around that name.
_KINDS = {
    "AWS::SQS::Queue": ("QueueName", "sqs:{region}:{account}:{name}"),
    "AWS::DynamoDB::Table": ("TableName", "dynamodb:{region}:{account}:table/{name}"),
    "AWS::Kinesis::Stream": ("Name", "kinesis:{region}:{account}:stream/{name}"),
    "AWS::Events::EventBus": ("Name", "events:{region}:{account}:event-bus/{name}"),
    "AWS::S3::Bucket": ("BucketName", "s3:::{name}"),
    "AWS::Logs::LogGroup": ("LogGroupName", "logs:{region}:{account}:log-group:{name}:*"),
}

Boto = Callable[[str], Any]


def arn(service: str, rest: str) -> str:
    """An ARN in the tests' account; a bucket's has no place in it."""
    place = ":" if service == "s3" else f"{REGION}:{ACCOUNT}"
    return f"arn:aws:{service}:{place}:{rest}"


@dataclass(frozen=True)
class Function:
    """One function of the stack."""

    statements: list[iam.Statement]
    variables: Mapping[str, str]
    kind: str  #: of its event: SQS, Kinesis
    mapping: Mapping[str, Any]  #: its event's properties
    log: str  #: the ARN of its log group


class Deployed:
    """The stack of some pipelines. Names that CloudFormation would make up are `<stack>-<logical id>`."""

    def __init__(
        self, pipelines: Sequence[Pipeline], name: str, endpoint_url: str, parameters: Mapping[str, str] | None = None
    ) -> None:
        self._template = yaml_parse(text_of(template(pipelines), "Generated for a test."))
        self._resources: Mapping[str, Any] = self._template["Resources"]
        self._name = name
        self._endpoint_url = endpoint_url
        defaults = {key: one["Default"] for key, one in self._template["Parameters"].items() if "Default" in one}
        self._known = {**_PSEUDO, **defaults, **(parameters or {}), "AWS::StackName": name}

    def function(self, handler: Handler[..., Any]) -> Function:
        """The function of a handler."""
        path = f"{handler.function.__module__}.{handler.name}"
        (properties,) = (
            one["Properties"]
            for one in self._resources.values()
            if one["Type"] == "AWS::Serverless::Function" and one["Properties"]["Handler"] == path
        )
        role, _ = properties["Role"]["Fn::GetAtt"]
        (policy,) = self._resources[role]["Properties"]["Policies"]
        assert "ManagedPolicyArns" not in self._resources[role]["Properties"]
        (event,) = properties["Events"].values()
        return Function(
            iam.statements(self._resolved(policy["PolicyDocument"])),
            self._resolved(properties["Environment"]["Variables"]),
            event["Type"],
            self._resolved(event["Properties"]),
            self._arn_of(properties["LoggingConfig"]["LogGroup"]["Ref"]),
        )

    def make(self, boto: Boto, *, only: str = "") -> None:
        """Make what the functions use, with just the properties that they notice; `only`: of this type."""
        for logical, resource in self._resources.items():
            make = _MAKE.get(resource["Type"])
            if make is not None and only in ("", resource["Type"]):
                make(boto, self._physical(logical), self._resolved(resource.get("Properties", {})))

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._resolved(one) for one in value]
        if not isinstance(value, dict):
            return value
        match value:
            case {"Ref": name}:
                return self._reference(name)
            case {"Fn::GetAtt": [name, attribute]}:
                return self._attribute(name, attribute)
            case {"Fn::Sub": text}:
                return _PLACEHOLDER.sub(self._place, text)
            case _:
                pass
        assert not any(key.startswith("Fn::") for key in value), f"{value}: not known here"
        return {key: self._resolved(one) for key, one in value.items()}

    def _place(self, found: re.Match[str]) -> str:
        literal, name = found.groups()
        if literal:
            return "${" + name + "}"
        resource, _, attribute = name.partition(".")
        return self._attribute(resource, attribute) if attribute else self._reference(name)

    def _reference(self, name: str) -> str:
        if name in self._known:
            return str(self._known[name])
        physical = self._physical(name)
        if self._resources[name]["Type"] == "AWS::SQS::Queue":
            return f"{self._endpoint_url}/{ACCOUNT}/{physical}"
        return physical

    def _attribute(self, name: str, attribute: str) -> str:
        return self._arn_of(name) if attribute == "Arn" else self._physical(name)

    def _arn_of(self, logical: str) -> str:
        _, form = _KINDS[self._resources[logical]["Type"]]
        return "arn:aws:" + form.format(region=REGION, account=ACCOUNT, name=self._physical(logical))

    def _physical(self, logical: str) -> str:
        resource = self._resources[logical]
        named, _ = _KINDS.get(resource["Type"], ("", ""))
        given = resource.get("Properties", {}).get(named, f"{self._name}-{logical}".lower())
        return str(self._resolved(given))


def make_queue(boto: Boto, name: str, properties: Mapping[str, Any]) -> None:
    attributes = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
    if dead := properties.get("dead"):
        attributes["RedrivePolicy"] = json.dumps({"deadLetterTargetArn": dead, "maxReceiveCount": 20})
    boto("sqs").create_queue(QueueName=name, Attributes=attributes)


def make_table(boto: Boto, name: str, properties: Mapping[str, Any]) -> None:
    names = ("AttributeDefinitions", "KeySchema", "BillingMode")
    boto("dynamodb").create_table(TableName=name, **{key: properties[key] for key in names})


def make_stream(boto: Boto, name: str, properties: Mapping[str, Any]) -> None:
    boto("kinesis").create_stream(StreamName=name, ShardCount=1)


def make_bus(boto: Boto, name: str, properties: Mapping[str, Any]) -> None:
    boto("events").create_event_bus(Name=name)


def make_bucket(boto: Boto, name: str, properties: Mapping[str, Any]) -> None:
    boto("s3").create_bucket(Bucket=name)


_MAKE: Mapping[str, Callable[[Boto, str, Mapping[str, Any]], None]] = {
    "AWS::SQS::Queue": make_queue,
    "AWS::DynamoDB::Table": make_table,
    "AWS::Kinesis::Stream": make_stream,
    "AWS::Events::EventBus": make_bus,
    "AWS::S3::Bucket": make_bucket,
}
