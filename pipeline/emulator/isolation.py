"""A local run can never reach production: its environment variables, and the endpoints it accepts."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import urlsplit

from pipeline.emulator.services.service import REGION
from pipeline.errors import ConfigurationError

#: moto takes any; they are no one's.
_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_SESSION_TOKEN": "testing",
}
_LOCAL_NAMES = (".localhost", ".local", ".internal", ".test")
#: Names of resources in a deployment, which a local run has nothing to do with.
_DEPLOYMENT = "PIPELINE_RESOURCES"


def check_endpoint(url: str) -> None:
    """Raise `ConfigurationError` unless the endpoint is on this machine or in a private network."""
    parts = urlsplit(url)
    host = (parts.hostname or "").rstrip(".").lower()
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError(f"endpoint {url!r} is no URL: write it as http://127.0.0.1:5000")
    if not _is_local(host):
        raise ConfigurationError(
            f"endpoint {url!r} is refused: a local run only ever talks to this machine or a private network, never to AWS"
        )


def _is_local(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A name without a dot can be no host of AWS's: it is this machine, or a container beside it.
        return "." not in host or (host.endswith(_LOCAL_NAMES) and "amazonaws" not in host)
    # The link-local addresses are AWS's own: instance metadata and container credentials.
    return (address.is_loopback or address.is_private) and not address.is_link_local and not address.is_unspecified


@contextmanager
def isolated(endpoint_url: str) -> Generator[None, None, None]:
    """Point everything that reads AWS's variables at the endpoint; put them back afterwards.

    Whatever could lead elsewhere is taken away meanwhile: profiles, configuration files, single
    services' endpoints, roles, and the names of deployed resources.
    """
    check_endpoint(endpoint_url)
    saved = {name: value for name, value in os.environ.items() if name.startswith("AWS_") or name == _DEPLOYMENT}
    for name in saved:
        del os.environ[name]
    os.environ.update(variables(endpoint_url))
    try:
        yield
    finally:
        for name in [name for name in os.environ if name.startswith("AWS_") or name == _DEPLOYMENT]:
            del os.environ[name]
        os.environ.update(saved)


def variables(endpoint_url: str) -> dict[str, str]:
    """What leads everything that reads AWS's variables to the endpoint, with credentials that are no one's."""
    return {
        **_CREDENTIALS,
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
