"""Writing a template anew beside what people wrote into it by hand.

The last section of a generated template lists what was generated, with a digest of each entry. An
entry that still has its digest is ours, and is written anew or taken away; any other is somebody's, and stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pipeline.deploy.blocks import Document, Key, parse

#: Where the digests stand.
_DIGESTS: Key = ("Metadata", "Pipeline")


@dataclass(frozen=True)
class Merged:
    """A template with its hand-written parts kept."""

    text: str = ""
    edited: list[str] = field(default_factory=list)  #: ours once, changed since: kept as they are
    foreign: list[str] = field(default_factory=list)  #: never ours
    missing: list[str] = field(default_factory=list)  #: ours once, taken out by hand, and not put back

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

    Raises `ConfigurationError` for an existing text that cannot be taken apart.
    """
    new, old = parse(generated, "the template"), parse(existing, name)
    digests = _digests(old)
    result = Document(head=old.head, openings={**new.openings, **old.openings})
    said = Merged()
    for key, block in old.blocks.items():
        kept = new.blocks[_DIGESTS] if key == _DIGESTS else _kept(key, block, old, new, digests, said)
        if kept is not None:
            result.blocks[key] = kept
    for key, block in new.blocks.items():
        if key in old.blocks:
            continue
        if _name(key) in digests:
            said.missing.append(_name(key))
        else:
            _insert(key, block, new, result)
    return Merged(result.text, said.edited, said.foreign, said.missing)


def _kept(
    key: Key, block: list[str], old: Document, new: Document, digests: Mapping[str, str], said: Merged
) -> list[str] | None:
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


def _insert(key: Key, block: list[str], new: Document, result: Document) -> None:
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


def _name(key: Key) -> str:
    section, entry = key
    return section if entry is None else f"{section}.{entry}"


def _digests(document: Document) -> dict[str, str]:
    """What the file says was generated; empty for a file that was not."""
    found = document.values.get(_DIGESTS)
    found = found.get("Generated") if isinstance(found, dict) else None
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
