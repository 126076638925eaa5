"""Each rule has a template in which it alone finds something, on the line that says `# here`."""

from __future__ import annotations

import datetime
from pathlib import Path

import pytest

from pipeline.deploy import lint
from pipeline.deploy.lint.code import Finder

TEMPLATES = Path(__file__).parent / "templates"
TODAY = datetime.date(2026, 11, 21)


def findings(path: Path) -> list[lint.Finding]:
    return lint.lint(lint.read(path.read_bytes()), code=Finder(path.parent).find, today=TODAY)


def marked(path: Path) -> list[int]:
    return [number for number, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# here")]


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_broken_template_gives_exactly_its_finding(path: Path) -> None:
    found = findings(path)

    assert [(one.rule.id, one.line) for one in found] == [(path.stem, line) for line in marked(path)]
    assert len(marked(path)) == 1
