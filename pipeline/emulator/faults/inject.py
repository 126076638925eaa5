"""Puts faults between the parts of a run: around its functions, execution environments and sources."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.aws.names import arn_name
from pipeline.emulator.backend import MemoryBackend
from pipeline.emulator.driver import Invocable, QueueDriver
from pipeline.emulator.faults.functions import FIFO, STANDARD, STREAM, FaultyFunction, Hidden
from pipeline.emulator.faults.kinds import Kind, Point
from pipeline.emulator.faults.place import Place, mortal_tasks
from pipeline.emulator.faults.plan import Faults
from pipeline.emulator.faults.profiles import SERVER
from pipeline.emulator.faults.sandboxes import EngineFaults, PlainFaults, ServedFaults
from pipeline.emulator.faults.services import around
from pipeline.emulator.faults.sources import POISON, FaultyQueue, FaultyShards
from pipeline.emulator.faults.steps import breakable
from pipeline.emulator.functions.engine import EngineSandbox
from pipeline.emulator.functions.function import Sandbox
from pipeline.emulator.functions.thread import Runtime, ThreadSandbox
from pipeline.emulator.local_source import LocalSource
from pipeline.emulator.run import Mapped
from pipeline.emulator.turns import Turns, TurnSandbox
from pipeline.emulator.virtual import VirtualClock, VirtualLoop
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError
from pipeline.ports import Clock
from pipeline.telemetry.events import Observer

#: Seconds by which a clock is wrong, either way: more than that NTP does not leave.
_SKEW = 2.0
#: Poison has a group of its own on a FIFO queue, and stops no other.
_POISON_GROUP = "poison"


@dataclass(frozen=True)
class Bears:
    """What a mapping puts up with, beside its queue. `retries`: of a batch, or of a record; None and -1: any number."""

    retries: int | None = None
    takes_poison: bool = False  #: what can never be processed comes to rest somewhere


def bears_of(stage: Stage) -> Bears:
    """Of a pipeline's handler: it has attempts, and dead letters."""
    return Bears(None if stage.retry is None else stage.retry.attempts - 1, takes_poison=True)


class Injector:
    """Common to runs in memory and on a server. `clock`: the run's."""

    def __init__(self, faults: Faults, clock: Clock) -> None:
        self.faults = faults
        self._now = clock.now
        self._hidden: dict[str, Hidden] = {}  #: by the mappings' labels

    def invocable(
        self, label: str, inner: Invocable, source: LocalSource, bears: Bears, *, function: str | None = None
    ) -> Invocable:
        """A function behind a source. `label`: as the mapping calls it. `function`: its own name; default the same."""
        queue = self._queue(source)
        for limit in (bears.retries, queue.redrives):
            if limit is not None and limit >= 0:
                self.faults.allow(label, limit)
        kinds = STREAM if source.is_stream else FIFO if source.arn.endswith(".fifo") else STANDARD
        if queue.visibility is None:
            kinds -= {Kind.LATE_RESPONSE}
        hidden = self._hidden[label] = Hidden(queue.visibility or 0.0)
        return FaultyFunction(inner, label, function or label, self.faults, self._now, kinds=kinds, hidden=hidden)

    def source(self, mapped: Mapped, bears: Bears) -> None:
        """A mapping's source. Call it before its driver runs."""
        source, driver = mapped.source, mapped.driver
        takes_poison = bears.takes_poison or self._queue(source).redrives is not None
        if source.arn.split(":")[2] == "dynamodb":  # what its stream holds are changes of items: nothing is sent there
            takes_poison = False
        spoil = partial(source.offer, [POISON], lambda _: _POISON_GROUP, None) if takes_poison else None
        if isinstance(driver, QueueDriver):
            self.faults.share(source.name, mapped.label)
            hidden = self._hidden[mapped.label]
            driver.through(lambda port: FaultyQueue(port, source.name, self.faults, self._now, spoil, hidden))
        else:
            driver.through(lambda port: FaultyShards(port, source.name, self.faults, self._now, spoil))

    def _queue(self, source: LocalSource) -> _Queue:
        """What is known of a source's queue."""
        return _Queue()


