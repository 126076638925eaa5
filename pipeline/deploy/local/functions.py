"""A template's functions as this machine can run them: Python whose source is here."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.deploy.lint.model import MEMORY, TIMEOUT, Function
from pipeline.deploy.local.names import Names
from pipeline.deploy.local.reader import Reader
from pipeline.emulator.functions.function import FunctionSettings

#: A module may be called what no import statement takes, such as "my-app": Lambda imports it by its name.
_HANDLER = re.compile(r"[\w-]+(?:[./][\w-]+)*\.[A-Za-z_]\w*", re.ASCII)
#: Lambda's ranges (CreateFunction): seconds, and MB.
_TIMEOUTS, _MEMORY = (1, 900), (128, 10_240)


@dataclass(frozen=True)
class LocalFunction:
    """A function that can run here.

    `directory`: the root of its sources, as Lambda's task root. `handler`: as the template writes it, "app.handler".
    """

    id: str
    line: int
    settings: FunctionSettings
    handler: str
    directory: Path

    @property
    def environment(self) -> dict[str, str]:
        """Its variables, without Lambda's own."""
        return dict(self.settings.environment)


def read(function: Function, names: Names, reader: Reader, directory: Path) -> LocalFunction | None:
    """A function; None, with a problem that says why, for one that cannot run here. `directory`: the template's."""
    if reader.text("PackageType") == "Image" or "ImageUri" in reader or "ImageUri" in reader.section("Code"):
        reader.note("PackageType", f"{function.id} is an image: only functions with their source here are run")
        return None
    if "InlineCode" in reader or "ZipFile" in reader.section("Code"):
        name = "InlineCode" if "InlineCode" in reader else "Code"
        reader.note(name, f"{function.id} has its code in the template: put it into a file below CodeUri to run it")
        return None
    runtime = reader.text("Runtime") or ""
    if not runtime.startswith("python3"):
        said = f"runs on {runtime}" if runtime else "names no Runtime"
        reader.note("Runtime", f"{function.id} {said}: only functions of Python 3 are run")
        return None
    handler = reader.text("Handler") or ""
    if not _HANDLER.fullmatch(handler):
        said = f"Handler '{handler}'" if handler else "no Handler"
        reader.error(
            "Handler", f"{function.id} has {said}: write the module and the function, as app.handler", is_confined=True
        )
        return None
    sources = _sources(function, reader, directory, handler)
    if sources is None:
        return None
    if "Layers" in reader:
        reader.note("Layers", f"{function.id}: layers are not used; install what they hold beside this toolkit")
    settings = FunctionSettings(
        name=names.name,
        timeout=reader.number("Timeout", TIMEOUT, *_TIMEOUTS) or TIMEOUT,
        memory=reader.number("MemorySize", MEMORY, *_MEMORY) or MEMORY,
        environment=_environment(function, reader),
        reserved_concurrency=reader.number("ReservedConcurrentExecutions", None, 0, 1_000_000),
    )
    return LocalFunction(function.id, function.line, settings, handler, sources)


def _environment(function: Function, reader: Reader) -> dict[str, str]:
    section = reader.section("Environment").section("Variables")
    found: dict[str, str] = {}
    for name in section.names():
        value = section.plain(name)
        if isinstance(value, list | dict):
            section.error(name, f"{function.id}: the variable {name} must be text: it is left out")
        else:
            found[name] = section.text(name) or ""
    return found


def _sources(function: Function, reader: Reader, directory: Path, handler: str) -> Path | None:
    """The directory that the handler's module is in."""
    name = "CodeUri" if function.is_sam else "Code"
    uri = reader.plain(name)
    if uri is None and function.is_sam:
        uri = "."  # as the SAM command line takes it
    if not isinstance(uri, str) or not uri or "://" in uri or "\0" in uri:
        reader.note(name, f"{function.id} has its code in S3, not here: give {name} a directory to run it")
        return None
    path = directory / uri
    if not path.is_dir():
        said = "is an archive, or another file" if path.exists() else "is not there"
        reader.error(
            name, f"{function.id}: {name} '{uri}' {said}: it must be a directory with Python source", is_confined=True
        )
        return None
    module = handler.rpartition(".")[0].replace(".", "/")
    if not (path / f"{module}.py").is_file() and not (path / module / "__init__.py").is_file():
        reader.error(
            "Handler",
            f"{function.id}: there is no {module}.py in '{uri}', where Handler '{handler}' wants it",
            is_confined=True,
        )
        return None
    return path.resolve()
