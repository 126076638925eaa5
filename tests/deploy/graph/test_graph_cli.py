"""`pipeline graph` as one calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.commands import cli

SHOP = """
from pipeline import Pipeline, sinks, sources

shop = Pipeline("shop")
other = Pipeline("other")


@shop.handler(sources.SQS("orders"), sinks=[sinks.DynamoDB("ledger")], key="id")
def price(order: dict) -> dict:
    return order
"""
LOOP = """
from pipeline import Pipeline, sinks, sources

loop = Pipeline("loop")


@loop.handler(sources.SQS("orders"), sinks=[sinks.SQS("orders", carry=False)])
def again(order: dict) -> dict:
    return order
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "drawn.py").write_text(SHOP)
    (tmp_path / "looping.py").write_text(LOOP)
    (tmp_path / "bare.py").write_text("from pipeline import Pipeline\n\nbare = Pipeline('bare')\n")
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def graph(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["graph", *arguments])


@pytest.mark.parametrize(
    ("form", "first"), [("mermaid", "flowchart LR"), ("dot", "digraph"), ("svg", "<svg "), ("asyncapi", "{")]
)
def test_each_format_goes_to_stdout(project: Path, form: str, first: str) -> None:
    result = graph("drawn", "--format", form)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(first)
    assert "ledger" in result.stdout
    assert result.stdout.endswith("\n")


def test_mermaid_is_the_default_and_one_pipeline_needs_no_box(project: Path) -> None:
    assert graph("drawn").stdout == graph("drawn", "--format", "mermaid").stdout
    assert "subgraph" not in graph("drawn").stdout


def test_several_targets_make_one_graph_and_one_target_twice_is_one(project: Path) -> None:
    (project / "second.py").write_text(SHOP.replace('"shop"', '"second"').replace('"orders"', '"others"'))
    both = graph("drawn", "second").stdout
    assert both.count("subgraph") == 2
    assert both.count("ledger<br/>") == 1
    assert graph("drawn", "drawn:shop").stdout == graph("drawn").stdout


def test_the_target_of_pyproject_is_taken(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.pipeline]\napp = "drawn"\n')
    assert graph().stdout == graph("drawn").stdout


def test_the_output_goes_to_a_file_in_utf_8(project: Path) -> None:
    (project / "umlaut.py").write_text(SHOP.replace("ledger", "bücher"))
    result = graph("umlaut", "--output", "shop.mmd")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "bücher" in (project / "shop.mmd").read_bytes().decode()
    command = [sys.executable, "-m", "pipeline", "graph", "umlaut"]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.stdout == (project / "shop.mmd").read_bytes()


def test_asyncapi_is_json(project: Path) -> None:
    document = json.loads(graph("drawn", "--format", "asyncapi").stdout)
    assert (document["asyncapi"], document["info"]["title"]) == ("3.0.0", "shop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bare"], "'bare' declares no handler: there is nothing to draw"),
        (["drawn:other"], "'other' declares no handler"),
        (["nosuch"], "there is no module 'nosuch'"),
        ([], "there is no TARGET"),
        (["looping"], "carries no hop count"),
        (["looping", "--format", "asyncapi"], "carries no hop count"),
        (["drawn", "--format", "png"], "'png' is not one of"),
        (["drawn", "--output", "nosuch/x.svg"], "there is no directory"),
    ],
)
def test_misuse_is_one_plain_error_and_exit_code_2(project: Path, arguments: list[str], message: str) -> None:
    result = graph(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_pipeline_without_handlers_beside_another_is_left_out(project: Path) -> None:
    assert "other" not in graph("drawn").stdout


def test_aws_is_not_asked(project: Path) -> None:
    code = "import sys; from pipeline.cli import main; sys.argv = ['pipeline', 'graph', 'drawn']\ntry: main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'botocore', 'aiobotocore', 'moto'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
