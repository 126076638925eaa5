"""A sample of webhook deliveries, made up: good ones, repeats, and every kind of bad one."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from handlers.github import EVENTS

GOOD, REPEATS = 260, 30

#: Each is one line of the feed that can never be handled, with the reason that it is rejected for.
BAD = [
    "this is not JSON",
    '{"event": "push", "example": "cut off in the middl',
    '["an", "array"]',
    '{"event": 7, "example": "number-for-a-name", "payload": {}}',
    '{"event": "push", "payload": {"no": "example, so no key"}}',
    '{"event": "", "example": "empty-key", "payload": {}}',
    '{"event": "espresso", "example": "no-such-event", "payload": {}}',
    '{"event": "push", "example": "wrong-repository", "payload": {"repository": "not an object"}}',
    '{"event": "push", "example": "no-payload"}',
    '{"event": "push", "example": "\\ud800", "payload": 12345678901234567890123}',
]


@dataclass(frozen=True)
class Expected:
    """What the run must come to, counted while the sample was made."""

    succeeded: int
    duplicates: int
    rejected: int
    moments: int  #: deliveries of a repository: they go on to the timeline


def write(path: Path) -> Expected:
    """Write the sample, the same every time."""
    chance = random.Random(7)
    events = sorted(EVENTS)
    good = [
        {
            "event": chance.choice(events),
            "example": f"{number:04}",
            "payload": {
                "action": chance.choice(["created", "edited", "deleted"]),
                "sender": {"login": f"dev-{chance.randrange(20)}"},
                **({"repository": {"full_name": f"octo/repo-{chance.randrange(12)}"}} if chance.random() < 0.8 else {}),
            },
        }
        for number in range(GOOD)
    ]
    lines = [json.dumps(delivery) for delivery in good + chance.sample(good, REPEATS)] + BAD
    chance.shuffle(lines)
    path.write_text("\n".join(lines) + "\n")
    moments = sum("repository" in delivery["payload"] for delivery in good)
    return Expected(succeeded=GOOD, duplicates=REPEATS, rejected=len(BAD), moments=moments)
