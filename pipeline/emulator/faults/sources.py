"""Faults of sources: what stands between a mapping's driver and its queue or stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pipeline.emulator.driver import Look, QueuePort, ShardPort
from pipeline.emulator.faults.functions import Hidden
from pipeline.emulator.faults.kinds import Kind, Point
from pipeline.emulator.faults.plan import Faults, Now
from pipeline.emulator.mappings.actions import Commit, Message, Read, Receive, SendToDestination, Shard
from pipeline.emulator.mappings.machine import Page

#: What a poison record holds.
POISON = "poison: no handler can process this"

#: Sends one more record to the source; None where poison could not be put anywhere in the end.
Spoil = Callable[[], Awaitable[Any]]


class FaultyQueue:
    """A queue in which deletions do not always take, and where poison turns up; see `QueuePort`.

    A message comes once more when one of the servers that hold it was away while it was deleted (SQS developer guide,
    "At-least-once delivery"). `hidden`: is told for how long the messages are.
    """

    def __init__(
        self, inner: QueuePort, name: str, faults: Faults, now: Now, spoil: Spoil | None, hidden: Hidden
    ) -> None:
        self._inner = inner
        self._name = name
        self._faults = faults
        self._now = now
        self._spoil = spoil
        self._hidden = hidden

    async def receive(self, wanted: Receive, look: Look) -> Sequence[Message]:
        """See `QueuePort`."""
        if wanted.visibility is not None:
            self._hidden.seconds = wanted.visibility
        messages = await self._inner.receive(wanted, look)
        if messages:
            self._spoil = await _poisoned(self._name, self._faults, self._now, self._spoil)
        return messages

    async def delete(self, messages: Sequence[Message]) -> None:
        """See `QueuePort`."""
        point = Point(self._name, "deletion")
        if self._faults.at(point, (Kind.DUPLICATE,), self._now()) is not None:
            chance = self._faults.chance(point, "messages")
            stays = chance.randrange(len(messages))
            deleted = {at for at in range(len(messages)) if at != stays and chance.random() < 0.5}
            again = [message.id for at, message in enumerate(messages) if at not in deleted]
            self._faults.note(self._name, "will hand out", self._now(), again, "once more")
            messages = [message for at, message in enumerate(messages) if at in deleted]
        if messages:
            await self._inner.delete(messages)


class FaultyShards:
    """A stream in which poison turns up; see `ShardPort`."""

    def __init__(self, inner: ShardPort, name: str, faults: Faults, now: Now, spoil: Spoil | None) -> None:
        self._inner = inner
        self._name = name
        self._faults = faults
        self._now = now
        self._spoil = spoil

    async def shards(self) -> Sequence[Shard]:
        """See `ShardPort`."""
        return await self._inner.shards()

    async def read(self, wanted: Read, look: Look) -> Page:
        """See `ShardPort`."""
        page = await self._inner.read(wanted, look)
        if page.records:
            self._spoil = await _poisoned(self._name, self._faults, self._now, self._spoil)
        return page

    async def send(self, record: SendToDestination) -> None:
        """See `ShardPort`."""
        await self._inner.send(record)

    async def commit(self, wanted: Commit) -> None:
        """See `ShardPort`."""
        await self._inner.commit(wanted)


async def _poisoned(name: str, faults: Faults, now: Now, spoil: Spoil | None) -> Spoil | None:
    """Let poison turn up, once. What does it if it has not yet."""
    if spoil is None or faults.at(Point(name, "receive"), (Kind.POISON,), now()) is None:
        return spoil
    # What is received now must come to the machine, also when the run ends in this moment.
    await asyncio.shield(asyncio.ensure_future(spoil()))
    return None
