"""What functions may do, as far as the template says: the statements of their roles' policies.

Roles of the template, their inline and managed policies, and SAM's `Policies` with its policy templates. What cannot be
read (a role from elsewhere, a policy that is imported) is open: it may allow anything, and by itself is no finding.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from pipeline.deploy.lint import values
from pipeline.deploy.lint.model import Function, Model, Resource
from pipeline.deploy.lint.nodes import Call, Members, Node
from pipeline.deploy.lint.values import Properties, Reference
from pipeline.deploy.lint.worlds import text_of

#: What AWS's managed policies allow, each on every resource; the empty ones allow nothing that is looked at here
#: (AWS Managed Policy Reference Guide, 2026). Others are open.
MANAGED: dict[str, tuple[str, ...]] = {
    "AdministratorAccess": ("*",),
    "AmazonDynamoDBFullAccess": ("dynamodb:*",),
    "AmazonDynamoDBFullAccess_v2": ("dynamodb:*",),
    "AmazonEventBridgeFullAccess": ("events:*",),
    "AmazonKinesisFullAccess": ("kinesis:*",),
    "AmazonS3FullAccess": ("s3:*",),
    "AmazonSNSFullAccess": ("sns:*",),
    "AmazonSQSFullAccess": ("sqs:*",),
    "AWSLambdaSQSQueueExecutionRole": ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
    "AWSLambdaKinesisExecutionRole": (
        "kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator",
        "kinesis:ListShards", "kinesis:ListStreams", "kinesis:SubscribeToShard",
    ),
    "AWSLambdaDynamoDBExecutionRole": (
        "dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator", "dynamodb:ListStreams",
    ),
    "AWSLambdaBasicExecutionRole": (),
    "AWSLambdaVPCAccessExecutionRole": (),
    "AWSXRayDaemonWriteAccess": (),
    "AWSXrayWriteOnlyAccess": (),
    "CloudWatchLambdaInsightsExecutionRolePolicy": (),
}  # fmt: skip

_SQS_POLL = ("ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "ReceiveMessage")
_CRUD = (
    "GetItem", "DeleteItem", "PutItem", "Scan", "Query", "UpdateItem", "BatchWriteItem", "BatchGetItem",
    "DescribeTable", "ConditionCheckItem",
)  # fmt: skip
#: SAM's policy templates for what is looked at: parameter, service, actions (AWS SAM developer guide). Others are open.
_TEMPLATES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "SQSPollerPolicy": ("QueueName", "sqs", _SQS_POLL),
    "SQSSendMessagePolicy": ("QueueName", "sqs", ("SendMessage",)),
    "SNSPublishMessagePolicy": ("TopicName", "sns", ("Publish",)),
    "DynamoDBCrudPolicy": ("TableName", "dynamodb", _CRUD),
    "DynamoDBReadPolicy": ("TableName", "dynamodb", ("GetItem", "Scan", "Query", "BatchGetItem", "DescribeTable")),
    "DynamoDBWritePolicy": ("TableName", "dynamodb", ("PutItem", "UpdateItem", "BatchWriteItem")),
    "EventBridgePutEventsPolicy": ("EventBusName", "events", ("PutEvents",)),
    "KinesisCrudPolicy": ("StreamName", "kinesis", ("PutRecord", "PutRecords", "DescribeStream", "GetShardIterator")),
    "S3ReadPolicy": ("BucketName", "s3", ("GetObject", "ListBucket", "GetBucketLocation")),
    "S3WritePolicy": ("BucketName", "s3", ("PutObject", "PutObjectAcl")),
    "S3CrudPolicy": ("BucketName", "s3", ("GetObject", "ListBucket", "PutObject", "PutObjectAcl", "DeleteObject")),
}
#: The property that names a resource, by its type, and the service in its ARN.
NAMED: dict[str, tuple[str, str]] = {
    "AWS::SQS::Queue": ("QueueName", "sqs"),
    "AWS::SNS::Topic": ("TopicName", "sns"),
    "AWS::Kinesis::Stream": ("Name", "kinesis"),
    "AWS::DynamoDB::Table": ("TableName", "dynamodb"),
    "AWS::DynamoDB::GlobalTable": ("TableName", "dynamodb"),
    "AWS::Serverless::SimpleTable": ("TableName", "dynamodb"),
    "AWS::S3::Bucket": ("BucketName", "s3"),
    "AWS::Events::EventBus": ("Name", "events"),
}
_BELOW = {"table", "stream", "event-bus", "deliverystream"}
_PSEUDO = re.compile(r"\$\{AWS::([A-Za-z]+)\}")
_PLACES = re.compile(r"\$\{([A-Za-z0-9]+)(?:\.[A-Za-z]+)?\}")


@dataclass(frozen=True)
class Word:
    """One text and where it stands."""

    text: str
    line: int


@dataclass(frozen=True)
class Statement:
    """One statement of a policy. `owner`: the logical id of the resource that it stands in.

    `is_open`: it may allow more than can be told: something in it cannot be read, or it says what is *not* meant.
    """

    owner: str
    line: int
    allows: bool
    actions: tuple[Word, ...]
    resources: tuple[Reference, ...]
    is_open: bool
    is_conditional: bool
    everybody: int | None  #: the line of Principal "*"
    properties: Properties
    template: str = ""  #: SAM's policy template that it comes from


@dataclass(frozen=True)
class Permissions:
    """What a function may do. `is_open`: there may be more. `owner`: where it would be written, None if unknown.

    `is_explicit`: the function has a role of this template, so that SAM adds nothing to it.
    """

    statements: tuple[Statement, ...]
    managed: tuple[tuple[str, Word], ...]  #: the logical id that lists it, and the policy's name or ARN
    is_open: bool
    is_explicit: bool
    owner: str | None


@dataclass(frozen=True)
class Target:
    """What an action is about. `part`: "stream" of a table, or "objects" of a bucket."""

    resource: Resource | None
    service: str
    arn: str | None = None
    part: str = ""


def of(model: Model, function: Function) -> Permissions:
    """What a function's role allows."""
    known: dict[str, Permissions] = model.worked_out.setdefault("permissions", {})
    if function.id not in known:
        allowed = _of(model, function)
        connected = _connected(model)
        is_open = allowed.is_open or not connected.isdisjoint({"", *_sharing(model, function)})
        known[function.id] = replace(allowed, is_open=is_open)
    return known[function.id]


