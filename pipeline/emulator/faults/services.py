"""Faults of calls: what stands between an execution environment's clients and the services in memory."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError

from pipeline.emulator.faults.kinds import Kind
from pipeline.emulator.faults.partial import PARTIAL
from pipeline.emulator.faults.place import Place
from pipeline.emulator.services.client import READS, Around, Go, client_error
from pipeline.emulator.services.service import ServiceError

#: How each service says that it is too much (the API models' exceptions and "Error responses" of each).
_THROTTLES = {
    "dynamodb": ("ProvisionedThroughputExceededException", 400),
    "events": ("ThrottlingException", 400),
    "kinesis": ("ProvisionedThroughputExceededException", 400),
    "s3": ("SlowDown", 503),
    "sqs": ("RequestThrottled", 400),
}
_SLOWEST = 8.0


def around(place: Place, remake: Callable[[str], Any]) -> Around:
    """For the clients of one execution environment. `remake`: a client of a service that nothing stands before."""

    async def call(service: str, operation: str, parameters: Mapping[str, Any], go: Go) -> dict[str, Any]:
        if place.is_dead:
            await place.ends()
        step = f"{service}.{operation}"
        if operation.startswith(READS):
            return await _read(place, service, operation, go)
        await place.passes(f"before {step}")
        answer = await _write(place, service, operation, parameters, go, remake)
        place.note(f"{step}{_named(parameters)}")
        await place.passes(f"after {step}")
        return answer

    return call


async def _read(place: Place, service: str, operation: str, go: Go) -> dict[str, Any]:
    point, kind = place.decide(f"{service}.{operation}", (Kind.THROTTLED_CALL, Kind.SLOW_CALL))
    if kind is Kind.THROTTLED_CALL:
        raise _throttled(service, operation)
    if kind is Kind.SLOW_CALL:
        await _wait(place.faults.chance(point, "seconds"))
    return await go()


async def _write(
    place: Place, service: str, operation: str, parameters: Mapping[str, Any], go: Go, remake: Callable[[str], Any]
) -> dict[str, Any]:
    step = f"{service}.{operation}"
    kinds = {Kind.THROTTLED_CALL, Kind.SLOW_CALL, Kind.TIME_OUT}
    if step in PARTIAL:
        kinds.add(Kind.PARTIAL_FAILURE)
    point, kind = place.decide(step, kinds)
    chance = place.faults.chance(point, "details")
    if kind is Kind.THROTTLED_CALL:
        raise _throttled(service, operation)
    if kind is Kind.PARTIAL_FAILURE:
        return await PARTIAL[step](parameters, chance, getattr(remake(service), operation))
    if kind is Kind.SLOW_CALL and chance.random() < 0.5:  # on the way there, or on the way back
        await _wait(chance)
        kind = None
    answer = await go()
    if kind is Kind.SLOW_CALL:
        await _wait(chance)
    if kind is Kind.TIME_OUT:
        place.note(f"{step}{_named(parameters)}, unheard")
        raise ReadTimeoutError(endpoint_url=f"https://{service}.us-east-1.amazonaws.com/")
    return answer


async def _wait(chance: random.Random) -> None:
    await asyncio.sleep(chance.uniform(0.05, _SLOWEST))


def _throttled(service: str, operation: str) -> ClientError:
    code, status = _THROTTLES.get(service, ("ThrottlingException", 400))
    return client_error(ServiceError(code, "Rate exceeded", status=status), operation)


def _named(parameters: Mapping[str, Any]) -> str:
    """What a call was made to."""
    for name in ("TableName", "QueueUrl", "StreamName", "StreamARN", "Bucket"):
        if isinstance(parameters.get(name), str):
            return " " + str(parameters[name]).rpartition("/")[2]
    return ""
