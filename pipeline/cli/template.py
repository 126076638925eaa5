"""`pipeline template`: the SAM template that the declared pipelines ask for."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import click

from pipeline.cli import targets
from pipeline.deploy.settings import read as read_settings
from pipeline.deploy.template import document, merge
from pipeline.deploy.template.assembly import template as template_of
from pipeline.deploy.template.merge import Merged
from pipeline.errors import ConfigurationError

_DEFAULT = Path("template.yaml")
_HEAD = "Written by `pipeline template`; `--merge` keeps what you change here. To deploy: sam build --build-in-source && sam deploy --guided"


@click.command(help=f"""Write the SAM template that the declared pipelines ask for, to stdout or a file.

{targets.HELP}

Queues, streams, tables and buckets, a function for each handler with a role of its own, mappings, alarms and a
dashboard. A file that somebody has edited is not overwritten: --merge writes anew what was generated, leaves alone
what was not, and says what that is. Exit code 1: --check found the file out of step, the file was edited and --merge
was not given, or what was added by hand refers to something that is no longer there; 2 for misuse.
""")  # fmt: skip
@click.argument("target", required=False)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write there; default: stdout.")
@click.option("--check", is_flag=True, help=f"Compare the file (default {_DEFAULT}) with what would be written.")
@click.option("--merge", "merging", is_flag=True, help="Keep what was edited or added by hand in the file.")
def template(target: str | None, output: Path | None, check: bool, merging: bool) -> None:
    """Write the SAM template that the declared pipelines ask for."""
    if merging and output is None and not check:
        output = _DEFAULT
    pipelines = targets.load(target)
    try:
        made = template_of(pipelines, layer=read_settings(Path.cwd()).layer)
        text = merge.sealed(document.text_of(made, _HEAD))
        if check:
            _check(text, output or _DEFAULT)
            return
        found = Merged(text)
        if output is not None and output.exists():
            found = _with_edits(text, output, merging=merging)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    if output is None:
        click.echo(found.text, nl=False)
    else:
        _write(found.text, output)
    for note in made.notes:
        click.echo(note, err=True)
    if found.dangling:
        sys.exit(1)


def _with_edits(text: str, path: Path, *, merging: bool) -> Merged:
    found = merge.merged(text, _read(path), str(path))
    if not merging and not found.is_ours:
        _say(found)
        raise click.ClickException(
            f"{path} was edited by hand, and is left as it was: --merge keeps the edits; to have them no more, delete it"
        )
    _say(found)
    return found


def _check(text: str, path: Path) -> None:
    existing = _read(path)
    found = merge.merged(text, existing, str(path))
    _say(found)
    if found.text == existing and not found.dangling:
        click.echo(f"{path} is in step", err=True)
        return
    if found.text == existing:
        sys.exit(1)
    lines = difflib.unified_diff(
        existing.splitlines(), found.text.splitlines(), str(path), "what would be written", lineterm=""
    )
    for line in lines:
        click.echo(line)
    merging = " --merge" if not found.is_ours else ""
    click.echo(f"{path} is out of step: run pipeline template --output {path}{merging}", err=True)
    sys.exit(1)


def _say(found: Merged) -> None:
    for names, text in (
        (found.edited, "was edited by hand: kept, although something else would be written now"),
        (found.foreign, "was added by hand: kept"),
        (found.missing, "was taken out by hand: not put back"),
    ):
        for name in names:
            click.echo(f"{name} {text}", err=True)
    for sentence in found.dangling:
        click.echo(f"{sentence}: CloudFormation will refuse it", err=True)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # with its own line ends
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from None


def _write(text: str, path: Path) -> None:
    try:
        path.write_bytes(text.encode())
    except OSError as error:
        raise click.UsageError(f"{path} cannot be written: {error.strerror}") from None
