"""How many batches are at work at once.

Source, unless a test names another: Lambda developer guide, "Configuring scaling behavior for SQS event source mappings".
"""

import copy
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.emulator.mappings.scaling import Scaling
from pipeline.emulator.mappings.settings import ProvisionedPollers, QueueSettings

NOW = 1_700_000_000.0


def busy_until(scaling: Scaling, until: float, start: float = NOW) -> int:
    """What is allowed after a time in which everything that was allowed was in use."""
    scaling.used(scaling.allowed(start), start)
    return scaling.allowed(until)


def test_it_starts_with_five_batches_at_a_time() -> None:
    assert Scaling(QueueSettings()).allowed(NOW) == 5


def test_while_messages_are_available_it_adds_300_a_minute() -> None:
    scaling = Scaling(QueueSettings())
    assert busy_until(scaling, NOW + 30.01) == 5 + 150
    assert scaling.allowed(NOW + 60.01) == 5 + 300


def test_it_stops_at_1250() -> None:
    scaling = Scaling(QueueSettings())
    assert busy_until(scaling, NOW + 3_600) == 1_250
    assert scaling.reaches(1_251, NOW + 3_600) is None


def test_it_does_not_rise_while_not_all_is_in_use() -> None:
    """ "If messages are still available": with a place free, a poll would have found them."""
    scaling = Scaling(QueueSettings())
    scaling.used(4, NOW)
    assert scaling.allowed(NOW + 60) == 5
    assert scaling.reaches(6, NOW) is None


def test_short_breaks_do_not_keep_it_from_rising() -> None:
    """Not documented how it measures; without this, functions that are quicker than a step would never scale."""
    scaling = Scaling(QueueSettings())
    for tenth in range(10):
        begins, ends = NOW + tenth / 10, NOW + tenth / 10 + 0.07
        scaling.used(scaling.allowed(begins), begins)
        scaling.used(scaling.allowed(ends) - 1, ends)
    assert scaling.allowed(NOW + 1) == 5 + 3


def test_an_empty_queue_takes_it_back_to_five_but_for_what_is_at_work() -> None:
    """ "When traffic is low, Lambda scales back the processing to five". What is low is not documented."""
    scaling = Scaling(QueueSettings())
    assert busy_until(scaling, NOW + 60.01) == 305
    scaling.idle(20, NOW + 61)
    assert scaling.allowed(NOW + 61) == 20
    scaling.idle(0, NOW + 80)
    assert scaling.allowed(NOW + 80) == 5


@pytest.mark.parametrize(("most", "start"), [(2, 2), (5, 5), (1_000, 5)])
def test_maximum_concurrency_is_never_passed(most: int, start: int) -> None:
    scaling = Scaling(QueueSettings(maximum_concurrency=most))
    assert scaling.allowed(NOW) == start
    assert busy_until(scaling, NOW + 3_600) == most


def test_what_this_machine_can_run_is_never_passed() -> None:
    scaling = Scaling(QueueSettings(), limit=4)
    assert scaling.allowed(NOW) == 4
    assert busy_until(scaling, NOW + 3_600) == 4
    with pytest.raises(ValueError, match="limit=0"):
        Scaling(QueueSettings(), limit=0)


def test_provisioned_pollers_run_ten_each_and_grow_by_1000_a_minute_up_to_their_maximum() -> None:
    scaling = Scaling(QueueSettings(provisioned=ProvisionedPollers(minimum=3, maximum=90)))
    assert scaling.allowed(NOW) == 30
    assert busy_until(scaling, NOW + 30.01) == 30 + 500
    assert scaling.allowed(NOW + 3_600) == 900
    scaling.idle(0, NOW + 3_601)
    assert scaling.allowed(NOW + 3_601) == 30


def test_the_maximum_of_provisioned_pollers_may_be_above_what_others_reach() -> None:
    """ "Up to 16 times higher processing capacity"."""
    scaling = Scaling(QueueSettings(provisioned=ProvisionedPollers(minimum=2, maximum=2_000)))
    assert busy_until(scaling, NOW + 3_600) == 20_000


def test_a_fifo_queue_has_no_ramp() -> None:
    """For FIFO the guide names message groups and the maximum concurrency, "whichever is lower"; no pace."""
    assert Scaling(QueueSettings(is_fifo=True)).allowed(NOW) == 1_250
    assert Scaling(QueueSettings(is_fifo=True, maximum_concurrency=7)).allowed(NOW) == 7


def test_failures_take_it_down_one_by_one_and_successes_up_again() -> None:
    """Developer guide, "Handling errors for an SQS event source in Lambda": it "gradually backs off"; how far is open."""
    scaling = Scaling(QueueSettings())
    scaling.failed(NOW)
    assert scaling.allowed(NOW) == 4
    for _ in range(9):
        scaling.failed(NOW)
    assert scaling.allowed(NOW) == 2
    scaling.succeeded(NOW)
    assert scaling.allowed(NOW) == 3
    for _ in range(9):
        scaling.succeeded(NOW)
    assert scaling.allowed(NOW) == 5


def test_while_it_backs_off_it_does_not_rise() -> None:
    scaling = Scaling(QueueSettings())
    scaling.used(5, NOW)
    scaling.failed(NOW + 1.1)
    scaling.used(10, NOW + 1.1)
    assert scaling.allowed(NOW + 60) == 5 + 5 - 1
    scaling.succeeded(NOW + 60)
    scaling.used(10, NOW + 60)
    assert scaling.allowed(NOW + 61.01) == 15


def test_with_report_batch_item_failures_failures_do_not_take_it_down() -> None:
    """ "Lambda doesn't scale down message polling when function invocations fail" (page on error handling)."""
    scaling = Scaling(QueueSettings(report_batch_item_failures=True))
    scaling.failed(NOW)
    assert scaling.allowed(NOW) == 5


def test_throttles_take_it_down_also_with_report_batch_item_failures() -> None:
    """The same page names throttles by themselves: it backs off "by reducing the amount of concurrency"."""
    scaling = Scaling(QueueSettings(report_batch_item_failures=True))
    scaling.throttled(NOW)
    assert scaling.allowed(NOW) == 4


def test_provisioned_pollers_stand_ready_whatever_fails() -> None:
    scaling = Scaling(QueueSettings(provisioned=ProvisionedPollers(minimum=2, maximum=4)))
    for _ in range(50):
        scaling.failed(NOW)
    assert scaling.allowed(NOW) == 20


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["used", "idle", "failed", "throttled", "succeeded"]), st.integers(0, 60), st.floats(0, 9)
        ),
        max_size=40,
    ),
    st.sampled_from([None, 1, 3, 8]),
    st.sampled_from([None, 2, 40]),
    st.booleans(),
    st.integers(1, 4),
)
def test_it_keeps_its_bounds_and_says_to_the_bit_when_it_rises(
    history: list[tuple[str, int, float]], limit: int | None, most: int | None, is_fifo: bool, more: int
) -> None:
    scaling = Scaling(QueueSettings(maximum_concurrency=most, is_fifo=is_fifo), limit=limit)
    highest = min(limit or 1_250, most or 1_250)
    now = NOW
    for event, at_work, later in history:
        now += later
        if event in ("used", "idle"):
            getattr(scaling, event)(at_work, now)
        else:
            getattr(scaling, event)(now)
        allowed = scaling.allowed(now)
        assert min(2, highest) <= allowed <= highest
        at = scaling.reaches(allowed + more, now)
        if at is not None:
            assert at > now
            assert copy.copy(scaling).allowed(math.nextafter(at, now)) < allowed + more
            assert scaling.allowed(at) == allowed + more
            now = at
