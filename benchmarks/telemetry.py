"""Telemetry: CPU per record beside Powertools' Logger and Tracer used for each record, bytes of log, and starts."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import prices
from benchmarks.children import ROOT, environ, measure, say
from benchmarks.coldstart import UV, XRAY
from benchmarks.events import LambdaContext, event
from benchmarks.invocations import INVOCATIONS, Invoke
from benchmarks.overhead import BARE
from benchmarks.report import Report, table
from benchmarks.telemetry_cases import CASES, LOGGER, OURS, OURS_SAMPLED, OURS_UNSAMPLED, SAMPLED, TRACED, UNSAMPLED
from benchmarks.turns import cpu

#: Records an event -> how many events are timed together, and how often that is repeated.
SIZES = {10: (10, 11), 100: (2, 11), 1_000: (1, 7)}
ROUNDS = 3
STARTS = 7
#: What a process of its own does until its first invocation has ended.
STATES = {
    "the interpreter alone": [],
    "ours, OpenTelemetry not installed": ["blocked", "ours"],
    "ours, installed and not used": ["ours"],
    "OpenTelemetry's API alone": ["api"],
    "ours, its API imported and not set up": ["api", "ours"],
    "OpenTelemetry set up, alone": ["set up"],
    "ours, OpenTelemetry set up": ["set up", "ours"],
}
_INVOCATIONS = 3  #: over which bytes are averaged


class Counting(io.TextIOBase):
    """A standard output that counts bytes."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, text: str, /) -> int:
        self.bytes += len(text.encode())
        return len(text)


def child(name: str, sizes: dict[int, tuple[int, int]]) -> dict[str, dict[str, float]]:
    """By event size: the bare loop's microseconds a record, telemetry's as a part of that, and bytes an invocation."""
    sys.stdout = out = Counting()
    bare = INVOCATIONS[BARE]()
    without, telling = CASES[name]()
    return {
        str(size): _compared(bare, without, telling, size, *often) | {"bytes": _bytes(without, telling, size, out)}
        for size, often in sizes.items()
    }


def _compared(bare: Invoke, without: Invoke, telling: Invoke, size: int, events: int, repeats: int) -> dict[str, float]:
    given, context = event(size), LambdaContext()
    for one in (bare, without, telling, without):
        assert one(given, context) == {"batchItemFailures": []}

    def several(one: Invoke) -> None:
        for _ in range(events):
            one(given, context)

    # In turns, because shared cores change their speed from one moment to the next.
    turns = [[cpu(partial(several, one)) for one in (bare, without, telling)] for _ in range(repeats)]
    return {
        "bare": median(turn[0] for turn in turns) * 1e6 / events / size,
        "off": median(turn[1] / turn[0] for turn in turns),
        "telemetry": median((turn[2] - turn[1]) / turn[0] for turn in turns),
    }


def _bytes(without: Invoke, telling: Invoke, size: int, out: Counting) -> float:
    """What telemetry writes in an invocation."""
    given, context = event(size), LambdaContext()
    before = out.bytes
    for _ in range(_INVOCATIONS):
        telling(given, context)
    written = out.bytes - before
    before = out.bytes
    without(given, context)
    assert out.bytes == before, "the side without telemetry writes nothing"
    return written / _INVOCATIONS


