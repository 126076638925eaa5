"""The light calls against botocore: what is sent, what an answer means, and what is tried again."""

from __future__ import annotations

import base64
import json
import string
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.parsers import ResponseParserError, create_parser
from botocore.retries.standard import ExponentialBackoff, RetryContext, StandardRetryConditions
from botocore.serialize import create_serializer
from hypothesis import given
from hypothesis import strategies as st
from urllib3 import HTTPHeaderDict

from pipeline.aws.calls import SERVICES, TRIES, delay_before_next, document, encoded, error_of
from pipeline.aws.transport import Answer

OPERATIONS = [(service, name) for service, model in SERVICES.items() for name in model.operations.values()]


def model_of(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


MODELS = {service: model_of(service) for service in SERVICES}


def answer(status: int, body: Any = b"", **headers: str) -> Answer:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Answer(status, HTTPHeaderDict({name.replace("_", "-"): value for name, value in headers.items()}), text)


# What is sent

#: Parameters as the sinks and stores give them, with every kind of value.
ITEM = {
    "id": {"S": "a"},
    "n": {"N": "1.5"},
    "raw": {"B": b"\x00\xff"},
    "no": {"NULL": True},
    "set": {"BS": [b"\x01"]},
    "deep": {"M": {"l": {"L": [{"BOOL": False}, {"S": "é\u2028😀"}]}}},
}
SENT: dict[str, dict[str, Any]] = {
    "BatchExecuteStatement": {"Statements": [{"Statement": 'UPDATE "t"', "Parameters": [{"S": "a"}, {"B": b"\x01"}]}]},
    "BatchGetItem": {"RequestItems": {"t": {"Keys": [{"id": {"S": "a"}}], "ConsistentRead": True}}},
    "BatchWriteItem": {"RequestItems": {"t": [{"PutRequest": {"Item": ITEM}}]}},
    "DeleteItem": {"TableName": "t", "Key": {"id": {"S": "a"}}, "ConditionExpression": "x"},
    "PutItem": {"TableName": "t", "Item": ITEM, "ReturnValuesOnConditionCheckFailure": "ALL_OLD"},
    "TransactWriteItems": {"TransactItems": [{"Put": {"TableName": "t", "Item": ITEM}}], "ClientRequestToken": "c"},
    "UpdateItem": {"TableName": "t", "Key": {"id": {"S": "a"}}, "ExpressionAttributeValues": {":a": {"B": b"\x02"}}},
    "PutEvents": {"Entries": [{"EventBusName": "b", "Source": "s", "DetailType": "d", "Detail": "{}"}]},
    "PutRecords": {"Records": [{"Data": b"\xfe", "PartitionKey": "k"}, {"Data": "text", "PartitionKey": "l"}]},
    "ChangeMessageVisibilityBatch": {
        "QueueUrl": "u",
        "Entries": [{"Id": "0", "ReceiptHandle": "h", "VisibilityTimeout": 3}],
    },
    "GetQueueAttributes": {"QueueUrl": "u", "AttributeNames": ["RedrivePolicy"]},
    "GetQueueUrl": {"QueueName": "q", "QueueOwnerAWSAccountId": "1"},
    "SendMessageBatch": {
        "QueueUrl": "u",
        "Entries": [
            {
                "Id": "0",
                "MessageBody": "b",
                "DelaySeconds": 0,
                "MessageAttributes": {"a": {"DataType": "Binary", "BinaryValue": b"\x00"}},
            }
        ],
    },
}


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_a_request_is_what_botocore_makes_of_it(service: str, operation: str) -> None:
    model = MODELS[service].operation_model(operation)
    theirs = create_serializer("json", include_validation=False).serialize_to_request(SENT[operation], model)
    ours = SERVICES[service]

    if operation != "PutRecords":  # a text as data is encoded by botocore alone; the sink gives bytes
        assert json.loads(encoded(SENT[operation])) == json.loads(theirs["body"])
    assert f"{ours.target}.{operation}" == theirs["headers"]["X-Amz-Target"]
    assert f"application/x-amz-json-{ours.json_version}" == theirs["headers"]["Content-Type"]
    assert (theirs["method"], theirs["url_path"]) == ("POST", "/")
    assert MODELS[service].signing_name == service


@pytest.mark.parametrize(("service", "operation"), OPERATIONS)
def test_no_call_needs_what_only_a_model_can_say(service: str, operation: str) -> None:
    """Tokens, host prefixes, checksums, and other ways to sign: a botocore that begins with one is noticed."""
    model = MODELS[service].operation_model(operation)
    members = model.input_shape.members.items()

    assert [name for name, shape in members if shape.metadata.get("idempotencyToken")] == (
        ["ClientRequestToken"] if operation == "TransactWriteItems" else []
    )
    assert [name for name, shape in members if {"name", "location"} & shape.serialization.keys()] == []
    assert model.endpoint is None
    assert not any([model.http_checksum, model.http_checksum_required, model.request_compression])
    assert model.auth_type in (None, "v4")
    assert model.service_model.metadata["auth"] == ["aws.auth#sigv4"]


def test_bytes_of_any_kind_are_base64() -> None:
    for data in (b"\x00\xff", bytearray(b"\x00\xff"), memoryview(b"\x00\xff")):
        assert json.loads(encoded({"Data": data})) == {"Data": "AP8="}


@pytest.mark.parametrize("value", ["\ud800", 2**64, -(2**80), {1: "a"}])
def test_what_orjson_does_not_write_is_written_by_json(value: Any) -> None:
    assert encoded({"a": value, "b": b"\x00"}) == json.dumps({"a": value, "b": "AA=="}).encode()


def test_what_is_no_json_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="hold a set"):
        encoded({"a": {1}})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def plain(value: Any) -> Any:
    match value:
        case bytes():
            return base64.b64encode(value).decode()
        case list():
            return [plain(one) for one in value]
        case dict():
            return {name: plain(one) for name, one in value.items()}
        case _:
            return value


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_a_body_says_what_was_given(parameters: dict[str, Any]) -> None:
    assert json.loads(encoded(parameters)) == plain(parameters)


