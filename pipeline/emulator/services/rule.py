"""A rule of EventBridge, its pattern and its targets: queues, here."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.decisions.patterns import Filter, read_filter
from pipeline.emulator.services.event import Event, json_text
from pipeline.emulator.services.service import ACCOUNT, REGION, ServiceError
from pipeline.errors import ConfigurationError

#: Targets of a rule (EventBridge quotas).
MAX_TARGETS = 5
#: What a target may say here; anything else would be left out in silence.
_KNOWN = {"Id", "Arn", "RoleArn", "Input", "InputPath", "SqsParameters", "DeadLetterConfig", "RetryPolicy"}


@dataclass(frozen=True)
class Target:
    """A queue that gets the events of a rule."""

    arn: str
    given: Mapping[str, Any]  #: as it was put

    @property
    def group(self) -> str | None:
        """The message group on a FIFO queue."""
        found: str | None = self.given.get("SqsParameters", {}).get("MessageGroupId")
        return found

    @property
    def dead_letters(self) -> str | None:
        """The ARN of the queue for what it refuses."""
        found: str | None = self.given.get("DeadLetterConfig", {}).get("Arn")
        return found

    def described(self) -> dict[str, Any]:
        """As it was put."""
        return copy.deepcopy(dict(self.given))

    def body(self, event: Event) -> str:
        """What the queue gets: the event, a part of it (`InputPath`), or a text in its place (`Input`)."""
        if "Input" in self.given:
            return str(self.given["Input"])
        path = self.given.get("InputPath", "$")
        if path == "$":
            return event.text
        found: Any = event.document()
        for name in path.removeprefix("$.").split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return json_text(found)


@dataclass
class Rule:
    """A rule as it stands."""

    name: str
    bus: str
    text: str  #: its pattern, as it was put
    pattern: Filter
    state: str = "ENABLED"
    description: str | None = None
    targets: dict[str, Target] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        """As EventBridge forms it: the default bus is not named."""
        path = self.name if self.bus == "default" else f"{self.bus}/{self.name}"
        return f"arn:aws:events:{REGION}:{ACCOUNT}:rule/{path}"

    def described(self) -> dict[str, Any]:
        """As DescribeRule and ListRules tell it."""
        found = {"Name": self.name, "Arn": self.arn, "EventPattern": self.text, "State": self.state}
        return {
            **found,
            "EventBusName": self.bus,
            **({} if self.description is None else {"Description": self.description}),
        }


def pattern_of(text: str) -> Filter:
    """A rule's pattern over whole events.

    Raises `ServiceError`, InvalidEventPatternException, also for what EventBridge knows and Lambda's filters do not.
    """
    try:
        pattern = json.loads(text)
    except ValueError:
        raise _invalid("Invalid JSON") from None
    if not isinstance(pattern, dict):
        raise _invalid("Filter is not an object")
    try:
        found = read_filter(pattern, member="event", declared="put_rule")
    except ConfigurationError as error:
        raise _invalid(str(error)) from None
    assert found is not None
    return found


def targets_of(given: Sequence[Mapping[str, Any]], present: Mapping[str, Target]) -> dict[str, Target]:
    """A rule's targets after PutTargets: those of the same id take each other's place. Raises `ServiceError`."""
    found = dict(present)
    for one in given:
        found[str(one["Id"])] = _target(one)
    if len(found) > MAX_TARGETS:
        raise ServiceError("LimitExceededException", f"a rule has up to {MAX_TARGETS} targets")
    return found


def _target(given: Mapping[str, Any]) -> Target:
    arn = str(given["Arn"])
    if not arn.startswith("arn:"):
        raise ServiceError(
            "ValidationException", f"Parameter {arn:.80} is not valid. Reason: Provided Arn is not in correct format."
        )
    if arn.split(":")[2] != "sqs" or not given.keys() <= _KNOWN:
        unknown = ", ".join(sorted(given.keys() - _KNOWN)) or arn.split(":")[2]
        raise ServiceError(
            "NotImplemented",
            f"the bus in memory delivers to SQS queues, without {unknown}: use another server",
            status=501,
        )
    if arn.endswith(".fifo") and not given.get("SqsParameters"):
        raise ServiceError(
            "ValidationException", f"Parameter(s) SqsParameters must be specified for target: {given['Id']}."
        )
    return Target(arn, copy.deepcopy(dict(given)))


def _invalid(reason: str) -> ServiceError:
    return ServiceError("InvalidEventPatternException", f"Event pattern is not valid. Reason: {reason}")
