"""What bounds the log lines of a batch: beyond the first of an event, lines are counted and not written."""

from __future__ import annotations

from collections import Counter
from typing import Any

#: Lines of one event that one batch writes: enough to see what happens, in an outage that fails all of 10,000 records.
#: They say what the rest would say; 10,000 of them are 6 MB and half a second of CPU in each batch.
MOST = 100

#: Types of errors that are counted apart, and that are named in the end. The others are counted together.
_COUNTED = 100
_NAMED = 8
_OTHER = "other"
_TYPE = 64  #: characters of a type's name


class Surplus:
    """Counts the lines of the batch under way. Not for several batches at once."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._written: Counter[str] = Counter()
        self._omitted: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._level = 0

    def admits(self, event: str, level: int, error: BaseException | None) -> bool:
        """True while the line may be written. The line is counted either way."""
        if self._written[event] < MOST:
            self._written[event] += 1
            return True
        self._omitted[event] += 1
        self._level = max(self._level, level)
        if error is not None:
            name = type(error).__name__[:_TYPE]
            self._errors[name if name in self._errors or len(self._errors) < _COUNTED else _OTHER] += 1
        return False

    def take(self) -> tuple[int, dict[str, Any]] | None:
        """What was not written since the last time, with the highest level of it; None: all was. Counts anew."""
        omitted, errors, level = self._omitted, self._errors, self._level
        self._begin()
        if not omitted:
            return None
        named = dict(errors.most_common(_NAMED))
        rest = errors.total() - sum(named.values())
        if rest:
            named[_OTHER] = named.get(_OTHER, 0) + rest
        return level, {"lines": omitted.total(), "events": dict(omitted), "errors": named or None}
