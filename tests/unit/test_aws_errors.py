"""The one translation of AWS's errors."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError, NoCredentialsError

from pipeline.aws.client import code_of, entry_error, sink_error, store_error
from pipeline.errors import SinkRefused, SinkUnavailable, StoreUnavailable


def refused_by_service(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Op")


@pytest.mark.parametrize(
    "code",
    [
        "ValidationException",
        "InvalidParameterValue",
        "AWS.SimpleQueueService.BatchRequestTooLong",
        "com.amazonaws.sqs#InvalidMessageContents",
        "EntityTooLarge",
        "KeyTooLongError",
    ],
)
def test_what_the_service_will_never_take_is_refused(code: str) -> None:
    assert isinstance(sink_error(refused_by_service(code), "SQS"), SinkRefused)
    assert isinstance(entry_error(code, "m", "SQS"), SinkRefused)


@pytest.mark.parametrize(
    "error",
    [
        refused_by_service("ThrottlingException"),
        refused_by_service("ProvisionedThroughputExceededException"),
        refused_by_service("InternalServerError", 500),
        refused_by_service("ValidationException", 503),
        refused_by_service("AccessDeniedException", 403),
        refused_by_service("ResourceNotFoundException"),
        refused_by_service("ExpiredTokenException", 403),
        refused_by_service("SomethingNew"),
        EndpointConnectionError(endpoint_url="http://x"),
        ConnectTimeoutError(endpoint_url="http://x"),
        NoCredentialsError(),
        ConnectionResetError("reset"),
        TimeoutError(),
    ],
    ids=lambda error: code_of(error) or type(error).__name__,
)
def test_what_time_or_a_deployment_can_mend_is_unavailable(error: Exception) -> None:
    assert isinstance(sink_error(error, "SQS"), SinkUnavailable)
    assert isinstance(store_error(error, "table"), StoreUnavailable)


def test_a_request_that_is_too_large_is_refused_whatever_its_code() -> None:
    assert isinstance(sink_error(refused_by_service("413", 413), "SQS"), SinkRefused)


def test_a_mistake_in_a_program_is_no_outage() -> None:
    with pytest.raises(KeyError):
        sink_error(KeyError("x"), "SQS")
    with pytest.raises(TypeError):
        store_error(TypeError("x"), "table")


def test_the_text_names_what_was_asked_the_code_and_the_message() -> None:
    text = str(sink_error(refused_by_service("AWS.SimpleQueueService.NonExistentQueue"), "queue 'orders'"))
    assert text == "queue 'orders': NonExistentQueue: m"
