"""Engine overhead: CPU time per record without I/O, beside Powertools and a bare loop."""

from __future__ import annotations

import sys
from functools import partial
from statistics import median
from typing import Any

from benchmarks.children import measure, say, silence
from benchmarks.events import LambdaContext, event
from benchmarks.invocations import INVOCATIONS, Invoke
from benchmarks.report import Report, table
from benchmarks.turns import in_turns, spread

#: Records an event -> how many events are timed together, and how often that is repeated.
SIZES = {10: (100, 15), 100: (10, 15), 1_000: (1, 15), 10_000: (1, 3)}
ROUNDS = 5
BARE = "bare loop, json"


def child(name: str) -> dict[str, tuple[float, float]]:
    """By event size: the bare loop's microseconds of CPU per record, and the case's as a multiple of that."""
    silence()
    bare, invoke = INVOCATIONS[BARE](), INVOCATIONS[name]()
    return {str(size): compare(bare, invoke, event(size), size, *often) for size, often in SIZES.items()}


def compare(bare: Invoke, invoke: Invoke, given: Any, size: int, events: int, repeats: int) -> tuple[float, float]:
    """The bare loop's microseconds of CPU per record of an event, and the other's as a multiple of that.

    `size`: the records of the event. `events`: how often it is handled in one slice of some milliseconds.
    """
    context = LambdaContext()
    assert bare(given, context) == invoke(given, context) == {"batchItemFailures": []}

    def several(one: Invoke) -> None:
        for _ in range(events):
            one(given, context)

    seconds, multiple = in_turns(partial(several, bare), partial(several, invoke), repeats)
    return seconds * 1e6 / events / size, multiple


def run() -> Report:
    """Every case in a fresh process, one after the other, in several rounds; medians of the rounds."""
    found: dict[str, list[dict[str, tuple[float, float]]]] = {name: [] for name in INVOCATIONS}
    for _ in range(ROUNDS):
        for name, rounds in found.items():
            rounds.append(measure("benchmarks.overhead", name))
    bare = {size: median(one[str(size)][0] for rounds in found.values() for one in rounds) for size in SIZES}
    micros = {
        name: {size: bare[size] * median(one[str(size)][1] for one in rounds) for size in SIZES}
        for name, rounds in found.items()
    }
    widest = max(spread([one[str(size)][1] for one in rounds]) for rounds in found.values() for size in SIZES)
    head = ["", *(f"{size:,}" for size in SIZES)]
    return Report(
        "overhead",
        f"Microseconds of CPU per record at 10 to 10,000 records an event; no I/O, a handler that does nothing, "
        f"~1 KB JSON bodies. Each case in {ROUNDS} fresh processes, in turns, each in slices that alternate with "
        f"the bare loop; medians of the multiples of the bare loop, times its own median. Largest quartile "
        f"distance of a cell: {widest:.0%}",
        [
            table(head, [[name, *(f"{value:.1f}" for value in row.values())] for name, row in micros.items()]),
            "The same as ratios:",
            table(head, [_ratio(micros, one, other) for one, other in RATIOS]),
        ],
        micros,
    )


RATIOS = [
    ("ours, dict", "Powertools async"),
    ("ours, dict", "Powertools async, log and metrics"),
    ("ours, dict, no log or metrics", "Powertools async"),
    ("ours, dict", "Powertools sync, log and metrics"),
    ("ours, dict", "bare loop, json"),
    ("ours, dict, no log or metrics", "bare loop, msgspec"),
]


def _ratio(medians: dict[str, dict[int, float]], one: str, other: str) -> list[str]:
    return [f"{one} / {other}", *(f"{medians[one][size] / medians[other][size]:.2f}" for size in SIZES)]


if __name__ == "__main__":
    say(child(sys.argv[1]))
