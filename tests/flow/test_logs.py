"""The log of a function on Lambda: nothing of payloads or keys, sampling by batch, the environment's first batch."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from pipeline import Claim, Context, Handler, Pipeline, Reject, Retry, sinks, sources, stores
from pipeline.errors import StoreUnavailable
from pipeline.output import Output
from tests.flow.events import Invocation, event, log_lines, message, orders, stream_record

Keep = Callable[[Handler[..., Any]], Handler[..., Any]]
MARKER = "hunter2-marker"
_numbers = itertools.count()


class Login(msgspec.Struct):
    user: str
    wants: str = ""


class NotAlways(sinks.Memory):
    """A sink that refuses some outputs."""

    async def write(self, outputs: Sequence[Output], environment: Any, deadline: Any) -> Any:
        return [OSError("out of reach") if output.value["wants"] == "sink" else None for output in outputs]


class NotAlwaysThere(stores.Memory):
    """A store that is away when told to be."""

    is_away = False
    is_deaf = False

    async def claim(self, requests: Any, environment: Any) -> Any:
        if self.is_away:
            return [StoreUnavailable("away")] * len(requests)
        return await super().claim(requests, environment)

    async def settle(self, settlements: Any, environment: Any) -> Any:
        if self.is_deaf:
            return [StoreUnavailable("deaf")] * len(settlements)
        return await super().settle(settlements, environment)


def do(wants: str) -> None:
    """What a payload asks a handler for."""
    match wants:
        case "fail":
            raise ValueError("no")
        case "reject":
            raise Reject("never")
        case "wait":
            raise Retry(after=0.01)
        case "cause":
            try:
                raise KeyError("first")
            except KeyError:
                raise RuntimeError("second") from None
        case _:
            pass


def bad_hook(*_: Any) -> None:
    raise RuntimeError("hook")


def test_no_line_of_any_outcome_has_anything_of_a_payload_or_a_key(closing: Keep, capfd: Any) -> None:
    store = NotAlwaysThere()
    pipeline = Pipeline(
        f"logs-{next(_numbers)}", idempotency=Claim(store=store, on_duplicate=bad_hook), log_level="DEBUG"
    )

    @pipeline.handler(sources.SQS("logins"), sinks=[NotAlways()], rejects=sinks.Memory(), key="user", retry=None)
    async def login(attempt: Login) -> dict[str, str]:
        do(attempt.wants)
        return {"user": attempt.user, "wants": attempt.wants}

    @pipeline.handler(sources.Kinesis("readings"), rejects=sinks.Memory(), key="user")
    async def read(attempt: Login) -> None:
        do(attempt.wants)

    def sent(number: int, wants: str, **fields: Any) -> dict[str, Any]:
        attributes = {"MessageGroupId": MARKER, "ApproximateReceiveCount": "2", "SentTimestamp": "1545084650987"}
        given = {"stringValue": MARKER, "dataType": "String"}
        body = {"user": f"{MARKER}-{wants}", "wants": wants, **fields}
        return message(f"m{number}", body, attributes=attributes, messageAttributes={MARKER: given})

    closing(login)
    batch = event(
        *(sent(number, wants) for number, wants in enumerate(["", "fail", "reject", "wait", "cause", "sink", ""])),
        message("bad", f"{MARKER} is no JSON"),
        message("odd", {"user": [MARKER]}),
        message("no-key", {"name": MARKER}),
    )
    for _ in range(7):  # until attempts are used up
        login(batch, Invocation())
    store.is_deaf = True
    login(event(sent(20, "", user=f"{MARKER}-deaf")), Invocation())
    login(event(sent(21, "reject", user=f"{MARKER}-deaf-too")), Invocation())
    store.is_deaf, store.is_away = False, True
    login(event(sent(22, "", user=f"{MARKER}-away")), Invocation())
    store.is_away = False
    closing(read)(
        event(
            *(
                stream_record(number, {"user": f"{MARKER}{number}", "wants": wants}, key=MARKER)
                for number, wants in enumerate(["", "wait", "reject", "fail"])
            )
        ),
        Invocation(3),
    )

    out, err = capfd.readouterr()
    assert MARKER not in out
    assert err == ""
    assert {line["message"] for line in log_lines(out)} == {
        "batch.finished",
        "record.succeeded",
        "record.duplicate",
        "record.failed",
        "record.rejected",
        "record.exhausted",
        "record.unprocessed",
        "record.postponed",
        "sink.failed",
        "store.failed",
        "completion.lost",
        "rejection.lost",
        "on_duplicate.failed",
    }


def test_payloads_are_in_lines_when_asked_for_with_their_secrets_masked(closing: Keep, capsys: Any) -> None:
    pipeline = Pipeline(f"logs-{next(_numbers)}", idempotency=None, log_payloads=["card.number"])

    @pipeline.handler(sources.SQS("orders"), retry=None)
    async def price(order: dict[str, Any]) -> None:
        if order["card"]["number"] != 1:
            raise ValueError("no")

    bodies = {"well": {"card": {"number": 1}}, "ill": {"card": {"number": 2, "kind": "visa"}}, "odd": {"card": [3]}}
    closing(price)(event(*(message(name, body) for name, body in bodies.items())), Invocation())

    lines = [line for line in log_lines(capsys.readouterr().out) if "record_id" in line]
    assert {line["record_id"]: line["payload"] for line in lines} == {
        "ill": {"card": {"number": "*****", "kind": "visa"}},
        "odd": {"card": ["*****"]},
    }


# The environment


def plain(**options: Any) -> Handler[..., Any]:
    pipeline = Pipeline(f"logs-{next(_numbers)}", idempotency=None, **options)

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: dict[str, Any], context: Context) -> None:
        context.logger.debug("detail")

    return price


def test_only_the_first_batch_of_an_environment_is_cold_and_each_line_has_the_version(
    closing: Keep, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_VERSION", "42")
    price = closing(plain(log_level="DEBUG"))
    for _ in range(3):
        price(orders("a"), Invocation())

    lines = log_lines(capsys.readouterr().out)
    assert {line["function_version"] for line in lines} == {"42"}
    assert [line["cold_start"] for line in lines if line["message"] == "batch.finished"] == [True, False, False]
    assert [line["cold_start"] for line in lines if line["message"] == "record.succeeded"] == [True, False, False]
    details = [line for line in lines if line["message"] == "detail"]
    assert [line["cold_start"] for line in details] == [True, False, False]
    assert {line["message"] for line in lines if "location" in line} == {"detail"}
    assert all(line["location"].startswith("price:") for line in details)


def test_an_environment_that_was_made_in_advance_is_never_cold(
    closing: Keep, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_LAMBDA_INITIALIZATION_TYPE", "provisioned-concurrency")
    closing(plain(log_level="DEBUG"))(orders("a"), Invocation())

    lines = log_lines(capsys.readouterr().out)
    assert [line["message"] for line in lines] == ["detail", "record.succeeded", "batch.finished"]
    assert {line["cold_start"] for line in lines} == {False}


def test_sampling_is_by_batch_and_tells_of_all_its_records(
    closing: Keep, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POWERTOOLS_LOGGER_SAMPLE_RATE", "0.5")
    dice = iter([0.9, 0.9, 0.1, 0.9])  # the first is thrown when the logger is made
    monkeypatch.setattr(random, "random", lambda: next(dice))
    price = closing(plain())

    batches = []
    for _ in range(3):
        price(orders("a", "b"), Invocation())
        batches.append([line["message"] for line in log_lines(capsys.readouterr().out)])

    sampled = ["detail", "record.succeeded"] * 2
    assert [sorted(batch) for batch in batches] == [
        ["batch.finished"],
        sorted([*sampled, "batch.finished"]),
        ["batch.finished"],
    ]


@pytest.mark.parametrize("rate", ["often", "", "nan"])
def test_a_sample_rate_that_is_no_number_ends_no_work(
    closing: Keep, capsys: Any, monkeypatch: pytest.MonkeyPatch, rate: str
) -> None:
    monkeypatch.setenv("POWERTOOLS_LOGGER_SAMPLE_RATE", rate)
    price = closing(plain())

    assert price(orders("a"), Invocation()) == {"batchItemFailures": []}
    assert [line["message"] for line in log_lines(capsys.readouterr().out)] == ["batch.finished"]


def test_stdout_gets_lines_of_utf_8_json_whatever_a_handler_logs() -> None:
    script = """
