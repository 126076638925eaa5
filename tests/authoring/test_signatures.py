"""What a handler may look like, and what its annotations then mean."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, NewType

import msgspec
import pytest

from pipeline import Batch, ConfigurationError, Context, Pipeline, Record, by, sinks, sources
from pipeline.engine.calling import Kind
from pipeline.outcome import Rejected, Succeeded
from pipeline.testing import ainvoke


@dataclass
class Order:
    order_id: str


class Pool:
    """A resource."""


Text = NewType("Text", str)
Short = NewType("Short", Annotated[str, msgspec.Meta(max_length=3)])
Known = NewType("Known", Order)


def shop() -> Pipeline:
    return Pipeline("shop")


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as people write it: it knows nothing of async."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def test_a_plain_wrapper_of_an_async_function_is_awaited() -> None:
    out = sinks.Memory(name="out")

    @shop().handler(sources.SQS("orders"), sinks=[out])
    @plainly
    @plainly
    async def price(order: Order) -> str:
        return order.order_id

    result = await ainvoke(price, [{"order_id": "a"}])

    assert price.stage.signature.kind is Kind.ASYNC
    assert result.outputs["out"] == ["a"]


async def test_a_plain_wrapper_of_an_async_generator_is_drained() -> None:
    out = sinks.Memory(name="out")

    @shop().handler(sources.SQS("orders"), sinks=[out])
    @plainly
    async def price(order: Order) -> AsyncIterator[str]:
        yield order.order_id
        yield "b"

    result = await ainvoke(price, [{"order_id": "a"}])

    assert result.outputs["out"] == ["a", "b"]


async def test_a_plain_wrapper_of_a_plain_function_runs_in_a_thread() -> None:
    @shop().handler(sources.SQS("orders"))
    @plainly
    def price(order: Order) -> None: ...

    assert price.stage.signature.kind is Kind.SYNC
    assert price.stage.concurrency == 10


async def outcomes(annotation: Any, *bodies: Any) -> tuple[list[Any], list[type]]:
    """What a handler of this payload got, and how each record ended."""
    got: list[Any] = []

    async def price(order: Any) -> None:
        got.append(order)

    price.__annotations__["order"] = annotation
    result = await ainvoke(Pipeline("shop", idempotency=None).handler(sources.SQS("orders"))(price), bodies)
    return got, [type(outcome) for _, outcome in result]


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (Annotated[list[int], msgspec.Meta(min_length=2)], [1, 2], [1]),
        (list[Annotated[int, msgspec.Meta(gt=0)]], [1, 2], [0]),
        (Annotated[dict, msgspec.Meta(min_length=1)], {"a": 1}, {}),
        (Annotated[str, msgspec.Meta(max_length=3)], "abc", "abcd"),
        (Annotated[str, "a note", msgspec.Meta(pattern="^[a-z]+$")], "abc", "1"),
        (Annotated[bytes, msgspec.Meta(max_length=3)], b"abc", b"abcd"),
        (Short, "abc", "abcd"),
    ],
)
async def test_a_constraint_in_an_annotation_is_kept(annotation: Any, good: Any, bad: Any) -> None:
    got, ended = await outcomes(annotation, good, bad)

    assert got == [good]
    assert ended == [Succeeded, Rejected]


@pytest.mark.parametrize(
    ("annotation", "body", "payload"),
    [
        (Text, "not JSON", "not JSON"),
        (Annotated[Text, "a note"], "7", "7"),
        (Annotated[str, "a note"], "not JSON", "not JSON"),
        (Annotated[bytes, "a note"], b"{", b"{"),
        (Annotated[Order, "a note"], {"order_id": "a"}, Order("a")),
        (Known, {"order_id": "a"}, Order("a")),
        (list[Known], [{"order_id": "a"}], [Order("a")]),
    ],
)
async def test_a_new_type_and_a_note_change_nothing(annotation: Any, body: Any, payload: Any) -> None:
    got, ended = await outcomes(annotation, body)

    assert got == [payload]
    assert ended == [Succeeded]


def test_a_constraint_that_its_type_cannot_have_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"price: .*gt"):

        @shop().handler(sources.SQS("orders"))
        async def price(order: Annotated[str, msgspec.Meta(gt=1)]) -> None: ...


@pytest.mark.parametrize("kind", [Annotated[Order, "a note"], Known])
def test_a_path_is_checked_in_the_type_itself(kind: Any) -> None:
    async def price(order: Any) -> None: ...

    price.__annotations__["order"] = kind
    with pytest.raises(ConfigurationError, match="Order has no field 'id'"):
        shop().handler(sources.SQS("orders"), key="id")(price)
    shop().handler(sources.SQS("orders"), key="order_id")(price)


async def test_annotated_parameters_get_what_they_name() -> None:
    pipeline = shop()
    got: list[Any] = []

    @pipeline.resource
    async def pool() -> AsyncIterator[Annotated[Pool, "made once"]]:
        yield Pool()

    @pipeline.handler(sources.SQS("orders"))
    async def price(
        record: Annotated[Record[Order], "a note"],
        context: Annotated[Context, "a note"],
        pool: Annotated[Pool, []],
    ) -> None:
        got.extend([record.payload, type(context), type(pool)])

    @pipeline.handler(sources.SQS("batched"))
    async def batched(orders: Annotated[Batch[Order], "a note"]) -> list[None]:
        got.append(orders.payloads)
        return [None for _ in orders]

    await ainvoke(price, [{"order_id": "a"}])
    await ainvoke(batched, [{"order_id": "b"}])

    assert got == [Order("a"), Context, Pool, [Order("b")]]


def test_the_message_group_is_an_order_of_fifo_queues() -> None:
    @shop().handler(sources.SQS("orders.fifo"), lane=by.message_group)
    async def price(order: Order) -> None: ...

    lane = price.stage.source_lane
    event = {
        "Records": [
            {"messageId": "1", "body": "{}", "attributes": {"MessageGroupId": "g"}, "eventSource": "aws:sqs"},
        ]
    }
    assert lane is not None
    assert [lane(raw) for raw in price.stage.source.decode(event)] == ["g"]
    assert sources.SQS("orders").orders == {}
