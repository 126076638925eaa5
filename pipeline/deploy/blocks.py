"""A template as blocks of lines: the entries of its sections, each with the comments above it.

Writing a template anew must not touch what somebody else wrote. So files are put together from
blocks of text, never from parsed values: what is not replaced keeps every byte.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipeline.errors import ConfigurationError

#: No digits in a digest: YAML would take some for numbers.
_LETTERS = str.maketrans("0123456789", "ghijklmnop")
_COMMENT = re.compile(r"(?:^|\s)#(.*)")
#: A section, and an entry of it; no entry for a section that is one value (`Transform`).
Key = tuple[str, str | None]
#: Sections whose entries are blocks of their own. All others are one block each.
SECTIONS = ("Metadata", "Parameters", "Mappings", "Conditions", "Rules", "Resources", "Outputs")


@dataclass
class Document:
    """A template's lines: a head, then its blocks in order. A section's own line stands above its first entry."""

    head: list[str] = field(default_factory=list)
    blocks: dict[Key, list[str]] = field(default_factory=dict)
    values: dict[Key, Any] = field(default_factory=dict)  #: what each block says, for comparing
    openings: dict[str, list[str]] = field(default_factory=dict)  #: the lines of `Resources:` and its like

    @property
    def text(self) -> str:
        """The document as text."""
        lines = list(self.head)
        opened: set[str] = set()
        for (section, entry), block in self.blocks.items():
            if entry is not None and section not in opened:
                lines += self.openings[section]
                opened.add(section)
            lines += block
        return "\n".join(lines) + "\n"

    def digest(self, key: Key) -> str:
        """What a block says, comments included, in eight letters: indentation and quotes do not count."""
        comments = [found.group(1).strip() for line in self.blocks[key] if (found := _COMMENT.search(line))]
        said = json.dumps([self.values[key], comments], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:8].translate(_LETTERS)


def parse(text: str, name: str) -> Document:
    """Take a template apart. Raises `ConfigurationError` for what is no template in YAML's block style."""
    try:
        root = YAML().compose(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name} is not YAML: {_short(error)}") from None
    if not isinstance(root, MappingNode) or root.flow_style:
        raise ConfigurationError(f"{name} is not a template in YAML's block style, so it cannot be merged")
    lines = text.splitlines()
    document = Document()
    spans = [(key, start) for key, start in _starts(root, name)]
    begins = [_above(lines, start) for _, start in spans]
    document.head = lines[: begins[0]] if begins else lines
    for position, (key, _) in enumerate(spans):
        end = begins[position + 1] if position + 1 < len(begins) else len(lines)
        section, entry = key
        if entry is None and section in SECTIONS and _has_entries(root, section):
            document.openings[section] = lines[begins[position] : end]
        else:
            document.blocks[key] = lines[begins[position] : end]
            document.values[key] = _value(root, key)
    return document


def _starts(root: MappingNode, name: str) -> Iterator[tuple[Key, int]]:
    """Each section and entry with the line of its key, in order."""
    for key, value in root.value:
        section = str(key.value)
        yield (section, None), key.start_mark.line
        if section not in SECTIONS or not isinstance(value, MappingNode):
            continue
        if value.flow_style and value.value:
            raise ConfigurationError(
                f"{name}: '{section}' is written in braces: write it as lines, so that it can be merged"
            )
        for inner, _ in value.value:
            yield (section, str(inner.value)), inner.start_mark.line


def _above(lines: list[str], start: int) -> int:
    """Where a block begins: with the comments and empty lines above its key that are indented no deeper."""
    indent = len(lines[start]) - len(lines[start].lstrip())
    while start > 0:
        line = lines[start - 1]
        is_comment = line.lstrip().startswith("#") and len(line) - len(line.lstrip()) <= indent
        if line.strip() and not is_comment:
            break
        start -= 1
    return start


def _has_entries(root: MappingNode, section: str) -> bool:
    return any(
        isinstance(value, MappingNode) and bool(value.value) for key, value in root.value if key.value == section
    )


def _value(root: MappingNode, key: Key) -> Any:
    section, entry = key
    found = next(value for name, value in root.value if name.value == section)
    if entry is not None:
        found = next(value for name, value in found.value if name.value == entry)
    return _plain(found, 0)


def _plain(node: Node, depth: int) -> Any:
    """What a node says, with its tags; how it is written does not count."""
    if depth > 100:
        raise ConfigurationError("the template is nested more than 100 deep, or loops back into itself")
    tag = node.tag if str(node.tag).startswith("!") else ""
    value: Any = node.value
    if isinstance(node, MappingNode):
        value = {str(key.value): _plain(member, depth + 1) for key, member in node.value}
    elif isinstance(node, SequenceNode):
        value = [_plain(member, depth + 1) for member in node.value]
    elif isinstance(node, ScalarNode):
        value = str(node.value)
    return [str(tag), value] if tag else value


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
