import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest

from pipeline.emulator import embedded
from pipeline.emulator.embedded import EmbeddedServer


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    leased = embedded.lease()
    yield leased
    embedded.give_back(leased)


@pytest.fixture
def sqs(server: EmbeddedServer) -> Iterator[Any]:
    client = boto3.client(
        "sqs",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    yield client
    client.close()


def receive(sqs: Any, url: str, **options: Any) -> list[Any]:
    messages: list[Any] = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, **options).get("Messages", [])
    return messages


def test_moving_the_clock_ends_a_visibility_timeout(server: EmbeddedServer, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="orders", Attributes={"VisibilityTimeout": "600"})["QueueUrl"]
    assert server.next_visible(["orders"]) is None
    sqs.send_message(QueueUrl=url, MessageBody="x")
    assert len(receive(sqs, url)) == 1
    assert receive(sqs, url) == []
    seconds = server.next_visible(["orders"])
    assert seconds is not None
    assert 590 < seconds <= 600
    server.advance(seconds + 0.01)
    assert len(receive(sqs, url)) == 1


def test_moving_the_clock_ends_a_delay(server: EmbeddedServer, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x", DelaySeconds=300)
    assert receive(sqs, url) == []
    server.advance(301)
    assert len(receive(sqs, url)) == 1


def test_peeking_shows_messages_without_receiving_them(server: EmbeddedServer, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    attributes = {"cause": {"DataType": "String", "StringValue": "why"}}
    sqs.send_message(QueueUrl=url, MessageBody="x", MessageAttributes=attributes)
    (message,) = server.peek("orders")
    assert (message["body"], message["attributes"], message["receive_count"]) == ("x", {"cause": "why"}, 0)


def test_messages_of_a_fifo_queue_are_numbered_in_the_order_in_which_they_were_sent(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="tasks.fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
    told: list[str] = []
    for number in range(9):
        sent = sqs.send_message(
            QueueUrl=url, MessageBody=str(number), MessageGroupId="g", MessageDeduplicationId=str(number)
        )
        told.append(sent["SequenceNumber"])
    (sent,) = sqs.send_message_batch(
        QueueUrl=url,
        Entries=[{"Id": "a", "MessageBody": "9", "MessageGroupId": "g", "MessageDeduplicationId": "9"}],
    )["Successful"]
    told.append(sent["SequenceNumber"])
    found = receive(sqs, url, MessageSystemAttributeNames=["SequenceNumber"])

    assert told == sorted(set(told), key=int)
    assert {len(number) for number in told} == {20}
    assert [message["Attributes"]["SequenceNumber"] for message in found] == told


def test_receivers_side_by_side_get_each_message_once_and_no_send_is_lost(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="orders", Attributes={"VisibilityTimeout": "600"})["QueueUrl"]

    def send(start: int) -> None:
        entries = [{"Id": str(n), "MessageBody": str(start + n)} for n in range(10)]
        assert len(sqs.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10

    def take(_: int) -> list[str]:
        messages = receive(sqs, url, WaitTimeSeconds=2)
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return [message["Body"] for message in messages]

    with ThreadPoolExecutor(8) as threads:
        sending = [threads.submit(send, start) for start in range(0, 100, 10)]
        taking = [threads.submit(take, n) for n in range(14)]
        taken = [body for future in taking for body in future.result()]
        assert all(future.result() is None for future in sending)
    taken += [message["Body"] for _ in range(10) for message in receive(sqs, url)]
    assert sorted(taken, key=int) == [str(n) for n in range(100)]


def test_a_second_lease_uses_the_idle_server_again_and_finds_it_empty() -> None:
    first = embedded.lease()
    first.advance(1000)
    embedded.give_back(first)
    second = embedded.lease()
    assert second.pid == first.pid
    assert second.advance(0) == 0
    embedded.give_back(second)


def test_a_server_that_died_is_not_leased_again() -> None:
    first = embedded.lease()
    embedded.give_back(first)
    os.kill(first.pid, signal.SIGKILL)
    first._process.wait()
    second = embedded.lease()
    assert second.alive
    assert second.pid != first.pid
    embedded.give_back(second)


CHILD = """
import sys
from pipeline.emulator import embedded
server = embedded.lease()
print(server.pid, flush=True)
sys.stdin.read()
"""


def test_no_server_outlives_a_parent_that_was_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert parent.stdin is not None
    assert parent.stdout is not None
    server = os.pidfd_open(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    readable, _, _ = select.select([server], [], [], 10)  # a pidfd is readable once its process has ended
    os.close(server)
    parent.stdin.close()
    parent.stdout.close()
    assert readable
