"""Clients of services in memory: they have the methods of aiobotocore's, and raise its errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Self

from botocore.exceptions import ClientError

from pipeline.emulator.services.service import REGION, Service, ServiceError
from pipeline.ports import Clock

#: Makes a call.
Go = Callable[[], Awaitable[dict[str, Any]]]
#: Stands between a client and its service: gets the service's name, the operation, the parameters, and what makes the
#: call. Faults are injected here.
Around = Callable[[str, str, Mapping[str, Any], Go], Awaitable[dict[str, Any]]]

#: How calls begin that change nothing that another one would see; of receiving see `News.happened`.
READS = ("batch_get_", "describe_", "get_", "head_", "list_", "query", "receive_", "scan")


class Meta(NamedTuple):
    """What is asked of a client's `meta`. The endpoint is AWS's: the services in memory keep its rules."""

    endpoint_url: str
    region_name: str


class News:
    """Counts the calls that may have changed something, and tells who wants to know."""

    def __init__(self) -> None:
        self.count = 0
        self._listeners: list[Callable[[], None]] = []

    def tell(self, listener: Callable[[], None]) -> None:
        """Call this after each such call."""
        self._listeners.append(listener)

    def happened(self) -> None:
        """A call was made that is no read: what a look at the services would see may differ."""
        self.count += 1
        for listener in self._listeners:
            listener()


class Waiter:
    """Waits for nothing."""

    async def wait(self, **_: Any) -> None:
        """It is so already."""


class MemoryClient:
    """A client of one service. `async with` it, as aiobotocore's, or not: nothing is opened."""

    def __init__(self, service: Service, clock: Clock, news: News, around: Around | None = None) -> None:
        self._service = service
        self._clock = clock
        self._news = news
        self._around = around
        self.meta = Meta(f"https://{service.name}.{REGION}.amazonaws.com", REGION)

    def __getattr__(self, name: str) -> Callable[..., Awaitable[dict[str, Any]]]:
        if name not in self._service.operations:
            raise AttributeError(f"the {self._service.name} service in memory has no {name}")

        async def call(**parameters: Any) -> dict[str, Any]:
            if self._around is None:
                return await self._call(name, parameters)
            return await self._around(self._service.name, name, parameters, lambda: self._call(name, parameters))

        return call

    def get_waiter(self, name: str) -> Waiter:
        """What is made in memory is ready at once."""
        return Waiter()

    async def close(self) -> None:
        """Nothing is open."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    def call_now(self, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Make a call at once, in the caller's turn: for those that do not run on the loop."""
        operation = self._service.operations.get(name)
        if operation is None:
            raise AttributeError(f"the {self._service.name} service in memory has no {name}")
        try:
            answer = operation(parameters, self._clock.now())
        except ServiceError as error:
            raise client_error(error, name) from None
        if not name.startswith(READS):
            self._news.happened()
        return {**answer, "ResponseMetadata": {"HTTPStatusCode": 200}}

    async def _call(self, name: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        # Everybody else gets a turn, as during a call over a network: the models must not hide races.
        await asyncio.sleep(0)
        return self.call_now(name, parameters)


def client_error(error: ServiceError, name: str) -> ClientError:
    """What a client raises for a service's error. `name`: of the operation; the API spells "send_message" SendMessage."""
    response: Any = {
        "Error": {"Code": error.code, "Message": error.message},
        "ResponseMetadata": {"HTTPStatusCode": error.status},
        **error.members,
    }
    return ClientError(response, "".join(part.title() for part in name.split("_")))
