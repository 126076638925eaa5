"""boto3's and aiobotocore's clients while an emulator is open: theirs in everything but the request itself."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import threading
from typing import Any

import boto3
import pytest
from aiobotocore.session import get_session
from botocore.exceptions import ClientError, ParamValidationError
from botocore.stub import Stubber
from moto import mock_aws

from pipeline import PipelineError
from pipeline.testing import Emulator

REGION = "us-east-1"


def client(service: str, **given: Any) -> Any:
    return boto3.client(service, region_name=REGION, **given)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts that were looked up; none is reached."""
    hosts: list[str] = []

    def look_up(host: str, *_: Any, **__: Any) -> Any:
        hosts.append(host)
        raise OSError(f"no {host}")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return hosts


def test_parameters_are_checked_as_by_boto3() -> None:
    with Emulator() as aws:
        queue = aws.queue("orders")
        for wrong in ({"MessageBody": 5}, {}, {"MessageBody": "x", "Bogus": 1}):
            with pytest.raises(ParamValidationError):
                client("sqs").send_message(QueueUrl=queue.url, **wrong)
    assert queue.is_empty


@pytest.mark.parametrize(
    ("service", "exception", "operation", "parameters"),
    [
        ("sqs", "QueueDoesNotExist", "get_queue_url", {"QueueName": "nope"}),
        ("s3", "NoSuchBucket", "list_objects_v2", {"Bucket": "nope"}),
        ("dynamodb", "ResourceNotFoundException", "describe_table", {"TableName": "nope"}),
        ("kinesis", "ResourceNotFoundException", "describe_stream_summary", {"StreamName": "nope"}),
    ],
)
def test_an_error_is_of_the_class_that_code_catches(
    service: str, exception: str, operation: str, parameters: dict[str, Any]
) -> None:
    with Emulator():
        made = client(service)
        with pytest.raises(getattr(made.exceptions, exception)):
            getattr(made, operation)(**parameters)


def test_objects_are_read_and_moved_as_with_boto3() -> None:
    with Emulator() as aws:
        lake = aws.bucket("lake")
        assert lake.objects == {}
        s3 = client("s3")
        s3.upload_fileobj(io.BytesIO(b"abc"), "lake", "key")
        assert s3.get_object(Bucket="lake", Key="key")["Body"].read() == b"abc"
        found = io.BytesIO()
        s3.download_fileobj("lake", "key", found)
        assert found.getvalue() == b"abc"
        assert lake.objects == {"key": b"abc"}
        assert [page["KeyCount"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket="lake")] == [1]


def test_a_shard_of_a_stream_that_throttles_takes_what_aws_takes() -> None:
    records = [{"Data": b"x", "PartitionKey": "k"}] * 500

    def refused(stream: str) -> int:
        return sum(
            client("kinesis").put_records(StreamName=stream, Records=records)["FailedRecordCount"] for _ in "abc"
        )

    with Emulator() as aws:
        aws.stream("free")
        narrow = aws.stream("narrow", throttles=True)
        assert refused("free") == 0
        assert refused("narrow") == 500
        aws.advance(1)
        assert len(narrow.put(*range(1_000))) == 1_000
        with pytest.raises(ClientError, match="ProvisionedThroughputExceeded"):
            narrow.put("one more")


def test_a_table_resource_has_plain_values() -> None:
    with Emulator() as aws:
        aws.table("ledger")
        table = boto3.resource("dynamodb", region_name=REGION).Table("ledger")
        table.put_item(Item={"id": "a", "n": 1})
        assert table.get_item(Key={"id": "a"})["Item"] == {"id": "a", "n": 1}


async def read(bucket: str) -> bytes:
    async with get_session().create_client("s3", region_name=REGION) as s3:
        await s3.put_object(Bucket=bucket, Key="key", Body=b"abc")
        found: bytes = await (await s3.get_object(Bucket=bucket, Key="key"))["Body"].read()
        return found


def test_aiobotocore_works_in_a_handlers_own_loop() -> None:
    found: list[bytes] = []

    def handler(event: Any, context: Any) -> None:
        found.append(asyncio.run(read("lake")))

    with Emulator() as aws:
        aws.bucket("lake")
        orders = aws.queue("orders")
        aws.map(orders, handler, timeout=20)
        orders.send("x")
        aws.run()
    assert found == [b"abc"]


