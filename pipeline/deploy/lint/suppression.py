"""What a template says of findings that are meant to be: `Metadata: {Pipeline: {Ignore: [{Rule: id, Reason: text}]}}`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Sequence as Listed
from dataclasses import dataclass

from pipeline.deploy.lint.findings import Finding, Rule, Severity
from pipeline.deploy.lint.nodes import Members, Node, Scalar, Sequence

WITHOUT_REASON = Rule(
    id="ignore-without-reason",
    severity=Severity.ERROR,
    title="a finding is ignored without a reason",
    why="Whoever reads it next cannot tell a decision from an oversight",
    fix="Write `Reason:` with the sentence that you would say in a review",
    source="this project",
)
UNUSED = Rule(
    id="ignore-unused",
    severity=Severity.WARNING,
    title="something is ignored that is not found",
    why="It would hide a finding that comes back later, and nobody would have decided on that one",
    fix="Take the entry out, or correct its `Rule`",
    source="this project",
)
RULES = (WITHOUT_REASON, UNUSED)


@dataclass(frozen=True)
class Ignored:
    """One entry of a resource's list."""

    resource: str
    line: int
    rule: str | None
    has_reason: bool


def read(root: Members) -> list[Ignored]:
    """Every entry, of all resources."""
    resources = root.get("Resources")
    if not isinstance(resources, Members):
        return []
    return [
        Ignored(name, entry.line, _text(entry, "Rule"), bool(_text(entry, "Reason")))
        for name, item in resources.items.items()
        for entry in _entries(item.node)
    ]


def applied(findings: Listed[Finding], ignored: Listed[Ignored], known: Collection[str]) -> Iterator[Finding]:
    """What is left, and what is wrong with the entries themselves. One without a reason has no effect."""
    effective = {(one.resource, one.rule) for one in ignored if one.has_reason}
    yield from (one for one in findings if (one.resource, one.rule.id) not in effective)
    found = {(one.resource, one.rule.id) for one in findings}
    for one in ignored:
        if not one.has_reason:
            yield WITHOUT_REASON.at(one.resource, one.line, f"`Ignore` of {one.rule or 'no rule'} has no `Reason`")
        elif one.rule not in known:
            yield UNUSED.at(one.resource, one.line, f"`Ignore` names {one.rule or 'no rule'}, which is no rule")
        elif (one.resource, one.rule) not in found:
            yield UNUSED.at(one.resource, one.line, f"`Ignore` of {one.rule}: that rule finds nothing here")


def _entries(resource: Node) -> Iterator[Node]:
    found: Node | None = resource
    for name in ("Metadata", "Pipeline", "Ignore"):
        found = found.get(name) if isinstance(found, Members) else None
    if isinstance(found, Sequence):
        yield from found.items
    elif found is not None:
        yield found


def _text(entry: Node, name: str) -> str | None:
    found = entry.get(name) if isinstance(entry, Members) else None
    text = found.value if isinstance(found, Scalar) else None
    return text.strip() or None if isinstance(text, str) else None
