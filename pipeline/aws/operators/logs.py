"""CloudWatch Logs Insights: questions to log groups, and what they cost.

Limits (service model of CloudWatch Logs, 2026-11): 50 groups and 10,000 characters a query, 10,000 rows a page, 100 queries at a
time in a region, which dashboards share. A query is paid by the bytes that it scans, also one that nobody waits for any
more; so it is stopped when we are.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct

from pipeline.aws.client import client, code_of
from pipeline.aws.operators.peek import denied
from pipeline.aws.operators.stacks import StackResource
from pipeline.errors import PipelineError
from pipeline.ports import Environment

#: Actions that a question needs.
ACTIONS = ("logs:DescribeLogGroups", "logs:StartQuery", "logs:GetQueryResults", "logs:StopQuery")
MAX_GROUPS = 50
MAX_ROWS = 10_000
#: USD for a GB that is scanned, in us-east-1 (list price, 2026-11).
PRICE = 0.005

#: Seconds between two looks at a query: growing from the first to the second.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 1.0
#: Seconds after which a query is given up, and for which one waits for a place among the region's queries.
_PATIENCE, _PLACE_PATIENCE = 300.0, 60.0
_BUSY = ("LimitExceededException", "ThrottlingException")
#: Queries ask for fields' values by characters that mean nothing to their language; what has others is asked by a part.
_SAFE = re.compile(r"[A-Za-z0-9_./:@=+,#-]+")
#: Characters of a value that are asked for; ids of SQS, Kinesis and traces are shorter.
_LONGEST = 256


class QueryFailed(PipelineError):
    """A query came to no end: CloudWatch Logs says why."""


class Row(Struct, frozen=True):
    """One event that a query found."""

    message: str
    at: float | None  #: epoch seconds, by CloudWatch Logs
    log: str  #: account and group


class Answer(Struct, frozen=True):
    """What a query found, and what it scanned."""

    rows: Sequence[Row]
    scanned: float  #: bytes
    is_cut: bool  #: there may be more rows


class Groups(Struct, frozen=True):
    """Log groups to ask."""

    names: Sequence[str]
    missing: Sequence[str] = ()
    unfit: Sequence[str] = ()  #: of a class that cannot be asked so


def is_(field: str, values: Sequence[str]) -> str | None:
    """The condition that a field has one of these values, or more than that; None when it cannot be asked for any.

    Nothing of a value is ever read as part of the query.
    """
    safe = [value for value in values if _SAFE.fullmatch(value) and len(value) <= _LONGEST]
    found = [f"{field} in [{', '.join(_quoted(value) for value in safe)}]"] if len(safe) > 1 else []
    found += [f"{field} = {_quoted(value)}" for value in safe] if len(safe) == 1 else []
    found += [
        f"strcontains({field}, {_quoted(part)})" for value in values if value not in safe and (part := _part(value))
    ]
    return " or ".join(found) or None


def contains(values: Sequence[str]) -> str | None:
    """The condition that an event's text has one of these; None when it cannot be asked for any."""
    parts = [part for value in values if (part := _part(value))]
    return " or ".join(f"strcontains(@message, {_quoted(part)})" for part in parts) or None


def any_of(field: str) -> str:
    """The condition that a field counts something. `field` is a name of ours, not a value."""
    return f"{field} > 0"


def query_of(condition: str, *, latest: bool = False) -> str:
    """The query for the events of a condition: the first of them in order of time, or the latest."""
    order = "desc" if latest else "asc"
    return f"fields @timestamp, @message, @log | filter {condition} | sort @timestamp {order} | limit {MAX_ROWS}"


def _part(value: str) -> str | None:
    """The longest part of a value that means nothing to the language of queries."""
    found: str | None = max(_SAFE.findall(value), key=len, default=None)
    return None if found is None else found[:_LONGEST]


def _quoted(value: str) -> str:
    assert _SAFE.fullmatch(value), "what stands in a query is safe"
    return f'"{value}"'


def groups_of(resources: Sequence[StackResource]) -> list[str]:
    """The log groups of a stack: those that it declares, and the usual ones of its functions."""
    declared = [one.physical_id for one in resources if one.kind == "AWS::Logs::LogGroup"]
    usual = [f"/aws/lambda/{one.physical_id}" for one in resources if one.kind == "AWS::Lambda::Function"]
    return list(dict.fromkeys(declared + usual))


