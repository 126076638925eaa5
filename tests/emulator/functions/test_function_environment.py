"""Variables of functions that share this process."""

from __future__ import annotations

import os

import pytest

from pipeline.emulator.functions import environment
from pipeline.emulator.functions.function import FunctionSettings
from pipeline.errors import ConfigurationError


def test_declared_variables_stand_while_the_functions_run_and_then_what_stood_there_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TABLE", "mine")
    monkeypatch.delenv("QUEUE", raising=False)
    functions = [
        FunctionSettings(name="price", environment={"TABLE": "orders", "QUEUE": "q"}),
        FunctionSettings(name="ship", environment={"TABLE": "orders"}),
    ]
    with environment.shared(functions):
        assert (os.environ["TABLE"], os.environ["QUEUE"]) == ("orders", "q")
    assert os.environ["TABLE"] == "mine"
    assert "QUEUE" not in os.environ


def test_two_values_for_one_variable_are_refused_before_anything_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUEUE", raising=False)
    functions = [
        FunctionSettings(name="price", environment={"QUEUE": "q", "TABLE": "a"}),
        FunctionSettings(name="ship", environment={"TABLE": "b"}),
    ]
    with pytest.raises(ConfigurationError, match=r"price and ship .* of TABLE: .* processes of their own"):
        environment.shared(functions).__enter__()
    assert "QUEUE" not in os.environ


def test_a_declared_variable_does_not_lead_this_process_to_aws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with environment.shared([FunctionSettings(name="price", environment={"AWS_ENDPOINT_URL": "https://aws"})]):
        assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
