"""What queues let others do."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.deploy.lint import permissions
from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity
from pipeline.deploy.lint.model import Model, Queue
from pipeline.deploy.lint.nodes import Members
from pipeline.deploy.lint.permissions import Statement
from pipeline.deploy.lint.values import Properties
from pipeline.deploy.lint.worlds import text_of

QUEUE_OPEN_TO_EVERYBODY = Rule(
    id="queue-open-to-everybody",
    severity=Severity.ERROR,
    title="anybody may use a queue",
    why="Every AWS account in the world may then send to it, read it or empty it, as far as the actions go",
    fix="Name the principal, or add a condition such as `ArnEquals: {aws:SourceArn: ...}`",
    source="Amazon SQS developer guide, Security best practices: make sure that queues aren't publicly accessible",
)
QUEUE_WITHOUT_TLS = Rule(
    id="queue-without-tls",
    severity=Severity.NOTE,
    title="a queue's policy takes calls without TLS",
    why="A client that is set up with an http:// endpoint sends messages in clear text, and nothing refuses it",
    fix="Add a Deny of `sqs:*` for Principal '*' with `Condition: {Bool: {aws:SecureTransport: \"false\"}}`",
    source="Amazon SQS developer guide, Security best practices: enforce encryption of data in transit",
)

_POLICIES = ("AWS::SQS::QueuePolicy", "AWS::SQS::QueueInlinePolicy")
#: What means everything, by the operators that take patterns (IAM user guide, JSON policy elements: condition operators).
_EVERYTHING = {
    "stringlike": {"*"}, "arnlike": {"*"}, "arnequals": {"*"}, "ipaddress": {"0.0.0.0/0", "::/0"},
}  # fmt: skip


def queue_open_to_everybody(model: Model) -> Iterator[Finding]:
    for policy in model.of_type(*_POLICIES):
        for statement in permissions.statements(policy.properties.section("PolicyDocument"), policy.id):
            if statement.allows and statement.everybody is not None and _admits_everybody(statement):
                actions = ", ".join(word.text for word in statement.actions[:5]) or "actions"
                condition = (
                    "under a condition that everybody meets" if statement.is_conditional else "without a condition"
                )
                detail = f"it allows {actions} to Principal '*' {condition}"
                yield QUEUE_OPEN_TO_EVERYBODY.at(policy.id, statement.everybody, detail)


def _admits_everybody(statement: Statement) -> bool:
    """Whether its condition, if any, keeps nobody out: TLS, which anybody can use, or a pattern that means all."""
    condition = statement.properties.section("Condition")
    if condition.is_open:
        return False
    for operator in condition.names():
        asked = condition.section(operator)
        if asked.is_open or not all(_is_met(operator, name, asked) for name in asked.names()):
            return False
    return True


def _is_met(operator: str, name: str, asked: Properties) -> bool:
    texts = {(text_of(node) or "").lower() for node in asked.items(name)}
    if name.lower() == "aws:securetransport":
        return texts == {"true"}
    everything = _EVERYTHING.get(operator.lower().rpartition(":")[2].removesuffix("ifexists"))
    return everything is not None and bool(texts & everything)


def queue_without_tls(model: Model) -> Iterator[Finding]:
    """Of queues that have a policy: one without any is reached by its own account's roles only, which AWS's SDKs
    lead over TLS. One finding a policy."""
    for policy in model.of_type(*_POLICIES):
        found = list(permissions.statements(policy.properties.section("PolicyDocument"), policy.id))
        if policy.properties.is_open or any(one.is_open for one in found):
            continue
        queues = _queues_of(model, policy.properties)
        others = [other for other in model.of_type(*_POLICIES) if other is not policy]
        if (
            queues
            and not any(map(_is_tls_only, found))
            and not any(queues & _queues_of(model, o.properties) for o in others)
        ):
            line = policy.properties.line_of("PolicyDocument")
            yield QUEUE_WITHOUT_TLS.at(policy.id, line, "no statement refuses calls without TLS")


def _queues_of(model: Model, properties: Properties) -> set[str]:
    named = properties.references("Queues") + properties.references("Queue")
    found = (model.queues.get(one.resource or "") for one in named)
    return {queue.id for queue in found if isinstance(queue, Queue)}


def _is_tls_only(statement: Statement) -> bool:
    """A Deny without TLS, or an Allow with TLS only."""
    condition = statement.properties.section("Condition")
    for operator in condition.names():
        asked = condition.get(operator)
        if not isinstance(asked, Members):
            continue
        for name, item in asked.items.items():
            if name.lower() == "aws:securetransport":
                return (text_of(item.node) or "").lower() == ("true" if statement.allows else "false")
    return False


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (QUEUE_OPEN_TO_EVERYBODY, queue_open_to_everybody),
    (QUEUE_WITHOUT_TLS, queue_without_tls),
)
