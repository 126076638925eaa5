"""What the template's resources are called on this machine: names, ARNs, URLs.

A resource without a name of its own is called by its logical id, so that it can be typed; CloudFormation would add the
stack's name and a random end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pipeline.deploy.lint.model import Resource
from pipeline.emulator.services.service import ACCOUNT, REGION

#: What a queue's URL begins with, and what follows is the account and the name.
DEFAULT_ENDPOINT = f"https://sqs.{REGION}.amazonaws.com"

_FUNCTIONS = {"AWS::Serverless::Function", "AWS::Lambda::Function"}
TABLES = {"AWS::DynamoDB::Table", "AWS::DynamoDB::GlobalTable", "AWS::Serverless::SimpleTable"}

#: For each type: the property that holds the name, and what stands behind the account in the ARN.
_KINDS = {
    "AWS::SQS::Queue": ("QueueName", "sqs", ""),
    "AWS::Kinesis::Stream": ("Name", "kinesis", "stream/"),
    "AWS::SNS::Topic": ("TopicName", "sns", ""),
    "AWS::Events::EventBus": ("Name", "events", "event-bus/"),
    "AWS::Events::Rule": ("Name", "events", "rule/"),
    "AWS::S3::Bucket": ("BucketName", "s3", ""),
    **dict.fromkeys(TABLES, ("TableName", "dynamodb", "table/")),
    **dict.fromkeys(_FUNCTIONS, ("FunctionName", "lambda", "function:")),
    "AWS::IAM::Role": ("RoleName", "iam", "role/"),
    "AWS::KMS::Key": ("", "kms", "key/"),
    "AWS::SecretsManager::Secret": ("Name", "secretsmanager", "secret:"),
    "AWS::Logs::LogGroup": ("LogGroupName", "logs", "log-group:"),
    "AWS::Serverless::StateMachine": ("Name", "states", "stateMachine:"),
    "AWS::StepFunctions::StateMachine": ("StateMachineName", "states", "stateMachine:"),
    "AWS::Kinesis::StreamConsumer": ("ConsumerName", "kinesis", "consumer/"),
    "AWS::SSM::Parameter": ("Name", "ssm", "parameter/"),
    "AWS::KinesisFirehose::DeliveryStream": ("DeliveryStreamName", "firehose", "deliverystream/"),
}
#: Those whose `Ref` is their ARN; a queue's is its URL, and all others' is their name.
_REF_IS_ARN = {
    "AWS::SNS::Topic",
    "AWS::SecretsManager::Secret",
    "AWS::Serverless::StateMachine",
    "AWS::StepFunctions::StateMachine",
    "AWS::Kinesis::StreamConsumer",
}
_NAME_ATTRIBUTES = {"QueueName", "TopicName", "Name", "FunctionName"}
_ARN_ATTRIBUTES = {"Arn", "ARN", "TopicArn", "ConsumerARN"}


@dataclass(frozen=True)
class Names:
    """What one resource is called. `url`: a queue's. `stream_arn`: of a table's stream, as far as it is known."""

    name: str
    arn: str
    url: str = ""
    stream_arn: str = ""


def of_queue(name: str, endpoint: str) -> Names:
    """A queue's names."""
    return Names(name, arn("sqs", name), f"{endpoint}/{ACCOUNT}/{name}")


def arn(service: str, resource: str) -> str:
    """The ARN of something on this machine."""
    place = ":" if service == "s3" else f":{ACCOUNT}" if service == "iam" else f"{REGION}:{ACCOUNT}"
    return f"arn:aws:{service}:{place}:{resource}"


class Registry:
    """The names of the template's resources, each worked out when it is asked for.

    `plain`: reads a node. `find`: a resource of this world by its logical id.
    """

    def __init__(self, endpoint: str, plain: Callable[[Any], Any], find: Callable[[str], Resource | None]) -> None:
        self._endpoint = endpoint
        self._plain = plain
        self._find = find
        self._found: dict[str, Names] = {}

    def of(self, resource: Resource) -> Names:
        """What a resource is called."""
        if resource.id not in self._found:
            # A name that leads back to itself, which CloudFormation refuses, ends here.
            self._found[resource.id] = self._made(resource, resource.id)
            self._found[resource.id] = self._made(resource, self._given_name(resource))
        return self._found[resource.id]

    def attribute(self, logical_id: str, attribute: str) -> Any:
        """What `Ref` (without an attribute) or `GetAtt` gives; None where only AWS knows it."""
        resource = self._find(logical_id)
        if resource is None:
            return self._made_by_sam(logical_id, attribute)
        names = self.of(resource)
        if not attribute:
            return names.url or (names.arn if resource.type in _REF_IS_ARN else names.name)
        if attribute in _NAME_ATTRIBUTES:
            return names.name
        if attribute in _ARN_ATTRIBUTES:
            return names.arn
        if resource.type in _FUNCTIONS and attribute in {"Alias", "Version"}:
            return f"{names.arn}:{'live' if attribute == 'Alias' else '1'}"
        return {"QueueUrl": names.url, "StreamArn": names.stream_arn}.get(attribute) or None

    def _given_name(self, resource: Resource) -> str:
        property_name, _, _ = _KINDS.get(resource.type, ("", "", ""))
        found = self._plain(resource.properties.get(property_name)) if property_name else None
        name = str(found) if isinstance(found, str | int) and found != "" else resource.id
        if resource.type == "AWS::S3::Bucket":
            return name.lower()  # as S3 wants it
        return name if found or not _is_fifo(resource) else f"{name}.fifo"

    def _made(self, resource: Resource, name: str) -> Names:
        if resource.type == "AWS::SQS::Queue":
            return of_queue(name, self._endpoint)
        _, service, prefix = _KINDS.get(resource.type, ("", _service(resource.type), ""))
        place = name
        if resource.type == "AWS::Events::Rule":
            bus = self._plain(resource.properties.get("EventBusName"))
            short = str(bus or "default").rpartition("/")[2]
            place = name if short == "default" else f"{short}/{name}"
        found = Names(name, arn(service, f"{prefix}{place}"))
        return replace(found, stream_arn=f"{found.arn}/stream/local") if resource.type in TABLES else found

    def _made_by_sam(self, logical_id: str, attribute: str) -> str | None:
        """A function's role, and `Orders.Alias` in a `Ref`."""
        first, _, last = logical_id.partition(".")
        function = self._find(first)
        if last in {"Alias", "Version"} and not attribute and function is not None and function.type in _FUNCTIONS:
            found = self.attribute(first, last)
            return None if found is None else str(found)
        owner = self._find(logical_id.removesuffix("Role")) if logical_id.endswith("Role") else None
        if owner is None or owner.type not in _FUNCTIONS:
            return None
        return {"": logical_id, "Arn": arn("iam", f"role/{logical_id}")}.get(attribute)


def _is_fifo(resource: Resource) -> bool:
    if resource.type not in {"AWS::SQS::Queue", "AWS::SNS::Topic"}:
        return False
    return bool(resource.properties.truth("FifoQueue").value or resource.properties.truth("FifoTopic").value)


def _service(kind: str) -> str:
    """The middle of "AWS::SQS::Queue", as ARNs spell services mostly."""
    parts = kind.split("::")
    return re.sub(r"[^a-z0-9-]", "", parts[1].lower()) if len(parts) > 2 else "unknown"
