"""The log lines of a local run in a file, for `pipeline trace`; and what the run tells others of itself."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from pipeline.emulator.isolation import check_endpoint
from pipeline.errors import ConfigurationError

#: What a local run leaves in the working directory. It holds nothing that is worth a commit.
DIRECTORY = Path(".pipeline")
LOG = DIRECTORY / "log.jsonl"
#: Where the services of the run that goes on here listen.
RUN = DIRECTORY / "run.json"
#: The file's size, in bytes, at which its older half is dropped.
MAX_BYTES = 50_000_000
#: How long a run's server has to take a connection, in seconds. The system takes it, however busy the server is.
_LISTENS = 1.0


class KeptLines:
    """A log file that is begun anew and stays small. Writing never raises: a full disk must not end a run.

    What a user named and is no regular file (a pipe, a device, a link) is only added to.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self._path = path
        self._max = max_bytes
        self._lock = threading.Lock()
        #: Why the last lines could not be kept; None: all are.
        self.error: OSError | None = None
        self._file: BinaryIO | None = None
        self._size = 0
        self._is_file = True  #: ours to begin anew and to cut

    def begin(self) -> None:
        """Begin the file anew. Raises `OSError`; a pipe that nobody reads is one."""
        if self._path.parent == DIRECTORY:
            _make_directory()
        self._is_file = self._path == LOG or _is_regular(self._path)
        if self._is_file:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()  # a run that still writes there goes on in a file of no name
            flags = os.O_EXCL
        else:
            flags = os.O_NONBLOCK  # to open a pipe waits for its reader, and no signal would end that
        number = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | flags, 0o600)
        os.set_blocking(number, True)
        self._file = os.fdopen(number, "ab", buffering=0)

    def write(self, text: str) -> None:
        """Add whole lines; before the begin and after the end, nothing."""
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            if self._file is None:
                return
            try:
                self._file.write(data)
                self._size += len(data)
                if self._is_file and self._size > self._max:
                    self._drop()
            except OSError as error:
                self.error = error
                self._close()

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _drop(self) -> None:
        """Keep the newer half, from the begin of a line."""
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_ino != self._path.stat().st_ino:
            self._close()  # another run has begun its own here
            return
        with self._path.open("rb") as whole:
            whole.seek(self._size - self._max // 2)
            whole.readline()
            rest = whole.read()
        new = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        new.write_bytes(rest)
        new.replace(self._path)
        self._file.close()
        self._file = self._path.open("ab", buffering=0)
        self._size = len(rest)


def _is_regular(path: Path) -> bool:
    """A regular file by itself, or nothing yet."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return True


@dataclass(frozen=True)
class Announced:
    """A run that goes on."""

    endpoint_url: str  #: where its services listen
    target: str | None = None  #: the TARGET that it was given; None: none
    has_pipelines: bool = True  #: False: it runs a template's functions
    pid: int = field(default_factory=os.getpid, compare=False)  #: its process


def announce(run: Announced) -> None:
    """Tell other commands in this directory of a run. Does nothing where nothing can be written."""
    with contextlib.suppress(OSError):
        _make_directory()
        RUN.write_text(json.dumps(asdict(run)) + "\n", encoding="utf-8")


def withdraw() -> None:
    """The run is at its end."""
    with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
        if json.loads(RUN.read_text(encoding="utf-8"))["pid"] == os.getpid():
            RUN.unlink()


def announced() -> Announced | None:
    """The run that goes on in this directory; None: there is none.

    The file may have come with the directory from somebody else: a run is on this machine, or in a private network.
    A run that was killed leaves its word behind, and another process may have its number: somebody must listen, too.
    """
    try:
        found = json.loads(RUN.read_text(encoding="utf-8"))
        pid = int(found["pid"])
        if pid <= 0:  # a group of processes, or all of them
            return None
        os.kill(pid, 0)
        url, target, has_pipelines = found["endpoint_url"], found["target"], found["has_pipelines"]
    except (OSError, ValueError, TypeError, LookupError, OverflowError):
        return None
    if not isinstance(url, str) or not isinstance(target, (str, type(None))):
        return None
    try:
        check_endpoint(url)
        if not _listens(url):
            return None
    except (ConfigurationError, ValueError):
        return None
    return Announced(url, target, has_pipelines=bool(has_pipelines), pid=pid)


def another() -> Announced | None:
    """The run of another process that goes on in this directory.

    Two that begin at the same moment do not see each other: the later one displaces the earlier.
    """
    run = announced()
    return None if run is None or run.pid == os.getpid() else run


def is_default(log: Path) -> bool:
    """This is the file that lines are kept in when no other is named, by whatever name."""
    return log.resolve() == LOG.resolve()


def _listens(url: str) -> bool:
    """Raises `ValueError` for a port or a host that is none."""
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_LISTENS).close()
    except OSError:
        return False
    return True


def _make_directory() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    ignore = DIRECTORY / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")
