"""Random histories of a stream's mapping: nothing is lost, every key is in order, and every limit holds."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import settings as search
from hypothesis import strategies as st

from pipeline.decisions.patterns import read_filter
from pipeline.emulator.mappings.actions import (
    Action,
    Filtered,
    GivenUp,
    Invoke,
    ListShards,
    Read,
    SendToDestination,
    Settled,
    Shard,
    StreamRecord,
)
from pipeline.emulator.mappings.answers import Answer, Returned, Throttled, Unheard
from pipeline.emulator.mappings.batching import MAX_EVENT_BYTES
from pipeline.emulator.mappings.machine import Page
from pipeline.emulator.mappings.settings import StreamSettings
from pipeline.emulator.mappings.stream import StreamMapping
from tests.emulator.mappings.streaming import ARN, NOW, RAISED, numbers

ONLY = read_filter({"keep": [True]}, member="data", declared="Kinesis")
KEYS = "abcdef"


def random_options(chance: random.Random) -> StreamSettings:
    window = chance.choice([0, 0, 0, 60])
    return StreamSettings(
        source_arn=ARN,
        batch_size=chance.randint(1, 6),
        batching_window=chance.choice([0, 0, 5]),
        filter=ONLY,
        report_batch_item_failures=chance.random() < 0.5,
        parallelization_factor=1 if window else chance.choice([1, 2, 3, 10]),
        bisect=chance.random() < 0.5,
        maximum_retry_attempts=chance.choice([-1, 0, 1, 3]),
        maximum_record_age=chance.choice([-1, 60, 100]),
        tumbling_window=window,
        on_failure=chance.choice([None, "arn:aws:sqs:us-east-1:123456789012:failed"]),
    )


class History:
    """A stream with producers and reshards, and a function of many moods."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.options = random_options(chance)
        self.limit = chance.choice([None, None, 1, 2])
        self.mapping = StreamMapping(self.options, "kinesis", limit=self.limit)
        self.now = NOW
        self.number = 8
        self.parents: dict[str, tuple[str, ...]] = {"s0": ()}
        self.records: dict[str, list[StreamRecord]] = {"s0": []}
        self.closed: set[str] = set()
        self.home = dict.fromkeys(KEYS, "s0")  #: of each key: its shard now
        self.found: dict[str, StreamRecord] = {}  #: by number
        self.of_key: dict[str, list[str]] = {key: [] for key in KEYS}  #: all its numbers
        self.pending: list[Action] = []  #: commands without an answer
        self.ended: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()  #: that count, since a record came into its present batch
        self.reached: dict[str, int] = {}  #: of each shard: its checkpoint
        self.newest: dict[str, int] = {}  #: of each key: the newest that ended

    def run(self, acts: int) -> None:
        """So many random acts, then everything works until nothing is left."""
        self.step()
        for _ in range(acts):
            act = self.chance.random()
            if act < 0.1:
                self.put()
            elif act < 0.12:
                self.split()
            elif act < 0.16:
                self.now += self.chance.choice([0.05, 1, 20])
            elif act < 0.3 and self.mapping.wakes_at is not None:
                self.now = max(self.now, self.mapping.wakes_at)
                assert self.step() > 0
            elif self.pending:
                self.react(is_kind=False)
            self.step()
        for _ in range(2000):
            is_waiting = any(not isinstance(one, Read) for one in self.pending)
            if not is_waiting and not self.mapping.held and len(self.ended) == len(self.found):
                return
            if self.pending:
                self.react(is_kind=True)
            self.now += 0.1
            self.step()

    # -- The stream.

    def put(self) -> None:
        for _ in range(self.chance.randint(1, 12)):
            key = self.chance.choice(KEYS)
            self.number += self.chance.randint(1, 3)
            number, keep = str(self.number), self.chance.random() < 0.8
            size = self.chance.choice([100, 100, 100, MAX_EVENT_BYTES // 3, MAX_EVENT_BYTES + 1])
            data = json.dumps({"keep": keep}).encode()
            record = StreamRecord(number, {"number": number, "key": key}, size, self.now, key, data, (number,))
            self.records[self.home[key]].append(record)
            self.found[number] = record
            self.of_key[key].append(number)

    def split(self) -> None:
        """One shard gives its keys to two, or two to one."""
        opened = [shard for shard in self.parents if shard not in self.closed]
        old = self.chance.sample(opened, self.chance.randint(1, min(2, len(opened))))
        new = [f"s{len(self.parents) + at}" for at in range(2 if len(old) == 1 else 1)]
        self.closed.update(old)
        for shard in new:
            self.parents[shard], self.records[shard] = tuple(old), []
        for key, shard in self.home.items():
            if shard in old:
                self.home[key] = self.chance.choice(new)

    # -- The mapping.

    def step(self) -> int:
        """Ask what is to be done, and check what is said. Gives how much that was."""
        actions = self.mapping.actions(self.now)
        for action in actions:
            if isinstance(action, Settled | Filtered | GivenUp):
                self.end(action.ids)
            elif isinstance(action, Invoke):
                self.check(action)
            if isinstance(action, Invoke | Read | ListShards | SendToDestination):
                self.pending.append(action)
        assert self.mapping.actions(self.now) == []
        wakes_at = self.mapping.wakes_at
        assert wakes_at is None or wakes_at > self.now
        for shard, number in self.mapping.checkpoints.items():
            assert int(number) >= self.reached.get(shard, 0)
            self.reached[shard] = int(number)
            assert all(self.ended[one.number] for one in self.records[shard] if int(one.number) <= int(number))
        return len(actions)

    def end(self, ids: tuple[str, ...]) -> None:
        for name in ids:
            self.ended[name] += 1
            assert self.ended[name] == 1
            record = self.found[name]
            if json.loads(record.data)["keep"]:
                assert int(name) > self.newest.get(record.key, 0)
                self.newest[record.key] = int(name)

    def check(self, invocation: Invoke) -> None:
        names = numbers(invocation)
        batch = [self.found[name] for name in names]
        assert names == sorted(set(names), key=int)
        assert len(batch) <= self.options.batch_size
        assert len(batch) == 1 or sum(one.size for one in batch) <= MAX_EVENT_BYTES
        at_work = [numbers(one) for one in self.pending if isinstance(one, Invoke)]
        assert self.limit is None or len(at_work) < self.limit
        keys_at_work = {self.found[name].key for one in at_work for name in one}
        for record in batch:
            assert not self.ended[record.number]
            assert record.key not in keys_at_work
            # All of the key that came before has ended, or is in this batch.
            before = [other for other in self.of_key[record.key] if int(other) < int(record.number)]
            assert all(self.ended[other] or other in names for other in before)
            assert self.now - record.arrived_at <= self.options.age_limit
            assert self.failures[record.number] <= self.options.maximum_retry_attempts % 10_001
        for here in self.records.values():
            of_shard = {one.number for one in here}
            if of_shard & set(names):
                assert of_shard.issuperset(names)
                beside = sum(bool(of_shard & set(one)) for one in at_work)
                assert beside < self.options.parallelization_factor

    def react(self, *, is_kind: bool) -> None:
        """Answer one of what is asked."""
        action = self.pending.pop(self.chance.randrange(len(self.pending)))
        fails = not is_kind and self.chance.random() < 0.2
        match action:
            case ListShards() if fails:
                self.mapping.not_listed(self.now)
            case ListShards():
                self.mapping.listed([Shard(shard, parents) for shard, parents in self.parents.items()], self.now)
            case Read() if fails:
                self.mapping.not_read(action.shard, self.now)
            case Read():
                self.mapping.was_read(action.shard, self.page(action), self.now)
            case SendToDestination() if fails:
                self.mapping.not_sent(action.send, self.now)
            case SendToDestination():
                self.mapping.sent(action.send, self.now)
            case Invoke():
                answer = Returned({"state": {}}) if is_kind else self.answer(numbers(action))
                self.count(numbers(action), answer)
                self.mapping.answered(action.batch, answer, self.now)

    def page(self, read: Read) -> Page:
        after = 0 if read.after is None else int(read.after)
        here = [one for one in self.records[read.shard] if int(one.number) > after]
        page = here[: min(read.limit, self.chance.randint(0, 10))]
        rest = len(here) - len(page)
        return Page(page, read.shard in self.closed and not rest, 1000 * rest)

    def answer(self, names: list[str]) -> Answer:
        mood = self.chance.random()
        if mood < 0.3:
            return self.chance.choice([RAISED, RAISED, Throttled(), Unheard()])
        response: dict[str, Any] = {"state": {"mood": mood}}
        if mood < 0.6 and names:
            named = self.chance.sample(names, self.chance.randint(1, len(names)))
            response["batchItemFailures"] = [{"itemIdentifier": one} for one in named]
        return Returned(response)

    def count(self, names: list[str], answer: Answer) -> None:
        """Which records' retries an answer counts against. What is split begins anew."""
        begins_anew = False
        if isinstance(answer, Returned):
            items = answer.payload.get("batchItemFailures")
            if not items or not self.options.report_batch_item_failures:
                return
            begins_anew = names[0] not in [item["itemIdentifier"] for item in items]
        elif answer is not RAISED:
            return
        elif self.options.bisect:
            begins_anew = len(names) > 1
        for name in names:
            self.failures[name] = 0 if begins_anew else self.failures[name] + 1


@search(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_every_record_ends_once_in_order_and_within_all_limits(seed: int) -> None:
    history = History(random.Random(seed))
    history.run(150)
    assert history.ended == Counter(list(history.found))
    assert history.mapping.held == 0
    ends = {shard: records[-1].number for shard, records in history.records.items() if records}
    assert history.mapping.checkpoints == ends
