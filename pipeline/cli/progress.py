"""How far a local run is: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.live import Live
from rich.table import Table

from pipeline.emulator.local_source import Depth
from pipeline.emulator.report import Counts, Report
from pipeline.emulator.server_run import ServerRun
from pipeline.errors import PipelineError

_LIVE_SECONDS = 0.5
_PLAIN_SECONDS = 2.0


def _numbers(counts: Counts) -> dict[str, int]:
    """The counts by their columns."""
    return {
        "records": counts.records,
        "succeeded": counts.succeeded,
        "duplicates": counts.duplicates,
        "rejected": counts.rejected,
        "exhausted": counts.exhausted,
        "batches": counts.batches,
        "deliveries": counts.deliveries,
        "dead": counts.dead_lettered,
        "filtered": counts.filtered,
    }


_NUMBERS = tuple(_numbers(Counts()))
_COLUMNS = ("handler", *_NUMBERS, "outputs", "waiting", "lag")
#: Shown also while there is nothing of it.
_ALWAYS = {"handler", "records", "succeeded", "batches", "deliveries", "dead", "waiting", "lag"}


@asynccontextmanager
async def shown(env: ServerRun) -> AsyncGenerator[None, None]:
    """Show the run's progress while the block lasts."""
    work = _live(env) if sys.stdout.isatty() else _plain(env)
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def finish(report: Report) -> None:
    """The last word: the table, or one line for each handler."""
    if sys.stdout.isatty():
        Console().print(table(report, {}))
        return
    for name, counts in report.handlers.items():
        click.echo(line(name, counts))


def show_cursor() -> None:
    """The live table hides it: for a program that ends in the middle."""
    terminal = sys.__stdout__  # the table puts its own in the place of the other
    if terminal is not None and terminal.isatty():
        terminal.write("\x1b[?25h\n")
        terminal.flush()


def line(name: str, counts: Counts) -> str:
    """One handler in one line."""
    outputs = "".join(f", {count} to {sink}" for sink, count in counts.outputs.items())
    filtered = f", {counts.filtered} filtered" if counts.filtered else ""
    return (
        f"{name}: {counts.records} records ({counts.succeeded} succeeded, {counts.duplicates} duplicates, "
        f"{counts.rejected} rejected, {counts.exhausted} exhausted), {counts.deliveries} deliveries, "
        f"{counts.dead_lettered} dead-lettered{filtered}{outputs}"
    )


def table(
    report: Report, depths: Mapping[str, Depth], lags: Mapping[str, float | None] = MappingProxyType({})
) -> Table:
    """The handlers as a table, with what waits for each."""
    rows = [_row(name, counts, depths.get(name), lags.get(name)) for name, counts in report.handlers.items()]
    # A terminal is narrow: what there is nothing of is left out.
    names = [
        name for name in (_COLUMNS if depths else _COLUMNS[:-2]) if name in _ALWAYS or any(row[name] for row in rows)
    ]
    made = Table(box=SIMPLE, padding=(0, 1, 0, 0))
    for name in names:
        made.add_column(name, justify="left" if name == "handler" else "right", overflow="fold")
    for row in rows:
        made.add_row(*(row[name] or "0" if name in _NUMBERS else row[name] for name in names))
    return made


def _row(name: str, counts: Counts, depth: Depth | None, lag: float | None) -> dict[str, str]:
    """The cells by their columns; empty: there is nothing of it."""
    return {
        "handler": name,
        **{column: str(number or "") for column, number in _numbers(counts).items()},
        "outputs": "\n".join(f"{sink} {count}" for sink, count in counts.outputs.items()),
        "waiting": "" if depth is None else depth.waiting,
        "lag": _lag(lag),
    }


def _lag(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.0f} s"


async def _live(env: ServerRun) -> None:
    with Live(console=Console(), auto_refresh=False, transient=True) as live:
        while True:
            with suppress(PipelineError):  # a server that does not answer may do so again
                live.update(table(await env.report(), await env.depths(), await env.lags()), refresh=True)
            await asyncio.sleep(_LIVE_SECONDS)


async def _plain(env: ServerRun) -> None:
    said: dict[str, str] = {}
    while True:
        await asyncio.sleep(_PLAIN_SECONDS)
        with suppress(PipelineError):
            _tell(await env.report(), said)


def _tell(report: Report, said: dict[str, str]) -> None:
    for name, counts in report.handlers.items():
        text = line(name, counts)
        if said.get(name) != text and (counts.deliveries or counts.filtered):
            click.echo(text)
        said[name] = text
