"""S3 in memory: buckets, objects, conditional writes and uploads in parts. No versions, no access control.

Sources: the API model of S3 in botocore, which has the text of the API reference, and the S3 User Guide.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from pipeline.emulator.services.objects import (
    DEFAULT_CHECKSUM,
    Checksum,
    Description,
    Object,
    ObjectBody,
    algorithm_of,
    checked,
    etag,
    joined,
    whole_seconds,
)
from pipeline.emulator.services.service import REGION, Operation, ServiceError

Parameters = Mapping[str, Any]
Answer = dict[str, Any]

_MAX_KEY = 1_024
_MAX_PARTS, _SMALLEST_PART = 10_000, 5 * 1_048_576
_LISTED, _DELETED = 1_000, 1_000
_BUCKET = re.compile(r"(?!xn--|\d+\.\d+\.\d+\.\d+$)[a-z0-9](?:[a-z0-9-]|\.(?!\.)){1,61}[a-z0-9]")
#: Parameters that choose a part of what is stored, or a version: to pass over them would be to answer something else.
_UNKNOWN = ("IfModifiedSince", "IfUnmodifiedSince", "PartNumber", "Range", "VersionId", "WriteOffsetBytes")


class _Readable(Protocol):
    def read(self) -> bytes: ...


@dataclass(frozen=True)
class _Part:
    body: bytes
    etag: str
    checksum: Checksum | None


@dataclass(kw_only=True)
class _Upload:
    key: str
    description: Description
    algorithm: str | None  #: None: parts need no checksums
    is_full: bool  #: the checksum is of all bytes
    begun_at: float  #: epoch seconds
    parts: dict[int, _Part] = field(default_factory=dict[int, _Part])


@dataclass(kw_only=True)
class _Bucket:
    name: str
    region: str
    created_at: float
    objects: dict[str, Object] = field(default_factory=dict[str, Object])
    uploads: dict[str, _Upload] = field(default_factory=dict[str, _Upload])


class S3:
    """The buckets of one account, called from `us-east-1`."""

    name = "s3"

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}
        self._uploads = 0
        self.operations: Mapping[str, Operation] = {
            "abort_multipart_upload": self._abort_upload,
            "complete_multipart_upload": self._complete_upload,
            "create_bucket": self._create_bucket,
            "create_multipart_upload": self._create_upload,
            "delete_bucket": self._delete_bucket,
            "delete_object": self._delete_object,
            "delete_objects": self._delete_objects,
            "get_object": self._get_object,
            "head_bucket": self._head_bucket,
            "head_object": self._head_object,
            "list_buckets": self._list_buckets,
            "list_multipart_uploads": self._list_uploads,
            "list_objects_v2": self._list_objects,
            "put_object": self._put_object,
            "upload_part": self._upload_part,
        }

    def next_change(self, now: float) -> float | None:
        """Never: time alone changes nothing here."""
        return None

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Every object's bytes, by its key; none when there is no such bucket."""
        found = self._buckets.get(bucket)
        return {} if found is None else {key: one.body for key, one in found.objects.items()}

    # Buckets

    def _create_bucket(self, given: Parameters, now: float) -> Answer:
        name = given.get("Bucket")
        if not isinstance(name, str) or not _BUCKET.fullmatch(name):
            raise ServiceError("InvalidBucketName", "The specified bucket is not valid.")
        region = (given.get("CreateBucketConfiguration") or {}).get("LocationConstraint", REGION)
        if region == REGION and "CreateBucketConfiguration" in given:
            raise ServiceError("InvalidLocationConstraint", "The specified location-constraint is not valid")
        # In us-east-1, and nowhere else, making a bucket of one's own again succeeds (API model, `CreateBucket`).
        self._buckets.setdefault(name, _Bucket(name=name, region=region, created_at=now))
        return {"Location": f"/{name}", "BucketArn": f"arn:aws:s3:::{name}"}

    def _head_bucket(self, given: Parameters, now: float) -> Answer:
        bucket = self._buckets.get(str(given.get("Bucket")))
        if bucket is None:
            raise _nothing_at_head()
        return {"BucketArn": f"arn:aws:s3:::{bucket.name}", "BucketRegion": bucket.region, "AccessPointAlias": False}

    def _delete_bucket(self, given: Parameters, now: float) -> Answer:
        bucket = self._bucket(given)
        if bucket.objects:
            raise ServiceError("BucketNotEmpty", "The bucket you tried to delete is not empty", status=409)
        del self._buckets[bucket.name]
        return {}

    def _list_buckets(self, given: Parameters, now: float) -> Answer:
        buckets = [self._buckets[name] for name in sorted(self._buckets)]
        return {
            "Buckets": [{"Name": bucket.name, "CreationDate": whole_seconds(bucket.created_at)} for bucket in buckets]
        }

    # Objects

    def _put_object(self, given: Parameters, now: float) -> Answer:
        _check_known(given)
        bucket, key = self._bucket(given), _key(given)
        _check_write(given, bucket.objects.get(key))
        body = _bytes(given.get("Body", b""))
        checksum = cast("Checksum", checked(body, given))
        made = Object(
            key=key,
            body=body,
            etag=etag(body),
            checksum=checksum,
            modified_at=now,
            description=Description.of(given),
        )
        bucket.objects[key] = made
        return {"ETag": made.etag, "ServerSideEncryption": "AES256", **checksum.answer()}

    def _get_object(self, given: Parameters, now: float) -> Answer:
        _check_known(given)
        bucket, key = self._bucket(given), _key(given)
        found = bucket.objects.get(key)
        if found is None:
            raise _no_such_key()
        _check_read(given, found)
        # botocore asks for the checksum unless it is told not to.
        return {**found.head(), **found.checksum.answer(), "Body": ObjectBody(found.body)}

    def _head_object(self, given: Parameters, now: float) -> Answer:
        _check_known(given)
        bucket = self._buckets.get(str(given.get("Bucket")))
        found = None if bucket is None else bucket.objects.get(_key(given))
        if found is None:
            raise _nothing_at_head()
        _check_read(given, found)
        return {**found.head(), **(found.checksum.answer() if given.get("ChecksumMode") == "ENABLED" else {})}

    def _delete_object(self, given: Parameters, now: float) -> Answer:
        _check_known(given)
        self._bucket(given).objects.pop(_key(given), None)
        return {}

    def _delete_objects(self, given: Parameters, now: float) -> Answer:
        bucket, asked = self._bucket(given), given.get("Delete") or {}
        objects = asked.get("Objects") or ()
        if not 1 <= len(objects) <= _DELETED:
            raise ServiceError("MalformedXML", f"Delete has 1 to {_DELETED:,} objects")
        for one in objects:
            bucket.objects.pop(one["Key"], None)
        return {} if asked.get("Quiet") else {"Deleted": [{"Key": one["Key"]} for one in objects]}

    def _list_objects(self, given: Parameters, now: float) -> Answer:
        bucket = self._bucket(given)
        prefix, delimiter = given.get("Prefix") or "", given.get("Delimiter") or ""
        limit = given.get("MaxKeys", _LISTED)
        if not isinstance(limit, int) or limit < 0:
            raise ServiceError("InvalidArgument", "Argument maxKeys must be an integer between 0 and 2147483647")
        limit = min(limit, _LISTED)
        token, start = given.get("ContinuationToken") or "", given.get("StartAfter") or ""
        entries = _entries([one for one in bucket.objects.values() if one.key > start], prefix, delimiter)
        # By UTF-8 bytes, which order as code points do.
        left = [name for name in sorted(entries) if name > token]
        found, more = left[:limit], limit > 0 and len(left) > limit
        contents = [_listed(one) for name in found if (one := entries[name]) is not None]
        prefixes = [{"Prefix": name} for name in found if entries[name] is None]
        given_back = {name: given[name] for name in ("Delimiter", "StartAfter", "ContinuationToken") if given.get(name)}
        return {
            "Name": bucket.name,
            "Prefix": prefix,
            "MaxKeys": limit,
            "KeyCount": len(found),
            "IsTruncated": more,
            "EncodingType": "url",  # botocore asks for it, and decodes what comes
            **({"Contents": contents} if contents else {}),
            **({"CommonPrefixes": prefixes} if prefixes else {}),
            **({"NextContinuationToken": found[-1]} if more else {}),
            **given_back,
        }

    # Uploads in parts

    def _create_upload(self, given: Parameters, now: float) -> Answer:
        bucket, key = self._bucket(given), _key(given)
        algorithm = given.get("ChecksumAlgorithm")
        if algorithm is not None:
            algorithm_of(algorithm)
        self._uploads += 1
        name = hashlib.sha256(f"{bucket.name}/{self._uploads}".encode()).hexdigest()
        kind = given.get("ChecksumType") or "COMPOSITE"
        bucket.uploads[name] = _Upload(
            key=key,
            description=Description.of(given),
            algorithm=algorithm,
            is_full=kind == "FULL_OBJECT",
            begun_at=now,
        )
        checksum = {} if algorithm is None else {"ChecksumAlgorithm": algorithm, "ChecksumType": kind}
        return {"Bucket": bucket.name, "Key": key, "UploadId": name, "ServerSideEncryption": "AES256", **checksum}

    def _upload_part(self, given: Parameters, now: float) -> Answer:
        _, upload = self._upload(given)
        number = given.get("PartNumber")
        if not isinstance(number, int) or not 1 <= number <= _MAX_PARTS:
            raise ServiceError("InvalidArgument", f"Part number must be an integer between 1 and {_MAX_PARTS}")
        body = _bytes(given.get("Body", b""))
        checksum = checked(body, given, upload.algorithm)
        # A choice: without this, a part whose checksum nobody compares would seem to be guarded by it.
        if checksum is not None and checksum.algorithm != upload.algorithm:
            raise ServiceError("InvalidRequest", f"the upload was begun with the checksum {upload.algorithm}")
        upload.parts[number] = part = _Part(body, etag(body), checksum)
        told = {} if checksum is None else {f"Checksum{checksum.algorithm}": checksum.value}
        return {"ETag": part.etag, "ServerSideEncryption": "AES256", **told}

    def _complete_upload(self, given: Parameters, now: float) -> Answer:
        bucket, upload = self._upload(given)
        asked = (given.get("MultipartUpload") or {}).get("Parts") or ()
        parts = _completed(upload, asked)
        _check_write(given, bucket.objects.get(upload.key))
        body = b"".join(part.body for part in parts)
        digest = hashlib.md5(b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts), usedforsecurity=False)
        made = Object(
            key=upload.key,
            body=body,
            etag=f'"{digest.hexdigest()}-{len(parts)}"',
            checksum=joined(
                upload.algorithm or DEFAULT_CHECKSUM,
                [part.checksum for part in parts if part.checksum is not None],
                body,
                is_full=upload.is_full or upload.algorithm is None,
            ),
            modified_at=now,
            description=upload.description,
        )
        bucket.objects[upload.key] = made
        del bucket.uploads[given["UploadId"]]
        return {
            "Location": f"https://{bucket.name}.s3.amazonaws.com/{upload.key}",
            "Bucket": bucket.name,
            "Key": upload.key,
            "ETag": made.etag,
            "ServerSideEncryption": "AES256",
            **made.checksum.answer(),
        }

    def _abort_upload(self, given: Parameters, now: float) -> Answer:
        bucket, _ = self._upload(given)
        del bucket.uploads[given["UploadId"]]
        return {}

    def _list_uploads(self, given: Parameters, now: float) -> Answer:
        bucket = self._bucket(given)
        uploads = [
            {"UploadId": name, "Key": upload.key, "Initiated": whole_seconds(upload.begun_at)}
            for name, upload in bucket.uploads.items()
        ]
        return {"Bucket": bucket.name, "IsTruncated": False, **({"Uploads": uploads} if uploads else {})}

    # What a call means

    def _bucket(self, given: Parameters) -> _Bucket:
        bucket = self._buckets.get(str(given.get("Bucket")))
        if bucket is None:
            raise ServiceError("NoSuchBucket", "The specified bucket does not exist", status=404)
        return bucket

    def _upload(self, given: Parameters) -> tuple[_Bucket, _Upload]:
        bucket = self._bucket(given)
        upload = bucket.uploads.get(str(given.get("UploadId")))
        if upload is None or upload.key != given.get("Key"):
            raise ServiceError("NoSuchUpload", "The specified multipart upload does not exist.", status=404)
        return bucket, upload


