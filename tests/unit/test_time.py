"""Back-off and deadlines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decisions.deadline import Deadline, deadline, expect, may_start
from pipeline.decisions.retry import HAND_BACK, Backoff
from pipeline.errors import ConfigurationError

chances = st.floats(0, 1, exclude_max=True)
seconds = st.floats(0, 43_200)
backoffs = st.builds(Backoff, attempts=st.integers(1, 100), base=seconds, cap=seconds)
moments = st.floats(0, 1e9)


@given(backoffs, st.integers(1, 100_000), chances)
def test_a_delay_never_exceeds_its_cap(backoff: Backoff, attempt: int, chance: float) -> None:
    delay = backoff.delay(attempt, chance)

    assert 0 <= delay <= backoff.cap
    assert delay <= backoff.base * 2.0 ** (attempt - 1 if attempt < 1000 else 1000)


@given(backoffs, st.integers(1, 50), chances)
def test_delays_grow_with_attempts_and_with_chance(backoff: Backoff, attempt: int, chance: float) -> None:
    assert backoff.delay(attempt, chance) <= backoff.delay(attempt + 1, chance)
    assert backoff.delay(attempt, chance / 2) <= backoff.delay(attempt, chance)
    assert backoff.delay(attempt, 0.0) == 0.0


@pytest.mark.parametrize(("attempt", "longest"), [(0, 5), (1, 5), (2, 10), (3, 20), (8, 640), (9, 900), (1000, 900)])
def test_the_longest_delays(attempt: int, longest: float) -> None:
    assert Backoff().delay(attempt, 1.0) == longest
    assert Backoff().delay(attempt, 0.5) == longest / 2


@given(backoffs, st.integers(1, 200))
def test_attempts_end(backoff: Backoff, attempt: int) -> None:
    assert backoff.is_exhausted(attempt) == (attempt >= backoff.attempts)


def test_hand_backs_wait_less() -> None:
    assert HAND_BACK.delay(1, 1.0) == 2
    assert HAND_BACK.delay(100, 1.0) == 300


@pytest.mark.parametrize(
    "options", [{"attempts": 0}, {"base": -1}, {"cap": -1}, {"cap": 43_201}], ids=lambda options: str(options)
)
def test_impossible_backoffs(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="Backoff"):
        Backoff(**options)


@given(moments, st.floats(0.25, 900))
def test_a_deadline_stands_before_the_end(now: float, remaining: float) -> None:
    limit = deadline(now, remaining)

    assert limit.soft is not None
    assert limit.hard is not None
    assert now <= limit.soft + 1e-6
    assert limit.soft < limit.hard < now + remaining
    margin = now + remaining - limit.soft
    assert 0.25 - 1e-6 <= margin <= 3 + 1e-6
    assert limit.left(now) == pytest.approx(remaining - margin, abs=1e-6)


@pytest.mark.parametrize(
    ("remaining", "soft", "hard"), [(10, 9, 9.667), (1, 0.75, 0.917), (900, 897, 899), (0, -0.25, -0.083)]
)
def test_deadlines(remaining: float, soft: float, hard: float) -> None:
    limit = deadline(0, remaining)

    assert (limit.soft, limit.hard) == (pytest.approx(soft, abs=0.001), pytest.approx(hard, abs=0.001))


def test_without_a_limit_everything_may_start() -> None:
    assert Deadline().left(1e9) is None
    assert may_start(None, 1e9)


@given(st.floats(-10, 1000), st.floats(-1, 1000))
def test_a_record_starts_only_when_it_is_expected_to_finish(left: float, expected: float) -> None:
    assert may_start(left, expected) == (left > 0 and left > expected)


def test_nothing_starts_in_the_last_instant() -> None:
    assert not may_start(0.0, 0.0)
    assert not may_start(1.0, 1.0)
    assert may_start(1.001, 1.0)


@given(seconds, seconds)
def test_slow_records_count_at_once_and_are_forgotten_slowly(expected: float, took: float) -> None:
    after = expect(expected, took)

    assert took <= after or after == pytest.approx(took)
    assert min(expected, took) - 1e-9 <= after <= max(expected, took) + 1e-9
    if took >= expected:
        assert after == took
    else:
        assert after >= expected * 0.9 - 1e-9
