"""A resource's properties as plain values, each checked where it is read."""

from __future__ import annotations

import json
from typing import Any

from pipeline.deploy.lint.values import Properties
from pipeline.deploy.local.intrinsics import Values
from pipeline.deploy.local.problems import Problems


class Reader:
    """One mapping of the template. What is not what it must be is a problem, and counts as left out."""

    def __init__(self, properties: Properties, values: Values, problems: Problems) -> None:
        self._properties = properties
        self._values = values
        self._problems = problems
        self.line = properties.line

    def __contains__(self, name: str) -> bool:
        return name in self._properties

    def names(self) -> list[str]:
        """The members that have a value."""
        return list(self._properties.names())

    def line_of(self, name: str) -> int:
        """A member's line, or the whole's where it is left out."""
        return self._properties.line_of(name)

    def section(self, name: str) -> Reader:
        """A member that is a mapping; an empty one if it is left out."""
        return Reader(self._properties.section(name), self._values, self._problems)

    def sections(self, name: str) -> list[Reader]:
        """A member that is a list of mappings."""
        return [Reader(one, self._values, self._problems) for one in self._properties.sections(name)]

    def plain(self, name: str) -> Any:
        """A member's value as JSON has it; None if it is left out."""
        return self._values.plain(self._properties.get(name))

    def text(self, name: str) -> str | None:
        """A member that is text, or a number or truth value as text; None if it is left out, or empty."""
        found = self.plain(name)
        if isinstance(found, bool):
            return "true" if found else "false"
        if isinstance(found, str | int | float):
            return str(found) or None
        if found is not None:
            self.error(name, f"{name} must be text: it is left out")
        return None

    def document(self, name: str) -> str | None:
        """A member that is JSON, written as a mapping or as text, as text; None if it is left out."""
        found = self.plain(name)
        if isinstance(found, str):
            try:
                found = json.loads(found)
            except (ValueError, RecursionError):
                self.error(name, f"{name} is text that is not JSON: it is left out")
                return None
        return None if found is None else json.dumps(found, default=str)

    def number(self, name: str, default: int | None, lowest: int, highest: int) -> int | None:
        """A member that is a whole number."""
        found = self.plain(name)
        if found is None:
            return default
        number = whole(found)
        if number is None or not lowest <= number <= highest:
            said = "is no whole number" if number is None else f"{number} is out of range"
            self.error(name, f"{name} {said}: AWS takes {lowest:,} to {highest:,}; it is left out here")
            return default
        return number

    def truth(self, name: str, *, default: bool) -> bool:
        """A member that is true or false."""
        found = self.plain(name)
        if found is None:
            return default
        truth = {"true": True, "false": False}.get(str(found).lower())
        if truth is None:
            self.error(name, f"{name} must be true or false: it is {str(default).lower()} here")
        return default if truth is None else truth

    def error(self, name: str, message: str, *, is_confined: bool = False) -> None:
        """A problem at a member; see `Problem`."""
        self._problems.error(self.line_of(name), message, is_confined=is_confined)

    def note(self, name: str, message: str) -> None:
        """A problem at a member that keeps nothing from running."""
        self._problems.note(self.line_of(name), message)


def whole(value: Any) -> int | None:
    """A whole number, also where it is written as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value).strip()
    return int(text) if text.lstrip("-").isdecimal() and text.isascii() and len(text) < 20 else None
