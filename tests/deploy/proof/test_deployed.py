"""What `sam deploy` made, read back through each service and held against the template, property by property."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from tests.deploy.proof import read_back
from tests.deploy.proof.compare import differences
from tests.deploy.proof.deployment import Resource, Stack
from tests.deploy.proof.ministack import MiniStack
from tests.deploy.proof.shortfalls import LEFT_OUT, NOT_KEPT, NotKept, deployable, left_out, taken_by_model
from tests.deploy.proof.tools import CREDENTIALS, ROOT

pytestmark = pytest.mark.timeout(400)  # the first test builds and deploys

_DOCUMENT = ROOT / "docs/deploy.md"


@pytest.fixture(params=["stack", "other_stack", "wide_stack"])
def any_stack(request: pytest.FixtureRequest) -> Stack:
    found: Stack = request.getfixturevalue(request.param)
    return found


def wrong(aws: Any, resource: Resource, name: str) -> list[str]:
    """What is different in one property of a resource."""
    found = read_back.properties(aws, resource.kind, resource.physical, resource.asked)
    return list(differences(resource.asked[name], found.get(name), name))


def not_kept(stack: Stack) -> Iterator[tuple[NotKept, str, Resource]]:
    """Each property of the stack that is said not to be kept."""
    for shortfall in NOT_KEPT:
        for name, resource in stack.of_type(shortfall.kind).items():
            if shortfall.name in resource.asked:
                yield shortfall, name, resource


def test_every_resource_of_the_template_stands_in_the_stack(any_stack: Stack) -> None:
    deployed = any_stack.template["Resources"]

    assert {name: kind for name, (kind, _) in any_stack.physical.items()} == {
        name: one["Type"] for name, one in deployed.items()
    }
    assert len(deployed) > 30


def test_what_was_deployed_is_the_projects_template(any_stack: Stack) -> None:
    """But for the code's place, and what is said to be left out."""
    expected = deployable(any_stack.complete)["Resources"]
    names = same_layers(expected, any_stack.template["Resources"])
    renamed = json.loads(replaced(json.dumps(expected), names))

    assert without_code(renamed) == without_code(any_stack.template["Resources"])


def same_layers(expected: dict[str, Any], found: dict[str, Any]) -> dict[str, str]:
    """SAM hashes the place of a layer or a version into its name."""
    kinds = ("AWS::Lambda::LayerVersion", "AWS::Lambda::Version")
    pairs = zip(
        *[[name for name, one in side.items() if one["Type"] in kinds] for side in (expected, found)], strict=True
    )
    return dict(pairs)


