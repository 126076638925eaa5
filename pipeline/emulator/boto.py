"""boto3 and aiobotocore on services in memory: for handlers that make their own clients, in this process.

Their clients keep all that is theirs: the check of parameters, the hooks of boto3's resources and of stubs, the classes of
exceptions. Only the request itself goes to the services in memory instead of a network, once: botocore would try some
errors again. A service that is not in memory is refused, unless moto's own mock was active before, which then answers.
"""

from __future__ import annotations

import asyncio
import inspect
import io
import os
import sys
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any
from weakref import WeakSet

from botocore import xform_name
from botocore.awsrequest import AWSResponse
from botocore.client import BaseClient
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from botocore.response import StreamingBody
from botocore.signers import RequestSigner

from pipeline.emulator.backend import MemoryBackend
from pipeline.emulator.functions.thread import end_if_given_up
from pipeline.emulator.isolation import isolated
from pipeline.emulator.services.client import Around
from pipeline.emulator.services.objects import ObjectBody
from pipeline.emulator.services.trace_header import HEADER, in_call
from pipeline.emulator.virtual import WORK, VirtualLoop, Work
from pipeline.errors import PipelineError

#: Stands between the calls of the running invocation and the services; a sandbox sets it.
AROUND: ContextVar[Around | None] = ContextVar("AROUND", default=None)
#: Nobody listens there: what gets around the clients finds nothing.
_NOWHERE = "http://127.0.0.1:9"
#: Where a call's parameters stand in botocore's own context of the request.
_PARAMETERS = "parameters_in_memory"

Answer = tuple[Any, dict[str, Any]]
#: A method of a class, and what makes another of it.
_Change = tuple[type, str, Callable[[Any], Any]]
#: Threads that an emulator has left behind. Their calls would reach the network with the developer's own credentials.
_left_behind: WeakSet[threading.Thread] = WeakSet()


@contextmanager
def boto3_in_memory(backend: MemoryBackend, loop: VirtualLoop) -> Generator[None, None, None]:
    """While the block lasts, boto3's and aiobotocore's clients of this process call the services in memory.

    Threads that were started in the block are refused by all clients after it.
    """
    from aiobotocore.client import AioBaseClient
    from aiobotocore.httpsession import AIOHTTPSession

    calls = _Calls(backend, loop)
    before = set(threading.enumerate())
    changes: list[_Change] = [
        (BaseClient, "_convert_to_request_dict", _kept),
        (BaseClient, "_make_request", calls.make),
        (AioBaseClient, "_convert_to_request_dict", _kept),
        (AioBaseClient, "_make_request", calls.make_async),
        # What signs without a call, such as a URL for an upload, signs with nobody's keys.
        (RequestSigner, "get_auth_instance", _as_nobody),
        (URLLib3Session, "send", _refused),
        (AIOHTTPSession, "send", _refused),
    ]
    try:
        with _changed(changes), isolated(_NOWHERE):
            if _is_mocked():  # moto knows services by AWS's own endpoints
                del os.environ["AWS_ENDPOINT_URL"]
            yield
    finally:
        _leave_behind(thread for thread in threading.enumerate() if thread not in before)


