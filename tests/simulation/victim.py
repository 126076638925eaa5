"""The webhooks pipeline in a process that dies at a chosen point.

    python -m tests.simulation.victim ENDPOINT SKIPPED POINT COUNT

It runs until every queue is empty, or until the COUNT-th time that POINT is reached: then the
process kills itself with SIGKILL, as the kernel, a spot reclaim or a time-out would.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from handlers.webhooks import webhooks
from pipeline.emulator.local import DrainTimeout, Local
from pipeline.engine.stage import Call, Stage
from pipeline.runtimes.awslambda import LambdaRuntime

#: Where the process may die.
POINTS = (
    "after the claim",
    "after the handler",
    "between two sinks",
    "between sink and completion",
    "after the completion",
    "before the response",
)

#: The exit code when something stays in flight: a request of an earlier victim that reached the server late.
NOT_DRAINED = 3


class Killer:
    """Counts how often the point was reached, over all threads."""

    def __init__(self, point: str, count: int) -> None:
        self._point = point
        self._left = count
        self._lock = threading.Lock()

    def reached(self, point: str) -> None:
        if point != self._point:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


class Store:
    """A store around which the process may die."""

    def __init__(self, store: Any, killer: Killer) -> None:
        self._store = store
        self._killer = killer
        self.create = store.create

    async def claim(self, requests: Sequence[Any], environment: Any) -> Any:
        replies = await self._store.claim(requests, environment)
        self._killer.reached("after the claim")
        return replies

    async def settle(self, settlements: Sequence[Any], environment: Any) -> Any:
        self._killer.reached("between sink and completion")
        answers = await self._store.settle(settlements, environment)
        self._killer.reached("after the completion")
        return answers

    async def renew(self, renewals: Sequence[Any], environment: Any) -> Any:
        return await self._store.renew(renewals, environment)


class Sink:
    """A sink after which the process may die, while the others are still to be written."""

    def __init__(self, sink: Any, killer: Killer) -> None:
        self.name, self.when, self.create = sink.name, sink.when, sink.create
        self._sink = sink
        self._killer = killer

    async def write(self, outputs: Sequence[Any], environment: Any, deadline: Any) -> Any:
        errors = await self._sink.write(outputs, environment, deadline)
        self._killer.reached("between two sinks")
        return errors


class Runtime(LambdaRuntime):
    """A Lambda environment that may die before its response is out."""

    killer: Killer

    def invoke(self, event: Any, context: Any) -> Any:
        response = super().invoke(event, context)
        self.killer.reached("before the response")
        return response


class Victim:
    """The pipeline, with the points in it."""

    name = webhooks.name

    def __init__(self, killer: Killer) -> None:
        self._killer = killer

    def stages(self) -> tuple[Stage, ...]:
        return tuple(
            replace(
                stage,
                store=Store(stage.store, self._killer),
                sinks=tuple(Sink(sink, self._killer) for sink in stage.sinks),
                middleware=(self._after_the_handler,),
            )
            for stage in webhooks.stages()
        )

    def _after_the_handler(self, call: Call) -> Call:
        async def wrapped(record: Any, context: Any) -> Any:
            result = await call(record, context)
            self._killer.reached("after the handler")
            return result

        return wrapped


async def main(endpoint: str, skipped: float, point: str, count: int) -> None:
    killer = Killer(point, count)

    def runtime(stage: Stage, clock: Any, observer: Any) -> Runtime:
        made = Runtime(stage, clock=clock, observers=[observer], log_stream=sys.stderr, emit_metrics=False)
        made.killer = killer
        return made

    local = Local(Victim(killer), endpoint_url=endpoint, runtime=runtime)
    local.clock.skip(skipped)
    async with local:
        try:
            await local.drain(timeout=30)
        except DrainTimeout:
            sys.exit(NOT_DRAINED)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
