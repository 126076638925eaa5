"""What the type checkers accept also works: the declarations of `tests/typing/api.py` are made, and run."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from pipeline.testing import ainvoke

API = Path(__file__).parent.parent / "typing" / "api.py"


@pytest.fixture
def api() -> ModuleType:
    pytest.importorskip("pydantic")
    spec = importlib.util.spec_from_file_location("typed_api", API)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_declaration_can_be_assembled(api: ModuleType) -> None:
    assert [stage.name for stage in api.shop.stages()] == ["price", "batched", "check"]
    assert [stage.name for stage in api.bare.stages()] == ["copied", "plain", "structs", "models", "custom"]


async def test_its_handlers_run(api: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # one of its sinks writes a file
    priced = await ainvoke(api.price, [{"order_id": "abc", "quantity": 1}])
    plain = await ainvoke(api.plain, [{"name": "a"}])

    assert priced.outputs["ledger"] == [api.Priced("abc", 3)]
    assert plain.outputs["out"] == [{"name": "a"}]
