"""The command line. Nothing is imported before a command is run."""

from __future__ import annotations

import sys

#: What a shell reports of a program that Ctrl-C ended.
INTERRUPTED = 130


def main() -> None:
    """The `pipeline` command."""
    try:
        from pipeline.cli.commands import cli
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        print("Error: the command line needs the extra: pip install 'fanout-pipeline[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None
    cli(prog_name="pipeline")
