"""Keys and lanes: read from the raw document by a path, and hashed as Powertools does."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

import msgspec

from pipeline.decisions.codec import Document
from pipeline.errors import ConfigurationError, KeyMissing

#: A dotted path into the payload, several of them, or a function of the payload.
KeySpec = str | tuple[str, ...] | Callable[[Any], Any]
#: Reads the key data from (document, payload); the payload is asked for only when needed.
ReadKey = Callable[[Document, Callable[[], Any]], Any]

_ABSENT = object()


def reader(spec: KeySpec, *, what: str) -> ReadKey:
    """The function that reads a key by its specification.

    It raises `KeyMissing` when the key, or any part of a composite key, is missing or empty:
    records without a key would all count as repeats of one another.
    """
    if isinstance(spec, str):
        path = split(spec)
        return lambda document, payload: _present(_at(document.value(), path), f"{what} '{spec}'")
    if isinstance(spec, tuple):
        paths = [(part, split(part)) for part in spec]

        def composite(document: Document, payload: Callable[[], Any]) -> Any:
            value = document.value()
            return [_present(_at(value, path), f"{what} '{part}'") for part, path in paths]

        return composite
    function = spec
    return lambda document, payload: _present(function(payload()), f"the {what} function's result")


def watcher(spec: KeySpec) -> ReadKey:
    """The function that reads the part of a payload that must not change; what is missing there is None."""
    if isinstance(spec, str):
        path = split(spec)
        return lambda document, payload: at(document.value(), path)
    if isinstance(spec, tuple):
        paths = [split(part) for part in spec]
        return lambda document, payload: [at(document.value(), path) for path in paths]
    function = spec
    return lambda document, payload: function(payload())


def split(path: str) -> tuple[str, ...]:
    """A dotted path's parts. Raises `ConfigurationError` for an empty one."""
    parts = tuple(path.split("."))
    if not all(parts):
        raise ConfigurationError(f"'{path}' is not a path: write names joined by dots, as 'order.id'")
    return parts


def at(value: Any, path: Sequence[str]) -> Any:
    """What stands at a path of a decoded document, or None."""
    found = _at(value, path)
    return None if found is _ABSENT else found


def key_text(data: Any) -> str:
    """Key data as JSON text: the same text for the same key, whatever the order of members."""
    return json.dumps(data, cls=_KeyEncoder, sort_keys=True)


def entry_id(prefix: str, text: str) -> str:
    """The idempotency entry's id: `prefix#hash`, as Powertools' idempotency utility writes it."""
    return f"{prefix}#{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()}"


def check_path(path: str, annotation: Any, *, what: str) -> None:
    """Raise `ConfigurationError` when the annotated payload type cannot have this path."""
    here = annotation
    done: list[str] = []
    for part in split(path):
        names = fields_of(here)
        if names is None:
            return
        if part not in names:
            where = f" of '{'.'.join(done)}'" if done else ""
            known = ", ".join(sorted(names)) or "none"
            raise ConfigurationError(
                f"{what} '{path}': {_type_name(here)} has no field '{part}'{where}; its fields are {known}"
            )
        done.append(part)
        here = names[part]


def fields_of(annotation: Any) -> Mapping[str, Any] | None:
    """The names that a document of this type has, as written in JSON; None when open."""
    if annotation in (str, bytes):
        return {}
    if hasattr(annotation, "model_fields") and hasattr(annotation, "model_validate_json"):
        return _pydantic_fields(annotation)
    if isinstance(annotation, type) and (
        dataclasses.is_dataclass(annotation)
        or issubclass(annotation, msgspec.Struct)
        or typing.is_typeddict(annotation)
    ):
        return _declared_fields(annotation)
    if annotation in (int, float, bool, type(None)):
        return {}
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return _union_fields(annotation)
    return None


def _union_fields(annotation: Any) -> Mapping[str, Any] | None:
    """A union has a field when any of its members has; it is open when any member is."""
    merged: dict[str, Any] = {}
    for member in typing.get_args(annotation):
        if member is type(None):
            continue
        names = fields_of(member)
        if names is None:
            return None
        merged.update(names)
    return merged


def _pydantic_fields(model: Any) -> Mapping[str, Any] | None:
    if model.model_config.get("extra") == "allow":
        return None
    names: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        alias = field.validation_alias or field.alias
        if alias is not None and not isinstance(alias, str):
            return None  # an alias path or choice: any spelling may be right
        names[alias or name] = field.annotation
        if alias and model.model_config.get("populate_by_name"):
            names[name] = field.annotation
    return names


def _declared_fields(annotation: Any) -> Mapping[str, Any]:
    hints = typing.get_type_hints(annotation)
    if issubclass(annotation, msgspec.Struct):
        names = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(annotation)}
        tag = annotation.__struct_config__.tag_field
        return names if tag is None else {**names, tag: type(annotation.__struct_config__.tag)}
    return hints


def _type_name(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or str(annotation)


def _at(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part, _ABSENT)
        elif isinstance(value, list) and part.isdecimal():
            index = int(part)
            value = value[index] if index < len(value) else _ABSENT
        else:
            return _ABSENT
    return value


def _present(value: Any, what: str) -> Any:
    if value is _ABSENT:
        raise KeyMissing(f"the record has no {what}")
    if isinstance(value, (str, bytes, list, tuple, dict, set)) and len(value) == 0:
        raise KeyMissing(f"the record's {what} is empty")
    members = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else (value,)
    if all(member is None for member in members):
        raise KeyMissing(f"the record's {what} is empty")
    return value


class _KeyEncoder(json.JSONEncoder):
    """Writes what a key function may return, as Powertools' key encoder does."""

    def default(self, o: Any) -> Any:
        if isinstance(o, Decimal):
            return math.nan if o.is_nan() else str(o)
        if isinstance(o, Enum):
            return o.value
        if isinstance(o, (datetime.datetime, datetime.date, datetime.time)):
            return o.isoformat()
        if isinstance(o, (UUID, PurePath)):
            return str(o)
        if hasattr(o, "model_dump"):
            return o.model_dump(mode="json")
        if dataclasses.is_dataclass(o) and not isinstance(o, type):
            return dataclasses.asdict(o)
        return super().default(o)
