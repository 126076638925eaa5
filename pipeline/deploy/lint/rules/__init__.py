"""The rules, one file a topic. Each is a `Rule`, and a function from the model to what it finds.

A new one stands in its topic's `CHECKS`, in docs/lint.md, and has a template below tests/deploy/lint/templates.
"""

from pipeline.deploy.lint.findings import Check, Rule
from pipeline.deploy.lint.rules import (
    alarms,
    deployed,
    kept,
    loops,
    mappings,
    permissions,
    queue_policies,
    queues,
    runtimes,
    streams,
)

CHECKS: tuple[tuple[Rule, Check], ...] = (
    *queues.CHECKS,
    *mappings.CHECKS,
    *streams.CHECKS,
    *runtimes.CHECKS,
    *permissions.CHECKS,
    *queue_policies.CHECKS,
    *kept.CHECKS,
    *loops.CHECKS,
    *alarms.CHECKS,
    *deployed.CHECKS,
)
