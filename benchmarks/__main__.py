"""`python -m benchmarks` runs all; `python -m benchmarks overhead|coldstart|memory|streams|sinks|package` runs one."""

from __future__ import annotations

import importlib
import sys

NAMES = ["overhead", "coldstart", "memory", "streams", "sinks", "package"]


def main(arguments: list[str]) -> int:
    """Run what was asked for, print it, and keep it below `results/`."""
    if unknown := [name for name in arguments if name not in NAMES]:
        print(f"no benchmark '{unknown[0]}': give any of {', '.join(NAMES)}, or nothing for all", file=sys.stderr)
        return 2
    for name in arguments or NAMES:
        report = importlib.import_module(f"benchmarks.{name}").run()
        report.keep()
        print(report.text(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
