"""`invoke` over the services in memory: what AWS would refuse fails its record in a unit test too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pipeline import ConfigurationError, Emit, Fused, Pipeline, sinks, sources
from pipeline.aws.client import client
from pipeline.aws.names import VARIABLE, Resource
from pipeline.decisions.deadline import Deadline
from pipeline.engine.environment import SystemClock
from pipeline.errors import SinkError, SinkRefused
from pipeline.handler import Handler
from pipeline.outcome import Duplicate, Failed, Succeeded
from pipeline.output import Output
from pipeline.ports import Environment
from pipeline.stores import Memory
from pipeline.testing import invoke
from pipeline.testing.models import Models

NOON = 1_700_000_000.0
OTHERS = "eu-west-1:111122223333"


def handler(
    *to: Any, work: Callable[[Any], Any] = lambda order: order, key: str | None = None, **options: Any
) -> Handler[..., Any]:
    shop = Pipeline("shop", **options)

    @shop.handler(sources.SQS("orders"), sinks=to, key=key)
    def price(order: Any) -> Any:
        return work(order)

    return price


def refusals(outcomes: Sequence[Any]) -> dict[int, str]:
    """By the place of a record that failed because a sink refused its output: why."""
    failed = {place: outcome for place, outcome in enumerate(outcomes) if not isinstance(outcome, Succeeded)}
    assert all(isinstance(one, Failed) and isinstance(one.error, SinkRefused) for one in failed.values()), failed
    return {place: str(one.error) for place, one in failed.items()}


def test_a_message_that_sqs_does_not_take_fails_its_record_alone() -> None:
    """SQS developer guide, "Amazon SQS message quotas": 1 MiB a message."""
    result = invoke(handler(sinks.SQS("priced")), [{"n": 1}, {"n": 2, "text": "x" * 2 * 1_048_576}, {"n": 3}])
    assert refusals(result.outcomes).keys() == {1}
    assert result.outputs == {"priced": [{"n": 1}, {"n": 3}]}


def test_a_fifo_queue_takes_no_message_without_its_group_and_no_delay() -> None:
    price = handler(
        sinks.SQS("priced.fifo", group="customer"),
        work=lambda order: Emit(order, delay=order["delay"]) if "delay" in order else order,
    )
    result = invoke(price, [{"customer": "a"}, {"n": 2}, {"customer": "a", "delay": 5}])
    found = refusals(result.outcomes)
    assert found.keys() == {1, 2}
    assert "'customer'" in found[1]
    assert "no delay for single messages" in found[2]
    assert result.outputs == {"priced.fifo": [{"customer": "a"}]}


def test_an_item_that_a_table_does_not_take_fails_its_record() -> None:
    """DynamoDB developer guide, "Quotas": 400 KB an item, 32 levels, 38 digits; a table of the toolkit's has keys of text."""
    deep: Any = 1
    for _ in range(33):
        deep = [deep]
    orders: list[Any] = [
        {"id": "a"},
        {"id": "b", "text": "x" * 409_600},
        {"id": "c", "deep": deep},
        {"id": "d", "number": 10**38 + 1},
        {"id": 5},
        {"name": "e"},
    ]
    result = invoke(handler(sinks.DynamoDB("ledger", partition_key="id")), orders)
    assert refusals(result.outcomes).keys() == {1, 2, 3, 4, 5}
    assert [item["id"] for item in result.outputs["ledger"]] == ["a"]


@pytest.mark.parametrize("option", ["ids", "groups"])
@pytest.mark.parametrize("given", [[], ["a"], ["a", "b", "c"]])
def test_there_is_one_id_and_one_group_for_each_payload(option: str, given: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=f"{option}= has {len(given)} for 2 payloads: give one for each"):
        invoke(handler(), [{"n": 1}, {"n": 2}], **{option: given})
    assert invoke(handler(), [{"n": 1}, {"n": 2}], **{option: ["a", "b"]}).records


def test_the_other_services_refuse_what_they_would_in_aws() -> None:
    too_large = {"n": 2, "text": "x" * 11 * 1_048_576}
    wide = {"n": 3, "count": 2**64}  # EventBridge reads numbers of 64 bits
    bus, stream = sinks.EventBridge("news", detail_type="priced"), sinks.Kinesis("priced", partition_key="n")
    assert refusals(invoke(handler(bus), [{"n": 1}, too_large, wide]).outcomes).keys() == {1, 2}
    assert refusals(invoke(handler(stream), [{"n": 1}, too_large]).outcomes).keys() == {1}
    kept = invoke(handler(sinks.S3("archive", prefix="orders/")), [{"n": 1}, {"n": 2}])
    assert kept.outputs == {"archive": [{"n": 1}, {"n": 2}]}


