"""DynamoDB's rules, over the tables in memory, the embedded server and AWS's own DynamoDB Local.

Each test names what its rule is from: "model" is the API model of DynamoDB in botocore, by operation; "guide" the DynamoDB
developer guide, by page. Where neither says it, DynamoDB Local is what the others are held to.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from pipeline import stores
from pipeline.decisions.idempotency import AlreadyDone, Busy, Claimed, ClaimRequest, Complete, Forget
from pipeline.emulator.services.client import MemoryClient, News
from pipeline.emulator.services.dynamodb import DynamoDB
from pipeline.engine.environment import ProcessEnvironment
from tests.contract.conftest import ManualClock

HOUR = 3_600
DAY = 24 * HOUR
KIB = 1_024
Item = dict[str, dict[str, Any]]

#: Where a server is not as AWS is, by test: each has to fail there. What is only one of a test's cases has it in brackets.
DIFFERENCES: dict[str, dict[str, str]] = {
    "moto": {
        "test_there_must_be_the_table[describe_time_to_live]": "the code is ResourceNotFound",
        "test_a_definition_that_cannot_be[no partition key]": "it takes it",
        "test_a_definition_that_cannot_be[a name with a space]": "it takes any name",
        "test_a_definition_that_cannot_be[a name of two characters]": "it takes any name",
        "test_time_to_live_is_set_once": "it is set as often as it is asked for",
    },
    "local": {
        "test_backups_are_on_when_they_were_switched_on": "it has no backups",
        "test_what_an_update_gives_back[UPDATED_OLD-expected2]": "the whole attribute comes back, and not the path in it",
        "test_what_an_update_gives_back[UPDATED_NEW-expected3]": "the whole attribute comes back, and not the path in it",
        "test_a_change_that_cannot_be_cancels_the_transaction": "the call is a ValidationException",
        "test_a_second_insert_alone_is_an_error_of_its_own": "the code is DuplicateItem, that of a batch's statement",
    },
}
#: Of the tests with many cases, those in which a server is not as AWS is.
DIFFERENT: dict[tuple[str, str], list[str]] = {
    ("moto", "query"): ["no such index"],  # ResourceNotFoundException
    ("local", "updates"): ["SET n = n + :half"],  # 2.0: sums keep their zeroes
}

HASH = {"AttributeName": "p", "KeyType": "HASH"}
P, Q = {"AttributeName": "p", "AttributeType": "S"}, {"AttributeName": "q", "AttributeType": "S"}


def S(text: str) -> dict[str, Any]:
    return {"S": text}


def N(number: object) -> dict[str, Any]:
    return {"N": str(number)}


class Blocking:
    """boto3's client behind the face of aiobotocore's: to make one of those for each test takes longer than the tests."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        async def call(**parameters: Any) -> Any:
            return getattr(self._client, name)(**parameters)

        return call


@dataclass
class Tables:
    """One implementation, with a table of the key `id`; `sort` makes one of the keys `p` and `s`."""

    server: str
    client: Any
    streams: Any
    plain: str
    sorted: str = ""

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        answer = await getattr(self.client, operation)(**parameters)
        answer.pop("ResponseMetadata", None)
        return dict(answer)

    async def error(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """What a refused call is answered with."""
        with pytest.raises(ClientError) as raised:
            await self.call(operation, **parameters)
        answer: dict[str, Any] = dict(raised.value.response)
        return answer

    async def refusal(self, operation: str, **parameters: Any) -> str:
        """The code with which a call is refused."""
        return str((await self.error(operation, **parameters))["Error"]["Code"])

    async def refusals(self, operation: str, cases: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
        """Each case is refused as invalid, but for those in which the server is known to differ."""
        codes: dict[str, str] = {}
        for case, parameters in cases.items():
            try:
                await self.call(operation, **more, **parameters)
            except ClientError as error:
                codes[case] = str(error.response["Error"]["Code"])
        others = [case for case in cases if codes.get(case) != "ValidationException"]
        assert others == [case for case in DIFFERENT.get((self.server, operation), []) if case in cases]

    async def make(self, name: str, **options: Any) -> None:
        """A table of the key `p`."""
        keys = {"AttributeDefinitions": [P], "KeySchema": [HASH], "BillingMode": "PAY_PER_REQUEST"}
        await self.call("create_table", TableName=name, **{**keys, **options})

    async def sort(self) -> str:
        """The name of a table with the keys `p`, a text, and `s`, a number."""
        self.sorted = f"{self.plain}-sorted"
        await self.make(
            self.sorted,
            AttributeDefinitions=[P, {"AttributeName": "s", "AttributeType": "N"}],
            KeySchema=[HASH, {"AttributeName": "s", "KeyType": "RANGE"}],
        )
        return self.sorted

    async def put(self, item: Item, **more: Any) -> dict[str, Any]:
        return await self.call("put_item", TableName=self.plain, Item=item, **more)

    async def get(self, key: str = "a", **more: Any) -> Any:
        return (await self.call("get_item", TableName=self.plain, Key={"id": S(key)}, ConsistentRead=True, **more)).get(
            "Item"
        )

    async def update(self, expression: str, key: str = "a", **more: Any) -> dict[str, Any]:
        values = {f":{name}": more.pop(name) for name in list(more) if name.islower()}
        given = {"ExpressionAttributeValues": values} if values else {}
        names = placed_names(expression)
        return await self.call(
            "update_item",
            TableName=self.plain,
            Key={"id": S(key)},
            UpdateExpression=placed(expression),
            **given,
            **({"ExpressionAttributeNames": names} if names else {}),
            **more,
        )

    async def refused_update(self, expression: str, **values: Any) -> str | None:
        """The code with which an update is refused; None: it is done."""
        try:
            await self.update(expression, **values)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return None

    async def holds(self, condition: str, key: str = "a", names: Any = None, **values: Any) -> bool:
        """Whether a condition is true of an item."""
        given: dict[str, Any] = {}
        if values:
            given["ExpressionAttributeValues"] = {f":{name}": value for name, value in values.items()}
        if names:
            given["ExpressionAttributeNames"] = names
        action = {"TableName": self.plain, "Key": {"id": S(key)}, "ConditionExpression": condition, **given}
        try:
            await self.call("transact_write_items", TransactItems=[{"ConditionCheck": action}])
        except ClientError as error:
            reasons: Any = error.response.get("CancellationReasons")
            if reasons is None or reasons[0]["Code"] != "ConditionalCheckFailed":
                raise
            return False
        return True

    async def statement(self, text: str, *parameters: Any, old: bool = False) -> dict[str, Any]:
        """One statement as a batch of its own; `{}` is the plain table's name. What it is answered with."""
        (answer,) = await self.batch((text, *parameters), old=old)
        return answer

    async def batch(self, *statements: tuple[Any, ...], old: bool = False) -> list[dict[str, Any]]:
        wanted = [self.written(*one, old=old) for one in statements]
        answers = (await self.call("batch_execute_statement", Statements=wanted))["Responses"]
        return [{name: member for name, member in answer.items() if name != "TableName"} for answer in answers]

    def written(self, text: str, *parameters: Any, old: bool = False) -> dict[str, Any]:
        return {
            "Statement": text.replace("{}", f'"{self.plain}"'),
            **({"Parameters": list(parameters)} if parameters else {}),
            **({"ReturnValuesOnConditionCheckFailure": "ALL_OLD"} if old else {}),
        }

    async def statement_error(self, text: str, *parameters: Any) -> str:
        return str((await self.statement(text, *parameters))["Error"]["Code"])

    async def transact(self, *actions: dict[str, Any], **more: Any) -> dict[str, Any]:
        return await self.call("transact_write_items", TransactItems=list(actions), **more)

    async def reasons(self, *actions: dict[str, Any], **more: Any) -> list[str]:
        """Of a cancelled transaction, the actions' codes."""
        answer = await self.error("transact_write_items", TransactItems=list(actions), **more)
        assert answer["Error"]["Code"] == "TransactionCanceledException"
        return [str(reason["Code"]) for reason in answer["CancellationReasons"]]

    def put_action(self, key: str, **more: Any) -> dict[str, Any]:
        return {"Put": {"TableName": self.plain, "Item": {"id": S(key), **more.pop("item", {})}, **more}}

    def increment(self, key: str = "a") -> dict[str, Any]:
        return {
            "Update": {
                "TableName": self.plain,
                "Key": {"id": S(key)},
                "UpdateExpression": "ADD n :one",
                "ExpressionAttributeValues": {":one": N(1)},
            }
        }


Boto = Callable[[str, str], Any]


@pytest.fixture(scope="module")
def boto() -> Iterator[Boto]:
    """Clients by service and endpoint. One try, and what is wrong is for the server to find."""
    made: dict[tuple[str, str], Any] = {}

    def client(service: str, endpoint: str) -> Any:
        if (service, endpoint) not in made:
            made[service, endpoint] = boto3.client(
                service,
                endpoint_url=endpoint,
                region_name="us-east-1",
                aws_access_key_id="testing",
                aws_secret_access_key="testing",
                config=Config(parameter_validation=False, retries={"total_max_attempts": 1}),
            )
        return made[service, endpoint]

    yield client
    for one in made.values():
        one.close()


LOCAL = pytest.param("local", marks=pytest.mark.dynamodb_local)


@pytest.fixture(params=["memory", "moto", LOCAL])
async def tables(request: pytest.FixtureRequest, clock: ManualClock, unique: str, boto: Boto) -> Any:
    server = request.param
    for differing in (request.node.originalname, request.node.name.replace(f"{server}-", "")):
        reason = DIFFERENCES.get(server, {}).get(differing)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
    if server == "memory":
        return await opened(server, *in_memory(clock), unique)
    endpoint = request.getfixturevalue("moto_endpoint" if server == "moto" else "dynamodb_local")
    clients = [Blocking(boto(service, endpoint)) for service in ("dynamodb", "dynamodbstreams")]
    return await opened(server, clients[0], clients[1], unique)


@pytest.fixture
async def memory(clock: ManualClock, unique: str) -> Tables:
    """For what takes hours, and for what is chosen."""
    return await opened("memory", *in_memory(clock), unique)


def in_memory(clock: ManualClock, **options: Any) -> tuple[Any, Any]:
    model, news = DynamoDB(random.Random(1), **options), News()
    return MemoryClient(model, clock, news), MemoryClient(model.streams, clock, news)


async def opened(server: str, client: Any, streams: Any, unique: str) -> Tables:
    made = Tables(server, client, streams, f"{unique}-plain")
    id_ = {"AttributeName": "id"}
    await made.make(
        made.plain,
        AttributeDefinitions=[{**id_, "AttributeType": "S"}],
        KeySchema=[{**id_, "KeyType": "HASH"}],
    )
    return made


EVERYTHING: Item = {
    "id": S("a"),
    "n": N("1.5"),
    "text": S("hello"),
    "bytes": {"B": b"\x00\xff"},
    "yes": {"BOOL": True},
    "nothing": {"NULL": True},
    "list": {"L": [N(1), S("two"), {"L": []}]},
    "map": {"M": {"x": N(1), "deep": {"M": {"y": S("z")}}}},
    "texts": {"SS": ["a", "b"]},
    "numbers": {"NS": ["1", "2"]},
    "several": {"BS": [b"a", b"b"]},
}

# Tables


async def test_a_table_is_described_as_it_was_made(tables: Tables) -> None:
    """Model, DescribeTable."""
    await tables.sort()
    table = (await tables.call("describe_table", TableName=tables.sorted))["Table"]
    assert table["TableName"] == tables.sorted
    assert table["TableStatus"] == "ACTIVE"
    assert table["KeySchema"] == [
        {"AttributeName": "p", "KeyType": "HASH"},
        {"AttributeName": "s", "KeyType": "RANGE"},
    ]
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["TableArn"].endswith(f":table/{tables.sorted}")
    assert table["ItemCount"] == 0
    assert isinstance(table["CreationDateTime"], datetime)


async def test_a_table_cannot_be_made_twice(tables: Tables) -> None:
    """Model, CreateTable: ResourceInUseException."""
    keys = {"AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}]}
    schema = [{"AttributeName": "id", "KeyType": "HASH"}]
    found = await tables.refusal(
        "create_table", TableName=tables.plain, BillingMode="PAY_PER_REQUEST", KeySchema=schema, **keys
    )
    assert found == "ResourceInUseException"


@pytest.mark.parametrize("operation", ["describe_table", "delete_table", "describe_time_to_live", "scan"])
async def test_there_must_be_the_table(tables: Tables, operation: str) -> None:
    """Model: ResourceNotFoundException of each operation."""
    assert await tables.refusal(operation, TableName="there-is-none") == "ResourceNotFoundException"


async def test_a_deleted_table_is_gone_with_its_items(tables: Tables) -> None:
    """Model, DeleteTable."""
    await tables.make(f"{tables.plain}-2")
    await tables.call("put_item", TableName=f"{tables.plain}-2", Item={"p": S("a")})
    await tables.call("delete_table", TableName=f"{tables.plain}-2")
    assert await tables.refusal("describe_table", TableName=f"{tables.plain}-2") == "ResourceNotFoundException"
    await tables.make(f"{tables.plain}-2")
    assert "Item" not in await tables.call("get_item", TableName=f"{tables.plain}-2", Key={"p": S("a")})


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"AttributeDefinitions": [P, Q]}, id="an attribute that is in no key"),
        pytest.param({"AttributeDefinitions": [Q]}, id="a key without a type"),
        pytest.param({"KeySchema": [{"AttributeName": "p", "KeyType": "RANGE"}]}, id="no partition key"),
        pytest.param({"BillingMode": "PROVISIONED"}, id="no throughput"),
        pytest.param({"TableName": "a b"}, id="a name with a space"),
        pytest.param({"TableName": "ab"}, id="a name of two characters"),
        pytest.param({"StreamSpecification": {"StreamEnabled": True}}, id="a stream without a view"),
    ],
)
async def test_a_definition_that_cannot_be(tables: Tables, wrong: dict[str, Any]) -> None:
    """Model, CreateTable; guide, "Naming rules"."""
    right = {
        "TableName": f"{tables.plain}-3",
        "AttributeDefinitions": [P],
        "KeySchema": [HASH],
        "BillingMode": "PAY_PER_REQUEST",
    }
    assert await tables.refusal("create_table", **{**right, **wrong}) == "ValidationException"


