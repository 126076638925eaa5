"""The front door: every name is there, and opening it costs nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import pipeline


def test_every_name_is_there_and_no_more_than_twenty_five() -> None:
    assert len(pipeline.__all__) <= 25
    assert sorted(pipeline.__all__) == pipeline.__all__
    for name in pipeline.__all__:
        assert getattr(pipeline, name) is not None
        assert name in dir(pipeline)


def test_a_name_that_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Pipelines'"):
        pipeline.Pipelines  # type: ignore[attr-defined]  # noqa: B018


def test_the_pytest_plugin_loads_nothing_of_the_toolkit() -> None:
    code = (
        "import sys, pytest; before = set(sys.modules); import pipeline.testing.plugin; "
        "print(sorted(m for m in set(sys.modules) - before if not m.startswith(('pipeline.testing', 'pipeline_'))))"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert eval(loaded) in ([], ["pipeline"]), loaded  # noqa: S307 - what our own line printed
