"""Resource policies that every queue and bucket gets."""

from __future__ import annotations

from typing import Any


def tls_only(actions: str, resources: Any) -> dict[str, Any]:
    """A policy that refuses what does not come over TLS."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "TransportSecurityOnly",
                "Effect": "Deny",
                "Principal": "*",
                "Action": actions,
                "Resource": resources,
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ],
    }