async def test_a_table_is_known_by_its_arn_too(tables: Tables) -> None:
    """Model: TableName is "the name or the ARN of the table"."""
    arn = (await tables.call("describe_table", TableName=tables.plain))["Table"]["TableArn"]
    await tables.call("put_item", TableName=arn, Item={"id": S("a")})
    assert await tables.get() == {"id": S("a")}
    answer = await tables.call("batch_get_item", RequestItems={arn: {"Keys": [{"id": S("a")}]}})
    assert list(answer["Responses"].values()) == [[{"id": S("a")}]]


async def test_time_to_live_is_set_once(tables: Tables) -> None:
    """Model, UpdateTimeToLive and DescribeTimeToLive."""

    async def told() -> Any:
        return (await tables.call("describe_time_to_live", TableName=tables.plain))["TimeToLiveDescription"]

    on = {"Enabled": True, "AttributeName": "until"}
    assert await told() == {"TimeToLiveStatus": "DISABLED"}
    await tables.call("update_time_to_live", TableName=tables.plain, TimeToLiveSpecification=on)
    assert await told() == {"TimeToLiveStatus": "ENABLED", "AttributeName": "until"}
    for wrong in (on, {**on, "AttributeName": "other"}):
        found = await tables.refusal("update_time_to_live", TableName=tables.plain, TimeToLiveSpecification=wrong)
        assert found == "ValidationException"


async def test_backups_are_on_when_they_were_switched_on(tables: Tables) -> None:
    """Model, UpdateContinuousBackups and DescribeContinuousBackups."""

    async def status() -> Any:
        answer = await tables.call("describe_continuous_backups", TableName=tables.plain)
        told = answer["ContinuousBackupsDescription"]
        assert told["ContinuousBackupsStatus"] == "ENABLED"
        return told["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"]

    assert await status() == "DISABLED"
    wanted = {"PointInTimeRecoveryEnabled": True}
    await tables.call("update_continuous_backups", TableName=tables.plain, PointInTimeRecoverySpecification=wanted)
    assert await status() == "ENABLED"


# Items


async def test_an_item_comes_back_as_it_was_put(tables: Tables) -> None:
    """Guide, "Supported data types"."""
    assert await tables.put(EVERYTHING) == {}
    assert await tables.get() == EVERYTHING
    assert await tables.get("none") is None


async def test_a_put_replaces_the_whole_item(tables: Tables) -> None:
    """Model, PutItem: "completely replaces the existing item"; ReturnValues."""
    await tables.put({"id": S("a"), "old": N(1)})
    assert await tables.put({"id": S("a"), "new": N(2)}, ReturnValues="ALL_OLD") == {
        "Attributes": {"id": S("a"), "old": N(1)}
    }
    assert await tables.get() == {"id": S("a"), "new": N(2)}
    assert await tables.put({"id": S("b")}, ReturnValues="ALL_OLD") == {}
    assert await tables.refusal("put_item", TableName=tables.plain, Item={"id": S("a")}, ReturnValues="ALL_NEW") == (
        "ValidationException"
    )


async def test_a_delete_says_what_there_was(tables: Tables) -> None:
    """Model, DeleteItem: idempotent; ReturnValues."""
    await tables.put({"id": S("a"), "n": N(1)})
    key = {"TableName": tables.plain, "Key": {"id": S("a")}, "ReturnValues": "ALL_OLD"}
    assert (await tables.call("delete_item", **key))["Attributes"] == {"id": S("a"), "n": N(1)}
    assert "Attributes" not in await tables.call("delete_item", **key)
    assert await tables.get() is None


async def test_a_read_of_parts(tables: Tables) -> None:
    """Guide, "Using projection expressions in DynamoDB"."""
    await tables.put(EVERYTHING)
    found = await tables.get(
        ProjectionExpression=placed("n, list[1], map.deep.y, no, map.x"),
        ExpressionAttributeNames=placed_names("n, list[1], map.deep.y, no, map.x"),
    )
    assert found == {"n": N("1.5"), "list": {"L": [S("two")]}, "map": {"M": {"x": N(1), "deep": {"M": {"y": S("z")}}}}}


async def test_numbers_have_one_spelling(tables: Tables) -> None:
    """Guide, "Supported data types", Number: leading and trailing zeroes are trimmed; 38 digits."""
    kept = {
        "1.50": "1.5",
        "007": "7",
        "-0": "0",
        "1E3": "1000",
        ".5": "0.5",
        "1e-7": "0.0000001",
        "9" * 38: "9" * 38,
        "1E125": "1" + "0" * 125,
        "-12.5e1": "-125",
        "0e400": "0",
    }
    for given, expected in kept.items():
        await tables.put({"id": S("a"), "n": N(given), "several": {"NS": [given]}})
        assert await tables.get() == {"id": S("a"), "n": N(expected), "several": {"NS": [expected]}}


async def test_values_that_are_none(tables: Tables) -> None:
    """Guide, "Supported data types": numbers of 38 digits, 1E-130 to 9.99E+125; sets; model, AttributeValue."""
    numbers = ["1" * 39, "1E126", "1E-131", "x", "", " 1", "1_0", "NaN", "Infinity"]
    wrong: dict[str, Any] = {
        **{f"the number {number}": N(number) for number in numbers},
        "no text": {"SS": []},
        "no number": {"NS": []},
        "a text twice": {"SS": ["a", "a"]},
        "a number twice": {"NS": ["1", "1.0"]},
        "no type": {},
        "two types": {"S": "a", "N": "1"},
        "a null that is none": {"NULL": False},
    }
    cases = {case: {"Item": {"id": S("a"), "v": value}} for case, value in wrong.items()}
    await tables.refusals("put_item", cases, TableName=tables.plain)
    assert await tables.get() is None


async def test_texts_and_binaries_may_be_empty_elsewhere_than_in_keys(tables: Tables) -> None:
    """Guide, "Supported data types", String and Binary."""
    item = {
        "id": S("a"),
        "text": S(""),
        "bytes": {"B": b""},
        "texts": {"SS": [""]},
        "list": {"L": []},
        "map": {"M": {}},
    }
    await tables.put(item)
    assert await tables.get() == item


async def test_items_need_a_key_of_the_table(tables: Tables) -> None:
    """Guide, "Quotas": partition keys of 1 to 2,048 bytes."""
    wrong: dict[str, Item] = {
        "no key": {"n": N(1)},
        "an empty key": {"id": S("")},
        "a key of another type": {"id": N(1)},
        "a long key": {"id": S("k" * 2_049)},
        "a key of many bytes": {"id": S("é" * 1_025)},
    }
    await tables.refusals("put_item", {case: {"Item": item} for case, item in wrong.items()}, TableName=tables.plain)


async def test_a_sort_key_has_at_most_a_kibibyte(tables: Tables) -> None:
    """Guide, "Quotas": sort keys of 1 to 1,024 bytes."""
    name = f"{tables.plain}-4"
    await tables.make(
        name,
        AttributeDefinitions=[P, Q],
        KeySchema=[HASH, {"AttributeName": "q", "KeyType": "RANGE"}],
    )
    await tables.call("put_item", TableName=name, Item={"p": S("x" * 2_048), "q": S("y" * 1_024)})
    found = await tables.refusal("put_item", TableName=name, Item={"p": S("x"), "q": S("y" * 1_025)})
    assert found == "ValidationException"


async def test_a_key_is_the_whole_key(tables: Tables) -> None:
    """Model, GetItem and others: "you must provide all of the attributes" of the key."""
    wrong: dict[str, Item] = {
        "nothing": {},
        "another attribute": {"x": S("a")},
        "one more": {"id": S("a"), "x": S("b")},
        "another type": {"id": N(1)},
        "empty": {"id": S("")},
    }
    for operation in ("get_item", "delete_item", "update_item"):
        await tables.refusals(operation, {case: {"Key": key} for case, key in wrong.items()}, TableName=tables.plain)


async def test_an_item_has_at_most_400_kibibytes_names_included(tables: Tables) -> None:
    """Guide, "Quotas" and "Item sizes and formats"."""
    room = 400 * KIB - len("id") - len("a") - len("load")
    await tables.put({"id": S("a"), "load": S("x" * room)})
    assert (
        await tables.refusal("put_item", TableName=tables.plain, Item={"id": S("a"), "load": S("x" * (room + 1))})
        == "ValidationException"
    )
    assert await tables.refused_update("SET more = :more", more=N(1)) == "ValidationException"


async def test_values_are_nested_32_deep_at_most(tables: Tables) -> None:
    """Guide, "Quotas": 32 levels."""
    value: Any = S("x")
    for _ in range(31):
        value = {"M": {"a": value}}
    await tables.put({"id": S("a"), "deep": value})
    found = await tables.refusal("put_item", TableName=tables.plain, Item={"id": S("a"), "deep": {"L": [value]}})
    assert found == "ValidationException"


# Conditions


async def test_a_put_on_a_condition_that_is_false_writes_nothing(tables: Tables) -> None:
    """Model, PutItem: ConditionExpression, ReturnValuesOnConditionCheckFailure."""
    is_new = {"TableName": tables.plain, "ConditionExpression": "attribute_not_exists(id)"}
    assert await tables.call("put_item", Item={"id": S("a"), "n": N(1)}, **is_new) == {}
    answer = await tables.error("put_item", Item={"id": S("a"), "n": N(2)}, **is_new)
    assert answer["Error"]["Code"] == "ConditionalCheckFailedException"
    assert "Item" not in answer
    answer = await tables.error(
        "put_item", Item={"id": S("a"), "n": N(2)}, ReturnValuesOnConditionCheckFailure="ALL_OLD", **is_new
    )
    assert answer["Item"] == {"id": S("a"), "n": N(1)}
    assert await tables.get() == {"id": S("a"), "n": N(1)}


