"""Webhooks from a queue: recorded once, routed, and put in order."""

from __future__ import annotations

from pathlib import Path

from demo import local, webhooks_sample


def run(folder: Path) -> bool:
    """Feed the sample; true when the summary says what was counted while the sample was made."""
    feed = folder / "webhooks.ndjson"
    expected = webhooks_sample.write(feed)
    total = expected.succeeded + expected.duplicates + expected.rejected
    print(f"Feeding {total} webhook deliveries to the queue 'github-webhooks' on an embedded AWS server:")
    print(f"{expected.succeeded} good, {expected.duplicates} repeats, {expected.rejected} that cannot be handled.\n")
    result = local.run("handlers.webhooks", "github-webhooks", feed)
    record, timeline = result.handlers["record"], result.handlers["timeline"]
    rows = [
        ("deliveries recorded", record["succeeded"], expected.succeeded),
        ("repeats skipped", record["duplicates"], expected.duplicates),
        ("rejected, with their cause, to the dead-letter queue", record["dead_lettered"], expected.rejected),
        ("records that ran out of attempts", result.summary["exhausted"], 0),
        ("rows in 'webhook-deliveries'", record["outputs"].get("webhook-deliveries", 0), expected.succeeded),
        ("events on the bus 'webhook-events'", record["outputs"].get("webhook-events", 0), expected.succeeded),
        ("moments through 'repository-timeline.fifo', in order", timeline["succeeded"], expected.moments),
    ]
    return local.adds_up(rows, result)
