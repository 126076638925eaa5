"""Feeding a file's lines to a source, with bounded memory and shallow queues."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import click

from pipeline.emulator.server_run import ServerRun

#: A full source is measured again when something happened, at the latest after this long.
_PATIENCE = 0.2
#: The largest record that any source takes: Kinesis's, 10 MiB ("Quotas and limits", Kinesis Data Streams developer guide).
_LONGEST = 10 * 1024 * 1024
_TOO_LONG = f"it is longer than {_LONGEST:,} bytes, the most that any source takes"
#: Lines are read until they are so many bytes together.
_CHUNK_BYTES = 4 * 1024 * 1024

T = TypeVar("T")
#: A line by its number; None: it is too long.
Line: TypeAlias = tuple[int, bytes | None]


@dataclass(frozen=True)
class Feed:
    """A source's name, and the file whose lines are its records."""

    source: str
    path: Path


def parse(value: str) -> Feed:
    """`NAME=FILE`. Raises `BadParameter`."""
    source, separator, name = value.partition("=")
    if not separator or not source or not name:
        raise click.BadParameter(f"'{value}': write NAME=FILE, such as orders=orders.ndjson")
    path = Path(name)
    try:
        path.open("rb").close()
    except OSError as error:
        raise click.BadParameter(f"'{name}' cannot be read: {error.strerror}") from None
    return Feed(source, path)


async def run(feed: Feed, env: ServerRun) -> int:
    """Send every line that is not blank, as it is; returns how many were not taken, each named on stderr."""
    refused = 0
    with feed.path.open("rb") as file:
        lines = _lines(file)
        while chunk := await _in_thread(lambda: _chunk(lines, env.chunk(feed.source))):
            refused += await _send(feed, env, chunk)
            while await env.is_full(feed.source):
                await env.activity.wait(_PATIENCE)
    return refused


async def _send(feed: Feed, env: ServerRun, chunk: Sequence[Line]) -> int:
    found = [(number, line) for number, line in chunk if line is not None]
    errors = await env.offer(feed.source, [line for _, line in found])
    bad: list[tuple[int, object]] = [(number, _TOO_LONG) for number, line in chunk if line is None]
    bad += [(number, error) for (number, _), error in zip(found, errors, strict=True) if error is not None]
    for number, why in sorted(bad, key=itemgetter(0)):
        click.echo(f"{feed.path}, line {number}, was not sent: {why}", err=True)
    return len(bad)


def _chunk(lines: Iterator[Line], count: int) -> list[Line]:
    """The next lines: so many at most, and few long ones."""
    found: list[Line] = []
    size = 0
    for number, line in islice(lines, count):
        found.append((number, line))
        size += len(line or b"")
        if size >= _CHUNK_BYTES:
            break
    return found


def _lines(file: BinaryIO) -> Iterator[Line]:
    number = 0
    while line := file.readline(_LONGEST + len(b"\r\n")):
        number += 1
        is_cut = not line.endswith(b"\n")
        line = line.rstrip(b"\r\n")
        if len(line) > _LONGEST:
            while is_cut and (rest := file.readline(_LONGEST)):
                is_cut = not rest.endswith(b"\n")
            yield number, None
        elif line.strip():
            yield number, line


async def _in_thread(work: Callable[[], T]) -> T:
    """Read beside the loop. A daemon: what is fed may be a pipe, and nobody waits for it at the end."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            tell = partial(_settle, done, work(), None)
        except BaseException as error:
            tell = partial(_settle, done, None, error)
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(tell)

    threading.Thread(target=run, name="feed", daemon=True).start()
    return await done


def _settle(done: asyncio.Future[Any], found: Any, error: BaseException | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(found)
    else:
        done.set_exception(error)
