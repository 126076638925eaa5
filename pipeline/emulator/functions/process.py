"""An execution environment in a process of its own, which runs AWS's own runtime client for Python.

Nothing is shared with this process: modules, variables, the working directory. At the deadline it is killed. What Lambda
does and this does not: between invocations a process is not frozen, so that its threads go on; and its memory is not
limited.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, STDOUT, Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pipeline.emulator.functions import environment
from pipeline.emulator.functions.context import log_stream
from pipeline.emulator.functions.function import FunctionSettings, Invocation, InvocationFailed, beside_the_loop
from pipeline.emulator.functions.runtime_api import RuntimeApi
from pipeline.emulator.mappings.answers import Cause

_BOOTSTRAP = Path(__file__).with_name("bootstrap.py")
_CLOSE_SECONDS = 5.0
_PIECE = 64 * 1024
#: A pipe holds at most 1 MiB (Linux's pipe-max-size as it is set).
_PIPE_PIECES = 16
_numbers = itertools.count(1)

Output = Callable[[str], object]


def to_stdout(line: str) -> None:
    """Write to what is `sys.stdout` at the moment."""
    sys.stdout.write(line)


class ProcessSandbox:
    """One execution environment: a process of `awslambdaric`, fed by a runtime API of its own.

    `handler`: as Lambda takes it, "package.module.function". `root`: the directory of the function's code, where the
    process runs. `endpoint_url`: where it finds AWS; one of AWS's own is refused. `output`: gets what the process
    writes to stdout and stderr, line by line. Raises `ConfigurationError`.

    When this process ends, however, the other one ends with it, and what it started too.
    """

    def __init__(
        self,
        handler: str,
        settings: FunctionSettings,
        *,
        root: Path,
        endpoint_url: str,
        output: Output = to_stdout,
        python: str | Path = sys.executable,
    ) -> None:
        self._handler = handler
        self._root = root.absolute()
        stream = log_stream(time.gmtime(), next(_numbers))
        self._variables = environment.variables(settings, handler, self._root, endpoint_url, stream)
        self._python = str(python)
        self._output = output
        self._api: RuntimeApi | None = None
        self._process: Process | None = None
        self._lifeline: int | None = (
            None  #: held open for as long as this process lives; its end is how the other notices
        )
        self._log: Log | None = None
        self._watching: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process's id, once it was started."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start the process, unless it is, and wait until it asks for an invocation. Raises `InvocationFailed`."""
        if self._api is not None:
            return
        self._api = api = RuntimeApi()
        with beside_the_loop():
            try:
                self._process = await self._spawn(await api.start())
            except OSError as error:
                raise InvocationFailed(
                    Cause.INIT, "Runtime.InvalidEntrypoint", f"no process was started in {self._root}: {error}",
                    is_usable=False,
                ) from error  # fmt: skip
        self._watching = asyncio.create_task(_watch(self._process, api))
        await self._hear(api.initialised)

    async def invoke(self, invocation: Invocation) -> Any:
        """The response as its bytes. Raises `InvocationFailed`."""
        assert self._api is not None
        return await self._hear(self._api.invoke(invocation))

    async def close(self) -> None:
        """Kill the process, and close the port. As in Lambda it hears nothing of it before."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _spawn(self, address: str) -> Process:
        lifeline, self._lifeline = os.pipe()
        log, written = os.pipe()
        self._log = Log(log, self._output)
        try:
            return await asyncio.create_subprocess_exec(
                self._python, "-P", str(_BOOTSTRAP), str(os.getpid()), str(lifeline), self._handler,
                cwd=self._root, env={**self._variables, "AWS_LAMBDA_RUNTIME_API": address},
                stdin=DEVNULL, stdout=written, stderr=STDOUT, pass_fds=(lifeline,), start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(lifeline)
            os.close(written)

    async def _hear(self, answer: Awaitable[Any]) -> Any:
        try:
            with beside_the_loop():
                return await answer
        except asyncio.CancelledError:
            self._kill()
            raise
        finally:
            assert self._log is not None
            self._log.read()

    def _kill(self) -> None:
        """The process, and what it started: they are one group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # they have ended
                os.killpg(self._process.pid, signal.SIGKILL)

    async def _close(self) -> None:
        self._kill()
        if self._watching is not None:
            with beside_the_loop():
                await asyncio.wait([self._watching], timeout=_CLOSE_SECONDS)
        if self._api is not None:
            await self._api.close()
        if self._log is not None:
            self._log.close()
        if self._lifeline is not None:
            os.close(self._lifeline)


async def _watch(process: Process, api: RuntimeApi) -> None:
    status = await process.wait()
    how = f"exit status {status}" if status else None
    if status < 0:
        how = f"signal: {(signal.strsignal(-status) or str(-status)).lower()}"
    api.ended(how)


class Log:
    """The reading end of what a process writes: whole lines are handed on as they come."""

    def __init__(self, pipe: int, output: Output) -> None:
        self._pipe = pipe
        self._output = output
        self._begun = b""  #: of a line whose end is still to come
        os.set_blocking(pipe, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(pipe, self._read_once)

    def read(self) -> None:
        """Hand on what was written until now: at most what the pipe holds, for it may be filled meanwhile."""
        for _ in range(_PIPE_PIECES):
            if not self._read_once():
                return

    def close(self) -> None:
        """Hand on what is left, and close the pipe."""
        self.read()
        if self._begun:
            self._hand_on(self._begun + b"\n")
        self._loop.remove_reader(self._pipe)
        os.close(self._pipe)

    def _read_once(self) -> bool:
        try:
            piece = os.read(self._pipe, _PIECE)
        except BlockingIOError:
            return False
        if not piece:  # nobody can write any more
            self._loop.remove_reader(self._pipe)
            return False
        *lines, self._begun = (self._begun + piece).split(b"\n")
        for line in lines:
            self._hand_on(line + b"\n")
        return True

    def _hand_on(self, line: bytes) -> None:
        # The runtime parts the lines of a traceback by carriage returns, because CloudWatch takes a line for an entry.
        self._output(line.decode(errors="replace").replace("\r", "\n"))
