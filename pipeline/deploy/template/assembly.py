"""From declared pipelines to the stack that a template describes."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.app import Pipeline
from pipeline.aws.cloudformation.stack import ALARM_TOPIC, HAS_ALARM_TOPIC, Stack
from pipeline.aws.cloudformation.values import IsGiven, Noted, Ref, plain
from pipeline.aws.names import Resource
from pipeline.checks import is_same_source
from pipeline.deploy.template import dashboard
from pipeline.deploy.template.function import Deployed, first_line
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError
from pipeline.ports import Sink
from pipeline.sinks.file import File
from pipeline.sinks.memory import Memory
from pipeline.sinks.rejects import SinkDeadLetters

#: Dollars a month for each metric of an alarm, us-east-1, at standard resolution (CloudWatch's price list, 2026).
ALARM_PRICE = 0.10
#: CloudFormation's limit. The functions' mappings, which SAM adds, count too.
_MAX_RESOURCES = 500
#: The newest Python that Lambda runs, and the cheaper processor.
RUNTIME, ARCHITECTURE = "python3.14", "arm64"
LAYER = "DependenciesLayer"
#: What is said of sinks for which there is nothing to declare.
_OWN_SINK = "is none of the toolkit's, so the role gets no permission for it"
_WITHOUT_GRANTS: dict[type, str] = {
    Memory: "is for tests on this machine: in Lambda, what it gets is gone with the process",
    File: "is for runs on this machine: in Lambda only /tmp can be written to, and is gone with the process",
}


_PARAMETERS: dict[str, Any] = {
    "Stage": {
        "Type": "String",
        "Default": "dev",
        "AllowedPattern": "[a-z][a-z0-9-]{0,31}",
        "Description": "What this stack is for, such as dev or prod: a tag, and the first word of each alarm.",
    },
    "LogRetentionDays": {
        "Type": "Number",
        "Default": 30,
        "AllowedValues": [1, 3, 5, 7, 14, 30, 60, 90, 180, 365, 731],
        "Description": "Days that log lines are kept. Longer than a dead letter (14), so that its story can be read.",
    },
    ALARM_TOPIC: {
        "Type": "String",
        "Default": "",
        "Description": "An SNS topic that the alarms notify; empty for none.",
    },
}
_GLOBALS: dict[str, Any] = {
    "Runtime": RUNTIME,
    "Architectures": [ARCHITECTURE],
    "CodeUri": ".",
    "RecursiveLoop": Noted("Terminate", "Lambda ends loops through SQS, SNS and S3; hop counts end the others."),
    "Tags": {"stage": Ref("Stage")},
}


@dataclass(frozen=True)
class Template:
    """A template's sections, and what its reader should know."""

    sections: dict[str, Any]
    headings: dict[str, str]  #: by the logical id of the first resource below it
    whys: dict[str, str]  #: comments above resources, by logical id
    notes: list[str]


def template(pipelines: Sequence[Pipeline], *, layer: bool = False) -> Template:
    """The template of these pipelines.

    `layer`: dependencies go into a layer that the functions share. Raises `ConfigurationError` for pipelines that
    cannot be deployed: without a handler, with a handler that no module holds, or with names too alike.
    """
    stages = [stage for pipeline in pipelines for stage in pipeline.stages()]
    if not stages:
        names = ", ".join(pipeline.name for pipeline in pipelines)
        raise ConfigurationError(f"{names}: there is no handler, so there is nothing to deploy")
    stack = Stack()
    functions = _declare(stages, stack)
    if layer:
        _add_layer(stack)
    for function in functions:
        function.complete(stack, layer=Ref(LAYER) if layer else None)
    dashboard.add(stack, {function.name: function.title for function in functions})
    _check_size(len(stack.resources) + len(functions))
    return _finished(pipelines, stages, stack)


def _declare(stages: Sequence[Stage], stack: Stack) -> list[Deployed]:
    """Put everything into the stack: each source above its function, each sink below the first one that writes to it."""
    functions = [Deployed(stage) for stage in stages]
    _refuse_shared_queues(stages)
    brought = {_key(stage.source) for stage in stages} | _dead_letter_queues(stages)
    for function in functions:
        stage = function.stage
        stack.begin(f"handler `{stage.full_name}`: {function.title}")
        function.declare_source(stack)
        function.add(stack)
        for sink in stage.sinks:
            if _key(sink) not in brought:
                _declare_one(sink, stack)
        letters = stage.dead_letters
        if _key(letters.sink if isinstance(letters, SinkDeadLetters) else letters) not in brought:
            _declare_one(letters, stack)
        function.watch(stack)
    for stage in stages:
        if stage.store is not None:
            stack.begin(f"idempotency of `{stage.pipeline}`")
            _declare_one(stage.store, stack)
    return functions


def _declare_one(thing: Any, stack: Stack) -> None:
    declare = getattr(thing, "declare", None)
    if declare is not None:
        declare(stack)


