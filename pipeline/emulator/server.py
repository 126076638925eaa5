"""The embedded server's process: moto on a free loopback port.

Started with `python -m pipeline.emulator.server`; prints its port, and ends with its parent: when
its standard input ends, when its parent changes, or on SIGTERM. A process of its own, because moto
needs a processor to itself and because its clock is changed.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server

from pipeline.emulator import patches, patches_sqs

_PREFIX = "/pipeline/"
_WATCH_SECONDS = 1.0


class Routes:
    """moto, and beside it the few routes under /pipeline/ that the local run needs."""

    def __init__(self, moto: Any, clock: patches.ServerClock) -> None:
        self._moto = moto
        self._clock = clock
        self._routes: dict[str, Callable[[dict[str, Any]], Any]] = {
            "clock": self._advance,
            "next": self._next,
            "oldest": self._oldest,
            "peek": lambda body: patches_sqs.peek(body["queues"]),
            "reset": self._reset,
        }

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        route = self._routes.get(path.removeprefix(_PREFIX)) if path.startswith(_PREFIX) else None
        if route is None or environ["REQUEST_METHOD"] != "POST":
            answer: Iterable[bytes] = self._moto(environ, start_response)
            return answer
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = json.loads(environ["wsgi.input"].read(length) or b"{}")
        reply = json.dumps(route(body)).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(reply)))])
        return [reply]

    def _advance(self, body: dict[str, Any]) -> dict[str, float]:
        self._clock.offset += max(0.0, float(body["advance"]))
        return {"offset": self._clock.offset}

    def _next(self, body: dict[str, Any]) -> dict[str, float | None]:
        return {"seconds": patches_sqs.next_visible(self._clock.seconds(), body["queues"])}

    def _oldest(self, body: dict[str, Any]) -> dict[str, float | None]:
        return {"seconds": patches_sqs.oldest(self._clock.seconds(), body["queues"])}

    def _reset(self, _: dict[str, Any]) -> dict[str, float]:
        from moto.moto_api._internal.models import moto_api_backend

        moto_api_backend.reset()
        self._clock.offset = 0.0
        return {"offset": 0.0}


def start() -> BaseWSGIServer:
    """The server, bound to a free loopback port, serving in daemon threads."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no access log
    clock = patches.ServerClock()
    patches.apply(clock)
    routes = Routes(DomainDispatcherApplication(create_backend_app), clock)
    server = make_server("127.0.0.1", 0, routes, threaded=True, request_handler=MotoRequestHandler)
    server.daemon_threads = True  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def wait_for_parent(parent: int) -> None:
    """Return when the parent is gone.

    Its end closes our standard input. A process that it forked can hold that pipe open, so we
    look at the parent's id too.
    """
    while os.getppid() == parent:
        readable, _, _ = select.select([sys.stdin], [], [], _WATCH_SECONDS)
        if readable and not os.read(sys.stdin.fileno(), 1024):
            return


def main() -> None:
    """Serve until the parent is gone."""
    parent = os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches us too; the parent ends us when it is done
    server = start()
    print(server.server_address[1], flush=True)
    wait_for_parent(parent)
    os._exit(0)  # nothing is worth keeping, and request threads may be waiting


if __name__ == "__main__":
    main()
