"""Handlers of this toolkit beside the template that deploys them: what is declared, and what stands there."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from pipeline.aws.cloudformation.stack import Grant
from pipeline.aws.names import Resource as Declared
from pipeline.aws.names import arn_name
from pipeline.deploy.lint import declared, permissions
from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity, together
from pipeline.deploy.lint.model import EventSource, Function, Model, Resource
from pipeline.deploy.lint.nodes import Scalar
from pipeline.deploy.lint.permissions import Permissions, Statement, Target
from pipeline.deploy.lint.values import Setting
from pipeline.engine.stage import Stage
from pipeline.sources.sqs_dead_letters import dead_letter_queue, named_elsewhere

_SOURCE = "this project: `pipeline template` writes what is declared"

HANDLER_NOT_DEPLOYED = Rule(
    id="handler-not-deployed",
    severity=Severity.WARNING,
    title="a declared handler has no function",
    why="Nothing reads its source: what is sent there waits until it expires",
    fix="Add a function with this `Handler`, as `pipeline template` writes it",
    source=_SOURCE,
)
HANDLER_NOT_FOUND = Rule(
    id="handler-not-found",
    severity=Severity.ERROR,
    title="a function names a handler that is not there",
    why="Every invocation fails before any of your code runs, and all records go to the dead letters",
    fix="Correct `Handler`",
    source="AWS Lambda developer guide, Define Lambda function handler in Python: naming",
)
SOURCE_DIFFERS = Rule(
    id="source-differs",
    severity=Severity.ERROR,
    title="a mapping reads something else than the handler declares",
    why="The handler gets records that it was not written for, and delays, dead letters and permissions are of the declared source",
    fix="Let the mapping read the declared source, or declare what it reads",
    source=_SOURCE,
)
SOURCE_NOT_READ = Rule(
    id="source-not-read",
    severity=Severity.ERROR,
    title="no mapping brings a handler its records",
    why="The function is never called: what is sent to the source waits until it expires",
    fix="Add an event of the declared source to the function, as `pipeline template` writes it",
    source=_SOURCE,
)
RESOURCE_NOT_MAPPED = Rule(
    id="resource-not-mapped",
    severity=Severity.ERROR,
    title="a handler cannot find a resource",
    why="The code looks for a resource with the logical name itself, and every call for it fails",
    fix="Add it to the variable PIPELINE_RESOURCES of the function",
    source=_SOURCE,
)
RESOURCE_OF_WRONG_TYPE = Rule(
    id="resource-of-wrong-type",
    severity=Severity.ERROR,
    title="a name leads to something else",
    why="The code calls a resource that is no such thing, and every call is refused",
    fix="Give the resource that the name means: a queue's URL (`${Queue}`), another's name",
    source=_SOURCE,
)
RESOURCE_NOT_USED = Rule(
    id="resource-not-used",
    severity=Severity.NOTE,
    title="a function is told of a resource that its handler does not declare",
    why="Somebody takes it for part of the pipeline, and keeps its permissions",
    fix="Take it out of PIPELINE_RESOURCES, or declare it",
    source=_SOURCE,
)
SETTING_DIFFERS = Rule(
    id="setting-differs",
    severity=Severity.WARNING,
    title="a setting is not as declared",
    why="The local run and the tests use the declared one; the handler's own deadlines and checks know no other",
    fix="Change one of them; if the template's is meant, ignore this rule here with the reason",
    source=_SOURCE,
)
FILTER_DIFFERS = Rule(
    id="filter-differs",
    severity=Severity.WARNING,
    title="a mapping's filter is not as declared",
    why="Records that the handler is for may be deleted or passed over unseen, or others reach it",
    fix="Write the declared patterns, as `pipeline template` does",
    source=_SOURCE,
)
ACTION_MISSING = Rule(
    id="action-missing",
    severity=Severity.ERROR,
    title="a handler may not do what it declares",
    why="The calls are refused: records fail, or wait until the role is corrected",
    fix="Allow these actions in the role",
    source=_SOURCE,
)
ACTION_NOT_NEEDED = Rule(
    id="action-not-needed",
    severity=Severity.NOTE,
    title="a function may do more than its handler declares",
    why="What is allowed and not needed is there for mistakes only, unless your own code calls it",
    fix="Take these actions out, or ignore this rule here and say what calls them",
    source="AWS IAM user guide, Security best practices: least privilege",
)

#: Settings of mappings: property, option of the source, and what "not set" means.
_SETTINGS = (
    ("BatchSize", "batch_size"),
    ("MaximumBatchingWindowInSeconds", "batching_window"),
    ("ParallelizationFactor", "parallelization_factor"),
    ("BisectBatchOnFunctionError", "bisect"),
    ("MaximumRetryAttempts", "retry_attempts"),
    ("MaximumRecordAgeInSeconds", "max_record_age"),
    ("StartingPosition", "starting_position"),
)


def handler_not_deployed(model: Model) -> Iterator[Finding]:
    if not model.stages or any(one.handler.value is None and one.handler.given for one in model.functions.values()):
        return
    deployed = {(one.handler.value or "").replace("/", ".") for one in model.functions.values()}
    misnamed = {name.rpartition(".")[0] for name in deployed if not _is_there(name)}
    running = [stage.full_name for _, stage in _deployed(model)]
    for stage in model.stages:
        path = f"{stage.function.__module__}.{stage.name}"
        # A handler below CodeUri is named from there.
        is_deployed = stage.full_name in running or any(
            path == one or path.endswith(f".{one}") for one in deployed if one
        )
        if not is_deployed and stage.function.__module__ not in misnamed:
            detail = f"no function has `Handler: {path}`"
            yield HANDLER_NOT_DEPLOYED.at(stage.full_name, model.world.root.line_of("Resources"), detail)


def handler_not_found(model: Model) -> Iterator[Finding]:
    modules = {stage.function.__module__ for stage in model.stages}
    for function in model.functions.values():
        path = (function.handler.value or "").replace("/", ".")
        module, _, name = path.rpartition(".")
        if module not in modules or _is_there(path):
            continue
        names = [stage.name for stage in model.stages if stage.function.__module__ == module]
        close = get_close_matches(name, names, n=1)
        yield HANDLER_NOT_FOUND.at(
            function.id,
            function.handler.line,
            f"`{module}` has no handler '{name}'",
            fix=f"Write `Handler: {module}.{close[0]}`" if close else f"Name one of {', '.join(names)}",
        )


def _is_there(path: str) -> bool:
    """Whether a module that is loaded has something of this name to call."""
    module, _, name = path.rpartition(".")
    return callable(getattr(sys.modules.get(module), name, None))


def source_differs(model: Model) -> Iterator[Finding]:
    for function, stage in _deployed(model):
        wanted: Declared | None = getattr(stage.source, "resource", None)
        for mapping in declared.mappings_of(model, function):
            wrong = _is_other(model, function, mapping, wanted) if wanted is not None else ""
            if wrong:
                detail = f"{stage.full_name} reads '{stage.source.name}', and {wrong}"
                yield _at(SOURCE_DIFFERS, mapping, mapping.line, detail)


def source_not_read(model: Model) -> Iterator[Finding]:
    for function, stage in _deployed(model):
        source: Declared | None = getattr(stage.source, "resource", None)
        if source is not None and not _may_be_called(model, function):
            detail = f"no mapping calls it, and {stage.full_name} reads '{stage.source.name}'"
            yield SOURCE_NOT_READ.at(function.id, function.line, detail)


def _may_be_called(model: Model, function: Function) -> bool:
    """Whether a mapping calls a function, or may; a pipe may, too."""
    events = function.resource.properties.section("Events")
    is_unknown = model.is_open or events.is_open or any(name.startswith("Fn::") for name in events.names())
    others = [one for one in model.mappings if one.function not in model.functions]
    return is_unknown or bool(declared.mappings_of(model, function) or others or model.of_type("AWS::Pipes::Pipe"))


def _is_other(model: Model, function: Function, mapping: EventSource, wanted: Declared) -> str:
    """What a mapping reads, if that is surely not what is declared."""
    if mapping.kind and mapping.kind != wanted.service:
        return f"this is a mapping of {mapping.kind}"
    queue, stream = model.queue_of(mapping), model.stream_of(mapping)
    read = queue.resource if queue is not None else stream.resource if stream is not None else None
    if wanted.existing is not None:
        text = mapping.source.text if mapping.source is not None else None
        known = text is not None and "${" not in text and text != wanted.existing
        return f"this mapping reads {arn_name(text)}" if known and text is not None and text.count(":") > 4 else (
            f"this mapping reads {read.id}" if read is not None else ""
        )  # fmt: skip
    meant = declared.found(model, function, wanted)
    if read is not None and meant is not None and read.id != meant.id:
        return f"this mapping reads {read.id}, which is another than {meant.id}"
    return ""


def resource_not_mapped(model: Model) -> Iterator[Finding]:
    return together(_resource_not_mapped(model))


def _resource_not_mapped(model: Model) -> Iterator[Finding]:
    for function, stage in _deployed(model):
        mapped = declared.mapped(model, function)
        if mapped.is_wrong:
            detail = "PIPELINE_RESOURCES is no JSON object of names"
            fix = "Write it as `pipeline template` does"
            yield RESOURCE_NOT_MAPPED.at(function.id, mapped.line, detail, fix=fix)
        if mapped.names is None:
            continue
        for resource in _used(stage):
            name = declared.key(resource)
            if name not in mapped.names and not _is_own_name(model, resource):
                detail = (
                    f"PIPELINE_RESOURCES has no '{name}', and no resource of the template is named '{resource.name}'"
                )
                yield RESOURCE_NOT_MAPPED.at(function.id, mapped.line, detail, fix=_mapping_fix(model, resource))


def _used(stage: Stage) -> list[Declared]:
    """What the code itself looks for by name. The dead-letter queue of somebody else's queue is asked for."""
    source: Any = getattr(stage.source, "resource", None)
    theirs = named_elsewhere(source).name if source is not None and source.existing is not None else None
    found = [one.resource for one in declared.grants(stage) if not one.is_for_lambda and one.resource.existing is None]
    return [
        one for one in dict.fromkeys(found) if one.name != theirs and (one.service, one.name) != ("events", "default")
    ]


