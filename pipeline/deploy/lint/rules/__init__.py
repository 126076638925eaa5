"""The rules, one file a topic. Each is a `Rule`, and a function from the model to what it finds.

A new one stands in its topic's `CHECKS`, in docs/lint.md, and has a template below tests/deploy/lint/templates.
"""

from pipeline.deploy.lint.findings import Check, Rule
from pipeline.deploy.lint.rules import mappings, queues, runtimes, streams

CHECKS: tuple[tuple[Rule, Check], ...] = (*queues.CHECKS, *mappings.CHECKS, *streams.CHECKS, *runtimes.CHECKS)
