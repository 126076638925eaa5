"""A clock that only the tests move."""

from __future__ import annotations

import pytest


class HandClock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nothing in these tests waits")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()
