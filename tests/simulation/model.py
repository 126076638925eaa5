"""The world around the engine, in virtual time: a store, sinks and processes that fail. `queues` and `streams` feed it.

The engine is the real one. Everything else is a model that keeps book of what happened, so that
every promise is checked from outside: the engine's own word is taken for nothing. All chance comes
from one `random.Random(seed)`, and the loop is deterministic, so a seed is a run.

Faults that cost a record an attempt are budgeted, so that a healthy record that is dead-lettered
is always a bug. Faults stop after a while; then everything must come to its end.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum, StrEnum, auto
from typing import Any, ClassVar, NoReturn

from pipeline import Checkpoint, Claim, Context, Emit, Fused, Record, Reject, Retry
from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline, deadline
from pipeline.decisions.idempotency import Advance, Claimed, Complete, Entry, Forget, Release, State, state_of
from pipeline.decisions.keys import entry_id, key_text
from pipeline.emulator.virtual import EPOCH, VirtualClock, virtually
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.modes import Keyed, Mode
from pipeline.engine.processor import Processor
from pipeline.engine.stage import Stage
from pipeline.errors import SinkError, SinkRefused, SinkUnavailable, StoreUnavailable
from pipeline.outcome import SETTLED, Duplicate, Outcome, Rejected, Succeeded, name_of
from pipeline.output import Output
from pipeline.ports import DeadLetter
from pipeline.record import RawRecord
from pipeline.stores import Memory
from pipeline.telemetry.log import logger_for
from pipeline.telemetry.metrics import metrics_for

ATTEMPTS = 5
#: Virtual seconds after which what is not settled never will be.
TOO_LONG = 20_000.0


class Kind(StrEnum):
    """What a record is like."""

    HEALTHY = "healthy"
    POISON = "poison"  #: its handler always raises
    REJECTED = "rejected"  #: its handler raises `Reject`
    GARBAGE = "garbage"  #: its body is no JSON
    REFUSED = "refused"  #: one sink never takes its outputs
    KILLER = "killer"  #: its handler ends the process


class Fault(Enum):
    """What a call over the network meets."""

    NONE = auto()
    BEFORE = auto()  #: nothing was done
    AFTER = auto()  #: it was done, and the reply is lost
    SLOW = auto()
    KILL_BEFORE = auto()  #: the process dies, and nothing was done
    KILL_AFTER = auto()  #: the process dies after it was done


_NAMES = {
    Fault.BEFORE: "throttled call",
    Fault.AFTER: "lost reply",
    Fault.SLOW: "slow call",
    Fault.KILL_BEFORE: "kill before a call",
    Fault.KILL_AFTER: "kill after a call",
}


@dataclass(eq=False)
class Message:
    """A record as its producer sent it, and where it stands in its queue, if it is in one."""

    id: str
    key: str
    kind: Kind
    lane: str | None  #: what the engine keeps in order
    outputs: int
    sequence: int
    sent_at: float = 0.0
    visible_at: float = 0.0
    receives: int = 0
    receipt: int = 0
    end: str = ""  #: "acknowledged" or "net"; empty while it is in the queue or stream
    order: str = ""  #: what the source itself keeps in order: a partition key
    user_lane: str = ""  #: where the payload has a lane of its own
    scope: Any = None  #: what its source delivers in order, one batch after the other
    is_unread: bool = False  #: its lane cannot be known, so that no place passes it before it is settled
    to: tuple[str, ...] | None = None  #: the sinks that its outputs are for; None: all

    @property
    def body(self) -> str:
        return "{no json" if self.kind is Kind.GARBAGE else json.dumps({"key": self.key, "lane": self.user_lane})


class Host(ProcessEnvironment):
    """One process: it takes batches until it dies."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(clock=VirtualClock(), chance=world.chance.random, token=self._next_token)
        self.world = world
        self.name = name
        self.is_dead = False
        self.died = asyncio.Event()
        self.cut_off_until = 0.0  #: the store is out of this host's reach until then
        self.deadline = Deadline()
        self.may_be_killed = True
        self.leases: dict[str, Lease] = {}  #: open ones, by key
        self.runs: Counter[str] = Counter()  #: of each record, since it was last settled
        self.met: dict[str, float] = {}  #: by key: when it first had its turn in the present batch
        self.keys: set[str] = set()  #: of the present batch
        self.asked: set[str] = set()  #: keys of the present batch that more than the process was asked about
        self.done: set[str] = set()  #: keys that were done here
        self.aside: set[str] = set()  #: records of a stream that were put aside here
        self._tokens = 0
        self.processor = Processor(world.stage, self, logger=_LOGGER, metrics=_METRICS)

    def _next_token(self) -> str:
        self._tokens += 1
        return f"{self.name}.{self._tokens}"

    @property
    def at_stake(self) -> list[str]:
        """Keys that come again when this host dies. Claims know which; else it is the whole batch."""
        return sorted(self.keys if self.world.is_marking else self.leases)

    def kill(self) -> None:
        """SIGKILL: from this instant it does nothing any more."""
        if self.is_dead:
            return
        self.is_dead = True
        self.died.set()
        for run in [run for run in self.world.running if run.host is self]:
            run.end("killed")
        for key in self.leases:
            self.world.note(key, f"{self.name} is killed, holding the claim")
            self.world.repeatable.add(key)
        self.world.repeatable.update(self.at_stake)
        self.world.kills += 1

    async def sleep(self, seconds: float) -> None:
        """Wait; a dead process never goes on."""
        await asyncio.sleep(seconds)
        if self.is_dead:
            await never()

    async def die(self) -> NoReturn:
        self.kill()
        return await never()