def _is_own_name(model: Model, resource: Declared) -> bool:
    names = [
        one.name(permissions.NAMED[one.type][0]) for one in model.of_type(*declared.TYPES.get(resource.service, ()))
    ]
    return resource.name in names


def _mapping_fix(model: Model, resource: Declared) -> str:
    found = declared.named(model, resource)
    return (
        f'Add "{declared.key(resource)}": "${{{found.id if found else "..."}}}" to the variable PIPELINE_RESOURCES, '
        "as `pipeline template` writes it"
    )


def resource_of_wrong_type(model: Model) -> Iterator[Finding]:
    return together(_resource_of_wrong_type(model))


def _resource_of_wrong_type(model: Model) -> Iterator[Finding]:
    for function, _ in _deployed(model):
        mapped = declared.mapped(model, function)
        for name in mapped.names or ():
            resource, attribute = mapped.resource(model, name)
            service, _, logical = name.partition(":")
            if resource is None or service not in declared.TYPES:
                continue
            wrong = _wrong(resource, attribute, service, logical)
            if wrong:
                yield RESOURCE_OF_WRONG_TYPE.at(function.id, mapped.line, f"'{name}' leads to {resource.id}, {wrong}")


def _wrong(resource: Resource, attribute: str, service: str, name: str) -> str:
    if resource.type not in declared.TYPES[service]:
        return f"which is an {resource.type}"
    if attribute in {"Arn", "StreamArn"}:
        return f"by its ARN, where {'a URL' if service == 'sqs' else 'a name'} is wanted"
    fifo = resource.properties.truth("FifoQueue", default=False).value
    if service == "sqs" and fifo is not None and fifo != name.endswith(".fifo"):
        return f"which is {'a FIFO' if fifo else 'no FIFO'} queue"
    return ""


