"""The commands by name. Each is imported when it is asked for."""

from __future__ import annotations

import importlib
import sys

import click

from pipeline.cli import INTERRUPTED

#: Where each command lives; its `help` begins with the line that is shown of it here.
_COMMANDS = {
    "dev": "pipeline.cli.dev",
    "package": "pipeline.cli.package",
    "graph": "pipeline.cli.graph",
    "template": "pipeline.cli.template",
    "lint": "pipeline.cli.lint",
    "trace": "pipeline.cli.trace",
    "dlq": "pipeline.cli.dlq",
}


class _Lazy(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        home = _COMMANDS.get(cmd_name)
        if home is None:
            return None
        command: click.Command = getattr(importlib.import_module(home), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)  # click would make it 1, which says that something was found


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fanout-pipeline", prog_name="pipeline")
def cli() -> None:
    """Write one decorated function; run it as a pipeline stage on real queues and streams."""
