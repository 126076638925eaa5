"""Log lines as JSON text. Whatever a line holds, it is written: no value loses it, and none raises."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

import msgspec

#: Longest line that goes out uncut, in bytes. CloudWatch Logs took no event above 256 KiB for long (today 1 MB), and
#: Lambda and other shippers still part lines about there: a parted line is no JSON.
LONGEST = 200_000

#: What remains of a value that is cut: characters of all its texts, items of each list, items in all, levels of nesting.
_TEXT = 2_000
_ITEMS = 100
_NODES = 2_000
_DEPTH = 8
#: Items in all values of a line that is cut: what is looked at blocks the event loop.
_LINE_NODES = 20_000
#: Bytes that are kept free to say how many values are missing.
_ROOM_FOR_CUT = 100
#: An integer of more bits becomes text: others read numbers as 64-bit floats anyway.
_BITS = 64


def line_of(values: Mapping[str, Any]) -> str:
    """A line's values as JSON on one line. Never raises.

    NaN and the infinities are null; what JSON has no form for is its own text. Where that fails, and where the line
    is longer than `LONGEST`, values are cut and what cannot be written says why.
    """
    with contextlib.suppress(Exception):  # a value is at fault: each of them is looked at
        if not _is_huge(values):
            text = _ENCODER.encode(values)
            if len(text) <= LONGEST:
                return text.decode()
    return _reduced(values)


def _is_huge(values: Mapping[str, Any]) -> bool:
    """True for more items than a line has room for. An encoder writes a list anew wherever it stands: without end."""
    left = LONGEST // 2  # an item and its comma
    waiting: list[Collection[Any]] = [values.values()]
    while waiting:
        items = waiting.pop()
        left -= len(items)
        if left < 0:
            return True
        for item in items:
            if isinstance(item, dict):
                waiting.append(dict.values(item))
            elif isinstance(item, (list, tuple, AbstractSet)):
                waiting.append(item)
    return False


def _reduced(values: Mapping[str, Any]) -> str:
    """A line of at most `LONGEST` bytes. Of many values the smallest remain, such as the record's names."""
    members: dict[str, str] = {}
    left = _LINE_NODES
    for name, value in values.items():
        # Each value with a budget of its own: a huge one must not take the record's names with it.
        reduced = _Reduced(min(_NODES, left))
        members[_json(short(name))] = _json(reduced.value(value, _DEPTH))
        left -= reduced.looked_at
    room = LONGEST - _ROOM_FOR_CUT
    kept: set[str] = set()
    for name in sorted(members, key=lambda name: len(members[name])):
        room -= len(name.encode()) + len(members[name].encode()) + len(":,")
        if room < 0:
            break
        kept.add(name)
    texts = [f"{name}:{text}" for name, text in members.items() if name in kept]
    if len(kept) < len(members):
        texts.append(f'"(cut)":"{len(members) - len(kept)} more"')
    return "{" + ",".join(texts) + "}"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def message_of(text: str) -> Any:
    """A message as the line shows it: JSON objects as such, every other text as it is.

    Powertools reads every message as JSON. Then a text "123" is a number, and a text "null" is no message at all.
    """
    if text[:1] != "{":
        return text
    return json.loads(text)


def short(value: object) -> str:
    """A value's text, cut, and such that every stream of UTF-8 takes it. Never raises."""
    return _Reduced(0).text(value)


def _text_of(value: object) -> str:
    """A value's own text. Its exceptions are for the caller."""
    return str(value)


_ENCODER = msgspec.json.Encoder(enc_hook=_text_of)


class _Reduced:
    """A copy of a value that can be written. It is small, so that a huge value costs no second huge one.

    `nodes`: items that may be looked at, of all its lists and objects.
    """

    def __init__(self, nodes: int) -> None:
        self._left = _TEXT
        self._nodes = nodes
        self._path: set[int] = set()  #: the containers around the one at hand
        self.looked_at = 0  #: items so far

    def value(self, value: Any, depth: int) -> Any:
        """A value, down to `depth` levels of nesting."""
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if isinstance(value, int):
            return int(value) if value.bit_length() <= _BITS else self.text(value)
        if isinstance(value, (Mapping, list, tuple, AbstractSet)):
            if depth == 0 or self._left <= 0 or id(value) in self._path:
                return f"({type(value).__name__}: cut)"
            self._path.add(id(value))
            try:
                return self._container(value, depth - 1)
            except Exception as error:
                return _unwritable(value, error)
            finally:
                self._path.discard(id(value))
        return self.text(value)

    def _container(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            some = {self.text(name): self.value(value[name], depth) for name in self._some(value)}
            return some if len(value) <= len(some) else some | {"(cut)": f"{len(value) - len(some)} more"}
        items = [self.value(item, depth) for item in self._some(value)]
        return items if len(value) <= len(items) else [*items, f"({len(value) - len(items)} more: cut)"]

    def _some(self, value: Iterable[Any]) -> Iterator[Any]:
        """The first items of a container, while there may be more in all."""
        for item in islice(value, _ITEMS):
            if self.looked_at >= self._nodes:
                return
            self.looked_at += 1
            yield item

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
