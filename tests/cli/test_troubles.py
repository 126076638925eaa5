"""What went wrong lately, out of log lines."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.rows import plain
from pipeline.cli.shown import clean
from pipeline.cli.troubles import EVENTS, document, sections, troubles


def line(message: str, number: int = 0, **fields: Any) -> str:
    at = f"2026-11-21T10:00:{number:02d}.000+00:00"
    return json.dumps({"message": message, "timestamp": at, "service": "shop", "handler": "price", **fields})


def failed(record: str, number: int, error: str = "KeyError", reason: str = "'pot'") -> str:
    return line("record.failed", number, record_id=record, error=error, reason=reason)


def test_lines_that_say_the_same_are_one_trouble_with_its_latest_record() -> None:
    (found,) = troubles(
        [failed("b", 2, reason="second"), failed("a", 1, reason="first"), failed("b", 2, reason="third")]
    )
    assert (found.lines, found.records, found.record_id, found.reason) == (3, 2, "b", "third")


def test_each_handler_event_and_type_is_a_trouble_of_its_own_and_the_latest_comes_first() -> None:
    texts = [
        failed("a", 1),
        failed("a", 2, error="TimeoutError"),
        line("record.exhausted", 3, record_id="a", error="KeyError", reason="x"),
        line("sink.failed", 4, sink="ledger", outputs=3, error="SinkUnavailable", reason="throttled"),
        line("batch.finished", 5),
        line("record.succeeded", 6, record_id="z"),
    ]
    found = troubles(texts)
    assert [(one.event, one.error) for one in found] == [
        ("sink.failed", "SinkUnavailable"),
        ("record.exhausted", "KeyError"),
        ("record.failed", "TimeoutError"),
        ("record.failed", "KeyError"),
    ]


def test_a_line_that_is_stored_twice_counts_once() -> None:
    (found,) = troubles([failed("a", 1), failed("a", 1)])
    assert found.lines == 1


def test_what_is_shown_names_the_next_step() -> None:
    found = troubles(
        [failed("a b", 1), failed("c", 0), line("sink.failed", 4, error="SinkUnavailable", reason="throttled")]
    )
    assert list(plain(sections(found, " --stack shop"))) == [
        "shop/price",
        "  2026-11-21 10:00:04.000  sink.failed  1 line: SinkUnavailable: throttled",
        "  2026-11-21 10:00:01.000  failed       2 records: KeyError: 'pot'",
        "                                        pipeline trace 'a b' --stack shop",
    ]
    assert [one["last"] for one in document(found)] == ["2026-11-21T10:00:04.000Z", "2026-11-21T10:00:01.000Z"]


def test_a_record_that_failed_again_and_again_is_one_record() -> None:
    (section,) = sections(troubles([failed("a", 1), failed("a", 2), failed("a", 3)]), "")
    assert section.rows[0].text == "1 record, 3 times: KeyError: 'pot'"


HOSTILE = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=2)
)


@given(
    st.lists(
        st.one_of(
            st.text(),
            st.builds(lambda event, fields: json.dumps({**fields, "message": event}), st.sampled_from(EVENTS), st.dictionaries(
                st.sampled_from(["service", "handler", "record_id", "error", "reason", "timestamp"]), HOSTILE)),
        ),
        max_size=20,
    )
)  # fmt: skip
def test_whatever_stands_in_lines_is_read_or_passed_over(texts: list[str]) -> None:
    found = troubles(texts)
    assert sum(one.lines for one in found) <= len(texts)
    for text in plain(sections(found, "")):
        assert clean(text) == text, "nothing reaches the terminal that it would obey"
    json.dumps(document(found))
