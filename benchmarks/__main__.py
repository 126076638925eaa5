"""`python -m benchmarks` runs all and makes the page; `python -m benchmarks NAME` runs one of `NAMES`, or makes it.

`plots` draws the pictures of docs/performance.md and fills in its tables.
"""

from __future__ import annotations

import importlib
import sys

#: `cost` is worked out from what `idempotency` measured.
NAMES = ["overhead", "coldstart", "memory", "streams", "sinks", "package", "telemetry", "idempotency", "cost"]
PLOTS = "plots"


def main(arguments: list[str]) -> int:
    """Run what was asked for, print it, and keep it below `results/`."""
    if unknown := [name for name in arguments if name not in [*NAMES, PLOTS]]:
        known = ", ".join([*NAMES, PLOTS])
        print(f"no benchmark '{unknown[0]}': give any of {known}, or nothing for all", file=sys.stderr)
        return 2
    for name in arguments or [*NAMES, PLOTS]:
        if name == PLOTS:
            print(*importlib.import_module("benchmarks.plots").draw(), sep="\n", flush=True)
            print(importlib.import_module("benchmarks.page").fill(), flush=True)
            continue
        report = importlib.import_module(f"benchmarks.{name}").run()
        report.keep()
        print(report.text(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
