"""The pipeline: where handlers and resources are declared, checked and assembled."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from pipeline import checks, signature
from pipeline.by import SourceOrder
from pipeline.decisions.keys import KeySpec
from pipeline.decisions.retry import Backoff, is_count
from pipeline.deployment import Function
from pipeline.engine.modes import Checkpoint, Claim, Fused, Mode, Watching
from pipeline.engine.stage import Middleware, Stage
from pipeline.errors import ConfigurationError
from pipeline.handler import Handler
from pipeline.ports import DeadLetters, IdempotencyStore, Sink, Source
from pipeline.record import RawRecord
from pipeline.sinks.rejects import SinkDeadLetters
from pipeline.stores import DynamoDB

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Callable[[], Any])

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")


class Pipeline:
    """Handlers that belong together, with what they share.

    `name`: letters, digits, `_` and `-`, at most 64; it prefixes idempotency entries and output
    ids, so a renamed pipeline has forgotten what it did. `idempotency`: the mode (`Claim`, `Mark`,
    `Fused`, `Checkpoint`), default `Claim()`; None turns it off. `log_level`: of the JSON log lines. `log_payloads`: lines of
    records that failed or were slow have the payload, with what stands at these paths masked, such as
    `["card.number", "items[*].secret"]`; default None: no line ever has a payload. `max_hops`: how many handlers a record may
    pass before it is rejected as looping, default 16.
    """

    def __init__(
        self,
        name: str,
        *,
        idempotency: Mode | None = Claim(),
        log_level: str = "INFO",
        log_payloads: Sequence[str] | None = None,
        max_hops: int = 16,
    ) -> None:
        if not _is_name(name):
            raise ConfigurationError(
                f"Pipeline({name!r}): a name is a letter, then letters, digits, '_' or '-', at most 64"
            )
        checks.check_mode(idempotency)
        if log_level not in _LEVELS:
            raise ConfigurationError(f"Pipeline(log_level={log_level!r}): give one of {', '.join(_LEVELS)}")
        if not is_count(max_hops):
            raise ConfigurationError(f"Pipeline(max_hops={max_hops!r}): give a whole number, at least 1")
        self.name = name
        self.idempotency = idempotency
        self.log_level = log_level
        self._payloads = None if log_payloads is None else _payloads(log_payloads)
        self.max_hops = max_hops
        self.handlers: dict[str, Handler[..., Any]] = {}  #: by name, in the order declared
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
        checks.check_source(source, decorator=f"{self.name}.handler")
        namespace = _caller_names()

        def declare(function: Callable[P, R]) -> Handler[P, R]:
            stage = self._declare(
                function, source, sinks, key, lane, concurrency, retry, reject_on, rejects,
                record_timeout, middleware, deploy, namespace,
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
        kind = signature.resource_type(function, _caller_names())
        if kind in self._resources:
            raise ConfigurationError(f"two resources yield {getattr(kind, '__name__', kind)}: one type, one resource")
        self._resources[kind] = function
        return function

    def stages(self) -> tuple[Stage, ...]:
        """The handlers as assembled, in the order declared.

        Raises `ConfigurationError` for handlers that would share their idempotency entries or take each
        other's marks away, and for a loop without hops.
        """
        stages = tuple(self._stages.values())
        checks.refuse_undone_idempotency(stages)
        checks.refuse_silent_loops(stages)
        return stages

    def _assembled(self, name: str) -> Stage:
        return next(stage for stage in self.stages() if stage.name == name)

    def __repr__(self) -> str:
        return f"<Pipeline {self.name}: {', '.join(self.handlers) or 'no handlers'}>"

    def _declare(
        self,
        function: Callable[..., Any],
        source: Source,
        sinks: Sequence[Sink],
        key: KeySpec | None,
        lane: KeySpec | SourceOrder | None,
        concurrency: int | None,
        retry: Backoff | None,
        reject_on: type[BaseException] | tuple[type[BaseException], ...],
        rejects: Sink | None,
        record_timeout: float | None,
        middleware: Sequence[Middleware],
        deploy: Function,
        namespace: dict[str, Any],
    ) -> Stage:
        read = signature.read(function, self._resources, namespace)
        name = function.__name__
        rejected = reject_on if isinstance(reject_on, tuple) else (reject_on,)
        given = checks.several(name, "sinks", sinks)
        wrappers = checks.several(name, "middleware", middleware)
        checks.check_options(name, given, retry, concurrency, record_timeout, rejects, rejected, wrappers, deploy)
        checks.refuse_own_source(name, source, rejects)
        signature.check_emits(function, [sink.name for sink in given])
        self._check_free(name, source)
        bound = tuple(_bound(sink, self.name) for sink in given)
        mode = self.idempotency
        return Stage(
            pipeline=self.name,
            name=name,
            source=source,
            sinks=bound,
            dead_letters=self._dead_letters(name, source, rejects),
            function=function,
            signature=read.signature,
            parse=read.parse,
            key=checks.key_reader(name, key, read.payload_type, what="key"),
            lane=None
            if isinstance(lane, SourceOrder)
            else checks.key_reader(name, lane, read.payload_type, what="lane"),
            source_lane=checks.source_lane(name, source, lane, mode),
            concurrency=concurrency or (10 if read.signature.kind.in_thread else 100),
            retry=retry,
            reject_on=rejected,
            record_timeout=record_timeout,
            middleware=wrappers,
            mode=mode,
            store=self._store(),
            validate=checks.watched(name, mode.validate, read.payload_type) if isinstance(mode, Watching) else None,
            fused=checks.fused_sink(name, mode, bound) if isinstance(mode, Fused) else None,
            position_of=checks.position_of(name, source, key) if isinstance(mode, Checkpoint) else None,
            max_hops=self.max_hops,
            log_level=self.log_level,
            log_payloads=self._payloads,
            deploy=deploy,
            declared_key=key,
            declared_lane=lane,
            payload_type=read.payload_type,
        )

    def _check_free(self, name: str, source: Source) -> None:
        if name in self.handlers:
            raise ConfigurationError(f"{self.name} has two handlers named '{name}': rename one of the functions")
        if source.is_stream:
            return
        for other in self._stages.values():
            if checks.is_same_source(source, other.source):
                raise ConfigurationError(
                    f"{name}: the queue '{source.name}' is read by {other.name} already, and each message goes to one "
                    "reader only. Give each handler a queue of its own, or do both things in one handler"
                )

    def _store(self) -> IdempotencyStore | None:
        if self.idempotency is None or isinstance(self.idempotency, Fused):
            return None
        store: IdempotencyStore = _bound(self.idempotency.store or DynamoDB(), self.name)
        return store

    def _dead_letters(self, name: str, source: Source, rejects: Sink | None) -> DeadLetters:
        if rejects is None:
            return source.dead_letters
        return SinkDeadLetters(_bound(rejects, self.name))


def _payloads(paths: Sequence[str]) -> Callable[[RawRecord], dict[str, Any]]:
    from pipeline.telemetry.payloads import Payloads  # only for who asks for it

    return Payloads(paths)


def _is_name(name: object) -> bool:
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _caller_names() -> dict[str, Any]:
    """The names that are visible where the pipeline is being declared: annotations may use local ones."""
    frame = inspect.currentframe()
    declaring = frame.f_back.f_back if frame is not None and frame.f_back is not None else None
    return dict(declaring.f_locals) if declaring is not None else {}


def _bound(thing: Any, pipeline: str) -> Any:
    """A sink or store that takes its defaults from the pipeline's name."""
    bind = getattr(thing, "bound_to", None)
    return thing if bind is None else bind(pipeline)
