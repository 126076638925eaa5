"""Records that come back to where they were."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.deploy.lint import declared, flow
from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity
from pipeline.deploy.lint.flow import Step
from pipeline.deploy.lint.model import Model

POSSIBLE_LOOP = Rule(
    id="possible-loop",
    severity=Severity.WARNING,
    title="records may come back to where they were",
    why=(
        "A record that goes round runs, and costs, without end: Lambda ends loops after about 16 rounds only through "
        "SQS, SNS and S3, and handlers of this toolkit after `max_hops`"
    ),
    fix="Write to another resource, or put a filter on the mapping that keeps out what the function itself wrote",
    source="AWS Lambda developer guide, Use Lambda recursive loop detection to prevent infinite loops",
)
LOOP_NEVER_ENDS = Rule(
    id="loop-never-ends",
    severity=Severity.ERROR,
    title="records come back to where they were, and nothing counts",
    why="A sink in the circle carries no hop count, so no handler sees that the record was there before",
    fix="Let the sink carry (`carry=True`), write to another resource, or filter the source",
    source="this project, docs/promises.md: loops end",
)


def possible_loop(model: Model) -> Iterator[Finding]:
    for circle in flow.loops(flow.steps(model)):
        if _not_carrying(model, circle) is None:
            yield _at(POSSIBLE_LOOP, circle, f"records may go {_way(circle)}")


def loop_never_ends(model: Model) -> Iterator[Finding]:
    for circle in flow.loops(flow.steps(model)):
        sink = _not_carrying(model, circle)
        if sink is not None:
            yield _at(LOOP_NEVER_ENDS, circle, f"records go {_way(circle)}, and the sink '{sink}' carries nothing")


def _at(rule: Rule, circle: Sequence[Step], detail: str) -> Finding:
    first = min(circle, key=lambda step: step.line)
    return rule.at(first.start, first.line, detail, resource=first.owner)


def _way(circle: Sequence[Step]) -> str:
    return " -> ".join([*(step.start for step in circle), circle[0].start])


def _not_carrying(model: Model, circle: Sequence[Step]) -> str | None:
    """The declared sink by which a circle goes on without a hop count."""
    for step in circle:
        function = model.functions.get(step.start)
        stage = declared.stage_of(model, function) if function is not None else None
        if function is None or stage is None:
            continue
        for sink in stage.sinks:
            resource: Any = getattr(sink, "resource", None)
            found = declared.found(model, function, resource) if resource is not None else None
            if found is not None and found.id == step.end and not getattr(sink, "carries", True):
                return sink.name
    return None


CHECKS: tuple[tuple[Rule, Check], ...] = ((POSSIBLE_LOOP, possible_loop), (LOOP_NEVER_ENDS, loop_never_ends))
