"""The pictures of docs/performance.md, from what is kept below `results/`: SVG that can be read on light and on dark."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.children import ROOT
from benchmarks.cost import NOT_DURABLE, PARTS
from benchmarks.idempotency import AGAIN, FIRST
from benchmarks.idempotent import ITEM, KINESIS, POWERTOOLS, SQS
from benchmarks.report import RESULTS

PLACE = ROOT / "docs" / "performance"

#: Of text and lines: as far from white as from GitHub's dark page.
NEUTRAL = "#7d8590"
#: Middle tones that differ also for readers who confuse red and green (after Okabe and Ito), each with a mark of its own.
STYLES = {
    POWERTOOLS: ("#d55e00", "o"),
    "FastSQS, a store of DynamoDB": ("#cc79a7", "s"),
    "by hand: boto3, in sequence": ("#8c8c8c", "v"),
    "by hand: aiobotocore, batched": ("#8c8c8c", "^"),
    "ours, Claim": ("#0a84d0", "D"),
    "ours, Mark": ("#009e73", "P"),
    "ours, Fused": ("#c79a00", "X"),
    "ours, Checkpoint": ("#c79a00", "*"),
}
PART_COLOURS = dict(zip(PARTS, ("#0a84d0", "#56b4e9", "#009e73", "#d55e00"), strict=True))
METRICS = {
    "calls": "API calls per record",
    "cpu": "CPU of the client, µs per record",
    "wall": "time by the clock, ms per record",
}


def draw(place: Path = PLACE) -> list[Path]:
    """Draw every picture; the files. Raises `SystemExit` where results are missing."""
    place.mkdir(parents=True, exist_ok=True)
    idempotency, cost = kept("idempotency"), kept("cost")
    overhead, streams = kept("overhead"), kept("streams")
    return [
        _idempotency(place / "idempotency.svg", idempotency, FIRST, "An idempotent record, first delivery (SQS)"),
        _idempotency(place / "duplicates.svg", idempotency, AGAIN, "A duplicate: the same records again (SQS)"),
        _cost(place / "cost.svg", cost),
        _overhead(place / "overhead.svg", overhead, streams["plain"]),
    ]


def kept(name: str) -> Any:
    """The numbers of one benchmark. Raises `SystemExit` where they are missing."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        raise SystemExit(f"the page is made from results: run `python -m benchmarks {name}` first")
    return json.loads(path.read_text())["numbers"]


def _idempotency(path: Path, numbers: Any, delivery: str, title: str) -> Path:
    """Three panels, both axes logarithmic: what a record costs, by records an event."""
    cases = numbers["scenarios"][SQS]
    figure, panels = _figure(1, len(METRICS), title, height=4.4)
    for panel, (metric, label) in zip(panels, METRICS.items(), strict=True):
        for name in [name for name in STYLES if name in cases]:
            values = {int(size): found[delivery][metric] for size, found in cases[name].items()}
            _line(panel, name, values)
        _by_size(panel, label, numbers["sizes"])
        panel.set_yscale("log")
        lowest = min(value for line in panel.get_lines() for value in line.get_ydata() if value)
        panel.set_ylim(bottom=10 ** math.floor(math.log10(lowest)))
        _plain_numbers(panel.yaxis)
    return _save(figure, path, panels[0], columns=3)


def _overhead(path: Path, queue: Mapping[str, Any], stream: Mapping[str, Any]) -> Path:
    """Two panels: the machinery around a handler that does nothing, without any I/O."""
    styles = {
        "Powertools async, log and metrics": ("Powertools async", *STYLES["FastSQS, a store of DynamoDB"]),
        "Powertools sync, log and metrics": (POWERTOOLS, *STYLES[POWERTOOLS]),
        "bare loop, json": ("bare loop", "#8c8c8c", "v"),
        "ours, dict": ("ours", *STYLES["ours, Claim"]),
    }
    title = "The machinery around a handler, without I/O, with log line and metrics"
    figure, panels = _figure(1, 2, title, height=4.2)
    for panel, cases, source in zip(panels, (queue, stream), ("SQS", "Kinesis"), strict=True):
        for name, (label, colour, marker) in styles.items():
            values = {int(size): micros for size, micros in cases[name].items()}
            panel.plot(list(values), list(values.values()), color=colour, marker=marker, label=label)
        _by_size(panel, f"{source}: CPU, µs per record", [int(size) for size in cases["ours, dict"]])
        panel.set_ylim(bottom=0)
    return _save(figure, path, panels[0])


