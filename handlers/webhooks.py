"""GitHub webhooks: check each delivery, record it once, route it by its event, keep each repository's timeline."""

from collections.abc import Iterator
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
        repository=(delivery.payload.get("repository") or {}).get("full_name"),
        sender=(delivery.payload.get("sender") or {}).get("login"),
    )
    detail = {"event": moment.event, "delivery": moment.delivery, "payload": delivery.payload}
    outputs = [Emit[Any](moment, to="webhook-deliveries"), Emit[Any](detail, to="webhook-events")]
    if moment.repository:
        outputs.append(Emit[Any](moment, to="repository-timeline.fifo"))
    return outputs


@webhooks.handler(
    sources.SQS("repository-timeline.fifo"),
    sinks=[sinks.DynamoDB("repository-timeline", partition_key="repository", sort_key="delivery")],
)
def timeline(moment: Moment) -> Iterator[Moment]:
    yield moment
