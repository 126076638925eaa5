"""Log lines of made-up worlds."""

from __future__ import annotations

import json
from typing import Any

START = "2026-11-21T10:00:00"


def stamp(milliseconds: int) -> str:
    """A line's time, so many milliseconds after the start."""
    seconds, rest = divmod(milliseconds, 1000)
    minutes, seconds = divmod(seconds, 60)
    return f"2026-11-21T{10 + minutes // 60:02}:{minutes % 60:02}:{seconds:02}.{rest:03}+00:00"


def line(message: str, at: int, record: str, **fields: Any) -> str:
    """One line, as the toolkit writes it. `at`: milliseconds after the start."""
    level = "DEBUG" if message in ("record.succeeded", "record.duplicate", "record.unprocessed") else "WARNING"
    values = {"level": level, "message": message, "timestamp": stamp(at), "service": "shop", "record_id": record}
    return json.dumps({**values, "handler": "price", "source": "orders", **fields})
