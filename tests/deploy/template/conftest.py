"""Users' modules, written and imported."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline import Pipeline

HEAD = "from pipeline import *\nfrom pipeline import sinks, sources, stores\n\n"
Declare = Callable[..., list[Pipeline]]


@pytest.fixture
def declare(tmp_path: Path) -> Iterator[Declare]:
    """Write a module, import it, and return the pipelines that it holds."""
    names: list[str] = []

    def declare(source: str, name: str = "shopfront", *, doc: str = '"""A shop."""') -> list[Pipeline]:
        path = tmp_path / f"{name}.py"
        path.write_text(f"{doc}\n{HEAD}{textwrap.dedent(source)}", encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        names.append(name)
        spec.loader.exec_module(module)
        return list(dict.fromkeys(value for value in vars(module).values() if isinstance(value, Pipeline)))

    yield declare
    for name in names:
        sys.modules.pop(name, None)
