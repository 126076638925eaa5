"""A template as a tree in which every key, value and list item knows its line. Values only."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Sequence as Listed
from dataclasses import dataclass
from typing import TypeAlias

#: Levels. Deeper ones are no template, and would exhaust the interpreter's stack.
MAX_DEPTH = 100


class UnreadableTemplate(Exception):
    """The text is no template that can be read; `line` says where, 1 for the whole."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text, a number, a truth value or nothing."""

    value: str | int | float | bool | None
    line: int


@dataclass(frozen=True, slots=True)
class Item:
    """One member of a mapping. `line` is its key's."""

    line: int
    node: Node


@dataclass(frozen=True, slots=True)
class Members:
    """A mapping, in the order written."""

    items: dict[str, Item]
    line: int

    def get(self, name: str) -> Node | None:
        item = self.items.get(name)
        return None if item is None else item.node

    def line_of(self, name: str) -> int:
        """The line of a member's key, or the mapping's own where there is none."""
        item = self.items.get(name)
        return self.line if item is None else item.line


@dataclass(frozen=True, slots=True)
class Sequence:
    """A list."""

    items: tuple[Node, ...]
    line: int


@dataclass(frozen=True, slots=True)
class Call:
    """An intrinsic function, by its long name: `Ref`, `Condition`, `Fn::Sub`; unknown ones too."""

    name: str
    argument: Node
    line: int


Node: TypeAlias = Scalar | Members | Sequence | Call
#: A key, its line and its value.
Pair: TypeAlias = tuple[str, int, Node]

_NOT_FN = {"Ref", "Condition"}


def walk(node: Node) -> Iterator[Node]:
    """A node and everything in it, from the top down."""
    waiting = [node]
    while waiting:
        found = waiting.pop()
        yield found
        waiting.extend(reversed(_children(found)))


def mapping(pairs: Listed[Pair], line: int, merged: Listed[Members] = ()) -> Members | Call:
    """A mapping, or the intrinsic function that its only key names. What is merged stands behind what is written.

    Raises `UnreadableTemplate` for a key that stands twice.
    """
    items: dict[str, Item] = {}
    for key, key_line, node in pairs:
        if key in items:
            raise UnreadableTemplate(f"the key '{_cut(key)}' stands twice: first in line {items[key].line}", key_line)
        items[key] = Item(key_line, node)
    for other in merged:
        for key, item in other.items.items():
            items.setdefault(key, item)
    if len(pairs) == 1 and len(items) == 1:
        ((key, item),) = items.items()
        if _is_function(key, item.node):
            return call(key, item.node, item.line)
    return Members(items, line)


def call(name: str, argument: Node, line: int) -> Call:
    """An intrinsic function; `GetAtt` always with a list of two."""
    if name == "Fn::GetAtt" and isinstance(argument, Scalar) and isinstance(argument.value, str):
        resource, _, attribute = argument.value.partition(".")
        argument = Sequence((Scalar(resource, argument.line), Scalar(attribute, argument.line)), argument.line)
    return Call(name, argument, line)


def tagged(tag: str, argument: Node, line: int) -> Call:
    """The call that a short form means: `!Sub` is `Fn::Sub`."""
    name = tag.removeprefix("!")
    return call(name if name in _NOT_FN or ":" in name else f"Fn::{name}", argument, line)


def readable(text: str) -> str:
    """Text that can be written out: half of a surrogate pair, from an escape, is none."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def too_deep(line: int) -> UnreadableTemplate:
    return UnreadableTemplate(f"the text is nested deeper than {MAX_DEPTH} levels: no template is", line)


def _children(node: Node) -> list[Node]:
    if isinstance(node, Members):
        return [item.node for item in node.items.values()]
    if isinstance(node, Sequence):
        return list(node.items)
    return [node.argument] if isinstance(node, Call) else []


def _is_function(name: str, argument: Node) -> bool:
    if name in _NOT_FN:
        return isinstance(argument, Scalar)
    return name.startswith("Fn::") and not name.startswith("Fn::ForEach")


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
