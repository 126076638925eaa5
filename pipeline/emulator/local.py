"""A whole pipeline on this machine: its resources, its mappings, and what one asks of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, Self, TextIO

from pipeline.emulator import embedded, resources
from pipeline.emulator.activity import Activity
from pipeline.emulator.clock import SkippingClock
from pipeline.emulator.execution import Pool, Runtime
from pipeline.emulator.faults import Faults
from pipeline.emulator.invocation import Handling
from pipeline.emulator.isolation import REGION, isolated
from pipeline.emulator.local_source import DeadLetterMessage, Depth, EventSourceMapping, LocalSource
from pipeline.emulator.pace import Pace, Skip
from pipeline.emulator.payloads import Key
from pipeline.emulator.report import Report, Tally
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError, PipelineError, SinkError
from pipeline.ports import Clock
from pipeline.telemetry.events import Observer

#: Environments of one handler that run at once, unless its source says fewer. More would only
#: share the processors of one machine, and start slower than their invocations' time allows.
MAX_ENVIRONMENTS = 4

#: Makes what runs a handler's invocations.
RuntimeFactory = Callable[[Stage, Clock, Observer], Runtime]

_running: list[object] = []


class Declared(Protocol):
    """What is needed of a `Pipeline`."""

    @property
    def name(self) -> str: ...
    def stages(self) -> tuple[Stage, ...]: ...


class DrainTimeout(PipelineError):
    """The sources did not become empty in time; the message says what is left."""


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
        if endpoint_url is not None and time_scale != 1.0:
            raise ConfigurationError("time_scale needs the embedded server: leave endpoint_url out")
        self.clock = SkippingClock()
        self.activity = Activity()
        self._endpoint_url = endpoint_url
        self._make = runtime or lambda_runtime()
        self._faults = None if faults is None else Faults(faults)
        self._skip_idle = skip_idle and endpoint_url is None
        self._time_scale = time_scale
        self._labels = _labels(self.stages)
        self._tallies = {label: Tally() for label in self._labels}
        self._stack = AsyncExitStack()
        self._clients: dict[str, Any] = {}
        self._server: embedded.EmbeddedServer | None = None
        self._environment = ProcessEnvironment()
        self._sources: list[LocalSource] = []
        self._mappings: list[EventSourceMapping] = []
        self._dead_before: dict[str, int] = {}
        self._failure: BaseException | None = None

    @property
    def endpoint_url(self) -> str:
        """Where the services listen."""
        if self._endpoint_url is None:
            raise PipelineError("the local run has not started: use it in 'async with'")
        return self._endpoint_url

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
        errors = await self.offer(source_name, list(payloads), key=key, attributes=attributes)
        for position, error in enumerate(errors):
            if error is not None:
                raise PipelineError(f"payload {position} was not sent to '{source_name}': {error}") from error

    async def offer(
        self,
        source_name: str,
        payloads: Sequence[Any],
        *,
        key: str | Callable[[Any], str] | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> list[SinkError | None]:
        """Like `send`, but says for each position None or why it was not taken."""
        errors = await self._source(source_name).offer(payloads, _key(key), attributes)
        self.activity.happened()
        return errors

    async def drain(self, timeout: float | None = 30) -> Report:  # noqa: ASYNC109 - the public name
        """Wait until every queue is empty, every stream is read to its end, and nothing runs; the report.

        Raises `DrainTimeout` after `timeout` seconds (None: never), and says what is left.
        """
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        pace: Pace = Skip() if self._skip_idle else Pace()
        while not await self.is_drained():
            if end is not None and loop.time() >= end:
                raise DrainTimeout(await self._what_is_left(timeout))
            if self.is_idle:
                await self._pass_time(pace)
            else:
                await self.activity.wait(0.05)
        return await self.report(drained=True)

    @property
    def is_idle(self) -> bool:
        """No invocation runs, and every mapping has asked its source since and got nothing."""
        if self._failure is not None:
            raise PipelineError("an event source mapping broke") from self._failure
        if self.activity.running:
            return False
        return all(mapping.quiet_at == self.activity.count for mapping in self._mappings)

    async def is_drained(self) -> bool:
        """Every queue is empty, every stream is read to its end, and nothing runs."""
        if not self.is_idle:
            return False
        count = self.activity.count
        depths = await self.depths()
        is_empty = all(found.is_empty for found in depths.values())
        # Measuring took time: what it says holds only if nothing happened meanwhile.
        return is_empty and count == self.activity.count

    async def depths(self) -> dict[str, Depth]:
        """What waits for each handler in its source, by the names that the report uses."""
        found = await asyncio.gather(*(source.depth() for source in self._sources))
        return dict(zip(self._labels, found, strict=True))

    def chunk(self, source_name: str) -> int:
        """How many payloads are best offered to a source at once."""
        return self._source(source_name).chunk

    async def is_full(self, source_name: str) -> bool:
        """A source holds so much that more should wait."""
        return await self._source(source_name).is_full()

    async def report(self, *, drained: bool = False) -> Report:
        """The counts by now."""
        dead = await asyncio.gather(*map(self._dead_count, self._labels))
        return Report(
            {
                label: tally.counts(dead_lettered=count - self._dead_before[label], drained=drained)
                for (label, tally), count in zip(self._tallies.items(), dead, strict=True)
            }
        )

    async def dead_letters(self, source_name: str) -> list[DeadLetterMessage]:
        """What stands in a source's dead-letter queue; it stays there."""
        return await self._source(source_name).dead_letters()

    def client(self, service: str) -> Any:
        """An aiobotocore client of a service, ready, and closed with the run."""
        if service not in self._clients:
            self._clients[service] = self._open_client(service)
        return self._clients[service]

    async def _open(self) -> None:
        if self._endpoint_url is None:
            self._server = await asyncio.to_thread(embedded.lease)
            self._stack.callback(embedded.give_back, self._server)
            self._endpoint_url = self._server.endpoint_url
        self._stack.enter_context(isolated(self._endpoint_url))
        self._stack.push_async_callback(self._environment.aclose)
        await resources.make(self.stages, self._environment, is_embedded=self._server is not None)
        self._sources = await resources.open_sources(self.stages, self._environment, self._server)
        self._dead_before = {label: await self._dead_count(label) for label in self._labels}
        for stage, label, source in zip(self.stages, self._labels, self._sources, strict=True):
            self._map(stage, label, source)
        if self._time_scale != 1.0:
            self._run(self._pass_time_faster())

    def _map(self, stage: Stage, label: str, source: LocalSource) -> None:
        tally = self._tallies[label]
        size = min(getattr(stage.source, "max_concurrency", None) or MAX_ENVIRONMENTS, MAX_ENVIRONMENTS)
        pool = Pool(stage, lambda stage: self._make(stage, self.clock, tally.observe), size)
        self._stack.push_async_callback(pool.close)
        mapping = source.mapping(
            Handling(
                handler=label, pool=pool, tally=tally, activity=self.activity, clock=self.clock, faults=self._faults
            )
        )
        self._mappings.append(mapping)
        self._run(mapping.run())

    def _run(self, work: Any) -> None:
        """Run something beside the rest until the run ends; a failure of it fails the drain."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._note_end)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._stack.push_async_callback(end)

    def _note_end(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
            self.activity.happened()

    async def _pass_time_faster(self) -> None:
        pace = Pace(self._time_scale)
        while True:
            if self.is_idle:
                await self._pass_time(pace)
            else:
                await self.activity.wait(0.05)

    async def _pass_time(self, pace: Pace) -> None:
        queues = [name for source in self._sources for name in source.delaying_queues]
        await pace.pass_time(self.clock, self._server, queues, self._mappings, self.activity)

    def _open_client(self, service: str) -> Any:
        from aiobotocore.session import AioSession

        creating = AioSession().create_client(service, region_name=REGION, endpoint_url=self.endpoint_url)
        entering = creating.__aenter__()
        try:
            # Nothing in it waits when credentials and region are given, so one step completes it:
            # that is what lets `client` be a plain function.
            entering.send(None)
        except StopIteration as done:
            self._stack.push_async_exit(creating.__aexit__)
            return done.value
        entering.close()
        raise PipelineError(f"the {service} client could not be made at once")

    def _source(self, name: str) -> LocalSource:
        """The source of this name; of several handlers that read one stream, the first one's."""
        found = [source for source in self._sources if source.name == name]
        if not found:
            names = sorted({stage.source.name for stage in self.stages})
            raise ConfigurationError(f"there is no source '{name}': {', '.join(names)}")
        if len({source.arn for source in found}) > 1:
            raise ConfigurationError(f"several sources are called '{name}', in {' and '.join(s.arn for s in found)}")
        return found[0]

    async def _dead_count(self, label: str) -> int:
        """How many dead letters stand there because of a handler, or what was there before."""
        index = self._labels.index(label)
        source, stage = self._sources[index], self.stages[index]
        if sum(other.arn == source.arn for other in self._sources) == 1:
            return await source.dead_count()
        # The handlers of one stream share its dead-letter queue, so each one's letters are counted as they are written.
        return self._tallies[label].letters if stage.dead_letters == stage.source.dead_letters else 0

    async def _what_is_left(self, seconds: float | None) -> str:
        depths = (await self.depths()).values()
        pairs = zip(self._sources, depths, strict=True)
        left = [f"'{source.name}' holds {depth}" for source, depth in pairs if not depth.is_empty]
        if self.activity.running:
            left.append(f"{self.activity.running} invocations running")
        return f"not drained after {seconds} s: {'; '.join(left) or 'a mapping has not come to rest'}"


def _labels(stages: Sequence[Stage]) -> list[str]:
    """The handlers' names in reports; with the pipeline's where two share one."""
    times = Counter(stage.name for stage in stages)
    return [stage.name if times[stage.name] == 1 else stage.full_name for stage in stages]


def _key(key: str | Callable[[Any], str] | None) -> Key | None:
    return (lambda _: key) if isinstance(key, str) else key
