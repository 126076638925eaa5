"""A SAM template says the same before and after AWS's own transform to plain CloudFormation."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from pipeline.deploy import lint
from pipeline.deploy.lint import suppression
from pipeline.deploy.lint.rules import mappings, queues, runtimes, streams
from tests.deploy.lint.test_rules import HERE, ROOT, TEMPLATES, TODAY

RULES = {rule.id for topic in (mappings, queues, runtimes, streams) for rule, _ in topic.CHECKS}
#: By what the handler's code is known, which the transform hides.
BY_CODE = {"failure-report-ignored", "failure-report-missing", "tumbling-window-unsupported"}
SAM = [
    path
    for path in [*sorted(TEMPLATES.iterdir()), HERE / "good" / "sam.yaml", ROOT / "template.yaml"]
    if "Transform: AWS::Serverless" in path.read_text() and path.stem not in BY_CODE
]
#: The managed policies that SAM attaches, by their names.
MANAGED = {
    name: f"arn:aws:iam::aws:policy/service-role/{name}"
    for name in (
        "AWSLambdaBasicExecutionRole",
        "AWSLambdaSQSQueueExecutionRole",
        "AWSLambdaKinesisExecutionRole",
        "AWSLambdaDynamoDBExecutionRole",
    )
}


def transformed(text: str) -> dict[str, Any]:
    template: dict[str, Any] = yaml_parse(text)
    template.get("Globals", {}).get("Function", {}).pop("CodeUri", None)
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"].pop("InlineCode", None)
            resource["Properties"]["CodeUri"] = "s3://builds/code.zip"
    translator = Translator(MANAGED, Parser(), boto_session=boto3.Session(region_name="eu-west-1"))
    parameters = {name: "x" for name, body in template.get("Parameters", {}).items() if "Default" not in body}
    plain: dict[str, Any] = translator.translate(template, parameters)
    return plain


def findings(data: bytes, today: datetime.date = TODAY) -> set[tuple[str, str]]:
    """The rules and the resources that they are about; of a mapping, its own logical id."""
    found = [one for one in lint.lint(lint.read(data), today=today) if one.rule.id in RULES]
    return {(one.rule.id, one.subject.replace(".", "")) for one in found}


@pytest.mark.parametrize("path", SAM, ids=lambda path: path.stem)
def test_nothing_is_found_on_one_side_only(path: Path) -> None:
    text = path.read_text()
    assert findings(json.dumps(transformed(text)).encode()) == findings(text.encode())


def test_something_is_compared() -> None:
    found = {rule for path in SAM for rule, _ in findings(path.read_bytes())}

    assert len(found) > 15
    assert not found & {rule.id for rule in suppression.RULES}
