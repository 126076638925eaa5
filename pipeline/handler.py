"""A declared handler: the Lambda entry point, and the plain function inside."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

from pipeline.engine.stage import Stage
from pipeline.errors import PipelineError
from pipeline.runtimes.awslambda import LambdaContext, LambdaRuntime
from pipeline.runtimes.response import PartialResponse

P = ParamSpec("P")
R = TypeVar("R")


class Handler(Generic[P, R]):
    """What `@pipeline.handler` makes of a function.

    Calling it with `(event, context)` is the Lambda entry point: it returns the partial batch
    response, and raises only for an event that is not its source's. Nothing is connected or
    started before the first call.
    """

    def __init__(self, function: Callable[P, R], stage: Callable[[], Stage]) -> None:
        functools.update_wrapper(self, function)
        self.function = function  #: the plain function, for unit tests
        self._assemble = stage
        self._runtime: LambdaRuntime | None = None

    def __call__(self, event: Any, context: LambdaContext) -> PartialResponse:
        """Handle one event, as Lambda calls it."""
        if _in_loop():
            raise PipelineError(
                f"{self.name} was called inside a running event loop, which it would block: "
                f"use 'await {self.name}.ainvoke(event, context)'; in tests, pipeline.testing.ainvoke"
            )
        return self._open().invoke(event, context)

    async def ainvoke(self, event: Any, context: LambdaContext) -> PartialResponse:
        """The same, from inside a running event loop."""
        return await asyncio.to_thread(self._open().invoke, event, context)

    def close(self) -> None:
        """Close what the calls have opened. Lambda never calls it; tests and scripts may."""
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.close()

    @functools.cached_property
    def stage(self) -> Stage:
        """The handler as assembled with its pipeline."""
        return self._assemble()

    @property
    def name(self) -> str:
        """The function's name."""
        return str(getattr(self.function, "__name__", "handler"))

    def __repr__(self) -> str:
        return f"<Handler {self.name}>"

    def _open(self) -> LambdaRuntime:
        if self._runtime is None:
            self._runtime = LambdaRuntime(self.stage)
        return self._runtime


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
