"""Asking the idempotency store: its trouble is a value, and each call is told to the observers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from pipeline.engine.stage import Stage
from pipeline.errors import StoreUnavailable
from pipeline.ports import Environment
from pipeline.telemetry import conventions as names
from pipeline.telemetry import spans
from pipeline.telemetry.conventions import described_by
from pipeline.telemetry.events import Observer, StoreCalled, tell

R = TypeVar("R")


class Asking:
    """Calls to the store of one stage."""

    def __init__(self, stage: Stage, environment: Environment, observers: Sequence[Observer]) -> None:
        self._stage = stage
        self._clock = environment.clock
        self._observers = observers
        self._described = described_by(stage.store)
        self._name = self._described.get(names.STORE_TABLE, "idempotency")

    async def __call__(
        self, operation: str, call: Callable[[], Awaitable[Sequence[R]]], requests: int
    ) -> Sequence[R | StoreUnavailable]:
        """The answers of one call; when it raises, a `StoreUnavailable` for each of its requests."""
        started = self._clock.monotonic()
        with spans.call(f"{operation} {self._name}", self._attributes(operation, requests), self._clock.now) as span:
            answers: Sequence[R | StoreUnavailable]
            try:
                answers = await call()
                if len(answers) != requests:
                    raise RuntimeError(f"{operation}: {requests} requests were answered with {len(answers)} results")
            except Exception as error:
                answers = [StoreUnavailable.of(error)] * requests
            failures = [answer for answer in answers if isinstance(answer, StoreUnavailable)]
            if failures:
                span.failed(failures[0], len(failures), is_whole=len(failures) == requests)
        if self._observers:
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

    def _attributes(self, operation: str, requests: int) -> spans.Attributes:
        """Of the span of a call. A store that says nothing of itself is in this process."""
        if not self._described:
            return {}
        found = {**self._described, names.STORE_CALL: operation}
        return {**found, names.STORE_REQUESTS: requests} if requests > 1 else found
