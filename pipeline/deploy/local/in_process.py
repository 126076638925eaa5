"""Functions of a template that run in this process: their modules beside each other, and beside this toolkit's."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from pipeline.deploy.local.functions import LocalFunction
from pipeline.emulator import reload as files
from pipeline.emulator.functions.function import InvocationFailed
from pipeline.emulator.functions.thread import Runtime, plain
from pipeline.emulator.mappings.answers import Cause, FunctionFailed
from pipeline.errors import ConfigurationError

_log = logging.getLogger(__name__)
_INSTEAD = "Without --in-process each function has a process of its own"
#: Names that stand in many projects' directories, and that no handler imports.
_NOT_IMPORTED = frozenset({"__init__", "__main__", "conftest", "setup", "test", "tests"})


def check(functions: Iterable[LocalFunction]) -> None:
    """Raise `ConfigurationError` when modules of two directories have one name: in one process there is one of each."""
    owners: dict[str, tuple[str, Path]] = {}
    for function in functions:
        for name in sorted(_modules(function.directory) | _odd_names(function)):
            owner, directory = owners.setdefault(name, (function.id, function.directory))
            if directory != function.directory:
                raise ConfigurationError(
                    f"{owner} and {function.id} have modules called '{name}' in two directories, and one process has "
                    f"one module of a name: rename one of them. {_INSTEAD}"
                )


def _modules(directory: Path) -> set[str]:
    found = {path.stem for path in directory.glob("*.py")} | {
        path.parent.name for path in directory.glob("*/__init__.py")
    }
    return {name for name in found if name.isidentifier()} - _NOT_IMPORTED


def _odd_names(function: LocalFunction) -> set[str]:
    """The handler's module, where no import statement could name it: beside others such a file may be any script."""
    name = _module_of(function).partition(".")[0]
    return set() if name.isidentifier() else {name}


@contextmanager
def importable(directories: Collection[Path]) -> Generator[None, None, None]:
    """The directories stand first on `sys.path` meanwhile, as a function's own does in Lambda."""
    added = [str(directory) for directory in sorted(directories)]
    sys.path[:0] = added
    try:
        yield
    finally:
        for directory in added:
            if directory in sys.path:
                sys.path.remove(directory)


def reload(functions: Iterable[LocalFunction]) -> None:
    """Import the handlers' modules anew. Raises `ReloadError`: then the modules stand as they were."""
    wanted: dict[Path, list[str]] = {}
    for function in functions:
        wanted.setdefault(function.directory, []).append(_module_of(function))
    for directory, modules in wanted.items():
        files.reload(directory, modules)


class Runtimes:
    """Makes the runtimes of a function. Why one does not start is told once, with the function's own lines."""

    def __init__(self, function: LocalFunction) -> None:
        self._function = function
        self._make = plain(function.handler)
        self._failure: FunctionFailed | None = None  #: why the last one did not start

    def __call__(self) -> Runtime:
        """Import the handler, in the thread that calls. Raises `InvocationFailed`."""
        try:
            made = self._make()
            self._check_origin()
        except Exception as error:
            failed = _failed(error)
            self._tell(failed, error)
            raise failed from error
        self._failure = None
        return made

    def _check_origin(self) -> None:
        name, directory = _module_of(self._function), self._function.directory
        place = getattr(sys.modules[name], "__file__", None) or "somewhere else"
        if not Path(place).resolve().is_relative_to(directory):
            raise _init(
                "Runtime.ImportModuleError",
                f"module '{name}' is {place} in this process, not the one in {directory}: rename it. {_INSTEAD}",
            )

    def _tell(self, failed: InvocationFailed, error: Exception) -> None:
        if failed.failure != self._failure:
            trace = files.own_lines(self._function.directory, error.__cause__ or error)
            _log.error("%s does not start:\n%s", self._function.id, trace.rstrip())
        self._failure = failed.failure


def _failed(error: Exception) -> InvocationFailed:
    return error if isinstance(error, InvocationFailed) else _init(type(error).__name__, str(error))


def _init(kind: str, message: str) -> InvocationFailed:
    return InvocationFailed(Cause.INIT, kind, message, is_usable=False)


def _module_of(function: LocalFunction) -> str:
    return function.handler.replace("/", ".").rpartition(".")[0]
