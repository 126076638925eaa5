"""template.yaml is written by hand for now: it must say what the handlers declare."""

from __future__ import annotations

import json
import re
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pytest
import yaml

import handlers
from pipeline import Pipeline, sinks, sources
from pipeline.aws.names import Resource
from pipeline.engine.stage import Stage
from pipeline.sources.kinesis_dead_letters import KinesisDeadLetters
from pipeline.sources.sqs_dead_letters import SQSDeadLetters, dead_letter_queue

MODULES = [import_module(f"handlers.{module.name}") for module in iter_modules(handlers.__path__)]
PIPELINES = [value for module in MODULES for value in vars(module).values() if isinstance(value, Pipeline)]
STAGES = [stage for pipeline in PIPELINES for stage in pipeline.stages()]
FROM_QUEUES = [stage for stage in STAGES if isinstance(stage.source, sources.SQS)]
FROM_STREAMS = [stage for stage in STAGES if isinstance(stage.source, sources.Kinesis)]

TYPES = {
    "sqs": "AWS::SQS::Queue",
    "kinesis": "AWS::Kinesis::Stream",
    "dynamodb": "AWS::DynamoDB::Table",
    "s3": "AWS::S3::Bucket",
    "events": "AWS::Events::EventBus",
}
TWO_WEEKS = 1_209_600  # seconds; SQS's longest retention


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms: `!Ref X` becomes {"Ref": "X"}."""


def short_form(loader: Loader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {tag: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {tag: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {tag: loader.construct_mapping(node, deep=True)}


Loader.add_multi_constructor("!", short_form)  # type: ignore[no-untyped-call]

TEMPLATE: dict[str, Any] = yaml.load(
    (Path(__file__).parent.parent / "template.yaml").read_text(),
    Loader=Loader,  # noqa: S506 - a safe loader with tags of its own
)
RESOURCES: dict[str, Any] = TEMPLATE["Resources"]


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: body["Properties"] for name, body in RESOURCES.items() if body["Type"] == kind}


FUNCTIONS = of_type("AWS::Serverless::Function")
STATEFUL = [name for kind in ("sqs", "kinesis", "dynamodb", "s3") for name in of_type(TYPES[kind])]


def handler_of(stage: Stage) -> str:
    return f"{stage.function.__module__}.{stage.name}"


def function_name(stage: Stage) -> str:
    (found,) = [name for name, one in FUNCTIONS.items() if one["Handler"] == handler_of(stage)]
    return found


def function_of(stage: Stage) -> dict[str, Any]:
    return TEMPLATE["Globals"]["Function"] | FUNCTIONS[function_name(stage)]


def mapping_of(stage: Stage) -> dict[str, Any]:
    (event,) = function_of(stage)["Events"].values()
    assert event["Type"] == type(stage.source).__name__
    properties: dict[str, Any] = event["Properties"]
    return properties


def told() -> dict[str, str]:
    """What PIPELINE_RESOURCES says: the template's name of each of the code's names."""
    text = TEMPLATE["Globals"]["Function"]["Environment"]["Variables"]["PIPELINE_RESOURCES"]["Sub"]
    found: dict[str, str] = json.loads(re.sub(r"\$\{(\w+)\}", r"\1", text))
    return found


def template_name(resource: Resource) -> str:
    return told()[f"{resource.service}:{resource.name}"]


def properties_of(resource: Resource) -> dict[str, Any]:
    properties: dict[str, Any] = RESOURCES[template_name(resource)]["Properties"]
    return properties


def dead_letters_of(stage: Stage) -> Resource:
    letters = stage.dead_letters
    if isinstance(letters, KinesisDeadLetters):
        return letters.queue
    assert isinstance(letters, SQSDeadLetters)
    return dead_letter_queue(letters.queue)


def declared_by(stage: Stage) -> list[Resource]:
    things: tuple[Any, ...] = (stage.source, stage.store, *stage.sinks)
    return [*(thing.resource for thing in things), dead_letters_of(stage)]


def statements(body: Any) -> list[dict[str, Any]]:
    if isinstance(body, dict):
        own = [body] if "Effect" in body else []
        return own + [found for value in body.values() for found in statements(value)]
    return [found for value in body for found in statements(value)] if isinstance(body, list) else []


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def pointed(reference: dict[str, str]) -> str:
    """What a reference to an ARN points at: `Queue`, or `Bucket/*`; anything else as it stands."""
    if "GetAtt" in reference:
        return reference["GetAtt"].removesuffix(".Arn")
    return re.sub(r"^\$\{(\w+)\.Arn\}", r"\1", reference["Sub"])


def granted(stage: Stage) -> dict[str, set[str]]:
    """The actions that a function's role allows, by what it allows them on."""
    role = RESOURCES[function_of(stage)["Role"]["GetAtt"].removesuffix(".Arn")]["Properties"]
    found: dict[str, set[str]] = {}
    for statement in statements(role["Policies"]):
        assert statement["Effect"] == "Allow"
        for resource in listed(statement["Resource"]):
            found.setdefault(pointed(resource), set()).update(listed(statement["Action"]))
    return found


