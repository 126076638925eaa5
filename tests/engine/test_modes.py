"""The options of the idempotency modes, and `Fused` in depth."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig

from pipeline import Backoff, Batch, Checkpoint, Claim, Emit, Fused, Mark, Pipeline, Record, Reject, sinks, sources
from pipeline.decisions.deadline import Deadline
from pipeline.decisions.idempotency import COMPLETED, Entry
from pipeline.decisions.keys import entry_id, key_text
from pipeline.emulator.virtual import VirtualClock, virtually
from pipeline.engine.modes import Mode
from pipeline.engine.recent import KNOWN_FOR
from pipeline.errors import KeyMissing, SinkRefused, SinkUnavailable
from pipeline.output import Output
from pipeline.ports import Effect
from pipeline.record import RawRecord
from pipeline.stores import Memory
from pipeline.telemetry.events import HookFailed
from tests.engine.harness import Letters, Sink
from tests.engine.hosts import Host, WatchedStore, kinds
from tests.engine.test_gathering import Archive
from tests.engine.test_streams import decoded

WATCHING: list[type[Claim | Mark]] = [Claim, Mark]
KEYED: list[type[Claim | Mark | Fused]] = [Claim, Mark, Fused]
watching = pytest.mark.parametrize("made", WATCHING)
keyed = pytest.mark.parametrize("made", KEYED)


class Shop:
    """A queue's handler with a mode: what it ran, and what its sinks have."""

    def __init__(
        self, mode: Mode, *, key: Any = "id", store: Any = None, out: Any = None, handle: Any = None, **options: Any
    ) -> None:
        self.store = WatchedStore(store or Memory())
        self.out = out or (sinks.Memory(name="out") if isinstance(mode, Fused) else Sink("out"))
        self.letters = Letters()
        self.facts: list[Any] = []
        self.runs: list[Any] = []

        async def price(record: Record[dict[str, Any]]) -> Any:
            self.runs.append(record.payload)
            return record.payload if handle is None else await handle(record)

        pipeline = Pipeline("shop", idempotency=mode)
        options = {"sinks": [self.out], "retry": None, "key": key, **options}
        self.stage = pipeline.handler(options.pop("source", sources.SQS("orders")), **options)(price).stage

    def host(self) -> Host:
        store = None if self.stage.store is None else self.store
        return Host(self.stage, store, clock=VirtualClock(), letters=self.letters, facts=self.facts)

    def put(self, entry: Entry) -> None:
        """An entry as somebody else wrote it."""
        self.store.store._entries[entry.id] = entry

    def deliver(self, *records: RawRecord) -> list[str]:
        """One batch in an environment of its own."""

        async def scenario() -> list[str]:
            async with self.host() as host:
                return kinds(await host.deliver(*records))

        return virtually(scenario(), patience=0.05)

    def within(self, scenario: Callable[[Host], Any]) -> Any:
        """A scenario in one environment."""

        async def run() -> Any:
            async with self.host() as host:
                return await scenario(host)

        return virtually(run(), patience=0.05)


def order(name: str = "r0", **payload: Any) -> RawRecord:
    """A message with this id."""
    return RawRecord(id=name, source="orders", body=json.dumps(payload))


# validate=


WATCHED: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    ("price", {"price": 1, "note": "a"}, {"price": 2, "note": "a"}),
    ("price.net", {"price": {"net": 1}}, {"price": {"net": 2}}),
    (("price", "lines.0"), {"price": 1, "lines": ["a"]}, {"price": 1, "lines": ["b"]}),
    (lambda payload: payload["price"] * 2, {"price": 1}, {"price": 2}),
    ("price", {"price": 1}, {}),  # a missing part is null
    ("price", {"price": None}, {"price": 0}),
]


@watching
@pytest.mark.parametrize(("spec", "one", "other"), WATCHED)
def test_another_payload_of_a_known_key_is_rejected(made: Any, spec: Any, one: Any, other: Any) -> None:
    shop = Shop(made(validate=spec))

    assert shop.deliver(order("r0", id=1, **one)) == ["Succeeded"]
    assert shop.deliver(order("r1", id=1, **other)) == ["Rejected"]
    assert shop.deliver(order("r2", id=1, **one)) == ["Duplicate"]

    (letter,) = shop.letters.letters
    assert letter.cause.startswith("PayloadMismatch: ")
    assert not letter.exhausted
    assert str(other.get("price", "nothing")) not in letter.cause.split("PayloadMismatch")[1][:20]
    assert len(shop.runs) == 1


@watching
def test_what_is_not_watched_may_differ(made: Any) -> None:
    shop = Shop(made(validate="price"))

    assert shop.deliver(order("r0", id=1, price=1, note="a")) == ["Succeeded"]
    assert shop.deliver(order("r1", id=1, price=1, note="b")) == ["Duplicate"]


@watching
def test_a_missing_part_is_the_same_as_null(made: Any) -> None:
    shop = Shop(made(validate=("price", "note")))

    assert shop.deliver(order("r0", id=1, price=1)) == ["Succeeded"]
    assert shop.deliver(order("r1", id=1, price=1, note=None)) == ["Duplicate"]


