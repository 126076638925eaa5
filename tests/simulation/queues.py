"""A queue before the engine: SQS, standard or FIFO, with the mapping's consumers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pipeline import Backoff, Checkpoint, Pipeline, sinks, sources
from pipeline.batch import BatchResult
from pipeline.emulator.mappings.response import named_failures
from pipeline.engine.modes import Mode
from pipeline.engine.stage import Stage
from pipeline.outcome import Failed, Unprocessed
from pipeline.record import RawRecord
from pipeline.runtimes.response import partial_response
from tests.simulation.model import ATTEMPTS, HERE, TOO_LONG, Host, Kind, Message, World, handle

MAX_RECEIVES = 20
#: Virtual seconds after which a consumer that found all groups blocked looks again: while there are faults, and later,
#: when all that is left is to come to an end.
_POLL, _LATE_POLL = 0.1, 1.0


class Queue:
    """SQS: at least once, any order; FIFO: a group waits while one of its messages is in flight."""

    def __init__(self, world: QueueWorld, *, is_fifo: bool, visibility: float) -> None:
        self.world = world
        self.is_fifo = is_fifo
        self.visibility = visibility
        self.messages: list[Message] = []

    @property
    def waiting(self) -> list[Message]:
        return [message for message in self.messages if not message.end]

    def send(self, message: Message) -> None:
        message.sent_at = message.visible_at = self.world.now
        self.messages.append(message)

    def receive(self, limit: int) -> list[tuple[Message, int]]:
        """Messages with their receipts. Those that were received too often are dead-lettered."""
        world, chance = self.world, self.world.chance
        visible = self._visible()
        if not self.is_fifo:
            chance.shuffle(visible)
        received: list[tuple[Message, int]] = []
        lapses_early = world.is_faulty and chance.random() < 0.05
        for message in visible[:limit]:
            message.receives += 1
            if message.receives > MAX_RECEIVES:
                message.end = "net"
                world.note(message.key, f"{message.id} is dead-lettered by the queue")
                continue
            message.receipt += 1
            message.visible_at = world.now + self.visibility
            received.append((message, message.receipt))
            if world.is_faulty and message.kind is not Kind.KILLER:
                if lapses_early or (not self.is_fifo and chance.random() < 0.04):
                    message.visible_at = world.now + chance.uniform(0, 5)
                    world.faults["visible too early"] += 1
                if not self.is_fifo and chance.random() < 0.02:
                    received.append((message, message.receipt))
                    world.faults["duplicate in a batch"] += 1
        return received

    def _visible(self) -> list[Message]:
        now = self.world.now
        if not self.is_fifo:
            return [message for message in self.waiting if message.visible_at <= now]
        blocked = {message.lane for message in self.waiting if message.visible_at > now}
        return [message for message in self.waiting if message.lane not in blocked]

    def expose(self, key: str) -> None:
        """The visibility timeout of a message ends before its time."""
        for message in self.waiting:
            if message.key == key:
                message.visible_at = min(message.visible_at, self.world.now + 1)

    def delay(self, message: Message, receipt: int, seconds: float) -> None:
        if not message.end and message.receipt == receipt:
            message.visible_at = self.world.now + seconds

    def delete(self, message: Message, receipt: int) -> None:
        is_current = message.receipt == receipt
        if not message.end and (is_current or (not self.is_fifo and self.world.chance.random() < 0.5)):
            message.end = "acknowledged"


@dataclass
class QueueWorld(World):
    """A run over a queue."""

    def set_up(self) -> None:
        chance = self.chance
        self.is_fifo = chance.random() < 0.5 or self.promise.name == "checkpoint"
        self.timeout = chance.choice([5.0, 12.0, 30.0])
        self.batch_size = chance.choice([1, 4, 10]) if self.is_fifo else chance.choice([1, 5, 10, 25])
        self.hosts = chance.randint(2, 4)
        self.queue = Queue(self, is_fifo=self.is_fifo, visibility=2 * self.timeout)
        declared = _declared(self.is_fifo, self.promise.mode(), getattr(self.promise, "fused", None))
        self.stage = replace(
            declared,
            sinks=tuple(self.sinks),
            dead_letters=self.letters,
            store=self.store if declared.store is not None else None,
            concurrency=chance.choice([1, 3, 100]),
        )
        self.remember(self._messages())
        killers = sum(message.kind is Kind.KILLER for message in self.messages)
        self.budget = ATTEMPTS - 1 - killers

    def _messages(self) -> list[Message]:
        chance = self.chance
        groups = [f"g{number}" for number in range(chance.randint(2, 6))] if self.is_fifo else [None]
        bad = {
            Kind.POISON: 2,
            Kind.REJECTED: 1,
            Kind.GARBAGE: 1,
            Kind.REFUSED: 1,
            Kind.KILLER: chance.choice([0, 1, 1]) if not self.is_marking else 0,  # only claims tell it from the others
        }
        kinds = [Kind.HEALTHY] * chance.randint(10, 30)
        kinds += [kind for kind, most in bad.items() for _ in range(chance.randint(min(most, 1), most))]
        chance.shuffle(kinds)
        spoilt: set[str | None] = set()  # followers of a failing head are received with it: one such head a group
        messages: list[Message] = []
        for sequence, kind in enumerate(kinds):
            group = chance.choice(groups)
            if self.is_fifo and kind in (Kind.POISON, Kind.KILLER, Kind.REFUSED):
                if group in spoilt:
                    kind = Kind.HEALTHY  # noqa: PLW2901
                spoilt.add(group)
            message = Message(f"m{sequence}", f"k{sequence}", kind, group, chance.randint(1, 3), sequence, scope=group)
            if self.promise.name == "checkpoint":  # it knows no keys
                pass
            elif kind is Kind.HEALTHY and chance.random() < 0.1:
                same = [one for one in messages if one.kind is Kind.HEALTHY and one.lane == group]
                if same:
                    message.key, message.outputs = same[-1].key, same[-1].outputs
            messages.append(message)
        self.promise.prepare(messages)
        return messages

    @property
    def setting(self) -> str:
        return f"{self.promise.name}, {'FIFO' if self.is_fifo else 'standard'}"

    def expose(self, key: str) -> None:
        self.queue.expose(key)

    def check_place(self, host: Host, message: Message) -> None:
        if self.is_fifo:
            for earlier in self.messages[: message.sequence]:
                if earlier.lane == message.lane and not self.is_settled(earlier):
                    self.fail(message.key, f"a run starts before {earlier.id} of its lane is settled")

    async def play(self) -> None:
        consumers = [asyncio.create_task(self._consume(f"h{number}")) for number in range(self.hosts)]
        for message in self.messages:
            self.queue.send(message)
            if self.chance.random() < 0.4:
                await asyncio.sleep(self.chance.uniform(0, 3))
        self.faults_end = self.now + 60
        self.all_sent = True
        await asyncio.wait(consumers)
        for consumer in consumers:
            consumer.result()
        if self.violation is None:
            self.check_end()

    async def _consume(self, name: str) -> None:
        lives = 0
        host = Host(self, f"{name}.{lives}")
        while self.violation is None and (self.queue.waiting or not self.all_sent):
            received = self.queue.receive(self.batch_size)
            if not received:
                nearest = min((message.visible_at for message in self.queue.waiting), default=self.now)
                least = _POLL if self.is_faulty else _LATE_POLL
                await asyncio.sleep(min(max(nearest - self.now, least), 5.0))
                if self.now > TOO_LONG:
                    stuck = self.queue.waiting[0]
                    self.fail(stuck.key, "the queue never drains")
                continue
            HERE.set(host)
            if not await self.invoke(host, received, self._records(received)):
                lives += 1
                host = Host(self, f"{name}.{lives}")
        host.processor.close()

    def _records(self, received: Sequence[tuple[Message, int]]) -> list[RawRecord]:
        return [
            RawRecord(
                id=message.id,
                source="orders",
                body=message.body,
                lane=message.lane,
                receive_count=message.receives,
                # Numbers of one group have different lengths.
                origin={"attributes": {"SequenceNumber": str(95 + message.sequence)}} if self.is_fifo else None,
            )
            for message, _ in received
        ]

    def respond(self, host: Host, received: Sequence[Any], result: BatchResult) -> None:
        if self.loses(host, [message for message, _ in received]):
            return
        outcomes = list(result.outcomes)
        for (message, receipt), outcome in zip(received, outcomes, strict=True):
            if isinstance(outcome, (Failed, Unprocessed)) and outcome.delay is not None:
                self.queue.delay(message, receipt, math.ceil(outcome.delay))
        unsettled = self.stage.source.unsettled_ids(result)
        failed = named_failures(partial_response(unsettled), {message.id for message, _ in received})
        for (message, receipt), outcome in zip(received, outcomes, strict=True):
            if message.id not in failed:
                self.check_acknowledged(message, outcome)
                self.queue.delete(message, receipt)


@cache
def _declared(is_fifo: bool, mode: Mode, fused: str | None) -> Stage:
    shop = Pipeline("shop", idempotency=mode)
    source = sources.SQS("orders.fifo" if is_fifo else "orders")
    options: dict[str, Any] = {} if isinstance(mode, Checkpoint) else {"key": "key"}
    if fused is not None:
        options["sinks"] = [sinks.Memory(name=fused)]
    handler = shop.handler(source, retry=Backoff(attempts=ATTEMPTS, base=2, cap=20), **options)(handle)
    stage: Stage = handler.stage
    return stage
