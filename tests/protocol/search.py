"""A breadth-first search over every interleaving, and the shortest way to a fault, told as a story."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.protocol.rules import PRODUCT, Rules
from tests.protocol.steps import Steps
from tests.protocol.world import SLOTS, Setup, World


@dataclass
class Found:
    """What a search came to."""

    worlds: int  #: different worlds that were reached
    steps: int  #: steps that were taken between them
    depth: int  #: of the farthest, in steps from the first
    is_whole: bool  #: nothing was left to look at
    fault: str = ""  #: the broken promise that was found first, or nothing
    story: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)  #: the texts of the steps, without who took them

    def __str__(self) -> str:
        extent = "all there are" if self.is_whole else f"every one within {self.depth} steps"
        return f"{self.worlds} worlds ({extent}), {self.steps} steps, depth {self.depth}"

    def told(self) -> str:
        """The way to the fault, a line for each step."""
        lines = [f"  {number}. {line}" for number, line in enumerate(self.story, 1)]
        return "\n".join([f"{self.fault} [{len(self.story)} steps, {self.worlds} worlds searched]", *lines])


def search(
    setup: Setup,
    rules: Rules = PRODUCT,
    *,
    limit: int = 2_000_000,
    look: Callable[[World], str] | None = None,
) -> Found:
    """Every world within reach, nearest first, until one has a fault or `limit` worlds are known.

    `look` may find faults in a world beside those of `Steps.fault_of`. Levels are searched whole: when the
    limit ends the search, every world within `depth` steps has been looked at.
    """
    gc.disable()  # nothing here refers back to itself, and all of it stays
    try:
        return _search(Steps(setup, rules), limit, look)
    finally:
        gc.enable()


def _search(steps: Steps, limit: int, look: Callable[[World], str] | None) -> Found:
    first = steps.first()
    parents: dict[World, World | None] = {first: None}
    level, depth, taken = [first], 0, 0
    known: set[World] = set()
    count, reached = 0, 1  #: of those known, and of those in order
    texts: set[str] = set()
    while level and len(parents) < limit:
        following: list[World] = []
        for world in level:
            for _, text, raw in steps.of(world):
                taken += 1
                texts.add(text)
                # Cheaper than putting it in order first. A world's hash is the dearest of all: each is taken once.
                known.add(raw)
                if len(known) == count:
                    continue
                count += 1
                after = steps.key(steps.looked_at(raw))
                parents.setdefault(after, world)
                if len(parents) == reached:
                    continue
                reached += 1
                following.append(after)
                fault = after.fault or (look(after) if look is not None else "")
                if fault:
                    story = _story(steps, parents, after)
                    return Found(len(parents), taken, depth + 1, False, fault, story, texts)
        if following:
            depth += 1
        level = following
    return Found(len(parents), taken, depth, not level, seen=texts)


def _story(steps: Steps, parents: dict[World, World | None], last: World) -> list[str]:
    path: list[World] = [last]
    while (before := parents[path[-1]]) is not None:
        path.append(before)
    path.reverse()
    names: dict[int, str] = {}
    story = []
    world = path[0]
    # Taken again in one world whose slots stay where they are: the path itself is one of worlds put in order.
    for after in path[1:]:
        choices = ((slot, text, steps.looked_at(raw)) for slot, text, raw in steps.of(world))
        slot, text, following = next(choice for choice in choices if steps.key(choice[2]) == after)
        if slot is not None:
            if world.runs[slot] is None:
                names[slot] = _name(slot, names.get(slot))
            text = text.format(names[slot])
        story.append(text)
        world = following
    return story


def _name(slot: int, last: str | None) -> str:
    """A, then A', then A'': the runs of one slot, one after the other."""
    return SLOTS[slot].upper() if last is None else last + "'"
