"""A whole pipeline on this machine: its resources, its mappings, and what one asks of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, Self, TextIO

from pipeline.emulator import resources
from pipeline.emulator.activity import Activity
from pipeline.emulator.backend import ServerBackend
from pipeline.emulator.clock import SkippingClock
from pipeline.emulator.functions.function import MAX_ENVIRONMENTS, Function, FunctionSettings
from pipeline.emulator.functions.thread import Runtime, ThreadSandbox
from pipeline.emulator.local_source import DeadLetterMessage, Depth, LocalSource
from pipeline.emulator.report import Report, Tally
from pipeline.emulator.run import Run
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError, PipelineError, SinkError
from pipeline.ports import Clock
from pipeline.telemetry.events import Observer

#: Makes what runs a handler's invocations.
RuntimeFactory = Callable[[Stage, Clock, Observer], Runtime]

_running: list[object] = []


class Declared(Protocol):
    """What is needed of a `Pipeline`."""

    @property
    def name(self) -> str: ...
    def stages(self) -> tuple[Stage, ...]: ...


def lambda_runtime(log_stream: TextIO | None = None) -> RuntimeFactory:
    """The runtime that is deployed. Metrics stay off: nobody here collects them."""
    from pipeline.runtimes.awslambda import LambdaRuntime

    def make(stage: Stage, clock: Clock, observer: Observer) -> Runtime:
        return LambdaRuntime(stage, clock=clock, observers=[observer], log_stream=log_stream, emit_metrics=False)

    return make


class Local:
    """Pipelines that run on this machine. Use it as an async context manager.

    Without `endpoint_url` an embedded moto server is started for the run. With one, resources are
    made there when missing, and nothing is reset. `skip_idle`: draining moves the embedded server's
    clock on instead of waiting. `time_scale`: idle time passes that much faster (embedded only).

    The checkpoints of streams live in this object. A run that is started again on a server that is
    still there reads its streams from their `starting_position` again: from "TRIM_HORIZON" every
    record is delivered once more, and is a duplicate to a handler with idempotency.
    """

    def __init__(
        self,
        pipelines: Declared | Sequence[Declared],
        *,
        faults: int | None = None,
        endpoint_url: str | None = None,
        skip_idle: bool = False,
        time_scale: float = 1.0,
        runtime: RuntimeFactory | None = None,
    ) -> None:
        declared = pipelines if isinstance(pipelines, Sequence) else [pipelines]
        self.stages = [stage for pipeline in declared for stage in pipeline.stages()]
        if not self.stages:
            raise ConfigurationError("there is nothing to run: the pipeline has no handlers")
        self._backend = ServerBackend(endpoint_url, skip_idle=skip_idle, time_scale=time_scale)
        self._make = runtime or lambda_runtime()
        self._is_scaled = time_scale != 1.0
        self._labels = labels(self.stages)
        self._stack = AsyncExitStack()
        self._run = Run(self._backend, self._stack)
        self._is_open = False

    @property
    def clock(self) -> SkippingClock:
        """The run's time."""
        return self._backend.clock

    @property
    def activity(self) -> Activity:
        """Whether anything goes on."""
        return self._run.activity

    @property
    def endpoint_url(self) -> str:
        """Where the services listen."""
        if self._backend.endpoint_url is None:
            raise PipelineError("the local run has not started: use it in 'async with'")
        return self._backend.endpoint_url

    @property
    def sources(self) -> dict[str, str]:
        """Each handler's source, by the names that the report uses."""
        return {label: stage.source.name for label, stage in zip(self._labels, self.stages, strict=True)}

    async def __aenter__(self) -> Self:
        if _running:
            # The environment variables point at one endpoint, and they are the process's.
            raise ConfigurationError("another local run is active in this process: one at a time")
        _running.append(self)
        self._stack.callback(_running.clear)
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def send(
        self,
        source_name: str,
        payloads: Iterable[Any],
        *,
        key: str | Callable[[Any], str] | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        """Send payloads to a source: text and bytes as they are, everything else as JSON.

        `key`: the message group on a FIFO queue, the partition key on a stream; for all, or as a
        function of the payload. Default: the handler's lane, else its key, else one group for all
        on a queue, and a partition key of its own for each record on a stream. `attributes`:
        message attributes; a stream has none.
        """
        await self._run.send(source_name, payloads, key=key, attributes=attributes)

    async def offer(
        self,
        source_name: str,
        payloads: Sequence[Any],
        *,
        key: str | Callable[[Any], str] | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> list[SinkError | None]:
        """Like `send`, but says for each position None or why it was not taken."""
        return await self._run.offer(source_name, payloads, key=key, attributes=attributes)

    async def drain(self, timeout: float | None = 30) -> Report:  # noqa: ASYNC109 - the public name
        """Wait until every queue is empty, every stream is read to its end, and nothing runs; the report.

        Raises `DrainTimeout` after `timeout` seconds (None: never), and says what is left.
        """
        return await self._run.drain(timeout)

    async def is_drained(self) -> bool:
        """Every queue is empty, every stream is read to its end, and nothing runs."""
        return await self._run.is_drained()

    async def depths(self) -> dict[str, Depth]:
        """What waits for each handler in its source, by the names that the report uses."""
        return await self._run.depths()

    def chunk(self, source_name: str) -> int:
        """How many payloads are best offered to a source at once."""
        return self._run.source(source_name).chunk

    async def is_full(self, source_name: str) -> bool:
        """A source holds so much that more should wait."""
        return await self._run.source(source_name).is_full()

    async def report(self, *, drained: bool = False) -> Report:
        """The counts by now."""
        return await self._run.report(drained=drained)

    async def dead_letters(self, source_name: str) -> list[DeadLetterMessage]:
        """What stands in a source's dead-letter queue; it stays there."""
        return await self._run.dead_letters(source_name)

    def client(self, service: str) -> Any:
        """An aiobotocore client of a service, ready, and closed with the run."""
        return self._backend.client(service)

    async def _open(self) -> None:
        await self._backend.open(self._stack)
        environment = self._backend.environment()
        self._stack.push_async_callback(environment.aclose)
        await resources.make(self.stages, environment, is_embedded=self._backend.is_embedded)
        sources = await resources.open_sources(self.stages, environment, self._backend)
        for stage, label, source in zip(self.stages, self._labels, sources, strict=True):
            await self._map(stage, label, source)
        self._run.beside(self._run.watch())
        if self._is_scaled:
            self._run.beside(self._pass_time())

    async def _map(self, stage: Stage, label: str, source: LocalSource) -> None:
        tally = Tally()
        limit = min(getattr(stage.source, "max_concurrency", None) or MAX_ENVIRONMENTS, MAX_ENVIRONMENTS)
        function = Function(
            function_settings(stage),
            lambda: ThreadSandbox(lambda: self._make(stage, self.clock, tally.observe)),
            self.clock,
            concurrency=limit,
        )
        self._stack.push_async_callback(function.close)
        tells_letters = stage.dead_letters == stage.source.dead_letters
        await self._run.map(label, source, function, tally=tally, limit=limit, tells_letters=tells_letters)

    async def _pass_time(self) -> None:
        while True:
            await self._run.pass_time()


def function_settings(stage: Stage) -> FunctionSettings:
    """A handler's function, as it is declared."""
    deploy = stage.deploy
    name = f"{stage.pipeline}-{stage.name}"
    return FunctionSettings(name=name, timeout=deploy.timeout, memory=deploy.memory, environment=deploy.environment)


def labels(stages: Sequence[Stage]) -> list[str]:
    """The handlers' names in reports; with the pipeline's where two share one."""
    times = Counter(stage.name for stage in stages)
    return [stage.name if times[stage.name] == 1 else stage.full_name for stage in stages]
