"""Metrics: what a line says is what CloudWatch takes, whatever the facts are, and names never come from data."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from aws_lambda_powertools.metrics import EphemeralMetrics
from hypothesis import given
from hypothesis import strategies as st

from pipeline.batch import BatchResult
from pipeline.outcome import Duplicate, Failed, HandBack, Outcome, Rejected, Succeeded, Unprocessed
from pipeline.record import RawRecord
from pipeline.telemetry.events import BatchFinished, Fact, RecordPostponed, SinkWritten, StoreCalled
from pipeline.telemetry.measures import (
    MAX_SINKS,
    MAX_TYPES,
    OUTCOMES,
    SINK_UNITS,
    UNITS,
    error_types,
    finite,
    sink_metrics,
    sink_names,
    spread,
)
from pipeline.telemetry.metrics import ERROR_TYPES, MetricsWriter, metrics_for

#: It names no draft of JSON Schema; its `$id`s are of the seventh.
SCHEMA = jsonschema.Draft7Validator(json.loads((Path(__file__).parent.parent / "data" / "emf-schema.json").read_text()))
DIMENSIONS = {"service": "shop", "handler": "price", "function_name": "price"}
SINKS = ("ledger", "audit.fifo")
NAMES: dict[str, Any] = {"pipeline": "shop", "handler": "price"}


def batch(*outcomes: Outcome, bodies: Sequence[str | bytes] = (), **fields: Any) -> BatchFinished:
    records = [
        RawRecord(id=f"m{number}", source="orders", body=bodies[number] if number < len(bodies) else "{}")
        for number in range(len(outcomes))
    ]
    given: dict[str, Any] = {"oldest": None, "seconds": 0.5, "slowest": 0.25, **fields}
    return BatchFinished(**NAMES, source="orders", result=BatchResult(records, outcomes), **given)


def wrote(sink: str, seconds: float = 0.01, failed: int = 0) -> SinkWritten:
    return SinkWritten(**NAMES, sink=sink, accepted=1, failed=failed, seconds=seconds, error=None)


def asked(seconds: float = 0.01, failed: int = 0) -> StoreCalled:
    return StoreCalled(**NAMES, operation="claim", requests=1, failed=failed, seconds=seconds, error=None)


def postponed() -> RecordPostponed:
    record = RawRecord(id="m", source="orders", body="{}")
    return RecordPostponed(**NAMES, record=record, key_hash=None, attempt=1, outcome=Failed(ValueError()), delay=1.0)


def lines(
    *facts: Fact, sinks: Sequence[str] = SINKS, add: Callable[[EphemeralMetrics], None] = lambda metrics: None
) -> list[dict[str, Any]]:
    """The lines that these facts print; `add`: what the handler itself does with its metrics."""
    metrics = metrics_for("shop", "price")
    writer = MetricsWriter(metrics, sinks)
    out = io.StringIO()
    with redirect_stdout(out):
        add(metrics)
        for fact in facts:
            writer(fact)
    return [json.loads(line, parse_constant=refuse) for line in out.getvalue().splitlines()]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def check(line: dict[str, Any]) -> set[str]:
    """A line is one that CloudWatch takes; the names of its metrics."""
    SCHEMA.validate(line)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    names = [metric["Name"] for metric in directive["Metrics"]]
    assert len(names) == len(set(names)) <= 100
    for name in names:
        values = line[name] if isinstance(line[name], list) else [line[name]]
        assert 1 <= len(values) <= 100, name
        assert all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values), name
        assert all(math.isfinite(value) and abs(value) <= 2**360 for value in values), name
    for dimensions in directive["Dimensions"]:
        for name in dimensions:
            assert isinstance(line[name], str)
            assert 1 <= len(line[name]) <= 1024
    assert len(json.dumps(line)) < 1_000_000
    return set(names)


def ours(line: dict[str, Any]) -> dict[str, Any]:
    """The values of a line's metrics; one alone is a number."""
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    values = {metric["Name"]: line[metric["Name"]] for metric in directive["Metrics"]}
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


# --- what a line says


def test_a_batch_is_one_line_with_what_it_had() -> None:
    finished = batch(
        Succeeded(), Duplicate(),
        bodies=["{}", '"é"'], oldest=12.0, ages=(12.5, 13.25), handled=(0.2,), concurrency=2, batch_size=10,
    )  # fmt: skip
    (line,) = lines(asked(0.003), wrote("ledger", 0.02), wrote("ledger", 0.03), asked(0.004), finished)

    check(line)
    assert ours(line) == {
        "RecordsSucceeded": 1, "RecordsDuplicate": 1, "BatchSize": 2, "BatchFill": 20, "BatchDuration": 500,
        "SlowestRecord": 250, "BodyBytes": 6, "OldestRecordAge": 12, "RecordAge": [12.5, 13.25], "HandlerDuration": 200,
        "ConcurrencyUsed": 2, "StoreDuration": [3, 4], "SinkDuration_ledger": [20, 30],
    }  # fmt: skip
    assert ERROR_TYPES not in line


