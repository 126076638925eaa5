"""Misuse fails when a handler is declared or a pipeline assembled, and the message says what to write instead."""

from __future__ import annotations

import functools
import math
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, TypedDict

import msgspec
import pydantic
import pytest

from pipeline import (
    Backoff,
    Batch,
    Claim,
    ConfigurationError,
    Context,
    Emit,
    Failure,
    Function,
    Pipeline,
    Record,
    Reject,
    Retry,
    by,
    sinks,
    sources,
    stores,
)
from pipeline.outcome import Failed
from pipeline.testing import ainvoke


@dataclass
class Customer:
    id: str


@dataclass
class Order:
    order_id: str
    customer: Customer
    note: str | None = None


class Pool:
    """Something that no body can be parsed into."""

    def __init__(self, size: int) -> None:
        self.size = size


class OrderStruct(msgspec.Struct, rename="camel"):
    order_id: str


class OrderModel(pydantic.BaseModel):
    order_id: str = pydantic.Field(alias="orderId")


class OrderDict(TypedDict):
    order_id: str


def shop() -> Pipeline:
    return Pipeline("shop")


def refused(match: str) -> Any:
    return pytest.raises(ConfigurationError, match=match)


def test_an_unknown_annotation_is_refused_and_the_message_lists_what_can_be_taken() -> None:
    with refused("price: .*Pool.*dataclass, TypedDict, msgspec Struct, pydantic model.*resources declared above"):

        @shop().handler(sources.SQS("orders"))
        async def price(pool: Pool) -> None: ...


def test_an_annotation_that_is_not_defined_is_refused() -> None:
    with refused("'Missing' is not defined where the handler is declared"):

        @shop().handler(sources.SQS("orders"))
        async def price(order: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def test_a_parameter_without_annotation_is_refused() -> None:
    with refused("annotate 'order'"):

        @shop().handler(sources.SQS("orders"))
        async def price(order): ...  # type: ignore[no-untyped-def]


def test_variable_parameters_are_refused() -> None:
    with refused("cannot be filled"):

        @shop().handler(sources.SQS("orders"))
        async def price(*orders: dict[str, Any]) -> None: ...


def test_two_payloads_are_refused() -> None:
    with refused("'order' and 'other' would both get the payload"):

        @shop().handler(sources.SQS("orders"))
        async def price(order: Order, other: Customer) -> None: ...


def test_a_queue_has_one_reader() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order) -> None: ...

    with refused("ship: the queue 'orders' is read by price already"):

        @pipeline.handler(sources.SQS("orders"))
        async def ship(order: Order) -> None: ...


def test_a_literal_sink_name_that_does_not_exist_is_refused_when_the_handler_is_declared() -> None:
    with refused(r"Emit\(to='legder'\): the handler has no such sink; its sinks are 'ledger', 'audit'"):

        @shop().handler(sources.SQS("orders"), sinks=[sinks.SQS("ledger"), sinks.SQS("audit")])
        async def price(order: Order) -> Emit[Order]:
            return Emit(order, to=["audit", "legder"])