def _key(given: Parameters) -> str:
    key = given.get("Key")
    try:
        size = len(key.encode()) if isinstance(key, str) else 0
    except UnicodeEncodeError:
        size = 0
    if not size:
        raise ServiceError("InvalidArgument", "Key has to be UTF-8 text of at least one byte")
    if size > _MAX_KEY:
        raise ServiceError("KeyTooLongError", f"Your key is too long: it has {size} bytes, and {_MAX_KEY} are allowed")
    return str(key)


def _bytes(body: object) -> bytes:
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    return bytes(cast("_Readable", body).read())


def _entries(objects: Iterable[Object], prefix: str, delimiter: str) -> dict[str, Object | None]:
    """What a list has: objects by their keys, and None for what stands for all keys up to a delimiter."""
    entries: dict[str, Object | None] = {}
    for found in objects:
        if not found.key.startswith(prefix):
            continue
        end = found.key.find(delimiter, len(prefix)) if delimiter else -1
        entries[found.key if end < 0 else found.key[: end + len(delimiter)]] = found if end < 0 else None
    return entries


def _listed(found: Object) -> Answer:
    return {
        "Key": found.key,
        "LastModified": found.last_modified,
        "ETag": found.etag,
        "Size": len(found.body),
        "StorageClass": "STANDARD",
        "ChecksumAlgorithm": [found.checksum.algorithm],
        "ChecksumType": found.checksum.kind,
    }