async def test_an_update_or_delete_on_a_condition_that_is_false_changes_nothing(tables: Tables) -> None:
    """Model, UpdateItem and DeleteItem."""
    await tables.put({"id": S("a"), "n": N(1)})
    condition = {
        "ConditionExpression": "n > :zero",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    values = {":zero": N(5)}
    for operation, more in (
        ("update_item", {"UpdateExpression": "SET n = :new", "ExpressionAttributeValues": {**values, ":new": N(9)}}),
        ("delete_item", {"ExpressionAttributeValues": values}),
    ):
        answer = await tables.error(operation, TableName=tables.plain, Key={"id": S("a")}, **condition, **more)
        assert (answer["Error"]["Code"], answer["Item"]) == (
            "ConditionalCheckFailedException",
            {"id": S("a"), "n": N(1)},
        )
        answer = await tables.error(operation, TableName=tables.plain, Key={"id": S("no")}, **condition, **more)
        assert (answer["Error"]["Code"], "Item" in answer) == ("ConditionalCheckFailedException", False)
    assert await tables.get() == {"id": S("a"), "n": N(1)}
    assert await tables.get("no") is None


_RESERVED = re.compile(r"(?<![:\w])(list|map|text|bytes|no|yes|nothing|several|size|exists)(?!\w|\()")


def placed(expression: str) -> str:
    """An expression with placeholders for names that may be reserved words."""
    return _RESERVED.sub(r"#\1", expression)


def placed_names(expression: str) -> dict[str, str]:
    return {f"#{name}": name for name in _RESERVED.findall(expression)}


#: Conditions on `EVERYTHING`, with what their values are, and whether they hold.
CONDITIONS: list[tuple[str, dict[str, Any], bool]] = [
    ("n = :v", {"v": N("1.50")}, True),
    ("n = :v", {"v": S("1.5")}, False),
    ("n <> :v", {"v": S("1.5")}, True),
    ("n < :v", {"v": N(10)}, True),
    ("n < :v", {"v": S("x")}, False),
    ("n >= :v", {"v": N("1.5")}, True),
    ("text > :v", {"v": S("hellN")}, True),
    ("text < :v", {"v": S("é")}, True),
    ("bytes > :v", {"v": {"B": b"\x00\xfe"}}, True),
    ("no = :v", {"v": N(1)}, False),
    ("no <> :v", {"v": N(1)}, True),
    ("NOT no < :v", {"v": N(1)}, True),
    ("texts = :v", {"v": {"SS": ["b", "a"]}}, True),
    ("numbers = :v", {"v": {"NS": ["2.0", "1"]}}, True),
    ("list = :v", {"v": EVERYTHING["list"]}, True),
    ("map = :v", {"v": {"M": {"deep": {"M": {"y": S("z")}}, "x": N("1.0")}}}, True),
    ("map.deep.y = :v", {"v": S("z")}, True),
    ("list[1] = :v", {"v": S("two")}, True),
    ("list[9] = :v", {"v": S("two")}, False),
    ("yes = :v", {"v": {"BOOL": True}}, True),
    ("nothing = :v", {"v": {"NULL": True}}, True),
    ("n BETWEEN :v AND :w", {"v": N(1), "w": N("1.5")}, True),
    ("n between :v and :w", {"v": N(2), "w": N(3)}, False),
    ("n IN (:v, :w)", {"v": N(2), "w": N("1.5")}, True),
    ("n IN (:v)", {"v": S("1.5")}, False),
    ("attribute_exists(map.deep)", {}, True),
    ("attribute_exists(map.no)", {}, False),
    ("attribute_exists(list[0]) AND attribute_not_exists(list[7])", {}, True),
    ("attribute_type(n, :v)", {"v": S("N")}, True),
    ("attribute_type(nothing, :v)", {"v": S("NULL")}, True),
    ("attribute_type(no, :v)", {"v": S("NULL")}, False),
    ("begins_with(text, :v)", {"v": S("hell")}, True),
    ("begins_with(n, :v)", {"v": S("1")}, False),
    ("begins_with(bytes, :v)", {"v": {"B": b"\x00"}}, True),
    ("contains(text, :v)", {"v": S("ell")}, True),
    ("contains(text, :v)", {"v": N(1)}, False),
    ("contains(texts, :v)", {"v": S("b")}, True),
    ("contains(numbers, :v)", {"v": N("2.0")}, True),
    ("contains(list, :v)", {"v": N(1)}, True),
    ("contains(map, :v)", {"v": S("x")}, False),
    ("size(text) = :v", {"v": N(5)}, True),
    ("size(texts) = :v", {"v": N(2)}, True),
    ("size(list) = :v AND size(map) = :w", {"v": N(3), "w": N(2)}, True),
    ("size(bytes) > size(texts)", {}, False),
    ("size(n) = :v", {"v": N(1)}, False),
    ("n = :v OR text = :w AND n = :w", {"v": N("1.5"), "w": S("no")}, True),
    ("(n = :v OR text = :w) AND n = :w", {"v": N("1.5"), "w": S("no")}, False),
    ("NOT n = :v AND text = :w", {"v": N(1), "w": S("hello")}, True),
    ("NOT (n = :v OR text = :w)", {"v": N(1), "w": S("hello")}, False),
    ("not not n = :v", {"v": N("1.5")}, True),
    ("n = n2", {}, False),
    ("id < text", {}, True),
]


async def test_what_conditions_say(tables: Tables) -> None:
    """Guide, "Condition and filter expressions, operators, and functions"."""
    await tables.put(EVERYTHING)
    differing = [
        condition
        for condition, values, expected in CONDITIONS
        if await tables.holds(placed(condition), names=placed_names(condition), **values) is not expected
    ]
    assert differing == DIFFERENT.get((tables.server, "conditions"), [])


async def test_conditions_that_are_none(tables: Tables) -> None:
    """Guide, "Condition and filter expressions, operators, and functions"; "Expression attribute names"."""
    wrong: dict[str, dict[str, Any]] = {
        "syntax": {"ConditionExpression": "id = = id2"},
        "empty": {"ConditionExpression": ""},
        "a value that is not given": {"ConditionExpression": "id = :v"},
        "a name that is not given": {"ConditionExpression": "attribute_exists(#v)"},
        "a value for nothing": {
            "ConditionExpression": "attribute_exists(id)",
            "ExpressionAttributeValues": {":v": N(1)},
        },
        "a name for nothing": {"ConditionExpression": "attribute_exists(id)", "ExpressionAttributeNames": {"#v": "x"}},
        "no names at all": {"ConditionExpression": "attribute_exists(id)", "ExpressionAttributeNames": {}},
        "no values at all": {"ConditionExpression": "attribute_exists(id)", "ExpressionAttributeValues": {}},
        "names without an expression": {"ExpressionAttributeNames": {"#v": "x"}},
        "no such function": {"ConditionExpression": "exists(id)"},
        "too many operands": {"ConditionExpression": "attribute_exists(id, id2)"},
        "no condition": {"ConditionExpression": "size(id)"},
        "compared to itself": {"ConditionExpression": "id = id"},
        "brackets twice": {"ConditionExpression": "((attribute_exists(id)))"},
        "no order": {"ConditionExpression": "id < :v", "ExpressionAttributeValues": {":v": {"BOOL": True}}},
        "no beginning": {"ConditionExpression": "begins_with(id, :v)", "ExpressionAttributeValues": {":v": N(1)}},
        "no such type": {"ConditionExpression": "attribute_type(id, :v)", "ExpressionAttributeValues": {":v": S("T")}},
        "nothing between": {
            "ConditionExpression": "id BETWEEN :v AND :w",
            "ExpressionAttributeValues": {":v": S("b"), ":w": S("a")},
        },
        "more than 100 options": {
            "ConditionExpression": f"id IN ({', '.join(f':v{n}' for n in range(101))})",
            "ExpressionAttributeValues": {f":v{n}": N(n) for n in range(101)},
        },
    }
    await tables.refusals("put_item", wrong, TableName=tables.plain, Item={"id": S("a")})


# Updates


async def test_an_update_makes_an_item_of_its_key(tables: Tables) -> None:
    """Model, UpdateItem: "adds a new item to the table if it does not already exist"."""
    assert await tables.update("SET n = :n", n=N(1), ReturnValues="ALL_OLD") == {}
    assert await tables.get() == {"id": S("a"), "n": N(1)}
    assert (await tables.update("REMOVE n", key="b", ReturnValues="ALL_NEW"))["Attributes"] == {"id": S("b")}


#: Updates of `EVERYTHING`, with their values, and the attributes that are then otherwise; None: gone.
UPDATES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("SET n = :v, more = :w", {"v": N(2), "w": S("x")}, {"n": N(2), "more": S("x")}),
    ("SET n = n + :v", {"v": N("0.6")}, {"n": N("2.1")}),
    ("SET n = :v - n", {"v": N(1)}, {"n": N("-0.5")}),
    ("SET n = if_not_exists(n, :v)", {"v": N(7)}, {}),
    ("SET c = if_not_exists(c, :z) + :v", {"v": N(1), "z": N(0)}, {"c": N(1)}),
    ("SET c = if_not_exists(c, n)", {}, {"c": N("1.5")}),
    ("SET list = list_append(list, :v)", {"v": {"L": [N(9)]}}, {"list": {"L": [*EVERYTHING["list"]["L"], N(9)]}}),
    ("SET list = list_append(:v, list)", {"v": {"L": [N(9)]}}, {"list": {"L": [N(9), *EVERYTHING["list"]["L"]]}}),
    ("SET list = list_append(if_not_exists(c, :v), :v)", {"v": {"L": [N(9)]}}, {"list": {"L": [N(9), N(9)]}}),
    ("SET list[0] = :v, list[8] = :w", {"v": N(7), "w": N(8)}, {"list": {"L": [N(7), S("two"), {"L": []}, N(8)]}}),
    ("SET map.deep.y = :v, map.z = :v", {"v": N(7)}, {"map": {"M": {"x": N(1), "z": N(7), "deep": {"M": {"y": N(7)}}}}}),
    ("SET n = map.x, map.x = n", {}, {"n": N(1), "map": {"M": {**EVERYTHING["map"]["M"], "x": N("1.5")}}}),
    ("REMOVE n, no, map.deep", {}, {"n": None, "map": {"M": {"x": N(1)}}}),
    ("REMOVE list[0], list[2], list[5]", {}, {"list": {"L": [S("two")]}}),
    ("ADD n :v, c :v", {"v": N(2)}, {"n": N("3.5"), "c": N(2)}),
    ("ADD n :v", {"v": N("-1.6")}, {"n": N("-0.1")}),
    ("SET n = n + :half", {"half": N("0.5")}, {"n": N(2)}),
    ("ADD texts :v, numbers :w", {"v": {"SS": ["c", "a"]}, "w": {"NS": ["3"]}},
     {"texts": {"SS": ["a", "b", "c"]}, "numbers": {"NS": ["1", "2", "3"]}}),
    ("ADD map.x :v", {"v": N(2)}, {"map": {"M": {**EVERYTHING["map"]["M"], "x": N(3)}}}),
    ("DELETE texts :v, no :v", {"v": {"SS": ["a", "q"]}}, {"texts": {"SS": ["b"]}}),
    ("DELETE texts :v", {"v": {"SS": ["a", "b"]}}, {"texts": None}),
    ("SET n = :v REMOVE yes ADD c :v DELETE numbers :w", {"v": N(2), "w": {"NS": ["1"]}},
     {"n": N(2), "yes": None, "c": N(2), "numbers": {"NS": ["2"]}}),
    ("set n = :v remove yes", {"v": N(2)}, {"n": N(2), "yes": None}),
    ("SET n = n + :v", {"v": N("1E36")}, {"n": N("1" + "0" * 35 + "1.5")}),
]  # fmt: skip


async def test_what_updates_do(tables: Tables) -> None:
    """Guide, "Using update expressions in DynamoDB"."""
    differing: list[str] = []
    for expression, values, changed in UPDATES:
        await tables.put(EVERYTHING)
        expected = {name: value for name, value in {**EVERYTHING, **changed}.items() if value is not None}
        try:
            answer = await tables.update(expression, **values, ReturnValues="ALL_NEW")
            if (answer["Attributes"], await tables.get()) != (expected, expected):
                differing.append(expression)
        except ClientError:
            differing.append(expression)
    assert differing == DIFFERENT.get((tables.server, "updates"), [])


