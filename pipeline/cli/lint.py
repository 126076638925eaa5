"""`pipeline lint`: what in a template will lose records, run them twice or stop them."""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from urllib.parse import quote

import click

from pipeline import __version__
from pipeline.cli import targets
from pipeline.deploy import lint as linting
from pipeline.deploy.lint import code, report, sarif


@click.command(help=f"""Find what in TEMPLATE will lose records, run them twice or stop them.

TEMPLATE is any SAM or CloudFormation template, YAML or JSON, also one that this toolkit did not write. It is only read:
AWS is not asked. With a TARGET, the handlers of its pipelines are recognised by the functions' `Handler`; without one,
the source below CodeUri is looked at where it is there.

{targets.HELP.partition(";")[0]}.

The exit code is 0 without errors (warnings alone are none), 1 with errors, 2 for misuse. docs/lint.md has every rule.
""")  # fmt: skip
@click.argument("template", type=click.Path(path_type=Path))
@click.argument("target", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as a JSON list.")
@click.option("--sarif", "as_sarif", is_flag=True, help="Print them as SARIF 2.1.0, for code scanning.")
def lint(template: Path, target: str | None, as_json: bool, as_sarif: bool) -> None:
    """Find what in a template will lose records, run them twice or stop them."""
    if as_json and as_sarif:
        raise click.UsageError("--json and --sarif: give one of them")
    try:
        with template.open("rb") as file:
            root = linting.read(file.read(linting.MAX_BYTES + 1))  # it may be a device that never ends
    except OSError as error:
        raise click.UsageError(f"{template} cannot be read: {error.strerror or error}") from None
    except linting.UnreadableTemplate as error:
        raise click.UsageError(f"{template}:{error.line}: {error}") from None
    pipelines = targets.load(target) if target is not None else []
    stages = [stage for one in pipelines for stage in one.stages()]
    look = code.Finder(template.parent, stages)
    findings = linting.lint(root, code=look.find, today=datetime.datetime.now(datetime.UTC).date(), stages=stages)
    if as_json:
        click.echo(json.dumps(report.as_json(findings, str(template)), indent=2, ensure_ascii=False))
    elif as_sarif:
        document = sarif.log(findings, linting.RULES, _uri(template), __version__)
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(report.text(findings, str(template))))
    sys.exit(1 if report.has_errors(findings) else 0)


def _uri(path: Path) -> str:
    """Relative to the working directory where it is below it, as code scanning wants it."""
    try:
        return quote(path.absolute().relative_to(Path.cwd()).as_posix())
    except ValueError:
        return path.absolute().as_uri()
