"""Invocations in threads of this process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from pipeline.emulator.functions.function import MAX_RESPONSE, Function, FunctionSettings, Sandbox
from pipeline.emulator.functions.thread import ThreadSandbox, plain
from pipeline.emulator.mappings.answers import Answer, Cause, FunctionFailed, Returned, Throttled, Unheard
from pipeline.emulator.virtual import VirtualClock, virtually
from pipeline.engine.environment import SystemClock

Handler = Callable[[Any, Any], Any]
Make = Callable[..., Function]


@pytest.fixture
async def function() -> AsyncIterator[Make]:
    """Makes functions of plain handlers, and closes them."""
    made: list[Function] = []

    def make(handler: str | Handler, **options: Any) -> Function:
        concurrency = options.pop("concurrency", 4)
        settings = FunctionSettings(name="price", **{"timeout": 5.0, **options})
        runtime = plain(handler)
        made.append(Function(settings, lambda: ThreadSandbox(runtime), SystemClock(), concurrency=concurrency))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def failed(answer: Answer) -> tuple[Cause, str]:
    assert isinstance(answer, FunctionFailed), answer
    return answer.cause, answer.type


def sandboxes() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("sandbox-")]


# What the handler gets and gives


async def test_the_context_has_lambdas_attributes(function: Make) -> None:
    """As awslambdaric/lambda_context.py sets them; the limit of the memory comes out of a variable, and is a text."""
    seen: list[Any] = []
    await function(lambda event, context: seen.append(context), memory=256, timeout=30).invoke({})
    (context,) = seen

    assert context.function_name == "price"
    assert context.function_version == "$LATEST"
    assert context.memory_limit_in_mb == "256"
    assert context.invoked_function_arn == "arn:aws:lambda:us-east-1:123456789012:function:price"
    assert context.log_group_name == "/aws/lambda/price"
    assert "[$LATEST]" in context.log_stream_name
    assert len(context.aws_request_id) == 36
    assert (context.client_context, context.tenant_id, context.w3c()) == (None, None, {})
    assert (context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id) == (None, None)
    assert f"aws_request_id={context.aws_request_id}," in repr(context)


def test_the_context_has_no_attribute_less_than_awslambdarics() -> None:
    from awslambdaric.lambda_context import LambdaContext as Theirs

    seen: list[Any] = []

    async def run() -> None:
        settings = FunctionSettings(name="price")
        one = Function(settings, lambda: ThreadSandbox(plain(lambda _, context: seen.append(context))), SystemClock())
        await one.invoke({})
        await one.close()

    asyncio.run(run())
    theirs = Theirs("id", None, None, 0, "arn")
    assert {name for name in dir(theirs) if not name.startswith("_")} <= set(dir(seen[0]))
    assert {name for name in dir(theirs.identity) if not name.startswith("_")} <= set(dir(seen[0].identity))
    assert repr(seen[0]).split("=")[0] == repr(theirs).split("=")[0]


async def test_the_remaining_time_counts_down_from_the_timeout_in_whole_milliseconds(function: Make) -> None:
    seen: list[int] = []

    def handler(_: Any, context: Any) -> None:
        seen.append(context.get_remaining_time_in_millis())
        while context.get_remaining_time_in_millis() == seen[0]:
            pass
        seen.append(context.get_remaining_time_in_millis())

    await function(handler, timeout=3).invoke({})
    assert 2000 < seen[1] < seen[0] <= 3000


async def test_after_the_deadline_no_time_remains(function: Make) -> None:
    seen, over = [], threading.Event()

    def handler(_: Any, context: Any) -> None:
        over.wait()
        seen.append(context.get_remaining_time_in_millis())

    one = function(handler, timeout=0.01)
    # What hangs outside of Python is not ended, and goes on when it returns.
    assert failed(await one.invoke({}))[0] is Cause.TIMED_OUT
    (thread,) = sandboxes()
    over.set()
    thread.join(10)
    assert seen in ([], [0]), "it was ended, or it saw that its time is up"


async def test_event_and_response_go_through_json_and_nothing_of_them_is_shared(function: Make) -> None:
    event, kept = {"items": [1]}, []

    def handler(given: Any, _: Any) -> Any:
        given["items"].append(2)
        kept.append(given)
        return given

    answer = await function(handler).invoke(event)

    assert answer == Returned({"items": [1, 2]})
    assert isinstance(answer, Returned)
    assert answer.payload is not kept[0]
    assert event == {"items": [1]}


@pytest.mark.parametrize(
    ("value", "payload"),
    [
        (None, None),
        ((1, 2), [1, 2]),
        ({1: "é"}, {"1": "é"}),
        (Decimal(3), 3),
        (Decimal("1.5"), 1.5),
        (b'{"a": 1}', {"a": 1}),
    ],
)
async def test_what_the_python_runtime_writes_as_json(function: Make, value: Any, payload: Any) -> None:
    """awslambdaric/lambda_runtime_marshaller.py: decimals are numbers, bytes are sent as they are."""
    assert await function(lambda *_: value).invoke({}) == Returned(payload)


@pytest.mark.parametrize("value", [{1, 2}, object(), float("nan"), Decimal("NaN"), b"no json", {"a": [b"x"]}])
async def test_what_is_no_json_fails_the_invocation_and_the_environment_goes_on(function: Make, value: Any) -> None:
    runs: list[int] = []

    def handler(event: Any, _: Any) -> Any:
        runs.append(threading.get_ident())
        return value if event == "bad" else "good"

    one = function(handler)
    assert failed(await one.invoke("bad")) == (Cause.UNANSWERABLE, "Runtime.MarshalError")
    assert await one.invoke("good") == Returned("good")
    assert len(set(runs)) == 1


async def test_a_response_of_just_the_limit_is_taken_and_one_byte_more_is_not(function: Make) -> None:
    """The limit of 6 MB is 6291556 bytes in Lambda's own error; bytes of UTF-8, not characters."""
    one = function(lambda event, _: "é" * (event // 2 - 1))

    assert MAX_RESPONSE == 6291556
    assert isinstance(await one.invoke(MAX_RESPONSE), Returned)
    assert failed(await one.invoke(MAX_RESPONSE + 2)) == (Cause.UNANSWERABLE, "Function.ResponseSizeTooLarge")


# Failures


async def test_what_a_handler_raises_is_its_type_and_its_text_and_the_environment_is_used_again(
    function: Make, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[int] = []

    def handler(event: Any, _: Any) -> None:
        runs.append(threading.get_ident())
        raise KeyError("total")

    one = function(handler)
    assert await one.invoke({}) == FunctionFailed(Cause.RAISED, "KeyError", "'total'")
    assert isinstance(await one.invoke({}), FunctionFailed)
    assert len(set(runs)) == 1
    assert caplog.records[0].exc_info is not None, "the traceback is in the log"


@pytest.mark.parametrize("error", [StopIteration(), TimeoutError("mine"), asyncio.CancelledError(), GeneratorExit()])
async def test_exceptions_that_mean_something_to_an_event_loop_are_a_handlers_errors(
    function: Make, error: BaseException
) -> None:
    def handler(*_: Any) -> None:
        raise error

    assert failed(await function(handler).invoke({})) == (Cause.RAISED, type(error).__name__)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (3, "error: exit status 3"),
        ("bye", "error: exit status 1"),
        (None, "without providing a reason"),
        (0, "without"),
    ],
)
async def test_sys_exit_ends_the_environment_and_not_this_process(function: Make, code: Any, text: str) -> None:
    runs: list[threading.Thread] = []

    def handler(*_: Any) -> None:
        runs.append(threading.current_thread())
        if len(runs) == 1:
            sys.exit(code)

    one = function(handler)
    answer = await one.invoke({})

    assert failed(answer) == (Cause.EXITED, "Runtime.ExitError")
    assert text in str(answer)
    assert await one.invoke({}) == Returned(None)
    assert runs[0] is not runs[1]


@pytest.mark.parametrize(
    ("name", "source", "kind"),
    [
        ("nowhere_to_be_found.handler", None, "Runtime.ImportModuleError"),
        ("handler", None, "Runtime.MalformedHandlerName"),
        ("sys.exit", None, "Runtime.BuiltInModuleConflict"),
        ("made.missing", "", "Runtime.HandlerNotFound"),
        ("made.handler", "def handler(:", "Runtime.UserCodeSyntaxError"),
        ("made.handler", "1 / 0", "ZeroDivisionError"),
        ("made.handler", "import sys; sys.exit(2)", "Runtime.ExitError"),
    ],
)
async def test_a_handler_that_cannot_be_imported(
    function: Make, name: str, source: str | None, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Types and texts are those of awslambdaric/bootstrap.py. Each invocation tries again, in a new environment."""
    if source is not None:
        (tmp_path / "made.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)
    one = function(name)

    assert failed(await one.invoke({})) == (Cause.INIT, kind)
    assert failed(await one.invoke({})) == (Cause.INIT, kind)
    sys.modules.pop("made", None)


async def test_a_handler_is_imported_by_its_name_as_lambda_takes_it(
    function: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "app.py").write_text(
        "def handler(event, context):\n    return [event, context.function_name]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert await function("packed/app.handler").invoke(1) == Returned([1, "price"])
        assert await function("packed.app.handler").invoke(2) == Returned([2, "price"])
    finally:
        for name in ("packed", "packed.app"):
            sys.modules.pop(name, None)


# The deadline


async def test_a_handler_that_blocks_for_ever_is_over_at_the_deadline_and_its_environment_is_not_used_again(
    function: Make, caplog: pytest.LogCaptureFixture
) -> None:
    go_on, runs = threading.Event(), []

    def handler(event: Any, _: Any) -> Any:
        runs.append(threading.current_thread())
        if event == "hang":
            go_on.wait()
        return event

    one = function(handler, timeout=0.05)
    assert await one.invoke("first") == Returned("first")
    answer = await one.invoke("hang")

    assert failed(answer) == (Cause.TIMED_OUT, "Sandbox.Timedout")
    assert "Task timed out after 0.05 seconds" in str(answer)
    assert await one.invoke("next") == Returned("next")
    assert runs[0] is runs[1]
    assert runs[1] is not runs[2]
    go_on.set()
    runs[1].join(10)
    assert not runs[1].is_alive()
    assert [record.levelno for record in caplog.records] == [logging.ERROR], "and of its end nobody speaks"


async def test_a_loop_ends_at_the_deadline(function: Make) -> None:
    steps: list[int] = []
    caught: list[BaseException] = []

    def handler(*_: Any) -> None:
        while True:
            steps.append(1)
            try:
                steps.pop()
            except Exception as error:
                caught.append(error)

    assert failed(await function(handler, timeout=0.05).invoke({}))[0] is Cause.TIMED_OUT
    for thread in sandboxes():
        thread.join(10)
        assert not thread.is_alive()
    assert caught == []


async def test_a_runtime_is_closed_in_its_thread_also_when_it_was_given_up(function: Make) -> None:
    closed, begun = [], threading.Event()

    class Looping:
        def invoke(self, event: Any, _: Any) -> Any:
            begun.set()
            while event == "loop":
                pass
            return event

        def close(self) -> None:
            closed.append(threading.current_thread())

    one = Function(FunctionSettings(name="price", timeout=0.05), lambda: ThreadSandbox(Looping), SystemClock())
    await one.invoke("loop")
    assert await one.invoke("warm") == Returned("warm")
    await one.close()
    for thread in sandboxes():
        thread.join(10)

    assert len({id(thread) for thread in closed}) == 2
    assert threading.main_thread() not in closed


async def test_initialising_has_a_time_of_its_own(
    function: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda developer guide, "Lambda execution environment": the function's timeout limits the Invoke phase only."""
    begun, go_on = threading.Event(), threading.Event()

    class Slow:
        def __init__(self) -> None:
            begun.set()
            go_on.wait()

        def invoke(self, event: Any, context: Any) -> Any:
            return context.get_remaining_time_in_millis()

        def close(self) -> None: ...

    timeout = 0.5
    one = Function(FunctionSettings(name="price", timeout=timeout), lambda: ThreadSandbox(Slow), SystemClock())
    running = asyncio.create_task(one.invoke({}))
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, begun.wait)
    loop.call_later(timeout + 0.1, go_on.set)
    answer = await running
    await one.close()

    assert isinstance(answer, Returned)
    assert answer.payload > 400


def test_initialising_that_takes_too_long_begins_again_on_the_invocations_time() -> None:
    """The same page: beyond 10 s Lambda retries the Init phase at the invocation, with the function's timeout."""
    starts: list[Sandbox] = []
    closed: list[Sandbox] = []

    class Hanging:
        def __init__(self, hangs: bool) -> None:
            self._hangs = hangs

        async def start(self) -> None:
            starts.append(self)
            if self._hangs:
                await asyncio.Event().wait()

        async def invoke(self, invocation: Any) -> Any:
            return invocation.remaining

        async def close(self) -> None:
            closed.append(self)

    async def run(hanging: list[bool]) -> tuple[float, Answer]:
        made = iter(hanging)
        one = Function(FunctionSettings(name="price", timeout=3), lambda: Hanging(next(made)), VirtualClock())
        answer = await one.invoke({})
        await one.close()
        return asyncio.get_running_loop().time(), answer

    assert virtually(run([True, False])) == (10.0, Returned(3.0))
    assert closed == starts
    took, answer = virtually(run([True, True]))
    assert took == 13.0
    assert failed(answer)[0] is Cause.TIMED_OUT
    assert closed == starts


def test_an_environment_is_asked_before_each_invocation_whether_it_is_initialised() -> None:
    """One that gave up what it had made, as the toolkit's runtime does with a handler that hangs, makes it again."""
    starts: list[int] = []

    class Forgetful:
        async def start(self) -> None:
            starts.append(1)

        async def invoke(self, invocation: Any) -> Any:
            return invocation.event

        async def close(self) -> None: ...

    async def run() -> list[Answer]:
        one = Function(FunctionSettings(name="price"), Forgetful, VirtualClock())
        answers = [await one.invoke(number) for number in range(3)]
        await one.close()
        return answers

    assert virtually(run()) == [Returned(0), Returned(1), Returned(2)]
    assert len(starts) == 3


# In virtual time


def test_while_a_thread_works_virtual_time_does_not_jump() -> None:
    async def run() -> tuple[Answer, float]:
        one = Function(
            FunctionSettings(name="price", timeout=900),
            lambda: ThreadSandbox(plain(lambda _, context: context.get_remaining_time_in_millis())),
            VirtualClock(),
        )
        answer = await one.invoke({})
        await VirtualClock().sleep(3600)
        await one.invoke({})
        await one.close()
        return answer, asyncio.get_running_loop().time()

    answer, took = virtually(run())
    assert isinstance(answer, Returned)
    assert 890_000 < answer.payload <= 900_000
    assert took == 3600, "what a thread does takes no virtual time"


def test_a_handler_that_hangs_is_over_at_the_deadline_of_virtual_time() -> None:
    go_on = threading.Event()

    async def run() -> tuple[Answer, float]:
        one = Function(
            FunctionSettings(name="price", timeout=900),
            lambda: ThreadSandbox(plain(lambda *_: go_on.wait())),
            VirtualClock(),
        )
        answer = await one.invoke({})
        await one.close()
        return answer, asyncio.get_running_loop().time()

    answer, took = virtually(run(), patience=0.05)
    go_on.set()
    assert failed(answer)[0] is Cause.TIMED_OUT
    assert took == 900


# Environments


async def test_the_environment_that_was_used_last_is_used_first(function: Make) -> None:
    together, runs = threading.Barrier(2), list[tuple[str, int]]()

    def handler(event: Any, _: Any) -> None:
        runs.append((event, threading.get_ident()))
        if event != "alone":
            together.wait(10)

    one = function(handler)
    await asyncio.gather(one.invoke("a"), one.invoke("b"))
    await one.invoke("alone")
    last = runs[-1][1]
    for _ in range(3):
        await one.invoke("alone")

    assert len({thread for _, thread in runs}) == 2
    assert {thread for event, thread in runs if event == "alone"} == {last}


async def test_beyond_the_reserved_concurrency_an_invocation_is_throttled_and_does_not_run(function: Make) -> None:
    """Lambda developer guide, "Configuring reserved concurrency for a function"."""
    begun, go_on, runs = threading.Event(), threading.Event(), list[str]()

    def handler(event: Any, _: Any) -> Any:
        runs.append(event)
        begun.set()
        go_on.wait(10)
        return event

    one = function(handler, reserved_concurrency=1)
    first = asyncio.create_task(one.invoke("first"))
    await asyncio.get_running_loop().run_in_executor(None, begun.wait)
    second = await one.invoke("second")
    go_on.set()

    assert second == Throttled("ReservedFunctionConcurrentInvocationLimitExceeded")
    assert await first == Returned("first")
    assert await one.invoke("third") == Returned("third")
    assert runs == ["first", "third"]


async def test_a_reserved_concurrency_of_zero_throttles_everything(function: Make) -> None:
    """The same page: 0 is how a function is switched off."""
    assert await function(lambda *_: 1, reserved_concurrency=0).invoke({}) == Throttled()


async def test_invocations_run_side_by_side_up_to_the_machines_concurrency_and_the_next_one_waits(
    function: Make,
) -> None:
    together, running, most = threading.Barrier(2), set(), list[int]()

    def handler(event: Any, _: Any) -> Any:
        running.add(event)
        most.append(len(running))
        together.wait(10)
        running.discard(event)
        together.wait(10)
        return event

    one = function(handler, concurrency=2)
    answers = await asyncio.gather(*map(one.invoke, range(6)))

    assert answers == [Returned(number) for number in range(6)]
    assert max(most) == 2
    assert len(sandboxes()) == 2


async def test_a_hundred_invocations_one_after_the_other_take_one_thread_and_closing_takes_it_away(
    function: Make,
) -> None:
    one = function(lambda event, _: event)
    for number in range(100):
        assert await one.invoke(number) == Returned(number)
    assert len(sandboxes()) == 1
    await one.close()
    assert sandboxes() == []


async def test_closing_ends_invocations_that_still_run_and_nothing_is_kept(function: Make) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def handler(*_: Any) -> None:
        begun.set()
        go_on.wait()

    one = function(handler)
    running = asyncio.create_task(one.invoke({}))
    await asyncio.get_running_loop().run_in_executor(None, begun.wait)
    await one.close()

    assert failed(await running)[0] is Cause.EXITED
    go_on.set()
    for thread in sandboxes():
        thread.join(10)
    assert sandboxes() == []


async def test_what_waits_for_a_function_that_is_closed_does_not_begin() -> None:
    turn = asyncio.Lock()

    def make() -> Sandbox:
        raise AssertionError("it began")

    @contextlib.asynccontextmanager
    async def turns() -> AsyncIterator[None]:
        async with turn:
            yield

    one = Function(FunctionSettings(name="price"), make, SystemClock(), turn=turns)
    await turn.acquire()
    waiting = asyncio.create_task(one.invoke(1))
    await one.close()
    turn.release()
    assert [await waiting, await one.invoke(2)] == [Unheard(), Unheard()]


async def test_a_cancelled_invocation_takes_its_environment_along(function: Make) -> None:
    begun = threading.Event()

    def handler(*_: Any) -> None:
        begun.set()
        while True:
            pass

    one = function(handler, timeout=900)
    running = asyncio.create_task(one.invoke({}))
    await asyncio.get_running_loop().run_in_executor(None, begun.wait)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    for thread in sandboxes():
        thread.join(10)
    assert sandboxes() == []
    assert one.running == 0


async def test_a_handler_runs_in_the_context_variables_of_who_started_its_environment(function: Make) -> None:
    """And, as in one process of Lambda's, what an invocation leaves there the next one finds."""
    number = ContextVar("number", default=0)

    def handler(*_: Any) -> int:
        number.set(number.get() + 1)
        return number.get()

    number.set(10)
    one = function(handler)
    assert [await one.invoke({}), await one.invoke({})] == [Returned(11), Returned(12)]
    assert number.get() == 10


async def test_a_patch_of_a_test_holds_in_the_handler(function: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TABLE", "mine")
    monkeypatch.setattr(json, "dumps", lambda value, **_: f'"{value} patched"')
    assert await function(lambda *_: os.environ["TABLE"]).invoke({}) == Returned("mine patched")


async def test_a_runtime_that_cannot_be_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Stubborn:
        def invoke(self, event: Any, context: Any) -> Any:
            return event

        def close(self) -> None:
            raise ValueError("no")

    one = Function(FunctionSettings(name="price"), lambda: ThreadSandbox(Stubborn), SystemClock())
    assert await one.invoke(1) == Returned(1)
    await one.close()
    gc.collect()
    assert ["could not be closed" in record.message for record in caplog.records] == [True]
    assert sandboxes() == []