#: Updates that are refused, with their values.
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("SET id = :v", {"v": S("b")}),
    ("REMOVE id", {}),
    ("SET n = no + :v", {"v": N(1)}),
    ("SET n = no", {}),
    ("SET n = n + :v", {"v": S("x")}),
    ("SET n = id + :v", {"v": N(1)}),
    ("SET n = n + :v", {"v": N("1E-38")}),
    ("SET n = n + :v + :v", {"v": N(1)}),
    ("SET no.x = :v", {"v": N(1)}),
    ("SET n.x = :v", {"v": N(1)}),
    ("SET n[0] = :v", {"v": N(1)}),
    ("REMOVE no.x", {}),
    ("SET n = :v, n = :v", {"v": N(1)}),
    ("SET map = :v, map.x = :v", {"v": N(1)}),
    ("SET n = :v REMOVE n", {"v": N(1)}),
    ("SET n = :v SET c = :v", {"v": N(1)}),
    ("SET c[0] = :v, c.x = :v", {"v": N(1)}),
    ("SET list = list_append(list, :v)", {"v": N(1)}),
    ("SET list = list_append(n, :v)", {"v": {"L": []}}),
    ("SET n = if_not_exists(:v, n)", {"v": N(1)}),
    ("SET n = size(id)", {}),
    ("ADD n :v", {"v": S("x")}),
    ("ADD id2 :v", {"v": {"L": []}}),
    ("ADD n :v", {"v": {"SS": ["a"]}}),
    ("DELETE n :v", {"v": N(1)}),
    ("DELETE n :v", {"v": {"SS": ["a"]}}),
    ("n = :v", {"v": N(1)}),
    ("SET", {}),
    ("", {}),
    ("SET n = :v,", {"v": N(1)}),
]


async def test_updates_that_are_none(tables: Tables) -> None:
    """Guide, "Using update expressions in DynamoDB"."""
    await tables.put(EVERYTHING)
    taken: list[str] = []
    for expression, values in REFUSED:
        code = await tables.refused_update(expression, **values)
        if code != "ValidationException" or await tables.get() != EVERYTHING:
            taken.append(expression)
            await tables.put(EVERYTHING)
    assert taken == DIFFERENT.get((tables.server, "refused updates"), [])


@pytest.mark.parametrize(
    ("returned", "expected"),
    [
        ("ALL_OLD", {"id": S("a"), "n": N(1), "m": {"M": {"x": N(1), "y": N(1)}}, "old": N(1)}),
        ("ALL_NEW", {"id": S("a"), "n": N(2), "m": {"M": {"x": N(2), "y": N(1)}}, "new": N(2)}),
        ("UPDATED_OLD", {"n": N(1), "m": {"M": {"x": N(1)}}, "old": N(1)}),
        ("UPDATED_NEW", {"n": N(2), "m": {"M": {"x": N(2)}}, "new": N(2)}),
        ("NONE", None),
    ],
)
async def test_what_an_update_gives_back(tables: Tables, returned: str, expected: Any) -> None:
    """Model, UpdateItem: ReturnValues."""
    await tables.put({"id": S("a"), "n": N(1), "m": {"M": {"x": N(1), "y": N(1)}}, "old": N(1)})
    answer = await tables.update(
        "SET n = :v, m.x = :v, #new = :v REMOVE #old",
        v=N(2),
        ReturnValues=returned,
        ExpressionAttributeNames={"#new": "new", "#old": "old"},
    )
    assert answer.get("Attributes") == expected


# Query and scan


async def fill(tables: Tables, count: int = 5) -> None:
    await tables.sort()
    for partition in ("a", "b"):
        for n in range(count):
            item = {"p": S(partition), "s": N(n), "v": N(n % 2)}
            await tables.call("put_item", TableName=tables.sorted, Item=item)


async def query(tables: Tables, condition: str, **more: Any) -> dict[str, Any]:
    values = {f":{name}": more.pop(name) for name in list(more) if name.islower()}
    return await tables.call(
        "query",
        TableName=tables.sorted,
        KeyConditionExpression=condition,
        ExpressionAttributeValues=values,
        ConsistentRead=True,
        **more,
    )


def places(answer: dict[str, Any]) -> list[int]:
    return [int(item["s"]["N"]) for item in answer["Items"]]


async def test_what_a_query_finds(tables: Tables) -> None:
    """Guide, "Key condition expressions for the Query operation"."""
    await fill(tables)
    wanted: list[tuple[str, dict[str, Any], list[int]]] = [
        ("p = :p", {}, [0, 1, 2, 3, 4]),
        ("p = :p AND s = :x", {"x": N("2.0")}, [2]),
        ("s > :x AND p = :p", {"x": N(2)}, [3, 4]),
        ("p = :p and s <= :x", {"x": N(1)}, [0, 1]),
        ("p = :p AND s BETWEEN :x AND :y", {"x": N(1), "y": N(3)}, [1, 2, 3]),
        ("(p = :p) AND (s < :x)", {"x": N(1)}, [0]),
    ]
    for condition, values, found in wanted:
        answer = await query(tables, condition, p=S("a"), **values)
        assert places(answer) == found
        assert (answer["Count"], answer["ScannedCount"]) == (len(found), len(found))
        assert places(await query(tables, condition, p=S("a"), ScanIndexForward=False, **values)) == found[::-1]
        assert places(await query(tables, condition, p=S("no"), **values)) == []


async def test_numbers_are_in_order_by_amount_and_texts_by_their_bytes(tables: Tables) -> None:
    """Guide, "Querying tables": the order of sort keys."""
    await tables.sort()
    for n in ("-1.5", "10", "9", "0.1", "1E-5"):
        await tables.call("put_item", TableName=tables.sorted, Item={"p": S("a"), "s": N(n)})
    answer = await query(tables, "p = :p", p=S("a"))
    assert [item["s"]["N"] for item in answer["Items"]] == ["-1.5", "0.00001", "0.1", "9", "10"]
    name = f"{tables.plain}-5"
    await tables.make(name, AttributeDefinitions=[P, Q], KeySchema=[HASH, {"AttributeName": "q", "KeyType": "RANGE"}])
    for text in ("b", "B", "é", "a", "ab", "\U0001f600", "\uffee"):
        await tables.call("put_item", TableName=name, Item={"p": S("a"), "q": S(text)})
    asked = {"KeyConditionExpression": "p = :p", "ExpressionAttributeValues": {":p": S("a")}}
    found = await tables.call("query", TableName=name, **asked)
    assert [item["q"]["S"] for item in found["Items"]] == ["B", "a", "ab", "b", "é", "\uffee", "\U0001f600"]


async def test_a_query_goes_on_where_it_stopped(tables: Tables) -> None:
    """Guide, "Paginating table query results": a page that is full has a key, even when nothing is left."""
    await fill(tables)
    for forward, expected in ((True, [[0, 1], [2, 3], [4]]), (False, [[4, 3], [2, 1], [0]])):
        pages, start = [], {}
        while True:
            answer = await query(tables, "p = :p", p=S("a"), Limit=2, ScanIndexForward=forward, **start)
            pages.append(places(answer))
            if "LastEvaluatedKey" not in answer:
                break
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        assert pages == expected
    answer = await query(tables, "p = :p", p=S("a"), Limit=5)
    assert answer["LastEvaluatedKey"] == {"p": S("a"), "s": N(4)}


async def test_a_query_may_begin_behind_an_item_that_is_not_there(tables: Tables) -> None:
    """Guide, "Paginating table query results"."""
    await fill(tables)
    start = {"p": S("a"), "s": N("2.5")}
    assert places(await query(tables, "p = :p", p=S("a"), ExclusiveStartKey=start)) == [3, 4]
    assert places(await query(tables, "p = :p", p=S("a"), ExclusiveStartKey=start, ScanIndexForward=False)) == [2, 1, 0]


async def test_a_limit_counts_what_is_looked_at_and_not_what_is_found(tables: Tables) -> None:
    """Guide, "Filter expressions for the Query operation"."""
    await fill(tables)
    answer = await query(tables, "p = :p", p=S("a"), v=N(1), FilterExpression="v = :v", Limit=3)
    assert places(answer) == [1]
    assert (answer["Count"], answer["ScannedCount"]) == (1, 3)
    answer = await query(tables, "p = :p", p=S("a"), v=N(1), FilterExpression="v = :v", Select="COUNT")
    assert (answer["Count"], answer["ScannedCount"], "Items" in answer) == (2, 5, False)


async def test_a_page_has_at_most_a_megabyte(tables: Tables) -> None:
    """Guide, "Querying tables": "a single Query operation can retrieve a maximum of 1 MB of data"."""
    await tables.sort()
    for n in range(4):
        item = {"p": S("a"), "s": N(n), "load": S("x" * 350_000)}
        await tables.call("put_item", TableName=tables.sorted, Item=item)
    answer = await query(tables, "p = :p", p=S("a"), ProjectionExpression="s")
    assert places(answer) == [0, 1, 2]
    assert answer["LastEvaluatedKey"] == {"p": S("a"), "s": N(2)}


async def test_queries_that_are_none(tables: Tables) -> None:
    """Guide, "Key condition expressions for the Query operation"."""
    wrong: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
        "no partition key": ("s = :x", {"x": N(1)}, {}),
        "many partitions": ("p > :x", {"x": S("a")}, {}),
        "or": ("p = :x OR s = :y", {"x": S("a"), "y": N(1)}, {}),
        "not equal": ("p = :x AND s <> :y", {"x": S("a"), "y": N(1)}, {}),
        "no key": ("p = :x AND v = :y", {"x": S("a"), "y": N(1)}, {}),
        "another type": ("p = :x AND s = :y", {"x": S("a"), "y": S("1")}, {}),
        "a number's beginning": ("p = :x AND begins_with(s, :y)", {"x": S("a"), "y": S("1")}, {}),
        "empty": ("p = :x", {"x": S("")}, {}),
        "a filter of a key": ("p = :x", {"x": S("a"), "y": N(1)}, {"FilterExpression": "s = :y"}),
        "no limit": ("p = :x", {"x": S("a")}, {"Limit": 0}),
        "no such index": ("p = :x", {"x": S("a")}, {"IndexName": "none"}),
        "half a start": ("p = :x", {"x": S("a")}, {"ExclusiveStartKey": {"p": S("a")}}),
    }
    cases = {
        case: {
            "KeyConditionExpression": condition,
            "ExpressionAttributeValues": {f":{name}": value for name, value in values.items()},
            **more,
        }
        for case, (condition, values, more) in wrong.items()
    }
    await tables.refusals("query", cases, TableName=await tables.sort())


async def test_a_scan_finds_everything_once_page_by_page(tables: Tables) -> None:
    """Guide, "Scanning tables in DynamoDB"."""
    await fill(tables)
    found, start = [], {}
    while True:
        answer = await tables.call("scan", TableName=tables.sorted, Limit=3, **start)
        found += [(item["p"]["S"], int(item["s"]["N"])) for item in answer["Items"]]
        if "LastEvaluatedKey" not in answer:
            break
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
    assert sorted(found) == [(partition, n) for partition in ("a", "b") for n in range(5)]
    assert [n for partition, n in found if partition == "a"] == [0, 1, 2, 3, 4]


async def test_a_scan_is_filtered_and_may_be_parted(tables: Tables) -> None:
    """Guide, "Filter expressions for Scan", "Parallel scan"."""
    await fill(tables)
    answer = await tables.call(
        "scan",
        TableName=tables.sorted,
        FilterExpression="s = :s",
        ProjectionExpression="p",
        ExpressionAttributeValues={":s": N(1)},
    )
    assert sorted(item["p"]["S"] for item in answer["Items"]) == ["a", "b"]
    assert answer["ScannedCount"] == 10
    parts = [await tables.call("scan", TableName=tables.sorted, Segment=n, TotalSegments=3) for n in range(3)]
    assert sum(part["Count"] for part in parts) == 10


# Batches


