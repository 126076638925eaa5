"""Writing a template anew beside what people wrote into it by hand.

The last section of a generated template lists what was generated, with a digest of each entry. An
entry that still has its digest is ours, and is written anew or taken away; any other is somebody's, and stays.
Comments above a section's own line stay too, and are not asked about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.deploy.template.blocks import Document, Key, lines_of, parse
from pipeline.errors import ConfigurationError

#: Where the digests stand.
_DIGESTS: Key = ("Metadata", "Pipeline")
#: The lines that `sealed` writes there, and what somebody may have put behind one.
_DIGEST_LINE = re.compile(r"\s*(?:Pipeline:|Generated:|[A-Za-z0-9.:]+: [a-p]{8})[ \t]*(#[^\r\n]*)?(?:\r\n|\r|\n)?")

_IN_SUB = re.compile(r"\$\{([^!}][^}]*)\}")


@dataclass(frozen=True)
class Merged:
    """A template with its hand-written parts kept."""

    text: str = ""
    edited: list[str] = field(default_factory=list)  #: ours once, changed since: kept as they are
    foreign: list[str] = field(default_factory=list)  #: never ours
    missing: list[str] = field(default_factory=list)  #: ours once, taken out by hand, and not put back
    dangling: list[str] = field(default_factory=list)  #: refers to something that is not in the template

    @property
    def is_ours(self) -> bool:
        """True when nobody wrote into it."""
        return not (self.edited or self.foreign or self.missing)


def sealed(text: str) -> str:
    """A generated template with the digests of its entries."""
    document = parse(text, "the template")
    digests = "".join(f"      {_name(key)}: {document.digest(key)}\n" for key in document.blocks)
    why = "# What was generated. An entry that no longer has its digest was edited by hand, and is left alone.\n"
    section, entry = _DIGESTS
    return f"{text}\n{why}{section}:\n  {entry}:\n    Generated:\n{digests}"


def merged(generated: str, existing: str, name: str) -> Merged:
    """A generated (sealed) template, with everything in the file `name` kept that is not ours.

    Raises `ConfigurationError` for an existing text that cannot be taken apart, or put together again.
    """
    new, old = parse(generated, "the template"), parse(existing, name)
    _open_empty(old, new, name)
    _fit(new, old)
    digests = _digests(old)
    result = Document(head=old.head, openings={**new.openings, **old.openings}, tail=old.tail, end=old.end)
    said = Merged()
    for key, block in old.blocks.items():
        if key != _DIGESTS:
            kept = _kept(key, block, old, new, digests, said)
        else:
            kept = block if digests == _digests(new) else _redigested(block, new)
        if kept is not None:
            result.blocks[key] = kept
    for key, block in new.blocks.items():
        if key in old.blocks:
            continue
        if _name(key) in digests:
            said.missing.append(_name(key))
        else:
            _insert(key, block, new, result)
    text = _without_loss(result, old)
    made = old if text == existing else _proved(text, result, old, new, name)
    return Merged(text, said.edited, said.foreign, said.missing, sorted(_dangling(made)))


def _open_empty(old: Document, new: Document, name: str) -> None:
    """Let a section that has nothing in it (`Outputs:`) take entries."""
    for section in new.openings:
        if old.values.get((section, None), "") != "":
            raise ConfigurationError(f"{name}: '{section}' is no list of entries by name: write it as lines")
        if (section, None) in old.blocks:
            old.openings[section] = old.blocks.pop((section, None))


def _fit(new: Document, old: Document) -> None:
    """Give generated lines the file's ends, and entries the column of their neighbours."""
    for key, block in new.blocks.items():
        wider = old.columns.get(key[0], 0) - new.columns.get(key[0], 0) if key[0] in old.columns else 0
        new.blocks[key] = "".join(_shifted(line.rstrip("\n"), wider) + old.end for line in lines_of(block))
    new.openings = {section: opening.replace("\n", old.end) for section, opening in new.openings.items()}


def _shifted(line: str, wider: int) -> str:
    if not line or wider == 0:
        return line
    return " " * wider + line if wider > 0 else line.removeprefix(" " * -wider)


def _kept(key: Key, block: str, old: Document, new: Document, digests: Mapping[str, str], said: Merged) -> str | None:
    """What becomes of one entry of the file: it stays, is written anew, or goes (None)."""
    name, digest = _name(key), old.digest(key)
    generated = new.blocks.get(key)
    if digests.get(name) == digest:
        is_same = generated is not None and new.digest(key) == digest
        return block if is_same else generated
    if name not in digests and generated is None:
        said.foreign.append(name)
    elif generated is None or new.digest(key) != digest:
        said.edited.append(name)
    return block