def test_another_payload_is_rejected_while_the_first_is_in_progress() -> None:
    started = asyncio.Event()

    async def slow(record: Record[dict[str, Any]]) -> None:
        started.set()
        await asyncio.sleep(5)

    shop = Shop(Claim(validate="price"), handle=slow)

    async def scenario(host: Host) -> tuple[list[str], list[str]]:
        running = asyncio.ensure_future(host.deliver(order("r0", id=1, price=1)))
        await started.wait()
        async with shop.host() as other:
            meanwhile = await other.deliver(order("r1", id=1, price=2))
        return kinds(meanwhile), kinds(await running)

    assert shop.within(scenario) == (["Rejected"], ["Succeeded"])
    assert len(shop.runs) == 1


@watching
@pytest.mark.parametrize("validation", [None, ""])
def test_an_entry_from_before_payloads_were_watched_matches_every_payload(made: Any, validation: str | None) -> None:
    shop = Shop(made(validate="price"))
    key = entry_id("shop.price", key_text(1))
    shop.put(_entry(key, validation=validation))

    assert shop.deliver(order(id=1, price=5)) == ["Duplicate"]


def _entry(key: str, **fields: Any) -> Entry:
    return Entry(**{"id": key, "status": COMPLETED, "expiration": 2_000_000_000, "data": "null", **fields})


@watching
def test_a_released_entry_keeps_its_payloads_hash(made: Any) -> None:
    down = [True]
    shop = Shop(made(validate="price"), out=Sink("out", lambda output: SinkUnavailable("down") if down else None))

    assert shop.deliver(order("r0", id=1, price=1)) == ["Failed"]
    down.clear()
    expected = "Rejected" if made is Claim else "Succeeded"  # a mark is written after the sinks, and nothing before
    assert shop.deliver(order("r1", id=1, price=2)) == [expected]


