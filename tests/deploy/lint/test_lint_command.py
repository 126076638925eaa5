"""`pipeline lint`: what it prints, and how it ends."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner, Result

from pipeline.cli.commands import cli
from tests.deploy.graph import packages

#: It holds the schema that the SARIF committee published.
SARIF_PACKAGE = {"@microsoft/jest-sarif": "1.0.0-beta.0"}
SARIF_SCHEMA = "node_modules/@microsoft/jest-sarif/lib/schemas/sarif-2.1.0-rtm.5.json"

TEMPLATE = """\
Resources:
  Orders:
    Type: AWS::SQS::Queue
    Properties:
      SqsManagedSseEnabled: false
  Price:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.14
      Handler: shopfront.price
      CodeUri: elsewhere/
      Events:
        Orders: {Type: SQS, Properties: {Queue: !GetAtt Orders.Arn}}
"""
#: What is looked at here; other rules may find something in it too.
RULES = {"no-dead-letter-queue", "queue-not-encrypted", "partial-failures-off", "failure-report-ignored"}
SHOP = """
from pipeline import Pipeline, sources

shop = Pipeline("shop")


@shop.handler(sources.SQS("orders"))
def price(order: dict) -> None: ...
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "shopfront.py").write_text(SHOP)
    (tmp_path / "template.yaml").write_text(TEMPLATE)
    (tmp_path / "warning.yaml").write_text(TEMPLATE.split("  Price:", maxsplit=1)[0])
    (tmp_path / "good.yaml").write_text("Resources: {}\n")
    yield tmp_path
    sys.modules.pop("shopfront", None)


def lint(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["lint", *arguments])


def test_text_names_file_line_rule_reason_and_fix() -> None:
    result = lint("template.yaml")
    lines = [line for line in result.stdout.splitlines() if line.split(": ")[1].partition(" ")[2] in RULES]

    assert result.exit_code == 1
    assert lines[0].startswith(
        "template.yaml:2: error no-dead-letter-queue: Orders: Price.Orders reads it, and it has no "
    )
    assert " is then deleted without a trace. Fix: Add a RedrivePolicy " in lines[0]
    assert lines[1].startswith(
        "template.yaml:5: warning queue-not-encrypted: Orders: `SqsManagedSseEnabled` is false. "
    )
    assert lines[2].startswith("template.yaml:13: warning partial-failures-off: Price.Orders: ")
    assert len(lines) == 3


def test_a_target_makes_its_handlers_known() -> None:
    found = json.loads(lint("template.yaml", "shopfront", "--json").stdout)

    assert [one["rule"] for one in found if one["rule"] in RULES] == [
        "no-dead-letter-queue",
        "queue-not-encrypted",
        "failure-report-ignored",
    ]


@pytest.mark.parametrize(
    ("template", "status", "last"),
    [
        ("template.yaml", 1, r"template.yaml: 1 error, \d+ warnings(, \d+ notes?)?"),
        ("warning.yaml", 0, r"warning.yaml: 0 errors, \d+ warnings?(, \d+ notes?)?"),
        ("good.yaml", 0, "good.yaml: 0 errors, 0 warnings"),
    ],
)
def test_only_errors_fail(template: str, status: int, last: str) -> None:
    result = lint(template)

    assert result.exit_code == status
    assert re.fullmatch(last, result.stdout.splitlines()[-1])
    for option in ("--json", "--sarif"):
        assert lint(template, option).exit_code == status


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.yaml"], "nowhere.yaml cannot be read: No such file or directory"),
        (["."], ". cannot be read: Is a directory"),
        (["shopfront.py"], "shopfront.py:1: there is a single value at the top"),
        (["broken.yaml"], "broken.yaml:2: the text is no YAML"),
        (["good.yaml", "nobody"], "there is no module 'nobody'"),
        (["good.yaml", "--json", "--sarif"], "--json and --sarif: give one of them"),
        ([], "Missing argument 'TEMPLATE'"),
    ],
)
def test_misuse_ends_with_2_and_a_sentence(arguments: list[str], message: str, project: Path) -> None:
    (project / "broken.yaml").write_text("Resources:\n  A: }\n")
    (project / "shopfront.py").write_text("just_text\n")
    result = lint(*arguments)

    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""


