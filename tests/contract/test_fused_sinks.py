"""What every sink that writes outputs once promises, and what a table does for it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import sinks
from pipeline.aws import marks
from pipeline.aws.client import client
from pipeline.aws.dynamodb import item_size
from pipeline.decisions import wire
from pipeline.decisions.codec import encode
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import SinkRefused, SinkUnavailable
from pipeline.output import Output
from pipeline.ports import Effect, FusedSink
from tests.flow.proxy import Answer, Proxy, lose_the_reply, lose_the_request

FOREVER = Deadline()
NUMBERS = itertools.count()
LOCAL = pytest.param("local", marks=pytest.mark.dynamodb_local)
large_bodies = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")


def output(value: Any, **fields: Any) -> Output:
    """An output as the engine makes it."""
    defaults: dict[str, Any] = {"id": f"{next(NUMBERS):032x}", "sink": "out", "default_key": '"k"'}
    return Output(body=encode(value), value=value, **{**defaults, **fields})


def effect(mark: str, *values: Any) -> Effect:
    """The outputs of one record."""
    return Effect(mark=mark, outputs=tuple(output(value) for value in values))


@dataclass
class Bench:
    """A sink with its resource made, and a way to read what it took: values by their ids."""

    sink: Any
    environment: ProcessEnvironment
    read: Callable[[], Awaitable[dict[str, Any]]]
    name: str = ""
    others: list[ProcessEnvironment] = field(default_factory=list)

    async def write(self, *effects: Effect, deadline: Deadline = FOREVER) -> list[Any]:
        return list(await self.sink.write_once(effects, self.environment, deadline))

    async def race(self, *effects: Effect) -> list[Any]:
        """One effect in each environment, all at the same moment."""
        pairs = zip(effects, [self.environment, *self.others], strict=False)
        answers = await asyncio.gather(*(self.sink.write_once([one], place, FOREVER) for one, place in pairs))
        return [answer for (answer,) in answers]

    async def service(self) -> Any:
        return await client(self.environment, "dynamodb")

    async def item(self, key: str) -> Any:
        """An item as it stands in the table."""
        service = await self.service()
        return (await service.get_item(TableName=self.name, Key={"id": {"S": key}}, ConsistentRead=True)).get("Item")

    async def marks_on(self, key: str) -> list[str]:
        found = await self.item(key)
        return [one["S"] for one in found["_pipeline"]["M"]["marks"]["L"]]

    async def put(self, item: dict[str, Any]) -> None:
        """Write an item as somebody else would."""
        await (await self.service()).put_item(TableName=self.name, Item=item)


@pytest.fixture
async def others(clock: Any) -> AsyncIterator[list[ProcessEnvironment]]:
    """Three more environments."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(aclosing(ProcessEnvironment(clock=clock))) for _ in range(3)]


@pytest.fixture
async def memory(environment: ProcessEnvironment, others: list[ProcessEnvironment]) -> Bench:
    sink = sinks.Memory()

    async def read() -> dict[str, Any]:
        return {value["id"]: value for value in sink.values}

    return Bench(sink, environment, read, others=others)


async def table_bench(name: str, environment: ProcessEnvironment, others: list[ProcessEnvironment]) -> Bench:
    sink = sinks.DynamoDB(name)
    await sink.create(environment)

    async def read() -> dict[str, Any]:
        service = await client(environment, "dynamodb")
        found = (await service.scan(TableName=name, ConsistentRead=True))["Items"]
        return {item["id"]["S"]: {"id": item["id"]["S"], "n": int(item["n"]["N"])} for item in found}

    return Bench(sink, environment, read, name=name, others=others)


@pytest.fixture
async def moto(aws: str, environment: ProcessEnvironment, others: list[ProcessEnvironment], unique: str) -> Bench:
    return await table_bench(unique, environment, others)


