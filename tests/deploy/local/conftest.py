"""What the tests of templates share: reading a text as a template that has its source beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.deploy.local import Project, read

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"

#: A template's text, and parameters, to what it comes to.
Reading = Callable[..., Project]


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    """Reads a text; `src/app.py` is there."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "app.py").write_text("def lambda_handler(event, context): ...\n")

    def read_text(text: str, **parameters: str) -> Project:
        path = tmp_path / "template.yaml"
        path.write_text(textwrap.dedent(text))
        return read(path, parameters)

    return read_text


def said(project: Project) -> list[str]:
    """The problems, each as "line: error: message"."""
    return [str(one).removeprefix(f"{one.path}:") for one in project.problems]
