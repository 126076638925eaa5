"""An emulated Lambda function: execution environments that are made when needed, a deadline, and a limit.

What runs an invocation is a `Sandbox`, Lambda's execution environment: a thread of this process (`thread`), a process of
its own behind the runtime API (`process`), or the toolkit's engine on the running loop (`engine`), in virtual time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from pipeline.emulator.mappings.answers import Answer, Cause, FunctionFailed, Returned, Throttled, Unheard
from pipeline.emulator.mappings.settings import function_arn
from pipeline.emulator.virtual import Work, within
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError
from pipeline.ports import Clock

_log = logging.getLogger(__name__)
#: Lambda's limit for a synchronous response, bytes: documented as 6 MB, and 6291556 in the error that it gives.
MAX_RESPONSE = 6 * 1024 * 1024 + 100
#: What initialising may take, seconds; after that it begins again, on the invocation's own time
#: (Lambda developer guide, "Lambda execution environment", Init phase).
INIT_SECONDS = 10.0
#: Environments of one function that run at once here. More would only share the processors of one machine.
MAX_ENVIRONMENTS = 4


@dataclass(frozen=True, kw_only=True)
class FunctionSettings:
    """What a function is declared with."""

    name: str
    timeout: float = 3  #: seconds, up to 900; Lambda takes whole ones
    memory: int = 128  #: MB, 128 to 10,240; told to the handler, and not enforced
    environment: Mapping[str, str] = field(default_factory=dict)
    reserved_concurrency: int | None = None  #: invocations at once, 0 or more; beyond them they are throttled

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` for what Lambda would refuse ("Lambda quotas" and `CreateFunction`)."""
        if not _is_number(self.timeout, int | float) or not 0 < self.timeout <= 900:
            raise ConfigurationError(f"{self.name}: timeout={self.timeout!r}: give seconds, up to 900")
        if not _is_number(self.memory, int) or not 128 <= self.memory <= 10_240:
            raise ConfigurationError(f"{self.name}: memory={self.memory!r}: give 128 to 10,240 MB")
        limit = self.reserved_concurrency
        if limit is not None and (not _is_number(limit, int) or limit < 0):
            raise ConfigurationError(
                f"{self.name}: reserved_concurrency={limit!r}: give a whole number from 0, or None"
            )
        variables: Mapping[Any, Any] = self.environment
        for name, value in variables.items():
            if not isinstance(name, str) or not isinstance(value, str):
                raise ConfigurationError(f"{self.name}: environment={{{name!r}: ...}}: names and values are texts")

    @property
    def arn(self) -> str:
        """An ARN of the form that Lambda gives."""
        return function_arn(self.name)


def function_settings(stage: Stage) -> FunctionSettings:
    """A handler's function, as it is declared."""
    deploy = stage.deploy
    name = f"{stage.pipeline}-{stage.name}"
    return FunctionSettings(name=name, timeout=deploy.timeout, memory=deploy.memory, environment=deploy.environment)