def _sharing(model: Model, function: Function) -> set[str]:
    """The functions with the same role: what is added to it for one of them, all have."""
    role = function.role.resource if function.role is not None else None
    others = (one for one in model.functions.values() if one.role is not None and one.role.resource == role)
    return {function.id, *(one.id for one in others if role is not None)}


def _connected(model: Model) -> set[str]:
    """The logical ids between which SAM's connectors add permissions; "" for what cannot be told."""
    if "connected" in model.worked_out:
        known: set[str] = model.worked_out["connected"]
        return known
    found: set[str] = model.worked_out.setdefault("connected", set())
    for resource in model.resources.values():
        if resource.type == "AWS::Serverless::Connector":
            found |= _ends(resource.properties, "Source") | _ends(resource.properties, "Destination")
        for name in resource.connectors.names():
            found |= {resource.id} | _ends(resource.connectors.section(name).section("Properties"), "Destination")
        if resource.connectors.is_open:
            found.add("")
    return found


def _ends(connector: Properties, name: str) -> set[str]:
    ends = connector.sections(name)
    return {one.text("Id").value or "" for one in ends} if ends and not connector.is_open else {""}


def _of(model: Model, function: Function) -> Permissions:
    if function.role is not None:
        role = model.resources.get(function.role.resource or "")
        if role is not None and role.type == "AWS::IAM::Role":
            return _of_role(model, role)
        return Permissions((), (), is_open=True, is_explicit=False, owner=None)
    if not function.is_sam or function.resource.properties.is_open:
        return Permissions((), (), is_open=True, is_explicit=False, owner=None)
    return _of_sam(model, function)


def _of_role(model: Model, role: Resource) -> Permissions:
    found = [
        statement
        for policy in role.properties.sections("Policies")
        for statement in statements(policy.section("PolicyDocument"), role.id)
    ]
    managed, is_open = list[tuple[str, Word]](), role.properties.is_open
    for node in role.properties.items("ManagedPolicyArns"):
        more, known = _managed(model, role.id, node)
        found += more
        managed += known
        is_open |= not more and not known
    beside = _beside(model)
    found += (one for policy in beside.get(role.id, ()) for one in _documented(policy))
    # It may be this one; a name that CloudFormation makes up is known to nobody else.
    is_open |= "RoleName" in role.properties and "" in beside
    return _permissions(found, managed, is_open, is_explicit=True, owner=role.id)


