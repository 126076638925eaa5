"""What a return value means, with ReportBatchItemFailures on.

Source: Lambda developer guide, "Handling errors for an SQS event source in Lambda", "Implementing partial batch responses",
its lists of success and failure conditions. What it does not list stands below "not documented".
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.emulator.mappings.response import ResponseError, named_failures

IDS = frozenset({"a", "b", "c"})


@pytest.mark.parametrize(
    "response",
    [
        pytest.param(None, id="a null response"),
        pytest.param({}, id="an empty response"),
        pytest.param({"batchItemFailures": None}, id="a null list"),
        pytest.param({"batchItemFailures": []}, id="an empty list"),
    ],
)
def test_the_four_kinds_of_complete_success(response: Any) -> None:
    assert named_failures(response, IDS) == frozenset()


@pytest.mark.parametrize("key", ["batchItemFailure", "BatchItemFailures", "batch_item_failures"])
def test_a_misspelt_top_level_key_is_complete_success_because_nothing_is_named(key: str) -> None:
    """The guide's "empty EventResponse", read to the letter: the members that it knows are all missing."""
    assert named_failures({key: [{"itemIdentifier": "a"}]}, IDS) == frozenset()


@pytest.mark.parametrize(
    "item",
    [
        pytest.param({"itemIdentifier": ""}, id="an empty string"),
        pytest.param({"itemIdentifier": None}, id="null"),
        pytest.param({"itemidentifier": "a"}, id="a bad key name"),
        pytest.param({}, id="no key"),
        pytest.param({"itemIdentifier": "stranger"}, id="a message id that does not exist"),
    ],
)
def test_an_item_without_an_id_of_the_batch_is_complete_failure(item: Any) -> None:
    with pytest.raises(ResponseError, match=r"batchItemFailures\[1\]"):
        named_failures({"batchItemFailures": [{"itemIdentifier": "b"}, item]}, IDS)


@pytest.mark.parametrize("response", [{"batchItemFailures": {1, 2}}, float("nan"), b"{}", object()])
def test_what_is_not_json_is_complete_failure(response: Any) -> None:
    """ "An invalid JSON response"."""
    with pytest.raises(ResponseError, match="as JSON"):
        named_failures(response, IDS)


@pytest.mark.parametrize(
    ("response", "kind"), [("ok", "a string"), ("", "a string"), ([], "a list"), (True, "a boolean"), (0, "a number")]
)
def test_json_that_is_no_object_is_complete_failure(response: Any, kind: str) -> None:
    """Not documented: the whole batch comes again, which loses nothing."""
    with pytest.raises(ResponseError, match=f"is {kind}: return"):
        named_failures(response, IDS)


@pytest.mark.parametrize(
    "items",
    ["a", {"itemIdentifier": "a"}, 1, ["a"], [None], [["a"]], [{"itemIdentifier": 7}], [{"itemIdentifier": ["a"]}]],
)
def test_a_list_of_something_else_is_complete_failure(items: Any) -> None:
    """Not documented: as above."""
    with pytest.raises(ResponseError):
        named_failures({"batchItemFailures": items}, IDS)


def test_the_named_ones_fail_and_naming_one_twice_changes_nothing() -> None:
    named = [{"itemIdentifier": "b"}, {"itemIdentifier": "b", "why": "more members are nobody's matter"}]
    assert named_failures({"batchItemFailures": named, "more": 1}, IDS) == {"b"}


def test_an_error_names_the_place_and_quotes_nothing_of_the_response() -> None:
    for response in (
        "a secret",
        {"batchItemFailures": "a secret"},
        {"batchItemFailures": [{"itemIdentifier": "a secret"}]},
    ):
        with pytest.raises(ResponseError) as raised:
            named_failures(response, IDS)
        assert "secret" not in str(raised.value)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(sorted(IDS)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["batchItemFailures", "itemIdentifier", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_json)
def test_whatever_the_response_only_ids_of_the_batch_are_named(response: Any) -> None:
    try:
        named = named_failures(response, IDS)
    except ResponseError:
        return
    assert named <= IDS
