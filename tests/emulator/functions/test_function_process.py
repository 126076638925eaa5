"""Invocations in processes of their own, by AWS's own runtime client."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.emulator.functions.function import MAX_RESPONSE, Function, FunctionSettings
from pipeline.emulator.functions.process import Log, ProcessSandbox
from pipeline.emulator.mappings.answers import Answer, Cause, FunctionFailed, Returned, Throttled
from pipeline.emulator.virtual import VirtualClock, virtually
from pipeline.engine.environment import SystemClock
from pipeline.errors import ConfigurationError

HANDLERS = """
import json, os, signal, subprocess, sys

def context(event, context):
    names = [name for name in dir(context) if not name.startswith("_") and not callable(getattr(context, name))]
    found = {name: getattr(context, name) for name in names if name != "identity"}
    return {**found, "remaining": context.get_remaining_time_in_millis()}

def environment(event, context):
    return {"variables": dict(os.environ), "directory": os.getcwd(), "path": sys.path[0], "pid": os.getpid()}

def printing(event, context):
    print("to stdout", event)
    print("to stderr", event, file=sys.stderr)
    sys.stdout.write("half a line")

def odd(event, context):
    if event == "raise":
        raise KeyError("total")
    if event == "exit":
        sys.exit(3)
    if event == "crash":
        os.kill(os.getpid(), signal.SIGKILL)
    if event == "quit":
        os._exit(0)
    if event == "set":
        return {1, 2}
    if event == "nan":
        return float("nan")
    if event == "bytes":
        return b"no json"
    return os.getpid()

def long(event, context):
    return "x" * event

