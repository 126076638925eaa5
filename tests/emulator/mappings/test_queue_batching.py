"""When a batch goes out: Lambda developer guide, "How Lambda processes records from stream and queue-based event sources"."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.emulator.mappings.batching import MAX_EVENT_BYTES, Collecting


def test_a_batch_is_due_when_it_has_its_size() -> None:
    collecting: Collecting[int] = Collecting(2, window=5)
    collecting.add(1, 10, now=0)
    assert not collecting.is_due(now=4.9)
    assert collecting.wanted() == 1
    collecting.add(2, 10, now=1)
    assert collecting.is_due(now=1)
    assert collecting.wanted() == 0


def test_the_window_starts_with_the_first_item_and_an_empty_batch_is_never_due() -> None:
    collecting: Collecting[int] = Collecting(100, window=5)
    assert not collecting.is_due(now=1_000_000)
    collecting.add(1, 10, now=10)
    collecting.add(2, 10, now=14)
    assert not collecting.is_due(now=14.9)
    assert collecting.is_due(now=15)


def test_without_a_window_a_batch_is_due_with_its_first_items() -> None:
    collecting: Collecting[int] = Collecting(10, window=0)
    collecting.add(1, 10, now=3)
    assert collecting.is_due(now=3)


def test_a_batch_of_six_megabytes_goes_out_early_and_the_next_begins_with_what_did_not_fit() -> None:
    """ "The payload size reaches 6 MB." """
    collecting: Collecting[str] = Collecting(100, window=5)
    collecting.add("a", MAX_EVENT_BYTES - 10, now=0)
    assert not collecting.is_due(now=1)
    collecting.add("b", 11, now=1)
    collecting.add("c", 5, now=1)  # it would fit, and would overtake
    assert collecting.is_due(now=1)
    assert collecting.wanted() == 0
    assert collecting.items == ["a"]
    assert len(collecting) == 3
    following = collecting.following(now=1)
    assert following.items == following.everything() == ["b", "c"]
    assert following.ends_at == 6


def test_a_batch_that_is_exactly_six_megabytes_waits_for_nothing() -> None:
    collecting: Collecting[int] = Collecting(100, window=5)
    collecting.add(1, MAX_EVENT_BYTES, now=0)
    assert collecting.is_due(now=0)


def test_an_item_that_is_too_large_by_itself_goes_out_alone_and_at_once() -> None:
    collecting: Collecting[int] = Collecting(10, window=5)
    collecting.add(1, 10, now=0)
    collecting.add(2, MAX_EVENT_BYTES + 1, now=1)
    assert (collecting.items, collecting.is_due(now=1)) == ([1], True)
    alone = collecting.following(now=1)
    assert (alone.items, alone.is_due(now=1), alone.wanted()) == ([2], True, 0)


def test_what_was_received_beyond_the_size_begins_the_next_batch() -> None:
    """A poll that was under way when its batch went out may bring more than the next one takes."""
    collecting: Collecting[int] = Collecting(2, window=5)
    for item in (1, 2, 3):
        collecting.add(item, 10, now=0)
    assert (collecting.items, collecting.everything()) == ([1, 2], [1, 2, 3])
    assert collecting.following(now=0).items == [3]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(1, 25), st.integers(10, 100))
def test_batches_keep_their_limits_and_lose_and_reorder_nothing(sizes: list[int], batch_size: int, limit: int) -> None:
    batches: list[list[int]] = []
    waiting = list(enumerate(sizes))
    collecting: Collecting[int] = Collecting(batch_size, window=1, max_bytes=limit)
    while waiting or len(collecting):
        while waiting and not collecting.is_due(now=0):
            wanted = min(10, collecting.wanted())
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
