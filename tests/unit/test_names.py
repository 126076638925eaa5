"""Logical names, and the names that AWS knows."""

from __future__ import annotations

import pytest

from pipeline.aws.names import VARIABLE, Resource, arn_name, resource
from pipeline.errors import ConfigurationError


def test_without_a_deployment_the_logical_name_is_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Resource("sqs", "orders").physical == "orders"


def test_a_deployment_says_what_its_resources_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '{"dynamodb:ledger": "shop-ledger-1X2"}')
    assert Resource("dynamodb", "ledger").physical == "shop-ledger-1X2"
    assert Resource("sqs", "ledger").physical == "ledger"


def test_an_existing_resource_is_named_by_its_arn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '{"sqs:orders": "other"}')
    queue = Resource("sqs", "orders", "arn:aws:sqs:eu-west-1:111122223333:theirs")
    assert (queue.physical, queue.account) == ("theirs", "111122223333")
    assert arn_name("arn:aws:dynamodb:eu-west-1:111122223333:table/ledger") == "ledger"
    assert arn_name("arn:aws:events:eu-west-1:111122223333:event-bus/shop") == "shop"


@pytest.mark.parametrize("text", ["{", "[]", '{"sqs:orders": 1}'])
def test_a_damaged_map_of_resources_says_so(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(ConfigurationError, match=VARIABLE):
        _ = Resource("sqs", "orders").physical


@pytest.mark.parametrize("existing", ["orders", "arn:aws:sns:eu-west-1:1:orders", "arn:aws:sqs:eu-west-1:1:", 7])
def test_an_arn_of_something_else_is_refused_with_an_example(existing: object) -> None:
    with pytest.raises(ConfigurationError, match="arn:aws:sqs:eu-west-1:111122223333:orders"):
        resource("sqs", "orders", existing, declared="sources.SQS")
