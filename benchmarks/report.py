"""What a benchmark came to: printed, and kept below `results/`."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Report:
    """One benchmark's tables, and its numbers."""

    name: str
    what: str
    tables: Sequence[str]
    numbers: Any

    def text(self) -> str:
        """The report as Markdown."""
        head = f"# {self.name}\n\n{self.what}.\n\n`python -m benchmarks {self.name}`, {_today()}, {machine()}."
        return "\n\n".join([head, *self.tables]) + "\n"

    def keep(self) -> None:
        """Write the tables and the numbers below `results/`."""
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{self.name}.md").write_text(self.text())
        kept = {"date": _today(), "machine": machine(), "what": self.what, "numbers": self.numbers}
        (RESULTS / f"{self.name}.json").write_text(json.dumps(kept, indent=1) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column is text, the others are numbers."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine() -> str:
    """The kind of machine; nothing that names it."""
    kind = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return f"{os.cpu_count()} shared {kind} cores, Python {platform.python_version()}"


def _today() -> str:
    return datetime.datetime.now(tz=datetime.UTC).date().isoformat()
