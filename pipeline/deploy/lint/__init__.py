"""Reads a SAM or CloudFormation template and says what will lose records, run them twice or stop them.

`document.read` makes a tree with lines; `worlds` and `values` resolve what it says; `model` shows it to the `rules`,
the same for SAM and plain CloudFormation; `engine.lint` brings them together.
"""

from pipeline.deploy.lint.document import MAX_BYTES, read
from pipeline.deploy.lint.engine import RULES, lint
from pipeline.deploy.lint.findings import Finding, Rule, Severity
from pipeline.deploy.lint.nodes import UnreadableTemplate

__all__ = ["MAX_BYTES", "RULES", "Finding", "Rule", "Severity", "UnreadableTemplate", "lint", "read"]
