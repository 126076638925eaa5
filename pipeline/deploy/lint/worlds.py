"""Which ways a template can turn out: each is a choice of what its conditions compare.

`!If`, `Condition:` and the parameters behind them are looked at in every world, so that a finding in one
branch is found, and two branches that never meet are not held against each other.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.deploy.lint.nodes import Call, Members, Node, Scalar, Sequence, walk

#: Comparisons whose every combination is looked at (16 worlds); of more, each is turned alone.
_COMBINED = 4
#: Worlds at most: a template with dozens of conditions must not take minutes.
_MOST = 24


@dataclass(frozen=True)
class Comparison:
    """What a condition asks. `parameter` is empty for one that is not of a parameter with a text."""

    parameter: str
    text: str


@dataclass(frozen=True)
class World:
    """One way. `conditions` that cannot be told are missing, and so are parameters."""

    parameters: Mapping[str, Node]
    conditions: Mapping[str, bool]
    root: Members


def of(root: Members) -> tuple[World, ...]:
    """The worlds of a template, the one of its parameters' defaults first."""
    parameters = _parameters(root)
    defaults = {name: node for name, body in parameters.items() if (node := _default(body)) is not None}
    conditions = root.get("Conditions")
    if not isinstance(conditions, Members) or not conditions.items:
        return (World(defaults, {}, root),)
    comparisons = _asked(conditions)
    found: dict[tuple[tuple[str, bool], ...], World] = {}
    for truths in _choices(comparisons, defaults):
        if _is_possible(truths, parameters):
            reader = _Conditions(conditions, truths)
            known = {name: reader.holds(name) for name in conditions.items}
            # Worlds that agree in all conditions differ in nothing else that is looked at.
            found.setdefault(tuple(known.items()), World(_chosen(truths, parameters, defaults), known, root))
    return tuple(found.values())


def _parameters(root: Members) -> dict[str, Members]:
    section = root.get("Parameters")
    items = section.items if isinstance(section, Members) else {}
    return {name: item.node for name, item in items.items() if isinstance(item.node, Members)}


def _default(parameter: Members) -> Node | None:
    """What `Ref` gives when nobody says otherwise: not the name of what is looked up in Systems Manager, and lists."""
    kind, found = text_of(parameter.get("Type")) or "", parameter.get("Default")
    text = text_of(found)
    if found is None or text is None or kind.startswith("AWS::SSM::Parameter"):
        return None
    if kind == "CommaDelimitedList" or kind.startswith("List<"):
        return Sequence(tuple(Scalar(part.strip(), found.line) for part in text.split(",")), found.line)
    return found


def _choices(comparisons: list[Comparison], defaults: Mapping[str, Node]) -> Iterator[dict[Comparison, bool]]:
    usual = {one: text_of(defaults.get(one.parameter)) == one.text for one in comparisons}
    yield usual
    if len(comparisons) <= _COMBINED:
        for truths in itertools.product((True, False), repeat=len(comparisons)):
            yield dict(zip(comparisons, truths, strict=True))
        return
    for one in comparisons[: _MOST - 1]:
        others = {other: False for other in usual if other.parameter == one.parameter != ""}
        yield {**usual, **({} if usual[one] else others), one: not usual[one]}


def _is_possible(truths: Mapping[Comparison, bool], parameters: Mapping[str, Members]) -> bool:
    """A parameter has one value, and one of those that are allowed."""
    for name in {one.parameter for one in truths if one.parameter}:
        equal = {one.text for one, is_so in truths.items() if is_so and one.parameter == name}
        unequal = {one.text for one, is_so in truths.items() if not is_so and one.parameter == name}
        allowed = _allowed(parameters.get(name))
        if len(equal) > 1 or (allowed and (not allowed - unequal or not equal <= allowed)):
            return False
    return True


