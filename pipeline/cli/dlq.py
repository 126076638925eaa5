"""`pipeline dlq`: what became of records that will never succeed."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from pipeline.aws import sqs
from pipeline.aws.client import code_of
from pipeline.aws.names import VARIABLE
from pipeline.aws.operators import peek as looking
from pipeline.aws.operators import stacks
from pipeline.aws.operators.peek import HasRedrivePolicy, Message, Peeked
from pipeline.cli import kept, letter_queues, letters, reaching, rows, targets
from pipeline.cli.letter_queues import Place
from pipeline.cli.letters import Letter
from pipeline.cli.rows import Row, Section
from pipeline.cli.shown import clean, clock, date
from pipeline.cli.story_text import Asking, command
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.ports import Environment

#: Characters of a body in the table, and of a cause.
_BODY, _CAUSE = 1_024, 300
_MISSING = ("NonExistentQueue", "QueueDoesNotExist")
#: A queue of AWS's, by its ARN or URL, with its region.
_AWS_QUEUE = re.compile(
    r"arn:[a-z-]+:sqs:([a-z0-9-]+):"
    r"|https://(?:sqs(?:-fips)?\.(?P<host>[a-z0-9-]+)\.(?:amazonaws|api)\.|(?P<old>[a-z0-9-]+)\.queue\.amazonaws\.)"
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def dlq() -> None:
    """Look into dead letters: records that will never succeed, each with its cause."""


@dataclass(frozen=True)
class _Options:
    queue: str | None
    stack: str | None
    endpoint: str | None
    limit: int
    bodies: bool
    anyway: bool
    suffix: str  #: the options that say where the log lines are, for further commands


@dataclass
class _Found:
    """What was seen in one queue."""

    name: str
    label: str
    letters: list[Letter] = field(default_factory=list)
    total: int | None = None
    problem: str | None = None
    was_counted: bool = False  #: the look counts as a receive


@dlq.command("peek", help=f"""Show the dead letters of a TARGET's handlers, each with its cause and the next step.

{targets.HELP}

Without --stack, --profile or --region it looks into the `pipeline dev` that runs in this directory, and changes nothing
there. On AWS there is no way to look without receiving: each message's receive count grows by one, and it is given back at once.

The exit code is 0, also when there are no dead letters; 1 when a queue cannot be looked into; 2 for misuse.
""")  # fmt: skip
@click.argument("target", required=False)
@click.option("--source", metavar="NAME", help="Only the dead letters of this source, or of the handler of this name.")
@click.option("--queue", metavar="QUEUE", help="Look into this queue instead: its name, URL or ARN.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=10, show_default=True, help="Messages of each queue.")
@click.option(
    "--bodies",
    is_flag=True,
    help="Show the bodies too, their first 1,024 characters; with --json also attributes. They may hold secrets.",
)
@click.option(
    "--anyway", is_flag=True, help="Look also into a queue whose own redrive policy counts looks as receives."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; bodies (with --bodies) are whole.")
@click.option("--stack", metavar="NAME", help="Look into the queues of this CloudFormation stack, on AWS.")
@click.option("--region", metavar="REGION", help="Of AWS; else AWS_REGION, or the profile's.")
@click.option("--profile", metavar="PROFILE", help="Of ~/.aws/config.")
@click.option("--endpoint-url", metavar="URL", help="Another server than AWS's own, or than the `pipeline dev` here.")
def peek(
    target: str | None,
    source: str | None,
    queue: str | None,
    limit: int,
    bodies: bool,
    anyway: bool,
    as_json: bool,
    stack: str | None,
    region: str | None,
    profile: str | None,
    endpoint_url: str | None,
) -> None:
    """Show dead letters."""
    if queue is not None and (target is not None or source is not None):
        raise click.UsageError("--queue names the queue itself: give it without TARGET and --source")
    of_queue = None if queue is None else _AWS_QUEUE.match(queue)
    is_aws = any(value is not None for value in (stack, region, profile))
    if of_queue is not None and (of_queue[1] is None or kept.announced() is None):
        is_aws = True  # an ARN may also be of the run here, whose queues have some
    if is_aws and region is None and of_queue is not None:
        region = of_queue[1] or of_queue["host"] or of_queue["old"]
    try:
        endpoint = reaching.endpoint(endpoint_url, is_aws=is_aws)
        suffix = reaching.options(stack=stack, region=region, profile=profile, endpoint_url=endpoint_url)
        if suffix and stack is None:
            suffix += " --stack NAME"  # where log lines are, no queue says
        options = _Options(queue, stack, endpoint, limit, bodies, anyway, suffix)
        if queue is None:
            places, notes = letter_queues.declared(target, source, is_local=not is_aws and endpoint_url is None)
        else:
            places, notes = [letter_queues.named(queue)], []
        with reaching.reached(endpoint, region=region, profile=profile):
            found = asyncio.run(_look(options, places))
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    except PipelineError as error:
        raise click.ClickException(str(error)) from None
    _print(found, notes, options, as_json=as_json)
    if any(one.problem is not None for one in found):
        raise SystemExit(1)


# -- Looking


async def _look(options: _Options, places: Sequence[Place]) -> list[_Found]:
    environment = ProcessEnvironment()
    try:
        if options.stack is None or options.queue is not None:
            return [await _look_into(place, options, environment) for place in places]
        there = await _deployed(options.stack, places, environment)
        return [
            await _look_into(place, options, environment)
            if place.name is None or place.name in there
            else _Found(place.name, place.label, problem=_lacking(options.stack, place.name))
            for place in places
        ]
    finally:
        await environment.aclose()


async def _deployed(stack: str, places: Sequence[Place], environment: Environment) -> set[str]:
    """Tell what follows the queues' physical names, as a deployed function is told them; the logical names that are there."""
    try:
        found = await stacks.resources(stack, environment)
    except Exception as error:
        raise PipelineError(looking.why(error, f"the stack '{stack}'", stacks.ACTIONS)) from None
    names = {place.name for place in places if place.name is not None}
    queues = {name: url for name in names if (url := stacks.queue(found, name, stack)) is not None}
    os.environ[VARIABLE] = json.dumps({f"sqs:{name}": url for name, url in queues.items()})
    return set(queues)


