"""Which AWS a command asks: a local run, another server on this machine, or AWS itself, and as whom."""

from __future__ import annotations

import json
import os
import shlex
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from pipeline.cli import kept
from pipeline.emulator.isolation import check_endpoint, isolated
from pipeline.errors import ConfigurationError

_SECONDS = 10


@contextmanager
def reached(
    endpoint_url: str | None, *, region: str | None = None, profile: str | None = None
) -> Generator[None, None, None]:
    """While the block lasts, clients ask this endpoint, or AWS; on this machine as nobody.

    Raises `ConfigurationError` for an endpoint that is none.
    """
    with ExitStack() as stack:
        if endpoint_url is not None and is_local(endpoint_url):
            stack.enter_context(isolated(endpoint_url))
            endpoint_url = None
        given = {"AWS_REGION": region, "AWS_PROFILE": profile, "AWS_ENDPOINT_URL": endpoint_url}
        stack.enter_context(_variables({name: value for name, value in given.items() if value is not None}))
        if profile is not None:  # else fixed credentials of the environment would come first
            stack.enter_context(_without("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"))
        yield


def is_local(endpoint_url: str) -> bool:
    """The endpoint is on this machine or in a private network."""
    try:
        check_endpoint(endpoint_url)
    except ConfigurationError:
        return False
    return True


def endpoint(given: str | None, *, is_aws: bool) -> str | None:
    """The endpoint to ask: the given one, the environment's, or that of the local run in this directory; None: AWS's own.

    `is_aws`: something that was given is only AWS's. Raises `ConfigurationError` when nothing says whom to ask.
    """
    found = given or os.environ.get("AWS_ENDPOINT_URL")
    if found is None and not is_aws:
        run = kept.announced()
        found = None if run is None else run.endpoint_url
    if found is None and not is_aws:
        raise ConfigurationError(
            "no `pipeline dev` runs in this directory, and a local run's queues end with it: start one without "
            "--until-drained (of the last run `pipeline trace RECORD_ID` still tells the cause), or say where to look: "
            "--stack NAME on AWS, or --endpoint-url"
        )
    if found is not None and not found.startswith(("http://", "https://")):
        raise ConfigurationError(f"endpoint {found!r} is no URL: write it as http://127.0.0.1:5000")
    return found


def options(**given: str | None) -> str:
    """Options as they are written behind a command that asks the same place, with a space before each."""
    return "".join(
        f" --{name.replace('_', '-')} {shlex.quote(value)}" for name, value in given.items() if value is not None
    )


def embedded(endpoint_url: str, route: str, body: Any) -> Any:
    """What the embedded server of `pipeline dev` says by a route of ours; None where another server listens.

    Raises `ConfigurationError` when nobody does.
    """
    request = urllib.request.Request(  # noqa: S310 - an http(s) URL of this machine, see `is_local`
        f"{endpoint_url.rstrip('/')}/pipeline/{route}", data=json.dumps(body).encode(), method="POST"
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=_SECONDS) as response:
            return json.load(response)
    except (urllib.error.HTTPError, ValueError):
        return None
    except OSError as error:
        raise ConfigurationError(f"nothing answers at {endpoint_url}: {getattr(error, 'reason', error)}") from None


@contextmanager
def _variables(values: Mapping[str, str]) -> Generator[None, None, None]:
    saved = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        _restore(saved)


@contextmanager
def _without(*names: str) -> Generator[None, None, None]:
    saved = {name: os.environ.pop(name, None) for name in names}
    try:
        yield
    finally:
        _restore(saved)


def _restore(saved: Mapping[str, str | None]) -> None:
    for name, value in saved.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
