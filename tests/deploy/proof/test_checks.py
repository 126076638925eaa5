"""What linters say of the template; that they find nothing is the step `template` of .ci/run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.proof.deployment import generate
from tests.deploy.proof.shortfalls import taken_by_model
from tests.deploy.proof.tools import ROOT, attempt, clean_environment, run
from tests.deploy.proof.translate import read, translated

TEMPLATE = read((ROOT / "template.yaml").read_text())
_SECONDS = 120


def skips(resource: dict[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = resource.get("Metadata", {}).get("checkov", {}).get("skip", [])
    return found


@pytest.mark.timeout(400)
def test_every_suppressed_check_would_fail_and_says_why_that_is_right(one_process: None, tmp_path: Path) -> None:
    suppressed = {(name, one["id"]) for name, resource in TEMPLATE["Resources"].items() for one in skips(resource)}
    bare = json.loads(json.dumps(TEMPLATE))
    for resource in bare["Resources"].values():
        resource.get("Metadata", {}).pop("checkov", None)

    assert failed_checks(bare, tmp_path) == suppressed
    comments = [one["comment"] for resource in TEMPLATE["Resources"].values() for one in skips(resource)]
    assert all(len(comment) > 30 for comment in comments)


@pytest.mark.timeout(400)
def test_the_template_of_other_declarations_is_clean_too(one_process: None, tmp_path: Path) -> None:
    path = generate("tests.deploy.proof.wide", tmp_path)
    template = read(path.read_text())
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(translated(template), indent=1))

    for file in (path, plain):
        run("cfn-lint", "--template", file, "--regions", "us-east-1", environment=clean_environment(), timeout=_SECONDS)
    assert failed_checks(template, tmp_path) == failed_checks(translated(template), tmp_path) == set()


def failed_checks(template: dict[str, Any], directory: Path) -> set[tuple[str, str]]:
    """What checkov finds, by resource and check."""
    path = directory / "checked.json"
    path.write_text(json.dumps(template, indent=1))
    _, text = attempt(
        "checkov", "-f", path, "--framework", "cloudformation", "--output", "json", "--quiet", "--skip-download",
        environment=clean_environment(), timeout=_SECONDS,
    )  # fmt: skip
    report = json.loads(text[text.index("{") :])
    assert report["summary"]["parsing_errors"] == 0
    return {(one["resource"].rpartition(".")[2], one["check_id"]) for one in report["results"]["failed_checks"]}


def test_a_translated_template_holds_what_sam_makes_of_events() -> None:
    """What a linter of the SAM template cannot see."""
    types = Counter(one["Type"] for one in TEMPLATE["Resources"].values())
    plain = Counter(one["Type"] for one in translated(TEMPLATE)["Resources"].values())

    assert not any(kind.startswith("AWS::Serverless::") for kind in plain)
    assert plain["AWS::Lambda::Function"] == types["AWS::Serverless::Function"]
    assert plain["AWS::Lambda::EventSourceMapping"] == plain["AWS::Lambda::Function"]


def test_the_services_model_knows_wrong_names_types_and_values() -> None:
    operation = "CreateEventSourceMapping"

    assert taken_by_model("lambda", operation, {"MetricsConfig": {"Metrics": ["EventCount"]}}) == []
    assert taken_by_model("lambda", operation, {"MetricsConfig": {"Metrics": ["Bogus"]}})
    assert taken_by_model("lambda", operation, {"MetricsConfig": {"Metrics": "EventCount"}})
    assert taken_by_model("lambda", operation, {"MetricsConfig": {"Metric": ["EventCount"]}})
