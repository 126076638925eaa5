"""Cold start: interpreter, import, init and the first idempotent invocation of a whole function, beside Powertools."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.children import ROOT, environ
from benchmarks.events import event
from benchmarks.report import Report, table
from benchmarks.tls import authorities, serving
from benchmarks.turns import spread

ROUNDS = 15
SOURCE_ROUNDS = 5
UV = ROOT / ".tools" / "bin" / "uv"
#: Not in the lock file: only Powertools' Tracer needs it, and only here.
XRAY = "aws-xray-sdk==2.15.0"
#: Installed without compiling, on a file system that cannot be written: every cold start compiles.
NO_BYTECODE = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": "/nonexistent"}
#: What Lambda sets, and by which a function knows that the process is its own.
RUNTIME = {"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001"}
#: What Lambda sets for a traced function; the daemon's address is nobody's.
TRACED = {
    "SHOP_TRACER": "1",
    "POWERTOOLS_TRACE_DISABLED": "false",
    "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
    "AWS_XRAY_DAEMON_ADDRESS": "127.0.0.1:2000",
}
PHASES = {
    "start": "cold start: process start to the end of the first invocation",
    "interpreter": "interpreter",
    "import": "imports of the function's module",
    "init": "init: the rest of that module",
    "first": "first invocation, 1 record",
    "second": "second invocation, 10 records",
}
IMPORTS = (
    "Imports by top-level package: wall ms under `-X importtime`, each module without what it imports; instrumented, and one "
    "process each:"
)
PARTS = (
    "The same cold start by what is done: CPU ms after the interpreter's own, each part without the others that it calls. "
    "botocore's session is imported beforehand. Instrumented; medians of five processes:"
)


@dataclass(frozen=True)
class Side:
    """One contestant: its module, in an environment that holds what it needs and nothing else."""

    name: str
    module: str
    environment: str
    variables: dict[str, str]


OURS = Side("ours", "benchmarks.shop_ours", "ours", {})
TRACING = Side("Powertools", "benchmarks.shop_powertools", "theirs", TRACED)
PLAIN = Side("Powertools without Tracer", "benchmarks.shop_powertools", "theirs", {})
SIDES = [OURS, TRACING, PLAIN]


def run() -> Report:
    """Fresh processes, in turns; medians."""
    with tempfile.TemporaryDirectory() as name, serving() as stub:
        pythons = environments(Path(name))
        compiled = _measured(pythons, ROUNDS, stub)
        sources = _measured(pythons, SOURCE_ROUNDS, {**stub, **NO_BYTECODE})
        parts = {side.name: _parts(pythons, side, stub) for side in SIDES[:2]}
        packages = {side.name: _packages(pythons, side, stub) for side in SIDES[:2]}
        trusted = authorities(stub["AWS_CA_BUNDLE"])
    keys = [*PHASES, "modules", "rss"]
    numbers = {side: {key: median(one[key] for one in rounds) for key in keys} for side, rounds in compiled.items()}
    uncompiled = {side: median(one["start"] for one in rounds) for side, rounds in sources.items()}
    rows = [_row(f"{text}, CPU ms", [one[key] for one in numbers.values()]) for key, text in PHASES.items()]
    rows.insert(1, _row("the same without .pyc files, CPU ms", list(uncompiled.values())))
    rows.append(_row("modules after the first invocation", [one["modules"] for one in numbers.values()]))
    rows.append(_row("max RSS, MB", [one["rss"] for one in numbers.values()]))
    widest = max(spread([one["start"] for one in rounds]) for rounds in compiled.values())
    return Report(
        "coldstart",
        "Logger, metrics, batch, idempotency in DynamoDB and one message to SQS for each record; Powertools "
        f"{version('aws-lambda-powertools')} with boto3, as its documentation shows, with and without its Tracer, which ours "
        "has nothing like. Each side in an environment of its own packages alone, against a stub in another process, over "
        f"TLS 1.3 with {trusted} authorities. Medians of {ROUNDS} fresh processes each, in turns, {SOURCE_ROUNDS} without .pyc "
        f"files; quartile distance of the cold start: {widest:.0%}",
        [
            table(["", *(side.name for side in SIDES), "ratio", "ratio without Tracer"], rows),
            PARTS,
            table(["", "times", "ms"], list(_lines(parts))),
            IMPORTS,
            table(["", "modules", "ms"], list(_lines(packages))),
        ],
        {"medians": numbers, "without_pyc_cold_start_ms": uncompiled, "parts": parts, "packages": packages},
    )


def environments(folder: Path) -> dict[str, Path]:
    """The interpreter of each side's environment, made by uv with the versions of the lock file."""
    locked = folder / "requirements.txt"
    _uv("export", "--frozen", "--no-dev", "--no-emit-project", "--output-file", str(locked))
    theirs = [f"aws-lambda-powertools=={version('aws-lambda-powertools')}", XRAY]
    theirs += [f"{name}=={version(name)}" for name in ("boto3", "botocore", "urllib3")]
    wanted = {"ours": ["--requirement", str(locked)], "theirs": theirs}
    for name, packages in wanted.items():
        _uv("venv", "--python", sys.executable, str(folder / name))
        _uv("pip", "install", "--python", str(folder / name / "bin" / "python"), *packages)
    return {name: folder / name / "bin" / "python" for name in wanted}


