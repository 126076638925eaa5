"""`pipeline dev`: the whole pipeline, or any template's functions, on this machine."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import os
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

import click
import msgspec

from pipeline.cli import INTERRUPTED, feed, kept, progress, targets
from pipeline.cli.feed import Feed
from pipeline.cli.kept import Announced, KeptLines
from pipeline.deploy.local.run import TemplateRun
from pipeline.emulator import embedded
from pipeline.emulator.functions.thread import Runtime
from pipeline.emulator.local import Local, RuntimeFactory, lambda_runtime
from pipeline.emulator.reload import Edit, ReloadError, edits
from pipeline.emulator.report import Report
from pipeline.emulator.server_run import ServerRun
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.ports import Clock
from pipeline.telemetry.events import Observer

T = TypeVar("T")


@dataclass(frozen=True)
class _Options:
    target: str | None
    template: Path | None
    parameters: dict[str, str]
    in_process: bool
    feeds: Sequence[Feed]
    until_drained: bool
    reload: bool
    summary: Path | None
    endpoint: str | None
    faults: int | None
    time_scale: float
    log: Path | None


@dataclass(frozen=True)
class _Result:
    report: Report
    refused: int

    @property
    def exit_code(self) -> int:
        return 1 if self.report.exhausted or self.refused else 0


def _finite(_context: click.Context, _option: click.Parameter, value: float) -> float:
    if not math.isfinite(value):
        raise click.BadParameter(f"{value} is no number of times")
    return value


@click.command(help=f"""Run the whole pipeline, or any SAM template's functions, on this machine, on an embedded AWS server.

{targets.HELP} With --template there is no TARGET.

It makes everything that is declared and runs event source mappings that behave as AWS's do. AWS itself is never reached.
While it waits for more, an edit of the project's files is taken over, and the queues keep what stands in them. It ends on
Ctrl-C, once what runs has come to its end; with --until-drained, when every source is empty. The exit code is 0 when no
record was exhausted (rejected records are settled) and no line refused, else 1; 2 for misuse; 130 for Ctrl-C before
anything ran, or a second time. What the toolkit and `context.logger` log goes to stderr; `pipeline trace` finds all of
it, at DEBUG too, in .pipeline/log.jsonl. Loggers of a handler's own write where they were told to, and are not kept.

