"""An execution environment in a thread of this process: the debugger works in it, and patches of tests hold.

What is true of Lambda and not of it: module state and environment variables are the process's, so that functions share
them; and nothing can end a call that blocks outside of Python, such as `time.sleep`. Such a thread stays until the call
returns, and then ends. Where that matters there is `process`.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib
import itertools
import logging
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.emulator.functions.context import LambdaContext, context_in_thread, log_stream
from pipeline.emulator.functions.function import Invocation, InvocationFailed, beside_the_loop, exited
from pipeline.emulator.functions.interruption import interrupt
from pipeline.emulator.mappings.answers import Cause
from pipeline.emulator.virtual import WORK, Work

_log = logging.getLogger(__name__)
_CLOSE_SECONDS = 5.0
_numbers = itertools.count(1)


class Runtime(Protocol):
    """What runs a handler's invocations in an environment: `LambdaRuntime`, or a plain function."""

    def invoke(self, event: Any, context: Any) -> Any:
        """Run one invocation; it blocks."""
        ...

    def close(self) -> None:
        """End it, and close what it opened."""
        ...


MakeRuntime = Callable[[], Runtime]


def plain(handler: str | Callable[[Any, Any], Any]) -> MakeRuntime:
    """Makes runtimes of a plain Lambda handler: a function of event and context, or its name as Lambda takes it.

    A name ("package.module.function") is imported when an environment starts, from `sys.path`.
    """
    return lambda: _Plain(_imported(handler) if isinstance(handler, str) else handler)


class SandboxThread(threading.Thread):
    """The thread of a sandbox."""

    is_given_up = False  #: its invocation is over, whatever it still does


def end_if_given_up() -> None:
    """End the invocation of the running thread here, if it is over; for what waits for something on its behalf."""
    if getattr(threading.current_thread(), "is_given_up", False):
        raise EndOfInvocation


class ThreadSandbox:
    """One execution environment: a daemon thread that makes its runtime once and then runs invocations on it.

    A daemon, because a handler that blocks for ever must not keep the program from ending. The thread works in the
    context variables of who started it, and keeps what it sets there from one invocation to the next.

    At the deadline the invocation is over, whatever the thread does: `SystemExit` is raised in it at its next step in
    Python, so that a loop ends there. Lambda would have stopped it without a word. On Python 3.11 under a debugger or
    coverage, a thread that waits just then is ended at its next call of a service only.

    `number`: stands in the name of its log stream; default: counted over all of this process.
    """

    def __init__(self, make: MakeRuntime, number: int | None = None) -> None:
        self._make = make
        self._number = next(_numbers) if number is None else number
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._thread: SandboxThread | None = None
        self._ended: asyncio.Future[None] | None = None
        self._awaited: asyncio.Future[Any] | None = None  #: what the thread works on
        self._ending = threading.Lock()  #: the thread does not end while it is held
        self._has_ended = False
        self._log_stream: str | None = None

    async def start(self) -> None:
        """Make the runtime, in the thread, unless it is made. Raises `InvocationFailed`."""
        if self._thread is not None:
            return
        loop = asyncio.get_running_loop()
        started, self._ended = loop.create_future(), loop.create_future()
        with beside_the_loop():
            work = contextvars.copy_context().run
            self._thread = SandboxThread(
                target=work, args=(self._serve, started, self._ended), name=f"sandbox-{self._number}", daemon=True
            )
            self._thread.start()
            await self._wait_for(started)

    async def invoke(self, invocation: Invocation) -> Any:
        """What the handler returned. Raises `InvocationFailed`."""
        if self._log_stream is None:
            self._log_stream = log_stream(time.gmtime(invocation.clock.now()), self._number)
        context = context_in_thread(invocation, self._log_stream)
        with beside_the_loop() as work:
            call = _Call(invocation, context, asyncio.get_running_loop().create_future(), work)
            self._calls.put(call)
            return await self._wait_for(call.answer)

    async def close(self) -> None:
        """Close the runtime, in the thread, and wait for that; a thread that is at work is left behind."""
        self._calls.put(None)
        if self._awaited is not None:
            self._give_up()
            _settle(self._awaited, None, exited(Cause.EXITED, "-", "signal: killed"))
        if self._ended is None or self._thread is None or self._thread.is_given_up:
            return
        with beside_the_loop(), contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.shield(self._ended)

    async def _wait_for(self, answer: asyncio.Future[Any]) -> Any:
        self._awaited = answer
        try:
            return await answer
        except asyncio.CancelledError:
            self._give_up()
            raise
        finally:
            self._awaited = None

    def _give_up(self) -> None:
        """End what the thread does, as far as that is possible: it may still be at work, and nobody waits for it."""
        thread = self._thread
        assert thread is not None
        if thread.is_given_up:
            return
        thread.is_given_up = True
        with self._ending:
            if not self._has_ended:
                interrupt(thread, EndOfInvocation)
        self._calls.put(None)

    # What follows runs in the thread.

    def _serve(self, started: asyncio.Future[None], ended: asyncio.Future[None]) -> None:
        runtime: Runtime | None = None
        try:
            runtime = self._make()
            _tell(started, None)
            while (call := self._calls.get()) is not None:
                _run(runtime, call)
        except EndOfInvocation:
            pass  # nobody waits any more
        except BaseException as error:
            if not isinstance(error, InvocationFailed):  # that says itself what is wrong
                _log.error("an execution environment did not start", exc_info=error)
            _tell(started, _failure(error, Cause.INIT))
        finally:
            if runtime is not None:
                _close(runtime)
            with self._ending:
                self._has_ended = True
            _tell(ended, None)