def _redigested(block: str, new: Document) -> str:
    """The new digests, between what somebody wrote before and behind the old ones."""
    before, after = "", ""
    is_behind = False
    for line in lines_of(block):
        found = _DIGEST_LINE.fullmatch(line)
        is_behind = is_behind or found is not None
        if found and found[1]:
            line = line[: len(line) - len(line.lstrip())] + line[found.start(1) :]  # noqa: PLW2901 - only its comment
        elif found:
            continue
        before, after = (before, after + line) if is_behind else (before + line, after)
    return before + new.blocks[_DIGESTS] + after


def _insert(key: Key, block: str, new: Document, result: Document) -> None:
    """Put a new entry behind the one that it follows in the generated template, in its own section."""
    order = list(new.blocks)
    earlier = [one for one in order[: order.index(key)] if one in result.blocks]
    present = list(result.blocks)
    before = earlier[-1] if earlier else None
    if before is None or before[0] != key[0]:
        section = key[0] if any(one[0] == key[0] for one in present) else before and before[0]
        before = next((one for one in reversed(present) if one[0] == section), None)
    position = 0 if before is None else present.index(before) + 1
    items = list(result.blocks.items())
    items.insert(position, (key, block))
    result.blocks = dict(items)


def _without_loss(result: Document, old: Document) -> str:
    """The text; comments above sections that have lost all their entries stand at the end."""
    left = [section for section in old.openings if all(key[0] != section for key in result.blocks)]
    comments = [line for section in left for line in lines_of(old.openings[section]) if line.lstrip().startswith("#")]
    text = result.text
    if comments and not text.endswith(("\r", "\n")):
        text += old.end
    return text + "".join(line.lstrip() for line in comments)


def _proved(text: str, result: Document, old: Document, new: Document, name: str) -> Document:
    """The text taken apart again.

    Raises `ConfigurationError` unless every entry says what it said where it came from: then the file stays as it is.
    """
    try:
        made = parse(text, name)
    except ConfigurationError:
        made = Document()
    for key, block in result.blocks.items():
        came_from = old if old.blocks.get(key) == block else new
        if key != _DIGESTS and made.values.get(key) != came_from.values[key]:
            raise ConfigurationError(
                f"{name}: '{_name(key)}' as it is written there and what is generated do not go together: indent it as "
                "its neighbours, or take it out"
            )
    if list(made.values) != list(result.blocks):
        raise ConfigurationError(f"{name}: what is written there and what is generated do not go together")
    return made


def _dangling(document: Document) -> Iterator[str]:
    """What refers to a resource or parameter that is not there, such as one that the code no longer declares."""
    there = {entry for section, entry in document.blocks if section in ("Resources", "Parameters") and entry}
    if any("Fn::" in entry for entry in there):
        return  # loops and macros make names that only CloudFormation knows
    # SAM makes resources of its own, whose names begin with that of a function or a layer.
    expanded = tuple(name for name in there if _is_expanded(document.values.get(("Resources", name))))
    for key, value in document.values.items():
        for name in sorted(set(_references(value))):
            if name not in there and "::" not in name and not name.startswith(expanded):
                yield f"{_name(key)} refers to '{name}', which is not in the template"


def _is_expanded(resource: Any) -> bool:
    return isinstance(resource, dict) and str(resource.get("Type")).startswith("AWS::Serverless::")


def _references(value: Any) -> Iterator[str]:
    match value:
        case ["!Ref", str(name)] | ["!GetAtt", str(name)]:
            yield name.partition(".")[0]
        case ["!GetAtt", [str(name), *_]]:
            yield name
        case ["!Sub" | "Fn::Sub", str(text)] | {"Fn::Sub": str(text)}:
            yield from (found.partition(".")[0].strip() for found in _IN_SUB.findall(text))
        case ["!Sub", [str(text), dict(own)]] | {"Fn::Sub": [str(text), dict(own)]}:
            yield from (name for name in _references(["!Sub", text]) if name not in own)
            yield from _references(own)
        case {"Ref": str(name)}:
            yield name
        case {"Fn::GetAtt": [str(name), *_]} | {"Fn::GetAtt": str(name)}:
            yield name.partition(".")[0]
        case dict():
            for member in value.values():
                yield from _references(member)
        case list():
            for member in value:
                yield from _references(member)
        case _:
            pass


def _name(key: Key) -> str:
    section, entry = key
    return section if entry is None else f"{section}.{entry}"


def _digests(document: Document) -> dict[str, str]:
    """What the file says was generated; empty for a file that was not."""
    found = document.values.get(_DIGESTS)
    found = found.get("Generated") if isinstance(found, dict) else None
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
