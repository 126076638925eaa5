"""Kinesis records and streams: what the stream sink, the stream source and the local run share.

Limits (the service model of Kinesis, 2026-11): 500 records and 10 MiB a PutRecords call, partition
keys counted; a record with its key 1 MiB, or up to 10 MiB where the stream was set to take that.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.aws.client import client, code_of, entry_error, sink_error
from pipeline.aws.delivery import Entry, Limits
from pipeline.aws.names import Resource
from pipeline.errors import SinkError, SinkUnavailable
from pipeline.ports import Environment

#: What a stream takes of one record is its own setting: Kinesis itself refuses what is above it.
LIMITS = Limits(count=500, size=10_485_760, entry_size=10_485_760)
MAX_PARTITION_KEY = 256
#: A stream that is resharded (UPDATING) can be written and read.
_USABLE = ("ACTIVE", "UPDATING")
_WAIT_SECONDS, _WAITS = 1.0, 120


def partition_key(text: str) -> str:
    """A text as a partition key: itself, or its hash when Kinesis does not allow it."""
    try:
        # A character beyond U+FFFF counts twice: which way Kinesis counts is not said.
        length = len(text.encode("utf-16-le")) // 2
    except UnicodeEncodeError:  # half a surrogate pair
        length = 0
    if 0 < length <= MAX_PARTITION_KEY:
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def stream_parameters(stream: Resource) -> dict[str, str]:
    """How a call names the stream: by its ARN, which works across accounts, when it is not ours."""
    return {"StreamARN": stream.existing} if stream.existing else {"StreamName": stream.physical}


async def put(entries: Sequence[Entry], stream: Resource, environment: Environment) -> list[SinkError | None]:
    """Put up to 500 records in one call; each payload is an entry of PutRecords.

    Raises `SinkError` when the call failed as a whole.
    """
    try:
        kinesis = await client(environment, "kinesis")
        answer = await kinesis.put_records(Records=[entry.payload for entry in entries], **stream_parameters(stream))
    except Exception as error:
        raise sink_error(error, f"Kinesis PutRecords to '{stream.name}'") from None
    answers = answer.get("Records", ())
    # Results have no ids, only positions: when some are missing, none can be told from another.
    if len(answers) != len(entries):
        raise SinkUnavailable(f"Kinesis answered for {len(answers)} of {len(entries)} records")
    return [_result(one) for one in answers]


async def create_stream(stream: Resource, environment: Environment, shards: int | None) -> None:
    """Make a stream when it is missing (`shards` None: on demand), and wait until it is usable.

    Raises `SinkError` when it cannot be made, or is not usable after two minutes.
    """
    name = stream.physical
    capacity: dict[str, Any] = (
        {"StreamModeDetails": {"StreamMode": "ON_DEMAND"}} if shards is None else {"ShardCount": shards}
    )
    try:
        kinesis = await client(environment, "kinesis")
        try:
            await kinesis.create_stream(StreamName=name, **capacity)
        except Exception as error:
            if code_of(error) != "ResourceInUseException":
                raise
        await _wait_until_usable(kinesis, name, environment)
    except Exception as error:
        raise sink_error(error, f"creating the stream '{name}'") from None


async def _wait_until_usable(kinesis: Any, name: str, environment: Environment) -> None:
    status = None
    for _ in range(_WAITS):
        found = await kinesis.describe_stream_summary(StreamName=name)
        status = found["StreamDescriptionSummary"]["StreamStatus"]
        if status in _USABLE:
            return
        await environment.clock.sleep(_WAIT_SECONDS)
    raise SinkUnavailable(f"the stream '{name}' is still {status} after {_WAITS * _WAIT_SECONDS:g} seconds")


def _result(answer: Mapping[str, Any]) -> SinkError | None:
    if answer.get("SequenceNumber") and not answer.get("ErrorCode"):
        return None
    return entry_error(answer.get("ErrorCode"), answer.get("ErrorMessage"), "Kinesis")
