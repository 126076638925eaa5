"""S3's rules, over the buckets in memory and over the embedded server.

Each test names the operation of the API reference whose text it holds (botocore has the same text in its model of S3),
or the page of the S3 User Guide.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from pipeline.aws import s3 as s3_calls
from pipeline.aws.client import full_client
from pipeline.aws.names import Resource
from pipeline.decisions.deadline import Deadline
from pipeline.emulator.services.bucket import S3
from pipeline.emulator.services.client import MemoryClient, News
from pipeline.emulator.services.objects import ObjectBody
from pipeline.engine.environment import ProcessEnvironment
from tests.contract.conftest import ManualClock
from tests.support.blocking import Blocking, blocking

MIB = 1_048_576
PART = 5 * MIB

#: Where the embedded server is not as AWS is, by test: each has to fail there.
DIFFERENCES = {
    "test_a_bucket_has_a_name_as_a_host_has": "it looks at a name's length only",
    "test_a_key_has_1024_bytes": "it counts characters",
    "test_a_body_that_is_not_what_its_checksum_says_is_refused": "it stores the checksum that it is told",
    "test_the_checksum_of_parts_is_that_of_their_checksums": "an upload in parts has none",
    "test_an_upload_that_is_over_is_not_found": "it answers 500",
    "test_parts_out_of_order_are_refused": "it puts them in order",
    "test_parts_are_numbered_from_1_to_10_000": "to part 0 it says that there is no such upload",
}


class Embedded(Blocking):
    """The bodies of its objects are awaited too."""

    async def get_object(self, **parameters: Any) -> Any:
        answer = self._client.get_object(**parameters)
        return {**answer, "Body": ObjectBody(answer["Body"].read())}


@pytest.fixture(scope="module")
def embedded(moto_endpoint: str) -> Iterator[Embedded]:
    with blocking("s3", moto_endpoint, Embedded) as client:
        yield client


@pytest.fixture(params=["memory", "embedded"])
async def s3(request: pytest.FixtureRequest, environment: ProcessEnvironment, clock: ManualClock) -> Any:
    if request.param == "memory":
        made: Any = MemoryClient(S3(), clock, News())
    else:
        reason = DIFFERENCES.get(request.node.originalname)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
        made = request.getfixturevalue("embedded")
    environment.provide(("aws", "s3"), made)
    return made


@pytest.fixture
async def bucket(s3: Any, unique: str) -> str:
    await s3.create_bucket(Bucket=unique)
    return unique


async def refused(call: Any) -> tuple[str, int]:
    """By which code and status."""
    with pytest.raises(ClientError) as raised:
        await call
    response = raised.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


async def body(s3: Any, bucket: str, key: str) -> bytes:
    found: bytes = await (await s3.get_object(Bucket=bucket, Key=key))["Body"].read()
    return found


async def keys(s3: Any, bucket: str, **options: Any) -> list[str]:
    return [one["Key"] for one in (await s3.list_objects_v2(Bucket=bucket, **options)).get("Contents", [])]


def crc32(content: bytes) -> str:
    return base64.b64encode(zlib.crc32(content).to_bytes(4, "big")).decode()


# Buckets


async def test_a_bucket_is_made_and_found(s3: Any, unique: str) -> None:
    """API reference, `CreateBucket`: in us-east-1 a bucket of one's own can be made again."""
    await s3.create_bucket(Bucket=unique)
    await s3.put_object(Bucket=unique, Key="k", Body=b"x")
    await s3.create_bucket(Bucket=unique)
    await s3.head_bucket(Bucket=unique)
    assert await keys(s3, unique) == ["k"]
    assert unique in [one["Name"] for one in (await s3.list_buckets())["Buckets"]]


async def test_a_bucket_has_a_name_as_a_host_has(s3: Any) -> None:
    """S3 User Guide, "General purpose bucket naming rules"."""
    for name in ("ab", "Upper", "under_score", "a" * 64, "-dash", "1.2.3.4", "two..dots"):
        assert await refused(s3.create_bucket(Bucket=name)) == ("InvalidBucketName", 400)


