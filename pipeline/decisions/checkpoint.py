"""Checkpoints: places in a source's order, as texts that compare as the places do.

A source that keeps an order delivers each scope of it (a shard, a message group) one batch after the other.
So all of a lane of a scope up to the last record that was settled is settled, and one place says so for all
of them.
"""

from __future__ import annotations

from msgspec import Struct

from pipeline.decisions.keys import entry_id, key_text


class Position(Struct, frozen=True):
    """Where a record stands in its source's order."""

    scope: str  #: what the source delivers in order, one batch after the other: a shard, a message group
    place: str  #: within it; a later record has a larger text


def place(number: str | int, index: int = 0) -> str:
    """A sequence number, and the place in an aggregate that shares it, as a text.

    Numbers have no fixed number of digits (Kinesis: up to 129), so their length leads.
    """
    digits = str(number)
    return f"{len(digits):03}{digits}.{index:07}"


def checkpoint_id(prefix: str, scope: str, kind: str, lane: str | None) -> str:
    """The id of the entry that holds a lane's place. A lane of the user's may pass through several scopes.

    `kind`: how lanes are told apart. When that changes a lane has other records than before, and its place says
    nothing about them.
    """
    return entry_id(prefix, key_text(["checkpoint", scope, kind, lane]))
