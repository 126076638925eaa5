"""Lambda's runtime API on a loopback port: the side of the service, for one execution environment.

Lambda developer guide, "Using the Lambda runtime API": a runtime asks for the next invocation, and posts its response or
its error; one that cannot start posts that.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.emulator.functions.function import MAX_RESPONSE, Invocation, InvocationFailed, exited, too_large
from pipeline.emulator.mappings.answers import Cause

_PREFIX = "/2018-06-01/runtime/"
#: Of one header, bytes: the runtime puts up to 1 MB of a fault's frames into one.
_MAX_HEADER = 2 * 1024 * 1024
_PIECE = 64 * 1024
_REASONS = {200: "OK", 202: "Accepted", 400: "Bad Request", 404: "Not Found", 413: "Payload Too Large"}
_MARSHAL = "Runtime.MarshalError"


@dataclass(frozen=True)
class _Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None  #: None: longer than a response may be


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class RuntimeApi:
    """What a runtime asks and tells. One invocation at a time."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.initialised: asyncio.Future[None] = loop.create_future()
        """Done when the runtime asks for its first invocation. Raises `InvocationFailed`."""
        self._invocations: asyncio.Queue[Invocation] = asyncio.Queue()
        self._answer: asyncio.Future[bytes] = loop.create_future()
        self._request_id: str | None = None  #: of the invocation that runs
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    async def start(self) -> str:
        """Listen on a free loopback port; returns host and port."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=_MAX_HEADER)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def invoke(self, invocation: Invocation) -> bytes:
        """The response, as it was posted. Raises `InvocationFailed`."""
        self._request_id, self._answer = invocation.request_id, asyncio.get_running_loop().create_future()
        self._invocations.put_nowait(invocation)
        try:
            return await self._answer
        finally:
            self._request_id = None

    def ended(self, how: str | None) -> None:
        """The runtime's process is gone: whoever waits for it hears so. `how`: as for `exited`."""
        if not self.initialised.done():
            self.initialised.set_exception(exited(Cause.INIT, "-", how))
        elif not self._answer.done() and self._request_id is not None:
            self._answer.set_exception(exited(Cause.EXITED, self._request_id, how))

    async def close(self) -> None:
        """Close the port and every connection."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            await self._serve(reader, writer)
        except (ConnectionError, EOFError, ValueError, asyncio.CancelledError):
            pass  # it went away, or does not speak HTTP, or we are closing: then this task ends
        finally:
            self._connections.discard(connection)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await _read(reader, writer)) is not None:
            answer = await self._respond(request)
            lines = [f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}", f"Content-Length: {len(answer.body)}"]
            lines += [f"{name}: {value}" for name, value in answer.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode() + answer.body)
            await writer.drain()

    async def _respond(self, request: _Request) -> _Answer:
        if not request.path.startswith(_PREFIX):
            return _Answer(404)
        match request.method, request.path.removeprefix(_PREFIX).split("/"):
            case "GET", ["invocation", "next"]:
                return await self._next()
            case "POST", ["init", "error"]:
                return self._init_failed(request)
            case "POST", ["invocation", identifier, ("response" | "error") as kind]:
                return self._invoked(identifier, kind, request)
            case _:
                return _Answer(404)

    async def _next(self) -> _Answer:
        if not self.initialised.done():
            self.initialised.set_result(None)
        invocation = await self._invocations.get()
        deadline = time.time() + invocation.remaining  # the process reads the machine's clock
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
            "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": invocation.settings.arn,
            "Lambda-Runtime-Trace-Id": invocation.trace_header,
        }
        return _Answer(200, json.dumps(invocation.event).encode(), headers)

    def _invoked(self, identifier: str, kind: str, request: _Request) -> _Answer:
        if identifier != self._request_id or self._answer.done():
            return _Answer(400, b'{"errorMessage": "Invalid request ID", "errorType": "InvalidRequestID"}')
        if request.body is None:
            # The runtime ends when its response is refused, here as in Lambda.
            self._answer.set_exception(too_large(is_usable=False))
            error = {"errorMessage": f"Exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."}
            return _Answer(413, json.dumps({**error, "errorType": "RequestEntityTooLarge"}).encode())
        if kind == "response":
            self._answer.set_result(request.body)
        else:
            self._answer.set_exception(_failure(Cause.RAISED, request))
        return _Answer(202)

    def _init_failed(self, request: _Request) -> _Answer:
        if not self.initialised.done():
            self.initialised.set_exception(_failure(Cause.INIT, request))
        return _Answer(202)


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> _Request | None:
    """The next request of a connection; None at its end. Raises `ValueError` for what is no HTTP."""
    line = (await reader.readline()).decode("latin-1").split()
    if not line:
        return None
    method, path, _ = line
    headers: dict[str, str] = {}
    while (header := (await reader.readline()).decode("latin-1").strip()) != "":
        name, _, value = header.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return _Request(method, path, headers, await _body(reader, headers))


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes | None:
    """The body; None when it is longer than a response may be. It is read to its end all the same."""
    pieces: list[bytes] = []
    size = 0
    async for piece in _pieces(reader, headers):
        size += len(piece)
        if size <= MAX_RESPONSE:
            pieces.append(piece)
        else:
            pieces.clear()
    return None if size > MAX_RESPONSE else b"".join(pieces)


async def _pieces(reader: asyncio.StreamReader, headers: dict[str, str]) -> AsyncIterator[bytes]:
    if headers.get("transfer-encoding", "").lower() != "chunked":
        async for piece in _exactly(reader, int(headers.get("content-length", 0))):
            yield piece
        return
    while size := int(await reader.readline(), 16):
        async for piece in _exactly(reader, size):
            yield piece
        await reader.readline()
    while (await reader.readline()).strip():
        pass  # trailers


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    while size > 0:
        piece = await reader.readexactly(min(size, _PIECE))
        size -= len(piece)
        yield piece


def _failure(cause: Cause, request: _Request) -> InvocationFailed:
    """The error that a runtime posted: an object with its type, its message and a stack trace, which it also logged."""
    said: Any = None
    with contextlib.suppress(ValueError):
        said = json.loads(request.body or b"")
    document: dict[str, Any] = said if isinstance(said, dict) else {}
    kind = str(document.get("errorType") or request.headers.get("lambda-runtime-function-error-type") or "Error")
    message = str(document.get("errorMessage") or "")
    if cause is Cause.RAISED and kind == _MARSHAL:
        cause = Cause.UNANSWERABLE
    return InvocationFailed(cause, kind, message, is_usable=cause is not Cause.INIT)