async def test_what_is_asked_of_a_bucket_that_is_not_there(s3: Any, unique: str) -> None:
    """API reference: NoSuchBucket; an answer to HEAD has no body that could say so."""
    calls: list[Callable[[], Any]] = [
        lambda: s3.put_object(Bucket=unique, Key="k", Body=b"x"),
        lambda: s3.get_object(Bucket=unique, Key="k"),
        lambda: s3.delete_object(Bucket=unique, Key="k"),
        lambda: s3.list_objects_v2(Bucket=unique),
        lambda: s3.create_multipart_upload(Bucket=unique, Key="k"),
    ]
    assert [await refused(call()) for call in calls] == [("NoSuchBucket", 404)] * 5
    assert await refused(s3.head_bucket(Bucket=unique)) == ("404", 404)
    assert await refused(s3.head_object(Bucket=unique, Key="k")) == ("404", 404)


async def test_a_bucket_is_deleted_when_it_is_empty(s3: Any, bucket: str) -> None:
    """API reference, `DeleteBucket`."""
    await s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    assert await refused(s3.delete_bucket(Bucket=bucket)) == ("BucketNotEmpty", 409)
    await s3.delete_object(Bucket=bucket, Key="k")
    await s3.delete_bucket(Bucket=bucket)
    assert await refused(s3.head_bucket(Bucket=bucket)) == ("404", 404)


# Objects


async def test_an_object_is_given_back_as_it_was_put(s3: Any, bucket: str) -> None:
    """API reference, `PutObject`, `GetObject`, `HeadObject`."""
    put = await s3.put_object(
        Bucket=bucket, Key="a/ü 1", Body=b"content", ContentType="text/plain", Metadata={"Made-By": "me"}
    )
    got = await s3.get_object(Bucket=bucket, Key="a/ü 1")
    assert await got["Body"].read() == b"content"
    assert put["ETag"] == got["ETag"] == '"9a0364b9e99bb480dd25e1f0284c8555"'
    assert (got["ContentLength"], got["ContentType"], got["Metadata"]) == (7, "text/plain", {"made-by": "me"})
    assert isinstance(got["LastModified"], datetime)
    assert got["LastModified"].tzinfo is not None
    head = await s3.head_object(Bucket=bucket, Key="a/ü 1")
    for name in ("ETag", "ContentLength", "ContentType", "Metadata", "LastModified"):
        assert head[name] == got[name]
    await s3.put_object(Bucket=bucket, Key="a/ü 1", Body=b"other")
    assert await body(s3, bucket, "a/ü 1") == b"other"
    assert (await s3.head_object(Bucket=bucket, Key="a/ü 1"))["ContentType"] == "binary/octet-stream"


async def test_an_objects_body_is_bytes_or_a_file(s3: Any, bucket: str) -> None:
    """botocore's client: "bytes or seekable file-like object"."""
    for number, content in enumerate([b"bytes", bytearray(b"bytes"), io.BytesIO(b"bytes")]):
        await s3.put_object(Bucket=bucket, Key=str(number), Body=content)
        assert await body(s3, bucket, str(number)) == b"bytes"


@pytest.mark.parametrize("kind", ["memory", "aiobotocore"])
async def test_a_body_is_read_at_once_or_bit_by_bit(
    kind: str, aws: str, unique: str, environment: ProcessEnvironment, clock: ManualClock
) -> None:
    """aiobotocore's `StreamingBody`."""
    s3: Any = MemoryClient(S3(), clock, News()) if kind == "memory" else await full_client(environment, "s3")
    place = {} if kind == "memory" else {"CreateBucketConfiguration": {"LocationConstraint": s3.meta.region_name}}
    await s3.create_bucket(Bucket=unique, **place)
    await s3.put_object(Bucket=unique, Key="k", Body=b"one\ntwo\nthree")

    async def opened() -> Any:
        return (await s3.get_object(Bucket=unique, Key="k"))["Body"]

    async with await opened() as found:
        assert [await found.read(3), await found.read(), await found.read()] == [b"one", b"\ntwo\nthree", b""]
    assert [line async for line in (await opened()).iter_lines()] == [b"one", b"two", b"three"]
    assert await (await opened()).readlines() == [b"one", b"two", b"three"]
    assert b"".join([chunk async for chunk in (await opened()).iter_chunks(5)]) == b"one\ntwo\nthree"
    assert b"".join([chunk async for chunk in await opened()]) == b"one\ntwo\nthree"


