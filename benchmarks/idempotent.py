"""What the idempotency benchmark measures: each function returns one way to handle an event, ready to be called.

The handler's work is a call of `ran`, so that a benchmark can tell how often it was done. Each is written as its own
documentation shows it, and runs in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

Invoke = Callable[[Any, Any], Any]
Ran = Callable[[], None]
Make = Callable[[Ran], Invoke]

TABLE, LEDGER, FASTSQS_TABLE = "shop-idempotency", "ledger", "dedup"
#: Seconds that an entry lives, everywhere.
TTL = 1_209_600
FASTSQS_VERSION = "1.2.0"


@dataclass(frozen=True)
class Case:
    """One row: a contestant in a scenario."""

    make: Make
    #: It runs in an environment of its own that has FastSQS.
    needs_fastsqs: bool = False


# --- ours


def ours(
    ran: Ran,
    *,
    mode: Callable[[], Any],
    is_stream: bool = False,
    has_item: bool = False,
    has_key: bool = True,
    has_lanes: bool = False,
) -> Invoke:
    """`mode`: makes the idempotency mode. `has_lanes`: a stream's partition keys are lanes, also where none need be."""
    from pipeline import Pipeline, by, sinks, sources

    source: Any = (
        sources.Kinesis("orders", batch_size=10_000, batching_window=1)
        if is_stream
        else sources.SQS("orders", batch_size=10_000, batching_window=1)
    )
    shop = Pipeline("shop", idempotency=mode())

    async def price(order: dict[str, Any]) -> dict[str, Any] | None:
        ran()
        return priced(order) if has_item else None

    return shop.handler(
        source,
        sinks=[sinks.DynamoDB(LEDGER, partition_key="order_id")] if has_item else [],
        key="order_id" if has_key else None,
        lane=by.partition_key if has_lanes else None,
    )(price)


def priced(order: dict[str, Any]) -> dict[str, Any]:
    """The item of an order, in all scenarios that write one."""
    return {"order_id": order["order_id"], "cents": sum(line["cents"] for line in order["lines"])}


def _store(*, batched: bool) -> Any:
    from pipeline import stores

    return stores.DynamoDB(TABLE, batched=batched)


#: Of `Claim` and `Mark`: none of the keys that this process completed is remembered in it. A repeat mostly comes to
#: another process, and Powertools remembers none either unless it is told to.
NO_CACHE = 0


def claim(*, batched: bool = True, cache: int = NO_CACHE) -> Any:
    from pipeline import Claim

    return Claim(store=_store(batched=batched), ttl=TTL, cache=cache)


def mark() -> Any:
    from pipeline import Mark

    return Mark(store=_store(batched=True), ttl=TTL, cache=NO_CACHE)


def fused() -> Any:
    from pipeline import Fused

    return Fused(sink=LEDGER, cache=NO_CACHE)


def checkpoint() -> Any:
    from pipeline import Checkpoint

    return Checkpoint(store=_store(batched=True), ttl=TTL)


# --- Powertools


def powertools(ran: Ran, *, is_stream: bool = False, has_item: bool = False) -> Invoke:
    """`BatchProcessor` with `idempotent_function`, as its pages on both show them together."""
    import boto3
    from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
    from aws_lambda_powertools.utilities.idempotency import (
        DynamoDBPersistenceLayer,
        IdempotencyConfig,
        idempotent_function,
    )

    processor = BatchProcessor(event_type=EventType.KinesisDataStreams if is_stream else EventType.SQS)
    config = IdempotencyConfig(event_key_jmespath="order_id", expires_after_seconds=TTL)
    table = boto3.resource("dynamodb").Table(LEDGER) if has_item else None

    @idempotent_function(
        data_keyword_argument="order", config=config, persistence_store=DynamoDBPersistenceLayer(table_name=TABLE)
    )
    def price(order: dict[str, Any]) -> None:
        ran()
        if table:
            table.put_item(Item=priced(order))

    def on_record(record: Any) -> None:
        price(order=record.kinesis.data_as_json() if is_stream else record.json_body)

    def invoke(event: Any, context: Any) -> Any:
        config.register_lambda_context(context)
        return process_partial_response(event=event, record_handler=on_record, processor=processor, context=context)

    return invoke


