"""Tools that others wrote, each in an environment of its own: they pin versions of packages that the project uses too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
UV = ROOT / ".tools/bin/uv"
#: Dummies: what is not told of an endpoint of this machine must not reach an account.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}
_PACKAGES = {
    "sam": "aws-sam-cli=={sam}",
    "ministack": "ministack[full]=={ministack}",
    "cfn-lint": "cfn-lint=={cfn_lint}",
    "checkov": "checkov=={checkov}",
}
_INSTALL_SECONDS = 300


def require(missing: str) -> None:
    """Skip the test, with what is missing; in CI it fails instead, because a proof that did not run proves nothing."""
    if os.environ.get("PIPELINE_REQUIRE_SERVERS"):
        pytest.fail(f"{missing} (PIPELINE_REQUIRE_SERVERS is set)", pytrace=False)
    pytest.skip(missing)


@cache
def tool(command: str) -> Path:
    """The executable of a tool, installed by uv if it is not yet. Skips the test where it cannot be had."""
    package = _PACKAGES[command].format_map(versions())
    asked: list[str | Path] = [UV, "tool", "run", "--quiet", "--python", sys.executable, "--from", package]
    try:
        found = subprocess.run(
            [*asked, "python", "-c", "import sys; print(sys.prefix)"],
            capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS,
            env={**os.environ, "UV_PYTHON_DOWNLOADS": "never"},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        require(f"{package} cannot be installed: {type(error).__name__}: {error}")
        raise
    if found.returncode:
        require(f"{package} cannot be installed: {found.stderr.strip()[-500:]}")
    return Path(found.stdout.strip()) / "bin" / command


@cache
def versions() -> dict[str, str]:
    """The versions of the tools that CI runs: `sam_version=...` of .ci/run."""
    return dict(re.findall(r"^(\w+)_version=(\S+)$", (ROOT / ".ci/run").read_text(), re.MULTILINE))


def clean_environment(**more: str) -> dict[str, str]:
    """This process's variables without its AWS ones, with dummies in their place."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PIPELINE_", "COVERAGE_"))
    }
    return {**kept, **CREDENTIALS, "SAM_CLI_TELEMETRY": "0", "UV_PYTHON_DOWNLOADS": "never", **more}


def run(command: str, *arguments: str | Path, environment: dict[str, str], timeout: float) -> str:
    """What a tool prints, with its errors at the end; `AssertionError` with all of it when it fails."""
    status, text = attempt(command, *arguments, environment=environment, timeout=timeout)
    assert status == 0, f"{command} {arguments[0]} ended with {status}:\n{text}"
    return text


def attempt(command: str, *arguments: str | Path, environment: dict[str, str], timeout: float) -> tuple[int, str]:
    """A tool's exit code and what it printed."""
    found = subprocess.run(
        [tool(command), *arguments],
        cwd=ROOT, env=environment, timeout=timeout, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return found.returncode, found.stdout