async def test_an_object_that_is_not_there(s3: Any, bucket: str) -> None:
    """API reference, `GetObject`: NoSuchKey; `HeadObject`: 404 without a body; `DeleteObject`: no error."""
    assert await refused(s3.get_object(Bucket=bucket, Key="k")) == ("NoSuchKey", 404)
    assert await refused(s3.head_object(Bucket=bucket, Key="k")) == ("404", 404)
    await s3.delete_object(Bucket=bucket, Key="k")


async def test_several_objects_are_deleted_at_once(s3: Any, bucket: str) -> None:
    """API reference, `DeleteObjects`: what is not there counts as deleted."""
    for key in "abc":
        await s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    answer = await s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "a"}, {"Key": "c"}, {"Key": "z"}]})
    assert sorted(one["Key"] for one in answer["Deleted"]) == ["a", "c", "z"]
    assert await keys(s3, bucket) == ["b"]


async def test_a_key_has_1024_bytes(s3: Any, bucket: str) -> None:
    """S3 User Guide, "Naming Amazon S3 objects": at most 1,024 bytes of UTF-8."""
    await s3.put_object(Bucket=bucket, Key="ü" * 512, Body=b"x")
    assert await refused(s3.put_object(Bucket=bucket, Key="ü" * 512 + "x", Body=b"x")) == ("KeyTooLongError", 400)


async def test_a_write_may_ask_that_nothing_is_there(s3: Any, bucket: str) -> None:
    """API reference, `PutObject`: IfNoneMatch; 412 when the key is there."""
    await s3.put_object(Bucket=bucket, Key="k", Body=b"first", IfNoneMatch="*")
    again = s3.put_object(Bucket=bucket, Key="k", Body=b"second", IfNoneMatch="*")
    assert await refused(again) == ("PreconditionFailed", 412)
    assert await body(s3, bucket, "k") == b"first"


async def test_a_write_may_ask_what_is_there(s3: Any, bucket: str) -> None:
    """API reference, `PutObject`: IfMatch; S3 User Guide, "conditional writes": 404 when nothing is there."""
    etag = (await s3.put_object(Bucket=bucket, Key="k", Body=b"first"))["ETag"]
    await s3.put_object(Bucket=bucket, Key="k", Body=b"second", IfMatch=etag)
    stale = s3.put_object(Bucket=bucket, Key="k", Body=b"third", IfMatch=etag)
    assert await refused(stale) == ("PreconditionFailed", 412)
    assert await body(s3, bucket, "k") == b"second"
    nothing = s3.put_object(Bucket=bucket, Key="new", Body=b"x", IfMatch=etag)
    assert await refused(nothing) == ("NoSuchKey", 404)


async def test_a_read_may_ask_what_is_there(s3: Any, bucket: str) -> None:
    """API reference, `GetObject`: IfMatch, 412; IfNoneMatch, 304."""
    etag = (await s3.put_object(Bucket=bucket, Key="k", Body=b"x"))["ETag"]
    await s3.get_object(Bucket=bucket, Key="k", IfMatch=etag)
    assert await refused(s3.get_object(Bucket=bucket, Key="k", IfMatch='"other"')) == ("PreconditionFailed", 412)
    assert await refused(s3.get_object(Bucket=bucket, Key="k", IfNoneMatch=etag)) == ("304", 304)


