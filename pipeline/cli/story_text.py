"""A story as text for people, in sections of rows; and as JSON."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from pipeline.cli.rows import Row, Section
from pipeline.cli.shown import clean, clock, date, instant, lasting
from pipeline.cli.story import Effect, Passage, Standing, Story, Told
from pipeline.cli.story_lines import Line

#: Characters of an error's message, and of what a handler said, in a row; JSON has all of it.
_LONG = 300
#: Outputs that nobody's line speaks of are counted beyond these.
_SILENT = 5


class Asking(Struct, frozen=True):
    """How further questions are asked: options that name where the answers are, and the time."""

    now: float
    options: str = ""  #: behind `pipeline trace ID`, and `pipeline dlq peek`
    has_queues: bool = True  #: dead letters can be looked at: those of a local run end with it


def sections(story: Story, asking: Asking) -> list[Section]:
    """The story in sections. Nothing in them is more than one line, and nothing a terminal would obey."""
    found: list[Section] = []
    if story.kind != "record":
        found.append(Section(f"{story.kind} {clean(story.asked)}", []))
    for told in story.told:
        found += _record(told, story, asking)
    if story.same_trace:
        rows = [_named(one, asking) for one in story.same_trace]
        found.append(Section("Also in this trace", rows))
    return found


def notes(story: Story) -> list[str]:
    """What a reader has to know of the lines."""
    found: list[str] = []
    if not story.knows_successes:
        found.append(
            "Records that went well are not in these lines: they leave one at DEBUG only. What is missing here may have "
            "succeeded. Set Pipeline(log_level='DEBUG'), or POWERTOOLS_LOGGER_SAMPLE_RATE for a part of the batches."
        )
    if story.is_cut:
        found.append("There is more than is shown: ask for one of the records by its id.")
    return found


def _record(told: Told, story: Story, asking: Asking) -> Iterator[Section]:
    passage = told.passage
    known = [("trace", passage.trace_id), ("key", passage.key_hash)]
    names = ", ".join(f"{name} {clean(value)}" for name, value in known if value is not None)
    day = date(passage.sent_at or next((line.at for line in passage.lines if line.at is not None), None))
    head = [Row("", name, text) for name, text in (("", names), ("", f"{day}, times in UTC" if day else "")) if text]
    yield Section(f"{clean(passage.place)}: record {clean(passage.record_id)}", head, is_record=True)
    yield Section("Where it came from", _origin(told))
    yield Section("What happened", _happened(passage))
    if told.effects or passage.ends:
        yield Section("What it caused", _caused(told, story, asking))
    yield Section("Where it stands", list(_stands(told, asking, knows_successes=story.knows_successes)))
    if told.same_key:
        yield Section("Other records of its key", [_named(one, asking) for one in told.same_key])


def _origin(told: Told) -> list[Row]:
    passage = told.passage
    rows = [
        Row(clock(_first_seen(one)), "record", f"{clean(one.record_id)} of {_source(one)} in {clean(one.place)}", depth)
        for depth, one in enumerate(told.origins)
    ]
    source = _source(passage)
    sent = f"to {source}" if passage.caused_by is None else f"to {source} as output {clean(passage.caused_by)}"
    if passage.caused_by is not None and not told.origins:
        sent += "; no line here is of the record that caused it"
    elif passage.caused_by is None:
        sent += ", by no handler of ours: it carries no output's id"
    return [*rows, Row(clock(passage.sent_at), "sent", sent, len(rows))]


def _happened(passage: Passage) -> list[Row]:
    rows: list[Row] = []
    day = date(passage.sent_at) or (date(passage.lines[0].at) if passage.lines else "")
    for line in passage.lines:
        today = date(line.at)
        when = clock(line.at) if today in ("", day) else f"{today} {clock(line.at)}"
        rows.append(Row(when, _what(line), _said(line)))
    return rows


def _what(line: Line) -> str:
    outcome = line.outcome
    if outcome is not None:
        return "slow" if line.message == "record.slow" else outcome
    return clean((line.level or "line").lower(), 20) if line.is_handlers_own else line.message


def _said(line: Line) -> str:
    if line.is_handlers_own:
        extra = "".join(f" {clean(name, 60)}={clean(value, 120)}" for name, value in line.extra)
        return f"{_count('attempt', line.attempt)}{clean(line.message, _LONG)}{extra}"
    parts = [
        "" if line.outcome in ("duplicate", "unprocessed") else _count("attempt", line.attempt).rstrip(": "),
        "" if line.receive_count in (None, 1) else f"received {line.receive_count} times",
        "" if line.seconds is None else lasting(line.seconds),
        "" if not line.outputs else f"{line.outputs} output{'' if line.outputs == 1 else 's'}",
    ]
    text = ", ".join(part for part in parts if part)
    why = _why(line)
    if why:
        text = f"{text}: {why}" if text else why
    if line.delay is not None:
        text += f"; next try in {lasting(line.delay)}"
    return text


def _count(name: str, number: int | None) -> str:
    return "" if number is None else f"{name} {number}: "


def _why(line: Line) -> str:
    parts = (clean(line.error or "", 100), clean(line.reason or "", _LONG))
    return ": ".join(part for part in parts if part)


def _caused(told: Told, story: Story, asking: Asking) -> list[Row]:
    rows = list(_effects(told.effects, asking, 0))
    if rows:
        return rows
    last = told.passage.ends[-1]
    if last.outputs:
        return [Row("", "", f"{last.outputs} outputs, whose ids are in no line here")]
    went_well = any(line.outcome == "succeeded" for line in told.passage.ends)
    if went_well:
        return [Row("", "", "nothing: it sent no output")]
    return [
        Row(
            "",
            "",
            "nothing that these lines know of" if not story.knows_successes else "nothing: no run of it succeeded",
        )
    ]


def _effects(effects: Sequence[Effect], asking: Asking, depth: int) -> Iterator[Row]:
    silent = 0
    for effect in effects:
        if effect.passage is not None:
            again = " (see above)" if effect.is_cut else ""
            yield Row(clock(_first_seen(effect.passage)), "output", f"{clean(effect.output)} became {_summary(effect.passage, asking)}{again}", depth)  # fmt: skip
            yield from _effects(effect.effects, asking, depth + 1)
        elif effect.is_cut:
            yield Row("", "output", f"{clean(effect.output)} and more: not shown", depth)
        elif silent < _SILENT:
            silent += 1
            yield Row("", "output", f"{clean(effect.output)}: no line of whoever received it", depth)
        else:
            silent += 1
    if silent > _SILENT:
        yield Row("", "", f"and {silent - _SILENT} more outputs without a line", depth)


def _stands(told: Told, asking: Asking, *, knows_successes: bool) -> Iterator[Row]:
    passage = told.passage
    standing = passage.standing(asking.now)
    text = _standing_text(told, standing, asking, knows_successes=knows_successes)
    yield Row(clock(standing.since), _word(standing), text)
    if not asking.has_queues:
        return
    if standing.state == "dead" or (standing.state == "due" and passage.source is not None):
        yield Row("", "look", command("dlq peek --source", passage.source or "SOURCE", asking))


def _word(standing: Standing) -> str:
    return {"dead": "dead letter", "handed_back": "handed back"}.get(standing.state, standing.state)


def _standing_text(told: Told, standing: Standing, asking: Asking, *, knows_successes: bool) -> str:
    passage = told.passage
    source = _source(passage)
    state, last = standing.state, passage.ends[-1] if passage.ends else None
    if state == "succeeded":
        again = sum(line.outcome == "duplicate" for line in passage.ends)
        came = f"; it came again {again} time{'' if again == 1 else 's'}, and was known" if again else ""
        return f"done{came}"
    if state == "duplicate":
        other = next((one for one in told.same_key if one.standing(asking.now).state == "succeeded"), None)
        done = "before" if other is None else f"by record {clean(other.record_id)}"
        return f"nothing was run: the work of its key was done {done}"
    if state == "dead":
        return f"went to the dead letters of {source}"
    if state in ("waiting", "handed_back"):
        when = f"at {clock(standing.until)}" if standing.until is not None else "when its source delivers it again"
        waits = "in its process" if last is not None and last.outcome == "postponed" else f"in {source}"
        return f"waits {waits} for its next try {when}"
    if state == "due":
        without_line = "" if knows_successes else "at INFO a run that succeeds leaves none; "
        due = f"was due at {clock(standing.until)}" if standing.until is not None else "should have come by now"
        return (
            f"its next try {due}, and no line is of it: {without_line}a source may also have given it up, and moved it "
            "to the dead letters itself"
        )
    ended = "" if knows_successes else ", or it succeeded, which leaves no line at INFO"
    return f"no line says how a run of it ended: it runs, or it was killed or timed out{ended}"


def _summary(passage: Passage, asking: Asking) -> str:
    standing = passage.standing(asking.now)
    word = {"unknown": "no outcome known", "due": "was to be tried again"}.get(standing.state, _word(standing))
    last = passage.ends[-1] if passage.ends else None
    why = "" if last is None or not (last.error or last.reason) else f", {_why(last)}"
    return f"record {clean(passage.record_id)} of {_source(passage)} in {clean(passage.place)}: {word}{why}"


def _named(passage: Passage, asking: Asking) -> Row:
    return Row(clock(_first_seen(passage)), "record", _summary(passage, asking).removeprefix("record "))


def _first_seen(passage: Passage) -> float:
    return passage.began if passage.sent_at is None else passage.sent_at


def _source(passage: Passage) -> str:
    return clean(passage.source) if passage.source is not None else "its source"


def command(name: str, value: str, asking: Asking) -> str:
    """A command to go on with, as it can be pasted."""
    quoted = clean(shlex.quote(value))
    if value.startswith("-") and not name.endswith("--source"):  # else it would be read as an option
        return f"pipeline {name}{asking.options} -- {quoted}"
    return f"pipeline {name} {quoted}{asking.options}"


def document(story: Story, asking: Asking) -> dict[str, Any]:
    """The story as one JSON object. Texts are whole, and as they were written."""
    return {
        "asked": story.asked,
        "is": story.kind,
        "records": [_told_form(told, asking) for told in story.told],
        "same_trace": [_brief(one, asking) for one in story.same_trace],
        "knows_successes": story.knows_successes,
        "is_cut": story.is_cut,
    }


def _told_form(told: Told, asking: Asking) -> dict[str, Any]:
    return {
        **_brief(told.passage, asking),
        "caused_by": told.passage.caused_by,
        "key_hash": told.passage.key_hash,
        "origins": [_brief(one, asking) for one in told.origins],
        "lines": [_line_form(line) for line in told.passage.lines],
        "effects": [_effect_form(effect, asking) for effect in told.effects],
        "same_key": [_brief(one, asking) for one in told.same_key],
    }


def _brief(passage: Passage, asking: Asking) -> dict[str, Any]:
    standing = passage.standing(asking.now)
    return {
        "pipeline": passage.pipeline,
        "handler": passage.handler,
        "record_id": passage.record_id,
        "source": passage.source,
        "trace_id": passage.trace_id,
        "sent_at": instant(passage.sent_at),
        "stands": {"state": standing.state, "since": instant(standing.since), "until": instant(standing.until)},
    }


def _line_form(line: Line) -> dict[str, Any]:
    return {
        "line": _whole(line.text),
        "at": instant(line.at),
        "message": line.message,
        "level": line.level,
        "outcome": line.outcome,
        "attempt": line.attempt,
        "receive_count": line.receive_count,
        "error": line.error,
        "reason": line.reason,
        "delay": line.delay,
        "seconds": line.seconds,
        "trace_id": line.trace_id,
        "span_id": line.span_id,
        "outputs": line.outputs,
    }


def _whole(text: str) -> Any:
    """The line as it was written; as text what is no JSON to everybody."""
    try:
        return json.loads(text, parse_constant=str, parse_float=_number)
    except (ValueError, RecursionError):
        return text


def _number(text: str) -> float | str:
    found = float(text)
    return found if math.isfinite(found) else text


def _effect_form(effect: Effect, asking: Asking) -> dict[str, Any]:
    return {
        "output": effect.output,
        "record": None if effect.passage is None else _brief(effect.passage, asking),
        "effects": [_effect_form(one, asking) for one in effect.effects],
        "is_cut": effect.is_cut,
    }
