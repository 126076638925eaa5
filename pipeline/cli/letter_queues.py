"""Where a TARGET's dead letters stand: the queues to look into."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.aws import sqs
from pipeline.aws.names import Resource, arn_name
from pipeline.aws.operators import peek as looking
from pipeline.cli import kept, targets
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError
from pipeline.ports import Environment
from pipeline.sinks.rejects import SinkDeadLetters
from pipeline.sources.sqs_dead_letters import SQSDeadLetters, dead_letter_queue

#: Finds a queue's URL.
Url = Callable[[Environment], Awaitable[str]]


@dataclass(frozen=True)
class Place:
    """A queue to look into."""

    label: str  #: the handlers whose letters it holds
    url: Url
    name: str | None = None  #: the logical name of a queue that is declared; None: it stands elsewhere


def named(queue: str) -> Place:
    """A queue by its name, URL or ARN."""

    async def url(environment: Environment) -> str:
        return queue if queue.startswith(("http://", "https://")) else await looking.url_of(queue, environment)

    return Place("", url)


def declared(target: str | None, source: str | None, *, is_local: bool) -> tuple[list[Place], list[str]]:
    """The queues of a TARGET's handlers, of one source's or of all, and what is said of letters that stand in none.

    `is_local`: without a TARGET it is that of the run in this directory. Raises `ConfigurationError`.
    """
    run = kept.announced() if is_local else None
    if run is not None and not run.has_pipelines and target is None:
        if source is None:
            raise ConfigurationError("a template's functions run here: name a --source or a --queue")
        return [Place(source, _policy_of(source))], []
    pipelines = targets.load(target or (None if run is None else run.target))
    stages = [stage for pipeline in pipelines for stage in pipeline.stages()]
    chosen = [stage for stage in stages if source in (None, stage.source.name, stage.name, stage.full_name)]
    if not chosen:
        names = ", ".join(sorted({stage.source.name for stage in stages}))
        raise ConfigurationError(f"there is no source '{source}': {names}")
    return _of_stages(chosen)


def _of_stages(stages: Sequence[Stage]) -> tuple[list[Place], list[str]]:
    """Each queue once, whoever shares it."""
    found: dict[Any, Place] = {}
    notes: list[str] = []
    for stage in stages:
        for key, url, note in _of_stage(stage):
            if note is not None:
                notes.append(note)
            if url is not None:
                label = f"{found[key].label}, {stage.full_name}" if key in found else stage.full_name
                found[key] = Place(label, url, _logical(key))
    return list(found.values()), notes


def _of_stage(stage: Stage) -> list[tuple[Any, Url | None, str | None]]:
    """The queues of a handler's dead letters: its source's own, and that of `rejects=`; or why one cannot be looked into."""
    found: list[tuple[Any, Url | None, str | None]] = []
    letters_of_source = getattr(stage.source, "dead_letters", None)
    for one in dict.fromkeys((letters_of_source, stage.dead_letters)):
        if isinstance(one, SQSDeadLetters):
            found.append((one, one.url, None))
            continue
        place = one.sink if isinstance(one, SinkDeadLetters) else one
        resource = getattr(place, "resource", None) or getattr(place, "queue", None)
        if isinstance(resource, Resource) and resource.service == "sqs":
            found.append((resource, _of_resource(resource), None))
        elif one is not None and one is stage.dead_letters:
            name = getattr(place, "name", type(place).__name__)
            found.append(
                (one, None, f"{stage.full_name}: rejected records go to '{name}', which is no queue: look there")
            )
    return found


def _of_resource(resource: Resource) -> Url:
    async def url(environment: Environment) -> str:
        return await sqs.queue_url(resource, environment)

    return url


def _policy_of(source: str) -> Url:
    """The dead-letter queue that a queue's redrive policy names."""

    async def url(environment: Environment) -> str:
        target = await sqs.dead_letter_target(await looking.url_of(source, environment), environment)
        if target is None:
            raise ConfigurationError(f"the queue '{source}' has no redrive policy, so no dead-letter queue")
        return await looking.url_of(arn_name(target), environment)

    return url


def _logical(place: Any) -> str | None:
    """The logical name of a queue that is declared, which a stack must have."""
    resource = dead_letter_queue(place.queue) if isinstance(place, SQSDeadLetters) else place
    is_declared = isinstance(resource, Resource) and resource.existing is None
    return resource.name if is_declared else None
