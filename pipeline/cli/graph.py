"""`pipeline graph`: the pipelines as a picture, or as a document for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.app import Pipeline
from pipeline.cli import targets
from pipeline.deploy.graph import asyncapi, dot, mermaid, svg
from pipeline.deploy.graph.declared import graph_of
from pipeline.errors import ConfigurationError

_PICTURES = {"mermaid": mermaid.write, "dot": dot.write, "svg": svg.write}
_FORMATS = (*_PICTURES, "asyncapi")


@click.command(help=f"""Draw what the pipelines declare: sources, handlers, sinks and dead-letter queues.

{targets.HELP} Several TARGETs make one picture.

A queue or stream that is a sink of one handler and a source of another is one node. Formats: mermaid (GitHub draws it in a
```mermaid block), dot (Graphviz), svg (an image), asyncapi (AsyncAPI 3.0 as JSON, with the payloads' schemas). The same
declarations always give the same bytes. AWS is not asked.
""")  # fmt: skip
@click.argument("target", nargs=-1)
@click.option("--format", "format_", type=click.Choice(_FORMATS), default="mermaid", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="Write there instead of to stdout.")
def graph(target: tuple[str, ...], format_: str, output: Path | None) -> None:
    """Draw what the pipelines declare: Mermaid, DOT, SVG or AsyncAPI."""
    if output is not None and not output.absolute().parent.is_dir():
        raise click.BadParameter(f"there is no directory {output.absolute().parent}", param_hint="--output")
    pipelines = _load(target)
    try:
        text = asyncapi.write(pipelines) if format_ == "asyncapi" else _PICTURES[format_](graph_of(pipelines))
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    if output is None:
        click.echo(text.encode(), nl=False)  # UTF-8, whatever the terminal is set to
        return
    try:
        output.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise click.ClickException(f"{output} cannot be written: {error.strerror}") from None


def _load(wanted: Sequence[str]) -> list[Pipeline]:
    """The pipelines of all targets that declare something, each once. Raises `UsageError`."""
    loaded = [pipeline for one in wanted for pipeline in targets.load(one)] if wanted else targets.load(None)
    found = list({id(pipeline): pipeline for pipeline in loaded}.values())
    declaring = [pipeline for pipeline in found if pipeline.handlers]
    if not declaring:
        names = ", ".join(f"'{pipeline.name}'" for pipeline in found)
        raise click.UsageError(
            f"{names} declares no handler: there is nothing to draw. Name the module that holds the handlers as well "
            "as the Pipeline, or import it there"
        )
    return declaring
