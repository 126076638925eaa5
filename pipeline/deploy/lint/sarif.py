"""Findings as SARIF 2.1.0, which code scanning services show beside the lines that they are about."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from pipeline.deploy.lint.findings import Finding, Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def log(findings: Sequence[Finding], rules: Sequence[Rule], uri: str, version: str) -> dict[str, Any]:
    """One run's log. `uri`: of the template, relative to the repository. Every rule is in it, also those without findings."""
    places = {rule.id: index for index, rule in enumerate(rules)}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "pipeline lint",
                        "semanticVersion": version,
                        "rules": [_rule(rule) for rule in rules],
                    }
                },
                "columnKind": "unicodeCodePoints",
                "results": [_result(one, places[one.rule.id], uri) for one in findings],
            }
        ],
    }


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": f"{rule.why}."},
        "help": {"text": f"{rule.fix}. Source: {rule.source}."},
        "defaultConfiguration": {"level": rule.severity.value},
    }


def _result(finding: Finding, place: int, uri: str) -> dict[str, Any]:
    # What a service knows the finding by when lines have moved.
    identity = f"{finding.rule.id}\0{finding.subject}"
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": place,
        "level": finding.rule.severity.value,
        "message": {"text": f"{finding.subject}: {finding.message}. Fix: {finding.fix}."},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": uri},
                    "region": {"startLine": finding.line},
                },
                "logicalLocations": [{"name": finding.resource, "kind": "resource"}],
            }
        ],
        "partialFingerprints": {"subject/v1": hashlib.sha256(identity.encode()).hexdigest()},
    }
