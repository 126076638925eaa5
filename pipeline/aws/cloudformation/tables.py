"""DynamoDB tables in a template."""

from __future__ import annotations

from typing import Any

from pipeline.aws.cloudformation.stack import Stack
from pipeline.aws.cloudformation.values import Noted
from pipeline.aws.names import Resource
from pipeline.errors import ConfigurationError

_SKIPPED = {"CKV_AWS_119": "Encrypted with the key that DynamoDB owns: no key to pay for on each call."}


def add_table(
    stack: Stack,
    table: Resource,
    *,
    partition_key: str,
    sort_key: str | None,
    ttl: str | None = None,
    why: str | None = None,
) -> None:
    """Add a table with string keys, paid per request, unless it is there or not ours.

    Raises `ConfigurationError` when it is there with other keys.
    """
    keys = [(partition_key, "HASH"), *([(sort_key, "RANGE")] if sort_key else [])]
    schema = [{"AttributeName": key, "KeyType": kind} for key, kind in keys]
    if table.existing is not None:
        return
    if stack.has(table):
        there = stack.resources[stack.arn(table).name].properties["KeySchema"]
        if there != schema:
            raise ConfigurationError(
                f"the table '{table.name}' is declared with the keys {_named(there)} and with {_named(schema)}: a table "
                "has one key: give the same everywhere, or take another table"
            )
        return
    properties: dict[str, Any] = {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key, _ in keys],
        "KeySchema": schema,
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
    }
    if ttl is not None:
        properties["TimeToLiveSpecification"] = Noted(
            {"AttributeName": ttl, "Enabled": True},
            "Removes old entries within days; until then the time in each entry decides, not its presence.",
        )
    stack.keep(table, "AWS::DynamoDB::Table", properties, why=why, skipped_checks=_SKIPPED)


def _named(schema: list[dict[str, str]]) -> str:
    return " and ".join(f"'{key['AttributeName']}'" for key in schema)
