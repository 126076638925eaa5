"""The wheel of this project, and artifacts that use it: made once, because each takes seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.deploy.package.projects import done, package, shop, uv


@dataclass(frozen=True)
class Built:
    """An artifact, and what was said about it."""

    directory: Path
    said: str


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This project's own wheel."""
    directory = tmp_path_factory.mktemp("wheels")
    uv("build", "--wheel", "--quiet", "--out-dir", directory)
    return next(directory.glob("*.whl"))


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> Built:
    """Of the project with everything, for this machine's own Python."""
    directory = tmp_path_factory.mktemp("built")
    project = shop(directory / "project", **{"requirements.txt": f"{wheel}\n"})
    said = done(package(project, directory / "artifact"))
    return Built(directory / "artifact", said)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> dict[str, Path]:
    """The code and the dependencies of the same project."""
    directory = tmp_path_factory.mktemp("parts")
    project = shop(directory / "project", **{"requirements.txt": f"{wheel}\n"})
    for part in ("code", "dependencies"):
        done(package(project, directory / part, "--part", part))
    return {part: directory / part for part in ("code", "dependencies")}
