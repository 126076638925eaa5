"""A stand-in for DynamoDB on loopback, in a process of its own: real state, counted calls, and a latency.

An event loop and a protocol of its own instead of the library's server: that takes some 300 microseconds a call, and
would stand between the client and its figures when fifty calls come at once.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

#: The control operations beside DynamoDB's own: what was counted since the last time; forget everything.
COUNTS, CLEAR = "Counts", "Clear"


class _Connection(asyncio.Protocol):
    """One connection; the client waits for an answer before it sends the next request."""

    def __init__(self, tables: Any, latency: float) -> None:
        self._tables = tables
        self._latency = latency
        self._received = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        headers = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
        if len(body) < int(headers[b"content-length"]):
            return
        self._received = b""
        operation = next(
            line.rpartition(b".")[2].decode()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"x-amz-target:")
        )
        is_control = operation in (COUNTS, CLEAR)
        answer = self._answer(operation, body)
        asyncio.get_running_loop().call_later(0 if is_control else self._latency, self._transport.write, answer)

    def _answer(self, operation: str, body: bytes) -> bytes:
        from benchmarks.dynamodb_tables import Refused

        status = "200 OK"
        try:
            if operation == COUNTS:
                said: Any = self._tables.counts()
            elif operation == CLEAR:
                said = self._tables.clear()
            else:
                said = self._tables.answer(operation, orjson.loads(body))
        except Refused as refused:
            status, said = "400 Bad Request", refused.answer
        except Exception as error:
            # A refusal that no client tries again: what the stub does not know must end the measurement.
            status, said = "400 Bad Request", {"__type": "ValidationException", "message": f"the stub: {error!r}"}
            print(f"the stub does not know how to answer {operation}: {error!r}", file=sys.stderr, flush=True)
        text = orjson.dumps(said)
        head = (
            f"HTTP/1.1 {status}\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {len(text)}\r\n"
            "x-amzn-RequestId: QGTMM6R3DKD4MDTHEXAMPLE\r\n\r\n"
        )
        return head.encode() + text


@contextmanager
def running(latency: float) -> Iterator[str]:
    """The stub in a process of its own, with `latency` seconds before each answer; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.dynamodb_stub", str(latency)],
        cwd=Path(__file__).parent.parent,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


def control(url: str, operation: str) -> Any:
    """Call a control operation of the stub at `url`."""
    request = urllib.request.Request(url, b"{}", {"X-Amz-Target": f"Stub.{operation}"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


async def _serve(latency: float) -> None:
    from benchmarks.dynamodb_tables import Tables

    tables = Tables()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(tables, latency), "127.0.0.1", 0, backlog=1_000)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
