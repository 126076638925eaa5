"""Edits of a pipeline's module are taken over by a run; see `test_reload` for how they are seen."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.cli import targets
from pipeline.emulator.local import Local
from pipeline.emulator.reload import ReloadError, forget
from pipeline.errors import ConfigurationError

HEAD = """
from pathlib import Path
from pipeline import Pipeline, sources

shop = Pipeline("shop")
other = Pipeline("other")
TOLD = Path(__file__).with_name("told")

def tell(text):
    with TOLD.open("a") as file:
        file.write(text + "\\n")
"""


def handler(name: str, source: str, says: str, extra: str = "") -> str:
    return f"""
@shop.handler(sources.SQS("{source}"))
def {name}(order: str) -> None:
    tell("{says} " + order){extra}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    edit(tmp_path, handler("price", "orders", "first"))
    yield tmp_path
    forget(tmp_path)


def edit(project: Path, text: str) -> None:
    (project / "shopfront.py").write_text(HEAD + text)
    for compiled in project.glob("__pycache__/*.pyc"):
        compiled.unlink()  # watching does that: two edits within a second look like one


def told(project: Path) -> list[str]:
    return sorted((project / "told").read_text().splitlines())


async def test_handlers_are_edited_added_moved_and_removed_and_the_queues_stay(project: Path) -> None:
    async with Local(targets.load("shopfront"), skip_idle=True) as env:
        await env.send("orders", ["a"])
        await env.drain()

        edit(project, handler("price", "orders", "second") + handler("ship", "parcels", "ship"))
        await env.renew(targets.reload("shopfront"))
        await env.send("orders", ["b"])
        await env.send("parcels", ["p"])
        await env.drain()
        assert told(project) == ["first a", "second b", "ship p"]

        edit(project, handler("price", "baskets", "third"))
        await env.renew(targets.reload("shopfront"))
        await env.send("baskets", ["c"])
        report = await env.drain()
        assert told(project)[-1] == "third c"
        assert list(report.handlers) == ["price"]
        with pytest.raises(ConfigurationError, match="there is no source 'orders': baskets"):
            await env.send("orders", ["d"])


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("def :", ReloadError, r"the old code goes on: SyntaxError: .*shopfront\.py, line"),
        ("1 / 0", ReloadError, "the old code goes on: ZeroDivisionError: division by zero"),
        (
            handler("price", "orders", "x") + handler("ship", "orders", "x").replace("@shop", "@other"),
            ConfigurationError,
            "two handlers read",
        ),
    ],
)
async def test_a_broken_edit_leaves_the_old_code_and_the_queues_messages(
    project: Path, text: str, error: type[Exception], said: str
) -> None:
    async with Local(targets.load("shopfront"), skip_idle=True) as env:
        edit(project, text)
        with pytest.raises(error, match=said):
            await env.renew(targets.reload("shopfront"))
        await env.send("orders", ["a"])
        await env.drain()
        assert told(project) == ["first a"]


async def test_what_runs_ends_on_the_old_code(project: Path) -> None:
    waits = '\n    tell("begun")\n    while not TOLD.with_name("go").exists():\n        pass\n    tell("first ended")'
    edit(project, handler("price", "orders", "first", waits))
    async with Local(targets.load("shopfront"), skip_idle=True) as env:
        await env.send("orders", ["a"])
        while not ((project / "told").exists() and "begun" in told(project)):
            await env.activity.wait(0.02)
        edit(project, handler("price", "orders", "second"))
        await env.renew(targets.reload("shopfront"))
        (project / "go").touch()
        await env.send("orders", ["b"])
        await env.drain()
    assert told(project) == ["begun", "first a", "first ended", "second b"]