def _beside(model: Model) -> dict[str, list[Resource]]:
    """The policies that name their roles, by these; under "" those of which it cannot be told."""
    if "policies" in model.worked_out:
        known: dict[str, list[Resource]] = model.worked_out["policies"]
        return known
    found: dict[str, list[Resource]] = model.worked_out.setdefault("policies", {})
    for policy in model.of_type("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"):
        for reference in policy.properties.references("Roles") + policy.properties.references("RoleName"):
            role = model.named(reference, "AWS::IAM::Role", "RoleName")
            if role is not None:
                found.setdefault(role, []).append(policy)
            elif "${" in (reference.text or "${"):
                found.setdefault("", []).append(policy)
    return found


def _documented(policy: Resource) -> Iterator[Statement]:
    return statements(policy.properties.section("PolicyDocument"), policy.id)


def _of_sam(model: Model, function: Function) -> Permissions:
    found, managed, is_open = list[Statement](), list[tuple[str, Word]](), False
    for node in function.resource.properties.items("Policies"):
        policy = Properties(node, model.world, node.line)
        template = next((name for name in policy.names() if name in _TEMPLATES), None)
        if template is not None:
            found.append(_templated(policy.section(template), template, function))
        elif "Statement" in policy:
            found += statements(policy, function.id)
        elif isinstance(node, Members):
            is_open = True  # a template that is not looked at
        else:
            more, known = _managed(model, function.id, node)
            found += more
            managed += known
            is_open |= not more and not known
    return _permissions(found, managed, is_open, is_explicit=False, owner=function.id)


def _permissions(
    found: list[Statement], managed: list[tuple[str, Word]], is_open: bool, *, is_explicit: bool, owner: str
) -> Permissions:
    unknown = any(policy_name(word.text) not in MANAGED for _, word in managed)
    opens = is_open or unknown or any(one.is_open for one in found)
    return Permissions(tuple(found), tuple(managed), opens, is_explicit, owner)


def _managed(model: Model, owner: str, node: Node) -> tuple[list[Statement], list[tuple[str, Word]]]:
    """A managed policy: of this template, or of AWS by its name or ARN. Nothing if it is neither."""
    reference = values.reference(node, model.world, node.line)
    policy = model.resources.get(reference.resource or "")
    if policy is not None and policy.type == "AWS::IAM::ManagedPolicy":
        return list(statements(policy.properties.section("PolicyDocument"), policy.id)), []
    if reference.text and policy_name(reference.text) in MANAGED:
        return [], [(owner, Word(reference.text, node.line))]
    return [], []


def policy_name(text: str) -> str:
    """The name in the ARN of a managed policy, or the text itself."""
    return text.rpartition("/")[2]


def _templated(parameters: Properties, template: str, function: Function) -> Statement:
    name, service, actions = _TEMPLATES[template]
    found = parameters.reference(name) or Reference(None, "", None, parameters.line)
    if found.text is not None:  # a name, where statements have an ARN
        found = Reference(None, "", f"arn:*:{service}:*:*:{found.text}", found.line)
    words = tuple(Word(f"{service}:{action}", parameters.line) for action in actions)
    parts = (Reference(found.resource, "", found.text, found.line),)
    return Statement(function.id, parameters.line, True, words, parts, False, False, None, parameters, template)


def statements(document: Properties, owner: str) -> Iterator[Statement]:
    """The statements of a policy document."""
    if document.is_open or isinstance(document.get("Statement"), Call):
        yield Statement(owner, document.line, True, (), (), True, False, None, document)
        return
    for one in document.sections("Statement"):
        effect = one.text("Effect").value
        actions = [(text_of(node), node.line) for node in one.items("Action")]
        resources = one.references("Resource")
        listed = any(isinstance(node, Call) for node in one.items("Resource") if _is_list(node))
        inverted = "NotAction" in one or "NotResource" in one or effect is None
        yield Statement(
            owner=owner,
            line=one.line,
            allows=effect == "Allow",
            actions=tuple(Word(text, line) for text, line in actions if text is not None),
            resources=resources,
            is_open=effect != "Deny"
            and (one.is_open or inverted or listed or any(text is None for text, _ in actions)),
            is_conditional="Condition" in one,
            everybody=_everybody(one),
            properties=one,
        )


def _is_list(node: Node) -> bool:
    """Whether a call gives no text but something else, such as a list."""
    return isinstance(node, Call) and node.name not in {"Ref", "Fn::GetAtt", "Fn::Sub", "Fn::Join"}