def _completed(upload: _Upload, asked: Any) -> list[_Part]:
    """The parts that an upload is to be made of. The rules: API model, `CompleteMultipartUpload`."""
    numbers = [one.get("PartNumber") for one in asked]
    if not numbers:
        raise ServiceError("MalformedXML", "the list of parts is empty")
    if numbers != sorted(set(numbers)):
        raise ServiceError("InvalidPartOrder", "The list of parts was not in ascending order.")
    found: list[_Part] = []
    for one in asked:
        part = upload.parts.get(one["PartNumber"])
        if part is None or str(one.get("ETag")).strip('"') != part.etag.strip('"'):
            raise ServiceError("InvalidPart", "One or more of the specified parts could not be found.")
        if part.checksum is not None:
            told = one.get(f"Checksum{part.checksum.algorithm}")
            if told is None:
                raise ServiceError("InvalidRequest", f"part {one['PartNumber']} is given without its checksum")
            if told != part.checksum.value:
                raise ServiceError("InvalidPart", "One or more of the specified parts could not be found.")
        found.append(part)
    if any(len(part.body) < _SMALLEST_PART for part in found[:-1]):
        raise ServiceError("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size")
    return found


def _check_known(given: Parameters) -> None:
    for name in _UNKNOWN:
        if given.get(name) is not None:
            raise ServiceError("NotImplemented", f"S3 in memory has no {name}", status=501)


