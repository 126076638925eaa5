"""What is kept: idempotency entries for long enough and not for ever, and data when a stack goes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from pipeline.deploy.lint import declared, values
from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity
from pipeline.deploy.lint.model import EventSource, Model, Resource
from pipeline.deploy.lint.nodes import Members
from pipeline.deploy.lint.values import Setting
from pipeline.engine.stage import Stage

ENTRIES_NEVER_EXPIRE = Rule(
    id="entries-never-expire",
    severity=Severity.WARNING,
    title="an idempotency table without time to live",
    why="Every record that was ever handled leaves an entry, which is stored and paid for until somebody deletes it",
    fix="Set `TimeToLiveSpecification: {AttributeName: expiration, Enabled: true}`",
    source="Powertools for AWS Lambda, Idempotency: required resources",
)
ENTRIES_EXPIRE_TOO_SOON = Rule(
    id="entries-expire-too-soon",
    severity=Severity.WARNING,
    title="idempotency entries expire before their records do",
    why="A record that comes again after its entry is gone, from its source or by a redrive, runs a second time",
    fix="Give `Claim(ttl=)` at least as many seconds as the longest retention",
    source="this project, docs/failures.md",
)
NO_POINT_IN_TIME_RECOVERY = Rule(
    id="no-point-in-time-recovery",
    severity=Severity.NOTE,
    title="an idempotency table cannot be brought back",
    why="Deleted or spoilt by mistake, it takes with it what was done already, and every record that comes again runs again",
    fix="Set `PointInTimeRecoverySpecification: {PointInTimeRecoveryEnabled: true}`",
    source="Amazon DynamoDB developer guide, Point-in-time backups",
)
DATA_NOT_RETAINED = Rule(
    id="data-not-retained",
    severity=Severity.NOTE,
    title="data goes with the stack",
    why="Deleting the stack, or a change that replaces the resource such as another name, deletes what is in it",
    fix="Set `DeletionPolicy: Retain` and `UpdateReplacePolicy: Retain` beside its Type, or `Delete` where that is meant",
    source="AWS CloudFormation user guide, DeletionPolicy and UpdateReplacePolicy attributes",
)

_TABLES = ("AWS::DynamoDB::Table", "AWS::DynamoDB::GlobalTable", "AWS::Serverless::SimpleTable")
#: A bucket is not among them: CloudFormation does not delete one that has something in it.
_STATEFUL = ("AWS::SQS::Queue", "AWS::Kinesis::Stream", *_TABLES)
_IDEMPOTENCY = re.compile(r"idempoten", re.IGNORECASE)


def entries_never_expire(model: Model) -> Iterator[Finding]:
    for table in _idempotency_tables(model):
        if table.type == "AWS::Serverless::SimpleTable":
            yield ENTRIES_NEVER_EXPIRE.at(
                table.id,
                table.line,
                "a SimpleTable has no time to live",
                fix="Make it an AWS::DynamoDB::Table with `TimeToLiveSpecification: {AttributeName: expiration, Enabled: true}`",
            )
            continue
        section = table.properties.section("TimeToLiveSpecification")
        enabled = section.truth("Enabled", default=False)
        if enabled.value is False:
            line = enabled.line if enabled.given else table.line
            yield ENTRIES_NEVER_EXPIRE.at(table.id, line, "it keeps idempotency entries, and has no time to live")


def no_point_in_time_recovery(model: Model) -> Iterator[Finding]:
    for table in _idempotency_tables(model):
        if table.type != "AWS::DynamoDB::Table":
            continue
        section = table.properties.section("PointInTimeRecoverySpecification")
        if section.truth("PointInTimeRecoveryEnabled", default=False).value is False:
            yield NO_POINT_IN_TIME_RECOVERY.at(table.id, table.line, "it has no point-in-time recovery")


def _idempotency_tables(model: Model) -> list[Resource]:
    """Tables that a function is told of as such: by the target's declarations, or by a variable's or the table's own name."""
    found = [table for table in model.of_type(*_TABLES) if _IDEMPOTENCY.search(f"{table.id} {table.name('TableName')}")]
    for function in model.functions.values():
        for name in function.variables.names():
            reference = function.variables.reference(name)
            table = model.resources.get((reference.resource or "") if reference is not None else "")
            if table is not None and table.type in _TABLES and _IDEMPOTENCY.search(name):
                found.append(table)
        stage = declared.stage_of(model, function)
        store: Any = getattr(stage.store, "resource", None) if stage is not None else None
        kept = declared.found(model, function, store) if store is not None else None
        if kept is not None and kept.type in _TABLES:
            found.append(kept)
    return list({table.id: table for table in found}.values())


def entries_expire_too_soon(model: Model) -> Iterator[Finding]:
    for mapping in model.mappings:
        stage = model.code_of(mapping.function).stage
        if stage is None or stage.mode is None or stage.store is None:
            continue
        for name, setting in _retentions(model, mapping, stage):
            if setting.value is not None and stage.mode.ttl < setting.value:
                yield ENTRIES_EXPIRE_TOO_SOON.at(
                    mapping.name,
                    mapping.line,
                    f"entries of {stage.full_name} live {stage.mode.ttl:,} s, and {name} keeps records for {setting.value:,} s",
                    resource=mapping.owner,
                    fix=f"Declare {type(stage.mode).__name__}(ttl={setting.value}) or more",
                )
                break


def _retentions(model: Model, mapping: EventSource, stage: Stage) -> Iterator[tuple[str, Setting[int]]]:
    """How long a record can come again, the longest first: a dead letter can be redriven as long as it is kept."""
    queue, stream = model.queue_of(mapping), model.stream_of(mapping)
    if queue is not None:
        letters = model.dead_letters_of(queue)
        if letters is not None:
            yield letters.id, letters.retention
        yield queue.id, queue.retention
    if stream is not None:
        hours = stream.retention_hours
        yield stream.id, Setting(None if hours.value is None else hours.value * 3600, hours.line, hours.given)


def data_not_retained(model: Model) -> Iterator[Finding]:
    """Each of which nothing is said; one finding for a template that says nothing of any of them."""
    stateful = model.of_type(*_STATEFUL)
    found = [one for one in stateful if not _is_decided(model, one)]
    if len(found) < len(stateful):
        for one in found:
            yield DATA_NOT_RETAINED.at(one.id, one.line, "it has no `DeletionPolicy`")
    elif found:
        names = ", ".join(one.id for one in found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
        yield DATA_NOT_RETAINED.at(found[0].id, found[0].line, f"no `DeletionPolicy` stands at {names}")


def _is_decided(model: Model, resource: Resource) -> bool:
    """Whether somebody has said what becomes of the data; `Delete` is an answer too."""
    if resource.properties.truth("DeletionProtectionEnabled").value:
        return True
    body = values.resources(model.world).items[resource.id].node
    return isinstance(body, Members) and body.get("DeletionPolicy") is not None


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (ENTRIES_NEVER_EXPIRE, entries_never_expire),
    (ENTRIES_EXPIRE_TOO_SOON, entries_expire_too_soon),
    (NO_POINT_IN_TIME_RECOVERY, no_point_in_time_recovery),
    (DATA_NOT_RETAINED, data_not_retained),
)
