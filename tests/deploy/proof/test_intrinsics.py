"""What a template's functions come to: the proof's own reading, which is compared with CloudFormation's."""

from __future__ import annotations

from typing import Any

import pytest

from tests.deploy.proof.compare import differences
from tests.deploy.proof.intrinsics import Resolver

RESOLVER = Resolver(
    references={"Orders": "https://sqs/orders", "Topic": "", "Days": "30", "AWS::Region": "eu-west-1"},
    conditions={"Notified": {"Fn::Not": [{"Fn::Equals": [{"Ref": "Topic"}, ""]}]}},
    attribute=lambda name, attribute: f"{name}/{attribute}",
)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Ref": "Orders"}, "https://sqs/orders"),
        ({"Fn::GetAtt": ["Orders", "Arn"]}, "Orders/Arn"),
        ({"Fn::GetAtt": "Orders.Nested.Arn"}, "Orders/Nested.Arn"),
        ({"Fn::Sub": "${Orders} ${Orders.Arn} ${!literal} in ${AWS::Region}"}, "https://sqs/orders Orders/Arn ${literal} in eu-west-1"),
        ({"Fn::Sub": ["${a}-${Days}", {"a": {"Ref": "AWS::Region"}}]}, "eu-west-1-30"),
        ({"Fn::Join": ["-", ["a", {"Ref": "Days"}]]}, "a-30"),
        ({"a": {"Fn::If": ["Notified", [1], {"Ref": "AWS::NoValue"}]}, "b": 2}, {"b": 2}),
        ([{"Ref": "AWS::NoValue"}, 1], [1]),
        ({"Fn::Not": [{"Condition": "Notified"}]}, True),
        ({"one": {"Fn": 1}, "Ref": "is a member beside others"}, {"one": {"Fn": 1}, "Ref": "is a member beside others"}),
    ],
)  # fmt: skip
def test_functions(value: Any, expected: Any) -> None:
    assert RESOLVER.resolve(value) == expected


@pytest.mark.parametrize("value", [{"Ref": "Nobody"}, {"Fn::If": ["Never", 1, 2]}])
def test_an_unknown_name_is_an_error(value: Any) -> None:
    with pytest.raises(KeyError):
        RESOLVER.resolve(value)


def test_an_unknown_function_is_an_error() -> None:
    with pytest.raises(ValueError, match="Fn::Select is not known here"):
        RESOLVER.resolve({"Fn::Select": [0, ["a"]]})


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (181, "181"),
        (True, "true"),
        (1, 1.0),
        ({"a": 1}, {"a": 1, "default": 2}),
        ([{"a": 1}], [{"a": 1, "b": 2}]),
        ([], []),
    ],
)
def test_what_is_the_same(asked: Any, found: Any) -> None:
    assert list(differences(asked, found)) == []


@pytest.mark.parametrize(
    ("asked", "found"),
    [(181, 180), (True, False), ("x", None), ({"a": 1}, {}), ({"a": {"b": 1}}, {"a": 1}), ([1], [1, 2]), ([1, 2], [2, 1]), ([], None)],
)  # fmt: skip
def test_what_is_different(asked: Any, found: Any) -> None:
    assert list(differences(asked, found))