def _check_write(given: Parameters, found: Object | None) -> None:
    """The conditions of a write (S3 User Guide, "conditional writes")."""
    none, match = given.get("IfNoneMatch"), given.get("IfMatch")
    if none is not None and none != "*":
        raise ServiceError("NotImplemented", "a write's IfNoneMatch takes * only", status=501)
    if none is not None and found is not None:
        raise _failed_condition()
    if match is not None and found is None:
        raise _no_such_key()
    if match is not None and found is not None and _bare(match) != _bare(found.etag):
        raise _failed_condition()


def _check_read(given: Parameters, found: Object) -> None:
    none, match = given.get("IfNoneMatch"), given.get("IfMatch")
    if match is not None and _bare(match) != _bare(found.etag):
        raise _failed_condition()
    if none is not None and _bare(none) == _bare(found.etag):
        raise ServiceError("304", "Not Modified", status=304)


def _bare(tag: str) -> str:
    return tag.strip('"')


def _failed_condition() -> ServiceError:
    message = "At least one of the pre-conditions you specified did not hold"
    return ServiceError("PreconditionFailed", message, status=412)


def _no_such_key() -> ServiceError:
    return ServiceError("NoSuchKey", "The specified key does not exist.", status=404)


def _nothing_at_head() -> ServiceError:
    """An answer to HEAD has no body that could say what is missing."""
    return ServiceError("404", "Not Found", status=404)
