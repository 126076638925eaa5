"""What stands in the account, read through each service's own API and written in the template's words."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from botocore.exceptions import ClientError

Properties = dict[str, Any]


class Clients(Protocol):
    def client(self, service: str, /) -> Any: ...


def properties(aws: Clients, kind: str, physical: str, asked: Properties) -> Properties:
    """A resource's properties as they stand. `asked` is what the template says, for what can only be compared."""
    if kind not in _READERS:
        raise ValueError(f"{kind}: nobody reads this type back yet; add it to {__name__}")
    return _READERS[kind](aws, physical, asked)


def attribute(aws: Clients, kind: str, physical: str, name: str) -> str:
    """What `!GetAtt` comes to, asked of the service."""
    match kind, name:
        case "AWS::SQS::Queue", "Arn":
            return _queue(aws, physical)["QueueArn"]
        case "AWS::SQS::Queue", "QueueName":
            return physical.rpartition("/")[2]
        case "AWS::DynamoDB::Table", "Arn":
            return str(aws.client("dynamodb").describe_table(TableName=physical)["Table"]["TableArn"])
        case "AWS::Kinesis::Stream", "Arn":
            return str(_stream(aws, physical)["StreamARN"])
        case "AWS::S3::Bucket", "Arn":
            aws.client("s3").head_bucket(Bucket=physical)
            return f"arn:aws:s3:::{physical}"
        case "AWS::Events::EventBus", "Arn" | "Name":
            return str(aws.client("events").describe_event_bus(Name=physical)[name])
        case "AWS::IAM::Role", "Arn":
            return str(aws.client("iam").get_role(RoleName=physical)["Role"]["Arn"])
        case "AWS::Logs::LogGroup", "Arn":
            return str(_log_group(aws, physical)["arn"])
        case "AWS::Lambda::Function", "Arn":
            return str(_configuration(aws, physical)["FunctionArn"])
        case "AWS::CloudWatch::Alarm", "Arn":
            return str(_read_alarm(aws, physical, {})["AlarmArn"])
        case "AWS::Lambda::Version", "Version":
            return physical.rpartition(":")[2]
        case _:
            raise ValueError(f"{kind}: the attribute {name} is not known here; add it to {__name__}")


def _read_queue(aws: Clients, physical: str, asked: Properties) -> Properties:
    found: Properties = {**_queue(aws, physical), "QueueName": physical.rpartition("/")[2]}
    for name in ("RedrivePolicy", "RedriveAllowPolicy"):
        if name in found:
            found[name] = json.loads(found[name])
    return found


def _read_queue_policy(aws: Clients, physical: str, asked: Properties) -> Properties:
    found = [_queue(aws, url).get("Policy", "null") for url in asked["Queues"]]
    assert len(set(found)) == 1
    return {"Queues": asked["Queues"], "PolicyDocument": json.loads(found[0])}


def _read_stream(aws: Clients, physical: str, asked: Properties) -> Properties:
    found = _stream(aws, physical)
    return {
        "Name": found["StreamName"],
        "RetentionPeriodHours": found["RetentionPeriodHours"],
        "StreamModeDetails": found["StreamModeDetails"],
        "ShardCount": found["OpenShardCount"],
        "StreamEncryption": {"EncryptionType": found["EncryptionType"], "KeyId": found.get("KeyId")},
    }


def _read_table(aws: Clients, physical: str, asked: Properties) -> Properties:
    client = aws.client("dynamodb")
    found: Properties = client.describe_table(TableName=physical)["Table"]
    lives = client.describe_time_to_live(TableName=physical)["TimeToLiveDescription"]
    backups = client.describe_continuous_backups(TableName=physical)["ContinuousBackupsDescription"]
    recovery = backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]
    return {
        **found,
        "BillingMode": found.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED"),
        "TimeToLiveSpecification": {
            "AttributeName": lives.get("AttributeName"),
            "Enabled": lives["TimeToLiveStatus"] in ("ENABLED", "ENABLING"),
        },
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": recovery == "ENABLED"},
    }


def _read_bucket(aws: Clients, physical: str, asked: Properties) -> Properties:
    client = aws.client("s3")
    encryption = _given(lambda: client.get_bucket_encryption(Bucket=physical), "ServerSideEncryptionConfiguration")
    rules = _given(lambda: client.get_bucket_lifecycle_configuration(Bucket=physical), "Rules")
    return {
        "BucketName": physical,
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [
                {
                    "ServerSideEncryptionByDefault": rule["ApplyServerSideEncryptionByDefault"],
                    "BucketKeyEnabled": rule.get("BucketKeyEnabled", False),
                }
                for rule in (encryption or {}).get("Rules", [])
            ]
        },
        "PublicAccessBlockConfiguration": _given(
            lambda: client.get_public_access_block(Bucket=physical), "PublicAccessBlockConfiguration"
        ),
        "VersioningConfiguration": {"Status": client.get_bucket_versioning(Bucket=physical).get("Status")},
        # The template's Id is the API's ID.
        "LifecycleConfiguration": {"Rules": [{**rule, "Id": rule.get("ID")} for rule in rules or []]},
    }


def _read_bucket_policy(aws: Clients, physical: str, asked: Properties) -> Properties:
    found = aws.client("s3").get_bucket_policy(Bucket=asked["Bucket"])["Policy"]
    return {"Bucket": asked["Bucket"], "PolicyDocument": json.loads(found)}


def _read_log_group(aws: Clients, physical: str, asked: Properties) -> Properties:
    found = _log_group(aws, physical)
    return {"LogGroupName": physical, "RetentionInDays": found.get("retentionInDays")}


