"""Clients of the embedded server for tests that make many calls: boto3's behind the face of aiobotocore's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import boto3
from botocore.config import Config


class Blocking:
    """Its methods are awaited, and block: to make a client of aiobotocore's for each test takes longer than the tests."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.meta = client.meta

    def __getattr__(self, name: str) -> Any:
        async def call(**parameters: Any) -> Any:
            return getattr(self._client, name)(**parameters)

        return call


Kind = TypeVar("Kind", bound=Blocking)


@contextmanager
def blocking(service: str, endpoint: str, kind: type[Kind]) -> Iterator[Kind]:
    """A client of a service in us-east-1. It tries once, and leaves it to the server to find what is wrong."""
    client = boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
    )
    try:
        yield kind(client)
    finally:
        client.close()
