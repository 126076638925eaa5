"""What each idempotency mode but `Claim` promises, checked from outside. The books of claims are `model.Store`'s.

Every mode: a lane's order, one outcome for each record, nothing lost; that is checked in `model`, `queues` and
`streams`. Here is what may run again, and when.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline import Checkpoint, Fused, Mark
from pipeline.batch import BatchResult
from pipeline.decisions.deadline import Deadline
from pipeline.decisions.idempotency import COMPLETED, Advance, Entry
from pipeline.engine.modes import Mode
from pipeline.errors import SinkError
from pipeline.outcome import Rejected, Succeeded, is_settled
from pipeline.output import Output
from pipeline.ports import Effect
from pipeline.record import RawRecord
from pipeline.sinks import Memory
from tests.simulation.model import Host, Kind, Message, Promise, Sink

if TYPE_CHECKING:
    from tests.simulation.model import World

#: Keys that an environment remembers: none, too few, and enough.
_CACHES = (0, 2, 1_000)


class MarkPromise(Promise):
    """A run starts only behind a look that found no mark; a mark only behind all sinks; every success is marked."""

    name = "mark"
    often = ("found",)
    sometimes = ("cached",)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.marks: set[str] = set()
        self.looks: dict[tuple[Host, str], bool] = {}  #: those that no run has followed: did the mark stand there?
        self.looked_at: dict[tuple[Host, str], float] = {}
        self.working: defaultdict[str, set[Host]] = defaultdict(set)  #: hosts that looked, and have not answered
        self.put_aside_at: dict[str, float] = {}

    def mode(self) -> Mode:
        return Mark(cache=self.world.chance.choice(_CACHES))

    def looked(self, host: Host, keys: Sequence[str]) -> None:
        world, (key,) = self.world, keys
        self.looks[host, key] = key in self.marks
        self.counts["found"] += key in self.marks
        self.looked_at[host, key] = world.now
        world.note(key, f"{host.name} looks: {'marked' if key in self.marks else 'not marked'}")
        if self.working[key] - {host}:
            world.repeatable.add(key)  # two deliveries at the same moment
        self.working[key].add(host)

    def starts(self, host: Host, message: Message) -> None:
        world, key = self.world, message.key
        was_marked = self.looks.pop((host, key), None)
        if was_marked is None:
            world.fail(key, f"a run on {host.name} starts without a look")
        elif was_marked:
            world.fail(key, "a run starts although its mark was written before the look")

    def marked(self, host: Host, key: str, before: Entry | None, entry: Entry) -> None:
        """A mark, or that a record of a stream was put aside, stands in the store now."""
        world = self.world
        world.note(key, f"{host.name} writes {entry.status} {entry.rejected or ''}")
        if entry.status == COMPLETED:
            if not world.has_all_accepted(world.first[key]):
                world.fail(key, "is marked before every sink has accepted")
            self.marks.add(key)
            return
        for record in entry.rejected:
            if record not in world.letters.accepted:
                world.fail(key, f"{record} is called rejected, and has no dead letter")
        world.put_aside.update(entry.rejected)
        for record in set(before.rejected if before else ()) - set(entry.rejected):
            if self.put_aside_at[record] <= self.looked_at[host, key]:
                world.fail(key, f"it is forgotten that {record} was put aside")
            world.put_aside.discard(record)  # another shard's record of the key, at the same moment
        for record in entry.rejected:
            self.put_aside_at.setdefault(record, world.now)

    def failed(self, host: Host, keys: Sequence[str], *, is_gathering: bool) -> None:
        # Behind a failed write of its lane a record comes again, although its other sinks have accepted.
        self.world.repeatable.update(host.keys if is_gathering else keys)

    def may_take_again(self, key: str) -> bool:
        return key in self.world.repeatable

    def ends(self, host: Host, result: BatchResult, *, is_cut: bool) -> None:
        world = self.world
        for record, outcome in result:
            key = world.by_id[record.id].key
            self.working[key].discard(host)
            if is_cut or not is_settled(outcome):
                world.repeatable.add(key)
            elif key not in self.excused[host]:
                if isinstance(outcome, Succeeded) and key not in self.marks:
                    world.fail(key, f"{record.id} succeeded, and no mark says so")
                if world.is_stream and isinstance(outcome, Rejected) and record.id not in self.put_aside_at:
                    world.fail(key, f"{record.id} is rejected, and no entry says so")


class FusedPromise(Promise):
    """One sink has each effect once, whatever happens, and behind all the others."""

    name = "fused"
    often = ("refused",)
    sometimes = ("cached",)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        at = world.chance.randrange(2)
        self.fused = world.sinks[at].name
        if self.fused == "events":
            self.written_before_refusal = frozenset({"ledger", "archive"})
        self.table = world.sinks[at] = Table(world, self.fused)

    def mode(self) -> Mode:
        return Fused(cache=self.world.chance.choice(_CACHES))

    def prepare(self, messages: Sequence[Message]) -> None:
        """Some records have outputs for some of the sinks only."""
        chance = self.world.chance
        names = [sink.name for sink in self.world.sinks]
        if chance.random() < 0.5:
            return
        chosen: dict[str, tuple[str, ...] | None] = {}
        for message in messages:
            if message.kind is Kind.HEALTHY and message.key not in chosen:
                to = tuple(chance.sample(names, chance.randint(1, len(names))))
                chosen[message.key] = to if chance.random() < 0.5 else None
            message.to = chosen.get(message.key)

    def may_take_again(self, key: str) -> bool:
        return True  # the handler runs for a repeat too


class Table(Sink):
    """A sink that writes a record's outputs and its mark together."""

    def __init__(self, world: World, name: str) -> None:
        super().__init__(world, name)
        self.inner = Memory(name=name)

    async def write(self, outputs: Sequence[Output], host: Host, until: Deadline) -> Sequence[SinkError | None]:
        self.world.fail(outputs[0].value["key"], f"{self.name} gets outputs without their mark")
        return await super().write(outputs, host, until)

    async def write_once(self, effects: Sequence[Effect], host: Host, until: Deadline) -> Sequence[bool | SinkError]:
        outputs = [output for effect in effects for output in effect.outputs]

        async def do() -> list[bool | SinkError]:
            return [await self._write_whole(effect, host, until) for effect in effects]

        answers: list[bool | SinkError] = await self._over_the_network(outputs, host, do)
        for effect, answer in zip(effects, answers, strict=True):
            if isinstance(answer, bool):
                self.accepted |= {(output.value["key"], output.value["n"]) for output in effect.outputs}
        return answers

    async def _write_whole(self, effect: Effect, host: Host, until: Deadline) -> bool | SinkError:
        world = self.world
        key = effect.outputs[0].value["key"]
        message = world.first[key]
        if sorted(output.value["n"] for output in effect.outputs) != list(range(message.outputs)):
            world.fail(key, f"{self.name} gets a part of a record's outputs")
        others = [sink for sink in world.sinks_of(message) if sink is not self]
        if not all((key, number) in sink.accepted for sink in others for number in range(message.outputs)):
            world.fail(key, f"{self.name} is written before the other sinks have accepted")
        if (error := self._refusal(key, host)) is not None:
            return error
        was_there = [(key, output.value["n"]) in self.effects for output in effect.outputs]
        is_new = (await self.inner.write_once([effect], host, until))[0]
        assert isinstance(is_new, bool)
        if not is_new:
            world.promise.counts["refused"] += 1
            if not all(was_there):
                world.fail(key, f"{self.name} refuses a record as a repeat that it has not got")
            return False
        if any(was_there):
            world.fail(key, f"{self.name} takes a record's outputs twice")
        for output in effect.outputs:
            self._apply(output)
        return True