def needed(stage: Stage) -> dict[str, set[str]]:
    """The actions that a function needs, by what it needs them on."""
    source: Any = stage.source
    store: Any = stage.store
    found: dict[str, set[str]] = {
        template_name(dead_letters_of(stage)): {"sqs:SendMessage"},
        function_of(stage)["LoggingConfig"]["LogGroup"]["Ref"]: {"logs:CreateLogStream", "logs:PutLogEvents"},
        template_name(store.resource): {"dynamodb:PutItem", "dynamodb:UpdateItem"},
    }
    if source.is_stream:
        reads = ["DescribeStream", "DescribeStreamSummary", "GetRecords", "GetShardIterator", "ListShards"]
        found[template_name(source.resource)] = {f"kinesis:{action}" for action in reads}
        bucket = pointed(mapping_of(stage)["DestinationConfig"]["OnFailure"]["Destination"])
        found |= {bucket: {"s3:ListBucket"}, f"{bucket}/*": {"s3:PutObject"}}
    else:
        reads = ["ReceiveMessage", "DeleteMessage", "GetQueueAttributes", "ChangeMessageVisibility"]
        found[template_name(source.resource)] = {f"sqs:{action}" for action in reads}
        found[template_name(store.resource)].add("dynamodb:DeleteItem")
    for sink in stage.sinks:
        objects, actions = WRITES[type(sink)]
        resource: Resource = getattr(sink, "resource")  # noqa: B009 - the port does not promise it
        found[template_name(resource) + objects] = actions
    return found


WRITES: dict[type, tuple[str, set[str]]] = {
    sinks.SQS: ("", {"sqs:SendMessage"}),
    sinks.DynamoDB: ("", {"dynamodb:BatchWriteItem"}),
    sinks.EventBridge: ("", {"events:PutEvents"}),
    sinks.S3: ("/*", {"s3:PutObject", "s3:AbortMultipartUpload"}),
}


def alarms(metric: str) -> list[Any]:
    """The dimensions of all alarms on a metric."""
    return [one["Dimensions"] for one in of_type("AWS::CloudWatch::Alarm").values() if one.get("MetricName") == metric]


every_handler = pytest.mark.parametrize("stage", STAGES, ids=handler_of)
every_queue_handler = pytest.mark.parametrize("stage", FROM_QUEUES, ids=handler_of)
every_stream_handler = pytest.mark.parametrize("stage", FROM_STREAMS, ids=handler_of)


def test_every_handler_has_its_function_and_no_function_is_without_one() -> None:
    assert sorted(one["Handler"] for one in FUNCTIONS.values()) == sorted(handler_of(stage) for stage in STAGES)
    assert len(FROM_QUEUES) + len(FROM_STREAMS) == len(STAGES), "a source that these tests do not know"


@every_handler
def test_the_function_has_the_declared_size(stage: Stage) -> None:
    function = function_of(stage)

    assert (function["Timeout"], function["MemorySize"]) == (stage.deploy.timeout, stage.deploy.memory)


@every_handler
def test_the_function_is_built_by_the_makefile(stage: Stage) -> None:
    name = function_name(stage)

    assert name.endswith("Function"), "the Makefile's target is build-%Function"
    assert RESOURCES[name]["Metadata"] == {"BuildMethod": "makefile"}


