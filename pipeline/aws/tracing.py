"""X-Ray's header, as calls, messages and events of ours have it.

Inside Lambda it is also how AWS finds functions that call themselves in a circle: it counts hops in it. botocore sends it
with its calls; those that go without a client of botocore's have to do the same.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from pipeline.decisions import tracing

#: The header of a call. botocore's signer does not sign it.
HEADER = "X-Amzn-Trace-Id"
_FUNCTION, _INVOCATION = "AWS_LAMBDA_FUNCTION_NAME", "_X_AMZN_TRACE_ID"
#: What botocore leaves as it is (`botocore.handlers.add_recursion_detection_header`).
_AS_IT_IS = "-=;:+&[]{}\"',"


def header_of_invocation() -> str | None:
    """What calls of the invocation at hand carry; None outside Lambda. It is another one in each invocation."""
    text = os.environ.get(_INVOCATION)
    return _quoted(text) if text and _FUNCTION in os.environ else None


def header_for(traceparent: Any) -> str | None:
    """The header of a message or an event that carries this `traceparent`; None when that is none.

    It replaces the call's own header for this message, so it takes Lambda's count of hops along: without it a circle
    would not be found. That AWS counts by it here too is inferred: no page of AWS's says so.
    """
    context = tracing.parse_traceparent(traceparent)
    return None if context is None else tracing.format_xray(context, _hops())


def system_attributes(header: str | None) -> dict[str, Any]:
    """A message's part that holds the header; nothing without one."""
    if header is None:
        return {}
    return {"MessageSystemAttributes": {tracing.MESSAGE_HEADER: {"DataType": "String", "StringValue": header}}}


def renewed(header: Any) -> str | None:
    """A header as it was received, as we would have written it: SQS refuses a message with a bad one."""
    context = tracing.parse_xray(header)
    return None if context is None else tracing.format_xray(context, _hops())


def _hops() -> str | None:
    header = header_of_invocation()
    return None if header is None else _lineage(header)


@lru_cache(maxsize=4)
def _quoted(text: str) -> str:
    return quote(text, safe=_AS_IT_IS, errors="replace")  # a variable's bytes may be no UTF-8


@lru_cache(maxsize=4)
def _lineage(header: str) -> str | None:
    return tracing.lineage_of(header)