# --- FastSQS


def fastsqs(ran: Ran, *, in_memory: bool = False) -> Invoke:
    """Its middleware, with its own store in memory, or with one of DynamoDB such as its guide has readers write."""
    from fastsqs import FastSQS, IdempotencyMiddleware, InMemoryIdempotencyStore, SQSEvent

    app = FastSQS()
    store = InMemoryIdempotencyStore() if in_memory else _FastSQSStore()
    app.add_middleware(IdempotencyMiddleware(store, key_path="order_id", completed_ttl_seconds=TTL))

    class OrderPlaced(SQSEvent):
        order_id: str

    @app.route(OrderPlaced)
    async def price(msg: OrderPlaced) -> None:  # it hands the message over by this name
        ran()

    return app.handler


def with_type(event: dict[str, Any]) -> dict[str, Any]:
    """An event whose bodies name their type, by which FastSQS routes."""
    return {
        "Records": [
            {**record, "body": json.dumps({"type": "order_placed", **json.loads(record["body"])})}
            for record in event["Records"]
        ]
    }


class _FastSQSStore:
    """Three methods by FastSQS's protocol: a conditional put, a plain put, a delete, each in a thread."""

    def __init__(self) -> None:
        import boto3

        self._table = boto3.resource("dynamodb").Table(FASTSQS_TABLE)

    async def try_acquire(self, key: str, ttl_seconds: int) -> Any:
        from botocore.exceptions import ClientError
        from fastsqs import AcquireResult

        now = int(time.time())
        put = partial(
            self._table.put_item,
            Item=self._item(key, "in_progress", now + ttl_seconds),
            ConditionExpression="attribute_not_exists(pk) OR expires_at < :now",
            ExpressionAttributeValues={":now": now},
        )
        try:
            await asyncio.to_thread(put)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
        else:
            return AcquireResult.ACQUIRED
        answer = await asyncio.to_thread(self._table.get_item, Key={"pk": key})
        is_complete = answer.get("Item", {}).get("state") == "completed"
        return AcquireResult.COMPLETED if is_complete else AcquireResult.IN_PROGRESS

    async def mark_complete(self, key: str, ttl_seconds: int) -> None:
        item = self._item(key, "completed", int(time.time()) + ttl_seconds)
        await asyncio.to_thread(self._table.put_item, Item=item)

    async def forget(self, key: str) -> None:
        await asyncio.to_thread(self._table.delete_item, Key={"pk": key})

    def _item(self, key: str, state: str, expires_at: int) -> dict[str, Any]:
        return {"pk": key, "state": state, "expires_at": expires_at}


# --- by hand


def sequential_calls(ran: Ran) -> Invoke:
    """boto3, one record after the other: a conditional PutItem, the work, an UpdateItem."""
    import boto3
    from botocore.exceptions import ClientError

    dynamodb = boto3.client("dynamodb")

    def claimed(key: str, now: int) -> bool:
        item = {"id": {"S": key}, "status": {"S": "INPROGRESS"}, "expiration": {"N": str(now + TTL)}}
        try:
            dynamodb.put_item(
                TableName=TABLE,
                Item=item,
                ConditionExpression="attribute_not_exists(id) OR expiration < :now",
                ExpressionAttributeValues={":now": {"N": str(now)}},
            )
        except ClientError as error:
            if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                raise
            return False
        return True

    def invoke(event: Any, context: Any) -> Any:
        for record in event["Records"]:
            key, now = str(json.loads(record["body"])["order_id"]), int(time.time())
            if claimed(key, now):
                ran()
                dynamodb.update_item(
                    TableName=TABLE,
                    Key={"id": {"S": key}},
                    UpdateExpression="SET #status = :done",
                    ExpressionAttributeNames={"#status": "status"},
                    ExpressionAttributeValues={":done": {"S": "COMPLETED"}},
                )
        return {"batchItemFailures": []}

    return invoke


