"""A SAM template comes to the same as what AWS's own transform makes of it: plain CloudFormation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.deploy.local import Project, read
from tests.deploy.lint.test_transformed import transformed
from tests.deploy.local.conftest import HERE, TEMPLATES

SAM = [
    *(TEMPLATES / name for name in ("queue.yaml", "table.yaml", "fifo.yaml", "topic.yaml", "bus.json")),
    HERE / "plain" / "template.yaml",
]


def plain(path: Path, directory: Path) -> Project:
    """What the transformed template comes to, with the same source."""
    template = transformed(path.read_text())
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Function":
            resource["Properties"]["Code"] = str(path.parent / ("src" if path.parent == TEMPLATES else "."))
    found = directory / "template.json"
    found.write_text(json.dumps(template))
    return read(found)


def seen(project: Project) -> dict[str, Any]:
    """What does not depend on how the template is written."""
    return {
        "functions": {one.id: (one.settings, one.handler) for one in project.functions.values()},
        "mappings": {one.id: (one.function, one.source, one.settings, one.is_enabled) for one in project.mappings},
        "queues": {one.id: replace(one, line=0) for one in project.queues.values()},
        "tables": {
            one.id: (one.names, one.keys, one.stream_view, one.ttl_attribute) for one in project.tables.values()
        },
        "subscriptions": {replace(one, line=0) for one in project.subscriptions},
        "rules": {one.id: replace(one, line=0) for one in project.rules.values()},
    }


@pytest.mark.parametrize("path", SAM, ids=lambda path: path.parent.name + "-" + path.stem)
def test_the_transform_changes_nothing(path: Path, tmp_path: Path) -> None:
    before, after = seen(read(path)), seen(plain(path, tmp_path))

    assert before["mappings"]
    for what, found in before.items():
        assert after[what] == found, what