# What an answer means

CANCELLED = {
    "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
    "Message": "cancelled",
    "CancellationReasons": [{"Code": "None"}, {"Code": "ConditionalCheckFailed", "Item": {"id": {"S": "a"}}}],
}
REFUSED = {
    "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
    "message": "no",
    "Item": {"id": {"S": "a"}},
}
ERRORS = [
    ("dynamodb", "PutItem", answer(400, REFUSED, x_amzn_RequestId="r")),
    ("dynamodb", "TransactWriteItems", answer(400, CANCELLED)),
    ("dynamodb", "PutItem", answer(400, {"__type": "ThrottlingException:http://x", "Message": "slow"})),
    ("dynamodb", "PutItem", answer(500, {"__type": "com.amazon.coral.service#InternalFailure"})),
    ("dynamodb", "PutItem", answer(503)),
    ("dynamodb", "PutItem", answer(413, b"{}")),
    ("dynamodb", "PutItem", answer(301, b"{}")),
    ("events", "PutEvents", answer(400, {"__type": "ValidationException", "message": "m"})),
    (
        "sqs",
        "SendMessageBatch",
        answer(
            400,
            {"__type": "com.amazonaws.sqs#QueueDoesNotExist", "message": "none"},
            x_amzn_query_error="AWS.SimpleQueueService.NonExistentQueue;Sender",
        ),
    ),
    ("sqs", "SendMessageBatch", answer(400, {"__type": "X#Y"}, x_amzn_query_error="no semicolon")),
    ("kinesis", "PutRecords", answer(400, {"__type": "ResourceNotFoundException", "message": "none"})),
]


@pytest.mark.parametrize(("service", "operation", "came"), ERRORS)
def test_an_error_is_what_botocore_makes_of_it(service: str, operation: str, came: Answer) -> None:
    model: OperationModel = MODELS[service].operation_model(operation)
    raw = {"status_code": came.status, "headers": came.headers, "body": came.body, "context": {}}
    theirs = create_parser("json").parse(raw, model.output_shape)
    for shape in model.error_shapes:  # what a client adds by the error's own model
        if shape.name == theirs["Error"]["Code"]:
            theirs |= create_parser("json").parse(raw, shape)
    ours = error_of(came, operation)

    assert isinstance(ours, ClientError)
    assert ours.operation_name == operation
    assert ours.response["Error"]["Code"] == theirs["Error"]["Code"]
    # Where the body is no document botocore quotes it, and we say what the status means.
    assert ours.response["Error"]["Message"] == (theirs["Error"]["Message"] if len(came.body) > 2 else came.reason)
    assert ours.response["ResponseMetadata"]["HTTPStatusCode"] == came.status
    for name in ("Item", "CancellationReasons"):
        assert ours.response.get(name) == theirs.get(name)