def test_troubles_are_counted_and_their_types_are_no_metrics() -> None:
    outcomes = [
        Failed(ValueError("no")), Failed(ValueError("neither")), Rejected(KeyError("k")), Rejected(OSError(), exhausted=True),
        Unprocessed(HandBack.DEADLINE), Unprocessed(HandBack.BEHIND),
    ]  # fmt: skip
    (line,) = lines(wrote("audit.fifo", failed=3), asked(failed=2), postponed(), postponed(), batch(*outcomes))

    check(line)
    found = ours(line)
    assert {name: found[name] for name in found if name.startswith("Records")} == {
        "RecordsFailed": 2, "RecordsRejected": 1, "RecordsExhausted": 1, "RecordsHandedBack": 2, "RecordsPostponed": 2,
    }  # fmt: skip
    assert (found["DeadlineHandBacks"], found["SinkFailures_audit_fifo"], found["StoreFailures"]) == (1, 3, 2)
    assert line[ERROR_TYPES] == {"ValueError": 2, "KeyError": 1, "OSError": 1}


def test_a_batch_says_nothing_of_what_the_batch_before_it_had() -> None:
    first, second = lines(
        wrote("ledger"), asked(failed=1), postponed(), batch(Failed(ValueError())), batch(Succeeded())
    )

    assert {"SinkDuration_ledger", "StoreFailures", "RecordsPostponed", "RecordsFailed"} <= check(first)
    assert check(second) == {"RecordsSucceeded", "BatchSize", "BatchDuration", "SlowestRecord", "BodyBytes"}
    assert ERROR_TYPES not in second


def test_a_handler_with_one_sink_and_a_store_has_twelve_metrics_as_long_as_all_is_well() -> None:
    fine = batch(Succeeded(), oldest=1.0, ages=(1.0,), handled=(1.0,), concurrency=1, batch_size=10)
    (line,) = lines(asked(), wrote("ledger"), fine)

    assert len(check(line)) == 12  # docs/observability.md has their price


def test_a_stream_of_another_encoding_gets_ascii() -> None:
    metrics = metrics_for("shop", "price")
    metrics.add_metric(name="Größe", unit="Count", value=1)
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding="ascii", line_buffering=True)
    with redirect_stdout(stream):
        MetricsWriter(metrics, SINKS)(batch(Succeeded()))

    (line,) = [json.loads(text) for text in written.getvalue().splitlines()]
    assert {"Größe", "BatchSize"} <= check(line)


def test_nothing_is_kept_where_metrics_are_turned_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
    assert lines(batch(Failed(ValueError())), batch(Succeeded())) == []
    monkeypatch.undo()

    metrics = metrics_for("shop", "price")
    writer = MetricsWriter(metrics)
    out = io.StringIO()
    with redirect_stdout(out):
        monkeypatch.setenv("POWERTOOLS_METRICS_DISABLED", "true")
        writer(batch(Failed(ValueError())))
        monkeypatch.undo()
        writer(batch(Succeeded()))
    (line,) = out.getvalue().splitlines()
    assert "RecordsFailed" not in json.loads(line)


# --- the handler's own metrics


def test_a_handlers_metrics_stand_in_the_same_line() -> None:
    def add(metrics: EphemeralMetrics) -> None:
        metrics.add_metric(name="Priced", unit="Count", value=1)
        metrics.add_metric(name="Priced", unit="Count", value=2)
        metrics.add_metadata(key="release", value="7")

    (line,) = lines(batch(Succeeded()), add=add)
    assert "Priced" in check(line)
    assert line["Priced"] == [1.0, 2.0]
    assert line["release"] == "7"


