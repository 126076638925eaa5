"""Facts as OpenTelemetry's metrics, where somebody has set up a meter provider; else nothing is imported, and nothing done.

Prometheus gets the same through OpenTelemetry's own `PrometheusMetricReader`. Names are the conventions' where these have
some, and ours for the rest, with the meaning of the embedded metrics (`measures`). How many series there can be is decided
by the code that declares a handler: names, and the first few types of errors.

Instruments add up in memory, and whoever exports does so in a thread of its own: an exporter that hangs holds nobody up.
"""

from __future__ import annotations

import functools
import logging
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from pipeline.outcome import Failed, HandBack, Outcome, Rejected, Unprocessed, name_of, tally
from pipeline.telemetry import conventions as names
from pipeline.telemetry.events import (
    BatchFinished,
    BatchStarted,
    Fact,
    RecordFinished,
    RecordPostponed,
    SinkWritten,
    StoreCalled,
)
from pipeline.telemetry.measures import MAX_SINKS, body_bytes, finite, spread
from pipeline.telemetry.otel import clean

#: The module by which somebody has set a provider, if anybody has.
_API = "opentelemetry.metrics"

#: What is beyond a limit, by the conventions.
OTHER = "_OTHER"
#: Types of errors that one handler's series tell apart in this process: the first ones. A series is never forgotten.
MAX_ERROR_TYPES = 16
#: Characters of a name that are kept.
_NAME = 128

#: Upper ends of buckets. The first ones are those that the conventions advise for seconds.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_LONG_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 120, 300, 600, 900)
_AGES = (0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3_600, 14_400, 43_200, 86_400, 345_600)
_COUNTS = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
_SHARES = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)


class Kind(Struct, frozen=True):
    """One instrument."""

    name: str
    unit: str
    says: str
    buckets: tuple[float, ...] = ()  #: of a histogram; a counter has none


CONSUMED = Kind("messaging.client.consumed.messages", "{message}", "Records that the source delivered.")
PROCESS = Kind("messaging.process.duration", "s", "Each run of the handler.", _SECONDS)
SENT = Kind("messaging.client.sent.messages", "{message}", "Outputs that were sent to queues, streams and buses.")
OPERATION = Kind("messaging.client.operation.duration", "s", "Each call that sent some.", _SECONDS)
RECORDS = Kind("pipeline.records", "{record}", "Records by their outcome.")
RECORD_AGE = Kind("pipeline.record.age", "s", "Since a record was sent, when it was settled.", _AGES)
RECORD_BYTES = Kind("pipeline.record.io", "By", "Bytes of the records' bodies, as received.")
POSTPONED = Kind("pipeline.record.postponements", "{record}", "Retries in the process: waits of a stream's records.")
LATE = Kind(
    "pipeline.record.deadline_hand_backs", "{record}", "Handed back because the invocation's time was too short."
)
BATCH_SIZE = Kind("pipeline.batch.size", "{record}", "Records of a batch.", _COUNTS)
BATCH_FILL = Kind("pipeline.batch.fill", "1", "A batch's share of what the source's batch_size allows.", _SHARES)
BATCH_DURATION = Kind("pipeline.batch.duration", "s", "From the first record to the answer.", _LONG_SECONDS)
BATCH_AGE = Kind("pipeline.batch.oldest_age", "s", "Since the oldest record was sent, when the batch started.", _AGES)
BATCH_SLOWEST = Kind("pipeline.batch.slowest_record", "s", "The longest that a record of a batch took.", _LONG_SECONDS)
CONCURRENCY = Kind("pipeline.batch.concurrency", "{record}", "Records in the handler at once, at most.", _COUNTS)
STORE = Kind("pipeline.store.duration", "s", "Each call of the idempotency store.", _SECONDS)
STORE_FAILURES = Kind("pipeline.store.failures", "{request}", "Requests that the store could not answer.")
SINK = Kind("pipeline.sink.duration", "s", "Each call of a sink.", _SECONDS)
SINK_FAILURES = Kind("pipeline.sink.failures", "{output}", "Outputs that a sink did not take.")

KINDS = (
    CONSUMED, PROCESS, SENT, OPERATION, RECORDS, RECORD_AGE, RECORD_BYTES, POSTPONED, LATE, BATCH_SIZE, BATCH_FILL,
    BATCH_DURATION, BATCH_AGE, BATCH_SLOWEST, CONCURRENCY, STORE, STORE_FAILURES, SINK, SINK_FAILURES,
)  # fmt: skip

Attributes = Mapping[str, str]

_log = logging.getLogger("pipeline")


