"""Checks of a declaration: misuse fails here, and the message says what to write instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.by import SourceOrder
from pipeline.decisions import keys
from pipeline.decisions.keys import KeySpec
from pipeline.decisions.retry import Backoff
from pipeline.deployment import Function
from pipeline.engine.stage import Middleware, SourceLane, Stage
from pipeline.errors import ConfigurationError
from pipeline.ports import Sink, Source


def check_options(
    name: str,
    source: Source,
    sinks: tuple[Sink, ...],
    retry: Any,
    concurrency: int | None,
    record_timeout: float | None,
    rejects: Sink | None,
    reject_on: tuple[Any, ...],
    middleware: tuple[Middleware, ...],
    deploy: Any,
) -> None:
    """Raise `ConfigurationError` for the first option that cannot work."""
    if not isinstance(source, Source):
        raise ConfigurationError(
            f"{name}: {source!r} is not a source: use one of pipeline.sources, as sources.SQS('orders')"
        )
    for sink in (*sinks, *((rejects,) if rejects is not None else ())):
        if not isinstance(sink, Sink):
            raise ConfigurationError(
                f"{name}: {sink!r} is not a sink: use one of pipeline.sinks, or an object with 'name' and 'write'"
            )
    names = [sink.name for sink in sinks]
    twice = {sink for sink in names if names.count(sink) > 1}
    if twice:
        raise ConfigurationError(f"{name}: two sinks are named '{min(twice)}': give one of them name='...'")
    if retry is not None and not isinstance(retry, Backoff):
        raise ConfigurationError(f"{name}: retry={retry!r}: give Backoff(...), or None")
    if concurrency is not None and concurrency < 1:
        raise ConfigurationError(f"{name}: concurrency={concurrency}: give at least 1")
    if record_timeout is not None and record_timeout <= 0:
        raise ConfigurationError(f"{name}: record_timeout={record_timeout}: give a number of seconds above 0")
    for kind in reject_on:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise ConfigurationError(f"{name}: reject_on={kind!r}: give an exception class, or a tuple of them")
    if not isinstance(deploy, Function):
        raise ConfigurationError(f"{name}: deploy={deploy!r}: give Function(...)")
    for one in middleware:
        if not callable(one):
            raise ConfigurationError(f"{name}: the middleware {one!r} is not a function from call to call")


def key_reader(name: str, spec: KeySpec | SourceOrder | None, payload_type: Any, *, what: str) -> keys.ReadKey | None:
    """The reader of a key or lane; the declared payload type must have its paths."""
    if spec is None or isinstance(spec, SourceOrder):
        return None
    paths = (spec,) if isinstance(spec, str) else spec if isinstance(spec, tuple) else ()
    if isinstance(spec, tuple) and not spec:
        raise ConfigurationError(f"{name}: {what}=() names nothing: give at least one path")
    if not paths and not callable(spec):
        raise ConfigurationError(f"{name}: {what}={spec!r}: give a dotted path, a tuple of paths, or a function")
    for path in paths:
        try:
            keys.check_path(path, payload_type, what=what)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None
    return keys.reader(spec, what=what)


def source_lane(name: str, source: Source, lane: KeySpec | SourceOrder | None) -> SourceLane | None:
    """The reader of one of the source's own orders, when `lane` is one."""
    if not isinstance(lane, SourceOrder):
        return None
    orders: dict[str, SourceLane] = getattr(source, "orders", {})
    if lane.name not in orders:
        known = ", ".join(f"by.{order}" for order in orders) or "none"
        raise ConfigurationError(
            f"{name}: lane=by.{lane.name}: {type(source).__name__}('{source.name}') has no such order; it has {known}"
        )
    return orders[lane.name]


def refuse_silent_loops(stages: Sequence[Stage]) -> None:
    """A loop is found by the hop count that travels with outputs; where none travels, it would run for ever."""
    feeds: dict[str, list[tuple[str, Sink]]] = {stage.name: [] for stage in stages}
    for stage in stages:
        for sink in stage.sinks:
            place = getattr(sink, "resource", None)
            for other in stages:
                if place is not None and place == getattr(other.source, "resource", None):
                    feeds[stage.name].append((other.name, sink))
    for stage in stages:
        for following, sink in feeds[stage.name]:
            if not getattr(sink, "carries", True) and _reaches(feeds, following, stage.name):
                raise ConfigurationError(
                    f"{stage.name} feeds itself through the sink '{sink.name}', which carries no hop count "
                    "(carry=False): the loop would never end. Remove carry=False, or break the loop"
                )


def _reaches(feeds: dict[str, list[tuple[str, Sink]]], start: str, goal: str) -> bool:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        here = waiting.pop()
        if here == goal:
            return True
        if here not in seen:
            seen.add(here)
            waiting += [name for name, _ in feeds[here]]
    return False
