"""What functions may do: too little, so that their mappings and calls are refused, or far too much."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pipeline.deploy.lint import permissions
from pipeline.deploy.lint.actions import instead_of, is_narrowable
from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity, together
from pipeline.deploy.lint.model import EventSource, Model, Resource
from pipeline.deploy.lint.permissions import Permissions, Statement, Target, Word
from pipeline.deploy.lint.values import Reference

WILDCARD_ACTION = Rule(
    id="wildcard-action",
    severity=Severity.WARNING,
    title="a function may do everything",
    why="A mistake or a stolen credential may then delete queues and tables, not only read and write them",
    fix="List the actions that the code calls",
    source="AWS IAM user guide, Security best practices: least privilege",
)
WILDCARD_RESOURCE = Rule(
    id="wildcard-resource",
    severity=Severity.WARNING,
    title="a function may do it to every resource",
    why="It reaches every queue, table, stream or bucket of the account, other systems' too",
    fix="Name the resources, as `!GetAtt Orders.Arn`",
    source="AWS IAM user guide, Security best practices: least privilege",
)
MANAGED_POLICY_WIDE = Rule(
    id="managed-policy-wide",
    severity=Severity.NOTE,
    title="a managed policy that means every queue or stream",
    why="AWS's execution policies allow reading every queue or stream of the account, not only the mapping's",
    fix="Write the policy's actions out, on the ARN of what the mapping reads",
    source="AWS Managed Policy Reference Guide",
)
MAPPING_NOT_ALLOWED = Rule(
    id="mapping-not-allowed",
    severity=Severity.ERROR,
    title="a mapping may not read its source",
    why="Lambda reads with the function's role: it refuses the mapping, or reads nothing and says so nowhere in the logs",
    fix="Allow these actions on the source in the role",
    source="AWS Lambda developer guide, execution role permissions of SQS, Kinesis and DynamoDB event source mappings",
)
FAILURE_DESTINATION_NOT_ALLOWED = Rule(
    id="failure-destination-not-allowed",
    severity=Severity.ERROR,
    title="a mapping may not write to its on-failure destination",
    why="Lambda sends there with the function's role: what is given up is lost",
    fix="Allow these actions on the destination in the role",
    source="AWS Lambda developer guide, Retain discarded batch records in Lambda: execution role permissions",
)
DECRYPT_NOT_ALLOWED = Rule(
    id="decrypt-not-allowed",
    severity=Severity.ERROR,
    title="a mapping may not decrypt what it reads",
    why="A source with a key of your own gives its records only to roles that may use that key: nothing is read",
    fix="Allow kms:Decrypt on the key in the role",
    source="Amazon SQS developer guide, Key management; Amazon Kinesis Data Streams developer guide, Permissions to use KMS keys",
)
UNKNOWN_ACTION = Rule(
    id="unknown-action",
    severity=Severity.ERROR,
    title="a policy allows something that does not exist",
    why="IAM takes any name without a word, and the call that it was meant for is refused",
    fix="Write the action's name",
    source="AWS Service Authorization Reference",
)
STATEMENTS_NOT_ALLOWED = Rule(
    id="statements-not-allowed",
    severity=Severity.ERROR,
    title="PartiQL statements are not allowed",
    why="ExecuteStatement and BatchExecuteStatement need actions of their own; PutItem and its like do not allow them",
    fix="Allow dynamodb:PartiQLInsert, PartiQLUpdate, PartiQLDelete and PartiQLSelect, whichever the statements are",
    source="Amazon DynamoDB developer guide, IAM security policies with PartiQL for DynamoDB",
)

#: What Lambda calls with the function's role (AWS Lambda developer guide).
_READING = {
    "sqs": ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
    "kinesis": (
        "kinesis:DescribeStream", "kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator",
        "kinesis:ListShards",
    ),
    "dynamodb": ("dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"),
}  # fmt: skip
_PARTIQL = ("dynamodb:PartiQLInsert", "dynamodb:PartiQLUpdate", "dynamodb:PartiQLDelete", "dynamodb:PartiQLSelect")
_ITEMS = ("dynamodb:PutItem", "dynamodb:UpdateItem", "dynamodb:DeleteItem", "dynamodb:GetItem")
_PLACE = re.compile(r"\$\{(?!AWS::)[^}]*\}")
#: Of one queue, stream or table, written out; a consumer's is another thing.
_PLAIN_ARN = re.compile(r"arn:[a-z-]+:[a-z0-9]+:[^:]*:[^:]*:(?!.*/consumer/)[^:${}*]+(/stream/[^:${}]+)?")
#: An ARN of which only the account and the region are told.
_EVERYTHING = re.compile(r"(table/|stream/|event-bus/|deliverystream/|function:|stateMachine:)?\*")


def wildcard_action(model: Model) -> Iterator[Finding]:
    return together(_wildcard_action(model))


def _wildcard_action(model: Model) -> Iterator[Finding]:
    for statement in _allowing(model):
        for word in statement.actions:
            if word.text == "*" or word.text.endswith(":*"):
                yield WILDCARD_ACTION.at(statement.owner, word.line, f"it allows '{word.text}'")
        if "NotAction" in statement.properties:
            line = statement.properties.line_of("NotAction")
            yield WILDCARD_ACTION.at(statement.owner, line, "it allows everything but what `NotAction` names")
    for owner, word in _managed(model):
        name = permissions.policy_name(word.text)
        if any(action.endswith("*") for action in permissions.MANAGED[name]):
            yield WILDCARD_ACTION.at(owner, word.line, f"{name} allows '{permissions.MANAGED[name][0]}'")


def wildcard_resource(model: Model) -> Iterator[Finding]:
    for statement in _allowing(model):
        if statement.is_conditional:
            continue
        wide = [word.text for word in statement.actions if is_narrowable(word.text)]
        for resource in statement.resources if wide else ():
            if resource.text is not None and _is_everything(resource.text):
                yield WILDCARD_RESOURCE.at(
                    statement.owner, resource.line, f"it allows {_listed(wide)} on '{resource.text}'"
                )
                break


def _is_everything(text: str) -> bool:
    if text == "*":
        return True
    parts = text.split(":", 5) if not _PLACE.search(text) else []
    parts = re.sub(r"\$\{AWS::[A-Za-z]+\}", "here", text).split(":", 5) if parts else []
    return len(parts) == 6 and _EVERYTHING.fullmatch(parts[5]) is not None


def managed_policy_wide(model: Model) -> Iterator[Finding]:
    for owner, word in _managed(model):
        name = permissions.policy_name(word.text)
        actions = permissions.MANAGED[name]
        if actions and not any(action.endswith("*") for action in actions):
            yield MANAGED_POLICY_WIDE.at(owner, word.line, f"it has {name}")


def mapping_not_allowed(model: Model) -> Iterator[Finding]:
    for mapping, allowed in _explicit(model):
        for target, actions in _read(model, mapping):
            lacking = permissions.missing(model, allowed, actions, target)
            if lacking:
                yield MAPPING_NOT_ALLOWED.at(
                    mapping.name,
                    mapping.line,
                    f"{allowed.owner} does not allow {_listed(lacking)}",
                    resource=mapping.owner,
                    fix=f"Allow {_listed(lacking)} on the source in {allowed.owner}",
                )


def _read(model: Model, mapping: EventSource) -> Iterator[tuple[Target, tuple[str, ...]]]:
    """What a mapping reads, and what it calls for that."""
    if mapping.source is None or mapping.kind not in _READING or mapping.enabled.value is False:
        return
    source = model.resources.get(mapping.source.resource or "")
    if source is not None and source.type == "AWS::Kinesis::StreamConsumer":
        yield Target(source, "kinesis"), ("kinesis:SubscribeToShard",)
        return
    part = "stream" if mapping.kind == "dynamodb" else ""
    if source is not None and source.type in permissions.NAMED:
        yield Target(source, mapping.kind, part=part), _READING[mapping.kind]
    elif mapping.source.text is not None and _PLAIN_ARN.fullmatch(mapping.source.text):
        yield Target(None, mapping.kind, arn=mapping.source.text, part=part), _READING[mapping.kind]


def failure_destination_not_allowed(model: Model) -> Iterator[Finding]:
    for mapping, allowed in _explicit(model):
        section = mapping.properties.section("DestinationConfig").section("OnFailure")
        destination = section.reference("Destination")
        resource = model.resources.get(destination.resource or "") if destination is not None else None
        if resource is None or destination is None:
            continue
        lacking = [
            action for target, action in _kept(resource) if not permissions.allowed(model, allowed, action, target)
        ]
        if lacking:
            yield FAILURE_DESTINATION_NOT_ALLOWED.at(
                mapping.name,
                destination.line,
                f"{allowed.owner} does not allow {_listed(lacking)} on {resource.id}",
                resource=mapping.owner,
                fix=f"Allow {_listed(lacking)} in {allowed.owner}" + _on_objects(lacking, resource),
            )


def _kept(destination: Resource) -> list[tuple[Target, str]]:
    if destination.type == "AWS::SQS::Queue":
        return [(Target(destination, "sqs"), "sqs:SendMessage")]
    if destination.type == "AWS::SNS::Topic":
        return [(Target(destination, "sns"), "sns:Publish")]
    if destination.type == "AWS::S3::Bucket":
        objects = Target(destination, "s3", part="objects")
        return [(objects, "s3:PutObject"), (Target(destination, "s3"), "s3:ListBucket")]
    return []


def _on_objects(lacking: list[str], bucket: Resource) -> str:
    if bucket.type != "AWS::S3::Bucket":
        return f", on !GetAtt {bucket.id}.Arn" if bucket.type == "AWS::SQS::Queue" else f", on !Ref {bucket.id}"
    places = {"s3:PutObject": f"!Sub ${{{bucket.id}.Arn}}/*", "s3:ListBucket": f"!GetAtt {bucket.id}.Arn"}
    return ": " + ", ".join(f"{action} on {places[action]}" for action in lacking)


def decrypt_not_allowed(model: Model) -> Iterator[Finding]:
    for mapping, allowed in _explicit(model):
        source, key = _key_of(model, mapping)
        if source is None or key is None or _key_allows(key):
            continue
        may = any(permissions.is_action("kms:Decrypt", word.text) for one in allowed.statements for word in one.actions)
        managed = any("*" in permissions.MANAGED[permissions.policy_name(word.text)] for _, word in allowed.managed)
        if not allowed.is_open and not may and not managed:
            yield DECRYPT_NOT_ALLOWED.at(
                mapping.name,
                mapping.line,
                f"{source.id} is encrypted with {key.id}, and {allowed.owner} does not allow kms:Decrypt",
                resource=mapping.owner,
                fix=f"Allow kms:Decrypt on !GetAtt {key.id}.Arn in {allowed.owner}",
            )


def _key_of(model: Model, mapping: EventSource) -> tuple[Resource | None, Resource | None]:
    """What is read, and the template's own key that encrypts it."""
    queue, stream = model.queue_of(mapping), model.stream_of(mapping)
    found: Reference | None = None
    if queue is not None:
        found = queue.resource.properties.reference("KmsMasterKeyId")
    elif stream is not None:
        found = stream.resource.properties.section("StreamEncryption").reference("KeyId")
    key = _behind_aliases(model, found)
    source = queue.resource if queue is not None else stream.resource if stream is not None else None
    return source, key if key is not None and key.type == "AWS::KMS::Key" else None


