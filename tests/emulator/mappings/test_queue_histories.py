"""What holds for a queue's mapping whatever happens: any messages, answers and times, over a small model of a queue."""

from __future__ import annotations

import copy
import itertools
import json
import random
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.decisions.patterns import read_filter
from pipeline.emulator.mappings.actions import (
    Action,
    BatchFailed,
    Delete,
    Dropped,
    Filtered,
    Invoke,
    Message,
    Receive,
    Settled,
)
from pipeline.emulator.mappings.answers import Answer, Cause, FunctionFailed, Returned, Throttled, Unheard
from pipeline.emulator.mappings.batching import MAX_EVENT_BYTES
from pipeline.emulator.mappings.queue import QueueMapping
from pipeline.emulator.mappings.settings import ProvisionedPollers, QueueSettings

GOOD, BAD = '{"kind": "order"}', '{"kind": "other"}'
ORDERS = read_filter({"kind": ["order"]}, member="body", declared="test")
FRAME = len(json.dumps({"Records": []}))
SIZES = [300, MAX_EVENT_BYTES // 4, MAX_EVENT_BYTES // 3, MAX_EVENT_BYTES // 2, MAX_EVENT_BYTES + 1]
ANSWERS = ["success", "success", "partial", "damaged", "raised", "throttled", "unheard"]
TIMES = [0.0, 0.05, 0.2, 1.0, 3.0, 10.0, 31.0, 100.0]


@dataclass
class Stored:
    """A message in the queue."""

    number: int
    body: str
    size: int
    group: str | None
    visible_at: float = 0.0
    receipt: str = ""


@dataclass(frozen=True)
class Delivery:
    """A message as it was handed out, until its end is known. `batch`: where it is at work."""

    receipt: str
    name: str
    visible_at: float
    batch: int | None = None


def any_settings(chance: random.Random) -> QueueSettings:
    kind = chance.choice(["standard", "window", "fifo", "fifo"])
    scaling: dict[str, Any] = chance.choice(
        [{}, {}, {"maximum_concurrency": 2}, {"provisioned": ProvisionedPollers(2, 2)}]
    )
    return QueueSettings(
        is_fifo=kind == "fifo",
        batch_size=chance.choice([1, 2, 5, 10]) * (3 if kind == "window" else 1),
        batching_window=chance.choice([1, 10]) if kind == "window" else 0,
        report_batch_item_failures=chance.random() < 0.6,
        filter=ORDERS if chance.random() < 0.3 else None,
        function_timeout=chance.choice([3, 25]),
        **scaling,
    )


class History:
    """Drives a mapping by chance, keeps the queue, and remembers how each delivery ended."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.settings = any_settings(chance)
        limit = chance.choice([None, 1, 2, 4])
        self.most = min(limit or 1_250, self.settings.maximum_concurrency or 1_250)
        self.mapping = QueueMapping(self.settings, limit=limit)
        self.now = 1_700_000_000.0
        self.numbers = itertools.count(1)
        self.queue: dict[str, Stored] = {}
        self.poll: Receive | None = None
        self.open: dict[str, Delivery] = {}
        self.ends: dict[str, str] = {}
        self.at_work: dict[int, Invoke] = {}
        self.throttled: set[int] = set()  #: of these: which wait for their next try
        self.answered: dict[str, str] = {}  #: how the deliveries of the batch that was answered last must end
        self.step()

    @property
    def runs(self) -> list[int]:
        return sorted(self.at_work.keys() - self.throttled)

    # -- What happens.

    def anything(self) -> None:
        can = [self.send, self.time_passes, self.it_wakes]
        if self.poll is not None:
            can += [self.poll_ends, self.poll_ends, self.poll_ends]
            can += [self.poll_fails] if self.chance.random() < 0.1 else []
        if self.runs:
            can += [self.function_ends, self.function_ends]
        self.chance.choice(can)()

    def send(self) -> None:
        size, groups = self.chance.choice(SIZES), self.chance.randint(1, 3)
        for _ in range(self.chance.randint(1, 12)):
            number = next(self.numbers)
            group = f"g{self.chance.randint(1, groups)}" if self.settings.is_fifo else None
            self.queue[f"m{number}"] = Stored(number, self.chance.choice([GOOD, GOOD, GOOD, BAD]), size, group)

    def poll_ends(self) -> None:
        poll, self.poll = self.poll, None
        assert poll is not None
        hidden = self.settings.visibility_timeout if poll.visibility is None else poll.visibility
        count = self.chance.choice([1, poll.count, poll.count])
        found = [self.hand_out(name, hidden) for name in self.visible()[:count]]
        self.mapping.received(poll.poll, found, self.now)
        self.step()

    def poll_fails(self) -> None:
        poll, self.poll = self.poll, None
        assert poll is not None
        self.mapping.not_received(poll.poll, self.now)
        self.step()

    def function_ends(self) -> None:
        self.answer(self.chance.choice(self.runs), self.chance.choice(ANSWERS))

    def answer(self, batch: int, kind: str) -> None:
        ids = self.at_work[batch].ids
        named = {name for name in ids if self.chance.random() < 0.4}
        failures = [{"itemIdentifier": name} for name in sorted(named)]
        answers: dict[str, Answer] = {
            "success": Returned(None),
            "partial": Returned({"batchItemFailures": failures}),
            "damaged": Returned({"batchItemFailures": [*failures, {"itemIdentifier": "stranger"}]}),
            "raised": FunctionFailed(Cause.RAISED, "ValueError", "no"),
            "throttled": Throttled(),
            "unheard": Unheard(),
        }
        if kind == "throttled":
            self.throttled.add(batch)
        else:
            del self.at_work[batch]
            back = {"success": set(), "partial": named}.get(kind, set(ids))
            if kind in ("partial", "damaged") and not self.settings.report_batch_item_failures:
                back = set()
            how = "unheard" if kind == "unheard" else "failed"
            self.answered = {
                delivery.receipt: how if delivery.name in back else "deleted"
                for delivery in self.open.values()
                if delivery.batch == batch
            }
        self.mapping.answered(batch, answers[kind], self.now)
        self.step()

    def time_passes(self) -> None:
        self.now += self.chance.choice(TIMES)
        self.step()

    def it_wakes(self) -> None:
        """`wakes_at` is exact: nothing comes of any time before, and something comes of that one."""
        wakes_at = self.mapping.wakes_at
        later = self.now + 50_000 if wakes_at is None else wakes_at
        for part in (0.3, 0.999_999):
            between = self.now + (later - self.now) * part
            if self.now < between < later:
                assert copy.deepcopy(self.mapping).actions(between) == []
        if wakes_at is not None:
            self.now = wakes_at
            assert self.step()

    # -- The queue.

    def visible(self) -> list[str]:
        """A FIFO queue hands out nothing of a group while something of it is hidden."""
        hidden = {stored.group for stored in self.queue.values() if stored.visible_at > self.now}
        return [
            name
            for name, stored in self.queue.items()
            if stored.visible_at <= self.now and not (self.settings.is_fifo and stored.group in hidden)
        ]

    def hand_out(self, name: str, hidden: float) -> Message:
        stored = self.queue[name]
        stored.visible_at, stored.receipt = self.now + hidden, f"r{len(self.open) + len(self.ends)}"
        self.open[stored.receipt] = Delivery(stored.receipt, name, stored.visible_at)
        return Message(name, stored.receipt, {"messageId": name, "body": stored.body}, stored.size, stored.group)

    # -- What the mapping does.

    def step(self) -> list[Action]:
        actions = self.mapping.actions(self.now)
        assert self.mapping.actions(self.now) == [], "each action is given once"
        facts = [action for action in actions if not isinstance(action, Invoke | Receive)]
        for action, following in itertools.zip_longest(facts, facts[1:]):
            if isinstance(action, Delete):
                self.deleted(action, following)
            elif isinstance(action, Dropped):
                self.dropped(action)
            elif isinstance(action, BatchFailed):
                assert "failed" in self.answered.values()
        for receipt, how in self.answered.items():
            if how == "deleted":
                assert self.ends[receipt] == how
            else:
                self.end(receipt, how)
        self.answered = {}
        for action in actions:
            if isinstance(action, Invoke):
                self.invoked(action)
            elif isinstance(action, Receive):
                assert self.poll is None
                assert 1 <= action.count <= min(10, self.settings.batch_size)
                self.poll = action
        self.check()
        return actions

    def deleted(self, delete: Delete, following: Action | None) -> None:
        assert isinstance(following, Settled | Filtered)
        assert following.ids == tuple(message.id for message in delete.messages)
        for message in delete.messages:
            is_refused = self.settings.filter is not None and message.member["body"] == BAD
            assert is_refused == isinstance(following, Filtered)
            self.end(message.receipt, "filtered" if is_refused else "deleted")
            # A FIFO queue takes no old receipt; a standard one usually does (SQS API reference, DeleteMessage).
            stored = self.queue.get(message.id)
            if stored and (stored.receipt == message.receipt or not self.settings.is_fifo):
                del self.queue[message.id]

    def dropped(self, action: Dropped) -> None:
        is_throttled = action.batch in self.throttled
        assert is_throttled or action.batch not in self.at_work
        self.at_work.pop(action.batch, None)
        self.throttled.discard(action.batch)
        for name in action.ids:
            # One that never began is known by its message only: the oldest of it that is in no batch.
            batch = action.batch if is_throttled else None
            delivery = next(one for one in self.open.values() if one.name == name and one.batch == batch)
            assert delivery.visible_at <= self.now or self.settings.is_fifo
            self.end(delivery.receipt, "dropped")

    def end(self, receipt: str, how: str) -> None:
        assert receipt not in self.ends, f"{receipt} was {self.ends[receipt]}, and is now {how}"
        del self.open[receipt]
        self.ends[receipt] = how

    def invoked(self, invoke: Invoke) -> None:
        if invoke.batch in self.throttled:
            assert self.at_work[invoke.batch] == invoke
            self.throttled.discard(invoke.batch)
        else:
            assert invoke.batch not in self.at_work
            self.at_work[invoke.batch] = invoke
            for name in invoke.ids:
                delivery = next(one for one in self.open.values() if one.name == name and one.batch is None)
                self.open[delivery.receipt] = replace(delivery, batch=invoke.batch)
            self.check_batch(invoke)
        assert all(one.visible_at > self.now for one in self.open.values() if one.batch == invoke.batch)

    # -- What always holds.

    def check(self) -> None:
        assert self.mapping.held == len(self.open)
        assert len(self.at_work) <= self.most
        wakes_at = self.mapping.wakes_at
        assert wakes_at is None or wakes_at > self.now

    def check_batch(self, invoke: Invoke) -> None:
        records = invoke.event["Records"]
        assert tuple(record["messageId"] for record in records) == invoke.ids
        assert 1 <= len(records) <= self.settings.batch_size
        if self.settings.filter is not None:
            assert all(record["body"] == GOOD for record in records)
        stored = [self.queue[name] for name in invoke.ids if name in self.queue]
        assert len(records) == 1 or FRAME + sum(one.size for one in stored) <= MAX_EVENT_BYTES
        for group in {one.group for one in stored} if self.settings.is_fifo else ():
            self.check_order(group, [one.number for one in stored if one.group == group], invoke)

    def check_order(self, group: str | None, numbers: list[int], invoke: Invoke) -> None:
        """In order; all of the group that comes before is in this batch, or deleted; and none of it is at work elsewhere."""
        bodies = (GOOD,) if self.settings.filter else (GOOD, BAD)
        of_group = [one for one in self.queue.values() if one.group == group and one.body in bodies]
        assert numbers == [one.number for one in of_group if one.number <= numbers[-1]]
        elsewhere = {name for other in self.at_work.values() if other is not invoke for name in other.ids}
        assert not elsewhere & {f"m{one.number}" for one in of_group}

    def finish(self) -> None:
        """Everything that was received comes to its end, when functions answer and time passes."""
        while self.open:
            for batch in self.runs:
                self.answer(batch, "success")
            if self.open and not self.runs:
                wakes_at = self.mapping.wakes_at
                assert wakes_at is not None, "messages are held, and nothing will ever come of them"
                self.now = wakes_at
                self.step()
        assert set(self.ends.values()) <= {"deleted", "filtered", "failed", "dropped", "unheard"}


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), steps=st.integers(1, 120))
def test_whatever_happens_the_rules_hold_and_every_delivery_has_one_end(seed: int, steps: int) -> None:
    history = History(random.Random(seed))
    for _ in range(steps):
        history.anything()
    history.finish()
