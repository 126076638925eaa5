"""Killed at seeded points and started again without feeding: nothing is lost, and every repeat has the same id."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from handlers.github import EVENTS
from pipeline.emulator import embedded
from pipeline.testing import local
from tests.simulation.victim import NOT_DRAINED, POINTS, Idle, run

#: Real GitHub events, when they are there; the pipeline's own sample otherwise.
_REAL = os.environ.get("PIPELINE_REAL_WEBHOOKS")
#: Real events: four runs that are killed five times each, 20 points. Otherwise one, killed once at each point.
_ROUNDS, _KILLS = (4, 5) if _REAL else (1, len(POINTS))
#: Longer than any lease and any visibility timeout: what the dead process held is free again.
_LONG = 600.0


def deliveries() -> list[dict[str, Any]]:
    if _REAL:
        return [json.loads(line) for line in Path(_REAL).read_text().splitlines()]
    return [
        {
            "event": event,
            "example": f"{number}.json",
            "payload": {"action": "created", "repository": {"full_name": f"octo/r{number % 7}"}, "n": number},
        }
        for number, event in enumerate(sorted(EVENTS) * 2)
    ]


@pytest.mark.timeout(240)  # a process for each kill, one after the other
@pytest.mark.parametrize("seed", range(_ROUNDS))
async def test_killed_and_started_again_nothing_is_lost_and_every_repeat_has_the_same_id(seed: int) -> None:
    chance = random.Random(seed)
    sent = deliveries()
    server = await asyncio.to_thread(embedded.lease)
    try:
        await feed_and_capture(server, sent)
        points = [POINTS[(seed * _KILLS + number) % len(POINTS)] for number in range(_KILLS)]
        killed, skipped = 0, 0.0
        for point in points:
            code, _ = await run("webhooks", server, skipped, point, chance.randint(1, 12))
            killed += code == -signal.SIGKILL
            skipped = await asyncio.to_thread(server.advance, _LONG)
        while (code := (await run("webhooks", server, skipped, "never", 1))[0]) == NOT_DRAINED:
            skipped = await asyncio.to_thread(server.advance, _LONG)
        assert code == 0
        rows, timeline, events = await effects(server)
    finally:
        embedded.give_back(server)

    print(f"seed {seed}: killed {killed} of {len(points)} runs; {len(events)} events for {len(sent)} deliveries")
    assert killed >= len(points) * 0.6, "most runs must really have died"
    names = {f"{delivery['event']}/{delivery['example']}": delivery for delivery in sent}
    assert rows == {name: delivery["event"] for name, delivery in names.items()}
    assert timeline == {
        (delivery["payload"]["repository"]["full_name"], name)
        for name, delivery in names.items()
        if (delivery["payload"].get("repository") or {}).get("full_name")
    }
    ids: dict[str, set[str]] = defaultdict(set)
    for event in events:
        ids[event["detail"]["delivery"]].add(event["detail"]["_pipeline"]["id"])
    assert set(ids) == set(names)
    assert all(len(found) == 1 for found in ids.values())


async def feed_and_capture(server: embedded.EmbeddedServer, sent: list[dict[str, Any]]) -> None:
    """Make the resources, let a queue catch every event of the bus, and send everything once."""
    from handlers.webhooks import webhooks

    async with local(webhooks, endpoint_url=server.endpoint_url, runtime=lambda *_: Idle()) as env:
        sqs, events = env.client("sqs"), env.client("events")
        await sqs.create_queue(QueueName="captured")
        await events.put_rule(Name="all", EventBusName="webhook-events", EventPattern='{"source": [{"prefix": ""}]}')
        arn = "arn:aws:sqs:us-east-1:123456789012:captured"
        await events.put_targets(Rule="all", EventBusName="webhook-events", Targets=[{"Id": "q", "Arn": arn}])
        await env.send("github-webhooks", sent)


async def effects(server: embedded.EmbeddedServer) -> tuple[dict[str, str], set[tuple[str, str]], list[Any]]:
    from handlers.webhooks import webhooks

    async with local(webhooks, endpoint_url=server.endpoint_url) as env:
        table = env.client("dynamodb").get_paginator("scan")
        rows = {
            row["delivery"]["S"]: row["event"]["S"]
            async for page in table.paginate(TableName="webhook-deliveries")
            for row in page["Items"]
        }
        timeline = {
            (row["repository"]["S"], row["delivery"]["S"])
            async for page in table.paginate(TableName="repository-timeline")
            for row in page["Items"]
        }
    captured = await asyncio.to_thread(server.peek, "captured")
    return rows, timeline, [json.loads(message.get("body") or message["Body"]) for message in captured]
