"""The project's own code: what importing the targets loads decides which packages are copied, each as a whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pipeline
from pipeline.deploy.package import importer
from pipeline.deploy.package.trim import TOOLKIT, is_for_elsewhere
from pipeline.deploy.settings import LIKE_LAMBDA
from pipeline.errors import ConfigurationError, PipelineError

#: Where this toolkit was imported from.
_TOOLKIT = Path(pipeline.__file__).resolve().parent


@dataclass(frozen=True)
class Code:
    """What goes into the artifact, by its path there."""

    files: dict[str, Path]
    loaded: frozenset[str]  #: every module that importing the targets loaded
    packages: tuple[str, ...]  #: the names at the top, of the project's own
    foreign: tuple[str, ...]  #: the names at the top that come from neither the project nor Python


def gather(project: Path, targets: Sequence[str], include: Sequence[str], scratch: Path, *, toolkit: bool) -> Code:
    """Import the targets in a fresh process, and list the files of every package and module of the project's.

    `toolkit` adds this toolkit from where it was imported. Raises `ConfigurationError` when a target
    does not import, or when nothing of it is below `project`.
    """
    modules = _imported(project, targets, scratch)
    tops: dict[str, list[Path]] = {}
    foreign: list[str] = []
    for name, places in modules.items():
        own = [place for place in places if _is_own(place, project)]
        if own and "." not in name:
            # A package's directories come before its file, which lies in one of them.
            tops[name] = [place for place in own if place.is_dir()] or own
        elif places and name.isidentifier() and name not in sys.stdlib_module_names and not name.startswith("_"):
            foreign.append(name)
    if not tops:
        raise ConfigurationError(f"nothing of {', '.join(targets)} is below {project}: run this where the sources are")
    if toolkit and TOOLKIT not in tops:
        tops[TOOLKIT] = [_TOOLKIT]
    files: dict[str, Path] = {}
    for name in sorted(tops):
        for top in tops[name]:
            files.update(_below(name, top) if top.is_dir() else {top.name: top})
    files = {name: path for name, path in files.items() if not is_for_elsewhere(name, modules)}
    roots = {top.parent for places in tops.values() for top in places if top.is_relative_to(project)}
    for path in (project / name for name in include):
        name = _within(path, roots, project)
        files.update(_below(name, path) if path.is_dir() else {name: path})
    return Code(files, frozenset(modules), tuple(sorted(tops)), tuple(sorted({*foreign} - {TOOLKIT})))


def _within(path: Path, roots: set[Path], project: Path) -> str:
    """A path as the artifact has it: without what the packages stand in, such as `src/`."""
    inner = [root for root in roots if path.is_relative_to(root) and path != root]
    return path.relative_to(max(inner, key=lambda root: len(root.parts), default=project)).as_posix()


def copy(code: Code, into: Path) -> None:
    """Copy the files. Raises `PipelineError` where a dependency has a file of that name."""
    for name, source in code.files.items():
        target = into / name
        if target.exists():
            raise PipelineError(f"'{name}' is in the project and in a dependency: rename the project's")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def _imported(project: Path, targets: Sequence[str], scratch: Path) -> dict[str, list[Path]]:
    report = scratch / "imported.json"
    for target in targets:
        name = target.partition(":")[0]
        if name.endswith(".py") or "/" in name or os.sep in name:
            dotted = name.removesuffix(".py").strip("./").replace(os.sep, ".")
            raise ConfigurationError(f"'{name}' is a path: name the module, as `{dotted}`")
    # -P: the directory of the script is this package, whose modules are nobody's top level.
    command = [sys.executable, "-P", str(importer.__file__), str(project), str(report), *targets]
    environment = {**LIKE_LAMBDA, **os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(  # noqa: S603 - this interpreter
        command, cwd=project, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if not report.is_file():
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise ConfigurationError(
            f"the process that imports {', '.join(targets)} ended with exit code {done.returncode}: {last}"
        )
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    if "error" in found:
        where = f" ({found['where']})" if found["where"] else ""
        raise ConfigurationError(f"'{found['target']}' does not import: {found['error']}{where}")
    return {name: [Path(place).resolve() for place in places] for name, places in found["modules"].items()}


def _is_own(place: Path, project: Path) -> bool:
    """Whether a path is of the project's own: below its directory, and in no virtual environment there."""
    if not place.is_relative_to(project):
        return False
    inner = place.relative_to(project).parts[:-1]
    if {"site-packages", "dist-packages"} & {*inner}:
        return False
    return not any((project.joinpath(*inner[: count + 1]) / "pyvenv.cfg").is_file() for count in range(len(inner)))


def _below(name: str, directory: Path, above: frozenset[Path] = frozenset()) -> Iterator[tuple[str, Path]]:
    """Every file that is neither hidden, bytecode nor of an environment; links are followed, circles are not."""
    resolved = directory.resolve()
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.name in ("__pycache__", "node_modules") or path.suffix in (".pyc", ".pyo"):
            continue
        if path.is_file():
            yield f"{name}/{path.name}", path
        elif path.is_dir() and not (path / "pyvenv.cfg").is_file() and path.resolve() not in above | {resolved}:
            yield from _below(f"{name}/{path.name}", path, above | {resolved})
