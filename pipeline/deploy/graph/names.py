"""Names for people and for machines."""

from __future__ import annotations

import functools
import re
import types
import typing
from typing import Any

from pipeline.by import SourceOrder

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9]+")
_LONGEST_ID = 60


class Ids:
    """Gives out identifiers: ASCII letters, digits and `_`, each once, readable where the name is."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def new(self, prefix: str, name: str) -> str:
        """An identifier that begins with `prefix`, if there is one; the same calls in the same order get the same ones."""
        plain = _NOT_PLAIN.sub("_", name)[:_LONGEST_ID].strip("_")
        base = "_".join(part for part in (prefix, plain) if part) or "_"
        found, number = base, 1
        while found in self._taken:
            number += 1
            found = f"{base}_{number}"
        self._taken.add(found)
        return found


def visible(text: str) -> str:
    r"""A text of one line: what cannot be printed stands as its escape, as `\n`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def spec_text(spec: Any) -> str:
    """A key or lane as declared: its paths, or the function's name."""
    if isinstance(spec, str):
        return spec
    if isinstance(spec, tuple):
        return ", ".join(map(str, spec))
    return f"by.{spec.name}" if isinstance(spec, SourceOrder) else function_name(spec)


def function_name(function: Any) -> str:
    """What a function is called, with brackets behind it; a callable object by its type."""
    while isinstance(function, functools.partial):
        function = function.func
    name = str(getattr(function, "__name__", type(function).__name__))
    return "a lambda" if name == "<lambda>" else f"{name}()"


def type_name(annotation: Any) -> str:
    """A type as one says it: "Order", "list of Order", "Order or Refund"."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(type_name, arguments))
    if origin is None or origin is typing.Literal:
        return str(getattr(annotation, "__name__", annotation))
    return f"{type_name(origin)} of {', '.join(map(type_name, arguments))}"