@every_queue_handler
def test_the_mapping_is_the_declared_queue(stage: Stage) -> None:
    source: Any = stage.source
    mapping = mapping_of(stage)

    assert pointed(mapping["Queue"]) == template_name(source.resource)
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["BatchSize"] == source.batch_size
    assert mapping.get("MaximumBatchingWindowInSeconds", 0) == source.batching_window
    if source.max_concurrency is not None:
        assert mapping["ScalingConfig"]["MaximumConcurrency"] == source.max_concurrency
    assert mapping["MetricsConfig"] == {"Metrics": ["EventCount"]}


@every_stream_handler
def test_the_mapping_is_the_declared_stream(stage: Stage) -> None:
    source: Any = stage.source
    mapping = dict(mapping_of(stage))

    assert pointed(mapping.pop("Stream")) == template_name(source.resource)
    assert pointed(mapping.pop("DestinationConfig")["OnFailure"]["Destination"]) in of_type(TYPES["s3"])
    assert mapping == {
        "BatchSize": source.batch_size,
        "MaximumBatchingWindowInSeconds": source.batching_window,
        "StartingPosition": source.starting_position,
        "ParallelizationFactor": source.parallelization_factor,
        "BisectBatchOnFunctionError": source.bisect,
        "MaximumRetryAttempts": source.retry_attempts,
        "MaximumRecordAgeInSeconds": source.max_record_age,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
        "MetricsConfig": {"Metrics": ["EventCount"]},
    }


@every_queue_handler
def test_the_queue_leaves_room_for_six_runs_and_its_net_is_the_declared_one(stage: Stage) -> None:
    source: Any = stage.source
    queue = properties_of(source.resource)

    assert queue["VisibilityTimeout"] == 6 * stage.deploy.timeout + source.batching_window
    assert queue["RedrivePolicy"]["maxReceiveCount"] == source.max_receive_count
    assert pointed(queue["RedrivePolicy"]["deadLetterTargetArn"]) == template_name(dead_letters_of(stage))
    assert bool(queue.get("FifoQueue")) == source.is_fifo


@every_stream_handler
def test_the_stream_keeps_records_longer_than_the_mapping_tries_them(stage: Stage) -> None:
    source: Any = stage.source
    stream = properties_of(source.resource)

    assert source.max_record_age != -1, "a shard would stop until its records expire"
    assert stream["RetentionPeriodHours"] * 3600 > source.max_record_age
    assert stream.get("ShardCount") == source.shards
    assert stream["StreamModeDetails"]["StreamMode"] == ("ON_DEMAND" if source.shards is None else "PROVISIONED")


@every_handler
def test_dead_letters_are_kept_as_long_as_sqs_allows(stage: Stage) -> None:
    assert properties_of(dead_letters_of(stage))["MessageRetentionPeriod"] == TWO_WEEKS


@every_handler
def test_the_role_allows_exactly_what_the_handler_needs(stage: Stage) -> None:
    assert granted(stage) == needed(stage)


def test_the_code_is_told_every_declared_resource_and_no_other() -> None:
    declared = [resource for stage in STAGES for resource in declared_by(stage)]

    assert {f"{resource.service}:{resource.name}" for resource in declared} == set(told())
    assert len(set(told().values())) == len(told()), "two of them are one"
    for resource in declared:
        assert RESOURCES[template_name(resource)]["Type"] == TYPES[resource.service]


def test_no_allowance_has_a_wildcard_but_the_objects_of_one_bucket() -> None:
    buckets = of_type(TYPES["s3"])
    allowances = [statement for statement in statements(RESOURCES) if statement["Effect"] == "Allow"]
    assert allowances
    for statement in allowances:
        assert "*" not in json.dumps(statement["Action"]), statement
        assert not {"NotAction", "NotResource"} & set(statement), statement
        for reference in listed(statement.get("Resource", [])):
            assert isinstance(reference, dict), f"written out, not referred to: {reference}"
            name, slash, objects = pointed(reference).partition("/")
            assert name in RESOURCES, statement
            assert slash + objects in ("", "/*" if name in buckets else ""), statement


def test_a_bucket_is_written_to_only_while_it_is_ours() -> None:
    """A bucket's ARN names no account: one that was deleted may be somebody else's by now."""
    for statement in statements(RESOURCES):
        if statement["Effect"] == "Allow" and "s3:" in json.dumps(statement["Action"]):
            assert statement["Condition"] == {"StringEquals": {"s3:ResourceAccount": {"Ref": "AWS::AccountId"}}}