async def never() -> NoReturn:
    """A dead process's place."""
    await asyncio.Event().wait()
    raise AssertionError


#: The process in which the running task is.
HERE: ContextVar[Host] = ContextVar("HERE")


@dataclass(eq=False)
class Lease:
    """One granted claim, as the store's books show it."""

    owner: str
    key: str
    host: Host
    attempt: int
    was_lapsed: bool  #: it was taken over from a run that died
    outputs: str | None
    has_failed: bool = False  #: its run failed, or a sink refused: an attempt
    has_finished: bool = False  #: its handler ended well, with outputs
    excuse: str = ""  #: why it may lapse although its host lives
    record: str = ""  #: the id of the record that it is for
    is_lettered: bool = False  #: the record was put into the dead-letter queue


@dataclass(eq=False)
class Run:
    """One run of the handler."""

    key: str
    host: Host
    world: World
    lease: Lease | None
    how: str = "running"

    def end(self, how: str) -> None:
        if self.how != "running":
            return
        self.how = how
        self.world.running.remove(self)
        self.world.note(self.key, f"{self.host.name} run {how}")
        if self.lease is not None:
            self.lease.has_failed |= how in ("failed", "cut")
            self.lease.has_finished |= how == "finished"


class Promise:
    """What an idempotency mode promises of repeats. Of `Claim`: the other books are `Store`'s.

    The other modes are in `modes`.
    """

    name: ClassVar[str] = "claim"
    often: ClassVar[Sequence[str]] = ()  #: what must happen for the checks to mean something
    sometimes: ClassVar[Sequence[str]] = ()
    written_before_refusal = frozenset({"ledger"})  #: sinks that may have what "events" never takes

    def __init__(self, world: World) -> None:
        self.world = world
        self.excused: defaultdict[Host, set[str]] = defaultdict(set)  #: by host: keys whose write the store may lack
        self.counts: Counter[str] = Counter()  #: what happened

    def mode(self) -> Mode:
        """The mode, with options by chance."""
        return Claim(lease=self.world.chance.choice([5.0, 5.0, 20.0, 60.0]))

    def prepare(self, messages: Sequence[Message]) -> None:
        """What is to be sent may differ from mode to mode."""

    def begins(self, host: Host, records: Sequence[RawRecord]) -> None:
        """A batch begins."""
        self.excused.pop(host, None)

    def starts(self, host: Host, message: Message) -> None:
        """A run starts: may it?"""

    def puts_aside(self, host: Host, message: Message) -> None:
        """A dead letter is written: may it be?"""

    def failed(self, host: Host, keys: Sequence[str], *, is_gathering: bool) -> None:
        """A sink has not accepted something of these."""

    def may_take_again(self, key: str) -> bool:
        """May a sink get what it has accepted before?"""
        return key in self.world.repeatable or not self.world.is_idempotent

    def looked(self, host: Host, keys: Sequence[str]) -> None:
        """The store was read for these."""

    def marked(self, host: Host, key: str, before: Entry | None, entry: Entry) -> None:
        """An entry stands in the store now."""

    def moved(self, host: Host, advance: Advance, has_moved: bool) -> None:
        """A place stands in the store now, or a later one does."""

    def ends(self, host: Host, result: BatchResult, *, is_cut: bool) -> None:
        """A batch is answered; `is_cut`: at the hard deadline, so that writes may be missing."""


