"""Every kind of run of the simulation, by its name, and what a run comes to."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from pipeline.emulator.faults.kinds import Kind
from tests.simulation.model import Promise, World, simulate
from tests.simulation.modes import PROMISES
from tests.simulation.product import Product
from tests.simulation.queues import QueueWorld
from tests.simulation.streams import StreamWorld
from tests.simulation.whole import Whole


@dataclass
class Told:
    """What runs came to, in a form that one process can send to another."""

    runs: int = 0
    records: int = 0
    kills: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    stories: list[tuple[str, int, str]] = field(default_factory=list)  #: kind, seed and story of each violation

    def add(self, other: Told) -> None:
        """Count another one's runs too."""
        self.runs += other.runs
        self.records += other.records
        self.kills += other.kills
        self.faults += other.faults
        self.outcomes += other.outcomes
        self.stories += other.stories


def _engine(source: type[World], promise_type: type[Promise], kind: str, seed: int) -> Told:
    world = simulate(source(seed, promise_type=promise_type))
    told = Told(1, len(world.messages), world.kills, world.faults, world.outcomes)
    if world.violation is not None:
        told.stories.append((kind, seed, world.story()))
    return told


def _product(seed: int) -> Told:
    logging.disable(logging.CRITICAL)
    try:
        product = Product(seed).play()
    finally:
        logging.disable(logging.NOTSET)
    faults = Counter(str(one.kind) for one in product.faults.fired)
    told = Told(1, len(product.lanes), faults[str(Kind.CRASH)], faults, Counter())
    if product.violation is not None:
        told.stories.append(("product", seed, product.story()))
    return told


def _whole(seed: int) -> Told:
    logging.disable(logging.CRITICAL)  # an emulator says what goes wrong, and nearly everything does
    try:
        whole = Whole(seed).play()
    finally:
        logging.disable(logging.NOTSET)
    trouble = whole.trouble
    kills = sum(place.is_dead for place in trouble.places)
    told = Told(1, len(whole.sent), kills, trouble.counts, Counter())
    if whole.violation is not None:
        told.stories.append(("whole", seed, whole.story()))
    return told


_SOURCES: Mapping[str, type[World]] = {"queue": QueueWorld, "stream": StreamWorld}

#: "queue" is SQS, standard and FIFO by chance; "stream" is Kinesis, also without idempotency.
KINDS: dict[str, Callable[[int], Told]] = {
    f"engine-{name}-{promise.name}": partial(_engine, source, promise, f"engine-{name}-{promise.name}")
    for promise in (Promise, *PROMISES)
    for name, source in _SOURCES.items()
}
KINDS["whole"] = _whole
KINDS["product"] = _product


def run(kind: str, seed: int) -> Told:
    """One run. What breaks the simulation itself is a violation too."""
    try:
        return KINDS[kind](seed)
    except Exception:
        return Told(1, stories=[(kind, seed, f"seed {seed} broke:\n{traceback.format_exc()}")])
