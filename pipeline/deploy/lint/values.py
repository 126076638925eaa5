"""What a property is worth in one world: a value, left out, or not known.

`Ref` to a parameter gives its default, `!If` its branch, `Join` and `Sub` their text. References to resources stay
references. What only AWS knows (imports, parameters without a default, macros) is not known, and by itself no finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from pipeline.deploy.lint.nodes import Call, Item, Members, Node, Scalar, Sequence
from pipeline.deploy.lint.worlds import World, text_of

T = TypeVar("T")

_PLACE = re.compile(r"\$\{([^!${}][^${}]*)\}")
#: References through references, such as a default that is one: none is deeper.
_DEEPEST = 40
NO_VALUE = "AWS::NoValue"


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """One property. `value`: None where it is not known, or left out and without a default.

    `given`: it stands in the template. `line`: its key's, or that of what it would stand in.
    """

    value: T | None
    line: int
    given: bool

    @property
    def is_left_out(self) -> bool:
        """Neither in the template nor AWS's default: really not there."""
        return not self.given and self.value is None


@dataclass(frozen=True, slots=True)
class Reference:
    """What a property points at: a resource of the template, or a text.

    `text` keeps what is not known as `${...}`: "arn:${AWS::Partition}:sqs:...:orders".
    """

    resource: str | None
    attribute: str
    text: str | None
    line: int

    @property
    def is_known(self) -> bool:
        return self.resource is not None or self.text is not None


class Properties:
    """A mapping, read in one world."""

    def __init__(self, node: Node | None, world: World, line: int) -> None:
        found = resolve(node, world)
        self._members = found if isinstance(found, Members) else Members({}, line)
        self._world = world
        #: Something is written there that cannot be read: what seems left out may be in it.
        self.is_open = (found is not None and not isinstance(found, Members)) or "Fn::Transform" in self._members.items
        self.line = line

    def __contains__(self, name: str) -> bool:
        return self.get(name) is not None

    @property
    def identity(self) -> int:
        """The same for the same mapping of the template, as long as that is held."""
        return id(self._members)

    def names(self) -> Iterator[str]:
        """Those that have a value in this world."""
        return (name for name in self._members.items if name in self)

    def get(self, name: str) -> Node | None:
        """A member's value, as far as it can be told; None if it is left out."""
        return resolve(self._members.get(name), self._world)

    def line_of(self, name: str) -> int:
        return self._members.items[name].line if name in self._members.items else self.line

    def section(self, name: str) -> Properties:
        """A member that is a mapping; an empty one if it is left out."""
        found = Properties(self._members.get(name), self._world, self.line_of(name))
        found.is_open = found.is_open or (self.is_open and name not in self)
        return found

    def beside(self, node: Node) -> Properties:
        """Something else, read in the same world."""
        return Properties(node, self._world, node.line)

    def sections(self, name: str) -> tuple[Properties, ...]:
        """A member that is a list of mappings."""
        return tuple(Properties(one, self._world, one.line) for one in self.items(name))

    def items(self, name: str) -> tuple[Node, ...]:
        """A member that is a list; a single value is a list of one."""
        found = self.get(name)
        if found is None:
            return ()
        items = found.items if isinstance(found, Sequence) else (found,)
        return tuple(one for item in items if (one := resolve(item, self._world)) is not None)

    def number(self, name: str, default: int | None = None) -> Setting[int]:
        """A whole number, also when it is written as text."""
        return self._setting(name, _number, default)

    def truth(self, name: str, default: bool | None = None) -> Setting[bool]:
        """True or false, also when it is written as text."""
        return self._setting(name, _truth, default)

    def text(self, name: str, default: str | None = None) -> Setting[str]:
        """Text without anything unknown in it."""
        return self._setting(name, text_of, default)

    def reference(self, name: str) -> Reference | None:
        """What a member points at; None if it is left out."""
        found = self.get(name)
        return None if found is None else reference(found, self._world, self.line_of(name))

    def references(self, name: str) -> tuple[Reference, ...]:
        """What each item of a list points at; a single value is a list of one."""
        return tuple(reference(one, self._world, one.line) for one in self.items(name))

    def _setting(self, name: str, read: Callable[[Node], T | None], default: T | None) -> Setting[T]:
        found = self.get(name)
        if found is not None:
            return Setting(read(found), self.line_of(name), given=True)
        if self.is_open:
            return Setting(None, self.line, given=True)
        return Setting(default, self.line, given=False)


def reference(node: Node, world: World, line: int) -> Reference:
    """What a value points at."""
    found = resolve(node, world)
    if isinstance(found, Call) and found.name in {"Ref", "Fn::GetAtt"}:
        name, attribute = _target(found)
        if name in resources(world).items:
            return Reference(name, attribute, None, line)
    text = pattern(found) if found is not None else None
    whole = _PLACE.fullmatch(text) if text is not None else None
    if whole is not None:
        name, _, attribute = whole[1].partition(".")
        if name in resources(world).items:
            return Reference(name, attribute, None, line)
    return Reference(None, "", text, line)


