"""What Python sources mention: the modules that they import, and the texts that stand in them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_WORD = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
#: Where a program may keep a name that it does not keep in its source.
_SETTINGS = frozenset({".cfg", ".ini", ".json", ".toml", ".txt", ".yaml", ".yml"})


#: A text that importlib could be given.
_DOTTED = re.compile(r"\w+(\.\w+)+", re.ASCII)
#: Characters; names of services and modules are shorter.
_LONGEST = 200


@dataclass
class Scan:
    """Gathered over many files."""

    strings: set[str] = field(default_factory=set)  #: every string constant that can be a name
    imports: set[tuple[str, str]] = field(
        default_factory=set
    )  #: (a module, a module that it imports or names in a text)
    reads_stubs: bool = False  #: something loads its modules as its .pyi files say (the package lazy_loader)


def add(found: Scan, files: Mapping[str, Path], *, strings: bool = True) -> None:
    """Read the Python files among `files`, each with its path from where modules are imported.

    `strings` says whether their texts count, or only what they import.
    """
    for name, path in files.items():
        if path.suffix == ".py":
            _add(found, name.removesuffix(".py").replace("/", "."), path.read_bytes(), strings=strings)


def words(files: Iterable[Path]) -> Iterator[str]:
    """Every word of sources and settings, comments included: letters, digits and hyphens, in lower case."""
    for path in files:
        if path.suffix == ".py" or path.suffix in _SETTINGS:
            yield from _WORD.findall(path.read_text(encoding="utf-8", errors="replace"))


def _add(found: Scan, name: str, source: bytes, *, strings: bool) -> None:
    found.reads_stubs = found.reads_stubs or b"attach_stub" in source
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # a template, or Python 2: nothing imports it, and its words count as texts
        found.strings.update(_WORD.findall(source.decode("utf-8", "replace")))
        return
    package = name.removesuffix(".__init__") if name.endswith("__init__") else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            if isinstance(node.value, str) and len(node.value) <= _LONGEST:
                if strings:
                    found.strings.add(node.value)
                if _DOTTED.fullmatch(node.value):
                    found.imports.add((name, node.value))
        elif isinstance(node, ast.Import):
            found.imports.update((name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*above, node.module]))
            found.imports.update((name, f"{base}.{alias.name}") for alias in node.names)
