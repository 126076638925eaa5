"""The lines that facts become, and that the documentation's table says just that."""

from __future__ import annotations

import io
import itertools
import json
import logging
import re
import typing
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.batch import BatchResult
from pipeline.outcome import (
    Duplicate,
    Failed,
    HandBack,
    Outcome,
    Rejected,
    Succeeded,
    Unprocessed,
)
from pipeline.record import Carried, RawRecord, TraceContext
from pipeline.telemetry.current import CURRENT
from pipeline.telemetry.events import (
    BatchFinished,
    BatchStarted,
    CompletionLost,
    Fact,
    HookFailed,
    RecordFinished,
    RecordPostponed,
    RejectionLost,
    SinkWritten,
)
from pipeline.telemetry.log import LogWriter, logger_for
from pipeline.telemetry.surplus import MOST, Surplus

DOCUMENT = Path(__file__).parents[2] / "docs" / "observability.md"
_ROW = re.compile(r"^\| `([\w.]+)` \| (DEBUG|INFO|WARNING|ERROR) \| .* \| (.*) \|$", re.MULTILINE)
_OF_RECORD = re.compile(
    r"^\*The record's\*, on each line of a record: (.*?)\. \*The end's\*(.*?)\.$", re.DOTALL | re.MULTILINE
)
#: Of every line, or of every line of ours.
COMMON = {"level", "message", "timestamp", "service", "function_version", "handler", "cold_start"}

_numbers = itertools.count()
TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 1)
RAW = RawRecord(id="r1", source="orders", body="{}", receive_count=3, carried=Carried("sent-as", 1), traces=(TRACE,))


def raised() -> Exception:
    try:
        raise ValueError("no")
    except ValueError as error:
        return error


ERROR = raised()
SENT = ("out-1", "out-2")
SPAN = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 1)
NAMES: dict[str, Any] = {"pipeline": "shop", "handler": "price"}
RECORD: dict[str, Any] = {**NAMES, "record": RAW, "key_hash": "abc", "attempt": 2, "age": 7.0004, "span": SPAN}
OUTCOMES: list[Outcome] = [
    Succeeded(2),
    Duplicate(),
    Rejected(ERROR),
    Rejected(ERROR, exhausted=True),
    Failed(ERROR, delay=1.5),
    Unprocessed(HandBack.STORE, delay=2.0, error=ERROR),
    Unprocessed(HandBack.CLAIMED, delay=2.0),
]


def finished(outcome: Outcome, **fields: Any) -> RecordFinished:
    return RecordFinished(**RECORD, outcome=outcome, seconds=0.25, handled=0.125, output_ids=SENT, **fields)


#: Every fact that leaves a line, with all that it can have.
FACTS: list[Fact] = [
    BatchStarted(**NAMES, source="orders", size=7, oldest=9.0),
    *(finished(outcome) for outcome in OUTCOMES),
    finished(Succeeded(1), is_slow=True),
    *(RecordPostponed(**RECORD, outcome=outcome, delay=3.0) for outcome in OUTCOMES[4:]),
    SinkWritten(**NAMES, sink="ledger", accepted=1, failed=1, seconds=0.1, error=ERROR),
    CompletionLost(**RECORD, outcome=Succeeded(1), error=ERROR),
    RejectionLost(**RECORD, outcome=Rejected(ERROR), error=ERROR),
    HookFailed(**RECORD, error=ERROR),
    BatchFinished(
        **NAMES,
        source="orders",
        result=BatchResult([RAW] * len(OUTCOMES), OUTCOMES),
        oldest=9.0,
        seconds=1.0,
        slowest=0.5,
        span=SPAN,
    ),
]
#: Facts of which metrics are made, and no lines.
SILENT = {"StoreCalled"}


