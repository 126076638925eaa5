"""Faults that AWS really has, injected by a seed. None of them loses anything."""

from __future__ import annotations

import random
from enum import StrEnum


class Fault(StrEnum):
    """What befalls an invocation."""

    NONE = "none"
    LOST_RESPONSE = "lost response"  #: it ran, but nobody heard: the whole batch comes back
    DUPLICATE = "duplicate delivery"  #: what succeeded is delivered a second time before it is deleted


class Faults:
    """The same seed gives each handler's n-th invocation the same fault."""

    def __init__(self, seed: int, *, lost_responses: float = 0.1, duplicates: float = 0.1) -> None:
        self.seed = seed
        self._lost_responses = lost_responses
        self._duplicates = duplicates

    def of(self, handler: str, invocation: int) -> Fault:
        """The fault of a handler's n-th invocation."""
        chance = random.Random(f"{self.seed}:{handler}:{invocation}").random()
        if chance < self._lost_responses:
            return Fault.LOST_RESPONSE
        if chance < self._lost_responses + self._duplicates:
            return Fault.DUPLICATE
        return Fault.NONE