class CheckpointPromise(Promise):
    """Nothing at or before a place runs again; a place has only settled records behind it; what settled has one."""

    name = "checkpoint"
    often = ("moved",)
    sometimes = ("not moved",)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.begun: dict[Host, float] = {}
        self.furthest: defaultdict[str, str] = defaultdict(str)  #: by entry: the furthest place that it had
        self.places: dict[Host, dict[str, list[Message]]] = {}  #: by host: of its batch
        self.covered: dict[str, tuple[float, Host]] = {}  #: by record: when its place was first written, and by whom

    def mode(self) -> Mode:
        return Checkpoint()

    def begins(self, host: Host, records: Sequence[RawRecord]) -> None:
        super().begins(host, records)
        self.begun[host] = self.world.now
        self.places[host] = defaultdict(list)
        assert self.world.stage.position_of is not None
        for record in records:
            position = self.world.stage.position_of(record)
            assert position is not None, "everything that is sent has its place"
            self.places[host][position.place].append(self.world.by_id[record.id])

    def may_take_again(self, key: str) -> bool:
        return True  # until its place is written

    def starts(self, host: Host, message: Message) -> None:
        self._check_again(host, message, "a run starts")

    def puts_aside(self, host: Host, message: Message) -> None:
        self._check_again(host, message, "a dead letter is written")

    def _check_again(self, host: Host, message: Message, what: str) -> None:
        at, by = self.covered.get(message.id, (None, None))
        if at is not None and (at < self.begun[host] or by is host):
            self.world.fail(message.key, f"{what} for {message.id}, although its place was written")

    def moved(self, host: Host, advance: Advance, has_moved: bool) -> None:
        """A place stands in the store now, or a later one does."""
        world = self.world
        self.counts["moved" if has_moved else "not moved"] += 1
        entry = world.store.entry(advance.id)
        place = (entry.position if entry else None) or ""
        self.furthest[advance.id] = max(self.furthest[advance.id], place)
        if place < self.furthest[advance.id]:
            world.fail(min(host.keys), f"{host.name} writes a place that stands before the one of a later batch")
        for last in self.places[host].get(advance.position, ()):
            for message in world.messages[: last.sequence + 1]:
                if message.scope != last.scope or (message.lane != last.lane and not message.is_unread):
                    continue
                if not world.is_settled(message):
                    world.fail(message.key, f"a place is written past {message.id}, which is not settled")
                if message.id not in self.covered and not message.is_unread:
                    world.note(message.key, f"{host.name} writes the place of {last.id}")
                    self.covered[message.id] = world.now, host

    def ends(self, host: Host, result: BatchResult, *, is_cut: bool) -> None:
        if is_cut or self.excused[host]:
            return
        failed: set[Any] = set()
        for record, outcome in result:
            message = self.world.by_id[record.id]
            if not is_settled(outcome):
                failed.add(message.scope if message.is_unread else (message.scope, message.lane))
            elif message.is_unread or message.scope in failed:
                pass
            elif (message.scope, message.lane) not in failed and message.id not in self.covered:
                self.world.fail(message.key, f"{message.id} is settled, and no place says so")


PROMISES: Sequence[type[Promise]] = (MarkPromise, FusedPromise, CheckpointPromise)
