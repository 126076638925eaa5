"""Virtual time: what lets the clock go on, and what does not, however slow this machine is."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import boto3
import pytest

from pipeline import Pipeline, sinks, sources
from pipeline.emulator.mappings.answers import FunctionFailed
from pipeline.emulator.virtual import EPOCH, VirtualClock, VirtualLoop, virtually, within
from pipeline.testing import Emulator, Faults


def work_for(seconds: float) -> None:
    """Keep a processor busy for so many real seconds."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_the_clock_stands_while_a_thread_works_for_less_than_its_invocation_may_take() -> None:
    seen: list[tuple[str, float]] = []

    def slow(event: Any, context: Any) -> None:
        seen.append(("slow begins", aws.now))
        work_for(1.2)
        seen.append(("slow ends", aws.now))

    def other(event: Any, context: Any) -> None:
        seen.append(("other", aws.now))

    with Emulator() as aws:
        orders, later = aws.queue("orders"), aws.queue("later")
        aws.map(orders, slow, timeout=30)
        aws.map(later, other, timeout=30)
        orders.send("a")
        later.send("b", delay=1)
        aws.run()
    assert [what for what, _ in seen] == ["slow begins", "slow ends", "other"]
    assert seen[0][1] == seen[1][1] == EPOCH


def test_a_seed_is_the_same_run_on_a_slow_machine() -> None:
    def run(seed: int, seconds: float) -> list[str]:
        def handler(event: Any, context: Any) -> dict[str, Any]:
            work_for(seconds)
            client = boto3.client(
                "dynamodb", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
            )
            failed = []
            for record in event["Records"]:
                try:
                    client.put_item(TableName="seen", Item={"id": {"S": record["messageId"]}})
                except Exception:
                    failed.append({"itemIdentifier": record["messageId"]})
            return {"batchItemFailures": failed}

        faults = Faults(seed)
        with Emulator(seed=seed, faults=faults) as aws:
            aws.table("seen")
            for name in ("orders", "returns"):
                queue = aws.queue(name, max_receive_count=5)
                aws.map(queue, handler, timeout=20, report_batch_item_failures=True, name=name)
                queue.send(*"abc")
            aws.run()
        return [str(line) for line in faults.lines]

    for seed in range(3):
        assert run(seed, 0.0) == run(seed, 0.12)


def test_an_async_handler_that_yields_without_end_reaches_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.emulator.virtual._Selector._patience", 1.0)  # real seconds; fifteen prove no more
    shop = Pipeline("shop", idempotency=None)

    @shop.handler(sources.SQS("orders", max_receive_count=1), sinks=[sinks.Memory()])
    async def price(order: dict[str, Any]) -> None:
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    with Emulator() as aws:
        aws.add(shop)
        aws.send("orders", [{"id": "a"}])
        aws.run()
        assert aws.now > EPOCH
        assert len(aws.queue("orders").dead_letters.bodies) == 1  # type: ignore[union-attr]


def test_a_thread_of_a_handlers_own_waits_for_a_slow_call_as_long_as_that_takes() -> None:
    def handler(event: Any, context: Any) -> None:
        client = boto3.client("sqs", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
        calls = [threading.Thread(target=client.list_queues) for _ in range(3)]
        for call in calls:
            call.start()
        for call in calls:
            call.join()

    began = time.monotonic()
    with Emulator(faults="slow") as aws:
        orders = aws.queue("orders", max_receive_count=2)
        mapping = aws.map(orders, handler, timeout=30)
        orders.send("a")
        aws.run()
    assert not isinstance(mapping.invocations[-1].answer, FunctionFailed)
    assert time.monotonic() - began < 30


def test_without_a_deadline_a_thread_has_until_the_next_timer() -> None:
    async def run() -> float:
        with VirtualLoop.thread_works(asyncio.get_running_loop()):  # type: ignore[arg-type]
            await VirtualClock().sleep(0.2)
        return asyncio.get_running_loop().time()

    began = time.monotonic()
    assert virtually(run()) == 0.2
    assert time.monotonic() - began >= 0.19


def test_a_thread_that_is_late_lets_every_timer_pass() -> None:
    loop: Any = None

    async def run() -> list[float]:
        nonlocal loop
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        for after in (0.05, 0.1, 0.15):
            loop.call_later(after, lambda: seen.append(round(loop.time(), 2)))
        with within(0.2), loop.thread_works():
            await VirtualClock().sleep(0.2)
        return seen

    began = time.monotonic()
    assert virtually(run()) == [0.05, 0.1, 0.15]
    assert 0.19 <= time.monotonic() - began < 5, "its own time once, and not once for each timer"


def test_timers_of_one_moment_come_in_the_order_in_which_they_were_set() -> None:
    async def run() -> list[int]:
        loop, seen = asyncio.get_running_loop(), list[int]()
        for number in range(50):
            loop.call_at(1.0 + number / 100, list[int]().clear).cancel()
            loop.call_at(2.0, seen.append, number)
        await VirtualClock().sleep(3)
        return seen

    assert virtually(run()) == list(range(50))
