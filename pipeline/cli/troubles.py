"""What went wrong lately, out of log lines: by handler, event and type of error, each with a record to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from msgspec import Struct, structs

from pipeline.cli.rows import Row, Section
from pipeline.cli.shown import clean, clock, date, instant
from pipeline.cli.story_lines import instant_of, names_its_code, text_in
from pipeline.cli.story_text import Asking, command
from pipeline.decisions.codec import loads

#: Events that say that something went wrong, or took long. `pipeline trace` asks CloudWatch Logs for these.
EVENTS = (
    *("record.failed", "record.postponed", "record.rejected", "record.exhausted", "record.slow"),
    *("sink.failed", "store.failed", "completion.lost", "rejection.lost", "on_duplicate.failed", "lines.omitted"),
)
#: A batch's own line counts what it handed back. Most have nothing to say here, so they are asked for by their count.
HANDED_BACK = ("batch.finished", "unprocessed")
#: Larger counts are nobody's.
_MOST = 10**12
#: Characters of a message that are shown.
_MESSAGE = 200


class Trouble(Struct, frozen=True, kw_only=True):
    """Lines that say the same."""

    pipeline: str
    handler: str
    event: str
    error: str | None  #: the error's type; why, for what was handed back
    lines: int
    records: int  #: that they name or count
    omitted: int = 0  #: more such lines, which batches left out
    outputs: int = 0  #: that a sink did not take
    last: float | None  #: epoch seconds, of the latest
    reason: str | None  #: of the latest
    record_id: str | None  #: of the latest


def troubles(texts: Iterable[str]) -> list[Trouble]:
    """What went wrong, the latest first. What is no line of these events is passed over; nothing raises."""
    found: dict[tuple[str, str, str, str | None], Trouble] = {}
    records: dict[tuple[str, str, str, str | None], set[str]] = {}
    last: dict[tuple[str, str, str, str | None], float] = {}
    seen: set[int] = set()
    for text in texts:
        if hash(text) in seen:  # CloudWatch may store and deliver a line twice
            continue
        for one in _read(text):
            seen.add(hash(text))
            key = (one.pipeline, one.handler, one.event, one.error)
            found[key] = _joined(found.get(key), one)
            last[key] = max(last.get(key, 0.0), one.last or 0.0)
            if one.record_id is not None:
                records.setdefault(key, set()).add(one.record_id)
    all_of = [
        structs.replace(one, records=one.records + len(records.get(key, ())), last=last[key] or None)
        for key, one in found.items()
    ]
    return sorted(all_of, key=lambda one: one.last or 0.0, reverse=True)


def _joined(before: Trouble | None, one: Trouble) -> Trouble:
    """The counts of both, and what the later of them names. A line that names a record comes before one that does not."""
    if before is None:
        return one
    latest = max(before, one, key=lambda each: (each.record_id is not None, each.last or 0.0, each is one))
    return structs.replace(
        latest,
        lines=before.lines + one.lines,
        records=before.records + one.records,
        omitted=before.omitted + one.omitted,
        outputs=before.outputs + one.outputs,
    )


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
    what = "handed back" if one.event == HANDED_BACK[0] else one.event.removeprefix("record.")
    count = _counted(one.records, "record") if one.records else _counted(one.lines, "line") if one.lines else ""
    if one.records and one.lines > one.records:
        count += f", {one.lines} times"
    if one.outputs:
        count += f", {_counted(one.outputs, 'output')}"
    if one.omitted:
        count += f"{', and ' if count else ''}{_counted(one.omitted, 'line')} left out"
    why = ": ".join(part for part in (one.error, one.reason) if part)
    rows = [
        Row(f"{date(one.last)} {clock(one.last)}".strip(), what, clean(f"{count}: {why}" if why else count, _MESSAGE))
    ]
    if one.record_id is not None:
        rows.append(Row("", "", command("trace", one.record_id, Asking(0, options))))
    return rows


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _read(text: str) -> Iterator[Trouble]:
    """What a line says: one trouble, or several that it counts."""
    start = text.find("{")
    if start < 0 or not any(event in text for event in (*EVENTS, HANDED_BACK[0])):
        return
    try:
        found = loads(text[start:])
    except (ValueError, RecursionError):
        return
    if not isinstance(found, dict) or names_its_code(found):
        return
    event = found.get("message")
    if event == HANDED_BACK[0]:
        yield from _handed_back(found)
    elif isinstance(event, str) and event in EVENTS:
        omitted = list(_omitted(found)) if event == "lines.omitted" else []
        yield from omitted or [_trouble(found, event, text_in(found, "error"))]


def _trouble(found: dict[str, Any], event: str, error: str | None) -> Trouble:
    return Trouble(
        pipeline=text_in(found, "service") or "",
        handler=text_in(found, "handler") or "",
        event=event,
        error=error,
        lines=1,
        records=_whole(found.get("records")) if event == "store.failed" else 0,
        outputs=_whole(found.get("outputs")) if event == "sink.failed" else 0,
        last=instant_of(found.get("timestamp")),
        reason=text_in(found, "reason"),
        record_id=text_in(found, "record_id"),
    )


def _handed_back(found: dict[str, Any]) -> Iterator[Trouble]:
    """The records of a batch that were handed back, by why."""
    total = _whole(found.get(HANDED_BACK[1]))
    for why, count in _shared(total, _counts(found.get("handed_back"))):
        yield structs.replace(_trouble(found, HANDED_BACK[0], why), records=count, record_id=None)


def _omitted(found: dict[str, Any]) -> Iterator[Trouble]:
    """Lines that a batch left out. It counts them by event, and by type of error, but not by both."""
    events = {event: count for event, count in _counts(found.get("events")).items() if event in EVENTS}
    errors = _counts(found.get("errors"))
    for event, count in events.items():
        known = errors if len(events) == 1 or len(errors) == 1 else {}
        for error, part in _shared(count, dict.fromkeys(errors, count) if len(events) > 1 and known else known):
            yield structs.replace(_trouble(found, event, error), lines=0, omitted=part, record_id=None)


def _shared(total: int, parts: dict[str, int]) -> Iterator[tuple[str | None, int]]:
    """The parts of a count, and what they leave of it."""
    yield from parts.items()
    rest = total - sum(parts.values())
    if rest > 0:
        yield None, rest


def _counts(value: Any) -> dict[str, int]:
    counts = {name: _whole(count) for name, count in value.items()} if isinstance(value, dict) else {}
    return {name: count for name, count in counts.items() if count}


def _whole(value: Any) -> int:
    return value if type(value) is int and 0 < value < _MOST else 0
