"""A Lambda function's artifact: locked dependencies for its platform, the project's code, and bytecode.

The same input gives the same bytes: names, times and permissions do not depend on when or where an
artifact is made, so that a deployment of what has not changed changes nothing.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from pipeline.deploy.package import bytecode, dependencies, trim
from pipeline.deploy.package import code as own_code
from pipeline.deploy.package import scan as words_of
from pipeline.deploy.settings import read as read_settings
from pipeline.errors import ConfigurationError, PipelineError

DISTRIBUTION = "fanout-pipeline"
PARTS = ("all", "code", "dependencies")
#: Lambda's, as far as the toolkit supports them.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
#: Lambda's architectures, by their names for Linux and by Lambda's own.
PLATFORMS = {"aarch64": "aarch64", "arm64": "aarch64", "x86_64": "x86_64"}
#: 250 MB, unzipped, of a function with its layers (Lambda quotas).
MAX_BYTES = 262_144_000
#: Packages that make clients of the services that others name; their own texts name them all.
_AWS = frozenset({"aiobotocore", "botocore"})
#: The first second of 2000: zip files know no time before 1980, in any time zone.
_MODIFIED = 946_684_800


@dataclass(frozen=True)
class Request:
    """One artifact."""

    directory: Path  #: where it is made: new, or empty
    project: Path
    targets: tuple[str, ...] = ()  #: `module[:attribute]`; without any, those of `[tool.pipeline] app`
    part: str | None = None  #: one of PARTS; None is `code` where `[tool.pipeline] layer` says so, else `all`
    python: str = "3.14"
    platform: str = "aarch64"


def build(request: Request, say: Callable[[str], None]) -> None:
    """Make an artifact; nothing appears at its place before it is whole.

    Tells `say` what is in it, a line each. Raises `ConfigurationError` for what is wrong in the request
    or the project, `PipelineError` when a step fails.
    """
    _check(request)
    directory = request.directory.resolve()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}-", dir=directory.parent) as scratch:
        stage = Path(scratch) / "artifact"
        stage.mkdir()
        _fill(request, stage, Path(scratch), say)
        _normalise(stage)
        if directory.is_dir():
            directory.rmdir()
        stage.rename(directory)


def _check(request: Request) -> None:
    if request.part not in (None, *PARTS):
        raise ConfigurationError(f"part '{request.part}': give one of {', '.join(PARTS)}")
    if request.python not in PYTHONS:
        raise ConfigurationError(f"Python '{request.python}': give one of {', '.join(PYTHONS)}")
    if request.platform not in PLATFORMS:
        raise ConfigurationError(f"platform '{request.platform}': give one of {', '.join(PLATFORMS)}")
    if request.directory.exists() and (not request.directory.is_dir() or any(request.directory.iterdir())):
        raise ConfigurationError(f"{request.directory} is not empty: give a new directory, or remove it first")


def _fill(request: Request, stage: Path, scratch: Path, say: Callable[[str], None]) -> None:
    project = request.project.resolve()
    settings = read_settings(project)
    targets = request.targets or settings.app
    if not targets:
        raise ConfigurationError(
            "there is no TARGET: give one, such as `handlers.shop`, or set `[tool.pipeline] app` in pyproject.toml"
        )
    requirements = dependencies.requirements(project, scratch)
    part = request.part or ("code" if settings.layer else "all")
    is_layer = part == "dependencies"
    site = stage / "python" if is_layer else stage
    if part != "code":
        site.mkdir(exist_ok=True)
        platform = PLATFORMS[request.platform]
        dependencies.install(requirements, site, project, python=request.python, platform=platform)
        count = sum(1 for _ in site.glob("*.dist-info"))
        say(f"dependencies: {count} for {platform}, Python {request.python}, from {_source(project)}")
    is_locked = dependencies.names(requirements, DISTRIBUTION) or any(site.glob("fanout_pipeline-*.dist-info"))
    code = own_code.gather(project, targets, settings.include, scratch, toolkit=not is_locked)
    if not is_layer:
        own_code.copy(code, site)
        say(f"code: {', '.join([*code.packages, *settings.include])}")
    trim.toolkit(site, code.loaded)
    scan = _scanned(site, code)
    trim.unused_files(site, scan, code.loaded)
    if part != "code":
        _check_complete(site, code, project, say)
        _trim_models(site, scan, code, settings.services, say)
    _compile(request, stage, "/opt" if is_layer else "/var/task", project, say)
    size = sum(path.stat().st_size for path in stage.rglob("*") if path.is_file())
    say(f"size: {size / 1e6:.1f} MB unzipped")
    if size > MAX_BYTES:
        raise PipelineError(f"the artifact is {size / 1e6:.0f} MB unzipped, and Lambda takes {MAX_BYTES / 1e6:.0f} MB")


def _scanned(site: Path, code: own_code.Code) -> words_of.Scan:
    """What the artifact's sources mention, and the project's, which a layer does not hold."""
    found = words_of.Scan()
    files = {path.relative_to(site).as_posix(): path for path in sorted(site.rglob("*.py"))}
    asking = {name: path for name, path in files.items() if name.partition("/")[0] not in _AWS}
    words_of.add(found, asking)
    words_of.add(found, {name: path for name, path in files.items() if name not in asking}, strings=False)
    words_of.add(found, {name: path for name, path in code.files.items() if name not in files})
    return found


def _trim_models(
    site: Path, scan: words_of.Scan, code: own_code.Code, wanted: Sequence[str], say: Callable[[str], None]
) -> None:
    toolkit = f"{trim.TOOLKIT}/"  # its words are about AWS, and its texts were read
    own = [path for name, path in code.files.items() if not name.startswith(toolkit)]
    found = trim.models(site, scan.strings | set(words_of.words(own)), wanted)
    if found is not None:
        kept, count = found
        say(f"AWS service models: {len(kept)} of {count}: {', '.join(kept)}; others: [tool.pipeline] services")


def _check_complete(site: Path, code: own_code.Code, project: Path, say: Callable[[str], None]) -> None:
    """What the code imports is there: an error for the toolkit's needs, a note for what may be optional."""
    try:
        needed = [text for text in requires(DISTRIBUTION) or [] if "extra ==" not in text]
    except PackageNotFoundError:
        needed = []
    installed = {_normal(path.name.partition("-")[0]) for path in site.glob("*.dist-info")}
    missing = sorted(name for text in needed if (name := _normal(re.split(r"[^\w.-]", text)[0])) not in installed)
    if missing:
        raise ConfigurationError(
            f"{_source(project)} does not install {', '.join(missing)}, which {DISTRIBUTION} needs: "
            f"add {DISTRIBUTION} to the project's dependencies"
        )
    absent = [name for name in code.foreign if not (site / name).exists() and not any(site.glob(f"{name}.*"))]
    if absent:
        say(f"note: importing the code here loads {', '.join(absent)}, which {_source(project)} does not install")


def _compile(request: Request, stage: Path, mounted: str, project: Path, say: Callable[[str], None]) -> None:
    interpreter = dependencies.interpreter(request.python, project)
    if interpreter is None:
        say(
            f"bytecode: LEFT OUT, because there is no Python {request.python} on this machine; each cold start "
            f"compiles everything and takes about three times as long: uv python install {request.python}"
        )
        return
    say(f"bytecode: {bytecode.compile_all(stage, interpreter, mounted)} modules")


def _normalise(stage: Path) -> None:
    """One time for everything, permissions that Lambda can read, no empty directories."""
    for parent, _, names in os.walk(stage, topdown=False):
        directory = Path(parent)
        for name in names:
            path = directory / name
            path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
            os.utime(path, (_MODIFIED, _MODIFIED))
        if directory != stage and not any(directory.iterdir()):
            directory.rmdir()
            continue
        directory.chmod(0o755)
        os.utime(directory, (_MODIFIED, _MODIFIED))


def _source(project: Path) -> str:
    return "uv.lock" if (project / "uv.lock").is_file() else "requirements.txt"


def _normal(name: str) -> str:
    """A distribution's name in the one spelling (packaging.python.org: name normalization)."""
    return re.sub(r"[-_.]+", "-", name).lower()
