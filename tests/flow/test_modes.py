"""One scenario in each idempotency mode, through `invoke`, the local run and AWS's Lambda runtime: all agree.

A FIFO queue and a stream get the same records: a key that comes twice, a record that fails once, one that always fails,
one that is rejected, one that cannot be read. Afterwards all that was good is delivered once more, to an environment
that remembers nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from pipeline import Backoff, Checkpoint, Claim, Fused, Mark, Pipeline, Record, Reject, sinks, sources
from pipeline.emulator.functions.thread import Runtime
from pipeline.emulator.local import lambda_runtime
from pipeline.engine.modes import Mode
from pipeline.engine.stage import Stage
from pipeline.outcome import Duplicate, is_settled, name_of
from pipeline.stores import Memory
from pipeline.telemetry.events import Fact, RecordFinished
from pipeline.testing import ainvoke, local
from tests.flow.runtime_api import RuntimeClient

Order = dict[str, Any]

MODES: Mapping[str, Mode] = {"claim": Claim(), "mark": Mark(), "fused": Fused(), "checkpoint": Checkpoint()}
QUICK = Backoff(attempts=3, base=0.1)

#: What is sent, with its message group or partition key.
RECORDS: list[tuple[str, Order | str]] = [
    ("a", {"n": "a1", "copy": 1}),
    ("a", {"n": "a1", "copy": 2}),
    ("a", {"n": "a2", "fails": 1}),
    ("a", {"n": "a3"}),
    ("b", {"n": "poison", "fails": 99}),
    ("b", {"n": "b2"}),
    ("c", {"n": "bad", "fails": 0, "reject": True}),
    ("c", "not json"),
    ("c", {"n": "c2"}),
]
#: The records that come to a good end, by their place in `RECORDS`.
GOOD = (0, 1, 2, 3, 5, 8)
PAYLOADS = [payload for _, payload in RECORDS]
BODIES = [payload if isinstance(payload, str) else json.dumps(payload, separators=(",", ":")) for payload in PAYLOADS]


def declared(mode: Mode, source: Any) -> Pipeline:
    """The same handler in one of the modes."""
    shop = Pipeline("shop", idempotency=mode)

    @shop.handler(
        source,
        sinks=[sinks.SQS("told"), sinks.DynamoDB("ledger", partition_key="n")],
        key=None if isinstance(mode, Checkpoint) else "n",
        retry=QUICK,
    )
    async def price(record: Record[Order]) -> Order:
        order = record.payload
        if order.get("reject"):
            raise Reject("as it says")
        if record.attempt <= order.get("fails", 0):
            raise ValueError("as it says")
        return {"n": order["n"], "copy": order.get("copy", 0)}

    return shop


SHOPS = {
    **{f"queue_{name}": declared(mode, sources.SQS("orders.fifo")) for name, mode in MODES.items()},
    **{f"stream_{name}": declared(mode, sources.Kinesis("orders", shards=1)) for name, mode in MODES.items()},
}
# By these names the Lambda runtime finds them.
queue_claim, queue_mark, queue_fused, queue_checkpoint, stream_claim, stream_mark, stream_fused, stream_checkpoint = (
    shop.handlers["price"] for shop in SHOPS.values()
)


@dataclass
class Effects:
    """What came of it."""

    outcomes: Counter[str] = field(default_factory=Counter)
    ledger: dict[str, int] = field(default_factory=dict)  #: by key, which copy was written last
    told: list[str] = field(default_factory=list)  #: the keys that the other sink was told, sorted
    dead: list[tuple[str, str, int]] = field(default_factory=list)  #: body, cause, attempts
    entries: list[tuple[str, str]] = field(default_factory=list)  #: id and status, see `known`


def expected(name: str) -> Effects:
    """What each mode promises of the scenario."""
    _, _, mode = name.partition("_")
    told = ["a1", "a2", "a3", "b2", "c2"]
    found = Effects(
        Counter(succeeded=5, duplicate=1, rejected=2, exhausted=1),
        {"a1": 1, "a2": 0, "a3": 0, "b2": 0, "c2": 0},
        told,
        sorted([(BODIES[6], "Reject", 1), (BODIES[7], "PayloadError", 1), (BODIES[4], "ValueError", 3)]),
    )
    if mode == "checkpoint":  # it knows places, not keys
        return Effects(
            Counter(succeeded=6, rejected=2, exhausted=1), {**found.ledger, "a1": 2}, ["a1", *told], found.dead
        )
    return found


# Through `invoke`


async def through_invoke(name: str) -> Effects:
    """Deliver what is unsettled again, until nothing is; then all that was good."""
    shop, effects, store = SHOPS[name], Effects(), Memory()
    left, receive = list(range(len(RECORDS))), 0
    while left:
        receive += 1
        # Places are those in a call, so a lane of Checkpoint is delivered from its beginning.
        wanted = list(range(len(RECORDS))) if name.endswith("_checkpoint") else left
        found = await invoked(shop, wanted, store, receive)
        ended = {number: outcome for number, outcome in zip(wanted, found.outcomes, strict=True) if is_settled(outcome)}
        effects.outcomes.update(name_of(outcome) for number, outcome in ended.items() if number in left)
        assert all(isinstance(outcome, Duplicate) for number, outcome in ended.items() if number not in left)
        for value in found.outputs["ledger"]:
            effects.ledger[value["n"]] = value["copy"]
        effects.told += [value["n"] for value in found.outputs["told"]]
        effects.dead += [
            (text(one.record.body), one.cause.partition(":")[0], one.attempts) for one in found.dead_letters
        ]
        left = [number for number in left if number not in ended]
        assert receive < 9, "it does not end"
    effects.told.sort()
    effects.dead.sort()
    effects.entries = known({id_: entry.status for id_, entry in store.entries.items()})
    if not name.endswith("_fused"):  # its marks stand in the sink, which `invoke` has for one call
        numbers = range(len(RECORDS)) if name.endswith("_checkpoint") else GOOD
        again = await invoked(shop, numbers, store, receive + 1)
        by_number = dict(zip(numbers, again.outcomes, strict=True))
        assert [name_of(by_number[number]) for number in GOOD] == ["duplicate"] * len(GOOD)
        assert again.outputs == {"told": [], "ledger": []}
    return effects


async def invoked(shop: Pipeline, numbers: Sequence[int], store: Memory, receive: int) -> Any:
    return await ainvoke(
        shop.handlers["price"],
        [PAYLOADS[number] for number in numbers],
        ids=[f"m{number}" for number in numbers],
        groups=[RECORDS[number][0] for number in numbers],
        receive_count=receive,
        remaining=30.0 if shop.stages()[0].source.is_stream else None,  # a stream's record waits here to be tried again
        store=store,
    )


# Through an event source mapping


class Noting:
    """A runtime whose events are kept."""

    def __init__(self, runtime: Runtime, events: list[Any]) -> None:
        self._runtime = runtime
        self._events = events
        self.close = runtime.close

    def invoke(self, event: Any, context: Any) -> Any:
        self._events.append(event)
        return self._runtime.invoke(event, context)


class InProcess:
    """The local run's own runtime, which is the deployed one."""

    def __init__(self) -> None:
        self._outcomes: Counter[str] = Counter()

    def make(self, name: str, stage: Stage, clock: Any, observer: Any) -> Runtime:
        def observe(fact: Fact) -> None:
            observer(fact)
            if isinstance(fact, RecordFinished) and is_settled(fact.outcome):
                self._outcomes[name_of(fact.outcome)] += 1

        return lambda_runtime()(stage, clock, observe)

    def outcomes(self) -> Counter[str]:
        return Counter(self._outcomes)