def child(python: Path, side: Side, variables: dict[str, str], *arguments: str) -> dict[str, Any]:
    """One cold start in a fresh process; see `benchmarks.coldchild`."""
    done = _process([str(python), "-m", "benchmarks.coldchild", side.module, *arguments], side, variables)
    return json.loads(done.stdout.splitlines()[-1])


def _process(command: list[str], side: Side, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environ({**RUNTIME, **side.variables, **variables}),
        input=json.dumps([event(1), event(10, first=1)]),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr}")
    return done


def _measured(pythons: dict[str, Path], rounds: int, variables: dict[str, str]) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {side.name: [] for side in SIDES}
    for turn in range(rounds + 1):
        for side in SIDES:
            one = child(pythons[side.environment], side, variables)
            if turn:  # the first is for the page cache and the .pyc files
                found[side.name].append(one)
    return found


def _row(text: str, values: list[float]) -> list[str]:
    ours, theirs, plain = values
    # What takes no time has no ratio.
    ratios = [f"{ours / other:.2f}" if min(ours, other) >= 1 else "" for other in (theirs, plain)]
    return [text, *(f"{value:.0f}" for value in values), *ratios]


def _parts(pythons: dict[str, Path], side: Side, variables: dict[str, str]) -> list[tuple[str, float, float]]:
    """Each part with how often it was done and its milliseconds, largest first."""
    rounds = [child(pythons[side.environment], side, variables, "parts")["parts"] for _ in range(5)]
    names = dict.fromkeys(name for one in rounds for name in one)
    found = [(name, *(median(one.get(name, [0, 0])[place] for one in rounds) for place in (1, 0))) for name in names]
    return sorted((one for one in found if one[2] >= 0.5), key=lambda one: -one[2])


def _packages(pythons: dict[str, Path], side: Side, variables: dict[str, str]) -> list[tuple[str, float, float]]:
    python = str(pythons[side.environment])
    done = _process([python, "-X", "importtime", "-m", "benchmarks.coldchild", side.module], side, variables)
    micros: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for itself, name in re.findall(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)", done.stderr):
        package = name.partition(".")[0]
        package = "standard library" if package in sys.stdlib_module_names else package
        micros[package] += int(itself)
        counts[package] += 1
    return [(package, counts[package], total / 1000) for package, total in micros.most_common(10)]


def _lines(found: dict[str, list[tuple[str, float, float]]]) -> Iterator[list[str]]:
    for side, lines in found.items():
        for name, count, millis in lines:
            yield [f"{side}: {name}", f"{count:.0f}" if count else "", f"{millis:.0f}"]


def _uv(*arguments: str) -> None:
    done = subprocess.run([str(UV), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"uv {arguments[0]} failed:\n{done.stderr}")
