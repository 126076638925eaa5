"""What listens at an endpoint is found out within seconds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from pipeline.emulator import probe as probing
from pipeline.emulator.probe import probe
from pipeline.errors import ConfigurationError


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[str]:
    """A server that answers all alike; None: never."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if answer is None:
            await reader.read()  # until it goes away
        else:
            writer.write(answer)
        writer.close()
        done.set()

    done = asyncio.Event()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await done.wait()


async def test_an_aws_server_is_recognised(moto_endpoint: str) -> None:
    await probe(moto_endpoint)


async def test_one_that_knows_no_queues_is_one_too() -> None:
    """DynamoDB Local refuses the call, in its own words."""
    head = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: 0\r\n\r\n"
    async with answering(head) as url:
        await probe(url)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.0 501 Unsupported method\r\nContent-Type: text/html\r\n\r\n<html>", "is no AWS server: .*501"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is no AWS server: .*SSH-2.0"),
        (b"", "no AWS server answers there"),
        (b"x" * 200_000, "no AWS server answers there"),
    ],
)
async def test_something_else_is_named(answer: bytes, message: str) -> None:
    async with answering(answer) as url:
        with pytest.raises(ConfigurationError, match=message):
            await probe(url)


async def test_one_that_is_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_ANSWER_SECONDS", 0.05)
    async with answering(None) as url:
        with pytest.raises(ConfigurationError, match="something listens there, and does not answer"):
            await probe(url)


async def test_nothing_listens() -> None:
    with socket.socket() as bound:  # taken, and nobody accepts
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=r"no AWS server answers there: .*is it started"):
            await probe(url)
