"""Feeding a file's lines to a source, with bounded memory and shallow queues."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import click

from pipeline.emulator.server_run import ServerRun

#: A full source is measured again when something happened, at the latest after this long.
_PATIENCE = 0.2


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
    lines = _lines(feed.path)
    while chunk := list(islice(lines, env.chunk(feed.source))):
        refused += await _send(feed, env, chunk)
        while await env.is_full(feed.source):
            await env.activity.wait(_PATIENCE)
    return refused


async def _send(feed: Feed, env: ServerRun, chunk: list[tuple[int, bytes]]) -> int:
    errors = await env.offer(feed.source, [line for _, line in chunk])
    bad = [(number, error) for (number, _), error in zip(chunk, errors, strict=True) if error is not None]
    for number, error in bad:
        click.echo(f"{feed.path}, line {number}, was not sent: {error}", err=True)
    return len(bad)


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.rstrip(b"\r\n")