@pytest.mark.parametrize(
    "change",
    [
        lambda metrics: metrics.add_dimension(name="tenant", value="t1"),
        lambda metrics: metrics.add_dimensions(tenant="t1"),
        lambda metrics: metrics.set_default_dimensions(tenant="t1"),
        lambda metrics: metrics.set_timestamp(1_700_000_000_000),
        lambda metrics: metrics.add_metric(name="BatchSize", unit="Count", value=77),
        lambda metrics: metrics.add_metadata(key="handler", value="another"),
        lambda metrics: metrics.add_metadata(key=ERROR_TYPES, value="another"),
    ],
    ids=[
        "dimension",
        "dimension set",
        "default dimension",
        "time",
        "name of ours",
        "metadata over a dimension",
        "types of errors",
    ],
)
@pytest.mark.filterwarnings("ignore:This metric doesn't meet the requirements")
def test_what_a_handler_does_to_its_metrics_changes_nothing_of_ours(change: Callable[[EphemeralMetrics], None]) -> None:
    def add(metrics: EphemeralMetrics) -> None:
        metrics.add_metric(name="Priced", unit="Count", value=1)
        change(metrics)

    theirs, first, second = lines(batch(Succeeded()), batch(Succeeded()), add=add)
    assert theirs["Priced"] == [1.0]
    for line in (first, second):
        check(line)
        assert "Priced" not in line
        assert line["BatchSize"] == [1]
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert [sorted(names) for names in directive["Dimensions"]] == [sorted(DIMENSIONS)]
        assert {name: line[name] for name in DIMENSIONS} == DIMENSIONS
        assert line["_aws"]["Timestamp"] > 1_700_000_000_000


@pytest.mark.parametrize(
    "change",
    [
        lambda metrics: metrics.add_metadata(key="_aws", value={"CloudWatchMetrics": []}),
        lambda metrics: metrics.add_metric(name="_aws", unit="Count", value=1),
    ],
    ids=["metadata", "metric"],
)
@pytest.mark.parametrize("is_apart", [False, True])
def test_nothing_of_a_handlers_takes_the_place_of_what_makes_a_line_one_of_metrics(
    change: Callable[[EphemeralMetrics], None], is_apart: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def add(metrics: EphemeralMetrics) -> None:
        change(metrics)
        metrics.add_metric(name="Priced", unit="Count", value=1)
        if is_apart:
            metrics.add_dimension("tenant", "t1")

    found = lines(batch(Succeeded()), add=add)
    names: set[str] = set()
    for line in found:
        names |= check(line)
    assert len(found) == 1 + is_apart
    assert {"Priced", "BatchSize"} <= names
    assert "is left out" in caplog.text


def test_a_handlers_numbers_that_are_no_json_are_left_out() -> None:
    def add(metrics: EphemeralMetrics) -> None:
        metrics.add_metric(name="Ratio", unit="None", value=math.nan)
        metrics.add_metric(name="Share", unit="None", value=math.inf)
        metrics.add_metric(name="Share", unit="None", value=0.5)

    (line,) = lines(batch(Succeeded()), add=add)
    assert "Ratio" not in check(line)
    assert line["Share"] == [0.5]


@pytest.mark.parametrize("value", [object(), math.nan, {1: {2}}])
def test_metadata_that_json_cannot_hold_costs_no_metric(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    def add(metrics: EphemeralMetrics) -> None:
        metrics.add_metric(name="Priced", unit="Count", value=1)
        metrics.add_metadata(key="what", value=value)

    (line,) = lines(batch(Succeeded()), add=add)
    assert {"Priced", "BatchSize"} <= check(line)
    assert "what" not in line
    assert "add_metadata is left out" in caplog.text


def test_a_handler_with_a_hundred_metrics_has_a_line_of_its_own() -> None:
    def add(metrics: EphemeralMetrics) -> None:
        for number in range(99):
            metrics.add_metric(name=f"M{number}", unit="Count", value=1)

    theirs, own = lines(batch(Succeeded()), add=add)
    assert len(check(theirs)) == 99
    assert "BatchSize" in check(own)


# --- any facts

numbers = st.one_of(st.floats(), st.sampled_from([math.nan, math.inf, -math.inf, 2.0**400, 0.0]))
texts = st.text(max_size=20)


def type_of(name: str) -> BaseException:
    return type(name.replace("\0", "") or "E", (Exception,), {})("secret")


errors = texts.filter(lambda name: "\ud800" not in name).map(type_of)
outcomes = st.one_of(
    st.just(Succeeded()),
    st.just(Duplicate()),
    errors.map(Failed),
    st.builds(Rejected, errors, exhausted=st.booleans()),
    st.sampled_from(HandBack).map(Unprocessed),
)
many = st.lists(numbers, max_size=8) | st.integers(95, 400).map(
    lambda count: [float(number) for number in range(count)]
)
batches = st.builds(
    lambda ended, bodies, **fields: batch(*ended, bodies=bodies, **fields),
    st.lists(outcomes, max_size=30),
    st.lists(texts | st.binary(max_size=20), max_size=30),
    oldest=st.none() | numbers,
    seconds=numbers,
    slowest=numbers,
    ages=many,
    handled=many,
    concurrency=st.integers(0, 10_000),
    batch_size=st.none() | st.integers(0, 10_000),
)
facts = st.lists(
    st.one_of(
        st.builds(wrote, texts, numbers, st.integers(0, 1000)),
        st.builds(asked, numbers, st.integers(0, 1000)),
        st.builds(postponed),
        batches,
    ),
    max_size=12,
)


@given(told=facts, sinks=st.lists(texts, unique=True, max_size=12))
def test_whatever_the_facts_are_the_lines_are_ones_that_cloudwatch_takes(told: list[Fact], sinks: list[str]) -> None:
    found = lines(*told, sinks=sinks)

    assert len(found) == sum(isinstance(fact, BatchFinished) for fact in told), "one line a batch"
    for line in found:
        check(line)


@given(told=st.lists(facts, min_size=1, max_size=4), sinks=st.lists(texts, unique=True, max_size=12))
def test_names_and_dimensions_stay_the_same_few_whatever_the_data_are(told: list[list[Fact]], sinks: list[str]) -> None:
    declared = {name for sink in [*sink_names(sinks).values(), "other"] for name in sink_metrics(sink)}
    allowed = {*UNITS, *declared}
    assert len(allowed) <= len(UNITS) + len(SINK_UNITS) * (MAX_SINKS + 1)

    for line in lines(*(fact for some in told for fact in some), sinks=sinks):
        assert check(line) <= allowed
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert [sorted(names) for names in directive["Dimensions"]] == [sorted(DIMENSIONS)]
        assert {name: line[name] for name in DIMENSIONS} == DIMENSIONS
        types = line.get(ERROR_TYPES, {})
        assert len(types) <= MAX_TYPES + 1
        assert all(len(name) <= 64 and name.isascii() for name in types)
        assert {*line} <= {"_aws", ERROR_TYPES, *DIMENSIONS, *allowed}
        assert "secret" not in json.dumps(line)


# --- the parts


@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=500), limit=st.integers(2, 100))
def test_values_are_thinned_out_without_their_extremes(values: list[float], limit: int) -> None:
    kept = spread(values, limit)

    assert len(kept) == min(len(values), limit)
    if values:
        assert (min(kept), max(kept)) == (min(values), max(values))
    assert not [value for value in kept if value not in values]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_percentiles_of_what_is_kept_are_those_of_all(share: float) -> None:
    values = [float(number * number % 7919) for number in range(5_000)]
    kept = sorted(spread(values))

    exact = sorted(values)[int(share * len(values))]
    rank = sum(value <= kept[int(share * (len(kept) - 1))] for value in values) / len(values)
    assert abs(rank - share) <= 0.015, exact


