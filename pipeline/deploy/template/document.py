"""A template as text: YAML with its comments, always the same bytes for the same declarations."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString
from ruamel.yaml.tag import Tag

from pipeline.aws.cloudformation.values import Att, If, IsGiven, NameOfArn, Noted, Ref, Sub, inside
from pipeline.deploy.template.assembly import Template

_WIDTH = 120
_INDENT = 2
#: Lists of plain values stand on one line up to this length, mappings up to this length of their values.
_SHORT, _SHORT_VALUES = 90, 60
#: What YAML 1.1, which CloudFormation reads, takes for something else than text, and YAML 1.2 does not.
_NOT_TEXT = re.compile(
    r"y|n|yes|no|on|off|true|false|null|~|[-+]?[.0-9][0-9_:.]*(?:e[-+]?[0-9]+)?|[-+]?0[xb][0-9a-f_]+|=|<<",
    re.IGNORECASE,
)
#: Text that needs no quotes of ours, and lines that can stand as they are: no characters that one of the two YAMLs, or
#: an editor, takes for the end of a line or for nothing, and no spaces where they would get lost.
_CHARACTERS = "\x21-\x7e\xa1-\u1fff\u2030-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff"
_LINE = re.compile(f"(?![?:])[{_CHARACTERS}](?:[{_CHARACTERS} ]*[{_CHARACTERS}])?")
_LINES = re.compile(
    f"[{_CHARACTERS}](?:[{_CHARACTERS} ]*[{_CHARACTERS}])?(?:\n(?: *[{_CHARACTERS}](?:[{_CHARACTERS} ]*[{_CHARACTERS}])?)?)+"
)


def text_of(template: Template, head: str) -> str:
    """The template as YAML, below a head of comment lines."""
    root = CommentedMap()
    for name, section in template.sections.items():
        root[name] = _block(_node(section, _INDENT))
    for name in list(root)[2:]:
        root.yaml_set_comment_before_after_key(name, before="\n")
    _space(root, template)
    stream = io.StringIO()
    _yaml().dump(root, stream)
    body = "\n".join(line.rstrip() for line in stream.getvalue().removesuffix("\n").split("\n"))
    return "".join(f"# {line}".rstrip() + "\n" for line in head.splitlines()) + body + "\n"


def _space(root: CommentedMap, template: Template) -> None:
    """Put an empty line, heading and reason above each resource."""
    resources: Any = root["Resources"]
    for position, name in enumerate(resources):
        lines = [""] if position else []
        if name in template.headings:
            lines += [*_heading(template.headings[name]), ""]
        if name in template.whys:
            lines += template.whys[name].splitlines()
        if lines:
            resources.yaml_set_comment_before_after_key(name, before="\n".join(lines) or "\n", indent=_INDENT)


def _heading(text: str) -> list[str]:
    """Names stand in it, and those may hold anything; a comment holds no control characters."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return textwrap.wrap(f"--- {printable} ---", _WIDTH - 2 * _INDENT)


def _yaml() -> YAML:
    yaml = YAML()
    yaml.width = _WIDTH
    yaml.indent(mapping=_INDENT, sequence=2 * _INDENT, offset=_INDENT)
    return yaml


def _node(value: Any, column: int) -> Any:
    match value:
        case Noted():
            return _node(value.value, column)
        case Ref():
            return TaggedScalar(value=value.name, tag="!Ref")
        case Att():
            return TaggedScalar(value=f"{value.name}.{value.attribute}", tag="!GetAtt")
        case Sub():
            return _sub(value.text)
        case If():
            return _tagged("!If", [value.condition, value.then, value.otherwise], column)
        case NameOfArn():
            split = _tagged("!Split", [":", Ref(value.parameter)], column)
            made = CommentedSeq([5, split])
            made.fa.set_flow_style()
            made.yaml_set_ctag(Tag(suffix="!Select"))
            return made
        case IsGiven():
            equals = _tagged("!Equals", [Ref(value.name), ""], column)
            made = CommentedSeq([equals])
            made.fa.set_flow_style()
            made.yaml_set_ctag(Tag(suffix="!Not"))
            return made
        case Mapping():
            return _map(value, column)
        case list() | tuple():
            return _list(list(value), column)
        case str():
            return _text(value)
        case _:
            return value


def _map(value: Mapping[str, Any], column: int) -> CommentedMap:
    """A mapping whose keys stand in this column."""
    made = CommentedMap({_text(name): _node(member, column + _INDENT) for name, member in value.items()})
    for name, member in value.items():
        if isinstance(member, Noted):
            made.yaml_set_comment_before_after_key(name, before=member.why, indent=column)
        if name != "Properties" and isinstance(made[name], CommentedMap) and _fits(member):
            made[name].fa.set_flow_style()
    return made


def _list(value: list[Any], column: int) -> CommentedSeq:
    made = CommentedSeq([_node(member, column + _INDENT) for member in value])
    for member, node in zip(value, made, strict=True):
        if isinstance(node, CommentedMap) and _fits(member):
            node.fa.set_flow_style()
    if all(not isinstance(member, (Mapping, list, tuple, Noted)) for member in value) and len(repr(value)) <= _SHORT:
        made.fa.set_flow_style()
    return made


def _block(section: Any) -> Any:
    """A section with each of its entries as lines of their own."""
    if isinstance(section, CommentedMap):
        for entry in section.values():
            if isinstance(entry, CommentedMap):
                entry.fa.set_block_style()
    return section


def _fits(value: Any) -> bool:
    """One line for what is small, as `{AttributeName: id, KeyType: HASH}`."""
    held = value.value if isinstance(value, Noted) else value
    simple = all(isinstance(member, (str, int, Ref, Att)) for member in held.values())
    return simple and 0 < len(held) <= 2 and sum(len(inside(member)) for member in held.values()) <= _SHORT_VALUES


def _tagged(tag: str, value: list[Any], column: int) -> CommentedSeq:
    made = CommentedSeq([_node(member, column + _INDENT) for member in value])
    made.fa.set_flow_style()
    made.yaml_set_ctag(Tag(suffix=tag))
    return made


def _sub(text: str) -> TaggedScalar:
    style = "|" if _LINES.fullmatch(text) else None if _LINE.fullmatch(text) else '"'
    return TaggedScalar(value=text, style=style, tag="!Sub")


def _text(text: str) -> Any:
    if _LINES.fullmatch(text):
        return LiteralScalarString(text)
    return text if _LINE.fullmatch(text) and not _NOT_TEXT.fullmatch(text) else DoubleQuotedScalarString(text)