def puts(*keys: str, **more: Any) -> list[dict[str, Any]]:
    return [{"PutRequest": {"Item": {"id": S(key), **more}}} for key in keys]


async def test_a_batch_puts_and_deletes(tables: Tables) -> None:
    """Model, BatchWriteItem."""
    await tables.put({"id": S("old")})
    requests = [*puts("a", "b", n=N(1)), {"DeleteRequest": {"Key": {"id": S("old")}}}]
    assert (await tables.call("batch_write_item", RequestItems={tables.plain: requests}))["UnprocessedItems"] == {}
    keys = [{"id": S(key)} for key in ("a", "b", "old")]
    answer = await tables.call("batch_get_item", RequestItems={tables.plain: {"Keys": keys, "ConsistentRead": True}})
    found = answer["Responses"][tables.plain]
    assert sorted(found, key=lambda item: str(item["id"]["S"])) == [
        {"id": S("a"), "n": N(1)},
        {"id": S("b"), "n": N(1)},
    ]
    assert answer["UnprocessedKeys"] == {}


@pytest.mark.parametrize(
    "requests",
    [
        pytest.param([*puts("a"), {"DeleteRequest": {"Key": {"id": S("a")}}}], id="an item twice"),
        pytest.param(puts("a", "b", "a"), id="an item put twice"),
        pytest.param(puts(*map(str, range(26))), id="26 requests"),
        pytest.param([], id="no request"),
        pytest.param([*puts("a"), {"PutRequest": {"Item": {"x": S("b")}}}], id="no key"),
        pytest.param(puts("a", ""), id="an empty key"),
        pytest.param([*puts("a"), *puts("b", load=S("x" * 400 * KIB))], id="a large item"),
    ],
)
async def test_a_batch_of_writes_is_refused_as_a_whole(tables: Tables, requests: Any) -> None:
    """Model, BatchWriteItem: "If one or more of the following is true, DynamoDB rejects the entire batch"."""
    found = await tables.refusal("batch_write_item", RequestItems={tables.plain: requests})
    assert found == "ValidationException"
    assert await tables.get() is None


async def test_a_batch_writes_to_tables_that_are_there(tables: Tables) -> None:
    """Model, BatchWriteItem and BatchGetItem: ResourceNotFoundException."""
    requests = {tables.plain: puts("a"), "there-is-none": puts("b")}
    assert await tables.refusal("batch_write_item", RequestItems=requests) == "ResourceNotFoundException"
    assert await tables.get() is None
    keys = {"Keys": [{"id": S("a")}]}
    assert await tables.refusal("batch_get_item", RequestItems={"there-is-none": keys}) == "ResourceNotFoundException"


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([S("a"), S("a")], id="twice"),
        pytest.param([S(str(n)) for n in range(101)], id="101 keys"),
        pytest.param([S("")], id="an empty key"),
        pytest.param([N(1)], id="another type"),
    ],
)
async def test_a_batch_of_reads_is_refused_as_a_whole(tables: Tables, keys: Any) -> None:
    """Model, BatchGetItem."""
    asked = {tables.plain: {"Keys": [{"id": key} for key in keys]}}
    assert await tables.refusal("batch_get_item", RequestItems=asked) == "ValidationException"


async def test_a_batch_of_reads_brings_parts(tables: Tables) -> None:
    """Model, BatchGetItem: ProjectionExpression."""
    await tables.put({"id": S("a"), "n": N(1), "x": N(2)})
    asked = {
        "Keys": [{"id": S("a")}],
        "ProjectionExpression": "#n",
        "ExpressionAttributeNames": {"#n": "n"},
    }
    answer = await tables.call("batch_get_item", RequestItems={tables.plain: asked})
    assert answer["Responses"][tables.plain] == [{"n": N(1)}]


# Transactions


async def test_a_transaction_writes_all_or_none_and_says_why_in_order(tables: Tables) -> None:
    """Model, TransactWriteItems and TransactionCanceledException: "None" is a literal, without a message."""
    await tables.put({"id": S("there"), "n": N(1)})
    is_new = {"ConditionExpression": "attribute_not_exists(id)"}
    answer = await tables.error(
        "transact_write_items",
        TransactItems=[
            tables.put_action("a"),
            tables.put_action("there", ReturnValuesOnConditionCheckFailure="ALL_OLD", **is_new),
            tables.put_action("b", **is_new),
            {"Delete": {"TableName": tables.plain, "Key": {"id": S("there2")}, "ConditionExpression": "n = n2"}},
        ],
    )
    assert answer["Error"]["Code"] == "TransactionCanceledException"
    assert [
        {name: value for name, value in reason.items() if value is not None and name != "Message"}
        for reason in answer["CancellationReasons"]
    ] == [
        {"Code": "None"},
        {"Code": "ConditionalCheckFailed", "Item": {"id": S("there"), "n": N(1)}},
        {"Code": "None"},
        {"Code": "ConditionalCheckFailed"},
    ]
    assert [await tables.get(key) for key in ("a", "b")] == [None, None]


async def test_what_a_transaction_does(tables: Tables) -> None:
    """Model, TransactWriteItems: Put, Update, Delete, ConditionCheck."""
    await tables.sort()
    await tables.put({"id": S("gone")})
    await tables.put({"id": S("looked at"), "n": N(1)})
    await tables.transact(
        tables.put_action("new"),
        tables.increment("counted"),
        {"Delete": {"TableName": tables.plain, "Key": {"id": S("gone")}}},
        {
            "ConditionCheck": {
                "TableName": tables.plain,
                "Key": {"id": S("looked at")},
                "ConditionExpression": "n = :one",
                "ExpressionAttributeValues": {":one": N(1)},
            }
        },
        {"Put": {"TableName": tables.sorted, "Item": {"p": S("p"), "s": N(1)}}},
    )
    assert await tables.get("new") == {"id": S("new")}
    assert await tables.get("counted") == {"id": S("counted"), "n": N(1)}
    assert await tables.get("gone") is None
    assert await tables.get("looked at") == {"id": S("looked at"), "n": N(1)}
    assert places(await query(tables, "p = :p", p=S("p"))) == [1]


async def test_the_same_token_writes_once(tables: Tables) -> None:
    """Model, TransactWriteItems: ClientRequestToken."""
    token = {"ClientRequestToken": tables.plain[:36]}
    for _ in range(3):
        await tables.transact(tables.increment(), **token)
    assert await tables.get() == {"id": S("a"), "n": N(1)}
    found = await tables.refusal("transact_write_items", TransactItems=[tables.put_action("b")], **token)
    assert found == "IdempotentParameterMismatchException"
    await tables.transact(tables.increment())
    assert await tables.get() == {"id": S("a"), "n": N(2)}


async def test_the_token_of_a_cancelled_transaction_may_be_used_again(tables: Tables) -> None:
    """Not documented; as on DynamoDB Local."""
    await tables.put({"id": S("a")})
    put = tables.put_action("a", item={"n": N(1)}, ConditionExpression="attribute_not_exists(id)")
    token = {"ClientRequestToken": tables.plain[:36]}
    assert await tables.reasons(put, **token) == ["ConditionalCheckFailed"]
    await tables.call("delete_item", TableName=tables.plain, Key={"id": S("a")})
    await tables.transact(put, **token)
    assert await tables.get() == {"id": S("a"), "n": N(1)}


@pytest.mark.parametrize("count", [0, 101])
async def test_a_transaction_has_1_to_100_actions(tables: Tables, count: int) -> None:
    """Model, TransactWriteItems."""
    actions = [tables.put_action(str(n)) for n in range(count)]
    assert await tables.refusal("transact_write_items", TransactItems=actions) == "ValidationException"


async def test_a_transaction_of_100_is_done(tables: Tables) -> None:
    """Model, TransactWriteItems."""
    await tables.transact(*(tables.put_action(str(n)) for n in range(100)))
    assert (await tables.call("scan", TableName=tables.plain, Select="COUNT"))["Count"] == 100


async def test_a_transaction_has_at_most_four_megabytes(tables: Tables) -> None:
    """Model, TransactWriteItems: "The aggregate size of the items in the transaction cannot exceed 4 MB"."""
    load = {"load": S("x" * 400_000)}
    actions = [tables.put_action(str(n), item=load) for n in range(11)]
    assert await tables.refusal("transact_write_items", TransactItems=actions) == "ValidationException"
    await tables.transact(*actions[:10])


async def test_a_transaction_has_an_item_once(tables: Tables) -> None:
    """Model, TransactWriteItems: "no two actions can target the same item"."""
    actions = [tables.put_action("a"), tables.increment("a")]
    assert await tables.refusal("transact_write_items", TransactItems=actions) == "ValidationException"
    assert await tables.get() is None


async def test_a_change_that_cannot_be_cancels_the_transaction(tables: Tables) -> None:
    """Model, TransactionCanceledException: "Validation Error", with messages of these four."""
    await tables.put({"id": S("a"), "n": N(1)})
    for expression, value in (
        ("SET n = missing + :v", N(1)),
        ("ADD n :v", {"SS": ["x"]}),
        ("SET missing.x = :v", N(1)),
        ("SET x = :v", S("x" * 400 * KIB)),
    ):
        update = {"TableName": tables.plain, "Key": {"id": S("a")}, "UpdateExpression": expression}
        action = {"Update": {**update, "ExpressionAttributeValues": {":v": value}}}
        assert await tables.reasons(tables.put_action("b"), action) == ["None", "ValidationError"]
    assert await tables.get("b") is None


async def test_a_key_that_does_not_fit_cancels_the_transaction(tables: Tables) -> None:
    """Not documented; as on DynamoDB Local."""
    wrong = {"Put": {"TableName": tables.plain, "Item": {"id": N(1)}}}
    assert await tables.reasons(tables.put_action("a"), wrong) == ["None", "ValidationError"]
    assert await tables.get() is None


async def test_one_action_is_one_action(tables: Tables) -> None:
    """Model, TransactWriteItem."""
    both = {**tables.put_action("a"), **tables.increment("b")}
    assert await tables.refusal("transact_write_items", TransactItems=[both]) == "ValidationException"


async def test_a_transaction_reads_in_order(tables: Tables) -> None:
    """Model, TransactGetItems."""
    await tables.put({"id": S("a"), "n": N(1)})
    wanted = [
        {"Get": {"TableName": tables.plain, "Key": {"id": S("no")}}},
        {"Get": {"TableName": tables.plain, "Key": {"id": S("a")}, "ProjectionExpression": "n"}},
    ]
    answer = await tables.call("transact_get_items", TransactItems=wanted)
    assert answer["Responses"] == [{}, {"Item": {"n": N(1)}}]


# Statements

INSERT = "INSERT INTO {} VALUE {'id': ?, 'n': ?}"


async def test_an_insert_takes_a_free_key_only(tables: Tables) -> None:
    """Guide, "PartiQL insert statements": DuplicateItem. Without the item: as on DynamoDB Local."""
    assert await tables.statement(INSERT, S("a"), N(1), old=True) == {}
    answer = await tables.statement(INSERT, S("a"), N(2), old=True)
    assert (answer["Error"]["Code"], "Item" in answer["Error"]) == ("DuplicateItem", False)
    assert await tables.get() == {"id": S("a"), "n": N(1)}


async def test_what_an_insert_may_hold(tables: Tables) -> None:
    """Guide, "PartiQL data types for DynamoDB"."""
    text = (
        "insert into {} value {'id': 'it''s', 'n': -1.50, 'l': [1, 'a', true, null], 'm': {'x y': {'y': 2}}, "
        "'s': <<'a', 'b'>>, 'ns': <<1>>, 'b': ?, 'ls': ?};"
    )
    assert await tables.statement(text, {"B": b"\x01"}, {"L": [N(1)]}) == {}
    assert await tables.get("it's") == {
        "id": S("it's"),
        "n": N("-1.5"),
        "l": {"L": [N(1), S("a"), {"BOOL": True}, {"NULL": True}]},
        "b": {"B": b"\x01"},
        "ls": {"L": [N(1)]},
        "m": {"M": {"x y": {"M": {"y": N(2)}}}},
        "s": {"SS": ["a", "b"]},
        "ns": {"NS": ["1"]},
    }