async def test_a_computed_sink_name_that_does_not_exist_fails_its_record_and_names_those_that_do() -> None:
    @shop().handler(sources.SQS("orders"), sinks=[sinks.SQS("ledger")])
    async def price(order: dict[str, str]) -> Emit[Any]:
        return Emit(order, to=order["to"])

    result = await ainvoke(price, [{"to": "elsewhere"}, {"to": "ledger"}])

    (_, failed), *_ = result.of(Failed)
    assert "no such sink; its sinks are 'ledger'" in str(failed.error)
    assert result.outputs["ledger"] == [{"to": "ledger"}]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 11}, "at most batch_size=10|at most 10"),
        ({"batching_window": 1}, "FIFO"),
    ],
)
def test_a_fifo_queue_takes_ten_at_most_and_no_window(options: dict[str, int], match: str) -> None:
    with refused(match):
        sources.SQS("orders.fifo", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 11}, "batching_window"),
        ({"batch_size": 0}, "1 to 10,000"),
        ({"batch_size": 10_001, "batching_window": 1}, "1 to 10,000"),
        ({"batching_window": 301}, "0 to 300"),
        ({"max_concurrency": 1}, "2 to 1,000"),
        ({"max_receive_count": 0}, "max_receive_count"),
    ],
)
def test_queue_options_out_of_range_are_refused(options: dict[str, int], match: str) -> None:
    with refused(match):
        sources.SQS("orders", **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "path", "match"),
    [
        (Order, "id", "Order has no field 'id'; its fields are customer, note, order_id"),
        (Order, "customer.name", "Customer has no field 'name' of 'customer'; its fields are id"),
        (Order, "note.text", "has no field 'text'"),
        (OrderStruct, "order_id", "has no field 'order_id'; its fields are orderId"),
        (OrderModel, "order_id", "has no field 'order_id'; its fields are orderId"),
        (OrderDict, "id", "OrderDict has no field 'id'"),
        (str, "id", "has no field 'id'"),
        (dict[str, Any], "a..b", "not a path"),
    ],
)
@pytest.mark.parametrize("option", ["key", "lane"])
def test_a_path_that_the_declared_type_lacks_is_refused(kind: Any, path: str, match: str, option: str) -> None:
    async def price(order: Any) -> None: ...

    price.__annotations__["order"] = kind
    with refused(match):
        shop().handler(sources.SQS("orders"), **{option: path})(price)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        (Order, "customer.id"),
        (OrderStruct, "orderId"),
        (OrderModel, "orderId"),
        (OrderDict, "order_id"),
        (dict[str, Any], "any.thing"),
    ],
)
def test_a_path_that_the_declared_type_has_is_taken(kind: Any, path: str) -> None:
    async def price(order: Any) -> None: ...

    price.__annotations__["order"] = kind
    shop().handler(sources.SQS("orders"), key=path)(price)


def test_a_generator_is_no_batch_handler() -> None:
    with refused("price is a generator and takes a Batch: a batch handler returns a list"):

        @shop().handler(sources.SQS("orders"))
        async def price(orders: Batch[Order]) -> AsyncIterator[Order]:
            for order in orders:
                yield order.payload

    with refused("returns a list"):

        @shop().handler(sources.SQS("orders"))
        def price_plainly(orders: Batch[Order]) -> Iterator[Order]:
            yield from orders.payloads


def test_a_batch_needs_its_type_and_takes_the_place_of_the_payload() -> None:
    with refused(r"Batch\[Order\]"):

        @shop().handler(sources.SQS("orders"))
        async def price(orders: Batch) -> None: ...  # type: ignore[type-arg]

    with refused("in place of the payload"):

        @shop().handler(sources.SQS("orders"))
        async def both(orders: Batch[Order], record: Record[Order]) -> list[Failure | None]:
            return [None for _ in orders]


def test_two_handlers_of_one_name_are_refused() -> None:
    pipeline = shop()

    async def price(order: Order) -> None: ...

    pipeline.handler(sources.SQS("a"))(price)
    with refused("two handlers named 'price'"):
        pipeline.handler(sources.SQS("b"))(price)


