"""What a message among dead letters says, whoever sent it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.aws.operators.peek import Message
from pipeline.cli.letters import Letter, as_json, document, read

SAID = {"handler": "shop.price", "cause": "Reject: no", "attempts": 2, "exhausted": True, "record_id": "r1"}
TRACE = "0af7651916cd43dd8448eb211c80319c"


def letter(body: str = "{}", **attributes: str) -> Letter:
    return read(Message(id="m1", body=body, attributes=attributes))


def test_a_letter_of_ours_says_why_and_of_which_record() -> None:
    found = letter(
        pipeline_cause=json.dumps(SAID), pipeline='{"id":"o1","hops":1}', traceparent=f"00-{TRACE}-b7ad6b7169203331-01"
    )
    assert (found.handler, found.cause, found.attempts, found.is_exhausted) == ("shop.price", "Reject: no", 2, True)
    assert (found.record_id, found.caused_by, found.trace_id) == ("r1", "o1", TRACE)
    assert found.look_for == "r1"


def test_a_streams_letter_is_read_back_to_its_text() -> None:
    said = {"pipeline_cause": json.dumps(SAID), "encoding": "base64"}
    assert letter("eyJuIjogMX0=", part="2/3", **said).data == '{"n": 1}'
    assert letter("eyJuIjogMX0=", part="2/3", **said).part == "2/3"
    assert letter("/w==", **said).data == "\ufffd"
    assert letter("no base64", **said).data == "no base64"
    assert letter("eyJuIjogMX0=", encoding="base64").data == "eyJuIjogMX0=", "a stranger's attribute says nothing"


def test_a_letter_in_an_object_says_it_there() -> None:
    said = {name: value for name, value in SAID.items() if name != "record_id"}
    found = letter(json.dumps({"id": "r1", "body": "x", "cause": said, "attributes": {}}))
    assert (found.cause, found.record_id) == ("Reject: no", "r1")


def test_what_a_mapping_gave_up_says_under_which_condition() -> None:
    body = {"requestContext": {"condition": "RetryAttemptsExhausted"}, "KinesisBatchInfo": {"shardId": "s"}}
    assert letter(json.dumps(body)).cause == "the mapping gave a batch up: RetryAttemptsExhausted"


@pytest.mark.parametrize(
    "found",
    [letter("text"), letter('{"cause": "mine"}'), letter('{"cause": {"cause": "mine"}}'), letter(pipeline_cause="not JSON"),
     letter(pipeline_cause="[]"), letter('{"requestContext": {"condition": "mine"}}'), letter("{" * 10_000)],
)  # fmt: skip
def test_a_strangers_message_has_no_cause_and_is_looked_for_by_its_own_id(found: Letter) -> None:
    assert (found.cause, found.handler, found.record_id, found.look_for) == (None, None, None, "m1")


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(SAID)), VALUES), st.text(), st.text())
def test_whatever_a_cause_holds_it_is_read_and_written(said: dict[str, Any], body: str, carried: str) -> None:
    found = letter(body, pipeline_cause=json.dumps(said), pipeline=carried, traceparent=carried, encoding="base64")
    assert isinstance(found.data, str)
    assert as_json(document(found, "q")).isascii()
