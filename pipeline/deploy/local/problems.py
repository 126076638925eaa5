"""What a template says and this machine cannot do, or does otherwise: values with the line that says it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

_MASK = "****"
#: A secret of fewer letters is hidden only where it is a whole word: it may be a part of anything.
_SHORT = 4


@dataclass(frozen=True, order=True)
class Problem:
    """One sentence about one line.

    `is_error`: AWS would refuse it, or something that is asked for does not run; else it runs, and not as written.
    `is_confined`: an error that keeps one function or mapping from running, and nothing else.
    """

    path: str
    line: int
    message: str
    is_error: bool = True
    is_confined: bool = False

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {'error' if self.is_error else 'note'}: {self.message}"


class Problems:
    """Gathers them, each once."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._found: dict[Problem, None] = {}
        self._secrets: list[str] = []

    def error(self, line: int, message: str, *, is_confined: bool = False) -> None:
        """Something is refused, or does not run."""
        self._found.setdefault(Problem(self._path, line, message, is_confined=is_confined))

    def note(self, line: int, message: str) -> None:
        """Something runs, and not as written."""
        self._found.setdefault(Problem(self._path, line, message, is_error=False))

    def hide(self, secret: str) -> None:
        """No sentence shows this value, whoever said it."""
        pattern = re.escape(secret)
        if secret:
            self._secrets.append(rf"(?<!\w){pattern}(?!\w)" if len(secret) < _SHORT else pattern)

    def sorted(self) -> tuple[Problem, ...]:
        """All, by line."""
        if not self._secrets:
            return tuple(sorted(self._found))
        secrets = re.compile("|".join(sorted(self._secrets, key=len, reverse=True)))
        masked = {replace(one, message=secrets.sub(_MASK, one.message)) for one in self._found}
        return tuple(sorted(masked))