def resource_not_used(model: Model) -> Iterator[Finding]:
    for function, stage in _deployed(model):
        mapped = declared.mapped(model, function)
        declares = {declared.key(one.resource) for one in declared.grants(stage)}
        unused = sorted(set(mapped.names or ()) - declares)
        if unused and declares:
            detail = f"{stage.full_name} declares none of {', '.join(unused)}"
            yield RESOURCE_NOT_USED.at(function.id, mapped.line, detail)


def setting_differs(model: Model) -> Iterator[Finding]:
    return together(_setting_differs(model))


def _setting_differs(model: Model) -> Iterator[Finding]:
    for function, stage in _deployed(model):
        for name, setting, wanted in (
            ("Timeout", function.timeout, stage.deploy.timeout),
            ("MemorySize", function.memory, stage.deploy.memory),
        ):
            if _differs(setting, wanted):
                yield SETTING_DIFFERS.at(function.id, setting.line, _difference(stage, name, setting, wanted))
        for mapping in declared.mappings_of(model, function):
            yield from _mapping_differs(model, mapping, stage)
            yield from _redrive_differs(model, function, mapping, stage)


def _mapping_differs(model: Model, mapping: EventSource, stage: Stage) -> Iterator[Finding]:
    source: Any = stage.source
    found: Mapping[str, Setting[Any]] = {
        "BatchSize": mapping.batch_size,
        "MaximumBatchingWindowInSeconds": mapping.window,
        "ParallelizationFactor": mapping.parallelization,
        "BisectBatchOnFunctionError": mapping.bisect,
        "MaximumRetryAttempts": mapping.retries,
        "MaximumRecordAgeInSeconds": mapping.record_age,
        "StartingPosition": mapping.starting_position,
    }
    for name, option in _SETTINGS:
        wanted = getattr(source, option, None)
        if wanted is not None and _differs(found[name], wanted):
            yield _at(SETTING_DIFFERS, mapping, found[name].line, _difference(stage, name, found[name], wanted))
    most, most_wanted = mapping.max_concurrency, getattr(source, "max_concurrency", None)
    is_known = mapping.kind == "sqs" and (most.value is not None or most.is_left_out)
    if is_known and most.value != most_wanted:
        yield _at(SETTING_DIFFERS, mapping, most.line, _difference(stage, "MaximumConcurrency", most, most_wanted))
    queue = model.queue_of(mapping)
    receives = queue.redrive.max_receives if queue is not None and queue.redrive is not None else None
    wanted = getattr(source, "max_receive_count", None)
    is_ours = queue is not None and wanted is not None and source.existing is None
    if queue is not None and receives is not None and is_ours and _differs(receives, wanted):
        yield SETTING_DIFFERS.at(queue.id, receives.line, _difference(stage, "maxReceiveCount", receives, wanted))


