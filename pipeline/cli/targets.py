"""From a TARGET to its pipelines."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from pathlib import Path
from types import ModuleType

import click

from pipeline import checks
from pipeline.app import Pipeline
from pipeline.cli.importing import is_of_user, watched
from pipeline.deploy.settings import read as read_settings
from pipeline.emulator import reload as files
from pipeline.errors import ConfigurationError

HELP = (
    "TARGET is `module:attribute` of a Pipeline, a module that holds one or several, or a package of such modules; "
    "without it, `[tool.pipeline] app` in the working directory's pyproject.toml."
)


#: Lines of a user's own traceback that are shown.
_FRAMES = 5


def load(target: str | None) -> list[Pipeline]:
    """The pipelines of a target, assembled. Raises `UsageError` with a plain sentence."""
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    chosen = (target,) if target else _from_pyproject(Path(directory))
    found: dict[str, Pipeline] = {}
    for one in chosen:
        for pipeline in _load(one, directory):
            if found.setdefault(pipeline.name, pipeline) is not pipeline:
                raise click.UsageError(f"two pipelines are named '{pipeline.name}': rename one of them")
    try:
        checks.refuse_undone_idempotency([stage for pipeline in found.values() for stage in pipeline.stages()])
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    return list(found.values())


def reload(target: str | None) -> list[Pipeline]:
    """Like `load`, but of the files as they are now. Raises `ReloadError` too: then the old modules stand."""
    chosen = (target,) if target else _from_pyproject(Path.cwd())
    names = [one.partition(":")[0] for one in chosen]
    files.reload(Path.cwd(), names, _import_again)
    return load(target)


def _import_again(name: str) -> ModuleType:
    """What it raises, `ReloadError` tells."""
    with watched(name):
        return importlib.import_module(name)


def _load(target: str, directory: str) -> list[Pipeline]:
    module_name, _, attribute = target.partition(":")
    module = _import(module_name, directory)
    if attribute:
        return [_attribute(module, attribute)]
    modules = [module, *(_import(name, directory) for name in _submodules(module))]
    found = list({id(pipeline): pipeline for one in modules for pipeline in _all_of(one)}.values())
    if not found:
        raise click.UsageError(f"module '{module.__name__}' holds no Pipeline")
    return found


def _submodules(module: ModuleType) -> list[str]:
    """A package's own modules, by name; those below sub-packages are left to them."""
    path = getattr(module, "__path__", None)
    return [] if path is None else sorted(f"{module.__name__}.{one.name}" for one in pkgutil.iter_modules(path))


def _from_pyproject(directory: Path) -> tuple[str, ...]:
    try:
        app = read_settings(directory).app
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    if not app:
        raise click.UsageError(
            "there is no TARGET: give one, such as `handlers.shop`, or set `[tool.pipeline] app` in pyproject.toml"
        )
    return app


def _import(name: str, directory: str) -> ModuleType:
    if name.endswith(".py") or "/" in name or os.sep in name:
        dotted = name.removesuffix(".py").strip("./").replace(os.sep, ".")
        raise click.UsageError(f"'{name}' is a path: name the module, as `{dotted}`")
    try:
        with watched(name):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise click.UsageError(f"there is no module '{error.name}' in {directory} or on the Python path") from None
        raise click.UsageError(_why(name, error)) from None
    except (KeyboardInterrupt, click.UsageError):
        raise
    except BaseException as error:  # SystemExit too: a script that runs on import
        raise click.UsageError(_why(name, error)) from None


def _why(name: str, error: BaseException) -> str:
    """One sentence, and the user's own lines that led there: the last ones first."""
    if isinstance(error, SyntaxError):
        return f"module '{name}' does not import: SyntaxError: {error.msg} ({error.filename}, line {error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_of_user(frame.filename)]
    lines = "".join(
        f"\n  {frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}"
        for frame in frames[: -_FRAMES - 1 : -1]
    )
    return f"module '{name}' does not import: {type(error).__name__}: {error}{lines}"


def _attribute(module: ModuleType, path: str) -> Pipeline:
    found: object = module
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Pipeline):
        what = "does not exist" if found is None else f"is a {type(found).__name__}, not a Pipeline"
        here = _names(module)
        raise click.UsageError(f"'{module.__name__}:{path}' {what}" + (f"; there is {', '.join(here)}" if here else ""))
    return found


def _all_of(module: ModuleType) -> list[Pipeline]:
    return [value for value in vars(module).values() if isinstance(value, Pipeline)]


def _names(module: ModuleType) -> list[str]:
    return [f"`{module.__name__}:{name}`" for name, value in vars(module).items() if isinstance(value, Pipeline)]