async def test_checksums_are_answered(s3: Any, bucket: str) -> None:
    """S3 User Guide, "Checking object integrity": botocore sends CRC32 with each object that it puts."""
    put = await s3.put_object(Bucket=bucket, Key="k", Body=b"content")
    assert put["ChecksumCRC32"] == crc32(b"content")
    got = await s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert got["ChecksumCRC32"] == crc32(b"content")
    sha = await s3.put_object(Bucket=bucket, Key="k", Body=b"content", ChecksumAlgorithm="SHA256")
    assert sha["ChecksumSHA256"] == "7XACtDnprIRfIjV9giusFERzD722AW0+yUMil7nsn3M="
    assert "ChecksumCRC32" not in sha


async def test_a_body_that_is_not_what_its_checksum_says_is_refused(s3: Any, bucket: str) -> None:
    """S3 User Guide, "Checking object integrity": the request fails with BadDigest."""
    wrong = s3.put_object(Bucket=bucket, Key="k", Body=b"content", ChecksumCRC32=crc32(b"other"))
    assert await refused(wrong) == ("BadDigest", 400)
    assert await keys(s3, bucket) == []


# Lists


async def test_a_list_is_in_the_order_of_the_bytes_of_the_keys(s3: Any, bucket: str) -> None:
    """API reference, `ListObjectsV2`: lexicographical, by the keys' UTF-8."""
    names = ["a", "B", "ü", "a/b", "\ufffd", "😀", "a-b", "10", "9"]
    for name in names:
        await s3.put_object(Bucket=bucket, Key=name, Body=name.encode())
    answer = await s3.list_objects_v2(Bucket=bucket)
    assert [one["Key"] for one in answer["Contents"]] == sorted(names, key=str.encode)
    assert (answer["KeyCount"], answer["IsTruncated"], answer["Name"]) == (9, False, bucket)
    first = answer["Contents"][0]
    assert (first["Size"], first["StorageClass"]) == (2, "STANDARD")
    assert first["ETag"].startswith('"')
    assert isinstance(first["LastModified"], datetime)


async def test_an_empty_list_has_no_contents(s3: Any, bucket: str) -> None:
    """API reference, `ListObjectsV2`, as botocore parses it: what is not in the answer is not there."""
    answer = await s3.list_objects_v2(Bucket=bucket)
    assert "Contents" not in answer
    assert (answer["KeyCount"], answer["IsTruncated"]) == (0, False)


async def test_a_long_list_comes_in_pages(s3: Any, bucket: str) -> None:
    """API reference, `ListObjectsV2`: MaxKeys, NextContinuationToken, StartAfter."""
    for number in range(5):
        await s3.put_object(Bucket=bucket, Key=f"k{number}", Body=b"x")
    first = await s3.list_objects_v2(Bucket=bucket, MaxKeys=2)
    assert (first["IsTruncated"], first["KeyCount"], first["MaxKeys"]) == (True, 2, 2)
    second = await s3.list_objects_v2(Bucket=bucket, MaxKeys=2, ContinuationToken=first["NextContinuationToken"])
    last = await s3.list_objects_v2(Bucket=bucket, MaxKeys=2, ContinuationToken=second["NextContinuationToken"])
    pages = [[one["Key"] for one in page["Contents"]] for page in (first, second, last)]
    assert pages == [["k0", "k1"], ["k2", "k3"], ["k4"]]
    assert (last["IsTruncated"], "NextContinuationToken" in last) == (False, False)
    assert await keys(s3, bucket, StartAfter="k2") == ["k3", "k4"]


