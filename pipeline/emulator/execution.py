"""Execution environments: where invocations run, each in a thread of its own, as Lambda's do in a sandbox."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.engine.stage import Stage
from pipeline.errors import PipelineError

_CLOSE_SECONDS = 5.0


class Runtime(Protocol):
    """What runs a handler's invocations: `LambdaRuntime`, or a test's own."""

    def invoke(self, event: Any, context: Any) -> Any:
        """Run one invocation; it blocks."""
        ...

    def close(self) -> None:
        """End it, and close what it opened."""
        ...


MakeRuntime = Callable[[Stage], Runtime]


class InvocationTimeout(PipelineError):
    """An invocation did not end within the function's timeout; Lambda would have killed it."""


@dataclass(frozen=True)
class LambdaContext:
    """The context that Lambda hands to a function."""

    function_name: str
    memory_limit_in_mb: int
    timeout: float
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    function_version: str = "$LATEST"
    client_context: None = None
    identity: None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def invoked_function_arn(self) -> str:
        """An ARN of the form that Lambda gives."""
        return f"arn:aws:lambda:us-east-1:123456789012:function:{self.function_name}"

    @property
    def log_group_name(self) -> str:
        """The name that Lambda would log under."""
        return f"/aws/lambda/{self.function_name}"

    @property
    def log_stream_name(self) -> str:
        """The local run has one stream."""
        return "local"

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the invocation would be killed."""
        return max(0, int((self.started + self.timeout - time.monotonic()) * 1000))


class ExecutionEnvironment:
    """One sandbox: a daemon thread that makes its runtime once and then runs invocations on it.

    A daemon, because a handler that blocks for ever must not keep the program from ending.
    """

    def __init__(self, stage: Stage, make: MakeRuntime) -> None:
        self._stage = stage
        self._make = make
        self._calls: queue.SimpleQueue[tuple[Any, Future[Any]] | None] = queue.SimpleQueue()
        self._ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._serve, name=f"environment-{stage.full_name}", daemon=True)
        self._thread.start()

    async def invoke(self, event: Any) -> Any:
        """Run one invocation; raises what it raised, or `InvocationTimeout`."""
        # Lambda gives the initialisation its own time, so ours does not count either.
        await asyncio.shield(asyncio.wrap_future(self._ready))
        answer: Future[Any] = Future()
        self._calls.put((event, answer))
        timeout = self._stage.deploy.timeout
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(answer)
        except TimeoutError:
            if answer.done() and not answer.cancelled():
                raise  # the handler's own
            raise InvocationTimeout(f"{self._stage.full_name} did not end within {timeout} s") from None

    @property
    def is_ready(self) -> bool:
        """Its runtime was made."""
        return self._ready.done() and not self._ready.cancelled() and self._ready.exception() is None

    def abandon(self) -> None:
        """Let go of it: its thread closes the runtime as soon as what it runs has ended."""
        self._calls.put(None)

    def join(self) -> None:
        """Wait, for a while, until an abandoned one has closed its runtime."""
        self._thread.join(_CLOSE_SECONDS)

    def _serve(self) -> None:
        try:
            runtime = self._make(self._stage)
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self._ready.set_result(None)
        try:
            while (call := self._calls.get()) is not None:
                self._run(runtime, *call)
        finally:
            runtime.close()

    def _run(self, runtime: Runtime, event: Any, answer: Future[Any]) -> None:
        if not answer.set_running_or_notify_cancel():
            return
        stage = self._stage
        name = f"{stage.pipeline}-{stage.name}"
        context = LambdaContext(name, stage.deploy.memory, stage.deploy.timeout)
        try:
            answer.set_result(runtime.invoke(event, context))
        except BaseException as error:
            # SystemExit too: it ends an invocation, not the machine.
            answer.set_exception(error if isinstance(error, Exception) else PipelineError(f"ended by {error!r}"))


class Pool:
    """A handler's execution environments, made when needed, at most `size` at a time."""

    def __init__(self, stage: Stage, make: MakeRuntime, size: int) -> None:
        self._stage = stage
        self._make = make
        self._slots = asyncio.Semaphore(size)
        self._idle: list[ExecutionEnvironment] = []

    async def reserve(self) -> None:
        """Wait until one more invocation may run. A `take` follows, or a `cancel`."""
        await self._slots.acquire()

    def cancel(self) -> None:
        """Nothing is to run after all."""
        self._slots.release()

    def take(self) -> ExecutionEnvironment:
        """An idle environment, the one used last first as in Lambda, or a new one. A `release` follows."""
        return self._idle.pop() if self._idle else ExecutionEnvironment(self._stage, self._make)

    def release(self, environment: ExecutionEnvironment, *, reusable: bool = True) -> None:
        """Give it back. One whose invocation timed out, or that could not start, is not used again."""
        if reusable:
            self._idle.append(environment)
        else:
            environment.abandon()
        self._slots.release()

    async def close(self) -> None:
        """Close every environment that is not stuck."""
        for environment in self._idle:
            environment.abandon()
        closing, self._idle = self._idle, []
        await asyncio.gather(*(asyncio.to_thread(environment.join) for environment in closing))
