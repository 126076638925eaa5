"""The tables of docs/performance.md about idempotency and its cost, filled in from what is kept below `results/`.

Each stands behind a comment that names it, `<!-- table: NAME -->`, and ends with the first line that is no row.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.children import ROOT
from benchmarks.idempotency import AGAIN, FIRST
from benchmarks.idempotent import ITEM, KINESIS, POWERTOOLS, SQS
from benchmarks.plots import kept
from benchmarks.telemetry_cases import LOGGER, OURS, OURS_SAMPLED, OURS_UNSAMPLED, SAMPLED

PAGE = ROOT / "docs" / "performance.md"
_TABLE = re.compile(r"(<!-- table: ([\w-]+) -->\n)((?:\|.*\n)*)")
_LEADING = "ours, Claim"  #: the default: its rows are in bold
X = "\N{MULTIPLICATION SIGN}"
_SIZES = ("10", "100", "1000")

Rows = list[list[str]]


def fill(page: Path = PAGE) -> Path:
    """Write the tables; the file. Raises `SystemExit` where results are missing, `KeyError` for an unknown table."""
    numbers, cost, telemetry = kept("idempotency"), kept("cost"), kept("telemetry")
    tables: dict[str, Callable[[], Rows]] = {
        "first-sqs": lambda: _delivered(numbers, SQS, FIRST),
        "again-sqs": lambda: _delivered(numbers, SQS, AGAIN),
        "first-item": lambda: _delivered(numbers, ITEM, FIRST),
        "first-kinesis": lambda: _delivered(numbers, KINESIS, FIRST),
        "ratios": lambda: _ratios(numbers),
        "cost-sqs": lambda: _cost(cost, SQS),
        "cost-item": lambda: _cost(cost, ITEM),
        "cost-kinesis": lambda: _cost(cost, KINESIS),
        "telemetry": lambda: _telemetry(telemetry),
        "telemetry-log": lambda: _log(telemetry),
        "telemetry-starts": lambda: _starts(telemetry),
    }
    text = page.read_text()
    page.write_text(_TABLE.sub(lambda found: found[1] + _text(tables[found[2]]()), text))
    return page


def _delivered(numbers: Any, scenario: str, delivery: str) -> Rows:
    ratios = numbers["ratios"][scenario]
    rows = [["", "API calls", "write units", "read units", "CPU µs", "wall ms", f"calls {X}", f"CPU {X}", f"wall {X}"]]
    for name, sizes in numbers["scenarios"][scenario].items():
        found = sizes["100"][delivery]
        times = ratios[name]["100"][delivery] if name in ratios else {"calls": 1, "cpu": 1, "wall": 1}
        calls = "-" if not found["calls"] else _times(times["calls"])
        values = [_few(found["calls"]), _few(found["writes"]), _few(found["reads"]), f"{found['cpu']:,.0f}"]
        rows.append([_bold(name), *values, _wall(found["wall"]), calls, _times(times["cpu"]), _times(times["wall"])])
    return rows


def _ratios(numbers: Any) -> Rows:
    shown = [
        ("**`Claim`**, SQS", SQS, _LEADING),
        ("`Mark`, SQS", SQS, "ours, Mark"),
        ("`Claim`, an item for each record", ITEM, _LEADING),
        ("`Fused`, an item for each record", ITEM, "ours, Fused"),
        ("`Claim`, Kinesis", KINESIS, _LEADING),
        ("`Checkpoint`, Kinesis", KINESIS, "ours, Checkpoint"),
    ]
    rows = [
        ["", f"calls {X}", "", "", f"CPU {X}", "", "", f"wall {X}", "", ""],
        ["records an event", *["10", "100", "1,000"] * 3],
    ]
    for label, scenario, name in shown:
        times = numbers["ratios"][scenario][name]
        rows.append(
            [label, *(_times(times[size][FIRST][what]) for what in ("calls", "cpu", "wall") for size in _SIZES)]
        )
    return rows


def _cost(cost: Any, scenario: str) -> Rows:
    found = cost["scenarios"][scenario]
    of = found[POWERTOOLS]["100"][FIRST]["total"]
    heads = [
        "10",
        "100",
        "1,000",
        "of Powertools, 100",
        "writes, 100",
        "reads, 100",
        "Lambda, 100",
        "all duplicates, 100",
    ]
    rows = [["", *heads]]
    for name, sizes in found.items():
        first, again = sizes["100"][FIRST], sizes["100"][AGAIN]
        waits = first["requests"] + first["duration"]
        dollars = [sizes[size][FIRST]["total"] for size in _SIZES]
        parts = [first["writes"], first["reads"], waits, again["total"]]
        rows.append([name, *map(_cents, dollars), f"{first['total'] / of:.0%}", *map(_cents, parts)])
    return rows


def _telemetry(found: Any) -> Rows:
    micros = found["telemetry_us"]
    rows = [["records an event", *(f"{int(size):,}" for size in _SIZES)]]
    rows += [[name, *(f"{row[size]:.1f}" for size in _SIZES)] for name, row in micros.items()]
    whole = SAMPLED if SAMPLED in micros else LOGGER
    pairs = [(OURS, LOGGER), (OURS, whole), (OURS_UNSAMPLED, whole), (OURS_SAMPLED, whole)]
    for one, other in dict.fromkeys(pairs):
        ratios = [f"{micros[one][size] / micros[other][size]:.2f}" for size in _SIZES]
        rows.append([f"**{one} / {other}**", *ratios])
    return rows


def _log(found: Any) -> Rows:
    rows = [["", *(f"{what}{int(size):,}" for what in ("MB, ", "dollars, ") for size in _SIZES)]]
    for name in (OURS, LOGGER):
        row = found["log"][name]
        megabytes = [f"{row[size]['megabytes']:,.0f}" for size in _SIZES]
        rows.append([name, *megabytes, *(f"{row[size]['dollars']:.3f}" for size in _SIZES)])
    return rows


def _starts(found: Any) -> Rows:
    rows = [["", "CPU ms", "modules of OpenTelemetry"]]
    return rows + [[name, f"{one['ms']:.0f}", f"{one['modules']}"] for name, one in found["starts"].items()]


def _text(rows: Rows) -> str:
    head, *body = rows
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [head, rule, *body])


def _bold(name: str) -> str:
    return f"**{name}**" if name == _LEADING else name


def _few(value: float) -> str:
    return f"{value:.2f}" if value != round(value) else f"{value:.0f}"


def _wall(value: float) -> str:
    return f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _times(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == round(value) else f"{value:.1f}"


def _cents(value: float) -> str:
    return f"{value:.2f}"
