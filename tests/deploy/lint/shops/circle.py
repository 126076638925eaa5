"""Two pipelines that feed each other, without anything that counts the rounds."""

from __future__ import annotations

from typing import Any

from pipeline import Pipeline, sinks, sources

there = Pipeline("there", idempotency=None)
back = Pipeline("back", idempotency=None)


@there.handler(sources.SQS("asked"), sinks=[sinks.SQS("answered", carry=False)], retry=None)
def answer(question: dict[str, Any]) -> dict[str, Any]:
    return question


@back.handler(sources.SQS("answered"), sinks=[sinks.SQS("asked", carry=False)], retry=None)
def ask(result: dict[str, Any]) -> dict[str, Any]:
    return result