def test_two_sinks_of_one_name_are_refused() -> None:
    with refused("two sinks are named 'audit': give one of them name="):

        @shop().handler(sources.SQS("orders"), sinks=[sinks.SQS("audit"), sinks.DynamoDB("audit")])
        async def price(order: Order) -> None: ...


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"concurrency": 0}, "concurrency=0: give a whole number, at least 1"),
        ({"concurrency": "5"}, "concurrency='5': give a whole number"),
        ({"concurrency": 2.5}, "concurrency=2.5: give a whole number"),
        ({"concurrency": True}, "concurrency=True: give a whole number"),
        ({"record_timeout": 0}, "record_timeout=0"),
        ({"record_timeout": "5"}, "record_timeout='5': give a number of seconds"),
        ({"record_timeout": math.nan}, "record_timeout=nan: give a number of seconds"),
        ({"sinks": sinks.Memory(name="out")}, r"give a list, as sinks=\["),
        ({"sinks": "ledger"}, r"give a list, as sinks=\['ledger'\]"),
        ({"sinks": None}, "sinks=None: leave it out, or give a list"),
        ({"sinks": [sinks.Memory]}, "Memory is a class, not a sink: call it"),
        ({"rejects": sinks.Memory}, "Memory is a class, not a sink: call it"),
        ({"middleware": None}, "middleware=None: leave it out, or give a list"),
        ({"middleware": shop}, r"middleware=shop: give a list, as middleware=\[shop\]"),
        ({"retry": 5}, r"give Backoff\(...\), or None"),
        ({"key": 5}, "give a dotted path, a tuple of paths, or a function"),
        ({"key": ()}, "names nothing"),
        ({"middleware": ["log"]}, "not a function from call to call"),
        ({"sinks": ["ledger"]}, "is not a sink"),
        ({"rejects": "dlq"}, "is not a sink"),
        ({"lane": by.shard}, "has no such order"),
        ({"lane": by.message_group}, "has no such order"),
        ({"reject_on": "ValueError"}, "reject_on"),
        ({"deploy": "lambda"}, "deploy"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], match: str) -> None:
    async def price(order: Order) -> None: ...

    with refused(match):
        shop().handler(sources.SQS("orders"), **options)(price)


def test_a_source_is_needed() -> None:
    async def price(order: Order) -> None: ...

    with refused("is not a source: use one of pipeline.sources"):
        shop().handler("orders")(price)  # type: ignore[arg-type]
    with refused(r"price: a handler needs a source: write @shop.handler\(sources.SQS\('orders'\)\)"):
        shop().handler(price)  # type: ignore[arg-type]
    with refused(r"shop.handler\(SQS\): that is the class; call it"):
        shop().handler(sources.SQS)  # type: ignore[arg-type]


class Pricing:
    def __call__(self, order: Order) -> None: ...

    def method(self, order: Order) -> None: ...


def test_what_is_no_function_is_no_handler() -> None:
    def price(order: Order, rate: int) -> None: ...

    pipeline = shop()
    declared = pipeline.handler(sources.SQS("a"))(Pricing().method)
    for thing in (functools.partial(price, rate=2), Pricing(), Pricing, declared, len, 5):
        with refused("is not a function: decorate a 'def' or an 'async def', and call from it"):
            pipeline.handler(sources.SQS("b"))(thing)  # type: ignore[arg-type]


@pytest.mark.parametrize("annotation", ["math.Nope", "int | 'x'", "not an annotation", "1 / 0"])
def test_an_annotation_that_cannot_be_read_is_refused(annotation: str) -> None:
    async def price(order: Any) -> None: ...

    price.__annotations__["order"] = annotation
    with refused("price: an annotation cannot be read: .*A handler takes its payload"):
        shop().handler(sources.SQS("orders"))(price)


MINE = "arn:aws:sqs:eu-west-1:111122223333:theirs"


def test_a_queue_under_two_names_has_one_reader_too() -> None:
    pipeline = shop()

    async def price(order: Order) -> None: ...
    async def ship(order: Order) -> None: ...

    pipeline.handler(sources.SQS("a", existing=MINE))(price)
    with refused("ship: the queue 'b' is read by price already"):
        pipeline.handler(sources.SQS("b", existing=MINE))(ship)
    with refused("ship: the queue 'a' is read by price already"):
        pipeline.handler(sources.SQS("a", existing=f"{MINE}-too"))(ship)
    pipeline.handler(sources.SQS("b", existing=f"{MINE}-too"))(ship)


def test_a_declaration_that_failed_leaves_its_queue_free() -> None:
    pipeline = shop()

    async def price(order: Order) -> None: ...

    with refused("has no field"):
        pipeline.handler(sources.SQS("orders"), key="id")(price)
    pipeline.handler(sources.SQS("orders"), key="order_id")(price)


def test_a_loop_through_a_queue_with_two_names_is_found() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("a", existing=MINE), sinks=[sinks.SQS("b", existing=MINE, carry=False)])
    async def again(order: Order) -> Order:
        return order

    with refused("again feeds itself through the sink 'b'"):
        pipeline.stages()


