"""A table's stream: what happened to its items, in order for each of them, for 24 hours.

Sources: the developer guide, "Change data capture for DynamoDB Streams", and the API reference of DynamoDB Streams.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from pipeline.emulator.services.dynamodb import values
from pipeline.emulator.services.dynamodb.values import Item

#: Seconds after which a record is gone.
RETENTION: Final = 24 * 3_600
VIEWS: Final = ("KEYS_ONLY", "NEW_IMAGE", "OLD_IMAGE", "NEW_AND_OLD_IMAGES")
#: Whose deletes those of TTL are, as botocore names the members.
_TTL: Final = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
_FIRST: Final = 10**20


@dataclass
class Shard:
    """One ordered part of a stream."""

    id: str
    start: str  #: the first sequence number that it can hold
    end: str | None = None  #: the last one, of a shard that is closed
    records: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    trimmed: str = ""  #: the sequence number of the newest record that is gone

    def trim(self, now: float) -> None:
        """Forget what is too old."""
        horizon = now - RETENTION
        gone = 0
        while gone < len(self.records) and created(self.records[gone]) <= horizon:
            gone += 1
        if gone:
            self.trimmed = number(self.records[gone - 1])
            del self.records[:gone]

    def place(self, sequence_number: str) -> int:
        """Where the record of a number stands, or would."""
        return bisect_left(self.records, sequence_number, key=number)


class Stream:
    """One stream of a table, which has another one each time that streams are enabled.

    `shards`: how many; the items of a partition key are in one of them. They never split here.
    """

    def __init__(
        self, table: str, table_arn: str, keys: list[dict[str, str]], view: str, label: str, now: float, shards: int = 1
    ) -> None:
        self.table = table
        self.region = table_arn.split(":")[3]
        self.arn = f"{table_arn}/stream/{label}"
        self.keys = keys
        self.view = view
        self.label = label
        self.made = now
        self.is_open = True
        self._next = _FIRST
        milliseconds = int(now * 1000)
        self.shards = [
            Shard(f"shardId-{milliseconds:020d}-{_digest(f'{self.arn} {place}')[:8]}", self._number())
            for place in range(shards)
        ]

    def add(self, key: Item, old: Item | None, new: Item | None, now: float, id_: str, *, by_ttl: bool) -> None:
        """An item changed; a write that changes nothing leaves no record."""
        if old == new:
            return
        name = "INSERT" if old is None else "REMOVE" if new is None else "MODIFY"
        images: dict[str, Item] = {"Keys": key}
        if new is not None and self.view in ("NEW_IMAGE", "NEW_AND_OLD_IMAGES"):
            images["NewImage"] = new
        if old is not None and self.view in ("OLD_IMAGE", "NEW_AND_OLD_IMAGES"):
            images["OldImage"] = old
        self._shard(key).records.append(
            {
                "eventID": id_,
                "eventName": name,
                "eventVersion": "1.1",
                "eventSource": "aws:dynamodb",
                "awsRegion": self.region,
                "dynamodb": {
                    "ApproximateCreationDateTime": moment(float(int(now))),
                    **images,
                    "SequenceNumber": self._number(),
                    "SizeBytes": sum(map(values.item_size, images.values())),
                    "StreamViewType": self.view,
                },
                **({"userIdentity": dict(_TTL)} if by_ttl else {}),
            }
        )

    def close(self) -> None:
        """Nothing is added any more. What is there can be read for as long as it is kept."""
        self.is_open = False
        for shard in self.shards:
            shard.end = self._number()

    def _number(self) -> str:
        self._next += 1
        return str(self._next)

    def _shard(self, key: Item) -> Shard:
        partition = repr(key[self.keys[0]["AttributeName"]])
        return self.shards[int(_digest(partition), 16) % len(self.shards)]


def given(record: dict[str, Any]) -> dict[str, Any]:
    """A copy of a record, for a caller to keep."""
    inner = record["dynamodb"]
    images = {name: values.given_item(inner[name]) for name in ("Keys", "NewImage", "OldImage") if name in inner}
    copied = {**record, "dynamodb": {**inner, **images}}
    if "userIdentity" in record:
        copied["userIdentity"] = dict(record["userIdentity"])
    return copied


def number(record: dict[str, Any]) -> str:
    """A record's sequence number. All of them have 21 digits, so they are in order as texts."""
    return str(record["dynamodb"]["SequenceNumber"])


def created(record: dict[str, Any]) -> float:
    """When a record was made, epoch seconds, rounded down."""
    at: datetime = record["dynamodb"]["ApproximateCreationDateTime"]
    return at.timestamp()


def moment(now: float) -> datetime:
    """A time as botocore gives it."""
    return datetime.fromtimestamp(now, UTC)


def label_of(now: float, is_taken: Callable[[str], bool]) -> str:
    """A stream's label: the time of its making, with milliseconds; a later one where that is taken."""
    milliseconds = int(now * 1000)
    while True:
        label = moment(milliseconds / 1000).strftime("%Y-%m-%dT%H:%M:%S.") + f"{milliseconds % 1000:03d}"
        if not is_taken(label):
            return label
        milliseconds += 1


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
