"""docs/graph.md shows what the command really makes."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "graph.md"


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(found)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(block("python"), encoding="utf-8")
    return tmp_path


def graph(project: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pipeline", "graph", "shop", *options]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout


def test_the_pages_picture_is_what_its_program_makes(project: Path) -> None:
    assert block("mermaid") == graph(project)


def test_the_pages_operations_are_the_documents(project: Path) -> None:
    operations = json.loads(graph(project, "--format", "asyncapi"))["operations"]
    shown = json.loads(block("json"))
    assert shown
    assert {name: operations[name] for name in shown} == shown
