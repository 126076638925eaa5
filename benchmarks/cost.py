"""Cost: dollars per million records of each idempotency mode, from the calls, units and times that `idempotency` measured."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from benchmarks import prices
from benchmarks.idempotency import AGAIN, FIRST, Figures, Found
from benchmarks.idempotent import POWERTOOLS
from benchmarks.report import RESULTS, Report, table

MILLION = 1_000_000
PARTS = {
    "writes": "DynamoDB writes",
    "reads": "DynamoDB reads",
    "requests": "Lambda requests",
    "duration": "Lambda time",
}
#: Its entries are lost with its process, so it is no alternative to the others.
NOT_DURABLE = "FastSQS, its store in memory"


def run() -> Report:
    """Arithmetic on the last results of `idempotency`; nothing is measured here."""
    kept = RESULTS / "idempotency.json"
    if not kept.exists():
        raise SystemExit("cost is worked out from measured calls: run `python -m benchmarks idempotency` first")
    measured = json.loads(kept.read_text())
    numbers = {
        scenario: {name: by_size(found) for name, found in cases.items() if name != NOT_DURABLE}
        for scenario, cases in measured["numbers"]["scenarios"].items()
    }
    gigabytes = prices.MEMORY_MB / 1024
    return Report(
        "cost",
        f"US dollars per million records, us-east-1, without the free tier: what DynamoDB charges on demand "
        f"(${prices.WRITE_UNIT * MILLION:.3f} and ${prices.READ_UNIT * MILLION:.3f} per million write and read request "
        f"units) and what Lambda charges (${prices.LAMBDA_REQUEST * MILLION:.2f} per million requests, "
        f"${prices.LAMBDA_GB_SECOND} per GB-second on x86) at {prices.MEMORY_MB:,} MB, which is one core. Calls, units "
        f"and times per record are those of `python -m benchmarks idempotency` of {measured['date']}; the time of an "
        f"event is rounded up to a millisecond. Left out, and the same for all: the queue or stream, storage, logs and "
        f"metrics, cold starts, the network, and what a handler does",
        [part for scenario, cases in numbers.items() for part in _tables(scenario, cases)],
        {"memory_mb": prices.MEMORY_MB, "memory_gb": gigabytes, "scenarios": numbers},
    )


def by_size(found: Found) -> dict[str, dict[str, Figures]]:
    """By records an event, by delivery: dollars per million records, by what they are paid for."""
    return {
        size: {delivery: dollars(figures, int(size)) for delivery, figures in deliveries.items()}
        for size, deliveries in found.items()
    }


def dollars(figures: Figures, size: int) -> Figures:
    """What a million records cost that come in events of `size`."""
    seconds = math.ceil(figures["wall"] * size) / 1000
    parts = {
        "writes": figures["writes"] * prices.WRITE_UNIT,
        "reads": figures["reads"] * prices.READ_UNIT,
        "requests": prices.LAMBDA_REQUEST / size,
        "duration": seconds * prices.MEMORY_MB / 1024 * prices.LAMBDA_GB_SECOND / size,
    }
    costs = {name: part * MILLION for name, part in parts.items()}
    return {**costs, "total": sum(costs.values())}


def _tables(scenario: str, cases: Mapping[str, Mapping[str, Mapping[str, Figures]]]) -> list[str]:
    sizes = list(next(iter(cases.values())))
    middle = sizes[len(sizes) // 2]
    theirs = cases[POWERTOOLS]
    totals = [
        [
            name,
            *(f"{found[size][FIRST]['total']:.2f}" for size in sizes),
            *(f"{found[size][FIRST]['total'] / theirs[size][FIRST]['total']:.0%}" for size in sizes),
            *(f"{found[size][AGAIN]['total']:.2f}" for size in sizes),
        ]
        for name, found in cases.items()
    ]
    heads = [f"{what}{int(size):,}" for what in ("", "of Powertools, ", "all duplicates, ") for size in sizes]
    parts = [
        [name, *(f"{found[middle][FIRST][part]:.3f}" for part in [*PARTS, "total"])] for name, found in cases.items()
    ]
    return [
        f"## {scenario}",
        "Dollars per million records, by records an event:",
        table(["", *heads], totals),
        f"What they are paid for, first delivery, {int(middle):,} records an event:",
        table(["", *PARTS.values(), "total"], parts),
    ]
