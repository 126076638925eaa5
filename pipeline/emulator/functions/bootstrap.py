"""The start of a function's process: `python -P bootstrap.py PARENT PIPE HANDLER`, in the function's directory.

Runs `python -m awslambdaric HANDLER`, and beside it a thread that ends the whole process group with the parent. Only the
standard library is imported: the function's own modules must be found first, also one that is named `pipeline`.
"""

import http.client
import importlib.util
import os
import runpy
import select
import signal
import sys
import threading
import types
from pathlib import Path

_WATCH_MILLISECONDS = 1000


def main() -> None:
    """Run the handler until the parent kills this process, or ends itself."""
    parent, pipe, handler = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    threading.Thread(target=_end_with, args=(parent, pipe), name="parent-watch", daemon=True).start()
    sys.path.insert(0, str(Path.cwd()))
    if importlib.util.find_spec("awslambdaric") is None:
        sys.exit("awslambdaric is not installed: pip install 'fanout-pipeline[local]'")
    if importlib.util.find_spec("runtime_client") is None:
        sys.modules["runtime_client"] = runtime_client(os.environ["AWS_LAMBDA_RUNTIME_API"])
    sys.argv = ["awslambdaric", handler]
    runpy.run_module("awslambdaric", run_name="__main__", alter_sys=True)


def _end_with(parent: int, pipe: int) -> None:
    """Nobody writes to the pipe: it is readable once the parent is gone.

    A process that the parent forked can hold the pipe open, so we look at the parent's id too.
    """
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    while os.getppid() == parent and not poll.poll(_WATCH_MILLISECONDS):
        pass
    os.killpg(0, signal.SIGKILL)


def runtime_client(address: str) -> types.ModuleType:
    """The client of the runtime API, where awslambdaric has none: its own is built for Linux only."""
    version = "/2018-06-01/runtime/invocation"
    connection = http.client.HTTPConnection(address)

    def call(
        method: str, path: str, body: bytes | None = None, **headers: str | None
    ) -> tuple[bytes, dict[str, object]]:
        given = {name.replace("_", "-"): value for name, value in headers.items() if value}
        connection.request(method, f"{version}/{path}", body, given)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= http.client.BAD_REQUEST:
            raise RuntimeError(f"the runtime API answered {answer.status}")
        return content, {**dict.fromkeys(_HEADERS), **dict(answer.getheaders())}

    def following() -> tuple[bytes, dict[str, object]]:
        content, headers = call("GET", "next")
        return content, {**headers, _DEADLINE: int(str(headers[_DEADLINE]))}

    def post_result(request: str, body: bytes, content_type: str, _: str | None = None) -> None:
        call("POST", f"{request}/response", body, Content_Type=content_type)

    def post_error(request: str, body: str, fault: str, _: str | None = None) -> None:
        call("POST", f"{request}/error", body.encode(), Content_Type="application/json")

    module = types.ModuleType("runtime_client")
    for name, function in (
        ("initialize_client", lambda _: None),
        ("next", following),
        ("post_invocation_result", post_result),
        ("post_error", post_error),
    ):
        setattr(module, name, function)
    return module


_DEADLINE = "Lambda-Runtime-Deadline-Ms"
_HEADERS = (_DEADLINE, "Lambda-Runtime-Client-Context", "Lambda-Runtime-Cognito-Identity", "Lambda-Runtime-Trace-Id")


if __name__ == "__main__":
    main()
