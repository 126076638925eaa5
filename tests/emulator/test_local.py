"""The local run with real handlers, and with runtimes of the tests' own where a mapping's behaviour is at stake."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import Backoff, ConfigurationError, Function, Pipeline, Reject, sinks, sources
from pipeline.emulator import embedded
from pipeline.emulator.local import Local
from pipeline.emulator.run import DrainTimeout
from pipeline.testing import local


class Answering:
    """A runtime that answers with what a function says of the event."""

    def __init__(self, answer: Callable[[dict[str, Any], Any], Any]) -> None:
        self.invoke = answer

    def close(self) -> None:
        pass


def ids(event: dict[str, Any]) -> list[str]:
    return [record["messageId"] for record in event["Records"]]


def one_queue(**options: Any) -> Pipeline:
    shop = Pipeline("shop")
    deploy = options.pop("deploy", Function(timeout=5))

    @shop.handler(sources.SQS("orders", **options), deploy=deploy)
    def price(order: dict[str, Any]) -> None: ...

    return shop


async def test_records_that_succeed_fail_and_are_rejected_each_come_to_their_end_without_waiting() -> None:
    shop = Pipeline("shop")
    runs: dict[str, int] = {}

    @shop.handler(
        sources.SQS("orders", batch_size=20, batching_window=60),
        sinks=[sinks.DynamoDB("ledger", partition_key="id"), sinks.SQS("parcels")],
        key="id",
        retry=Backoff(attempts=3, base=100),
    )
    async def price(order: dict[str, Any]) -> dict[str, Any]:
        runs[order["id"]] = runs.get(order["id"], 0) + 1
        if order["kind"] == "bad":
            raise Reject("bad")
        if order["kind"] == "poison" or (order["kind"] == "flaky" and runs[order["id"]] == 1):
            raise RuntimeError(order["kind"])
        return {"id": order["id"]}

    kinds = ["good"] * 20 + ["flaky"] * 3 + ["bad"] * 2 + ["poison"]
    orders = [{"id": str(n), "kind": kind} for n, kind in enumerate(kinds)]
    async with local(shop) as env:
        await env.send("orders", [*orders, orders[0], "not json"])
        report = await env.drain()
        found = report["price"]
        assert (found.succeeded, found.duplicates, found.rejected, found.exhausted) == (23, 1, 3, 1)
        assert found.records == 28 == report.records
        assert found.dead_lettered == 4
        assert found.outputs == {"ledger": 23, "parcels": 23}
        ledger = await env.client("dynamodb").scan(TableName="ledger", Select="COUNT")
        assert ledger["Count"] == 23
        letters = await env.dead_letters("orders")
        bodies = {letter.body for letter in letters}
        assert len(letters) == 4
        assert {'{"id":"25","kind":"poison"}', "not json"} < bodies
    assert runs["25"] == 3


async def test_a_poisoned_head_of_a_group_is_the_only_dead_letter_and_its_followers_keep_their_order() -> None:
    shop = Pipeline("shop")
    done: list[int] = []
    runs: list[int] = []

    @shop.handler(sources.SQS("tasks.fifo"))  # attempts and maxReceiveCount as they are deployed
    async def work(task: dict[str, int]) -> None:
        if task["n"] == 0:
            runs.append(0)
            raise RuntimeError("poison")
        done.append(task["n"])

    async with local(shop) as env:
        await env.send("tasks.fifo", [{"n": n} for n in range(10)], key="g")
        report = await env.drain()
        assert done == list(range(1, 10))
        assert len(runs) == 5
        assert (report.succeeded, report.exhausted, report.dead_lettered) == (9, 1, 1)
        (letter,) = await env.dead_letters("tasks.fifo")
        assert (letter.payload, letter.group) == ({"n": 0}, "g")


async def test_draining_follows_records_from_one_handler_into_the_next() -> None:
    shop = Pipeline("shop")
    arrived: list[int] = []

    @shop.handler(sources.SQS("first"), sinks=[sinks.SQS("second")])
    def forward(item: dict[str, int]) -> dict[str, int]:
        return item

    @shop.handler(sources.SQS("second"))
    def collect(item: dict[str, int]) -> None:
        arrived.append(item["n"])

    async with local(shop) as env:
        await env.send("first", [{"n": n} for n in range(15)])
        report = await env.drain()
    assert sorted(arrived) == list(range(15))
    assert (report["forward"].succeeded, report["collect"].succeeded, report.records) == (15, 15, 30)


@pytest.mark.parametrize("seed", [1, 2])
async def test_faults_by_a_seed_lose_nothing_and_finish_nothing_twice(seed: int) -> None:
    shop = Pipeline("shop")
    runs: list[int] = []

    @shop.handler(sources.SQS("orders", batch_size=5), key="n")
    async def price(order: dict[str, int]) -> None:
        runs.append(order["n"])

    async with local(shop, faults=seed) as env:
        await env.send("orders", [{"n": n} for n in range(60)])
        report = await env.drain()
    assert set(runs) == set(range(60))
    # A run that was killed before its completion is run again; one that was killed after it is a duplicate.
    assert (report.records, report.succeeded + report.duplicates) == (60, 60)
    assert report.deliveries > 60


async def test_with_faults_draining_waits_for_the_claims_of_runs_that_were_killed() -> None:
    assert (Local(one_queue()).drain_seconds, Local(one_queue(), faults=1).drain_seconds) == (30, 300)
    goes_on = threading.Event()
    async with local(one_queue(), runtime=lambda *_: Answering(lambda *_: goes_on.wait(5))) as env:
        await env.send("orders", [{}])
        env.drain_seconds = 0.05
        with pytest.raises(DrainTimeout, match=r"not drained after 0\.05 s"):
            await env.drain()
        goes_on.set()
        await env.drain(timeout=None)


async def test_a_batch_beyond_ten_is_collected_from_several_receives_within_its_window() -> None:
    sizes: list[int] = []

    def answer(event: dict[str, Any], _: Any) -> None:
        sizes.append(len(event["Records"]))

    shop = one_queue(batch_size=25, batching_window=300)
    async with local(shop, runtime=lambda *_: Answering(answer)) as env:
        await env.send("orders", [{"n": n} for n in range(60)])
        report = await env.drain()
    assert sorted(sizes) == [10, 25, 25]
    assert report.succeeded == 60


async def test_a_failing_message_moves_to_the_dead_letter_queue_by_the_queues_own_redrive() -> None:
    def answer(event: dict[str, Any], _: Any) -> Any:
        bad = [record["messageId"] for record in event["Records"] if record["body"] == "bad"]
        return {"batchItemFailures": [{"itemIdentifier": name} for name in bad]}

    async with local(one_queue(max_receive_count=3), runtime=lambda *_: Answering(answer)) as env:
        await env.send("orders", ["good", "bad"])
        report = await env.drain()
        assert (report.succeeded, report.exhausted, report.deliveries, report.dead_lettered) == (1, 1, 4, 1)
        assert [letter.body for letter in await env.dead_letters("orders")] == ["bad"]


async def test_a_response_that_names_a_stranger_brings_the_whole_batch_back() -> None:
    answers: list[Any] = [{"batchItemFailures": [{"itemIdentifier": "stranger"}]}]

    def answer(event: dict[str, Any], _: Any) -> Any:
        return answers.pop() if answers else None

    async with local(one_queue(), runtime=lambda *_: Answering(answer)) as env:
        await env.send("orders", ["a", "b"])
        report = await env.drain()
    assert (report.succeeded, report.deliveries, report["price"].failed_invocations) == (2, 4, 1)


async def test_an_environment_whose_invocation_timed_out_is_not_used_again() -> None:
    blocked = threading.Event()
    made: list[Answering] = []

    def make(*_: Any) -> Answering:
        first = not made
        made.append(Answering(lambda event, context: blocked.wait() if first else None))
        return made[-1]

    async with local(one_queue(deploy=Function(timeout=1)), runtime=make) as env:
        await env.send("orders", ["a"])
        report = await env.drain()
        blocked.set()
    assert (report.succeeded, report.deliveries, report["price"].failed_invocations, len(made)) == (1, 2, 1, 2)


async def test_the_context_counts_down_from_the_functions_timeout() -> None:
    seen: list[Any] = []

    def answer(event: dict[str, Any], context: Any) -> None:
        seen.append((context.get_remaining_time_in_millis(), context.memory_limit_in_mb, context.aws_request_id))

    shop = one_queue(deploy=Function(timeout=9, memory=256))
    async with local(shop, runtime=lambda *_: Answering(answer)) as env:
        await env.send("orders", ["a"])
        await env.drain()
    ((remaining, memory, request_id),) = seen
    assert 8_000 < remaining <= 9_000
    assert memory == "256"  # a text, as Lambda has it
    assert request_id


async def test_a_runtime_that_cannot_start_fails_its_batch_and_the_next_one_is_tried() -> None:
    failures = [RuntimeError("no start")]

    def make(*_: Any) -> Answering:
        if failures:
            raise failures.pop()
        return Answering(lambda event, context: None)

    async with local(one_queue(), runtime=make) as env:
        await env.send("orders", ["a"])
        report = await env.drain()
    assert (report.succeeded, report["price"].failed_invocations) == (1, 1)


async def test_a_drain_that_takes_too_long_says_what_is_left() -> None:
    began, release = threading.Event(), threading.Event()

    def answer(event: dict[str, Any], _: Any) -> None:
        began.set()
        release.wait(30)

    async with local(one_queue(), runtime=lambda *_: Answering(answer)) as env:
        await env.send("orders", ["a"])
        assert await asyncio.to_thread(began.wait, 20)
        with pytest.raises(DrainTimeout, match=r"'orders' holds .*1 invocations running"):
            await env.drain(timeout=0.1)
        release.set()


async def test_with_an_endpoint_of_its_own_nothing_is_reset_and_what_is_there_is_used_again() -> None:
    server = embedded.lease()
    try:
        for expected in (1, 2):
            shop = Pipeline("shop")

            @shop.handler(sources.SQS("orders"), sinks=[sinks.DynamoDB("ledger", partition_key="n")], key="n")
            def price(order: dict[str, Any]) -> dict[str, Any]:
                return order

            async with local(shop, endpoint_url=server.endpoint_url) as env:
                await env.send("orders", [{"n": str(expected)}, {"n": "same"}])
                report = await env.drain()
                ledger = await env.client("dynamodb").scan(TableName="ledger", Select="COUNT")
                assert ledger["Count"] == expected + 1
                assert (report.records, report.duplicates) == (2, expected - 1)
    finally:
        embedded.give_back(server)


async def test_dead_letters_of_an_endpoint_of_its_own_are_read_and_stay() -> None:
    server = embedded.lease()
    try:
        shop = Pipeline("shop")

        @shop.handler(sources.SQS("orders"))
        def price(order: dict[str, Any]) -> None:
            raise Reject("no")

        async with local(shop, endpoint_url=server.endpoint_url) as env:
            await env.send("orders", [{"n": n} for n in range(12)])
            assert (await env.drain()).rejected == 12
            for _ in range(2):
                letters = await env.dead_letters("orders")
                assert sorted(letter.payload["n"] for letter in letters) == list(range(12))
                assert all("Reject: no" in letter.attributes["pipeline_cause"] for letter in letters)
    finally:
        embedded.give_back(server)


async def test_an_endpoint_of_aws_itself_is_refused_before_anything_is_called() -> None:
    with pytest.raises(ConfigurationError, match="never to AWS"):
        async with local(one_queue(), endpoint_url="https://sqs.us-east-1.amazonaws.com"):
            raise AssertionError


async def test_a_second_run_in_the_same_process_is_refused_while_the_first_lasts() -> None:
    async with local(one_queue()):
        with pytest.raises(ConfigurationError, match="one at a time"):
            async with local(one_queue()):
                raise AssertionError
    async with local(one_queue()) as env:
        assert (await env.drain()).records == 0


async def test_sending_to_a_source_that_is_not_there_names_those_that_are() -> None:
    async with local(one_queue()) as env:
        with pytest.raises(ConfigurationError, match="no source 'odrers': orders"):
            await env.send("odrers", ["a"])


async def test_handlers_of_one_name_in_two_pipelines_are_told_apart_in_the_report() -> None:
    def declare(name: str) -> Pipeline:
        made = Pipeline(name)

        @made.handler(sources.SQS(f"{name}-orders"))
        def price(order: str) -> None: ...

        return made

    async with Local([declare("a"), declare("b")], skip_idle=True) as env:
        await env.send("b-orders", ["x"])
        report = await env.drain()
    assert (report["a.price"].records, report["b.price"].records) == (0, 1)