@pytest.fixture
async def local(
    aws: str,
    dynamodb_local: str,
    monkeypatch: pytest.MonkeyPatch,
    environment: ProcessEnvironment,
    others: list[ProcessEnvironment],
    unique: str,
) -> Bench:
    """AWS's own DynamoDB Local."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", dynamodb_local)
    return await table_bench(unique, environment, others)


@pytest.fixture(params=["memory", "moto", LOCAL])
def bench(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["moto", LOCAL])
def table(request: pytest.FixtureRequest) -> Bench:
    found: Bench = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def proxy(table: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Whatever is opened from now on reaches the table through it: the other environments."""
    made = Proxy(os.environ["AWS_ENDPOINT_URL"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", made.url)
    yield made
    made.stop()


# What every one of them promises.


async def test_it_is_a_sink_that_writes_once(bench: Bench) -> None:
    assert isinstance(bench.sink, FusedSink)
    assert await bench.write() == []


async def test_an_effect_is_written_once_and_its_repeat_is_refused(bench: Bench) -> None:
    first, second = {"id": "a", "n": 1}, {"id": "b", "n": 2}
    assert await bench.write(effect("m1", first), effect("m2", second)) == [True, True]
    assert await bench.write(effect("m1", first)) == [False]
    assert await bench.write(effect("m2", second), effect("m3", {"id": "c", "n": 3})) == [False, True]
    assert await bench.read() == {"a": first, "b": second, "c": {"id": "c", "n": 3}}


async def test_a_repeat_is_refused_also_when_it_would_write_something_else(bench: Bench) -> None:
    assert await bench.write(effect("m", {"id": "a", "n": 1})) == [True]
    assert await bench.write(effect("m", {"id": "a", "n": 2})) == [False]
    assert await bench.write(effect("m", {"id": "a", "n": 2}, {"id": "b", "n": 2})) == [False]
    assert await bench.read() == {"a": {"id": "a", "n": 1}}


async def test_a_repeat_in_the_same_call_is_refused(bench: Bench) -> None:
    value = {"id": "a", "n": 1}
    assert await bench.write(effect("m", value), effect("m", value), effect("n", value)) == [True, False, True]


async def test_a_later_key_replaces_the_item_and_an_older_ones_repeat_does_not(bench: Bench) -> None:
    assert await bench.write(effect("old", {"id": "a", "n": 1})) == [True]
    assert await bench.write(effect("new", {"id": "a", "n": 2})) == [True]
    assert await bench.write(effect("old", {"id": "a", "n": 1})) == [False]
    assert await bench.read() == {"a": {"id": "a", "n": 2}}


async def test_several_outputs_are_written_together_and_once(bench: Bench) -> None:
    values = [{"id": f"i{n}", "n": n} for n in range(5)]
    assert await bench.write(effect("m", *values)) == [True]
    assert await bench.write(effect("m", *values)) == [False]
    assert await bench.read() == {value["id"]: value for value in values}


async def test_outputs_that_other_keys_wrote_in_part_are_written_together(bench: Bench) -> None:
    await bench.write(effect("m1", {"id": "b", "n": 1}))
    await bench.write(effect("m2", {"id": "b", "n": 2}))
    assert await bench.write(effect("m3", {"id": "a", "n": 3}, {"id": "b", "n": 3}, {"id": "c", "n": 3})) == [True]
    assert [value["n"] for value in (await bench.read()).values()] == [3, 3, 3]
    assert await bench.write(effect("m1", {"id": "b", "n": 1}), effect("m3", {"id": "b", "n": 3})) == [False, False]


async def test_effects_on_one_item_are_written_in_the_order_given(bench: Bench) -> None:
    effects = [
        effect("m1", {"id": "a", "n": 1}),
        effect("m2", {"id": "a", "n": 2}, {"id": "b", "n": 2}),
        effect("m3", {"id": "b", "n": 3}),
        effect("m4", {"id": "c", "n": 4}, {"id": "b", "n": 4}),
        effect("m5", {"id": "b", "n": 5}),
    ]
    assert await bench.write(*effects) == [True] * 5
    assert {key: value["n"] for key, value in (await bench.read()).items()} == {"a": 2, "b": 5, "c": 4}


async def test_an_effect_without_outputs_is_true_each_time(bench: Bench) -> None:
    assert await bench.write(effect("m"), effect("m")) == [True, True]
    assert await bench.write(effect("m", {"id": "a", "n": 1})) == [True]
    assert await bench.write(effect("m")) == [True]


@pytest.mark.parametrize("items", [1, 2])
async def test_of_overlapping_runs_of_one_key_one_writes(bench: Bench, items: int) -> None:
    values = [{"id": f"i{n}", "n": n} for n in range(items)]
    answers = await bench.race(*[effect("m", *values)] * 4)
    assert sorted(answers) == [False, False, False, True]
    assert await bench.read() == {value["id"]: value for value in values}


@pytest.mark.parametrize("items", [1, 2])
async def test_different_keys_at_the_same_moment_all_write_and_leave_their_marks(bench: Bench, items: int) -> None:
    effects = [effect(f"m{n}", *({"id": f"i{item}", "n": n} for item in range(items))) for n in range(4)]
    assert await bench.race(*effects) == [True] * 4
    assert await bench.race(*effects) == [False] * 4
    found = {value["n"] for value in (await bench.read()).values()}
    assert len(found) == 1, "the items are of one effect, whichever came last"


#: What each of six keys writes, the same for every repeat, and the keys of some calls, one after the other.
worlds = st.tuples(
    st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=6, max_size=6),
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=6), max_size=4),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=worlds)
async def test_any_writes_with_repeats_come_to_the_same_as_without(
    bench: Bench, world: tuple[Sequence[set[str]], Sequence[Sequence[int]]]
) -> None:
    items, calls = world
    prefix = f"{next(NUMBERS)}-"
    expected: dict[str, int] = {}
    done: set[int] = set()
    for call in calls:
        wanted: list[bool] = []
        for number in call:
            wanted.append(number not in done)
            if number not in done:
                done.add(number)
                expected.update({prefix + name: number for name in items[number]})
        effects = [
            effect(f"{prefix}{number}", *({"id": prefix + name, "n": number} for name in sorted(items[number])))
            for number in call
        ]
        assert await bench.write(*effects) == wanted
    found = await bench.read()
    assert {key: value["n"] for key, value in found.items() if key.startswith(prefix)} == expected


