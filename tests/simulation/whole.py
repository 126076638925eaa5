"""The whole product in virtual time: the emulator's services, mappings and functions, the integrations, the engine.

What happened is read from the wire: every call that reaches a service is seen, with its answer, and what stands in the
services at the end. Neither the engine's word nor a mapping's is taken for anything. A seed is a run: it chooses the
source, the idempotency mode, the profile of faults, and everything else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from pipeline import (
    Backoff,
    Checkpoint,
    Claim,
    Context,
    Function,
    Fused,
    Mark,
    Pipeline,
    Record,
    Reject,
    sinks,
    sources,
)
from pipeline.aws.client import provide
from pipeline.decisions.keys import entry_id, key_text
from pipeline.emulator.functions.function import MAX_ENVIRONMENTS
from pipeline.emulator.functions.function import Function as Lambda
from pipeline.emulator.local import function_settings
from pipeline.emulator.local_source import LocalSource
from pipeline.emulator.mappings.answers import Answer, FunctionFailed, Returned
from pipeline.emulator.report import Tally
from pipeline.emulator.services.service import Operation, Service
from pipeline.emulator.virtual import EPOCH, VirtualClock
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.modes import Mode
from pipeline.engine.stage import Stage
from pipeline.testing import DrainTimeout, Emulator
from tests.simulation.trouble import CALLER, HERE, PROFILES, Place, Placed, Repeating, Trouble, Troubled

#: The matrix: a seed's place in it is the seed modulo its size.
SOURCES = ("sqs", "fifo", "kinesis")
MODES = ("claim", "mark", "fused", "checkpoint", "none")
MATRIX = tuple((source, mode, profile) for profile in PROFILES for mode in MODES for source in SOURCES)
ATTEMPTS = 6
#: Faults that may cost one record an attempt: it still has one more than it needs.
BUDGET = 3
#: Receives after which a queue itself gives a message up, where the handler never does.
MAX_RECEIVES = 5
_COMPLETING = frozenset({"batch_execute_statement", "update_item"})
_NAME = re.compile(r"\br\d+\b")


@dataclass(eq=False)
class Sent:
    """A record as its producer sent it."""

    name: str
    key: str
    kind: str  #: healthy, flaky (fails once), poison, rejected, garbage, unwanted (the filter keeps it away)
    lane: str
    outputs: int
    place: int  #: in the order of sending
    failures: int = 0  #: of its runs

    @property
    def body(self) -> Any:
        if self.kind == "garbage":
            return f"{{no json {self.name}"
        wanted = "no" if self.kind == "unwanted" else "yes"
        return {"r": self.name, "id": self.key, "lane": self.lane, "wanted": wanted}

    @property
    def effects(self) -> list[str]:
        return [f"{self.key}-{number}" for number in range(self.outputs)]


@dataclass(eq=False)
class Run:
    """One run of the handler."""

    key: str
    place: Place
    began: float


class Violation(Exception):
    """A promise was broken; nothing after it means anything."""


@dataclass
class Whole:
    """One run of the whole. `setting`: source, mode and profile; default: the seed's place in the matrix."""

    seed: int
    setting: tuple[str, str, str] | None = None
    violation: str | None = None
    notes: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = chance = random.Random(f"whole {self.seed}")
        self.request_chance = random.Random(f"requests of {self.seed}")
        self.source, self.mode, self.profile = self.setting or MATRIX[self.seed % len(MATRIX)]
        if self.source == "sqs" and self.mode == "checkpoint":
            self.source = "fifo"  # a standard queue has no places
        self.is_ordered = self.source != "sqs"
        self.is_chained = chance.random() < 0.35
        self.filters = chance.random() < 0.3
        self.retries = chance.random() < 0.85  #: the handler does; else only its source
        self.batch_size = chance.choice([1, 3, 10]) if self.source == "fifo" else chance.choice([1, 4, 10, 10])
        self.concurrency = chance.choice([1, 3, 100])
        self.timeout = chance.choice([12, 30, 30])
        self.lease = chance.choice([10.0, 20.0, 60.0]) if self.mode == "claim" else None
        self.queue = "orders.fifo" if self.source == "fifo" else "orders"
        self.shards = chance.randint(1, 3)
        self.parts = chance.choice([1, 1, 2]) if self.mode != "none" else 1
        kinds = ["sqs", "fifo", "kinesis"]
        self.events = chance.choice(kinds[1:] if self.mode == "checkpoint" or self.is_ordered else kinds)
        self.sent = self._sent()
        self.by_name = {record.name: record for record in self.sent}
        self.by_key = {record.key: record for record in reversed(self.sent)}
        self.receives: Counter[str] = Counter()
        self.handed_out: dict[str, str] = {}  #: by receipt: the record
        self.gone: set[str] = set()  #: records that their mapping deleted from their queue
        self.letters: Counter[str] = Counter()  #: dead letters that the handler wrote, by record
        self.given_up: set[str] = set()  #: records that the stream's mapping sent to its destination
        self.ledger: Counter[str] = Counter()  #: writes of each item
        self.published: dict[str, list[str]] = defaultdict(list)  #: effect -> the outputs' ids
        self.order: dict[str, list[str]] = {"ledger": [], "events": []}  #: first effects
        self.second: set[str] = set()
        self.running: list[Run] = []
        self.runs: Counter[str] = Counter()
        self.outcomes: Counter[str] = Counter()
        self.function_failures: Counter[str] = Counter()
        self.loop: Any = None
        self.kinds = Counter(record.kind for record in self.sent)

    # -- What is sent, and to what.

    def _sent(self) -> list[Sent]:
        chance = self.chance
        lanes = [f"g{number}" for number in range(chance.randint(2, 4))]
        kinds = ["healthy"] * chance.randint(6, 12) + ["flaky"]
        for kind in ("poison", "rejected", "garbage"):
            kinds += [kind] * (chance.random() < 0.5)
        if self.filters:
            kinds += ["unwanted"] * 2
        chance.shuffle(kinds)
        records: list[Sent] = []
        for place, kind in enumerate(kinds):
            record = Sent(f"r{place}", f"k{place}", kind, chance.choice(lanes), chance.randint(1, 2), place)
            same = [one for one in records if one.kind == "healthy" and one.lane == record.lane]
            if kind == "healthy" and same and self.mode not in ("checkpoint", "none") and chance.random() < 0.15:
                record.key, record.outputs = same[-1].key, same[-1].outputs
            records.append(record)
        return records

    def _mode(self) -> Mode | None:
        made: Mapping[str, Callable[[], Mode | None]] = {
            "claim": lambda: Claim(lease=self.lease or 60.0),
            "mark": lambda: Mark(cache=self.chance.choice([0, 1000])),
            "fused": lambda: Fused(cache=self.chance.choice([0, 1000])),
            "checkpoint": Checkpoint,
            "none": lambda: None,
        }
        return made[self.mode]()

    def _pipeline(self) -> Pipeline:
        mode = self._mode()
        shop = Pipeline("shop", idempotency=mode, log_level="CRITICAL")
        is_keyed = mode is not None and not isinstance(mode, Checkpoint)
        events = {"sqs": sinks.SQS("events"), "fifo": sinks.SQS("events.fifo"), "kinesis": sinks.Kinesis("events")}
        options: dict[str, Any] = {"key": "id"} if is_keyed else {}
        shop.handler(
            self._source(),
            sinks=[sinks.DynamoDB("ledger"), events[self.events]],
            retry=Backoff(attempts=ATTEMPTS, base=2, cap=20) if self.retries else None,
            concurrency=self.concurrency,
            deploy=Function(timeout=self.timeout),
            **options,
        )(first)
        if self.is_chained:
            again = {
                "sqs": lambda: sources.SQS("events", max_receive_count=1000),
                "fifo": lambda: sources.SQS("events.fifo", max_receive_count=1000),
                "kinesis": lambda: sources.Kinesis("events"),
            }
            retry = Backoff(attempts=1000, base=2, cap=20)
            shop.handler(again[self.events](), sinks=[sinks.DynamoDB("second")], retry=retry)(second)
        return shop

    def _source(self) -> Any:
        wanted = {"wanted": ["yes"]} if self.filters else None
        if self.source == "kinesis":
            return sources.Kinesis(
                "orders",
                shards=self.shards,
                batch_size=self.batch_size,
                parallelization_factor=self.parts,
                retry_attempts=-1 if self.retries else MAX_RECEIVES,
                bisect=self.chance.random() < 0.7,
                filter=wanted,
            )
        most = 1000 if self.retries else MAX_RECEIVES
        return sources.SQS(self.queue, batch_size=self.batch_size, max_receive_count=most, filter=wanted)

    # -- The run.

    def play(self) -> Whole:
        """Send everything, let time pass until nothing is left, and look at what there is."""
        try:
            with _Placing(self) as aws:
                self.aws = aws
                self.loop = aws._loop
                self._play(aws)
        except Violation:
            pass
        return self

    def _play(self, aws: Emulator) -> None:
        trouble = self.trouble = Trouble(self.chance, self.profile, BUDGET, lambda: self.now, self.note)
        backend = aws._memory
        backend.services = {name: Tapped(service, self) for name, service in backend.services.items()}
        queues: Any = backend.services["sqs"]
        queues.inner.shuffled = self.source == "sqs" and trouble.strikes("shuffled")
        try:
            aws.add(self._pipeline())
            left = list(self.sent)
            while left:
                some, left = left[: (count := self.chance.randint(1, 12))], left[count:]
                lanes = {json.dumps(record.body): record.lane for record in some}
                for record in some:
                    self.note(f"{record.name} is sent: {record.kind}, {record.key}, {record.lane}")
                aws.send(self.queue, [record.body for record in some], key=lambda body: lanes[json.dumps(body)])
                if left:
                    aws.advance(self.chance.uniform(0, 5))
            try:
                aws.run(timeout=5 * 86_400.0)
            except DrainTimeout as error:
                self.fail(f"the run does not come to its end: {error}")
            trouble.is_over = True
            self._check_end(aws)
        finally:
            trouble.is_over = True
        if self.violation is not None:
            raise Violation

    @property
    def now(self) -> float:
        return 0.0 if self.loop is None else float(self.loop.time())

    def note(self, text: str) -> None:
        """Something happened."""
        self.notes.append((self.now, text))

    def fail(self, text: str) -> None:
        """A promise is broken."""
        self.note(f"VIOLATION: {text}")
        self.violation = self.violation or text

    def story(self) -> str:
        """What was found, and what happened."""
        kinds = f"{self.source} -> {self.events}{' -> second' if self.is_chained else ''}, {self.mode}, {self.profile}"
        setting = f"{kinds}, batches of {self.batch_size}, concurrency {self.concurrency}, timeout {self.timeout} s"
        names = set(_NAME.findall(self.violation or ""))
        names |= {self.by_name[name].key for name in list(names) if name in self.by_name}
        last = [
            f"  {at:10.3f}  {text}"
            for at, text in self.notes
            if not names or names & set(re.findall(r"\b[rk]\d+\b", text)) or not re.search(r"\b[rk]\d+\b", text)
        ]
        return "\n".join([f"seed {self.seed} ({setting}): {self.violation}", *last[-80:]])

    # -- What an execution environment is made of.

    def sandbox(self, stage: Stage, observers: Sequence[Any]) -> Placed:
        place = self.trouble.new_place()
        numbers = iter(range(10**9))
        backend = self.aws._memory

        def environment() -> ProcessEnvironment:
            made = ProcessEnvironment(
                clock=VirtualClock(self.loop, skew=place.skew),
                chance=self.chance.random,
                token=lambda: f"{place.name}.{next(numbers)}",
            )
            for name in backend.services:
                provide(made, name, backend.client(name, around=place.around))
            return made

        place.sandbox = sandbox = Placed(stage, environment, observers)
        sandbox.place, place.world = place, self
        return sandbox

    # -- The handler.

    async def handle(self, record: Record[dict[str, Any]]) -> Any:
        place, sent = HERE.get(), self.by_name[record.payload["r"]]
        if place.is_dead:  # a record that waited in the process for its next try
            await place.never()
        run = self._started(sent, place)
        try:
            kill = self.trouble.strikes("kill in the handler")
            seconds = self.chance.uniform(0.01, 1.0)
            if self.trouble.strikes("slow handler"):
                seconds = self.chance.uniform(2, 0.6 * self.timeout)
            if self.trouble.strikes("too early"):
                self._expose(sent)
            if self.lease is not None and self.timeout > self.lease + 5 and self.trouble.strikes("cut off"):
                # Its lease ends, and somebody else may get the record, and take it over.
                seconds = self.chance.uniform(self.lease + 1, 0.85 * self.timeout)
                place.cut_off_until = self.now + seconds - 0.1
                self.note(f"{place.name} cannot reach its store until {place.cut_off_until:.3f}, beside {sent.name}")
                self.loop.call_later(seconds - self.chance.uniform(0.1, 0.6), self._expose, sent)
            await asyncio.sleep(seconds)
            if place.is_dead or kill:
                await place.die()
            if sent.kind == "rejected":
                raise Reject("never")
            if sent.kind == "poison" or (sent.kind == "flaky" and not sent.failures):
                sent.failures += 1
                raise ValueError("it fails")
        except BaseException as error:
            self.note(f"{place.name} run of {sent.name} ends: {type(error).__name__}")
            raise
        finally:
            if not place.is_dead:
                self.running.remove(run)
        self.note(f"{place.name} run of {sent.name} has finished")
        return [{"id": effect, "r": sent.name} for effect in sent.effects]

    def _expose(self, sent: Sent) -> None:
        """The visibility timeout of a message ends before its time."""
        receipts = [receipt for receipt, name in self.handed_out.items() if name == sent.name]
        if not receipts:  # it is a stream's
            return
        url = f"https://sqs.us-east-1.amazonaws.com/123456789012/{self.queue}"
        asked = {"QueueUrl": url, "ReceiptHandle": receipts[-1], "VisibilityTimeout": 0}
        with suppress(ClientError):
            self.aws._memory.call_now("sqs", "change_message_visibility", asked)
            self.note(f"{sent.name} is visible too early")

    def _started(self, sent: Sent, place: Place) -> Run:
        self.note(f"{place.name} runs {sent.name} ({sent.key})")
        self.runs[sent.name] += 1
        if sent.kind == "unwanted":
            self.fail(f"{sent.name} runs, although the filter keeps it away")
        if self.mode == "claim" and self._is_completed(sent.key):
            self.fail(f"{sent.name} runs after its key {sent.key} was completed")
        for other in self.running:
            if other.key == sent.key and self._holds(other, place):
                self.fail(f"{sent.name} runs beside another run of {sent.key}, in {other.place.name} and {place.name}")
        for earlier in self.sent[: sent.place] if self.is_ordered else ():
            if earlier.lane == sent.lane and not self.is_settled(earlier):
                self.fail(f"{sent.name} runs before {earlier.name} of its lane is settled")
        here = sum(one.place is place for one in self.running)
        if here >= self.concurrency:
            self.fail(f"{sent.name} is the {here + 1}th run at once, and {self.concurrency} may run")
        run = Run(sent.key, place, self.now)
        self.running.append(run)
        return run

    def _holds(self, run: Run, place: Place) -> bool:
        """Does that run keep others of its key from starting?"""
        if run.place is place:
            return self.mode in ("claim", "mark", "fused")
        return self.mode == "claim" and not run.place.is_dead and run.place.troubled_at < run.began - 60

    def _is_completed(self, key: str) -> bool:
        dynamodb: Any = self.aws._memory.services["dynamodb"]
        identifier = entry_id("shop.first", key_text(key))
        asked = {"TableName": "shop-idempotency", "Key": {"id": {"S": identifier}}, "ConsistentRead": True}
        item = dynamodb.inner.operations["get_item"](asked, EPOCH + self.now).get("Item")
        return item is not None and item["status"]["S"] == "COMPLETED"

    def entries(self) -> dict[str, Mapping[str, Any]]:
        """What stands in the store."""
        dynamodb: Any = self.aws._memory.services["dynamodb"]
        asked = {"TableName": "shop-idempotency", "ConsistentRead": True}
        found: list[dict[str, Any]] = dynamodb.inner.operations["scan"](asked, EPOCH + self.now)["Items"]
        return {item["id"]["S"]: item for item in found}

    def check_entries(
        self, before: Mapping[str, Mapping[str, Any]], after: Mapping[str, Mapping[str, Any]], caller: Place
    ) -> None:
        """A claim is completed by who holds it, and by nobody else."""
        for identifier, item in after.items():
            old = before.get(identifier, {})
            if item["status"]["S"] != "COMPLETED" or item == old:
                continue
            owner = old.get("owner", {}).get("S", "")
            if not owner.startswith(f"{caller.name}."):
                self.fail(f"{caller.name} completes a claim that belongs to {owner or 'nobody'}")

    # -- What the wire shows.

    def saw(self, operation: str, given: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        """A call was made, and this is its answer."""
        seen = getattr(self, f"_saw_{operation}", None)
        if seen is not None:
            seen(given, answer)

    def _saw_receive_message(self, given: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        if not _queue(given).startswith("orders") or "-dlq" in _queue(given):
            return
        for message in answer.get("Messages", []):
            (name,) = _names(message["Body"])
            self.receives[name] += 1
            self.handed_out[message["ReceiptHandle"]] = name
            told = int(message["Attributes"]["ApproximateReceiveCount"])
            self.note(f"{name} is received, the {told}. time")
            if told != self.receives[name]:
                self.fail(f"{name} was received {self.receives[name]} times, and the queue says {told}")

    def _saw_delete_message_batch(self, given: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        receipts = {entry["Id"]: entry["ReceiptHandle"] for entry in given["Entries"]}
        for done in answer.get("Successful", []):
            name = self.handed_out.get(receipts[done["Id"]])
            if name is None:
                continue
            self.note(f"{name} is deleted")
            self._check_acknowledged(self.by_name[name], "deleted")
            queues: Any = self.aws._memory.services["sqs"]
            left = [_names(message["body"])[0] for message in queues.inner.peek(self.queue)]
            if name not in left:
                self.gone.add(name)

    def _saw_send_message_batch(self, given: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        queue = _queue(given)
        accepted = {done["Id"] for done in answer.get("Successful", [])}
        for entry in given["Entries"]:
            if entry["Id"] not in accepted:
                continue
            if queue.startswith("events") and "-dlq" not in queue:
                self._published(json.loads(entry["MessageBody"])["id"], _carried(entry.get("MessageAttributes")))
            elif queue.startswith("orders") and "-dlq" in queue:
                for name in _names(entry["MessageBody"]):
                    self.note(f"{name} becomes a dead letter")
                    self.letters[name] += 1

    def _saw_put_records(self, given: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        stream = given.get("StreamName") or given["StreamARN"]
        for record, done in zip(given["Records"], answer["Records"], strict=True):
            if "events" in stream and "ErrorCode" not in done:
                value = json.loads(record["Data"])
                self._published(value["id"], json.dumps(value.get("_pipeline")))

    def _published(self, effect: str, identity: str) -> None:
        self.note(f"events takes {effect} of {effect.partition('-')[0]}")
        if effect not in self.published:
            self.order["events"].append(effect)
        self.published[effect].append(identity)

    def _saw_batch_write_item(self, given: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        for table, requests in given["RequestItems"].items():
            left = answer.get("UnprocessedItems", {}).get(table, [])
            for request in [request for request in requests if request not in left]:
                self._wrote(table, request["PutRequest"]["Item"])

    def _saw_put_item(self, given: Mapping[str, Any], _: Mapping[str, Any]) -> None:
        self._wrote(given["TableName"], given["Item"])

    def _saw_transact_write_items(self, given: Mapping[str, Any], _: Mapping[str, Any]) -> None:
        for item in given["TransactItems"]:
            self._wrote(item["Put"]["TableName"], item["Put"]["Item"])

    def _wrote(self, table: str, item: Mapping[str, Any]) -> None:
        effect = item["id"]["S"]
        if table == "second":
            self.second.add(effect)
        if table != "ledger":
            return
        key = effect.partition("-")[0]
        self.note(f"ledger takes {effect} of {key}")
        if effect not in self.ledger:
            self.order["ledger"].append(effect)
        self.ledger[effect] += 1
        if self.mode == "fused" and self.ledger[effect] > 1:
            self.fail(f"{self.by_key[key].name}: {effect} is written twice to the table that the mark is fused with")

    def _saw_put_object(self, given: Mapping[str, Any], _: Mapping[str, Any]) -> None:
        whole = json.loads(given["Body"])
        event = json.loads(whole["payload"])
        for record in event["Records"]:
            if record["eventSourceARN"].endswith("orders"):
                for name in _names(record["kinesis"]["data"]):
                    self.note(f"{name} is given up by the mapping: {whole['requestContext']['condition']}")
                    self.given_up.add(name)

    # -- What has to hold.

    def is_settled(self, sent: Sent) -> bool:
        """Nothing of it is left to be done, as the services saw it."""
        if self.letters[sent.name] or sent.name in self.given_up or self._is_unwanted(sent):
            return True
        return self.has_effects(sent) or self._is_redriven(sent)

    def has_effects(self, sent: Sent) -> bool:
        return all(effect in self.ledger and effect in self.published for effect in sent.effects)

    def _is_unwanted(self, sent: Sent) -> bool:
        return sent.kind == "unwanted" or (self.filters and sent.kind == "garbage")

    def _is_redriven(self, sent: Sent) -> bool:
        """Its queue has given it up."""
        if self.source == "kinesis" or self.retries:
            return False
        queues: Any = self.aws._memory.services["sqs"]
        dead = queues.inner.peek("orders-dlq.fifo" if self.source == "fifo" else "orders-dlq")
        return any(sent.name in _names(message["body"]) for message in dead)

    def _check_acknowledged(self, sent: Sent, how: str) -> None:
        if not self.is_settled(sent):
            self.fail(f"{sent.name} is {how}, and nowhere")

    def answered(self, event: Mapping[str, Any], answer: Answer, place_of: str) -> None:
        """The first handler's function answered: what its answer acknowledges must be settled."""
        if not isinstance(answer, Returned):
            self.note(f"the function fails: {answer}")
            return
        found = [(_id(member), _names(_body(member))) for member in event["Records"]]
        payload = answer.payload
        if not isinstance(payload, dict) or set(payload) != {"batchItemFailures"}:
            self.fail(f"the response is no object with batchItemFailures alone, for {place_of}")
            return
        named = [item["itemIdentifier"] for item in payload["batchItemFailures"]]
        if not set(named) <= {identifier for identifier, _ in found}:
            self.fail(f"the response names an id that is not in the batch of {found[0][1][0]}")
        if self.source == "kinesis" and named:
            first = min(int(name) for name in named)
            done = [names for number, names in found if int(number) < first]
        else:
            done = [names for identifier, names in found if identifier not in named]
        self.note(
            f"the response leaves {len(found) - len(done)} of {len(found)}: {' '.join(n for _, ns in found for n in ns)}"
        )
        for name in [name for names in done for name in names]:
            self._check_acknowledged(self.by_name[name], "acknowledged by the response")

    def check_held(self, held: int) -> None:
        """So many messages does the queue's mapping hold."""
        if held > (MAX_ENVIRONMENTS + 2) * self.batch_size + 10:
            self.fail(f"the mapping holds {held} messages in batches of {self.batch_size}")

    def _check_end(self, aws: Emulator) -> None:
        dead = self._dead_letters(aws)
        for sent in self.sent:
            self._check_record(sent, dead)
        for name, effects in self.order.items():
            self._check_order(name, effects)
        for effect, identities in self.published.items():
            if self.mode == "claim" and len(set(identities)) > 1:
                self.fail(f"{self.by_key[effect.partition('-')[0]].name}: {effect} was published under several ids")
            if self.is_chained and effect not in self.second:
                self.fail(f"{self.by_key[effect.partition('-')[0]].name}: {effect} was published, and lost behind that")
        if self.profile == "none":
            self._check_calm()
        for mapped in aws._running.mapped:
            whole = mapped.tally.counts(dead_lettered=0, drained=True).failed_invocations
            if whole != self.function_failures[mapped.label]:
                self.fail(
                    f"'{mapped.label}' sent {whole - self.function_failures[mapped.label]} responses that are not valid"
                )

    def _dead_letters(self, aws: Emulator) -> set[str]:
        queues: Any = aws._memory.services["sqs"]
        dead = {"sqs": "orders-dlq", "fifo": "orders-dlq.fifo", "kinesis": "orders-stream-dlq"}[self.source]
        return {name for message in queues.inner.peek(dead) for name in _names(message["body"])}

    def _check_record(self, sent: Sent, dead: set[str]) -> None:
        is_dead = sent.name in dead or sent.name in self.given_up
        is_redriven = sent.name in dead and not self.letters[sent.name]
        if is_redriven and self.receives[sent.name] != (1000 if self.retries else MAX_RECEIVES):
            self.fail(f"{sent.name} is given up by its queue after {self.receives[sent.name]} receives")
        if self.source != "kinesis" and sent.name not in self.gone and not is_redriven:
            self.fail(f"{sent.name} was not deleted from its queue, and is not there any more")
        if self._is_unwanted(sent):
            if is_dead or (self.has_effects(sent) and sent.kind != "garbage"):
                self.fail(f"{sent.name} is {sent.kind}, and was not just passed over")
            return
        if sent.kind in ("healthy", "flaky"):
            if not is_dead and not self.has_effects(sent):
                self.fail(f"{sent.name} is lost")
            if is_dead and not self._is_excused(sent):
                self.fail(f"{sent.name} is {sent.kind}, and dead-lettered after {self.runs[sent.name]} runs")
            return
        if not is_dead:
            self.fail(f"{sent.name} is {sent.kind}, and not dead-lettered")
        if any(effect in self.ledger or effect in self.published for effect in sent.effects):
            self.fail(f"{sent.name} is {sent.kind}, and had effects")

    def _is_excused(self, sent: Sent) -> bool:
        """A healthy record may be given up where every receive counts as an attempt, and it had so many."""
        if not self.retries:  # what is received, or tried, with others that fail is given up with them
            return self.source == "kinesis" or self.receives[sent.name] >= MAX_RECEIVES
        return self.mode != "claim" and self.source != "kinesis" and self.receives[sent.name] >= ATTEMPTS

    def _check_order(self, sink: str, effects: Sequence[str]) -> None:
        if not self.is_ordered:
            return
        last: dict[str, tuple[int, str]] = {}
        for effect in effects:
            sent = self.by_key[effect.partition("-")[0]]
            if sent.place < last.get(sent.lane, (-1, ""))[0]:
                self.fail(f"{sink} took {effect} of {sent.name} after {last[sent.lane][1]}, which is later in its lane")
            last[sent.lane] = sent.place, effect

    def _check_calm(self) -> None:
        """Nothing went wrong: everything is once."""
        if not self.retries and self.kinds["poison"]:
            return
        for sent in self.sent:
            most = {"poison": ATTEMPTS, "flaky": 2}.get(sent.kind, 1)
            if self.mode != "none" and self.retries and self.runs[sent.name] > most:
                self.fail(
                    f"{sent.name} is {sent.kind} and ran {self.runs[sent.name]} times, although nothing went wrong"
                )


class Tapped:
    """A service whose calls are seen."""

    def __init__(self, inner: Service, whole: Whole) -> None:
        self.inner = inner
        self.name = inner.name
        self.operations: Mapping[str, Operation] = {
            name: self._seen(name, call, whole) for name, call in inner.operations.items()
        }

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def _seen(self, name: str, call: Operation, whole: Whole) -> Operation:
        def operation(parameters: Mapping[str, Any], now: float) -> dict[str, Any]:
            is_claim = whole.mode == "claim" and name in _COMPLETING and "COMPLETED" in str(parameters)
            before = whole.entries() if is_claim else {}
            answer = call(parameters, now)
            if is_claim:
                whole.check_entries(before, whole.entries(), CALLER.get())
            whole.saw(name, parameters, answer)
            return answer

        return operation


class _Placing(Emulator):
    """An emulator whose environments have a place in which things go wrong."""

    def __init__(self, whole: Whole) -> None:
        super().__init__(seed=whole.seed)
        self.whole = whole

    async def _add_stage(self, stage: Stage, label: str, source: LocalSource) -> None:
        whole, tally = self.whole, Tally()
        function = Lambda(
            function_settings(stage), lambda: whole.sandbox(stage, [tally.observe]), self._memory.clock,
            request_id=lambda: f"{whole.request_chance.getrandbits(64):x}",
        )  # fmt: skip
        seen = _Seen(whole, function, label)
        self._stack.push_async_callback(function.close)

        def heard(answer: Answer) -> None:
            whole.function_failures[label] += isinstance(answer, FunctionFailed)

        mapped = await self._running.map(
            label,
            source,
            Troubled(seen, whole.trouble, 6.0 * stage.deploy.timeout, heard),
            tally=tally,
            limit=MAX_ENVIRONMENTS,
            tells_letters=stage.dead_letters == stage.source.dead_letters,
        )
        if label == "first" and whole.source == "sqs":
            driver: Any = mapped.driver
            driver._port = Repeating(driver._port, whole.trouble)
        seen.machine = mapped.driver.machine


class _Seen:
    """A function whose answers are seen."""

    def __init__(self, whole: Whole, inner: Any, label: str) -> None:
        self.whole = whole
        self.inner = inner
        self.label = label
        self.machine: Any = None

    async def invoke(self, event: Any) -> Answer:
        """See `Invocable`."""
        answer: Answer = await self.inner.invoke(event)
        if self.label == "first":
            self.whole.answered(event, answer, self.label)
            if self.whole.source != "kinesis":
                self.whole.check_held(self.machine.held)
        return answer


async def first(record: Record[dict[str, Any]], context: Context) -> Any:
    """The handler of the source: whatever the run makes of the record."""
    return await HERE.get().world.handle(record)


async def second(record: Record[dict[str, Any]], context: Context) -> Any:
    """The handler behind the first one's outputs."""
    place = HERE.get()
    await asyncio.sleep(0.1)
    if place.is_dead:
        await place.never()
    return {"id": record.payload["id"]}


def _queue(given: Mapping[str, Any]) -> str:
    return str(given["QueueUrl"]).rpartition("/")[2]


def _carried(attributes: Any) -> str:
    return json.dumps(attributes, sort_keys=True, default=str)


def _id(member: Mapping[str, Any]) -> str:
    return str(member["messageId"] if "messageId" in member else member["kinesis"]["sequenceNumber"])


def _body(member: Mapping[str, Any]) -> str:
    return str(member["body"] if "body" in member else member["kinesis"]["data"])


def _names(text: str) -> list[str]:
    """The records that a text names, as it is or in base64."""
    found = _NAME.findall(text)
    if not found:
        with suppress(binascii.Error, UnicodeDecodeError):
            found = _NAME.findall(base64.b64decode(text, validate=True).decode())
    return found[:1]
