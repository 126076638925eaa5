"""What the contract suites share: a clock that tests move, and faults on the way to AWS."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from pipeline.aws.client import client
from pipeline.engine.environment import ProcessEnvironment
from tests.support import redis_server as servers


class ManualClock:
    """Time that passes when somebody sleeps, or when the test says so; it never waits."""

    def __init__(self) -> None:
        self._now = time.time()
        self._monotonic = 0.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._monotonic += seconds


@pytest.fixture
def at_dynamodb_local(aws: str, dynamodb_local: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The process speaks to AWS's own DynamoDB Local about tables, and to moto about everything else."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_local)
    return dynamodb_local


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def environment(clock: ManualClock) -> AsyncIterator[ProcessEnvironment]:
    made = ProcessEnvironment(clock=clock)
    yield made
    await made.aclose()


class Faults:
    """Faults on an environment's way to one service, by operation."""

    def __init__(self, environment: ProcessEnvironment, service: str) -> None:
        self._environment = environment
        self._service = service
        self.calls: list[dict[str, Any]] = []

    async def lose_replies(self, operation: str, times: int = 1, *, passing: int = 0) -> None:
        """The call is carried out, and its answer never arrives; that of the first `passing` ones does."""
        await self._raise(f"after-call.{self._service}.{operation}", times, passing)

    async def lose_requests(self, operation: str, times: int = 1) -> None:
        """The call never reaches the service."""
        await self._raise(f"before-call.{self._service}.{operation}", times)

    async def answer(self, operation: str, *answers: dict[str, Any]) -> None:
        """The next calls are answered so, without reaching the service."""
        waiting = list(answers)
        await self._hook(
            f"before-call.{self._service}.{operation}", lambda: (_Ok(), waiting.pop(0)) if waiting else None
        )

    async def record(self, operation: str) -> None:
        """Keep what each call was asked, in `calls`."""
        made = await client(self._environment, self._service)
        made.meta.events.register_first(
            f"provide-client-params.{self._service}.{operation}", lambda params, **_: self.calls.append(params)
        )

    async def _raise(self, event: str, times: int, passing: int = 0) -> None:
        from botocore.exceptions import ConnectionClosedError

        losses = [False] * passing + [True] * times

        def lose() -> None:
            if losses and losses.pop(0):
                raise ConnectionClosedError(endpoint_url="http://127.0.0.1")

        await self._hook(event, lose)

    async def _hook(self, event: str, do: Callable[[], Any]) -> None:
        made = await client(self._environment, self._service)
        made.meta.events.register(event, lambda **_: do())


class _Ok:
    status_code = 200


@pytest.fixture
def faults(environment: ProcessEnvironment) -> Callable[[str], Faults]:
    """Faults on the way to a service: `faults("sqs")`."""
    return lambda service: Faults(environment, service)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[servers.RedisServer]:
    """A Valkey or Redis server for the whole run; each test has a prefix of its own."""
    with servers.running() as server:
        yield server