def test_memory_forgets_its_marks_with_the_outputs() -> None:
    async def run() -> None:
        sink, environment = sinks.Memory(), ProcessEnvironment()
        for _ in range(2):
            assert await sink.write_once([effect("m", {"id": "a"})], environment, FOREVER) == [True]
            sink.clear()
        await environment.aclose()

    asyncio.run(run())


# The form of an item: deployed tables hold it.


async def test_the_marks_stand_in_the_reserved_member(table: Bench) -> None:
    for mark in ("m1", "m2"):
        await table.sink.write_once(
            [Effect(mark=mark, outputs=(output({"id": "a", "n": 1}, id="x", hops=2),))], table.environment, FOREVER
        )
    assert await table.item("a") == {
        "id": {"S": "a"},
        "n": {"N": "1"},
        "_pipeline": {"M": {"id": {"S": "x"}, "hops": {"N": "2"}, "marks": {"L": [{"S": "m1"}, {"S": "m2"}]}}},
    }


def test_a_handler_behind_the_table_sees_no_marks() -> None:
    carried = {"id": "x", "hops": 2, "marks": ["m1"]}
    body, found = wire.split_member(json.dumps({"id": "a", "_pipeline": carried}).encode())
    assert (body, found and found.id, found and found.hops) == (b'{"id": "a"}', "x", 2)


def test_the_bytes_of_marks_are_those_that_the_docstring_names() -> None:
    sizes = [item_size(marks.marked({}, ["m" * 64] * count)) for count in (1, 2, 100, 1_000)]
    assert sizes == [86, 151, 6_521, 6_521]


async def test_what_carries_nothing_holds_marks_only(table: Bench) -> None:
    table.sink = sinks.DynamoDB(table.name, carry=False)
    assert await table.write(effect("m", {"id": "a", "n": 1})) == [True]
    assert (await table.item("a"))["_pipeline"] == {"M": {"marks": {"L": [{"S": "m"}]}}}
    assert await table.write(effect("m", {"id": "a", "n": 1})) == [False]