@pytest.mark.parametrize("body", [b"<html>secret</html>", b"", b"[1]", b'"text"', b"null", b"\xff\xfe", b"{"])
def test_a_page_of_somebody_elses_is_an_error_and_is_not_quoted(body: bytes) -> None:
    error = error_of(answer(502, body), "PutItem")
    assert error is not None
    assert error.response["Error"] == {"Code": "502", "Message": "Bad Gateway"}

    with pytest.raises(ResponseParserError, match=f"no JSON object but {len(body)} bytes of text/html") as raised:
        document(answer(200, body, Content_Type="text/html"))
    assert "secret" not in str(raised.value)


def test_an_answer_is_its_document() -> None:
    assert document(answer(200, {"Responses": [{"Item": {"id": {"S": "é"}}}]})) == {
        "Responses": [{"Item": {"id": {"S": "é"}}}]
    }
    assert document(answer(200, b'{"S": "\\ud800"}')) == {"S": "\ud800"}
    assert error_of(answer(200, {}), "PutItem") is None
    assert error_of(answer(299, {}), "PutItem") is None


# What is tried again

CODES = [
    *StandardRetryConditions()._additional_checkers._checkers[0]._transient_error_codes,
    *StandardRetryConditions()._additional_checkers._checkers[1]._throttled_error_codes,
    *("ValidationException", "ConditionalCheckFailedException", "AccessDeniedException", "InternalServerError"),
    *("ReplicatedWriteConflictException", "TransactionCanceledException", "ExpiredTokenException", "X"),
]


def theirs(error: Exception, number: int) -> float | None:
    """botocore's longest delay before the next try."""
    parsed, status = None, None
    if isinstance(error, ClientError):
        parsed = error.response
        status = SimpleNamespace(status_code=error.response["ResponseMetadata"]["HTTPStatusCode"], headers={})
    context = RetryContext(
        attempt_number=number,
        operation_model=MODELS["dynamodb"].operation_model("PutItem"),
        parsed_response=parsed,
        http_response=status,
        caught_exception=None if parsed else error,
        request_context={},
    )
    if not StandardRetryConditions(max_attempts=99).is_retryable(context):
        return None
    longest: float = ExponentialBackoff(random=lambda: 1.0).delay_amount(context)
    return longest


@pytest.mark.parametrize("status", [400, 403, 429, 500, 501, 502, 503, 504, 507])
@pytest.mark.parametrize("code", CODES)
def test_errors_of_a_service_are_tried_again_when_botocore_would(code: str, status: int) -> None:
    error = error_of(answer(status, {"__type": code}), "PutItem")
    assert error is not None
    for number in (1, 2, 3, 9):
        assert delay_before_next(error, number) == theirs(error, number)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionClosedError(endpoint_url="u"),
        ConnectTimeoutError(endpoint_url="u"),
        EndpointConnectionError(endpoint_url="u"),
        HTTPClientError(error=ValueError("x")),
        NoCredentialsError(),
        ProxyConnectionError(proxy_url="u"),
        ReadTimeoutError(endpoint_url="u"),
        SSLError(endpoint_url="u", error=ValueError("x")),
    ],
    ids=lambda error: type(error).__name__,
)
def test_troubles_on_the_way_are_tried_again_when_botocore_would(error: BotoCoreError) -> None:
    for number in (1, 2, 3):
        assert delay_before_next(error, number) == theirs(error, number)


def test_the_tries_are_those_of_aiobotocores_clients() -> None:
    from pipeline.aws import client

    assert client._TRIES == TRIES
    assert set(client._LIGHT) == set(SERVICES)


def test_the_methods_have_botocores_names() -> None:
    from botocore import xform_name

    for model in SERVICES.values():
        assert all(xform_name(operation) == name for name, operation in model.operations.items())
        assert all(set(name) <= {*string.ascii_lowercase, "_"} for name in model.operations)