@dataclass(frozen=True)
class _Queue:
    visibility: float | None = None  #: seconds that a message is hidden
    redrives: int | None = None  #: receives beyond the first that a message has


class MemoryInjector(Injector):
    """Of a run in memory and in virtual time. `turns`: of its handlers in threads."""

    def __init__(self, faults: Faults, backend: MemoryBackend, loop: VirtualLoop, turns: Turns) -> None:
        clock = VirtualClock(loop)
        super().__init__(faults, clock)
        self._backend = backend
        self._loop = loop
        self._places: list[Place] = []
        self._turns = turns
        mortal_tasks(loop)
        if faults.at(Point("sqs", "order"), (Kind.REORDERING,), clock.now()) is not None:
            queues: Any = backend.services["sqs"]
            queues.shuffled = True

    def plain(self, name: str, make: Callable[[], Sandbox]) -> Callable[[], Sandbox]:
        """Makes environments of a plain handler."""

        def made() -> Sandbox:
            place = Place(self.faults, name, self._now, raises=True)
            inner = TurnSandbox(make(), self._turns, around(place, self._backend.client))
            return PlainFaults(place, inner, self._turns)

        return made

    def engine(self, name: str, stage: Stage, observers: Sequence[Observer]) -> Callable[[], Sandbox]:
        """Makes environments of a pipeline's handler."""

        def made() -> Sandbox:
            place = Place(self.faults, name, self._now, closes_at_once=stage.signature.kind.in_thread)
            self._places.append(place)
            stands = around(place, self._backend.client)
            clock = VirtualClock(self._loop, skew=self._skew(name))
            chance = random.Random(f"{self.faults.seed}:{name}:{len(self._places)}")
            environment = partial(self._backend.environment, clock=clock, around=stands, chance=chance)
            watching = [place.watching(observer) for observer in observers]
            inner = EngineSandbox(breakable(stage, place, self._turns), environment, watching)
            return EngineFaults(place, inner, stands)

        return made

    async def close(self) -> None:
        """End what is left of dead environments."""
        for place in self._places:
            await place.bury()

    def _queue(self, source: LocalSource) -> _Queue:
        if source.arn.split(":")[2] != "sqs":
            return _Queue()
        url = self._backend.call_now("sqs", "get_queue_url", {"QueueName": arn_name(source.arn)})["QueueUrl"]
        asked = {"QueueUrl": url, "AttributeNames": ["All"]}
        found = self._backend.call_now("sqs", "get_queue_attributes", asked)["Attributes"]
        policy = found.get("RedrivePolicy")
        redrives = None if policy is None else int(json.loads(policy)["maxReceiveCount"]) - 1
        return _Queue(float(found["VisibilityTimeout"]), redrives)

    def _skew(self, name: str) -> float:
        point = Point(name, "environment")
        if self.faults.at(point, (Kind.SKEW,), self._now()) is None:
            return 0.0
        return self.faults.chance(point, "seconds").uniform(-_SKEW, _SKEW)


class ServerInjector(Injector):
    """Of pipelines on a server, in real time: crashes, duplicates, and what befalls invocations.

    Calls go to the server as they are, clocks are right, and nothing is slow: that would take the developer's time.
    """

    def __init__(self, seed: int, clock: Clock) -> None:
        given: object = seed
        if isinstance(given, bool) or not isinstance(given, int):
            raise ConfigurationError(
                f"faults={given!r}: on a server give a seed, a whole number; profiles and single faults are the Emulator's"
            )
        super().__init__(Faults(seed, SERVER), clock)

    def served(
        self,
        name: str,
        stage: Stage,
        make: Callable[[Stage, Clock, Observer], Runtime],
        clock: Clock,
        observer: Observer,
    ) -> Callable[[], Sandbox]:
        """Makes environments of a pipeline's handler."""

        def made() -> Sandbox:
            place = Place(self.faults, name, self._now)
            broken = breakable(stage, place, slow=False)
            watching = place.watching(observer)
            return ServedFaults(place, ThreadSandbox(lambda: make(broken, clock, watching)))

        return made
