"""boto3 and aiobotocore on services in memory: for handlers that make their own clients, in this process.

Their clients keep what is theirs, but for the check of parameters against the service's model; only the call itself goes
to the services in memory instead of a network. A service that is not in memory is refused: nothing ever reaches AWS.
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
from botocore.exceptions import ClientError

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
        given, context = _prepared(client, operation, parameters)
        try:
            if threading.get_ident() == home:
                service: str = client.meta.service_model.service_name
                answer = backend.call_now(service, xform_name(operation), given)
            else:
                answer = asyncio.run_coroutine_threadsafe(from_thread(client, operation, given), loop).result()
        except ClientError as error:
            raise _own(client, error, operation) from None
        return _finished(client, operation, answer, context)

    async def make_async_call(client: Any, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return await call(client, operation, parameters)
        except ClientError as error:
            raise _own(client, error, operation) from None

    before, before_async = BaseClient._make_api_call, AioBaseClient._make_api_call
    BaseClient._make_api_call, AioBaseClient._make_api_call = make_call, make_async_call
    try:
        with isolated(_NOWHERE):
            yield
    finally:
        BaseClient._make_api_call, AioBaseClient._make_api_call = before, before_async


def _prepared(client: Any, operation: str, parameters: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What boto3's own hooks make of the parameters: a table resource turns values into DynamoDB's own, say."""
    model = client.meta.service_model.operation_model(operation)
    context: dict[str, Any] = {"client_region": client.meta.region_name, "client_config": client.meta.config}
    given: dict[str, Any] = client._emit_api_params(api_params=dict(parameters), operation_model=model, context=context)
    return given, context


def _finished(client: Any, operation: str, answer: dict[str, Any], context: dict[str, Any]) -> dict[str, Any]:
    """What they make of the answer."""
    model = client.meta.service_model.operation_model(operation)
    event = f"after-call.{client.meta.service_model.service_id.hyphenize()}.{operation}"
    client.meta.events.emit(event, http_response=None, parsed=answer, model=model, context=context)
    return answer


def _own(client: Any, error: ClientError, operation: str) -> ClientError:
    """The error as this client raises it: code catches `client.exceptions.ConditionalCheckFailedException`."""
    kind: type[ClientError] = client.exceptions.from_code(error.response["Error"]["Code"])
    return kind(error.response, operation)
