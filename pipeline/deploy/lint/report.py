"""Findings as text, as JSON and as SARIF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.deploy.lint.findings import Finding, Severity


def text(findings: Sequence[Finding], path: str) -> list[str]:
    """One line for each finding, and one with their counts."""
    lines = [
        _printable(
            f"{path}:{one.line}: {one.rule.severity.value} {one.rule.id}: {one.subject}: {one.message}. Fix: {one.fix}."
        )
        for one in findings
    ]
    errors, warnings = _count(findings, Severity.ERROR), _count(findings, Severity.WARNING)
    notes = _count(findings, Severity.NOTE)
    more = f", {_plural(notes, 'note')}" if notes else ""
    return [*lines, f"{path}: {_plural(errors, 'error')}, {_plural(warnings, 'warning')}{more}"]


def as_json(findings: Sequence[Finding], path: str) -> list[dict[str, Any]]:
    """The findings as a list of objects."""
    return [
        {
            "file": path,
            "line": one.line,
            "severity": one.rule.severity.value,
            "rule": one.rule.id,
            "resource": one.resource,
            "subject": one.subject,
            "what": one.detail,
            "why": one.rule.why,
            "fix": one.fix,
        }
        for one in findings
    ]


def has_errors(findings: Sequence[Finding]) -> bool:
    return _count(findings, Severity.ERROR) > 0


def _count(findings: Sequence[Finding], severity: Severity) -> int:
    return sum(one.rule.severity is severity for one in findings)


def _printable(line: str) -> str:
    """A template's names may hold line breaks, and what a terminal obeys."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in line)


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
