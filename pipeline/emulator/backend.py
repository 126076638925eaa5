"""What a run stands on: moto's server, another server, or services in memory; and how time passes there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Protocol

from pipeline.aws.client import provide
from pipeline.emulator import embedded
from pipeline.emulator.activity import Activity
from pipeline.emulator.clock import SkippingClock
from pipeline.emulator.isolation import check_endpoint, isolated
from pipeline.emulator.pace import Pace, Skip, Wakes
from pipeline.emulator.probe import probe
from pipeline.emulator.services.bucket import S3
from pipeline.emulator.services.client import Around, MemoryClient, News
from pipeline.emulator.services.cluster import Cluster
from pipeline.emulator.services.queue import SQS
from pipeline.emulator.services.service import REGION, Service
from pipeline.emulator.services.stream import Kinesis
from pipeline.emulator.virtual import VirtualClock, VirtualLoop
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.ports import Clock

#: How long an empty source on a server is left alone: short after something happened, longer the longer nothing does.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.02, 0.25
#: How often a run on a server looks whether it is idle, when nothing tells it.
_TICK = 0.05


class Backend(Protocol):
    """Where a run's resources are."""

    @property
    def clock(self) -> Clock: ...

    @property
    def patience(self) -> float:
        """Seconds after which a look at an empty source is given up, to be begun anew."""
        ...

    @property
    def cluster(self) -> Cluster | None:
        """Kafka's topics; None: there is no Kafka."""
        ...

    async def open(self, stack: AsyncExitStack) -> None:
        """Start it; `stack` ends it."""
        ...

    def wakes(self, activity: Activity) -> None:
        """Tell a run's activity of what happens here, where that can be told."""
        ...

    def environment(self) -> ProcessEnvironment:
        """A process's environment, with clients that reach it."""
        ...

    def client(self, service: str) -> Any:
        """A client of a service with aiobotocore's methods, ready, and closed with the run."""
        ...

    async def pause(self, activity: Activity, count: int, looks: int, seconds: float) -> None:
        """Wait between two looks at an empty source: until there may be something, or for `seconds` at most.

        `count`: the activity's before the last look. `looks`: how many found nothing.
        """
        ...

    async def pass_time(self, queues: Sequence[str], drivers: Iterable[Wakes], activity: Activity) -> None:
        """Nothing runs: let time pass, not beyond the next thing that it brings about."""
        ...

    async def wait(self, activity: Activity) -> None:
        """Something runs: wait until something happens."""
        ...

    async def peek(self, queue: str) -> list[dict[str, Any]] | None:
        """A queue's messages as they stand, without receiving them; None: this server cannot tell."""
        ...

    async def oldest(self, queue: str) -> float | None:
        """Seconds since the oldest message of a queue was sent; None: it is empty, or this server cannot tell."""
        ...

    def check(self) -> None:
        """Raise `PipelineError` when it has ended and will not come back."""
        ...


class ServerBackend:
    """A server on this machine: moto's own one, or with `endpoint_url` another.

    `skip_idle`: idle time does not pass while a run is drained, on moto's server. `time_scale`: it passes that much faster.
    """

    patience = 20.0  #: as long as an SQS long poll lasts
    cluster = None

    def __init__(self, endpoint_url: str | None = None, *, skip_idle: bool = False, time_scale: float = 1.0) -> None:
        if endpoint_url is not None and time_scale != 1.0:
            raise ConfigurationError("time_scale needs the embedded server: leave endpoint_url out")
        self.clock = SkippingClock()
        self.endpoint_url = endpoint_url
        self._pace: Pace = Skip() if skip_idle and endpoint_url is None else Pace(time_scale)
        self._server: embedded.EmbeddedServer | None = None
        self._stack = AsyncExitStack()
        self._clients: dict[str, Any] = {}

    async def open(self, stack: AsyncExitStack) -> None:
        """See `Backend`."""
        if self.endpoint_url is not None:
            check_endpoint(self.endpoint_url)
            await probe(self.endpoint_url)
        else:
            self._server = await _leased()
            stack.callback(embedded.give_back, self._server)
            self.endpoint_url = self._server.endpoint_url
        stack.enter_context(isolated(self.endpoint_url))
        self._stack = await stack.enter_async_context(AsyncExitStack())

    def wakes(self, activity: Activity) -> None:
        """See `Backend`: a server tells nothing."""

    def environment(self) -> ProcessEnvironment:
        """See `Backend`: the environment variables lead there."""
        return ProcessEnvironment()

    def client(self, service: str) -> Any:
        """See `Backend`."""
        if service not in self._clients:
            self._clients[service] = self._open_client(service)
        return self._clients[service]

    async def pause(self, activity: Activity, count: int, looks: int, seconds: float) -> None:
        """See `Backend`."""
        await activity.wait_for_news(count, min(seconds, _FIRST_PAUSE * 2 ** min(looks, 10), _LONGEST_PAUSE))

    async def pass_time(self, queues: Sequence[str], drivers: Iterable[Wakes], activity: Activity) -> None:
        """See `Backend`."""
        await self._pace.pass_time(self.clock, self._server, queues, drivers, activity)

    async def wait(self, activity: Activity) -> None:
        """See `Backend`."""
        await activity.wait(_TICK)

    async def peek(self, queue: str) -> list[dict[str, Any]] | None:
        """See `Backend`."""
        return None if self._server is None else await asyncio.to_thread(self._server.peek, queue)

    async def oldest(self, queue: str) -> float | None:
        """See `Backend`."""
        return None if self._server is None else await asyncio.to_thread(self._server.oldest, queue)

    def check(self) -> None:
        """See `Backend`."""
        if self._server is not None and not self._server.alive:
            raise PipelineError(
                "the local AWS server has ended unexpectedly, and everything in it is gone: start the run again"
            )

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


