"""Where a service's calls go, by botocore's own rules and data: regions, partitions, FIPS, dual stack, account ids."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

from botocore.utils import is_valid_endpoint_url, is_valid_ipv6_endpoint_url

from pipeline.aws.settings import Settings


class Endpoint(NamedTuple):
    """A URL, and the region and the service's name that a call there is signed for."""

    url: str
    region: str
    name: str


class Endpoints:
    """The endpoints of one service. A resource's ARN may ask for one of its account or region.

    Raises `ValueError` for a configured one that is no URL.
    """

    def __init__(self, service: str, settings: Settings, *, signing_name: str) -> None:
        self._settings = settings
        self._signing_name = signing_name
        self._known: dict[tuple[Any, ...], Endpoint] = {}
        self._provider: Any = None
        configured = settings.endpoint_of(service)
        if configured is not None:
            if not (is_valid_endpoint_url(configured) or is_valid_ipv6_endpoint_url(configured)):
                raise ValueError(f"Invalid endpoint: {configured}")
            self._configured: Endpoint | None = Endpoint(_whole(configured), settings.region, signing_name)
        else:
            self._configured = None
            self._provider = _provider(service)
        #: The one that no account has to itself; it needs no credentials.
        self.usual = self._configured or self._resolved({}, None, "disabled")

    def of(self, asked: Mapping[str, Any], account_id: str | None) -> Endpoint:
        """Where a call goes; `asked` are the rules' parameters that it sets. Raises botocore's errors."""
        if self._configured is not None:
            return self._configured
        key = (
            account_id,
            *((name, tuple(value) if isinstance(value, list) else value) for name, value in asked.items()),
        )
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._resolved(asked, account_id, self._settings.account_id_mode)
        return found

    def _resolved(self, asked: Mapping[str, Any], account_id: str | None, mode: str) -> Endpoint:
        settings = self._settings
        parameters = {
            "Region": settings.region,
            "UseFIPS": settings.use_fips,
            "UseDualStack": settings.use_dualstack,
            "AccountId": account_id,
            "AccountIdEndpointMode": mode,
            **asked,
        }
        defined = self._provider.ruleset.parameters
        given = {name: value for name, value in parameters.items() if value is not None and name in defined}
        found = self._provider.resolve_endpoint(**given)
        schemes = found.properties.get("authSchemes") or [{}]
        scheme: dict[str, str] = next((one for one in schemes if one.get("name") == "sigv4"), {})
        return Endpoint(
            _whole(found.url),
            scheme.get("signingRegion") or settings.region,
            scheme.get("signingName") or self._signing_name,
        )


def _provider(service: str) -> Any:
    from botocore.endpoint_provider import EndpointProvider

    from pipeline.aws.models import Models

    models = Models()
    return EndpointProvider(models.load_service_model(service, "endpoint-rule-set-1"), models.load_data("partitions"))


def _whole(url: str) -> str:
    """A URL that ends in a path."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path or "/", parts.query, ""))
