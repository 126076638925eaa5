"""Services that fail, through the Lambda entry point and a proxy: nothing is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from typing import Any

import pytest

from pipeline import Backoff, Claim, Emit, Handler, Pipeline, Retry, sinks, sources, stores
from tests.flow.events import Invocation, Queues, event, failed, log_lines, make, message, orders
from tests.flow.proxy import (
    Answer,
    Proxy,
    Request,
    answer_late,
    lose_the_reply,
    lose_the_request,
    throttle,
    throttle_each_entry,
)

Keep = Callable[[Handler[..., Any]], Handler[..., Any]]
Order = dict[str, Any]


class Shop:
    """A handler that writes to a queue, with claims in memory unless `store` says otherwise."""

    def __init__(self, name: str, *, in_memory: bool = True, lease: float = 60.0, **options: Any) -> None:
        self.name = name
        self.memory = stores.Memory()
        claim = Claim(store=self.memory, lease=lease) if in_memory else Claim(lease=lease)
        self.ran: list[str] = []
        self.loops: list[asyncio.AbstractEventLoop] = []

        async def price(order: Order) -> Emit[Order]:
            self.ran.append(order["order_id"])
            self.loops.append(asyncio.get_running_loop())
            if order["order_id"].startswith("bad"):
                raise ValueError("no")
            return Emit(order)

        declare = Pipeline(name, idempotency=claim).handler(
            sources.SQS(name), sinks=[sinks.SQS(f"{name}-out")], key="order_id", **options
        )
        self.handler = declare(price)

    def __call__(self, given: Any, seconds: float = 30.0) -> list[str]:
        return failed(self.handler(given, Invocation(seconds)))

    def written(self, queues: Queues) -> list[str]:
        return sorted(json.loads(body)["order_id"] for body in queues.bodies(f"{self.name}-out"))


def reasons(out: str) -> dict[str, str]:
    return {line["record_id"]: line["reason"] for line in log_lines(out, "record.failed")}


# Sinks


def test_a_sink_whose_queue_is_missing_fails_the_record_and_its_output_goes_out_once_the_queue_is_there(
    aws: str, unique: str, queues: Queues, closing: Keep, boto: Callable[[str], Any], capsys: Any
) -> None:
    shop = Shop(unique)
    closing(shop.handler)

    first = shop(orders("a", "b"))
    says = reasons(capsys.readouterr().out)
    boto("sqs").create_queue(QueueName=f"{unique}-out")
    again = shop(orders("a", "b"))

    assert first == ["m0", "m1"]
    assert all(f"queue '{unique}-out'" in reason and "NonExistentQueue" in reason for reason in says.values()), says
    assert again == []
    assert sorted(shop.ran) == ["a", "b"], "the outputs were kept: the handler did not run again"
    assert shop.written(queues) == ["a", "b"]


@pytest.mark.parametrize("act", [throttle, throttle_each_entry, lose_the_request])
def test_a_sink_that_is_throttled_or_cut_off_for_a_while_gets_everything_within_the_same_invocation(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep, act: Any
) -> None:
    shop = Shop(unique)
    make(closing(shop.handler))
    proxy.next("SendMessageBatch", act, act)

    assert shop(orders("a", "b", "c")) == []

    assert len(proxy.calls("SendMessageBatch")) == 3
    assert sorted(shop.ran) == ["a", "b", "c"]
    assert shop.written(queues) == ["a", "b", "c"]


def test_a_sink_that_stays_throttled_hands_the_records_back_without_an_attempt_and_the_outputs_are_kept(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep, capsys: Any
) -> None:
    shop = Shop(unique, retry=Backoff(attempts=1))
    make(closing(shop.handler))
    proxy.next("SendMessageBatch", *[throttle_each_entry] * 5)

    first = shop(orders("a", "b"))
    says = reasons(capsys.readouterr().out)
    again = shop(orders("a", "b"))

    assert first == ["m0", "m1"], "one attempt is all they have, and an outage is none"
    assert set(says.values()) == {"SQS: ThrottlingException: Rate exceeded"}
    assert again == []
    assert sorted(shop.ran) == ["a", "b"]
    assert shop.written(queues) == ["a", "b"]


def test_a_sink_that_refuses_one_entry_of_a_call_fails_only_the_record_that_caused_it(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep, capsys: Any
) -> None:
    shop = Shop(unique)
    make(closing(shop.handler))

    def refuse_b(request: Request, forward: Callable[[], Answer]) -> Answer:
        answer = json.loads(forward().body)
        (bad,) = [entry["Id"] for entry in request.body["Entries"] if '"b"' in entry["MessageBody"]]
        answer["Successful"] = [sent for sent in answer["Successful"] if sent["Id"] != bad]
        answer["Failed"] = [{"Id": bad, "SenderFault": True, "Code": "InvalidMessageContents", "Message": "not this"}]
        return Answer(200, json.dumps(answer).encode())

    proxy.next("SendMessageBatch", refuse_b)
    response = shop(orders("a", "b", "c"))

    assert response == ["m1"]
    assert reasons(capsys.readouterr().out) == {"m1": "SQS: InvalidMessageContents: not this"}
    assert len(proxy.calls("SendMessageBatch")) == 1, "what will never do is not sent again at once"
    assert shop(orders("a", "b", "c")) == []
    assert sorted(shop.ran) == ["a", "b", "c"]


def test_a_sink_answer_that_names_an_entry_nowhere_counts_as_not_accepted(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep
) -> None:
    shop = Shop(unique)
    make(closing(shop.handler))

    def say_nothing(request: Request, forward: Callable[[], Answer]) -> Answer:
        return Answer(200, b"{}")

    proxy.next("SendMessageBatch", say_nothing)

    assert shop(orders("a")) == []
    assert len(proxy.calls("SendMessageBatch")) == 2
    assert shop.written(queues) == ["a"]


def test_a_dead_letter_queue_that_is_missing_makes_a_rejected_record_come_back(
    aws: str, unique: str, closing: Keep, boto: Callable[[str], Any], queues: Queues, capsys: Any
) -> None:
    shop = Shop(unique)
    closing(shop.handler)
    boto("sqs").create_queue(QueueName=f"{unique}-out")
    given = event(message("bad", "not json"), message("m1", {"order_id": "b"}))

    first = shop(given)
    says = reasons(capsys.readouterr().out)
    boto("sqs").create_queue(QueueName=f"{unique}-dlq")
    again = shop(given)

    assert first == ["bad"]
    assert f"queue '{unique}-dlq'" in says["bad"]
    assert again == []
    assert queues.bodies(f"{unique}-dlq") == ["not json"]


# The store


def test_a_store_that_refuses_connections_hands_the_records_back_and_nothing_runs(
    aws: str, unique: str, queues: Queues, closing: Keep, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    shop = Shop(unique, in_memory=False)
    make(shop.handler)
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1")

    first = shop(orders("a", "b"), seconds=10)
    (batch,) = log_lines(capsys.readouterr().out, "batch.finished")
    shop.handler.close()
    monkeypatch.delenv("AWS_ENDPOINT_URL_DYNAMODB")
    closing(shop.handler)

    assert first == ["m0", "m1"]
    assert batch["unprocessed"] == 2
    assert shop.ran == []
    assert shop(orders("a", "b")) == []
    assert shop.written(queues) == ["a", "b"]


def test_a_store_that_loses_every_request_hands_the_records_back_and_the_reason_is_logged(
    proxy: Proxy, unique: str, closing: Keep, capsys: Any
) -> None:
    shop = Shop(unique, in_memory=False)
    make(closing(shop.handler))
    proxy.next("PutItem", *[lose_the_request] * 3)

    response = shop(orders("a"))

    (line,) = log_lines(capsys.readouterr().out, "store.failed")
    assert response == ["m0"]
    assert shop.ran == []
    assert (line["level"], line["records"], line["error"]) == ("WARNING", 1, "StoreUnavailable")
    assert line["reason"].startswith(f"idempotency table '{unique}-idempotency': ConnectionClosedError")
    assert shop(orders("a")) == []


def test_a_store_that_answers_after_the_deadline_hands_the_record_back_in_time_and_its_claim_lapses(
    proxy: Proxy, unique: str, closing: Keep
) -> None:
    shop = Shop(unique, in_memory=False, lease=1)
    make(closing(shop.handler))
    go_on = threading.Event()
    proxy.next("PutItem", answer_late(20, until=go_on))

    invocation = Invocation(1.5)
    first = failed(shop.handler(orders("a"), invocation))
    took = invocation.took
    go_on.set()
    ran_meanwhile = list(shop.ran)
    threading.Event().wait(1.1)  # the lease, which nobody knows to hold
    again = shop(orders("a"))

    assert first == ["m0"]
    assert took < 1.5
    assert ran_meanwhile == [], "an answer that did not come is no claim"
    assert again == []
    assert shop.ran == ["a"]


def test_a_store_that_is_a_little_slow_changes_nothing(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep
) -> None:
    shop = Shop(unique, in_memory=False)
    make(closing(shop.handler))
    proxy.next("PutItem", answer_late(0.3))
    proxy.next("UpdateItem", answer_late(0.3))

    assert shop(orders("a", "b")) == []
    assert shop.written(queues) == ["a", "b"]


def test_a_claim_whose_reply_is_lost_is_ours_and_the_handler_runs_once(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep
) -> None:
    shop = Shop(unique, in_memory=False)
    make(closing(shop.handler))
    proxy.next("PutItem", lose_the_reply)
    proxy.next("UpdateItem", lose_the_reply)
    before = len(proxy.calls("UpdateItem"))

    first = shop(orders("a"))
    again = shop(orders("a"))
    asked = len(proxy.calls("PutItem"))
    shop.handler.close()
    anew = shop(orders("a"))

    assert (first, again, anew) == ([], [], [])
    assert shop.ran == ["a"]
    assert shop.written(queues) == ["a"]
    assert asked == 2, "asked, and asked again; the second delivery is known in this environment"
    assert len(proxy.calls("PutItem")) == asked + 1, "a new environment asks"
    assert len(proxy.calls("UpdateItem")) - before == 2


def test_a_release_whose_reply_is_lost_lets_the_record_run_again(proxy: Proxy, unique: str, closing: Keep) -> None:
    shop = Shop(unique, in_memory=False)
    make(closing(shop.handler))
    proxy.next("UpdateItem", lose_the_reply)

    assert shop(orders("bad")) == ["m0"]
    assert shop(orders("bad")) == ["m0"]
    assert shop.ran == ["bad", "bad"]


def test_a_store_that_fails_at_the_end_lets_the_record_succeed_and_says_so(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep, capsys: Any
) -> None:
    shop = Shop(unique, in_memory=False)
    make(closing(shop.handler))
    proxy.next("UpdateItem", *[lose_the_request] * 3)

    assert shop(orders("a")) == []
    (line,) = log_lines(capsys.readouterr().out, "completion.lost")
    assert (line["record_id"], line["error"]) == ("m0", "StoreUnavailable")
    assert shop.written(queues) == ["a"]


# Connections


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_connections_that_ended_between_two_invocations_lose_and_double_nothing(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep, how: str
) -> None:
    shop = Shop(unique, in_memory=False)
    make(closing(shop.handler))
    shop(orders("a"))
    if how == "closed":
        proxy.close_connections()
    else:
        assert proxy.make_connections_stale() >= 1

    assert shop(orders("b", "c")) == []
    assert shop(orders("a", "b", "c")) == []

    assert sorted(shop.ran) == ["a", "b", "c"]
    assert shop.written(queues) == ["a", "b", "c"]
    assert len(set(shop.loops)) == 1


def test_more_forgotten_connections_than_tries_hand_a_record_back_at_worst(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep
) -> None:
    shop = Shop(unique, in_memory=False)
    make(closing(shop.handler))
    names = [f"n{number}" for number in range(4)]
    shop(orders(*names))
    proxy.make_connections_stale()

    first = shop(orders("a"))
    again = shop(orders("a"))

    assert first in ([], ["m0"])
    assert again == []
    assert sorted(shop.ran) == sorted([*names, "a"])
    assert shop.written(queues) == sorted([*names, "a"])


def test_loop_clients_and_connections_live_from_one_invocation_to_the_next(
    proxy: Proxy, unique: str, closing: Keep
) -> None:
    shop = Shop(unique, in_memory=False)
    make(closing(shop.handler))
    shop(orders("a"))
    opened, asked = proxy.connections, len(proxy.calls("GetQueueUrl"))

    for name in ("b", "c", "d"):
        assert shop(orders(name)) == []

    assert proxy.connections == opened
    assert len(set(shop.loops)) == 1
    assert len(proxy.calls("GetQueueUrl")) == asked, "a queue's URL is asked once"


# Visibility


def delivered(shop: Shop, queues: Queues, *names: str) -> dict[str, Any]:
    queues.send(shop.name, *({"order_id": name} for name in names))
    found: dict[str, Any] = {"Records": []}
    while len(found["Records"]) < len(names):
        found["Records"] += queues.receive(shop.name)["Records"]
    return found


def test_failed_records_become_visible_again_after_their_delay_by_one_call_for_ten(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep
) -> None:
    shop = Shop(unique, retry=Backoff(attempts=9, base=100, cap=100))
    make(closing(shop.handler))
    given = delivered(shop, queues, "a", *(f"bad{number}" for number in range(10)))

    response = shop(given)

    bad = {record["receiptHandle"]: record["messageId"] for record in given["Records"] if "bad" in record["body"]}
    (call,) = proxy.calls("ChangeMessageVisibilityBatch")
    assert sorted(response) == sorted(bad.values())
    assert {entry["ReceiptHandle"] for entry in call["Entries"]} == set(bad)
    delays = [entry["VisibilityTimeout"] for entry in call["Entries"]]
    assert all(isinstance(delay, int) and 0 <= delay <= 100 for delay in delays)
    assert len(set(delays)) > 1, "jittered"


def test_a_delay_that_is_set_is_what_sqs_keeps(
    aws: str, unique: str, queues: Queues, closing: Keep, boto: Callable[[str], Any]
) -> None:
    pipeline = Pipeline(unique, idempotency=Claim(store=stores.Memory()))

    @pipeline.handler(sources.SQS(unique))
    async def price(order: Order) -> None:
        raise Retry(after=order["after"])

    make(closing(price))
    queues.send(unique, {"after": 0}, {"after": 600})
    given = queues.receive(unique)
    response = price(given, Invocation())

    assert sorted(failed(response)) == sorted(record["messageId"] for record in given["Records"])
    (found,) = queues.receive(unique)["Records"]
    assert found["body"] == '{"after": 0}', "the other one is out of sight for ten minutes"


def test_without_retry_no_visibility_is_changed(proxy: Proxy, unique: str, queues: Queues, closing: Keep) -> None:
    shop = Shop(unique, retry=None)
    make(closing(shop.handler))
    given = delivered(shop, queues, "a", "bad")

    assert len(shop(given)) == 1
    assert proxy.calls("ChangeMessageVisibilityBatch") == []


def test_a_visibility_that_cannot_be_set_leaves_the_answer_as_it_is(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep
) -> None:
    shop = Shop(unique)
    make(closing(shop.handler))
    given = delivered(shop, queues, "a", "bad")
    proxy.next("ChangeMessageVisibilityBatch", *[lose_the_request] * 3)

    assert len(shop(given)) == 1
    assert shop.written(queues) == ["a"]


def test_a_visibility_call_that_hangs_does_not_hold_the_answer_up(
    proxy: Proxy, unique: str, queues: Queues, closing: Keep
) -> None:
    shop = Shop(unique)
    make(closing(shop.handler))
    shop(orders("warm"))
    given = delivered(shop, queues, "a", "bad")
    go_on = threading.Event()
    proxy.next("ChangeMessageVisibilityBatch", answer_late(20, until=go_on))

    invocation = Invocation(1.5)
    response = failed(shop.handler(given, invocation))
    took = invocation.took
    go_on.set()

    assert len(response) == 1
    assert took < 1.5
    assert shop.written(queues) == ["a", "warm"]
    assert shop(orders("next")) == []
