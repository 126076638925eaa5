"""A proxy on loopback between a client and the AWS server of the tests: it counts, and it misbehaves when told."""

from __future__ import annotations

import http.client
import json
import socket
import struct
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    """What goes back to the client."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Request(NamedTuple):
    """One call of an AWS operation."""

    operation: str
    body: Any


#: Gets the request and what carries it out. Its answer goes back; None cuts the connection.
Act = Callable[[Request, Callable[[], Answer]], Answer | None]


class Proxy:
    """Carries every request out, unless an act waits for its operation."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream).netloc
        self._acts: defaultdict[str, deque[Act]] = defaultdict(deque)
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()
        self.requests: list[Request] = []
        self.connections = 0  #: accepted so far
        proxy = self

        class Connection(_Connection):
            def setup(self) -> None:
                self.proxy = proxy
                super().setup()

        self._server = _Server(("127.0.0.1", 0), Connection)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def next(self, operation: str, *acts: Act) -> None:
        """Do these with the next calls of an operation, one each."""
        with self._lock:
            self._acts[operation] += acts

    def calls(self, operation: str) -> list[Any]:
        """What each call of an operation was asked so far."""
        with self._lock:
            return [request.body for request in self.requests if request.operation == operation]

    def make_connections_stale(self) -> int:
        """The server has forgotten its open connections: whoever uses one again gets a reset. Returns how many."""
        with self._lock:
            for connection in self._open:
                connection.is_stale = True
            return len(self._open)

    def close_connections(self) -> None:
        """The server closes its open connections in order, as it does with idle ones."""
        with self._lock:
            for connection in self._open:
                connection.connection.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self.close_connections()

    def opened(self, connection: _Connection) -> None:
        with self._lock:
            self.connections += 1
            self._open.add(connection)

    def closed(self, connection: _Connection) -> None:
        with self._lock:
            self._open.discard(connection)

    def act(self, request: Request) -> Act | None:
        with self._lock:
            self.requests.append(request)
            waiting = self._acts[request.operation]
            return waiting.popleft() if waiting else None

    def forward(self, path: str, headers: dict[str, str], body: bytes) -> Answer:
        upstream = http.client.HTTPConnection(self._upstream, timeout=30)
        try:
            upstream.request("POST", path, body, headers)
            answer = upstream.getresponse()
            kept = [
                (name, value) for name, value in answer.getheaders() if name.lower().startswith(("x-amz", "content-t"))
            ]
            return Answer(answer.status, answer.read(), tuple(kept))
        finally:
            upstream.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    proxy: Proxy
    is_stale = False

    def setup(self) -> None:
        super().setup()
        self.proxy.opened(self)

    def finish(self) -> None:
        self.proxy.closed(self)
        super().finish()

    def do_POST(self) -> None:
        if self.is_stale:
            self._reset()
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        request = Request(self.headers.get("X-Amz-Target", "").rpartition(".")[2], json.loads(body or b"null"))
        act = self.proxy.act(request)

        def forward() -> Answer:
            return self.proxy.forward(self.path, dict(self.headers), body)

        answer = forward() if act is None else act(request, forward)
        if answer is None:
            self._reset()
        else:
            self._send(answer)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, *_: Any) -> None: ...


def lose_the_reply(request: Request, forward: Callable[[], Answer]) -> Answer | None:
    """The call is carried out, and the connection is cut before its answer."""
    forward()
    return None


def lose_the_request(request: Request, forward: Callable[[], Answer]) -> Answer | None:
    """The connection is cut before anything is carried out."""
    return None


def throttle(request: Request, forward: Callable[[], Answer]) -> Answer | None:
    """The service has too much to do."""
    return Answer(400, json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"}).encode())


def throttle_each_entry(request: Request, forward: Callable[[], Answer]) -> Answer | None:
    """The call is taken, and every entry of it is refused for now."""
    failed = [
        {"Id": entry["Id"], "SenderFault": False, "Code": "ThrottlingException", "Message": "Rate exceeded"}
        for entry in request.body["Entries"]
    ]
    return Answer(200, json.dumps({"Successful": [], "Failed": failed}).encode())


def answer_late(seconds: float, *, until: threading.Event | None = None) -> Act:
    """The call is carried out at once and answered after a while, or when `until` is set."""

    def act(request: Request, forward: Callable[[], Answer]) -> Answer | None:
        answer = forward()
        (until or threading.Event()).wait(seconds)
        return answer

    return act
