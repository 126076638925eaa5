"""The calls that records need, without a botocore client: signed by botocore's signer, sent by `transport`, tried again.

They are JSON over POST, so what the service's model would say about them is a name and a version. A client made of the
model costs more CPU time than all else in a cold start, and doubles that of a call. Every other operation, such as those
that make resources, goes to an aiobotocore client, which is made at the first one.
"""

from __future__ import annotations

import base64
import calendar
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, NamedTuple

import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    HTTPClientError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.retries.quota import RetryQuota

from pipeline.aws import tracing
from pipeline.aws.endpoints import Endpoint, Endpoints
from pipeline.aws.settings import Credentials, Settings
from pipeline.aws.transport import Answer, Failure, Transport
from pipeline.engine.threads import Threads
from pipeline.ports import Environment

#: The first try, and two for connections that died while a Lambda environment was frozen.
TRIES = 3
#: A fixed text: composing botocore's takes a tenth of a call's CPU time.
_USER_AGENT = "fanout-pipeline"


class Service(NamedTuple):
    """What the model of a service says about all of its calls."""

    target: str
    json_version: str
    operations: Mapping[str, str]  #: by the names that clients' methods have


SERVICES: Mapping[str, Service] = {
    "dynamodb": Service(
        "DynamoDB_20120810",
        "1.0",
        {
            "batch_execute_statement": "BatchExecuteStatement",
            "batch_get_item": "BatchGetItem",
            "batch_write_item": "BatchWriteItem",
            "delete_item": "DeleteItem",
            "put_item": "PutItem",
            "transact_write_items": "TransactWriteItems",
            "update_item": "UpdateItem",
        },
    ),
    "events": Service("AWSEvents", "1.1", {"put_events": "PutEvents"}),
    "kinesis": Service("Kinesis_20131202", "1.1", {"put_records": "PutRecords"}),
    "sqs": Service(
        "AmazonSQS",
        "1.0",
        {
            "change_message_visibility_batch": "ChangeMessageVisibilityBatch",
            "get_queue_attributes": "GetQueueAttributes",
            "get_queue_url": "GetQueueUrl",
            "send_message_batch": "SendMessageBatch",
        },
    ),
}

# What is tried again, and after what: botocore's "standard" mode (`botocore.retries.standard`), whose own classes are
# made for its clients. `tests/unit/test_aws_calls.py` holds the two against each other.

_TRANSIENT_STATUS = (500, 502, 503, 504)
_TRANSIENT = frozenset(
    {
        "PriorRequestNotComplete",
        "ReplicatedWriteConflictException",  # by the model of DynamoDB
        "RequestTimeout",
        "RequestTimeoutException",
    }
)
_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
_LONGEST_DELAY = 20.0
#: A client stops trying again when too much fails: each retry takes from 500, and successes give back.
_RETRY_COST, _TIMEOUT_COST, _SUCCESS_GAIN = 5, 10, 1

#: Codes by which a service says that our clock is wrong, or may be, and by how many seconds it then is at least.
_SKEW = frozenset(
    {
        "AuthFailure",
        "InvalidSignatureException",
        "RequestExpired",
        "RequestInTheFuture",
        "RequestTimeTooSkewed",
        "SignatureDoesNotMatch",
    }
)
_LEAST_SKEW = 240.0


@dataclass
class Call:
    """One call on its way."""

    service: str
    operation: str  #: as the API spells it: "PutItem"
    parameters: dict[str, Any]
    carried_to: str | None = None  #: for tests: a server that gets it instead of the one that it is signed for
    body: bytes = field(default=b"", repr=False)


GoOn = Callable[[], Awaitable[dict[str, Any]]]
#: Goes around a call: `go_on` makes it, with all its tries, and returns its answer.
Around = Callable[[Call, GoOn], Awaitable[dict[str, Any]]]
#: What goes around every call of the clients that are made from now on. For tests; the last one is the outermost.
AROUND: list[Around] = []


class Meta(NamedTuple):
    """What a client says about itself, as botocore's do."""

    endpoint_url: str  #: where its calls go, as far as no resource's ARN says otherwise
    region_name: str


