"""From a resource's logical name to the one that AWS knows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct

from pipeline.errors import ConfigurationError

#: Holds a JSON object such as `{"sqs:orders": "https://sqs...", "dynamodb:ledger": "shop-ledger-1X2"}`.
VARIABLE = "PIPELINE_RESOURCES"


class Resource(Struct, frozen=True):
    """One resource: of a service, with a logical name, ours or somebody else's (`existing`)."""

    service: str  #: as in ARNs: sqs, dynamodb, events, s3
    name: str  #: the logical name
    existing: str | None = None  #: the ARN of a resource that is not ours

    @property
    def physical(self) -> str:
        """The name, or for SQS perhaps the URL: the ARN's, what the deployment says, or the logical one."""
        if self.existing is not None:
            return arn_name(self.existing)
        return _deployed(os.environ.get(VARIABLE)).get(f"{self.service}:{self.name}", self.name)

    @property
    def address(self) -> str:
        """What calls name where a name or an ARN will do: by its ARN, somebody else's is found in another account too."""
        return self.existing or self.physical

    @property
    def account(self) -> str | None:
        """The account that owns it, when an ARN says so."""
        return None if self.existing is None else self.existing.split(":")[4] or None


def resource(service: str, name: object, existing: object, *, declared: str) -> Resource:
    """The resource of a declaration. Raises `ConfigurationError` for what can be no name or ARN."""
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{declared}({name!r}): give the logical name of a resource, as {declared}('orders')")
    if existing is not None and (not isinstance(existing, str) or not _is_arn(existing, service)):
        raise ConfigurationError(
            f"{declared}(existing={existing!r}): give an ARN of {service}, such as "
            f"'arn:aws:{service}:{_PLACES.get(service, 'eu-west-1:111122223333')}:{_EXAMPLES.get(service, 'name')}'"
        )
    return Resource(service, name, existing)


def _is_arn(text: str, service: str) -> bool:
    parts = text.split(":", 5)
    return len(parts) == 6 and parts[0] == "arn" and parts[2] == service and bool(parts[5])


def arn_name(arn: str) -> str:
    """The resource's own name: `orders` in `...:orders` as well as in `...:table/orders`."""
    return arn.split(":", 5)[5].rpartition("/")[2]


_EXAMPLES = {
    "sqs": "orders",
    "s3": "orders",
    "dynamodb": "table/ledger",
    "events": "event-bus/shop",
    "kinesis": "stream/orders",
}
#: Region and account in an ARN; a bucket has neither there.
_PLACES = {"s3": ":"}


@lru_cache(maxsize=8)
def _deployed(text: str | None) -> Mapping[str, str]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ConfigurationError(f"{VARIABLE} is not JSON: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ConfigurationError(f"{VARIABLE} is not a JSON object of names: write {{'sqs:orders': '<queue url>'}}")
    return found