class Awslambdaric:
    """AWS's own client, in a process; what it prints is read."""

    def __init__(self, output: IO[bytes], path: Path) -> None:
        self._output = output
        self._path = path

    def make(self, name: str, stage: Stage, clock: Any, observer: Any) -> Runtime:
        return RuntimeClient(f"tests.flow.test_modes.{name}", timeout=30, output=self._output)

    def outcomes(self) -> Counter[str]:
        found: Counter[str] = Counter()
        for line in self._path.read_text().splitlines():
            said = json.loads(line) if line.startswith("{") else {}
            if said.get("message") == "batch.finished":
                words = ("succeeded", "duplicate", "rejected", "exhausted")
                found.update({word: said[word] for word in words if word in said})
        return found


@contextmanager
def in_process(directory: Path) -> Iterator[InProcess]:
    yield InProcess()


@contextmanager
def awslambdaric(directory: Path) -> Iterator[Awslambdaric]:
    path = directory / "printed"
    with path.open("ab") as output:
        yield Awslambdaric(output, path)


async def through_mapping(name: str, runtimes: InProcess | Awslambdaric) -> Effects:
    """Run it on the embedded server; then deliver all that was good once more, to a new environment."""
    shop = SHOPS[name]
    source = shop.stages()[0].source.name
    events: list[Any] = []
    observers: list[Any] = []

    def make(stage: Stage, clock: Any, observer: Any) -> Runtime:
        observers.append((clock, observer))
        return Noting(runtimes.make(name, stage, clock, observer), events)

    async with local(shop, runtime=make) as env:
        for group, payload in RECORDS:
            await env.send(source, [payload], key=group)
        await env.drain(timeout=40)
        effects = Effects(runtimes.outcomes(), await ledger(env), await told(env))
        letters = [
            (letter, json.loads(letter.attributes["pipeline_cause"])) for letter in await env.dead_letters(source)
        ]
        effects.dead = sorted(
            (body_of(letter), cause["cause"].partition(":")[0], cause["attempts"]) for letter, cause in letters
        )
        effects.entries = await entries(env, has_table=not name.endswith("_fused"))

        before = runtimes.outcomes()
        answer = await asyncio.to_thread(again, runtimes.make(name, shop.stages()[0], *observers[0]), events)
        assert answer == {"batchItemFailures": []}
        ended = runtimes.outcomes() - before
        # The second copy of a key that both stand in the event is known in the process by then.
        assert ended == Counter(duplicate=len(GOOD))
        assert await ledger(env) == effects.ledger
        if not name.endswith("_fused"):  # whose other sinks come first
            assert await told(env) == []
            assert await entries(env, has_table=True) == effects.entries
        return effects


