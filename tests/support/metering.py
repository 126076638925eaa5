"""OpenTelemetry's metrics set up for one test, with what was counted read from memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry.metrics import _internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader
from opentelemetry.util._once import Once

#: A series: the metric's name, and its attributes.
Series = tuple[str, frozenset[tuple[str, Any]]]


class Counted:
    """What was counted."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        self._reader = reader

    @property
    def metrics(self) -> dict[str, Any]:
        """Each metric by its name."""
        found = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (found.resource_metrics if found else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    @property
    def scopes(self) -> set[tuple[str, str | None, str | None]]:
        """Name, version and schema of each instrumentation scope."""
        found = self._reader.get_metrics_data()
        return {
            (scope.scope.name, scope.scope.version, scope.scope.schema_url)
            for resource in (found.resource_metrics if found else ())
            for scope in resource.scope_metrics
        }

    @property
    def points(self) -> dict[Series, Any]:
        """Each series' point."""
        return {
            (name, frozenset((point.attributes or {}).items())): point
            for name, metric in self.metrics.items()
            for point in metric.data.data_points
        }

    def of(self, name: str, **attributes: str) -> dict[str, float]:
        """The counts of a metric's series, or of a histogram's values: by the attributes that are not given.

        Dots of attributes are double underscores in the names here.
        """
        given = {key.replace("__", "."): value for key, value in attributes.items()}
        found: dict[str, float] = {}
        for (metric, named), point in self.points.items():
            if metric == name and given.items() <= dict(named).items():
                rest = sorted(str(value) for key, value in named if key not in given)
                found[" ".join(rest)] = point.value if hasattr(point, "value") else point.count
        return found

    def total(self, name: str) -> float:
        """All series of a metric together."""
        return sum(self.of(name).values())


@contextmanager
def metered(*readers: MetricReader, resource: Any = None, **options: Any) -> Iterator[Counted]:
    """OpenTelemetry with a meter provider while the block runs."""
    memory = InMemoryMetricReader()
    given: Mapping[str, Any] = {} if resource is None else {"resource": resource}
    provider = MeterProvider(metric_readers=[memory, *readers], shutdown_on_exit=False, **given, **options)
    with installed(provider):
        yield Counted(memory)
    provider.shutdown()


@contextmanager
def installed(provider: Any) -> Iterator[None]:
    """This is everybody's meter provider while the block runs. OpenTelemetry's API sets one once in a process only."""
    before = _internal._METER_PROVIDER, _internal._METER_PROVIDER_SET_ONCE
    _internal._METER_PROVIDER, _internal._METER_PROVIDER_SET_ONCE = None, Once()
    _internal._set_meter_provider(provider, log=False)
    try:
        yield
    finally:
        _internal._METER_PROVIDER, _internal._METER_PROVIDER_SET_ONCE = before
