"""Whatever stands in a template, the linter ends with findings and not with an error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.deploy import lint
from pipeline.deploy.lint.code import Finder
from tests.deploy.lint.test_rules import HERE, TEMPLATES, TODAY

NAMES = st.sampled_from(
    ["Orders", "Letters", "Clicks", "Price", "Read", "Live", "Stage", "AWS::NoValue", "AWS::Region", ""]
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2000)
    | NAMES
    | st.sampled_from(
        [
            "python3.9",
            "app.handler",
            "arn:aws:sqs:eu-west-1:1:orders",
            "${Orders.Arn}",
            "SQS",
            "Kinesis",
            "ReportBatchItemFailures",
        ]
    )
)
FUNCTIONS = st.sampled_from(
    [
        "Ref",
        "Fn::GetAtt",
        "Fn::Sub",
        "Fn::If",
        "Fn::Join",
        "Fn::FindInMap",
        "Fn::Transform",
        "Fn::Equals",
        "Condition",
        "Fn::Odd",
    ]
)
KEYS = st.sampled_from(
    ["Type", "Properties", "Condition", "Metadata", "Pipeline", "Ignore", "Rule", "Reason", "QueueName", "FifoQueue", "VisibilityTimeout", "RedrivePolicy", "deadLetterTargetArn", "maxReceiveCount", "MessageRetentionPeriod", "SqsManagedSseEnabled", "Timeout", "Runtime", "Handler", "CodeUri", "Code", "ZipFile", "InlineCode", "ReservedConcurrentExecutions", "Events", "Queue", "Stream", "BatchSize", "MaximumBatchingWindowInSeconds", "Enabled", "FunctionResponseTypes", "ScalingConfig", "MaximumConcurrency", "ProvisionedPollerConfig", "FilterCriteria", "Filters", "MetricsConfig", "Metrics", "FunctionName", "EventSourceArn", "StartingPosition", "MaximumRetryAttempts", "MaximumRecordAgeInSeconds", "Environment", "DestinationConfig", "OnFailure", "Destination", "TumblingWindowInSeconds", "ParallelizationFactor", "RetentionPeriodHours", "Variables", "StreamEncryption", "StreamARN", "Dimensions", "Value", "Namespace", "MetricName", "Policies", "Statement", "Role", "Name"]
)  # fmt: skip
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KEYS | NAMES, inner, max_size=4)
        | st.builds(lambda name, argument: {name: argument}, FUNCTIONS, inner)
    ),
    max_leaves=10,
)
TYPES = st.sampled_from(
    ["AWS::SQS::Queue", "AWS::Kinesis::Stream", "AWS::Kinesis::StreamConsumer", "AWS::Lambda::Function", "AWS::Serverless::Function", "AWS::Lambda::EventSourceMapping", "AWS::Lambda::Alias", "AWS::CloudWatch::Alarm", "AWS::DynamoDB::Table", "AWS::IAM::Role"]
)  # fmt: skip
RESOURCES = st.dictionaries(
    NAMES,
    ANYTHING
    | st.fixed_dictionaries(
        {"Type": TYPES, "Properties": st.dictionaries(KEYS, ANYTHING, max_size=6) | ANYTHING},
        optional={"Condition": NAMES, "Metadata": ANYTHING},
    ),
    max_size=5,
)
DOCUMENTS = st.fixed_dictionaries(
    {"Resources": RESOURCES},
    optional={
        "Parameters": st.dictionaries(NAMES, ANYTHING, max_size=3),
        "Conditions": st.dictionaries(NAMES, ANYTHING, max_size=3),
        "Mappings": st.dictionaries(NAMES, ANYTHING, max_size=2),
        "Globals": st.dictionaries(st.just("Function"), ANYTHING) | ANYTHING,
    },
)


def linted(document: dict[str, Any]) -> list[lint.Finding]:
    try:
        root = lint.read(json.dumps(document, indent=1).encode())
    except lint.UnreadableTemplate:
        return []  # `{"Resources": {"Ref": "X"}}` is no mapping
    return lint.lint(root, code=Finder(HERE).find, today=TODAY)


@settings(max_examples=300)
@given(DOCUMENTS)
def test_any_document_is_linted(document: dict[str, Any]) -> None:
    lines = json.dumps(document, indent=1).count("\n") + 1
    for finding in linted(document):
        assert 1 <= finding.line <= lines
        assert finding.message


GOOD = json.loads((HERE / "good" / "plain.json").read_text())


def paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    members = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(inner for key, value in members for inner in paths(value, (*path, key)))]


@settings(max_examples=200)
@given(st.sampled_from(paths(GOOD)[1:]), ANYTHING)
def test_anything_may_stand_anywhere(path: tuple[Any, ...], value: Any) -> None:
    document = json.loads(json.dumps(GOOD))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    linted(document)


@pytest.mark.parametrize("path", sorted(TEMPLATES.iterdir()), ids=lambda path: path.stem)
def test_an_unknown_value_gives_no_finding_by_itself(path: Any) -> None:
    """The line that a rule finds, with an import in the place of its value."""
    text = path.read_text()
    (line,) = [one for one in text.splitlines() if one.endswith("# here")]
    key, _, value = line.removesuffix(" # here").partition(": ")
    if not value or value.endswith((">-", "|")) or "Ignore" in text:
        return  # what is missing is not unknown, and a text of several lines is not taken out here
    unknown = text.replace(line, f"{key}: !ImportValue something")
    assert path.stem not in [one.rule.id for one in lint.lint(lint.read(unknown.encode()), today=TODAY)]
