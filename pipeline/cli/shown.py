"""What a terminal may be shown of texts that others wrote, and times."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

#: Control characters, invisible and direction marks, half surrogates, private ones, line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def clean(text: str, longest: int | None = None) -> str:
    """A text without anything that a terminal would obey or hide: each such character as JSON spells it, on one line.

    `longest`: characters that are left of it.
    """
    if longest is not None and len(text) > longest:
        text = f"{text[:longest]}… ({len(text) - longest} characters more)"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in _HIDDEN else one for one in text)


def _escaped(character: str) -> str:
    if character in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[character]
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def date(at: float | None) -> str:
    """The day, UTC; empty when there is none."""
    return _written(at, "%Y-%m-%d")


def clock(at: float | None) -> str:
    """The time of day, UTC, to the millisecond; empty when there is none."""
    return _written(at, "%H:%M:%S.%f")[:-3]


def instant(at: float | None) -> str | None:
    """Date and time as RFC 3339, UTC, to the millisecond; None when there is none."""
    text = _written(at, "%Y-%m-%dT%H:%M:%S.%f")[:-3]
    return f"{text}Z" if text else None


def lasting(seconds: float) -> str:
    """A length of time in two units at most."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"


def _written(at: float | None, form: str) -> str:
    try:
        return "" if at is None else datetime.fromtimestamp(round(at, 3), tz=UTC).strftime(form)
    except (ValueError, OverflowError, OSError):  # beyond the years that there are
        return ""
