"""Engine overhead of a stream's records without I/O, plain and aggregated, beside Powertools and a bare loop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from benchmarks import stream_events, stream_invocations
from benchmarks.children import measure, say, silence
from benchmarks.invocations import Invoke
from benchmarks.overhead import compare
from benchmarks.report import Report, table
from benchmarks.turns import spread

ROUNDS = 3


@dataclass(frozen=True)
class Form:
    """One form in which records arrive."""

    event: Callable[[int], Any]
    sizes: Mapping[int, tuple[int, int]]  #: as in `overhead`
    cases: Mapping[str, Callable[[], Invoke]]  #: the first is what the others are multiples of
    ratios: Sequence[tuple[str, str]]

    @property
    def bare(self) -> str:
        return next(iter(self.cases))


FORMS = {
    "plain": Form(
        stream_events.stream_event,
        {10: (50, 7), 100: (5, 7), 1_000: (1, 7), 10_000: (1, 1)},
        stream_invocations.PLAIN,
        [
            ("ours, dict, no log or metrics", "Powertools async"),
            ("ours, dict", "Powertools async, log and metrics"),
            ("ours, dict, no log or metrics", "Powertools sync"),
            ("ours, dict", "Powertools sync, log and metrics"),
            ("ours, dict, no log or metrics", "bare loop, json"),
        ],
    ),
    "aggregated": Form(
        stream_events.aggregated_event,
        {100: (5, 7), 1_000: (1, 7), 10_000: (1, 1)},
        stream_invocations.AGGREGATED,
        [
            ("ours, dict", "deaggregate, Powertools async, log and metrics"),
            ("ours, dict", "deaggregate, Powertools sync, log and metrics"),
            ("ours, dict, no log or metrics", "deaggregate, bare loop, json"),
        ],
    ),
}
AGGREGATED = (
    f"Aggregated records, {stream_events.AGGREGATED} in each record of the stream, by records after they are taken "
    "apart. Ours does that itself; in front of Powertools and of the loop, AWS's library does "
    "(`aws_kinesis_agg.deaggregator.deaggregate_records`):"
)
Found = dict[str, tuple[float, float]]


def child(form: str, name: str) -> Found:
    """By records an event: the bare loop's microseconds of CPU per record, and the case's as a multiple of that."""
    silence()
    given = FORMS[form]
    bare, invoke = given.cases[given.bare](), given.cases[name]()
    return {str(size): compare(bare, invoke, given.event(size), size, *often) for size, often in given.sizes.items()}


def run() -> Report:
    """Every case in a fresh process, one after the other, in several rounds; medians of the rounds."""
    found: dict[str, dict[str, list[Found]]] = {
        form: {name: [] for name in given.cases if name != given.bare} for form, given in FORMS.items()
    }
    for _ in range(ROUNDS):
        for form, cases in found.items():
            for name, rounds in cases.items():
                rounds.append(measure("benchmarks.streams", form, name))
    micros = {form: _micros(FORMS[form], cases) for form, cases in found.items()}
    widest = max(
        spread([one[size][1] for one in rounds])
        for cases in found.values()
        for rounds in cases.values()
        for size in rounds[0]
    )
    return Report(
        "streams",
        f"Microseconds of CPU per record of a Kinesis stream, at up to 10,000 records an event; no I/O, a handler that "
        f"does nothing, ~1 KB JSON bodies, base64 as Lambda delivers them. Each case in {ROUNDS} fresh processes, in "
        f"turns, each in slices that alternate with the bare loop; medians of the multiples of the bare loop, times "
        f"its own median. Largest quartile distance of a cell: {widest:.0%}",
        [
            "Plain records, by records an event:",
            *_tables(FORMS["plain"], micros["plain"]),
            AGGREGATED,
            *_tables(FORMS["aggregated"], micros["aggregated"]),
        ],
        micros,
    )


def _micros(form: Form, cases: Mapping[str, list[Found]]) -> dict[str, dict[int, float]]:
    bare = {size: median(one[str(size)][0] for rounds in cases.values() for one in rounds) for size in form.sizes}
    return {
        form.bare: bare,
        **{
            name: {size: bare[size] * median(one[str(size)][1] for one in rounds) for size in form.sizes}
            for name, rounds in cases.items()
        },
    }


def _tables(form: Form, micros: Mapping[str, Mapping[int, float]]) -> list[str]:
    head = ["", *(f"{size:,}" for size in form.sizes)]
    rows = [[name, *(f"{value:.1f}" for value in row.values())] for name, row in micros.items()]
    ratios = [
        [f"{one} / {other}", *(f"{micros[one][size] / micros[other][size]:.2f}" for size in form.sizes)]
        for one, other in form.ratios
    ]
    return [table(head, rows), "The same as ratios:", table(head, ratios)]


if __name__ == "__main__":
    say(child(sys.argv[1], sys.argv[2]))
