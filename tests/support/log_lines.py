"""Log lines for the tests of `handlers.logs`: real ones or made up, as their stream holds them and as they stand archived."""

from __future__ import annotations

import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import boto3

from handlers.log_formats import partition_key

#: A directory with real logs, `apache_error.log` and `hdfs.log`, when there is one.
REAL = os.environ.get("PIPELINE_REAL_LOGS")
FILES = ("apache_error.log", "hdfs.log")
#: Lines that no run can read, and what their dead letters must say.
DAMAGED = {
    b"[Sun Dec 04 04:47:44 2005] [notice": "UnknownFormat",
    b"081109 2036": "UnknownFormat",
    b'{"level": "error"}': "UnknownFormat",
    b"[Sun Dec 04 04:47:44 2005] [error] caf\xe9": "PayloadError",
    b"\xff\xfe\x00": "PayloadError",
}


@dataclass(frozen=True)
class Line:
    """A line where it stands in its stream."""

    id: str
    key: str
    number: int  #: its sequence number: the order within its key
    data: bytes


@dataclass(frozen=True)
class Version:
    """What one PUT left in the archive."""

    name: str
    modified: datetime  #: to the second
    is_latest: bool  #: False: a later PUT of the same name stands in its place
    lines: list[dict[str, Any]]


def lines_of(file: str, sample: int) -> list[bytes]:
    """The lines of one of `FILES`; without real ones `sample` lines like them, a third of httpd's an alert."""
    if REAL:
        return (Path(REAL) / file).read_bytes().splitlines()
    made = [httpd_line(n) if file == FILES[0] else hdfs_line(n) for n in range(sample)]
    return [line.encode() for line in made]


def httpd_line(number: int) -> str:
    time = f"[Sat Nov 21 08:{number // 60 % 60:02}:{number % 60:02} 2026]"
    if number % 6 == 0:
        return f"{time} [error] [client 192.0.2.{number % 5}] no such page: /shop/{number}"
    if number % 6 == 3:
        return f"{time} [error] the worker is in error state {number}"
    return f"{time} [notice] found child {6000 + number % 11} in slot {number}"


def hdfs_line(number: int) -> str:
    level = "WARN" if number % 9 == 0 else "INFO"
    return f"261121 08{number // 60 % 60:02}{number % 60:02} {number} {level} dfs.Sample: sent blk_-{number % 17} on"


def with_damaged(lines: Sequence[bytes]) -> list[bytes]:
    """The lines with the damaged ones among them, at even distances."""
    made = list(lines)
    for number, damaged in enumerate(DAMAGED, 1):
        made.insert(number * len(lines) // (len(DAMAGED) + 1), damaged)
    return made


def key_of(data: bytes) -> str:
    """What a producer uses as a line's partition key."""
    return partition_key(data.decode("utf-8", "replace"))


@contextmanager
def client(service: str, endpoint_url: str) -> Iterator[Any]:
    """A client of a local run's server."""
    made = boto3.client(
        service,
        endpoint_url=endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    try:
        yield made
    finally:
        made.close()


def in_stream(endpoint_url: str, stream: str = "log-lines") -> dict[str, Line]:
    """Everything that a stream holds, by the id that a handler sees."""
    found: dict[str, Line] = {}
    with client("kinesis", endpoint_url) as kinesis:
        for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
            name = shard["ShardId"]
            iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=name, ShardIteratorType="TRIM_HORIZON")[
                "ShardIterator"
            ]
            while records := (page := kinesis.get_records(ShardIterator=iterator))["Records"]:
                iterator = page["NextShardIterator"]
                for record in records:
                    number = record["SequenceNumber"]
                    line = Line(f"{stream}/{name}:{number}", record["PartitionKey"], int(number), record["Data"])
                    found[line.id] = line
    return found


def in_archive(endpoint_url: str, bucket: str = "log-archive") -> list[Version]:
    """Everything that was put into a bucket, unpacked; what was put over only if the bucket keeps versions."""
    found: list[Version] = []
    with client("s3", endpoint_url) as s3:
        for page in s3.get_paginator("list_object_versions").paginate(Bucket=bucket):
            for version in page.get("Versions", ()):
                place = {"Bucket": bucket, "Key": version["Key"]}
                if version["VersionId"] != "null":
                    place["VersionId"] = version["VersionId"]
                body = gzip.decompress(s3.get_object(**place)["Body"].read())
                lines = [json.loads(line) for line in body.splitlines()]
                found.append(Version(version["Key"], version["LastModified"], version["IsLatest"], lines))
    return found


def assert_in_order(objects: Iterable[Version], stream: dict[str, Line]) -> None:
    """Within each object the lines of one key stand by their sequence numbers."""
    for one in objects:
        numbers: dict[str, list[int]] = defaultdict(list)
        for line in one.lines:
            numbers[line["key"]].append(stream[line["id"]].number)
        wrong = {key for key, some in numbers.items() if some != sorted(set(some))}
        assert not wrong, f"{one.name}: out of order, or twice in one object"
