"""Runs a mapping's state machine: does what it asks for, through ports, and tells it what came of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from pipeline.emulator.activity import Activity
from pipeline.emulator.mappings.actions import (
    Action,
    BatchFailed,
    Commit,
    Delete,
    Dropped,
    Filtered,
    GivenUp,
    Invoke,
    ListShards,
    Message,
    Read,
    Receive,
    SendToDestination,
    Settled,
    Shard,
    Undelivered,
)
from pipeline.emulator.mappings.answers import Answer
from pipeline.emulator.mappings.machine import Machine, Page, QueueMachine, ShardMachine
from pipeline.emulator.report import Tally
from pipeline.errors import PipelineError, SinkError
from pipeline.ports import Clock

_log = logging.getLogger(__name__)
#: Rounds of one moment in which nothing happens, after which a mapping is taken to go round for ever.
_MOST_ROUNDS = 10_000


class Invocable(Protocol):
    """What a driver needs of a function: it answers always."""

    async def invoke(self, event: Any) -> Answer: ...


class Look:
    """What a port tells of its looks at a source, so that draining knows when nothing was there."""

    def __init__(self, activity: Activity) -> None:
        self.activity = activity
        self.what = ""  #: what it asks
        self.found_nothing_at = -1  #: the activity count at which it last looked and found nothing

    def found_nothing(self, count: int) -> None:
        """At this count nothing was there."""
        self.found_nothing_at = count
        self.activity.became_quiet()


class QueuePort(Protocol):
    """A queue, for its driver. Every method may raise what a client raises."""

    async def receive(self, wanted: Receive, look: Look) -> Sequence[Message]:
        """Messages, waiting for the first until `wanted.until`; empty: there was none."""
        ...

    async def delete(self, messages: Sequence[Message]) -> None:
        """Delete them."""
        ...


class ShardPort(Protocol):
    """A stream or topic, for its driver. Every method may raise what a client raises."""

    async def shards(self) -> Sequence[Shard]:
        """Its shards, ended ones included."""
        ...

    async def read(self, wanted: Read, look: Look) -> Page:
        """Records, waiting a while when there are none: Lambda reads each shard about once a second."""
        ...

    async def send(self, record: SendToDestination) -> None:
        """Send to an on-failure destination."""
        ...

    async def commit(self, wanted: Commit) -> None:
        """Commit a partition's offset."""
        ...


@dataclass(frozen=True, kw_only=True)
class Handling:
    """What a driver needs of the handler that it invokes, and of the run."""

    label: str  #: its name in the report
    function: Invocable
    tally: Tally
    activity: Activity
    clock: Clock


M = TypeVar("M", bound=Machine)
P = TypeVar("P")


