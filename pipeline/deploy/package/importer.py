"""Imports modules in a process of its own, and writes down what that loaded.

Run as a script, by path and with nothing but the standard library: what it imports itself would
count as loaded. Arguments: the project's directory, the file to write, and `module[:attribute]`s; of
a package, its modules are imported too. Connections are refused: Lambda imports the module at every
cold start, and here it would be with the developer's rights.
"""

import importlib
import ipaddress
import json
import pkgutil
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

#: What reaches another machine, of Python's audit events; those that name a socket, and those that look a name up.
SENDING = ("socket.connect", "socket.sendto", "socket.sendmsg")
LOOKING_UP = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.getnameinfo")
REACHING = (*SENDING, *LOOKING_UP)


def main(project: str, report: str, *targets: str) -> None:
    """Write `{"modules": {name: [directories and file]}}`, or `{"error": ...}` with the place of it."""
    sys.path.insert(0, project)
    sys.addaudithook(_refuse)
    before = set(sys.modules)
    target = ""
    try:
        for target in targets:
            name, _, attributes = target.partition(":")
            found: Any = importlib.import_module(name)
            for attribute in filter(None, attributes.split(".")):
                found = getattr(found, attribute)
            for inner in [] if attributes else pkgutil.iter_modules(getattr(found, "__path__", [])):
                importlib.import_module(f"{name}.{inner.name}")
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a script that runs on import
        written: Any = {"error": f"{type(error).__name__}: {error}", "target": target, "where": _where(error, project)}
    else:
        written = {"modules": {name: _places(sys.modules[name]) for name in set(sys.modules) - before}}
    Path(report).write_text(json.dumps(written), encoding="utf-8")


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in REACHING and not is_this_machine(event, arguments):
        raise ConnectionRefusedError(
            "connections are refused while a module is imported: make them in a @pipeline.resource"
        )


def is_this_machine(event: str, arguments: tuple[Any, ...]) -> bool:
    """Nothing leaves the machine: a socket of another kind, one that is connected already, or a loopback address."""
    if event in LOOKING_UP:
        host = arguments[0][0] if isinstance(arguments[0], tuple) else arguments[0]
    elif arguments[0].family not in (socket.AF_INET, socket.AF_INET6) or arguments[1] is None:
        return True
    else:
        host = arguments[1][0]
    text = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if text == "localhost" or text == socket.gethostname():
        return True
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _places(module: Any) -> list[str]:
    """The directories that a package is (a namespace has several, and no file), then the module's file."""
    try:
        paths = [str(path) for path in getattr(module, "__path__", [])]
        file = getattr(module, "__file__", None)
    except Exception:  # modules that make their attributes up
        return []
    return paths + ([file] if isinstance(file, str) else [])


def _where(error: BaseException, project: str) -> str | None:
    """The last line in the project's own code."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(project)]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else None


if __name__ == "__main__":
    main(*sys.argv[1:])
