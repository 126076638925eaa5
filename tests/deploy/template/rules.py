"""What holds for every generated template, whatever was declared."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import Pipeline
from pipeline.aws.cloudformation.values import plain
from pipeline.deploy.template import document
from pipeline.deploy.template.assembly import Template
from pipeline.deploy.template.assembly import template as template_of
from tests.deploy.template.reading import (
    expanded,
    filled,
    listed,
    places,
    read,
    references,
    statements,
    walk,
)

#: CloudFormation's largest template body, in bytes, from S3. (51,200 when it is given directly: `sam deploy` uploads.)
LARGEST = 1_000_000
#: Characters that a reader's window should hold. The dashboard's JSON has longer lines.
WIDEST = 150
#: What `!GetAtt` may ask of each type (AWS resource types reference, 2026).
ATTRIBUTES = {
    "AWS::SQS::Queue": {"Arn", "QueueName", "QueueUrl"},
    "AWS::Kinesis::Stream": {"Arn"},
    "AWS::DynamoDB::Table": {"Arn", "StreamArn"},
    "AWS::S3::Bucket": {"Arn", "DomainName"},
    "AWS::Events::EventBus": {"Arn", "Name"},
    "AWS::Lambda::Function": {"Arn"},
    "AWS::IAM::Role": {"Arn", "RoleId"},
    "AWS::Logs::LogGroup": {"Arn"},
    "AWS::CloudWatch::Alarm": {"Arn"},
    "AWS::Lambda::Version": {"Version", "FunctionArn"},
}
PSEUDO = {"AWS::AccountId", "AWS::NoValue", "AWS::Partition", "AWS::Region", "AWS::StackName", "AWS::URLSuffix"}
NAMES = ("QueueName", "Name", "TableName", "BucketName", "FunctionName", "RoleName", "DashboardName", "AlarmName")


@dataclass(frozen=True)
class Generated:
    """A template that obeys the rules below, as it stands in the file and as SAM expands it."""

    template: Template
    text: str
    value: dict[str, Any]
    plain: dict[str, Any]

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """The properties of each resource of a type, before the transform."""
        found = self.value["Resources"].items()
        return {name: body["Properties"] for name, body in found if body["Type"] == kind}

    def function(self, name: str) -> dict[str, Any]:
        """A function's properties by its handler's name."""
        found = self.of_type("AWS::Serverless::Function").values()
        (one,) = [function for function in found if function["Handler"].endswith(f".{name}")]
        return one

    def told(self, name: str) -> dict[str, str]:
        """What a function is told about resources: `${X}` as X."""
        variables = self.function(name)["Environment"]["Variables"]
        found: dict[str, str] = json.loads(filled(variables["PIPELINE_RESOURCES"]["Fn::Sub"]))
        return found

    def mapping(self, name: str) -> dict[str, Any]:
        """The properties of a function's event source mapping."""
        (event,) = self.function(name)["Events"].values()
        found: dict[str, Any] = event["Properties"]
        return found

    def granted(self, name: str) -> dict[str, set[str]]:
        """The actions that a function's role allows, by what it allows them on: `Queue`, `Bucket/*`, an ARN."""
        role = self.value["Resources"][self.function(name)["Role"]["Fn::GetAtt"][0]]["Properties"]
        found: dict[str, set[str]] = {}
        for statement in statements(role["Policies"]):
            for resource in listed(statement["Resource"]):
                found.setdefault(pointed(resource), set()).update(listed(statement["Action"]))
        return found

    @property
    def functions(self) -> list[str]:
        """The handlers' names."""
        return [one["Handler"].rpartition(".")[2] for one in self.of_type("AWS::Serverless::Function").values()]


def pointed(reference: Any) -> str:
    """What a reference to an ARN points at: `Queue`, or `Bucket/*`; anything else as it stands."""
    match reference:
        case {"Fn::GetAtt": [name, "Arn"]}:
            return str(name)
        case {"Ref": name}:
            return str(name)
        case {"Fn::Sub": text}:
            return re.sub(r"\$\{(\w+)\.Arn\}", r"\1", text)
        case _:
            return str(reference)


