"""Bytecode beside the sources: Lambda mounts an artifact read-only, so nothing is kept that is compiled there."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pipeline.errors import PipelineError


def compile_all(root: Path, interpreter: str, mounted: str) -> int:
    """Compile every module below `root`, which Lambda mounts at `mounted`; how many there are.

    The bytecode is taken as it is, whatever the sources' times say, and names the paths on Lambda, so
    the same sources give the same bytes. A file that does not compile is left as it is. Raises
    `PipelineError` when the interpreter does not run.
    """
    command = [interpreter, "-I", "-m", "compileall", "-qq", "--invalidation-mode", "unchecked-hash"]
    command += ["-s", str(root), "-p", mounted, str(root)]
    done = subprocess.run(  # noqa: S603 - an interpreter that uv found, or this one
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    compiled = sum(1 for _ in root.rglob("*.pyc"))
    if not compiled:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise PipelineError(f"{interpreter} does not compile: {last}")
    return compiled