Of several runs in one directory `pipeline trace` and `pipeline dlq peek` look into the first, until it ends: a later one
says so, and keeps its lines with --log only.
""")  # fmt: skip
@click.argument("target", required=False)
@click.option(
    "--template", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Run the functions of a SAM or CloudFormation template behind its event source mappings, plain handlers too. "
    "Each runs in processes of its own, by AWS's runtime client. Sources have their logical ids as names.",
)  # fmt: skip
@click.option(
    "--parameter", "parameters", multiple=True, metavar="NAME=VALUE", help="A value for a parameter of the template.",
)  # fmt: skip
@click.option(
    "--in-process", is_flag=True,
    help="With --template: run the functions in this process, where a debugger reaches them. They share modules and "
    "environment variables, each runs one invocation at a time, and none is ended at its timeout, so that one can stand "
    "at a breakpoint. Meanwhile visibility timeouts pass, and messages come again.",
)  # fmt: skip
@click.option(
    "--feed", "feeds", multiple=True, metavar="NAME=FILE",
    help="Send each line of FILE, blank ones left out, to the source NAME. Can be given several times. On a FIFO queue "
    "a line's message group is the handler's lane, else its key, else one group for all; a stream's partition key is "
    "the same, else one for each line. A line that is fed twice is delivered twice. A queue takes no line that is not "
    "UTF-8; a stream takes its bytes.",
)  # fmt: skip
@click.option("--until-drained", is_flag=True, help="End when everything is fed and every source is empty.")
@click.option("--no-reload", is_flag=True, help="Go on with the code as it was at the start.")
@click.option("--summary", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there, as JSON.")
@click.option(
    "--endpoint", metavar="URL",
    help="Use the AWS server that runs there instead of an embedded one. What is missing is made, nothing is reset; "
    "streams are read from their starting_position again each time.",
)  # fmt: skip
@click.option("--faults", type=int, metavar="SEED", help="Let things go wrong, as the seed says: see docs/testing.md.")
@click.option(
    "--time-scale", type=click.FloatRange(min=1), default=1.0, metavar="N", callback=_finite,
    help="Idle time (back-offs, visibility timeouts, batching windows) passes N times faster; embedded server only.",
)  # fmt: skip
@click.option(
    "--log", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help=f"Keep the log lines there instead of in {kept.LOG}: begun anew by each run, and the older half of 50 MB is dropped. "
    "What is no regular file, such as a pipe, is only written to.",
)  # fmt: skip
def dev(
    target: str | None,
    template: Path | None,
    parameters: tuple[str, ...],
    in_process: bool,
    feeds: tuple[str, ...],
    until_drained: bool,
    no_reload: bool,
    summary: Path | None,
    endpoint: str | None,
    faults: int | None,
    time_scale: float,
    log: Path | None,
) -> None:
    """Run the whole pipeline on this machine."""
    options = _Options(
        target, template, _parameters(parameters), in_process, [feed.parse(value) for value in feeds], until_drained,
        not (no_reload or until_drained), summary, endpoint, faults, time_scale, log,
    )  # fmt: skip
    _check(options)
    try:
        result = asyncio.run(_run(options))
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    except (PipelineError, OSError) as error:
        raise click.ClickException(str(error)) from None
    if result is None:
        raise SystemExit(INTERRUPTED)  # before anything ran
    progress.finish(result.report)
    if summary is not None:
        document = {**result.report.to_dict(), "refused_lines": result.refused}
        summary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sys.exit(result.exit_code)


def _check(options: _Options) -> None:
    if options.template is not None and options.target is not None:
        raise click.UsageError("give a TARGET or --template, not both")
    for name, is_given in (("--parameter", bool(options.parameters)), ("--in-process", options.in_process)):
        if is_given and options.template is None:
            raise click.UsageError(f"{name} belongs to --template")
    if options.template is not None and options.faults is not None:
        raise click.UsageError("--faults is for pipelines: for the functions of a template see docs/testing.md")
    _check_log(options.log or kept.LOG, options.feeds)
    if options.summary is not None and not options.summary.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no directory {options.summary.absolute().parent}", param_hint="--summary")


def _check_log(log: Path, feeds: Sequence[Feed]) -> None:
    """What is fed must not be begun anew, nor be added to while it is read."""
    for one in feeds:
        if log.exists() and log.samefile(one.path):
            raise click.BadParameter(
                f"{log} is fed to '{one.source}': keep the lines in another file", param_hint="--log"
            )


def _parameters(values: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for value in values:
        name, separator, given = value.partition("=")
        if not separator or not name:
            raise click.BadParameter(f"'{value}': write NAME=VALUE", param_hint="--parameter")
        found[name] = given
    return found


async def _run(options: _Options) -> _Result | None:
    """What it came to; None when it was stopped before anything ran."""
    stopping = _stop_on_signals()
    async with AsyncExitStack() as stack:
        keep = KeptLines(options.log or kept.LOG)
        stack.callback(keep.close)
        env = _local(options, keep) if options.template is None else _template(options, options.template, keep)
        _check_feeds(options.feeds, env)
        is_first = _begin(keep, options)
        _, is_open = await _until_stopped(stack.enter_async_context(env), stopping)
        if not is_open:
            return None
        if is_first:
            kept.announce(Announced(env.endpoint_url, options.target, has_pipelines=options.template is None))
            stack.callback(kept.withdraw)
        if isinstance(env, TemplateRun):
            for problem in env.problems:
                click.echo(str(problem), err=True)
        async with progress.shown(env):
            refused, is_done = await _until_stopped(_work(env, options), stopping)
            if not is_done:
                await _stop(env)
        return _Result(await env.report(drained=is_done), refused or 0)


async def _stop(env: ServerRun) -> None:
    running = env.activity.running
    if running:
        what = "1 invocation comes to its end" if running == 1 else f"{running} invocations come to their end"
        click.echo(f"{what} first; Ctrl-C again ends at once", err=True)
    await env.stop()


def _local(options: _Options, keep: KeptLines) -> Local:
    return Local(
        targets.load(options.target),
        faults=options.faults,
        endpoint_url=options.endpoint,
        time_scale=options.time_scale,
        runtime=_runtime(keep),
    )


def _runtime(keep: KeptLines) -> RuntimeFactory:
    """The runtime that is deployed, but at DEBUG: all lines are kept, and those of the pipeline's own level are shown."""

    def make(stage: Stage, clock: Clock, observer: Observer) -> Runtime:
        stream = cast(TextIO, _Shown(keep, stage.log_level))
        return lambda_runtime(stream)(replace(stage, log_level="DEBUG"), clock, observer)

    return make


def _template(options: _Options, path: Path, keep: KeptLines) -> TemplateRun:
    def write(line: str) -> None:
        keep.write(line)
        click.echo(line, err=True, nl=False)

    return TemplateRun(
        path,
        options.parameters,
        in_process=options.in_process,
        output=write,
        endpoint_url=options.endpoint,
        time_scale=options.time_scale,
    )


def _begin(keep: KeptLines, options: _Options) -> bool:
    """Keep lines from now on; False when other commands look into another run that goes on here, which is said.

    Raises `ConfigurationError`.
    """
    other = kept.another()
    if other is not None and not _beside(other, options.log):
        return False
    try:
        keep.begin()
    except OSError as error:
        if options.log is not None:
            raise ConfigurationError(f"--log: {options.log} cannot be written: {error.strerror}") from None
        click.echo(f"log lines are not kept: {kept.LOG} cannot be written: {error.strerror}", err=True)
    return other is None


