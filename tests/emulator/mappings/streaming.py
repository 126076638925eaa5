"""A stream in memory, and what a driver does with a stream's mapping, one step at a time. No loop, no clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeVar

from pipeline.emulator.mappings.actions import (
    Action,
    Invoke,
    ListShards,
    Read,
    SendToDestination,
    Settled,
    Shard,
    StreamRecord,
)
from pipeline.emulator.mappings.answers import Answer, Cause, FunctionFailed, Returned
from pipeline.emulator.mappings.machine import Page, ShardMachine
from pipeline.emulator.mappings.settings import StreamSettings
from pipeline.emulator.mappings.stream import StreamMapping

NOW = 1_700_000_040.0  #: a whole minute
ARN = "arn:aws:kinesis:us-east-1:123456789012:stream/clicks"
RAISED = FunctionFailed(Cause.RAISED, "ValueError", "no")

T = TypeVar("T")


def settings(**options: Any) -> StreamSettings:
    return StreamSettings(**{"source_arn": ARN, "function_name": "count", **options})


def named(*numbers: Any) -> Returned:
    """A response that names these records."""
    return Returned({"batchItemFailures": [{"itemIdentifier": number} for number in numbers]})


class World:
    """Lists and reads are answered at once; invocations and sends wait for the test. A read of nothing waits for news."""

    def __init__(self, options: StreamSettings | None = None, *, shards: Sequence[str] = ("a",), **more: Any) -> None:
        self.now = NOW
        self.parents: dict[str, tuple[str, ...]] = dict.fromkeys(shards, ())
        self.records: dict[str, list[StreamRecord]] = {shard: [] for shard in shards}
        self.closed: set[str] = set()
        self.mapping = StreamMapping(options or settings(), more.pop("kind", "kinesis"), **more)
        self.waiting: list[Invoke] = []  #: invocations that are at work
        self.invocations: list[Invoke] = []
        self.sends: list[SendToDestination] = []
        self.reads: list[Read] = []
        self.facts: list[Action] = []
        self.listings = 0
        self._parked: dict[str, Read] = {}
        self._next = 8  # so that a tenth number is longer than its neighbours
        machine: ShardMachine = self.mapping
        assert machine.held == 0

    def put(
        self, *keys: str, shard: str = "a", size: int = 100, data: Any = b"{}", at: float | None = None
    ) -> list[str]:
        """Records of these partition keys; gives their sequence numbers."""
        numbers: list[str] = []
        for key in keys:
            number = str(self._next)
            self._next += 1
            member = {"key": key, "number": number}
            arrived = self.now if at is None else at
            self.records[shard].append(StreamRecord(number, member, size, arrived, key, data, (number,)))
            numbers.append(number)
        return numbers

    def split(self, shard: str, *children: str) -> None:
        """Close a shard. Its children are its only successors."""
        self.closed.add(shard)
        for child in children:
            self.parents[child] = (*self.parents.get(child, ()), shard)
            self.records.setdefault(child, [])

    def run(self) -> World:
        """Do what is to be done until only answers are waited for."""
        while True:
            actions = self.mapping.actions(self.now)
            for action in actions:
                self._do(action)
            if not actions and not self._read_news():
                return self

    def pass_time(self, seconds: float) -> World:
        """Let time pass; reads that wait come back empty, and are asked again."""
        self.now += seconds
        for shard, read in list(self._parked.items()):
            del self._parked[shard]
            self.mapping.was_read(shard, self._page(read), self.now)
        return self.run()

    def wake(self) -> World:
        """Let time pass until the mapping wants to be woken."""
        assert self.mapping.wakes_at is not None
        self.now = max(self.now, self.mapping.wakes_at)
        return self.run()

    def answer(self, answer: Answer | None = None) -> World:
        """Answer what has been at work longest; with success, unless told otherwise."""
        self.mapping.answered(self.waiting.pop(0).batch, Returned(None) if answer is None else answer, self.now)
        return self.run()

    def at_work(self) -> list[list[str]]:
        """The sequence numbers of the batches that are at work."""
        return [numbers(one) for one in self.waiting]

    def of(self, kind: type[T]) -> list[T]:
        """The facts of one kind."""
        return [fact for fact in self.facts if isinstance(fact, kind)]

    def settled(self) -> list[str]:
        return [name for fact in self.of(Settled) for name in fact.ids]

    def _do(self, action: Action) -> None:
        match action:
            case ListShards():
                self.listings += 1
                self.mapping.listed([Shard(shard, parents) for shard, parents in self.parents.items()], self.now)
            case Read():
                self.reads.append(action)
                self._read(action)
            case Invoke():
                json.dumps(action.event)
                self.waiting.append(action)
                self.invocations.append(action)
            case SendToDestination():
                self.sends.append(action)
            case _:
                self.facts.append(action)

    def _read_news(self) -> bool:
        """Reads that wait and have something now."""
        found = [read for read in self._parked.values() if self._page(read).records or read.shard in self.closed]
        for read in found:
            del self._parked[read.shard]
            self._read(read)
        return bool(found)

    def _read(self, read: Read) -> None:
        if read.after is None and read.position == "LATEST":
            here = self.records[read.shard]
            read = Read(read.shard, here[-1].number if here else "0", "", None, read.limit)
        page = self._page(read)
        if page.records or page.has_ended:
            self.mapping.was_read(read.shard, page, self.now)
        else:
            self._parked[read.shard] = read

    def _page(self, read: Read) -> Page:
        after = -1 if read.after is None else int(read.after)
        since = read.timestamp if read.after is None and read.timestamp is not None else 0.0
        found = [one for one in self.records[read.shard] if int(one.number) > after and one.arrived_at >= since]
        behind = 1000 if len(found) > read.limit else 0
        has_ended = read.shard in self.closed and len(found) <= read.limit
        return Page(found[: read.limit], has_ended, behind)


def numbers(invocation: Invoke) -> list[str]:
    return [member["number"] for member in invocation.event["Records"]]