def test_json_says_the_same_as_text() -> None:
    found = json.loads(lint("template.yaml", "--json").stdout)
    lines = lint("template.yaml").stdout.splitlines()[:-1]

    assert [
        f"{one['file']}:{one['line']}: {one['severity']} {one['rule']}: {one['subject']}: {one['what']}. {one['why']}. "
        f"Fix: {one['fix']}."
        for one in found
    ] == lines
    assert [one["resource"] for one in found if one["rule"] in RULES] == ["Orders", "Orders", "Price"]


def test_names_do_not_reach_the_terminal_as_they_are(project: Path) -> None:
    name = "a\\n\\u001b[31m\\ud800\\u00e4"
    queue = '{"Type": "AWS::SQS::Queue", "Properties": {"SqsManagedSseEnabled": false}}'
    (project / "odd.json").write_text(f'{{"Resources": {{"{name}": {queue}}}}}')
    (project / "odd.yaml").write_text(f'Resources:\n  "{name}": {queue}\n')

    for template in ("odd.json", "odd.yaml"):
        assert "queue-not-encrypted: a\\n\\x1b[31m?ä: " in lint(template).stdout
        for option in ("--json", "--sarif"):
            assert json.loads(lint(template, option).stdout)


def test_a_file_without_an_end_is_refused() -> None:
    assert "/dev/zero:1: the file has more than 4,194,304 bytes" in lint("/dev/zero").stderr


def sarif(template: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(lint(template, "--sarif").stdout)
    return document


def test_sarif_places_each_finding() -> None:
    (run,) = sarif("template.yaml")["runs"]
    results = [
        (one["ruleId"], one["level"], place["artifactLocation"]["uri"], place["region"]["startLine"])
        for one in run["results"]
        for place in [one["locations"][0]["physicalLocation"]]
        if one["ruleId"] in RULES
    ]

    assert results == [
        ("no-dead-letter-queue", "error", "template.yaml", 2),
        ("queue-not-encrypted", "warning", "template.yaml", 5),
        ("partial-failures-off", "warning", "template.yaml", 13),
    ]
    rules = run["tool"]["driver"]["rules"]
    assert [rules[one["ruleIndex"]]["id"] for one in run["results"]] == [one["ruleId"] for one in run["results"]]
    assert run["tool"]["driver"]["semanticVersion"] == version("fanout-pipeline")


def test_sarif_knows_a_finding_again_when_lines_move(project: Path) -> None:
    (project / "moved.yaml").write_text(f"# one more line\n{TEMPLATE}")
    before, after = sarif("template.yaml")["runs"][0]["results"], sarif("moved.yaml")["runs"][0]["results"]

    assert [one["partialFingerprints"] for one in before] == [one["partialFingerprints"] for one in after]
    assert len({json.dumps(one["partialFingerprints"]) for one in before}) == len(before)


def test_sarif_names_files_elsewhere_by_uri(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "a b").mkdir()
    (project / "a b" / "t.yaml").write_text(TEMPLATE)

    def uri() -> str:
        found = sarif(str(project / "a b" / "t.yaml"))["runs"][0]["results"][0]
        return str(found["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])

    assert uri() == "a%20b/t.yaml"
    (project / "c").mkdir()
    monkeypatch.chdir(project / "c")
    assert uri() == (project / "a b" / "t.yaml").as_uri()


@pytest.mark.timeout(300)  # the first run installs the schema
@pytest.mark.parametrize("template", ["template.yaml", "good.yaml"])
def test_sarif_is_what_its_schema_asks_for(template: str) -> None:
    document = sarif(template)
    schema = json.loads((packages.installed(SARIF_PACKAGE) / SARIF_SCHEMA).read_text())
    validator = jsonschema.Draft4Validator(schema, format_checker=jsonschema.FormatChecker())

    assert [error.message for error in validator.iter_errors(document)] == []
    document["runs"][0]["columnKind"] = "bytes"
    assert list(validator.iter_errors(document))  # it does look