def _lacking(stack: str, name: str) -> str:
    return f"the stack '{stack}' has no queue '{name}': is it this stack, and was it deployed since?"


async def _look_into(place: Place, options: _Options, environment: Environment) -> _Found:
    try:
        url = await place.url(environment)
        found = _Found(url.rpartition("/")[2], place.label)
        peeked = _embedded(found.name, options)
        if peeked is None:
            found.was_counted = True
            peeked = await looking.peek(url, options.limit, environment, anyway=options.anyway)
    except HasRedrivePolicy as error:
        return _Found(place.label or str(options.queue), place.label, problem=str(error))
    except PipelineError as error:
        return _Found(place.label or str(options.queue), place.label, problem=str(error))
    except Exception as error:
        what = f"the queue of {place.label}" if place.label else f"the queue '{options.queue}'"
        if code_of(error) in _MISSING:
            return _Found(place.label or str(options.queue), place.label, problem=f"{what} does not exist")
        return _Found(place.label or str(options.queue), place.label, problem=looking.why(error, what, looking.ACTIONS))
    found.total = peeked.total
    found.letters = [letters.read(message) for message in peeked.messages]
    return found


def _embedded(queue: str, options: _Options) -> Peeked | None:
    """What the server of `pipeline dev` shows without receiving; None: another server listens there."""
    if options.endpoint is None or not reaching.is_local(options.endpoint):
        return None
    shown = reaching.embedded(options.endpoint, "peek", {"queues": [queue]})
    if not isinstance(shown, list):
        return None
    messages = [
        Message(
            id=one["id"],
            body=one["body"],
            attributes=one["attributes"],
            sent_at=one.get("sent_at"),
            receive_count=one.get("receive_count"),
            group=one.get("group"),
            size=sqs.message_size(one["body"], {name: sqs.text_attribute(v) for name, v in one["attributes"].items()}),
        )
        for one in shown
    ]
    return Peeked(messages=messages[: options.limit], total=len(messages))


# -- Saying it


def _print(found: Sequence[_Found], notes: Sequence[str], options: _Options, *, as_json: bool) -> None:
    if as_json:
        click.echo(letters.as_json(_document(found, notes, options)))
    else:
        rows.put([_section(one, options) for one in found if one.problem is None])
    for one in found:
        if one.problem is not None:
            click.echo(f"Error: {clean(one.problem)}", err=True)
    for note in notes:
        click.echo(clean(note), err=True)
    if any(one.was_counted and one.letters for one in found):
        click.echo("SQS has no way to look without receiving: each message's receive count has grown by one.", err=True)


def _document(found: Sequence[_Found], notes: Sequence[str], options: _Options) -> dict[str, Any]:
    queues = [
        {
            "queue": one.name,
            "handlers": one.label,
            "messages": one.total,
            "problem": one.problem,
            "shown": len(one.letters),
        }
        for one in found
    ]
    shown = [letters.document(letter, one.name, bodies=options.bodies) for one in found for letter in one.letters]
    return {"queues": queues, "letters": shown, "notes": list(notes)}


def _section(found: _Found, options: _Options) -> Section:
    count = max(found.total or 0, len(found.letters))
    about = "about " if found.was_counted and count > len(found.letters) else ""
    title = f"{clean(found.name)}: {about}{count or 'no'} dead letter{'' if count == 1 else 's'}"
    if count > len(found.letters):
        title += f", {len(found.letters)} of them seen"
    if found.label:
        title += f" ({clean(found.label)})"
    suffix = options.suffix if found.was_counted else ""  # a local run keeps its lines in a file
    shown = [row for letter in found.letters for row in _rows(letter, suffix, bodies=options.bodies)]
    return Section(title, shown, is_record=True)


def _rows(letter: Letter, suffix: str, *, bodies: bool) -> list[Row]:
    message = letter.message
    what = {True: "exhausted", False: "rejected", None: "dead letter"}[letter.is_exhausted]
    cause = letter.cause or "no cause of ours: SQS moved it, somebody else sent it, or there was no room"
    handler = "" if letter.handler is None else f"{clean(letter.handler, 200)}: "
    facts = [
        clean(message.id),
        "" if message.size is None else f"{message.size:,} bytes",
        "" if letter.attempts is None else f"{letter.attempts} attempt{'' if letter.attempts == 1 else 's'}",
        "" if not message.receive_count else f"received {message.receive_count} times here",
        "" if message.group is None else f"group {clean(message.group, 128)}",
        "" if letter.part is None else f"part {clean(letter.part, 20)}",
    ]
    found = [
        Row(f"{date(message.sent_at)} {clock(message.sent_at)}".strip(), what, handler + clean(cause, _CAUSE)),
        Row("", "message", ", ".join(fact for fact in facts if fact)),
    ]
    if letter.record_id is not None:
        found.append(Row("", "record", clean(letter.record_id)))
    if bodies:
        found.append(Row("", "body", clean(letter.data, _BODY)))
    return [*found, Row("", "look", command("trace", letter.look_for, Asking(0, suffix)))]
