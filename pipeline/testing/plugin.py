"""The pytest plugin. pytest loads it in every run, so it imports nothing until a fixture is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def pipeline_local() -> Callable[..., Any]:
    """`async with pipeline_local(shop) as env:` runs a pipeline on an embedded AWS server."""
    from pipeline.testing.local import local

    return local


@pytest.fixture
def pipeline_invoke() -> Callable[..., Any]:
    """`pipeline_invoke(price, [{...}])` runs a handler over payloads in memory."""
    from pipeline.testing.invoke import invoke

    return invoke


@pytest.fixture
def pipeline_ainvoke() -> Callable[..., Any]:
    """`await pipeline_ainvoke(price, [{...}])`, for async tests."""
    from pipeline.testing.invoke import ainvoke

    return ainvoke
