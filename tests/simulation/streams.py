"""A stream before the engine: Kinesis, with a mapping that reads its shards side by side.

AWS's rules: a shard keeps its records in the order of their sequence numbers, whose texts have different
lengths; one batch of a shard at a time; the lowest number that a response names is the checkpoint, and all
from there on comes again at once; a batch whose invocation failed, or whose response is lost, comes again
whole, or a half of it first (bisect).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import count
from typing import Any, ClassVar

from pipeline import Backoff, Checkpoint, Pipeline, by, sinks, sources
from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline
from pipeline.emulator.mappings.response import named_failures
from pipeline.engine.modes import Mode
from pipeline.engine.stage import Stage
from pipeline.errors import SinkError, SinkUnavailable
from pipeline.outcome import Succeeded, is_settled
from pipeline.output import Output
from pipeline.runtimes.response import partial_response
from tests.simulation.model import ATTEMPTS, HERE, TOO_LONG, Host, Kind, Message, Sink, World, handle
from tests.support.aggregates import aggregate

_ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/readings"
#: Seconds between a failed invocation and the next delivery: none that matter.
_AT_ONCE = 0.02


@dataclass
class Arrival:
    """One record of the stream: a message, or several that the producer aggregated."""

    number: str
    messages: list[Message]
    is_base64: bool = True

    def member(self, shard: str) -> dict[str, Any]:
        """As Lambda delivers it."""
        first = self.messages[0]
        data = first.body.encode()
        if len(self.messages) > 1:
            data = aggregate([(message.order, None, message.body.encode()) for message in self.messages])
        return {
            "kinesis": {
                "partitionKey": first.order,
                "sequenceNumber": self.number,
                "data": base64.b64encode(data).decode() if self.is_base64 else "{no base64",
                "approximateArrivalTimestamp": first.sent_at,
            },
            "eventSource": "aws:kinesis",
            "eventID": f"{shard}:{self.number}",
            "eventSourceARN": _ARN,
        }


class Shard:
    """Records in their order, and how many lie behind the checkpoint."""

    def __init__(self, world: StreamWorld, index: int) -> None:
        self.world = world
        self.id = f"shardId-{index:012}"
        self.part = ""  #: which of the parts that a mapping reads side by side
        self.checkpoint = 0
        self.arrivals: list[Arrival] = []  #: what was put so far
        # The next power of ten is near: numbers of one batch have different lengths.
        self._numbers = count(10 ** world.chance.randint(1, 40) - world.chance.randint(1, 8))
        self._left: int | None = None  #: arrivals of a batch that comes again

    def put(self, arrival: Arrival) -> None:
        self.arrivals.append(arrival)

    def number(self) -> str:
        """The next sequence number."""
        for _ in range(self.world.chance.randint(0, 2)):
            next(self._numbers)
        return str(next(self._numbers))

    def parted(self, parts: int) -> list[Shard]:
        """The parts of a shard that a mapping reads side by side, each with partition keys of its own."""
        made = []
        for part in range(parts):
            one = copy(self)
            one.part, one.arrivals = f"/{part}" if parts > 1 else "", []
            made.append(one)
        return made

    def batch(self, limit: int) -> list[Arrival]:
        """From the checkpoint on; a batch that comes again is mostly not filled up."""
        count = limit if self._left is None else self._left
        return self.arrivals[self.checkpoint : self.checkpoint + count]

    def settle(self, settled: int, of: int, *, limit: int) -> None:
        """Move the checkpoint; choose what comes next."""
        self.checkpoint += settled
        if self.world.is_marking and self.world.is_faulty and self.world.chance.random() < 0.04:
            # A mapping delivers at least once: sometimes also what it has heard the end of.
            self.world.faults["delivered again"] += 1
            self.checkpoint = max(self.checkpoint - self.world.chance.randint(1, 20), 0)
            self._left = None
            return
        left = of - settled
        chance = self.world.chance
        if left and not settled and chance.random() < 0.3:
            self._left = (left + 1) // 2  # halves: the first, and then the other
        else:
            self._left = left if left and chance.random() < 0.8 else None


class Archive(Sink):
    """A sink that gathers: large objects, which fail as a whole or from one lane's record on."""

    gathers = True

    def __init__(self, world: StreamWorld, name: str) -> None:
        super().__init__(world, name)
        self.of = world
        self.failed: defaultdict[tuple[Host, str], dict[str, float]] = defaultdict(dict)
        self.calls: Counter[int] = Counter()  #: by how many outputs they had

    async def write(self, outputs: Sequence[Output], host: Host, until: Deadline) -> Sequence[SinkError | None]:
        world = self.of
        self.calls[len(outputs)] += 1
        self._check_turn(outputs, host)
        if world.is_faulty and world.chance.random() < 0.3:
            # Slow, but no attempt is at stake: others may stand behind this call.
            left = (until.left(world.now) or 0.0) / 2
            await host.sleep(min(world.chance.uniform(0.5, 6), max(left, 0.0)))
        try:
            errors = await super().write(outputs, host, until)
        except SinkError:
            self._note(outputs, [SinkUnavailable("all")] * len(outputs), host)
            raise
        self._note(outputs, errors, host)
        return errors

    def _take_all(self, outputs: Sequence[Output], host: Host) -> list[SinkError | None]:
        failed: set[str | None] = set()
        errors: list[SinkError | None] = []
        for output in outputs:
            # What was kept for a key that came in another lane too has that lane's ordering key.
            message = self.of.in_batch(host, output.value["key"])
            names = {output.default_key, message.lane if message else None}
            error: SinkError | None = SinkUnavailable("an earlier output of its key was not accepted")
            if not names & failed:
                error = self._take(output, host)
            if error is not None:
                failed |= names - {None}
            errors.append(error)
        return errors

    def _note(self, outputs: Sequence[Output], errors: Sequence[SinkError | None], host: Host) -> None:
        for output, error in zip(outputs, errors, strict=True):
            message = self.of.in_batch(host, output.value["key"])
            if message is None:
                continue
            failed = self.failed[host, message.lane or ""]
            if error is None:
                failed.pop(message.id, None)
            else:
                failed.setdefault(message.id, self.of.now)

    def _check_turn(self, outputs: Sequence[Output], host: Host) -> None:
        """No call carries what stands behind a failed write of its lane, unless the failed one goes before it."""
        seen: set[str] = set()
        for output in outputs:
            message = self.of.in_batch(host, output.value["key"])
            if message is None:
                continue
            seen.add(message.id)
            for failed in self.failed[host, message.lane or ""]:
                if failed not in seen and self.of.by_id[failed].sequence < message.sequence:
                    text = f"{self.name} is asked for {message.id}, behind {failed} of its lane, which failed"
                    self.of.fail(message.key, text)


