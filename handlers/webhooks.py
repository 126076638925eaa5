"""GitHub webhooks: check each delivery, record it once, route it by its event, keep each repository's timeline."""

from dataclasses import dataclass
from typing import Any

from handlers.github import EVENTS
from pipeline import Emit, Pipeline, Reject, sinks, sources

webhooks = Pipeline("webhooks")


@dataclass
class Delivery:
    event: str
    example: str
    payload: dict[str, Any]


@dataclass
class Moment:
    delivery: str
    event: str
    action: str | None
    repository: str | None
    sender: str | None


@webhooks.handler(
    sources.SQS("github-webhooks", batch_size=50, batching_window=1, max_concurrency=10),
    sinks=[
        sinks.DynamoDB("webhook-deliveries", partition_key="delivery"),
        sinks.EventBridge("webhook-events", detail_type=lambda detail: f"github.{detail['event']}"),
        sinks.SQS("repository-timeline.fifo", group="repository"),
    ],
    key=("event", "example"),
)
async def record(delivery: Delivery) -> list[Emit[Any]]:
    if delivery.event not in EVENTS:
        raise Reject(f"GitHub sends no event '{delivery.event[:40]}'")
    moment = Moment(
        delivery=f"{delivery.event}/{delivery.example}",
        event=delivery.event,
        action=delivery.payload.get("action"),
        repository=name(delivery, "repository", "full_name"),
        sender=name(delivery, "sender", "login"),
    )
    detail = {"event": moment.event, "delivery": moment.delivery, "payload": delivery.payload}
    outputs = [Emit[Any](moment, to="webhook-deliveries"), Emit[Any](detail, to="webhook-events")]
    return outputs + ([Emit[Any](moment, to="repository-timeline.fifo")] if moment.repository else [])


@webhooks.handler(
    sources.SQS("repository-timeline.fifo"),
    sinks=[sinks.DynamoDB("repository-timeline", partition_key="repository", sort_key="delivery")],
)
async def timeline(moment: Moment) -> Moment:
    return moment


def name(delivery: Delivery, member: str, field: str) -> str | None:
    value = delivery.payload.get(member) or {}
    if not isinstance(value, dict):
        raise Reject(f"the payload's '{member}' is not an object")
    return value.get(field)