class Store:
    """A store behind a network that fails; its books show every claim."""

    def __init__(self, world: World, inner: Memory) -> None:
        self.world = world
        self.inner = inner
        self.by_owner: dict[str, Lease] = {}

    def entry(self, identifier: str) -> Entry | None:
        return self.inner._entries.get(identifier)

    async def claim(self, requests: Sequence[Any], host: Host) -> Sequence[Any]:
        async def do() -> list[Any]:
            found = [self.entry(request.id) for request in requests]
            answers = list(await self.inner.claim(requests, host))
            for request, before, answer in zip(requests, found, answers, strict=True):
                self._claimed(request, before, answer, host)
            return answers

        for request in requests:
            host.met.setdefault(self.world.keys[request.id], self.world.now)
        return await self._call("claim", requests, host, do, (0.05, 0.03, 0.02, 0.004))

    async def look(self, ids: Sequence[str], host: Host) -> Sequence[Any]:
        keys = [self._keys(identifier, host) for identifier in ids]

        async def do() -> list[Any]:
            for some in keys:
                self.world.promise.looked(host, some)
            return list(await self.inner.look(ids, host))

        for key in [key for some in keys for key in some]:
            host.met.setdefault(key, self.world.now)
        return await self._call_for("look", keys, host, do, (0.05, 0.03, 0.02, 0.004))

    async def mark(self, entries: Sequence[Any], host: Host) -> Sequence[Any]:
        keys = [self._keys(entry.id, host) for entry in entries]

        async def do() -> list[Any]:
            found = [self.entry(entry.id) for entry in entries]
            answers = list(await self.inner.mark(entries, host))
            for (key,), before, entry in zip(keys, found, entries, strict=True):
                self.world.promise.marked(host, key, before, entry)
            return answers

        return await self._call_for("mark", keys, host, do, (0.04, 0.04, 0.02, 0.006))

    async def advance(self, advances: Sequence[Any], host: Host) -> Sequence[Any]:
        keys = [self._keys(advance.id, host) for advance in advances]

        async def do() -> list[Any]:
            answers = list(await self.inner.advance(advances, host))
            for advance, answer in zip(advances, answers, strict=True):
                self.world.promise.moved(host, advance, answer)
            return answers

        return await self._call_for("advance", keys, host, do, (0.04, 0.04, 0.02, 0.006))

    def _keys(self, identifier: str, host: Host) -> list[str]:
        """The keys that an entry is about. A place may be about any of the batch."""
        key = self.world.keys.get(identifier)
        keys = sorted(host.keys) if key is None else [key]
        host.asked.update(keys)
        return keys

    async def _call_for(self, what: str, keys: list[list[str]], host: Host, do: Any, odds: Any) -> Sequence[Any]:
        """A call that holds nothing: trouble means only that something may not be written."""

        def unanswered(positions: Sequence[int], why: str, *, is_excused: bool) -> None:
            for key in [key for position in positions for key in keys[position]]:
                self.world.note(key, f"{host.name} {why}")
                if what != "look":
                    self.world.repeatable.add(key)
                if what != "look" or self.world.promise.name == "mark":  # which looks before it writes a rejection, too
                    self.world.promise.excused[host].add(key)

        try:
            return await self._over_the_network(what, keys, unanswered, host, do, odds)
        except StoreUnavailable:
            unanswered(range(len(keys)), f"{what}: out of reach", is_excused=True)
            raise
        except asyncio.CancelledError:
            unanswered(range(len(keys)), f"{what}: its host did not wait for the answer", is_excused=True)
            raise

    async def settle(self, settlements: Sequence[Any], host: Host) -> Sequence[Any]:
        async def do() -> list[Any]:
            answers: list[Any] = []
            for settlement in settlements:
                before = self.entry(settlement.id)
                answers += await self.inner.settle([settlement], host)
                self._settled(settlement, before, answers[-1], host)
            return answers

        for settlement in settlements:
            self._check_release(settlement, host)
        return await self._call("settle", settlements, host, do, (0.04, 0.04, 0.02, 0.006))

    async def renew(self, renewals: Sequence[Any], host: Host) -> Sequence[Any]:
        async def do() -> list[Any]:
            return list(await self.inner.renew(renewals, host))

        return await self._call("renew", renewals, host, do, (0.0, 0.05, 0.0, 0.0))

    async def _call(self, what: str, items: Sequence[Any], host: Host, do: Any, odds: Any) -> Sequence[Any]:
        def unanswered(positions: Sequence[int], why: str, *, is_excused: bool) -> None:
            for item in [items[position] for position in positions]:
                self.world.note(self.world.keys[item.id], f"{host.name} {why}")
                if is_excused:
                    self.world.excuse(self.by_owner.get(item.owner), why)

        keys = [[self.world.keys[item.id]] for item in items]
        host.asked.update(key for (key,) in keys)
        try:
            return await self._over_the_network(what, keys, unanswered, host, do, odds)
        except asyncio.CancelledError:
            for item in items:
                self.world.excuse(self.by_owner.get(item.owner), "its host did not wait for the answer")
            raise

    async def _over_the_network(
        self, what: str, keys_of: list[list[str]], unanswered: Any, host: Host, do: Any, odds: Any
    ) -> Sequence[Any]:
        world = self.world
        keys = [key for some in keys_of for key in some]
        items = range(len(keys_of))
        is_out = world.is_out("store") and (
            what in ("claim", "look") or world.charge(keys)
        )  # what is not settled lapses
        if is_out or world.now < host.cut_off_until:
            world.faults["store out of reach"] += 1
            await host.sleep(0.05)
            if is_out:
                unanswered(items, f"{what}: an outage", is_excused=what != "claim")
            raise StoreUnavailable("out of reach")
        fault = world.fault(host, keys, odds, _COSTS.get(what))
        if fault is Fault.SLOW:  # slower than the lease, perhaps
            unanswered(items, f"{what}: slow", is_excused=True)
        await host.sleep(world.chance.uniform(2, 6) if fault is Fault.SLOW else 0.004)
        if fault is Fault.KILL_BEFORE:
            await host.die()
        if fault is Fault.BEFORE:
            unanswered(items, f"{what}: nothing was done", is_excused=what == "settle")
            raise StoreUnavailable("refused before the write")
        answers = list(await do())
        if fault is Fault.KILL_AFTER:
            await host.die()
        if fault is Fault.SLOW:
            unanswered(items, f"{what}: done at last", is_excused=True)
        await host.sleep(0.004)
        if fault is Fault.AFTER:
            struck = [position for position in range(len(items)) if world.chance.random() < 0.7]
            unanswered(struck, f"{what}: reply lost", is_excused=True)
            for position in struck:
                answers[position] = StoreUnavailable("the reply was lost")
        return answers

    def _claimed(self, request: Any, before: Entry | None, answer: Any, host: Host) -> None:
        world, key = self.world, self.world.keys[request.id]
        if not isinstance(answer, Claimed):
            world.note(key, f"{host.name} claim: {type(answer).__name__}")
            return
        found = state_of(before, request.owner, world.now + EPOCH)
        if found is State.LAPSED and before is not None:
            last = self.by_owner.get(before.owner or "")
            if last is not None and not last.host.is_dead and not last.excuse:
                world.fail(key, f"the claim of {last.owner} lapsed although nothing went wrong: an attempt too many")
        lease = Lease(request.owner, key, host, answer.attempt, found is State.LAPSED, answer.outputs)
        lease.record = request.record
        self.by_owner[request.owner] = host.leases[key] = lease
        world.note(key, f"{lease.owner} claims, attempt {answer.attempt}{', lapsed' if lease.was_lapsed else ''}")

    def _check_release(self, settlement: Any, host: Host) -> None:
        """What the engine wants written, before the network has its say."""
        world = self.world
        lease = self.by_owner.get(settlement.owner)
        if not isinstance(settlement, Release) or lease is None:
            return
        if settlement.attempts >= lease.attempt and not lease.has_failed:
            world.fail(lease.key, f"{lease.owner} counts an attempt although no run failed")
        is_owing = lease.has_finished or lease.outputs is not None
        if is_owing and settlement.outputs is None and lease.record not in settlement.rejected:
            world.fail(lease.key, f"{lease.owner} gives back the claim without the outputs of its finished run")

    def _settled(self, settlement: Any, before: Entry | None, answer: Any, host: Host) -> None:
        world, key = self.world, self.world.keys[settlement.id]
        after = self.entry(settlement.id)
        name = type(settlement).__name__.lower()
        world.note(key, f"{settlement.owner} {name}: {answer}")
        lease = self.by_owner[settlement.owner]
        if host.leases.get(key) is lease:
            del host.leases[key]
        if after is before:
            return
        if before is not None and not before.is_owned_by(settlement.owner):
            world.fail(key, f"{settlement.owner} ended the claim of {before.owner}: {name}")
        if isinstance(settlement, Complete):
            if not world.has_all_accepted(world.first[key]):
                world.fail(key, "is completed before every sink has accepted")
            world.completed.add(key)
        if isinstance(settlement, Forget):  # a redrive, or a lost response, starts anew
            world.repeatable.add(key)
        if world.is_stream and lease.is_lettered and isinstance(settlement, (Forget, Release)):
            world.put_aside.add(lease.record)
        if isinstance(settlement, Release) and settlement.outputs is not None:
            world.kept.add(key)
        else:
            world.kept.discard(key)