def resources(world: World) -> Members:
    """The section `Resources`, whatever its conditions."""
    found = world.root.get("Resources")
    return found if isinstance(found, Members) else Members({}, 1)


def pattern(node: Node) -> str | None:
    """A value as text in which `${...}` stands for what is not known; None for anything else."""
    if isinstance(node, Scalar):
        return text_of(node)
    if isinstance(node, Call) and node.name == "Fn::Sub":
        return text_of(node.argument)
    if isinstance(node, Call) and node.name in {"Ref", "Fn::GetAtt"}:
        name, attribute = _target(node)
        return f"${{{name}.{attribute}}}" if attribute else f"${{{name}}}"
    return None


def resolve(node: Node | None, world: World, depth: int = 0) -> Node | None:
    """A value in a world, its own level only; None for `AWS::NoValue`."""
    if not isinstance(node, Call) or depth > _DEEPEST:
        return node
    argument = node.argument
    parts: tuple[Node, ...] = argument.items if isinstance(argument, Sequence) else ()
    if node.name == "Ref":
        name = text_of(argument) or ""
        known = world.parameters.get(name)
        return None if name == NO_VALUE else node if known is None else _at(resolve(known, world, depth + 1), node.line)
    if node.name == "Fn::If" and len(parts) == 3:
        truth = world.conditions.get(text_of(parts[0]) or "")
        return node if truth is None else resolve(parts[1] if truth else parts[2], world, depth + 1)
    if node.name == "Fn::Sub":
        return _substituted(node, world, depth)
    if node.name == "Fn::Join" and len(parts) == 2:
        return _joined(node, parts[0], resolve(parts[1], world, depth + 1), world, depth)
    if node.name == "Fn::FindInMap" and len(parts) >= 3:
        return _looked_up(node, parts, world, depth)
    return node


def _at(node: Node | None, line: int) -> Node | None:
    """A parameter's value stands where it is used."""
    return Scalar(node.value, line) if isinstance(node, Scalar) else node


def _target(node: Call) -> tuple[str, str]:
    if isinstance(node.argument, Sequence):
        parts = [text_of(one) or "" for one in node.argument.items]
        return (parts[0] if parts else ""), ".".join(parts[1:])
    return text_of(node.argument) or "", ""


def _substituted(node: Call, world: World, depth: int) -> Node:
    """A `Sub` with what is known put in."""
    argument, given = node.argument, Members({}, node.line)
    if isinstance(argument, Sequence):
        template, *others = argument.items or (argument,)
        if len(others) == 1 and isinstance(others[0], Members):
            given = others[0]
        argument = template
    text = text_of(argument)
    if text is None:
        return node

    def put(match: re.Match[str]) -> str:
        name = match[1].strip()
        value = given.get(name)
        if value is None and "." not in name:
            value = Call("Ref", Scalar(name, node.line), node.line)
        found = resolve(value, world, depth + 1) if value is not None else None
        return (pattern(found) if found is not None else None) or f"${{{name}}}"

    done = _PLACE.sub(put, text)
    if _PLACE.search(done):
        return Call("Fn::Sub", Scalar(done, node.line), node.line)
    return Scalar(done.replace("${!", "${"), node.line)


def _joined(node: Call, separator: Node, listed: Node | None, world: World, depth: int) -> Node:
    if not isinstance(listed, Sequence):
        return node
    found = [resolve(one, world, depth + 1) for one in listed.items]
    texts = [pattern(one) for one in found if one is not None]
    known = [text for text in texts if text is not None]
    if len(known) != len(texts):
        return node
    text = (text_of(separator) or "").join(known)
    return Call("Fn::Sub", Scalar(text, node.line), node.line) if _PLACE.search(text) else Scalar(text, node.line)


def _looked_up(node: Call, parts: tuple[Node, ...], world: World, depth: int) -> Node:
    found: Node | None = world.root.get("Mappings")
    for part in parts[:3]:
        key = text_of(resolve(part, world, depth + 1))
        found = found.get(key) if isinstance(found, Members) and key is not None else None
    return node if found is None else found


def _number(node: Node) -> int | None:
    if not isinstance(node, Scalar) or isinstance(node.value, bool):
        return None
    if isinstance(node.value, int):
        return node.value
    text = str(node.value).strip()
    return int(text) if re.fullmatch(r"[-+]?[0-9]{1,18}", text) else None


def _truth(node: Node) -> bool | None:
    if not isinstance(node, Scalar):
        return None
    return {"true": True, "false": False}.get(str(node.value).lower())


def merged(below: Members, above: Members) -> Members:
    """SAM's Globals under a resource's own: mappings merge, lists add up, anything else is replaced."""
    items = dict(below.items)
    for name, item in above.items.items():
        other = items.get(name)
        if other is not None and isinstance(item.node, Members) and isinstance(other.node, Members):
            items[name] = Item(item.line, merged(other.node, item.node))
        elif other is not None and isinstance(item.node, Sequence) and isinstance(other.node, Sequence):
            items[name] = Item(item.line, Sequence(other.node.items + item.node.items, item.line))
        else:
            items[name] = item
    return Members(items, above.line)