@pytest.mark.parametrize(
    "store",
    [None, stores.Memory(), stores.DynamoDB("entries"), stores.DynamoDB()],
    ids=["default", "memory", "table", "pipeline's table"],
)
def test_two_handlers_cannot_share_their_idempotency_entries(store: Any) -> None:
    pipeline = Pipeline("shop", idempotency=Claim(store=store, prefix="x"))

    async def price(order: Order) -> None: ...
    async def ship(order: Order) -> None: ...

    pipeline.handler(sources.SQS("a"), key="order_id")(price)
    assert len(pipeline.stages()) == 1
    handler = pipeline.handler(sources.SQS("b"), key="order_id")(ship)
    sentence = (
        r"price and ship would share their idempotency entries.*prefix='x'.*"
        "Leave prefix out, or give each handler its own pipeline with another prefix"
    )
    with refused(sentence):
        pipeline.stages()
    with refused(sentence):
        handler.stage  # noqa: B018


def test_two_pipelines_may_share_their_idempotency_entries() -> None:
    store = stores.Memory()
    for name in ("shop", "shop-next"):
        pipeline = Pipeline(name, idempotency=Claim(store=store, prefix="x"))

        async def price(order: Order) -> None: ...

        pipeline.handler(sources.SQS("a"))(price)
        assert pipeline.stages()[0].prefix == "x"


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Pipeline(""), "a name is a letter"),
        (lambda: Pipeline("my shop"), "a name is a letter"),
        (lambda: Pipeline(5), r"Pipeline\(5\): a name is a letter"),  # type: ignore[arg-type]
        (lambda: Pipeline("shop", max_hops="5"), "max_hops='5'"),  # type: ignore[arg-type]
        (lambda: Pipeline("shop", idempotency=Claim), "idempotency"),  # type: ignore[arg-type]
        (lambda: Pipeline("shop", max_hops=0), "max_hops"),
        (lambda: Pipeline("shop", idempotency=True), "idempotency"),  # type: ignore[arg-type]
        (lambda: Pipeline("shop", log_level="LOUD"), "log_level"),
        (lambda: Pipeline("shop", log_payloads="card.number"), "log_payloads='card.number': give a list of paths"),
        (lambda: Pipeline("shop", log_payloads=[5]), "log_payloads: 5 is no path"),  # type: ignore[list-item]
        (lambda: Pipeline("shop", log_payloads=["card..number["]), "at character 13: write it like 'card.number'"),
        (lambda: Pipeline("shop", log_payloads=[""]), "log_payloads: '' is no path, at character 1"),
        (lambda: Backoff(attempts=0), "attempts"),
        (lambda: Backoff(base=-1), "base"),
        (lambda: Backoff(cap=50_000), "43,200"),
        (lambda: Backoff(attempts=2.5), "attempts=2.5.*whole number"),  # type: ignore[arg-type]
        (lambda: Backoff(attempts=True), "attempts=True.*whole number"),
        (lambda: Backoff(base="5"), "base='5'.*give a number"),  # type: ignore[arg-type]
        (lambda: Backoff(cap=math.nan), "cap=nan.*give a number"),
        (lambda: Claim(store="x"), "store='x'.*pipeline.stores"),  # type: ignore[arg-type]
        (lambda: Claim(store=stores.DynamoDB), "store=DynamoDB.*the class; call it"),  # type: ignore[arg-type]
        (lambda: Claim(prefix=""), "prefix=''"),
        (lambda: Claim(prefix=5), "prefix=5"),  # type: ignore[arg-type]
        (lambda: Claim(ttl=1.5), "ttl=1.5.*whole number"),  # type: ignore[arg-type]
        (lambda: Claim(lease=math.inf), "lease=inf"),
        (lambda: Claim(lease="60"), "lease='60'"),  # type: ignore[arg-type]
        (lambda: Claim(lease=0), "lease"),
        (lambda: Claim(ttl=0), "ttl"),
        (lambda: Function(timeout=901), "1 to 900"),
        (lambda: Function(memory=64), "128 to 10,240"),
        (lambda: sinks.SQS("orders.fifo", delay=5), "delay"),
        (lambda: sinks.SQS("orders", delay=901), "900"),
        (lambda: sinks.SQS(""), "name"),
        (lambda: sources.Kinesis("s", batch_size=0), "batch_size=0.*1 to 10,000"),
        (lambda: sources.Kinesis("s", max_record_age=0), "max_record_age=0.*60 to 604,800, or -1 for no limit"),
        (lambda: sources.Kinesis("s", starting_position="latest"), "give one of TRIM_HORIZON, LATEST"),
        (lambda: sources.Kinesis("s", existing="s"), "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"),
    ],
)
def test_values_that_cannot_work_are_refused(make: Any, match: str) -> None:
    with refused(match):
        make()