def _redrive_differs(model: Model, function: Function, mapping: EventSource, stage: Stage) -> Iterator[Finding]:
    """Dead letters of the queue that is read would go elsewhere than the handler's own."""
    source: Declared | None = getattr(stage.source, "resource", None)
    queue = model.queue_of(mapping)
    if queue is None or queue.redrive is None or source is None or source.existing is not None:
        return
    there, meant = model.dead_letters_of(queue), declared.found(model, function, dead_letter_queue(source))
    if source.service == "sqs" and there is not None and meant is not None and there.id != meant.id:
        detail = f"it redrives to {there.id}, and {stage.full_name}'s dead letters are {meant.id}"
        yield SETTING_DIFFERS.at(queue.id, queue.redrive.line, detail, fix=f"Redrive to !GetAtt {meant.id}.Arn")


def _differs(setting: Setting[Any], wanted: object) -> bool:
    return setting.value is not None and setting.value != wanted


def _difference(stage: Stage, name: str, setting: Setting[Any], wanted: object) -> str:
    there = f"is {setting.value}" if setting.given else f"is left out, which is {setting.value}"
    there = there if setting.value is not None else "is left out"
    return f"`{name}` {there}, and {stage.full_name} declares {'none' if wanted is None else wanted}"


def filter_differs(model: Model) -> Iterator[Finding]:
    for function, stage in _deployed(model):
        source: Any = stage.source
        wanted: Sequence[Any] | None = getattr(source, "filter_patterns", None)
        for mapping in declared.mappings_of(model, function):
            there = _patterns(mapping)
            if there is not None and wanted is not None and not _same(there, wanted):
                line = mapping.filtered.line if mapping.filtered.given else mapping.line
                declares = "no filter" if not wanted else f"{len(wanted)} other pattern{'s' * (len(wanted) > 1)}"
                has = f"it has {len(there)} pattern{'s' * (len(there) != 1)}" if there else "it has no filter"
                yield _at(FILTER_DIFFERS, mapping, line, f"{has}, and {stage.full_name} declares {declares}")


def _patterns(mapping: EventSource) -> list[Any] | None:
    """The mapping's patterns; None where one cannot be read."""
    if mapping.filtered.value is None:
        return None
    found: list[Any] = []
    for one in mapping.properties.section("FilterCriteria").sections("Filters"):
        node = one.get("Pattern")
        try:
            found.append(json.loads(str(node.value)) if isinstance(node, Scalar) else None)
        except ValueError:
            return None
    return None if None in found else found


