"""OpenTelemetry's metrics: numbers are those of the facts, names are the conventions', and series never come from data."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import pipeline
from pipeline import sinks, sources
from pipeline.batch import BatchResult
from pipeline.outcome import Duplicate, Failed, HandBack, Outcome, Rejected, Succeeded, Unprocessed, name_of
from pipeline.record import RawRecord
from pipeline.telemetry import conventions, meters
from pipeline.telemetry.events import (
    BatchFinished,
    BatchStarted,
    Fact,
    RecordFinished,
    RecordPostponed,
    SinkWritten,
    StoreCalled,
)
from pipeline.telemetry.measures import MAX_SINKS
from pipeline.telemetry.meters import KINDS, MAX_ERROR_TYPES, OTHER, Meters, sinks_described
from tests.support.metering import installed, metered

NAMES: dict[str, Any] = {"pipeline": "shop", "handler": "price"}
SOURCE = conventions.received(conventions.SQS, "orders")
SINKS = sinks_described([sinks.SQS("parcels.fifo"), sinks.DynamoDB("ledger")])
#: Every attribute that a series may have.
ATTRIBUTES = {
    *("pipeline.name", "pipeline.handler", "pipeline.outcome", "pipeline.sink", "error.type"),
    *("messaging.system", "messaging.operation.name", "messaging.operation.type", "messaging.destination.name"),
}


class Teapot(Exception):
    """What a handler raises."""


def started(size: int = 1) -> BatchStarted:
    return BatchStarted(**NAMES, source="orders", size=size, oldest=None)


def batch(*outcomes: Outcome, **fields: Any) -> BatchFinished:
    records = [RawRecord(id=f"m{number}", source="orders", body="{}") for number in range(len(outcomes))]
    given: dict[str, Any] = {"oldest": None, "seconds": 0.5, "slowest": 0.25, **fields}
    return BatchFinished(**NAMES, source="orders", result=BatchResult(records, outcomes), **given)


def ended(outcome: Outcome, handled: float | None) -> RecordFinished:
    record = RawRecord(id="m", source="orders", body="{}")
    return RecordFinished(
        **NAMES, record=record, key_hash=None, attempt=1, outcome=outcome, seconds=1.0, handled=handled
    )


def postponed(outcome: Outcome, handled: float | None) -> RecordPostponed:
    record = RawRecord(id="m", source="orders", body="{}")
    return RecordPostponed(
        **NAMES, record=record, key_hash=None, attempt=1, outcome=outcome, delay=1.0, handled=handled
    )


def wrote(sink: str, accepted: int = 1, failed: int = 0, error: BaseException | None = None) -> SinkWritten:
    return SinkWritten(**NAMES, sink=sink, accepted=accepted, failed=failed, seconds=0.01, error=error)


def asked(requests: int = 1, failed: int = 0, error: BaseException | None = None) -> StoreCalled:
    return StoreCalled(**NAMES, operation="claim", requests=requests, failed=failed, seconds=0.01, error=error)


@pytest.fixture(autouse=True)
def _each_test_is_a_new_process() -> None:
    meters._types_of.cache_clear()
    meters._complain.cache_clear()


def observer(**given: Any) -> Meters:
    return Meters(**{**NAMES, "source": SOURCE, "sinks": SINKS, **given})


# Numbers

outcomes = st.one_of(
    st.builds(Succeeded),
    st.builds(Duplicate),
    st.builds(Rejected, st.sampled_from([ValueError(), KeyError()]), st.booleans()),
    st.builds(Failed, st.sampled_from([ValueError(), Teapot()])),
    st.builds(Unprocessed, st.sampled_from(HandBack)),
)
seconds = st.floats(0, 1e5)


@given(st.lists(st.tuples(st.lists(outcomes, min_size=1, max_size=30), st.lists(seconds, max_size=30)), max_size=4))
@settings(max_examples=50)
def test_numbers_are_those_of_the_batches(batches: list[tuple[list[Outcome], list[float]]]) -> None:
    with metered() as found:
        made = observer()
        for some, spent in batches:
            made(started(len(some)))
            made(batch(*some, ages=spent, handled=spent, concurrency=3, batch_size=40, oldest=1.0))
        every = [outcome for some, _ in batches for outcome in some]
        by_outcome: Counter[str] = Counter()
        for outcome in every:
            error = getattr(outcome, "error", None)
            words = (name_of(outcome), *([type(error).__name__] if error is not None else []))
            by_outcome[" ".join(sorted(words))] += 1
        expected = {name: float(count) for name, count in by_outcome.items()}
        assert found.of("pipeline.records", pipeline__name="shop", pipeline__handler="price") == expected
        late = sum(isinstance(one, Unprocessed) and one.reason is HandBack.DEADLINE for one in every)
        assert found.total("pipeline.record.deadline_hand_backs") == late
        assert found.total("pipeline.record.io") == 2 * len(every)
        assert found.total("messaging.client.consumed.messages") == len(every)
        values = [value for _, spent in batches for value in spent]
        for name in ("pipeline.record.age", "messaging.process.duration"):
            assert found.total(name) == len(values)
            total = sum(point.sum for (metric, _), point in found.points.items() if metric == name)
            assert math.isclose(total, sum(values), abs_tol=1e-6)
        for name in ("size", "fill", "duration", "oldest_age", "slowest_record", "concurrency"):
            assert found.total(f"pipeline.batch.{name}") == len(batches)


def test_a_large_batch_has_a_hundred_of_its_values_with_the_smallest_and_the_largest() -> None:
    with metered() as found:
        made = observer()
        made(started(1_000))
        made(batch(Succeeded(), ages=[float(age) for age in range(1_000)]))
        (point,) = [point for (name, _), point in found.points.items() if name == "pipeline.record.age"]
    assert (point.count, point.min, point.max) == (100, 0, 999)


def test_runs_that_failed_are_told_from_those_that_went_well() -> None:
    failed, rejected = Failed(Teapot()), Rejected(KeyError("secret"))
    with metered() as found:
        made = observer()
        made(started(4))
        # A stream's record: its first run failed and it waited; there was no time for another one.
        for fact in (postponed(failed, 0.5), postponed(failed, 0.6), ended(failed, 0.6), ended(rejected, 0.7)):
            made(fact)
        made(ended(Failed(ValueError()), None))
        made(batch(failed, rejected, Succeeded(), handled=[0.5, 0.6, 0.7, 0.8, 0.5]))
        runs = found.of("messaging.process.duration", pipeline__name="shop", pipeline__handler="price")
        assert runs == {
            "aws_sqs orders process": 2,
            "Teapot aws_sqs orders process": 2,
            "KeyError aws_sqs orders process": 1,
        }
        assert found.total("pipeline.record.postponements") == 2
        made(started())
        made(batch(Succeeded(), handled=[0.6]))
        runs = found.of("messaging.process.duration", pipeline__name="shop", pipeline__handler="price")
        assert runs["aws_sqs orders process"] == 3


def test_calls_of_sinks_are_counted_with_what_failed_of_them() -> None:
    with metered() as found:
        made = observer()
        made(started())
        for fact in (
            wrote("parcels.fifo", 5),
            wrote("parcels.fifo", 3, 2, Teapot()),
            wrote("parcels.fifo", 0, 4, Teapot()),
            wrote("ledger", 0, 1, None),
            wrote("gone"),
        ):
            made(fact)
        common = {"pipeline__name": "shop", "pipeline__handler": "price"}
        assert found.of("pipeline.sink.duration", **common) == {
            "parcels.fifo": 2, "Teapot parcels.fifo": 1, "_OTHER ledger": 1, "_OTHER": 1,
        }  # fmt: skip
        assert found.of("pipeline.sink.failures", **common) == {"Teapot parcels.fifo": 6, "_OTHER ledger": 1}
        sent = {**common, "messaging__system": "aws_sqs", "messaging__destination__name": "parcels.fifo"}
        assert found.of("messaging.client.sent.messages", **sent, messaging__operation__name="send") == {
            "": 8, "Teapot": 6,
        }  # fmt: skip
        of_type = {"messaging__operation__name": "send", "messaging__operation__type": "send"}
        assert found.of("messaging.client.operation.duration", **sent, **of_type) == {"": 2, "Teapot": 1}
        assert found.total("messaging.client.operation.duration") == 3


def test_calls_of_the_store_are_counted_with_what_failed_of_them() -> None:
    with metered() as found:
        made = observer()
        for fact in (started(), asked(), asked(5, 2, Teapot()), asked(5, 5, Teapot())):
            made(fact)
        common = {"pipeline__name": "shop", "pipeline__handler": "price"}
        assert found.of("pipeline.store.duration", **common) == {"": 2, "Teapot": 1}
        assert found.of("pipeline.store.failures", **common) == {"Teapot": 7}


@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf, -1.0])
def test_what_is_no_duration_is_left_out(odd: float, caplog: pytest.LogCaptureFixture) -> None:
    with metered() as found:
        made = observer()
        made(started())
        made(batch(Succeeded(), ages=[odd, 1.0], handled=[odd], seconds=odd, oldest=odd))
        assert found.total("pipeline.record.age") == 1
        assert not found.of("messaging.process.duration")
    assert caplog.records == []


# Series

names = st.text(st.characters(exclude_categories=()), max_size=12)


@given(
    st.lists(names, unique=True, max_size=12),
    st.lists(st.tuples(names, names, st.integers(0, 3), st.integers(0, 3)), max_size=40),
    names,
)
@settings(max_examples=50)
def test_series_do_not_come_from_data(declared: list[str], hostile: list[tuple[str, str, int, int]], of: str) -> None:
    meters._types_of.cache_clear()
    described = {name: conventions.sent(conventions.SQS, name) for name in declared}
    with metered() as found:
        made = observer(sinks=described, source=conventions.received(conventions.SQS, of))
        for sink, kind, accepted, wrong in hostile:
            error = type("E", (Exception,), {})()
            type(error).__name__ = kind.replace("\0", "?").encode("utf-8", "replace").decode()
            record = RawRecord(id=kind, source=sink, body=sink, lane=kind)
            source = {**NAMES, "source": sink}
            for fact in (
                BatchStarted(**source, size=1, oldest=None),
                ended(Failed(error), 0.5),
                SinkWritten(**NAMES, sink=sink, accepted=accepted, failed=wrong, seconds=0.1, error=error),
                StoreCalled(**NAMES, operation=kind, requests=1, failed=wrong, seconds=0.1, error=error),
                BatchFinished(
                    **source, result=BatchResult([record], [Failed(error)]), oldest=None, seconds=1, slowest=1,
                    handled=[0.5],
                ),
            ):  # fmt: skip
                made(fact)
        series = set(found.points)
    types, places = MAX_ERROR_TYPES + 2, 10  # with OTHER, and none; eight sinks, OTHER and none
    assert {name for name, _ in series} <= {kind.name for kind in KINDS}
    assert {name for _, attributes in series for name, _ in attributes} <= ATTRIBUTES
    assert len({dict(attributes).get("error.type") for _, attributes in series}) <= types
    assert {dict(attributes).get("pipeline.sink") for _, attributes in series} <= {
        None, OTHER, *(meters._name(name) for name in declared),
    }  # fmt: skip
    assert max(Counter(name for name, _ in series).values(), default=0) <= types * places
    for _, attributes in series:
        assert all(value.encode() and len(value) <= 128 for _, value in attributes)


def test_the_first_eight_sinks_have_series_of_their_own() -> None:
    declared = [f"s{number}" for number in range(MAX_SINKS + 3)]
    with metered() as found:
        made = observer(sinks={name: conventions.sent(conventions.SQS, name) for name in declared})
        for fact in (started(), *(wrote(name) for name in declared)):
            made(fact)
        common = {"pipeline__name": "shop", "pipeline__handler": "price"}
        assert found.of("pipeline.sink.duration", **common) == {**dict.fromkeys(declared[:MAX_SINKS], 1), OTHER: 3}
        sent = {**common, "messaging__system": "aws_sqs", "messaging__operation__name": "send"}
        assert found.of("messaging.client.sent.messages", **sent) == {**dict.fromkeys(declared[:MAX_SINKS], 1), "": 3}


def test_environments_of_a_handler_share_its_series() -> None:
    errors = [type(f"E{number}", (Exception,), {})() for number in range(3 * MAX_ERROR_TYPES)]
    with metered() as found:
        for some in (errors[::2], errors[1::2], errors):
            made = observer()
            made(started())
            made(batch(*(Failed(error) for error in some)))
        kinds = found.of("pipeline.records", pipeline__name="shop", pipeline__handler="price")
    assert len(kinds) == MAX_ERROR_TYPES + 1
    assert sum(kinds.values()) == 2 * len(errors)


# Names


def test_names_are_the_conventions_where_these_have_some() -> None:
    module = import_module("opentelemetry.semconv._incubating.metrics.messaging_metrics")
    published = {value: name for name, value in vars(module).items() if name.isupper() and isinstance(value, str)}
    with metered() as found:
        meter = metrics.get_meter("theirs")
        for kind in KINDS:
            if kind.name.startswith("pipeline."):
                continue
            made = getattr(module, f"create_{published[kind.name].lower()}")(meter)
            assert (made.name, made.unit) == (kind.name, kind.unit)
            assert ("Histogram" in type(made).__name__) is bool(kind.buckets)
            assert "Deprecated" not in made.description
    assert {kind.name for kind in KINDS if not kind.name.startswith("pipeline.")} == {
        "messaging.client.consumed.messages", "messaging.process.duration", "messaging.client.sent.messages",
        "messaging.client.operation.duration",
    }  # fmt: skip
    assert found.metrics == {}


def test_the_document_lists_exactly_these() -> None:
    document = (Path(__file__).parent.parent.parent / "docs" / "observability.md").read_text()
    section = document.partition("## Metrics by OpenTelemetry")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    assert rows == [
        [f"`{kind.name}`", "histogram" if kind.buckets else "counter", kind.unit, kind.says] for kind in KINDS
    ]
    assert f"first {MAX_ERROR_TYPES} types of errors and eight sinks" in section
    assert MAX_SINKS == 8


def test_what_the_conventions_require_is_there() -> None:
    required = {conventions.SYSTEM, conventions.OPERATION_NAME}
    with metered() as found:
        made = observer()
        for fact in (started(), wrote("parcels.fifo"), batch(Succeeded(), handled=[0.1])):
            made(fact)
        messaging = [dict(attributes) for (name, attributes) in found.points if name.startswith("messaging.")]
        assert len(messaging) == 4
        assert all(required <= attributes.keys() for attributes in messaging)
        assert found.scopes == {("pipeline", pipeline.__version__, conventions.SCHEMA)}


def test_all_instruments_are_used() -> None:
    with metered() as found:
        made = observer()
        failed = Failed(Teapot())
        for fact in (
            started(), wrote("parcels.fifo", 1, 1, Teapot()), asked(2, 1, Teapot()), postponed(failed, 0.1),
            batch(
                Unprocessed(HandBack.DEADLINE), handled=[0.1], ages=[1.0], oldest=1.0, concurrency=1, batch_size=10
            ),
        ):  # fmt: skip
            made(fact)
        assert set(found.metrics) == {kind.name for kind in KINDS}
        assert {metric.name: (metric.unit, metric.description) for metric in found.metrics.values()} == {
            kind.name: (kind.unit, kind.says) for kind in KINDS
        }
        bounds = {
            name: tuple(point.explicit_bounds)
            for (name, _), point in found.points.items()
            if hasattr(point, "explicit_bounds")
        }
    assert bounds == {kind.name: kind.buckets for kind in KINDS if kind.buckets}


# Trouble


class Broken(MeterProvider):
    """A provider of which everything raises."""

    def get_meter(self, *args: Any, **options: Any) -> Any:
        raise RuntimeError("no meter")


class BrokenInstrument:
    def add(self, *args: Any) -> None:
        raise RuntimeError("no counter")

    record = add


class HalfBroken(metrics.MeterProvider):
    """One whose instruments raise."""

    def get_meter(self, *args: Any, **options: Any) -> Any:
        return self

    def create_counter(self, *args: Any, **options: Any) -> Any:
        return BrokenInstrument()

    create_histogram = create_counter


FACTS: Sequence[Fact] = (
    started(),
    wrote("ledger"),
    asked(),
    batch(Succeeded(), handled=[0.1]),
    started(),
    batch(Succeeded()),
)


@pytest.mark.parametrize("provider", [Broken([InMemoryMetricReader()], shutdown_on_exit=False), HalfBroken()])
def test_trouble_of_a_provider_reaches_nobody_and_is_said_once_a_fact(
    provider: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made = observer()
    with installed(provider), caplog.at_level(logging.WARNING):
        for fact in FACTS:
            made(fact)
    said = [record.getMessage() for record in caplog.records]
    assert said
    assert len(said) == len(set(said)) <= 4
    assert all("the work goes on" in line for line in said)


@pytest.mark.parametrize("provider", [metrics.NoOpMeterProvider(), MeterProvider(shutdown_on_exit=False)])
def test_with_nobody_who_reads_nothing_is_counted(provider: Any) -> None:
    with installed(provider):
        assert meters._instruments_now() is None


def test_an_sdk_that_is_switched_off_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with metered():
        assert meters._instruments_now() is None


def test_a_provider_that_comes_later_is_seen_at_the_next_batch() -> None:
    made = observer()
    for fact in FACTS:
        made(fact)
    with metered() as found:
        made(batch(Succeeded()))
        assert found.metrics == {}
        for fact in (started(), batch(Succeeded())):
            made(fact)
        assert found.total("pipeline.records") == 1


def test_a_source_of_any_kind_has_the_attributes_that_the_conventions_require() -> None:
    class Custom:
        name = "mine"

    assert conventions.described_source(Custom()) == conventions.received("custom", "mine")
    assert conventions.described_source(sources.SQS("orders")) == SOURCE
