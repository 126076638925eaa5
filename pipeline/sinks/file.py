"""Outputs as lines of a file, for local runs."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.decisions.deadline import Deadline
from pipeline.errors import ConfigurationError, SinkError, SinkUnavailable
from pipeline.output import Output
from pipeline.ports import Environment
from pipeline.sinks.options import assign, check_name, check_when

#: Keeps the lines of writers in this process whole; other processes are kept out by O_APPEND alone.
_WRITING = threading.Lock()


@dataclass(frozen=True, init=False)
class File:
    """Append each output as one line of JSON (NDJSON); the folder must exist.

    For local runs: nothing is carried, and a repeat of a record writes its lines again. `name`
    defaults to the file's name.
    """

    path: Path
    name: str
    when: Callable[[Any], bool] | None

    #: Ids and hops cannot travel with a line.
    carries = False
    #: There is no place for message attributes either.
    has_attributes = False

    def __init__(
        self, path: str | os.PathLike[str], *, name: str | None = None, when: Callable[[Any], bool] | None = None
    ) -> None:
        if not os.fspath(path):
            raise ConfigurationError("sinks.File(''): give the path of a file, such as sinks.File('out.ndjson')")
        check_name(name, "sinks.File")
        check_when(when, "sinks.File")
        assign(self, path=Path(path), name=name or Path(path).name, when=when)

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        """Append the outputs in one write; see the `Sink` port."""
        if not outputs:
            return []
        lines = "".join(f"{_line(output)}\n" for output in outputs).encode("utf-8", "surrogatepass")
        try:
            await asyncio.to_thread(_append, self.path, lines)
        except OSError as error:
            reason = SinkUnavailable(f"{self.path}: {error.strerror or error}")
            return [reason] * len(outputs)
        return [None] * len(outputs)


def _line(output: Output) -> str:
    return json.dumps(output.body) if output.is_text else output.body


def _append(path: Path, lines: bytes) -> None:
    with _WRITING, path.open("ab", buffering=0) as file:
        start = file.tell()
        written = file.write(lines)
        if written != len(lines):
            # A full disk took a part of it: a torn line would spoil the next one too.
            file.truncate(start)
            raise OSError(f"only {written} of {len(lines)} bytes could be written")
