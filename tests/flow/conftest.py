"""What the flow tests of misfortune share: the way to AWS with a proxy in it, and a look at the other side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from pipeline import Handler
from tests.flow.events import Queues
from tests.flow.proxy import Proxy


@pytest.fixture
def proxy(aws: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Whatever is opened from now on reaches AWS through it."""
    made = Proxy(aws)
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def boto(moto_endpoint: str) -> Iterator[Callable[[str], Any]]:
    """Clients straight to the server."""
    made: dict[str, Any] = {}

    def client(service: str) -> Any:
        if service not in made:
            made[service] = boto3.client(
                service,
                endpoint_url=moto_endpoint,
                region_name="eu-west-1",
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
            )
        return made[service]

    yield client
    for one in made.values():
        one.close()


@pytest.fixture
def queues(boto: Callable[[str], Any]) -> Queues:
    return Queues(boto("sqs"))


@pytest.fixture
def closing() -> Iterator[Callable[[Handler[..., Any]], Handler[..., Any]]]:
    """Closes a handler after the test."""
    opened: list[Handler[..., Any]] = []

    def keep(handler: Handler[..., Any]) -> Handler[..., Any]:
        opened.append(handler)
        return handler

    yield keep
    for handler in opened:
        handler.close()