class EndOfInvocation(SystemExit):
    """Raised in a thread whose invocation is over."""


@dataclass(frozen=True)
class _Call:
    invocation: Invocation
    context: LambdaContext
    answer: asyncio.Future[Any]
    work: Work | None


def _run(runtime: Runtime, call: _Call) -> None:
    WORK.set(call.work)
    try:
        returned = runtime.invoke(call.invocation.event, call.context)
    except EndOfInvocation:
        raise
    except BaseException as error:
        if not call.answer.done():
            _log.error("%s: the handler raised", call.invocation.settings.name, exc_info=error)
            _tell(call.answer, _failure(error, Cause.RAISED, call.invocation.request_id))
    else:
        _tell(call.answer, returned)


def _close(runtime: Runtime) -> None:
    try:
        runtime.close()
    except BaseException as error:
        _log.error("an execution environment could not be closed", exc_info=error)


def _tell(future: asyncio.Future[Any], outcome: Any) -> None:
    """Settle a future of the loop's, from the thread. An `InvocationFailed` is raised where it is awaited."""
    failure = outcome if isinstance(outcome, InvocationFailed) else None
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        future.get_loop().call_soon_threadsafe(_settle, future, outcome, failure)


def _settle(future: asyncio.Future[Any], outcome: Any, failure: InvocationFailed | None) -> None:
    if future.done():
        return
    if failure is None:
        future.set_result(outcome)
    else:
        future.set_exception(failure)


def _failure(error: BaseException, cause: Cause, request_id: str = "-") -> InvocationFailed:
    """How what was raised fails an invocation, or with `Cause.INIT` the start."""
    if isinstance(error, InvocationFailed):
        return error
    if isinstance(error, SystemExit):
        failure = exited(Cause.INIT if cause is Cause.INIT else Cause.EXITED, request_id, _status(error))
    else:
        is_usable = cause is not Cause.INIT and isinstance(error, Exception)
        failure = InvocationFailed(cause, type(error).__name__, str(error), is_usable=is_usable)
    failure.__cause__ = error
    return failure


def _status(error: SystemExit) -> str | None:
    """How a process ends that lets it through: a number is the status, nothing is 0, and anything else 1."""
    if error.code is None or error.code == 0:
        return None
    return f"exit status {error.code if isinstance(error.code, int) else 1}"


@dataclass(frozen=True)
class _Plain:
    """A plain handler as a runtime."""

    function: Callable[[Any, Any], Any]

    def invoke(self, event: Any, context: Any) -> Any:
        return self.function(event, context)

    def close(self) -> None: ...


def _imported(handler: str) -> Callable[[Any, Any], Any]:
    """The function of a handler's name. Raises `InvocationFailed` with the type and text of Lambda's Python runtime."""
    name, _, attribute = handler.replace("/", ".").rpartition(".")
    if not name:
        raise _init("MalformedHandlerName", f"Bad handler '{handler}': write it as 'module.function'")
    if name.partition(".")[0] in sys.builtin_module_names:
        raise _init("BuiltInModuleConflict", f"Cannot use built-in module {name} as a handler module")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise _init("ImportModuleError", f"Unable to import module '{name}': {error}") from error
    except SyntaxError as error:
        raise _init("UserCodeSyntaxError", f"Syntax error in module '{name}': {error}") from error
    function: Callable[[Any, Any], Any] | None = getattr(module, attribute, None)
    if function is None:
        raise _init("HandlerNotFound", f"Handler '{attribute}' missing on module '{name}'")
    return function


def _init(kind: str, message: str) -> InvocationFailed:
    return InvocationFailed(Cause.INIT, f"Runtime.{kind}", message, is_usable=False)