class _Calls:
    """Makes clients' calls on the services in memory, whatever thread or loop they come from."""

    def __init__(self, backend: MemoryBackend, loop: VirtualLoop) -> None:
        self._backend = backend
        self._loop = loop
        self._home = threading.get_ident()
        self._lock = threading.Lock()

    def make(self, original: Callable[..., Answer]) -> Callable[..., Answer]:
        """A client's `_make_request`. `original`: its own."""

        def make_request(client: Any, model: Any, request: Any, context: Mapping[str, Any]) -> Answer:
            service, operation, parameters = _call_of(client, model, request, context)
            if _is_mocked() and service not in self._backend.services:
                return original(client, model, request, context)
            self._check(service, operation)
            return _answered(lambda: self._called(service, operation, parameters), _with_body)

        return make_request

    def make_async(self, original: Callable[..., Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
        """An aiobotocore client's."""

        async def make_request(client: Any, model: Any, request: Any, context: Mapping[str, Any]) -> Answer:
            service, operation, parameters = _call_of(client, model, request, context)
            if _is_mocked() and service not in self._backend.services:
                return await original(client, model, request, context)
            self._check(service, operation)
            try:
                if threading.get_ident() == self._home:
                    return _response(200), await self._call(service, operation, parameters)
                work = self._from_thread(WORK.get(), service, operation, parameters)
                return _response(200), await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))
            except ClientError as error:
                return _failed(error)

        return make_request

    def _check(self, service: str, operation: str) -> None:
        client = self._backend.client(service)
        if not hasattr(client, operation):
            raise PipelineError(f"the {service} service in memory has no {operation}: see docs/emulator.md")

    def _called(self, service: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        if threading.get_ident() == self._home or not self._loop.is_running():
            with self._lock:
                return self._backend.call_now(service, operation, parameters)
        end_if_given_up()
        work = self._from_thread(WORK.get(), service, operation, parameters)
        try:
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()
        finally:
            end_if_given_up()

    async def _from_thread(
        self, work: Work | None, service: str, operation: str, parameters: Mapping[str, Any]
    ) -> dict[str, Any]:
        with self._loop.stranger_calls() if work is None else work.waits():
            return await self._call(service, operation, parameters)

    async def _call(self, service: str, operation: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
        made = self._backend.client(service, around=AROUND.get())
        answer: dict[str, Any] = await getattr(made, operation)(**parameters)
        return answer


def _is_mocked() -> bool:
    """moto's `mock_aws` is active."""
    moto = sys.modules.get("moto.core.models")
    return moto is not None and bool(moto.botocore_stubber.enabled)


def _call_of(client: Any, model: Any, request: Any, context: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    service, operation = client.meta.service_model.service_name, xform_name(model.name)
    header = request["headers"].get(HEADER)
    return service, operation, in_call(service, operation, context[_PARAMETERS], header)


def _answered(call: Callable[[], dict[str, Any]], read: Callable[[dict[str, Any]], dict[str, Any]]) -> Answer:
    try:
        return _response(200), read(call())
    except ClientError as error:
        return _failed(error)


def _failed(error: ClientError) -> Answer:
    """An error as the service tells it: the client makes its own exception of that."""
    parsed: Any = error.response
    return _response(parsed["ResponseMetadata"]["HTTPStatusCode"]), parsed


def _response(status: int) -> AWSResponse:
    return AWSResponse(_NOWHERE, status, {}, io.BytesIO())


def _with_body(answer: dict[str, Any]) -> dict[str, Any]:
    """An object's bytes as boto3 reads them, without awaiting."""
    body = answer.get("Body")
    return answer if not isinstance(body, ObjectBody) else {**answer, "Body": _streaming(body.left)}


def _streaming(data: bytes) -> StreamingBody:
    return StreamingBody(io.BytesIO(data), len(data))


def _kept(original: Callable[..., Any]) -> Callable[..., Any]:
    """Keep a call's parameters in its context: what is made of them next is bytes for a network."""

    def convert(
        client: Any, api_params: Any, operation_model: Any, endpoint_url: str, context: Any, **given: Any
    ) -> Any:
        context[_PARAMETERS] = api_params
        return original(client, api_params, operation_model, endpoint_url, context, **given)

    return convert


def _as_nobody(original: Callable[..., Any]) -> Callable[..., Any]:
    def get_auth_instance(signer: Any, *args: Any, **given: Any) -> Any:
        given.setdefault("request_credentials", Credentials("testing", "testing", "testing"))
        return original(signer, *args, **given)

    return get_auth_instance


def _refused(original: Callable[..., Any]) -> Callable[..., Any]:
    """Send nothing but to this machine."""

    def check(request: Any) -> None:
        if not request.url.startswith(("http://127.0.0.1", "http://localhost")):
            raise PipelineError("an emulator is open: nothing is sent over the network")

    def send(session: Any, request: Any) -> Any:
        check(request)
        return original(session, request)

    async def send_async(session: Any, request: Any) -> Any:
        check(request)
        return await original(session, request)

    return send_async if inspect.iscoroutinefunction(original) else send


@contextmanager
def _changed(changes: Sequence[_Change]) -> Generator[None, None, None]:
    saved = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    for owner, name, change in changes:
        setattr(owner, name, change(getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, original in saved:
            setattr(owner, name, original)


def _leave_behind(threads: Iterable[threading.Thread]) -> None:
    """Refuse the calls of these threads from now on, for the life of the process."""
    _left_behind.update(threads)
    name = "_make_request"
    original: Any = getattr(BaseClient, name)
    if _left_behind and not isinstance(original, _Guarded):
        setattr(BaseClient, name, _Guarded(original))


class _Guarded:
    """A client's `_make_request` that refuses threads that were left behind."""

    def __init__(self, original: Callable[..., Answer]) -> None:
        self._original = original

    def __get__(self, client: Any, owner: type | None = None) -> Callable[..., Answer]:
        return self if client is None else partial(self, client)

    def __call__(self, client: Any, *args: Any) -> Answer:
        if threading.current_thread() in _left_behind:
            raise PipelineError("the emulator that this thread was started in is closed: nothing is sent to AWS")
        return self._original(client, *args)
