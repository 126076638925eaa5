"""The tokens that Kinesis hands out: shard iterators and those of lists, opaque texts that expire.

Both are good for five minutes (API model: `GetShardIterator`, `ListShards`).
"""

from __future__ import annotations

import base64
from typing import Any, TypeVar

import msgspec

LIFETIME = 300.0  #: seconds


class Iterator(msgspec.Struct, frozen=True, array_like=True):
    """Where a shard is read on."""

    stream: int  #: the stream's serial number: one that is made again under its name is another
    shard: str
    after: int  #: the sequence number behind which it reads
    issued_at: float  #: epoch seconds
    count: int  #: no two iterators are the same text


class Rest(msgspec.Struct, frozen=True, array_like=True):
    """What is left of a list of shards."""

    stream: int
    shards: list[str]
    issued_at: float


_Place = TypeVar("_Place", Iterator, Rest)


def is_expired(place: Iterator | Rest, now: float) -> bool:
    """Whether it was issued too long ago."""
    return now - place.issued_at >= LIFETIME


def written(place: Iterator | Rest) -> str:
    """A place as a text."""
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).decode()


def read(text: Any, kind: type[_Place]) -> _Place | None:
    """The place of a text; None: it is none."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(text), type=kind)
    except (TypeError, ValueError):  # msgspec's errors are ValueErrors
        return None
