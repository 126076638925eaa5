"""`python -m tests.simulation --planted`: within how many seeds each planted bug is found. No test: it takes minutes."""

from __future__ import annotations

import logging
import multiprocessing
from collections.abc import Callable

import pytest

from pipeline.stores import Memory
from tests.simulation import plants_whole, test_engine_simulation

#: Seeds that are tried for each.
WITHIN = 200


def table(jobs: int) -> int:
    """Print it; the number of bugs that were not found."""
    logging.disable(logging.CRITICAL)
    wanted = [("engine", name) for name in test_engine_simulation.PLANTED]
    wanted += [("whole", name) for name in plants_whole.PLANTED]
    missed = 0
    print(f"{'found within':>12}  {'at seed':>7}  simulation of  planted bug")
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=1) as pool:
        for (of, name), found in zip(wanted, pool.imap(_found, wanted), strict=True):
            missed += found is None
            within, seed = ("not", "-") if found is None else (str(found[0]), str(found[1]))
            print(f"{within:>12}  {seed:>7}  the {of:<9}  {name.replace('_', ' ')}", flush=True)
    return missed


def _found(wanted: tuple[str, str]) -> tuple[int, int] | None:
    """How many seeds were needed, and the one that found it."""
    of, name = wanted
    with pytest.MonkeyPatch.context() as patch:
        return (_found_in_engine if of == "engine" else _found_in_whole)(name, patch)


def _found_in_engine(name: str, patch: pytest.MonkeyPatch) -> tuple[int, int] | None:
    plant, finding, make = test_engine_simulation.PLANTED[name]
    store_type: Callable[[], Memory] = plant(patch) or Memory
    for tried in range(WITHIN):
        world = test_engine_simulation.simulate(make(tried, store_type))
        if world.violation is not None and finding in world.story():
            return tried + 1, world.seed
    return None


def _found_in_whole(name: str, patch: pytest.MonkeyPatch) -> tuple[int, int] | None:
    planted = plants_whole.PLANTED[name]
    planted.plant(patch)
    for tried in range(WITHIN):
        found = planted.found_at(tried, 1)
        if found is not None and planted.finding in found[1].story():
            return tried + 1, tried
    return None