def generate(*pipelines: Pipeline, layer: bool = False) -> Generated:
    """The template of these pipelines, held against every rule of this module."""
    made = template_of(pipelines, layer=layer)
    text = document.text_of(made, "A head.")
    values = {name: plain(section) for name, section in made.sections.items()}
    assert read(text) == values, "YAML 1.1 reads something else"
    check_layout(text)
    found = Generated(made, text, values, expanded(values))
    check_template(values, found.plain)
    return found


def check_layout(text: str) -> None:
    """Raise for text that reads badly: comments beside their key's column, long lines, no end of the last line."""
    assert len(text.encode()) < LARGEST
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    lines = text.split("\n")
    assert all(line == line.rstrip() for line in lines), [line for line in lines if line != line.rstrip()]
    in_dashboard = False
    for position, line in enumerate(lines):
        in_dashboard = "DashboardBody" in line or (in_dashboard and line.startswith(" " * 8))
        # What has no spaces cannot be broken: a filter's pattern, an ARN.
        assert in_dashboard or len(line) <= WIDEST or max(map(len, line.split())) > WIDEST // 4, line
        if line.lstrip().startswith("#") and not in_dashboard:
            following = next((one for one in lines[position:] if one.strip() and not one.lstrip().startswith("#")), "")
            column = len(following) - len(following.lstrip())
            assert line.index("#") == column, f"a comment in another column than what it is about: {line!r}"


def check_template(template: dict[str, Any], plainly: dict[str, Any]) -> None:
    """Raise for a template that CloudFormation, IAM or Lambda would refuse, or that allows too much."""
    resources: dict[str, Any] = plainly["Resources"]
    _check_names(template, plainly)
    for one in (template["Resources"], template["Outputs"], plainly):
        check_references(one, {**template["Resources"], **resources}, set(template["Parameters"]))
    check_no_circle(resources)
    _check_policies(resources)
    _check_functions(resources)
    _check_alarms(resources)
    for dashboard in _of(resources, "AWS::CloudWatch::Dashboard"):
        body = json.loads(filled(dashboard["DashboardBody"]["Fn::Sub"]))
        assert 0 < len(body["widgets"]) <= 500
        for widget in body["widgets"]:
            assert widget["x"] + widget["width"] <= 24


def check_references(value: Any, resources: dict[str, Any], parameters: set[str]) -> None:
    """Raise for a reference to what is not there, or for an attribute that it does not have."""
    for name, attribute in references(value):
        if attribute is None and (name in parameters or name in PSEUDO):
            continue
        assert name in resources, f"nothing is named {name}"
        kind = resources[name]["Type"]
        if attribute is not None and not kind.startswith("AWS::Serverless::"):
            assert attribute in ATTRIBUTES[kind], f"a {kind} has no {attribute}"
    for one in walk(value):
        if "Fn::If" in one:
            assert one["Fn::If"][0] == "HasAlarmTopic"


def check_no_circle(resources: dict[str, Any]) -> None:
    """Raise for resources that wait for each other."""
    needs = {name: {one for one, _ in references(body) if one in resources} for name, body in resources.items()}
    for name, body in resources.items():
        needs[name] |= set(listed(body.get("DependsOn", [])))
    while needs:
        free = {name for name, needed in needs.items() if not needed & set(needs)}
        assert free, f"they wait for each other: {sorted(needs)}"
        needs = {name: needed for name, needed in needs.items() if name not in free}


def _check_names(template: dict[str, Any], plainly: dict[str, Any]) -> None:
    assert len(template["Description"].encode()) <= 1_024
    sections = [template[section] for section in ("Parameters", "Conditions", "Resources")]
    names = Counter(name for section in sections for name in section)
    assert max(names.values()) == 1, names.most_common(1)
    for name in [*names, *template["Outputs"], *plainly["Resources"]]:
        assert re.fullmatch(r"[A-Za-z0-9]{1,255}", name), name
    physical = Counter(
        (body["Type"], json.dumps(body["Properties"][key]))
        for body in plainly["Resources"].values()
        for key in NAMES
        if key in body.get("Properties", {}) and body["Type"] != "AWS::Lambda::Alias"  # a function's own
    )
    assert not physical or max(physical.values()) == 1, physical.most_common(1)
    for queue in _of(plainly["Resources"], "AWS::SQS::Queue"):
        assert re.fullmatch(
            r"[A-Za-z0-9_-]{1,80}(\.fifo)?", filled(queue["QueueName"]["Fn::Sub"], **{"AWS::StackName": "s"})
        )
        assert queue.get("FifoQueue", False) is queue["QueueName"]["Fn::Sub"].endswith(".fifo")


