"""Checks of a declaration: misuse fails here, and the message says what to write instead."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

from pipeline import by
from pipeline.by import SourceOrder
from pipeline.decisions import keys
from pipeline.decisions.keys import KeySpec
from pipeline.decisions.retry import Backoff, is_count, is_number
from pipeline.deployment import Function
from pipeline.engine.modes import Checkpoint, Claim, Fused, Mark, Mode, OnDuplicate
from pipeline.engine.stage import Middleware, PositionOf, SourceLane, Stage
from pipeline.errors import ConfigurationError
from pipeline.ports import FusedSink, Sink, Source
from pipeline.sinks.rejects import SinkDeadLetters


def check_source(source: Any, *, decorator: str) -> None:
    """Raise `ConfigurationError` for what is no source; a function means a decorator without its arguments."""
    if isinstance(source, type):
        raise ConfigurationError(
            f"{decorator}({source.__name__}): that is the class; call it, as in sources.SQS('orders')"
        )
    if isinstance(source, Source):
        return
    if callable(source):
        name = getattr(source, "__name__", repr(source))
        raise ConfigurationError(f"{name}: a handler needs a source: write @{decorator}(sources.SQS('orders'))")
    raise ConfigurationError(
        f"{decorator}({source!r}): {source!r} is not a source: use one of pipeline.sources, as sources.SQS('orders')"
    )


def several(name: str, option: str, value: Any) -> tuple[Any, ...]:
    """The value of an option that takes several things, as a tuple."""
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return tuple(value)
    if value is None:
        raise ConfigurationError(f"{name}: {option}=None: leave it out, or give a list")
    given = getattr(value, "__name__", repr(value))
    raise ConfigurationError(f"{name}: {option}={given}: give a list, as {option}=[{given}]")


def check_options(
    name: str,
    sinks: tuple[Sink, ...],
    retry: Any,
    concurrency: Any,
    record_timeout: Any,
    rejects: Sink | None,
    reject_on: tuple[Any, ...],
    middleware: tuple[Middleware, ...],
    deploy: Any,
) -> None:
    """Raise `ConfigurationError` for the first option that cannot work."""
    for sink in (*sinks, *((rejects,) if rejects is not None else ())):
        if isinstance(sink, type):
            raise ConfigurationError(f"{name}: {sink.__name__} is a class, not a sink: call it, as in sinks.SQS('out')")
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
    if concurrency is not None and not is_count(concurrency):
        raise ConfigurationError(f"{name}: concurrency={concurrency!r}: give a whole number, at least 1")
    if record_timeout is not None and not (is_number(record_timeout) and 0 < record_timeout < math.inf):
        raise ConfigurationError(f"{name}: record_timeout={record_timeout!r}: give a number of seconds above 0")
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
    _check_paths(name, spec, payload_type, what=what)
    return keys.reader(spec, what=what)


def watched(name: str, spec: KeySpec | None, payload_type: Any) -> keys.ReadKey | None:
    """The reader of what must be the same in every record of a key."""
    if spec is None:
        return None
    _check_paths(name, spec, payload_type, what="validate")
    return keys.watcher(spec)


def _check_paths(name: str, spec: KeySpec, payload_type: Any, *, what: str) -> None:
    paths = (spec,) if isinstance(spec, str) else spec if isinstance(spec, tuple) else ()
    if isinstance(spec, tuple) and not spec:
        raise ConfigurationError(f"{name}: {what}=() names nothing: give at least one path")
    if (not paths and not callable(spec)) or not all(isinstance(path, str) for path in paths):
        raise ConfigurationError(f"{name}: {what}={spec!r}: give a dotted path, a tuple of paths, or a function")
    for path in paths:
        try:
            keys.check_path(path, payload_type, what=what)
        except ConfigurationError as error:
            raise ConfigurationError(f"{name}: {error}") from None


def check_mode(mode: Any) -> None:
    """Raise `ConfigurationError` for what is no idempotency mode."""
    if isinstance(mode, type):
        raise ConfigurationError(
            f"Pipeline(idempotency={mode.__name__}): that is the class; call it: {mode.__name__}()"
        )
    if mode is not None and type(mode) not in (Claim, Mark, Fused, Checkpoint):
        raise ConfigurationError(
            f"Pipeline(idempotency={mode!r}): give Claim(...), Mark(...), Fused(...) or Checkpoint(...), or None to turn "
            "it off"
        )
    if mode is not None and mode.on_duplicate is not None:
        _check_hook(type(mode).__name__, mode.on_duplicate)


def _check_hook(mode: str, hook: OnDuplicate) -> None:
    """Its first call may be weeks away, and what it raises then is only logged."""
    try:
        parameters = inspect.signature(hook)
    except (TypeError, ValueError):  # some of what is written in C says nothing of its parameters
        return
    try:
        parameters.bind(None, ())
    except TypeError as error:
        name = getattr(hook, "__name__", repr(hook))
        raise ConfigurationError(
            f"{mode}(on_duplicate={name}): it is called with a record and the values that are kept of its first run, and "
            f"cannot be: {error}. Write it as def {name}(record, values)"
        ) from None


def fused_sink(name: str, mode: Fused, sinks: Sequence[Sink]) -> str:
    """The name of the sink that marks are written to."""
    able = [sink.name for sink in sinks if isinstance(sink, FusedSink)]
    if mode.sink is None and len(able) == 1:
        return able[0]
    if mode.sink is not None and mode.sink in able:
        return mode.sink
    known = ", ".join(f"'{sink}'" for sink in able) or "none"
    if mode.sink is None:
        wanted = "Fused() writes its marks to one sink" if not able else "name one of them: Fused(sink='...')"
    else:
        wanted = f"Fused(sink='{mode.sink}') names none of them"
    raise ConfigurationError(
        f"{name}: {wanted}; sinks of this handler that write a record's outputs and its mark together: {known}. "
        "sinks.DynamoDB(...) can; without one use Claim() or Mark()"
    )


def position_of(name: str, source: Source, key: KeySpec | None) -> PositionOf:
    """The reader of a record's place in its source's order, for `Checkpoint`."""
    read: PositionOf | None = getattr(source, "position_of", None)
    if read is None:
        raise ConfigurationError(
            f"{name}: Checkpoint() needs a source with an order, and {type(source).__name__}('{source.name}') has none: "
            "use a stream, a queue whose name ends with .fifo, or Claim() or Mark()"
        )
    if key is not None:
        raise ConfigurationError(
            f"{name}: key={key!r}: Checkpoint() knows places in the source's order, not keys: leave key out, or use "
            "Claim() or Mark()"
        )
    return read


def source_lane(name: str, source: Source, lane: KeySpec | SourceOrder | None, mode: Mode | None) -> SourceLane | None:
    """The reader of one of the source's own orders, when `lane` is one, or has to be.

    A stream delivers everything behind a failure again. Without idempotency it would all run again, so
    nothing may run beyond a failure: the lane is the shard.
    """
    orders: dict[str, SourceLane] = getattr(source, "orders", {})
    if source.is_stream and mode is None:
        if lane not in (None, by.shard):
            raise ConfigurationError(
                f"{name}: lane={_named(lane)} needs idempotency: a stream delivers everything behind a failure again, "
                "and what had succeeded would run twice. Leave lane out (it is the shard then), or leave "
                "idempotency=None out"
            )
        if "shard" not in orders:
            raise ConfigurationError(
                f"{name}: without idempotency a stream's shard is one lane, and parallelization_factor= runs its "
                "records side by side: leave parallelization_factor out, or leave idempotency=None out"
            )
        return orders["shard"]
    if lane is None and isinstance(mode, Checkpoint) and "shard" in orders:
        return orders["shard"]  # one place for all of it
    if not isinstance(lane, SourceOrder):
        return None
    if lane.name not in orders:
        known = ", ".join(f"by.{order}" for order in orders) or "none"
        raise ConfigurationError(
            f"{name}: lane=by.{lane.name}: {type(source).__name__}('{source.name}') has no such order; it has {known}"
        )
    return orders[lane.name]


def _named(lane: KeySpec | SourceOrder | None) -> str:
    return f"by.{lane.name}" if isinstance(lane, SourceOrder) else repr(lane)


def refuse_own_source(name: str, source: Source, rejects: Sink | None) -> None:
    """A record that is rejected to where it came from comes back for ever."""
    place = None if rejects is None else _place(rejects)
    if place is not None and place == _place(source):
        raise ConfigurationError(
            f"{name}: rejects= is '{source.name}', where the records come from: they would come back for ever. "
            "Leave it out (the dead-letter queue), or name another place"
        )


def is_same_source(one: Source, other: Source) -> bool:
    """True when two sources have one logical name of one kind, or are one resource under two names."""
    if type(one) is type(other) and one.name == other.name:
        return True
    place = _place(one)
    return place is not None and place == _place(other)


def refuse_undone_idempotency(stages: Sequence[Stage]) -> None:
    """Raise `ConfigurationError` for handlers that would drop each other's records, or take each other's marks away."""
    refuse_shared_entries(stages)
    _refuse_lost_marks(stages)


def refuse_shared_entries(stages: Sequence[Stage]) -> None:
    """Two handlers with the same entries take each other's records for repeats, and drop them."""
    for index, stage in enumerate(stages):
        for other in stages[:index]:
            place = _entries_of(stage)
            if place is None or stage.prefix != other.prefix or not _is_same_store(place, _entries_of(other)):
                continue
            if _are_apart(stage, other):
                continue
            one, two = _names(other, stage)
            mode = type(stage.mode).__name__
            raise ConfigurationError(
                f"{one} and {two} would share their idempotency entries, and each would drop the other's records as "
                f"repeats: {mode}(prefix={stage.prefix!r}) is the same for both. Leave prefix out, or give each handler "
                "its own pipeline with another prefix"
            )


