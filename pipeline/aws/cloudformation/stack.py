"""A template in the making: each integration puts in what it needs, in the order of the handlers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import Struct

from pipeline.aws.cloudformation.values import NO_VALUE, Att, If, Ref, Sub, inside
from pipeline.aws.names import Resource
from pipeline.errors import ConfigurationError

#: The condition and the parameter by which alarms reach somebody.
HAS_ALARM_TOPIC, ALARM_TOPIC = "HasAlarmTopic", "AlarmTopicArn"


#: What to call next at an alarm: what went wrong in the stack, by handler and type of error, each with a record to look at.
TRACE = "pipeline trace --stack ${AWS::StackName} --region ${AWS::Region} --since 3h"

_NAME = re.compile(r"[A-Za-z0-9._-]+")


class Grant(Struct, frozen=True, kw_only=True):
    """What a function may do with one resource: exact actions, for the policy of its role."""

    to: str  #: what for, as the beginning of the statement's Sid: "Read", "SendTo"
    resource: Resource
    actions: tuple[str, ...]
    within: str = ""  #: behind the ARN: "/*" for a bucket's objects
    why: str | None = None
    is_for_lambda: bool = False  #: what the event source mapping calls with the function's role, not the code
    is_global_name: bool = False  #: the ARN names no account: the resource must still be ours


class Reader(Struct, frozen=True, kw_only=True):
    """The function that reads a source, as far as the source's part of a template depends on it."""

    function: str  #: its logical id
    mapping: str  #: the logical id of its event source mapping
    timeout: int  #: seconds
    retrying: int = 0  #: seconds that a record may take with all its retries


class Event(Struct, frozen=True, kw_only=True):
    """A source as the event of a SAM function."""

    kind: str  #: SQS, Kinesis
    properties: Mapping[str, Any]


@dataclass(frozen=True)
class Declared:
    """One resource of the template."""

    kind: str  #: AWS::SQS::Queue
    properties: Mapping[str, Any]
    attributes: Mapping[str, Any] = field(default_factory=dict)  #: DeletionPolicy, Metadata
    why: str | None = None


class Series(Struct, frozen=True, kw_only=True):
    """One line of a graph on the dashboard."""

    namespace: str
    metric: str
    dimensions: Mapping[str, Any]
    statistic: str = "Sum"


class Graph(Struct, frozen=True, kw_only=True):
    """One graph on the dashboard, in the row of a handler."""

    row: str
    title: str
    series: Sequence[Series]


class _Place(Struct, frozen=True):
    reference: Any  #: what the code is told: a queue's URL, a table's name
    arn: Any


