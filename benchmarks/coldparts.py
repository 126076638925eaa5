"""Where a cold start's CPU time goes, by what is done: importing, reading models, certificates, handshakes.

Measured by wrapping functions, which itself takes time: the parts are for comparing with each other, not with the table.
"""

from __future__ import annotations

import builtins
import functools
import gc
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any


class Parts:
    """CPU milliseconds by part; what a part calls of another counts for that one alone."""

    def __init__(self) -> None:
        self.millis: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._open = threading.local()
        self._collecting = 0.0
        gc.callbacks.append(self._collection)

    def timed(self, function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        """The function, timed as the part that `name` makes of its arguments."""

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            inner = self._open.__dict__.setdefault("inner", [0.0])
            inner.append(0.0)
            begun = time.thread_time()
            try:
                return function(*arguments, **options)
            finally:
                spent = time.thread_time() - begun
                part = name(*arguments, **options)
                self.millis[part] += (spent - inner.pop()) * 1000
                self.calls[part] += 1
                inner[-1] += spent

        return call

    def _collection(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.thread_time()
        else:
            spent = time.thread_time() - self._collecting
            self.millis["garbage collection"] += spent * 1000
            self.calls["garbage collection"] += 1
            self._open.__dict__.setdefault("inner", [0.0])[-1] += spent


def watch() -> Callable[[], dict[str, list[float]]]:
    """Time the parts from here on; the result gives each part's milliseconds and calls so far, largest first."""
    parts = Parts()
    begun = time.process_time()
    builtins.__import__ = parts.timed(builtins.__import__, lambda *_, **__: "imports, the function's own included")
    contexts = ssl.SSLContext
    for method in ("load_verify_locations", "load_default_certs", "set_default_verify_paths"):
        setattr(contexts, method, parts.timed(getattr(contexts, method), lambda *_, **__: "TLS: reading certificates"))
    for kind in (ssl.SSLObject, ssl.SSLSocket):
        kind.do_handshake = parts.timed(kind.do_handshake, lambda *_, **__: "TLS: handshakes")
    _watch_botocore(parts)

    def found() -> dict[str, list[float]]:
        total = (time.process_time() - begun) * 1000
        rest = {"the rest: calls, loops, the function": total - sum(parts.millis.values())}
        return {name: [millis, parts.calls[name]] for name, millis in Counter({**parts.millis, **rest}).most_common()}

    return found


def _watch_botocore(parts: Parts) -> None:
    import botocore.args
    import botocore.client
    import botocore.loaders
    import botocore.session

    loader = botocore.loaders.Loader
    loader.load_data_with_path = parts.timed(loader.load_data_with_path, lambda _, name: f"reading {_kind(name)}")
    scan = parts.timed(loader.list_available_services, lambda *_, **__: "looking through the folders of all services")
    loader.list_available_services = scan
    session = botocore.session.Session
    session.__init__ = parts.timed(session.__init__, lambda *_, **__: "session")
    arguments = botocore.args.ClientArgsCreator
    arguments.get_client_args = parts.timed(arguments.get_client_args, lambda *_, **__: "client: its arguments")
    classes = botocore.client.ClientCreator
    for method in ("_create_client_class", "_create_methods"):
        if hasattr(classes, method):
            setattr(classes, method, parts.timed(getattr(classes, method), lambda *_, **__: "client: its class"))


def _kind(name: str) -> str:
    """`endpoints`, or the kind of a service's file: `dynamodb/2012-08-10/service-2` is the model of dynamodb."""
    pieces = name.split("/")
    return name if len(pieces) == 1 else f"{pieces[-1]} of {pieces[0]}"