class Remaining:
    """What is used of Lambda's context."""

    def get_remaining_time_in_millis(self) -> int:
        return 30_000


def again(runtime: Runtime, events: list[Any]) -> Any:
    """Deliver the good records in one event, each as it was delivered last."""
    last: dict[str, Any] = {}
    for event in events:
        for record in event["Records"]:
            last[record["messageId"] if "messageId" in record else record["eventID"]] = record
    wanted = [BODIES[number] for number in GOOD]
    good = [record for record in last.values() if body(record) in wanted]
    assert len(good) == len(GOOD)
    try:
        return runtime.invoke({"Records": good}, Remaining())
    finally:
        runtime.close()


def body(record: Any) -> str:
    return text(base64.b64decode(record["kinesis"]["data"]) if "kinesis" in record else record["body"])


def body_of(letter: Any) -> str:
    return text(letter.body if letter.data is None else letter.data)


def text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode()


async def ledger(env: Any) -> dict[str, int]:
    rows = (await env.client("dynamodb").scan(TableName="ledger"))["Items"]
    return {row["n"]["S"]: int(row["copy"]["N"]) for row in rows}


async def told(env: Any) -> list[str]:
    """What the queue was told since it was asked last."""
    sqs = env.client("sqs")
    url = (await sqs.get_queue_url(QueueName="told"))["QueueUrl"]
    found: list[str] = []
    while messages := (await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)).get("Messages"):
        for message in messages:
            found.append(json.loads(message["Body"])["n"])
            await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return sorted(found)


async def entries(env: Any, *, has_table: bool) -> list[tuple[str, str]]:
    """The store's entries; `Fused` makes no table for any."""
    dynamodb = env.client("dynamodb")
    names = (await dynamodb.list_tables())["TableNames"]
    assert ("shop-idempotency" in names) == has_table, names
    if not has_table:
        return []
    return known(
        {row["id"]["S"]: row["status"]["S"] for row in (await dynamodb.scan(TableName="shop-idempotency"))["Items"]}
    )


def known(entries: Mapping[str, str]) -> list[tuple[str, str]]:
    """The entries of done keys and of places. What a stream rejected may be known by its own id, which differs."""
    return sorted((id_ if status == "COMPLETED" else "", status) for id_, status in entries.items())


def comparable(name: str, effects: Effects) -> Effects:
    """What has to be the same everywhere."""
    if name.endswith("_fused"):  # an environment that knows nothing of a key tells the other sinks once more
        effects.told = sorted(set(effects.told))
    if name.endswith("_checkpoint"):  # the id of a place has the source's ARN in it, and `invoke` has none
        effects.entries = [("", status) for _, status in effects.entries]
    return effects


RUNTIMES: Mapping[str, Callable[[Path], Any]] = {"local": in_process, "awslambdaric": awslambdaric}


@pytest.mark.parametrize("name", SHOPS)
async def test_invoke_does_what_the_mode_promises(name: str) -> None:
    found = await through_invoke(name)

    found.entries = []
    assert found == expected(name)


@pytest.mark.timeout(120)  # processes, and queues that are worked off several times
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("name", SHOPS)
async def test_every_runtime_agrees_with_invoke_in_each_mode(name: str, runtime: str, tmp_path: Path) -> None:
    wanted = await through_invoke(name)

    with RUNTIMES[runtime](tmp_path) as runtimes:
        found = await through_mapping(name, runtimes)

    assert comparable(name, found) == comparable(name, wanted)