async def existing(names: Sequence[str], environment: Environment) -> Groups:
    """Which of these log groups can be asked. One that is not there would fail the whole query.

    Where looking is denied all of them count as there. Raises what the client raises.
    """
    logs = await client(environment, "logs")
    there: list[str] = []
    missing: list[str] = []
    unfit: list[str] = []
    for name in names:
        try:
            answer = await logs.describe_log_groups(logGroupNamePrefix=name, limit=50)
        except Exception as error:
            if denied(error):
                return Groups(list(names))
            raise
        found = next((one for one in answer.get("logGroups", ()) if one.get("logGroupName") == name), None)
        kind = None if found is None else found.get("logGroupClass", "STANDARD")
        (missing if kind is None else there if kind == "STANDARD" else unfit).append(name)
    return Groups(there, missing, unfit)


async def ask(groups: Sequence[str], query: str, start: float, end: float, environment: Environment) -> Answer:
    """What the groups hold, from `start` to `end` (epoch seconds). Raises `QueryFailed`, and what the client raises."""
    answers = [
        await _ask(groups[first : first + MAX_GROUPS], query, start, end, environment)
        for first in range(0, len(groups), MAX_GROUPS)
    ]
    rows = [row for answer in answers for row in answer.rows]
    return Answer(rows, sum(answer.scanned for answer in answers), any(answer.is_cut for answer in answers))


async def _ask(groups: Sequence[str], query: str, start: float, end: float, environment: Environment) -> Answer:
    logs = await client(environment, "logs")
    wanted = {"logGroupNames": list(groups), "queryString": query, "startTime": int(start), "endTime": int(end)}
    started = await _start(logs, wanted, environment)
    is_over = False
    try:
        answer = await _end(logs, started, environment)
        is_over = True
        rows, is_cut = await _rows(logs, started, answer)
        return Answer(rows, float(answer.get("statistics", {}).get("bytesScanned", 0.0)), is_cut)
    finally:
        if not is_over:
            with contextlib.suppress(Exception):
                await asyncio.shield(logs.stop_query(queryId=started))


async def _start(logs: Any, wanted: Mapping[str, Any], environment: Environment) -> str:
    clock = environment.clock
    until = clock.monotonic() + _PLACE_PATIENCE
    pause = _LONGEST_PAUSE
    while True:
        try:
            return await _started(logs, wanted)
        except Exception as error:
            if code_of(error) not in _BUSY:
                raise
            if clock.monotonic() + pause > until:
                raise QueryFailed(
                    f"CloudWatch Logs takes no query for {_PLACE_PATIENCE:.0f} seconds ({code_of(error)}): too many run in the "
                    "region, those of dashboards included. Try again later"
                ) from None
        await clock.sleep(pause)
        pause *= 2


async def _started(logs: Any, wanted: Mapping[str, Any]) -> str:
    """Start a query. Who is cancelled meanwhile has one that may run already, and costs: it is stopped."""
    starting = asyncio.ensure_future(logs.start_query(**wanted))
    try:
        started: str = (await asyncio.shield(starting))["queryId"]
    except asyncio.CancelledError:
        with contextlib.suppress(Exception):
            await logs.stop_query(queryId=(await starting)["queryId"])
        raise
    return started


async def _end(logs: Any, started: str, environment: Environment) -> dict[str, Any]:
    """The answer when the query is complete: until then its rows are a part of them."""
    clock = environment.clock
    until = clock.monotonic() + _PATIENCE
    pause = _FIRST_PAUSE
    while True:
        answer: dict[str, Any] = await _looked(logs, started)
        status = answer.get("status")
        if status == "Complete":
            return answer
        if status in ("Failed", "Cancelled", "Timeout"):
            raise QueryFailed(f"the query of CloudWatch Logs ended as {status}: try a shorter --since, or try again")
        if clock.monotonic() + pause > until:
            raise QueryFailed(f"the query did not end within {_PATIENCE:.0f} seconds: try a shorter --since")
        await clock.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


async def _looked(logs: Any, started: str) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = await logs.get_query_results(queryId=started)
    except Exception as error:
        if code_of(error) == "ThrottlingException":
            return {"status": "Running"}  # look again, later
        raise
    return answer


async def _rows(logs: Any, started: str, answer: dict[str, Any]) -> tuple[list[Row], bool]:
    rows = [_row(one) for one in answer.get("results", ())]
    while answer.get("nextToken"):
        answer = await logs.get_query_results(queryId=started, nextToken=answer["nextToken"])
        rows += [_row(one) for one in answer.get("results", ())]
    return rows, len(rows) >= MAX_ROWS


def _row(fields: Sequence[Mapping[str, str]]) -> Row:
    found = {one.get("field"): one.get("value", "") for one in fields}
    return Row(found.get("@message", ""), _instant(found.get("@timestamp", "")), found.get("@log", ""))


def _instant(text: str) -> float | None:
    """`2026-11-21 10:00:00.123`, UTC."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
