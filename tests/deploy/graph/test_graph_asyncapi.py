"""The document keeps the official schema of AsyncAPI 3.0, and its payload schemas say what the toolkit parses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, NewType

import jsonschema
import msgspec
import pytest

from handlers.logs import logs
from handlers.webhooks import webhooks
from pipeline import Batch, Emit, Failure, Pipeline, sinks, sources
from pipeline.deploy.graph import asyncapi
from pipeline.deploy.graph.declared import graph_of
from pipeline.deploy.graph.model import Kind
from pipeline.deploy.graph.schemas import draft_07, outputs_of
from tests.deploy.graph import declared
from tests.deploy.graph.declared import Click, Console, Customer, Paid, Refunded
from tests.deploy.graph.packages import ASYNCAPI, installed

PIPELINES = [declared.front, declared.back]
DOCUMENT = asyncapi.document(PIPELINES)


@pytest.fixture(scope="module")
def official() -> jsonschema.Draft7Validator:
    schema = installed(ASYNCAPI) / "node_modules" / "@asyncapi" / "specs" / "schemas" / "3.0.0.json"
    return jsonschema.Draft7Validator(json.loads(schema.read_text()))


def problems(official: jsonschema.Draft7Validator, document: Any) -> list[str]:
    return [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in official.iter_errors(document)
    ]


@pytest.mark.timeout(400)  # the first run installs the schema
@pytest.mark.parametrize("pipelines", [PIPELINES, [webhooks], [logs], [webhooks, logs]], ids=str)
def test_the_document_keeps_the_official_schema(
    official: jsonschema.Draft7Validator, pipelines: list[Pipeline]
) -> None:
    assert problems(official, json.loads(asyncapi.write(pipelines))) == []


@pytest.mark.timeout(400)
def test_the_official_schema_refuses_what_is_wrong(official: jsonschema.Draft7Validator) -> None:
    wrong = json.loads(asyncapi.write(PIPELINES))
    wrong["operations"]["count_receive"]["action"] = "read"
    assert problems(official, wrong)
    wrong = json.loads(asyncapi.write(PIPELINES))
    del wrong["channels"]["sqs_payments"]["bindings"]["sqs"]["queue"]["fifoQueue"]
    assert problems(official, wrong)


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for held in value.values():
            yield from references(held)
    elif isinstance(value, list):
        for held in value:
            yield from references(held)


def resolved(reference: str) -> Any:
    found: Any = DOCUMENT
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return found


def test_every_reference_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert len(found) > 30
    for reference in found:
        assert isinstance(resolved(reference), dict), reference


def test_channels_are_the_graphs_resources_under_the_same_ids() -> None:
    assert set(DOCUMENT["channels"]) == {node.id for node in graph_of(PIPELINES).nodes if node.kind is not Kind.HANDLER}


def test_a_queues_binding_says_where_its_dead_letters_go() -> None:
    binding = DOCUMENT["channels"]["sqs_payments"]["bindings"]["sqs"]
    assert binding["queue"]["redrivePolicy"] == {"deadLetterQueue": {"name": "payments-dlq"}, "maxReceiveCount": 20}
    assert binding["deadLetterQueue"] == {"name": "payments-dlq", "fifoQueue": False}
    theirs = DOCUMENT["channels"]["fifo_orders"]
    assert theirs["address"] == "theirs.fifo"
    assert theirs["bindings"]["sqs"]["queue"] == {"name": "theirs.fifo", "fifoQueue": True}, "its policy is its own"
    assert [
        name
        for name, channel in DOCUMENT["channels"].items()
        if "bindings" in channel and not name.startswith(("sqs", "fifo"))
    ] == []


def messages_of(operation: str) -> list[str]:
    return [one["$ref"].rpartition("/")[2] for one in DOCUMENT["operations"][operation]["messages"]]


def test_operations_are_what_handlers_receive_and_send() -> None:
    assert DOCUMENT["operations"]["count_receive"]["channel"] == {"$ref": "#/channels/kinesis_clicks"}
    assert messages_of("count_receive") == ["Click"]
    assert messages_of("count_send_sqs_payments") == ["Paid", "Refunded"]
    assert messages_of("watch_send_file_out_clicks_ndjson") == ["Line"]
    assert messages_of("pay_receive") == ["Paid_or_Refunded"]
    assert messages_of("pay_send_s3_archive") == ["list_of_Customer"]
    assert messages_of("look_receive") == messages_of("look_send_fifo_letters_fifo") == ["Text"]
    assert messages_of("file_receive") == ["Bytes"]
    assert messages_of("watch_send_dynamodb_rejected") == ["Rejected"]
    receives = [name for name, one in DOCUMENT["operations"].items() if one["action"] == "receive"]
    assert receives == [
        "count_receive",
        "watch_receive",
        "pay_receive",
        "invoice_receive",
        "look_receive",
        "file_receive",
    ]


def payload_of(message: str) -> jsonschema.Draft7Validator:
    schema = {**DOCUMENT["components"]["messages"][message]["payload"], "components": DOCUMENT["components"]}
    return jsonschema.Draft7Validator(schema)


@pytest.mark.parametrize(
    ("message", "good", "bad"),
    [
        ("Click", {"user": "a", "place": [1, "x"]}, {"user": "a", "place": ["x", 1]}),
        ("Click", {"user": "a", "place": [1, "x"]}, {"user": "a", "place": [1, "x", 2]}),
        ("Paid_or_Refunded", {"type": "refunded", "cents": 1}, {"type": "lost", "cents": 1}),
        ("Line", {"text": "a"}, {}),
        ("Customer", {"name": "a", "address": {"city": "b"}, "friends": []}, {"name": "a", "address": {}}),
        ("list_of_Customer", [{"name": "a", "address": {"city": "b"}}], [{"name": 1}]),
        ("Text", "a", 1),
    ],
)
def test_payload_schemas_take_what_the_types_take(message: str, good: Any, bad: Any) -> None:
    validator = payload_of(message)
    assert validator.is_valid(good)
    assert not validator.is_valid(bad)


def test_types_of_one_name_are_two_messages_with_schemas_of_their_own() -> None:
    def order(kind: type) -> type:
        @dataclass
        class Order:
            value: kind  # type: ignore[valid-type]

        Order.__annotations__ = {"value": kind}
        return Order

    first, second = order(int), order(str)
    shop = Pipeline("shop")

    def declare(queue: str, taken: type) -> None:
        def read(value: Any) -> None: ...

        read.__annotations__["value"] = taken
        read.__name__ = queue
        shop.handler(sources.SQS(queue))(read)

    declare("a", first)
    declare("b", second)
    document = asyncapi.document([shop])

    schemas = [document["components"]["messages"][name]["payload"] for name in ("Order", "Order_2")]
    kinds = [
        document["components"]["schemas"][one["$ref"].rpartition("/")[2]]["properties"]["value"] for one in schemas
    ]
    assert kinds == [{"type": "integer"}, {"type": "string"}]


Cents = NewType("Cents", int)


def test_outputs_are_read_from_the_return_annotation() -> None:
    class Local: ...

    def unreadable() -> "Nowhere": ...  # type: ignore[name-defined]  # noqa: F821, UP037

    def nothing() -> None: ...
    def unsaid(): ...
    def plain() -> dict[str, int]: ...
    def emits() -> list[Emit[Click] | Paid] | None: ...
    def array() -> Emit[list[int]]: ...
    def bare() -> Emit: ...
    def batch(items: Batch[Click]) -> list[Paid | Failure | None]: ...
    async def yields() -> AsyncIterator[Refunded]:
        yield Refunded(cents=1)

    def named() -> tuple[Cents, Annotated[str, "x"]]: ...

    assert outputs_of(unreadable) == [Any]
    assert outputs_of(nothing) == []
    assert outputs_of(unsaid) == [Any]
    assert outputs_of(plain) == [dict[str, int]]
    assert outputs_of(emits) == [Click, Paid]
    assert outputs_of(array) == [list[int]]
    assert outputs_of(bare) == [Any]
    assert outputs_of(batch) == [Paid]
    assert outputs_of(yields) == [Refunded]
    assert outputs_of(named) == [int, str]


def test_a_type_that_json_knows_nothing_of_is_anything() -> None:
    class Opaque: ...

    shop = Pipeline("shop")

    def make(value: dict[str, Any]) -> Any: ...

    make.__annotations__["return"] = Opaque
    shop.handler(sources.SQS("a"), sinks=[Console()])(make)

    assert asyncapi.document([shop])["components"]["messages"]["Opaque"]["payload"] == {}


def test_later_drafts_keywords_are_translated_and_names_are_not() -> None:
    class Odd(msgspec.Struct):
        discriminator: tuple[int, str]
        prefixItems: int  # noqa: N815

    _, components = msgspec.json.schema_components([Odd])
    found = draft_07(components["Odd"])

    assert set(found["properties"]) == {"discriminator", "prefixItems"}
    assert found["properties"]["discriminator"]["items"] == [{"type": "integer"}, {"type": "string"}]
    assert found["properties"]["discriminator"]["additionalItems"] is False
    assert draft_07({"enum": [{"prefixItems": 1}], "anyOf": [{"discriminator": {}}]}) == {
        "enum": [{"prefixItems": 1}],
        "anyOf": [{}],
    }


def test_a_lone_surrogate_in_a_name_still_makes_a_document() -> None:
    class Sink(Console):
        name = "x\ud800"

    shop = Pipeline("shop")

    @shop.handler(sources.SQS("a"), sinks=[Sink(), sinks.Memory()])
    def make(value: dict[str, Any]) -> Customer: ...

    assert json.loads(asyncapi.write([shop]))["channels"]["sink_x"]["title"] == "x\\ud800"