def test_every_queue_and_bucket_refuses_plain_text() -> None:
    refused: dict[str, set[str]] = {}
    for name in of_type("AWS::SQS::QueuePolicy") | of_type("AWS::S3::BucketPolicy"):
        properties = RESOURCES[name]["Properties"]
        (policed,) = [one["Ref"] for one in listed(properties.get("Queues") or properties["Bucket"])]
        (statement,) = statements(properties)
        assert (statement["Effect"], statement["Principal"]) == ("Deny", "*")
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        assert statement["Action"] == ("sqs:*" if "Queues" in properties else "s3:*")
        refused[policed] = {pointed(reference) for reference in listed(statement["Resource"])}

    assert refused == {name: {name} for name in of_type(TYPES["sqs"])} | {
        name: {name, f"{name}/*"} for name in of_type(TYPES["s3"])
    }


def test_what_is_at_rest_is_encrypted() -> None:
    for queue in of_type(TYPES["sqs"]).values():
        assert queue["SqsManagedSseEnabled"] is True
    for stream in of_type(TYPES["kinesis"]).values():
        assert stream["StreamEncryption"] == {"EncryptionType": "KMS", "KeyId": "alias/aws/kinesis"}
    for bucket in of_type(TYPES["s3"]).values():
        (rule,) = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}


@pytest.mark.parametrize("bucket", of_type(TYPES["s3"]))
def test_a_bucket_is_never_public_and_pays_for_no_incomplete_upload(bucket: str) -> None:
    properties = RESOURCES[bucket]["Properties"]
    rules = properties["LifecycleConfiguration"]["Rules"]
    aborting = [rule for rule in rules if "AbortIncompleteMultipartUpload" in rule]

    blocked = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
    assert properties["PublicAccessBlockConfiguration"] == dict.fromkeys(blocked, True)
    assert [rule["Status"] for rule in aborting] == ["Enabled"]
    assert all(not {"Prefix", "Filter"} & set(rule) for rule in aborting), "not all of the bucket"
    assert all("ExpirationInDays" not in rule for rule in rules), "an archive that forgets"


@pytest.mark.parametrize("name", STATEFUL)
def test_what_holds_data_outlives_the_stack(name: str) -> None:
    assert RESOURCES[name]["DeletionPolicy"] == RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


@every_handler
def test_somebody_is_told_of_errors_throttles_dead_letters_and_lateness(stage: Stage) -> None:
    source: Any = stage.source
    function = [{"Name": "FunctionName", "Value": {"Ref": function_name(stage)}}]
    letters = [{"Name": "QueueName", "Value": {"GetAtt": f"{template_name(dead_letters_of(stage))}.QueueName"}}]

    assert function in alarms("Errors")
    assert function in alarms("Throttles")
    assert letters in alarms("ApproximateNumberOfMessagesVisible")
    if source.is_stream:
        assert function in alarms("IteratorAge")
    else:
        queue = [{"Name": "QueueName", "Value": {"GetAtt": f"{template_name(source.resource)}.QueueName"}}]
        assert queue in alarms("ApproximateAgeOfOldestMessage")


@every_stream_handler
def test_somebody_is_told_of_what_the_mapping_gave_up(stage: Stage) -> None:
    (event,) = function_of(stage)["Events"]
    # The name that SAM gives to a function's mapping; its reference is the mapping's UUID.
    mapping = [{"Name": "EventSourceMappingUUID", "Value": {"Ref": function_name(stage) + event}}]
    watched = [
        [query["MetricStat"]["Metric"] for query in one["Metrics"] if "MetricStat" in query]
        for one in of_type("AWS::CloudWatch::Alarm").values()
        if "Metrics" in one
    ]

    assert [
        {"Namespace": "AWS/Lambda", "MetricName": metric, "Dimensions": mapping}
        for metric in ("OnFailureDestinationDeliveredEventCount", "DroppedEventCount")
    ] in watched


def test_every_alarm_can_notify() -> None:
    for name, alarm in of_type("AWS::CloudWatch::Alarm").items():
        assert alarm["AlarmActions"]["If"][:2] == ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}]], name