class Driver(Generic[M, P]):
    """Common to all kinds: the loop, invocations, and facts. `wakes_at` and `quiet_at` say whether it waits, and for what."""

    def __init__(self, machine: M, port: P, handling: Handling) -> None:
        self.machine = machine
        self._port = port
        self._handling = handling
        self._activity = handling.activity
        self._tasks: set[asyncio.Task[None]] = set()
        self._looks: dict[asyncio.Task[None], Look] = {}  #: polls that wait for their source
        self._failure: BaseException | None = None
        self._unasked: set[str] = set()  #: of its source, what could not be asked
        self._is_stopping = False
        self._round: tuple[float, int] | None = None  #: when it last went round, and what had happened by then
        self._rounds = 0  #: how often since, at that time and without anything happening
        self._told_reason: str | None = None  #: why a whole batch came back, when that was last told

    def through(self, around: Callable[[P], P]) -> None:
        """Put something between this and its port. Call it before `run`."""
        self._port = around(self._port)

    @property
    def wakes_at(self) -> float | None:
        """When time alone brings something, in epoch seconds."""
        return self.machine.wakes_at

    @property
    def quiet_at(self) -> int:
        """The activity count at which its source last had nothing for it; -1: it has something to do."""
        # One that waits there was answered, if only that there is nothing.
        answered = {look.what for look in self._looks.values() if look.found_nothing_at >= 0}
        if self._unasked - answered or len(self._tasks) > len(self._looks):
            return -1
        return min((look.found_nothing_at for look in self._looks.values()), default=self._activity.count)

    async def run(self) -> None:
        """Poll, invoke and settle, until cancelled; what is at work then comes to its end. Raises what broke it."""
        try:
            while True:
                self._step()
                await self._wait()
                if self._failure is not None:
                    raise self._failure
        finally:
            await self._stop()

    def _commands(self) -> dict[type, Callable[[Any], Coroutine[Any, Any, None]]]:
        """What does each of the machine's commands."""
        return {Invoke: self._invoke}

    def _polls(self) -> dict[type, Callable[[Any, Look], Coroutine[Any, Any, None]]]:
        """What looks at the source, and waits there: it does not keep a run from being idle."""
        return {}

    def _step(self) -> None:
        commands, polls = self._commands(), self._polls()
        for action in self.machine.actions(self._handling.clock.now()):
            kind = type(action)
            if self._is_stopping and (kind in polls or kind in (Invoke, ListShards)):
                continue  # what is at work comes to its end, and nothing new begins
            if kind in polls:
                look = Look(self._activity)
                self._looks[self._start(polls[kind](action, look))] = look
            elif kind in commands:
                self._activity.began()
                self._start(commands[kind](action)).add_done_callback(self._ended)
            else:
                self._note(action)

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._looks.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            self._failure = task.exception()
        self._activity.became_quiet()

    def _ended(self, _: object) -> None:
        self._activity.ended()

    async def _wait(self) -> None:
        wakes_at, now = self.machine.wakes_at, self._handling.clock.now()
        if wakes_at is not None and wakes_at <= now:
            self._check_progress(now)
        await self._activity.wait(None if wakes_at is None else max(0.0, wakes_at - now))

    def _check_progress(self, now: float) -> None:
        """Raise `PipelineError` instead of going round for ever: time stands still, and the mapping wants no time."""
        here = now, self._activity.count
        self._rounds = self._rounds + 1 if here == self._round else 0
        self._round = here
        if self._rounds >= _MOST_ROUNDS:
            raise PipelineError(f"the mapping of '{self._handling.label}' goes round and does nothing: its settings?")

    async def _stop(self) -> None:
        self._is_stopping = True
        for task in self._looks:
            task.cancel()
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _invoke(self, wanted: Invoke) -> None:
        self._handling.tally.delivered(wanted.ids)
        answer = await self._handling.function.invoke(wanted.event)
        self._told(self.machine.answered, wanted.batch, answer)

    def _told(self, tell: Callable[..., None], *what: Any) -> None:
        """Tell the machine, and do at once what follows."""
        tell(*what, self._handling.clock.now())
        self._step()

    async def _ask(self, what: str, call: Awaitable[Any], look: Look | None = None) -> tuple[bool, Any]:
        """Like `_try`, of the source: until this can be asked again, nobody knows that nothing is left."""
        if look is not None:
            look.what = what
        is_done, answer = await self._try(what, call)
        if is_done:
            self._unasked.discard(what)
        else:
            self._unasked.add(what)
        return is_done, answer

    async def _try(self, what: str, call: Awaitable[Any]) -> tuple[bool, Any]:
        """What a port answered; False: it failed, and a warning says so. Raises `PipelineError` for a run that is wrong."""
        try:
            return True, await call
        except Exception as error:
            if isinstance(error, PipelineError) and not isinstance(error, SinkError):
                raise  # what is declared is wrong, and stays wrong
            # The server may come back: a mapping polls for ever, as AWS's does.
            _log.warning("%s: cannot %s: %s", self._handling.label, what, error)
            return False, None

    def _note(self, fact: Action) -> None:
        tally, label = self._handling.tally, self._handling.label
        if isinstance(fact, Settled):
            tally.deleted(fact.ids)
        elif isinstance(fact, Filtered):
            tally.filtered(fact.ids)
        elif isinstance(fact, GivenUp):
            tally.given_up(fact.ids)
            _log.error("%s: %s: %d records are given up: %s", label, fact.where, len(fact.ids), fact.reason)
        elif isinstance(fact, BatchFailed) and fact.is_whole:
            tally.invocation_failed()
            is_told, self._told_reason = fact.reason == self._told_reason, fact.reason
            (first, *_) = fact.reason.splitlines() or [""]
            _log.error("%s: the whole batch comes back%s", label, " again" if is_told else f": {first}")
        elif isinstance(fact, Dropped):
            _log.warning("%s: %d messages are let go unhandled, which costs each a receive", label, len(fact.ids))
        elif isinstance(fact, Undelivered):
            _log.error(
                "%s: the on-failure destination %s did not take %d records", label, fact.destination, len(fact.ids)
            )


class QueueDriver(Driver[QueueMachine, QueuePort]):
    """Runs a queue's mapping."""

    def _commands(self) -> dict[type, Callable[[Any], Coroutine[Any, Any, None]]]:
        return {**super()._commands(), Delete: self._delete}

    def _polls(self) -> dict[type, Callable[[Any, Look], Coroutine[Any, Any, None]]]:
        return {Receive: self._receive}

    async def _receive(self, wanted: Receive, look: Look) -> None:
        is_done, messages = await self._ask("receive", self._port.receive(wanted, look), look)
        if not is_done:
            self._told(self.machine.not_received, wanted.poll)
            return
        if messages:
            self._activity.happened()
        self._told(self.machine.received, wanted.poll, messages)

    async def _delete(self, wanted: Delete) -> None:
        # What is not deleted comes back: to be filtered again, or to be a duplicate.
        await self._try("delete", self._port.delete(wanted.messages))


class ShardDriver(Driver[ShardMachine, ShardPort]):
    """Runs a stream's or topic's mapping."""

    def _commands(self) -> dict[type, Callable[[Any], Coroutine[Any, Any, None]]]:
        return {**super()._commands(), ListShards: self._list, SendToDestination: self._send, Commit: self._commit}

    def _polls(self) -> dict[type, Callable[[Any, Look], Coroutine[Any, Any, None]]]:
        return {Read: self._read}

    async def _list(self, _: ListShards) -> None:
        is_done, shards = await self._ask("list the shards", self._port.shards())
        if is_done:
            self._told(self.machine.listed, shards)
        else:
            self._told(self.machine.not_listed)

    async def _read(self, wanted: Read, look: Look) -> None:
        is_done, page = await self._ask(f"read {wanted.shard}", self._port.read(wanted, look), look)
        if not is_done:
            self._told(self.machine.not_read, wanted.shard)
            return
        if page.records or page.has_ended:
            self._activity.happened()
        self._told(self.machine.was_read, wanted.shard, page)

    async def _send(self, wanted: SendToDestination) -> None:
        is_done, _ = await self._try(f"send to {wanted.destination}", self._port.send(wanted))
        self._told(self.machine.sent if is_done else self.machine.not_sent, wanted.send)

    async def _commit(self, wanted: Commit) -> None:
        # What is not committed comes again to whoever takes over.
        await self._try(f"commit {wanted.shard}", self._port.commit(wanted))
