"""What a project says about its deployment: `[tool.pipeline]` in its pyproject.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigurationError

#: What a client that is made on import finds in Lambda: a region, and no need to ask a machine for credentials.
LIKE_LAMBDA = {"AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}


@dataclass(frozen=True)
class Settings:
    """`[tool.pipeline]`."""

    app: tuple[str, ...] = ()  #: targets, when none is given
    include: tuple[str, ...] = ()  #: files and directories, besides the packages that the targets import
    services: tuple[str, ...] = ()  #: AWS services whose models are kept, besides those in the code; `*` keeps all
    layer: bool = False  #: dependencies go into a layer that the functions share


def read(project: Path) -> Settings:
    """The settings of a project. Raises `ConfigurationError` for a file or a value that cannot be read."""
    path = project / "pyproject.toml"
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("pipeline", {})
    except FileNotFoundError:
        return Settings()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from None
    app = found.get("app", [])
    return Settings(
        app=_texts("app", [app] if isinstance(app, str) else app),
        include=tuple(_inside(project, name) for name in _texts("include", found.get("include", []))),
        services=_texts("services", found.get("services", [])),
        layer=_flag("layer", found.get("layer", False)),
    )


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"[tool.pipeline] {name} = {value!r}: give true or false")
    return value


def _texts(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise ConfigurationError(f'[tool.pipeline] {name} = {value!r}: give a list of texts, such as ["name"]')
    return tuple(value)


def _inside(project: Path, name: str) -> str:
    """A path below the project, which keeps its place in the artifact."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ConfigurationError(f"[tool.pipeline] include: '{name}' is not below {project}: give a relative path")
    if not (project / path).exists():
        raise ConfigurationError(f"[tool.pipeline] include: there is no '{name}' in {project}")
    return path.as_posix()
