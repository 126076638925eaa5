"""AWS's own Lambda runtime client behind a small Runtime API server, as a runtime of the local run."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO, Any

_ROOT = Path(__file__).parent.parent.parent
_API = "/2018-06-01/runtime"


class InvocationError(Exception):
    """What the function answered in place of a response."""


class RuntimeClient:
    """One execution environment: a process of `awslambdaric`, fed over the Runtime API.

    `timeout`: seconds that an answer may take. The function's code is this checkout's and its environment this
    process's, unless `command` (what starts the client), `root` and `environment` say otherwise.
    """

    def __init__(
        self,
        handler: str,
        *,
        timeout: float,
        command: Sequence[str | Path] = (sys.executable, "-m", "awslambdaric"),
        root: Path = _ROOT,
        environment: Mapping[str, str] = os.environ,
        output: IO[bytes] | int = subprocess.DEVNULL,
    ) -> None:
        self._timeout = timeout
        self._events: queue.SimpleQueue[tuple[str, Any, float] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._count = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _routes(self._events, self._answers))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        host, port = self._server.server_address[:2]
        self._process = subprocess.Popen(
            [*command, handler],
            cwd=root,
            env={
                "AWS_LAMBDA_FUNCTION_NAME": handler.replace(".", "-"),
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
                **environment,
                "AWS_LAMBDA_RUNTIME_API": f"{host!s}:{port}",
                "_HANDLER": handler,
                "LAMBDA_TASK_ROOT": str(root),
                "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            },
            stdout=output,
        )

    def invoke(self, event: Any, context: Any) -> Any:
        self._count += 1
        self._events.put((str(self._count), event, time.time() + context.get_remaining_time_in_millis() / 1000))
        kind, body = self._answers.get(timeout=self._timeout + 10)
        if kind != "response":
            raise InvocationError(body)
        return body

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._server.shutdown()
        self._server.server_close()


def _routes(
    events: queue.SimpleQueue[tuple[str, Any, float] | None], answers: queue.SimpleQueue[tuple[str, Any]]
) -> type[BaseHTTPRequestHandler]:
    class Routes(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            given = events.get()
            if given is None:
                return
            identifier, event, deadline = given
            body = json.dumps(event).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Lambda-Runtime-Aws-Request-Id", identifier)
            self.send_header("Lambda-Runtime-Deadline-Ms", str(int(deadline * 1000)))
            self.send_header("Lambda-Runtime-Invoked-Function-Arn", "arn:aws:lambda:us-east-1:123456789012:function:f")
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = json.loads(self._body())
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()
            answers.put((self.path.rpartition("/")[2], body))

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        def log_message(self, *_: Any) -> None: ...

    return Routes
