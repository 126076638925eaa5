"""From a template's tree to its findings: every rule, in every world, once each."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from pipeline.deploy.lint import suppression, worlds
from pipeline.deploy.lint.code import Code
from pipeline.deploy.lint.findings import Finding, Rule, together
from pipeline.deploy.lint.model import Model
from pipeline.deploy.lint.nodes import Members
from pipeline.deploy.lint.rules import CHECKS
from pipeline.deploy.lint.worlds import World
from pipeline.engine.stage import Stage

#: What is known of the functions' code in one world, by their logical ids.
FindCode: TypeAlias = Callable[[Model], Mapping[str, Code]]

RULES: tuple[Rule, ...] = (*(rule for rule, _ in CHECKS), *suppression.RULES)


def lint(
    root: Members,
    *,
    code: FindCode | None = None,
    today: datetime.date = datetime.date.min,
    stages: Sequence[Stage] = (),
) -> list[Finding]:
    """All findings, by line.

    `code`: looks at the functions' code; without it, nothing is known of that. `today`: what deprecations are held
    against; without it, nothing is deprecated. `stages`: the handlers that the template is held against.
    """
    ways = worlds.of(root)
    seen: dict[tuple[str, str, int], tuple[Finding, list[World]]] = {}
    for world in ways:
        model = Model(world, today=today, stages=tuple(stages))
        if code is not None:
            model = Model(world, code(model), today, tuple(stages))
        for _, check in CHECKS:
            for finding in together(check(model)):
                key = (finding.rule.id, finding.subject, finding.line)
                placed = dataclasses.replace(finding, resource=model.made_by.get(finding.resource, finding.resource))
                seen.setdefault(key, (placed, []))[1].append(world)
    findings = [_conditional(finding, there, ways) for finding, there in seen.values()]
    ignored = suppression.read(root)
    known = {rule.id for rule in RULES}
    return sorted(suppression.applied(findings, ignored, known), key=lambda one: (one.line, one.rule.id, one.subject))


def _conditional(finding: Finding, there: Sequence[World], ways: Sequence[World]) -> Finding:
    """Says when it is so, if it is not so always and one condition tells."""
    if len(there) == len(ways):
        return finding
    elsewhere = [world for world in ways if world not in there]
    for name, truth in there[0].conditions.items():
        if all(world.conditions[name] == truth for world in there) and all(
            world.conditions[name] != truth for world in elsewhere
        ):
            detail = f"When {name} is {str(truth).lower()}: {finding.detail}"
            return dataclasses.replace(finding, detail=detail)
    return finding