def test_two_calls_know_nothing_of_each_other_and_two_sinks_may_share_a_resource() -> None:
    price = handler(sinks.SQS("priced.fifo", group="id"), sinks.SQS("priced.fifo", group="id", name="again"))
    for _ in range(2):
        assert invoke(price, [{"id": "a"}]).outputs == {"priced.fifo": [{"id": "a"}], "again": [{"id": "a"}]}


def test_resources_of_others_are_there_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, '{"sqs:plain": "https://sqs.eu-west-1.amazonaws.com/111122223333/deployed"}')
    price = handler(
        sinks.SQS("plain"),
        sinks.SQS("queue", existing=f"arn:aws:sqs:{OTHERS}:theirs.fifo"),
        sinks.DynamoDB("table", partition_key="n", sort_key="at", existing=f"arn:aws:dynamodb:{OTHERS}:table/theirs"),
        sinks.Kinesis("stream", existing=f"arn:aws:kinesis:{OTHERS}:stream/theirs"),
        sinks.EventBridge("default", detail_type="priced"),
        sinks.EventBridge("bus", detail_type="priced", existing=f"arn:aws:events:{OTHERS}:event-bus/theirs"),
        sinks.S3("bucket", existing="arn:aws:s3:::theirs"),
    )
    result = invoke(price, [{"n": 7, "at": "noon"}, {"n": 8, "at": "noon"}])
    assert refusals(result.outcomes) == {}
    assert {name: len(values) for name, values in result.outputs.items()} == dict.fromkeys(
        ("plain", "queue", "table", "stream", "default", "bus", "bucket"), 2
    )


def test_a_resource_that_aws_would_not_make_is_told() -> None:
    with pytest.raises(ConfigurationError, match="the sink 'not a name' could not be made: "):
        invoke(handler(sinks.SQS("not a name")), [{}])


def test_fused_effects_are_written_once_by_the_sink_itself() -> None:
    price = handler(sinks.DynamoDB("ledger", partition_key="id"), key="id", idempotency=Fused())
    orders = [{"id": "a", "n": 1}, {"id": "a", "n": 2}, {"id": "b", "text": "x" * 409_600}, {"id": "c"}]
    result = invoke(price, orders)
    assert [type(outcome) for outcome in result.outcomes] == [Succeeded, Duplicate, Failed, Succeeded]
    assert result.outputs == {"ledger": [{"id": "a", "n": 1}, {"id": "c"}]}

    theirs = sinks.DynamoDB("ledger", partition_key="id", existing=f"arn:aws:dynamodb:{OTHERS}:table/theirs")
    price = handler(theirs, key="id", idempotency=Fused())
    assert invoke(price, [{"id": 1}, {"id": 1}, {"id": 2}]).outputs == {"ledger": [{"id": 1}, {"id": 2}]}


class Elsewhere:
    """A sink whose resource is nowhere in memory."""

    name = "elsewhere"
    resource = Resource("sns", "topic")

    async def write(
        self, outputs: Sequence[Output], environment: Environment, deadline: Deadline
    ) -> Sequence[SinkError | None]:
        raise AssertionError("it is not called")


def test_of_a_sink_elsewhere_it_is_noted_what_it_would_get() -> None:
    assert invoke(handler(Elsewhere()), [{"n": 1}]).outputs == {"elsewhere": [{"n": 1}]}


class Noon(SystemClock):
    """A clock whose hands stand still."""

    now = staticmethod(lambda: NOON)


async def test_the_services_have_the_callers_clock() -> None:
    models = Models(Noon())
    await models.bound(sinks.SQS("priced"))
    sqs = await client(models.environment, "sqs")
    url = (await sqs.get_queue_url(QueueName="stack-priced"))["QueueUrl"]
    found = await sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["CreatedTimestamp"])
    assert found["Attributes"]["CreatedTimestamp"] == str(int(NOON))
    await models.aclose()


def test_the_store_is_the_callers_as_the_clock_is() -> None:
    store = Memory()
    price = handler(sinks.SQS("priced"), sinks.DynamoDB("ledger", partition_key="id"), key="id")
    assert len(invoke(price, [{"id": "a"}], clock=Noon(), store=store).of(Succeeded)) == 1
    assert len(invoke(price, [{"id": "a"}], clock=Noon(), store=store).of(Duplicate)) == 1