def hang(event, context):
    child = subprocess.Popen(["sleep", "600"])
    with open("told", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    while True:
        pass

def together(event, context):
    open(f"here-{event}", "w").close()
    while not all(os.path.exists(f"here-{other}") for other in "ab"):
        pass
    return event
"""

Make = Callable[..., Function]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(HANDLERS)
    os.mkfifo(tmp_path / "told")
    return tmp_path


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
async def function(root: Path, lines: list[str]) -> AsyncIterator[Make]:
    """Makes functions of the handlers above, and closes them."""
    made: list[Function] = []

    def make(handler: str, **options: Any) -> Function:
        settings = FunctionSettings(name="price", **{"timeout": 20.0, **options})
        made.append(Function(settings, lambda: sandbox(handler, settings, root, lines), SystemClock()))
        return made[-1]

    yield make
    for one in made:
        await one.close()


def sandbox(handler: str, settings: FunctionSettings, root: Path, lines: list[str]) -> ProcessSandbox:
    handler = handler if "." in handler else f"app.{handler}"
    return ProcessSandbox(handler, settings, root=root, endpoint_url="http://127.0.0.1:1", output=lines.append)


def failed(answer: Answer) -> tuple[Cause, str]:
    assert isinstance(answer, FunctionFailed), answer
    return answer.cause, answer.type


def payload(answer: Answer) -> Any:
    assert isinstance(answer, Returned), answer
    return answer.payload


@contextlib.contextmanager
def ending(*pids: int) -> Iterator[None]:
    """Fails unless these processes are gone soon after the block."""
    watched = [os.pidfd_open(pid) for pid in pids]
    try:
        yield
        for one in watched:
            assert select.select([one], [], [], 10)[0], "the process is still there"
    finally:
        for one in watched:
            os.close(one)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def told(root: Path) -> str:
    """What the handler writes: reading waits for it."""
    return await asyncio.to_thread((root / "told").read_text)


async def test_the_context_is_made_by_awslambdaric_of_what_it_was_told(function: Make) -> None:
    found = payload(await function("context", memory=256, timeout=30).invoke({}))

    assert 20_000 < found.pop("remaining") <= 30_000
    assert len(found.pop("aws_request_id")) == 36
    assert "[$LATEST]" in found.pop("log_stream_name")
    assert found == {
        "client_context": None,
        "function_name": "price",
        "function_version": "$LATEST",
        "invoked_function_arn": "arn:aws:lambda:us-east-1:123456789012:function:price",
        "log_group_name": "/aws/lambda/price",
        "memory_limit_in_mb": "256",
        "tenant_id": None,
    }


async def test_a_process_has_lambdas_variables_and_its_own_and_none_of_the_developers(
    function: Make, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lambda developer guide, "Defined runtime environment variables"."""
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("DATABASE_PASSWORD", "secret")
    declared = {"TABLE": "orders", "AWS_ENDPOINT_URL_S3": "https://s3.amazonaws.com", "AWS_ACCESS_KEY_ID": "real"}
    found = payload(await function("environment", environment=declared).invoke({}))
    variables = found["variables"]

    assert variables["TABLE"] == "orders"
    assert variables["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
    assert variables["AWS_ACCESS_KEY_ID"] == "testing"
    assert variables["LAMBDA_TASK_ROOT"] == found["directory"] == found["path"] == str(root)
    assert variables["_HANDLER"] == "app.environment"
    assert variables["AWS_EXECUTION_ENV"] == f"AWS_Lambda_python3.{sys.version_info.minor}"
    assert variables["TZ"] == ":UTC"
    assert variables["_X_AMZN_TRACE_ID"].endswith("Sampled=0")
    assert not {"AWS_PROFILE", "DATABASE_PASSWORD", "AWS_ENDPOINT_URL_S3", "HOME"} & variables.keys()


def test_a_process_is_never_led_to_aws(root: Path) -> None:
    with pytest.raises(ConfigurationError, match="refused"):
        ProcessSandbox(
            "app.odd", FunctionSettings(name="price"), root=root, endpoint_url="https://sqs.us-east-1.amazonaws.com"
        )


async def test_a_module_of_the_users_that_is_named_like_the_toolkit_is_the_users(function: Make, root: Path) -> None:
    (root / "pipeline.py").write_text("def handler(event, context):\n    return __file__\n")
    assert payload(await function("pipeline.handler").invoke({})) == str(root / "pipeline.py")


async def test_what_is_printed_is_passed_on_before_the_invocation_ends(function: Make, lines: list[str]) -> None:
    one = function("printing")
    for number in range(3):
        await one.invoke(number)
        assert f"to stdout {number}\n" in "".join(lines)
        assert f"to stderr {number}\n" in lines
    await one.close()
    assert lines[-1] == "half a line\n"


async def test_what_was_written_to_the_log_can_be_had_without_waiting_for_the_loop(lines: list[str]) -> None:
    reading, writing = os.pipe()
    log = Log(reading, lines.append)
    os.write(writing, "a line\nhalf a line é".encode())
    log.read()
    assert lines == ["a line\n"]
    log.close()
    os.close(writing)
    assert lines == ["a line\n", "half a line é\n"]


async def test_long_output_neither_stops_a_handler_nor_loses_a_line(
    function: Make, root: Path, lines: list[str]
) -> None:
    (root / "talking.py").write_text(
        "def handler(event, context):\n    for number in range(20_000):\n        print(number, 'x' * 50)\n"
    )
    assert payload(await function("talking.handler").invoke({})) is None
    assert lines == [f"{number} {'x' * 50}\n" for number in range(20_000)]


async def test_failures_that_leave_the_process_as_it_is(function: Make, lines: list[str]) -> None:
    one = function("odd")
    before = payload(await one.invoke("pid"))
    raised = await one.invoke("raise")

    assert raised == FunctionFailed(Cause.RAISED, "KeyError", "'total'")
    assert 'raise KeyError("total")\n' in "".join(lines), "the runtime printed the traceback"
    assert not any("\r" in line for line in lines)
    for event in ("set", "nan", "bytes"):
        assert failed(await one.invoke(event)) == (Cause.UNANSWERABLE, "Runtime.MarshalError")
    assert payload(await one.invoke("pid")) == before


@pytest.mark.parametrize(
    ("event", "text"),
    [("exit", "error: exit status 3"), ("crash", "error: signal: killed"), ("quit", "without providing a reason")],
)
async def test_a_process_that_ends_fails_its_invocation_and_the_next_one_gets_another(
    function: Make, event: str, text: str
) -> None:
    one = function("odd")
    before = payload(await one.invoke("pid"))
    answer = await one.invoke(event)

    assert failed(answer) == (Cause.EXITED, "Runtime.ExitError")
    assert text in str(answer)
    assert payload(await one.invoke("pid")) != before


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (None, "Runtime.ImportModuleError"),
        ("1 / 0", "ZeroDivisionError"),
        ("import os; os._exit(0)", "Runtime.ExitError"),
    ],
)
async def test_a_handler_that_cannot_be_imported(function: Make, root: Path, source: str | None, kind: str) -> None:
    if source is not None:
        (root / "made.py").write_text(source)
    answer = await function("made.handler").invoke({})
    assert failed(answer) == (Cause.INIT, kind)