#: Faults of a store call that cost its records an attempt: the claim stays and lapses.
_COSTS = {"claim": Fault.AFTER, "settle": Fault.BEFORE}


class Sink:
    """A sink that is throttled, refuses, or applies what it then does not confirm."""

    gathers = False

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.effects: dict[tuple[str, int], str] = {}  #: (key, index) -> the output's id, in order of first effects
        self.accepted: set[tuple[str, int]] = set()  #: what the engine was told that it took

    async def write(self, outputs: Sequence[Output], host: Host, until: Deadline) -> Sequence[SinkError | None]:
        async def do() -> list[SinkError | None]:
            return self._take_all(outputs, host)

        errors: list[SinkError | None] = await self._over_the_network(outputs, host, do)
        for output, error in zip(outputs, errors, strict=True):
            if error is None:
                self.accepted.add((output.value["key"], output.value["n"]))
        return errors

    async def _over_the_network(self, outputs: Sequence[Output], host: Host, do: Any) -> Any:
        keys = [output.value["key"] for output in outputs]
        host.asked.update(keys)
        try:
            answers = await self._answer(keys, host, do)
        except (SinkUnavailable, asyncio.CancelledError):
            self.world.promise.failed(host, keys, is_gathering=self.gathers)
            raise
        if any(isinstance(answer, SinkError) for answer in answers):
            self.world.promise.failed(host, keys, is_gathering=self.gathers)
        return answers

    async def _answer(self, keys: Sequence[str], host: Host, do: Any) -> Any:
        world = self.world
        fault = Fault.BEFORE if world.is_out(self.name) else world.fault(host, keys, (0.08, 0.05, 0.02, 0.006))
        await host.sleep(self._slowness(host) if fault is Fault.SLOW else 0.01)
        if fault is Fault.KILL_BEFORE:
            await host.die()
        if fault is Fault.BEFORE:
            for key in keys:
                world.note(key, f"{self.name} is throttled")
            raise SinkUnavailable("throttled")
        answers = await do()
        if fault is Fault.KILL_AFTER:
            await host.die()
        await host.sleep(0.01)
        if fault is Fault.AFTER:
            world.repeatable.update(keys)
            for key in keys:
                world.note(key, f"{self.name}: reply lost")
            raise SinkUnavailable("the reply was lost")
        if host.deadline.soft is not None and world.now >= host.deadline.soft:
            world.repeatable.update(keys)  # between the deadlines the engine stops waiting for a slow sink
        return answers

    def _slowness(self, host: Host) -> float:
        """Seconds; sometimes longer than a lease, which cannot be renewed meanwhile, so that somebody may take over."""
        world = self.world
        seconds = world.chance.uniform(2, 6)
        is_time = (host.deadline.left(world.now) or 0.0) > 10
        if world.is_stream or not (world.is_claiming and is_time and world.charge(host.at_stake)):
            return seconds
        host.cut_off_until = world.now + seconds + 4
        for key, lease in host.leases.items():
            world.excuse(lease, "it could not be renewed beside a slow sink")
            world.expose(key)
        return seconds + 4 + world.chance.uniform(-0.1, 0.1)

    def _take_all(self, outputs: Sequence[Output], host: Host) -> list[SinkError | None]:
        return [self._take(output, host) for output in outputs]

    def _take(self, output: Output, host: Host) -> SinkError | None:
        world = self.world
        key, index = output.value["key"], output.value["n"]
        if (error := self._refusal(key, host)) is not None:
            return error
        self._apply(output)
        if (key, index) in self.accepted and not world.promise.may_take_again(key):
            world.fail(key, f"{self.name} gets output {index} again, and nothing went wrong since it accepted")
        return None

    def _refusal(self, key: str, host: Host) -> SinkError | None:
        world = self.world
        is_refused = self.name == "events" and world.kinds[key] is Kind.REFUSED
        if is_refused or (world.chance.random() < 0.02 and world.charge([key])):
            world.note(key, f"{self.name} refuses an output")
            world.faults["refused output"] += 1
            if key in host.leases:
                host.leases[key].has_failed = True
            return SinkRefused("not this one")
        if world.is_faulty and world.chance.random() < 0.03:
            world.faults["throttled entry"] += 1
            return SinkUnavailable("throttled, this one")
        return None

    def _apply(self, output: Output) -> None:
        key, index = output.value["key"], output.value["n"]
        self.world.note(key, f"{self.name} takes output {index}")
        if self.effects.setdefault((key, index), output.id) != output.id:
            self.world.fail(key, f"output {index} to {self.name} has another id in a repeat")


