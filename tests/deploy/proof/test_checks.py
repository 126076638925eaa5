"""What linters say of the template; that they find nothing is the step `template` of .ci/run."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.proof.shortfalls import taken_by_model
from tests.deploy.proof.tools import ROOT, attempt, clean_environment
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
    (tmp_path / "template.json").write_text(json.dumps(bare, indent=1))

    _, text = attempt(
        "checkov", "-f", tmp_path / "template.json", "--framework", "cloudformation", "--output", "json", "--quiet",
        "--skip-download", environment=clean_environment(), timeout=_SECONDS,
    )  # fmt: skip

    failed = json.loads(text[text.index("{") :])["results"]["failed_checks"]
    assert {(one["resource"].rpartition(".")[2], one["check_id"]) for one in failed} == suppressed
    comments = [one["comment"] for resource in TEMPLATE["Resources"].values() for one in skips(resource)]
    assert all(len(comment) > 30 for comment in comments)


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
