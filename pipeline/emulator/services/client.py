"""Clients of services in memory: they have the methods of aiobotocore's, and raise its errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from botocore.exceptions import ClientError

from pipeline.emulator.services.service import Operation, Service, ServiceError
from pipeline.ports import Clock

#: Stands between a client and its service: gets the service's name, the operation, the parameters, and what makes the
#: call. Faults are injected here.
Around = Callable[[str, str, Mapping[str, Any], Callable[[], Awaitable[dict[str, Any]]]], Awaitable[dict[str, Any]]]


class News:
    """Wakes who waits for a service in memory to change."""

    def __init__(self) -> None:
        self.count = 0  #: calls that were made so far
        self._changed = asyncio.Event()

    def happened(self) -> None:
        """A call was made: what a look at the service would see may differ."""
        self.count += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait(self, seconds: float | None) -> None:
        """Return at the next call of anybody's, or after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return


class MemoryClient:
    """A client of one service. `async with` it, as aiobotocore's, or not: nothing is opened."""

    def __init__(self, service: Service, clock: Clock, news: News, around: Around | None = None) -> None:
        self._service = service
        self._clock = clock
        self._news = news
        self._around = around

    def __getattr__(self, name: str) -> Callable[..., Awaitable[dict[str, Any]]]:
        operation = self._service.operations.get(name)
        if operation is None:
            raise AttributeError(f"the {self._service.name} service in memory has no {name}")

        async def call(**parameters: Any) -> dict[str, Any]:
            if self._around is None:
                return await self._call(operation, name, parameters)
            return await self._around(
                self._service.name, name, parameters, lambda: self._call(operation, name, parameters)
            )

        return call

    async def close(self) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def _call(self, operation: Operation, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        # Everybody else gets a turn, as during a call over a network: the models must not hide races.
        await asyncio.sleep(0)
        try:
            answer = operation(parameters, self._clock.now())
        except ServiceError as error:
            response = {
                "Error": {"Code": error.code, "Message": error.message},
                "ResponseMetadata": {"HTTPStatusCode": error.status},
                **error.members,
            }
            raise ClientError(response, "".join(part.title() for part in name.split("_"))) from None
        finally:
            self._news.happened()
        return {**answer, "ResponseMetadata": {"HTTPStatusCode": 200}}