def test_a_batch_with_many_calls_keeps_a_bounded_number_of_durations() -> None:
    (line,) = lines(*(wrote("ledger", number / 1000) for number in range(10_000)), batch(Succeeded()))

    check(line)
    assert len(line["SinkDuration_ledger"]) <= 100
    assert (min(line["SinkDuration_ledger"]), max(line["SinkDuration_ledger"])) == (0, 9_999)


@given(st.lists(outcomes, max_size=200))
def test_error_types_are_few_and_count_every_failure(ended: list[Outcome]) -> None:
    types = error_types(ended)

    assert sum(types.values()) == sum(isinstance(outcome, (Failed, Rejected)) for outcome in ended)
    assert len(types) <= MAX_TYPES + 1


def test_the_most_frequent_types_are_the_ones_that_are_named() -> None:
    rare = [Failed(type_of(f"Rare{number}")) for number in range(20)]
    types = error_types([*rare, *[Failed(ValueError())] * 5])

    assert types["ValueError"] == 5
    assert types["other"] == 20 - (MAX_TYPES - 1)


def test_a_types_name_is_cut_and_has_plain_letters() -> None:
    assert error_types([Failed(type_of("Ä.b" + "E" * 500))]) == {"__b" + "E" * 61: 1}


def test_sinks_keep_their_names_up_to_a_number_of_them() -> None:
    names = sink_names(["audit.fifo", "", *(f"s{number}" for number in range(20))])

    assert names["audit.fifo"] == "audit_fifo"
    assert set(names.values()) == {"audit_fifo", "other", *(f"s{number}" for number in range(MAX_SINKS - 2))}


def test_only_numbers_that_cloudwatch_takes_are_finite() -> None:
    assert finite([math.nan, math.inf, -math.inf, 2.0**361, -(2.0**360), 0.0, 3]) == [-(2.0**360), 0.0, 3]


def test_every_outcome_has_its_own_metric() -> None:
    assert len(set(OUTCOMES.values())) == len(OUTCOMES) == 6
    assert set(OUTCOMES.values()) <= set(UNITS)


# --- the document


def test_the_document_lists_the_metrics_that_there_are_with_their_units() -> None:
    text = (Path(__file__).parents[2] / "docs" / "observability.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (?:one|each \w+) \|", text.partition("\n## Metrics\n")[2], re.MULTILINE)

    assert dict(rows) == {**UNITS, **sink_metrics("NAME")}
    assert len(rows) == len(dict(rows))