@watching
@pytest.mark.parametrize(
    ("spec", "jmespath"),
    [("price", "price"), ("price.net", "price.net"), (("price", "note"), "[price, note]")],
)
@pytest.mark.parametrize(
    "payload",
    [{"price": {"net": 1.5, "ä": None}, "note": "ü😀"}, {"price": 2**70}, {}, {"price": [1, "x", True], "note": ""}],
)
def test_the_hash_is_powertools_own(
    made: Any, spec: Any, jmespath: str, payload: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    layer = DynamoDBPersistenceLayer(table_name="any", boto3_client=object())
    layer.configure(IdempotencyConfig(payload_validation_jmespath=jmespath), function_name="f")
    shop = Shop(made(validate=spec))

    assert shop.deliver(order(id=1, **payload)) == ["Succeeded"]

    (entry,) = shop.store.store.entries.values()
    assert entry.validation == layer._get_hashed_payload({"id": 1, **payload})


@watching
def test_a_validate_function_that_raises_rejects_its_record_only(made: Any) -> None:
    shop = Shop(made(validate=lambda payload: payload["price"]))

    assert shop.deliver(order("r0", id=1), order("r1", id=2, price=1)) == ["Rejected", "Succeeded"]
    assert "validate function raised KeyError" in shop.letters.letters[0].cause


# missing_key=


@keyed
@pytest.mark.parametrize("body", [{}, {"id": None}, {"id": ""}])
def test_a_record_without_a_key_is_rejected_by_default(made: Any, body: dict[str, Any]) -> None:
    shop = Shop(made())

    assert shop.deliver(order("r0", **body)) == ["Rejected"]
    assert shop.letters.letters[0].cause.startswith(KeyMissing.__name__)


@keyed
@pytest.mark.parametrize("key", ["id", ("id", "customer")])
def test_records_without_a_key_may_pass_and_only_the_same_one_is_a_repeat(made: Any, key: Any) -> None:
    shop = Shop(made(missing_key="pass"), key=key)

    assert shop.deliver(order("r0", n=1), order("r1", n=1)) == ["Succeeded"] * 2
    assert shop.deliver(order("r0", n=1), order("r1", n=1), order("r2", n=1)) == ["Duplicate"] * 2 + ["Succeeded"]


@keyed
def test_a_passed_record_does_not_meet_one_whose_key_is_its_id(made: Any) -> None:
    """Ids are the source's own, and nobody chooses them: a key that is one is that record's."""
    shop = Shop(made(missing_key="pass"))

    assert shop.deliver(order("r0", n=1)) == ["Succeeded"]
    assert shop.deliver(order("r1", id="other")) == ["Succeeded"]


# cache=


@pytest.mark.parametrize("made", WATCHING)
def test_a_repeat_in_the_same_environment_costs_no_call(made: Any) -> None:
    shop = Shop(made())

    async def scenario(host: Host) -> list[str]:
        await host.deliver(order("r0", id=1), order("r1", id=2))
        shop.store.calls.clear()
        return kinds(await host.deliver(order("r0", id=1), order("r2", id=2)))

    assert shop.within(scenario) == ["Duplicate"] * 2
    assert shop.store.calls == []
    assert shop.deliver(order("r0", id=1)) == ["Duplicate"]
    assert [size for _, size in shop.store.calls] == [1], "another environment asks"


@pytest.mark.parametrize("made", WATCHING)
def test_the_cache_is_bounded_and_forgets_the_longest_unused(made: Any) -> None:
    shop = Shop(made(cache=2))

    async def scenario(host: Host) -> list[tuple[str, int]]:
        for number in (1, 2):
            await host.deliver(order(f"r{number}", id=number))
        await host.deliver(order("again", id=1))  # used: now 2 is the oldest
        await host.deliver(order("r3", id=3))
        assert len(host.processor._recent) == 2
        shop.store.calls.clear()
        assert kinds(await host.deliver(order("x", id=1), order("y", id=3))) == ["Duplicate"] * 2
        assert shop.store.calls == []
        assert kinds(await host.deliver(order("z", id=2))) == ["Duplicate"]
        return list(shop.store.calls)

    assert [size for _, size in shop.within(scenario)] == [1]


@pytest.mark.parametrize("made", WATCHING)
def test_without_a_cache_every_repeat_asks(made: Any) -> None:
    shop = Shop(made(cache=0))

    async def scenario(host: Host) -> list[str]:
        await host.deliver(order("r0", id=1))
        shop.store.calls.clear()
        return kinds(await host.deliver(order("r0", id=1)))

    assert shop.within(scenario) == ["Duplicate"]
    assert [size for _, size in shop.store.calls] == [1]


@pytest.mark.parametrize("made", WATCHING)
@pytest.mark.parametrize(("ttl", "known"), [(86_400, KNOWN_FOR), (60, 60.0)])
def test_a_key_is_known_for_five_minutes_and_never_longer_than_its_entry(made: Any, ttl: int, known: float) -> None:
    shop = Shop(made(ttl=ttl))

    async def scenario(host: Host) -> list[int]:
        await host.deliver(order("r0", id=1))
        asked: list[int] = []
        for wait in (known - 1, 2):
            await asyncio.sleep(wait)
            shop.store.calls.clear()
            await host.deliver(order("r0", id=1))
            asked.append(len(shop.store.calls))
        return asked

    before, after = shop.within(scenario)
    assert (before, after > 0) == (0, True)


@pytest.mark.parametrize("made", WATCHING)
def test_what_the_store_said_is_done_is_asked_for_again(made: Any) -> None:
    shop = Shop(made())
    shop.deliver(order("r0", id=1))

    async def scenario(host: Host) -> int:
        for _ in range(2):
            assert kinds(await host.deliver(order("r0", id=1))) == ["Duplicate"]
        return len(shop.store.calls)

    shop.store.calls.clear()
    assert shop.within(scenario) == 2


@pytest.mark.parametrize("made", WATCHING)
def test_a_failed_or_rejected_record_is_not_known_as_done(made: Any) -> None:
    down = [True]
    shop = Shop(made(), out=Sink("out", lambda output: SinkUnavailable("down") if down else None))

    async def scenario(host: Host) -> list[str]:
        first = kinds(await host.deliver(order("r0", id=1)))
        down.clear()
        return first + kinds(await host.deliver(order("r0", id=1)))

    assert shop.within(scenario) == ["Failed", "Succeeded"]


@watching
def test_the_cache_knows_the_watched_payload(made: Any) -> None:
    shop = Shop(made(validate="price"))

    async def scenario(host: Host) -> list[str]:
        await host.deliver(order("r0", id=1, price=1))
        shop.store.calls.clear()
        same, other = order("r1", id=1, price=1), order("r2", id=1, price=2)
        return kinds(await host.deliver(same, other))

    assert shop.within(scenario) == ["Duplicate", "Rejected"]
    assert shop.store.calls == []


@watching
def test_with_replay_every_repeat_asks(made: Any) -> None:
    shop = Shop(made(replay=True))

    async def scenario(host: Host) -> list[str]:
        await host.deliver(order("r0", id=1))
        shop.store.calls.clear()
        return kinds(await host.deliver(order("r0", id=1)))

    assert shop.within(scenario) == ["Duplicate"]
    assert len(shop.store.calls) == 1
    assert len(shop.out.outputs) == 2


# on_duplicate=


@pytest.mark.parametrize("mode", [Claim, Mark, Fused])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_repeat_is_told(mode: Any, is_async: bool) -> None:
    told: list[tuple[str, Any, list[Any]]] = []

    def tell(record: Record[Any], values: Sequence[Any]) -> None:
        told.append((record.id, record.payload, list(values)))

    async def tell_later(record: Record[Any], values: Sequence[Any]) -> None:
        await asyncio.sleep(1)
        tell(record, values)

    shop = Shop(mode(on_duplicate=tell_later if is_async else tell))

    assert shop.deliver(order("r0", id=1)) == ["Succeeded"]
    assert told == []
    assert shop.deliver(order("r1", id=1)) == ["Duplicate"]
    assert told == [("r1", {"id": 1}, [])]


def test_a_checkpoint_tells_of_what_it_passes() -> None:
    told: list[str] = []
    mode = Checkpoint(on_duplicate=lambda record, values: told.append(record.id))
    shop = Shop(mode, key=None, source=sources.Kinesis("readings"))
    records = decoded({"n": 1}, {"n": 2})

    shop.deliver(*records)
    assert shop.deliver(*records) == ["Duplicate"] * 2
    assert told == [record.id for record in records]


def test_what_was_rejected_on_a_stream_is_told_as_a_repeat_too() -> None:
    told: list[str] = []
    shop = Shop(Claim(on_duplicate=lambda record, values: told.append(record.id)), source=sources.Kinesis("readings"))
    records = decoded({"n": 1})  # it has no key

    assert shop.deliver(*records) == ["Rejected"]
    assert shop.deliver(*records) == ["Duplicate"]
    assert told == [records[0].id]


@pytest.mark.parametrize("is_async", [False, True])
def test_a_hook_that_raises_changes_nothing_and_is_logged(is_async: bool, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(record: Record[Any], values: Sequence[Any]) -> None:
        raise RuntimeError("the hook broke")

    async def fail_later(record: Record[Any], values: Sequence[Any]) -> None:
        fail(record, values)

    shop = Shop(Claim(on_duplicate=fail_later if is_async else fail))
    shop.deliver(order("r0", id=1))

    assert shop.deliver(order("r0", id=1)) == ["Duplicate"]
    (fact,) = [fact for fact in shop.facts if isinstance(fact, HookFailed)]
    assert (fact.handler, fact.record.id, str(fact.error)) == ("price", "r0", "the hook broke")
    _write(shop.stage, fact)
    line = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert (line["message"], line["level"], line["record_id"]) == ("on_duplicate.failed", "WARNING", "r0")
    assert (line["error"], line["reason"]) == ("RuntimeError", "the hook broke")


def _write(stage: Any, fact: Any) -> None:
    from pipeline.telemetry.log import LogWriter, logger_for

    LogWriter(logger_for(stage.pipeline, stage.log_level), stage.name)(fact)


def test_a_repeat_that_the_hook_cannot_be_given_is_a_repeat_all_the_same() -> None:
    """Its payload does not parse: then the record cannot be made."""
    told: list[Any] = []
    shop = Shop(Claim(on_duplicate=lambda *given: told.append(given)), source=sources.Kinesis("readings"), key=None)
    (record,) = decoded({"n": 1})
    (damaged,) = [_with_body(record, b"{")]

    assert shop.deliver(damaged) == ["Rejected"]
    assert shop.deliver(damaged) == ["Duplicate"]
    assert told == []
    assert [fact for fact in shop.facts if isinstance(fact, HookFailed)]


def _with_body(record: RawRecord, body: bytes) -> RawRecord:
    import msgspec

    return msgspec.structs.replace(record, body=body)


# replay=


@watching
def test_kept_outputs_go_to_the_sinks_again_with_the_same_ids(made: Any) -> None:
    told: list[Any] = []
    audit = Sink("audit")
    shop = Shop(
        made(replay=True, on_duplicate=lambda record, values: told.append(list(values))),
        sinks=[out := Sink("out"), audit],
    )

    assert shop.deliver(order("r0", id=1, text="ü😀")) == ["Succeeded"]
    assert shop.deliver(order("r1", id=1)) == ["Duplicate"]

    assert len(shop.runs) == 1
    for sink in (out, audit):
        first, again = sink.outputs
        assert (first.id, first.body, first.default_key, first.hops) == (
            again.id, again.body, again.default_key, again.hops,
        )  # fmt: skip
    assert told == [[{"id": 1, "text": "ü😀"}] * 2]


@watching
def test_a_sink_that_refuses_what_is_replayed_brings_the_repeat_back(made: Any) -> None:
    down: list[bool] = []
    shop = Shop(made(replay=True), out=Sink("out", lambda output: SinkUnavailable("down") if down else None))

    shop.deliver(order("r0", id=1))
    down.append(True)
    assert shop.deliver(order("r1", id=1)) == ["Failed"]
    down.clear()
    assert shop.deliver(order("r1", id=1)) == ["Duplicate"]
    assert len(shop.out.outputs) == 2


@watching
def test_without_replay_no_output_is_kept_and_none_is_sent(made: Any) -> None:
    shop = Shop(made())
    shop.deliver(order("r0", id=1, secret="x" * 50))

    (entry,) = shop.store.store.entries.values()
    assert entry.data == "null"
    assert shop.deliver(order("r0", id=1)) == ["Duplicate"]
    assert len(shop.out.outputs) == 1


@watching
def test_outputs_that_are_too_large_are_not_kept(made: Any) -> None:
    async def large(record: Record[dict[str, Any]]) -> str:
        return "x" * 310_000

    shop = Shop(made(replay=True), handle=large)
    shop.deliver(order("r0", id=1))

    assert shop.deliver(order("r0", id=1)) == ["Duplicate"]
    assert len(shop.out.outputs) == 1


@watching
def test_streamed_outputs_are_not_kept(made: Any) -> None:
    async def many(record: Record[dict[str, Any]]) -> Any:
        return (number for number in range(1_500))

    shop = Shop(made(replay=True), handle=many)
    shop.deliver(order("r0", id=1))

    assert shop.deliver(order("r0", id=1)) == ["Duplicate"]
    assert len(shop.out.outputs) == 1_500


FOREIGN = ['{"price": 1}', '[{"price": 1}]', "[{}]", "[[1]]", '"text"', "17", "[1, 2]", "not json", "true", "[null]",
           '[{"id": "a", "sink": "out", "body": "no json", "is_text": false}]', "[]", "", '{"a": [{"is_text": 1}]}',
           "[" * 2_000]  # fmt: skip


@watching
@pytest.mark.parametrize("data", FOREIGN)
def test_what_powertools_returned_is_sent_nowhere(made: Any, data: str) -> None:
    shop = Shop(made(replay=True))
    shop.put(_entry(entry_id("shop.price", key_text(1)), data=data))

    assert shop.deliver(order(id=1)) == ["Duplicate"]
    assert shop.out.outputs == []


def test_outputs_that_needed_a_second_try_are_not_kept_for_repeats() -> None:
    down = [True]
    bad = Sink("bad", lambda output: SinkUnavailable("down") if down else None)
    shop = Shop(Claim(replay=True), sinks=[good := Sink("good"), bad])

    assert shop.deliver(order("r0", id=1)) == ["Failed"]
    down.clear()
    assert shop.deliver(order("r0", id=1)) == ["Succeeded"]
    assert shop.deliver(order("r0", id=1)) == ["Duplicate"]
    assert (len(shop.runs), len(good.outputs), len(bad.outputs)) == (1, 1, 1)


def test_a_mark_that_needed_a_second_run_is_kept_for_repeats() -> None:
    down = [True]
    shop = Shop(Mark(replay=True), out=Sink("out", lambda output: SinkUnavailable("down") if down else None))

    assert shop.deliver(order("r0", id=1)) == ["Failed"]
    down.clear()
    assert shop.deliver(order("r0", id=1)) == ["Succeeded"]
    assert shop.deliver(order("r0", id=1)) == ["Duplicate"]
    assert len({output.id for output in shop.out.outputs}) == 1
    assert len(shop.out.outputs) == 2


@watching
def test_outputs_of_a_sink_that_is_gone_are_nobodys_and_the_repeat_is_done(made: Any) -> None:
    shop = Shop(made(replay=True), sinks=[Sink("old")])
    shop.deliver(order("r0", id=1))
    again = Shop(made(replay=True), sinks=[new := Sink("new")], store=shop.store.store)

    assert again.deliver(order("r0", id=1)) == ["Duplicate"]
    assert new.outputs == []


@watching
def test_what_a_sink_refuses_for_good_does_not_bring_a_repeat_back_for_ever(made: Any) -> None:
    refusing: list[bool] = []
    shop = Shop(made(replay=True), out=Sink("out", lambda output: SinkRefused("too large") if refusing else None))
    shop.deliver(order("r0", id=1))
    refusing.append(True)

    assert shop.deliver(order("r0", id=1)) == ["Duplicate"]


def test_a_rejection_leaves_its_key_to_the_corrected_record() -> None:
    async def handle(record: Any) -> Any:
        if record.payload["amount"] < 0:
            raise Reject("negative")

    for mode in (Claim, Mark):
        shop = Shop(mode(validate="amount"), key="id", source=sources.Kinesis("readings"), handle=handle)
        wrong, right = decoded({"id": 1, "amount": -5}, {"id": 1, "amount": 5})

        assert shop.deliver(wrong) == ["Rejected"]
        assert shop.deliver(wrong) == ["Duplicate"], "put aside once"
        assert shop.deliver(right) == ["Succeeded"]
        assert shop.deliver(right) == ["Duplicate"]


def test_a_mode_that_validates_watches_what_was_released_before_it_did() -> None:
    """An entry from before has no hash; the run that completes it writes one."""
    shop = Shop(Claim(validate="amount"))
    shop.put(replace_entry(shop, "1", attempts=1))

    assert shop.deliver(order("r0", id=1, amount=5)) == ["Succeeded"]
    assert shop.deliver(order("r1", id=1, amount=6)) == ["Rejected"]


def replace_entry(shop: Shop, text: str, *, attempts: int) -> Entry:
    """An entry that was given back, as a mode without `validate=` left it."""
    return Entry(
        id=entry_id(shop.stage.prefix, text),
        status="INPROGRESS",
        expiration=2**40,
        in_progress_expiration=0,
        attempts=attempts,
    )


def test_a_mismatch_on_a_stream_is_put_aside_once_in_a_process() -> None:
    async def handle(record: Any) -> Any:
        if record.payload["id"] == 0:
            raise ValueError("no")

    shop = Shop(
        Claim(validate="amount"),
        source=sources.Kinesis("readings"),
        handle=handle,
        lane=lambda payload: str(payload["id"]),
    )
    first, *rest = decoded({"id": 1, "amount": 1}, {"id": 0, "amount": 0}, {"id": 1, "amount": 2})

    async def scenario(host: Host) -> Any:
        await host.deliver(first)
        return [kinds(await host.deliver(*rest)) for _ in range(3)]

    found = shop.within(scenario)
    assert [kind for _, kind in found] == ["Rejected", "Duplicate", "Duplicate"]
    assert len(shop.letters.letters) == 1


def test_a_record_holds_no_outputs_when_it_has_ended() -> None:
    held: list[int] = []

    async def handle(record: Any) -> Any:
        held.append(sum(type(found) is Output for found in gc.get_objects()))
        return {"id": record.payload["id"]}

    shop = Shop(Fused(), out=Quiet("out"), handle=handle, concurrency=1)
    shop.deliver(*(order(f"r{n}", id=n) for n in range(20)))
    assert max(held) - held[0] <= 2, held


class Quiet(Sink):
    """Takes what is written once, and keeps nothing."""

    async def write_once(self, effects: Any, environment: Any, deadline: Any) -> Any:
        return [True] * len(effects)


def test_a_hook_that_ends_everything_or_never_ends_reaches_no_record() -> None:
    async def leave(record: Any, values: Any) -> None:
        if record.payload["id"] == 1:
            sys.exit(3)
        if record.payload["id"] == 2:
            raise asyncio.CancelledError
        await asyncio.sleep(1_000)

    shop = Shop(Claim(on_duplicate=leave))
    given = [order(f"r{n}", id=n) for n in (1, 2, 3)]

    async def scenario(host: Host) -> Any:
        await host.deliver(*given)
        again = kinds(await host.deliver(*given, order("r9", id=9)))
        return again, asyncio.get_running_loop().time()

    kinds_again, seconds = shop.within(scenario)
    assert kinds_again == ["Duplicate"] * 3 + ["Succeeded"]
    assert seconds < 10
    assert sum(isinstance(fact, HookFailed) for fact in shop.facts) == 3


# Changes of the mode between deployments


def test_a_mark_honours_what_a_claim_wrote_and_the_other_way_round() -> None:
    claim = Shop(Claim())
    assert claim.deliver(order("r0", id=1)) == ["Succeeded"]
    mark = Shop(Mark(), store=claim.store.store)
    assert mark.deliver(order("r0", id=1), order("r1", id=2)) == ["Duplicate", "Succeeded"]
    assert Shop(Claim(), store=claim.store.store).deliver(order("r1", id=2)) == ["Duplicate"]


def test_a_mark_delivers_what_a_claim_kept() -> None:
    down = [True]
    out = Sink("out", lambda output: SinkUnavailable("down") if down else None)
    claim = Shop(Claim(), out=out)
    assert claim.deliver(order("r0", id=1)) == ["Failed"]
    down.clear()
    mark = Shop(Mark(), out=out, store=claim.store.store)

    assert mark.deliver(order("r0", id=1)) == ["Succeeded"]
    assert mark.runs == []
    assert len(out.outputs) == 1


def test_a_rejection_does_not_overwrite_what_another_record_of_the_key_completed_meanwhile() -> None:
    async def slow(record: Record[dict[str, Any]]) -> None:
        if record.payload["n"] == 1:
            await asyncio.sleep(5)
            raise Reject("never")

    shop = Shop(Mark(), source=sources.Kinesis("readings"), handle=slow)
    first, second, third = decoded({"id": 1, "n": 1}, {"id": 1, "n": 2}, {"id": 1, "n": 3})

    async def scenario(host: Host) -> list[str]:
        late = asyncio.ensure_future(host.deliver(first))
        await asyncio.sleep(1)
        async with shop.host() as other:  # another shard's batch, at the same moment
            assert kinds(await other.deliver(second)) == ["Succeeded"]
        return kinds(await late)

    assert shop.within(scenario) == ["Rejected"]
    assert shop.deliver(third) == ["Duplicate"], "its key is complete"


def test_rejections_of_one_key_at_the_same_moment_are_both_known() -> None:
    async def slow(record: Record[dict[str, Any]]) -> None:
        await asyncio.sleep(record.payload["n"])
        raise Reject("never")

    shop = Shop(Mark(), source=sources.Kinesis("readings"), handle=slow)
    first, second = decoded({"id": 1, "n": 5}, {"id": 1, "n": 1})

    async def scenario(host: Host) -> None:
        late = asyncio.ensure_future(host.deliver(first))
        async with shop.host() as other:
            await other.deliver(second)
        await late

    shop.within(scenario)
    assert shop.deliver(first, second) == ["Duplicate"] * 2
    assert len(shop.letters.letters) == 2


# Fused


class Table(Sink):
    """A sink that writes effects once; `fails(effect)` says why one is not taken."""

    def __init__(self, fails: Callable[[Effect], BaseException | None] = lambda effect: None) -> None:
        super().__init__("table")
        self.refuses = fails
        self.effects: list[Effect] = []
        self.seconds = 0.0

    async def write_once(self, effects: Sequence[Effect], environment: Any, deadline: Deadline) -> Any:
        answers: list[Any] = []
        await asyncio.sleep(self.seconds)
        for effect in effects:
            error = self.refuses(effect)
            is_new = effect.mark not in {one.mark for one in self.effects}
            answers.append(error or is_new)
            if error is None and is_new:
                self.effects.append(effect)
        return answers

    @property
    def written(self) -> list[Any]:
        return [output.value for effect in self.effects for output in effect.outputs]


def test_other_sinks_go_first_also_those_that_gather() -> None:
    archive, audit, table = Archive(), Sink("audit"), Table()

    def check(effect: Effect) -> None:
        for sink in (archive, audit):
            assert effect.outputs[0].value in sink.values

    table.refuses = check
    shop = Shop(Fused(), sinks=[table, archive, audit])

    assert shop.deliver(*(order(f"r{n}", id=n) for n in range(3))) == ["Succeeded"] * 3
    assert [value["id"] for value in table.written] == [0, 1, 2]
    succeeded = [fact.outcome for fact in shop.facts if hasattr(fact, "outcome")]
    assert [outcome.outputs for outcome in succeeded] == [3] * 3


@pytest.mark.parametrize("error", [SinkUnavailable("down"), SinkRefused("too large"), RuntimeError("broken")])
def test_a_fused_write_that_fails_brings_the_record_back_and_the_others_see_it_again(error: Exception) -> None:
    down = [True]
    table, audit = Table(lambda effect: error if down else None), Sink("audit")
    shop = Shop(Fused(), sinks=[audit, table])

    assert shop.deliver(order("r0", id=1)) == ["Failed"]
    assert table.written == []
    down.clear()
    assert shop.deliver(order("r0", id=1)) == ["Succeeded"]
    assert [value["id"] for value in table.written] == [1]
    assert len({output.id for output in audit.outputs}) == 1
    assert len(shop.runs) == 2


def test_a_sink_that_raises_fails_its_records() -> None:
    class Broken(Table):
        async def write_once(self, effects: Any, environment: Any, deadline: Any) -> Any:
            raise ConnectionError("gone")

    assert Shop(Fused(), sinks=[Broken()]).deliver(order("r0", id=1), order("r1", id=2)) == ["Failed"] * 2


@pytest.mark.parametrize("gathers", [False, True])
def test_while_another_sink_fails_nothing_is_fused(gathers: bool) -> None:
    down = [True]
    fails: Any = lambda output: SinkUnavailable("down") if down else None
    other: Any = Archive(fails) if gathers else Sink("audit", fails)
    shop = Shop(Fused(), sinks=[table := Table(), other])

    assert shop.deliver(order("r0", id=1)) == ["Failed"]
    assert table.effects == []
    down.clear()
    assert shop.deliver(order("r0", id=1)) == ["Succeeded"]
    assert len(table.effects) == 1


def test_a_refused_effect_is_rejected_after_its_attempts() -> None:
    shop = Shop(Fused(), sinks=[Table(lambda effect: SinkRefused("too large"))], retry=Backoff(attempts=1))

    assert shop.deliver(order("r0", id=1)) == ["Rejected"]
    assert shop.letters.letters[0].cause == "SinkRefused: too large"


def test_all_outputs_of_a_record_are_one_effect_with_one_mark() -> None:
    async def several(record: Record[dict[str, Any]]) -> list[int]:
        return [1, 2, 3]

    shop = Shop(Fused(), sinks=[table := Table()], handle=several)
    shop.deliver(order("r0", id=1), order("r1", id=2))

    assert [len(effect.outputs) for effect in table.effects] == [3, 3]
    assert len({effect.mark for effect in table.effects}) == 2
    assert all(len(effect.mark) <= 64 for effect in table.effects)


def test_streamed_outputs_of_other_sinks_go_out_and_what_is_fused_waits_for_the_end() -> None:
    table, audit = Table(), Sink("audit")

    async def many(record: Record[dict[str, Any]]) -> Any:
        async def each() -> Any:
            for number in range(2_500):
                if number == 2_400:
                    assert audit.outputs
                    assert not table.effects
                yield Emit(number, to="table" if number % 500 == 0 else "audit")

        return each()

    shop = Shop(Fused(), sinks=[table, audit], handle=many)

    assert shop.deliver(order("r0", id=1)) == ["Succeeded"]
    assert table.written == [0, 500, 1_000, 1_500, 2_000]
    assert len(audit.outputs) == 2_495
    assert len(table.effects) == 1


def test_more_fused_outputs_than_can_be_held_fail_the_record_and_the_message_says_what_to_do() -> None:
    async def many(record: Record[dict[str, Any]]) -> Any:
        return (number for number in range(1_001))

    shop = Shop(Fused(), sinks=[table := Table()], handle=many, retry=Backoff(attempts=1))

    assert shop.deliver(order("r0", id=1)) == ["Rejected"]
    assert "return fewer, or use Claim() instead of Fused()" in shop.letters.letters[0].cause
    assert table.effects == []


def test_a_record_with_nothing_for_the_fused_sink_leaves_no_mark() -> None:
    table, audit = Table(), Sink("audit")

    async def elsewhere(record: Record[dict[str, Any]]) -> Any:
        return None if record.payload["id"] == 1 else Emit(record.payload, to="audit")

    shop = Shop(Fused(), sinks=[table, audit], handle=elsewhere)

    assert shop.deliver(order("r0", id=1), order("r1", id=2)) == ["Succeeded"] * 2
    assert table.effects == []
    assert shop.deliver(order("r0", id=1), order("r1", id=2)) == ["Succeeded"] * 2, "at least once"
    assert len({output.id for output in audit.outputs}) == 1


def test_of_several_sinks_the_named_one_is_fused() -> None:
    one, other = sinks.Memory(name="one"), sinks.Memory(name="other")
    shop = Shop(Fused(sink="other"), sinks=[one, other])

    for _ in range(3):
        shop.deliver(order("r0", id=1))
    assert (len(one.values), len(other.values)) == (3, 1)


def test_two_records_with_one_key_in_a_batch_have_one_effect() -> None:
    shop = Shop(Fused(), sinks=[table := Table()])

    assert shop.deliver(order("r0", id=1), order("r1", id=1)) == ["Succeeded", "Duplicate"]
    assert len(table.effects) == 1


def test_effects_of_a_lane_are_written_in_order_and_not_beyond_a_failure() -> None:
    down = [True]
    table = Table(lambda effect: SinkUnavailable("no") if down and effect.outputs[0].value["n"] == 2 else None)
    table.seconds = 0.1
    shop = Shop(Fused(), sinks=[table], key=None, source=sources.Kinesis("readings"))
    records = decoded(*({"n": n} for n in range(5)), keys=["a"] * 5)

    assert shop.deliver(*records) == ["Succeeded", "Succeeded", "Failed", "Unprocessed", "Unprocessed"]
    down.clear()
    assert shop.deliver(*records) == ["Duplicate", "Duplicate", "Succeeded", "Succeeded", "Succeeded"]
    assert [value["n"] for value in table.written] == [0, 1, 2, 3, 4]


def _archived(n: int) -> Callable[[Record[dict[str, Any]]], Any]:
    """The first `n` records go to the archive only, and the others to the table only."""

    async def handle(record: Record[dict[str, Any]]) -> Any:
        return Emit(record.payload, to="archive" if record.payload["n"] < n else "table")

    return handle


def test_an_effect_waits_for_what_its_lane_has_gathered_before_it() -> None:
    archive, table = Archive(), Table()

    def check(effect: Effect) -> None:
        assert len(archive.outputs) == 2, "it was written before an earlier record of its lane was settled"

    table.refuses = check
    shop = Shop(Fused(), sinks=[table, archive], key=None, source=sources.Kinesis("readings"), handle=_archived(2))
    records = decoded(*({"n": n} for n in range(4)), keys=["a"] * 4)

    assert shop.deliver(*records) == ["Succeeded"] * 4
    assert [value["n"] for value in table.written] == [2, 3]


def test_an_effect_is_not_written_behind_a_gathered_output_that_failed() -> None:
    down = [True]
    archive, table = Archive(lambda output: SinkUnavailable("slow down") if down else None), Table()
    shop = Shop(Fused(), sinks=[table, archive], key=None, source=sources.Kinesis("readings"), handle=_archived(1))
    records = decoded(*({"n": n} for n in range(3)), keys=["a"] * 3)

    first = shop.deliver(*records)
    assert (first[0], first[1]) == ("Failed", "Failed")
    assert "Succeeded" not in first
    assert table.effects == []
    down.clear()
    assert shop.deliver(*records) == ["Succeeded"] * 3
    assert [value["n"] for value in table.written] == [1, 2]


def test_a_batch_handler_may_be_fused() -> None:
    table = Table()
    pipeline = Pipeline("shop", idempotency=Fused())

    @pipeline.handler(sources.SQS("orders"), sinks=[table], key="id", retry=None)
    async def price(orders: Batch[dict[str, Any]]) -> list[Any]:
        return [order.payload for order in orders]

    async def scenario() -> list[str]:
        ends: list[str] = []
        for _ in range(2):
            async with Host(price.stage, None, clock=VirtualClock()) as host:
                ends += kinds(await host.deliver(order("r0", id=1), order("r1", id=2)))
        return ends

    assert virtually(scenario()) == ["Succeeded"] * 2 + ["Duplicate"] * 2
    assert len(table.effects) == 2