def lines_of(*facts: Fact, level: str = "DEBUG", **options: Any) -> list[dict[str, Any]]:
    """The lines that a writer of its own makes of facts."""
    written = io.StringIO()
    writer = LogWriter(logger_for(f"lines-{next(_numbers)}", level, written), "price", **options)
    for fact in facts:
        writer(fact)
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_every_kind_of_fact_and_of_outcome_is_tried_here() -> None:
    kinds = {kind.__name__ for kind in typing.get_args(Fact)}
    assert {type(fact).__name__ for fact in FACTS} == kinds - SILENT
    assert {type(outcome) for outcome in OUTCOMES} == set(typing.get_args(Outcome))


def test_the_documented_events_and_fields_are_those_that_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "7")
    text = DOCUMENT.read_text()
    of_record = _OF_RECORD.search(text)
    assert of_record is not None
    documented = {
        (event, level): set(
            re.findall(r"`(\w+)`", fields.replace("*the record's*", of_record[1]).replace("*the end's*", of_record[2]))
        )
        for event, level, fields in _ROW.findall(text)
    }
    written: dict[tuple[str, str], set[str]] = {}
    outages = [[*[finished(outcome)] * (MOST + 1), FACTS[-1]] for outcome in (Failed(ERROR), OUTCOMES[3])]
    both = {"payload": {}, "payload_error": "never with a payload, but here"}
    for line in [
        *lines_of(*FACTS, payloads=lambda raw: both),
        *lines_of(*outages[0], level="INFO"),
        *lines_of(*outages[1], level="INFO"),
    ]:
        assert set(line) >= COMMON
        written.setdefault((line["message"], line["level"]), set()).update(set(line) - COMMON)

    assert documented == written


def test_a_line_of_a_record_has_all_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "7")
    (line,) = lines_of(finished(Failed(ERROR, delay=1.5)))

    assert line.pop("exception").endswith("ValueError: no")
    del line["timestamp"], line["service"]
    assert line == {
        "level": "WARNING",
        "message": "record.failed",
        "function_version": "7",
        "cold_start": True,
        "handler": "price",
        "record_id": "r1",
        "traceId": SPAN.trace_id,
        "spanId": SPAN.span_id,
        "caused_by": "sent-as",
        "output_ids": list(SENT),
        "key_hash": "abc",
        "source": "orders",
        "attempt": 2,
        "receive_count": 3,
        "age": 7.0,
        "outcome": "failed",
        "error": "ValueError",
        "reason": "no",
        "seconds": 0.25,
        "handled": 0.125,
        "delay": 1.5,
        "exception_name": "ValueError",
    }


def test_a_batch_says_why_records_were_handed_back_and_nothing_where_none_were() -> None:
    late: Outcome = Unprocessed(HandBack.DEADLINE)
    back: list[Outcome] = [late, late, Unprocessed(HandBack.BEHIND), Succeeded(1)]
    fields: dict[str, Any] = {**NAMES, "source": "orders", "oldest": None, "seconds": 1.0, "slowest": 0.5}
    some = BatchFinished(**fields, result=BatchResult([RAW] * len(back), back))
    none = BatchFinished(**fields, result=BatchResult([RAW], back[-1:]))

    first, second = lines_of(some, none, level="INFO")
    assert (first["unprocessed"], first["handed_back"]) == (3, {"deadline": 2, "behind": 1})
    assert "handed_back" not in second


@pytest.mark.parametrize(
    ("span", "named"),
    [
        (SPAN, (SPAN.trace_id, SPAN.span_id)),
        (TraceContext(SPAN.trace_id, SPAN.span_id, 0), (SPAN.trace_id, None)),  # nobody keeps it
        (None, (TRACE.trace_id, None)),
    ],
)
def test_a_line_names_the_span_that_is_kept_or_else_the_trace(
    span: TraceContext | None, named: tuple[Any, Any]
) -> None:
    fields: dict[str, Any] = {**RECORD, "span": span}
    (line,) = lines_of(RecordFinished(**fields, outcome=Failed(ERROR), seconds=0.25))

    assert (line["traceId"], line.get("spanId")) == named