async def test_an_own_member_of_the_reserved_name_is_kept_or_refused(table: Bench) -> None:
    table.sink = sinks.DynamoDB(table.name, carry=False)
    first, second = await table.write(
        effect("m1", {"id": "a", "n": 1, "_pipeline": {"x": 1}}), effect("m2", {"id": "b", "n": 1, "_pipeline": "x"})
    )
    assert first is True
    assert isinstance(second, SinkRefused)
    assert "'_pipeline' is reserved" in str(second)
    assert (await table.item("a"))["_pipeline"] == {"M": {"x": {"N": "1"}, "marks": {"L": [{"S": "m1"}]}}}


@pytest.mark.parametrize(
    "member",
    [
        None,
        {"S": "x"},
        {"M": {"id": {"S": "x"}, "hops": {"N": "1"}}},
        {"M": {"marks": {"S": "m"}}},
        {"M": {"marks": {"L": [{"N": "1"}]}}},
    ],
)
async def test_an_item_that_others_wrote_without_marks_is_replaced(table: Bench, member: Any) -> None:
    await table.put({"id": {"S": "a"}, "n": {"N": "0"}, **({"_pipeline": member} if member else {})})
    assert await table.write(effect("m", {"id": "a", "n": 1})) == [True]
    assert await table.write(effect("m", {"id": "a", "n": 1})) == [False]
    assert await table.marks_on("a") == ["m"]
    assert await table.read() == {"a": {"id": "a", "n": 1}}


async def test_the_newest_hundred_marks_are_kept(table: Bench) -> None:
    effects = [effect(f"m{n}", {"id": "a", "n": n}) for n in range(101)]
    assert await table.write(*effects) == [True] * 101
    assert await table.marks_on("a") == [f"m{n}" for n in range(1, 101)]
    assert await table.write(effects[1]) == [False]
    assert await table.read() == {"a": {"id": "a", "n": 100}}
    # This is the limit that the docstring states: of the first one nothing is known any more.
    assert await table.write(effects[0]) == [True]


# Keys.


async def own_table(bench: Bench, kind: str, *, sort: str | None = None) -> str:
    """A table as the toolkit does not make it."""
    name = f"{bench.name}-own"
    keys = [("p", "HASH", kind), *([("s", "RANGE", sort)] if sort else [])]
    await (await bench.service()).create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": one} for key, _, one in keys],
        KeySchema=[{"AttributeName": key, "KeyType": role} for key, role, _ in keys],
    )
    return name


async def test_numbers_are_keys_and_one_number_has_one_item_however_it_is_spelt(table: Bench) -> None:
    table.sink = sinks.DynamoDB(await own_table(table, "N"), partition_key="p")
    one, same = effect("m1", {"p": 1, "n": 1}), effect("m2", {"p": 1.0, "n": 2})
    assert await table.write(one, same, effect("m3", {"p": 2, "n": 3}, {"p": 3, "n": 3})) == [True] * 3
    assert await table.write(one, same) == [False, False]
    (refused,) = await table.write(effect("m4", {"p": 7, "n": 1}, {"p": 7.0, "n": 2}))
    assert isinstance(refused, SinkRefused)


async def test_items_with_one_partition_key_and_several_sort_keys_are_several(table: Bench) -> None:
    table.sink = sinks.DynamoDB(await own_table(table, "S", sort="N"), partition_key="p", sort_key="s")
    values = [{"p": "a", "s": n} for n in range(3)]
    assert await table.write(effect("m", *values), effect("n", values[1])) == [True, True]
    assert await table.write(effect("m", *values), effect("n", values[1])) == [False, False]


# What can never be written.


