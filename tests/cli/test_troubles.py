"""What went wrong lately, out of log lines."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.rows import plain
from pipeline.cli.shown import clean
from pipeline.cli.troubles import EVENTS, HANDED_BACK, document, sections, troubles


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


def counted(*texts: str) -> list[tuple[str, str | None, int, int, int]]:
    return sorted((one.event, one.error, one.lines, one.records, one.omitted) for one in troubles(texts))


def test_lines_that_a_batch_left_out_count_in_their_rows() -> None:
    omitted = {"events": {"record.failed": 900}, "errors": {"KeyError": 890, "other": 10}}
    found = troubles([line("lines.omitted", 5, lines=900, **omitted), failed("a", 1), failed("b", 2)])
    assert [(one.error, one.lines, one.records, one.omitted) for one in found] == [
        ("KeyError", 2, 2, 890),
        ("other", 0, 0, 10),
    ]
    assert (found[0].record_id, document(found)[0]["last"]) == ("b", "2026-11-21T10:00:05.000Z")
    texts = [row.text for row in sections(found, "")[0].rows]
    assert "2 records, and 890 lines left out: KeyError: 'pot'" in texts
    assert "10 lines left out: other" in texts


def test_what_a_batch_left_out_of_several_events_is_shared_where_it_can_be() -> None:
    two = {"record.failed": 5, "record.exhausted": 2}
    assert counted(line("lines.omitted", 1, lines=7, events=two, errors={"KeyError": 7})) == [
        ("record.exhausted", "KeyError", 0, 0, 2),
        ("record.failed", "KeyError", 0, 0, 5),
    ]
    assert counted(line("lines.omitted", 1, lines=7, events=two, errors={"KeyError": 6, "E": 1})) == [
        ("record.exhausted", None, 0, 0, 2),
        ("record.failed", None, 0, 0, 5),
    ]
    assert counted(line("lines.omitted", 1, lines=7)) == [("lines.omitted", None, 1, 0, 0)]


def test_what_a_line_counts_is_added_up() -> None:
    found = troubles(
        [
            line("sink.failed", 1, sink="ledger", outputs=3, error="E", reason="throttled"),
            line("sink.failed", 2, sink="ledger", outputs=4, error="E", reason="throttled"),
            line("store.failed", 0, records=40, error="StoreUnavailable", reason="away"),
        ]
    )
    assert [row.text for row in sections(found, "")[0].rows] == [
        "2 lines, 7 outputs: E: throttled",
        "40 records: StoreUnavailable: away",
    ]


def test_what_was_handed_back_is_told_by_why() -> None:
    found = troubles(
        [
            line("batch.finished", 1, size=10, unprocessed=7, handed_back={"deadline": 7}),
            line("batch.finished", 2, size=10, unprocessed=5, handed_back={"deadline": 2}),
            line("batch.finished", 0, size=10, succeeded=10),
        ]
    )
    assert sorted((row.what, row.text) for row in sections(found, "")[0].rows) == [
        ("handed back", "3 records"),
        ("handed back", "9 records: deadline"),
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
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers(), max_size=2)),
    st.dictionaries(st.sampled_from([*EVENTS, "", "KeyError"]), st.integers() | st.text(), max_size=3),
)


@given(
    st.lists(
        st.one_of(
            st.text(),
            st.builds(lambda event, fields: json.dumps({**fields, "message": event}), st.sampled_from([*EVENTS, *HANDED_BACK]), st.dictionaries(
                st.sampled_from([*("service", "handler", "record_id", "error", "reason", "timestamp", "lines", "events", "errors", "records"),
                 *("outputs", "unprocessed", "handed_back")]), HOSTILE)),
        ),
        max_size=20,
    )
)  # fmt: skip
def test_whatever_stands_in_lines_is_read_or_passed_over(texts: list[str]) -> None:
    found = troubles(texts)
    assert all(one.lines <= len(texts) for one in found)
    for text in plain(sections(found, "")):
        assert clean(text) == text, "nothing reaches the terminal that it would obey"
    json.dumps(document(found))


def test_what_a_handler_says_in_the_toolkits_words_is_no_trouble() -> None:
    own = [
        line("record.failed", 0, record_id="a", error="Mine", location="shop:7"),
        line("batch.finished", 0, unprocessed=5, handed_back={"x": 5}, location="shop:8"),
    ]
    assert troubles(own) == []
    assert len(troubles([*own, line("record.failed", 1, record_id="a", error="E")])) == 1
