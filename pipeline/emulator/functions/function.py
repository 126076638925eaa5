"""An emulated Lambda function: execution environments that are made when needed, a deadline, and a limit.

What runs an invocation is a `Sandbox`, Lambda's execution environment: a thread of this process (`thread`), a process of
its own behind the runtime API (`process`), or the toolkit's engine on the running loop (`engine`), in virtual time.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipeline.emulator.mappings.answers import Answer, Cause, FunctionFailed, Returned, Throttled
from pipeline.ports import Clock

_log = logging.getLogger(__name__)
#: Lambda's limit for a synchronous response, bytes.
MAX_RESPONSE = 6 * 1024 * 1024
#: Environments of one function that run at once here. More would only share the processors of one machine.
MAX_ENVIRONMENTS = 4


@dataclass(frozen=True, kw_only=True)
class FunctionSettings:
    """What a function is declared with."""

    name: str
    timeout: float = 3  #: seconds, 1 to 900
    memory: int = 128  #: MB; told to the handler, and not enforced
    environment: Mapping[str, str] = field(default_factory=dict)
    reserved_concurrency: int | None = None  #: invocations at once; beyond them they are throttled

    @property
    def arn(self) -> str:
        """An ARN of the form that Lambda gives."""
        return f"arn:aws:lambda:us-east-1:123456789012:function:{self.name}"


@dataclass(frozen=True)
class Invocation:
    """One invocation, as a sandbox gets it."""

    event: Any  #: through JSON: no object of it is shared with the emulator
    request_id: str
    deadline: float  #: on the clock's monotonic time
    clock: Clock
    settings: FunctionSettings

    @property
    def remaining(self) -> float:
        """Seconds until it is ended."""
        return max(0.0, self.deadline - self.clock.monotonic())


class InvocationFailed(Exception):
    """A sandbox says how an invocation failed. `is_usable`: the sandbox can take another one."""

    def __init__(self, cause: Cause, kind: str, message: str, *, is_usable: bool) -> None:
        super().__init__(message)
        self.failure = FunctionFailed(cause, kind, message)
        self.is_usable = is_usable


class Sandbox(Protocol):
    """One execution environment."""

    async def start(self) -> None:
        """Initialise it. Lambda gives this a time of its own. Raises `InvocationFailed` with `Cause.INIT`."""
        ...

    async def invoke(self, invocation: Invocation) -> Any:
        """The handler's return value. Raises `InvocationFailed`. Cancelled at the deadline; it is closed then."""
        ...

    async def close(self) -> None:
        """End it; what hangs in it is left behind, or killed. Waits a few seconds at most."""
        ...


class Function:
    """A function that can be invoked. It answers always, and never raises for what a handler does.

    `concurrency`: sandboxes that run at once on this machine; who comes beyond them waits. Beyond the function's
    reserved concurrency an invocation is throttled instead, as by Lambda.
    """

    def __init__(
        self,
        settings: FunctionSettings,
        make: Callable[[], Sandbox],
        clock: Clock,
        *,
        concurrency: int = MAX_ENVIRONMENTS,
        request_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self.settings = settings
        self.running = 0
        self._make = make
        self._clock = clock
        self._request_id = request_id
        self._slots = asyncio.Semaphore(concurrency)
        self._idle: list[Sandbox] = []
        self._closing: set[asyncio.Task[None]] = set()

    async def invoke(self, event: Any) -> Answer:
        """Run one invocation to its end, or to the function's timeout."""
        limit = self.settings.reserved_concurrency
        if limit is not None and self.running >= limit:
            return Throttled()
        self.running += 1
        try:
            async with self._slots:
                return await self._run(json.loads(json.dumps(event)))
        finally:
            self.running -= 1

    async def close(self) -> None:
        """Close every sandbox, also those that were let go before."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(sandbox.close() for sandbox in idle), *self._closing, return_exceptions=True)

    async def _run(self, event: Any) -> Answer:
        # The one that was used last first, as Lambda does.
        sandbox = self._idle.pop() if self._idle else self._make()
        is_usable = False
        try:
            answer, is_usable = await self._answer(sandbox, event)
            return answer
        finally:
            if is_usable:
                self._idle.append(sandbox)
            else:
                self._let_go(sandbox)

    async def _answer(self, sandbox: Sandbox, event: Any) -> tuple[Answer, bool]:
        try:
            await sandbox.start()
            returned = await self._until_deadline(sandbox, event)
            return Returned(_as_json(returned)), True
        except InvocationFailed as error:
            return error.failure, error.is_usable

    async def _until_deadline(self, sandbox: Sandbox, event: Any) -> Any:
        timeout = self.settings.timeout
        invocation = Invocation(
            event, self._request_id(), self._clock.monotonic() + timeout, self._clock, self.settings
        )
        scope = asyncio.timeout(timeout)
        try:
            async with scope:
                return await sandbox.invoke(invocation)
        except TimeoutError:
            if not scope.expired():
                raise
            raise InvocationFailed(
                Cause.TIMED_OUT, "Sandbox.Timedout",
                f"RequestId: {invocation.request_id} Error: Task timed out after {timeout:.2f} seconds", is_usable=False,
            ) from None  # fmt: skip

    def _let_go(self, sandbox: Sandbox) -> None:
        closing = asyncio.ensure_future(sandbox.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


def _as_json(returned: Any) -> Any:
    """What Lambda sees of a return value is its JSON text."""
    try:
        text = json.dumps(returned, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvocationFailed(
            Cause.UNANSWERABLE, "Runtime.MarshalError", f"Unable to marshal response: {error}", is_usable=True
        ) from None
    if len(text.encode("utf-8", "surrogatepass")) > MAX_RESPONSE:
        raise InvocationFailed(
            Cause.UNANSWERABLE, "Function.ResponseSizeTooLarge",
            f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes).", is_usable=True,
        )  # fmt: skip
    return json.loads(text)
