"""A shop as a user writes it, under the product's own faults (`Emulator(faults=)`): what is promised, seen from outside.

Beside `whole`, whose trouble is its own: here the profiles, the marker's runs and the emulator are what is tried. A seed is
a run: it chooses the source, the idempotency mode, the profile, and whether the handlers are plain functions.
"""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline import Checkpoint, Claim, Fused, Handler, Mark, Pipeline, Reject, sinks, sources
from pipeline.emulator.faults.plan import Faults
from pipeline.emulator.faults.profiles import PROFILES
from pipeline.emulator.faults.story import tell
from pipeline.engine.modes import Mode
from pipeline.testing import Emulator

SOURCES: dict[str, Callable[[], Any]] = {
    "sqs": lambda: sources.SQS("orders"),
    "fifo": lambda: sources.SQS("orders.fifo"),
    "kinesis": lambda: sources.Kinesis("orders", shards=2),
}
MODES: dict[str, Callable[[], Mode | None]] = {
    "claim": Claim,
    "mark": Mark,
    "fused": Fused,
    "checkpoint": Checkpoint,
    "none": lambda: None,
}
MATRIX = tuple((source, mode, profile) for profile in PROFILES for mode in MODES for source in SOURCES)
_REJECTED = "no"


class Violation(Exception):
    """A promise was broken."""


@dataclass
class Product:
    """One run. `setting`: source, mode and profile; default: the seed's place in the matrix."""

    seed: int
    setting: tuple[str, str, str] | None = None
    violation: str | None = None
    ran: list[str] = field(default_factory=list)  #: names, in the order of their first runs
    shipped: Counter[str] = field(default_factory=Counter)
    running: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        chance = random.Random(f"product {self.seed}")
        self.source, self.mode, self.profile = self.setting or MATRIX[self.seed % len(MATRIX)]
        if self.source == "sqs" and self.mode == "checkpoint":
            self.source = "fifo"  # a standard queue has no places
        self.is_plain = chance.random() < 0.5
        self.lanes = {f"r{number}": f"lane-{chance.randrange(3)}" for number in range(chance.randint(3, 12))}
        self.lanes[_REJECTED] = "lane-0"
        self.faults = Faults(self.seed, self.profile)

    @property
    def healthy(self) -> set[str]:
        """The records that must have their effect."""
        return set(self.lanes) - {_REJECTED}

    def play(self) -> Product:
        """Run it to its end, and check what is promised."""
        with Emulator(seed=self.seed, faults=self.faults) as aws:
            try:
                self._play(aws)
            except Violation as found:
                self.violation = str(found)
        return self

    def story(self) -> str:
        """What was wrong, and what happened."""
        kind = "plain" if self.is_plain else "async"
        setting = f"{self.source}, {self.mode}, {self.profile}, {kind} functions"
        return f"seed {self.seed} ({setting}): {self.violation}\n{tell(self.faults)}"

    def _play(self, aws: Emulator) -> None:
        aws.table("ledger", stream="NEW_AND_OLD_IMAGES")
        shop = Pipeline("shop", idempotency=MODES[self.mode](), log_level="CRITICAL")
        yard = Pipeline("yard", log_level="CRITICAL")
        self._price(shop)
        self._ship(yard)
        aws.add(shop, yard)
        name = shop.stages()[0].source.name
        payloads = [{"id": name, "lane": lane} for name, lane in self.lanes.items()]
        aws.send(name, payloads, key=None if self.source == "sqs" else "lane")
        report = aws.run()
        self._check_nothing_lost(aws, name)
        self._check_order()
        self._check_written_once(aws)
        for handler in ("price", "ship"):
            told = report[handler]
            if told.records != told.succeeded + told.duplicates + told.rejected + told.exhausted:
                raise Violation(f"the report of {handler} does not add up: {told}")

    def _price(self, shop: Pipeline) -> Handler[..., Any]:
        declared = shop.handler(
            SOURCES[self.source](),
            sinks=[sinks.DynamoDB("ledger"), sinks.SQS("parcels.fifo")],
            key=None if self.mode == "checkpoint" else "id",
        )
        if self.is_plain:

            def price(order: dict[str, Any]) -> dict[str, Any]:
                return self._priced(order)
        else:

            async def price(order: dict[str, Any]) -> dict[str, Any]:  # type: ignore[misc]
                return self._priced(order)

        return declared(price)

    def _priced(self, order: dict[str, Any]) -> dict[str, Any]:
        name = order["id"]
        if name not in self.ran:
            self.ran.append(name)
        if name == _REJECTED:
            raise Reject("no such thing")
        return {"id": name}

    def _ship(self, yard: Pipeline) -> None:
        @yard.handler(sources.SQS("parcels.fifo"), key="id")
        def ship(parcel: dict[str, Any]) -> None:
            self.shipped[parcel["id"]] += 1

    def _check_nothing_lost(self, aws: Emulator, source: str) -> None:
        written = {item["id"] for item in aws.table("ledger").items}
        if written != self.healthy:
            raise Violation(f"the ledger has {sorted(written)}, and not {sorted(self.healthy)}")
        if set(self.shipped) != self.healthy:
            raise Violation(f"shipped were {sorted(self.shipped)}, and not {sorted(self.healthy)}")
        letters = Counter(name for letter in aws.dead_letters(source) if (name := _name(letter.body)) is not None)
        if set(letters) != {_REJECTED}:
            raise Violation(f"among the dead letters are {sorted(letters)}")
        stray = [name for letter in aws.dead_letters("parcels.fifo") if (name := _name(letter.body)) is not None]
        if stray:
            raise Violation(f"among the dead letters of the parcels are {stray}")

    def _check_order(self) -> None:
        if self.source == "sqs":
            return
        for lane in set(self.lanes.values()):
            sent = [name for name, of in self.lanes.items() if of == lane]
            first = [name for name in self.ran if self.lanes[name] == lane]
            if first != sent:
                raise Violation(f"{lane} was sent {sent}, and ran {first}")

    def _check_written_once(self, aws: Emulator) -> None:
        if self.mode != "fused":
            return
        changed = _changes(aws)
        if any(count > 1 for count in changed.values()):
            raise Violation(f"Fused wrote items more than once: {changed}")


def _name(body: str) -> str | None:
    """A record's name; None: it is none of ours, but poison."""
    try:
        found = json.loads(body if body.startswith("{") else base64.b64decode(body, validate=True))
    except ValueError:
        return None
    return found.get("id") if isinstance(found, dict) else None


def _changes(aws: Emulator) -> Counter[str]:
    """How often each item of the ledger changed, from the table's stream."""
    client = aws.client("dynamodbstreams")
    changed: Counter[str] = Counter()
    for stream in client.list_streams(TableName="ledger")["Streams"]:
        arn = stream["StreamArn"]
        for shard in client.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
            iterator = client.get_shard_iterator(
                StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            records = client.get_records(ShardIterator=iterator)["Records"]
            changed.update(record["dynamodb"]["Keys"]["id"]["S"] for record in records)
    return changed