def _beside(other: Announced, log: Path | None) -> bool:
    """Say that another run goes on here; whether this one keeps lines. Raises `ConfigurationError` for its file."""
    runs = f"another `pipeline dev` (process {other.pid}) runs in this directory"
    if log is not None and kept.is_default(log):
        raise ConfigurationError(f"--log: {runs}, and {log} is its file: name another one")
    rest = (
        "this run's lines are kept by --log FILE"
        if log is None
        else f"for this run's lines: pipeline trace --log {shlex.quote(str(log))}"
    )
    click.echo(f"{runs}: `pipeline trace` and `pipeline dlq peek` look into that one; {rest}", err=True)
    return log is not None


async def _work(env: Local | TemplateRun, options: _Options) -> int:
    """Feed, and drain if that is asked; how many lines were refused."""
    works = [_feed(env, options), env.broken()]
    if options.reload:
        works.append(_reload_local(env, options) if isinstance(env, Local) else _reload_template(env))
    refused: int = await _first_to_end(works)
    return refused


async def _feed(env: ServerRun, options: _Options) -> int:
    refused = sum(await asyncio.gather(*(feed.run(one, env) for one in options.feeds)))
    if options.until_drained:
        await env.drain(timeout=None)
        return refused
    click.echo(f"{'fed; ' if options.feeds else ''}ready at {env.endpoint_url}; Ctrl-C ends it", err=True)
    await asyncio.Event().wait()
    return refused


async def _reload_local(env: Local, options: _Options) -> None:
    """Take over each edit of the project's files, for ever."""
    async for edit in edits(Path.cwd()):
        await _taken_over(edit, lambda: env.renew(targets.reload(options.target)))


async def _reload_template(env: TemplateRun) -> None:
    """Take over each edit of the template and of the functions' files, for ever."""
    while True:
        directories = env.directories
        async with aclosing(edits(*directories, also=[env.path])) as watching:
            async for edit in watching:
                await _taken_over(edit, lambda: renew_template(env, edit.files))  # noqa: B023 - called before the next
                if env.directories != directories:
                    break


async def renew_template(env: TemplateRun, edited: Sequence[Path]) -> None:
    """Go on with the template as it is now, and tell what it brings that cannot be done here; see `TemplateRun.renew`."""
    told = {problem.message for problem in env.problems}
    await env.renew(edited)
    for problem in env.problems:
        if problem.message not in told:
            click.echo(str(problem), err=True)


async def _taken_over(edit: Edit, renew: Callable[[], Awaitable[None]]) -> None:
    try:
        await renew()
    except (ReloadError, ConfigurationError, click.UsageError) as error:
        text = error.message if isinstance(error, click.UsageError) else str(error)
        click.echo(f"not reloaded: {text}\n{getattr(error, 'trace', '')}".rstrip(), err=True)
    else:
        click.echo(f"reloaded: {_named(edit.files)}", err=True)


async def _first_to_end(works: Sequence[Coroutine[Any, Any, Any]]) -> Any:
    """What the first of them to end returned, or raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        (first, *_) = [task.result() for task in done]  # each of them: any may have failed
        return first
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _named(files: Sequence[Path]) -> str:
    return ", ".join(sorted(path.name for path in files))


async def _until_stopped(work: Coroutine[Any, Any, T], stopping: asyncio.Event) -> tuple[T | None, bool]:
    """What the work came to, and whether it came to its end."""
    working = asyncio.create_task(work)
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        return working.result(), True
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return None, False


def _stop_on_signals() -> asyncio.Event:
    """Set at Ctrl-C or SIGTERM: what runs is finished first. A second one ends it at once."""
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            embedded.end_all()  # functions' processes end with us by themselves
            progress.show_cursor()
            os._exit(INTERRUPTED)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stopping


def _check_feeds(feeds: Sequence[Feed], env: ServerRun) -> None:
    names = sorted(set(env.sources.values()))
    for one in feeds:
        if one.source not in names:
            raise click.BadParameter(f"there is no source '{one.source}': {', '.join(names)}", param_hint="--feed")


class _Shown(io.TextIOBase):
    """Keeps every log line, and shows those of a level on stderr.

    Whatever stderr is at the moment: the live table puts its own in place while it is shown.
    """

    def __init__(self, keep: KeptLines, level: str) -> None:
        self._keep = keep
        self._level = logging.getLevelNamesMapping().get(level, logging.INFO)

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        self._keep.write(text)
        return sys.stderr.write(text) if self._is_shown(text) else len(text)

    def flush(self) -> None:
        sys.stderr.flush()

    def _is_shown(self, text: str) -> bool:
        if self._level <= logging.DEBUG:
            return True
        try:
            level = _LEVELS.decode(text).level
        except msgspec.DecodeError:
            return True
        return logging.getLevelNamesMapping().get(level, logging.CRITICAL) >= self._level


class _Leveled(msgspec.Struct):
    level: str = ""


_LEVELS = msgspec.json.Decoder(_Leveled)
