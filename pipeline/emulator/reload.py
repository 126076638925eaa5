"""Seeing that a project's files were edited, and taking its modules anew.

For functions in processes of their own an edit means new processes (`Function.renew`): nothing of the old code is in
them. In this process the modules below the project's directory are dropped and imported again
(`reload`); who kept a function or a class of the old ones still has the old one, so handlers are looked up again after it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import traceback
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from pipeline.errors import ConfigurationError, PipelineError

_TOOLKIT = Path(__file__).resolve().parent.parent
#: Directories that are no source of the project's, wherever they are in it.
_NO_SOURCES = frozenset({"__pycache__", "build", "dist", "node_modules", "site-packages"})
#: Edits that come within this time are one, milliseconds; the second is how long a pause ends it.
_TOGETHER, _PAUSE = 1_600, 50


class ReloadError(PipelineError):
    """The edited code does not import; the old code stands. `trace`: where, in the project's own lines."""

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace


@dataclass(frozen=True)
class Edit:
    """What was edited, made or removed at one time."""

    files: tuple[Path, ...]


async def edits(*projects: Path, also: Collection[Path] = ()) -> AsyncGenerator[Edit, None]:
    """Each edit of a Python file below a project's directory, or of one of the files `also`.

    Hidden directories, installed packages and build outputs do not count. Watching begins with the first `anext`, and
    ends with `aclose` or a cancellation. Raises `ConfigurationError` where the directory cannot be watched.
    """
    from watchfiles import awatch

    roots = frozenset(_resolved(str(project)) for project in projects)
    others = frozenset(_resolved(str(path)) for path in also)
    # A directory below another one is watched with it.
    places = {place for place in roots | {path.parent for path in others} if not roots & set(place.parents)}

    def is_wanted(_: object, path: str) -> bool:
        return Path(path) in others or any(is_source(root, Path(path)) for root in roots)

    watching = awatch(*places, watch_filter=is_wanted, debounce=_TOGETHER, step=_PAUSE)
    try:
        async with aclosing(watching):
            async for changes in watching:
                files = tuple(sorted(Path(path) for _, path in changes))
                for file in files:
                    _forget_bytecode(file)
                yield Edit(files)
    except OSError as error:
        raise ConfigurationError(
            f"{', '.join(sorted(map(str, places)))} cannot be watched for edits: {error}. Watch a smaller directory, or look from time to time "
            "instead: WATCHFILES_FORCE_POLLING=1"
        ) from error


def is_source(project: Path, file: Path) -> bool:
    """True for a Python file of the project's own."""
    if file.suffix != ".py" or not file.is_relative_to(project):
        return False
    directories = file.relative_to(project).parts[:-1]
    return not any(name in _NO_SOURCES or name.startswith(".") for name in directories)


def loaded(project: Path) -> dict[str, ModuleType]:
    """The modules of this process that came from below the project's directory, by name; never the toolkit's."""
    project = project.resolve()
    return {name: module for name, module in sys.modules.copy().items() if _is_of(project, name, module)}


def reload(
    project: Path, targets: Sequence[str], load: Callable[[str], ModuleType] = importlib.import_module
) -> Mapping[str, ModuleType]:
    """Import the targets anew, and with them every module below the project's directory; returns the targets' modules.

    `load` imports a module by its name. Raises `ReloadError` when that fails: then every module is what it was before,
    and what runs goes on with the old code. What a module does on import is done again all the same. Call it from the
    event loop's thread; a handler that imports something in that moment may get the new code.
    """
    before = loaded(project)
    _drop(before)
    importlib.invalidate_caches()
    try:
        return {name: load(name) for name in targets}
    except BaseException as error:
        _drop(loaded(project))
        sys.modules.update(before)
        if isinstance(error, KeyboardInterrupt):
            raise
        raise ReloadError(_message(error), own_lines(project, error)) from error


def forget(project: Path) -> None:
    """Drop the modules below the project's directory: who imports one gets it anew."""
    _drop(loaded(project))


def check_syntax(edited: Iterable[Path]) -> None:
    """Raise `ReloadError` for a Python file that does not parse: its environments would fail until it is mended."""
    for path in edited:
        if path.suffix != ".py" or not path.is_file():
            continue
        try:
            compile(path.read_bytes(), str(path), "exec", dont_inherit=True)
        except (SyntaxError, ValueError) as error:
            raise ReloadError(_message(error), own_lines(path.parent, error)) from error


def _drop(modules: Mapping[str, ModuleType]) -> None:
    for name in modules:
        sys.modules.pop(name, None)


def _is_of(project: Path, name: str, module: ModuleType) -> bool:
    if name == "__main__":
        return False
    places = _places(module)
    return bool(places) and all(is_source(project, place) and not place.is_relative_to(_TOOLKIT) for place in places)


def _places(module: ModuleType) -> list[Path]:
    """Its file; of a package without one (a namespace) a file in each of its directories, whether there is one or not."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return [_resolved(file)]
    return [_resolved(directory) / "__init__.py" for directory in getattr(module, "__path__", ())]


@functools.cache
def _resolved(place: str) -> Path:
    """Thousands of modules are looked at, and each look asks the file system for every directory above."""
    return Path(place).resolve()


def _forget_bytecode(file: Path) -> None:
    """Python takes bytecode for current when the source's second and size are: two quick edits may look like one."""
    if file.suffix == ".py":
        Path(importlib.util.cache_from_source(file)).unlink(missing_ok=True)


def _message(error: BaseException) -> str:
    (*_, last) = traceback.format_exception_only(error)
    where = f" ({error.filename}, line {error.lineno})" if isinstance(error, SyntaxError) else ""
    return f"the edited code does not import, so the old code goes on: {last.strip()}{where}"


def own_lines(project: Path, error: BaseException) -> str:
    """An error's traceback, of the project's own lines."""
    project = project.resolve()
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(project)]
    return "".join([*traceback.format_list(own), *traceback.format_exception_only(error)])
