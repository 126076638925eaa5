"""Payloads that are sent to a source: their bytes, and the key that orders them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pipeline.decisions.codec import Document, encode
from pipeline.engine.stage import Stage

#: Gives a payload's key: the message group on a FIFO queue, the partition key on a stream.
Key = Callable[[Any], str]


def body_of(payload: Any) -> str | bytes:
    """A payload as a body: text and bytes as they are, everything else as JSON."""
    return payload if isinstance(payload, str | bytes) else encode(payload)


def default_key(stage: Stage, otherwise: Callable[[], str]) -> Key:
    """A payload's key when the sender names none: by the handler's lane, else its key, else `otherwise`."""
    read = stage.lane or stage.key

    def key(payload: Any) -> str:
        if read is None:
            return otherwise()
        try:
            document = Document(body_of(payload))
            found = read(document, lambda: stage.parse(document))
        except Exception:  # a damaged payload, or a key function that fails on it: the handler is to see it
            return otherwise()
        return found if isinstance(found, str) else encode(msgspec.to_builtins(found))

    return key