def _read_alarm(aws: Clients, physical: str, asked: Properties) -> Properties:
    (found,) = aws.client("cloudwatch").describe_alarms(AlarmNames=[physical])["MetricAlarms"]
    return dict(found)


def _read_dashboard(aws: Clients, physical: str, asked: Properties) -> Properties:
    found = aws.client("cloudwatch").get_dashboard(DashboardName=physical)
    return {"DashboardName": physical, "DashboardBody": found["DashboardBody"]}


def _read_role(aws: Clients, physical: str, asked: Properties) -> Properties:
    client = aws.client("iam")
    found = client.get_role(RoleName=physical)["Role"]
    names = client.list_role_policies(RoleName=physical)["PolicyNames"]
    inline = [client.get_role_policy(RoleName=physical, PolicyName=name) for name in names]
    attached = client.list_attached_role_policies(RoleName=physical)["AttachedPolicies"]
    return {
        **found,
        "Policies": [{"PolicyName": one["PolicyName"], "PolicyDocument": one["PolicyDocument"]} for one in inline],
        "ManagedPolicyArns": [one["PolicyArn"] for one in attached],
    }


def _read_bus(aws: Clients, physical: str, asked: Properties) -> Properties:
    return dict(aws.client("events").describe_event_bus(Name=physical))


def _read_function(aws: Clients, physical: str, asked: Properties) -> Properties:
    client = aws.client("lambda")
    found: Properties = client.get_function(FunctionName=physical)
    configuration = found["Configuration"]
    recursion = _given(lambda: client.get_function_recursion_config(FunctionName=physical), "RecursiveLoop")
    return {
        **configuration,
        "Code": asked["Code"] if configuration["CodeSha256"] == _sha_of(aws, asked["Code"]) else None,
        "Layers": [layer["Arn"] for layer in configuration.get("Layers", [])],
        "RecursiveLoop": recursion,
        "Tags": _listed(found.get("Tags", {}), asked),
    }


def _read_layer(aws: Clients, physical: str, asked: Properties) -> Properties:
    found: Properties = aws.client("lambda").get_layer_version_by_arn(Arn=physical)
    content = asked["Content"] if found["Content"]["CodeSha256"] == _sha_of(aws, asked["Content"]) else None
    return {**found, "LayerName": physical.split(":")[-2], "Content": content}


def _read_version(aws: Clients, physical: str, asked: Properties) -> Properties:
    found: Properties = aws.client("lambda").get_function_configuration(FunctionName=physical)
    return {**found, "FunctionName": found["FunctionName"]}


def _read_alias(aws: Clients, physical: str, asked: Properties) -> Properties:
    function, _, name = physical.rpartition(":")
    found: Properties = aws.client("lambda").get_alias(FunctionName=function, Name=name)
    return {**found, "FunctionName": function.rpartition(":")[2]}


def _read_mapping(aws: Clients, physical: str, asked: Properties) -> Properties:
    client = aws.client("lambda")
    found: Properties = client.get_event_source_mapping(UUID=physical)
    function = found["FunctionArn"] if asked["FunctionName"].startswith("arn:") else found["FunctionArn"].split(":")[6]
    return {**found, "FunctionName": function, "Enabled": found["State"] in ("Enabled", "Enabling", "Creating")}


_READERS: dict[str, Callable[[Clients, str, Properties], Properties]] = {
    "AWS::CloudWatch::Alarm": _read_alarm,
    "AWS::CloudWatch::Dashboard": _read_dashboard,
    "AWS::DynamoDB::Table": _read_table,
    "AWS::Events::EventBus": _read_bus,
    "AWS::IAM::Role": _read_role,
    "AWS::Kinesis::Stream": _read_stream,
    "AWS::Lambda::Alias": _read_alias,
    "AWS::Lambda::EventSourceMapping": _read_mapping,
    "AWS::Lambda::Function": _read_function,
    "AWS::Lambda::LayerVersion": _read_layer,
    "AWS::Lambda::Version": _read_version,
    "AWS::Logs::LogGroup": _read_log_group,
    "AWS::S3::Bucket": _read_bucket,
    "AWS::S3::BucketPolicy": _read_bucket_policy,
    "AWS::SQS::Queue": _read_queue,
    "AWS::SQS::QueuePolicy": _read_queue_policy,
}


def _queue(aws: Clients, url: str) -> dict[str, str]:
    found: dict[str, str] = aws.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    return found


def _stream(aws: Clients, name: str) -> Properties:
    found: Properties = aws.client("kinesis").describe_stream_summary(StreamName=name)["StreamDescriptionSummary"]
    return found


def _log_group(aws: Clients, name: str) -> Properties:
    groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=name)["logGroups"]
    (found,) = [group for group in groups if group["logGroupName"] == name]
    return dict(found)


def _configuration(aws: Clients, name: str) -> Properties:
    found: Properties = aws.client("lambda").get_function_configuration(FunctionName=name)
    return found


def _sha_of(aws: Clients, place: Properties) -> str:
    """The hash that Lambda gives for what `sam deploy` uploaded."""
    bucket, key = place["S3Bucket"], place["S3Key"]
    body = aws.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
    return base64.b64encode(hashlib.sha256(body).digest()).decode()


def _listed(tags: dict[str, str], asked: Properties) -> list[dict[str, str]]:
    """The tags that the template asks for; CloudFormation adds its own."""
    names = [tag["Key"] for tag in asked.get("Tags", [])]
    return [{"Key": name, "Value": tags[name]} for name in names if name in tags]


def _given(ask: Callable[[], Properties], member: str) -> Any:
    """What is configured, or None: S3 answers with an error for what is not."""
    with suppress(ClientError):
        return ask().get(member)
    return None