def _behind_aliases(model: Model, reference: Reference | None) -> Resource | None:
    """What a key's reference means: itself, or what an alias of the template is for."""
    found = model.resources.get(reference.resource or "") if reference is not None else None
    if reference is not None and found is None and reference.text is not None:
        name = reference.text.partition(":alias/")[2] or reference.text.removeprefix("alias/")
        named = [one for one in model.of_type("AWS::KMS::Alias") if one.name("AliasName") == f"alias/{name}"]
        found = named[0] if len(named) == 1 else None
    if found is not None and found.type == "AWS::KMS::Alias":
        target = found.properties.reference("TargetKeyId")
        return model.resources.get(target.resource or "") if target is not None else None
    return found


def _key_allows(key: Resource) -> bool:
    """Whether the key's own policy may allow the role: it names others than the account."""
    document = key.properties.section("KeyPolicy")
    if "KeyPolicy" not in key.properties:
        return False
    for one in permissions.statements(document, key.id):
        listed = one.properties.section("Principal").references("AWS")
        named = [found for found in listed if found.text is None or not found.text.endswith(":root")]
        decrypts = any(permissions.is_action("kms:Decrypt", word.text) for word in one.actions)
        if one.is_open or (one.allows and decrypts and (named or one.everybody is not None)):
            return True
    return False


