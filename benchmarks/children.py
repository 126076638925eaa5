"""Fresh processes: one for each measurement, so that no side pays for what another has imported."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

#: What Lambda sets and Powertools looks at: with it, its async processor keeps one event loop.
_LAMBDA = {
    "LAMBDA_TASK_ROOT": str(ROOT),
    "AWS_LAMBDA_FUNCTION_NAME": "orders",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "POWERTOOLS_TRACE_DISABLED": "1",
    "PYTHONHASHSEED": "0",
    # Compiled once for all children, wherever the sources may be written.
    "PYTHONDONTWRITEBYTECODE": "",
    "PYTHONPYCACHEPREFIX": tempfile.mkdtemp(prefix="benchmarks-"),
}

atexit.register(shutil.rmtree, _LAMBDA["PYTHONPYCACHEPREFIX"], ignore_errors=True)


def measure(module: str, *arguments: str, environment: dict[str, str] | None = None) -> Any:
    """What `python -m module arguments` says, as JSON, on its last line of standard output."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=environ(environment or {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{module} {' '.join(arguments)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def environ(more: dict[str, str]) -> dict[str, str]:
    """A child's environment: ours without AWS settings, what Lambda sets, and `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "POWERTOOLS_"))}
    return {**kept, **_LAMBDA, **more}


def say(result: Any) -> None:
    """A child's answer. Standard output itself may have been given to the log."""
    print(json.dumps(result), file=sys.__stdout__, flush=True)


def silence() -> None:
    """From here on, what is printed goes nowhere, at the price of formatting and writing it."""
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
