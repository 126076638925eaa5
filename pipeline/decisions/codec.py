"""Bodies to payloads, and outputs to text."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, get_origin

import msgspec
import orjson

from pipeline.errors import ConfigurationError, EncodeError, PayloadError

Parse = Callable[["Document"], Any]

_UNTYPED: tuple[object, ...] = (Any, object, dict, list)


def loads(text: str | bytes) -> Any:
    """Decode JSON with the meaning of `json.loads`, several times faster on common input.

    Integers keep every digit, which orjson does not do beyond 64 bits; what the fast decoder
    refuses (NaN, numbers beyond a double, lone surrogates) is left to `json.loads` itself.
    """
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return json.loads(text)


class Document:
    """One body, decoded as JSON at most once."""

    __slots__ = ("_value", "body")

    _UNREAD = object()

    def __init__(self, body: str | bytes) -> None:
        self.body = body
        self._value = self._UNREAD

    def value(self) -> Any:
        """The decoded JSON. Raises `PayloadError` when the body is not JSON."""
        if self._value is self._UNREAD:
            try:
                self._value = loads(self.body)
            except RecursionError:
                raise PayloadError("the body is nested too deeply to decode") from None
            except ValueError as error:
                raise PayloadError(_not_json(self.body, error)) from None
        return self._value

    def forget(self) -> None:
        """Let go of what was decoded."""
        self._value = self._UNREAD


def parser(annotation: Any) -> Parse:
    """The function that parses a document into `annotation`.

    Raises `ConfigurationError` for an annotation that no body can be parsed into.
    """
    if annotation is bytes:
        return _as_bytes
    if annotation is str:
        return _as_text
    if annotation in _UNTYPED:
        return _checked(annotation) if annotation in (dict, list) else Document.value
    if hasattr(annotation, "model_validate_json"):
        return _pydantic(annotation)
    return _typed(annotation)


def _refuse_plain_classes(annotation: Any) -> None:
    """msgspec accepts a class without declared fields, and then no value for it: all would be rejected."""
    found = msgspec.inspect.type_info(annotation)
    for member in found.types if isinstance(found, msgspec.inspect.UnionType) else (found,):
        if isinstance(member, msgspec.inspect.CustomType):
            raise TypeError(f"{member.cls.__name__} has no declared fields")


def encode(value: object) -> str:
    """An output as JSON text. Raises `EncodeError` for what JSON cannot hold.

    NaN and the infinities become null, and a Decimal becomes a string, which keeps its digits.
    """
    try:
        return orjson.dumps(value, default=_encode_other, option=_ENCODING).decode()
    except TypeError as error:
        cause = error.__cause__ or error
        if str(cause) == "Integer exceeds 64-bit range":
            return _encode_slowly(value)
        raise EncodeError(f"cannot write a {type(value).__name__} as JSON: {cause}") from None


_ENCODING = orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY


def _encode_slowly(value: object) -> str:
    """For integers beyond 64 bits, which JSON allows and orjson does not write."""
    try:
        return msgspec.json.encode(value, enc_hook=_encode_other).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise EncodeError(f"cannot write a {type(value).__name__} as JSON: {error}") from None


def _encode_other(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    return msgspec.to_builtins(value)


def _not_json(body: str | bytes, error: ValueError) -> str:
    if not body.strip():
        return "the body is empty"
    if isinstance(error, UnicodeDecodeError):
        return f"the body is not valid UTF-8: {error.reason} at byte {error.start}"
    # json's own message names the position; it quotes nothing of the body.
    return f"the body is not JSON: {error}"


def _as_bytes(document: Document) -> bytes:
    body = document.body
    return body if isinstance(body, bytes) else body.encode("utf-8", "surrogatepass")


def _as_text(document: Document) -> str:
    body = document.body
    if isinstance(body, str):
        return body
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise PayloadError(_not_json(body, error)) from None


def _checked(kind: type) -> Parse:
    name = "object" if kind is dict else "array"

    def parse(document: Document) -> Any:
        value = document.value()
        if not isinstance(value, kind):
            raise PayloadError(f"expected a JSON {name}, got {_json_type(value)}")
        return value

    return parse


def _json_type(value: object) -> str:
    kinds: dict[type, str] = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        type(None): "null",
    }
    return kinds.get(type(value), "a number")


def _pydantic(model: Any) -> Parse:
    declared: set[str] = set()  # filled when a body is wrong

    def parse(document: Document) -> Any:
        document.value()  # so that "not JSON" reads the same for every type
        try:
            return model.model_validate_json(document.body)
        except ValueError as error:
            if not declared:
                declared.update(_declared_names(model))
            raise PayloadError(f"the body is not a {model.__name__}: {_pydantic_reason(error, declared)}") from None

    return parse


def _pydantic_reason(error: Any, declared: AbstractSet[str]) -> str:
    """Where and why, without the values: a payload has no place in a log. A name that is not declared is one, too."""
    if not hasattr(error, "errors"):
        return type(error).__name__
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{_place(item['loc'], declared)}: {_pydantic_message(item)}" for item in found[:5])


def _place(steps: Sequence[int | str], declared: AbstractSet[str]) -> str:
    """A place in a payload, with `*` for each name that the payload gave."""
    return ".".join(str(step) if isinstance(step, int) or step in declared else "*" for step in steps) or "(root)"


def _declared_names(model: Any) -> Iterator[str]:
    """The names of fields, aliases and tags that stand in the code, of a model and all that it holds."""
    yield from getattr(model, "model_fields", ())
    waiting = [getattr(model, "__pydantic_core_schema__", None)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (list, tuple)):
            waiting.extend(node)
        elif isinstance(node, dict):
            waiting.extend(node.values())
            if node.get("type") in _NAMING:
                yield from (name for name in node[_NAMING[node["type"]]] if isinstance(name, str))
            for option in ("name", "validation_alias"):
                yield from _texts(node.get(option))


def _texts(alias: Any) -> Iterator[str]:
    """The texts of an alias: it is one, or the way to a value, or several of these."""
    if isinstance(alias, str):
        yield alias
    elif isinstance(alias, list):
        for one in alias:
            yield from _texts(one)


#: The nodes of pydantic's schemas with an object of declared names, and where that is.
_NAMING = {"model-fields": "fields", "typed-dict": "fields", "tagged-union": "choices"}


def _pydantic_message(item: Any) -> str:
    # The one message that quotes the value.
    return "Input tag is none of the expected tags" if item["type"] == "union_tag_invalid" else str(item["msg"])


#: msgspec quotes the value that is none of an enum's, a literal's or a union's tags.
_QUOTED_VALUE = re.compile(r"^(Invalid (?:enum )?value) .*?((?: - at [^'\"]*)?)$", re.DOTALL)


#: It also quotes a name that is not declared. One with backticks looks like a place: what follows is left out.
_UNKNOWN_FIELD = "Object contains unknown field"


def _msgspec_reason(error: Exception) -> str:
    """Where and why, without the value."""
    text = str(error)
    if text.startswith(_UNKNOWN_FIELD):
        return _UNKNOWN_FIELD
    return _QUOTED_VALUE.sub(r"\1\2", text)


def _typed(annotation: Any) -> Parse:
    name = getattr(annotation, "__name__", None) or str(annotation)
    try:
        decoder = msgspec.json.Decoder(annotation)
        _refuse_plain_classes(annotation)
    except (TypeError, NameError) as error:
        raise ConfigurationError(
            f"a body cannot be parsed into {name}: {error}. Use a dataclass, TypedDict, msgspec Struct, "
            "pydantic model, dict, list, str or bytes"
        ) from None
    is_root = get_origin(annotation) is None

    def parse(document: Document) -> Any:
        # Straight from the body, also when a key was read before: a Decimal keeps every digit so.
        # Whatever is wrong is found again below, by what `json.loads` means and with its message.
        with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
            return decoder.decode(document.body)
        try:
            return msgspec.convert(document.value(), annotation, str_keys=True)
        except msgspec.ValidationError as error:
            what = f"a {name}" if is_root else name
            raise PayloadError(f"the body is not {what}: {_msgspec_reason(error)}") from None
        except (ValueError, RecursionError) as error:
            raise PayloadError(f"the body is not a {name}: {type(error).__name__}") from None

    return parse