def unknown_action(model: Model) -> Iterator[Finding]:
    """A name beside the one that it stands for does no harm: SAM's own policy templates have such."""
    return together(_unknown_action(model))


def _unknown_action(model: Model) -> Iterator[Finding]:
    for allowed in _of_functions(model):
        words = [word for one in allowed.statements if one.allows for word in one.actions]
        for statement in allowed.statements:
            for word in statement.actions if statement.allows else ():
                instead = instead_of(word.text)
                is_there = any(permissions.is_action(one, other.text) for one in instead for other in words)
                if instead and not is_there:
                    yield UNKNOWN_ACTION.at(
                        statement.owner,
                        word.line,
                        f"there is no '{word.text}'",
                        fix=f"Write {_listed(list(instead))}",
                    )


def statements_not_allowed(model: Model) -> Iterator[Finding]:
    for function in model.functions.values():
        if not model.code_of(function.id).runs_statements:
            continue
        allowed = permissions.of(model, function)
        anything = Target(None, "dynamodb")
        names = [word.text for one in allowed.statements if one.allows for word in one.actions]
        writes = any(permissions.is_action(action, name) for action in _ITEMS for name in names)
        if writes and not allowed.is_open and not _any_allowed(model, allowed, anything):
            detail = f"it runs PartiQL statements, and {allowed.owner} allows none"
            yield STATEMENTS_NOT_ALLOWED.at(function.id, function.line, detail)


