"""The embedded server's DynamoDB decides conditional writes of one item one after the other, as AWS does."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
import pytest

from pipeline.emulator import embedded

WRITERS = 8
ROUNDS = 5


@pytest.fixture
def dynamodb() -> Iterator[Any]:
    server = embedded.lease()
    client = boto3.client(
        "dynamodb",
        endpoint_url=server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_table(
        TableName="entries",
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    yield client
    client.close()
    embedded.give_back(server)


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