async def test_of_an_effect_that_is_refused_in_part_nothing_is_written(table: Bench) -> None:
    table.sink = sinks.DynamoDB(await own_table(table, "S"), partition_key="p")
    answers = await table.write(
        effect("m1", {"p": "a"}, {"p": "b", "x": "x" * 409_600}),
        effect("m2", {"p": "c"}, {"x": "no key"}),
        effect("m3", {"p": "d"}, {"p": 7}),  # a number as key of a table with text keys: the table says so
        effect("m4", {"p": "e"}, ["no object"]),
        effect("m5", {"p": 8}),
        effect("m6", {"p": "f"}),
    )
    assert [type(answer) for answer in answers] == [*[SinkRefused] * 5, bool]
    service = await table.service()
    found = (await service.scan(TableName=table.sink.table))["Items"]
    assert [item["p"] for item in found] == [{"S": "f"}]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([{"id": f"i{n}", "n": n} for n in range(101)], r"101 items.*transaction takes 100; .*use Claim"),
        ([{"id": f"i{n}", "n": n, "x": "x" * 400_000} for n in range(11)], r"4,40.* bytes.*4,194,304; .*use Claim"),
        ([{"id": "a", "n": 1}, {"id": "b", "n": 1}, {"id": "a", "n": 2}], r"an item twice.*once, or use Claim"),
        ([{"id": "a", "n": 1, "x": "x" * 409_550}], r"with its marks: DynamoDB takes 409,600"),
    ],
)
async def test_what_no_transaction_takes_is_refused_and_says_what_to_do(
    table: Bench, faults: Any, values: list[Any], says: str
) -> None:
    fault = faults("dynamodb")
    await fault.record("TransactWriteItems")
    (refused,) = await table.write(effect("m", *values))
    assert isinstance(refused, SinkRefused)
    assert re.search(says, str(refused))
    assert fault.calls == []
    assert await table.read() == {}


@large_bodies
async def test_a_transaction_of_a_hundred_items_and_one_of_nearly_4_mb_are_written(table: Bench) -> None:
    many = effect("m1", *({"id": f"i{n:03}", "n": n} for n in range(100)))
    large = effect("m2", *({"id": f"l{n}", "n": n, "x": "x" * 404_000} for n in range(10)))
    assert await table.write(many, large) == [True, True]
    assert await table.write(many, large) == [False, False]


async def test_marks_of_other_keys_can_make_an_item_too_large(local: Bench) -> None:
    # moto has a limit of its own, a little lower.
    value = {"id": "a", "n": 1, "x": "x" * 409_300}
    answers = [(await local.write(effect(f"{n}" * 64, value)))[0] for n in range(4)]
    assert answers[0] is True
    assert isinstance(answers[-1], SinkRefused)


async def test_what_follows_a_failed_effect_on_its_item_is_not_written(table: Bench) -> None:
    answers = await table.write(
        effect("m1", {"id": "a", "n": 1, "x": "x" * 409_600}),
        effect("m2", {"id": "a", "n": 2}, {"id": "b", "n": 2}),
        effect("m3", {"id": "b", "n": 3}),
        effect("m4", {"id": "c", "n": 4}),
        effect("m5", {"id": "b", "n": "5" * 3}, {"n": 5}),
    )
    assert [type(answer) for answer in answers] == [SinkRefused, SinkUnavailable, SinkUnavailable, bool, SinkRefused]
    assert "an earlier write of the same item was not accepted" in str(answers[1])
    assert await table.read() == {"c": {"id": "c", "n": 4}}


# What goes wrong on the way.

OPERATIONS = [("PutItem", 1), ("TransactWriteItems", 2)]


def of(items: int, mark: str = "m") -> Effect:
    return effect(mark, *({"id": f"i{n}", "n": n} for n in range(items)))


@pytest.mark.parametrize(("operation", "items"), OPERATIONS)
async def test_a_lost_request_is_sent_again(table: Bench, faults: Any, operation: str, items: int) -> None:
    await faults("dynamodb").lose_requests(operation, times=2)
    assert await table.write(of(items)) == [True]
    assert len(await table.read()) == items


@pytest.mark.parametrize(("operation", "items"), OPERATIONS)
async def test_after_a_lost_answer_the_own_mark_is_found(table: Bench, faults: Any, operation: str, items: int) -> None:
    await faults("dynamodb").lose_replies(operation)
    assert await table.write(of(items)) == [False]
    assert await table.marks_on("i0") == ["m"]


@pytest.mark.parametrize(("operation", "items"), OPERATIONS)
async def test_a_lost_refusal_teaches_nothing_and_the_next_one_does(
    table: Bench, faults: Any, operation: str, items: int
) -> None:
    assert await table.write(of(items, "old")) == [True]
    await faults("dynamodb").lose_replies(operation)
    assert await table.write(of(items, "new")) == [True]
    assert await table.marks_on("i0") == ["old", "new"]


