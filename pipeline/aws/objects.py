"""Objects as JSON text that carries an id, for services without message attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pipeline.decisions import wire
from pipeline.decisions.codec import encode, loads
from pipeline.errors import SinkRefused
from pipeline.output import Output


def object_text(output: Output, *, carry: bool, sink: str) -> str:
    """The JSON text of an object, with the `_pipeline` member when it is to carry one.

    The member is spliced into the text, so that what the handler returned keeps its exact digits.
    Raises `SinkRefused` for anything but an object: nothing else has room for a member.
    """
    body = output.body
    if output.is_text or not body.startswith("{"):
        raise SinkRefused(f"{sink} takes JSON objects only: return a dataclass, a Struct, a model or a dict")
    if not carry:
        return body
    member: Mapping[str, Any] = wire.carried_member(output)
    if f'"{wire.MEMBER}"' in body:
        return encode({**loads(body), wire.MEMBER: member})
    rest = body[1:].lstrip()
    separator = "" if rest.startswith("}") else ","
    return f'{{"{wire.MEMBER}":{json.dumps(member, separators=(",", ":"))}{separator}{rest}'