def test_emit_and_retry_refuse_negative_times() -> None:
    with pytest.raises(ValueError, match="delay=-1"):
        Emit(1, delay=-1)
    with pytest.raises(ValueError, match="after=-1"):
        Retry(after=-1)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -0.5, True, "5"])
def test_a_time_is_a_finite_number(seconds: Any) -> None:
    with pytest.raises(ValueError, match=rf"Retry\(after={seconds!r}\): give a number of seconds"):
        Retry(after=seconds)
    with pytest.raises(ValueError, match=rf"Emit\(delay={seconds!r}\): give a number of seconds"):
        Emit(1, delay=seconds)


def test_the_reason_of_a_retry_and_of_a_reject_is_text() -> None:
    with pytest.raises(TypeError, match=r"write Retry\(after=60\)"):
        Retry(60)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Reject\(ValueError\('no'\)\): the reason is text"):
        Reject(ValueError("no"))  # type: ignore[arg-type]


def test_an_output_is_addressed_by_a_sink_or_its_name_or_several() -> None:
    ledger, audit = sinks.SQS("ledger"), sinks.Memory(name="audit")

    assert Emit(1, to=ledger).to == ("ledger",)
    assert Emit(1, to=[ledger, "bus", audit]).to == ("ledger", "bus", "audit")
    assert Emit(1, to={"bus": 1}).to == ("bus",)


@pytest.mark.parametrize("to", [5, [5], ["ledger", None], sinks.SQS])
def test_an_address_that_names_no_sink_is_refused(to: Any) -> None:
    with pytest.raises(TypeError, match=r"Emit\(to=.*give a sink or its name, or several"):
        Emit(1, to=to)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"key": 7}, r"Emit\(key=7\): give text"),
        ({"id": 7}, r"Emit\(id=7\): give text"),
        ({"key": b"k"}, "give text"),
        ({"attributes": {"n": 1}}, r"Emit\(attributes=\{'n': 1\}\): give text"),
        ({"attributes": {1: "n"}}, "give text"),
        ({"attributes": "n=1"}, "give a mapping from text to text"),
    ],
)
def test_options_of_an_output_that_are_no_text_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(TypeError, match=match):
        Emit(1, **options)


@pytest.mark.parametrize("option", ["key", "id"])
def test_an_empty_key_or_id_of_an_output_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=rf"Emit\({option}=''\)"):
        Emit(1, **{option: ""})  # type: ignore[arg-type]


async def test_an_output_that_cannot_be_fails_its_own_record_only() -> None:
    ledger = sinks.Memory(name="ledger")

    @shop().handler(sources.SQS("orders"), sinks=[ledger, sinks.Memory(name="audit")])
    async def price(order: dict[str, Any]) -> Emit[Any]:
        return Emit(order, to=ledger, key=order["group"])

    result = await ainvoke(price, [{"group": 7}, {"group": "a"}])

    ((_, failed),) = result.of(Failed)
    assert "Emit(key=7): give text" in str(failed.error)
    assert result.outputs["ledger"] == [{"group": "a"}]
    assert not result.outputs.get("audit")


def test_resources_are_async_generators_annotated_with_what_they_yield() -> None:
    pipeline = shop()
    with refused("async generator"):

        @pipeline.resource
        async def plain() -> Pool:
            return Pool(1)

    with refused("AsyncIterator"):

        @pipeline.resource
        async def bare():  # type: ignore[no-untyped-def]
            yield Pool(1)

    @pipeline.resource
    async def pool() -> AsyncIterator[Pool]:
        yield Pool(1)

    with refused("one type, one resource"):

        @pipeline.resource
        async def other() -> AsyncIterator[Pool]:
            yield Pool(2)

    @pipeline.handler(sources.SQS("orders"))
    async def price(order: Order, pool: Pool, context: Context) -> None: ...