def _are_apart(one: Stage, other: Stage) -> bool:
    """Places name the stream or queue that they are in, so those of two sources cannot meet."""
    both_keep_places = isinstance(one.mode, Checkpoint) and isinstance(other.mode, Checkpoint)
    return both_keep_places and not is_same_source(one.source, other.source)


def _refuse_lost_marks(stages: Sequence[Stage]) -> None:
    """What else writes to a fused sink's table replaces items whole: a mark is gone, and its record counts as new."""
    for stage in stages:
        fused = next((sink for sink in stage.sinks if sink.name == stage.fused), None)
        place = None if fused is None else _place(fused)
        if fused is None or place is None:
            continue
        for other in stages:
            for option, sink in _without_marks(other):
                if _place(sink) != place:
                    continue
                one, two = _names(stage, other)
                raise ConfigurationError(
                    f"{two}: {option} '{sink.name}' would write where {one} keeps its marks, the fused sink "
                    f"'{fused.name}': it replaces items together with their marks, and a repeat of their records would "
                    "take effect again. Give it a table of its own, or write there through fused sinks only"
                )


def _without_marks(stage: Stage) -> list[tuple[str, Sink]]:
    """The sinks that a stage writes to plainly, and how each is declared."""
    plain = [("the sink", sink) for sink in stage.sinks if sink.name != stage.fused]
    letters = stage.dead_letters
    return [*plain, ("rejects=", letters.sink)] if isinstance(letters, SinkDeadLetters) else plain