async def test_a_list_is_cut_at_a_prefix_and_gathered_at_a_delimiter(s3: Any, bucket: str) -> None:
    """API reference, `ListObjectsV2`: Prefix, Delimiter, CommonPrefixes."""
    for name in ("a/1", "a/2", "a/b/3", "c", "d/4"):
        await s3.put_object(Bucket=bucket, Key=name, Body=b"x")
    assert await keys(s3, bucket, Prefix="a/") == ["a/1", "a/2", "a/b/3"]
    answer = await s3.list_objects_v2(Bucket=bucket, Delimiter="/")
    assert [one["Prefix"] for one in answer["CommonPrefixes"]] == ["a/", "d/"]
    assert [one["Key"] for one in answer["Contents"]] == ["c"]
    assert answer["KeyCount"] == 3
    within = await s3.list_objects_v2(Bucket=bucket, Prefix="a/", Delimiter="/")
    assert [one["Prefix"] for one in within["CommonPrefixes"]] == ["a/b/"]
    first = await s3.list_objects_v2(Bucket=bucket, Delimiter="/", MaxKeys=1)
    rest = await s3.list_objects_v2(Bucket=bucket, Delimiter="/", ContinuationToken=first["NextContinuationToken"])
    assert [one["Prefix"] for one in rest["CommonPrefixes"]] == ["d/"]
    assert [one["Key"] for one in rest["Contents"]] == ["c"]


# Uploads in parts


