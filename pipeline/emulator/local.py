"""A whole pipeline on this machine: its resources, its mappings, and what one asks of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TextIO

from pipeline.emulator import resources
from pipeline.emulator.driver import Invocable
from pipeline.emulator.faults.inject import Bears, ServerInjector
from pipeline.emulator.functions.function import MAX_ENVIRONMENTS, Function, Sandbox, function_settings
from pipeline.emulator.functions.thread import Runtime, ThreadSandbox
from pipeline.emulator.local_source import LocalSource
from pipeline.emulator.report import Tally
from pipeline.emulator.server_run import ServerRun
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError
from pipeline.ports import Clock
from pipeline.telemetry.events import Observer

#: Makes what runs a handler's invocations.
RuntimeFactory = Callable[[Stage, Clock, Observer], Runtime]
#: Seconds. A stream waits for the claim of a run that was killed, which holds for 60 unless declared otherwise, and one
#: shard may have several of them.
_FAULTY_DRAIN = 300.0


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


class Local(ServerRun):
    """Pipelines that run on this machine. Use it as an async context manager.

    Without `endpoint_url` an embedded moto server is started for the run. With one, resources are
    made there when missing, and nothing is reset. `skip_idle`: draining moves the embedded server's
    clock on instead of waiting. `time_scale`: idle time passes that much faster (embedded only).
    `faults`: a seed; responses get lost, records come twice, and environments are killed between two steps.

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
        self.stages = _stages(pipelines)
        super().__init__(endpoint_url=endpoint_url, skip_idle=skip_idle, time_scale=time_scale)
        self._make = runtime or lambda_runtime()
        self._injector = None if faults is None else ServerInjector(faults, self.clock)
        if faults is not None:
            self.drain_seconds = _FAULTY_DRAIN
        self._tallies: dict[str, Tally] = {}
        self._environment = self._backend.environment()

    @property
    def sources(self) -> dict[str, str]:
        """Each handler's source, by the names that the report uses."""
        return {label: stage.source.name for label, stage in zip(labels(self.stages), self.stages, strict=True)}

    async def renew(self, pipelines: Declared | Sequence[Declared]) -> None:
        """Go on with these pipelines: handlers run in new environments, with the code as it is now.

        The queues stay as they are, with what stands in them. A handler that is new, or whose source is declared in
        another way, is mapped anew, so that a stream is read from its starting position; one that is gone is unmapped.
        Raises `ConfigurationError`, and then the old ones go on.
        """
        stages = _stages(pipelines)
        await resources.make(stages, self._environment)
        sources = await resources.open_sources(stages, self._environment, self._backend)
        before = dict(zip(labels(self.stages), self.stages, strict=True))
        self.stages = stages
        for stage, label, source in zip(stages, labels(stages), sources, strict=True):
            old = before.pop(label, None)
            if old is not None and old.source == stage.source and old.deploy == stage.deploy:
                self._functions[label].renew(self._sandbox(stage, label))
                continue
            if old is not None:
                await self._unmap(label)
            await self._map(stage, label, source)
        for label in before:
            await self._unmap(label)

    async def _open(self) -> None:
        self._stack.push_async_callback(self._environment.aclose)
        await resources.make(self.stages, self._environment)
        sources = await resources.open_sources(self.stages, self._environment, self._backend)
        for stage, label, source in zip(self.stages, labels(self.stages), sources, strict=True):
            await self._map(stage, label, source)

    async def _map(self, stage: Stage, label: str, source: LocalSource) -> None:
        tally = self._tallies.setdefault(label, Tally())
        limit = min(getattr(stage.source, "max_concurrency", None) or MAX_ENVIRONMENTS, MAX_ENVIRONMENTS)
        function = Function(function_settings(stage), self._sandbox(stage, label), self.clock, concurrency=limit)
        self._functions[label] = function
        self._stack.push_async_callback(function.close)
        tells_letters = stage.dead_letters == stage.source.dead_letters
        invocable: Invocable = function
        if self._injector is not None:
            invocable = self._injector.invocable(label, function, source, Bears())
        mapped = await self._run.map(label, source, invocable, tally=tally, limit=limit, tells_letters=tells_letters)
        if self._injector is not None:
            self._injector.source(mapped, Bears())

    async def _unmap(self, label: str) -> None:
        await self._run.unmap(label)
        await self._functions.pop(label).close()

    def _sandbox(self, stage: Stage, label: str) -> Callable[[], Sandbox]:
        tally = self._tallies[label]
        if self._injector is not None:
            return self._injector.served(label, stage, self._make, self.clock, tally.observe)
        return lambda: ThreadSandbox(lambda: self._make(stage, self.clock, tally.observe))


def _stages(pipelines: Declared | Sequence[Declared]) -> list[Stage]:
    declared = pipelines if isinstance(pipelines, Sequence) else [pipelines]
    stages = [stage for pipeline in declared for stage in pipeline.stages()]
    if not stages:
        raise ConfigurationError("there is nothing to run: the pipeline has no handlers")
    resources.check(stages)
    return stages


def labels(stages: Sequence[Stage]) -> list[str]:
    """The handlers' names in reports; with the pipeline's where two share one."""
    times = Counter(stage.name for stage in stages)
    return [stage.name if times[stage.name] == 1 else stage.full_name for stage in stages]
