"""Importing a user's module without letting it reach a network.

Lambda imports the module at every cold start, and so do the commands of this toolkit: what a module
does on import happens again and again, and here it would happen to an account, with the developer's rights.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from pipeline.deploy.package.importer import LOOKING_UP, REACHING, is_this_machine
from pipeline.deploy.settings import LIKE_LAMBDA

_OURS, _PYTHON = Path(__file__).parent.parent, Path(inspect.__file__).parent
_LOOKS = 100


class _Watch:
    """Whether an import is under way, and what it tried. An audit hook stays for the life of the process."""

    def __init__(self) -> None:
        self.is_on = False
        self.tried: str | None = None
        self.importer = 0  #: the thread that imports
        self._is_hooked = False

    def hook(self) -> None:
        if not self._is_hooked:
            self._is_hooked = True
            sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on or event not in REACHING:
            return
        if is_this_machine(event, arguments):
            return
        # A pool's thread has none of the user's lines on its stack: what waits for it has.
        where = _place(inspect.currentframe()) or _importers_place(self.importer)
        self.tried = self.tried or f"{_address(event, arguments)}{where}"
        raise ConnectionRefusedError("no connection is made while a module is imported")


_watch = _Watch()


@contextmanager
def watched(module: str) -> Iterator[None]:
    """Refuse connections inside the block. Raises `UsageError` when one was tried, also when the module hid that."""
    with _like_lambda():
        yield from _refusing(module)


@contextmanager
def _like_lambda() -> Iterator[None]:
    missing = {name: value for name, value in LIKE_LAMBDA.items() if name not in os.environ}
    os.environ.update(missing)
    try:
        yield
    finally:
        for name in missing:
            os.environ.pop(name, None)


def _refusing(module: str) -> Iterator[None]:
    outer = _watch.is_on, _watch.tried, _watch.importer
    _watch.is_on, _watch.tried, _watch.importer = True, None, threading.get_ident()
    _watch.hook()
    try:
        yield
    except BaseException:
        if _watch.tried is None:
            raise
    finally:
        tried = _watch.tried
        _watch.is_on, _watch.tried, _watch.importer = outer
    if tried is not None:
        raise click.UsageError(
            f"importing '{module}' tried to connect to {tried}, and was not let: Lambda imports it at every cold "
            "start, and this command must touch nothing. Make clients in a @pipeline.resource, or in a function"
        )


def _address(event: str, arguments: tuple[Any, ...]) -> str:
    """What was to be reached; an address of AWS's says the service."""
    if event == "socket.getaddrinfo":
        return f"{arguments[0]}:{arguments[1]}"
    address = arguments[0] if event in LOOKING_UP else arguments[1]
    return ":".join(map(str, address[:2])) if isinstance(address, tuple) else str(address)


def _place(innermost: FrameType | None) -> str:
    """The user's line that led there: the last one outside libraries and outside us.

    Without reading any file: another thread's frames go on while they are looked at.
    """
    frame = innermost
    while frame is not None:
        if is_of_user(frame.f_code.co_filename):
            return f" ({frame.f_code.co_filename}, line {frame.f_lineno})"
        frame = frame.f_back
    return ""


def is_of_user(filename: str) -> bool:
    """True for a file that is neither the toolkit's, nor a library's, nor Python's own."""
    path = Path(filename)
    is_library = "site-packages" in path.parts or "dist-packages" in path.parts or path.is_relative_to(_PYTHON)
    return not is_library and not path.is_relative_to(_OURS) and not filename.startswith("<")


def _importers_place(importer: int) -> str:
    """The line at which the importing thread is. It may move on under our eyes, so a few looks."""
    for _ in range(_LOOKS):
        found = _place(sys._current_frames().get(importer))  # pyright: ignore[reportPrivateUsage] - no public way
        if found:
            return found
    return ""
