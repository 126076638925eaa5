"""EventBridge in memory: buses, rules and their targets, and what was put on each bus."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.decisions.patterns import Filter
from pipeline.emulator.services.event import Event, Refused, accepted, checked_sizes
from pipeline.emulator.services.rule import Rule, Target, pattern_of, targets_of
from pipeline.emulator.services.service import ACCOUNT, REGION, Operation, ServiceError
from pipeline.emulator.services.trace_header import passed_on

Parameters = Mapping[str, Any]

DEFAULT = "default"
#: Takes an event to a queue: its ARN, the body, of a FIFO queue the message group, and the event's trace header, which
#: becomes the message's `AWSTraceHeader`. May raise `ServiceError`.
Deliver = Callable[[str, str, str | None, str | None], None]
#: Buses of an account in a region, and rules of a bus (EventBridge quotas).
MAX_BUSES, MAX_RULES = 100, 300
_PAGE = 100


@dataclass
class Bus:
    """A bus as it stands."""

    name: str
    made_at: float
    description: str | None = None
    rules: dict[str, Rule] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        """As EventBridge forms it."""
        return f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{self.name}"


@dataclass(frozen=True)
class Undelivered:
    """An event that a target's queue refused. EventBridge tries for 24 hours; here it is kept at once, for tests."""

    event: Event
    target: str
    reason: str