def _any_allowed(model: Model, allowed: Permissions, target: Target) -> bool:
    names = [word.text for one in allowed.statements if one.allows for word in one.actions]
    names += [one for _, word in allowed.managed for one in permissions.MANAGED[permissions.policy_name(word.text)]]
    return any(permissions.is_action(action, name) for action in _PARTIQL for name in names)


def _of_functions(model: Model) -> Iterator[Permissions]:
    """The permissions of all functions, those of a role that several share once."""
    seen = set[str]()
    for function in model.functions.values():
        found = permissions.of(model, function)
        if found.owner is not None and found.owner not in seen:
            seen.add(found.owner)
            yield found


def _allowing(model: Model) -> Iterator[Statement]:
    """Those that several roles have by one policy once. Not told apart by lines: a line may hold several."""
    seen = set[tuple[str, int]]()
    for found in _of_functions(model):
        for statement in found.statements:
            if statement.allows and (statement.owner, statement.properties.identity) not in seen:
                seen.add((statement.owner, statement.properties.identity))
                yield statement


def _managed(model: Model) -> Iterator[tuple[str, Word]]:
    for found in _of_functions(model):
        yield from found.managed


def _explicit(model: Model) -> Iterator[tuple[EventSource, Permissions]]:
    """The mappings of functions whose role stands in the template, and is known to its end."""
    for mapping in model.mappings:
        function = model.function_of(mapping)
        found = permissions.of(model, function) if function is not None else None
        if found is not None and found.is_explicit and not found.is_open:
            yield mapping, found


def _listed(names: list[str]) -> str:
    shown = list(dict.fromkeys(names))
    return ", ".join(shown) if len(shown) <= 5 else f"{', '.join(shown[:5])} and {len(shown) - 5} more"


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (WILDCARD_ACTION, wildcard_action),
    (WILDCARD_RESOURCE, wildcard_resource),
    (MANAGED_POLICY_WIDE, managed_policy_wide),
    (MAPPING_NOT_ALLOWED, mapping_not_allowed),
    (FAILURE_DESTINATION_NOT_ALLOWED, failure_destination_not_allowed),
    (DECRYPT_NOT_ALLOWED, decrypt_not_allowed),
    (UNKNOWN_ACTION, unknown_action),
    (STATEMENTS_NOT_ALLOWED, statements_not_allowed),
)
