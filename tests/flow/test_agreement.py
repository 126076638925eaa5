"""The same scenarios through every runtime: what comes of them must agree."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.engine.stage import Stage
from pipeline.outcome import Rejected, is_settled
from pipeline.stores import Memory
from pipeline.testing import Emulator, ainvoke, local
from tests.flow import shop
from tests.flow.runtime_api import RuntimeClient

ORDERS: list[Any] = [
    {"order_id": "plain"},
    {"order_id": "two", "quantity": 2},
    {"order_id": "recovers", "fails": 2},
    {"order_id": "poison", "fails": 99},
    {"order_id": "none", "quantity": 0},
    {"order_id": "plain"},
    {"order_id": 7},
    "not json",
    {"quantity": 1},
    {"order_id": "ünïcode", "quantity": 3},
]
PARCELS = [{"parcel": "a", "n": n, **({"fails": 99} if n == 0 else {"fails": 1} if n == 4 else {})} for n in range(10)]
PARCELS += [{"parcel": "b", "n": n} for n in range(4)]


class Entry:
    """The Lambda entry point, called directly."""

    def __init__(self, stage: Stage) -> None:
        self.handler = shop.shop.handlers[stage.name]

    def invoke(self, event: Any, context: Any) -> Any:
        return self.handler(event, context)

    def close(self) -> None:
        self.handler.close()


Effects = dict[str, Any]


async def through_invoke() -> Effects:
    """Redeliver what is unsettled, until nothing is."""
    effects: Effects = {"dead": []}
    for handler, payloads, group in (
        (shop.price, ORDERS, None),
        (shop.ship, PARCELS, "parcel"),
    ):
        store = Memory()
        left = [(f"m{position}", payload) for position, payload in enumerate(payloads)]
        receive = 0
        while left:
            receive += 1
            result = await ainvoke(
                handler,
                [payload for _, payload in left],
                ids=[name for name, _ in left],
                groups=[payload[group] for _, payload in left] if group else None,
                receive_count=receive,
                store=store,
            )
            for sink, values in result.outputs.items():
                effects.setdefault(sink, []).extend(json.loads(json.dumps(value, default=vars)) for value in values)
            effects["dead"] += [
                (_body(letter.record.body), letter.cause, letter.attempts) for letter in result.dead_letters
            ]
            assert len(result.dead_letters) == len(result.of(Rejected))
            left = [pair for pair, outcome in zip(left, result.outcomes, strict=True) if not is_settled(outcome)]
    return _sorted(effects)


async def through_local(runtime: Callable[..., Any] | None) -> Effects:
    async with local(shop.shop, runtime=runtime) as env:
        await env.send("orders", ORDERS)
        await env.send("parcels.fifo", PARCELS, key=lambda parcel: parcel["parcel"])
        await env.drain(timeout=50)
        rows = (await env.client("dynamodb").scan(TableName="ledger"))["Items"]
        return _sorted(
            {
                "ledger": [_row(row) for row in rows],
                "priced": await _messages(env, "priced"),
                "shipped.fifo": await _messages(env, "shipped.fifo"),
                "dead": [
                    (_body(letter.body), cause["cause"], cause["attempts"])
                    for source in ("orders", "parcels.fifo")
                    for letter in await env.dead_letters(source)
                    for cause in [json.loads(letter.attributes["pipeline_cause"])]
                ],
            }
        )


def through_emulator() -> Effects:
    """In memory and in virtual time."""
    with Emulator() as aws:
        aws.add(shop.shop)
        aws.send("orders", ORDERS)
        aws.send("parcels.fifo", PARCELS, key=lambda parcel: parcel["parcel"])
        aws.run()
        rows = aws.client("dynamodb").scan(TableName="ledger")["Items"]
        letters = [letter for source in ("orders", "parcels.fifo") for letter in aws.dead_letters(source)]
        causes = [json.loads(letter.attributes["pipeline_cause"]) for letter in letters]
        return _sorted(
            {
                "ledger": [_row(row) for row in rows],
                **{name: aws.queue(name).bodies for name in ("priced", "shipped.fifo")},
                "dead": [
                    (_body(letter.body), cause["cause"], cause["attempts"])
                    for letter, cause in zip(letters, causes, strict=True)
                ],
            }
        )


def _row(row: Any) -> dict[str, Any]:
    return {
        "order_id": row["order_id"]["S"],
        "cents": int(row["cents"]["N"]),
        "attempt": int(row["attempt"]["N"]),
    }


async def _messages(env: Any, queue: str) -> list[Any]:
    client = env.client("sqs")
    url = (await client.get_queue_url(QueueName=queue))["QueueUrl"]
    found: list[Any] = []
    while messages := (await client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)).get("Messages"):
        for message in messages:
            found.append(json.loads(message["Body"]))
            await client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return found


def _body(body: str | bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


def _sorted(effects: Effects) -> Effects:
    """Order within a message group stays; everything else has none."""
    return {
        name: sorted(found, key=lambda item: item["parcel"])
        if name == "shipped.fifo"
        else sorted(found, key=lambda item: json.dumps(item, sort_keys=True))
        for name, found in effects.items()
    }


RUNTIMES: dict[str, Callable[..., Any] | None] = {
    "local": None,
    "entry point": lambda stage, clock, observer: Entry(stage),
    "awslambdaric": lambda stage, clock, observer: RuntimeClient(f"tests.flow.shop.{stage.name}", timeout=30),
}


async def test_invoke_does_what_the_scenarios_mean() -> None:
    effects = await through_invoke()

    assert sorted(row["order_id"] for row in effects["ledger"]) == ["plain", "recovers", "two", "ünïcode"]
    assert {row["order_id"]: row["attempt"] for row in effects["ledger"]}["recovers"] == 3
    assert effects["priced"] == effects["ledger"]
    assert [parcel["n"] for parcel in effects["shipped.fifo"]] == [*range(1, 10), *range(4)]
    assert len(effects["dead"]) == 6
    assert sorted(cause.partition(":")[0] for _, cause, _ in effects["dead"]) == [
        "KeyMissing", "PayloadError", "PayloadError", "Reject", "ValueError", "ValueError",
    ]  # fmt: skip


@pytest.mark.timeout(120)  # several processes, and queues that are worked off several times
@pytest.mark.parametrize("runtime", RUNTIMES)
async def test_every_runtime_agrees_with_invoke(runtime: str) -> None:
    expected = await through_invoke()

    found = await through_local(RUNTIMES[runtime])

    assert found == expected


async def test_the_emulator_agrees_with_invoke() -> None:
    expected = await through_invoke()

    found = await asyncio.to_thread(through_emulator)

    assert found == expected
