"""The parent's side of the embedded server: start it, use it again, end it."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterable
from typing import Any

from pipeline.errors import ConfigurationError

_START_SECONDS = 60
_idle: list[EmbeddedServer] = []
_idle_lock = threading.Lock()
#: Every server's process that runs, also while it starts.
_processes: set[subprocess.Popen[bytes]] = set()


class EmbeddedServer:
    """One moto server in a process of its own. Every method blocks; `lease` is the way to get one."""

    def __init__(self) -> None:
        # -P keeps the working directory off its path: a user's `queue.py` must not shadow the library's.
        command = [sys.executable, "-P", "-m", "pipeline.emulator.server"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_clean_environment()
        )
        _processes.add(self._process)
        self._owner = os.getpid()
        self.endpoint_url = f"http://127.0.0.1:{self._read_port()}"
        # Whatever it says from here on is noise, but a full pipe would stop it.
        for stream in (self._process.stdout, self._process.stderr):
            threading.Thread(target=_swallow, args=(stream,), daemon=True).start()
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """The process runs, and it is ours: a forked child must not share its parent's server."""
        return self._owner == os.getpid() and self._process.poll() is None

    def reset(self) -> None:
        """Forget every resource, and set the clock back to the machine's."""
        self._post("reset", {})

    def advance(self, seconds: float) -> float:
        """Move its SQS clock forward; returns how far ahead it now is."""
        return float(self._post("clock", {"advance": seconds})["offset"])

    def next_visible(self, queues: Iterable[str]) -> float | None:
        """Seconds until the first waiting message of these queues becomes visible; None: none is waiting."""
        seconds: float | None = self._post("next", {"queues": list(queues)})["seconds"]
        return seconds

    def peek(self, queue: str) -> list[dict[str, Any]]:
        """The queue's messages as they stand, without receiving them."""
        messages: list[dict[str, Any]] = self._post("peek", {"queues": [queue]})
        return messages

    def oldest(self, queue: str) -> float | None:
        """Seconds since the queue's oldest message was sent; None: it is empty."""
        seconds: float | None = self._post("oldest", {"queues": [queue]})["seconds"]
        return seconds

    def stop(self) -> None:
        """End the process."""
        atexit.unregister(self.stop)
        if self._owner != os.getpid():
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        _processes.discard(self._process)
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _read_port(self) -> int:
        assert self._process.stdout is not None and self._process.stderr is not None
        timer = threading.Timer(_START_SECONDS, self._process.kill)
        timer.daemon = True
        timer.start()
        line = self._process.stdout.readline().strip()
        timer.cancel()
        if not line.isdigit():
            self._process.kill()
            lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
            why = lines[-1] if lines else "it said nothing"
            raise ConfigurationError(
                f"the local AWS server did not start: {why}. It needs the extra: pip install 'fanout-pipeline[local]'"
            )
        return int(line)

    def _post(self, route: str, body: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310 - always our own loopback address
            f"{self.endpoint_url}/pipeline/{route}", data=json.dumps(body).encode(), method="POST"
        )
        # No proxy: the address is this machine's.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as response:
            return json.load(response)


def lease() -> EmbeddedServer:
    """A fresh server: one that is idle, reset, or a new one."""
    while True:
        with _idle_lock:
            server = _idle.pop() if _idle else None
        if server is None:
            return EmbeddedServer()
        if server.alive:
            server.reset()
            return server


def give_back(server: EmbeddedServer) -> None:
    """Keep the server for the next `lease` of this process; starting one takes about a second."""
    if server.alive:
        with _idle_lock:
            _idle.append(server)


def end_all() -> None:
    """Kill every server of this process, also one that starts: who waits for it gets a `ConfigurationError`."""
    for process in tuple(_processes):
        process.kill()


def _swallow(stream: Any) -> None:
    with stream:
        for _ in stream:
            pass


#: What would change moto: its settings, and AWS's. And what measures tests: the server is killed, so that it would measure
#: nothing, and start later.
_NOT_KEPT = ("AWS_", "MOTO_", "COVERAGE_")


def _clean_environment() -> dict[str, str]:
    """Ours without what does not belong to it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_KEPT)}
    paths = [path for path in sys.path if path]  # the package may be importable only by our path
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), "PYTHONWARNINGS": "ignore"}
