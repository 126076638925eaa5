"""`pipeline trace`: the story of one record."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from pipeline.aws.operators import logs, stacks
from pipeline.aws.operators import peek as looking
from pipeline.cli import kept, reaching, rows, story_text, troubles
from pipeline.cli.shown import clean
from pipeline.cli.story import Story, tell
from pipeline.cli.story_lines import is_readable, read
from pipeline.cli.story_search import Found, Range, in_trouble, search
from pipeline.decisions import tracing
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, PipelineError

_SINCE = "24h"
_LENGTH = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


@click.command()
@click.argument("record_id", required=False)
@click.option(
    "--log", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), metavar="FILE",
    help=f"Read these log lines; `-`: from stdin. Default: {kept.LOG}, which `pipeline dev` writes.",
)  # fmt: skip
@click.option("--stack", metavar="NAME", help="Ask the log groups of this CloudFormation stack, on AWS.")
@click.option(
    "--log-group", "groups", metavar="NAME", multiple=True, help="Ask this log group. Can be given several times."
)
@click.option(
    "--since", metavar="TIME", default=_SINCE, show_default=True,
    help="How far back AWS is asked, as 90m, 3h or 2d: what is scanned is paid.",
)  # fmt: skip
@click.option("--region", metavar="REGION", help="Of AWS; else AWS_REGION, or the profile's.")
@click.option("--profile", metavar="PROFILE", help="Of ~/.aws/config.")
@click.option("--endpoint-url", metavar="URL", help="Another server than AWS's own.")
@click.option("--json", "as_json", is_flag=True, help="Print the story as one JSON object.")
def trace(
    record_id: str | None,
    log: Path | None,
    stack: str | None,
    groups: tuple[str, ...],
    since: str,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
    as_json: bool,
) -> None:
    """Tell the story of one record: where it came from, each attempt, what it caused, where it stands.

    RECORD_ID is what log lines call `record_id`, the id of an output (`caused_by`), or a trace's id (`traceId`, also as X-Ray
    writes it, or a whole `traceparent`). Without one it lists what went wrong lately, by handler and type of error, each with
    the latest record's id.

    Without --stack or --log-group it reads the lines that `pipeline dev` keeps in this directory. On AWS it asks CloudWatch Logs
    Insights, up to six times, and says how much was scanned.

    The exit code is 0 when there is something to tell, 1 when no line has this id or AWS cannot be asked, 2 for misuse.
    """
    asked = None if record_id is None else _asked(record_id.strip())
    is_aws = stack is not None or bool(groups)
    if is_aws and log is not None:
        raise click.UsageError("--log reads a file, and --stack and --log-group ask AWS: give one of them")
    options = reaching.options(stack=stack, region=region, profile=profile, endpoint_url=endpoint_url)
    if not is_aws and (options or since != _SINCE):
        raise click.UsageError(
            "--since, --region, --profile and --endpoint-url are for AWS: name a --stack or a --log-group"
        )
    again = reaching.options(log=None if log is None else str(log), since=None if since == _SINCE else since)
    again += "".join(reaching.options(log_group=one) for one in groups) + options
    now = time.time()
    if is_aws:
        found, notes, where = _ask(asked, _Where(stack, groups, _seconds(since), region, profile, endpoint_url), now)
        lines, texts = found.lines, found.texts
    else:
        texts, notes, where = _texts(log), [], "stdin" if str(log) == "-" else str(log or kept.LOG)
        lines = [] if asked is None else list(read(texts))
    if asked is None:
        if log is not None and not any(map(is_readable, texts)):
            raise click.ClickException(f"there is no log line in {clean(where)}: it is to have one JSON object a line")
        _print_troubles(troubles.troubles(texts), where, again, as_json=as_json, notes=notes)
        return
    # A local run keeps all lines, but for functions of a template: they write at a level of their own, and say their version.
    is_run = not is_aws and log is None
    story = tell(lines, asked, has_all=is_run and not any('"function_version"' in line.text for line in lines))
    if story is None:
        said = f"no line of a record in {clean(where)} has the id '{clean(asked, 200)}' ({len(lines)} lines)"
        _print_nothing(asked, [said, *notes], as_json=as_json)
        sys.exit(1)
    suffix = f"{options} --stack NAME" if is_aws and stack is None else options
    # The queues of a local run end with it.
    asking = story_text.Asking(now, suffix, has_queues=not is_run or kept.announced() is not None)
    _print(story, asking, as_json=as_json, notes=notes)


def _asked(given: str) -> str:
    """What is asked for: of a trace, however it is written, its id as log lines have it."""
    if not given:
        raise click.UsageError("RECORD_ID is empty: give what a log line calls record_id, caused_by or traceId")
    return tracing.trace_id_of(given) or given


@dataclass(frozen=True)
class _Where:
    """Whom to ask on AWS."""

    stack: str | None
    groups: Sequence[str]
    seconds: float  #: how far back
    region: str | None
    profile: str | None
    endpoint_url: str | None


def _seconds(since: str) -> float:
    found = _LENGTH.fullmatch(since.strip())
    if found is None:
        raise click.BadParameter(
            f"'{clean(since, 50)}': write a number and a unit, as 90m, 3h or 2d", param_hint="--since"
        )
    return float(found[1]) * _UNITS[found[2]]


def _ask(asked: str | None, where: _Where, now: float) -> tuple[Found, list[str], str]:
    """The lines, what is to be said of them, and where they were looked for."""
    try:
        endpoint = reaching.endpoint(where.endpoint_url, is_aws=True)
        with reaching.reached(endpoint, region=where.region, profile=where.profile):
            return asyncio.run(_search(asked, where, now))
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    except PipelineError as error:
        raise click.ClickException(clean(str(error))) from None


async def _search(asked: str | None, where: _Where, now: float) -> tuple[Found, list[str], str]:
    environment = ProcessEnvironment()
    what = f"the stack '{where.stack}'"
    actions: Sequence[str] = stacks.ACTIONS
    try:
        names = list(where.groups)
        if where.stack is not None:
            names += logs.groups_of(await stacks.resources(where.stack, environment))
        what, actions = "CloudWatch Logs", logs.ACTIONS
        groups = await logs.existing(list(dict.fromkeys(names)), environment)
        _check(groups, where)
        # Clocks differ, and the newest lines may bear times to come.
        asking = Range(groups.names, now - where.seconds, now + 60)
        if asked is None:
            found = await in_trouble(asking, environment)
        else:
            found = await search(asked, asking, environment)
    except PipelineError:
        raise
    except Exception as error:
        raise PipelineError(looking.why(error, what, actions)) from None
    finally:
        await environment.aclose()
    return found, _told(found, groups), f"{len(groups.names)} log group{'' if len(groups.names) == 1 else 's'}"


def _check(groups: logs.Groups, where: _Where) -> None:
    missing = [name for name in groups.missing if name in where.groups]
    if missing:
        raise PipelineError(f"there is no log group {', '.join(missing)}: has the function run, and is it this region?")
    if not groups.names:
        what = f"of the class INFREQUENT_ACCESS or DELIVERY: {', '.join(groups.unfit)}" if groups.unfit else "yet"
        whose = "there is" if where.stack is None else f"the stack '{where.stack}' has"
        raise PipelineError(f"{whose} no log group that can be asked {what}")


def _told(found: Found, groups: logs.Groups) -> list[str]:
    size = found.scanned / 1e6
    price = found.scanned / 1e9 * logs.PRICE
    queries = f"{found.questions} quer{'y' if found.questions == 1 else 'ies'}"
    notes = [
        f"{queries} scanned {size:,.1f} MB: about {price:.4f} USD at {logs.PRICE} USD a GB. New lines take some seconds."
    ]
    if found.is_cut:
        notes.append(f"A query has {logs.MAX_ROWS:,} rows at most, and one had as many: try a shorter --since.")
    if groups.unfit:
        notes.append(f"Not asked, because of their class: {', '.join(groups.unfit)}")
    return notes


def _texts(log: Path | None) -> list[str]:
    path = log or kept.LOG
    try:
        if str(path) == "-":
            return [raw.decode("utf-8", "replace") for raw in sys.stdin.buffer]
        with path.open(encoding="utf-8", errors="replace") as file:
            return list(file)
    except OSError as error:
        if log is None:
            raise click.UsageError(
                f"{path} cannot be read: {error.strerror}. `pipeline dev` writes it in the directory where it runs; "
                "--log reads other lines, and --stack asks CloudWatch Logs"
            ) from None
        raise click.UsageError(f"{path} cannot be read: {error.strerror}") from None


def _print_troubles(
    found: Sequence[troubles.Trouble], where: str, again: str, *, as_json: bool, notes: Sequence[str]
) -> None:
    """`again`: the options that ask the same place."""
    if as_json:
        click.echo(json.dumps({"troubles": troubles.document(found), "notes": list(notes)}, indent=2))
        return
    if not found:
        click.echo(f"nothing went wrong, by the lines in {clean(where)}")
    rows.put(troubles.sections(found, again))
    for note in notes:
        click.echo(clean(note), err=True)


def _print_nothing(asked: str, notes: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"asked": asked, "records": [], "notes": list(notes)}))
    for note in notes:
        click.echo(clean(note), err=True)


def _print(story: Story, asking: story_text.Asking, *, as_json: bool, notes: Sequence[str] = ()) -> None:
    if as_json:
        click.echo(
            json.dumps({**story_text.document(story, asking), "notes": [*story_text.notes(story), *notes]}, indent=2)
        )
        return
    rows.put(story_text.sections(story, asking))
    for note in (*story_text.notes(story), *notes):
        click.echo(clean(note), err=True)