@pytest.mark.parametrize(("operation", "items"), OPERATIONS)
async def test_a_lost_answer_to_the_second_write_of_an_item_keeps_the_others_marks(
    table: Bench, proxy: Proxy, operation: str, items: int
) -> None:
    assert await table.write(of(items, "old")) == [True]
    proxy.next(operation, lambda _, forward: forward(), lose_the_reply)
    (answer,) = await table.sink.write_once([of(items, "new")], table.others[0], FOREVER)
    assert answer is False or (answer is True and items > 1), "a transaction has a token, a single put has none"
    assert await table.marks_on("i0") == ["old", "new"]


async def test_a_connection_that_breaks_before_the_answer_hides_no_write(table: Bench, proxy: Proxy) -> None:
    environment = table.others[0]
    proxy.next("PutItem", lose_the_reply)
    assert await table.sink.write_once([of(1)], environment, FOREVER) == [False]
    proxy.next("PutItem", lose_the_request)
    assert await table.sink.write_once([of(1, "n")], environment, FOREVER) == [True]
    assert await table.marks_on("i0") == ["m", "n"]


async def test_one_transaction_has_one_token_however_often_it_is_sent(table: Bench, proxy: Proxy) -> None:
    proxy.next("TransactWriteItems", lose_the_reply)
    (answer,) = await table.sink.write_once([of(2)], table.others[0], FOREVER)
    first, second = (call["ClientRequestToken"] for call in proxy.calls("TransactWriteItems")[:2])
    assert first == second
    # DynamoDB knows the token, and answers as it would have the first time; moto does not, and our mark is found.
    assert answer in (True, False)
    assert await table.marks_on("i0") == await table.marks_on("i1") == ["m"]


def cancelled(*codes: str) -> Callable[..., Answer]:
    """The transaction is cancelled for these reasons, without being carried out."""
    reasons = [{"Code": code, "Message": "because"} if code != "None" else {"Code": code} for code in codes]
    body = {"__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException", "CancellationReasons": reasons}
    return lambda *_: Answer(400, json.dumps({**body, "Message": "Transaction cancelled"}).encode())


@pytest.mark.parametrize("code", ["TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded", "New"])
async def test_a_transaction_that_was_in_the_way_of_another_is_tried_again(
    table: Bench, proxy: Proxy, clock: Any, code: str
) -> None:
    proxy.next("TransactWriteItems", cancelled("None", code), cancelled(code, "None"))
    assert await table.sink.write_once([of(2)], table.others[0], FOREVER) == [True]
    assert len(clock.slept) == 2


def with_the_second_reason(code: str) -> Callable[..., Answer]:
    """The transaction is cancelled as it really is, and by its second item for this reason."""

    def act(request: Any, forward: Callable[[], Answer]) -> Answer:
        answer = forward()
        body = json.loads(answer.body)
        body["CancellationReasons"][1] = {"Code": code, "Message": "because"}
        return Answer(answer.status, json.dumps(body).encode())

    return act


@pytest.mark.parametrize("code", ["TransactionConflict", "ValidationError"])
async def test_one_item_with_the_own_mark_tells_enough(table: Bench, proxy: Proxy, code: str) -> None:
    await table.write(of(2))
    proxy.next("TransactWriteItems", with_the_second_reason(code))
    assert await table.sink.write_once([of(2)], table.others[0], FOREVER) == [False]
    assert len(proxy.calls("TransactWriteItems")) == 1


async def test_a_conflict_beside_a_refused_condition_keeps_what_that_one_told(table: Bench, proxy: Proxy) -> None:
    await table.write(of(1, "old"))
    proxy.next("TransactWriteItems", with_the_second_reason("TransactionConflict"))
    assert await table.sink.write_once([of(2, "new")], table.others[0], FOREVER) == [True]
    assert len(proxy.calls("TransactWriteItems")) == 2
    assert await table.marks_on("i0") == ["old", "new"]


@pytest.mark.parametrize("code", ["ItemCollectionSizeLimitExceeded", "ValidationError"])
async def test_a_transaction_that_can_never_be_is_refused_at_once(table: Bench, proxy: Proxy, code: str) -> None:
    proxy.next("TransactWriteItems", cancelled("TransactionConflict", code))
    (refused,) = await table.sink.write_once([of(2)], table.others[0], FOREVER)
    assert isinstance(refused, SinkRefused)
    assert str(refused) == f"DynamoDB TransactWriteItems: {code}: because"
    assert len(proxy.calls("TransactWriteItems")) == 1


