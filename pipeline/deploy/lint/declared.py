"""What a template says beside what a target declares: where each function finds the resources of its handler."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.aws.cloudformation.stack import Grant, logical_id
from pipeline.aws.names import VARIABLE
from pipeline.aws.names import Resource as Declared
from pipeline.deploy.lint import values
from pipeline.deploy.lint.model import EventSource, Function, Model, Resource
from pipeline.deploy.lint.permissions import NAMED, Target
from pipeline.deploy.template.function import Deployed
from pipeline.engine.stage import Stage
from pipeline.errors import ConfigurationError

_PLACE = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.([A-Za-z]+))?\}")
#: What stands in a text for something else, whatever that is.
_NAMES = re.compile(r"\$\{([^}.]*)[^}]*\}")
#: The types of what a service's names stand for.
TYPES = {
    "sqs": {"AWS::SQS::Queue"},
    "kinesis": {"AWS::Kinesis::Stream"},
    "dynamodb": {"AWS::DynamoDB::Table", "AWS::DynamoDB::GlobalTable", "AWS::Serverless::SimpleTable"},
    "s3": {"AWS::S3::Bucket"},
    "events": {"AWS::Events::EventBus"},
}


@dataclass(frozen=True)
class Mapped:
    """What PIPELINE_RESOURCES says. `names`: None where it cannot be read. `line`: its own, or the function's."""

    names: Mapping[str, str] | None
    line: int
    is_wrong: bool = False  #: it can be read, and is no JSON object of names

    def resource(self, model: Model, name: str) -> tuple[Resource | None, str]:
        """The template's resource behind a name, and the attribute of it that is given."""
        match = _PLACE.fullmatch((self.names or {}).get(name, ""))
        return (model.resources.get(match[1]), match[2] or "") if match is not None else (None, "")


def stage_of(model: Model, function: Function) -> Stage | None:
    """The declared handler that a function runs."""
    return model.code_of(function.id).stage


def mapped(model: Model, function: Function) -> Mapped:
    """Where a function's code finds what it uses."""
    variables = function.variables
    if VARIABLE not in variables:
        return Mapped(None if variables.is_open else {}, function.line)
    node = variables.get(VARIABLE)
    text = values.pattern(node) if node is not None else None
    try:
        found: Any = json.loads(text) if text is not None else None
    except ValueError:
        found = None
    is_names = isinstance(found, dict) and all(isinstance(value, str) for value in found.values())
    is_wrong = text is not None and not is_names and all(one in model.resources for one in _NAMES.findall(text))
    return Mapped(found if is_names else None, variables.line_of(VARIABLE), is_wrong)


def grants(stage: Stage) -> list[Grant]:
    """What a handler's function must be allowed to do; nothing for a handler that cannot be deployed."""
    try:
        return Deployed(stage).grants()
    except ConfigurationError:
        return []


def key(resource: Declared) -> str:
    """As in PIPELINE_RESOURCES: `sqs:orders`."""
    return f"{resource.service}:{resource.name}"


def found(model: Model, function: Function, declared: Declared) -> Resource | None:
    """The template's resource that a function knows by a declared name: as mapped, or by its own name."""
    names = mapped(model, function)
    resource, _ = names.resource(model, key(declared))
    return resource or named(model, declared)


def named(model: Model, declared: Declared) -> Resource | None:
    """The template's resource whose real or logical name is the declared one."""
    if declared.existing is not None:
        return None
    resources = model.of_type(*TYPES.get(declared.service, ()))
    by_name = [one for one in resources if one.name(NAMED[one.type][0]) == declared.name]
    by_id = [one for one in resources if one.id == logical_id(declared.name, one.type.rpartition(":")[2])]
    candidates = by_name or by_id
    return candidates[0] if len(candidates) == 1 else None


def target(model: Model, function: Function, grant: Grant) -> Target | None:
    """What a grant is about; None if the template does not tell."""
    part = "objects" if grant.within else ""
    if grant.resource.existing is not None:
        return Target(None, grant.resource.service, grant.resource.existing, part)
    resource = found(model, function, grant.resource)
    if resource is None or resource.type not in TYPES.get(grant.resource.service, ()):
        return None
    return Target(resource, grant.resource.service, part=part)


def mappings_of(model: Model, function: Function) -> list[EventSource]:
    """The mappings that call a function."""
    return [one for one in model.mappings if one.function == function.id]
