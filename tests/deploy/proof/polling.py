"""A deployed event source mapping's poll, by its deployed configuration: receive, invoke, acknowledge what succeeded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.emulator.event import event_record, stream_record
from tests.deploy.proof.ministack import MiniStack

Invoke = Callable[[dict[str, Any]], Any]

#: Invocations; a queue or shard that is not at its end by then never comes to it.
_MOST = 200


@dataclass
class Polled:
    """What a poll to the end of the source came to."""

    records: int = 0
    invocations: int = 0
    failed: list[str] = field(default_factory=list)  #: the ids that responses reported


def poll_queue(aws: MiniStack, mapping: dict[str, Any], url: str, invoke: Invoke) -> Polled:
    """Until nothing is visible. What is reported as failed stays, and comes back after its visibility timeout."""
    client, polled = aws.client("sqs"), Polled()
    for messages in _batches(client, url, mapping["BatchSize"]):
        records = [event_record(one, arn=mapping["EventSourceArn"], region="us-east-1") for one in messages]
        failed = _failed(invoke(_event(records)), mapping)
        done = [one for one in messages if one["MessageId"] not in failed]
        for message in done:
            client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        polled.records += len(done)
        polled.invocations += 1
        polled.failed += failed
    return polled


def poll_stream(aws: MiniStack, mapping: dict[str, Any], name: str, invoke: Invoke) -> Polled:
    """Each shard from the mapping's starting position to its end; it ends at the first batch that is reported."""
    client, polled = aws.client("kinesis"), Polled()
    for shard in client.list_shards(StreamName=name)["Shards"]:
        read = client.get_shard_iterator(
            StreamName=name, ShardId=shard["ShardId"], ShardIteratorType=mapping["StartingPosition"]
        )
        iterator = read["ShardIterator"]
        for _ in range(_MOST):
            found = client.get_records(ShardIterator=iterator, Limit=mapping["BatchSize"])
            iterator = found["NextShardIterator"]
            if not found["Records"]:
                break
            records = [
                stream_record(
                    _as_kinesis_does(one),
                    shard=shard["ShardId"],
                    arn=mapping["EventSourceArn"],
                    region="us-east-1",
                    function="proof",
                )
                for one in found["Records"]
            ]
            polled.invocations += 1
            polled.failed += _failed(invoke(_event(records)), mapping)
            if polled.failed:
                return polled
            polled.records += len(records)
    return polled


def _as_kinesis_does(record: dict[str, Any]) -> dict[str, Any]:
    r"""Kinesis writes no zeros before a sequence number (`0|([1-9]\d{0,128})` in its service model); MiniStack does."""
    return {**record, "SequenceNumber": str(int(record["SequenceNumber"]))}


def _batches(client: Any, url: str, size: int) -> Iterator[list[dict[str, Any]]]:
    """Batches of up to `size` messages; one call brings at most 10."""
    for _ in range(_MOST):
        messages: list[dict[str, Any]] = []
        while len(messages) < size:
            received = client.receive_message(
                QueueUrl=url, MaxNumberOfMessages=min(10, size - len(messages)), WaitTimeSeconds=0,
                AttributeNames=["All"], MessageAttributeNames=["All"],
            ).get("Messages", [])  # fmt: skip
            if not received:
                break
            messages += received
        if not messages:
            return
        yield messages
    raise AssertionError(f"{url} does not run empty")


def _failed(response: Any, mapping: dict[str, Any]) -> list[str]:
    """The ids of a partial response; a mapping that was not told to look for them takes all as done."""
    if "ReportBatchItemFailures" not in mapping.get("FunctionResponseTypes", []):
        return []
    return [one["itemIdentifier"] for one in response["batchItemFailures"]]


def _event(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The event, as it arrives: through JSON."""
    event: dict[str, Any] = json.loads(json.dumps({"Records": list(records)}))
    return event
