"""Cold start: import and first invocation of a whole function, beside Powertools with boto3."""

from __future__ import annotations

import importlib
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from statistics import median

from benchmarks.children import ROOT, environ, measure, say, silence
from benchmarks.events import LambdaContext, event
from benchmarks.report import Report, table
from benchmarks.stub import running
from benchmarks.turns import spread

ROUNDS = 15
SOURCE_ROUNDS = 5
#: Installed without compiling, on a file system that cannot be written: every cold start compiles.
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/nonexistent"}
SIDES = {"ours": "benchmarks.shop_ours", "Powertools, boto3": "benchmarks.shop_powertools"}
WHERE = (
    "Where imports go: wall ms by top-level package under `-X importtime`, each module without its own imports; "
    "instrumented, and one process each:"
)
PHASES = {
    "import": "import of the function",
    "first": "first invocation, 1 record",
    "start": "cold start: both",
    "second": "second invocation, 10 records",
}


def child(module: str) -> dict[str, float]:
    """CPU milliseconds of each phase, and what the process is left with."""
    silence()
    one, ten, context = event(1), event(10, first=1), LambdaContext()
    begun = _cpu()
    handler = importlib.import_module(module).handler
    imported = _cpu()
    assert handler(one, context) == {"batchItemFailures": []}
    invoked = _cpu()
    modules = len(sys.modules)
    assert handler(ten, context) == {"batchItemFailures": []}
    return {
        "import": imported - begun,
        "first": invoked - imported,
        "second": _cpu() - invoked,
        "start": invoked - begun,
        "modules": modules,
        "rss": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def run() -> Report:
    """Fresh processes, in turns; medians."""
    with running() as url:
        compiled = _measured(url, ROUNDS, {})
        sources = _measured(url, SOURCE_ROUNDS, NO_BYTECODE)
        heaviest = {name: _heaviest(module, url) for name, module in SIDES.items()}
    numbers = {
        name: {key: median(one[key] for one in rounds) for key in rounds[0]} for name, rounds in compiled.items()
    }
    uncompiled = {name: median(one["start"] for one in rounds) for name, rounds in sources.items()}
    rows = [_row(f"{text}, CPU ms", *(one[key] for one in numbers.values())) for key, text in PHASES.items()]
    rows.insert(3, _row("cold start without .pyc files, CPU ms", *uncompiled.values()))
    rows.append(_row("modules imported after the first invocation", *(one["modules"] for one in numbers.values())))
    rows.append(_row("max RSS, MB", *(one["rss"] for one in numbers.values())))
    widest = max(spread([one["start"] for one in rounds]) for rounds in compiled.values())
    return Report(
        "coldstart",
        "Logger, metrics, batch, idempotency in DynamoDB and one message to SQS for each record, against a stub on "
        f"loopback (HTTP, so no TLS handshake) in another process. Medians of {ROUNDS} fresh processes each, in "
        f"turns, {SOURCE_ROUNDS} without .pyc files; quartile distance of the cold start: {widest:.0%}",
        [
            table(["", *SIDES, "ratio"], rows),
            WHERE,
            table(
                ["", "modules", "ms"],
                [
                    [f"{name}: {package}", str(count), f"{millis:.0f}"]
                    for name, packages in heaviest.items()
                    for package, count, millis in packages
                ],
            ),
        ],
        {"medians": numbers, "without_pyc_cold_start_ms": uncompiled, "heaviest": heaviest},
    )


def _measured(url: str, rounds: int, more: dict[str, str]) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for module in SIDES.values():  # once for the page cache and the .pyc files
        measure("benchmarks.coldstart", module, environment={"AWS_ENDPOINT_URL": url, **more})
    for _ in range(rounds):
        for name, module in SIDES.items():
            found[name].append(measure("benchmarks.coldstart", module, environment={"AWS_ENDPOINT_URL": url, **more}))
    return found


def _row(text: str, ours: float, theirs: float) -> list[str]:
    return [text, f"{ours:.0f}", f"{theirs:.0f}", f"{ours / theirs:.2f}"]


def _cpu() -> float:
    return time.process_time() * 1000


def _heaviest(module: str, url: str) -> list[tuple[str, int, float]]:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "benchmarks.coldstart", module],
        cwd=ROOT,
        env=environ({"AWS_ENDPOINT_URL": url}),
        capture_output=True,
        text=True,
        check=True,
    )
    micros: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for itself, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)", done.stderr):
        package = name.partition(".")[0]
        package = "standard library" if package in sys.stdlib_module_names else package
        micros[package] += int(itself)
        counts[package] += 1
    return [(package, counts[package], total / 1000) for package, total in micros.most_common(8)]


if __name__ == "__main__":
    say(child(sys.argv[1]))
