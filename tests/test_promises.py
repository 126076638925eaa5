"""Every promise has its named tests, and only one function writes the response."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_tests_that_the_promises_name_are_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "promises.md").read_text()))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text(), re.MULTILINE)
    }

    assert len(named) > 30
    assert named - there == set()


def test_one_function_writes_the_response() -> None:
    writers = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "pipeline").rglob("*.py")
        if "batchItemFailures" in (text := path.read_text())
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Dict)
        and any(isinstance(key, ast.Constant) and key.value == "batchItemFailures" for key in node.keys)
    ]

    assert writers == ["pipeline/runtimes/response.py"]
