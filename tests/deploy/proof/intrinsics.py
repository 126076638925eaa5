"""What a template's intrinsic functions come to in a stack, computed a second time and apart from CloudFormation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_NO_VALUE = object()
_PLACEHOLDER = re.compile(r"\$\{(!?)([^}]*)\}")


@dataclass(frozen=True)
class Resolver:
    """A stack's names. Raises `KeyError` for a name that it does not know, `ValueError` for a function."""

    references: Mapping[str, Any]  #: of parameters, pseudo-parameters and resources
    conditions: Mapping[str, Any]  #: as the template writes them
    attribute: Callable[[str, str], str]  #: of a resource, such as ("Orders", "Arn")

    def resolve(self, value: Any) -> Any:
        """The value with every function replaced, and without what is `AWS::NoValue`."""
        if isinstance(value, list):
            found = [self.resolve(one) for one in value]
            return [one for one in found if one is not _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((function, argument),) = value.items()
            if function in ("Ref", "Condition") or function.startswith("Fn::"):
                return self._call(function, argument)
        members = {name: self.resolve(one) for name, one in value.items()}
        return {name: one for name, one in members.items() if one is not _NO_VALUE}

    def _call(self, function: str, argument: Any) -> Any:
        match function:
            case "Ref":
                return _NO_VALUE if argument == "AWS::NoValue" else self.references[argument]
            case "Fn::GetAtt":
                name, attribute = argument.split(".", 1) if isinstance(argument, str) else argument
                return self.attribute(name, attribute)
            case "Fn::Sub":
                text, more = (argument, {}) if isinstance(argument, str) else argument
                return _PLACEHOLDER.sub(lambda found: self._place(found, self.resolve(more)), text)
            case "Fn::Join":
                return argument[0].join(str(one) for one in self.resolve(argument[1]))
            case "Fn::If":
                return self.resolve(argument[1 if self._holds(argument[0]) else 2])
            case "Fn::Equals":
                left, right = self.resolve(argument)
                return str(left) == str(right)
            case "Fn::Not":
                return not self.resolve(argument)[0]
            case "Fn::And":
                return all(self.resolve(argument))
            case "Fn::Or":
                return any(self.resolve(argument))
            case "Condition":
                return self._holds(argument)
            case _:
                raise ValueError(f"{function} is not known here: add it")

    def _holds(self, condition: str) -> bool:
        return bool(self.resolve(self.conditions[condition]))

    def _place(self, found: re.Match[str], more: Mapping[str, Any]) -> str:
        literal, name = found.groups()
        if literal:
            return "${" + name + "}"
        if name in more:
            return str(more[name])
        if "." in name:
            return self.attribute(*name.split(".", 1))
        return str(self.references[name])
