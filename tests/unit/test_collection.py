"""Garbage collection while a Lambda environment starts."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest

from pipeline.runtimes import collection

USUAL = (701, 11, 12)


@pytest.fixture(autouse=True)
def kept() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*USUAL)
    yield
    collection._usual.clear()
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.fixture
def in_lambda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")


def test_it_is_held_back_until_the_first_answer(in_lambda: None) -> None:
    collection.hold_back()
    assert gc.get_threshold() == collection._STARTING
    collection.hold_back()
    collection.resume()
    assert gc.get_threshold() == USUAL
    assert gc.get_freeze_count() > 0

    gc.unfreeze()
    collection.resume()
    assert gc.get_freeze_count() == 0, "once"


def test_elsewhere_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_LAMBDA_RUNTIME_API", raising=False)
    collection.hold_back()
    assert gc.get_threshold() == USUAL
    collection.resume()
    assert gc.get_freeze_count() == 0


def test_who_sets_thresholds_meanwhile_keeps_them(in_lambda: None) -> None:
    collection.hold_back()
    gc.set_threshold(5, 6, 7)
    collection.resume()
    assert gc.get_threshold() == (5, 6, 7)


def test_who_collects_nothing_is_left_alone(in_lambda: None) -> None:
    gc.disable()
    try:
        collection.hold_back()
        assert gc.get_threshold() == USUAL
    finally:
        gc.enable()


def test_a_function_starts_with_it_and_answers_without() -> None:
    script = """
        import gc
        usual = gc.get_threshold()
        from pipeline import Pipeline, sources
        starting = gc.get_threshold()

        shop = Pipeline("shop", idempotency=None)

        @shop.handler(sources.SQS("orders"))
        async def price(order: dict) -> None:
            pass

        class Context:
            def get_remaining_time_in_millis(self):
                return 30_000

        one = {"messageId": "m", "receiptHandle": "r", "body": "{}", "attributes": {}, "messageAttributes": {},
               "eventSource": "aws:sqs", "eventSourceARN": "arn:aws:sqs:eu-west-1:1:orders"}
        assert price({"Records": [one]}, Context()) == {"batchItemFailures": []}
        print("\\nfound", starting != usual, gc.get_threshold() == usual, gc.get_freeze_count() > 0)
    """
    for variables, found in (({"AWS_LAMBDA_RUNTIME_API": "x"}, "True True True"), ({}, "False True False")):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env={**{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "COV"))}, **variables},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.splitlines()[-1] == f"found {found}"
