"""Imports go only downwards, and the Lambda path carries nothing that it does not need."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pipeline"

#: From the bottom up. A module may import its own layer and those before it. A name stands for the
#: module or the whole package; the longest name that fits counts.
LAYERS: list[list[str]] = [
    ["pipeline.errors", "pipeline.record", "pipeline.outcome", "pipeline.batch", "pipeline.output", "pipeline.deployment"],
    ["pipeline.decisions", "pipeline.emulator.mappings", "pipeline.emulator.services.service"],
    ["pipeline.ports"],
    ["pipeline.telemetry"],
    ["pipeline.engine"],
    ["pipeline.aws", "pipeline.sources", "pipeline.sinks", "pipeline.stores"],
    ["pipeline.runtimes", "pipeline.emulator"],
    ["pipeline.app", "pipeline.handler", "pipeline.checks", "pipeline.signature", "pipeline.by", "pipeline"],
    ["pipeline.deploy"],
    ["pipeline.testing", "pipeline.cli", "pipeline.__main__"],
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
ENGINE = LEVEL["pipeline.engine"]

AWS_LIBRARIES = {"boto3", "botocore", "aiobotocore", "moto"}
#: Decisions are functions of their arguments: no clock, no chance, no I/O, no loop.
IMPURE = AWS_LIBRARIES | {
    *(
        "aws_lambda_powertools",
        "aiohttp",
        "asyncio",
        "concurrent",
        "http",
        "logging",
        "multiprocessing",
        "os",
        "queue",
        "random",
        "secrets",
    ),
    *("select", "selectors", "signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "urllib"),
}
#: What only the local run, the command line and the tests need.
NOT_IN_LAMBDA = [
    "moto",
    "click",
    "rich",
    "ruamel",
    "pydantic",
    "pytest",
    "flask",
    "boto3",
    "botocore",
    "aiobotocore",
    "aiohttp",
    "urllib3",
    "hypothesis",
    "_pytest",
    "werkzeug",
    "valkey",
]


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


@cache
def imports(name: str, path: Path) -> list[tuple[int, str]]:
    """Every import of a module, with its line: at the top, in functions and under TYPE_CHECKING."""
    return list(_imports(name, path))


def _imports(name: str, path: Path) -> Iterator[tuple[int, str]]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(filter(None, [above, node.module]))
            for alias in node.names:
                # `from pipeline import sinks` imports the module; `from pipeline import Emit` a name.
                whole = f"{base}.{alias.name}"
                yield node.lineno, whole if whole in MODULES else base


def level_of(module: str) -> int | None:
    """A module's layer; `pipeline` itself stands for the front door, not for everything below it."""
    name = module
    while name and name not in LEVEL:
        name = name.rpartition(".")[0]
    return None if not name or (name == "pipeline" and module != "pipeline") else LEVEL[name]


def test_every_module_has_its_layer() -> None:
    assert MODULES
    assert [name for name in MODULES if level_of(name) is None] == []


def test_a_level_counts_by_the_longest_name() -> None:
    assert level_of("pipeline.engine.stage") == ENGINE
    assert level_of("pipeline") == LEVEL["pipeline.app"]
    assert level_of("pipeline.unheard_of") is None
    assert level_of("json") is None


@pytest.mark.parametrize("name", MODULES)
def test_imports_go_down(name: str) -> None:
    path, own = MODULES[name], level_of(name)
    assert own is not None, f"{name} has no layer: name it in LAYERS"
    upwards = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}"
        for line, imported in imports(name, path)
        if imported.partition(".")[0] == "pipeline" and (level_of(imported) or 0) > own
    ]

    assert upwards == []


@pytest.mark.parametrize("name", [name for name in MODULES if (level_of(name) or 0) <= ENGINE])
def test_what_the_lower_layers_do_not_know(name: str) -> None:
    level = level_of(name)
    assert level is not None
    forbidden = IMPURE if level <= LEVEL["pipeline.decisions"] else AWS_LIBRARIES
    found = {imported for _, imported in imports(name, MODULES[name]) if imported.partition(".")[0] in forbidden}

    assert found == set()


def test_every_kind_of_import_is_seen(tmp_path: Path) -> None:
    """The rule is only as good as its eyes."""
    source = tmp_path / "module.py"
    source.write_text(
        "import a.b\nfrom pipeline import sinks, Emit\nfrom . import near\nfrom .engine import stage\n"
        "def later():\n    from pipeline.cli import main\n"
        "if TYPE_CHECKING:\n    import pipeline.app\n"
    )
    found = {imported for _, imported in imports("pipeline.module", source)}

    assert found == {"a.b", "pipeline.sinks", "pipeline", "pipeline.engine.stage", "pipeline.cli", "pipeline.app"}


def loaded_after(code: str) -> set[str]:
    """The unwanted modules that a new interpreter has loaded after running `code`."""
    report = f"import sys\n{code}\nprint(*({NOT_IN_LAMBDA!r} & sys.modules.keys()))".replace("[", "{").replace("]", "}")
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_eyes_of_the_next_test() -> None:
    assert loaded_after("import click") == {"click"}


@pytest.mark.parametrize("module", ["pipeline", "handlers.webhooks", "pipeline.runtimes.awslambda"])
def test_the_lambda_path_imports_only_what_it_needs(module: str) -> None:
    assert loaded_after(f"import {module}") == set()


def test_a_user_imports_no_test_code_by_having_the_plugin() -> None:
    """pytest loads the plugin in every project where the package is installed."""
    assert "moto" not in loaded_after("import pipeline.testing.plugin")


#: Tests of the engine run on a loop whose time jumps to the next timer; there a sleep takes none.
VIRTUAL_TIME = ("tests/engine/", "tests/simulation/")
WAITING = re.compile(r"\b(time|asyncio|anyio)\.sleep\((?!0\))|(?<![\w. ])sleep\(")


def test_tests_do_not_sleep() -> None:
    """Time is an argument: a test waits for what happens, never for a while."""
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (match := WAITING.search(line))
        and not (match[1] == "asyncio" and str(path.relative_to(ROOT)).startswith(VIRTUAL_TIME))
        and path != Path(__file__)
    ]

    assert found == []