class EventBridge:
    """EventBridge, whose rules lead to queues.

    `chance`: of event ids. `deliver`: takes events to queues; it can be set later, and without it they stay on the bus.
    """

    def __init__(self, chance: random.Random | None = None, deliver: Deliver | None = None) -> None:
        self.deliver = deliver
        self.undelivered: list[Undelivered] = []
        self.lost: list[Event] = []  #: for buses that do not exist: EventBridge takes those without a word
        self._chance = chance or random.Random(0)
        self._buses = {DEFAULT: Bus(DEFAULT, 0.0)}
        self._operations: dict[str, Operation] = {
            "create_event_bus": self._create_bus,
            "delete_event_bus": self._delete_bus,
            "delete_rule": self._delete_rule,
            "describe_event_bus": self._describe_bus,
            "describe_rule": self._describe_rule,
            "disable_rule": lambda given, _: self._switch_rule(given, "DISABLED"),
            "enable_rule": lambda given, _: self._switch_rule(given, "ENABLED"),
            "list_event_buses": self._list_buses,
            "list_rules": self._list_rules,
            "list_tags_for_resource": self._list_tags,
            "list_targets_by_rule": self._list_targets,
            "put_events": self._put_events,
            "put_rule": self._put_rule,
            "put_targets": self._put_targets,
            "remove_targets": self._remove_targets,
        }

    @property
    def name(self) -> str:
        """See `Service`."""
        return "events"

    @property
    def operations(self) -> Mapping[str, Operation]:
        """See `Service`."""
        return self._operations

    def next_change(self, now: float) -> float | None:
        """See `Service`: a bus keeps nothing that time would change."""
        return None

    def events_on(self, bus: str = DEFAULT) -> list[dict[str, Any]]:
        """What was put on a bus so far, as its rules' targets see it."""
        return [event.document() for event in self._bus({"EventBusName": bus}).events]

    # Buses

    def _create_bus(self, given: Parameters, now: float) -> dict[str, Any]:
        name = str(given.get("Name", ""))
        if not _is_name(name, 256):
            raise ServiceError(
                "ValidationException", f"Event bus name {name!r:.80} must be letters, digits, '.', '-', '_'"
            )
        if name in self._buses:
            raise ServiceError("ResourceAlreadyExistsException", f"Event bus {name} already exists.")
        if len(self._buses) >= MAX_BUSES:
            raise ServiceError("LimitExceededException", f"an account has up to {MAX_BUSES} event buses")
        tags = {str(tag["Key"]): str(tag["Value"]) for tag in given.get("Tags", ())}
        bus = self._buses[name] = Bus(name, now, given.get("Description"), tags=tags)
        return {"EventBusArn": bus.arn, **({} if bus.description is None else {"Description": bus.description})}

    def _delete_bus(self, given: Parameters, now: float) -> dict[str, Any]:
        name = _name_of(given.get("Name"))
        if name == DEFAULT:
            raise ServiceError("ValidationException", "Cannot delete event bus default.")
        bus = self._buses.get(name)
        if bus is not None and bus.rules:
            raise ServiceError("ValidationException", f"Event bus {name} has rules: delete them first.")
        self._buses.pop(name, None)
        return {}

    def _describe_bus(self, given: Parameters, now: float) -> dict[str, Any]:
        return _described(self._bus({"EventBusName": given.get("Name")}))

    def _list_buses(self, given: Parameters, now: float) -> dict[str, Any]:
        prefix = given.get("NamePrefix", "")
        found = [_described(bus) for name, bus in sorted(self._buses.items()) if name.startswith(prefix)]
        return _page("EventBuses", found, given)

    def _list_tags(self, given: Parameters, now: float) -> dict[str, Any]:
        bus = self._bus({"EventBusName": given.get("ResourceARN")})
        return {"Tags": [{"Key": name, "Value": value} for name, value in bus.tags.items()]}

    # Rules

    def _put_rule(self, given: Parameters, now: float) -> dict[str, Any]:
        bus, name = self._bus(given), str(given.get("Name", ""))
        if not _is_name(name, 64):
            raise ServiceError("ValidationException", f"Rule name {name!r:.80} must be letters, digits, '.', '-', '_'")
        if given.get("ScheduleExpression"):
            raise ServiceError(
                "NotImplemented", "schedules do not fire in memory: put the events, or use another server", status=501
            )
        if not given.get("EventPattern"):
            raise ServiceError(
                "ValidationException", "Parameter(s) EventPattern or ScheduleExpression must be specified."
            )
        if name not in bus.rules and len(bus.rules) >= MAX_RULES:
            raise ServiceError("LimitExceededException", f"a bus has up to {MAX_RULES} rules")
        text = str(given["EventPattern"])
        pattern: Filter = pattern_of(text)
        targets = bus.rules[name].targets if name in bus.rules else {}
        state = str(given.get("State", "ENABLED"))
        rule = bus.rules[name] = Rule(name, bus.name, text, pattern, state, given.get("Description"), dict(targets))
        return {"RuleArn": rule.arn}

    def _delete_rule(self, given: Parameters, now: float) -> dict[str, Any]:
        bus, name = self._bus(given), str(given["Name"])
        if name in bus.rules and bus.rules[name].targets:
            raise ServiceError("ValidationException", "Rule can't be deleted since it has targets.")
        bus.rules.pop(name, None)
        return {}

    def _describe_rule(self, given: Parameters, now: float) -> dict[str, Any]:
        return {**self._rule(given, "Name").described(), "CreatedBy": ACCOUNT}

    def _switch_rule(self, given: Parameters, state: str) -> dict[str, Any]:
        self._rule(given, "Name").state = state
        return {}

    def _list_rules(self, given: Parameters, now: float) -> dict[str, Any]:
        prefix, rules = given.get("NamePrefix", ""), self._bus(given).rules
        found = [rule.described() for name, rule in sorted(rules.items()) if name.startswith(prefix)]
        return _page("Rules", found, given)

    def _put_targets(self, given: Parameters, now: float) -> dict[str, Any]:
        rule = self._rule(given, "Rule")
        rule.targets = targets_of(given["Targets"], rule.targets)
        return {"FailedEntryCount": 0, "FailedEntries": []}

    def _remove_targets(self, given: Parameters, now: float) -> dict[str, Any]:
        rule = self._rule(given, "Rule")
        for name in given["Ids"]:
            rule.targets.pop(name, None)
        return {"FailedEntryCount": 0, "FailedEntries": []}

    def _list_targets(self, given: Parameters, now: float) -> dict[str, Any]:
        return _page("Targets", [one.described() for one in self._rule(given, "Rule").targets.values()], given)

    # Events

    def _put_events(self, given: Parameters, now: float) -> dict[str, Any]:
        entries = given.get("Entries", ())
        checked_sizes(entries)
        answers = [self._put(entry, now) for entry in entries]
        return {"FailedEntryCount": sum("ErrorCode" in answer for answer in answers), "Entries": answers}

    def _put(self, entry: Parameters, now: float) -> dict[str, Any]:
        found = accepted(entry, str(uuid.UUID(int=self._chance.getrandbits(128), version=4)), now)
        if isinstance(found, Refused):
            return {"ErrorCode": found.code, "ErrorMessage": found.message}
        bus = self._buses.get(_name_of(entry.get("EventBusName")))
        if bus is None:
            # As EventBridge does: https://github.com/aws/aws-cli/issues/9186
            self.lost.append(found)
        else:
            bus.events.append(found)
            for rule in bus.rules.values():
                if rule.state != "DISABLED" and rule.pattern.accepts(found.text):
                    self._send(rule, found)
        return {"EventId": found.id}

    def _send(self, rule: Rule, event: Event) -> None:
        if self.deliver is None:
            return
        for target in rule.targets.values():
            try:
                self.deliver(target.arn, target.body(event), target.group, passed_on(event.trace_header, event.id))
            except ServiceError as error:
                self._fail(target, event, error)

    def _fail(self, target: Target, event: Event, error: ServiceError) -> None:
        if target.dead_letters is not None and self.deliver is not None:
            try:
                self.deliver(target.dead_letters, target.body(event), None, passed_on(event.trace_header, event.id))
                return
            except ServiceError as second:
                error = second
        self.undelivered.append(Undelivered(event, target.arn, str(error)))

    def _bus(self, given: Parameters) -> Bus:
        name = _name_of(given.get("EventBusName"))
        if name not in self._buses:
            raise ServiceError("ResourceNotFoundException", f"Event bus {name} does not exist.")
        return self._buses[name]

    def _rule(self, given: Parameters, member: str) -> Rule:
        bus, name = self._bus(given), str(given[member])
        if name not in bus.rules:
            raise ServiceError("ResourceNotFoundException", f"Rule {name} does not exist on EventBus {bus.name}.")
        return bus.rules[name]


def _described(bus: Bus) -> dict[str, Any]:
    description = {} if bus.description is None else {"Description": bus.description}
    return {"Name": bus.name, "Arn": bus.arn, **description}


def _name_of(given: object) -> str:
    """A bus's name, given as name or as ARN; without either the default one's."""
    return str(given or DEFAULT).rpartition("event-bus/")[2]


def _is_name(name: str, limit: int) -> bool:
    return 0 < len(name) <= limit and all(one.isascii() and (one.isalnum() or one in "._-") for one in name)


def _page(member: str, found: list[dict[str, Any]], given: Parameters) -> dict[str, Any]:
    start, limit = int(given.get("NextToken", 0)), int(given.get("Limit", _PAGE))
    rest = {"NextToken": str(start + limit)} if start + limit < len(found) else {}
    return {member: found[start : start + limit], **rest}
