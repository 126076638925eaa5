"""Log lines as JSON text. Whatever a line holds, it is written: no value loses it, and none raises."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

import msgspec

#: Longest line that goes out uncut, in bytes. CloudWatch Logs took no event above 256 KiB for long (today 1 MB), and
#: Lambda and other shippers still part lines about there: a parted line is no JSON.
LONGEST = 200_000

#: What remains of a value that is cut: characters of all its texts, items of each list, levels of nesting.
_TEXT = 2_000
_ITEMS = 100
_DEPTH = 8
#: An integer of more bits becomes text: others read numbers as 64-bit floats anyway.
_BITS = 64


def line_of(values: Mapping[str, Any]) -> str:
    """A line's values as JSON on one line. Never raises.

    NaN and the infinities are null; what JSON has no form for is its own text. Where that fails, and where the line
    is longer than `LONGEST`, values are cut and what cannot be written says why.
    """
    with contextlib.suppress(Exception):  # a value is at fault: each of them is looked at
        text = _ENCODER.encode(values)
        if len(text) <= LONGEST:
            return text.decode()
    # Each value with a budget of its own: a huge one must not take the record's names with it.
    reduced = {short(name): _Reduced().value(value, _DEPTH) for name, value in values.items()}
    return json.dumps(reduced, ensure_ascii=False, separators=(",", ":"))


def message_of(text: str) -> Any:
    """A message as the line shows it: JSON objects as such, every other text as it is.

    Powertools reads every message as JSON. Then a text "123" is a number, and a text "null" is no message at all.
    """
    if text[:1] != "{":
        return text
    return json.loads(text)


def short(value: object) -> str:
    """A value's text, cut, and such that every stream of UTF-8 takes it. Never raises."""
    return _Reduced().text(value)


def _text_of(value: object) -> str:
    """A value's own text. Its exceptions are for the caller."""
    return str(value)


_ENCODER = msgspec.json.Encoder(enc_hook=_text_of)


class _Reduced:
    """A copy of a value that can be written. It is small, so that a huge value costs no second huge one."""

    def __init__(self) -> None:
        self._left = _TEXT

    def value(self, value: Any, depth: int) -> Any:
        """A value, down to `depth` levels of nesting."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if isinstance(value, int):
            return int(value) if value.bit_length() <= _BITS else self.text(value)
        if isinstance(value, (Mapping, list, tuple, AbstractSet)):
            if depth == 0 or self._left <= 0:
                return f"({type(value).__name__}: cut)"
            try:
                return self._container(value, depth - 1)
            except Exception as error:
                return _unwritable(value, error)
        return self.text(value)

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            some = {self.text(name): self.value(value[name], depth) for name in islice(value, _ITEMS)}
            return some if len(value) <= _ITEMS else some | {"(cut)": f"{len(value) - _ITEMS} more"}
        items = [self.value(item, depth) for item in islice(value, _ITEMS)]
        return items if len(value) <= _ITEMS else [*items, f"({len(value) - _ITEMS} more: cut)"]

    def text(self, value: Any) -> str:
        """A value's text. What is cut is its middle: an error's end says most."""
        try:
            text = value if isinstance(value, str) else str(value)
            kept = min(len(text), self._left)
            self._left -= kept
            if kept < len(text):
                tail = kept // 2
                text = f"{text[: kept - tail]}… ({len(text) - kept} characters: cut) …{text[len(text) - tail :]}"
            return text.encode("utf-8", "backslashreplace").decode()
        except Exception as error:
            return _unwritable(value, error)


def _unwritable(value: object, error: Exception) -> str:
    return f"({type(value).__name__} that cannot be written: {type(error).__name__})"
