"""What functions' processes write, without saying again why the next one does not start either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pipeline.emulator.functions.function import Invocation, InvocationFailed, Sandbox
from pipeline.emulator.functions.process import Output
from pipeline.emulator.mappings.answers import FunctionFailed


class Once:
    """What the environments of one function write. A handler that does not import is tried with each batch that comes."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._failure: FunctionFailed | None = None  #: why the last one did not start

    def sandbox(self, make: Callable[[Output], Sandbox]) -> Sandbox:
        """An environment whose start is told when it ended."""
        return _Told(make, self)

    def began(self, lines: list[str], failure: FunctionFailed | None) -> bool:
        """An environment started, or did not, and wrote this; False: that was said before."""
        is_new = failure is None or failure != self._failure
        self._failure = failure
        if is_new:
            for line in lines:
                self._output(line)
        return is_new

    def write(self, line: str) -> None:
        """Hand a line on."""
        self._output(line)


class _Told:
    """See `Sandbox`."""

    def __init__(self, make: Callable[[Output], Sandbox], once: Once) -> None:
        self._once = once
        self._lines: list[str] | None = []  #: what it wrote while it started
        self._is_silent = False
        self._sandbox = make(self._take)

    async def start(self) -> None:
        """See `Sandbox`."""
        failure: FunctionFailed | None = None
        try:
            await self._sandbox.start()
        except InvocationFailed as error:
            failure = error.failure
            raise
        finally:
            lines, self._lines = self._lines, None
            if lines is not None:
                self._is_silent = not self._once.began(lines, failure)

    async def invoke(self, invocation: Invocation) -> Any:
        """See `Sandbox`."""
        return await self._sandbox.invoke(invocation)

    async def close(self) -> None:
        """See `Sandbox`."""
        await self._sandbox.close()

    def _take(self, line: str) -> None:
        if self._lines is not None:
            self._lines.append(line)
        elif not self._is_silent:
            self._once.write(line)
