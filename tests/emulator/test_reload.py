"""Edits of a project's files are seen, and its modules taken anew."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest

from pipeline.emulator import reload as reloading
from pipeline.emulator.reload import Edit, ReloadError, edits, reload
from pipeline.errors import ConfigurationError


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package `goods` with two modules, one of which imports the other."""
    root = tmp_path / "project"
    (root / "goods").mkdir(parents=True)
    (root / "goods" / "__init__.py").write_text("")
    (root / "goods" / "prices.py").write_text("PRICE = 1\n")
    (root / "goods" / "handlers.py").write_text("from goods import prices\n\ndef handler():\n    return prices.PRICE\n")
    monkeypatch.syspath_prepend(root)
    yield root
    for name in [name for name in sys.modules if name.partition(".")[0] == "goods"]:
        del sys.modules[name]


async def first(watching: AsyncIterator[Edit]) -> asyncio.Task[Edit]:
    """A task that waits for the next edit; it watches already."""
    task = asyncio.ensure_future(anext(watching))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    return task


def write(path: Path, text: str) -> None:
    path.write_text(text)


async def test_an_edit_names_its_files(project: Path) -> None:
    async with aclosing(edits(project)) as watching:
        task = await first(watching)
        write(project / "goods" / "prices.py", "PRICE = 2\n")
        write(project / "goods" / "new.py", "")
        edit = await task

    assert edit.files == (project / "goods" / "new.py", project / "goods" / "prices.py")


async def test_a_file_that_is_removed_and_one_that_is_replaced_are_edits(project: Path) -> None:
    """Many editors write a new file and give it the old one's name."""
    async with aclosing(edits(project)) as watching:
        task = await first(watching)
        write(project / "goods" / "prices.py.part", "PRICE = 2\n")
        (project / "goods" / "prices.py.part").replace(project / "goods" / "prices.py")
        assert (await task).files == (project / "goods" / "prices.py",)
        task = await first(watching)
        (project / "goods" / "handlers.py").unlink()
        assert (await task).files == (project / "goods" / "handlers.py",)


async def test_only_the_projects_own_sources_and_what_is_named_besides_count(project: Path, tmp_path: Path) -> None:
    template, outside = project / "template.yaml", tmp_path / "other.toml"
    for name in (".venv/lib", "node_modules/a", "__pycache__", "lib/site-packages/b"):
        (project / name).mkdir(parents=True, exist_ok=True)
    async with aclosing(edits(project, also=[template, outside])) as watching:
        task = await first(watching)
        for name in (".venv/lib/a.py", "node_modules/a/a.py", "__pycache__/a.py", "lib/site-packages/b/a.py", "a.txt"):
            write(project / name, "")
        write(template, "")
        write(outside, "")
        write(tmp_path / "not-ours.py", "")
        edit = await task

    assert edit == Edit((tmp_path / "other.toml", project / "template.yaml"))


async def test_a_directory_that_is_not_there_cannot_be_watched(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be watched"):
        await anext(aiter(edits(tmp_path / "missing")))


async def test_watching_ends_at_once_when_it_is_cancelled(project: Path) -> None:
    async with aclosing(edits(project)) as watching:
        task = await first(watching)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_watching_leaves_no_thread(project: Path) -> None:
    async def watch() -> None:
        async with aclosing(edits(project)) as watching:
            task = await first(watching)
            write(project / "goods" / "prices.py", "PRICE = 2\n")
            await task

    before = set(threading.enumerate())
    asyncio.run(watch())
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


def test_modules_are_imported_again_with_what_they_import(project: Path) -> None:
    handlers = importlib.import_module("goods.handlers")
    assert handlers.handler() == 1
    write(project / "goods" / "prices.py", "PRICE = 22\n")
    found = reload(project, ["goods.handlers"])

    assert found["goods.handlers"] is sys.modules["goods.handlers"]
    assert found["goods.handlers"].handler() == 22
    assert handlers.handler() == 1, "who kept the old one still has the old one"


async def test_two_edits_within_a_second_are_both_seen(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python compares the second of the source's time and its size with those in the bytecode, and nothing else."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    async with aclosing(edits(project)) as watching:
        for price in (1, 2, 3):
            task = await first(watching)
            write(project / "goods" / "prices.py", f"PRICE = {price}\n")
            os.utime(project / "goods" / "prices.py", (1_800_000_000, 1_800_000_000))
            assert (await task).files == (project / "goods" / "prices.py",)
            assert reload(project, ["goods.handlers"])["goods.handlers"].handler() == price


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("PRICE = \n", r"SyntaxError: invalid syntax \(.*prices.py, line 1\)"),
        ("PRICE = 1 / 0\n", "ZeroDivisionError: division by zero"),
        ("import nowhere_to_be_found\n", "ModuleNotFoundError: No module named 'nowhere_to_be_found'"),
        ("import sys\nsys.exit(1)\n", "SystemExit: 1"),
    ],
)
def test_code_that_does_not_import_leaves_the_old_code_as_it_is(project: Path, source: str, message: str) -> None:
    importlib.import_module("goods.handlers")
    before = reloading.loaded(project)
    write(project / "goods" / "prices.py", source)
    write(project / "goods" / "handlers.py", "from goods import extra, prices\n")
    write(project / "goods" / "extra.py", "")
    with pytest.raises(ReloadError, match=message) as caught:
        reload(project, ["goods.handlers"])

    after = reloading.loaded(project)
    assert after.keys() == before.keys() == {"goods", "goods.prices", "goods.handlers"}
    assert all(after[name] is before[name] for name in before)
    assert sys.modules["goods.handlers"].handler() == 1
    assert "prices.py" in caught.value.trace
    assert "importlib" not in caught.value.trace

    write(project / "goods" / "prices.py", "PRICE = 333\n")
    write(project / "goods" / "handlers.py", "from goods import prices\n\ndef handler():\n    return prices.PRICE\n")
    assert reload(project, ["goods.handlers"])["goods.handlers"].handler() == 333


def test_an_interruption_is_not_swallowed_and_the_old_code_stands(project: Path) -> None:
    importlib.import_module("goods.handlers")
    write(project / "goods" / "prices.py", "raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        reload(project, ["goods.handlers"])
    assert sys.modules["goods.handlers"].handler() == 1


def test_neither_the_toolkit_nor_libraries_nor_the_program_itself_are_dropped(project: Path) -> None:
    """Also when the project is this repository, or has its environment below its directory."""
    repository = Path(__file__).parent.parent.parent
    found = reloading.loaded(repository)
    assert not {"pipeline", "pipeline.errors", "pytest", "msgspec", "__main__"} & found.keys()
    assert set(reloading.loaded(project)) == set()


def test_packages_without_a_file_of_their_own_are_dropped_too(project: Path) -> None:
    (project / "goods" / "__init__.py").unlink()
    handlers = importlib.import_module("goods.handlers")
    write(project / "goods" / "__init__.py", "NAME = 'goods'\n")
    reload(project, ["goods.handlers"])

    assert sys.modules["goods"].NAME == "goods"
    assert sys.modules["goods.handlers"] is not handlers
