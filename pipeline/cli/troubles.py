"""What went wrong lately, out of log lines: by handler, event and type of error, each with a record to look at."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct, structs

from pipeline.cli.rows import Row, Section
from pipeline.cli.shown import clean, clock, date, instant
from pipeline.cli.story_lines import instant_of
from pipeline.decisions.codec import loads

#: Events that say that something went wrong, or took long. `pipeline trace` asks CloudWatch Logs for these.
EVENTS = (
    *("record.failed", "record.postponed", "record.rejected", "record.exhausted", "record.slow"),
    *("sink.failed", "store.failed", "completion.lost", "rejection.lost", "on_duplicate.failed", "lines.omitted"),
)
#: Characters of a message that are shown.
_MESSAGE = 200


class Trouble(Struct, frozen=True, kw_only=True):
    """Lines that say the same."""

    pipeline: str
    handler: str
    event: str
    error: str | None  #: the error's type
    lines: int
    records: int  #: that they name
    last: float | None  #: epoch seconds, of the latest
    reason: str | None  #: of the latest
    record_id: str | None  #: of the latest


def troubles(texts: Iterable[str]) -> list[Trouble]:
    """What went wrong, the latest first. What is no line of these events is passed over; nothing raises."""
    found: dict[tuple[str, str, str, str | None], Trouble] = {}
    records: dict[tuple[str, str, str, str | None], set[str]] = {}
    seen: set[int] = set()
    for text in texts:
        one = _read(text)
        if one is None or hash(text) in seen:  # CloudWatch may store and deliver a line twice
            continue
        seen.add(hash(text))
        key = (one.pipeline, one.handler, one.event, one.error)
        named = records.setdefault(key, set())
        if one.record_id is not None:
            named.add(one.record_id)
        before = found.get(key)
        latest = one if before is None or (one.last or 0.0) >= (before.last or 0.0) else before
        lines = one.lines + (0 if before is None else before.lines)
        found[key] = structs.replace(latest, lines=lines, records=len(named))
    return sorted(found.values(), key=lambda one: one.last or 0.0, reverse=True)


def sections(found: Sequence[Trouble], options: str) -> list[Section]:
    """A section for each handler. `options`: what `pipeline trace` needs to ask the same place."""
    handlers = dict.fromkeys((one.pipeline, one.handler) for one in found)
    return [
        Section(
            clean(f"{pipeline}/{handler}"),
            [row for one in found if (one.pipeline, one.handler) == (pipeline, handler) for row in _rows(one, options)],
            is_record=True,
        )
        for pipeline, handler in handlers
    ]


def document(found: Sequence[Trouble]) -> list[dict[str, Any]]:
    """The same for machines."""
    return [{**structs.asdict(one), "last": instant(one.last)} for one in found]


def _rows(one: Trouble, options: str) -> list[Row]:
    what = one.event.removeprefix("record.")
    count = _counted(one.records, "record") if one.records else _counted(one.lines, "line")
    if one.records and one.lines > one.records:
        count += f", {one.lines} times"
    why = ": ".join(part for part in (one.error, one.reason) if part)
    rows = [
        Row(f"{date(one.last)} {clock(one.last)}".strip(), what, clean(f"{count}: {why}" if why else count, _MESSAGE))
    ]
    if one.record_id is not None:
        rows.append(Row("", "", f"pipeline trace {shlex.quote(clean(one.record_id))}{options}"))
    return rows


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _read(text: str) -> Trouble | None:
    start = text.find("{")
    if start < 0 or not any(event in text for event in EVENTS):
        return None
    try:
        found = loads(text[start:])
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.get("message") not in EVENTS:
        return None
    return Trouble(
        pipeline=_text(found, "service") or "",
        handler=_text(found, "handler") or "",
        event=found["message"],
        error=_text(found, "error"),
        lines=1,
        records=0,
        last=instant_of(found.get("timestamp")),
        reason=_text(found, "reason"),
        record_id=_text(found, "record_id"),
    )


def _text(found: dict[str, Any], name: str) -> str | None:
    value = found.get(name)
    return value if isinstance(value, str) and value else None
