"""`python -m tests.simulation --seeds 10000`: as many runs as there is time for, in several processes.

A violation is told with its story and the command that repeats it; the exit code is 1 then. `--planted` plants each bug
that the tests know, and prints within how many seeds it is found.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import time
from collections import Counter

from tests.simulation import planted
from tests.simulation.runs import KINDS, Told, run


def main() -> int:
    """Run what the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="runs in all, spread over the kinds (10000)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed of each kind (0)")
    parser.add_argument("--only", action="append", choices=sorted(KINDS), help="a kind of run; again for more")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes (one a processor)")
    parser.add_argument("--keep-going", action="store_true", help="do not end at the first violation")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.add_argument("--planted", action="store_true", help="within how many seeds each planted bug is found")
    given = parser.parse_args()
    if given.planted:
        return 1 if planted.table(given.jobs) else 0
    kinds = given.only or list(KINDS)
    each = math.ceil(given.seeds / len(kinds))
    wanted = [(kind, seed) for seed in range(given.first, given.first + each) for kind in kinds]
    return _report(_run_all(wanted, given), given)


def _run_all(wanted: list[tuple[str, int]], given: argparse.Namespace) -> tuple[Told, float]:
    began, total, shown_at = time.monotonic(), Told(), 0.0
    with multiprocessing.get_context("fork").Pool(given.jobs, initializer=_in_worker) as pool:
        for told in pool.imap_unordered(_one, wanted, chunksize=4):
            total.add(told)
            for kind, seed, _ in told.stories:
                print(f"VIOLATION in {kind}, seed {seed}", file=sys.stderr, flush=True)
            seconds = time.monotonic() - began
            if not given.quiet and (seconds - shown_at >= 5 or total.runs == len(wanted)):
                shown_at = seconds
                print(f"{total.runs:>7} of {len(wanted)} runs, {seconds:6.0f} s", file=sys.stderr, flush=True)
            if total.stories and not given.keep_going:
                pool.terminate()
                break
    return total, time.monotonic() - began


def _one(wanted: tuple[str, int]) -> Told:
    return run(*wanted)


def _in_worker() -> None:
    os.nice(5)  # who waits for this has something else to do meanwhile


def _report(found: tuple[Told, float], given: argparse.Namespace) -> int:
    total, seconds = found
    print(f"{total.runs} runs, {total.records} records, {total.kills} processes killed, {seconds:.0f} s")
    print(f"faults: {_listed(total.faults)}")
    print(f"outcomes: {_listed(total.outcomes)}")
    for kind, seed, story in total.stories if given.keep_going else total.stories[:1]:
        print(f"\nVIOLATION in {kind}\n{story}")
        print(f"again: python -m tests.simulation --jobs 1 --only {kind} --from {seed} --seeds 1")
    print(f"\n{len(total.stories) or 'no'} violation{'s' if len(total.stories) > 1 else ''}")
    return 1 if total.stories else 0


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


if __name__ == "__main__":
    sys.exit(main())
