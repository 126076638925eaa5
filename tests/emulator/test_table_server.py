"""The embedded server's DynamoDB: moto's tables, and the service in memory for items and streams.

What the service does, `tests/contract/test_table_service.py` asks of this server too. Here: calls at the same moment, what
is left to moto, and how the two go together.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest

from pipeline import stores
from pipeline.decisions.idempotency import AlreadyDone, Busy, Claimed, ClaimRequest, Complete
from pipeline.emulator import embedded
from pipeline.engine.environment import ProcessEnvironment

WRITERS = 8
ROUNDS = 5


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A client of a server of the module's own."""
    leased = embedded.lease()
    client = boto3.client(
        "dynamodb",
        endpoint_url=leased.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    yield client
    client.close()
    embedded.give_back(leased)


@pytest.fixture
def dynamodb(server: Any) -> Any:
    """A client of a server with the table `entries`."""
    for name in server.list_tables()["TableNames"]:
        server.delete_table(TableName=name)
    server.create_table(
        TableName="entries",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    return server


def test_of_many_conditional_updates_at_once_one_is_done(dynamodb: Any) -> None:
    # A large item, because the server copies it between its look at the condition and its write.
    load = {"L": [{"S": "x"}] * 4000}
    for turn in range(ROUNDS):
        dynamodb.put_item(TableName="entries", Item={"id": {"S": f"{turn}"}, "load": load, "owner": {"S": "nobody"}})
        assert _race(dynamodb, f"{turn}") == 1


def _race(dynamodb: Any, entry: str) -> int:
    def take(owner: int) -> bool:
        try:
            dynamodb.update_item(
                TableName="entries",
                Key={"id": {"S": entry}},
                UpdateExpression="SET #o = :mine",
                ConditionExpression="#o = :nobody",
                ExpressionAttributeNames={"#o": "owner"},
                ExpressionAttributeValues={":mine": {"S": f"w{owner}"}, ":nobody": {"S": "nobody"}},
            )
        except dynamodb.exceptions.ConditionalCheckFailedException:
            return False
        return True

    with ThreadPoolExecutor(WRITERS) as threads:
        return sum(threads.map(take, range(WRITERS)))


def test_of_many_statements_at_once_one_inserts(dynamodb: Any) -> None:
    insert = {
        "Statement": "INSERT INTO entries VALUE {'id': 'x', 'load': ?}",
        "Parameters": [{"L": [{"S": "x"}] * 4000}],
    }

    def take(_: int) -> bool:
        (answer,) = dynamodb.batch_execute_statement(Statements=[insert])["Responses"]
        return "Error" not in answer

    with ThreadPoolExecutor(WRITERS) as threads:
        assert sum(threads.map(take, range(WRITERS))) == 1


async def test_claims_travel_together_on_the_embedded_server(
    aws: str, environment: ProcessEnvironment, unique: str
) -> None:
    store = stores.DynamoDB(unique, batched=True)
    await store.create(environment)

    async def claim(owner: str) -> list[Any]:
        until = environment.clock.now() + 60
        wanted = [ClaimRequest(id=f"k{n}", owner=owner, lease_until=until, ttl=99, is_alone=True) for n in range(30)]
        return list(await store.claim(wanted, environment))

    assert await claim("a") == [Claimed(1)] * 30
    assert {type(reply) for reply in await claim("b")} == {Busy}
    ends = [Complete(id=f"k{n}", owner="a", ttl=99) for n in range(30)]
    assert await store.settle(ends, environment) == [True] * 30
    assert await claim("b") == [AlreadyDone()] * 30


def test_indexes_are_moto_s_and_see_what_is_written(dynamodb: Any) -> None:
    index = {"IndexName": "by-owner", "Projection": {"ProjectionType": "ALL"}}
    kinds = {"id": "S", "n": "N", "owner": "S"}
    dynamodb.create_table(
        TableName="indexed",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": kind} for name, kind in kinds.items()],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}, {"AttributeName": "n", "KeyType": "RANGE"}],
        GlobalSecondaryIndexes=[{**index, "KeySchema": [{"AttributeName": "owner", "KeyType": "HASH"}]}],
    )
    items = [{"id": {"S": "a"}, "n": {"N": str(n)}, "owner": {"S": "me"}, "b": {"B": b"\xff"}} for n in range(3)]
    for item in items:
        dynamodb.put_item(TableName="indexed", Item=item)
    dynamodb.execute_statement(Statement="DELETE FROM indexed WHERE id = 'a' AND n = 1")
    asked = {"ExpressionAttributeNames": {"#o": "owner"}, "ExpressionAttributeValues": {":o": {"S": "me"}}}
    found = dynamodb.query(TableName="indexed", IndexName="by-owner", KeyConditionExpression="#o = :o", **asked)
    assert sorted(found["Items"], key=lambda item: str(item["n"])) == [items[0], items[2]]


def test_what_was_there_before_expressions_is_moto_s(dynamodb: Any) -> None:
    key = {"id": {"S": "old"}}
    change = {"n": {"Value": {"N": "2"}, "Action": "PUT"}}
    dynamodb.put_item(TableName="entries", Item={**key, "n": {"N": "1"}, "l": {"L": [{"B": b"\x00"}]}})
    dynamodb.update_item(TableName="entries", Key=key, AttributeUpdates=change)
    expected = {**key, "n": {"N": "2"}, "l": {"L": [{"B": b"\x00"}]}}
    assert dynamodb.get_item(TableName="entries", Key=key)["Item"] == expected
    refused = {"n": {"Value": {"N": "1"}}}
    with pytest.raises(dynamodb.exceptions.ConditionalCheckFailedException):
        dynamodb.put_item(TableName="entries", Item=key, Expected=refused)


def test_a_stream_tells_what_moto_writes_too(dynamodb: Any) -> None:
    view = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
    arn = dynamodb.update_table(TableName="entries", StreamSpecification=view)["TableDescription"]["LatestStreamArn"]
    key = {"id": {"S": "told"}}
    dynamodb.put_item(TableName="entries", Item=key)
    dynamodb.put_item(
        TableName="entries", Item={**key, "n": {"N": "1"}}, Expected={"id": {"Exists": True, "Value": key["id"]}}
    )
    dynamodb.delete_item(TableName="entries", Key=key)
    records = _records(dynamodb.meta.endpoint_url, arn)
    assert [record["eventName"] for record in records] == ["INSERT", "MODIFY", "REMOVE"]
    assert records[1]["dynamodb"]["NewImage"] == {**key, "n": {"N": "1"}}


def test_a_reset_leaves_nothing(dynamodb: Any) -> None:
    view = {"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    arn = dynamodb.update_table(TableName="entries", StreamSpecification=view)["TableDescription"]["LatestStreamArn"]
    token = {"ClientRequestToken": "t"}
    put = [{"Put": {"TableName": "entries", "Item": {"id": {"S": "x"}}}}]
    dynamodb.transact_write_items(TransactItems=put, **token)
    assert _post(dynamodb.meta.endpoint_url, "/pipeline/reset", {}) == {"offset": 0.0}
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        dynamodb.get_item(TableName="entries", Key={"id": {"S": "x"}})
    assert "__type" in _post(dynamodb.meta.endpoint_url, "/", {"StreamArn": arn}, "DescribeStream")


def _records(endpoint_url: str, arn: str) -> list[Any]:
    """All records of a stream."""

    def call(operation: str, **parameters: Any) -> Any:
        return _post(endpoint_url, "/", parameters, operation)

    (shard,) = call("DescribeStream", StreamArn=arn)["StreamDescription"]["Shards"]
    place = call("GetShardIterator", StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON")
    found: list[Any] = call("GetRecords", ShardIterator=place["ShardIterator"])["Records"]
    return found


def _post(endpoint_url: str, path: str, body: Any, operation: str = "") -> Any:
    """A call without a client: to make one takes longer than the tests."""
    connection = http.client.HTTPConnection(urlsplit(endpoint_url).netloc)
    headers = {
        "X-Amz-Target": f"DynamoDBStreams_20120810.{operation}",
        "Content-Type": "application/x-amz-json-1.0",
        "Authorization": "AWS4-HMAC-SHA256 Credential=testing/20260101/us-east-1/dynamodb/aws4_request",
    }
    try:
        connection.request("POST", path, json.dumps(body), headers)
        return json.load(connection.getresponse())
    finally:
        connection.close()