def test_by_default_what_went_well_leaves_one_line_a_batch() -> None:
    lines = lines_of(*FACTS, level="INFO")

    assert [line["message"] for line in lines if line["level"] == "DEBUG"] == []
    well = [line["message"] for line in lines if line.get("outcome") in ("succeeded", "duplicate")]
    assert [event for event in well if event.startswith("record.")] == ["record.slow"]
    assert lines[-1]["message"] == "batch.finished"


@pytest.mark.parametrize(("level", "failures_only"), [("DEBUG", False), ("INFO", True), ("ERROR", True)])
def test_only_at_debug_is_every_record_asked_for(level: str, failures_only: bool) -> None:
    assert LogWriter(logger_for("lines-level", level), "price").failures_only is failures_only


def test_a_batch_is_cold_only_once_in_an_environment() -> None:
    batch = [FACTS[0], finished(Failed(ERROR)), FACTS[-1]]
    first_three = [line["cold_start"] for line in lines_of(*batch, *batch)]

    assert first_three == [True] * 3 + [False] * 3
    assert [line["cold_start"] for line in lines_of(*batch, is_cold=False)] == [False] * 3


def test_a_long_message_of_an_error_is_cut_and_one_without_a_message_is_named() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("odd")

    long, odd = lines_of(finished(Rejected(ValueError("x" * 9000))), finished(Rejected(Odd())))

    assert long["reason"] == "x" * 500
    assert (odd["error"], odd["reason"]) == ("Odd", "(no message: its __str__ raised RuntimeError)")


ALWAYS = {
    *("record_id", "key_hash", "source", "attempt", "receive_count", "age", "outcome", "traceId", "spanId", "caused_by")
}


@pytest.mark.parametrize("fact", [fact for fact in FACTS if hasattr(fact, "record")], ids=lambda f: type(f).__name__)
def test_every_line_of_a_record_has_all_that_names_it(fact: Fact) -> None:
    for line in lines_of(fact):
        assert set(line) >= ALWAYS, line["message"]


def test_a_record_that_nobody_sent_and_that_caused_nothing_names_neither() -> None:
    fact = RecordFinished(
        **NAMES,
        record=RawRecord(id="r1", source="orders", body="{}"),
        key_hash=None,
        attempt=1,
        outcome=Succeeded(0),
        seconds=0.25,
    )
    (line,) = lines_of(fact)

    assert {"caused_by", "output_ids", "key_hash", "age"}.isdisjoint(line)


# Lines that are too many


def failing(count: int, error: Exception = ERROR) -> list[Fact]:
    return [finished(Failed(error, delay=1.5)) for _ in range(count)]


def events(lines: list[dict[str, Any]]) -> Counter[str]:
    return Counter(line["message"] for line in lines)


def test_of_an_outage_the_first_lines_of_each_event_are_whole_and_the_rest_is_counted() -> None:
    sink = FACTS[[type(fact).__name__ for fact in FACTS].index("SinkWritten")]
    lines = lines_of(
        *failing(9_000),
        *failing(900, KeyError("k")),
        *[finished(Rejected(ERROR, exhausted=True))] * 150,
        *[sink] * 101,
        *[RecordPostponed(**RECORD, outcome=Unprocessed(HandBack.CLAIMED), delay=3.0)] * 102,
        finished(Rejected(ERROR)),
        FACTS[-1],
        level="INFO",
    )

    assert events(lines) == {
        "record.failed": MOST,
        "record.exhausted": MOST,
        "sink.failed": MOST,
        "record.postponed": MOST,
        "record.rejected": 1,
        "store.failed": 1,
        "lines.omitted": 1,
        "batch.finished": 1,
    }
    (omitted,) = [line for line in lines if line["message"] == "lines.omitted"]
    assert omitted["lines"] == 9_800 + 50 + 1 + 2
    assert omitted["events"] == {
        "record.failed": 9_800,
        "record.exhausted": 50,
        "sink.failed": 1,
        "record.postponed": 2,
    }
    assert omitted["errors"] == {"ValueError": 8_900 + 50 + 1, "KeyError": 900}
    assert omitted["level"] == "ERROR"
    assert {"record_id", "attempt"}.isdisjoint(omitted)