def _same(there: Sequence[Any], wanted: Sequence[Any]) -> bool:
    def texts(patterns: Sequence[Any]) -> list[str]:
        return sorted(json.dumps(one, sort_keys=True) for one in patterns)

    return texts(there) == texts(wanted)


def action_missing(model: Model) -> Iterator[Finding]:
    """What the code calls; what Lambda calls with the role is `mapping-not-allowed`'s."""
    return together(_action_missing(model))


def _action_missing(model: Model) -> Iterator[Finding]:
    for function, stage in _deployed(model):
        allowed = permissions.of(model, function)
        if allowed.is_open or allowed.owner is None:
            continue
        for grant in declared.grants(stage):
            target = declared.target(model, function, grant)
            if grant.is_for_lambda or target is None:
                continue
            lacking = permissions.missing(model, allowed, grant.actions, target)
            if lacking:
                place = target.resource.id if target.resource is not None else target.arn
                yield ACTION_MISSING.at(
                    function.id,
                    function.line,
                    f"{allowed.owner} does not allow {', '.join(lacking)} on {place}",
                    fix=f"Allow {', '.join(lacking)} on {place}{grant.within} in {allowed.owner}",
                )


def action_not_needed(model: Model) -> Iterator[Finding]:
    """On what is declared only: what else a function may do is its own code's affair."""
    return together(_action_not_needed(model))


def _action_not_needed(model: Model) -> Iterator[Finding]:
    shared = [permissions.of(model, one).owner for one in model.functions.values()]
    for function, stage in _deployed(model):
        allowed = permissions.of(model, function)
        if allowed.owner is None or shared.count(allowed.owner) > 1:
            continue
        needed = declared.grants(stage)
        targets = [(grant, found) for grant in needed if (found := declared.target(model, function, grant)) is not None]
        for statement in allowed.statements:
            extra = _extra(model, statement, targets, allowed)
            if extra:
                line = next((word.line for word in statement.actions if word.text == extra[0]), statement.line)
                detail = f"{stage.full_name} needs no {', '.join(extra)} there"
                yield ACTION_NOT_NEEDED.at(statement.owner, line, detail)


def _extra(
    model: Model, statement: Statement, targets: Sequence[tuple[Grant, Target]], allowed: Permissions
) -> list[str]:
    """The actions of a statement about declared resources that none of their grants has."""
    if not statement.allows or statement.is_open or statement.template:
        return []
    meant = [
        (grant, target)
        for grant, target in targets
        if any(_surely_means(model, resource, target) for resource in statement.resources)
    ]
    if not meant:
        return []
    services = {grant.resource.service for grant, _ in meant}
    return [
        word.text
        for word in statement.actions
        if word.text.partition(":")[0].lower() in services
        and not any(permissions.is_action(action, word.text) for grant, _ in targets for action in grant.actions)
    ]


def _surely_means(model: Model, resource: Any, target: Target) -> bool:
    """Named outright: a wildcard is another rule's affair."""
    if target.resource is None:
        return bool(resource.text == target.arn)
    return bool(resource.resource == target.resource.id) or f"${{{target.resource.id}." in (resource.text or "")


def _deployed(model: Model) -> Iterator[tuple[Function, Stage]]:
    for function in model.functions.values():
        stage = declared.stage_of(model, function)
        if stage is not None:
            yield function, stage


def _at(rule: Rule, mapping: EventSource, line: int, detail: str) -> Finding:
    return rule.at(mapping.name, line, detail, resource=mapping.owner)


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (HANDLER_NOT_DEPLOYED, handler_not_deployed),
    (HANDLER_NOT_FOUND, handler_not_found),
    (SOURCE_DIFFERS, source_differs),
    (SOURCE_NOT_READ, source_not_read),
    (RESOURCE_NOT_MAPPED, resource_not_mapped),
    (RESOURCE_OF_WRONG_TYPE, resource_of_wrong_type),
    (RESOURCE_NOT_USED, resource_not_used),
    (SETTING_DIFFERS, setting_differs),
    (FILTER_DIFFERS, filter_differs),
    (ACTION_MISSING, action_missing),
    (ACTION_NOT_NEEDED, action_not_needed),
)
