"""CloudWatch Logs, as far as questions go: it keeps events, and understands the conditions that we write."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tests.cli.stand_in import Answer

_TEST = re.compile(
    r'(?P<field>[a-zA-Z_]+) = "(?P<value>[^"]*)"|(?P<of>[a-zA-Z_]+) in \[(?P<values>[^\]]*)\]|'
    r'strcontains\((?P<within>@?[a-zA-Z_]+), "(?P<part>[^"]*)"\)|(?P<counted>[a-zA-Z_]+) > 0'
)
_QUERY = re.compile(
    r"fields @timestamp, @message, @log \| filter (?P<condition>.*) \| sort @timestamp (?P<order>asc|desc) \| limit 10000"
)


class Insights:
    """Groups of events. `statuses`: what is said before a query is complete, with a part of its rows.

    `most`: rows that a query has at most.
    """

    def __init__(
        self, groups: Mapping[str, Sequence[str]], statuses: Sequence[str] = (), *, most: int = 10_000
    ) -> None:
        self._groups = groups
        self._most = most
        self._statuses = list(statuses)
        self._queries: dict[str, tuple[list[list[dict[str, str]]], list[str]]] = {}
        self.queries: list[str] = []
        self.stopped: list[str] = []
        self.classes: dict[str, str] = {}

    @property
    def answers(self) -> dict[str, Answer]:
        """For a stand-in."""
        return {
            "DescribeLogGroups": self._describe,
            "StartQuery": self._start,
            "GetQueryResults": self._results,
            "StopQuery": self._stop,
        }

    def _describe(self, parameters: dict[str, Any]) -> tuple[int, Any]:
        names = sorted(name for name in self._groups if name.startswith(parameters["logGroupNamePrefix"]))
        return 200, {
            "logGroups": [{"logGroupName": name, "logGroupClass": self.classes.get(name, "STANDARD")} for name in names]
        }

    def _start(self, parameters: dict[str, Any]) -> tuple[int, Any]:
        names = parameters["logGroupNames"]
        assert len(names) <= 50
        for name in names:
            if name not in self._groups:
                return 400, {"__type": "ResourceNotFoundException", "message": f"Log group '{name}' does not exist"}
        query = parameters["queryString"]
        assert len(query) <= 10_000
        found = _QUERY.fullmatch(query)
        if found is None:
            return 400, {"__type": "MalformedQueryException", "message": query}
        self.queries.append(found["condition"])
        texts = [(name, text) for name in names for text in self._groups[name] if _holds(found["condition"], text)]
        if len(texts) > self._most:
            texts.sort(key=lambda one: str(json.loads(one[1])["timestamp"]), reverse=found["order"] == "desc")
        rows = [_row(name, text, number) for number, (name, text) in enumerate(texts[: self._most])]
        identity = f"q{len(self.queries)}"
        self._queries[identity] = (rows, list(self._statuses))
        return 200, {"queryId": identity}

    def _results(self, parameters: dict[str, Any]) -> tuple[int, Any]:
        rows, statuses = self._queries[parameters["queryId"]]
        if statuses:
            return 200, {"status": statuses.pop(0), "results": rows[:1], "statistics": {"bytesScanned": 1.0}}
        scanned = float(sum(len(text) for texts in self._groups.values() for text in texts))
        return 200, {"status": "Complete", "results": rows, "statistics": {"bytesScanned": scanned}}

    def _stop(self, parameters: dict[str, Any]) -> tuple[int, Any]:
        self.stopped.append(parameters["queryId"])
        return 200, {"success": True}


def _row(group: str, text: str, number: int) -> list[dict[str, str]]:
    at = datetime.fromisoformat(json.loads(text)["timestamp"]).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    values = {"@timestamp": at, "@message": f"{text}\n", "@log": f"111122223333:{group}", "@ptr": f"p{number}"}
    return [{"field": name, "value": value} for name, value in values.items()]


def _holds(condition: str, text: str) -> bool:
    """Whether an event meets one of the tests. A condition that is made of anything else is refused."""
    fields = {"@message": text, **{name: str(value) for name, value in json.loads(text).items()}}
    rest = condition
    holds = False
    while rest:
        test = _TEST.match(rest)
        assert test is not None, condition
        if test["field"]:
            holds |= fields.get(test["field"]) == test["value"]
        elif test["of"]:
            holds |= fields.get(test["of"]) in re.findall('"([^"]*)"', test["values"])
        elif test["counted"]:
            holds |= float(fields.get(test["counted"], "0")) > 0
        else:
            holds |= test["part"] in fields.get(test["within"], "")
        rest = rest[test.end() :]
        assert not rest or rest.startswith(" or "), condition
        rest = rest.removeprefix(" or ")
    return holds