async def test_a_directory_or_an_interpreter_that_is_not_there(root: Path) -> None:
    settings = FunctionSettings(name="price")
    for options in ({"root": root / "missing"}, {"root": root, "python": root / "missing"}):
        made = Function(
            settings,
            lambda: ProcessSandbox("app.odd", settings, endpoint_url="http://127.0.0.1:1", **options),  # noqa: B023
            SystemClock(),
        )
        assert failed(await made.invoke({})) == (Cause.INIT, "Runtime.InvalidEntrypoint")
        await made.close()


async def test_a_response_of_just_the_limit_is_taken_and_one_byte_more_is_not(function: Make, lines: list[str]) -> None:
    """Lambda's runtime API answers 413, and the Python runtime ends at that."""
    one = function("long")
    assert len(payload(await one.invoke(MAX_RESPONSE - 2))) == MAX_RESPONSE - 2
    assert failed(await one.invoke(MAX_RESPONSE - 1)) == (Cause.UNANSWERABLE, "Function.ResponseSizeTooLarge")
    assert payload(await one.invoke(3)) == "xxx"


async def test_at_the_deadline_the_process_is_killed_and_what_it_started(function: Make, root: Path) -> None:
    one = function("hang", timeout=0.5)
    running = asyncio.create_task(one.invoke({}))
    with ending(*map(int, (await told(root)).split())):
        answer = await running
    assert failed(answer) == (Cause.TIMED_OUT, "Sandbox.Timedout")
    assert "Task timed out after 0.50 seconds" in str(answer)


async def test_invocations_run_side_by_side_in_processes_of_their_own(function: Make) -> None:
    one = function("together", reserved_concurrency=2)
    first, second = asyncio.create_task(one.invoke("a")), asyncio.create_task(one.invoke("b"))
    await asyncio.sleep(0)
    assert await one.invoke("c") == Throttled()
    assert [await first, await second] == [Returned("a"), Returned("b")]


async def test_closing_leaves_no_process_no_port_no_file_and_no_thread(function: Make) -> None:
    before = open_files()
    one = function("environment")
    found = payload(await one.invoke({}))
    again = payload(await one.invoke({}))
    host, _, port = found["variables"]["AWS_LAMBDA_RUNTIME_API"].partition(":")
    assert again["pid"] == found["pid"]
    with ending(found["pid"]):
        await one.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    for thread in threading.enumerate():
        if thread.name.startswith(("asyncio-waitpid", "waitpid")):
            thread.join(10)
            assert not thread.is_alive()
    assert open_files() == before


async def test_closing_ends_invocations_that_still_run_and_processes_that_still_start(
    function: Make, root: Path
) -> None:
    one = function("hang")
    running = asyncio.create_task(one.invoke({}))
    with ending(*map(int, (await told(root)).split())):
        await one.close()
    assert failed(await running)[0] is Cause.EXITED

    (root / "slow.py").write_text("open('told', 'w').write('started')\nwhile True:\n    pass\n")
    other = function("slow.handler")
    starting = asyncio.create_task(other.invoke({}))
    assert await told(root) == "started"
    await other.close()
    assert failed(await starting)[0] is Cause.INIT


def test_a_process_works_beside_a_loop_in_virtual_time(root: Path, lines: list[str]) -> None:
    async def run() -> tuple[Any, float]:
        settings = FunctionSettings(name="price", timeout=900)
        one = Function(settings, lambda: sandbox("context", settings, root, lines), VirtualClock())
        await VirtualClock().sleep(3600)
        found = payload(await one.invoke({}))
        await one.close()
        return found, asyncio.get_running_loop().time()

    found, took = virtually(run())
    assert 890_000 < found["remaining"] <= 900_000
    assert took == 3600, "what a process does takes no virtual time"


PARENT = """
import asyncio, sys
from pathlib import Path
from pipeline.emulator.functions.function import Function, FunctionSettings
from pipeline.emulator.functions.process import Log, ProcessSandbox
from pipeline.engine.environment import SystemClock

async def main():
    settings = FunctionSettings(name="price", timeout=600)
    make = lambda handler: lambda: ProcessSandbox(
        handler, settings, root=Path(sys.argv[1]), endpoint_url="http://127.0.0.1:1"
    )
    idle = Function(settings, make("app.odd"), SystemClock())
    print((await idle.invoke("pid")).payload, flush=True)
    await Function(settings, make("app.hang"), SystemClock()).invoke({})

asyncio.run(main())
"""


