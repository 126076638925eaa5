"""Asking the idempotency store: its trouble is a value, and each call is told to the observers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pipeline.engine.stage import Stage
from pipeline.errors import StoreUnavailable
from pipeline.ports import Environment
from pipeline.telemetry.events import Observer, StoreCalled, tell

R = TypeVar("R")


class Asking:
    """Calls to the store of one stage."""

    def __init__(self, stage: Stage, environment: Environment, observers: Sequence[Observer]) -> None:
        self._stage = stage
        self._clock = environment.clock
        self._observers = observers

    async def __call__(
        self, operation: str, call: Callable[[], Awaitable[Sequence[R]]], requests: int
    ) -> Sequence[R | StoreUnavailable]:
        """The answers of one call; when it raises, a `StoreUnavailable` for each of its requests."""
        started = self._clock.monotonic()
        answers: Sequence[R | StoreUnavailable]
        try:
            answers = await call()
            if len(answers) != requests:
                raise RuntimeError(f"{operation}: {requests} requests were answered with {len(answers)} results")
        except Exception as error:
            answers = [StoreUnavailable.of(error)] * requests
        if self._observers:
            failures = [answer for answer in answers if isinstance(answer, StoreUnavailable)]
            fact = StoreCalled(
                pipeline=self._stage.pipeline,
                handler=self._stage.name,
                operation=operation,
                requests=requests,
                failed=len(failures),
                seconds=self._clock.monotonic() - started,
                error=failures[0] if failures else None,
            )
            tell(self._observers, fact)
        return answers
