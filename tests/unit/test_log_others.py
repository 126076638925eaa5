"""Lines beside loggers that users made under the pipeline's name, in either order, and beside Lambda's own handler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

_SCRIPT = """
import logging, sys
from aws_lambda_powertools import Logger
from pipeline import Context, Pipeline, sources

# Lambda's own handler, which writes whatever comes to the root.
lambdas = logging.StreamHandler(sys.stdout)
lambdas.setFormatter(logging.Formatter("ROOT %(message)s"))
logging.getLogger().addHandler(lambdas)

pipeline = Pipeline("shop", idempotency=None, log_level="DEBUG")
theirs = []

@pipeline.handler(sources.SQS("orders"))
async def price(order: dict, context: Context) -> None:
    context.logger.info("ours", extra={"message": "mine", "nan": float("nan"), "surrogate": chr(0xD800)})
    context.logger.info("null")
    theirs[0]("theirs")

def make():
    KIND

class Invocation:
    def get_remaining_time_in_millis(self):
        return 30_000

def invoke(name):
    price({"Records": [{"messageId": name, "eventSource": "aws:sqs", "body": "{}"}]}, Invocation())

ORDER
"""
KINDS = {
    "nobody": "theirs[:] = [lambda text: None]",
    "powertools": 'theirs[:] = [Logger(service="shop", level="WARNING").warning]',
    "powertools child": 'Logger(service="shop"); theirs[:] = [Logger(service="shop", child=True).warning]',
    "powertools of another format": (
        'theirs[:] = [Logger(service="shop", location=None, log_record_order=["service"], stream=sys.stderr).warning]'
    ),
    "logging": """
    mine = logging.StreamHandler(sys.stdout)
    mine.setFormatter(logging.Formatter("PLAIN %(message)s"))
    logging.getLogger("shop").addHandler(mine)
    logging.getLogger("shop").propagate = False
    theirs[:] = [logging.getLogger("shop").warning]""",
}
ORDERS = {
    "theirs first": "make(); invoke('m0')",
    "ours first": "theirs[:] = [print]; invoke('m0'); make(); invoke('m1')",
}


def run(kind: str, order: str) -> tuple[list[str], list[str]]:
    """What a process writes: on stdout, and on stderr."""
    script = _SCRIPT.replace("KIND", KINDS[kind]).replace("ORDER", ORDERS[order])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    return done.stdout.decode().split("\n")[:-1], done.stderr.decode().split("\n")[:-1]


def ours(stdout: list[str]) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in stdout if line.startswith("{")]
    return [line for line in lines if "handler" in line and line.get("message", "theirs") != "theirs"]


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {name: value for name, value in line.items() if name not in ("timestamp", "seconds", "handled", "location")}
        for line in lines
    ]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "nobody"])
def test_our_lines_are_the_same_whoever_else_logs_under_the_pipelines_name(kind: str, order: str) -> None:
    alone, _ = run("nobody", order)
    stdout, stderr = run(kind, order)

    assert without_times(ours(stdout)) == without_times(ours(alone))
    (first, second, *_) = ours(stdout)
    assert (first["message"], first["message_"], first["nan"], first["record_id"]) == ("ours", "mine", None, "m0")
    assert (second["message"], second["service"]) == ("null", "shop")
    said = [line for line in stdout + stderr if "theirs" in line]
    assert len(said) == ORDERS[order].count("invoke"), "what they say is written once"
    assert not [line for line in stdout + stderr if line.startswith(("ROOT", "PLAIN")) and "theirs" not in line]


@pytest.mark.parametrize("order", ORDERS)
def test_a_users_logger_of_the_pipelines_name_names_the_record_too(order: str) -> None:
    stdout, _ = run("powertools", order)

    lines = [json.loads(line) for line in stdout if line.startswith("{")]
    (line,) = [line for line in lines if line.get("message") == "theirs"]
    assert line["record_id"] == ("m0" if order == "theirs first" else "m1")
    assert line["handler"] == "price"


@pytest.mark.parametrize(
    ("code", "lambdas", "rate", "events"),
    [
        ("INFO", None, None, "batch.finished"),
        ("ERROR", "INFO", None, ""),  # as our templates have it
        ("INFO", "INFO", None, "batch.finished"),
        ("DEBUG", "DEBUG", None, "record.succeeded batch.finished"),
        ("INFO", "DEBUG", None, "record.succeeded batch.finished"),  # set by hand
        ("INFO", "TRACE", None, "record.succeeded batch.finished"),
        ("INFO", "DEBUG", "0.0000001", "batch.finished"),  # set for the sample
        ("INFO", "DEBUG", "1", "record.succeeded batch.finished"),
        ("INFO", "WARN", None, ""),
        ("DEBUG", "INFO", None, "batch.finished"),
        ("INFO", "odd", None, "batch.finished"),
    ],
)
def test_the_levels_of_the_code_and_of_lambda(code: str, lambdas: str | None, rate: str | None, events: str) -> None:
    script = _SCRIPT.replace("KIND", KINDS["nobody"]).replace("ORDER", "make(); invoke('m0')").replace("DEBUG", code)
    wanted = {"AWS_LAMBDA_LOG_LEVEL": lambdas, "POWERTOOLS_LOGGER_SAMPLE_RATE": rate}
    variables = {**os.environ, **{name: value for name, value in wanted.items() if value is not None}}
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, check=True, env=variables)

    lines = [json.loads(line) for line in done.stdout.decode().split("\n") if line.startswith("{")]
    said = [line["message"] for line in lines if "message" in line and "." in line["message"]]
    assert said == events.split()
