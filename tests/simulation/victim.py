"""A pipeline in a process that dies at a chosen point; `run` starts one.

    python -m tests.simulation.victim PIPELINE ENDPOINT SKIPPED POINT COUNT [BATCH_SIZE]

PIPELINE is "webhooks" or "logs". It runs until every source is empty, and prints its report; or until the
COUNT-th time that POINT is reached: then the process kills itself with SIGKILL, as the kernel, a spot
reclaim or a time-out would.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline import sources
from pipeline.decisions.idempotency import Claimed, Complete
from pipeline.emulator.embedded import EmbeddedServer
from pipeline.emulator.local import Local
from pipeline.emulator.run import DrainTimeout
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

_ROOT = Path(__file__).parent.parent.parent


async def run(
    pipeline: str, server: EmbeddedServer, skipped: float, point: str, count: int, *batch_size: int
) -> tuple[int, str]:
    """A victim over a server that outlives it: its exit code, and what it printed."""
    arguments = (pipeline, server.endpoint_url, skipped, point, count, *batch_size)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.simulation.victim", *map(str, arguments),
        cwd=_ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await process.communicate()
    assert process.returncode in (0, NOT_DRAINED, -signal.SIGKILL), errors.decode()[-3000:]
    return process.returncode, output.decode()


class Idle:
    """A runtime that fails every invocation: the feeding process handles nothing."""

    def invoke(self, event: Any, context: Any) -> Any:
        raise RuntimeError("not this process")

    def close(self) -> None: ...


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
        if any(isinstance(reply, Claimed) for reply in replies):  # nothing dies with duplicates
            self._killer.reached("after the claim")
        return replies

    async def settle(self, settlements: Sequence[Any], environment: Any) -> Any:
        completes = any(isinstance(settlement, Complete) for settlement in settlements)
        if completes:
            self._killer.reached("between sink and completion")
        answers = await self._store.settle(settlements, environment)
        if completes:
            self._killer.reached("after the completion")
        return answers

    async def renew(self, renewals: Sequence[Any], environment: Any) -> Any:
        return await self._store.renew(renewals, environment)


class Sink:
    """A sink after which the process may die, while the others are still to be written.

    A sink that gathers is written after the others, so that its work is then done.
    """

    def __init__(self, sink: Any, killer: Killer) -> None:
        self.name, self.when, self.create = sink.name, sink.when, sink.create
        self.gathers = getattr(sink, "gathers", False)
        self._sink = sink
        self._killer = killer

    async def write(self, outputs: Sequence[Any], environment: Any, deadline: Any) -> Any:
        errors = await self._sink.write(outputs, environment, deadline)
        self._killer.reached("between sink and completion" if self.gathers else "between two sinks")
        return errors


class Runtime(LambdaRuntime):
    """A Lambda environment that may die before its response is out."""

    killer: Killer

    def invoke(self, event: Any, context: Any) -> Any:
        response = super().invoke(event, context)
        self.killer.reached("before the response")
        return response


class Victim:
    """The pipeline, with the points in it. `batch_size`: of a stream, which is then read without a window."""

    def __init__(self, name: str, killer: Killer, batch_size: int | None) -> None:
        self.name = name
        self._killer = killer
        self._batch_size = batch_size

    def stages(self) -> tuple[Stage, ...]:
        pipeline = getattr(import_module(f"handlers.{self.name}"), self.name)
        return tuple(
            replace(
                stage,
                source=self._without_window(stage.source),
                store=Store(stage.store, self._killer),
                sinks=tuple(Sink(sink, self._killer) for sink in stage.sinks),
                middleware=(self._after_the_handler,),
            )
            for stage in pipeline.stages()
        )

    def _without_window(self, source: Any) -> Any:
        """Everything is in the stream already, and here a window would be waited for in real time."""
        if self._batch_size is None:
            return source
        return sources.Kinesis(source.stream, shards=source.shards, batch_size=self._batch_size)

    def _after_the_handler(self, call: Call) -> Call:
        async def wrapped(record: Any, context: Any) -> Any:
            result = await call(record, context)
            self._killer.reached("after the handler")
            return result

        return wrapped


async def main(
    pipeline: str, endpoint: str, skipped: float, point: str, count: int, batch_size: int | None = None
) -> None:
    killer = Killer(point, count)

    def runtime(stage: Stage, clock: Any, observer: Any) -> Runtime:
        made = Runtime(stage, clock=clock, observers=[observer], log_stream=sys.stderr, emit_metrics=False)
        made.killer = killer
        return made

    local = Local(Victim(pipeline, killer, batch_size), endpoint_url=endpoint, runtime=runtime)
    local.clock.skip(skipped)
    async with local:
        try:
            report = await local.drain(timeout=30 if batch_size is None else 240)
        except DrainTimeout:
            sys.exit(NOT_DRAINED)
    print(report.to_json())


if __name__ == "__main__":
    name, url, ahead, where, *numbers = sys.argv[1:]
    asyncio.run(main(name, url, float(ahead), where, *map(int, numbers)))
