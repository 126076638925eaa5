"""DynamoDB tables in a template."""

from __future__ import annotations

from typing import Any

from pipeline.aws.cloudformation.stack import Stack
from pipeline.aws.cloudformation.values import Noted
from pipeline.aws.names import Resource

_SKIPPED = {"CKV_AWS_119": "Encrypted with the key that DynamoDB owns: no key to pay for on each call."}


def add_table(
    stack: Stack,
    table: Resource,
    *,
    partition_key: str,
    sort_key: str | None,
    ttl: str | None = None,
    why: str | None = None,
) -> str:
    """Add a table with string keys, paid per request; return its logical id."""
    keys = [(partition_key, "HASH"), *([(sort_key, "RANGE")] if sort_key else [])]
    properties: dict[str, Any] = {
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"} for key, _ in keys],
        "KeySchema": [{"AttributeName": key, "KeyType": kind} for key, kind in keys],
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": True},
    }
    if ttl is not None:
        properties["TimeToLiveSpecification"] = Noted(
            {"AttributeName": ttl, "Enabled": True},
            "Removes old entries within days; until then the time in each entry decides, not its presence.",
        )
    return stack.keep(table, "AWS::DynamoDB::Table", properties, why=why, skipped_checks=_SKIPPED)
