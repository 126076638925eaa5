"""Filters of templates, over whole records: Lambda developer guide, "Event filtering", and its page for each source."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.decisions.patterns import RecordFilter, read_filter, read_record_filter
from pipeline.errors import ConfigurationError

#: As Lambda's event has them.
MESSAGE = {
    "messageId": "m-1",
    "body": "",
    "attributes": {"ApproximateReceiveCount": "1"},
    "messageAttributes": {"tenant": {"stringValue": "blue", "dataType": "String"}},
}
RECORD = {"kinesis": {"partitionKey": "k-1", "sequenceNumber": "1"}, "eventSource": "aws:kinesis"}
CHANGE = {
    "eventName": "INSERT",
    "dynamodb": {"Keys": {"id": {"S": "a"}}, "NewImage": {"id": {"S": "a"}, "open": {"BOOL": True}}},
}


def filtering(member: str, *patterns: dict[str, Any]) -> RecordFilter:
    return read_record_filter(patterns, member=member, declared="FilterCriteria")


@pytest.mark.parametrize(
    ("pattern", "body", "matches"),
    [
        # The guide's table, "Properly filtering Amazon SQS messages": body against pattern.
        ({"body": {"kind": ["a"]}}, '{"kind": "a"}', True),
        ({"body": {"kind": ["a"]}}, '{"kind": "b"}', False),
        ({"body": {"kind": ["a"]}}, "kind a", False),
        ({"body": ["kind a"]}, "kind a", True),
        ({"body": [{"prefix": "kind"}]}, "kind a", True),
        ({"body": [{"prefix": "kind"}]}, "other", False),
        ({"body": [{"prefix": "{"}]}, '{"kind": "a"}', False),
        ({"body": [{"anything-but": "x"}]}, '{"kind": "a"}', False),
        ({"messageAttributes": {"tenant": {"stringValue": ["blue"]}}}, "kind a", True),
        ({"messageAttributes": {"tenant": {"stringValue": ["blue"]}}}, '{"kind": "a"}', True),
        ({"messageAttributes": {"tenant": {"stringValue": ["red"]}}}, '{"kind": "a"}', False),
        # A field that must be missing is missing in JSON only.
        ({"body": {"kind": [{"exists": False}]}}, "{}", True),
        ({"body": {"kind": [{"exists": False}]}}, "plain", False),
        # All of a pattern must hold.
        ({"body": {"kind": ["a"]}, "messageAttributes": {"tenant": {"stringValue": ["red"]}}}, '{"kind": "a"}', False),
        ({"$or": [{"body": {"kind": ["b"]}}, {"messageId": ["m-1"]}]}, '{"kind": "a"}', True),
    ],
)
def test_messages(pattern: dict[str, Any], body: str, matches: bool) -> None:
    assert filtering("body", pattern).accepts(body, {**MESSAGE, "body": body}) is matches


@pytest.mark.parametrize(
    ("pattern", "data", "matches"),
    [
        ({"data": {"page": ["/"]}}, b'{"page": "/"}', True),
        ({"data": {"page": ["/"]}}, b'{"page": "/shop"}', False),
        # "Both the data field and your filter criteria for the data field must be in valid JSON format."
        ({"data": {"page": [{"exists": False}]}}, b"\xff\x00", False),
        ({"partitionKey": ["k-1"]}, b"\xff\x00", True),
        ({"partitionKey": ["k-1"], "data": {"page": ["/"]}}, b'{"page": "/"}', True),
        ({"kinesis": {"partitionKey": ["k-2"]}}, b"{}", False),
    ],
)
def test_records_of_a_stream(pattern: dict[str, Any], data: bytes, matches: bool) -> None:
    member = {**RECORD, "kinesis": {**RECORD["kinesis"], "data": base64.b64encode(data).decode()}}  # type: ignore[dict-item]
    assert filtering("data", pattern).accepts(data, member) is matches


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ({"dynamodb": {"NewImage": {"open": {"BOOL": [True]}}}}, True),
        ({"dynamodb": {"Keys": {"id": {"S": ["b"]}}}}, False),
        ({"eventName": ["INSERT"], "dynamodb": {"NewImage": {"open": {"BOOL": [True]}}}}, True),
        ({"eventName": ["REMOVE"]}, False),
        ({"userIdentity": {"type": ["Service"]}}, False),
    ],
)
def test_changes_of_a_table(pattern: dict[str, Any], matches: bool) -> None:
    """Whichever way a change comes: its object and its record, or the record alone, as an object or as text."""
    found = filtering("dynamodb", pattern)

    assert found.accepts(CHANGE["dynamodb"], CHANGE) is matches
    assert found.accepts(CHANGE) is matches
    assert found.accepts(json.dumps(CHANGE), CHANGE) is matches


def test_any_pattern_will_do() -> None:
    found = filtering("body", {"body": {"kind": ["a"]}}, {"body": ["plain"]})

    assert found.accepts('{"kind": "a"}', MESSAGE)
    assert found.accepts("plain", MESSAGE)
    assert not found.accepts("else", MESSAGE)


def test_patterns_come_back_as_they_were_written() -> None:
    patterns = [{"eventName": ["INSERT"], "dynamodb": {"Keys": {"id": {"N": [{"numeric": [">", 1]}]}}}}]

    assert filtering("dynamodb", *patterns).patterns == patterns
    assert filtering("dynamodb", *patterns) == filtering("dynamodb", *patterns)


@pytest.mark.parametrize(
    ("patterns", "said"),
    [
        ([{"body": {"x": ["a"]}}] * 6, "6 patterns"),
        ([{}], "names no field"),
        ([{"body": {"x": [{"cidr": "10.0.0.0/8"}]}}], "'body.x'"),
        ([{"body": {"x": ["a" * 5_000]}}], "4,096"),
    ],
)
def test_what_is_refused(patterns: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ConfigurationError, match="FilterCriteria") as caught:
        filtering("body", *patterns)

    assert said in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "b", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=6,
)
PATTERNS = st.dictionaries(
    st.sampled_from(["a", "b"]),
    st.lists(st.sampled_from(["a", 1, None, True, {"exists": True}, {"exists": False}, {"prefix": "a"}]), min_size=1),
    min_size=1,
    max_size=2,
)


@given(PATTERNS, st.dictionaries(st.sampled_from(["a", "b"]), JSON, max_size=2))
def test_over_a_payload_it_says_what_a_filter_over_payloads_says(pattern: dict[str, Any], payload: Any) -> None:
    """The toolkit's own filters, which are held against two other matchers, are the oracle."""
    own = read_filter(pattern, member="body", declared="sources.SQS")
    body = json.dumps(payload)

    assert own is not None
    assert filtering("body", {"body": pattern}).accepts(body, {**MESSAGE, "body": body}) is own.accepts(body)
