"""Reading a handler's signature: which parameter gets what, and how the payload is parsed."""

from __future__ import annotations

import ast
import collections.abc
import inspect
import textwrap
import typing
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from pipeline.batch import Batch
from pipeline.decisions.codec import Document, Parse, parser
from pipeline.engine.calling import Kind, Signature
from pipeline.engine.context import Context
from pipeline.engine.fanout import unknown_sink
from pipeline.errors import ConfigurationError, PayloadError
from pipeline.record import Record

#: What a body is handed over as, without being made into a type.
_READ_AS_THEY_ARE: tuple[object, ...] = (str, bytes, dict, list)

_YIELDING = (collections.abc.AsyncIterator, collections.abc.AsyncGenerator, collections.abc.AsyncIterable)

ResourceMaker = Callable[[], AsyncIterator[Any]]

_CAN_TAKE = (
    "A handler takes its payload (a dataclass, TypedDict, msgspec Struct, pydantic model, dict, list, str or "
    "bytes), Record, Context, resources declared above it with @pipeline.resource, or Batch[...] in place of the payload"
)


class Read(typing.NamedTuple):
    """What a signature says."""

    signature: Signature
    payload_type: Any
    parse: Parse


def read(function: Callable[..., Any], resources: Mapping[Any, ResourceMaker], namespace: Mapping[str, Any]) -> Read:
    """Read a function's signature. Raises `ConfigurationError` for what no handler can be.

    `namespace`: names visible where the function is declared, for annotations that are text.
    """
    kind = _kind(function)
    name = getattr(function, "__name__", repr(function))
    asked: dict[str, tuple[str, Any]] = {}
    made: dict[str, ResourceMaker] = {}
    for parameter, annotation, is_optional in _parameters(function, namespace):
        if _bare(annotation) in resources:
            made[parameter] = resources[_bare(annotation)]
            continue
        what, payload_type = _what(parameter, annotation, name)
        if what == "payload" and is_optional:
            continue  # an option of the function's own, left at its default
        if what in asked:
            raise ConfigurationError(
                f"{name}: '{asked[what][0]}' and '{parameter}' would both get the {what}; "
                f"if one is a resource, declare it above the handler with @pipeline.resource. {_CAN_TAKE}"
            )
        asked[what] = (parameter, payload_type)
    payload_type = _payload_type(name, asked)
    if "batch" in asked and kind in (Kind.GENERATOR, Kind.ASYNC_GENERATOR):
        raise ConfigurationError(
            f"{name} is a generator and takes a Batch: a batch handler returns a list with one result for each "
            "position. Collect the results in a list, or take single records and yield"
        )
    signature = Signature(
        kind=kind,
        payload=asked["payload"][0] if "payload" in asked else None,
        record=asked["record"][0] if "record" in asked else None,
        context=asked["context"][0] if "context" in asked else None,
        batch=asked["batch"][0] if "batch" in asked else None,
        resources=made,
    )
    return Read(signature, _bare(payload_type), _parser(name, payload_type))


def resource_type(function: Callable[..., Any], namespace: Mapping[str, Any]) -> Any:
    """The type that a resource is injected by: what its async generator yields."""
    name = getattr(function, "__name__", repr(function))
    if not inspect.isasyncgenfunction(function):
        raise ConfigurationError(
            f"{name}: a resource is an async generator function: 'async def', with one 'yield' of the resource"
        )
    if inspect.signature(function).parameters:
        raise ConfigurationError(f"{name}: a resource takes no parameters")
    annotation = _bare(_annotations(function, namespace).get("return"))
    yielded = typing.get_args(annotation)
    if typing.get_origin(annotation) not in _YIELDING or not yielded:
        raise ConfigurationError(
            f"{name}: annotate what the resource yields, as '-> AsyncIterator[Pool]'; it is injected by that type"
        )
    return _bare(yielded[0])