def _everybody(statement: Properties) -> int | None:
    found = statement.get("Principal")
    if isinstance(found, Members):
        inner = statement.section("Principal").items("AWS")
        texts = [text_of(node) for node in inner]
    else:
        texts = [text_of(found)]
    return statement.line_of("Principal") if "*" in texts else None


def allowed(model: Model, permissions: Permissions, action: str, target: Target) -> bool:
    """Whether an action on a target is allowed, or may be: what cannot be told counts as allowed."""
    if any(_denies(model, statement, action, target) for statement in permissions.statements):
        return False
    if permissions.is_open:
        return True
    for _, word in permissions.managed:
        if any(is_action(action, one) for one in MANAGED[policy_name(word.text)]):
            return True
    return any(
        any(is_action(action, word.text) for word in statement.actions)
        and any(may_mean(model, one, target) for one in statement.resources)
        for statement in permissions.statements
        if statement.allows
    )


def _denies(model: Model, statement: Statement, action: str, target: Target) -> bool:
    """Whether a statement surely refuses an action on a target: it wins over all that is allowed."""
    if statement.allows or statement.is_open or statement.is_conditional or statement.properties.is_open:
        return False
    return any(is_action(action, word.text) for word in statement.actions) and any(
        one.text == "*" or (one.resource is not None and may_mean(model, one, target)) for one in statement.resources
    )


def missing(model: Model, permissions: Permissions, actions: Iterable[str], target: Target) -> list[str]:
    """The actions that are surely not allowed."""
    return [action for action in actions if not allowed(model, permissions, action, target)]


def is_action(action: str, pattern: str) -> bool:
    """Whether a policy's word means an action."""
    return fnmatchcase(action.lower(), pattern.lower())


def may_mean(model: Model, reference: Reference, target: Target) -> bool:
    """Whether a statement's resource is the target, or may be."""
    own = target.resource
    if reference.resource is not None:
        whole = reference.attribute in {"Arn", "StreamArn"}
        if own is None or reference.resource != own.id:
            return False
        return not whole or _is_part(f"/{reference.attribute}", target, is_stream=reference.attribute == "StreamArn")
    text = reference.text
    if text is None or text == "*":
        return True
    inside = {name for name in _PLACES.findall(text) if name in model.resources}
    if inside:
        rest = text.rpartition("}")[2]
        return own is not None and own.id in inside and _fits(rest, target, ".StreamArn" in text)
    parts = re.split(":", _PSEUDO.sub(r"<\1>", text), maxsplit=5)
    if len(parts) < 6:
        return True
    service, tail = parts[2], parts[5]
    if "${" not in service and not fnmatchcase(target.service, service):
        return False
    name = resource_name(tail)
    physical = _physical(target)
    if "${" in name or physical is None or "${" in physical:
        return True
    return name == physical or fnmatchcase(physical, name)


def _is_part(rest: str, target: Target, *, is_stream: bool) -> bool:
    """Whether a whole ARN of the target's resource means the part that is asked for."""
    if target.part == "stream":
        return is_stream
    return target.part != "objects" and not is_stream


def _fits(rest: str, target: Target, is_stream: bool) -> bool:
    """Whether what stands behind an ARN means the part that is asked for. `rest`: "/*", "/stream/*", ""."""
    if not rest:
        return _is_part(rest, target, is_stream=is_stream)
    if target.part == "stream":
        return rest.startswith(("/stream", "/*", "*"))
    if target.part == "objects":
        return True
    return target.service != "s3" or rest.startswith("*")


def _physical(target: Target) -> str | None:
    """The real name; None where it is not known, "" for one that CloudFormation makes up."""
    if target.arn is not None:
        return resource_name(target.arn.split(":", 5)[-1])
    if target.resource is None or target.resource.type not in NAMED:
        return None
    property_name = NAMED[target.resource.type][0]
    if property_name not in target.resource.properties:
        return None if target.resource.properties.is_open else ""
    name = target.resource.name(property_name)
    return None if name is None else _PSEUDO.sub(r"<\1>", name)


def resource_name(tail: str) -> str:
    """The name in what stands behind the account in an ARN: `orders` of `table/orders/stream/*` and of `orders/*`."""
    parts = tail.split("/")
    return parts[1] if len(parts) > 1 and parts[0] in _BELOW else parts[0]
