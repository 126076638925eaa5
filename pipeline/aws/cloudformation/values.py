"""Template values: CloudFormation's intrinsic functions, and the reason of a number beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Ref(Struct, frozen=True):
    """`!Ref`: a parameter's value, or what a resource's type gives for it (a queue: its URL)."""

    name: str


class Att(Struct, frozen=True):
    """`!GetAtt`."""

    name: str
    attribute: str = "Arn"


class Sub(Struct, frozen=True):
    """`!Sub`: text with `${Name}` in it."""

    text: str


class If(Struct, frozen=True):
    """`!If`."""

    condition: str
    then: Any
    otherwise: Any


class NameOfArn(Struct, frozen=True):
    """A queue's name in the ARN that a parameter has."""

    parameter: str


class IsGiven(Struct, frozen=True):
    """The condition that a parameter is not empty."""

    name: str


class Noted(Struct, frozen=True):
    """A value and the reason of it, which becomes a comment above it."""

    value: Any
    why: str


#: Leaves a property out.
NO_VALUE = Ref("AWS::NoValue")


def plain(value: Any) -> Any:
    """The value as CloudFormation's JSON."""
    match value:
        case Noted():
            return plain(value.value)
        case Ref():
            return {"Ref": value.name}
        case Att():
            return {"Fn::GetAtt": [value.name, value.attribute]}
        case Sub():
            return {"Fn::Sub": value.text}
        case If():
            return {"Fn::If": [value.condition, plain(value.then), plain(value.otherwise)]}
        case NameOfArn():
            return {"Fn::Select": [5, {"Fn::Split": [":", {"Ref": value.parameter}]}]}
        case IsGiven():
            return {"Fn::Not": [{"Fn::Equals": [{"Ref": value.name}, ""]}]}
        case Mapping():
            return {name: plain(member) for name, member in value.items()}
        case list() | tuple():
            return [plain(member) for member in value]
        case _:
            return value


def inside(value: Any) -> str:
    """A value inside the text of a `!Sub`."""
    match value:
        case Ref():
            return f"${{{value.name}}}"
        case Att():
            return f"${{{value.name}.{value.attribute}}}"
        case Sub():
            return value.text
        case _:
            return str(value).replace("${", "${!")