def refuse_silent_loops(stages: Sequence[Stage]) -> None:
    """A loop is found by the hop count that travels with outputs; where none travels, it would run for ever."""
    feeds: dict[str, list[tuple[str, Sink]]] = {stage.name: [] for stage in stages}
    for stage in stages:
        for sink in stage.sinks:
            place = _place(sink)
            for other in stages:
                if place is not None and place == _place(other.source):
                    feeds[stage.name].append((other.name, sink))
    for stage in stages:
        for following, sink in feeds[stage.name]:
            if not getattr(sink, "carries", True) and _reaches(feeds, following, stage.name):
                raise ConfigurationError(
                    f"{stage.name} feeds itself through the sink '{sink.name}', which carries no hop count "
                    "(carry=False): the loop would never end. Remove carry=False, or break the loop"
                )


def _names(one: Stage, other: Stage) -> tuple[str, str]:
    """Two handlers, as they are told apart."""
    if one.pipeline == other.pipeline:
        return one.name, other.name
    return one.full_name, other.full_name


def _place(thing: Any) -> Any:
    """What makes two declarations one resource: the ARN of somebody else's, or the logical name of ours."""
    resource = getattr(thing, "resource", None)
    if resource is None:
        return None
    return resource.service, resource.existing or resource.name


def _entries_of(stage: Stage) -> Any:
    """Where a stage's entries live: its store, or the sink that has its marks."""
    return stage.store or next((sink for sink in stage.sinks if sink.name == stage.fused), None)


def _is_same_store(one: Any, other: Any) -> bool:
    if one is other:
        return True
    place = _place(one)
    return place is not None and place == _place(other)


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