def _check_policies(resources: dict[str, Any]) -> None:
    for role in _of(resources, "AWS::IAM::Role"):
        assert "ManagedPolicyArns" not in role
        for policy in role["Policies"]:
            assert re.fullmatch(r"[\w+=,.@-]{1,128}", policy["PolicyName"], re.ASCII), "IAM's form of a name"
            sids = [statement["Sid"] for statement in policy["PolicyDocument"]["Statement"]]
            assert len(set(sids)) == len(sids), f"IAM refuses a policy with one Sid twice: {sids}"
            assert all(re.fullmatch(r"[A-Za-z0-9]+", sid) for sid in sids)
    allowances = [statement for statement in statements(resources) if statement["Effect"] == "Allow"]
    assert allowances
    for statement in allowances:
        assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement)
        assert "*" not in json.dumps([statement["Action"], statement.get("Principal")]), statement
        for resource in listed(statement.get("Resource", [])):
            said = pointed(resource)
            is_bucket = resources.get(said.removesuffix("/*"), {}).get("Type") == "AWS::S3::Bucket" or ":s3:::" in said
            assert "*" not in (said.removesuffix("/*") if is_bucket else said), f"too much: {said}"
        if "s3:" in json.dumps(statement["Action"]) and ":s3:::" not in json.dumps(statement["Resource"]):
            ours = {"StringEquals": {"s3:ResourceAccount": {"Ref": "AWS::AccountId"}}}
            assert statement["Condition"] == ours, "a deleted bucket's name may be somebody else's by now"


def _check_functions(resources: dict[str, Any]) -> None:
    for function in _of(resources, "AWS::Lambda::Function"):
        assert len(function.get("Description", "")) <= 256
        assert re.fullmatch(r"[^\s]{1,128}", function["Handler"])
        variables = function.get("Environment", {}).get("Variables", {})
        said = [one["Fn::Sub"] if isinstance(one, dict) else one for one in variables.values()]
        assert all(isinstance(one, str) for one in said)
        assert sum(len(text.encode()) for text in [*variables, *said]) <= 4_096
        assert function["LoggingConfig"]["LogGroup"]["Ref"] in resources
    for mapping in _of(resources, "AWS::Lambda::EventSourceMapping"):
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        assert mapping["MetricsConfig"] == {"Metrics": ["EventCount"]}


def _check_alarms(resources: dict[str, Any]) -> None:
    for alarm in _of(resources, "AWS::CloudWatch::Alarm"):
        assert alarm["AlarmActions"]["Fn::If"][:2] == ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}]]
        assert {"EvaluationPeriods", "Threshold", "ComparisonOperator", "AlarmDescription"} <= set(alarm)
        if "Metrics" not in alarm:
            continue
        (expression,) = [one for one in alarm["Metrics"] if "Expression" in one]
        others = {one["Id"] for one in alarm["Metrics"]} - {expression["Id"]}
        used = set(re.findall(r"\b[a-z][a-z0-9_]*\b", expression["Expression"]))
        assert used == others, "an expression over other metrics than the alarm's"
        assert all(one["ReturnData"] is False for one in alarm["Metrics"] if one is not expression)


def _of(resources: dict[str, Any], kind: str) -> Sequence[dict[str, Any]]:
    return [body["Properties"] for body in resources.values() if body["Type"] == kind]


def unfilled(text: str) -> list[str]:
    """What a `!Sub` would fill that is neither of the template nor of AWS: for messages."""
    return [place for place in places(text) if place not in PSEUDO]