def _is_number(value: object, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


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

    @property
    def trace_header(self) -> str:
        """X-Ray's header, not sampled: a new trace, as Lambda makes it where nobody traces. Libraries expect one."""
        number = "".join(sign for sign in self.request_id.lower() if sign in "0123456789abcdef").ljust(24, "0")
        return f"Root=1-{int(self.clock.now()):08x}-{number[:24]};Parent={number[:16]};Sampled=0"


class InvocationFailed(Exception):
    """A sandbox says how an invocation failed. `is_usable`: the sandbox can take another one.

    What the handler itself raised is the `__cause__`, where it is known in this process.
    """

    def __init__(self, cause: Cause, kind: str, message: str, *, is_usable: bool) -> None:
        super().__init__(message)
        self.failure = FunctionFailed(cause, kind, message)
        self.is_usable = is_usable


class Sandbox(Protocol):
    """One execution environment. It takes one invocation at a time."""

    async def start(self) -> None:
        """Initialise it, unless it is. Raises `InvocationFailed` with `Cause.INIT`, and nothing else."""
        ...

    async def invoke(self, invocation: Invocation) -> Any:
        """The handler's return value. Raises `InvocationFailed`. Cancelled at the deadline; it is closed then."""
        ...

    async def close(self) -> None:
        """End it, also while it starts or runs; what hangs in it is left behind, or killed.

        Waits a few seconds at most. It may be called twice.
        """
        ...


def beside_the_loop() -> AbstractContextManager[Work | None]:
    """While the block lasts a thread or a process is at work: a virtual clock must not jump."""
    passing: Callable[[], AbstractContextManager[Work | None]] = getattr(
        asyncio.get_running_loop(), "thread_works", contextlib.nullcontext
    )
    return passing()


def exited(cause: Cause, request_id: str, how: str | None) -> InvocationFailed:
    """The failure of a runtime that ended, in Lambda's words. `how`: "exit status 1", "signal: killed"; None for 0."""
    reason = "Runtime exited without providing a reason" if how is None else f"Runtime exited with error: {how}"
    return InvocationFailed(cause, "Runtime.ExitError", f"RequestId: {request_id} Error: {reason}", is_usable=False)


def too_large(*, is_usable: bool) -> InvocationFailed:
    """The failure of an invocation whose response is larger than Lambda takes."""
    message = f"Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."
    return InvocationFailed(Cause.UNANSWERABLE, "Function.ResponseSizeTooLarge", message, is_usable=is_usable)


class Function:
    """A function that can be invoked. It answers always, and never raises for what a handler does.

    `concurrency`: sandboxes that run at once on this machine; who comes beyond them waits. Beyond the function's
    reserved concurrency an invocation is throttled instead, as by Lambda. `is_ended_late`: at the deadline it is over;
    otherwise nothing ends it, so that one can stand at a breakpoint, and its context says that no time is left. `turn`: what
    an invocation waits for before its time begins, and gives back at its end.
    """

    def __init__(
        self,
        settings: FunctionSettings,
        make: Callable[[], Sandbox],
        clock: Clock,
        *,
        concurrency: int = MAX_ENVIRONMENTS,
        is_ended_late: bool = True,
        request_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        turn: Callable[[], AbstractAsyncContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self.settings = settings
        self.running = 0
        self._make = make
        self._clock = clock
        self._request_id = request_id
        self._turn = turn
        self._is_ended_late = is_ended_late
        self._slots = asyncio.Semaphore(concurrency)
        self._idle: list[Sandbox] = []
        self._busy: set[Sandbox] = set()
        self._stale: set[Sandbox] = set()
        self._not_started: FunctionFailed | None = None  #: why the last sandbox did not
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def invoke(self, event: Any) -> Answer:
        """Run one invocation to its end, or to the function's timeout."""
        limit = self.settings.reserved_concurrency
        if limit is not None and self.running >= limit:
            return Throttled()
        self.running += 1
        try:
            async with self._slots, self._turn():
                if self._is_closed:  # it may have been closed while this one waited
                    return Unheard()
                return await self._run(json.loads(json.dumps(event)))
        finally:
            self.running -= 1

    def renew(self, make: Callable[[], Sandbox]) -> None:
        """From now on sandboxes are made anew, by `make`; invocations that run end where they began."""
        self._make = make
        for sandbox in self._idle:
            self._let_go(sandbox)
        self._idle.clear()
        self._stale |= self._busy

    async def close(self) -> None:
        """Close every sandbox. Invocations that still run end as failed."""
        self._is_closed = True
        for sandbox in [*self._idle, *self._busy]:
            self._let_go(sandbox)
        self._idle.clear()
        while self._closing:
            await asyncio.wait(self._closing)

    async def _run(self, event: Any) -> Answer:
        try:
            sandbox, is_started = await self._take()
        except InvocationFailed as error:
            return self._failed_to_start(error)
        self._not_started = None
        is_usable = False
        try:
            returned = _as_json(await self._until_deadline(sandbox, event, is_started=is_started))
            is_usable = True
            return Returned(returned)
        except InvocationFailed as error:
            is_usable = error.is_usable
            return self._failed(error)
        finally:
            self._busy.discard(sandbox)
            is_stale = sandbox in self._stale
            self._stale.discard(sandbox)
            if is_usable and not self._is_closed and not is_stale:
                self._idle.append(sandbox)
            else:
                self._let_go(sandbox)

    async def _take(self) -> tuple[Sandbox, bool]:
        """A sandbox, busy from now on, and whether it is started."""
        first, is_started = self._idle_or_new(), False
        try:
            with within(INIT_SECONDS):
                async with asyncio.timeout(INIT_SECONDS):
                    await first.start()
            is_started = True
            return first, True
        except TimeoutError:
            _log.warning("%s: initialising took more than %s s, and begins again", self.settings.name, INIT_SECONDS)
        finally:
            if not is_started:
                self._busy.discard(first)
                self._stale.discard(first)
                self._let_go(first)
        return self._idle_or_new(), False

    def _idle_or_new(self) -> Sandbox:
        # The one that was used last first, as Lambda does.
        sandbox = self._idle.pop() if self._idle else self._make()
        self._busy.add(sandbox)
        return sandbox

    async def _until_deadline(self, sandbox: Sandbox, event: Any, *, is_started: bool) -> Any:
        timeout = self.settings.timeout
        invocation = Invocation(
            event, self._request_id(), self._clock.monotonic() + timeout, self._clock, self.settings
        )
        scope = asyncio.timeout(timeout if self._is_ended_late else None)
        try:
            with within(timeout if self._is_ended_late else math.inf):
                async with scope:
                    if not is_started:
                        await sandbox.start()
                    return await sandbox.invoke(invocation)
        except TimeoutError:
            if not scope.expired():
                raise
            raise InvocationFailed(
                Cause.TIMED_OUT, "Sandbox.Timedout",
                f"RequestId: {invocation.request_id} Error: Task timed out after {timeout:.2f} seconds", is_usable=False,
            ) from None  # fmt: skip

    def _failed_to_start(self, error: InvocationFailed) -> FunctionFailed:
        """Each batch tries again: it is told once, until it starts or another thing is wrong."""
        is_told = error.failure == self._not_started
        self._not_started = error.failure
        return error.failure if is_told else self._failed(error)

    def _failed(self, error: InvocationFailed) -> FunctionFailed:
        if error.failure.cause is not Cause.RAISED:  # that the runtime logs itself, with the traceback
            _log.error("%s: the invocation failed: %s", self.settings.name, error.failure)
        return error.failure

    def _let_go(self, sandbox: Sandbox) -> None:
        closing = asyncio.ensure_future(self._close(sandbox))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close(self, sandbox: Sandbox) -> None:
        try:
            await sandbox.close()
        except Exception:
            _log.exception("%s: an execution environment could not be closed", self.settings.name)


def _as_json(returned: Any) -> Any:
    """What Lambda sees of a return value is its JSON text, as the Python runtime writes it.

    Bytes are that text already; a `Decimal` is a number.
    """
    try:
        text = (
            returned
            if isinstance(returned, bytes)
            else json.dumps(returned, allow_nan=False, ensure_ascii=False, default=_number).encode(
                "utf-8", "surrogatepass"
            )
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise _unanswerable("Runtime.MarshalError", f"Unable to marshal response: {error}") from None
    if len(text) > MAX_RESPONSE:
        raise too_large(is_usable=True)
    try:
        return json.loads(text.decode("utf-8", "surrogatepass"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise _unanswerable("Runtime.MarshalError", f"The response is no JSON: {error}") from None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _number(value: Any) -> int | float:
    if not isinstance(value, Decimal):
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")
    return int(value) if value.is_finite() and value == value.to_integral_value() else float(value)


def _unanswerable(kind: str, message: str) -> InvocationFailed:
    return InvocationFailed(Cause.UNANSWERABLE, kind, message, is_usable=True)