def test_a_thread_of_the_test_is_answered_while_nothing_runs() -> None:
    with Emulator() as aws:
        orders = aws.queue("orders")
        thread = threading.Thread(
            target=lambda: client("sqs").send_message(QueueUrl=orders.url, MessageBody="x"), daemon=True
        )
        thread.start()
        thread.join(20)
        assert [message["body"] for message in orders.messages] == ["x"]


def test_a_stub_of_a_service_that_is_not_in_memory_answers() -> None:
    ssm = client("ssm", aws_access_key_id="a", aws_secret_access_key="b")
    with Emulator(), Stubber(ssm) as stub:
        stub.add_response("get_parameter", {"Parameter": {"Name": "n", "Value": "v"}}, {"Name": "n"})
        assert ssm.get_parameter(Name="n")["Parameter"]["Value"] == "v"


def test_motos_own_mock_answers_for_services_that_are_not_in_memory() -> None:
    with mock_aws(), Emulator() as aws:
        client("ssm").put_parameter(Name="n", Value="v", Type="String")
        assert client("ssm").get_parameter(Name="n")["Parameter"]["Value"] == "v"
        assert aws.queue("orders").is_empty


def test_what_a_service_in_memory_cannot_do_is_said() -> None:
    with Emulator(), pytest.raises(PipelineError, match="the dynamodb service in memory has no describe_limits"):
        client("dynamodb").describe_limits()


def test_a_url_is_signed_with_nobodys_keys() -> None:
    s3 = client("s3", aws_access_key_id="AKIAREAL", aws_secret_access_key="real")
    with Emulator():
        assert "AKIAREAL" not in s3.generate_presigned_url("put_object", Params={"Bucket": "b", "Key": "k"})
    assert "AKIAREAL" in s3.generate_presigned_url("put_object", Params={"Bucket": "b", "Key": "k"})


def test_a_thread_that_outlives_the_emulator_reaches_nothing(asked: list[str]) -> None:
    dynamodb = client("dynamodb", aws_access_key_id="AKIAREAL", aws_secret_access_key="real")
    go, errors = threading.Event(), list[BaseException]()
    threads: list[threading.Thread] = []

    def later() -> None:
        go.wait(20)
        try:
            dynamodb.put_item(TableName="production", Item={"id": {"S": "1"}})
        except PipelineError as error:
            errors.append(error)

    def handler(event: Any, context: Any) -> None:
        threads.append(threading.Thread(target=later, daemon=True))
        threads[0].start()

    with Emulator() as aws:
        orders = aws.queue("orders")
        aws.map(orders, handler)
        orders.send("x")
        aws.run()
    go.set()
    threads[0].join(20)
    assert "the emulator that this thread was started in is closed" in str(errors[0])
    assert asked == []


def test_a_handler_that_is_over_reaches_nothing_from_its_finally(asked: list[str]) -> None:
    dynamodb = client("dynamodb", aws_access_key_id="AKIAREAL", aws_secret_access_key="real")
    go, ended = threading.Event(), threading.Event()

    def handler(event: Any, context: Any) -> None:
        try:
            go.wait(20)
        finally:
            try:
                dynamodb.put_item(TableName="production", Item={"id": {"S": "1"}})
            finally:
                ended.set()

    with Emulator() as aws:
        orders = aws.queue("orders", max_receive_count=1)
        aws.map(orders, handler, timeout=0.2)
        orders.send("x")
        aws.run()
    go.set()
    assert ended.wait(20)
    assert asked == []


def test_a_failed_test_does_not_wait_for_its_handlers() -> None:
    release = threading.Event()
    began = threading.Event()

    def handler(event: Any, context: Any) -> None:
        began.set()
        release.wait(50)

    def fail() -> None:
        with Emulator() as aws:
            orders = aws.queue("orders", visibility_timeout=900)
            aws.map(orders, handler, timeout=900)
            orders.send("x")
            aws.advance(0)
            aws.advance(0)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    release.set()


def test_after_the_block_clients_and_variables_are_as_before() -> None:
    before = dict(os.environ)
    with Emulator():
        assert os.environ["AWS_ENDPOINT_URL"].startswith("http://127.0.0.1")
    assert dict(os.environ) == before
    with mock_aws():
        client("sqs").create_queue(QueueName="orders")
        assert len(client("sqs").list_queues()["QueueUrls"]) == 1
