"""Trace context: W3C's and X-Ray's notation, each case of theirs, and whatever else may stand in their place."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.decisions.tracing import (
    MAX_STATE,
    carried_on,
    contexts,
    format_traceparent,
    format_xray,
    is_xray,
    lineage_of,
    of_notification,
    of_object,
    parse_traceparent,
    parse_tracestate,
    parse_xray,
    trace_id_of,
)
from pipeline.record import TraceContext

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = TraceContext(TRACE, SPAN, 1)
ROOT = f"Root=1-{TRACE[:8]}-{TRACE[8:]}"

hexadecimal = "0123456789abcdef"
traces = st.text(hexadecimal, min_size=32, max_size=32).filter(lambda text: set(text) != {"0"})
spans = st.text(hexadecimal, min_size=16, max_size=16).filter(lambda text: set(text) != {"0"})
made = st.builds(TraceContext, traces, spans, st.integers(0, 3))
anything = st.text(st.characters(exclude_categories=())) | st.none() | st.integers() | st.binary() | st.lists(st.text())
#: Texts that nearly are what is looked for.
nearly = st.lists(
    st.sampled_from(
        ["00", "01", "ff", "-", "--", TRACE, SPAN, "0" * 32, "0" * 16, "0", "a", "G", " ", "\t", "\n", ";", "=", ","]
        + ["Root", "Parent", "Sampled", "Lineage", "1-", TRACE[:8], TRACE[8:], "é", "\ud800", "x" * 300]
    ),
    max_size=12,
).map("".join)

# traceparent: the cases of W3C's own tests (w3c/trace-context, test/test.py), one line each


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (f"00-{TRACE}-{SPAN}-00", 0),
        (f"00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-02", 2),
        (f"00-{TRACE}-{SPAN}-03", 3),
        (f"00-{TRACE}-{SPAN}-04", 0),
        (f"00-{TRACE}-{SPAN}-ff", 3),
        (f" 00-{TRACE}-{SPAN}-01", 1),
        (f"\t00-{TRACE}-{SPAN}-01", 1),
        (f"00-{TRACE}-{SPAN}-01 \t ", 1),
        (f"cc-{TRACE}-{SPAN}-01", 1),
        (f"cc-{TRACE}-{SPAN}-01-", 1),
        (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", 1),
        (f"fe-{TRACE}-{SPAN}-01", 1),
    ],
)
def test_a_traceparent_that_is_valid(text: str, flags: int) -> None:
    found = parse_traceparent(text)

    assert found == TraceContext(TRACE, SPAN, flags)
    assert found.is_sampled is bool(flags & 1)
    assert format_traceparent(found) == f"00-{TRACE}-{SPAN}-0{flags}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00",
        f"{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-",
        f"00-{TRACE}-{SPAN}-01.",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-what-the-future-will-be-like",
        f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like",
        f"ff-{TRACE}-{SPAN}-01",
        f".0-{TRACE}-{SPAN}-01",
        f"0.-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f"0x-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-.{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE}-.{SPAN[1:]}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN[:-1]}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE}-{SPAN}-.0",
        f"00-{TRACE}-{SPAN}-0.",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE}-{SPAN}-0A",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0\u0661",
        " " * 2_000 + f"00-{TRACE}-{SPAN}-01",
    ],
)
def test_a_traceparent_that_is_none(text: str) -> None:
    assert parse_traceparent(text) is None
    assert parse_traceparent(text, "a=1") is None


@given(made)
def test_what_is_written_is_read_again(context: TraceContext) -> None:
    assert parse_traceparent(format_traceparent(context)) == context
    assert parse_xray(format_xray(context)) == TraceContext(context.trace_id, context.span_id, context.flags & 1)
    assert carried_on((context,)) == format_traceparent(context)


@given(anything | nearly, anything | nearly)
def test_nothing_is_an_error(text: Any, other: Any) -> None:
    for found in (parse_traceparent(text, other), parse_xray(text), *contexts(parse_traceparent(text), other)):
        assert found is None or parse_traceparent(format_traceparent(found)) == TraceContext(
            found.trace_id, found.span_id, found.flags
        )
    state = parse_tracestate(text)
    assert state is None or (len(state) <= MAX_STATE and parse_tracestate(state) == state)
    if isinstance(text, str):
        lineage_of(text)


# tracestate: the cases of W3C's tests


@pytest.mark.parametrize(
    "text",
    [
        "foo=1",
        "foo=1,bar=2",
        "foo=1 \t , \t bar=2",
        "foo=1,,,bar=2,",
        "0a=1",
        "foo@=1",
        "foo@bar@baz=1",
        "fw529a3039@dt=FfAAAA",
        "a_-*/=!~",
        "foo= 1",
        "z" * 256 + "=1",
        "a=" + "v" * 256,
        ",".join(f"k{number}=1" for number in range(32)),
    ],
)
def test_a_tracestate_that_is_valid_stays_as_it_is(text: str) -> None:
    assert parse_tracestate(text) == text
    found = parse_traceparent(f"00-{TRACE}-{SPAN}-01", text)
    assert found is not None
    assert found.state == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "foo",
        "foo=",
        "=1",
        "foo=1=2",
        "foo=1,foo=1",
        "foo=1,foo=2",
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "@foo=1",
        "foo=bär",
        "foo=1\n",
        "foo=\x7f",
        "z" * 257 + "=1",
        "a=" + "v" * 257,
        ",".join(f"k{number}=1" for number in range(33)),
        7,
        None,
    ],
)
def test_a_tracestate_that_breaks_a_rule_is_none_at_all_and_the_traceparent_stands(text: Any) -> None:
    assert parse_tracestate(text) is None
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-01", text) == SAMPLED


def test_of_a_long_tracestate_large_members_go_first_and_then_the_last() -> None:
    small = [f"s{number}={'x' * 90}" for number in range(5)]
    assert parse_tracestate(",".join([small[0], "l=" + "y" * 130, *small[1:]])) == ",".join(small)
    many = [f"s{number}={'x' * 90}" for number in range(7)]
    assert parse_tracestate(",".join(many)) == ",".join(many[:5])


# X-Ray's header


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (f"{ROOT};Parent={SPAN};Sampled=1", 1),
        (f"{ROOT};Parent={SPAN};Sampled=0", 0),
        (f"{ROOT};Parent={SPAN};Sampled=?", 0),
        (f"{ROOT};Parent={SPAN}", 0),
        (f"Sampled=1;Parent={SPAN};{ROOT}", 1),
        (f"Self=1-67891234-12456789abcdef012345678;{ROOT};Parent={SPAN};Sampled=1;Lineage=1:e7ff9e16:3", 1),
        (f" {ROOT} ; Parent = {SPAN} ; Sampled = 1 ; k=v ;", 1),
        (f"{ROOT.replace('a', 'A')};Parent={SPAN.upper()};Sampled=1", 1),
    ],
)
def test_a_header_of_x_ray_that_names_a_span(text: str, flags: int) -> None:
    assert parse_xray(text) == TraceContext(TRACE, SPAN, flags)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ROOT,
        f"{ROOT};Sampled=1",
        f"Parent={SPAN};Sampled=1",
        f"root=1-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN}",
        f"Root=dummy;Parent={SPAN}",
        f"Root=2-{TRACE[:8]}-{TRACE[8:]};Parent={SPAN}",
        f"Root=1-{TRACE[:8]}{TRACE[8:]};Parent={SPAN}",
        f"Root=1-{TRACE[:7]}_-{TRACE[8:]};Parent={SPAN}",
        f"Root=1-{'0' * 8}-{'0' * 24};Parent={SPAN}",
        f"{ROOT};Parent={'0' * 16}",
        f"{ROOT};Parent={SPAN[:-1]}",
        f"{ROOT};Parent=+{SPAN[1:]}",
        f"{ROOT};Parent={SPAN}=1",
        f"{ROOT};Parent={SPAN};{'x' * 2_000}",
    ],
)
def test_a_header_of_x_ray_that_names_none(text: str) -> None:
    assert parse_xray(text) is None


def test_a_header_of_x_ray_as_it_is_written() -> None:
    assert format_xray(SAMPLED) == f"{ROOT};Parent={SPAN};Sampled=1"
    assert format_xray(TraceContext(TRACE, SPAN, 2), "1:e7ff9e16:3") == (
        f"{ROOT};Parent={SPAN};Sampled=0;Lineage=1:e7ff9e16:3"
    )


@pytest.mark.parametrize(
    ("text", "lineage"),
    [
        (f"{ROOT};Lineage=1:e7ff9e16:3", "1:e7ff9e16:3"),
        (f"Lineage=a87bd80c:1%7C68fd508a:5 ;{ROOT}", "a87bd80c:1%7C68fd508a:5"),
        (ROOT, None),
        ("Lineage=", None),
        ("Lineage=a b", None),
        ("Lineage=a=b", None),
        ("Lineage=" + "1" * 129, None),
    ],
)
def test_the_count_of_hops(text: str, lineage: str | None) -> None:
    assert lineage_of(text) == lineage


# Both


@given(made, made)
def test_of_one_trace_the_traceparent_counts_and_of_two_it_is_first(one: TraceContext, other: TraceContext) -> None:
    assume(one.trace_id != other.trace_id)
    same = TraceContext(one.trace_id, other.span_id, other.flags)
    header = parse_xray(format_xray(other))

    assert contexts(one, format_xray(same)) == (one,)
    others = (header,) if header is not None and header.is_sampled else ()
    assert contexts(one, format_xray(other)) == (one, *others)
    assert contexts(None, format_xray(other)) == others
    assert contexts(one, None) == contexts(one, "Root=dummy") == (one,)
    assert contexts(None, None) == contexts(None, 7) == ()
    assert carried_on(()) is None


@given(made, st.permutations(["Root", "Parent", "Sampled", "Lineage"]), st.sampled_from(["0", "1", "?"]))
def test_the_order_of_the_parts_says_nothing(context: TraceContext, order: list[str], sampled: str) -> None:
    trace, parts = context.trace_id, {"Parent": context.span_id, "Sampled": sampled, "Lineage": "1:a:2"}
    parts["Root"] = f"1-{trace[:8]}-{trace[8:]}"
    found = parse_xray(";".join(f"{name}={parts[name]}" for name in order))

    assert found == TraceContext(trace, context.span_id, int(sampled == "1"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ROOT, True),
        (f"{ROOT};Sampled=1", True),
        (f"Sampled=?; {ROOT.upper().replace('ROOT', 'Root')}", True),
        ("Root=dummy", False),
        (f"{ROOT}0", False),
        (ROOT.lower(), False),
        ("", False),
        (None, False),
        (ROOT.encode(), False),
        (f"{ROOT};{'x' * 1_024}", False),
    ],
)
def test_a_header_names_a_trace_at_least(text: Any, expected: bool) -> None:
    assert is_xray(text) is expected


@given(anything | nearly)
def test_what_names_a_span_names_a_trace(text: Any) -> None:
    assert is_xray(text) or parse_xray(text) is None


@given(nearly)
def test_no_body_of_a_message_is_an_error(text: str) -> None:
    for body in (text, f'{{"Type":"Notification","traceparent"{text}', f'{{"traceparent":{text}}}'):
        assert of_notification(body) is None
        assert of_object(body.encode("utf-8", "surrogatepass")) is None


# What a person pastes


@given(made)
def test_a_trace_is_named_by_its_headers_and_by_xrays_id(context: TraceContext) -> None:
    xray = f"1-{context.trace_id[:8]}-{context.trace_id[8:]}"
    for text in (format_traceparent(context), format_xray(context, "1:e7ff9e16:3"), xray, xray.upper(), f"Root={xray}"):
        assert trace_id_of(text) == context.trace_id


@given(st.text() | nearly)
def test_nothing_else_names_one_and_nothing_raises(text: str) -> None:
    found = trace_id_of(text)
    assert found is None or found in text.lower().replace("-", "")


@pytest.mark.parametrize(
    "text", ["", "Root", "Root=", TRACE, f"00-{TRACE}-{SPAN}", f"x{ROOT}", f"1-{TRACE}", "1-xyz-1"]
)
def test_an_id_of_a_record_or_a_trace_stays_what_it_is(text: str) -> None:
    assert trace_id_of(text) is None
