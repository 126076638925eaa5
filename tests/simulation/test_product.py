"""The product's own faults over a shop as a user writes it: every source, mode and profile, and plain functions too.

`python -m tests.simulation --only product --seeds 1000` runs more seeds.
"""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.emulator.faults.kinds import Kind
from tests.simulation import plants_whole
from tests.simulation.product import MATRIX, SOURCES, Product

pytestmark = pytest.mark.usefixtures("silent")


@pytest.mark.parametrize("source", SOURCES)
def test_every_promise_holds_in_every_mode_and_profile(source: str) -> None:
    happened: Counter[Kind] = Counter()
    for seed in range(len(MATRIX)):
        if MATRIX[seed][0] == source:
            product = Product(seed).play()
            if product.violation is not None:
                pytest.fail(product.story(), pytrace=False)
            happened.update(one.kind for one in product.faults.fired)
    often = (Kind.CRASH, Kind.THROTTLED_CALL, Kind.SLOW_CALL)
    assert all(happened[kind] > 3 for kind in often), "a simulation in which nothing happens proves nothing"


@pytest.mark.parametrize("seed", [7, 62, 104])
def test_a_seed_is_a_run(seed: int) -> None:
    assert Product(seed).play().faults.lines == Product(seed).play().faults.lines


#: Bugs of the whole that its own trouble finds are found by the product's faults as well: setting, and a seed near by.
_PLANTED: dict[str, tuple[plants_whole.Plant, tuple[str, str, str], int]] = {
    name: (plants_whole.PLANTED[name].plant, setting, near)
    for name, setting, near in (
        ("acknowledged_before_the_sinks", ("sqs", "none", "throttles"), 0),
        ("unprocessed_items_ignored", ("sqs", "claim", "throttles"), 0),
        ("a_mark_by_chance", ("sqs", "fused", "everything"), 0),
        ("a_checkpoint_that_moves_past_a_failed_record", ("kinesis", "checkpoint", "everything"), 15),
        ("a_bisect_that_loses_the_second_half", ("kinesis", "claim", "crashes"), 0),
        ("a_late_delete_with_an_old_receipt_taken_for_done", ("sqs", "claim", "everything"), 0),
    )
}


@pytest.mark.parametrize("name", _PLANTED)
def test_a_planted_bug_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, setting, near = _PLANTED[name]
    plant(monkeypatch)
    is_found = any(Product(seed, setting).play().violation is not None for seed in range(near, near + 15))
    assert is_found, f"15 seeds from {near} on did not find it"
