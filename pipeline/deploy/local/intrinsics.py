"""What a template's values come to on this machine: parameters, conditions, and every intrinsic function.

There is always a value, so that whatever else is there can run. Where only AWS knows it, a stand-in is given and a
problem tells of it; only what somebody reads is looked at, so an output that nobody needs is no problem.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from pipeline.deploy.lint.nodes import Call, Members, Node, Scalar, Sequence
from pipeline.deploy.lint.worlds import World, text_of
from pipeline.deploy.local.problems import Problems
from pipeline.emulator.services.service import ACCOUNT, REGION

#: Stands for `AWS::NoValue`: what holds it is left out.
NOTHING = object()
#: Values within values: a template that is nested deeper was refused when it was read.
_DEEPEST = 150
_PLACE = re.compile(r"\$\{(!?)([^${}]*)\}")
#: What `AWS::StackName` is.
_STACK = "local"
_SSM = "AWS::SSM::Parameter"

#: From a resource and an attribute ("" for `Ref`) to its value; None: only AWS knows it.
Attribute = Callable[[str, str], Any]


class Values:
    """Reads nodes as plain values. `attribute` is asked about resources, and about what SAM makes beside them."""

    def __init__(self, root: Members, given: Mapping[str, str], *, attribute: Attribute, problems: Problems) -> None:
        self._root = root
        self._problems = problems
        self._attribute = attribute
        self._known: dict[str, Any] = {
            "AWS::AccountId": ACCOUNT,
            "AWS::Region": REGION,
            "AWS::Partition": "aws",
            "AWS::URLSuffix": "amazonaws.com",
            "AWS::StackName": _STACK,
            "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{_STACK}/local",
            "AWS::NotificationARNs": [],
            "AWS::NoValue": NOTHING,
        }
        #: Parameters that nobody gave: their lines.
        self._missing: dict[str, int] = {}
        #: What stands in for exports of other stacks, by their names.
        self._imports: dict[str, str] = {}
        self._read_parameters(given)
        self._truths: dict[str, bool | None] = {}  #: of conditions; None: under way

    def world(self) -> World:
        """The one world that this run takes place in."""
        parameters = {name: _node(value) for name, value in self._known.items() if value is not NOTHING}
        section = self._root.get("Conditions")
        names = section.items if isinstance(section, Members) else {}
        return World(parameters, {name: self.holds(name) for name in names}, self._root)

    def is_missing(self, name: str) -> bool:
        """Whether it is a parameter that has no value."""
        return name in self._missing

    def stand_in(self, name: str, value: str) -> None:
        """Give a missing parameter a value."""
        del self._missing[name]
        self._known[name] = value

    def imported(self, node: Node | None) -> str | None:
        """The name of an export of another stack that a node imports; None for another node, or with a stand-in."""
        if not isinstance(node, Call) or node.name != "Fn::ImportValue":
            return None
        name = _text(self._value(node.argument, 0))
        return None if name in self._imports else name

    def stand_in_for_import(self, name: str, value: str) -> None:
        """Give an export of another stack a value."""
        self._imports[name] = value

    def holds(self, name: str) -> bool:
        """A condition's truth. In a circle, which CloudFormation refuses, it is false."""
        found = self._root.get("Conditions")
        section = found if isinstance(found, Members) else Members({}, self._root.line_of("Conditions"))
        if name not in self._truths:
            self._truths[name] = None
            self._truths[name] = self._truth(section.get(name))
        elif self._truths[name] is None:
            line = section.line_of(name)
            self._problems.note(line, f"the condition {name} leads back to itself: there it counts as false")
        return self._truths[name] or False

    def plain(self, node: Node | None) -> Any:
        """A value as JSON has it; None for `AWS::NoValue` too."""
        found = self._value(node, 0)
        return None if found is NOTHING else found

    def _read_parameters(self, given: Mapping[str, str]) -> None:
        section = self._root.get("Parameters")
        declared = section.items if isinstance(section, Members) else {}
        for name, item in declared.items():
            body = item.node if isinstance(item.node, Members) else Members({}, item.line)
            kind = text_of(body.get("Type")) or "String"
            text = given.get(name)
            if text is None and not kind.startswith(_SSM):
                text = text_of(body.get("Default"))
            if text is None:
                self._missing[name] = item.line
                continue
            is_list = kind == "CommaDelimitedList" or "List<" in kind
            parts = [part.strip() for part in text.split(",")]
            is_secret = (text_of(body.get("NoEcho")) or "").lower() == "true"
            if is_secret:
                for secret in (text, *parts) if is_list else (text,):
                    self._problems.hide(secret)
            self._check_allowed(name, text, body, is_secret=is_secret)
            self._known[name] = parts if is_list else text
        for name in given.keys() - declared.keys():
            line = self._root.line_of("Parameters")
            self._problems.error(line, f"there is no parameter {name}: {_listed(declared) or 'the template has none'}")

    def _check_allowed(self, name: str, text: str, body: Members, *, is_secret: bool) -> None:
        allowed = body.get("AllowedValues")
        texts = [text_of(one) for one in allowed.items] if isinstance(allowed, Sequence) else []
        if texts and text not in texts:
            line = body.line_of("AllowedValues")
            allowed_ones = "it is none of its AllowedValues" if is_secret else _listed(filter(None, texts))
            self._problems.error(line, f"the parameter {name} cannot be '{text}': {allowed_ones}")

    def _truth(self, node: Node | None) -> bool:
        if isinstance(node, Call):
            if node.name == "Condition":
                return self.holds(text_of(node.argument) or "")
            parts = node.argument.items if isinstance(node.argument, Sequence) else ()
            if node.name == "Fn::Not":
                return not any(self._truth(one) for one in parts)
            if node.name == "Fn::And":
                return all(self._truth(one) for one in parts)
            if node.name == "Fn::Or":
                return any(self._truth(one) for one in parts)
            if node.name == "Fn::Equals" and len(parts) == 2:
                left, right = (self.plain(one) for one in parts)
                return _text(left) == _text(right)
        line = node.line if node is not None else self._root.line_of("Conditions")
        self._problems.error(line, "this condition cannot be told here: it counts as false")
        return False

    def _value(self, node: Node | None, depth: int) -> Any:
        if node is None or depth > _DEEPEST:
            return None
        if isinstance(node, Scalar):
            return self._scalar(node)
        if isinstance(node, Members):
            pairs = ((name, self._value(item.node, depth + 1)) for name, item in node.items.items())
            return {name: value for name, value in pairs if value is not NOTHING}
        if isinstance(node, Sequence):
            found = [self._value(one, depth + 1) for one in node.items]
            return [one for one in found if one is not NOTHING]
        return self._call(node, depth + 1)

    def _scalar(self, node: Scalar) -> Any:
        if isinstance(node.value, str) and "{{resolve:" in node.value:
            self._problems.note(
                node.line, f"'{node.value}' is looked up by CloudFormation only: it stays as it is here"
            )
        return node.value

    def _call(self, node: Call, depth: int) -> Any:
        argument = node.argument
        parts: tuple[Node, ...] = argument.items if isinstance(argument, Sequence) else ()
        if node.name == "Ref":
            return self._named(text_of(argument) or "", "", node.line)
        if node.name == "Fn::GetAtt" and parts:
            first, *others = (_text(self._value(one, depth)) for one in parts)
            return self._named(first, ".".join(others), node.line)
        if node.name == "Fn::If" and len(parts) == 3:
            return self._value(parts[1] if self.holds(text_of(parts[0]) or "") else parts[2], depth)
        if node.name in {"Fn::Equals", "Fn::Not", "Fn::And", "Fn::Or", "Condition"}:
            return self._truth(node)
        made = self._made(node, parts, depth)
        if made is None:
            self._problems.error(node.line, f"{node.name} as it is written here cannot be worked out on this machine")
            return ""
        return made

    def _made(self, node: Call, parts: tuple[Node, ...], depth: int) -> Any:
        """The functions that make a value of values; None where that is not possible."""
        match node.name:
            case "Fn::Sub":
                return self._substituted(node, parts, depth)
            case "Fn::FindInMap":
                return self._looked_up(parts, depth)
            case "Fn::ImportValue":
                return self._imported(node, depth)
            case "Fn::GetAZs":
                return [f"{REGION}{letter}" for letter in "abc"]
            case _:
                pass
        found = self._value(node.argument, depth)
        items: list[Any] = found if isinstance(found, list) else []
        match node.name:
            case "Fn::Join" if len(items) == 2 and isinstance(items[1], list):
                return _text(items[0]).join(_text(one) for one in items[1])
            case "Fn::Split" if len(items) == 2 and _text(items[0]):
                return _text(items[1]).split(_text(items[0]))
            case "Fn::Select" if len(items) == 2 and isinstance(items[1], list):
                index = _text(items[0])
                return items[1][int(index)] if index.isdecimal() and int(index) < len(items[1]) else None
            case "Fn::Base64":
                return base64.b64encode(_text(found).encode("utf-8", "replace")).decode()
            case "Fn::Length" if isinstance(found, list):
                return len(items)
            case "Fn::ToJsonString":
                return json.dumps(found, separators=(",", ":"), default=str)
            case _:
                return None

    def _named(self, name: str, attribute: str, line: int) -> Any:
        if not attribute and name in self._known:
            return self._known[name]
        if not attribute and name in self._missing:
            where = self._missing[name]
            self._problems.note(where, f"the parameter {name} has no default and was not given: it is '{name}' here")
            return name
        found = self._attribute(name, attribute)
        if found is not None:
            return found
        whole = f"{name}.{attribute}" if attribute else name
        self._problems.note(line, f"what {whole} is, only AWS knows: it is '{whole}' here")
        return whole

    def _substituted(self, node: Call, parts: tuple[Node, ...], depth: int) -> str | None:
        text = text_of(parts[0] if parts else node.argument)
        own = parts[1] if len(parts) == 2 else None
        given = own if isinstance(own, Members) else Members({}, node.line)
        if text is None:
            return None

        def put(match: re.Match[str]) -> str:
            literal, name = match[1], match[2].strip()
            if literal:
                return f"${{{match[2]}}}"
            if name in given.items:
                return _text(self._value(given.get(name), depth))
            first, _, attribute = name.partition(".")
            return _text(self._named(first, attribute, node.line))

        return _PLACE.sub(put, text)

    def _looked_up(self, parts: tuple[Node, ...], depth: int) -> Any:
        found: Node | None = self._root.get("Mappings")
        for part in parts[:3]:
            found = found.get(_text(self._value(part, depth))) if isinstance(found, Members) else None
        if found is None and len(parts) > 3:  # the language extensions' DefaultValue
            found = parts[3].get("DefaultValue") if isinstance(parts[3], Members) else None
        return self._value(found, depth)

    def _imported(self, node: Call, depth: int) -> str:
        name = _text(self._value(node.argument, depth))
        if name in self._imports:
            return self._imports[name]
        self._problems.note(node.line, f"'{name}' is imported from another stack: it is '{name}' here")
        return name


def _node(value: Any) -> Node:
    if isinstance(value, list):
        return Sequence(tuple(Scalar(one, 1) for one in value), 1)
    return Scalar(value, 1)


def _text(value: Any) -> str:
    """A value as CloudFormation puts it into a text."""
    if value is None or value is NOTHING:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_text(one) for one in value)
    return json.dumps(value, default=str) if isinstance(value, dict) else str(value)


def _listed(names: Any) -> str:
    found = ", ".join(str(one) for one in names)
    return f"it can be {found}" if found else ""
