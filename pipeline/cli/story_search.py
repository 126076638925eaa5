"""Finding a record's lines in CloudWatch Logs: a few questions, each made of what the last one found."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from pipeline.aws import logs
from pipeline.cli.story_lines import Line, parse
from pipeline.ports import Environment

#: Questions that one story asks at most: each is paid by what it scans.
MAX_QUESTIONS = 4
#: Ids of each kind in one question, and characters of one: a query has 10,000.
_MAX_IDS, _LONGEST = 40, 64
_TRACES = 20
_HEX = re.compile("[0-9a-fA-F]{32}")


class Found(Struct, frozen=True):
    """The lines that were found, and what it took."""

    lines: Sequence[Line]
    questions: int
    scanned: float  #: bytes
    is_cut: bool


class Range(Struct, frozen=True):
    """What is asked: log groups, and times in epoch seconds."""

    groups: Sequence[str]
    start: float
    end: float


async def search(asked: str, where: Range, environment: Environment) -> Found:
    """The lines of a record's, an output's or a trace's id, and of what is connected with it.

    Raises `QueryFailed`, and what the client raises.
    """
    lines: dict[str, Line] = {}
    answered: set[str] = set()
    scanned, questions, is_cut = 0.0, 0, False
    for question in (_by_trace, _by_id, _by_traces, _by_links, _by_links):
        wanted = question(asked, list(lines.values()), answered)
        if wanted is None or questions == MAX_QUESTIONS:
            continue
        condition, ids = wanted
        answer = await logs.ask(where.groups, logs.query_of(condition), where.start, where.end, environment)
        questions += 1
        answered |= set(ids)
        scanned += answer.scanned
        is_cut |= answer.is_cut
        for line in _lines(answer.rows, ids):
            lines.setdefault(line.text, line)
    return Found(list(lines.values()), questions, scanned, is_cut)


Question = tuple[str, Sequence[str]]


def _by_trace(asked: str, _: Sequence[Line], answered: set[str]) -> Question | None:
    """CloudWatch Logs has an index of traces: this question scans little."""
    if not _HEX.fullmatch(asked):
        return None
    answered.add(f"trace {asked.lower()}")
    return f'traceId = "{asked.lower()}"', [asked.lower()]


def _by_id(asked: str, lines: Sequence[Line], _: set[str]) -> Question | None:
    """The record itself. 32 hexadecimal digits may be an output's id: that stands in lists too."""
    if lines:
        return None
    ids = [asked.lower() if _HEX.fullmatch(asked) else asked]
    condition = logs.contains(ids) if _HEX.fullmatch(asked) else logs.is_("record_id", ids)
    return None if condition is None else (condition, [asked, *ids])


def _by_traces(asked: str, lines: Sequence[Line], answered: set[str]) -> Question | None:
    """Everything in the traces of what was found."""
    traces = list(dict.fromkeys(line.trace_id for line in lines if line.trace_id and _HEX.fullmatch(line.trace_id)))
    new = [trace for trace in traces if f"trace {trace}" not in answered][:_TRACES]
    answered.update(f"trace {trace}" for trace in new)
    condition = logs.is_("traceId", new)
    return None if condition is None else (condition, new)


def _by_links(_: str, lines: Sequence[Line], answered: set[str]) -> Question | None:
    """What caused the records that were found, what they caused, and who did the work that they repeat."""
    outputs = {one for line in lines for one in line.output_ids}
    causes = {line.caused_by for line in lines if line.caused_by is not None}
    done = {line.key_hash for line in lines if line.outcome == "succeeded"}
    keys = {line.key_hash for line in lines if line.outcome == "duplicate" and line.key_hash is not None} - done
    above, below, same = (
        [one for one in sorted(ids - answered) if len(one) <= _LONGEST][:_MAX_IDS]
        for ids in (causes - outputs, outputs - causes, keys)
    )
    conditions = [logs.contains(above), logs.is_("caused_by", below), logs.is_("key_hash", same)]
    condition = " or ".join(one for one in conditions if one is not None)
    return (condition, [*above, *below, *same]) if condition else None


def _lines(rows: Iterable[logs.Row], ids: Sequence[str]) -> list[Line]:
    """The lines of rows in which one of these ids stands: what was asked for, whatever the server makes of the query."""
    found: list[Line] = []
    for row in rows:
        line = parse(row.message, row.at)
        if line is not None and not {
            line.record_id,
            line.trace_id,
            line.caused_by,
            line.key_hash,
            *line.output_ids,
        }.isdisjoint(ids):
            found.append(line)
    return found