import sys
from pipeline import Context, Pipeline, sources

class Silent:
    def __str__(self):
        raise RuntimeError

pipeline = Pipeline("odd", idempotency=None)

@pipeline.handler(sources.SQS("orders"))
async def price(order: dict, context: Context) -> None:
    mine = []
    mine.append(mine)
    values = {"message": "mine", "circular": mine, "keys": {(1, 2): 3}, "silent": Silent(), "nan": float("nan")}
    context.logger.info("null", extra=values | {"surrogate": chr(0xD800), "huge": "x" * 1_000_000})
    context.logger.info("%d", "no number")
    context.logger.info("last")

class Invocation:
    def get_remaining_time_in_millis(self):
        return 30_000

event = {"Records": [{"messageId": "m0", "eventSource": "aws:sqs", "body": "{}"}]}
assert price(event, Invocation()) == {"batchItemFailures": []}
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert done.stderr == b""
    lines = [json.loads(line.decode()) for line in done.stdout.splitlines()]
    written = [line for line in lines if "level" in line]
    assert [line["message"] for line in written] == ["null", "%d", "last", "batch.finished"]
    assert [line.get("record_id") for line in written] == ["m0", "m0", "m0", None]
    assert written[0]["message_"] == "mine"
    assert written[1]["unformatted"] == "TypeError"
