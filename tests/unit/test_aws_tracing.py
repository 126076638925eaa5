"""X-Ray's header on calls, held against what botocore sends; and on messages."""

from __future__ import annotations

import os
from typing import Any
from unittest.mock import patch

import pytest
from botocore.auth import SIGNED_HEADERS_BLACKLIST
from botocore.handlers import BUILTIN_HANDLERS, add_recursion_detection_header
from hypothesis import given
from hypothesis import strategies as st

from pipeline.aws.tracing import HEADER, header_for, header_of_invocation, renewed, system_attributes

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WRITTEN = "Root=1-0af76519-16cd43dd8448eb211c80319c;Parent=b7ad6b7169203331;Sampled=1"
NAMES = ("AWS_LAMBDA_FUNCTION_NAME", "_X_AMZN_TRACE_ID")

#: What a variable of the environment can hold, and what these hold.
values = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")) | st.just(WRITTEN)


@given(values, values)
def test_calls_carry_what_botocores_would(function: str | None, invocation: str | None) -> None:
    given_by_lambda = {
        name: value for name, value in zip(NAMES, (function, invocation), strict=True) if value is not None
    }
    others = {name: value for name, value in os.environ.items() if name not in NAMES}
    headers: dict[str, str] = {}
    with patch.dict(os.environ, {**others, **given_by_lambda}, clear=True):
        add_recursion_detection_header({"headers": headers})
        assert header_of_invocation() == headers.get(HEADER)


def test_botocore_adds_it_to_every_call_and_never_signs_it() -> None:
    """When it does otherwise, so must we."""
    events = [entry[0] for entry in BUILTIN_HANDLERS if entry[1] is add_recursion_detection_header]
    assert events == ["before-call"]
    assert HEADER.lower() in SIGNED_HEADERS_BLACKLIST


@pytest.mark.parametrize(
    ("function", "invocation", "lineage"),
    [
        ("price", "Root=1-a;Lineage=1:e7ff9e16:3", ";Lineage=1:e7ff9e16:3"),
        ("price", "Lineage=a87bd80c:1|68fd508a:5", ";Lineage=a87bd80c:1%7C68fd508a:5"),
        ("price", "Root=1-a", ""),
        ("price", "Lineage=a b\r\nX: y", ";Lineage=a%20b%0D%0AX:%20y"),
        ("price", "Lineage=a,b", ""),
        (None, "Lineage=1:e7ff9e16:3", ""),
        ("price", None, ""),
    ],
)
def test_a_messages_header_replaces_the_calls_and_so_takes_the_hops_along(
    monkeypatch: pytest.MonkeyPatch, function: str | None, invocation: str | None, lineage: str
) -> None:
    for name, value in zip(NAMES, (function, invocation), strict=True):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    assert header_for(TRACE) == renewed(f"{WRITTEN};Self=1-a;Lineage=9:a:9") == WRITTEN + lineage


@pytest.mark.parametrize("odd", [None, "", "malformed", 7, b"x", [TRACE], "Root=dummy"])
def test_only_what_we_wrote_ourselves_is_sent(odd: Any) -> None:
    assert header_for(odd) is renewed(odd) is None
    assert system_attributes(None) == {}


def test_a_variable_that_is_no_utf_8_stops_no_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "price")
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "Root=\udcff")
    assert header_of_invocation() == "Root=%3F"