class Stack:
    """What will stand in the template. Order of insertion is the order in the file."""

    def __init__(self) -> None:
        self.resources: dict[str, Declared] = {}
        self.parameters: dict[str, Mapping[str, Any]] = {}
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self.headings: dict[str, str] = {}  #: by the logical id of the first resource below it
        self.graphs: list[Graph] = []
        self.alarms: list[str] = []
        self._places: dict[tuple[str, str], _Place] = {}
        self._heading: str | None = None

    def begin(self, heading: str) -> None:
        """What is added from here on stands below this heading."""
        self._heading = heading

    def add(
        self,
        name: str,
        kind: str,
        properties: Mapping[str, Any],
        *,
        why: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a resource by its logical id."""
        if name in self.resources:
            raise ConfigurationError(
                f"two resources of the template would both be named '{name}': rename a handler, or a queue, table, "
                "stream or bucket, so that the names differ in letters or digits"
            )
        if self._heading is not None:
            self.headings[name], self._heading = self._heading, None
        self.resources[name] = Declared(kind, properties, attributes or {}, why)

    def keep(
        self,
        resource: Resource,
        kind: str,
        properties: Mapping[str, Any],
        *,
        suffix: str = "",
        why: str | None = None,
        skipped_checks: Mapping[str, str] | None = None,
    ) -> str:
        """Add what a logical name stands for, kept when the stack is deleted; return its logical id."""
        if not _NAME.fullmatch(resource.name):
            raise ConfigurationError(
                f"'{resource.name}': a name in a template is letters, digits, '-', '_' and '.': take another, or "
                "existing= with the ARN of what is there"
            )
        name = logical_id(resource.name, suffix or kind.rpartition(":")[2])
        # Not plain Retain: what a first deployment has made before it fails would stay, and its names stop the next try.
        attributes: dict[str, Any] = {"DeletionPolicy": "RetainExceptOnCreate", "UpdateReplacePolicy": "Retain"}
        if skipped_checks:
            attributes["Metadata"] = skip_checks(skipped_checks)
        self.add(name, kind, properties, why=why, attributes=attributes)
        self.place(resource, Ref(name), Att(name))
        return name

    def change(self, name: str, properties: Mapping[str, Any]) -> None:
        """Give a resource other properties than it was added with."""
        self.resources[name] = replace(self.resources[name], properties=properties)

    def place(self, resource: Resource, reference: Any, arn: Any) -> None:
        """Say what the code is told about a resource, and what policies say."""
        self._places[_key(resource)] = _Place(reference, arn)

    def has(self, resource: Resource) -> bool:
        """True when the resource is somebody else's, or stands in the template already."""
        return resource.existing is not None or _key(resource) in self._places

    def reference(self, resource: Resource) -> Any:
        """What the code is told: a queue's URL, another resource's name; None for somebody else's, known by its ARN."""
        return None if resource.existing is not None else self._places[_key(resource)].reference

    def arn(self, resource: Resource) -> Any:
        """The resource's ARN."""
        return resource.existing if resource.existing is not None else self._places[_key(resource)].arn

    def graph(self, row: str, title: str, series: Sequence[Series]) -> None:
        """Add a graph to the dashboard, in the row of a function."""
        self.graphs.append(Graph(row=row, title=title, series=series))

    def alarm(self, name: str, description: str, properties: Mapping[str, Any], *, command: str = "") -> None:
        """Add an alarm that rings at once where the threshold is reached; missing data is no trouble.

        `command`: what to call next, for whoever is woken by it; `${...}` in it is CloudFormation's.
        """
        self.alarms.append(name)
        self.add(
            name,
            "AWS::CloudWatch::Alarm",
            {
                "AlarmDescription": Sub(f"${{Stage}}: {inside(description)}" + (command and f". Next: {command}")),
                **properties,
                "ComparisonOperator": "GreaterThanOrEqualToThreshold",
                "TreatMissingData": "notBreaching",
                "AlarmActions": If(HAS_ALARM_TOPIC, [Ref(ALARM_TOPIC)], NO_VALUE),
            },
        )


def logical_id(name: str, suffix: str) -> str:
    """A logical id: `github-webhooks` and `Queue` make `GithubWebhooksQueue`."""
    words = re.findall(r"[A-Za-z0-9]+", name)
    camel = "".join(word[0].upper() + word[1:] for word in words)
    return camel if camel.endswith(suffix) and camel != suffix else camel + suffix


def metric(namespace: str, name: str, dimensions: Mapping[str, Any], statistic: str, period: int) -> dict[str, Any]:
    """The properties of an alarm that say which metric it watches."""
    return {
        "Namespace": namespace,
        "MetricName": name,
        "Dimensions": dimension_list(dimensions),
        "Statistic": statistic,
        "Period": period,
    }


def part(identifier: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """A metric (see `metric`) as a part of an expression."""
    what = {name: properties[name] for name in ("Namespace", "MetricName", "Dimensions")}
    stat = {"Metric": what, "Period": properties["Period"], "Stat": properties["Statistic"]}
    return {"Id": identifier, "ReturnData": False, "MetricStat": stat}


def dimension_list(dimensions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Dimensions as CloudFormation writes them."""
    return [{"Name": name, "Value": value} for name, value in dimensions.items()]


def skip_checks(reasons: Mapping[str, str]) -> dict[str, Any]:
    """The metadata by which security scanners leave out a check, with the reason."""
    return {"checkov": {"skip": [{"id": check, "comment": reason} for check, reason in reasons.items()]}}


def _key(resource: Resource) -> tuple[str, str]:
    return resource.service, resource.name
