"""What a local run's handlers declare, made where it is missing, and their sources opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pipeline.aws.names import Resource
from pipeline.emulator import queues, streams
from pipeline.emulator.backend import Backend
from pipeline.emulator.local_source import LocalSource
from pipeline.engine.environment import ProcessEnvironment
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError, PipelineError
from pipeline.ports import Environment

Open = Callable[[Stage, ProcessEnvironment, Backend], Awaitable[LocalSource]]
#: By the service of a source's resource.
_KINDS: dict[str, Open] = {"sqs": queues.open_queue, "kinesis": streams.open_stream}


def check(stages: Sequence[Stage]) -> None:
    """Raise `ConfigurationError` for parts that must not take part in a local run, before anything is made."""
    for stage in stages:
        for part in (stage.source, *stage.sinks, stage.dead_letters, stage.store):
            check_local = getattr(part, "check_local", None)
            if check_local is not None:
                check_local()


async def make(stages: Sequence[Stage], environment: Environment) -> None:
    """Make what the stages declare, where it is missing.

    Sources come first: a queue or stream that is a sink here and a source there gets the source's settings.
    """
    for stage in stages:
        await _create(stage.source, environment, timeout=stage.deploy.timeout)
    for stage in stages:
        for part in (*stage.sinks, stage.dead_letters, stage.store):
            await _create(part, environment)


async def open_sources(stages: Sequence[Stage], environment: ProcessEnvironment, backend: Backend) -> list[LocalSource]:
    """Each handler's source, ready. Raises `ConfigurationError` for two handlers on one queue."""
    sources = [await _kind(stage)(stage, environment, backend) for stage in stages]
    seen: set[str] = set()
    for source in sources:
        if source.arn in seen and not source.is_stream:
            # Each message would go to one of them only, by chance.
            raise ConfigurationError(f"two handlers read the queue '{source.name}': give each its own")
        seen.add(source.arn)
    return sources


async def _create(part: Any, environment: Environment, **options: Any) -> None:
    make = getattr(part, "create", None)  # not everything has a resource: Memory, File, a user's own
    if make is None:
        return
    try:
        await make(environment, **options)
    except PipelineError as error:
        raise ConfigurationError(f"{getattr(part, 'name', part)} could not be made: {error}") from error


def _kind(stage: Stage) -> Open:
    resource = getattr(stage.source, "resource", None)
    kind = _KINDS.get(resource.service) if isinstance(resource, Resource) else None
    if kind is None:
        raise ConfigurationError(
            f"{stage.full_name}: the local run has no mapping for {type(stage.source).__name__} yet, "
            "only for SQS and Kinesis"
        )
    return kind
