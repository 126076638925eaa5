"""The pipeline: where handlers and resources are declared, checked and assembled."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from pipeline import signature
from pipeline.by import SourceOrder
from pipeline.decisions import keys
from pipeline.decisions.keys import KeySpec
from pipeline.decisions.retry import Backoff
from pipeline.deployment import Function
from pipeline.engine.deadletters import SinkDeadLetters
from pipeline.engine.stage import Claim, Middleware, SourceLane, Stage
from pipeline.errors import ConfigurationError
from pipeline.handler import Handler
from pipeline.ports import DeadLetters, IdempotencyStore, Sink, Source
from pipeline.stores import DynamoDB

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Callable[[], Any])

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class Pipeline:
    """Handlers that belong together, with what they share.

    `name`: letters, digits, `_` and `-`, at most 64; it prefixes idempotency entries and output
    ids, so a renamed pipeline has forgotten what it did. `idempotency`: the mode, default
    `Claim()`; None turns it off. `log_level`: of the JSON log lines. `max_hops`: how many handlers
    a record may pass before it is rejected as looping, default 16.
    """

    def __init__(
        self, name: str, *, idempotency: Claim | None = Claim(), log_level: str = "INFO", max_hops: int = 16
    ) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"Pipeline('{name}'): a name is a letter, then letters, digits, '_' or '-', at most 64"
            )
        if max_hops < 1:
            raise ConfigurationError(f"Pipeline(max_hops={max_hops}): give at least 1")
        self.name = name
        self.idempotency = idempotency
        self.log_level = log_level
        self.max_hops = max_hops
        self.handlers: dict[str, Handler[..., Any]] = {}  #: by name, in the order declared
        self._sources: dict[tuple[str, str], str] = {}
        self._resources: dict[Any, signature.ResourceMaker] = {}
        self._stages: dict[str, Stage] = {}

    def handler(
        self,
        source: Source,
        *,
        sinks: Sequence[Sink] = (),
        key: KeySpec | None = None,
        lane: KeySpec | SourceOrder | None = None,
        concurrency: int | None = None,
        retry: Backoff | None = Backoff(),
        reject_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        rejects: Sink | None = None,
        record_timeout: float | None = None,
        middleware: Sequence[Middleware] = (),
        deploy: Function = Function(),
    ) -> Callable[[Callable[P, R]], Handler[P, R]]:
        """Make a function the handler of a source's records.

        `key`: what makes two records the same work: a dotted path into the payload, several of
        them, or a function of the payload; default the id that travelled with the record, or the
        source's own. `lane`: records of one lane run in order; default the source's own order.
        `concurrency`: records in flight at once, default 100 for async functions and 10 for plain
        ones, which run in threads. `retry`: back-off for failures; None leaves a failed record's
        visibility alone and makes no call. `reject_on`: exceptions that mean "never". `rejects`:
        the sink for what will never succeed, default the source's dead-letter queue.
        `record_timeout`: seconds for one run of the function. `deploy`: where it runs.

        Raises `ConfigurationError` for anything that cannot work.
        """
        namespace = dict(sys._getframe(1).f_locals)

        def declare(function: Callable[P, R]) -> Handler[P, R]:
            stage = self._declare(
                function, source, tuple(sinks), key, lane, concurrency, retry, reject_on, rejects,
                record_timeout, tuple(middleware), deploy, namespace,
            )  # fmt: skip
            handler = Handler(function, lambda: self._assembled(stage.name))
            self._stages[stage.name] = stage
            self.handlers[stage.name] = handler
            return handler

        return declare

    def resource(self, function: M) -> M:
        """Make an async generator function's value a resource, injected by its annotated type.

        It is made once in each environment, at the first record that needs it, and closed at the
        end: what stands after its `yield` runs then.
        """
        kind = signature.resource_type(function, sys._getframe(1).f_locals)
        if kind in self._resources:
            raise ConfigurationError(f"two resources yield {getattr(kind, '__name__', kind)}: one type, one resource")
        self._resources[kind] = function
        return function

    def stages(self) -> tuple[Stage, ...]:
        """The handlers as assembled, in the order declared. Raises `ConfigurationError` for a loop without hops."""
        stages = tuple(self._stages.values())
        _refuse_silent_loops(stages)
        return stages

    def _assembled(self, name: str) -> Stage:
        return next(stage for stage in self.stages() if stage.name == name)

    def __repr__(self) -> str:
        return f"<Pipeline {self.name}: {', '.join(self.handlers) or 'no handlers'}>"

    def _declare(
        self,
        function: Callable[..., Any],
        source: Source,
        sinks: tuple[Sink, ...],
        key: KeySpec | None,
        lane: KeySpec | SourceOrder | None,
        concurrency: int | None,
        retry: Backoff | None,
        reject_on: type[BaseException] | tuple[type[BaseException], ...],
        rejects: Sink | None,
        record_timeout: float | None,
        middleware: tuple[Middleware, ...],
        deploy: Function,
        namespace: dict[str, Any],
    ) -> Stage:
        read = signature.read(function, self._resources, namespace)
        name = function.__name__
        _check_options(name, source, sinks, retry, concurrency, record_timeout, rejects, middleware)
        signature.check_emits(function, [sink.name for sink in sinks])
        self._check_free(name, source)
        bound = tuple(_bound(sink, self.name) for sink in sinks)
        return Stage(
            pipeline=self.name,
            name=name,
            source=source,
            sinks=bound,
            dead_letters=self._dead_letters(name, source, rejects),
            function=function,
            signature=read.signature,
            parse=read.parse,
            key=_reader(name, key, read.payload_type, what="key"),
            lane=None if isinstance(lane, SourceOrder) else _reader(name, lane, read.payload_type, what="lane"),
            source_lane=_source_lane(name, source, lane),
            concurrency=concurrency or (10 if read.signature.kind.in_thread else 100),
            retry=retry,
            reject_on=reject_on if isinstance(reject_on, tuple) else (reject_on,),
            record_timeout=record_timeout,
            middleware=middleware,
            claim=self.idempotency,
            store=self._store(),
            max_hops=self.max_hops,
            log_level=self.log_level,
            deploy=deploy,
        )

    def _check_free(self, name: str, source: Source) -> None:
        if name in self.handlers:
            raise ConfigurationError(f"{self.name} has two handlers named '{name}': rename one of the functions")
        place = (type(source).__name__, source.name)
        other = self._sources.get(place)
        if other is not None and getattr(source, "is_exclusive", True):
            raise ConfigurationError(
                f"{name}: the queue '{source.name}' is read by {other} already, and each message goes to one reader "
                "only. Give each handler a queue of its own, or do both things in one handler"
            )
        self._sources[place] = name

    def _store(self) -> IdempotencyStore | None:
        if self.idempotency is None:
            return None
        store: IdempotencyStore = _bound(self.idempotency.store or DynamoDB(), self.name)
        return store

    def _dead_letters(self, name: str, source: Source, rejects: Sink | None) -> DeadLetters:
        if rejects is None:
            return source.dead_letters
        return SinkDeadLetters(_bound(rejects, self.name))


def _check_options(
    name: str,
    source: Source,
    sinks: tuple[Sink, ...],
    retry: Backoff | None,
    concurrency: int | None,
    record_timeout: float | None,
    rejects: Sink | None,
    middleware: tuple[Middleware, ...],
) -> None:
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
    for one in middleware:
        if not callable(one):
            raise ConfigurationError(f"{name}: the middleware {one!r} is not a function from call to call")


def _reader(name: str, spec: KeySpec | SourceOrder | None, payload_type: Any, *, what: str) -> keys.ReadKey | None:
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


def _source_lane(name: str, source: Source, lane: KeySpec | SourceOrder | None) -> SourceLane | None:
    if not isinstance(lane, SourceOrder):
        return None
    orders: dict[str, SourceLane] = getattr(source, "orders", {})
    if lane.name not in orders:
        known = ", ".join(f"by.{order}" for order in orders) or "none"
        raise ConfigurationError(
            f"{name}: lane=by.{lane.name}: {type(source).__name__}('{source.name}') has no such order; it has {known}"
        )
    return orders[lane.name]


def _bound(thing: Any, pipeline: str) -> Any:
    """A sink or store that takes its defaults from the pipeline's name."""
    bind = getattr(thing, "bound_to", None)
    return thing if bind is None else bind(pipeline)


def _refuse_silent_loops(stages: Sequence[Stage]) -> None:
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
