"""Answers in sections of rows: on a terminal with colours, elsewhere plain."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

import click
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

_STYLES = {
    "succeeded": "green",
    "duplicate": "cyan",
    "failed": "yellow",
    "postponed": "yellow",
    "unprocessed": "yellow",
    "rejected": "red",
    "exhausted": "red",
    "dead letter": "red",
}


class Row(Struct, frozen=True):
    """One line of a section."""

    when: str
    what: str
    text: str
    depth: int = 0


class Section(Struct, frozen=True):
    """A heading and its rows."""

    title: str
    rows: Sequence[Row]
    is_record: bool = False  #: it begins a record


def put(found: Sequence[Section]) -> None:
    """Print the sections, as stdout takes them."""
    if sys.stdout.isatty():
        show(found, Console(highlight=False))
        return
    for text in plain(found):
        click.echo(text)


def plain(found: Sequence[Section]) -> Iterator[str]:
    """Lines of text without colours."""
    for number, section in enumerate(found):
        if number and section.is_record:
            yield ""
        yield section.title
        when = max((len(row.when) for row in section.rows), default=0)
        what = max((len(row.what) for row in section.rows), default=0)
        for row in section.rows:
            cells = [row.when.ljust(when)] * bool(when) + [row.what.ljust(what)] * bool(what)
            yield "  " + "  ".join([*cells, "  " * row.depth + row.text]).rstrip()


def show(found: Sequence[Section], console: Console) -> None:
    """The same on a terminal."""
    for section in found:
        console.print(Text(section.title, style="bold"))
        table = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(2):
            table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for row in section.rows:
            style = _STYLES.get(row.what, "")
            indent = "  " * row.depth + ("└ " if row.depth else "")
            table.add_row(Text(f"  {row.when}", style="dim"), Text(row.what, style=style), Text(indent + row.text))
        if section.rows:
            console.print(table)
