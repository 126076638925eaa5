from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.emulator.mapping import MAX_EVENT_BYTES, Collecting, judge

IDS = ["a", "b", "c"]


@pytest.mark.parametrize("response", [None, {}, {"batchItemFailures": None}, {"batchItemFailures": []}])
def test_an_empty_response_is_complete_success(response: Any) -> None:
    assert judge(response, IDS).succeeded == set(IDS)


def test_a_misspelt_top_level_key_is_complete_success_because_aws_reads_it_so() -> None:
    assert judge({"batchItemFailure": [{"itemIdentifier": "a"}]}, IDS).succeeded == set(IDS)


@pytest.mark.parametrize(
    "response",
    [
        "ok",
        [],
        True,
        0,
        {"batchItemFailures": "a"},
        {"batchItemFailures": ["a"]},
        {"batchItemFailures": [None]},
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"itemIdentifier": 7}]},
        {"batchItemFailures": [{"itemidentifier": "a"}]},
        {"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "stranger"}]},
        {"batchItemFailures": {1, 2}},
        float("nan"),
    ],
)
def test_a_response_that_cannot_be_meant_fails_the_whole_batch(response: Any) -> None:
    verdict = judge(response, IDS)
    assert verdict.failed == set(IDS)
    assert not verdict.succeeded
    assert verdict.fault


def test_the_named_messages_come_back_and_the_others_are_deleted() -> None:
    verdict = judge({"batchItemFailures": [{"itemIdentifier": "b"}, {"itemIdentifier": "b"}]}, IDS)
    assert (verdict.succeeded, verdict.failed, verdict.fault) == ({"a", "c"}, {"b"}, None)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(IDS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["batchItemFailures", "itemIdentifier", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_json)
def test_whatever_the_response_every_message_is_either_deleted_or_comes_back(response: Any) -> None:
    verdict = judge(response, IDS)
    assert verdict.succeeded | verdict.failed == set(IDS)
    assert not verdict.succeeded & verdict.failed


def test_a_batch_is_due_when_it_has_its_size() -> None:
    collecting: Collecting[int] = Collecting(2, window=5)
    collecting.add(1, 10, now=0)
    assert not collecting.is_due(now=4.9)
    assert collecting.wanted() == 1
    collecting.add(2, 10, now=1)
    assert collecting.is_due(now=1)


def test_a_batch_is_due_when_its_window_ends_and_an_empty_one_never_is() -> None:
    collecting: Collecting[int] = Collecting(100, window=5)
    assert not collecting.is_due(now=1_000_000)
    collecting.add(1, 10, now=10)
    assert not collecting.is_due(now=14.9)
    assert collecting.is_due(now=15)


def test_without_a_window_a_batch_is_due_with_its_first_messages() -> None:
    collecting: Collecting[int] = Collecting(10, window=0)
    collecting.add(1, 10, now=3)
    assert collecting.is_due(now=3)


def test_a_message_that_is_too_large_by_itself_goes_out_alone() -> None:
    collecting: Collecting[int] = Collecting(10, window=0)
    collecting.add(1, MAX_EVENT_BYTES + 1, now=0)
    assert collecting.items == [1]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 25), st.integers(10, 100))
def test_batches_keep_their_limits_and_lose_and_reorder_nothing(sizes: list[int], batch_size: int, limit: int) -> None:
    batches: list[list[int]] = []
    waiting = list(enumerate(sizes))
    collecting: Collecting[int] = Collecting(batch_size, window=1, max_bytes=limit)
    while waiting or collecting.items:
        while waiting and not collecting.is_due(now=0):
            wanted = collecting.wanted()
            assert wanted >= 1
            for position, size in waiting[:wanted]:
                collecting.add(position, size, now=0)
            del waiting[:wanted]
        batches.append(collecting.items)
        collecting = collecting.following(now=0)
    assert [position for batch in batches for position in batch] == list(range(len(sizes)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_size
        assert len(batch) == 1 or sum(sizes[position] for position in batch) <= limit
