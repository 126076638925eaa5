import json
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


def client_of(server: EmbeddedServer, service: Any, region: str = "us-east-1") -> Any:
    return boto3.client(
        service,
        endpoint_url=server.endpoint_url,
        region_name=region,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


@pytest.fixture
def sqs(server: EmbeddedServer) -> Iterator[Any]:
    client = client_of(server, "sqs")
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


def test_a_waiting_receive_gets_what_is_sent_meanwhile(sqs: Any) -> None:
    url = sqs.create_queue(QueueName="orders", Attributes={"ReceiveMessageWaitTimeSeconds": "20"})["QueueUrl"]
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(receive, sqs, url), threads.submit(receive, sqs, url, WaitTimeSeconds=20)]
        for body in "ab":
            sqs.send_message(QueueUrl=url, MessageBody=body)
        found = [message["Body"] for future in waiting for message in future.result(timeout=15)]
        if len(found) < 2:  # one of them got both, or was late
            found += [message["Body"] for message in receive(sqs, url)]
    assert sorted(found) == ["a", "b"]


def test_moving_the_clock_ends_a_waiting_receive(server: EmbeddedServer, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="x", DelaySeconds=900)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(receive, sqs, url, WaitTimeSeconds=20)
        server.advance(901)
        assert [message["Body"] for message in waiting.result(timeout=15)] == ["x"]


def test_a_queues_url_leads_to_this_server_and_its_arn_to_its_region(server: EmbeddedServer, sqs: Any) -> None:
    there = client_of(server, "sqs", "eu-west-1")
    sqs.create_queue(QueueName="here")
    url = there.create_queue(QueueName="there")["QueueUrl"]
    assert url == f"{server.endpoint_url}/123456789012/there"
    found = there.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]
    assert found == {"QueueArn": "arn:aws:sqs:eu-west-1:123456789012:there"}
    assert there.list_queues()["QueueUrls"] == [url]
    there.close()


def test_other_services_send_to_queues(server: EmbeddedServer, sqs: Any) -> None:
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    arn = "arn:aws:sqs:us-east-1:123456789012:orders"
    sns, events = client_of(server, "sns"), client_of(server, "events")
    topic = sns.create_topic(Name="news")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    sns.publish(
        TopicArn=topic, Message="from a topic", MessageAttributes={"a": {"DataType": "String", "StringValue": "b"}}
    )
    events.put_rule(Name="rule", EventPattern='{"source": ["shop"]}')
    events.put_targets(Rule="rule", Targets=[{"Id": "1", "Arn": arn}])
    events.put_events(Entries=[{"Source": "shop", "DetailType": "order", "Detail": '{"id": 7}'}])
    first, second = receive(sqs, url, MessageAttributeNames=["All"])
    assert (first["Body"], first["MessageAttributes"]["a"]["StringValue"]) == ("from a topic", "b")
    assert json.loads(second["Body"])["detail"] == {"id": 7}
    sns.close()
    events.close()


#: CloudFormation itself needs more of moto's extras than we install: this is what it calls of queues.
STACK = """
import json
from moto.sqs.models import Queue, sqs_backends
from pipeline.emulator import patches

patches.apply(patches.ServerClock())
where = ("123456789012", "us-east-1")
dead = {"FifoQueue": True, "DelaySeconds": "5", "Tags": [{"Key": "a", "Value": "b"}]}
made = Queue.create_from_cloudformation_json("dead.fifo", {"Properties": dead}, *where)
policy = {"deadLetterTargetArn": made.queue_arn, "maxReceiveCount": 5}
orders = {"QueueName": "orders.fifo", "FifoQueue": True, "VisibilityTimeout": 90, "RedrivePolicy": policy}
queue = Queue.create_from_cloudformation_json("orders.fifo", {"Properties": orders}, *where)
orders["VisibilityTimeout"] = 120
Queue.update_from_cloudformation_json(queue, "orders.fifo", {"Properties": orders}, *where)
backend = sqs_backends[where[0]][where[1]]
print(json.dumps([backend.get_queue_attributes(name, ["All"]) for name in ("dead.fifo", "orders.fifo")]))
Queue.delete_from_cloudformation_json(queue.physical_resource_id, {}, *where)
print([queue.name for queue in backend.list_queues("")])
"""


def test_stacks_make_change_and_delete_queues() -> None:
    done = subprocess.run([sys.executable, "-c", STACK], capture_output=True, text=True, check=True)
    found, left = done.stdout.splitlines()
    dead, orders = json.loads(found)
    assert (dead["FifoQueue"], dead["DelaySeconds"]) == ("true", "5")
    assert (orders["VisibilityTimeout"], orders["FifoQueue"]) == ("120", "true")
    assert json.loads(orders["RedrivePolicy"]) == {"deadLetterTargetArn": dead["QueueArn"], "maxReceiveCount": 5}
    assert left == "['dead.fifo']"


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
