"""AWS clients, made here and nowhere else, and the one translation of AWS's errors.

There are two kinds behind one object. The calls that records need are made by `calls`; all others, such as those that
make resources or write objects, by aiobotocore. Both are imported at the first call: importing them costs more than
everything else that a function imports, and a process that never talks to AWS should not pay for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import SinkError, SinkRefused, SinkUnavailable, StoreUnavailable
from pipeline.ports import Environment

if TYPE_CHECKING:
    from pipeline.aws.settings import Settings
    from pipeline.aws.transport import Transport

#: Calls of a service that run side by side, and connections that are kept; botocore's own default is 10.
CONNECTIONS = 50
#: An SQS long poll lasts up to 20 seconds; every other call answers in well under this.
_READ_SECONDS = {"sqs": 25}
_DEFAULT_READ_SECONDS = 10
_CONNECT_SECONDS = 3
#: The first try, and two for connections that died while a Lambda environment was frozen.
_TRIES = 3
#: The services that records need calls of which `calls` makes.
_LIGHT = ("dynamodb", "events", "kinesis", "sqs")

#: Error codes by which a service says that this request will never do, whoever sends it when.
_REFUSALS = frozenset(
    {
        "BatchRequestTooLong",
        "EntityTooLarge",
        "InvalidArgument",
        "InvalidArgumentException",
        "InvalidAttributeValue",
        "InvalidBatchEntryId",
        "InvalidMessageContents",
        "InvalidParameterCombination",
        "InvalidParameterValue",
        "InvalidParameterValueException",
        "ItemCollectionSizeLimitExceededException",
        "KeyTooLongError",
        "MalformedDetail",
        "MessageTooLong",
        "MissingParameter",
        "RequestEntityTooLargeException",
        "SerializationException",
        "ValidationError",
        "ValidationException",
    }
)


async def client(environment: Environment, service: str) -> Any:
    """The environment's client of a service, made at the first call and closed with it."""
    return await environment.once(("aws", service), lambda: _opened(environment, service))


def provide(environment: ProcessEnvironment, service: str, made: Any) -> None:
    """Give an environment its client of a service: one of services in memory, say."""
    environment.provide(("aws", service), made)


@asynccontextmanager
async def _opened(environment: Environment, service: str) -> AsyncIterator[Any]:
    settings = await environment.once(("aws", "settings"), _settings) if service in _LIGHT else None
    if settings is None:
        yield await full_client(environment, service)
        return
    from pipeline.aws.calls import Client

    made = Client(
        service,
        settings,
        await environment.once(("aws", "transport"), lambda: _transport(settings)),
        environment,
        at_once=CONNECTIONS,
        read_seconds=_READ_SECONDS.get(service, _DEFAULT_READ_SECONDS),
        full=lambda: full_client(environment, service),
    )
    try:
        yield made
    finally:
        made.close()


@asynccontextmanager
async def _settings() -> AsyncIterator[Settings | None]:
    """None where only botocore itself can tell where calls go."""
    from pipeline.aws import settings

    if settings.has_own_data():
        yield None
    elif settings.is_in_environment():
        yield settings.from_environment()
    else:
        yield settings.from_session()


@asynccontextmanager
async def _transport(settings: Settings) -> AsyncIterator[Transport]:
    """One for all services: they share the TLS context."""
    from pipeline.aws.transport import Transport

    made = Transport(connections=CONNECTIONS, connect_seconds=_CONNECT_SECONDS, authorities=settings.authorities)
    try:
        yield made
    finally:
        made.close()


async def full_client(environment: Environment, service: str) -> Any:
    """The aiobotocore client of a service."""
    return await environment.once(("aws", "full", service), lambda: _opened_full(environment, service))


@asynccontextmanager
async def _opened_full(environment: Environment, service: str) -> AsyncIterator[Any]:
    from aiobotocore.config import AioConfig

    session = await environment.once(("aws", "session"), _session)
    config = AioConfig(
        connect_timeout=_CONNECT_SECONDS,
        read_timeout=_READ_SECONDS.get(service, _DEFAULT_READ_SECONDS),
        max_pool_connections=CONNECTIONS,
        # A response that came too late counts as none, so few tries: the callers retry what they can.
        retries={"mode": "standard", "total_max_attempts": _TRIES},
        parameter_validation=False,
        # A fixed text: composing the usual one takes a tenth of a call's CPU time.
        user_agent="fanout-pipeline",
    )
    # botocore reads AWS_DEFAULT_REGION only; containers are given AWS_REGION.
    region = os.environ.get("AWS_REGION")
    async with session.create_client(service, region_name=region, config=config) as made:
        yield made


@asynccontextmanager
async def _session() -> AsyncIterator[Any]:
    """One session for all clients: its data files take longer to read than a client to make."""
    from aiobotocore.session import AioSession

    from pipeline.aws.models import Models

    session = AioSession()
    session.register_component("data_loader", Models(session.get_config_variable("data_path")))
    yield session


def sink_error(error: Exception, what: str) -> SinkError:
    """A failed call to a sink's service as the toolkit's error; a programming error is raised again.

    Refused is what the service will never take. All else is unavailable (throttling, 5xx, broken
    connections, and also a missing resource or permission, because a deployment can mend those).
    """
    if isinstance(error, SinkError):
        return error
    _raise_if_foreign(error)
    if _is_refusal(error):
        return SinkRefused(f"{what}: {describe(error)}")
    return SinkUnavailable(f"{what}: {describe(error)}")


def store_error(error: Exception, what: str) -> StoreUnavailable:
    """A failed call to the store's service; a programming error is raised again."""
    _raise_if_foreign(error)
    return StoreUnavailable(f"{what}: {describe(error)}")


def entry_error(code: str | None, message: str | None, what: str) -> SinkError:
    """The error that a service gave for one entry of a call that succeeded as a whole."""
    text = f"{what}: {code or 'unknown error'}: {message or 'no message'}"
    return SinkRefused(text) if code_name(code) in _REFUSALS else SinkUnavailable(text)


def code_of(error: Exception) -> str | None:
    """The service's error code without its prefixes, or None for an error that is not a service's."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    return code_name(response.get("Error", {}).get("Code"))


def code_name(code: str | None) -> str | None:
    """A code without its prefix: SQS says `AWS.SimpleQueueService.BatchRequestTooLong`."""
    return None if code is None else code.rpartition(".")[2].rpartition("#")[2]


def describe(error: Exception) -> str:
    """One line for an error of botocore's."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        found = response.get("Error", {})
        return f"{code_name(found.get('Code'))}: {found.get('Message') or 'no message'}"
    return f"{type(error).__name__}: {error}"


def _is_refusal(error: Exception) -> bool:
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return False
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status == 413 or (code_of(error) in _REFUSALS and status < 500)


def _raise_if_foreign(error: Exception) -> None:
    """Raise what AWS did not cause: a mistake in a program is no outage, and is not retried as one."""
    if isinstance(error, OSError):
        return
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError

    kinds: list[Any] = [BotoCoreError, ClientError, ResponseParserError]
    if "aiohttp" in sys.modules:  # it has raised nothing where nothing has imported it
        kinds.append(sys.modules["aiohttp"].ClientError)
    if not isinstance(error, tuple(kinds)):
        raise error