UPDATE = 'UPDATE {} SET "n" = ? SET "x" = ? REMOVE "gone" WHERE "id" = ?'


async def test_an_update_changes_what_is_there(tables: Tables) -> None:
    """Guide, "PartiQL update statements"."""
    await tables.put({"id": S("a"), "n": N(1), "gone": N(1)})
    assert await tables.statement(UPDATE, N(2), S("y"), S("a")) == {}
    assert await tables.get() == {"id": S("a"), "n": N(2), "x": S("y")}


async def test_an_update_of_what_is_not_there_is_refused(tables: Tables) -> None:
    """Guide, "PartiQL update statements": no upsert. The code as on DynamoDB Local."""
    answer = await tables.statement(UPDATE, N(2), S("y"), S("a"), old=True)
    assert (answer["Error"]["Code"], "Item" in answer["Error"]) == ("ConditionalCheckFailed", False)
    assert await tables.get() is None


async def test_an_update_whose_condition_is_false_brings_the_item(tables: Tables) -> None:
    """Model, BatchStatementError and ReturnValuesOnConditionCheckFailure."""
    item = {"id": S("a"), "n": N(1), "owner": S("me")}
    await tables.put(item)
    text = 'UPDATE {} SET n = 2 WHERE id = ? AND "owner" = ? AND gone IS MISSING AND n < ?'
    answer = await tables.statement(text, S("a"), S("you"), N(5), old=True)
    assert (answer["Error"]["Code"], answer["Error"]["Item"]) == ("ConditionalCheckFailed", item)
    answer = await tables.statement(text, S("a"), S("you"), N(5))
    assert (answer["Error"]["Code"], "Item" in answer["Error"]) == ("ConditionalCheckFailed", False)
    assert await tables.statement(text, S("a"), S("me"), N(5)) == {}
    assert await tables.get() == {**item, "n": N(2)}


async def test_a_delete_is_on_its_condition_and_nothing_there_is_as_good(tables: Tables) -> None:
    """Guide, "PartiQL delete statements"; of what is not there as on DynamoDB Local."""
    await tables.put({"id": S("a"), "n": N(1)})
    text = "DELETE FROM {} WHERE id = ? AND n = ?"
    answer = await tables.statement(text, S("a"), N(2), old=True)
    assert (answer["Error"]["Code"], answer["Error"]["Item"]) == (
        "ConditionalCheckFailed",
        {"id": S("a"), "n": N(1)},
    )
    assert await tables.statement(text, S("a"), N(1)) == {}
    assert await tables.get() is None
    assert await tables.statement(text, S("a"), N(1), old=True) == {}


async def test_a_select_by_key_brings_one_item_if_any(tables: Tables) -> None:
    """Guide, "PartiQL select statements"; "Running batch operations with PartiQL"."""
    await tables.put({"id": S("a"), "n": N(1), "m": {"M": {"x": N(3)}}})
    assert await tables.batch(("SELECT * FROM {} WHERE id = ?", S("a")), ("SELECT * FROM {} WHERE id = 'no'",)) == [
        {"Item": {"id": S("a"), "n": N(1), "m": {"M": {"x": N(3)}}}},
        {},
    ]
    assert await tables.statement("SELECT n, m.x FROM {} WHERE id = 'a'") == {
        "Item": {"n": N(1), "m": {"M": {"x": N(3)}}}
    }
    for wrong in ("n = 1", "id = 'a' AND n = 1", "id > 'a'"):
        assert await tables.statement_error(f"SELECT * FROM {{}} WHERE {wrong}") == "ValidationError"


async def test_each_statement_of_a_batch_has_its_own_answer(tables: Tables) -> None:
    """Model, BatchExecuteStatement: "A HTTP 200 response does not mean that all statements succeeded"."""
    await tables.put({"id": S("there")})
    await tables.put({"id": S("b")})
    answers = await tables.batch(
        (INSERT, S("a"), N(1)),
        (INSERT, S("there"), N(1)),
        ("UPDATE {} SET n = 1 WHERE id = 'no'",),
        ("this is no statement",),
        ("UPDATE {} SET n = 1 WHERE n = 2",),
        ("UPDATE {} SET id = 'x' WHERE id = 'b'",),
        ("INSERT INTO \"there-is-none\" VALUE {'id': 1}",),
        ("INSERT INTO {} VALUE {'n': 1}",),
        ("INSERT INTO {} VALUE {'id': 1}",),
        ("INSERT INTO {} VALUE {'id': ''}",),
        ("UPDATE {} SET n = ? WHERE id = ?", S("c")),
        ("DELETE FROM {} WHERE id = 'd'",),
    )
    assert [answer.get("Error", {}).get("Code") for answer in answers] == [
        None,
        "DuplicateItem",
        "ConditionalCheckFailed",
        "ValidationError",
        "ValidationError",
        "ValidationError",
        "ResourceNotFound",
        "ValidationError",
        "ValidationError",
        "ValidationError",
        "ValidationError",
        None,
    ]
    assert await tables.get() == {"id": S("a"), "n": N(1)}


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param([(INSERT, S(str(n)), N(n)) for n in range(26)], id="26 statements"),
        pytest.param([], id="no statement"),
        pytest.param([(INSERT, S("a"), N(1)), ("SELECT * FROM {} WHERE id = 'b'",)], id="a read and a write"),
        pytest.param([(INSERT, S("a"), N(1)), ("DELETE FROM {} WHERE id = 'a'",)], id="an item twice"),
        pytest.param([("SELECT * FROM {} WHERE id = 'a'",)] * 2, id="an item read twice"),
        pytest.param([(INSERT, S("a"), N("x"))], id="no number"),
    ],
)
async def test_a_batch_of_statements_is_refused_as_a_whole(tables: Tables, statements: Any) -> None:
    """Guide, "Running batch operations with PartiQL": 25, all reads or all writes. The rest as on DynamoDB Local."""
    wanted = [tables.written(*one) for one in statements]
    assert await tables.refusal("batch_execute_statement", Statements=wanted) == "ValidationException"
    assert (await tables.call("scan", TableName=tables.plain, Select="COUNT"))["Count"] == 0


async def test_25_statements_are_done(tables: Tables) -> None:
    """Guide, "Running batch operations with PartiQL"."""
    assert await tables.batch(*((INSERT, S(str(n)), N(n)) for n in range(25))) == [{}] * 25


#: Conditions of statements on an item with `n` 5, `t` "text", `l` [1, 2] and `z` NULL.
WHERE: list[tuple[str, bool]] = [
    ("n = 5", True),
    ("5 = n", True),
    ("n != 5", False),
    ("n <> 4 AND NOT n = 6", True),
    ("n BETWEEN 1 AND 5", True),
    ("n IN [1, 5]", True),
    ("n IN (1, 2)", False),
    ('"no" IS MISSING AND n IS NOT MISSING', True),
    ("z IS NULL AND n IS NOT NULL", True),
    ('"no" IS NULL', False),
    ("begins_with(t, 'te')", True),
    ("contains(t, 'ex')", True),
    ("size(t) = 4", True),
    ("attribute_type(n, 'N')", True),
    ("(n = 4 OR t = 'text')", True),
    ("l[1] = 2", True),
    ('"m"."x" = 1', True),
    ("m.x > 1", False),
]


async def test_what_statements_say_of_items(tables: Tables) -> None:
    """Guide, "PartiQL operators for DynamoDB" and "Use PartiQL functions with DynamoDB"."""
    await tables.put(
        {
            "id": S("a"),
            "n": N(5),
            "t": S("text"),
            "l": {"L": [N(1), N(2)]},
            "z": {"NULL": True},
            "m": {"M": {"x": N(1)}},
        }
    )
    differing: list[str] = []
    for where, expected in WHERE:
        changed = await tables.statement(f"UPDATE {{}} SET done = true WHERE id = 'a' AND {where}")
        wanted = tables.written(f"SELECT id FROM {{}} WHERE id = 'a' AND {where}")
        read = (await tables.call("execute_statement", **wanted))["Items"]
        if ("Error" not in changed, read) != (expected, [{"id": S("a")}] if expected else []):
            differing.append(where)
    assert differing == DIFFERENT.get((tables.server, "where"), [])


#: Changes of statements, and the attributes that are then otherwise.
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("SET n = n + 1, x = 'y'", {"n": N(6), "x": S("y")}),
    ("SET n = 1 - n", {"n": N(-4)}),
    ("SET n = n -1, x = -1.5", {"n": N(4), "x": N("-1.5")}),
    ("SET n = n-1", {"n": N(4)}),
    ("SET l = list_append(l, [3])", {"l": {"L": [N(1), N(2), N(3)]}}),
    ("SET x = if_not_exists(x, n)", {"x": N(5)}),
    ("SET s = set_add(s, <<'b'>>)", {"s": {"SS": ["a", "b"]}}),
    ("SET s = set_delete(s, <<'a'>>)", {"s": None}),
    ("SET m.x = 2 SET l[0] = 7", {"m": {"M": {"x": N(2)}}, "l": {"L": [N(7), N(2)]}}),
    ("REMOVE l[0] REMOVE m.x", {"l": {"L": [N(2)]}, "m": {"M": {}}}),
    ("SET l = list_append(l, ?)", {"l": {"L": [N(1), N(2), N(9)]}}),
]


async def test_what_statements_change(tables: Tables) -> None:
    """Guide, "PartiQL update statements", "Use PartiQL functions with DynamoDB"."""
    item = {"id": S("a"), "n": N(5), "l": {"L": [N(1), N(2)]}, "m": {"M": {"x": N(1)}}, "s": {"SS": ["a"]}}
    for change, expected in CHANGES:
        await tables.put(item)
        parameters = [{"L": [N(9)]}] if "?" in change else []
        answer = await tables.statement(f"UPDATE {{}} {change} WHERE id = 'a' RETURNING ALL NEW *", *parameters)
        changed = {name: value for name, value in {**item, **expected}.items() if value is not None}
        assert answer == {"Item": changed}
        assert await tables.get() == changed


@pytest.mark.parametrize(
    ("returning", "expected"),
    [
        ("ALL OLD", {"id": S("a"), "n": N(1), "k": N(3)}),
        ("ALL NEW", {"id": S("a"), "n": N(2), "k": N(3)}),
        ("MODIFIED OLD", {"n": N(1)}),
        ("MODIFIED NEW", {"n": N(2)}),
    ],
)
async def test_what_a_statement_gives_back(tables: Tables, returning: str, expected: Item) -> None:
    """Guide, "PartiQL update statements": returnvalues."""
    await tables.put({"id": S("a"), "n": N(1), "k": N(3)})
    text = f"UPDATE {{}} SET n = 2 WHERE id = 'a' RETURNING {returning} *"
    assert await tables.statement(text) == {"Item": expected}
    assert await tables.statement("DELETE FROM {} WHERE id = 'a' RETURNING ALL OLD *") == {
        "Item": {"id": S("a"), "n": N(2), "k": N(3)}
    }


async def test_one_statement_alone(tables: Tables) -> None:
    """Model, ExecuteStatement."""
    first = tables.written(INSERT, S("a"), N(1))
    assert (await tables.call("execute_statement", **first)).get("Items", []) == []
    refused = tables.written("UPDATE {} SET n = 2 WHERE id = 'a' AND n = 7", old=True)
    answer = await tables.error("execute_statement", **refused)
    assert (answer["Error"]["Code"], answer["Item"]) == (
        "ConditionalCheckFailedException",
        {"id": S("a"), "n": N(1)},
    )
    await tables.put({"id": S("b"), "n": N(1)})
    found = await tables.call("execute_statement", **tables.written("SELECT id FROM {} WHERE n = 1"))
    assert sorted(item["id"]["S"] for item in found["Items"]) == ["a", "b"]
    wrong = tables.written("SELECT FROM")
    assert await tables.refusal("execute_statement", **wrong) == "ValidationException"


async def test_a_second_insert_alone_is_an_error_of_its_own(tables: Tables) -> None:
    """Model, ExecuteStatement: DuplicateItemException."""
    await tables.put({"id": S("a")})
    insert = tables.written(INSERT, S("a"), N(1))
    assert await tables.refusal("execute_statement", **insert) == "DuplicateItemException"


