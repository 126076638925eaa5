"""Stories from log lines: whatever their order, however many of them are missing, and whatever stands in them."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.cli import rows, story_text
from pipeline.cli.shown import clean, clock, instant, lasting
from pipeline.cli.story import MAX_DEPTH, MAX_NAMED, MAX_RECORDS, Effect, Passage, Story, tell
from pipeline.cli.story_lines import parse, read
from pipeline.cli.story_text import Asking
from tests.cli.story_worlds import line, stamp

NOW = datetime(2026, 11, 21, 10, 0, 5, tzinfo=UTC).timestamp()
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OTHER = "0af7651916cd43dd8448eb211c80319c"
OUT = "{:032x}".format


def told(texts: list[str], asked: str) -> Story:
    found = tell(read(texts), asked)
    assert found is not None
    return found


def text_of(story: Story, now: float = NOW) -> str:
    return "\n".join(rows.plain(story_text.sections(story, Asking(now))))


def received(effects: tuple[Effect, ...]) -> Iterator[str]:
    for effect in effects:
        if effect.passage is not None:
            yield effect.passage.record_id
        yield from received(effect.effects)


# -- One story


FLOW = [
    line("record.succeeded", 100, "a", age=0.1, attempt=1, output_ids=[OUT(1), OUT(2)], outputs=2, traceId=TRACE),
    line("looked", 200, "b", handler="bill", source="priced", level="INFO", attempt=1, cents=250, traceId=TRACE),
    line("record.failed", 210, "b", handler="bill", source="priced", caused_by=OUT(1), attempt=1, age=0.11, seconds=0.01,
         error="RuntimeError", reason="the bank is away", delay=0.5, traceId=TRACE),
    line("record.succeeded", 720, "b", handler="bill", source="priced", caused_by=OUT(1), attempt=2, receive_count=2,
         age=0.62, output_ids=[OUT(3)], outputs=1, traceId=TRACE),
    line("record.exhausted", 900, "c", handler="mail", source="mails", caused_by=OUT(3), attempt=5, age=0.1,
         error="ValueError", reason="no address", traceId=TRACE),
    line("record.succeeded", 950, "elsewhere", handler="audit", age=0.1, traceId=TRACE),
    line("record.succeeded", 960, "stranger", handler="audit", age=0.1),
]  # fmt: skip


def test_a_record_in_the_middle_tells_its_cause_its_attempts_and_what_it_caused() -> None:
    story = told(FLOW, "b")
    (one,) = story.told
    assert [origin.record_id for origin in one.origins] == ["a"]
    assert [row.outcome or row.message for row in one.passage.lines] == ["looked", "failed", "succeeded"]
    assert list(received(one.effects)) == ["c"]
    assert one.passage.standing(NOW).state == "succeeded"
    assert [passage.record_id for passage in story.same_trace] == ["elsewhere"]
    assert story.knows_successes
    assert not story.is_cut
    assert (
        text_of(story)
        == f"""\
shop/bill: record b
  trace {TRACE}
  2026-11-21, times in UTC
Where it came from
  10:00:00.000  record  a of orders in shop/price
  10:00:00.100  sent      to priced as output {OUT(1)}
What happened
  10:00:00.200  info       attempt 1: looked cents=250
  10:00:00.210  failed     attempt 1, 10 ms: RuntimeError: the bank is away; next try in 500 ms
  10:00:00.720  succeeded  attempt 2, received 2 times, 1 output
What it caused
  10:00:00.800  output  {OUT(3)} became record c of mails in shop/mail: dead letter, ValueError: no address
Where it stands
  10:00:00.720  succeeded  done
