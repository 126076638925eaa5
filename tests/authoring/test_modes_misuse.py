"""Misuse of the idempotency modes fails when it is written down, and the message says what to write instead."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

from pipeline import Checkpoint, Claim, ConfigurationError, Fused, Mark, Pipeline, by, sinks, sources, stores
from pipeline.cli import targets
from pipeline.engine.modes import Mode
from pipeline.testing import invoke

MODES: list[Any] = [Claim, Mark, Fused, Checkpoint]
KEYED: list[Any] = [Claim, Mark, Fused]
WATCHING: list[Any] = [Claim, Mark]


@dataclass
class Order:
    id: str
    price: int


def refused(match: str) -> Any:
    return pytest.raises(ConfigurationError, match=match)


def declare(mode: Any, source: Any = None, given: Sequence[Any] = (), payload: Any = Order, **options: Any) -> Any:
    async def price(order: Any) -> None: ...

    price.__annotations__["order"] = payload
    source = source or (sources.SQS("orders.fifo") if isinstance(mode, Checkpoint) else sources.SQS("orders"))
    return Pipeline("shop", idempotency=mode).handler(source, sinks=given, **options)(price)


# The mode itself


@pytest.mark.parametrize("mode", MODES)
def test_the_class_instead_of_the_mode_is_refused(mode: Any) -> None:
    with refused(rf"idempotency={mode.__name__}\): that is the class; call it: {mode.__name__}\(\)"):
        Pipeline("shop", idempotency=mode)


@pytest.mark.parametrize(
    "value",
    [True, False, "claim", "", 0, {"mode": "claim"}, stores.Memory(), Mode()],
    ids=["true", "false", "text", "empty", "number", "dict", "store", "base"],
)
def test_what_is_no_mode_is_refused(value: Any) -> None:
    with refused(r"give Claim\(\.\.\.\), Mark\(\.\.\.\), Fused\(\.\.\.\) or Checkpoint\(\.\.\.\), or None"):
        Pipeline("shop", idempotency=value)


@pytest.mark.parametrize("mode", MODES)
def test_options_are_given_by_name_and_unknown_ones_are_refused(mode: Any) -> None:
    with pytest.raises(TypeError):
        mode(stores.Memory())
    with pytest.raises(TypeError):
        mode(leese=60)
    for option in {"lease", "cache", "missing_key", "validate", "replay", "sink"} - set(mode.__struct_fields__):
        with pytest.raises(TypeError):
            mode(**{option: 1})


# Options of every mode


@pytest.mark.parametrize("mode", MODES)
def test_the_class_of_a_store_is_refused(mode: Any) -> None:
    with refused(rf"{mode.__name__}\(store=Memory\): that is the class; call it: Memory\(\)"):
        mode(store=stores.Memory)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("store", ["idempotency", 1, {}, sinks.Memory()], ids=["text", "number", "dict", "sink"])
def test_what_is_no_store_is_refused(mode: Any, store: Any) -> None:
    with refused(rf"{mode.__name__}\(store=.*give one of pipeline.stores, or leave it out"):
        mode(store=store)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("prefix", ["", 1, b"shop", ["shop"], "x" * 1_001, "\ud800"])
def test_a_prefix_that_is_no_text_is_refused(mode: Any, prefix: Any) -> None:
    with refused(rf"{mode.__name__}\(prefix=.*give text of 1 to 1,000 bytes, or leave it out"):
        mode(prefix=prefix)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ttl", [0, -1, 1.5, "60", None, True, math.inf, 3_153_600_001, 10**60])
def test_a_ttl_that_is_no_count_of_seconds_or_too_long_is_refused(mode: Any, ttl: Any) -> None:
    with refused(rf"{mode.__name__}\(ttl=.*give a whole number of seconds, 1 to 3,153,600,000 \(100 years\)"):
        mode(ttl=ttl)
    assert mode(ttl=3_153_600_000).ttl == 3_153_600_000


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("hook", ["print", 1, [print]])
def test_a_hook_that_is_no_function_is_refused(mode: Any, hook: Any) -> None:
    with refused(rf"{mode.__name__}\(on_duplicate=.*give a function, or leave it out"):
        mode(on_duplicate=hook)


class Hooks:
    """Hooks as people write them."""

    def tell(self, record: Any, values: Any) -> None: ...
    async def tell_later(self, record: Any, values: Any, *, loud: bool = False) -> None: ...
    def tell_all(self, *given: Any) -> None: ...
    def __call__(self, record: Any, values: Any) -> None: ...

    def of_record(self, record: Any) -> None: ...
    async def of_more(self, record: Any, values: Any, more: Any) -> None: ...
    def by_name(self, *, record: Any, values: Any) -> None: ...


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["of_record", "of_more", "by_name"])
def test_a_hook_that_cannot_be_called_is_refused_at_once(mode: Any, name: str) -> None:
    with refused(
        rf"{mode.__name__}\(on_duplicate={name}\): it is called with a record and the values that are kept of its first "
        rf"run, and cannot be: .*Write it as def {name}\(record, values\)"
    ):
        Pipeline("shop", idempotency=mode(on_duplicate=getattr(Hooks(), name)))


@pytest.mark.parametrize("mode", MODES)
def test_a_hook_that_can_be_called_is_taken(mode: Any) -> None:
    hooks = Hooks()
    partial = functools.partial(hooks.of_more, more=1)
    for hook in (hooks.tell, hooks.tell_later, hooks.tell_all, hooks, partial, print, max, lambda record, values: None):
        assert Pipeline("shop", idempotency=mode(on_duplicate=hook)).idempotency is not None


# Options of some


@pytest.mark.parametrize("mode", KEYED)
@pytest.mark.parametrize("value", ["skip", None, True, "Reject", ""])
def test_what_becomes_of_a_missing_key_is_one_of_two_words(mode: Any, value: Any) -> None:
    with refused(rf"{mode.__name__}\(missing_key=.*give 'reject' or 'pass'"):
        mode(missing_key=value)


@pytest.mark.parametrize("mode", KEYED)
@pytest.mark.parametrize("cache", [-1, 1.5, "all", None, True])
def test_a_cache_is_a_number_of_keys(mode: Any, cache: Any) -> None:
    with refused(rf"{mode.__name__}\(cache=.*give a whole number of keys, 0 for none"):
        mode(cache=cache)


@pytest.mark.parametrize("mode", KEYED)
def test_no_cache_at_all_is_taken(mode: Any) -> None:
    assert mode(cache=0).cache == 0


@pytest.mark.parametrize("mode", WATCHING)
@pytest.mark.parametrize("replay", [1, 0, "yes", None])
def test_replay_is_true_or_false(mode: Any, replay: Any) -> None:
    with refused(rf"{mode.__name__}\(replay=.*give True or False"):
        mode(replay=replay)


@pytest.mark.parametrize("lease", [0, 0.5, -1, "60", None, True, 1e9, math.inf, math.nan])
def test_a_lease_is_at_least_a_second_and_has_an_end(lease: Any) -> None:
    with refused(r"Claim\(lease=.*give a number of seconds, 1 to 31,536,000"):
        Claim(lease=lease)


@pytest.mark.parametrize("mode", WATCHING)
@pytest.mark.parametrize(
    ("validate", "match"),
    [
        ("cost", "price: validate 'cost': Order has no field 'cost'; its fields are id, price"),
        (("price", "cost"), "price: validate 'cost': Order has no field 'cost'"),
        ((), r"price: validate=\(\) names nothing: give at least one path"),
        (("price", 5), r"price: validate=\('price', 5\): give a dotted path, a tuple of paths, or a function"),
        (["price"], "price: validate=.*give a dotted path, a tuple of paths, or a function"),
        (5, "price: validate=5: give a dotted path, a tuple of paths, or a function"),
        ("a..b", "price: 'a..b' is not a path"),
        ("", "price: "),
    ],
)
def test_what_is_watched_has_to_be_there(mode: Any, validate: Any, match: str) -> None:
    with refused(match):
        declare(mode(validate=validate))


# Checkpoint


@pytest.mark.parametrize("source", [sources.SQS("orders"), sources.SQS("orders-fifo")])
def test_a_checkpoint_needs_a_source_with_an_order(source: Any) -> None:
    with refused(
        rf"price: Checkpoint\(\) needs a source with an order, and SQS\('{source.name}'\) has none: use a stream, a queue "
        r"whose name ends with \.fifo, or Claim\(\) or Mark\(\)"
    ):
        declare(Checkpoint(), source)


@pytest.mark.parametrize("key", ["id", ("id", "price"), lambda order: order.id])
def test_a_checkpoint_knows_no_keys(key: Any) -> None:
    with refused(r"price: key=.*Checkpoint\(\) knows places in the source's order, not keys: leave key out, or use"):
        declare(Checkpoint(), key=key)


def test_a_checkpoint_has_the_sources_own_orders_only() -> None:
    with refused(r"price: lane=by\.shard: Kinesis\('readings'\) has no such order; it has by\.partition_key"):
        declare(Checkpoint(), sources.Kinesis("readings", parallelization_factor=2), lane=by.shard)


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (sources.SQS("orders.fifo"), {}),
        (sources.SQS("orders.fifo"), {"lane": by.message_group}),
        (sources.SQS("orders.fifo"), {"lane": "id"}),
        (sources.Kinesis("readings"), {}),
        (sources.Kinesis("readings"), {"lane": by.partition_key}),
        (sources.Kinesis("readings", parallelization_factor=10), {}),
        (sources.Kinesis("readings", parallelization_factor=10), {"lane": ("id", "price")}),
    ],
)
def test_what_a_checkpoint_can_read_is_taken(source: Any, options: dict[str, Any]) -> None:
    assert declare(Checkpoint(), source, **options).stage.position_of is not None


# Fused


def test_fused_needs_a_sink_that_writes_a_record_once() -> None:
    with refused(
        r"price: Fused\(\) writes its marks to one sink; sinks of this handler that write a record's outputs and its mark "
        r"together: none\. sinks\.DynamoDB\(\.\.\.\) can; without one use Claim\(\) or Mark\(\)"
    ):
        declare(Fused(), given=[sinks.SQS("out")])
    with refused("together: none"):
        declare(Fused())


def test_of_two_sinks_that_can_one_has_to_be_named() -> None:
    two = [sinks.DynamoDB("one"), sinks.DynamoDB("two"), sinks.SQS("out")]

    with refused(r"price: name one of them: Fused\(sink='\.\.\.'\); .*: 'one', 'two'\."):
        declare(Fused(), given=two)
    assert declare(Fused(sink="two"), given=two).stage.fused == "two"


@pytest.mark.parametrize("name", ["three", "out"])
def test_a_fused_sink_that_the_handler_has_not_or_that_cannot_is_refused(name: str) -> None:
    with refused(rf"price: Fused\(sink='{name}'\) names none of them; .*: 'one'\."):
        declare(Fused(sink=name), given=[sinks.DynamoDB("one"), sinks.SQS("out")])


@pytest.mark.parametrize("sink", ["", 1, sinks.Memory()], ids=["empty", "number", "sink"])
def test_a_fused_sink_is_given_by_its_name(sink: Any) -> None:
    with refused(r"Fused\(sink=.*give the sink's name, or leave it out"):
        Fused(sink=sink)


TABLE_ARN = "arn:aws:dynamodb:eu-west-1:111122223333:table/items"


def _beside_fused(mode: Any = None, **beside: Any) -> Pipeline:
    """A handler with a fused table, and one with something beside it."""
    pipeline = Pipeline("shop", idempotency=mode or Fused(sink="items"))

    async def price(order: Order) -> None: ...
    async def ship(order: Order) -> None: ...

    pipeline.handler(sources.SQS("orders"), sinks=[sinks.DynamoDB("items")])(price)
    options = {"sinks": [sinks.DynamoDB("own", name="items")], **beside}
    pipeline.handler(sources.SQS("parcels"), **options)(ship)
    return pipeline


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (sinks.DynamoDB("items"), sinks.DynamoDB("items", name="again")),
        (sinks.DynamoDB("items"), sinks.DynamoDB("items", name="again", partition_key="number", carry=False)),
        (
            sinks.DynamoDB("items", existing=TABLE_ARN),
            sinks.DynamoDB("others", name="again", existing=TABLE_ARN),
        ),
    ],
)
def test_a_fused_table_is_written_to_by_no_other_sink_of_its_handler(one: Any, other: Any) -> None:
    for given in ([one, other], [other, one]):
        with refused(
            r"price: the sink 'again' would write where price keeps its marks, the fused sink 'items': it replaces items "
            r"together with their marks.*Give it a table of its own, or write there through fused sinks only"
        ):
            declare(Fused(sink="items"), given=given).stage  # noqa: B018


def test_a_fused_table_takes_no_rejected_records() -> None:
    table = sinks.DynamoDB("items")
    with refused(r"price: rejects= 'items' would write where price keeps its marks, the fused sink 'items'"):
        declare(Fused(), given=[table], rejects=table).stage  # noqa: B018
    assert declare(Fused(), given=[table], rejects=sinks.DynamoDB("odd")).stage.fused == "items"


def test_a_fused_table_is_written_to_by_another_handler_only_with_marks_of_its_own() -> None:
    items, own = sinks.DynamoDB("items", name="again"), sinks.DynamoDB("own", name="items")

    with refused(r"ship: the sink 'again' would write where price keeps its marks, the fused sink 'items'"):
        _beside_fused(sinks=[own, items]).stages()
    with refused(r"ship: rejects= 'again' would write where price keeps its marks, the fused sink 'items'"):
        _beside_fused(rejects=items).stages()
    assert len(_beside_fused().stages()) == 2
    assert len(_beside_fused(sinks=[sinks.DynamoDB("items")]).stages()) == 2


def test_in_other_modes_a_table_may_be_written_to_in_any_way() -> None:
    pipeline = _beside_fused(Claim(), sinks=[sinks.DynamoDB("items"), sinks.DynamoDB("items", name="again")])
    assert len(pipeline.stages()) == 2


def test_rejected_records_may_go_to_the_memory_that_has_the_marks() -> None:
    """It replaces nothing."""
    memory = sinks.Memory()
    assert declare(Fused(), given=[memory], rejects=memory).stage.fused == "memory"


# Shared entries


def _two_handlers(mode: Any, sink: Any = None) -> Pipeline:
    pipeline = Pipeline("shop", idempotency=mode)
    given = [] if sink is None else [sink]

    @pipeline.handler(sources.Kinesis("orders"), sinks=given)
    async def price(order: Order) -> None: ...

    @pipeline.handler(sources.Kinesis("orders"), sinks=given)
    async def ship(order: Order) -> None: ...

    return pipeline


@pytest.mark.parametrize("mode", [Claim, Mark, Checkpoint])
def test_handlers_with_one_prefix_would_drop_each_others_records(mode: Any) -> None:
    with refused(
        rf"price and ship would share their idempotency entries.*{mode.__name__}\(prefix='mine'\) is the same for both\. "
        "Leave prefix out, or give each handler its own pipeline with another prefix"
    ):
        _two_handlers(mode(prefix="mine")).stages()
    assert len(_two_handlers(mode()).stages()) == 2


@pytest.mark.parametrize("sink", [sinks.DynamoDB("items"), sinks.Memory()], ids=["table", "memory"])
def test_handlers_with_one_prefix_would_drop_each_others_effects_on_one_table(sink: Any) -> None:
    with refused(r"price and ship would share their idempotency entries.*Fused\(prefix='mine'\) is the same for both"):
        _two_handlers(Fused(prefix="mine"), sink).stages()
    assert len(_two_handlers(Fused(), sink).stages()) == 2


ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (sources.Kinesis("orders"), sources.Kinesis("orders", parallelization_factor=2)),
        (sources.Kinesis("orders"), sources.Kinesis("orders", existing=ARN)),
        (sources.Kinesis("a", existing=ARN), sources.Kinesis("b", existing=ARN)),
    ],
)
def test_checkpoints_of_one_stream_need_prefixes_of_their_own(one: Any, other: Any) -> None:
    pipeline = Pipeline("shop", idempotency=Checkpoint(prefix="again"))

    async def price(order: Order) -> None: ...
    async def ship(order: Order) -> None: ...

    pipeline.handler(one)(price)
    pipeline.handler(other)(ship)
    with refused(r"price and ship would share their idempotency entries.*Checkpoint\(prefix='again'\)"):
        pipeline.stages()


def test_handlers_that_read_different_streams_or_queues_may_have_one_prefix_for_their_checkpoints() -> None:
    """Another prefix, to read again with, is the pipeline's: it has to do for all of its handlers."""
    pipeline = Pipeline("shop", idempotency=Checkpoint(prefix="again"))
    ran: list[Any] = []

    async def price(order: dict[str, Any]) -> None:
        ran.append(("price", order["id"]))

    async def ship(order: dict[str, Any]) -> None:
        ran.append(("ship", order["id"]))

    async def bill(order: dict[str, Any]) -> None:
        ran.append(("bill", order["id"]))

    handlers = [
        pipeline.handler(sources.Kinesis("orders"))(price),
        pipeline.handler(sources.Kinesis("parcels"))(ship),
        pipeline.handler(sources.SQS("bills.fifo"))(bill),
    ]
    store = stores.Memory()
    for handler in (*handlers, *handlers):
        invoke(handler, [{"id": 1}], groups=["a"], store=store)
    assert ran == [("price", 1), ("ship", 1), ("bill", 1)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("both", None)


TWO_PIPELINES = """
from pipeline import *

shop = Pipeline("shop", idempotency=Claim(store=stores.DynamoDB("entries"){shop}))
crm = Pipeline("crm", idempotency=Mark(store=stores.DynamoDB("entries"){crm}))

@shop.handler(sources.SQS("orders"))
async def price(order: dict) -> None: ...

@crm.handler(sources.SQS("customers"))
async def sync(customer: dict) -> None: ...
"""


@pytest.mark.parametrize("prefix", ["mine", "shop.price"])
def test_pipelines_of_one_target_with_one_prefix_would_drop_each_others_records(project: Path, prefix: str) -> None:
    shop = ", prefix='mine'" if prefix == "mine" else ""
    (project / "both.py").write_text(TWO_PIPELINES.format(shop=shop, crm=f", prefix={prefix!r}"))
    said = (
        rf"shop\.price and crm\.sync would share their idempotency entries.*Mark\(prefix='{prefix}'\) is the same for "
        "both"
    )
    with pytest.raises(click.UsageError, match=said):
        targets.load("both")
    for name in ("shop", "crm"):
        assert [one.name for one in targets.load(f"both:{name}")] == [name]


def test_a_fused_table_is_written_to_by_another_pipeline_of_the_target_only_with_marks(project: Path) -> None:
    text = TWO_PIPELINES.format(shop="", crm="").replace("Claim(", "Fused(")
    for queue in ("orders", "customers"):
        text = text.replace(f'SQS("{queue}")', f'SQS("{queue}"), sinks=[sinks.DynamoDB("items")]')
    (project / "both.py").write_text(text)
    with pytest.raises(click.UsageError, match=r"crm\.sync: the sink 'items' would write where shop\.price keeps its"):
        targets.load("both")


def test_pipelines_of_one_target_may_have_one_store(project: Path) -> None:
    (project / "both.py").write_text(TWO_PIPELINES.format(shop="", crm=""))
    assert [one.name for one in targets.load("both")] == ["shop", "crm"]


def test_a_mode_of_ones_own_is_refused() -> None:
    class Mine(Claim, frozen=True, kw_only=True):
        """The engine knows four."""

    with refused("give Claim"):
        Pipeline("shop", idempotency=Mine())