async def test_a_select_goes_on_where_it_stopped(tables: Tables) -> None:
    """Model, ExecuteStatement: Limit, NextToken."""
    for key in "abc":
        await tables.put({"id": S(key)})
    found: list[str] = []
    more: dict[str, Any] = {}
    for _ in range(5):
        answer = await tables.call("execute_statement", **tables.written("SELECT * FROM {}"), Limit=2, **more)
        assert len(answer["Items"]) <= 2
        found += [item["id"]["S"] for item in answer["Items"]]
        if "NextToken" not in answer:
            break
        more = {"NextToken": answer["NextToken"]}
    assert sorted(found) == ["a", "b", "c"]


async def test_statements_in_a_transaction_are_done_all_or_none(tables: Tables) -> None:
    """Model, ExecuteTransaction."""
    await tables.put({"id": S("a"), "n": N(1)})

    def transaction(*statements: str) -> dict[str, Any]:
        return {"TransactStatements": [tables.written(text) for text in statements]}

    wrong = transaction("INSERT INTO {} VALUE {'id': 'b'}", "UPDATE {} SET n = 5 WHERE id = 'a' AND n = 2")
    answer = await tables.error("execute_transaction", **wrong)
    assert answer["Error"]["Code"] == "TransactionCanceledException"
    assert [reason["Code"] for reason in answer["CancellationReasons"]] == ["None", "ConditionalCheckFailed"]
    assert await tables.get("b") is None
    right = transaction(
        "INSERT INTO {} VALUE {'id': 'b'}",
        "UPDATE {} SET n = 5 WHERE id = 'a' AND n = 1",
        "DELETE FROM {} WHERE id = 'c'",
    )
    await tables.call("execute_transaction", **right)
    assert (await tables.get("a"), await tables.get("b")) == ({"id": S("a"), "n": N(5)}, {"id": S("b")})
    reads = transaction("SELECT n FROM {} WHERE id = 'a'", "SELECT n FROM {} WHERE id = 'no'")
    assert (await tables.call("execute_transaction", **reads))["Responses"] == [{"Item": {"n": N(5)}}, {}]
    checked = transaction("EXISTS(SELECT * FROM {} WHERE id = 'a' AND n = 9)", "DELETE FROM {} WHERE id = 'b'")
    answer = await tables.error("execute_transaction", **checked)
    assert [reason["Code"] for reason in answer["CancellationReasons"]] == ["ConditionalCheckFailed", "None"]


# Streams


async def streamed(tables: Tables, view: str = "NEW_AND_OLD_IMAGES") -> tuple[str, str]:
    """A table with a stream: its name, and the stream's ARN."""
    name = f"{tables.plain}-{view.lower()}"
    await tables.make(name, StreamSpecification={"StreamEnabled": True, "StreamViewType": view})
    table = (await tables.call("describe_table", TableName=name))["Table"]
    assert table["StreamSpecification"] == {"StreamEnabled": True, "StreamViewType": view}
    return name, table["LatestStreamArn"]


async def iterator(tables: Tables, arn: str, kind: str = "TRIM_HORIZON", **more: Any) -> str:
    description = (await tables.streams.describe_stream(StreamArn=arn))["StreamDescription"]
    (shard,) = description["Shards"]
    answer = await tables.streams.get_shard_iterator(
        StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType=kind, **more
    )
    return str(answer["ShardIterator"])


async def records(tables: Tables, place: str, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await tables.streams.get_records(ShardIterator=place, **more))["Records"]
    return found


def told(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(one["eventName"], one["dynamodb"].get("OldImage"), one["dynamodb"].get("NewImage")) for one in found]


IMAGES = {
    "NEW_AND_OLD_IMAGES": (True, True),
    "NEW_IMAGE": (False, True),
    "OLD_IMAGE": (True, False),
    "KEYS_ONLY": (False, False),
}


@pytest.mark.parametrize("view", IMAGES)
async def test_a_stream_tells_what_happened_to_items(tables: Tables, view: str) -> None:
    """Guide, "Change data capture for DynamoDB Streams"; model, StreamRecord."""
    name, arn = await streamed(tables, view)
    one, two = {"p": S("a"), "n": N(1)}, {"p": S("a"), "n": N(2)}
    await tables.call("put_item", TableName=name, Item=one)
    await tables.call("put_item", TableName=name, Item=two)
    await tables.call("delete_item", TableName=name, Key={"p": S("a")})
    found = await records(tables, await iterator(tables, arn))
    has_old, has_new = IMAGES[view]
    old, new = (lambda item: item if has_old else None), (lambda item: item if has_new else None)
    assert told(found) == [
        ("INSERT", None, new(one)),
        ("MODIFY", old(one), new(two)),
        ("REMOVE", old(two), None),
    ]
    for record in found:
        assert record["eventSource"] == "aws:dynamodb"
        assert record["eventVersion"] == "1.1"
        assert record["dynamodb"]["Keys"] == {"p": S("a")}
        assert record["dynamodb"]["StreamViewType"] == view
        assert isinstance(record["dynamodb"]["ApproximateCreationDateTime"], datetime)
        assert record["dynamodb"]["SizeBytes"] > 0
        assert "userIdentity" not in record
    numbers = [int(record["dynamodb"]["SequenceNumber"]) for record in found]
    assert numbers == sorted(set(numbers))
    assert len({record["eventID"] for record in found}) == 3


async def test_what_changes_nothing_leaves_no_record(tables: Tables) -> None:
    """Guide, "Change data capture for DynamoDB Streams": a write that "does not change any data" writes no stream record."""
    name, arn = await streamed(tables)
    for _ in range(2):
        await tables.call("put_item", TableName=name, Item={"p": S("a"), "s": {"SS": ["x", "y"]}})
    await tables.call("put_item", TableName=name, Item={"p": S("a"), "s": {"SS": ["y", "x"]}})
    await tables.call("delete_item", TableName=name, Key={"p": S("no")})
    assert [event for event, *_ in told(await records(tables, await iterator(tables, arn)))] == ["INSERT"]


async def test_all_ways_to_write_leave_records(tables: Tables) -> None:
    """Guide, "Change data capture for DynamoDB Streams"."""
    name, arn = await streamed(tables)
    batch = [{"PutRequest": {"Item": {"p": S("a")}}}]
    await tables.call("batch_write_item", RequestItems={name: batch})
    change = {"TableName": name, "Key": {"p": S("a")}, "UpdateExpression": "SET n = :n"}
    await tables.call("update_item", **change, ExpressionAttributeValues={":n": N(1)})
    await tables.call(
        "transact_write_items", TransactItems=[{"Update": {**change, "ExpressionAttributeValues": {":n": N(2)}}}]
    )
    for text in (f"UPDATE \"{name}\" SET n = 3 WHERE p = 'a'", f"DELETE FROM \"{name}\" WHERE p = 'a'"):
        await tables.call("batch_execute_statement", Statements=[{"Statement": text}])
    found = told(await records(tables, await iterator(tables, arn)))
    assert [event for event, *_ in found] == ["INSERT", "MODIFY", "MODIFY", "MODIFY", "REMOVE"]
    assert [old and old.get("n") for _, old, _ in found] == [None, None, N(1), N(2), N(3)]


async def test_a_stream_is_read_from_a_place_on(tables: Tables) -> None:
    """Model of DynamoDB Streams, GetShardIterator and GetRecords."""
    name, arn = await streamed(tables)
    latest = await iterator(tables, arn, "LATEST")
    for key in "abcd":
        await tables.call("put_item", TableName=name, Item={"p": S(key)})

    def keys(found: list[dict[str, Any]]) -> str:
        return "".join(record["dynamodb"]["Keys"]["p"]["S"] for record in found)

    everything = await records(tables, await iterator(tables, arn))
    assert keys(everything) == "abcd"
    assert keys(await records(tables, latest)) == "abcd"
    assert keys(await records(tables, await iterator(tables, arn, "LATEST"))) == ""
    second = {"SequenceNumber": everything[1]["dynamodb"]["SequenceNumber"]}
    assert keys(await records(tables, await iterator(tables, arn, "AT_SEQUENCE_NUMBER", **second))) == "bcd"
    place = await iterator(tables, arn, "AFTER_SEQUENCE_NUMBER", **second)
    answer = await tables.streams.get_records(ShardIterator=place, Limit=1)
    assert keys(answer["Records"]) == "c"
    assert keys(await records(tables, answer["NextShardIterator"])) == "d"


async def test_a_stream_that_was_disabled_is_read_to_its_end(tables: Tables) -> None:
    """Guide, "Change data capture for DynamoDB Streams": its shards are closed, its data is kept for 24 hours."""
    name, arn = await streamed(tables)
    await tables.call("put_item", TableName=name, Item={"p": S("a")})
    off = {"StreamSpecification": {"StreamEnabled": False}}
    await tables.call("update_table", TableName=name, **off)
    await tables.call("put_item", TableName=name, Item={"p": S("b")})
    description = (await tables.streams.describe_stream(StreamArn=arn))["StreamDescription"]
    assert description["StreamStatus"] == "DISABLED"
    assert "EndingSequenceNumber" in description["Shards"][0]["SequenceNumberRange"]
    answer = await tables.streams.get_records(ShardIterator=await iterator(tables, arn))
    assert [record["dynamodb"]["Keys"] for record in answer["Records"]] == [{"p": S("a")}]
    assert answer.get("NextShardIterator") is None


async def test_a_stream_is_enabled_once_at_a_time(tables: Tables) -> None:
    """Model, UpdateTable: StreamSpecification."""
    name, arn = await streamed(tables)
    on = {"StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"}}
    off = {"StreamSpecification": {"StreamEnabled": False}}
    assert await tables.refusal("update_table", TableName=name, **on) == "ValidationException"
    await tables.call("update_table", TableName=name, **off)
    assert await tables.refusal("update_table", TableName=name, **off) == "ValidationException"
    await tables.call("update_table", TableName=name, **on)
    table = (await tables.call("describe_table", TableName=name))["Table"]
    assert table["LatestStreamArn"] != arn
    listed = (await tables.streams.list_streams(TableName=name))["Streams"]
    assert {one["StreamArn"] for one in listed} >= {table["LatestStreamArn"]}


async def test_what_is_no_stream_no_shard_and_no_iterator(tables: Tables) -> None:
    """Model of DynamoDB Streams."""
    _, arn = await streamed(tables)

    async def code(operation: str, **parameters: Any) -> str:
        with pytest.raises(ClientError) as raised:
            await getattr(tables.streams, operation)(**parameters)
        return str(raised.value.response["Error"]["Code"])

    assert await code("describe_stream", StreamArn=f"{arn[:-3]}999") == "ResourceNotFoundException"
    asked = {"StreamArn": arn, "ShardIteratorType": "LATEST"}
    missing = "shardId-00000000000000000000-00000000"
    assert await code("get_shard_iterator", ShardId=missing, **asked) == "ResourceNotFoundException"
    assert await code("get_records", ShardIterator="none") == "ValidationException"


# In memory only: what takes hours, and what is chosen


async def expiring(tables: Tables) -> tuple[str, str]:
    name, arn = await streamed(tables)
    wanted = {"Enabled": True, "AttributeName": "until"}
    await tables.call("update_time_to_live", TableName=name, TimeToLiveSpecification=wanted)
    return name, arn


async def keys_in(tables: Tables, name: str) -> list[str]:
    return sorted(item["p"]["S"] for item in (await tables.call("scan", TableName=name))["Items"])


async def test_what_expired_is_seen_until_it_is_removed(memory: Tables, clock: ManualClock) -> None:
    """Guide, "Using time to live (TTL)": removed within a few days, until when reads see it; here after 48 hours."""
    name, arn = await expiring(memory)
    now = int(clock.now())
    for key, until in (("soon", N(now + HOUR)), ("later", N(now + DAY)), ("text", S(str(now))), ("never", None)):
        item = {"p": S(key), **({"until": until} if until else {})}
        await memory.call("put_item", TableName=name, Item=item)
    await memory.call("put_item", TableName=name, Item={"p": S("long ago"), "until": N(now - 6 * 365 * DAY)})
    clock.advance(HOUR + 2 * DAY - 2)
    assert await keys_in(memory, name) == ["later", "long ago", "never", "soon", "text"]
    clock.advance(2)
    assert await keys_in(memory, name) == ["later", "long ago", "never", "text"]
    found = await records(memory, await iterator(memory, arn))
    (removed,) = [record for record in found if record["eventName"] == "REMOVE"]
    assert removed["dynamodb"]["OldImage"] == {"p": S("soon"), "until": N(now + HOUR)}
    assert removed["userIdentity"] == {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}


