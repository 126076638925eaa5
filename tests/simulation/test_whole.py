"""The whole product among failing services and dying processes: seeded, in virtual time, every promise checked.

`python -m tests.simulation --only whole --seeds 1000` runs more seeds; `--planted` says within how many each planted
bug is found.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tracemalloc
from collections import Counter

import pytest

from pipeline import Pipeline, Record, sinks, sources
from pipeline.testing import Emulator
from tests.simulation.plants_whole import PLANTED
from tests.simulation.whole import MATRIX, SOURCES, Whole

pytestmark = pytest.mark.usefixtures("silent")

#: Seeds from a planted bug's `near` on, within which it must be found.
_WITHIN = 3


@pytest.mark.parametrize("source", SOURCES)
def test_every_promise_holds_for_every_source_mode_and_profile(source: str) -> None:
    happened: Counter[str] = Counter()
    for seed in (seed for seed, setting in enumerate(MATRIX) if setting[0] == source):
        whole = Whole(seed).play()
        if whole.violation is not None:
            pytest.fail(whole.story(), pytrace=False)
        happened += whole.trouble.counts
        happened["runs"] += sum(whole.runs.values())
        happened["dead letters"] += sum(whole.letters.values())
        happened["kills"] += sum(place.is_dead for place in whole.trouble.places)

    # A simulation in which nothing happens proves nothing.
    often = ("runs", "throttled call", "half done", "done, and lost", "slow call", "dead letters", "kills")
    assert all(happened[kind] >= 10 for kind in often), happened
    seldom = ("lost answer", "late answer", "throttled", *(["duplicate"] if source == "sqs" else []))
    assert all(happened[kind] for kind in seldom), happened


def test_what_waits_in_a_process_that_is_killed_never_goes_on() -> None:
    whole = Whole(218, ("kinesis", "fused", "crashes")).play()
    assert whole.violation is None, whole.story()


@pytest.mark.parametrize("seed", [4, 33, 80])
def test_a_seed_is_a_run(seed: int) -> None:
    assert Whole(seed).play().notes == Whole(seed).play().notes


@pytest.mark.parametrize("name", list(PLANTED))
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = PLANTED[name]
    planted.plant(monkeypatch)

    found = planted.found_at(planted.near, _WITHIN)

    assert found is not None, f"{_WITHIN} seeds from {planted.near} on did not find it"
    assert planted.finding in found[1].story()
    assert f"seed {found[0]} " in found[1].story()


def test_what_is_held_does_not_grow_with_what_has_passed() -> None:
    shop = Pipeline("shop", idempotency=None, log_level="CRITICAL")

    @shop.handler(sources.SQS("orders"), sinks=[sinks.DynamoDB("ledger")])
    async def keep(record: Record[dict[str, int]]) -> dict[str, str]:
        await asyncio.sleep(0.1)
        return {"id": str(record.payload["n"] % 10)}

    sizes: list[int] = []
    with Emulator() as aws:
        aws.add(shop)
        tracemalloc.start()
        try:
            for _ in range(3):
                aws.send("orders", [{"n": number} for number in range(60)])
                aws.run()
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    # A few hundred bytes for each name that the report remembers, to tell a repeat.
    assert sizes[2] - sizes[1] < 60 * 2_000, sizes


def test_the_command_runs_seeds_in_several_processes_and_sums_up() -> None:
    command = [sys.executable, "-m", "tests.simulation", "--seeds", "4", "--jobs", "2", "--quiet"]
    done = subprocess.run(
        [*command, "--only", "whole", "--only", "engine-queue-mark"],
        capture_output=True, text=True, check=False, env={**os.environ},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 runs, " in done.stdout
    assert "no violation" in done.stdout