def test_what_one_batch_had_too_many_of_the_next_may_write() -> None:
    lines = lines_of(*failing(MOST + 1), FACTS[-1], *failing(MOST), FACTS[-1], level="INFO")

    assert events(lines)["record.failed"] == 2 * MOST
    assert [line["lines"] for line in lines if line["message"] == "lines.omitted"] == [1]


def test_lines_that_come_after_the_end_of_their_batch_are_not_forgotten() -> None:
    lines = lines_of(*failing(MOST), FACTS[-1], *failing(MOST + 3), FACTS[0], FACTS[-1], level="INFO")

    assert [line["lines"] for line in lines if line["message"] == "lines.omitted"] == [3]


def test_at_debug_everything_is_written() -> None:
    lines = lines_of(FACTS[0], *failing(MOST + 1), FACTS[-1], level="DEBUG")

    assert events(lines)["record.failed"] == MOST + 1
    assert "lines.omitted" not in events(lines)


def test_lines_below_the_level_are_neither_written_nor_counted() -> None:
    lines = lines_of(*failing(MOST + 1), *[finished(OUTCOMES[3])] * (MOST + 1), FACTS[-1], level="ERROR")

    assert events(lines) == {"record.exhausted": MOST, "lines.omitted": 1}
    assert (lines[-1]["lines"], lines[-1]["level"]) == (1, "ERROR")


@given(st.integers(0, 1 << 32), st.sampled_from([0, 1, 8, 9, 101, 300]), st.integers(0, 2_000))
@settings(deadline=None)
def test_the_count_is_exact_and_its_types_are_bounded(seed: int, kinds: int, lines: int) -> None:
    chance = Random(seed)
    asked = [(chance.choice("abc"), chance.randint(0, kinds)) for _ in range(lines)]
    types = [type(f"T{number}" + "x" * 100, (Exception,), {}) for number in range(301)]
    surplus, written, with_error = Surplus(), Counter[str](), 0
    for event, number in asked:
        error = types[number]() if number else None
        is_written = surplus.admits(event, logging.WARNING, error)
        written[event] += is_written
        with_error += error is not None and not is_written

    asks = Counter(event for event, _ in asked)
    assert written == {event: min(count, MOST) for event, count in asks.items()}
    taken = surplus.take()
    if taken is None:
        assert written == asks
        return
    level, counts = taken
    assert level == logging.WARNING
    assert counts["events"] == dict(asks - written)
    assert counts["lines"] == (asks - written).total()
    errors = counts["errors"] or {}
    assert sum(errors.values()) == with_error
    assert len(errors) <= 9
    assert len(json.dumps(counts)) < 1_000
    assert surplus.take() is None


class Working:
    handler, key_hash, attempt, trace_id, span_id = "other", "other", 9, "other", "other"
    raw = RawRecord(id="other", source="other", body="{}", traces=(TraceContext("other", "other"),))


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: type(fact).__name__)
def test_a_line_of_ours_never_has_the_names_of_the_record_that_is_worked_on_meanwhile(fact: Fact) -> None:
    token = CURRENT.set(Working())
    try:
        assert "other" not in json.dumps(lines_of(fact))
    finally:
        CURRENT.reset(token)


def test_what_a_handlers_own_line_says_itself_stands() -> None:
    written = io.StringIO()
    logger = logger_for("lines-own", "INFO", written)
    token = CURRENT.set(Working())
    try:
        logger.info("step", extra={"record_id": "mine"})
    finally:
        CURRENT.reset(token)
    logger.info("step")

    line, free = [json.loads(text) for text in written.getvalue().splitlines()]
    bound = {name: line.get(name) for name in ("record_id", "handler", "key_hash", "attempt", "source", "traceId")}
    assert bound == {
        "record_id": "mine",
        "handler": "other",
        "key_hash": "other",
        "attempt": 9,
        "source": "other",
        "traceId": "other",
    }
    assert bound.keys().isdisjoint(free)
