"""A queue to a queue, with idempotency for an hour."""

from __future__ import annotations

from typing import Any

from pipeline import Claim, Pipeline, sources

forgetful = Pipeline("forgetful", idempotency=Claim(ttl=3_600))


@forgetful.handler(sources.SQS("orders"), key="id")
def price(order: dict[str, Any]) -> None: ...
