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
from functools import lru_cache
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipeline.errors import ConfigurationError

#: No digits in a digest: YAML would take some for numbers.
_LETTERS = str.maketrans("0123456789", "ghijklmnop")
_COMMENT = re.compile(r"(?:^|\s)#(.*)")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
#: A section, and an entry of it; no entry for a section that is one value (`Transform`).
Key = tuple[str, str | None]
#: Sections whose entries are blocks of their own. All others are one block each.
SECTIONS = ("Metadata", "Parameters", "Mappings", "Conditions", "Rules", "Resources", "Outputs")


@dataclass
class Document:
    """A template's text: a head, then its blocks in order. A section's own line stands above its first entry."""

    head: str = ""
    blocks: dict[Key, str] = field(default_factory=dict)  #: whole lines, with their ends
    values: dict[Key, Any] = field(default_factory=dict)  #: what each block says, for comparing
    openings: dict[str, str] = field(default_factory=dict)  #: the lines of `Resources:` and its like
    tail: str = ""  #: comments in the first column behind everything
    end: str = "\n"  #: of its lines
    columns: dict[str, int] = field(default_factory=dict)  #: where a section's entries begin

    @property
    def text(self) -> str:
        """The document as text."""
        text = self.head
        opened: set[str] = set()
        for (section, entry), block in self.blocks.items():
            opening = self.openings[section] if entry is not None and section not in opened else ""
            opened.add(section)
            # The last line of a file may have no end.
            missing = "" if not text or text.endswith(("\r", "\n")) else self.end
            text += missing + opening + block
        return text + ("" if not self.tail or text.endswith(("\r", "\n")) else self.end) + self.tail

    def digest(self, key: Key) -> str:
        """What a block says, comments included, in eight letters: indentation and quotes do not count."""
        lines = self.blocks[key].splitlines()
        comments = [found.group(1).strip() for line in lines if (found := _COMMENT.search(line))]
        said = json.dumps([self.values[key], comments], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()[:8].translate(_LETTERS)


def lines_of(text: str) -> list[str]:
    """The lines with their ends."""
    return _LINE.findall(text)


def parse(text: str, name: str) -> Document:
    """Take a template apart. Raises `ConfigurationError` for what is no template in YAML's block style."""
    try:
        root = _composed(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name} is not YAML: {_short(error)}") from None
    if not isinstance(root, MappingNode) or root.flow_style:
        raise ConfigurationError(f"{name} is not a template in YAML's block style, so it cannot be merged")
    lines = lines_of(text)
    found = list(_starts(root, name))
    _check(found, name)
    begins = [_above(lines, line) for line in _lines(found, lines, name)]
    document = Document(head="".join(lines[: begins[0]] if begins else lines))
    last = _behind(lines)
    document.tail = "".join(lines[last:])
    document.end = "\r\n" if lines[0].endswith("\r\n") else "\n"
    for position, (key, node) in enumerate(found):
        end = begins[position + 1] if position + 1 < len(begins) else last
        block = "".join(lines[begins[position] : end])
        section, entry = key
        if entry is not None:
            document.columns.setdefault(section, node.start_mark.column)
        if entry is None and section in SECTIONS and _has_entries(root, section):
            document.openings[section] = block
        else:
            document.blocks[key] = block
            document.values[key] = _value(root, key)
    return document


@lru_cache(maxsize=8)
def _composed(text: str) -> Node | None:
    """The text's tree, which nothing changes. Kept, because composing takes nearly all the time, and a file that is in
    step is the same text as what is generated and as what would be written."""
    root: Node | None = YAML().compose(text)
    return root


def _starts(root: MappingNode, name: str) -> Iterator[tuple[Key, Node]]:
    """Each section and entry with its key's node, in order."""
    for key, value in root.value:
        section = str(key.value)
        yield (section, None), key
        if section not in SECTIONS or not isinstance(value, MappingNode):
            continue
        if value.flow_style and value.value:
            raise ConfigurationError(
                f"{name}: '{section}' is written in braces: write it as lines, so that it can be merged"
            )
        for inner, _ in value.value:
            yield (section, str(inner.value)), inner


def _check(found: list[tuple[Key, Node]], name: str) -> None:
    """Two entries of one name would become one; an alias would be taken for entries where its anchor stands."""
    keys = [key for key, _ in found]
    for section, entry in keys:
        if keys.count((section, entry)) > 1:
            raise ConfigurationError(f"{name}: there are two '{entry or section}': rename or remove one")
    places = [node.start_mark.index for _, node in found]
    if places != sorted(places):
        raise ConfigurationError(f"{name}: a section is an alias of another: write it out, so that it can be merged")


def _lines(found: list[tuple[Key, Node]], lines: list[str], name: str) -> list[int]:
    """The number of the line on which each key stands."""
    numbers: list[int] = []
    number = passed = 0
    for key, node in found:
        while number < len(lines) and passed + len(lines[number]) <= node.start_mark.index:
            passed += len(lines[number])
            number += 1
        before = "".join(lines[number : number + 1])[: node.start_mark.index - passed]
        if before.strip("\ufeff \t") or number == len(lines) or (numbers and numbers[-1] == number):
            raise ConfigurationError(f"{name}: '{key[1] or key[0]}' does not begin a line, so it cannot be merged")
        numbers.append(number)
    return numbers


def _behind(lines: list[str]) -> int:
    """Where the comments begin that stand in the first column behind everything."""
    last = position = len(lines)
    while position > 0 and (not lines[position - 1].strip() or lines[position - 1].startswith("#")):
        position -= 1
        last = position if lines[position].startswith("#") else last
    return last


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