def _refuse_shared_queues(stages: Sequence[Stage]) -> None:
    """Each message goes to one reader. Within one pipeline, that is refused where the handler is declared."""
    dead = _dead_letter_queues(stages)
    for index, stage in enumerate(stages):
        for other in stages[:index]:
            if not stage.source.is_stream and is_same_source(stage.source, other.source):
                raise ConfigurationError(
                    f"{stage.full_name}: the queue '{stage.source.name}' is read by {other.full_name} already, and each "
                    "message goes to one reader only. Give each handler a queue of its own"
                )
        if _key(stage.source) in dead:
            raise ConfigurationError(
                f"{stage.full_name}: '{stage.source.name}' is the dead-letter queue of another handler's source. To read "
                "rejected records, give that handler rejects=sinks.SQS('another-name'), and read that queue"
            )


def _dead_letter_queues(stages: Sequence[Stage]) -> set[Any]:
    """The queues that come with the sources: a queue of ours has its own even where the toolkit uses another."""
    found: set[Any] = set()
    for stage in stages:
        source: Any = stage.source
        is_ours = not source.is_stream and source.resource.existing is None
        letters: Any = source.dead_letters if is_ours else stage.dead_letters
        if not isinstance(letters, SinkDeadLetters):
            found |= {_place(grant.resource) for grant in letters.grants() if grant.to == "SendTo"}
    return found


def _key(thing: Any) -> Any:
    """What makes a source and a sink one resource; a sink without one stands for itself."""
    resource = getattr(thing, "resource", None)
    return id(thing) if resource is None else _place(resource)


def _place(resource: Resource) -> tuple[str, str]:
    return resource.service, resource.existing or resource.name


def _check_size(count: int) -> None:
    if count > _MAX_RESOURCES:
        raise ConfigurationError(
            f"the template would have {count} resources, and CloudFormation takes {_MAX_RESOURCES}: "
            "give each pipeline a template of its own (TARGET is `module:pipeline`)"
        )


def _add_layer(stack: Stack) -> None:
    stack.begin("what the functions import")
    stack.add(
        LAYER,
        "AWS::Serverless::LayerVersion",
        {
            "Description": "What the functions import, at locked versions",
            "ContentUri": ".",
            "CompatibleRuntimes": [RUNTIME],
            "CompatibleArchitectures": [ARCHITECTURE],
            "PublishLambdaVersion": Noted(True, "A function with a canary publishes a version when the layer changes."),
        },
        attributes={"Metadata": {"BuildMethod": "makefile", "BuildArchitecture": ARCHITECTURE}},
    )


def _finished(pipelines: Sequence[Pipeline], stages: Sequence[Stage], stack: Stack) -> Template:
    sections: dict[str, Any] = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Transform": "AWS::Serverless-2016-10-31",
        "Description": _description(pipelines, stages),
        "Parameters": {**_PARAMETERS, **stack.parameters},
        "Conditions": {HAS_ALARM_TOPIC: IsGiven(ALARM_TOPIC)},
        "Globals": {"Function": _GLOBALS},
        "Resources": {
            name: {"Type": declared.kind, **declared.attributes, "Properties": declared.properties}
            for name, declared in stack.resources.items()
        },
        "Outputs": stack.outputs,
    }
    whys = {name: declared.why for name, declared in stack.resources.items() if declared.why is not None}
    return Template(sections, stack.headings, whys, _notes(stages, stack))


def _description(pipelines: Sequence[Pipeline], stages: Sequence[Stage]) -> str:
    """The first line of each module's docstring, else the pipelines' names; CloudFormation takes 1,024 bytes."""
    modules = dict.fromkeys(stage.function.__module__ for stage in stages)
    lines = [first_line(sys.modules[module].__doc__) for module in modules if module in sys.modules]
    text = " ".join(filter(None, lines)) or ", ".join(pipeline.name for pipeline in pipelines)
    return text.encode()[:1_024].decode(errors="ignore")


def _notes(stages: Sequence[Stage], stack: Stack) -> list[str]:
    notes = [
        f"{stage.full_name}: the sink '{sink.name}' {_WITHOUT_GRANTS.get(type(sink), _OWN_SINK)}"
        for stage in stages
        for sink in _sinks(stage)
        if not hasattr(sink, "grants")
    ]
    for stage in stages:
        note = getattr(stage.store, "note", None)
        notes += [] if note is None else [f"{stage.full_name}: {note}"]
    metrics = sum(_metrics_of(stack.resources[name].properties) for name in stack.alarms)
    return [*notes, f"{len(stack.alarms)} alarms on {metrics} metrics: ${metrics * ALARM_PRICE:.2f} a month"]


def _sinks(stage: Stage) -> list[Sink]:
    """The sinks of a handler, with the one of its rejected records, each once."""
    letters = stage.dead_letters
    rejects = [letters.sink] if isinstance(letters, SinkDeadLetters) else []
    return list({sink.name: sink for sink in (*stage.sinks, *rejects)}.values())


def _metrics_of(alarm: Mapping[str, Any]) -> int:
    """CloudWatch bills an alarm by the metrics that it reads."""
    metrics = plain(alarm.get("Metrics"))
    return 1 if metrics is None else sum("MetricStat" in metric for metric in metrics)