def _allowed(parameter: Members | None) -> set[str]:
    values = parameter.get("AllowedValues") if parameter is not None else None
    texts = {text_of(one) for one in values.items} if isinstance(values, Sequence) else set()
    return {text for text in texts if text is not None}


def _chosen(
    truths: Mapping[Comparison, bool], parameters: Mapping[str, Members], defaults: Mapping[str, Node]
) -> dict[str, Node]:
    """The parameters' values in a world: what it says they equal, or else their defaults."""
    chosen = dict(defaults)
    for one, is_so in truths.items():
        if not one.parameter:
            continue
        if is_so:
            chosen[one.parameter] = Scalar(one.text, 1)
        elif text_of(defaults.get(one.parameter)) == one.text and not _settled(one.parameter, truths):
            left = _allowed(parameters.get(one.parameter)) - {
                other.text for other, holds in truths.items() if other.parameter == one.parameter and not holds
            }
            chosen.pop(one.parameter, None)
            if len(left) == 1:
                chosen[one.parameter] = Scalar(left.pop(), 1)
    return chosen


def _settled(parameter: str, truths: Mapping[Comparison, bool]) -> bool:
    return any(is_so and one.parameter == parameter for one, is_so in truths.items())


def text_of(node: Node | None) -> str | None:
    """A scalar as a parameter has it: text."""
    if not isinstance(node, Scalar) or node.value is None:
        return None
    return str(node.value).lower() if isinstance(node.value, bool) else str(node.value)


_Truths: TypeAlias = Mapping[Comparison, bool]


def _asked(section: Members) -> list[Comparison]:
    """The comparisons that the conditions consist of, each once."""
    parts = [part for item in section.items.values() for node in walk(item.node) if (part := _compared(node))]
    return [one for one in dict.fromkeys(parts) if one not in (_SAME, _DIFFERENT)]


class _Conditions:
    """The conditions' truth, given that of what they compare. Each is worked out once."""

    def __init__(self, section: Members, truths: _Truths) -> None:
        self._section = section
        self._truths = truths
        self._known: dict[str, bool | None] = {}  # None: under way

    def holds(self, name: str) -> bool:
        if name not in self._known:
            self._known[name] = None
            self._known[name] = self._truth(self._section.get(name))
        return self._known[name] or False  # CloudFormation refuses a circle

    def _truth(self, node: Node | None) -> bool:
        if not isinstance(node, Call):
            return False
        if node.name == "Condition":
            return self.holds(text_of(node.argument) or "")
        parts = node.argument.items if isinstance(node.argument, Sequence) else ()
        if node.name == "Fn::Not":
            return not any(self._truth(one) for one in parts)
        if node.name == "Fn::And":
            return all(self._truth(one) for one in parts)
        if node.name == "Fn::Or":
            return any(self._truth(one) for one in parts)
        compared = _compared(node)
        return compared == _SAME or (compared is not None and self._truths.get(compared, False))


_SAME, _DIFFERENT = Comparison("", "always"), Comparison("", "never")


def _compared(node: Node) -> Comparison | None:
    if isinstance(node, Call) and isinstance(node.argument, Sequence) and len(node.argument.items) == 2:
        return _comparison(*node.argument.items) if node.name == "Fn::Equals" else None
    return None


def _comparison(left: Node, right: Node) -> Comparison:
    texts = text_of(left), text_of(right)
    if texts[0] is not None and texts[1] is not None:
        return _SAME if texts[0] == texts[1] else _DIFFERENT
    for one, other in ((left, texts[1]), (right, texts[0])):
        if other is not None and isinstance(one, Call) and one.name == "Ref":
            return Comparison(text_of(one.argument) or "", other)
    return Comparison("", f"line {left.line}, {right.line}: {_shape(left)}, {_shape(right)}")


def _shape(node: Node) -> str:
    if isinstance(node, Call):
        return f"{node.name}({_shape(node.argument)})"
    if isinstance(node, Sequence):
        return ",".join(_shape(one) for one in node.items)
    return text_of(node) or ""
