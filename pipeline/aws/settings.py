"""Whom calls are made as, and where they go: what botocore would take from the environment and from files.

In Lambda all of it stands in environment variables. Everywhere else a botocore session says it: it knows profiles,
files and all kinds of credentials, and costs more to import than a cold start may take.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from botocore.configprovider import ConfiguredEndpointProvider
from botocore.exceptions import InvalidConfigError, NoRegionError
from botocore.utils import ensure_boolean, validate_region_name

_FILES = (("AWS_CONFIG_FILE", "~/.aws/config"), ("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"))
_PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
_ACCOUNT_ID_MODES = ("preferred", "disabled", "required")
#: Where botocore looks for data files of the user's own.
_USERS_DATA = "~/.aws/models"


class Credentials(Protocol):
    """Credentials at one moment."""

    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def token(self) -> str | None: ...
    @property
    def account_id(self) -> str | None: ...


class Fixed(NamedTuple):
    """Credentials that never change."""

    access_key: str
    secret_key: str
    token: str | None
    account_id: str | None


@dataclass(frozen=True)
class Settings:
    """What is the same for all services."""

    region: str
    use_fips: bool
    use_dualstack: bool
    account_id_mode: str
    authorities: str | None  #: a file of certificates; None: botocore's
    endpoint_of: Callable[[str], str | None]  #: what is configured for a service, by botocore's name of it
    credentials: Callable[[], Credentials | None]  #: those of now; may ask another service for them, and wait


def has_own_data() -> bool:
    """Whether somebody replaced data files of botocore's: then nobody but botocore knows what they mean."""
    return "AWS_DATA_PATH" in os.environ or Path(_USERS_DATA).expanduser().is_dir()


def is_in_environment() -> bool:
    """Whether there is nothing to be found but environment variables."""
    has_files = any(Path(os.environ.get(name, usual)).expanduser().is_file() for name, usual in _FILES)
    return not has_files and not any(name in os.environ for name in _PROFILES)


def from_environment() -> Settings:
    """What the variables say, where there are no files. Raises what botocore raises for what is missing or wrong."""
    environ = dict(os.environ)
    session = None if _has_fixed_credentials(environ) else _session()
    return _settings(
        lambda name, variable: environ.get(variable),
        lambda service: _endpoint(service, {}, {}, environ),
        _fixed(environ) if session is None else _of(session),
    )


def from_session() -> Settings:
    """What files and variables say; reads them. Raises as `from_environment` does."""
    session = _session()
    full, scoped = session.full_config, session.get_scoped_config()
    environ = dict(os.environ)
    return _settings(
        lambda name, _: session.get_config_variable(name),
        lambda service: _endpoint(service, full, scoped, environ),
        _fixed(environ) if _has_fixed_credentials(environ) else _of(session),
    )


def _settings(
    value: Callable[[str, str], Any],
    configured: Callable[[str], str | None],
    credentials: Callable[[], Credentials | None],
) -> Settings:
    """`value` finds a setting by botocore's name of it, or by the name of its variable."""
    # botocore reads AWS_DEFAULT_REGION only; containers are given AWS_REGION.
    region = os.environ.get("AWS_REGION")
    if region is None:
        region = value("region", "AWS_DEFAULT_REGION")
    if not region:
        raise NoRegionError
    validate_region_name(region)
    plain = region.replace("fips-", "").replace("-fips", "")  # as botocore does with what was once a region's name
    ignored = ensure_boolean(value("ignore_configured_endpoint_urls", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS") or "false")
    authorities = value("ca_bundle", "AWS_CA_BUNDLE")
    if authorities is None:
        authorities = os.environ.get("REQUESTS_CA_BUNDLE")
    if authorities is not None and not authorities.strip():
        raise InvalidConfigError(error_msg="AWS_CA_BUNDLE or REQUESTS_CA_BUNDLE is empty: name a file, or unset it")
    mode = (value("account_id_endpoint_mode", "AWS_ACCOUNT_ID_ENDPOINT_MODE") or "preferred").lower()
    if mode not in _ACCOUNT_ID_MODES:
        raise InvalidConfigError(error_msg=f"account_id_endpoint_mode is {mode!r}: it is one of {_ACCOUNT_ID_MODES}")
    return Settings(
        region=plain,
        use_fips=plain != region or ensure_boolean(value("use_fips_endpoint", "AWS_USE_FIPS_ENDPOINT") or "false"),
        use_dualstack=ensure_boolean(value("use_dualstack_endpoint", "AWS_USE_DUALSTACK_ENDPOINT") or "false"),
        account_id_mode=mode,
        authorities=authorities,
        endpoint_of=(lambda _: None) if ignored else configured,
        credentials=credentials,
    )


def _endpoint(
    service: str, full: Mapping[str, Any], scoped: Mapping[str, Any], environ: Mapping[str, str]
) -> str | None:
    found: str | None = ConfiguredEndpointProvider(full, scoped, service, environ).provide()
    return found


def _has_fixed_credentials(environ: Mapping[str, str]) -> bool:
    """Whether the variables hold credentials, which then come before all others, and say of no end."""
    return (
        bool(environ.get("AWS_ACCESS_KEY_ID") and environ.get("AWS_SECRET_ACCESS_KEY"))
        and "AWS_CREDENTIAL_EXPIRATION" not in environ
    )


def _fixed(environ: Mapping[str, str]) -> Callable[[], Credentials]:
    found = Fixed(
        environ["AWS_ACCESS_KEY_ID"],
        environ["AWS_SECRET_ACCESS_KEY"],
        environ.get("AWS_SECURITY_TOKEN") or environ.get("AWS_SESSION_TOKEN") or None,
        environ.get("AWS_ACCOUNT_ID"),
    )
    return lambda: found


def _of(session: Any) -> Callable[[], Credentials | None]:
    """Those that a session finds. Its object holds and refreshes them: nothing of them is kept here.

    It looks for them once, as a client of botocore's does when it is made; looking may fail, and is then done again.
    """
    lock = threading.Lock()
    found: list[Any] = []

    def now() -> Credentials | None:
        with lock:
            if not found:
                found.append(session.get_credentials())
        frozen: Credentials | None = None if found[0] is None else found[0].get_frozen_credentials()
        return frozen

    return now


def _session() -> Any:
    from botocore.session import Session

    from pipeline.aws.models import Models

    session = Session()
    session.register_component("data_loader", Models(session.get_config_variable("data_path")))
    return session