def check_emits(function: Callable[..., Any], sinks: collections.abc.Collection[str]) -> None:
    """Raise `ConfigurationError` for a literal `Emit(to="...")` in the source that names no sink.

    Names that are computed are checked when they are emitted. Without source text nothing is checked.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _is_emit(node.func):
            for keyword in node.keywords:
                for name in _literals(keyword.value) if keyword.arg == "to" else ():
                    if name not in sinks:
                        raise ConfigurationError(f"{function.__name__}: {unknown_sink(name, sinks)}")


def _is_emit(node: ast.expr) -> bool:
    return (isinstance(node, ast.Name) and node.id == "Emit") or (
        isinstance(node, ast.Attribute) and node.attr == "Emit"
    )


def _literals(node: ast.expr) -> list[str]:
    items = node.elts if isinstance(node, (ast.List, ast.Tuple)) else [node]
    return [item.value for item in items if isinstance(item, ast.Constant) and isinstance(item.value, str)]


def _kind(function: Any) -> Kind:
    if not inspect.isfunction(function) and not inspect.ismethod(function):
        raise ConfigurationError(
            f"{function!r} is not a function: decorate a 'def' or an 'async def', and call from it whatever else does "
            "the work (a partial, an object, another handler's function)"
        )
    # A plain wrapper of an async function hands on what that returns: the coroutine, or the async generator.
    if inspect.isgeneratorfunction(function):
        return Kind.GENERATOR
    for one in (function, inspect.unwrap(function)):
        if inspect.isasyncgenfunction(one):
            return Kind.ASYNC_GENERATOR
        if inspect.iscoroutinefunction(one):
            return Kind.ASYNC
    return Kind.SYNC


def _parameters(function: Callable[..., Any], namespace: Mapping[str, Any]) -> list[tuple[str, Any, bool]]:
    """Name, annotation, and whether it has a default, of each parameter."""
    annotations = _annotations(function, namespace)
    name = getattr(function, "__name__", repr(function))
    found: list[tuple[str, Any, bool]] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigurationError(f"{name}: '{parameter}' cannot be filled: name each parameter. {_CAN_TAKE}")
        if parameter.name not in annotations:
            if parameter.default is not parameter.empty:
                continue
            raise ConfigurationError(f"{name}: annotate '{parameter.name}'. {_CAN_TAKE}")
        found.append((parameter.name, annotations[parameter.name], parameter.default is not parameter.empty))
    return found


def _annotations(function: Callable[..., Any], namespace: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, localns=dict(namespace), include_extras=True)
    except NameError as error:
        name = getattr(function, "__name__", repr(function))
        raise ConfigurationError(
            f"{name}: the annotation '{error.name}' is not defined where the handler is declared; "
            "import it outside 'if TYPE_CHECKING', above the handler"
        ) from None
    except Exception as error:
        name = getattr(function, "__name__", repr(function))
        raise ConfigurationError(
            f"{name}: an annotation cannot be read: {type(error).__name__}: {error}. {_CAN_TAKE}"
        ) from None


def _what(parameter: str, annotation: Any, name: str) -> tuple[str, Any]:
    """Which of the things that a handler may take this parameter asks for, and the payload's type in it."""
    bare = _bare(annotation)
    origin: Any = typing.get_origin(bare)
    origin = bare if origin is None else origin
    arguments = typing.get_args(bare)
    if origin is Record:
        return "record", arguments[0] if arguments else None
    if origin is Batch:
        if not arguments:
            raise ConfigurationError(f"{name}: say what the batch holds, as '{parameter}: Batch[Order]'")
        return "batch", arguments[0]
    if bare is Context:
        return "context", None
    return "payload", annotation


def _payload_type(name: str, asked: Mapping[str, tuple[str, Any]]) -> Any:
    types = {what: given[1] for what, given in asked.items() if what in ("payload", "batch", "record")}
    if "batch" in types:
        if "payload" in types or "record" in types:
            raise ConfigurationError(f"{name}: a batch handler takes the Batch in place of the payload and the Record")
        return types["batch"]
    if "payload" in types:
        record = types.get("record")
        if record is not None and record != types["payload"]:
            raise ConfigurationError(f"{name}: the payload and Record[...] have different types; give both the same")
        return types["payload"]
    return types.get("record") or bytes  # nobody asks for the payload: nothing to parse


def _parser(name: str, payload_type: Any) -> Parse:
    bare, constraints = _unwrapped(payload_type)
    try:
        parse = parser(bare)
        if not constraints:
            return parse
        annotated: Any = typing.Annotated
        constrained = annotated[(bare, *constraints)]
        # Text, bytes and what has no type of its own is read first: as JSON it would be something else.
        return _constrained(parse, constrained) if bare in _READ_AS_THEY_ARE else parser(constrained)
    except ConfigurationError as error:
        raise ConfigurationError(f"{name}: {error}. {_CAN_TAKE}") from None


def _constrained(parse: Parse, annotation: Any) -> Parse:
    try:
        msgspec.inspect.type_info(annotation)
    except TypeError as error:
        raise ConfigurationError(f"the constraint cannot be kept: {error}") from None

    def checked(document: Document) -> Any:
        value = parse(document)
        try:
            return msgspec.convert(value, annotation)
        except msgspec.ValidationError as error:
            raise PayloadError(f"the body is not as declared: {error}") from None

    return checked


def _bare(annotation: Any) -> Any:
    """The type itself, out of `Annotated` and `NewType`."""
    return _unwrapped(annotation)[0]


def _unwrapped(annotation: Any) -> tuple[Any, list[msgspec.Meta]]:
    """The type itself, and the constraints that stood around it."""
    constraints: list[msgspec.Meta] = []
    while True:
        if typing.get_origin(annotation) is typing.Annotated:
            constraints[:0] = [one for one in annotation.__metadata__ if isinstance(one, msgspec.Meta)]
            annotation = annotation.__origin__
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        else:
            return annotation, constraints