def replaced(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(f'"{old}', f'"{new}')
    return text


def without_code(resources: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {member: value for member, value in one["Properties"].items() if member not in ("Code", "Content")}
        for name, one in resources.items()
    }


def test_every_property_is_what_the_template_says(any_stack: Stack) -> None:
    excused = {(shortfall.kind, shortfall.name) for shortfall in NOT_KEPT}
    problems, compared = list[str](), 0
    for name, resource in any_stack.resources.items():
        found = read_back.properties(any_stack.aws, resource.kind, resource.physical, resource.asked)
        for member, asked in resource.asked.items():
            if (resource.kind, member) not in excused:
                compared += 1
                problems += [f"{name}.{one}" for one in differences(asked, found.get(member), member)]

    assert problems == []
    assert compared > 150


def test_every_output_is_what_the_template_says(any_stack: Stack) -> None:
    (found,) = any_stack.aws.client("cloudformation").describe_stacks(StackName=any_stack.name)["Stacks"]
    asked = any_stack.resolver.resolve(any_stack.template["Outputs"])

    assert {one["OutputKey"]: one["OutputValue"] for one in found["Outputs"]} == {
        name: one["Value"] for name, one in asked.items()
    }


def test_the_other_stack_has_other_values(stack: Stack, other_stack: Stack) -> None:
    """So that the parameters and both sides of the conditions are proved."""
    names = stack.template["Parameters"]
    assert not [name for name in names if stack.resolver.references[name] == other_stack.resolver.references[name]]
    assert not [name for name in names if not other_stack.resolver.references[name]]
    alarms = other_stack.of_type("AWS::CloudWatch::Alarm").values()
    assert all(alarm.asked["AlarmActions"] == [other_stack.resolver.references["AlarmTopicArn"]] for alarm in alarms)


def test_a_dashboard_is_json_behind_its_references(any_stack: Stack) -> None:
    for one in any_stack.of_type("AWS::CloudWatch::Dashboard").values():
        found = any_stack.aws.client("cloudwatch").get_dashboard(DashboardName=one.physical)
        assert json.loads(found["DashboardBody"])["widgets"]


def test_what_is_said_not_to_be_kept_is_not_kept(other_stack: Stack) -> None:
    """Otherwise the line in the table goes."""
    kept = {
        f"{resource.kind}.{shortfall.name}"
        for shortfall, _, resource in not_kept(other_stack)
        if not wrong(other_stack.aws, resource, shortfall.name)
    }

    assert kept == set()


def test_what_cloudformation_drops_here_is_taken_by_the_services_themselves(stack: Stack) -> None:
    problems, applied = list[str](), 0
    for shortfall, name, resource in not_kept(stack):
        if shortfall.apply is not None:
            applied += 1
            shortfall.apply(stack.aws, resource.physical, resource.asked[shortfall.name])
            problems += [f"{name}.{one}" for one in wrong(stack.aws, resource, shortfall.name)]

    assert problems == []
    assert applied


def test_what_no_stand_in_keeps_is_right_by_the_services_own_model(stack: Stack) -> None:
    operations: dict[str, tuple[str, str, Callable[[Any], dict[str, Any]]]] = {
        "AWS::Lambda::EventSourceMapping": (
            "lambda",
            "CreateEventSourceMapping",
            lambda asked: {"MetricsConfig": asked},
        ),
        "AWS::Logs::LogGroup": ("logs", "PutIndexPolicy", lambda asked: {"policyDocument": json.dumps(asked[0])}),
    }
    problems, held = list[str](), 0
    for shortfall, name, resource in not_kept(stack):
        if shortfall.apply is None:
            held += 1
            service, operation, given = operations[shortfall.kind]
            problems += [
                f"{name}: {one}" for one in taken_by_model(service, operation, given(resource.asked[shortfall.name]))
            ]

    assert problems == []
    assert held
    assert taken_by_model("lambda", "CreateEventSourceMapping", {"MetricsConfig": {"Metrics": ["Bogus"]}})


@pytest.mark.parametrize("name", ["stack", "wide_stack"])
def test_alarms_on_metric_math_are_taken_by_motos_cloudwatch(
    name: str, request: pytest.FixtureRequest, moto_endpoint: str
) -> None:
    found: Stack = request.getfixturevalue(name)
    client = boto3.client(
        "cloudwatch", endpoint_url=moto_endpoint, region_name="us-east-1",
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
    )  # fmt: skip
    alarms = [one for one in left_out(found.complete) if "Metrics" in found.complete["Resources"][one]["Properties"]]
    assert alarms
    for alarm in alarms:
        asked = found.resolver.resolve(found.complete["Resources"][alarm]["Properties"])
        client.put_metric_alarm(AlarmName=alarm, **asked)
        (kept,) = client.describe_alarms(AlarmNames=[alarm])["MetricAlarms"]
        assert list(differences(asked, kept)) == [], alarm
    client.close()


def test_deploying_again_changes_nothing(stack: Stack) -> None:
    _, text = stack.deploy()

    assert "No changes to deploy" in text


def test_the_document_names_every_shortfall() -> None:
    text = _DOCUMENT.read_text()
    for shortfall in NOT_KEPT:
        assert f"| `{shortfall.kind}` | `{shortfall.name}` | {shortfall.instead} |" in text
    for one in LEFT_OUT:
        assert f"| `{one.kind}` | {one.what} | {one.instead} |" in text


def test_deleting_takes_everything_but_what_is_to_be_retained(other_stack: Stack) -> None:
    """The last one of its stack."""
    resources, template = other_stack.resources, other_stack.template["Resources"]
    retained = {name for name, one in template.items() if one.get("DeletionPolicy", "").startswith("Retain")}
    assert all(is_there(other_stack.aws, resource) for resource in resources.values())

    other_stack.delete()

    assert {name for name, resource in resources.items() if is_there(other_stack.aws, resource)} == retained
    data = ("AWS::SQS::Queue", "AWS::DynamoDB::Table", "AWS::Kinesis::Stream", "AWS::S3::Bucket")
    assert retained >= {name for name, one in template.items() if one["Type"] in data}


def is_there(aws: MiniStack, resource: Resource) -> bool:
    names = resource.asked.keys() - {"Queues", "Bucket"}  # of a policy: those it is for, which outlive it
    try:
        found = read_back.properties(aws, resource.kind, resource.physical, resource.asked)
    except (ClientError, ValueError):
        return False
    return any(found.get(name) is not None for name in names)
