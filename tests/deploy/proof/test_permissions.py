"""Calls in IAM's words, and whether statements cover them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.deploy.proof.permissions import Use, allowed, needed

PLACE = "eu-west-1:111122223333"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            ("POST", "/", "AmazonSQS.SendMessageBatch", {"QueueUrl": "http://localhost/1/orders-dlq"}),
            {Use("sqs:SendMessage", f"arn:aws:sqs:{PLACE}:orders-dlq")},
        ),
        (
            ("POST", "/", "DynamoDB_20120810.BatchWriteItem", {"RequestItems": {"a": [], "b": []}}),
            {Use("dynamodb:BatchWriteItem", f"arn:aws:dynamodb:{PLACE}:table/{name}") for name in "ab"},
        ),
        (
            ("POST", "/", "AWSEvents.PutEvents", {"Entries": [{"EventBusName": "shop"}]}),
            {Use("events:PutEvents", f"arn:aws:events:{PLACE}:event-bus/shop")},
        ),
        (("PUT", "/archive/2026/one.gz", "", None), {Use("s3:PutObject", "arn:aws:s3:::archive/2026/one.gz")}),
        (("POST", "/archive/one?uploads", "", None), {Use("s3:PutObject", "arn:aws:s3:::archive/one")}),
        (("DELETE", "/archive/one?uploadId=1", "", None), {Use("s3:AbortMultipartUpload", "arn:aws:s3:::archive/one")}),
    ],
)
def test_what_a_call_needs(call: tuple[str, str, str, Any], expected: set[Use]) -> None:
    method, url, target, members = call

    assert set(needed(method, url, target, json.dumps(members).encode(), place=PLACE)) == expected


@pytest.mark.parametrize("call", [("DELETE", "/archive/one", ""), ("POST", "/", "AmazonSSM.GetParameter")])
def test_a_call_that_is_not_known_is_an_error(call: tuple[str, str, str]) -> None:
    with pytest.raises(ValueError, match="not known here"):
        list(needed(*call, b"{}", place=PLACE))


def test_only_what_a_statement_names_is_allowed() -> None:
    statements = [
        {"Effect": "Allow", "Action": ["s3:PutObject"], "Resource": "arn:aws:s3:::archive/*"},
        {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": ["arn:a", "arn:b"]},
    ]

    assert allowed(Use("s3:PutObject", "arn:aws:s3:::archive/2026/one"), statements)
    assert allowed(Use("sqs:SendMessage", "arn:b"), statements)
    assert not allowed(Use("s3:PutObject", "arn:aws:s3:::other/one"), statements)
    assert not allowed(Use("s3:GetObject", "arn:aws:s3:::archive/one"), statements)
    assert not allowed(Use("sqs:SendMessage", "arn:c"), statements)
