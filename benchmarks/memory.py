"""Memory: what an invocation of 10,000 records adds at its peak to the event itself."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from statistics import median

from benchmarks.children import measure, say, silence
from benchmarks.events import LambdaContext, event_text
from benchmarks.invocations import INVOCATIONS
from benchmarks.report import Report, table

SIZE = 10_000
ROUNDS = 3
SIDES = ["bare loop, json", "ours, dict", "ours, dataclass", "Powertools async", "Powertools sync"]


def child(name: str) -> dict[str, float]:
    """Megabytes: the event as text and decoded, the peak above it, and what is left after the answer."""
    silence()
    invoke, context = INVOCATIONS[name](), LambdaContext()
    invoke(json.loads(event_text(10)), context)  # imports and caches are not the batch's
    text = event_text(SIZE)
    gc.collect()
    tracemalloc.start()
    event = json.loads(text)
    gc.collect()
    event_size = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    assert invoke(event, context) == {"batchItemFailures": []}
    peak = tracemalloc.get_traced_memory()[1]
    gc.collect()
    left = tracemalloc.get_traced_memory()[0]
    return {
        "text": len(text) / 1e6,
        "event": event_size / 1e6,
        "added": (peak - event_size) / 1e6,
        "left": (left - event_size) / 1e6,
    }


def run() -> Report:
    """Fresh processes; medians."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in SIDES}
    for _ in range(ROUNDS):
        for name, rounds in found.items():
            rounds.append(measure("benchmarks.memory", name))
    numbers = {name: {key: median(one[key] for one in rounds) for key in rounds[0]} for name, rounds in found.items()}
    event = numbers[SIDES[0]]
    return Report(
        "memory",
        f"Peak of Python's allocations (tracemalloc) in an invocation of {SIZE:,} records, no I/O, a handler that "
        f"keeps nothing. The event is {event['text']:.1f} MB as JSON text and {event['event']:.1f} MB decoded. "
        f"Medians of {ROUNDS} fresh processes each",
        [
            table(
                ["", "added at the peak, MB", "bytes a record", "of the decoded event", "left after the answer, MB"],
                [
                    [
                        name,
                        f"{one['added']:.1f}",
                        f"{one['added'] * 1e6 / SIZE:.0f}",
                        f"{one['added'] / one['event']:.0%}",
                        f"{one['left']:.1f}",
                    ]
                    for name, one in numbers.items()
                ],
            )
        ],
        numbers,
    )


if __name__ == "__main__":
    say(child(sys.argv[1]))
