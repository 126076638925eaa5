"""`pipeline dev`: the whole pipeline on this machine."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

import click

from pipeline.app import Pipeline
from pipeline.cli import feed, progress, targets
from pipeline.cli.feed import Feed
from pipeline.emulator.local import Local, lambda_runtime
from pipeline.emulator.report import Report
from pipeline.errors import ConfigurationError, PipelineError

_INTERRUPTED = 130


@dataclass(frozen=True)
class _Options:
    feeds: Sequence[Feed]
    until_drained: bool
    summary: Path | None
    endpoint: str | None
    faults: int | None
    time_scale: float


@dataclass(frozen=True)
class _Result:
    report: Report
    refused: int

    @property
    def exit_code(self) -> int:
        return 1 if self.report.exhausted or self.refused else 0


@click.command(help=f"""Run the whole pipeline on this machine, on an embedded AWS server.

{targets.HELP}

It makes everything that the pipeline declares and runs event source mappings that behave as AWS's do. AWS itself is
never reached. It ends on Ctrl-C; with --until-drained, when every source is empty. The exit code is 0 when no record
was exhausted (rejected records are settled), else 1; 2 for misuse. The handlers' log lines go to stderr.
""")  # fmt: skip
@click.argument("target", required=False)
@click.option(
    "--feed", "feeds", multiple=True, metavar="NAME=FILE",
    help="Send each line of FILE, blank ones left out, to the source NAME. Can be given several times. On a FIFO queue "
    "a line's message group is the handler's lane, else its key, else one group for all; a stream's partition key is "
    "the same, else one for each line. A line that is fed twice is delivered twice. A queue takes no line that is not "
    "UTF-8; a stream takes its bytes.",
)  # fmt: skip
@click.option("--until-drained", is_flag=True, help="End when everything is fed and every source is empty.")
@click.option("--summary", type=click.Path(dir_okay=False, path_type=Path), help="Write the report there, as JSON.")
@click.option(
    "--endpoint", metavar="URL",
    help="Use the AWS server that runs there instead of an embedded one. What is missing is made, nothing is reset; "
    "streams are read from their starting_position again each time.",
)  # fmt: skip
@click.option("--faults", type=int, metavar="SEED", help="Lose responses and deliver batches twice, as the seed says.")
@click.option(
    "--time-scale", type=click.FloatRange(min=1), default=1.0, metavar="N",
    help="Idle time (back-offs, visibility timeouts, batching windows) passes N times faster; embedded server only.",
)  # fmt: skip
def dev(
    target: str | None,
    feeds: tuple[str, ...],
    until_drained: bool,
    summary: Path | None,
    endpoint: str | None,
    faults: int | None,
    time_scale: float,
) -> None:
    """Run the whole pipeline on this machine."""
    options = _Options([feed.parse(value) for value in feeds], until_drained, summary, endpoint, faults, time_scale)
    if summary is not None and not summary.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no directory {summary.absolute().parent}", param_hint="--summary")
    pipelines = targets.load(target)
    try:
        result = asyncio.run(_run(pipelines, options))
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    except (PipelineError, OSError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(_INTERRUPTED) from None  # before anything ran
    progress.finish(result.report)
    if summary is not None:
        document = {**result.report.to_dict(), "refused_lines": result.refused}
        summary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    sys.exit(result.exit_code)


async def _run(pipelines: list[Pipeline], options: _Options) -> _Result:
    stopping = _stop_on_signals()
    env = Local(
        pipelines,
        faults=options.faults,
        endpoint_url=options.endpoint,
        time_scale=options.time_scale,
        runtime=lambda_runtime(cast(TextIO, _Stderr())),
    )
    _check_feeds(options.feeds, env)
    async with env:
        async with progress.shown(env):
            refused, drained = await _until_stopped(_work(env, options), stopping)
        return _Result(await env.report(drained=drained), refused)


async def _work(env: Local, options: _Options) -> int:
    """Feed, and drain if that is asked; how many lines were refused."""
    refused = sum(await asyncio.gather(*(feed.run(one, env) for one in options.feeds)))
    if options.until_drained:
        await env.drain(timeout=None)
        return refused
    if not options.feeds:
        click.echo(f"ready at {env.endpoint_url}; Ctrl-C ends it", err=True)
    await asyncio.Event().wait()
    return refused


async def _until_stopped(work: Coroutine[Any, Any, int], stopping: asyncio.Event) -> tuple[int, bool]:
    """What the work came to, and whether it came to its end."""
    working = asyncio.create_task(work)
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait([working, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if working.done():
        return working.result(), True
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    return 0, False


def _stop_on_signals() -> asyncio.Event:
    """Set at Ctrl-C or SIGTERM: what runs is finished first. A second one ends it at once."""
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(_INTERRUPTED)
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stopping


def _check_feeds(feeds: Sequence[Feed], env: Local) -> None:
    names = sorted(set(env.sources.values()))
    for one in feeds:
        if one.source not in names:
            raise click.BadParameter(f"there is no source '{one.source}': {', '.join(names)}", param_hint="--feed")


class _Stderr(io.TextIOBase):
    """Whatever stderr is at the moment: the live table puts its own in place while it is shown."""

    def writable(self) -> bool:
        return True

    def write(self, text: str, /) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()
