"""The dependencies of a project, as its lock file names them, installed for Lambda by uv."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from pipeline.errors import ConfigurationError, PipelineError

#: Of both Linux releases that Lambda has: glibc 2.34 from Python 3.12 on (Amazon Linux 2023), 2.26 before
#: (Amazon Linux 2), where uv knows the names of 2.17 and then 2.28.
_LIBC = {"3.11": "manylinux_2_17"}
_LATER_LIBC = "manylinux_2_34"

_ADVICE = (
    ("certificate", "behind a proxy with a certificate of its own, set UV_SYSTEM_CERTS=1"),
    ("hash mismatch", "what the index has is not what was locked: find out why before you lock anew"),
    ("must have a hash", "only what has a hash in uv.lock can be installed: publish a local package as a wheel"),
    ("required-version", "install the version of uv that pyproject.toml asks for: pip install --upgrade uv"),
    ("wheel", "nothing is compiled here: choose a version that has a wheel for {platform} and Python {python}"),
)


def uv(project: Path) -> list[str]:
    """The command that starts uv. Raises `PipelineError` when there is none."""
    if found := shutil.which("uv"):
        return [found]
    if find_spec("uv") is not None:
        return [sys.executable, "-m", "uv"]
    beside = project / ".tools" / "bin" / "uv"
    if os.access(beside, os.X_OK):
        return [str(beside)]
    raise PipelineError("uv is needed to install the dependencies, and was not found: pip install uv")


def requirements(project: Path, scratch: Path) -> Path:
    """The file of requirements to install: of uv.lock, when there is one, or else requirements.txt.

    Raises `ConfigurationError` when there is neither, `PipelineError` when uv cannot read the lock.
    """
    if (project / "uv.lock").is_file():
        path = scratch / "requirements.txt"
        command = [*uv(project), "export", "--quiet", "--frozen", "--no-default-groups", "--no-emit-project"]
        command += ["--no-annotate", "--no-header", "--output-file", str(path)]
        _run(command, project)
        return path
    if (project / "requirements.txt").is_file():
        return project / "requirements.txt"
    raise ConfigurationError(
        f"there is neither uv.lock nor requirements.txt in {project}: run `uv lock`, or list the dependencies"
    )


def names(requirements: Path, distribution: str) -> bool:
    """Whether the requirements, those that they include too, name a distribution: by name, wheel or directory."""
    pattern = re.compile(rf"(^|[/\s]){distribution.replace('-', '[-_.]')}(?![\w]|-[a-z])", re.IGNORECASE)
    for line in requirements.read_text(encoding="utf-8").splitlines():
        included = re.match(r"\s*(?:-r|--requirement)[\s=]+(\S+)", line)
        if included and (requirements.parent / included[1]).is_file():
            if names(requirements.parent / included[1], distribution):
                return True
        elif pattern.search(line.partition(" #")[0].partition("--hash")[0]) and not line.lstrip().startswith("#"):
            return True
    return False


def install(requirements: Path, into: Path, project: Path, *, python: str, platform: str) -> None:
    """Wheels for Lambda, hashes checked where there are any; all of a lock file have one.

    Raises `PipelineError` with uv's words, and what to do.
    """
    locked = ["--require-hashes", "--no-deps"] if requirements.parent != project else []
    command = [*uv(project), "pip", "install", "--quiet", "--only-binary", ":all:", *locked]
    # Copies: a link to uv's cache would change the cache with everything that is done to the artifact.
    command += ["--target", str(into), "--link-mode", "copy", "--python", sys.executable]
    command += ["--python-version", python, "--python-platform", f"{platform}-{_LIBC.get(python, _LATER_LIBC)}"]
    _run([*command, "--requirement", str(requirements)], project, python=python, platform=platform)


def interpreter(python: str, project: Path) -> str | None:
    """An interpreter of that minor version on this machine, or None; nothing is downloaded."""
    if sys.implementation.name == "cpython" and python == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return sys.executable
    try:
        command = [*uv(project), "python", "find", "--no-python-downloads", "--no-project", f"cpython@{python}"]
    except PipelineError:
        return None
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)  # noqa: S603 - uv
    return done.stdout.strip() or None if done.returncode == 0 else None


def _run(command: Sequence[str], project: Path, *, python: str = "", platform: str = "") -> None:
    done = subprocess.run(  # noqa: S603 - uv, with arguments of ours
        command,
        cwd=project,
        env={**os.environ, "UV_PYTHON_DOWNLOADS": "never", "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    said = (
        " ".join(line for line in lines if not line.startswith(("hint:", "warning:"))) or f"exit code {done.returncode}"
    )
    advice = next((text for word, text in _ADVICE if word in done.stderr.lower()), None)
    raise PipelineError(
        f"uv: {said.removeprefix('error: ')[:600]}"
        + (f"; {advice.format(python=python, platform=platform)}" if advice else "")
    )