def test_a_loop_through_a_sink_that_carries_nothing_is_refused_when_the_pipeline_is_assembled() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("a"), sinks=[sinks.SQS("b", carry=False)])
    async def first(order: Order) -> Order:
        return order

    @pipeline.handler(sources.SQS("b"), sinks=[sinks.SQS("a")])
    async def second(order: Order) -> Order:
        return order

    with refused("first feeds itself through the sink 'b', which carries no hop count"):
        pipeline.stages()


def test_a_loop_that_carries_its_hops_is_allowed() -> None:
    pipeline = shop()

    @pipeline.handler(sources.SQS("a"), sinks=[sinks.SQS("a")])
    async def again(order: Order) -> Order:
        return order

    assert [stage.name for stage in pipeline.stages()] == ["again"]


def test_a_stream_may_have_several_readers_and_a_queue_one() -> None:
    pipeline = shop()

    async def price(order: Order) -> None: ...
    async def ship(order: Order) -> None: ...

    pipeline.handler(sources.Kinesis("orders"))(price)
    pipeline.handler(sources.Kinesis("orders"))(ship)

    assert [stage.name for stage in pipeline.stages()] == ["price", "ship"]


@pytest.mark.parametrize(
    ("source", "options", "match"),
    [
        (sources.Kinesis, {}, r"shop.handler\(Kinesis\): that is the class; call it"),
        (sources.Kinesis("s"), {"lane": by.message_group}, "no such order; it has by.partition_key, by.shard"),
        (sources.SQS("q.fifo"), {"lane": by.partition_key}, "no such order; it has by.message_group"),
        (sources.Kinesis("s", parallelization_factor=2), {"lane": by.shard}, "it has by.partition_key$"),
        (sources.Kinesis("s"), {"key": "id"}, "Order has no field 'id'"),
        (sources.Kinesis("s"), {"rejects": sinks.Kinesis("s")}, "rejects= is .s., where the records come from"),
        (sources.SQS("q"), {"rejects": sinks.SQS("q")}, "rejects= is .q., where the records come from"),
        (sources.Kinesis("s"), {"rejects": sinks.Kinesis("out", hash_key="n")}, "rejects='out'.*without hash_key="),
        (sources.Kinesis("s"), {"rejects": sinks.DynamoDB("t", partition_key="encoding")}, "its 'encoding'"),
    ],
)
def test_streams_and_options_that_do_not_go_together_are_refused(source: Any, options: Any, match: str) -> None:
    async def price(order: Order) -> None: ...

    with refused(match):
        shop().handler(source, **options)(price)


@pytest.mark.parametrize("lane", [by.partition_key, by.message_group, "order_id", lambda order: order["order_id"]])
def test_a_stream_without_idempotency_has_no_lane_but_the_shard(lane: Any) -> None:
    async def price(order: Order) -> None: ...

    bare = Pipeline("bare", idempotency=None)
    with refused("price: lane=.* needs idempotency: a stream delivers everything behind a failure again"):
        bare.handler(sources.Kinesis("s"), lane=lane)(price)
    with refused("price: without idempotency a stream's shard is one lane.*leave parallelization_factor out"):
        bare.handler(sources.Kinesis("s", parallelization_factor=2))(price)
    bare.handler(sources.Kinesis("s"), lane=by.shard)(price)


def test_a_loop_through_a_stream_that_carries_nothing_is_refused() -> None:
    pipeline = shop()

    @pipeline.handler(sources.Kinesis("a"), sinks=[sinks.Kinesis("a", carry=False)])
    async def again(order: Order) -> Order:
        return order

    with refused("again feeds itself through the sink 'a', which carries no hop count"):
        pipeline.stages()


def test_a_name_on_the_front_door_that_is_not_there_says_so() -> None:
    with pytest.raises(AttributeError, match="SNS"):
        sources.SNS  # type: ignore[attr-defined]  # noqa: B018
