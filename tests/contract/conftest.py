"""What the contract suites share: a clock that tests move, and faults on the way to AWS."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NoReturn

import pytest
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError, ConnectionClosedError

from pipeline.aws.calls import SERVICES, Call, Client, GoOn
from pipeline.aws.client import client, full_client
from pipeline.aws.models import Models
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


@pytest.fixture(scope="session")
def botocore_session() -> AioSession:
    """A session for all tests: making one takes longer than a client, and it keeps no connections."""
    session = AioSession()
    session.register_component("data_loader", Models())
    return session


@pytest.fixture
async def environment(clock: ManualClock, botocore_session: AioSession) -> AsyncIterator[ProcessEnvironment]:
    made = ProcessEnvironment(clock=clock)
    made.provide(("aws", "session"), botocore_session)
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
        losses = [False] * passing + [True] * times
        await self._meet(operation, after=lambda: _lose() if losses and losses.pop(0) else None)

    async def lose_requests(self, operation: str, times: int = 1) -> None:
        """The call never reaches the service."""
        losses = [True] * times
        await self._meet(operation, before=lambda: _lose() if losses and losses.pop() else None)

    async def answer(self, operation: str, *answers: dict[str, Any]) -> None:
        """The next calls are answered so, without reaching the service."""
        waiting = list(answers)
        await self._meet(operation, before=lambda: waiting.pop(0) if waiting else None)

    async def record(self, operation: str) -> None:
        """Keep what each call was asked, in `calls`."""
        made = await self._maker_of(operation)
        if isinstance(made, Client):

            async def keep(call: Call, go_on: GoOn) -> dict[str, Any]:
                if call.operation == operation:
                    self.calls.append(call.parameters)
                return await go_on()

            made.around.append(keep)
        else:
            made.meta.events.register_first(
                f"provide-client-params.{self._service}.{operation}", lambda params, **_: self.calls.append(params)
            )

    async def _maker_of(self, operation: str) -> Any:
        """The client that makes calls of an operation: most are none of the light ones."""
        if self._service in SERVICES and operation in SERVICES[self._service].operations.values():
            return await client(self._environment, self._service)
        return await full_client(self._environment, self._service)

    async def _meet(
        self,
        operation: str,
        *,
        before: Callable[[], dict[str, Any] | None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """`before` a call: raise, or answer it. `after` it: raise."""
        made = await self._maker_of(operation)
        if isinstance(made, Client):

            async def around(call: Call, go_on: GoOn) -> dict[str, Any]:
                if call.operation != operation:
                    return await go_on()
                answer = before()
                if answer is not None:
                    return answer
                try:
                    answer = await go_on()
                except ClientError:  # a refusal is an answer as well
                    after()
                    raise
                after()
                return answer

            made.around.insert(0, around)  # so that what is recorded is so in any case
        else:
            events, name = made.meta.events, f"{self._service}.{operation}"
            events.register(
                f"before-call.{name}", lambda **_: None if (answer := before()) is None else (_Ok(), answer)
            )
            events.register(f"after-call.{name}", lambda **_: after())


def _lose() -> NoReturn:
    raise ConnectionClosedError(endpoint_url="http://127.0.0.1")


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
