"""Templates read by other means than those that wrote them: PyYAML, ruamel.yaml's safe reader, SAM's own transform."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import boto3
import yaml  # type: ignore[import-untyped]
from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

_CODE = "s3://bucket/code"
_PLACE = re.compile(r"\$\{([^}]*)\}")


def _long_form(tag: str, value: Any) -> dict[str, Any]:
    """`!Ref X` as {"Ref": "X"}, the way CloudFormation takes it."""
    if tag == "GetAtt" and isinstance(value, str):
        name, _, attribute = value.partition(".")
        return {"Fn::GetAtt": [name, attribute]}
    return {tag if tag == "Ref" else f"Fn::{tag}": value}


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1, which is what CloudFormation reads."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(set(map(repr, names))) == len(names), f"a name stands twice: {names}"
        made: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return made


class _Constructor(SafeConstructor):
    """YAML 1.2, which is what newer readers read."""


def _tagged(loader: Any, suffix: str, node: Any) -> dict[str, Any]:
    kind = type(node).__name__
    if kind == "ScalarNode":
        return _long_form(suffix, loader.construct_scalar(node))
    return _long_form(suffix, loader.construct_sequence(node, deep=True))


_Loader.add_multi_constructor("!", _tagged)
_Constructor.add_multi_constructor("!", _tagged)


def read(text: str) -> Any:
    """A template's values, with YAML 1.1's eyes."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader with tags of its own


def read_newer(text: str) -> Any:
    """A template's values, with YAML 1.2's eyes."""
    reader = YAML(typ="safe", pure=True)
    reader.Constructor = _Constructor
    return reader.load(text)


@cache
def _session() -> boto3.Session:
    return boto3.Session(region_name="eu-west-1")


def expanded(template: dict[str, Any]) -> dict[str, Any]:
    """The template after SAM's transform: plain CloudFormation. Where code lies is made an address in S3."""
    template = json.loads(json.dumps(template))
    template["Globals"]["Function"]["CodeUri"] = _CODE
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            resource["Properties"]["ContentUri"] = _CODE
    translator = Translator({}, Parser(), boto_session=_session())
    made: dict[str, Any] = translator.translate(template, {"Stage": "dev"})
    return made


def walk(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping inside a value, itself first."""
    if isinstance(value, dict):
        yield value
    for member in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(member)


def places(text: str) -> list[str]:
    """What stands in `${}` in the text of a `!Sub`, literal ones (`${!x}`) left out."""
    return [name for name in _PLACE.findall(text) if not name.startswith("!")]


def references(value: Any) -> Iterator[tuple[str, str | None]]:
    """Everything that a value refers to: a name, and the attribute that is asked of it."""
    for one in walk(value):
        if set(one) == {"Ref"}:
            yield one["Ref"], None
        elif set(one) == {"Fn::GetAtt"}:
            found = one["Fn::GetAtt"]
            name, attribute = found.split(".", 1) if isinstance(found, str) else found
            yield name, attribute
        elif set(one) == {"Fn::Sub"}:
            text, given = one["Fn::Sub"] if isinstance(one["Fn::Sub"], list) else (one["Fn::Sub"], {})
            for place in places(text):
                if place not in given:
                    name, _, attribute = place.partition(".")
                    yield name, attribute or None


def filled(text: str, **values: str) -> str:
    """A `!Sub`'s text as CloudFormation fills it: each place with its own name, or what is given for it."""
    return re.sub(
        r"\$\{(!?)([^}]*)\}", lambda found: f"${{{found[2]}}}" if found[1] else values.get(found[2], found[2]), text
    )


def statements(value: Any) -> list[dict[str, Any]]:
    """The policy statements inside a value."""
    return [one for one in walk(value) if "Effect" in one]


def listed(value: Any) -> list[Any]:
    """One or several, as several."""
    return value if isinstance(value, list) else [value]