class Meters:
    """Adds the facts of one handler to OpenTelemetry's instruments.

    `source`: what it says of itself; `sinks`: the same of each declared one, by its name, in order. Whether somebody has
    set up a provider is asked at the start of each batch. Its trouble is nobody else's: it is logged once.
    """

    failures_only = True

    def __init__(self, pipeline: str, handler: str, source: Attributes, sinks: Mapping[str, Attributes]) -> None:
        self._common = {names.PIPELINE: _name(pipeline), names.HANDLER: _name(handler)}
        self._source = {**self._common, **_messaging(source, names.DESTINATION)}
        self._sinks: dict[str, _Sink] = {}
        for position, (name, described) in enumerate(sinks.items()):
            self._sinks[name] = _Sink.of(self._common, _name(name) if position < MAX_SINKS else OTHER, described)
        self._unknown = _Sink.of(self._common, OTHER, {})
        self._types = _types_of(pipeline, handler)
        self._instruments: dict[Kind, Any] | None = None
        self._failed: list[
            tuple[str, float]
        ] = []  #: runs of the batch that did not go well: type of error, and seconds

    def __call__(self, fact: Fact) -> None:
        try:
            if isinstance(fact, BatchStarted):
                self._instruments = _instruments_now()
            if self._instruments is not None:
                self._take(fact, self._instruments)
        except Exception:
            _complain(type(fact).__name__)

    def _take(self, fact: Fact, to: Mapping[Kind, Any]) -> None:
        if isinstance(fact, BatchStarted):
            self._failed = []
            to[CONSUMED].add(fact.size, self._source)
        elif isinstance(fact, RecordFinished):
            self._ended(fact.outcome, fact.handled)
        elif isinstance(fact, RecordPostponed):
            self._ended(fact.outcome, fact.handled)
            to[POSTPONED].add(1, self._common)
        elif isinstance(fact, SinkWritten):
            self._written(fact, to)
        elif isinstance(fact, StoreCalled):
            self._asked(fact, to)
        elif isinstance(fact, BatchFinished):
            self._batch(fact, to)

    def _ended(self, outcome: Outcome, handled: float | None) -> None:
        error = getattr(outcome, "error", None)
        if error is not None and handled is not None:
            self._failed.append((self._types.of(error), handled))

    def _written(self, fact: SinkWritten, to: Mapping[Kind, Any]) -> None:
        sink = self._sinks.get(fact.sink, self._unknown)
        trouble = {names.ERROR_TYPE: self._types.of(fact.error)} if fact.failed else {}
        # Of a call that some outputs got through, the outputs failed, and not the call.
        of_call = {} if fact.accepted else trouble
        _record(to[SINK], [fact.seconds], {**sink.ours, **of_call})
        if fact.failed:
            to[SINK_FAILURES].add(fact.failed, {**sink.ours, **trouble})
        if not sink.messaging:
            return
        _record(to[OPERATION], [fact.seconds], {**sink.operation, **of_call})
        if fact.accepted:
            to[SENT].add(fact.accepted, sink.messaging)
        if fact.failed:
            to[SENT].add(fact.failed, {**sink.messaging, **trouble})

    def _asked(self, fact: StoreCalled, to: Mapping[Kind, Any]) -> None:
        trouble = {names.ERROR_TYPE: self._types.of(fact.error)} if fact.failed else {}
        of_call = trouble if fact.failed == fact.requests else {}
        _record(to[STORE], [fact.seconds], {**self._common, **of_call})
        if fact.failed:
            to[STORE_FAILURES].add(fact.failed, {**self._common, **trouble})

    def _batch(self, fact: BatchFinished, to: Mapping[Kind, Any]) -> None:
        common, size = self._common, len(fact.result)
        for (word, error), count in self._outcomes(fact.result.outcomes).items():
            to[RECORDS].add(count, {**common, names.OUTCOME: word, **({names.ERROR_TYPE: error} if error else {})})
        late = sum(outcome.reason is HandBack.DEADLINE for _, outcome in fact.result.of(Unprocessed))
        if late:
            to[LATE].add(late, common)
        to[RECORD_BYTES].add(body_bytes(fact.result.records), common)
        self._runs(fact.handled, to[PROCESS])
        _record(to[RECORD_AGE], fact.ages, common)
        _record(to[BATCH_SIZE], [size], common)
        _record(to[BATCH_DURATION], [fact.seconds], common)
        _record(to[BATCH_SLOWEST], [fact.slowest], common)
        if fact.batch_size:
            _record(to[BATCH_FILL], [size / fact.batch_size], common)
        if fact.oldest is not None:
            _record(to[BATCH_AGE], [fact.oldest], common)
        if fact.concurrency:
            _record(to[CONCURRENCY], [fact.concurrency], common)

    def _outcomes(self, outcomes: Sequence[Outcome]) -> Counter[tuple[str, str]]:
        """How many ended in which way, and by which type of error."""
        found = Counter({(word, ""): count for word, count in tally(outcomes).items()})
        for outcome in outcomes:
            if isinstance(outcome, (Failed, Rejected)):
                word = name_of(outcome)
                found[word, ""] -= 1
                found[word, self._types.of(outcome.error)] += 1
        return +found

    def _runs(self, handled: Sequence[float], to: Any) -> None:
        """Of all runs' seconds, those that did not go well were told of one by one."""
        failed, self._failed = self._failed, []
        went_well = Counter(handled)
        by_type: dict[str, list[float]] = {}
        for kind, seconds in failed:
            if went_well[seconds] > 0:  # else it is told again: the record waited, and had no other run
                went_well[seconds] -= 1
                by_type.setdefault(kind, []).append(seconds)
        _record(to, list(went_well.elements()), self._source)
        for kind, some in by_type.items():
            _record(to, some, {**self._source, names.ERROR_TYPE: kind})


