"""YAML as nodes: the library's events, put together with bounds, and scalars as YAML 1.1 means them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pipeline.deploy.lint.nodes import (
    MAX_DEPTH,
    Members,
    Node,
    Pair,
    Scalar,
    Sequence,
    UnreadableTemplate,
    mapping,
    readable,
    tagged,
    too_deep,
)

#: As written. 1 MB of real template has about 50,000; the reader takes 20 to 50 microseconds for each.
MAX_WRITTEN = 100_000
#: With all aliases followed: aliases of aliases can stand for billions.
MAX_MEANT = 500_000

_CORE = "tag:yaml.org,2002:"


def parse(text: str) -> Node:
    """The one document of a text. Raises `UnreadableTemplate`."""
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        return _Reader(_events(text)).document()
    except MarkedYAMLError as error:
        mark: Any = error.problem_mark or error.context_mark
        said = " ".join(filter(None, [error.context, error.problem]))
        raise UnreadableTemplate(f"the text is no YAML: {said}", mark.line + 1 if mark else 1) from None
    except (YAMLError, ValueError) as error:  # a character that YAML does not allow; an escape that is none
        raise _bad_character(text, error) from None


def _events(text: str) -> Iterator[Any]:
    from ruamel.yaml import YAML

    reader: Any = YAML(typ="safe", pure=True)
    events: Iterator[Any] = reader.parse(text)
    return events


def _bad_character(text: str, error: Exception) -> UnreadableTemplate:
    position = getattr(error, "position", None)
    line = text.count("\n", 0, position) + 1 if isinstance(position, int) else 1
    reason = getattr(error, "reason", None) or type(error).__name__
    return UnreadableTemplate(f"the text is no YAML: {reason}", line)


class _Reader:
    """Puts events together. A node goes with the number of nodes that it stands for."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[str, tuple[Node, int] | None] = {}  #: None: what it names has not ended yet
        self._written = 0

    def document(self) -> Node:
        root: Node | None = None
        for event in self._events:
            kind = type(event).__name__
            if kind == "DocumentStartEvent":
                if root is not None:
                    raise UnreadableTemplate("there are several documents (`---`): a template is one", _line(event))
                root, _ = self._node(next(self._events), 0)
        if root is None:
            raise UnreadableTemplate("the file is empty: a template has `Resources`")
        return root

    def _node(self, event: Any, depth: int) -> tuple[Node, int]:
        line = _line(event)
        self._written += 1
        if self._written > MAX_WRITTEN:
            raise UnreadableTemplate(f"there are more than {MAX_WRITTEN:,} values: a template of 1 MB has fewer", line)
        if depth > MAX_DEPTH:
            raise too_deep(line)
        if type(event).__name__ == "AliasEvent":
            return self._alias(str(event.anchor), line)
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        found, size = self._made(event, line, depth)
        if size > MAX_MEANT:
            raise UnreadableTemplate(f"with its aliases followed, this holds more than {MAX_MEANT:,} values", line)
        tag = "" if event.tag is None else str(event.tag)
        if tag.startswith("!") and len(tag) > 1:
            found = tagged(tag, found, line)
        if event.anchor is not None:
            self._anchors[event.anchor] = found, size
        return found, size

    def _alias(self, name: str, line: int) -> tuple[Node, int]:
        if name not in self._anchors:
            raise UnreadableTemplate(f"the alias '*{name}' names nothing above it", line)
        found = self._anchors[name]
        if found is None:
            raise UnreadableTemplate(f"the alias '*{name}' names something that holds it: it has no end", line)
        return found

    def _made(self, event: Any, line: int, depth: int) -> tuple[Node, int]:
        kind = type(event).__name__
        if kind == "ScalarEvent":
            return Scalar(_scalar(event), line), 1
        if kind == "SequenceStartEvent":
            return self._sequence(line, depth)
        return self._mapping(line, depth)

    def _sequence(self, line: int, depth: int) -> tuple[Node, int]:
        items: list[Node] = []
        size = 1
        while type(event := next(self._events)).__name__ != "SequenceEndEvent":
            found, count = self._node(event, depth + 1)
            items.append(found)
            size += count
        return Sequence(tuple(items), line), size

    def _mapping(self, line: int, depth: int) -> tuple[Node, int]:
        pairs: list[Pair] = []
        merged: list[Members] = []
        size = 1
        while type(key := next(self._events)).__name__ != "MappingEndEvent":
            if type(key).__name__ not in {"ScalarEvent", "AliasEvent"}:
                raise UnreadableTemplate("a key is a list or a mapping: write text", _line(key))
            name, _ = self._node(key, depth + 1)
            if not isinstance(name, Scalar):
                raise UnreadableTemplate("a key is a list or a mapping: write text", _line(key))
            found, count = self._node(next(self._events), depth + 1)
            size += count
            if name.value == "<<" and getattr(key, "style", None) is None:
                merged += _to_merge(found, name.line)
            else:
                pairs.append((_key(key, name), _line(key), found))
        node = mapping(pairs, line, merged)
        return node, size + sum(len(other.items) for other in merged)


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _key(event: Any, name: Scalar) -> str:
    """A key is text, also where the same word would be a number or a truth value as a value."""
    return readable(str(event.value)) if hasattr(event, "value") else str(name.value)


def _to_merge(node: Node, line: int) -> list[Members]:
    found = node.items if isinstance(node, Sequence) else (node,)
    members = [one for one in found if isinstance(one, Members)]
    if len(members) != len(found):
        raise UnreadableTemplate("`<<` merges mappings only: name one by an alias", line)
    return members


# YAML 1.1's plain scalars, as CloudFormation's reader and PyYAML take them: "y" and "n" stay text, because
# `AttributeType: N` means a number; so do dates, and numbers to the base of 60, which nobody means.
_WORDS = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **{form: True for word in ("yes", "true", "on") for form in (word, word.title(), word.upper())},
    **{form: False for word in ("no", "false", "off") for form in (word, word.title(), word.upper())},
}
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]{0,400})")
_FLOAT = re.compile(r"[-+]?[0-9][0-9_]{0,400}\.[0-9_]{0,400}(?:[eE][-+][0-9]{1,3})?|[-+]?\.[0-9][0-9_]{0,400}")


def _scalar(event: Any) -> str | int | float | bool | None:
    text = readable(event.value)
    tag = "" if event.tag is None else str(event.tag)
    if event.style is not None or (tag and not tag.startswith(_CORE)):
        return text
    if tag == f"{_CORE}str":
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return _integer(text.replace("_", ""))
    return float(text.replace("_", "")) if _FLOAT.fullmatch(text) else text


def _integer(digits: str) -> int | str:
    sign = -1 if digits.startswith("-") else 1
    bare = digits.lstrip("+-")
    try:
        if bare[:2] in ("0b", "0x"):
            return sign * int(bare, 0)
        is_octal = len(bare) > 1 and bare.startswith("0") and not set(bare) & set("89")
        return sign * int(bare, 8 if is_octal else 10)
    except ValueError:
        return digits