def _cost(path: Path, numbers: Any) -> Path:
    """Bars of dollars, by what they are paid for."""
    scenarios = {name: numbers["scenarios"][name] for name in (SQS, ITEM, KINESIS)}
    kept = {
        scenario: [name for name in cases if name in STYLES and name != NOT_DURABLE]
        for scenario, cases in scenarios.items()
    }
    sizes = list(next(iter(scenarios[SQS].values())))
    size = sizes[len(sizes) // 2]
    title = f"US dollars per million records, {size} an event, Lambda at {numbers['memory_mb']:,} MB, us-east-1"
    figure, panels = _figure(
        len(scenarios), 1, title, height=6.2, ratios=[len(names) + 0.6 for names in kept.values()], share=True
    )
    for panel, (scenario, names) in zip(panels, kept.items(), strict=True):
        for row, name in enumerate(reversed(names)):
            _bar(panel, row, scenarios[scenario][name][size][FIRST])
        panel.set_yticks(range(len(names)), list(reversed(names)))
        panel.set_title(scenario, fontsize=10, loc="left", color=NEUTRAL)
        panel.grid(axis="x", color=NEUTRAL, alpha=0.25)
    panels[-1].set_xlabel("US dollars per million records")
    return _save(figure, path, panels[0])


def _bar(panel: Any, row: int, costs: Mapping[str, float]) -> None:
    left = 0.0
    for part, label in PARTS.items():
        panel.barh(
            row, costs[part], left=left, color=PART_COLOURS[part], height=0.62, label=label if row == 0 else None
        )
        left += costs[part]
    panel.text(left + 0.02, row, f"{costs['total']:.2f}", va="center", color=NEUTRAL, fontsize=9)


def _figure(
    rows: int, columns: int, title: str, *, height: float, ratios: Sequence[float] | None = None, share: bool = False
) -> tuple[Any, Sequence[Any]]:
    """A figure without a background, in one neutral colour."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot

    colours = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    mpl.rcParams.update(dict.fromkeys(colours, NEUTRAL))
    # Text stays text, and the same results make the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "benchmarks", "font.family": "sans-serif"})
    mpl.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 10})
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(10, height),
        layout="constrained",
        sharex=share,
        gridspec_kw={"height_ratios": ratios} if ratios else None,
    )
    figure.suptitle(title, fontsize=12, color=NEUTRAL)
    return figure, list(axes)


def _line(panel: Any, name: str, values: Mapping[int, float]) -> None:
    colour, marker = STYLES[name]
    panel.plot(list(values), list(values.values()), color=colour, marker=marker, label=name)


def _by_size(panel: Any, label: str, sizes: Sequence[int]) -> None:
    panel.set_xscale("log")
    panel.set_xticks(sizes, [f"{size:,}" for size in sizes])
    panel.minorticks_off()
    panel.set_xlabel("records an event")
    panel.set_title(label, fontsize=10, loc="left", color=NEUTRAL)
    panel.grid(color=NEUTRAL, alpha=0.25)


def _plain_numbers(axis: Any) -> None:
    from matplotlib.ticker import FuncFormatter, NullLocator

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def _save(figure: Any, path: Path, legend_of: Any, *, columns: int = 4) -> Path:
    from matplotlib import pyplot

    handles, labels = legend_of.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), frameon=False)
    figure.savefig(path, transparent=True, metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    # Lines that end in blanks are nobody's intent; formatters would change them.
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
    return path
