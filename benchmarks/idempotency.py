"""Idempotency: API calls, CPU and wall time per record of a whole invocation, beside Powertools, FastSQS and bare calls."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.children import ROOT, environ, say, silence
from benchmarks.dynamodb_stub import CLEAR, COUNTS, control, running
from benchmarks.events import LambdaContext, event
from benchmarks.idempotent import CASES, FASTSQS_VERSION, KINESIS, POWERTOOLS, with_type
from benchmarks.report import Report, table

#: Records an event -> how many events of fresh keys are measured in each process; each is then delivered again.
SIZES = {10: 10, 100: 3, 1_000: 1}
ROUNDS = 3
LATENCY = 0.005
#: A first delivery, and the same event once more.
FIRST, AGAIN = "first", "again"
WHAT = {"calls": "API calls", "cpu": "CPU us", "wall": "wall ms"}

Figures = dict[str, float]
#: By records an event, by delivery: figures per record.
Found = dict[str, dict[str, Figures]]


def child(scenario: str, name: str, url: str, sizes: Mapping[int, int]) -> Found:
    """Figures of one case: the event is handled with fresh keys, then again, when all are duplicates."""
    silence()
    case = CASES[scenario][name]
    runs = 0

    def ran() -> None:
        nonlocal runs
        runs += 1

    invoke = case.make(ran)
    control(url, CLEAR)
    first = 0

    def events(size: int) -> Any:
        nonlocal first
        first += size
        return _event(scenario, size, first, needs_type=case.needs_fastsqs)

    def measured(given: Any) -> Figures:
        nonlocal runs
        runs = 0
        return {**_measured(invoke, given, url), "runs": runs / len(given["Records"])}

    measured(events(10))  # imports, clients and connections are not the batch's
    found: Found = {}
    for size, repeats in sizes.items():
        deliveries: dict[str, list[Figures]] = {FIRST: [], AGAIN: []}
        for _ in range(repeats):
            given = events(size)
            for figures in deliveries.values():
                figures.append(measured(given))
        found[str(size)] = {name: medians(figures) for name, figures in deliveries.items()}
        assert found[str(size)][FIRST]["runs"] == 1, found
    return found


def _event(scenario: str, size: int, first: int, *, needs_type: bool) -> Any:
    if scenario == KINESIS:
        from benchmarks.stream_events import stream_event

        return stream_event(size, first=first)
    given = event(size, first=first)
    return with_type(given) if needs_type else given


def _measured(invoke: Callable[[Any, Any], Any], given: Any, url: str) -> Figures:
    """Per record: calls, capacity units, microseconds of CPU of all threads, milliseconds by the clock."""
    size = len(given["Records"])
    control(url, COUNTS)
    gc.collect()
    began, cpu = time.perf_counter(), time.process_time()
    answer = invoke(given, LambdaContext())
    cpu, wall = time.process_time() - cpu, time.perf_counter() - began
    assert answer == {"batchItemFailures": []}, answer
    counted = control(url, COUNTS)
    return {
        "calls": sum(counted["calls"].values()) / size,
        "writes": counted["write_units"] / size,
        "reads": counted["read_units"] / size,
        "cpu": cpu * 1e6 / size,
        "wall": wall * 1e3 / size,
    }


def medians(figures: Sequence[Figures]) -> Figures:
    """Of each figure by itself."""
    return {name: median(one[name] for one in figures) for name in figures[0]}


def run(*, sizes: Mapping[int, int] = SIZES, rounds: int = ROUNDS, scenarios: Sequence[str] = tuple(CASES)) -> Report:
    """Every case in a fresh process, one after the other, in several rounds; medians of the rounds."""
    found: dict[str, dict[str, list[Found]]] = {scenario: {} for scenario in scenarios}
    left_out: list[str] = []
    with running(LATENCY) as url, _pythons() as pythons:
        for _ in range(rounds):
            for scenario in scenarios:
                for name, case in CASES[scenario].items():
                    python = pythons["FastSQS" if case.needs_fastsqs else "ours"]
                    if python:
                        rest = (scenario, name, url, json.dumps(sizes))
                        found[scenario].setdefault(name, []).append(_measure(python, *rest))
                    elif name not in left_out:
                        left_out.append(name)
    numbers = {scenario: {name: _over(some) for name, some in cases.items()} for scenario, cases in found.items()}
    ratios = {scenario: _ratios(cases) for scenario, cases in found.items()}
    widest = {figure: _widest(found, figure) for figure in ("cpu", "wall")}
    missing = f" Left out, because uv or the package index was missing: {', '.join(left_out)}." if left_out else ""
    return Report(
        "idempotency",
        f"Per record, at {_sizes(sizes)} records an event: calls of DynamoDB, CPU of the client (user and system, all "
        f"threads), and time by the clock, from the Lambda event to the response. JSON bodies of ~1 KB, a handler "
        f"that does nothing, keys of one order each; a stub of DynamoDB in another process that answers after "
        f"{LATENCY * 1000:.0f} ms and keeps real state. Each case in {rounds} fresh processes, in turns, after a "
        f"first event that makes the clients; medians. Ratios are by round, against Powertools in the same round. "
        f"aws-lambda-powertools {version('aws-lambda-powertools')}, boto3 {version('boto3')}, aiobotocore "
        f"{version('aiobotocore')}, and FastSQS {FASTSQS_VERSION} in an environment of its own, which is thrown away. "
        f"From the lowest to the highest round a first delivery differs by at most {widest['cpu']:.0%} in CPU and "
        f"{widest['wall']:.0%} by the clock, of the median.{missing}".removesuffix("."),
        [part for scenario in scenarios for part in _tables(scenario, numbers[scenario], ratios[scenario], sizes)],
        {"latency_ms": LATENCY * 1000, "sizes": list(sizes), "scenarios": numbers, "ratios": ratios},
    )


def _measure(python: str, *arguments: str) -> Found:
    """Like `children.measure`, by the interpreter of another environment where a case needs one."""
    done = subprocess.run(
        [python, "-m", "benchmarks.idempotency", *arguments],
        cwd=ROOT,
        env=environ({"AWS_ENDPOINT_URL": arguments[2]}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' / '.join(arguments[:2])} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


@contextmanager
def _pythons() -> Iterator[dict[str, str | None]]:
    """The interpreters: ours, and that of a fresh environment with FastSQS, or None when it cannot be made."""
    uv = ROOT / ".tools" / "bin" / "uv"
    tool = str(uv) if uv.exists() else shutil.which("uv")
    with tempfile.TemporaryDirectory(prefix="benchmarks-fastsqs-") as name:
        yield {"ours": sys.executable, "FastSQS": tool and _fastsqs_environment(tool, Path(name))}


def _fastsqs_environment(uv: str, place: Path) -> str | None:
    python = str(place / "bin" / "python")
    # What the benchmark itself imports comes at the versions that are measured here.
    packages = [f"fastsqs=={FASTSQS_VERSION}", *(f"{name}=={version(name)}" for name in ("boto3", "orjson"))]
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(place)],
        [uv, "pip", "install", "--quiet", "--python", python, *packages],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"FastSQS is left out: {done.stderr.strip()}", file=sys.stderr)
            return None
    return python


def _over(rounds: Sequence[Found]) -> Found:
    return {size: {name: medians([one[size][name] for one in rounds]) for name in (FIRST, AGAIN)} for size in rounds[0]}


def _ratios(cases: Mapping[str, Sequence[Found]]) -> dict[str, Found]:
    """Powertools' figures as multiples of each other case's, round by round; medians."""
    return {
        name: {
            size: {
                delivery: {
                    figure: median(
                        theirs[size][delivery][figure] / one[size][delivery][figure]
                        for theirs, one in zip(cases[POWERTOOLS], rounds, strict=True)
                        if one[size][delivery][figure]
                    )
                    for figure in WHAT
                    if all(one[size][delivery][figure] for one in rounds)
                }
                for delivery in (FIRST, AGAIN)
            }
            for size in rounds[0]
        }
        for name, rounds in cases.items()
        if name != POWERTOOLS
    }


def _widest(found: Mapping[str, Mapping[str, Sequence[Found]]], figure: str) -> float:
    """The largest distance between the rounds of any cell, as a part of its median."""
    cells = [
        [one[size][FIRST][figure] for one in rounds]
        for cases in found.values()
        for rounds in cases.values()
        for size in rounds[0]
    ]
    return max((max(cell) - min(cell)) / median(cell) for cell in cells)


def _tables(
    scenario: str, cases: Mapping[str, Found], ratios: Mapping[str, Found], sizes: Mapping[int, int]
) -> list[str]:
    head = ["", *(f"{what}, {size:,}" for what in WHAT.values() for size in sizes)]
    parts = [f"## {scenario}"]
    for delivery, title in ((FIRST, "First delivery"), (AGAIN, "The same event again: all are duplicates")):
        rows = [
            [name, *(_shown(figure, found[str(size)][delivery][figure]) for figure in WHAT for size in sizes)]
            for name, found in cases.items()
        ]
        multiples = [
            [name, *(_multiple(found[str(size)][delivery].get(figure)) for figure in WHAT for size in sizes)]
            for name, found in ratios.items()
        ]
        parts += [f"{title}:", table(head, rows), f"{POWERTOOLS} as a multiple of it:", table(head, multiples)]
    again = {name: found[str(size)][AGAIN]["runs"] for name, found in cases.items() for size in sizes}
    if some := [f"{name} {runs:.2f}" for name, runs in again.items() if runs]:
        parts.append(f"Runs of the handler per redelivered record, where there are any: {', '.join(some)}.")
    return parts


def _sizes(sizes: Mapping[int, int]) -> str:
    *first, last = (f"{size:,}" for size in sizes)
    return f"{', '.join(first)} and {last}" if first else last


def _shown(figure: str, value: float) -> str:
    return f"{value:.0f}" if figure == "cpu" else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _multiple(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    say(child(*sys.argv[1:4], {int(size): repeats for size, repeats in json.loads(sys.argv[4]).items()}))
