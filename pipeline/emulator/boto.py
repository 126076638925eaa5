"""boto3 and aiobotocore on services in memory: for handlers that make their own clients, in this process.

Their clients keep all that is theirs (parameter checks come with the call, and are skipped); only the call itself goes to
the services in memory instead of a network. A service that is not in memory is refused: nothing ever reaches AWS.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from botocore import xform_name
from botocore.client import BaseClient

from pipeline.emulator.backend import MemoryBackend
from pipeline.emulator.isolation import isolated
from pipeline.emulator.services.client import Around
from pipeline.emulator.virtual import VirtualLoop

#: Stands between the calls of the running invocation and the services; a sandbox sets it.
AROUND: ContextVar[Around | None] = ContextVar("AROUND", default=None)
#: Nobody listens there: what gets around the clients finds nothing.
_NOWHERE = "http://127.0.0.1:9"


@contextmanager
def boto3_in_memory(backend: MemoryBackend, loop: VirtualLoop) -> Generator[None, None, None]:
    """While the block lasts, boto3's and aiobotocore's clients of this process call the services in memory."""
    from aiobotocore.client import AioBaseClient

    home = threading.get_ident()

    async def call(client: Any, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        service: str = client.meta.service_model.service_name
        made = backend.client(service, around=AROUND.get())
        answer: dict[str, Any] = await getattr(made, xform_name(operation))(**parameters)
        return answer

    async def from_thread(client: Any, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        # The thread waits for us: it is not at work, so a slow call may take virtual time.
        loop.threads -= 1
        try:
            return await call(client, operation, parameters)
        finally:
            loop.threads += 1

    def make_call(client: Any, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if threading.get_ident() == home:
            return backend.call_now(client.meta.service_model.service_name, xform_name(operation), parameters)
        return asyncio.run_coroutine_threadsafe(from_thread(client, operation, parameters), loop).result()

    before, before_async = BaseClient._make_api_call, AioBaseClient._make_api_call
    BaseClient._make_api_call, AioBaseClient._make_api_call = make_call, call
    try:
        with isolated(_NOWHERE):
            yield
    finally:
        BaseClient._make_api_call, AioBaseClient._make_api_call = before, before_async
