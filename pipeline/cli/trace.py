"""`pipeline trace`: the story of one record."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.cli import kept, rows, story_text
from pipeline.cli.shown import clean
from pipeline.cli.story import Story, tell
from pipeline.cli.story_lines import Line, read


@click.command()
@click.argument("record_id")
@click.option(
    "--log", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), metavar="FILE",
    help=f"Read these log lines; `-`: from stdin. Default: {kept.LOG}, which `pipeline dev` writes.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the story as one JSON object.")
def trace(record_id: str, log: Path | None, as_json: bool) -> None:
    """Tell the story of one record: where it came from, each attempt, what it caused, where it stands.

    RECORD_ID is what log lines call `record_id`, the id of an output (`caused_by`), or a trace's id (`traceId`).

    It reads the lines that `pipeline dev` keeps in this directory.

    The exit code is 0 when there is something to tell, 1 when no line has this id, 2 for misuse.
    """
    asked = record_id.strip()
    if not asked:
        raise click.UsageError("RECORD_ID is empty: give what a log line calls record_id, caused_by or traceId")
    lines = _lines(log)
    asking = story_text.Asking(time.time())
    story = tell(lines, asked)
    if story is None:
        where = "stdin" if str(log) == "-" else str(log or kept.LOG)
        if as_json:
            click.echo(json.dumps({"asked": asked, "records": []}))
        click.echo(f"no line of a record in {where} has the id '{clean(asked, 200)}' ({len(lines)} lines)", err=True)
        sys.exit(1)
    _print(story, asking, as_json=as_json)


def _lines(log: Path | None) -> list[Line]:
    path = log or kept.LOG
    try:
        if str(path) == "-":
            return list(read(raw.decode("utf-8", "replace") for raw in sys.stdin.buffer))
        with path.open(encoding="utf-8", errors="replace") as file:
            return list(read(file))
    except OSError as error:
        if log is None:
            raise click.UsageError(
                f"{path} cannot be read: {error.strerror}. `pipeline dev` writes it in the directory where it runs; "
                "--log reads other lines, and --stack asks CloudWatch Logs"
            ) from None
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None


def _print(story: Story, asking: story_text.Asking, *, as_json: bool, notes: Sequence[str] = ()) -> None:
    if as_json:
        click.echo(json.dumps({**story_text.document(story, asking), "notes": list(notes)}, indent=2))
        return
    rows.put(story_text.sections(story, asking))
    for note in (*story_text.notes(story), *notes):
        click.echo(note, err=True)
