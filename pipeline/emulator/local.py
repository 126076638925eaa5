"""A whole pipeline on this machine: its resources, its mappings, and what one asks of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol, Self, TextIO

from pipeline.aws.client import client
from pipeline.aws.sqs import url_of
from pipeline.emulator import embedded, queues
from pipeline.emulator.activity import Activity
from pipeline.emulator.clock import SkippingClock
from pipeline.emulator.execution import Pool, Runtime
from pipeline.emulator.faults import Faults
from pipeline.emulator.isolation import REGION, isolated
from pipeline.emulator.pace import Pace, Skip
from pipeline.emulator.poller import Mapping as EventSourceMapping
from pipeline.emulator.poller import Queue
from pipeline.emulator.queues import DeadLetterMessage, Depth
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
    """The queues did not become empty in time; the message says what is left."""


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
        self._queues: list[Queue] = []
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
        """Send payloads to a source: text as it is, everything else as JSON.

        `key`: the message group on a FIFO queue, for all or as a function of the payload; default
        the handler's lane, else its key, else one group for all. `attributes`: message attributes.
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
        index = self._index(source_name)
        group = _group(key) or queues.default_group(self.stages[index])
        errors = await queues.send(self._environment, self._queues[index], payloads, group, attributes)
        self.activity.happened()
        return errors

    async def drain(self, timeout: float | None = 30) -> Report:  # noqa: ASYNC109 - the public name
        """Wait until nothing is visible, in flight or delayed and nothing runs; the report.

        Raises `DrainTimeout` after `timeout` seconds (None: never), and says what is left.
        """
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        pace: Pace = Skip() if self._skip_idle else Pace()
        while not await self.is_drained():
            if end is not None and loop.time() >= end:
                raise DrainTimeout(await self._what_is_left(timeout))
            if self.is_idle:
                await pace.pass_time(self.clock, self._server, self._queues, self._mappings, self.activity)
            else:
                await self.activity.wait(0.05)
        return await self.report(drained=True)

    @property
    def is_idle(self) -> bool:
        """No invocation runs, and every mapping has asked its queue since and got nothing."""
        if self._failure is not None:
            raise PipelineError("an event source mapping broke") from self._failure
        if self.activity.running:
            return False
        return all(mapping.quiet_at == self.activity.count for mapping in self._mappings)

    async def is_drained(self) -> bool:
        """Nothing is visible, in flight or delayed, and nothing runs."""
        if not self.is_idle:
            return False
        count = self.activity.count
        depths = await self.depths()
        is_empty = not any(found.total for found in depths.values())
        # Measuring took time: what it says holds only if nothing happened meanwhile.
        return is_empty and count == self.activity.count

    async def depth(self, source_name: str) -> Depth:
        """How many messages a source's queue holds."""
        return await queues.depth(self._environment, self._queues[self._index(source_name)].url)

    async def depths(self) -> dict[str, Depth]:
        """How many messages each source's queue holds."""
        found = await asyncio.gather(*(queues.depth(self._environment, queue.url) for queue in self._queues))
        return {queue.name: depth for queue, depth in zip(self._queues, found, strict=True)}

    async def report(self, *, drained: bool = False) -> Report:
        """The counts by now."""
        dead = await asyncio.gather(*(self._dead_count(queue) for queue in self._queues))
        return Report(
            {
                label: tally.counts(dead_lettered=count - self._dead_before[queue.name], drained=drained)
                for (label, tally), queue, count in zip(self._tallies.items(), self._queues, dead, strict=True)
            }
        )

    async def dead_letters(self, source_name: str) -> list[DeadLetterMessage]:
        """What stands in a source's dead-letter queue; it stays there."""
        name = self._queues[self._index(source_name)].dead_letters
        if name is None:
            return []
        if self._server is not None:
            return [queues.from_peek(message) for message in await asyncio.to_thread(self._server.peek, name)]
        return await queues.read_all(self._environment, await url_of(name, None, self._environment))

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
        self._queues = await queues.create(self.stages, self._environment)
        queues.check_names(self._queues)
        for queue in self._queues:
            self._dead_before[queue.name] = await self._dead_count(queue)
        polling = await client(self._environment, "sqs")
        for stage, label, queue in zip(self.stages, self._labels, self._queues, strict=True):
            self._map(stage, label, queue, polling)
        if self._time_scale != 1.0:
            self._run(self._pass_time_faster())

    def _map(self, stage: Stage, label: str, queue: Queue, polling: Any) -> None:
        tally = self._tallies[label]
        size = min(getattr(stage.source, "max_concurrency", None) or MAX_ENVIRONMENTS, MAX_ENVIRONMENTS)
        pool = Pool(stage, lambda stage: self._make(stage, self.clock, tally.observe), size)
        self._stack.push_async_callback(pool.close)
        mapping = EventSourceMapping(
            label, queue, client=polling, pool=pool, tally=tally,
            activity=self.activity, clock=self.clock, faults=self._faults,
        )  # fmt: skip
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
                await pace.pass_time(self.clock, self._server, self._queues, self._mappings, self.activity)
            else:
                await self.activity.wait(0.05)

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

    def _index(self, source_name: str) -> int:
        names = [stage.source.name for stage in self.stages]
        if source_name not in names:
            raise ConfigurationError(f"there is no source '{source_name}': {', '.join(sorted(names))}")
        return names.index(source_name)

    async def _dead_count(self, queue: Queue) -> int:
        if queue.dead_letters is None:
            return 0
        url = await url_of(queue.dead_letters, None, self._environment)
        return (await queues.depth(self._environment, url)).total

    async def _what_is_left(self, seconds: float | None) -> str:
        left = [f"'{name}' holds {depth}" for name, depth in (await self.depths()).items() if depth.total]
        if self.activity.running:
            left.append(f"{self.activity.running} invocations running")
        return f"not drained after {seconds} s: {'; '.join(left) or 'a mapping has not come to rest'}"


def _labels(stages: Sequence[Stage]) -> list[str]:
    """The handlers' names in reports; with the pipeline's where two share one."""
    times = Counter(stage.name for stage in stages)
    return [stage.name if times[stage.name] == 1 else stage.full_name for stage in stages]


def _group(key: str | Callable[[Any], str] | None) -> queues.Group | None:
    return (lambda _: key) if isinstance(key, str) else key