class Letters:
    """The dead-letter queue, as the engine writes to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ids: set[str] = set()
        self.accepted: set[str] = set()
        self.counts: Counter[str] = Counter()  #: of each record
        self.failures: Counter[str] = Counter()  #: of each record: the engine was told that it could not be put
        self.exhausted: set[str] = set()  #: ids of those that had used up their attempts, by the source's count

    async def put(self, letters: Sequence[DeadLetter], host: Host, until: Deadline) -> Sequence[SinkError | None]:
        world = self.world
        keys = [world.by_id[letter.record.id].key for letter in letters]
        fault = Fault.BEFORE if world.is_out("letters") else world.fault(host, keys, (0.1, 0.1, 0.0, 0.02))
        if fault in (Fault.BEFORE, Fault.AFTER):
            self.failures.update(letter.record.id for letter in letters)
        await host.sleep(0.01)
        if fault is Fault.KILL_BEFORE:
            await host.die()
        if fault is Fault.BEFORE:
            for key in keys:
                world.note(key, "the dead-letter queue is out of reach")
            return [SinkUnavailable("throttled")] * len(letters)
        for letter, key in zip(letters, keys, strict=True):
            world.note(key, f"dead letter of {letter.record.id}: {letter.cause}, {letter.attempts} attempts")
            self.ids.add(letter.record.id)
            self.counts[letter.record.id] += 1
            world.promise.puts_aside(host, world.by_id[letter.record.id])
            if letter.exhausted and letter.attempts < ATTEMPTS:
                world.fail(key, f"{letter.record.id} is exhausted after {letter.attempts} attempts")
            if world.is_marking and not world.is_stream and letter.exhausted:
                self.exhausted.add(letter.record.id)
            if letter.record.id in world.put_aside:
                world.fail(key, f"a second dead letter of {letter.record.id}, although it was put aside")
        if fault is Fault.KILL_AFTER:
            await host.die()
        await host.sleep(0.01)
        if fault is Fault.AFTER:
            raise SinkUnavailable("the reply was lost")
        self.accepted |= {letter.record.id for letter in letters}
        for lease in [host.leases[key] for key in keys if key in host.leases]:
            lease.is_lettered = True
        return [None] * len(letters)


@dataclass
class World(ABC):
    """One run of the simulation. What feeds the engine, and is told how records ended, is a subclass's."""

    seed: int
    store_type: Callable[[], Memory] = Memory
    promise_type: type[Promise] = Promise
    chance: random.Random = field(init=False)
    violation: tuple[str, str] | None = None  #: the key, and what was found
    events: list[tuple[float, str, str]] = field(default_factory=list)
    kinds: dict[str, Kind] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)  #: entry id -> key
    by_id: dict[str, Message] = field(default_factory=dict)
    first: dict[str, Message] = field(default_factory=dict)  #: key -> its first message
    running: list[Run] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)
    completed: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    put_aside: set[str] = field(default_factory=set)  #: ids of rejected records whose stream may deliver them again
    repeatable: set[str] = field(default_factory=set)  #: keys of which a completion or release may be lost
    outages: list[tuple[str, float, float]] = field(default_factory=list)  #: what is out of reach, from when to when
    spent: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    kills: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)  #: what went wrong, by kind

    is_stream: ClassVar[bool] = False
    stage: Stage = field(init=False)
    timeout: float = field(init=False)
    messages: list[Message] = field(init=False)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.store = Store(self, self.store_type())
        self.sinks = [Sink(self, "ledger"), Sink(self, "events")]
        self.letters = Letters(self)
        self.promise = self.promise_type(self)
        self.faults_end = math.inf
        self.all_sent = False
        self.budget = ATTEMPTS - 1
        self.set_up()

    @abstractmethod
    def set_up(self) -> None:
        """Choose what this run is like: the stage, the messages, the budget of faults."""

    @abstractmethod
    async def play(self) -> None:
        """Send everything, consume until all is settled, then look at what is left."""

    @abstractmethod
    def respond(self, host: Host, received: Sequence[Any], result: BatchResult) -> None:
        """What the source makes of a batch's result."""

    @abstractmethod
    def check_place(self, host: Host, message: Message) -> None:
        """A run starts: may it, in its lane?"""

    @property
    @abstractmethod
    def setting(self) -> str:
        """What this run is like, for the story."""

    def expose(self, key: str) -> None:  # noqa: B027 - not every source can
        """Another process gets the record before its time, where the source can do that."""

    @property
    def is_idempotent(self) -> bool:
        return self.stage.mode is not None

    @property
    def is_claiming(self) -> bool:
        return isinstance(self.stage.mode, Claim)

    @property
    def is_marking(self) -> bool:
        """True in a mode in which nothing is held while a record is at work."""
        return self.promise.name != Promise.name

    def is_out(self, what: str) -> bool:
        return any(name == what and begin <= self.now < end for name, begin, end in self.outages)

    def remember(self, messages: Sequence[Message]) -> None:
        """Keep what is to be sent, by all its names."""
        self.messages = list(messages)
        for message in messages:
            self.by_id[message.id] = message
            self.first.setdefault(message.key, message)
            self.kinds[message.key] = message.kind
            self.keys[self.entry_id(message.key)] = message.key
            self.keys[self.entry_id(message.id)] = message.key  # where the key cannot be read

    def entry_id(self, key: str) -> str:
        return entry_id(self.stage.prefix, key_text(key))

    # -- time, chance and notes

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    @property
    def is_faulty(self) -> bool:
        return self.now < self.faults_end

    def note(self, key: str, text: str) -> None:
        self.events.append((self.now, key, text))

    def fail(self, key: str, text: str) -> None:
        self.note(key, f"VIOLATION: {text}")
        self.violation = self.violation or (key, text)

    def charge(self, keys: Sequence[str]) -> bool:
        """True when these records can bear a fault that costs an attempt; it is then counted."""
        healthy = [key for key in set(keys) if self.kinds[key] is Kind.HEALTHY]
        if not self.is_faulty or any(self.spent[key] >= self.budget for key in healthy):
            return False
        self.spent.update(healthy)
        return True

    def excuse(self, lease: Lease | None, why: str) -> None:
        if lease is not None:
            lease.excuse = lease.excuse or why
            self.repeatable.add(lease.key)

    def fault(self, host: Host, keys: Sequence[str], odds: Sequence[float], costs: Fault | None = None) -> Fault:
        """What this call meets; `odds` are those of before, after, slow and a kill."""
        fault = self._drawn(host, keys, odds, costs)
        if fault is not Fault.NONE:
            self.faults[_NAMES[fault]] += 1
        return fault

    def _drawn(self, host: Host, keys: Sequence[str], odds: Sequence[float], costs: Fault | None) -> Fault:
        if not self.is_faulty:
            return Fault.NONE
        drawn = self.chance.choices(
            [
                Fault.BEFORE,
                Fault.AFTER,
                Fault.SLOW,
                self.chance.choice([Fault.KILL_BEFORE, Fault.KILL_AFTER]),
                Fault.NONE,
            ],
            [*odds, 1 - sum(odds)],
        )[0]
        if drawn in (Fault.KILL_BEFORE, Fault.KILL_AFTER):
            held = {*host.at_stake, *keys}
            return drawn if host.may_be_killed and self.charge(sorted(held)) else Fault.NONE
        if drawn in (Fault.SLOW, costs):  # slow: the hard deadline may come first
            return drawn if self.charge(keys) else Fault.NONE
        return drawn

    # -- the handler

    async def handle(self, host: Host, record: Record[Any], context: Context) -> Any:
        if host.is_dead:
            await never()
        key = record.payload["key"]
        message = self.by_id[record.id]
        run = self._started(host, key, message)
        try:
            await self._work(host, run, message, context)
        except asyncio.CancelledError:
            run.end("cut")
            raise
        except Exception:
            run.end("failed")
            raise
        self.finished.add(key)
        run.end("finished")
        values = [{"key": key, "n": number} for number in range(message.outputs)]
        return values if message.to is None else [Emit(value, to=message.to) for value in values]

    async def _work(self, host: Host, run: Run, message: Message, context: Context) -> None:
        chance, key = self.chance, message.key
        seconds = chance.uniform(0.01, 1.0)
        fails_late = False
        left = context.remaining()
        assert left is not None
        if message.kind is Kind.HEALTHY and self.is_faulty:
            drawn = chance.random()
            if drawn < 0.06 and self.charge([key]):
                self.faults["handler raises"] += 1
                raise Retry(after=chance.choice([0.5, 6, 100])) if drawn < 0.02 else ValueError("this time it fails")
            if drawn < 0.09 and self.charge([key]):
                self.faults["handler hangs"] += 1
                seconds = 10_000.0
            elif drawn < 0.25:
                self.faults["slow handler"] += 1
                seconds = chance.uniform(0.5, 0.99) * left
                if chance.random() < 0.8 and self.charge(sorted({key, *host.at_stake})):
                    # The store is out of reach until about the end of this run, and the message comes
                    # again: the claim lapses, and somebody else may take it over.
                    host.cut_off_until = self.now + seconds - chance.uniform(-0.5, 2)
                    for lease in host.leases.values():
                        self.excuse(lease, "it could not be renewed")
                    self.note(key, f"{host.name} cannot reach the store until {host.cut_off_until:.3f}")
                    self.expose(key)
                    fails_late = chance.random() < 0.5  # the same attempt: the claim lapses, or is given back
        if seconds > left and seconds < 100 and not self.charge([key]):
            seconds = left / 2
        try:
            await host.sleep(seconds)
        except asyncio.CancelledError:
            # What is gathered waits for a handler that does not stop, and for the hard deadline then.
            if host.is_dead or seconds < 100 or chance.random() < 0.5 or not self.charge(host.at_stake):
                raise
            self.note(key, f"{host.name} run was cut off, and goes on for a while")
            await host.sleep(chance.uniform(0, 2))
        if message.kind is Kind.KILLER:
            await host.die()
        if message.kind is Kind.REJECTED:
            raise Reject("never")
        if message.kind is Kind.POISON or fails_late:
            raise ValueError("it fails")

    def _started(self, host: Host, key: str, message: Message) -> Run:
        lease = host.leases.get(key)
        run = Run(key, host, self, lease)
        self.runs += 1
        self.note(key, f"{host.name} run starts ({message.id}, receive {message.receives})")
        host.runs[message.id] += 1
        host.met.setdefault(key, self.now)
        host.asked.add(key)
        if lease is None and self.is_claiming:
            self.fail(key, f"a run on {host.name} starts without a claim")
        self.promise.starts(host, message)
        for other in self.running:
            if other.key == key and (other.host is host if self.is_marking else self._is_honoured(other.lease)):
                self.fail(key, f"runs overlap, on {other.host.name} and {host.name}")
            is_alone = (other.lease and other.lease.was_lapsed) or (lease and lease.was_lapsed)
            if other.host is host and is_alone:
                self.fail(key, f"beside {other.key}, although a run of one of them has died")
        if key in self.completed:
            self.fail(key, "a run starts after a completion")
        if key in self.kept:
            self.fail(key, "a run starts although the outputs of a finished one were kept")
        self.check_place(host, message)
        self.running.append(run)
        return run

    def _is_honoured(self, lease: Lease | None) -> bool:
        """True while the lease of a live run holds, as far as the store knows, or should hold."""
        return lease is None or not lease.excuse or not self._has_lapsed(lease)

    def _has_lapsed(self, lease: Lease) -> bool:
        entry = self.store.entry(self.entry_id(lease.key))
        if entry is None or entry.owner != lease.owner:
            return True
        return state_of(entry, "", self.now + EPOCH) is State.LAPSED

    def is_settled(self, message: Message) -> bool:
        """True when nothing of this message is left to be done, as the services saw it."""
        return message.end == "net" or message.id in self.letters.accepted or self.has_all_accepted(message)

    def has_all_accepted(self, message: Message) -> bool:
        if message.key not in self.finished:
            return False
        return all(
            (message.key, number) in sink.accepted
            for sink in self.sinks_of(message)
            for number in range(message.outputs)
        )

    def sinks_of(self, message: Message) -> list[Sink]:
        """Those that its outputs are for."""
        return [sink for sink in self.sinks if message.to is None or sink.name in message.to]

    async def invoke(self, host: Host, received: Sequence[Any], records: list[RawRecord]) -> bool:
        """One invocation; `received` is for `respond`. False: the process is gone, or given up."""
        messages = [self.by_id[record.id] for record in records]
        remaining = self.timeout * self.chance.uniform(0.85, 1.0)
        host.deadline = deadline(self.now, remaining)
        host.may_be_killed = not any(message.kind is Kind.KILLER for message in messages)
        host.keys = {message.key for message in messages}
        host.asked.clear()
        self.promise.begins(host, records)
        processing = host.processor.begin(records, host.deadline)
        work = asyncio.create_task(processing.finish())
        death = asyncio.create_task(host.died.wait())
        # A place may be on its way to the store at the hard deadline; a runtime waits no longer.
        patience = host.deadline.hard - self.now if isinstance(self.stage.mode, Checkpoint) else None
        await asyncio.wait([work, death], return_when=asyncio.FIRST_COMPLETED, timeout=patience)
        death.cancel()
        if host.is_dead:
            while not work.done():  # its end may wait for a call that never ends
                work.cancel()
                await asyncio.wait([work], timeout=0.001)
            return False
        if work.done():
            work.result()
        else:
            work.cancel()
        if self.now > host.deadline.hard + 0.05:
            self.fail(messages[0].key, f"{host.name} answers {self.now - host.deadline.hard:.2f} s too late")
        is_cut = processing.is_abandoned or self.now >= host.deadline.hard - 0.05
        if is_cut:
            for lease in host.leases.values():
                self.excuse(lease, "the answer went out at the hard deadline")
        result = processing.conclude()
        self._read(host, messages, result)
        self.promise.ends(host, result, is_cut=is_cut)
        self.respond(host, received, result)
        return not processing.is_abandoned

    def _read(self, host: Host, messages: Sequence[Message], result: BatchResult) -> None:
        """What the engine says; it must be of all records."""
        outcomes = list(result.outcomes)
        is_total = len(outcomes) == len(messages) and all(isinstance(outcome, Outcome) for outcome in outcomes)
        if not is_total or [record.id for record in result.records] != [message.id for message in messages]:
            self.fail(messages[0].key, "the result is not total")
        for message, outcome in zip(messages, outcomes, strict=True):
            self.outcomes[name_of(outcome)] += 1
            delay = getattr(outcome, "delay", None)
            why = getattr(outcome, "reason", None) or getattr(outcome, "error", "")
            self.note(message.key, f"{host.name} {message.id}: {name_of(outcome)} {why} delay {delay}")
            if isinstance(outcome, SETTLED):
                host.runs.pop(message.id, None)
        self._check_cache(host, messages, outcomes)

    def _check_cache(self, host: Host, messages: Sequence[Message], outcomes: Sequence[Outcome]) -> None:
        """A process answers by itself only for keys that were done in it, and it remembers only so many."""
        mode = self.stage.mode
        limit = mode.cache if isinstance(mode, Keyed) else 0
        if len(host.processor._recent) > limit:
            self.fail(messages[0].key, f"{host.name} remembers {len(host.processor._recent)} keys, and may {limit}")
        if not isinstance(mode, Keyed):
            return
        ended = [
            (message.key, outcome, message.key in host.asked)
            for message, outcome in zip(messages, outcomes, strict=True)
            if message.id not in host.aside  # of a stream, and in the dead-letter queue: it is known by its own name
        ]
        host.aside |= {m.id for m, outcome in zip(messages, outcomes, strict=True) if isinstance(outcome, Rejected)}
        tells = (Succeeded, Duplicate) if isinstance(mode, Fused) else (Succeeded,)  # the sink itself told
        host.done |= {key for key, outcome, was_asked in ended if was_asked and isinstance(outcome, tells)}
        for key in [key for key, outcome, was_asked in ended if isinstance(outcome, Duplicate) and not was_asked]:
            self.outcomes["cached"] += 1
            if key not in host.done:
                self.fail(key, f"{host.name} calls it a repeat by itself, and has not done it")

    def loses(self, host: Host, messages: Sequence[Message]) -> bool:
        """True when the response is lost on its way."""
        if not (host.may_be_killed and self.is_faulty and self.chance.random() < 0.05):
            return False
        self.faults["lost response"] += 1
        for key in [message.key for message in messages]:
            self.note(key, f"the response of {host.name} is lost")
        return True

    def check_acknowledged(self, message: Message, outcome: Outcome | None = None) -> None:
        """The source is about to forget this message. `outcome`: what the engine says of it, if it is asked."""
        if outcome is None:
            if not self.is_settled(message):
                self.fail(message.key, f"{message.id} is acknowledged, and nowhere")
        elif isinstance(outcome, (Succeeded, Duplicate)):
            is_skipped = isinstance(outcome, Duplicate) and isinstance(self.stage.mode, Checkpoint)
            if not (self.is_settled(message) if is_skipped else self.has_all_accepted(message)):
                self.fail(message.key, f"{message.id} is acknowledged before every sink has accepted")
        elif not (isinstance(outcome, Rejected) and message.id in self.letters.accepted):
            self.fail(message.key, f"{message.id} is acknowledged, and nowhere")

    # -- the end

    def check_end(self) -> None:
        for message in self.messages:
            self._check_message(message)
        for identifier, entry in self.store.inner.entries.items():
            if self.is_claiming:
                self._check_entry(self.keys[identifier], entry)
        for sink in self.sinks:
            self.check_order(sink)

    def _check_message(self, message: Message) -> None:
        key = message.key
        is_dead = message.end == "net" or message.id in self.letters.ids
        has_effects = all(
            (key, number) in sink.effects for sink in self.sinks_of(message) for number in range(message.outputs)
        )
        if message.kind is Kind.HEALTHY:
            if message.id in self.letters.exhausted:  # by the receives that hand-backs cost too
                return
            if is_dead:
                self.fail(key, f"{message.id} is healthy and dead-lettered ({message.end})")
            elif not has_effects:
                self.fail(key, f"{message.id} lacks effects")
            return
        if not is_dead:
            self.fail(key, f"{message.id} is {message.kind} and not dead-lettered")
        effects = {sink.name for sink in self.sinks if any(one == key for one, _ in sink.effects)}
        if effects - (self.promise.written_before_refusal if message.kind is Kind.REFUSED else set()):
            self.fail(key, f"{message.id} is {message.kind} and had effects in {sorted(effects)}")

    def _check_entry(self, key: str, entry: Entry) -> None:
        if state_of(entry, "", self.now + EPOCH + 3_600) is not State.LAPSED:
            return
        lease = self.store.by_owner[entry.owner or ""]
        if not lease.host.is_dead and not lease.excuse:
            self.fail(key, f"the claim of {lease.owner} is left in progress")

    def check_order(self, sink: Sink) -> None:
        """First effects come in the order of their lanes."""
        last: dict[str | None, int] = defaultdict(lambda: -1)
        for key, _ in sink.effects:
            message = self.first[key]
            if message.id in self.letters.exhausted:
                continue  # its lane has gone on, and a run of it too
            if message.lane is None or message.kind is not Kind.HEALTHY or not self.is_of_one_lane(key):
                continue
            if message.sequence < last[message.lane]:
                self.fail(key, f"its first effect in {sink.name} comes after that of a later message of its lane")
            last[message.lane] = message.sequence

    def is_of_one_lane(self, key: str) -> bool:
        """True unless the producer sent this key to several lanes: then either may be first."""
        return len({message.lane for message in self.messages if message.key == key}) == 1

    def story(self) -> str:
        """What was found, with what happened to the record."""
        assert self.violation is not None
        key, text = self.violation
        lease = str(self.stage.mode) if self.stage.mode else "no idempotency"
        kind = f"{self.kinds[key]}, {self.setting}, timeout {self.timeout:g} s"
        setting = f"{kind}, concurrency {self.stage.concurrency}, {lease}"
        lines = [f"  {time:9.3f}  {what}" for time, whose, what in self.events if whose == key]
        return "\n".join([f"seed {self.seed}: {key} ({setting}): {text}", *lines[-60:]])


def simulate(world: World) -> World:
    """One run, to its end or to the first violation."""
    virtually(world.play())
    return world


async def handle(record: Record[dict[str, Any]], context: Context) -> Any:
    """The handler: whatever the world of its process makes of the record."""
    host = HERE.get()
    return await host.world.handle(host, record, context)


_LOGGER = logger_for("shop", "CRITICAL")
_METRICS = metrics_for("shop", "handle")