async def begun(s3: Any, bucket: str, *contents: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An upload with its parts, and what completes it."""
    made = await s3.create_multipart_upload(Bucket=bucket, Key="k", ContentType="text/plain", ChecksumAlgorithm="CRC32")
    upload = {"Bucket": bucket, "Key": "k", "UploadId": made["UploadId"]}
    parts = []
    for number, content in enumerate(contents, 1):
        answer = await s3.upload_part(**upload, PartNumber=number, Body=content, ChecksumAlgorithm="CRC32")
        assert answer["ChecksumCRC32"] == crc32(content)
        parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumCRC32": answer["ChecksumCRC32"]})
    return upload, parts


async def test_parts_become_one_object(s3: Any, bucket: str) -> None:
    """API reference, `CompleteMultipartUpload`; User Guide: the checksum of parts is one of their checksums."""
    contents = [b"a" * PART, b"end"]
    upload, parts = await begun(s3, bucket, *contents)
    assert await refused(s3.get_object(Bucket=bucket, Key="k")) == ("NoSuchKey", 404)
    answer = await s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    assert answer["ETag"].endswith('-2"')
    found = await s3.get_object(Bucket=bucket, Key="k", ChecksumMode="ENABLED")
    assert await found["Body"].read() == b"".join(contents)
    assert (found["ContentType"], found["ETag"]) == ("text/plain", answer["ETag"])
    assert (await s3.list_multipart_uploads(Bucket=bucket)).get("Uploads", []) == []


async def test_the_checksum_of_parts_is_that_of_their_checksums(s3: Any, bucket: str) -> None:
    """S3 User Guide, "Checking object integrity": composite checksums end with the number of parts."""
    contents = [b"a" * PART, b"end"]
    upload, parts = await begun(s3, bucket, *contents)
    answer = await s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    composite = crc32(b"".join(base64.b64decode(crc32(content)) for content in contents))
    assert answer["ChecksumCRC32"] == f"{composite}-2"


async def test_an_upload_that_is_aborted_leaves_nothing(s3: Any, bucket: str) -> None:
    """API reference, `AbortMultipartUpload`."""
    upload, _ = await begun(s3, bucket, b"only")
    assert [one["Key"] for one in (await s3.list_multipart_uploads(Bucket=bucket))["Uploads"]] == ["k"]
    await s3.abort_multipart_upload(**upload)
    assert (await s3.list_multipart_uploads(Bucket=bucket)).get("Uploads", []) == []
    assert await keys(s3, bucket) == []


async def test_an_upload_that_is_over_is_not_found(s3: Any, bucket: str) -> None:
    """API reference, `UploadPart`, `CompleteMultipartUpload`: NoSuchUpload."""
    upload, parts = await begun(s3, bucket, b"only")
    await s3.abort_multipart_upload(**upload)
    calls: list[Callable[[], Any]] = [
        lambda: s3.upload_part(**upload, PartNumber=2, Body=b"x"),
        lambda: s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}),
    ]
    assert [await refused(call()) for call in calls] == [("NoSuchUpload", 404)] * 2


async def test_parts_that_do_not_fit_are_refused(s3: Any, bucket: str) -> None:
    """API reference, `CompleteMultipartUpload`: EntityTooSmall, InvalidPart."""
    upload, parts = await begun(s3, bucket, b"a" * PART, b"b" * PART, b"small", b"end")

    def complete(*chosen: dict[str, Any]) -> Any:
        return s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": list(chosen)})

    first, second, small, end = parts
    assert await refused(complete(first, small, end)) == ("EntityTooSmall", 400)
    assert await refused(complete(first, {**second, "ETag": first["ETag"]})) == ("InvalidPart", 400)
    assert await refused(complete(first, {**end, "PartNumber": 7})) == ("InvalidPart", 400)


async def test_parts_out_of_order_are_refused(s3: Any, bucket: str) -> None:
    """API reference, `CompleteMultipartUpload`: InvalidPartOrder."""
    upload, parts = await begun(s3, bucket, b"a" * PART, b"b" * PART)
    complete = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts[::-1]})
    assert await refused(complete) == ("InvalidPartOrder", 400)


async def test_parts_are_numbered_from_1_to_10_000(s3: Any, bucket: str) -> None:
    """API reference, `UploadPart`: PartNumber."""
    upload, _ = await begun(s3, bucket)
    for number in (0, 10_001):
        assert await refused(s3.upload_part(**upload, PartNumber=number, Body=b"x")) == ("InvalidArgument", 400)


async def test_an_upload_may_ask_that_nothing_is_there(s3: Any, bucket: str) -> None:
    """API reference, `CompleteMultipartUpload`: IfNoneMatch."""
    upload, parts = await begun(s3, bucket, b"late")
    await s3.put_object(Bucket=bucket, Key="k", Body=b"first")
    complete = s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
    assert await refused(complete) == ("PreconditionFailed", 412)
    assert await body(s3, bucket, "k") == b"first"


# The toolkit's own calls


@pytest.mark.parametrize("size", [3, 2 * s3_calls.PART + 1])
async def test_the_sinks_objects_arrive_whole(s3: Any, unique: str, environment: ProcessEnvironment, size: int) -> None:
    await s3_calls.create_bucket(Resource("s3", unique, f"arn:aws:s3:::{unique}"), environment)
    content = s3_calls.Body(chunks=lambda: [b"x" * size], size=size, compress=False, content_type="text/plain")
    await s3_calls.put_object(unique, "k", content, environment, Deadline())
    assert await body(s3, unique, "k") == b"x" * size


# In memory only


async def test_what_is_not_modelled_is_refused_rather_than_passed_over(clock: ManualClock) -> None:
    s3 = MemoryClient(S3(), clock, News())
    await s3.create_bucket(Bucket="archive")
    await s3.put_object(Bucket="archive", Key="k", Body=b"content")
    calls: list[Callable[[], Any]] = [
        lambda: s3.get_object(Bucket="archive", Key="k", Range="bytes=0-1"),
        lambda: s3.get_object(Bucket="archive", Key="k", VersionId="1"),
        lambda: s3.put_object(Bucket="archive", Key="k", Body=b"x", ChecksumAlgorithm="CRC32C"),
    ]
    assert [await refused(call()) for call in calls] == [("NotImplemented", 501)] * 3
    with pytest.raises(AttributeError, match="the s3 service in memory has no copy_object"):
        s3.copy_object  # noqa: B018 - it is asked for


async def test_what_is_put_is_copied_and_nothing_of_it_is_given_away(clock: ManualClock) -> None:
    s3 = MemoryClient(S3(), clock, News())
    await s3.create_bucket(Bucket="archive")
    content, metadata = bytearray(b"before"), {"a": "b"}
    await s3.put_object(Bucket="archive", Key="k", Body=content, Metadata=metadata)
    content[:], metadata["a"] = b"after!", "c"
    first = await s3.get_object(Bucket="archive", Key="k")
    first["Metadata"]["a"] = "d"
    again = await s3.get_object(Bucket="archive", Key="k")
    assert (await again["Body"].read(), again["Metadata"]) == (b"before", {"a": "b"})
    assert S3().next_change(clock.now()) is None