def batched_calls(ran: Ran) -> Invoke:
    """aiobotocore: BatchExecuteStatement with 25 INSERTs a call, side by side, then with 25 UPDATEs a call."""
    from aiobotocore.session import AioSession

    loop = asyncio.new_event_loop()
    dynamodb = loop.run_until_complete(AioSession().create_client("dynamodb").__aenter__())
    insert = f"INSERT INTO \"{TABLE}\" VALUE {{'id': ?, 'status': ?, 'owner': ?, 'expiration': ?}}"
    complete = f'UPDATE "{TABLE}" SET "status" = ? WHERE "id" = ? AND "owner" = ?'

    async def execute(statements: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        calls = [
            dynamodb.batch_execute_statement(Statements=statements[start : start + 25])
            for start in range(0, len(statements), 25)
        ]
        return [one for answer in await asyncio.gather(*calls) for one in answer["Responses"]]

    async def every(records: list[Any]) -> None:
        owner = {"S": str(uuid.uuid4())}
        expiration = {"N": str(int(time.time()) + TTL)}
        keys = [{"S": str(json.loads(record["body"])["order_id"])} for record in records]
        inserts = [{"Statement": insert, "Parameters": [key, {"S": "INPROGRESS"}, owner, expiration]} for key in keys]
        answers = await execute(inserts)
        mine = [key for key, answer in zip(keys, answers, strict=True) if "Error" not in answer]
        for _ in mine:
            ran()
        await execute([{"Statement": complete, "Parameters": [{"S": "COMPLETED"}, key, owner]} for key in mine])
        taken = [key for key, answer in zip(keys, answers, strict=True) if "Error" in answer]
        looks = [
            dynamodb.batch_get_item(
                RequestItems={
                    TABLE: {"Keys": [{"id": key} for key in taken[start : start + 100]], "ConsistentRead": True}
                }
            )
            for start in range(0, len(taken), 100)
        ]
        for answer in await asyncio.gather(*looks):
            assert all(item["status"] == {"S": "COMPLETED"} for item in answer["Responses"][TABLE])

    def invoke(event: Any, context: Any) -> Any:
        loop.run_until_complete(every(event["Records"]))
        return {"batchItemFailures": []}

    return invoke


POWERTOOLS = "Powertools sync"
SQS, ITEM, KINESIS = "SQS", "SQS, an item for each record", "Kinesis"

#: Scenario -> name in the tables -> what makes it.
CASES: dict[str, dict[str, Case]] = {
    SQS: {
        POWERTOOLS: Case(powertools),
        "FastSQS, a store of DynamoDB": Case(fastsqs, needs_fastsqs=True),
        "FastSQS, its store in memory": Case(partial(fastsqs, in_memory=True), needs_fastsqs=True),
        "by hand: boto3, in sequence": Case(sequential_calls),
        "by hand: aiobotocore, batched": Case(batched_calls),
        "ours, Claim, single writes": Case(partial(ours, mode=partial(claim, batched=False))),
        "ours, Claim": Case(partial(ours, mode=claim)),
        "ours, Claim, keys cached": Case(partial(ours, mode=partial(claim, cache=1_000))),
        "ours, Mark": Case(partial(ours, mode=mark)),
    },
    ITEM: {
        POWERTOOLS: Case(partial(powertools, has_item=True)),
        "ours, Claim": Case(partial(ours, mode=claim, has_item=True)),
        "ours, Mark": Case(partial(ours, mode=mark, has_item=True)),
        "ours, Fused": Case(partial(ours, mode=fused, has_item=True)),
    },
    KINESIS: {
        POWERTOOLS: Case(partial(powertools, is_stream=True)),
        "ours, Claim": Case(partial(ours, mode=claim, is_stream=True)),
        "ours, Mark": Case(partial(ours, mode=mark, is_stream=True)),
        "ours, Checkpoint": Case(partial(ours, mode=checkpoint, is_stream=True, has_key=False)),
        "ours, Checkpoint, a lane for each record": Case(
            partial(ours, mode=checkpoint, is_stream=True, has_key=False, has_lanes=True)
        ),
    },
}
