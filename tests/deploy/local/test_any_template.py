"""Whatever stands in a template, it is read, and what is wrong is told."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.deploy.local import read
from tests.deploy.lint.test_any_template import ANYTHING, DOCUMENTS, paths
from tests.deploy.local.conftest import HERE, TEMPLATES


def reads(document: Any, directory: Path) -> None:
    path = directory / "template.json"
    path.write_text(json.dumps(document, indent=1))
    lines = path.read_text().count("\n") + 1
    found = read(path, {"Stage": "x"})

    assert all(1 <= one.line <= lines and one.message for one in found.problems)
    assert found.mappings or any(one.is_error for one in found.problems)
    for mapping in found.mappings:
        assert found.function_of(mapping)
        assert found.source_of(mapping)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(DOCUMENTS)
def test_any_document_is_read(tmp_path: Path, document: dict[str, Any]) -> None:
    reads(document, tmp_path)


WHOLE: list[dict[str, Any]] = [json.loads((TEMPLATES / name).read_text()) for name in ("stream.json", "bus.json")]


@settings(max_examples=60)
@given(st.sampled_from(WHOLE).flatmap(lambda one: st.tuples(st.just(one), st.sampled_from(paths(one)[1:]))), ANYTHING)
def test_anything_may_stand_anywhere(where: tuple[dict[str, Any], tuple[Any, ...]], value: Any) -> None:
    whole, path = where
    document = json.loads(json.dumps(whole))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    reads_beside_source(document)


def reads_beside_source(document: Any) -> None:
    """With `src/app.py` beside it, so that functions and mappings are read too."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "src").symlink_to(TEMPLATES / "src")
        reads(document, directory)


@pytest.mark.parametrize("path", sorted((HERE.parent / "lint" / "templates").glob("*")), ids=lambda path: path.name)
def test_the_linters_templates_are_read(path: Path) -> None:
    read(path)
