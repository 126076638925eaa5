"""JSON as nodes. YAML's reader would refuse what is indented with tabs, and takes ten times as long."""

from __future__ import annotations

import re
from json import JSONDecodeError, JSONDecoder

from pipeline.deploy.lint.nodes import (
    MAX_DEPTH,
    Node,
    Pair,
    Scalar,
    Sequence,
    UnreadableTemplate,
    mapping,
    readable,
    too_deep,
)

_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,400})(\.[0-9]{1,400})?([eE][-+]?[0-9]{1,3})?(?![0-9])")
_WORDS = {"true": True, "false": False, "null": None}
_STRINGS = JSONDecoder()
_WORD = re.compile("|".join(_WORDS))


def parse(text: str) -> Node:
    """The whole text as one node. Raises `UnreadableTemplate`."""
    reader = _Reader(text)
    node, position = reader.value(reader.skip(0), 0)
    position = reader.skip(position)
    if position != len(text):
        raise reader.error("there is more behind its end", position)
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._counted = 0  # up to here the line breaks are counted
        self._line = 1

    def skip(self, position: int) -> int:
        found = _SPACE.match(self._text, position)
        return found.end() if found else position

    def error(self, message: str, position: int) -> UnreadableTemplate:
        return UnreadableTemplate(f"the text is no JSON: {message}", self._text.count("\n", 0, position) + 1)

    def value(self, position: int, depth: int) -> tuple[Node, int]:
        first = self._text[position : position + 1]
        line = self._line_at(position)
        if depth > MAX_DEPTH:
            raise too_deep(line)
        if first == "{":
            return self._object(position + 1, depth, line)
        if first == "[":
            return self._array(position + 1, depth, line)
        if first == '"':
            text, end = self._string(position)
            return Scalar(text, line), end
        if word := _WORD.match(self._text, position):
            return Scalar(_WORDS[word[0]], line), word.end()
        if number := _NUMBER.match(self._text, position):
            is_float = number[1] or number[2]
            return Scalar(float(number[0]) if is_float else int(number[0]), line), number.end()
        raise self.error("a value is missing", position)

    def _object(self, position: int, depth: int, line: int) -> tuple[Node, int]:
        pairs: list[Pair] = []
        position = self.skip(position)
        while self._text[position : position + 1] != "}":
            if pairs:
                position = self._expect(",", position)
            key_line = self._line_at(position)
            if self._text[position : position + 1] != '"':
                raise self.error("a key in double quotes is missing", position)
            key, position = self._string(position)
            position = self._expect(":", self.skip(position))
            found, position = self.value(position, depth + 1)
            pairs.append((key, key_line, found))
            position = self.skip(position)
        return mapping(pairs, line), position + 1

    def _array(self, position: int, depth: int, line: int) -> tuple[Node, int]:
        items: list[Node] = []
        position = self.skip(position)
        while self._text[position : position + 1] != "]":
            if items:
                position = self._expect(",", position)
            found, position = self.value(position, depth + 1)
            items.append(found)
            position = self.skip(position)
        return Sequence(tuple(items), line), position + 1

    def _expect(self, sign: str, position: int) -> int:
        if self._text[position : position + 1] != sign:
            raise self.error(f"'{sign}' is missing", position)
        return self.skip(position + 1)

    def _string(self, position: int) -> tuple[str, int]:
        try:
            text, end = _STRINGS.raw_decode(self._text, position)
        except JSONDecodeError as error:
            raise self.error("a text does not end, or holds what must be escaped", error.pos) from None
        return readable(str(text)), end

    def _line_at(self, position: int) -> int:
        self._line += self._text.count("\n", self._counted, position)
        self._counted = position
        return self._line