Also in this trace
  10:00:00.850  record  elsewhere of orders in shop/audit: succeeded"""
    )


def test_a_whole_chain_is_told_from_its_first_and_from_its_last_record() -> None:
    assert list(received(told(FLOW, "a").told[0].effects)) == ["b", "c"]
    last = told(FLOW, "c").told[0]
    assert [one.record_id for one in last.origins] == ["a", "b"]
    text = text_of(told(FLOW, "c"))
    assert "dead letter  went to the dead letters of mails" in text
    assert "look         pipeline dlq peek --source mails" in text


@pytest.mark.parametrize(
    ("asked", "kind", "records"),
    [
        ("b", "record", ["b"]),
        (OUT(1), "output", ["b"]),
        (OUT(2), "output", ["a"]),  # nobody's line says who received it: its sender
        (OUT(1).upper(), "output", ["b"]),
        (TRACE, "trace", ["a", "elsewhere"]),  # the others are told as what these caused
        (TRACE.upper(), "trace", ["a", "elsewhere"]),
    ],
)
def test_an_id_is_a_records_an_outputs_or_a_traces(asked: str, kind: str, records: list[str]) -> None:
    story = told(FLOW, asked)
    assert story.kind == kind
    assert [one.passage.record_id for one in story.told] == records


@pytest.mark.parametrize("asked", ["nosuch", "", "price", "orders", OUT(9), "f" * 32])
def test_an_id_that_no_line_has_is_no_story(asked: str) -> None:
    assert tell(read(FLOW), asked) is None


def test_a_record_that_two_handlers_read_is_told_of_both() -> None:
    lines = [line("record.succeeded", 1, "s/1", handler="one"), line("record.rejected", 2, "s/1", handler="two")]
    assert [one.passage.handler for one in told(lines, "s/1").told] == ["one", "two"]


def test_a_duplicate_names_the_record_that_did_the_work() -> None:
    lines = [
        line("record.succeeded", 1, "first", key_hash="k"),
        line("record.duplicate", 2, "second", key_hash="k"),
        line("record.succeeded", 3, "other", key_hash="l"),
    ]
    story = told(lines, "second")
    assert [one.record_id for one in story.told[0].same_key] == ["first"]
    assert "the work of its key was done by record first" in text_of(story)


# -- Where it stands


@pytest.mark.parametrize(
    ("lines", "state", "words"),
    [
        ([("record.succeeded", {})], "succeeded", "done"),
        ([("record.slow", {})], "succeeded", "done"),
        ([("record.duplicate", {})], "duplicate", "the work of its key was done before"),
        ([("record.succeeded", {}), ("record.duplicate", {})], "succeeded", "it came again 1 time, and was known"),
        ([("record.rejected", {}), ("record.duplicate", {})], "dead", "went to the dead letters of orders"),
        ([("record.exhausted", {})], "dead", "went to the dead letters of orders"),
        ([("record.failed", {"delay": 30})], "waiting", "waits in orders for its next try at 10:00:30.000"),
        ([("record.failed", {})], "waiting", "when its source delivers it again"),
        ([("record.postponed", {"delay": 30})], "waiting", "waits in its process"),
        ([("record.unprocessed", {"delay": 1})], "handed_back", "waits in orders"),
        ([("anything", {})], "unknown", "no line says how a run of it ended"),
    ],
)
def test_where_a_record_stands(lines: list[tuple[str, dict[str, Any]]], state: str, words: str) -> None:
    story = told([line(message, at, "a", **fields) for at, (message, fields) in enumerate(lines)], "a")
    assert story.told[0].passage.standing(NOW).state == state
    assert words in text_of(story)


def test_a_try_that_was_due_long_ago_may_have_succeeded_without_a_line() -> None:
    story = told([line("record.failed", 0, "a", delay=30)], "a")
    later = NOW + 1000
    assert story.told[0].passage.standing(later).state == "due"
    text = text_of(story, later)
    assert "was due at 10:00:30.000, and no line is of it" in text
    assert "pipeline dlq peek --source orders" in text
    assert "leave one at DEBUG only" in story_text.notes(story)[0]


def test_a_try_of_which_no_line_says_when_should_have_come_after_a_while() -> None:
    story = told([line("record.failed", 0, "a")], "a")
    assert "its next try should have come by now, and no line is of it" in text_of(story, NOW + 1000)


def test_a_run_without_an_end_may_have_been_killed() -> None:
    lines = [line("anything", 0, "a"), line("record.succeeded", 0, "b")]
    assert text_of(told(lines, "a")).endswith("it runs, or it was killed or timed out")
    assert "or it succeeded, which leaves no line at INFO" in text_of(told(lines[:1], "a"))
    whole = tell(read(lines[:1]), "a", has_all=True)
    assert whole is not None
    assert "at INFO" not in text_of(whole)


def test_a_scaled_clocks_ages_do_not_move_when_a_record_was_sent() -> None:
    """They run ahead of the times that lines bear."""
    lines = [line("record.failed", 1_000, "a", age=0.2, delay=60), line("record.succeeded", 3_000, "a", age=60.2)]
    assert "10:00:00.800  sent" in text_of(told(lines, "a"))


def test_records_of_the_traces_of_the_same_key_are_not_in_this_one() -> None:
    lines = [
        line("record.succeeded", 0, "first", key_hash="k", traceId=OTHER),
        line("record.failed", 0, "stranger", error="E", traceId=OTHER),
        line("record.duplicate", 9, "again", key_hash="k", traceId=TRACE),
        line("record.succeeded", 9, "beside", traceId=TRACE),
    ]
    for asked in ("again", TRACE):
        story = told(lines, asked)
        assert {one.record_id for one in story.same_trace} <= {"beside"}
        assert "stranger" not in text_of(story)
    assert [one.record_id for one in told(lines, "again").same_trace] == ["beside"]


def test_what_a_handler_says_in_the_toolkits_words_is_its_own() -> None:
    lines = [line("record.failed", 0, "a", error="Mine", location="shop:7"), line("record.succeeded", 1, "a")]
    story = told(lines, "a")
    assert [one.outcome for one in story.told[0].passage.lines] == [None, "succeeded"]
    assert "warning    record.failed error=Mine" in text_of(story)


# -- Any lines


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[str], dict[str, list[str]]]:
    """Lines of records that cause each other without a circle, each at a time of its own; the effects by record."""
    count = draw(st.integers(1, 8))
    effects: dict[str, list[str]] = {f"r{number}": [] for number in range(count)}
    causes: dict[int, int] = {}
    for number in range(1, count):
        cause = draw(st.none() | st.integers(0, number - 1))
        if cause is not None:
            causes[number] = cause
            effects[f"r{cause}"].append(f"r{number}")
    lines: list[str] = []
    at = 0
    for number in range(count):
        caused_by = {"caused_by": OUT(number + 1)} if number in causes else {}
        attempts = draw(st.integers(1, 3))
        for attempt in range(1, attempts + 1):
            at += draw(st.integers(1, 1000))
            lines.append(line("record.failed", at, f"r{number}", attempt=attempt, delay=1, **caused_by))
        at += 1
        outputs = [OUT(other + 1) for other, cause in causes.items() if cause == number]
        lines.append(line("record.succeeded", at, f"r{number}", attempt=attempts + 1, output_ids=outputs, **caused_by))
    return lines, effects


def _below(record: str, effects: dict[str, list[str]]) -> set[str]:
    return {one for effect in effects[record] for one in {effect} | _below(effect, effects)}


@given(worlds(), st.data())
def test_the_order_of_lines_and_their_repeats_change_nothing(
    world: tuple[list[str], dict[str, list[str]]], data: st.DataObject
) -> None:
    lines, effects = world
    asked = data.draw(st.sampled_from(sorted(effects)))
    story = told(lines, asked)
    assert set(received(story.told[0].effects)) == _below(asked, effects)
    shuffled = data.draw(st.permutations(lines + data.draw(st.lists(st.sampled_from(lines), max_size=5))))
    assert told(shuffled, asked) == story


@given(worlds(), st.data())
def test_missing_lines_make_a_shorter_story_and_never_a_wrong_one(
    world: tuple[list[str], dict[str, list[str]]], data: st.DataObject
) -> None:
    lines, effects = world
    asked = data.draw(st.sampled_from(sorted(effects)))
    kept = [one for one in lines if data.draw(st.booleans())]
    story = tell(read(kept), asked)
    assert (story is None) == (f'"record_id": "{asked}"' not in "\n".join(kept))
    if story is not None:
        assert set(received(story.told[0].effects)) <= _below(asked, effects)
        text_of(story)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=12), st.data())
def test_circles_of_cause_and_effect_end(arrows: list[tuple[int, int]], data: st.DataObject) -> None:
    lines = [
        line("record.succeeded", at, f"r{cause}", output_ids=[OUT(number + 1)], caused_by=OUT(data.draw(st.integers(1, 12))))
        for at, (number, (cause, _)) in enumerate(enumerate(arrows))
    ]  # fmt: skip
    lines += [line("record.failed", 50, f"r{effect}", caused_by=OUT(n + 1)) for n, (_, effect) in enumerate(arrows)]
    for asked in [f"r{number}" for number in range(5)] + [OUT(number) for number in range(1, 13)]:
        story = tell(read(lines), asked)
        if story is not None:
            text_of(story)
            json.dumps(story_text.document(story, Asking(NOW)))
            for one in story.told:
                keys = [one.passage.key, *(origin.key for origin in one.origins)]
                assert len(set(keys)) == len(keys)


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.integers() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
NAMES = ("message", "timestamp", "level", "service", "handler", "record_id", "key_hash", "attempt", "receive_count", "source",
         "error", "reason", "delay", "age", "seconds", "traceId", "caused_by", "output_ids", "outputs", "exception")  # fmt: skip


@given(st.lists(st.dictionaries(st.sampled_from((*NAMES, "other")), VALUES | st.sampled_from(["a", OUT(1), stamp(3)]))))
def test_whatever_stands_in_a_line_a_story_is_told_and_nothing_of_it_reaches_a_terminal_raw(found: list[Any]) -> None:
    lines = [json.dumps({"record_id": "a", **one}) for one in found] + [json.dumps({"record_id": "a"})]
    story = told(lines, "a")
    text = text_of(story)
    assert clean(text.replace("\n", " ")) == text.replace("\n", " ")
    text.encode()
    json.dumps(story_text.document(story, Asking(NOW)), allow_nan=False).encode()


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", '{"record_id": "a"', '["record_id"]', '{"record_id": 3}', '{"record_id": ""}', '{"message": "record_id"}',
     '{"record_id":' + "[" * 100_000, '"record_id" {"a": 1}'],
)  # fmt: skip
def test_a_line_that_names_no_record_is_passed_over(text: str) -> None:
    assert parse(text) is None


def test_a_line_is_read_behind_what_a_tool_writes_before_it() -> None:
    found = parse(f"2026-11-21T10:00:00 2026/11/21/[1]ab {FLOW[0]}\n")
    assert found is not None
    assert found.text == FLOW[0]


@pytest.mark.parametrize("timestamp", ["", "yesterday", "9999-99-99", 3, None])
def test_a_line_without_a_time_stands_behind_the_others(timestamp: Any) -> None:
    lines = [line("record.failed", 0, "a", timestamp=timestamp), line("record.succeeded", 5, "a")]
    assert told(lines, "a").told[0].passage.lines[-1].message == "record.failed"
    text_of(told(lines, "a"))


# -- Many lines


def test_ten_thousand_lines_of_one_trace_are_told_at_once_and_bounded() -> None:
    lines = [line("record.succeeded", 0, "root", output_ids=[OUT(n) for n in range(1, 1001)], traceId=TRACE)]
    lines += [
        line("record.succeeded", n, f"r{n}", caused_by=OUT(n), key_hash="k", traceId=TRACE) for n in range(1, 10_000)
    ]
    began = time.process_time()
    found = list(read(lines))
    for asked in ("root", "r5", OUT(7), TRACE):
        story = tell(found, asked)
        assert story is not None
        assert story.is_cut
        assert len(story.told) <= MAX_RECORDS
        assert all(len(list(received(one.effects))) <= MAX_RECORDS for one in story.told)
        assert len(story.same_trace) <= MAX_NAMED
        assert "There is more than is shown" in "".join(story_text.notes(story))
        text_of(story)
    assert time.process_time() - began < 20


def test_a_chain_longer_than_the_limit_is_cut_both_ways() -> None:
    lines = [
        line("record.succeeded", n, f"r{n}", output_ids=[OUT(n + 1)], caused_by=OUT(n)) for n in range(MAX_DEPTH * 3)
    ]
    story = told(lines, f"r{MAX_DEPTH * 3 // 2}")
    assert story.is_cut
    assert len(story.told[0].origins) == MAX_DEPTH
    assert len(list(received(story.told[0].effects))) == MAX_DEPTH


# -- What is shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain äß✓", "plain äß✓"),
        ("\x1b[31mred\x1b]0;t\x07", "\\u001b[31mred\\u001b]0;t\\u0007"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\x9b31m\x85", "\\u009b31m\\u0085"),
        ("a\u202eb\u200b\u2028", "a\\u202eb\\u200b\\u2028"),
        ("\ud800", "\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_a_terminal_would_obey_is_spelled_out(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_a_long_text_is_cut() -> None:
    assert clean("x" * 20, 5) == "xxxxx… (15 characters more)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0004, "0 ms"),
        (0.25, "250 ms"),
        (2, "2.0 s"),
        (90, "1 min 30 s"),
        (7_260, "2 h 1 min"),
        (260_000, "3 days 0 h"),
    ],
)
def test_lengths_of_time_are_short(seconds: float, text: str) -> None:
    assert lasting(seconds) == text


@pytest.mark.parametrize("at", [None, 1e300, -1e300, float("inf"), float("nan")])
def test_a_time_that_there_is_not_is_empty(at: float | None) -> None:
    assert clock(at) == ""
    assert instant(at) is None


def test_a_passage_without_an_age_does_not_say_when_it_was_sent() -> None:
    assert Passage(("", "", "a"), ()).sent_at is None


def test_on_a_terminal_only_our_own_colours_are_there() -> None:
    story = told([line("record.failed", 0, "a\x1b[5m", error="E", reason="\x1b[31mred[bold]\x07")], "a\x1b[5m")
    file = io.StringIO()
    rows.show(
        story_text.sections(story, Asking(NOW)), Console(file=file, force_terminal=True, width=60, highlight=False)
    )
    shown = file.getvalue()
    assert "\x1b[33mfailed" in shown
    assert "\\u001b[31mred[bold]\\u0007" in "".join(re.sub(r"\x1b\[[0-9;]*m", "", shown).split())
    assert re.sub(r"\x1b\[(0|1|2|33)m", "", shown).replace("\n", "").isprintable()