async def _leased() -> embedded.EmbeddedServer:
    try:
        return await asyncio.to_thread(embedded.lease)
    except asyncio.CancelledError:
        embedded.end_all()  # the thread would wait for it, and the program for the thread
        raise


class MemoryBackend:
    """Services in memory, in virtual time: nothing is opened, and nothing waits. It needs a `VirtualLoop`."""

    #: Nobody would see a difference, and fourteen days of polls take minutes.
    patience = 86_400.0

    def __init__(self, services: Iterable[Service], loop: VirtualLoop | None = None) -> None:
        self.services: Mapping[str, Service] = {service.name: service for service in services}
        self.clock = VirtualClock(loop)
        self.news = News()
        self.cluster = Cluster(self.clock, self.news.happened)

    @property
    def sqs(self) -> SQS:
        """What stands in its queues can be looked at here without a call."""
        found = self.services["sqs"]
        assert isinstance(found, SQS)
        return found

    @property
    def kinesis(self) -> Kinesis:
        """Its streams."""
        found = self.services["kinesis"]
        assert isinstance(found, Kinesis)
        return found

    @property
    def s3(self) -> S3:
        """What stands in its buckets."""
        found = self.services["s3"]
        assert isinstance(found, S3)
        return found

    async def open(self, stack: AsyncExitStack) -> None:
        """See `Backend`."""

    def wakes(self, activity: Activity) -> None:
        """See `Backend`."""
        self.news.tell(activity.became_quiet)

    def environment(
        self, *, clock: Clock | None = None, around: Around | None = None, chance: random.Random | None = None
    ) -> ProcessEnvironment:
        """See `Backend`. `around`: stands between this environment's clients and the services. `chance`: of all its own."""
        environment = _environment(clock or self.clock, chance or random.Random())
        for name in self.services:
            provide(environment, name, self.client(name, around=around))
        return environment

    def client(self, service: str, *, around: Around | None = None) -> MemoryClient:
        """See `Backend`."""
        found = self.services.get(service)
        if found is None:
            raise ConfigurationError(f"there is no {service} in memory, only {', '.join(sorted(self.services))}")
        return MemoryClient(found, self.clock, self.news, around)

    def call_now(self, service: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Make a call at once: for those that do not run on the loop. Raises `ClientError`."""
        return self.client(service).call_now(operation, parameters)

    async def pause(self, activity: Activity, count: int, looks: int, seconds: float) -> None:
        """See `Backend`."""
        now, news = self.clock.now(), self.news.count
        changes = [at for service in self.services.values() if (at := service.next_change(now)) is not None]
        end = now + min([seconds, *(at - now for at in changes if at > now)])
        while activity.count == count and self.news.count == news and (left := end - self.clock.now()) > 0:
            await activity.wait(left)

    async def pass_time(self, queues: Sequence[str], drivers: Iterable[Wakes], activity: Activity) -> None:
        """See `Backend`: the loop's clock jumps by itself."""
        await activity.wait(None)

    async def wait(self, activity: Activity) -> None:
        """See `Backend`."""
        await activity.wait(None)

    async def peek(self, queue: str) -> list[dict[str, Any]] | None:
        """See `Backend`."""
        return self.sqs.peek(queue)

    async def oldest(self, queue: str) -> float | None:
        """See `Backend`: nobody watches a run in memory."""
        return None

    def check(self) -> None:
        """See `Backend`: it lives as long as this process."""


def _environment(clock: Clock, chance: random.Random) -> ProcessEnvironment:
    return ProcessEnvironment(clock=clock, chance=chance.random, token=lambda: f"{chance.getrandbits(128):032x}")
