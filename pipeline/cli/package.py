"""`pipeline package`: a Lambda function's artifact."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.deploy.package.build import PARTS, PLATFORMS, PYTHONS, Request, build
from pipeline.errors import ConfigurationError, PipelineError


@click.command(help="""Make the artifact that `sam deploy` uploads, in DIRECTORY, which is new or empty.

TARGET is the module of the handlers, perhaps with `:attribute`, or a package of such modules; there may be several,
and without any it is `[tool.pipeline] app` in the working directory's pyproject.toml. The packages of this project that it imports are
copied as a whole, without tests and hidden files; `[tool.pipeline] include` adds paths of the project. Dependencies are those of
uv.lock, or else of requirements.txt, as wheels for Lambda, with the models of those AWS services only that the code
names; `[tool.pipeline] services` names more, for names that come from elsewhere, such as the function's environment: botocore
knows no other service in the artifact, and says so with UnknownServiceError. The same input gives the same bytes.

In a Makefile, for `Metadata: BuildMethod: makefile` and `sam build --build-in-source`:

\b
build-%:
	pipeline package "$(ARTIFACTS_DIR)"

With `[tool.pipeline] layer = true`, before it:

\b
build-DependenciesLayer:
	pipeline package "$(ARTIFACTS_DIR)" --part dependencies
""")  # fmt: skip
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option(
    "--part", type=click.Choice(PARTS),
    help="Only the project's code, or only the dependencies: these in DIRECTORY/python, as a layer has them. "
    "[default: all; code where `[tool.pipeline] layer = true`]",
)  # fmt: skip
@click.option(
    "--python", type=click.Choice(PYTHONS), default="3.14", show_default=True,
    envvar="PIPELINE_PACKAGE_PYTHON", show_envvar=True, help="The function's runtime.",
)  # fmt: skip
@click.option(
    "--platform", type=click.Choice(list(PLATFORMS)), default="aarch64", show_default=True,
    envvar="PIPELINE_PACKAGE_PLATFORM", show_envvar=True, help="The function's architecture.",
)  # fmt: skip
def package(directory: Path, targets: tuple[str, ...], part: str | None, python: str, platform: str) -> None:
    """Make a Lambda function's artifact."""
    request = Request(directory, Path.cwd(), targets, part=part, python=python, platform=platform)
    try:
        build(request, click.echo)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from None
    except (PipelineError, OSError) as error:
        raise click.ClickException(str(error)) from None
