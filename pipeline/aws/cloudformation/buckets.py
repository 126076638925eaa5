"""S3 buckets in a template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.aws.cloudformation.policies import tls_only
from pipeline.aws.cloudformation.stack import Stack
from pipeline.aws.cloudformation.values import Att, Noted, Ref, Sub
from pipeline.aws.names import Resource

_SKIPPED = {
    "CKV_AWS_18": "No access log, which needs another bucket: the account's owner names one. The function's log says what it wrote."
}
_NO_VERSIONS = {
    "CKV_AWS_21": "No versions: Lambda ends each object's name with a random id, so that none is ever overwritten."
}


def add_bucket(stack: Stack, bucket: Resource, *, versions: bool, why: str | None = None) -> str:
    """Add an encrypted, private bucket that is reached over TLS only; return its logical id."""
    rules: list[dict[str, Any]] = [
        {
            "Id": "AbortIncompleteUploads",
            "Status": "Enabled",
            "AbortIncompleteMultipartUpload": Noted(
                {"DaysAfterInitiation": 1}, "A crash leaves the parts of an upload behind, unseen and paid for."
            ),
        }
    ]
    versioning: Mapping[str, Any] = {}
    if versions:
        versioning = {
            "VersioningConfiguration": Noted(
                {"Status": "Enabled"},
                "For what somebody deletes or overwrites by mistake. The function deletes nothing, and overwrites an\n"
                "object only with the same records, when their batch comes again; so versions are few, and 30 days do.",
            )
        }
        rules.append(
            {
                "Id": "ForgetOldVersions",
                "Status": "Enabled",
                "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
            }
        )
    properties = {
        "BucketEncryption": {
            "ServerSideEncryptionConfiguration": [{"ServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
        "PublicAccessBlockConfiguration": {
            "BlockPublicAcls": True,
            "BlockPublicPolicy": True,
            "IgnorePublicAcls": True,
            "RestrictPublicBuckets": True,
        },
        **versioning,
        "LifecycleConfiguration": {"Rules": rules},
    }
    skipped = _SKIPPED if versions else {**_SKIPPED, **_NO_VERSIONS}
    name = stack.keep(bucket, "AWS::S3::Bucket", properties, why=why, skipped_checks=skipped)
    policy = tls_only("s3:*", [Att(name), Sub(f"${{{name}.Arn}}/*")])
    stack.add(f"{name}Policy", "AWS::S3::BucketPolicy", {"Bucket": Ref(name), "PolicyDocument": policy})
    return name