class _Sink(Struct, frozen=True):
    """Attributes of one sink's series."""

    ours: dict[str, str]
    messaging: dict[str, str]  #: empty for a table, a bucket or a file
    operation: dict[str, str]

    @classmethod
    def of(cls, common: Attributes, name: str, described: Attributes) -> _Sink:
        messaging: dict[str, str] = {}
        operation: dict[str, str] = {}
        if names.OPERATION_NAME in described:
            # Sinks beyond the limit share theirs with all of their system.
            named = (names.DESTINATION,) if name != OTHER else ()
            messaging = {**common, **_messaging(described, *named)}
            operation = {**common, **_messaging(described, names.OPERATION_TYPE, *named)}
        return cls({**common, names.SINK: name}, messaging, operation)


class ErrorTypes:
    """The types of errors by which series are told apart: the first `MAX_ERROR_TYPES`, and `OTHER`."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def of(self, error: BaseException | None) -> str:
        """The name of an error's type, or `OTHER`."""
        if error is None:
            return OTHER
        name = _name(type(error).__name__)
        if name not in self._known:
            if len(self._known) >= MAX_ERROR_TYPES:
                return OTHER
            self._known.add(name)
        return name


@functools.cache
def _types_of(pipeline: str, handler: str) -> ErrorTypes:
    """For all environments of a handler in this process: they share its series."""
    return ErrorTypes()


def _instruments_now() -> dict[Kind, Any] | None:
    """The instruments of the provider that somebody has set up; None when nobody has."""
    api = sys.modules.get(_API)
    if api is None:
        return None
    provider = api.get_meter_provider()
    # The one that stands in for a provider until there is one has no public name.
    if type(provider).__name__ == "_ProxyMeterProvider" or isinstance(provider, api.NoOpMeterProvider):
        return None
    # Layers set up the SDK's with nobody who reads from it, and each value costs as much all the same.
    readers = getattr(provider, "_metric_readers", None)
    return None if readers is not None and not readers else _instruments(provider)


@functools.lru_cache(maxsize=2)
def _instruments(provider: Any) -> dict[Kind, Any] | None:
    meter = provider.get_meter("pipeline", getattr(sys.modules.get("pipeline"), "__version__", None), names.SCHEMA)
    if isinstance(meter, sys.modules[_API].NoOpMeter):
        return None
    return {kind: _made(meter, kind) for kind in KINDS}


def _made(meter: Any, kind: Kind) -> Any:
    if not kind.buckets:
        return meter.create_counter(kind.name, unit=kind.unit, description=kind.says)
    return meter.create_histogram(
        kind.name, unit=kind.unit, description=kind.says, explicit_bucket_boundaries_advisory=kind.buckets
    )


def _record(histogram: Any, values: Sequence[float], attributes: Attributes) -> None:
    """Add at most as many values of a batch as a line of embedded metrics has: each one costs microseconds."""
    for value in spread([value for value in finite(values) if value >= 0]):
        histogram.record(value, attributes)


def _messaging(described: Attributes, *more: str) -> dict[str, str]:
    wanted = (names.SYSTEM, names.OPERATION_NAME, *more)
    return {name: _name(described[name]) for name in wanted if name in described}


def _name(text: str) -> str:
    return clean(text)[:_NAME] or OTHER


@functools.cache
def _complain(what: str) -> None:
    _log.warning("OpenTelemetry failed at %s; the work goes on, and metrics are missing", what, exc_info=True)


def sinks_described(sinks: Iterable[Any]) -> dict[str, Attributes]:
    """What sinks say of themselves, by their names, in order."""
    return {sink.name: names.described_by(sink) for sink in sinks}