def run(
    sizes: dict[int, tuple[int, int]] | None = None, rounds: int = ROUNDS, starts: int = STARTS, xray: bool = True
) -> Report:
    """Each case in fresh processes, one after the other, in several rounds; medians."""
    sizes = sizes or SIZES
    with tempfile.TemporaryDirectory() as folder:
        variables = _with_xray(Path(folder)) if xray else None
        names = [name for name in CASES if variables is not None or name not in TRACED]
        found: dict[str, list[Any]] = {name: [] for name in names}
        for _ in range(rounds):
            for name, measured in found.items():
                environment = {**TRACED[name], **(variables or {})} if name in TRACED else {}
                measured.append(measure("benchmarks.telemetry", name, json.dumps(sizes), environment=environment))
    cells = {name: {size: _cell(measured, str(size)) for size in sizes} for name, measured in found.items()}
    bare = {size: median(one[str(size)]["bare"] for every in found.values() for one in every) for size in sizes}
    micros = {name: {size: cell["telemetry"] * bare[size] for size, cell in row.items()} for name, row in cells.items()}
    off = {name: {size: cell["off"] * bare[size] for size, cell in row.items()} for name, row in cells.items()}
    logged = {name: {size: _logged(cell["bytes"], size) for size, cell in row.items()} for name, row in cells.items()}
    began = _starts(starts)
    theirs = [name for name in (LOGGER, UNSAMPLED, SAMPLED) if name in names]
    noise = median(cell["noise"] for row in cells.values() for cell in row.values())
    head = ["", *(f"{size:,}" for size in sizes)]
    return Report(
        "telemetry",
        "What telemetry adds: microseconds of CPU per record at 10 to 1,000 records an event, no I/O, a handler that does "
        "nothing, ~1 KB JSON bodies. Ours is Lambda's entry point with its log lines and metrics as they are by default, "
        "less the same without; Powertools is `BatchProcessor` as its pages show it, with `inject_lambda_context`, "
        "`capture_lambda_handler`, `capture_method` and one `logger.info` in the handler of each record, less the same "
        f"without. OpenTelemetry is its SDK with an exporter that encodes OTLP. {'' if variables else NO_TRACER}"
        f"Each case in {rounds} fresh processes, in turns, each in slices that alternate with a bare loop; medians. "
        f"The rounds of a cell differ by {noise:.0%} of what a record takes with telemetry, as a median",
        [
            table(head, [[name, *(f"{value:.1f}" for value in row.values())] for name, row in micros.items()]),
            "The same as ratios:",
            table(head, [_ratio(micros, one, other, sizes) for one in OURS_CASES for other in theirs]),
            "What is there without telemetry, microseconds of CPU per record:",
            table(head, [[name, *(f"{value:.1f}" for value in off[name].values())] for name in (OURS, LOGGER)]),
            f"Log, in MB per million records, and US dollars at ${prices.LOG_GB:.2f} a GB:",
            table(head, [[name, *(_written(one) for one in logged[name].values())] for name in (OURS, LOGGER)]),
            STARTED,
            table(["", "CPU ms", "modules"], [[name, f"{ms:.0f}", f"{count}"] for name, (ms, count) in began.items()]),
        ],
        {
            "telemetry_us": micros,
            "without_us": off,
            "log": logged,
            "starts": {name: {"ms": ms, "modules": count} for name, (ms, count) in began.items()},
        },
    )


OURS_CASES = (OURS, OURS_UNSAMPLED, OURS_SAMPLED)
STARTED = (
    "CPU ms from the start of a process to the end of its first invocation, with the modules of OpenTelemetry that are "
    "loaded then:"
)
NO_TRACER = "Powertools' Tracer is left out: its X-Ray SDK could not be installed. "


def _cell(rounds: list[Any], key: str) -> dict[str, float]:
    values = [one[key]["telemetry"] for one in rounds]
    return {
        **{what: median(one[key][what] for one in rounds) for what in ("off", "telemetry", "bytes")},
        "noise": (max(values) - min(values)) / median(one[key]["off"] + one[key]["telemetry"] for one in rounds),
    }


def _ratio(micros: dict[str, dict[int, float]], one: str, other: str, sizes: dict[int, Any]) -> list[str]:
    return [f"{one} / {other}", *(f"{micros[one][size] / micros[other][size]:.2f}" for size in sizes)]


def _logged(size_of_event: float, size: int) -> dict[str, float]:
    per_million = size_of_event / size * 1_000_000
    return {"megabytes": per_million / 1e6, "dollars": per_million / 1e9 * prices.LOG_GB}


def _written(logged: dict[str, float]) -> str:
    return f"{logged['megabytes']:,.0f} (${logged['dollars']:.3f})"


def _with_xray(folder: Path) -> dict[str, str] | None:
    """Where X-Ray's SDK is, in no lock file and only here; None when it cannot be installed."""
    packages = ["pip", "install", "--python", sys.executable, "--target", str(folder), "--no-deps", XRAY]
    done = subprocess.run([str(UV), *packages], cwd=ROOT, capture_output=True, check=False) if UV.exists() else None
    return {"PYTHONPATH": str(folder)} if done is not None and done.returncode == 0 else None


def _starts(rounds: int) -> dict[str, tuple[float, int]]:
    found: dict[str, list[list[float]]] = {name: [] for name in STATES}
    for turn in range(rounds + 1):
        for name, measured in found.items():
            one = _start(STATES[name])
            if turn:  # the first is for the page cache and the .pyc files
                measured.append(one)
    return {name: (median(one[0] for one in rows), int(rows[0][1])) for name, rows in found.items()}


def _start(states: list[str]) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.telemetrychild", *states],
        cwd=ROOT,
        env=environ({}),
        input=json.dumps(event(1)),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"a start with {states} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    say(child(sys.argv[1], {int(size): tuple(often) for size, often in json.loads(sys.argv[2]).items()}))
