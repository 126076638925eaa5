"""One pipeline on this machine with `pipeline dev`, and whether its summary says what it must."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

#: What is counted, how often it was found, and how often it must be.
Row = tuple[str, int, int]


@dataclass(frozen=True)
class Result:
    summary: dict[str, Any]
    log: list[dict[str, Any]]  #: the handlers' log lines

    @property
    def handlers(self) -> dict[str, Any]:
        """The counts of each handler, by its name."""
        counts: dict[str, Any] = self.summary["handlers"]
        return counts


def run(target: str, source: str, feed: Path) -> Result:
    """Feed a file's lines to a source, and wait until every source is empty. Ends the demo when that fails."""
    summary, log = (feed.with_name(f"{feed.name}.{what}") for what in ("summary", "log"))
    command = [
        sys.executable, "-m", "pipeline", "dev", target,
        "--feed", f"{source}={feed}",
        "--until-drained", "--time-scale", "20", "--summary", str(summary),
    ]  # fmt: skip
    with log.open("w") as lines:
        status = subprocess.run(command, cwd=ROOT, stderr=lines, check=False).returncode
    text = log.read_text(errors="replace")
    if status not in (0, 1) or not summary.exists():  # 1: a record was exhausted, which the summary says too
        print(text[-3000:], file=sys.stderr)
        raise SystemExit(status or 1)
    return Result(json.loads(summary.read_text()), [json.loads(line) for line in text.splitlines() if line[:1] == "{"])


def adds_up(rows: Sequence[Row], result: Result) -> bool:
    """Print the rows; true when each is as it must be, and no record is missing or counted twice."""
    print()
    for name, found, wanted in rows:
        print(f"  {'ok' if found == wanted else 'NO':<3} {found:>4} of {wanted:>4}  {name}")
    right = all(found == wanted for _, found, wanted in rows) and all(
        one["records"] == one["succeeded"] + one["duplicates"] + one["rejected"] + one["exhausted"]
        for one in result.handlers.values()
    )
    print("\nThe summary adds up." if right else "\nThe summary does NOT add up.")
    return right