class Client:
    """A service's client. The methods of its light operations, and of all others, are named as botocore's are.

    It belongs to one event loop. Of the light operations 50 run at once, each in a thread; the others wait.
    """

    def __init__(
        self,
        service: str,
        settings: Settings,
        transport: Transport,
        environment: Environment,
        *,
        at_once: int,
        read_seconds: float,
        full: Callable[[], Awaitable[Any]],
    ) -> None:
        """`full` gives the aiobotocore client. Raises what `Endpoints` raises."""
        self.around = [*AROUND]
        endpoints = Endpoints(service, settings, signing_name=service)
        self.meta = Meta(endpoints.usual.url, settings.region)
        self._service = service
        self._model = SERVICES[service]
        self._endpoints = endpoints
        self._credentials = settings.credentials
        self._transport = transport
        self._environment = environment
        self._read_seconds = read_seconds
        self._threads = Threads(at_once)
        self._quota = RetryQuota()
        self._skew = 0.0
        self._full = full

    def __getattr__(self, name: str) -> Any:
        """The method of an operation."""
        if name.startswith("_"):
            raise AttributeError(name)
        operation = self._model.operations.get(name)
        method: Any = partial(self._other, name) if operation is None else partial(self._light, operation)
        setattr(self, name, method)
        return method

    def get_waiter(self, name: str) -> Waiter:
        """botocore's waiter of this name."""
        return Waiter(name, self._full)

    def close(self) -> None:
        """Let idle threads end. What hangs ends with its time-out, and nobody waits for it."""
        self._threads.close()

    async def _other(self, name: str, **parameters: Any) -> Any:
        return await getattr(await self._full(), name)(**parameters)

    async def _light(self, operation: str, **parameters: Any) -> dict[str, Any]:
        call = Call(self._service, operation, parameters)
        go_on: GoOn = partial(self._send, call)
        for around in self.around:
            go_on = partial(around, call, go_on)
        return await go_on()

    async def _send(self, call: Call) -> dict[str, Any]:
        """Send it until it is answered or not worth another try. Raises botocore's errors."""
        call.body = encoded(_complete(call, self._environment.token))
        spent = 0
        for number in range(1, TRIES + 1):
            came = await self._threads.run(partial(self._try, call))
            if isinstance(came, Failure):
                error, is_mended = came.error, came.is_stale
            else:
                refused = error_of(came, call.operation)
                if refused is None:
                    self._quota.release(spent or _SUCCESS_GAIN)
                    return document(came)
                error, is_mended = refused, self._is_corrected(came, refused)
            longest = 0.0 if is_mended else delay_before_next(error, number)
            cost = _TIMEOUT_COST if isinstance(error, (ConnectTimeoutError, ReadTimeoutError)) else _RETRY_COST
            if longest is None or number == TRIES or not self._quota.acquire(cost):
                raise error
            spent = cost
            if longest:
                await self._environment.clock.sleep(self._environment.chance() * longest)
        raise AssertionError("the last try returns or raises")

    def _try(self, call: Call) -> Answer | Failure:
        """Sign it anew and send it, in a thread: credentials may have to be asked for."""
        credentials = self._credentials()
        if credentials is None:
            raise NoCredentialsError
        endpoint = self._endpoints.of(_asked_of_rules(call), credentials.account_id)
        headers = self._signed(call, endpoint, credentials)
        url = endpoint.url if call.carried_to is None else call.carried_to
        return self._transport.send(url, headers, call.body, read_seconds=self._read_seconds)

    def _signed(self, call: Call, endpoint: Endpoint, credentials: Credentials) -> dict[str, str]:
        request = AWSRequest(
            "POST",
            endpoint.url,
            headers={
                "Content-Type": f"application/x-amz-json-{self._model.json_version}",
                "X-Amz-Target": f"{self._model.target}.{call.operation}",
                "User-Agent": _USER_AGENT,
            },
            data=call.body,
        )
        Signer(credentials, endpoint.name, endpoint.region, self._skew).add_auth(request)
        headers: dict[str, str] = dict(request.headers.items())
        header = tracing.header_of_invocation()
        if header is not None:  # else Lambda would not see functions that call each other in a circle
            headers[tracing.HEADER] = header
        return headers

    def _is_corrected(self, came: Answer, error: ClientError) -> bool:
        """Whether the service shows that our clock is wrong; then it is signed by the service's clock from now on."""
        if error.response["Error"]["Code"] not in _SKEW:
            return False
        try:
            theirs = parsedate_to_datetime(came.headers.get("Date", "")).timestamp()
        except (TypeError, ValueError):
            return False
        skew = theirs - time.time()
        is_new = abs(skew - self._skew) >= _LEAST_SKEW
        if is_new:
            self._skew = skew
        return is_new


class Waiter:
    """A waiter of the aiobotocore client, which is made when somebody waits."""

    def __init__(self, name: str, full: Callable[[], Awaitable[Any]]) -> None:
        self._name = name
        self._full = full

    async def wait(self, **parameters: Any) -> None:
        """See botocore."""
        made = await self._full()
        await made.get_waiter(self._name).wait(**parameters)