async def test_an_item_whose_expiry_was_put_off_stays(memory: Tables, clock: ManualClock) -> None:
    """Guide, "Using time to live (TTL)"."""
    name, _ = await expiring(memory)
    now = int(clock.now())
    for key in "ab":
        await memory.call("put_item", TableName=name, Item={"p": S(key), "until": N(now)})
    change = {"Key": {"p": S("a")}, "UpdateExpression": "SET #u = :u", "ExpressionAttributeNames": {"#u": "until"}}
    await memory.call("update_item", TableName=name, **change, ExpressionAttributeValues={":u": N(now + DAY)})
    clock.advance(2 * DAY)
    assert await keys_in(memory, name) == ["a"]
    clock.advance(DAY)
    assert await keys_in(memory, name) == []


async def test_the_next_removal_is_known(clock: ManualClock, unique: str) -> None:
    """What waits for something to change is told when."""
    model = DynamoDB(ttl_lag=60.0)
    tables = await opened("memory", MemoryClient(model, clock, News()), None, unique)
    assert model.next_change(clock.now()) is None
    wanted = {"Enabled": True, "AttributeName": "until"}
    await tables.put({"id": S("a"), "until": N(2_000_000_000)})
    await tables.call("update_time_to_live", TableName=tables.plain, TimeToLiveSpecification=wanted)
    await tables.put({"id": S("b"), "until": N(1_900_000_000)})
    assert model.next_change(clock.now()) == 1_900_000_060.0
    assert model.streams.next_change(clock.now()) == 1_900_000_060.0
    await tables.call(
        "update_time_to_live", TableName=tables.plain, TimeToLiveSpecification={**wanted, "Enabled": False}
    )
    assert model.next_change(clock.now()) is None


async def test_a_stream_keeps_records_for_24_hours(memory: Tables, clock: ManualClock) -> None:
    """Model of DynamoDB Streams: TrimmedDataAccessException, ExpiredIteratorException after 15 minutes."""
    name, arn = await streamed(memory)
    old = await iterator(memory, arn)
    await memory.call("put_item", TableName=name, Item={"p": S("a")})
    first = (await records(memory, old))[0]["dynamodb"]["SequenceNumber"]
    place = {"SequenceNumber": first}
    clock.advance(15 * 60)
    assert len(await records(memory, old)) == 1
    clock.advance(1)
    with pytest.raises(ClientError, match="ExpiredIteratorException"):
        await records(memory, old)
    clock.advance(DAY - HOUR - 15 * 60)
    await memory.call("put_item", TableName=name, Item={"p": S("b")})
    clock.advance(HOUR - 60)
    held = await iterator(memory, arn, "AT_SEQUENCE_NUMBER", **place)
    clock.advance(120)
    with pytest.raises(ClientError, match="TrimmedDataAccessException"):
        await records(memory, held)
    with pytest.raises(ClientError, match="TrimmedDataAccessException"):
        await iterator(memory, arn, "AFTER_SEQUENCE_NUMBER", **place)
    (left,) = await records(memory, await iterator(memory, arn))
    assert left["dynamodb"]["Keys"] == {"p": S("b")}


async def test_a_stream_is_read_from_a_time_on(memory: Tables, clock: ManualClock) -> None:
    """Model of DynamoDB Streams, GetShardIterator: AT_TIMESTAMP; one in the future is a ValidationException."""
    name, arn = await streamed(memory)
    for key in "abc":
        await memory.call("put_item", TableName=name, Item={"p": S(key)})
        clock.advance(60)
    now = clock.now()
    found = [
        [record["dynamodb"]["Keys"]["p"]["S"] for record in await records(memory, place)]
        for place in [await iterator(memory, arn, "AT_TIMESTAMP", Timestamp=at) for at in (now - DAY, now - 121, now)]
    ]
    assert found == [["a", "b", "c"], ["b", "c"], []]
    with pytest.raises(ClientError, match="ValidationException"):
        await iterator(memory, arn, "AT_TIMESTAMP", Timestamp=now + 1)


async def test_the_streams_of_deleted_tables_are_read_on(memory: Tables, clock: ManualClock) -> None:
    """Guide, "Change data capture for DynamoDB Streams": data of a disabled stream is kept for 24 hours."""
    name, arn = await streamed(memory)
    await memory.call("put_item", TableName=name, Item={"p": S("a")})
    await memory.call("delete_table", TableName=name)
    assert len(await records(memory, await iterator(memory, arn))) == 1
    clock.advance(DAY + 1)
    assert (await memory.streams.list_streams())["Streams"] == []


async def test_the_items_of_a_partition_key_are_in_one_shard(clock: ManualClock, unique: str) -> None:
    """Guide, "Change data capture for DynamoDB Streams": in order for each item; how many shards is DynamoDB's choice."""
    tables = await opened("memory", *in_memory(clock, stream_shards=4), unique)
    name, arn = await streamed(tables)
    for n in range(3):
        for key in map(str, range(20)):
            await tables.call("put_item", TableName=name, Item={"p": S(key), "n": N(n)})
    seen: dict[str, list[tuple[str, str]]] = {}
    for shard in (await tables.streams.describe_stream(StreamArn=arn))["StreamDescription"]["Shards"]:
        asked = {"StreamArn": arn, "ShardId": shard["ShardId"], "ShardIteratorType": "TRIM_HORIZON"}
        place = (await tables.streams.get_shard_iterator(**asked))["ShardIterator"]
        for record in await records(tables, place):
            image = record["dynamodb"]["NewImage"]
            seen.setdefault(image["p"]["S"], []).append((shard["ShardId"], image["n"]["N"]))
    assert len({shard for places in seen.values() for shard, _ in places}) > 1
    for places in seen.values():
        assert [n for _, n in places] == ["0", "1", "2"]
        assert len({shard for shard, _ in places}) == 1


async def test_a_token_is_known_for_ten_minutes(memory: Tables, clock: ManualClock) -> None:
    """Model, TransactWriteItems: ClientRequestToken "is valid for 10 minutes after the first request"."""
    token = {"ClientRequestToken": "t"}
    await memory.transact(memory.increment(), **token)
    clock.advance(599)
    await memory.transact(memory.increment(), **token)
    assert await memory.get() == {"id": S("a"), "n": N(1)}
    clock.advance(2)
    await memory.transact(memory.increment(), **token)
    assert await memory.get() == {"id": S("a"), "n": N(2)}


async def test_nobody_shares_what_is_stored(memory: Tables) -> None:
    """A caller may change what it gave and what it got."""
    name, arn = await streamed(memory)
    mine: Any = {"p": S("a"), "l": {"L": [N(1)]}, "s": {"SS": ["x"]}, "m": {"M": {"k": N(1)}}}
    kept = {"p": S("a"), "l": {"L": [N(1)]}, "s": {"SS": ["x"]}, "m": {"M": {"k": N(1)}}}
    await memory.call("put_item", TableName=name, Item=mine)

    def spoil(item: Any) -> None:
        item["l"]["L"].append(N(2))
        item["s"]["SS"].append("y")
        item["m"]["M"]["more"] = N(2)
        item["p"]["S"] = "z"

    spoil(mine)
    key = {"TableName": name, "Key": {"p": S("a")}}
    for _ in range(2):
        spoil((await memory.call("get_item", **key))["Item"])
        spoil((await memory.call("scan", TableName=name))["Items"][0])
        spoil((await records(memory, await iterator(memory, arn)))[0]["dynamodb"]["NewImage"])
        with pytest.raises(ClientError) as refused:
            more = {"ConditionExpression": "attribute_not_exists(p)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
            await memory.call("put_item", TableName=name, Item={"p": S("a")}, **more)
        spoil(refused.value.response["Item"])  # type: ignore[typeddict-item]
    assert (await memory.call("get_item", **key))["Item"] == kept
    (record,) = await records(memory, await iterator(memory, arn))
    assert record["dynamodb"]["NewImage"] == kept


@pytest.mark.parametrize(
    ("operation", "parameters"),
    [
        ("query", {"IndexName": "i", "KeyConditionExpression": "id = :v"}),
        ("query", {"KeyConditions": {}}),
        ("scan", {"ScanFilter": {}}),
        ("get_item", {"Key": {"id": S("a")}, "AttributesToGet": ["id"]}),
        ("put_item", {"Item": {"id": S("a")}, "Expected": {}}),
        ("update_item", {"Key": {"id": S("a")}, "AttributeUpdates": {}}),
        ("update_table", {"GlobalSecondaryIndexUpdates": [{"Create": {}}]}),
        ("put_item", {}),
    ],
)
async def test_what_the_model_does_not_do_it_refuses(
    memory: Tables, operation: str, parameters: dict[str, Any]
) -> None:
    """Rather than do something else in silence."""
    assert await memory.refusal(operation, TableName=memory.plain, **parameters) == "ValidationException"


async def test_indexes_are_refused(memory: Tables) -> None:
    index = {"IndexName": "i", "KeySchema": [HASH], "Projection": {"ProjectionType": "ALL"}}
    for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes"):
        with pytest.raises(ClientError, match=f"no {kind}.*DynamoDB Local"):
            await memory.make(f"{memory.plain}-6", **{kind: [index]})


async def test_a_batch_of_reads_leaves_what_is_too_much(memory: Tables) -> None:
    """Model, BatchGetItem: 16 MB; "DynamoDB returns a partial result"."""
    for n in range(50):
        await memory.put({"id": S(str(n)), "load": S("x" * 400_000)})
    keys: Any = {memory.plain: {"Keys": [{"id": S(str(n))} for n in range(50)]}}
    found: list[str] = []
    for _ in range(3):
        answer = await memory.call("batch_get_item", RequestItems=keys)
        found += [item["id"]["S"] for item in answer["Responses"][memory.plain]]
        keys = answer["UnprocessedKeys"]
        if not keys:
            break
    assert sorted(found, key=int) == [str(n) for n in range(50)]


# The stores' strategies


@pytest.mark.parametrize("batched", [False, True], ids=["single writes", "statements"])
async def test_claims_are_kept_in_a_table_in_memory(
    environment: ProcessEnvironment, clock: ManualClock, batched: bool
) -> None:
    """Over the embedded server and DynamoDB Local they are held to the whole contract of stores."""
    environment.provide(("aws", "dynamodb"), MemoryClient(DynamoDB(), clock, News()))
    store = stores.DynamoDB("entries", batched=batched)
    await store.create(environment)
    await store.create(environment)

    async def claim(owner: str, *keys: str, lease: float = 60.0) -> list[Any]:
        until = clock.now() + lease
        requests = [ClaimRequest(id=key, owner=owner, lease_until=until, ttl=1_000, is_alone=True) for key in keys]
        return list(await store.claim(requests, environment))

    keys = [f"k{n}" for n in range(30)]
    assert await claim("a", *keys) == [Claimed(1)] * 30
    ends = [Complete(id=key, owner="a", ttl=1_000) for key in keys[:10]]
    assert await store.settle(ends, environment) == [True] * 10
    replies = await claim("b", *keys)
    assert [type(reply) for reply in replies] == [AlreadyDone] * 10 + [Busy] * 20
    clock.advance(61)
    assert await claim("b", *keys) == [AlreadyDone()] * 10 + [Claimed(2)] * 20
    assert await store.settle([Complete(id=keys[-1], owner="a", ttl=1_000)], environment) == [False]
    assert await store.settle([Forget(id=keys[-1], owner="b", ttl=1_000)], environment) == [True]
    clock.advance(1_000)
    assert await claim("c", keys[0], keys[-1]) == [Claimed(1), Claimed(1)]