def test_no_process_outlives_a_parent_that_was_killed(root: Path) -> None:
    """Neither one that waits, nor one that is busy, nor what that one started."""
    with subprocess.Popen([sys.executable, "-c", PARENT, str(root)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        idle = int(parent.stdout.readline())
        with ending(idle, *map(int, (root / "told").read_text().split())):
            parent.kill()
            parent.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_process_outlives_a_parent_that_was_interrupted(root: Path, number: int) -> None:
    command = [sys.executable, "-c", PARENT, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        idle = int(parent.stdout.readline())
        with ending(idle, *map(int, (root / "told").read_text().split())):
            parent.send_signal(number)
            parent.wait()


async def test_who_does_not_speak_the_runtimes_language_is_turned_away(function: Make) -> None:
    one = function("environment")
    variables = payload(await one.invoke({}))["variables"]
    host, _, port = variables["AWS_LAMBDA_RUNTIME_API"].partition(":")
    for said, status in [
        (b"GET / HTTP/1.1\r\n\r\n", b"404"),
        (b"DELETE /2018-06-01/runtime/invocation/next HTTP/1.1\r\n\r\n", b"404"),
        (b"POST /2018-06-01/runtime/invocation/other/response HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}", b"400"),
        (b"nonsense\r\n\r\n", b""),
    ]:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        writer.write_eof()
        assert status in (await reader.read()).split(b"\r\n")[0]
        writer.close()
        await writer.wait_closed()
    assert payload(await one.invoke({}))["pid"]


async def test_a_body_may_come_in_chunks_and_wait_for_a_word(function: Make, root: Path) -> None:
    """curl, which the runtime's client is made of, asks before it sends much."""
    (root / "posting.py").write_text(
        "import os, socket\n"
        "def handler(event, context):\n"
        "    host, port = os.environ['AWS_LAMBDA_RUNTIME_API'].split(':')\n"
        "    with socket.create_connection((host, int(port))) as connection:\n"
        "        path = f'/2018-06-01/runtime/invocation/{context.aws_request_id}/response'\n"
        "        head = f'POST {path} HTTP/1.1\\r\\nTransfer-Encoding: chunked\\r\\nExpect: 100-continue\\r\\n\\r\\n'\n"
        "        connection.sendall(head.encode())\n"
        "        assert b'100' in connection.recv(1000)\n"
        "        connection.sendall(b'3\\r\\n[1,\\r\\n3\\r\\n 2]\\r\\n0\\r\\n\\r\\n')\n"
        "        assert b'202' in connection.recv(1000)\n"
    )
    assert payload(await function("posting.handler").invoke({})) == [1, 2]


async def test_without_awslambdarics_own_client_ours_takes_its_place(function: Make, root: Path) -> None:
    """It is built for Linux only; on other machines awslambdaric comes without one."""
    (root / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'runtime_client' else find(name, *rest)\n"
    )
    (root / "ours.py").write_text(
        "import runtime_client\n"
        "def handler(event, context):\n"
        "    if event == 'raise':\n"
        "        raise KeyError('total')\n"
        "    return [event, hasattr(runtime_client, '__file__'), context.get_remaining_time_in_millis() > 0]\n"
    )
    one = function("ours.handler", environment={"PYTHONPATH": str(root)})

    assert payload(await one.invoke("é")) == ["é", False, True]
    assert await one.invoke("raise") == FunctionFailed(Cause.RAISED, "KeyError", "'total'")
    assert payload(await one.invoke("again"))[0] == "again"


def test_awslambdaric_sends_and_asks_what_this_repository_says() -> None:
    """The places that the bootstrap and the runtime API know of awslambdaric: they may change with it."""
    from awslambdaric import lambda_runtime_client
    from awslambdaric.lambda_runtime_exception import FaultException

    assert json.dumps(FaultException.MARSHAL_ERROR) == '"Runtime.MarshalError"'
    assert {"initialize_client", "next", "post_invocation_result", "post_error"} <= set(
        dir(lambda_runtime_client.runtime_client)
    )
