"""JSON Schemas of payload types, in the dialect that AsyncAPI reads (draft 07)."""

from __future__ import annotations

import itertools
import typing
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from types import NoneType, UnionType
from typing import Any

import msgspec

from pipeline.batch import Batch, Failure
from pipeline.deploy.graph.names import Ids
from pipeline.output import Emit

Schema = dict[str, Any]

REFERENCE = "#/components/schemas/{}"

#: What a handler returns or yields several outputs in.
_SEVERAL: tuple[Any, ...] = (
    *(list, tuple, Sequence, Iterable, Iterator, Generator),
    *(AsyncIterable, AsyncIterator, AsyncGenerator, Batch),
)
#: Schemas that are maps from names: what stands in them under a keyword's name is no keyword.
_MAPS = frozenset({"properties", "patternProperties", "definitions", "$defs"})
#: Values, not schemas.
_VALUES = frozenset({"enum", "const", "default", "examples", "required"})


def outputs_of(function: Callable[..., Any]) -> list[Any]:
    """The types of a function's outputs by its return annotation, each once; `Any` where it says nothing.

    A type that is declared in another function's body cannot be found by its name: it is `Any` too.
    """
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # a name that only the place of declaration knows
        return [Any]
    found: list[Any] = []
    _collect(hints.get("return", Any), found)
    return found


def _collect(annotation: Any, found: list[Any]) -> None:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        _collect(annotation.__origin__, found)
    elif isinstance(annotation, typing.NewType):
        _collect(annotation.__supertype__, found)
    elif origin in (typing.Union, UnionType):
        for argument in arguments:
            _collect(argument, found)
    elif origin in _SEVERAL and arguments:
        # What a generator is sent, and returns, is no output.
        several = arguments[:1] if origin in (Generator, AsyncGenerator) else arguments
        for argument in several:
            if argument is not Ellipsis:
                _collect(argument, found)
    elif annotation in (None, NoneType, Failure, typing.NoReturn):
        return
    else:
        # `Emit([...])` makes an array one output: what it holds is taken as it is.
        output = (arguments[0] if arguments else Any) if origin is Emit or annotation is Emit else annotation
        plain = Any if isinstance(output, typing.TypeVar) or output in _SEVERAL else output
        if plain not in found:
            found.append(plain)


class Schemas:
    """Schemas of types, with those that they refer to as components."""

    def __init__(self, types: Sequence[Any]) -> None:
        self._components: dict[str, Schema] = {}
        self._made: list[tuple[Any, Schema]] = []  # a type may have no hash
        for one in types:
            if not any(known == one for known, _ in self._made):
                self._made.append((one, self._schema(one)))

    @property
    def components(self) -> dict[str, Schema]:
        """By name, sorted."""
        return dict(sorted(self._components.items()))

    def of(self, annotation: Any) -> Schema:
        """One of the types' schemas: `{}`, which is anything, for a type that JSON knows nothing of."""
        return next(schema for known, schema in self._made if known == annotation)

    def _schema(self, annotation: Any) -> Schema:
        """A type's schema, once its components have names that no other schema has: a number tells them apart."""
        for number in itertools.count(1):
            suffix = "" if number == 1 else f"_{number}"
            try:
                schema, components = _described(annotation, suffix)
            except (TypeError, NameError, KeyError):  # a KeyError: msgspec finds one qualified name for two types in it
                return {}
            if all(self._components.get(name, part) == part for name, part in components.items()):
                self._components |= components
                return schema
        raise AssertionError("numbers do not end")


def _described(annotation: Any, suffix: str) -> tuple[Schema, dict[str, Schema]]:
    """A type's schema and its components, whose names end in `suffix`. Raises `TypeError` for no type of JSON."""
    prefixes = Ids()
    parts: dict[str, Schema] = {}

    def describe(kind: Any) -> Schema:
        """A pydantic model by its own method; raises `NotImplementedError` for what is none."""
        if not hasattr(kind, "model_json_schema"):
            raise NotImplementedError
        prefix = prefixes.new("", kind.__name__)
        schema: Schema = kind.model_json_schema(ref_template=REFERENCE.format(f"{prefix}.{{model}}{suffix}"))
        for name, part in schema.pop("$defs", {}).items():
            parts[f"{prefix}.{name}{suffix}"] = draft_07(part)
        return schema

    template = REFERENCE.format("{name}" + suffix)
    (schema,), components = msgspec.json.schema_components([annotation], schema_hook=describe, ref_template=template)
    parts |= {f"{name}{suffix}": draft_07(part) for name, part in components.items()}
    return draft_07(schema), parts


def draft_07(schema: Any) -> Any:
    """The same schema without what later drafts, and OpenAPI, have: `prefixItems`, and `discriminator` as an object."""
    if isinstance(schema, list):
        return [draft_07(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    changed: Schema = {}
    for keyword, value in schema.items():
        if keyword in _MAPS:
            changed[keyword] = {name: draft_07(one) for name, one in value.items()}
        elif keyword in _VALUES:
            changed[keyword] = value
        elif keyword == "prefixItems":
            changed["items"] = draft_07(value)
        elif keyword == "items" and "prefixItems" in schema:
            changed["additionalItems"] = draft_07(value)
        elif keyword != "discriminator":  # `anyOf` says the same
            changed[keyword] = draft_07(value)
    return changed
