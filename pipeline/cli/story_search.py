"""Finding a record's lines in CloudWatch Logs: a few questions, each made of what the last one found.

Log groups have an index of `traceId` by themselves, and of `record_id` and `caused_by` when our template made them: questions
for these scan little, and are put first, and apart from those that scan everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

from pipeline.aws.operators import logs
from pipeline.cli.story_lines import Line, parse
from pipeline.cli.troubles import EVENTS, HANDED_BACK
from pipeline.ports import Environment

#: Questions that one story asks at most: each is paid by what it scans. Two of them at most scan everything.
MAX_QUESTIONS = 6
#: Ids of each kind in one question, and characters of one: a query has 10,000.
_MAX_IDS, _LONGEST = 40, 64
_HEX = re.compile("[0-9a-fA-F]{32}")


class Found(Struct, frozen=True):
    """What was found, and what it took."""

    lines: Sequence[Line]
    questions: int
    scanned: float  #: bytes
    is_cut: bool
    texts: Sequence[str] = ()  #: lines that need not be of a record


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
    for question in (_by_trace, _by_id, _by_text, _by_traces, _below, _above, _below):
        wanted = question(asked, list(lines.values()), answered)
        if wanted is None or questions == MAX_QUESTIONS:
            continue
        condition, ids = wanted
        answer = await logs.ask(where.groups, logs.query_of(condition), where.start, where.end, environment)
        questions += 1
        scanned += answer.scanned
        is_cut |= answer.is_cut
        for line in _lines(answer.rows, ids):
            lines.setdefault(line.text, line)
    return Found(list(lines.values()), questions, scanned, is_cut)


async def in_trouble(where: Range, environment: Environment) -> Found:
    """The lines that say that something went wrong, the latest of them; see `search`."""
    condition = logs.is_("message", EVENTS)
    assert condition is not None, "names of events mean nothing to the language of queries"
    query = logs.query_of(f"{condition} or {logs.any_of(HANDED_BACK[1])}", latest=True)
    answer = await logs.ask(where.groups, query, where.start, where.end, environment)
    return Found([], 1, answer.scanned, answer.is_cut, [row.message for row in answer.rows])


Question = tuple[str, Sequence[str]]


def _by_trace(asked: str, _: Sequence[Line], answered: set[str]) -> Question | None:
    """CloudWatch Logs has an index of traces: this question scans little."""
    if not _HEX.fullmatch(asked):
        return None
    answered.add(f"trace {asked.lower()}")
    return f'traceId = "{asked.lower()}"', [asked.lower()]


def _by_id(asked: str, lines: Sequence[Line], _: set[str]) -> Question | None:
    """The record itself; or who received an output, whose id a handler may have chosen."""
    if lines:
        return None
    is_hex = _HEX.fullmatch(asked) is not None
    ids = [asked.lower() if is_hex else asked]
    found = [None if is_hex else logs.is_("record_id", ids), logs.is_("caused_by", ids)]
    condition = " or ".join(one for one in found if one is not None)
    return (condition, ids) if condition else None


def _by_text(asked: str, lines: Sequence[Line], _: set[str]) -> Question | None:
    """Who sent an output: its id stands in a list there. Some source may also name its records by such digits."""
    if lines:
        return None
    ids = list(dict.fromkeys([asked, asked.lower()])) if _HEX.fullmatch(asked) else [asked]
    condition = logs.contains(ids)
    return None if condition is None else (condition, ids)


def _by_traces(asked: str, lines: Sequence[Line], answered: set[str]) -> Question | None:
    """Everything in the traces of what was found."""
    traces = {line.trace_id for line in lines if line.trace_id is not None}
    new = _new(traces, "trace", answered)
    condition = logs.is_("traceId", new)
    return None if condition is None else (condition, new)


def _below(_: str, lines: Sequence[Line], answered: set[str]) -> Question | None:
    """What the records that were found caused."""
    causes = {line.caused_by for line in lines}
    ids = _new({one for line in lines for one in line.output_ids} - causes, "below", answered)
    condition = logs.is_("caused_by", ids)
    return None if condition is None else (condition, ids)


def _above(_: str, lines: Sequence[Line], answered: set[str]) -> Question | None:
    """What caused the records that were found, and who did the work that they repeat."""
    outputs = {one for line in lines for one in line.output_ids}
    causes = _new({line.caused_by for line in lines if line.caused_by is not None} - outputs, "above", answered)
    done = {line.key_hash for line in lines if line.outcome == "succeeded"}
    keys = {line.key_hash for line in lines if line.outcome == "duplicate" and line.key_hash is not None}
    same = _new(keys - done, "key", answered)
    found = [one for one in (logs.contains(causes), logs.is_("key_hash", same)) if one is not None]
    return (" or ".join(found), [*causes, *same]) if found else None


def _new(ids: set[str], kind: str, answered: set[str]) -> list[str]:
    """Those that were not asked for in this way before, as many as one question takes."""
    found = [one for one in sorted(ids) if f"{kind} {one}" not in answered and len(one) <= _LONGEST][:_MAX_IDS]
    answered.update(f"{kind} {one}" for one in found)
    return found


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