async def test_a_transaction_that_is_cancelled_each_time_is_for_later(table: Bench, proxy: Proxy) -> None:
    proxy.next("TransactWriteItems", *[cancelled("TransactionConflict", "None")] * 50)
    (answer,) = await table.sink.write_once([of(2)], table.others[0], FOREVER)
    assert isinstance(answer, SinkUnavailable)
    assert len(proxy.calls("TransactWriteItems")) == marks.TRIES


async def test_a_cancellation_without_reasons_is_for_later(table: Bench, proxy: Proxy) -> None:
    proxy.next("TransactWriteItems", *[cancelled()] * 50)
    (answer,) = await table.sink.write_once([of(2)], table.others[0], FOREVER)
    assert isinstance(answer, SinkUnavailable)


async def test_an_item_that_changes_under_every_try_is_for_later(table: Bench, proxy: Proxy, clock: Any) -> None:
    def someone_else_is_faster(number: int) -> Callable[..., Answer]:
        def act(request: Any, forward: Callable[[], Answer]) -> Answer:
            item = {**request.body["Item"], "_pipeline": {"M": {"marks": {"L": [{"S": f"other{number}"}]}}}}
            asyncio.run_coroutine_threadsafe(table.put(item), loop).result()
            return forward()

        return act

    loop = asyncio.get_running_loop()
    proxy.next("PutItem", *[someone_else_is_faster(number) for number in range(50)])
    (answer,) = await table.sink.write_once([of(1)], table.others[0], FOREVER)
    assert isinstance(answer, SinkUnavailable)
    assert "changed under every try" in str(answer)
    assert len(proxy.calls("PutItem")) == marks.LOOKS
    assert len(clock.slept) == marks.LOOKS - 2, "the first refusal is the usual case, and waits for nothing"


async def test_nothing_is_tried_again_beyond_the_deadline(table: Bench, faults: Any, clock: Any) -> None:
    fault = faults("dynamodb")
    await fault.record("PutItem")
    await fault.lose_requests("PutItem", times=50)
    (answer, behind) = await table.write(
        of(1), of(1, "n"), deadline=Deadline(soft=clock.monotonic(), hard=clock.monotonic() + 1)
    )
    assert isinstance(answer, SinkUnavailable)
    assert isinstance(behind, SinkUnavailable)
    assert len(fault.calls) == 1
    assert clock.slept == []


async def test_what_waited_for_its_item_is_not_started_beyond_the_deadline(
    table: Bench, faults: Any, clock: Any
) -> None:
    fault = faults("dynamodb")
    await fault.record("PutItem")
    soft = Deadline(soft=clock.monotonic(), hard=clock.monotonic() + 1)
    first, behind = await table.write(of(1), of(1, "n"), deadline=soft)
    assert first is True
    assert isinstance(behind, SinkUnavailable)
    assert len(fault.calls) == 1
    assert await table.marks_on("i0") == ["m"]


async def test_a_missing_table_is_for_later(table: Bench, clock: Any) -> None:
    table.sink = sinks.DynamoDB("nowhere")
    answers = await table.write(of(1), of(2, "n"))
    assert [type(answer) for answer in answers] == [SinkUnavailable] * 2


async def test_effects_on_different_items_cost_one_call_each(table: Bench, faults: Any) -> None:
    fault = faults("dynamodb")
    await fault.record("PutItem")
    effects = [effect(f"m{n}", {"id": f"i{n}", "n": n}) for n in range(120)]
    assert await table.write(*effects) == [True] * 120
    assert len(fault.calls) == 120


def test_a_fused_sink_may_put_items_and_nothing_else() -> None:
    sink = sinks.DynamoDB("orders")
    assert [grant.actions for grant in sink.grants()] == [("dynamodb:BatchWriteItem",)]
    # Transactions are authorised by the actions in them.
    assert [grant.actions for grant in sink.grants(fused=True)] == [("dynamodb:PutItem",)]
