"""Outputs: what a handler hands on, and how it is addressed to one sink."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from msgspec import Struct

from pipeline.record import NO_ATTRIBUTES

#: Characters of the longest id that travels with an output: it stands in log lines, here and at the next stage.
MAX_ID = 512

T = TypeVar("T")


class Named(Protocol):
    """Anything with a name: a sink, as an output's address."""

    @property
    def name(self) -> str: ...


class Emit(Generic[T]):
    """One output with its address; return it (or several) in place of a plain value.

    `to`: a sink or its name, or several; default: every sink of the handler. `key`: the ordering
    key (FIFO message group, partition key). `id`: replaces the deterministic id, and stands in log lines. `attributes`:
    message attributes, text. `delay`: seconds until it becomes visible (SQS standard, 0 to 900).
    `Emit([...])` makes a JSON array one output.

    Raises `TypeError` or `ValueError` for an option that cannot be: that record fails, not its batch.
    """

    __slots__ = ("attributes", "delay", "id", "key", "to", "value")

    def __init__(
        self,
        value: T,
        *,
        to: str | Named | Iterable[str | Named] | None = None,
        key: str | None = None,
        id: str | None = None,  # noqa: A002 - the public name
        attributes: Mapping[str, str] | None = None,
        delay: float | None = None,
    ) -> None:
        if key is not None:
            _check_text("key", key)
        if id is not None:
            _check_text("id", id)
            if len(id) > MAX_ID:
                raise ValueError(f"Emit(id=) of {len(id)} characters: at most {MAX_ID} travel with an output")
        if delay is not None:
            _check_delay(delay)
        self.value = value
        self.to = None if to is None else _names(to)
        self.key = key
        self.id = id
        self.attributes = NO_ATTRIBUTES if attributes is None else _checked_attributes(attributes)
        self.delay = delay


def _check_text(option: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"Emit({option}={value!r}): give text")
    if not value:
        raise ValueError(f"Emit({option}=''): give text that is not empty, or leave it out")


def _check_delay(delay: object) -> None:
    if isinstance(delay, bool) or not isinstance(delay, (int, float)) or not 0 <= delay < math.inf:
        raise ValueError(f"Emit(delay={delay!r}): give a number of seconds, 0 or more")


def _checked_attributes(attributes: object) -> Mapping[str, str]:
    if not isinstance(attributes, Mapping):
        raise TypeError(f"Emit(attributes={attributes!r}): give a mapping from text to text")
    for name, value in attributes.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"Emit(attributes={{{name!r}: {value!r}}}): give text for names and values")
    return dict(attributes) if attributes else NO_ATTRIBUTES


def _names(to: Any) -> tuple[str, ...]:
    """The sinks' names, however they were given."""
    name = _name(to)
    if name is not None:
        return (name,)
    names = [_name(one) for one in to] if isinstance(to, Iterable) else [None]
    found = tuple(name for name in names if name is not None)
    if len(found) != len(names):
        raise TypeError(f"Emit(to={to!r}): give a sink or its name, or several of them")
    return found


def _name(sink: Any) -> str | None:
    name = sink if isinstance(sink, str) else getattr(sink, "name", None)
    return name if isinstance(name, str) else None


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
    tracestate: str | None = None  #: what vendors add to it; sent where there is room, and nowhere without it
    sent_at: float | None = None  #: when the record that caused it was sent, epoch seconds
    value: Any = None  #: what the handler returned; for sinks in this process only
