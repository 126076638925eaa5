"""Outputs: what a handler hands on, and how it is addressed to one sink."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from msgspec import Struct

from pipeline.record import NO_ATTRIBUTES

T = TypeVar("T")


class Emit(Generic[T]):
    """One output with its address; return it (or several) in place of a plain value.

    `to`: the name of a sink, or several; default: every sink of the handler. `key`: the ordering
    key (FIFO message group, partition key). `id`: replaces the deterministic id. `attributes`:
    message attributes, text. `delay`: seconds until it becomes visible (SQS standard, 0 to 900).
    `Emit([...])` makes a JSON array one output.
    """

    __slots__ = ("attributes", "delay", "id", "key", "to", "value")

    def __init__(
        self,
        value: T,
        *,
        to: str | Sequence[str] | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the public name
        attributes: Mapping[str, str] | None = None,
        delay: float | None = None,
    ) -> None:
        if delay is not None and delay < 0:
            raise ValueError(f"Emit(delay={delay}): give a number of seconds, 0 or more")
        self.value = value
        self.to = (to,) if isinstance(to, str) else None if to is None else tuple(to)
        self.key = key
        self.id = id
        self.attributes = dict(attributes) if attributes else NO_ATTRIBUTES
        self.delay = delay


class Output(Struct, frozen=True, kw_only=True):
    """One output addressed to one sink. A repeat of the same record makes an equal one."""

    id: str  #: deterministic: the same for every repeat of the record
    sink: str  #: the sink's name
    body: str  #: the value as JSON text, or a `str` value as it is
    is_text: bool = False  #: the value was a `str` and `body` is that text, not JSON
    key: str | None = None  #: the ordering key that the handler gave
    default_key: str  #: the record's lane, or its identity: the ordering key without any other
    attributes: Mapping[str, str] = NO_ATTRIBUTES
    delay: float | None = None  #: seconds until it becomes visible
    hops: int = 1  #: how many handlers it has passed, this one included
    traceparent: str | None = None
    value: Any = None  #: what the handler returned; for sinks in this process only