class Signer(SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """botocore's signer, by a clock that is set right."""

    def __init__(self, credentials: Credentials, service: str, region: str, skew: float) -> None:
        """`skew`: by how many seconds the service's clock is ahead of ours."""
        super().__init__(credentials, service, region)
        self._skew = skew

    def _modify_request_before_signing(self, request: Any) -> None:
        if self._skew:
            signed_at = calendar.timegm(time.strptime(request.context["timestamp"], "%Y%m%dT%H%M%SZ")) + self._skew
            request.context["timestamp"] = datetime.fromtimestamp(signed_at, UTC).strftime("%Y%m%dT%H%M%SZ")
        super()._modify_request_before_signing(request)


def encoded(parameters: Mapping[str, Any]) -> bytes:
    """Parameters as JSON; bytes as base64, as all these services want them."""
    try:
        return orjson.dumps(parameters, default=_as_text, option=orjson.OPT_PASSTHROUGH_DATETIME)
    except TypeError:
        # What orjson does not write: half a surrogate pair, integers of more than 64 bits.
        return json.dumps(parameters, default=_as_text).encode()


def error_of(came: Answer, operation: str) -> ClientError | None:
    """What the service says is wrong, as botocore's `ClientError`; None when nothing is."""
    if came.status < 300:
        return None
    found = _parsed(came.body)
    body: dict[str, Any] = found if isinstance(found, dict) else {}
    kind = body.get("__type")
    code = str(came.status if kind is None else kind).partition(":")[0].rpartition("#")[2]
    # A page of a proxy's is not quoted.
    message = body.get("message") or body.get("Message") or ("" if body else came.reason)
    error = {"Message": message, "Code": code}
    # SQS had other codes when it spoke XML, and tells them still.
    old, separator, fault = came.headers.get("x-amzn-query-error", "").partition(";")
    if separator:
        error |= {"Code": old, "QueryErrorCode": code, "Type": fault}
    metadata = {"HTTPStatusCode": came.status, "RequestId": came.headers.get("x-amzn-requestid", "")}
    extra = {name: value for name, value in body.items() if name not in ("__type", "message", "Message")}
    return ClientError({**extra, "Error": error, "ResponseMetadata": metadata}, operation)


def document(came: Answer) -> dict[str, Any]:
    """The answer to a call that succeeded.

    Raises `ResponseParserError` for anything but a JSON object: whatever said 200 may have been no service of AWS's, so
    it is no success either.
    """
    found = _parsed(came.body)
    if isinstance(found, dict):
        return found
    from botocore.parsers import ResponseParserError

    kind = came.headers.get("Content-Type", "no content type")
    raise ResponseParserError(f"the answer is no JSON object but {len(came.body):,} bytes of {kind}")


def delay_before_next(error: Exception, number: int) -> float | None:
    """The longest delay after try `number` failed so, in seconds; None: it is not tried again."""
    if isinstance(error, ClientError):
        code = error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        is_passing = code in _TRANSIENT or code in _THROTTLED or status in _TRANSIENT_STATUS
    else:
        is_passing = isinstance(error, (NoConnectionError, ConnectionClosedError, HTTPClientError))
    return min(2.0 ** (number - 1), _LONGEST_DELAY) if is_passing else None


def _complete(call: Call, token: Callable[[], str]) -> dict[str, Any]:
    """The parameters, with the token by which a transaction's tries are known as one, as botocore gives it."""
    if call.operation == "TransactWriteItems" and "ClientRequestToken" not in call.parameters:
        return {**call.parameters, "ClientRequestToken": token()}
    return call.parameters


def _asked_of_rules(call: Call) -> dict[str, Any]:
    """The parameters of the endpoint's rules that a call sets, as far as they matter: ARNs may have endpoints of their own."""
    given = call.parameters
    match call.operation:
        case "PutItem" | "UpdateItem" | "DeleteItem":
            return _arns(ResourceArn=given.get("TableName"))
        case "BatchGetItem" | "BatchWriteItem":
            return _arns(ResourceArnList=list(given["RequestItems"]))
        case "TransactWriteItems":
            return _arns(ResourceArnList=[one["TableName"] for item in given["TransactItems"] for one in item.values()])
        case "PutRecords":
            return {"OperationType": "data", **_arns(StreamARN=given.get("StreamARN"))}
        case _:
            return {}


def _arns(**asked: Any) -> dict[str, Any]:
    """Only ARNs: the rules pass over mere names, and each would be looked up by itself."""
    return {
        name: value
        for name, value in asked.items()
        if value and (value if isinstance(value, str) else value[0]).startswith("arn:")
    }


def _parsed(body: bytes) -> Any:
    """A JSON document; None when it is none."""
    try:
        return orjson.loads(body)
    except ValueError:
        try:
            return json.loads(body)  # it takes half a surrogate pair
        except ValueError:
            return None


def _as_text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    raise TypeError(f"a call's parameters hold a {type(value).__name__}, which is not JSON")