@dataclass
class StreamWorld(World):
    """A run over a stream."""

    batches: dict[Host, list[Message]] = field(default_factory=dict)  #: those under way
    letter_faults: Counter[str] = field(default_factory=Counter)
    checkpoints: int = 0

    is_stream: ClassVar[bool] = True

    def set_up(self) -> None:
        chance = self.chance
        self.timeout = chance.choice([5.0, 12.0, 30.0])
        self.batch_size = chance.choice([1, 5, 10, 25, 100])
        self.by_shard = chance.random() < 0.3
        is_idempotent = self.is_marking or chance.random() < 0.75
        shards = [Shard(self, index) for index in range(chance.randint(1, 4))]
        self.parts = chance.choice([1, 1, 2, 4]) if self.is_marking else 1
        self.shards = [part for shard in shards for part in shard.parted(self.parts)]
        self.by_lane = self.is_marking and chance.random() < 0.3
        self.by_shard &= self.parts == 1 and not self.by_lane
        self.archive = Archive(self, "archive")
        if chance.random() < 0.5:
            self.sinks.append(self.archive)
        declared = _declared(
            self.promise.mode() if is_idempotent else None,
            self._lane(),
            self.parts,
            getattr(self.promise, "fused", None),
        )
        self.by_shard |= not is_idempotent
        self.stage = replace(
            declared,
            sinks=tuple(self.sinks),
            dead_letters=self.letters,
            store=self.store if declared.store is not None else None,
            concurrency=chance.choice([1, 3, 100]),
            retry=declared.retry if chance.random() < 0.85 else None,
        )
        self.idle: list[Host] = []
        self._hosts = 0
        self.to_send = self._sent()
        self.remember([message for _, arrival in self.to_send for message in arrival.messages])
        self.budget -= sum(message.kind is Kind.KILLER for message in self.messages)
        for what in ("ledger", "events", "archive", "letters", "store"):
            if chance.random() < 0.3:
                begin = chance.uniform(0, 40)
                self.outages.append((what, begin, begin + chance.uniform(2, 40)))

    def _lane(self) -> Any:
        """The option of the handler; the default where that says the same."""
        if self.by_lane:
            return "lane"
        is_checkpoint = self.promise.name == "checkpoint"
        if self.by_shard:
            return None if is_checkpoint else by.shard
        return by.partition_key if is_checkpoint and self.parts == 1 else None

    # -- what was sent

    def _sent(self) -> list[tuple[Shard, Arrival]]:
        """Stream records with their shards, in the order in which they are put."""
        chance = self.chance
        orders = [f"p{number}" for number in range(chance.randint(1, 8))]
        kinds = self._kinds()
        sent: list[tuple[Shard, Arrival]] = []
        messages: list[Message] = []
        for sequence, kind in enumerate(kinds):
            order = chance.choice(orders)
            shard = self.shards[
                int(hashlib.md5(order.encode(), usedforsecurity=False).hexdigest(), 16) % len(self.shards)
            ]
            lane = shard.id if self.by_shard else order
            message = Message("", f"k{sequence}", kind, lane, chance.randint(1, 3), sequence, order=order)
            if self.by_lane:
                message.user_lane = f"l{chance.randrange(3)}"
                # What is damaged has no such lane.
                name = message.user_lane if kind is not Kind.GARBAGE else f"of {order}"
                message.lane = f"{shard.id}{shard.part} {name}"
                message.is_unread = kind is Kind.GARBAGE
            message.scope = shard.id, order if self.parts > 1 else None
            self._repeat(message, messages)
            messages.append(message)
            last = sent[-1] if sent else None
            can_join = last and last[0] is shard and last[1].is_base64 and self.parts == 1
            if last and can_join and chance.random() < 0.3:
                last[1].messages.append(message)
                continue
            is_base64 = kind is not Kind.GARBAGE or chance.random() < 0.5
            message.is_unread |= not is_base64 and self.stage.lane_kind == "by.partition_key"
            sent.append((shard, Arrival(shard.number(), [message], is_base64)))
        for shard, arrival in sent:
            for index, message in enumerate(arrival.messages):
                part = f":{index}" if len(arrival.messages) > 1 else ""
                message.id = f"readings/{shard.id}:{arrival.number}{part}"
        self.promise.prepare(messages)
        return sent

    def _kinds(self) -> list[Kind]:
        chance = self.chance
        bad = {Kind.REJECTED: 2, Kind.GARBAGE: 2}
        if self.stage.retry is not None:  # else what always fails is never given up
            bad |= {Kind.POISON: 2, Kind.REFUSED: 1}
            if self.is_claiming:  # else only the mapping's own limits find what kills the process
                bad[Kind.KILLER] = chance.choice([0, 1, 1])
        kinds = [Kind.HEALTHY] * chance.randint(10, 35)
        kinds += [kind for kind, most in bad.items() for _ in range(chance.randint(min(most, 1), most))]
        chance.shuffle(kinds)
        return kinds

    def _repeat(self, message: Message, earlier: Sequence[Message]) -> None:
        """The producer sends a key again, mostly with the same partition key."""
        chance = self.chance
        if (
            self.promise.name == "checkpoint"
            or not self.is_idempotent
            or message.kind not in (Kind.HEALTHY, Kind.REJECTED)
            or chance.random() >= (0.5 if self.is_marking and message.kind is Kind.REJECTED else 0.15)
        ):
            return
        is_anywhere = chance.random() < 0.4
        same = [one for one in earlier if one.kind is message.kind and (is_anywhere or one.lane == message.lane)]
        if same:
            first = chance.choice(same)
            message.key, message.outputs = first.key, first.outputs

    # -- what is asked of the engine

    @property
    def setting(self) -> str:
        lane = "by shard" if self.by_shard else "by lane" if self.by_lane else "by partition key"
        gathering = ", gathering" if self.archive in self.sinks else ""
        retry = "" if self.stage.retry else ", no back-off"
        return f"{self.promise.name}, stream of {len(self.shards)} shards in {self.parts} parts, {lane}{gathering}{retry}, batches of {self.batch_size}"

    def in_batch(self, host: Host, key: str) -> Message | None:
        """The record of this key that a process has in work."""
        if key in host.leases:
            return self.by_id[host.leases[key].record]
        same = [message for message in self.batches.get(host, []) if message.key == key]
        return same[0] if len(same) == 1 else None

    def check_place(self, host: Host, message: Message) -> None:
        for earlier in self.messages[: message.sequence]:
            is_open = earlier.lane == message.lane and not self.is_settled(earlier)
            if is_open and not self._is_gathered(host, earlier, message):
                self.fail(message.key, f"a run starts before {earlier.id} of its lane is settled")
        if message.id in self.put_aside:
            self.fail(message.key, f"{message.id} runs again, although it was put aside")
        if message.kind is Kind.POISON and host.runs[message.id] > ATTEMPTS + self.letters.failures[message.id]:
            self.fail(message.key, f"{message.id} runs {host.runs[message.id]} times on {host.name}")
        if message.kind is Kind.POISON and self.is_claiming:
            self.spent[message.id] += 1
            if self.spent[message.id] > ATTEMPTS + self.letters.failures[message.id]:
                self.fail(message.key, f"{message.id} runs {self.spent[message.id]} times")

    def _is_gathered(self, host: Host, message: Message, following: Message) -> bool:
        """It has run in this batch, and waits for the sink that gathers, or did when the following one had its turn."""
        if self.archive not in self.sinks or message not in self.batches[host] or message.key not in self.finished:
            return False
        at_once = [sink for sink in self.sinks_of(message) if sink is not self.archive]
        if not all((message.key, number) in sink.accepted for sink in at_once for number in range(message.outputs)):
            return False
        met_at = host.met.get(following.key, self.now)  # it may have waited meanwhile for its claim, or a retry
        return self.archive.failed[host, message.lane or ""].get(message.id, met_at) >= met_at - 1e-6

    # -- the mapping

    async def play(self) -> None:
        pollers = [asyncio.create_task(self._poll(shard)) for shard in self.shards]
        for shard, arrival in self.to_send:
            for message in arrival.messages:
                message.sent_at = self.now
            shard.put(arrival)
            if self.chance.random() < 0.3:
                await asyncio.sleep(self.chance.uniform(0, 3))
        self.faults_end = self.now + 60
        self.all_sent = True
        await asyncio.wait(pollers)
        for poller in pollers:
            poller.result()
        for host in self.idle:
            host.processor.close()
        if self.violation is None:
            self.check_end()

    async def _poll(self, shard: Shard) -> None:
        while self.violation is None:
            batch = shard.batch(self.batch_size)
            if not batch:
                if self.all_sent:
                    return
                await asyncio.sleep(0.25)
                continue
            if self.now > TOO_LONG:
                self.fail(batch[0].messages[0].key, f"{shard.id} is blocked")
            before = shard.checkpoint
            await self._deliver(shard, batch)
            if shard.checkpoint < before + len(batch):
                await asyncio.sleep(_AT_ONCE)

    async def _deliver(self, shard: Shard, batch: list[Arrival]) -> None:
        host = self._host()
        HERE.set(host)
        messages = self.batches[host] = [message for arrival in batch for message in arrival.messages]
        host.met.clear()
        for message in messages:
            message.receives += 1
        event = {"Records": [arrival.member(shard.id) for arrival in batch]}
        is_reusable = await self.invoke(host, (shard, batch), self.stage.source.decode(event))
        if host.is_dead:
            shard.settle(0, len(batch), limit=self.batch_size)
        # A letter may have been put for what comes again.
        again = messages if not is_reusable else [one for one in messages if not one.end]
        self.letter_faults.update(message.id for message in again)
        for place in [place for place in self.archive.failed if place[0] is host]:
            del self.archive.failed[place]
        del self.batches[host]
        if is_reusable:
            self.idle.append(host)

    def _host(self) -> Host:
        """An environment that is free: an earlier one, or another."""
        if self.idle and self.chance.random() < 0.9:
            return self.idle.pop(self.chance.randrange(len(self.idle)))
        self._hosts += 1
        return Host(self, f"h{self._hosts}")

    def respond(self, host: Host, received: Any, result: BatchResult) -> None:
        shard, batch = received
        self._check_lanes(result)
        if self.loses(host, self.batches[host]):
            shard.settle(0, len(batch), limit=self.batch_size)
            return
        unsettled = self.stage.source.unsettled_ids(result)
        numbers = [arrival.number for arrival in batch]
        if len(unsettled) > 1:
            self.fail(self.batches[host][0].key, "more than one number is reported")
        response = partial_response(unsettled)
        failed = named_failures(response, set(numbers)) if self.chance.random() < 0.98 else {numbers[0]}
        settled = numbers.index(min(failed, key=int)) if failed else len(numbers)
        for arrival in batch[:settled]:
            for message in arrival.messages:
                self.check_acknowledged(message)
                message.end = message.end or "acknowledged"
        self.checkpoints += bool(settled)
        shard.settle(settled, len(batch), limit=self.batch_size)

    def _check_lanes(self, result: BatchResult) -> None:
        """Within a batch nothing of a lane succeeds behind what is not settled."""
        unsettled: dict[str | None, str] = {}
        for record, outcome in result:
            message = self.by_id[record.id]
            if message.lane in unsettled and isinstance(outcome, Succeeded):
                self.fail(message.key, f"{message.id} succeeded behind {unsettled[message.lane]} of its lane")
            if not is_settled(outcome):
                unsettled.setdefault(message.lane, message.id)

    # -- the end

    def check_end(self) -> None:
        super().check_end()
        for message in self.messages:
            if not message.end:
                self.fail(message.key, f"{message.id} is not acknowledged")
            most = 1 + self.letter_faults[message.id] + self.letters.failures[message.id]
            if not self.is_idempotent and self.letters.counts[message.id] > most:
                self.fail(message.key, f"{message.id} has {self.letters.counts[message.id]} dead letters")


@cache
def _declared(mode: Mode | None, lane: Any, parts: int, fused: str | None) -> Stage:
    plant = Pipeline("plant", idempotency=mode)
    retry = Backoff(attempts=ATTEMPTS, base=2, cap=20)
    options: dict[str, Any] = {} if lane is None else {"lane": lane}
    if mode is not None and not isinstance(mode, Checkpoint):
        options["key"] = "key"
    if fused is not None:
        options["sinks"] = [sinks.Memory(name=fused)]
    source = sources.Kinesis("readings", parallelization_factor=parts)
    stage: Stage = plant.handler(source, retry=retry, **options)(handle).stage
    return stage
