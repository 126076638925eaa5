"""What `pipeline template` writes has nothing to find, and any part of it that is changed has."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import Pipeline
from pipeline.cli import targets
from pipeline.deploy import lint
from pipeline.deploy.lint import yaml_text
from pipeline.deploy.lint.code import Finder
from pipeline.deploy.lint.nodes import Call, Item, Members, Node, Scalar
from pipeline.deploy.lint.nodes import Sequence as Listed
from pipeline.deploy.template.assembly import template
from pipeline.deploy.template.document import text_of
from pipeline.engine.stage import Stage
from tests.deploy.lint.shops import orders, varied
from tests.support import permission_pipelines as made

TODAY = datetime.date(2026, 11, 21)
SHOPS = {
    "varied": [varied.varied],
    "lent": [varied.lent],
    "told": [varied.told],
    "together": [varied.varied, varied.lent],
    **{one.name: [one] for one in made.ALL},
    "handlers": targets.load("handlers"),
}


def written(pipelines: Sequence[Pipeline], *, layer: bool = False) -> str:
    return text_of(template(pipelines, layer=layer), "")


def stages(pipelines: Sequence[Pipeline]) -> list[Stage]:
    return [stage for one in pipelines for stage in one.stages()]


def found(root: Members, declared: Sequence[Stage]) -> list[str]:
    findings = lint.lint(root, code=Finder(Path(), declared).find, today=TODAY, stages=declared)
    return [f"{one.rule.id}: {one.subject}: {one.detail}" for one in findings]


@pytest.mark.parametrize("name", SHOPS)
def test_a_generated_template_has_nothing_to_find(name: str) -> None:
    root = lint.read(written(SHOPS[name], layer=name == "together").encode())

    assert found(root, []) == []
    assert found(root, stages(SHOPS[name])) == []


# Reading takes ten times as long as all rules. Of a text that differs in one entry, only that one is read again.

ENTRY = re.compile(r"^(?=\w+:|  \w+:$)", re.MULTILINE)
piece = functools.cache(yaml_text.parse)


def put_together(text: str) -> Members:
    """What the whole text says, read entry by entry. Lines are those within the entry."""
    sections: dict[str, Item] = {}
    name = ""
    for part in ENTRY.split(text):
        if part.startswith("  "):
            made, above = piece(f"{name}:\n{part}"), sections[name].node
            inner = made.get(name) if isinstance(made, Members) else None
            items = above.items if isinstance(above, Members) else {}
            assert isinstance(inner, Members)
            assert not items.keys() & inner.items.keys()
            sections[name] = Item(1, Members({**items, **inner.items}, 1))
        elif part:
            made = piece(part)
            assert isinstance(made, Members)
            ((name, item),) = made.items.items()
            assert name not in sections
            sections[name] = item
    return Members(sections, 1)


def without_lines(node: Node) -> object:
    """What two trees are compared by."""
    match node:
        case Members():
            return {name: without_lines(item.node) for name, item in node.items.items()}
        case Listed():
            return [without_lines(one) for one in node.items]
        case Call():
            return node.name, without_lines(node.argument)
        case Scalar():
            return node.value


SMALL = {"shop": [orders.shop], "told": [varied.told], "lent": [varied.lent]}
ACTION = re.compile(r"\b(?:sqs|kinesis|dynamodb|s3|events):(?!ResourceAccount)[A-Z]\w+")
#: What the local run and the tests would not know of: properties of functions, mappings and queues.
SETTING = re.compile(
    r"^ +(?:Timeout|MemorySize|BatchSize|MaximumBatchingWindowInSeconds|MaximumConcurrency|ParallelizationFactor"
    r"|MaximumRetryAttempts|MaximumRecordAgeInSeconds|maxReceiveCount): (-?[0-9]+)$",
    re.MULTILINE,
)
NAME = re.compile(r'"(\w+:[\w.-]+)": "\$\{\w+\}"')


def changed(text: str, match: re.Match[str], new: str, group: int = 0) -> str:
    return text[: match.start(group)] + new + text[match.end(group) :]


def rules(text: str, declared: Sequence[Stage]) -> set[str]:
    return {one.partition(":")[0] for one in found(put_together(text), declared)}


@pytest.mark.parametrize("name", SMALL)
def test_entries_read_one_by_one_say_what_the_whole_says(name: str) -> None:
    text = written(SMALL[name])
    whole, parts = lint.read(text.encode()), put_together(text)

    assert without_lines(parts) == without_lines(whole)
    assert len(ENTRY.split(text)) > 20


@pytest.mark.parametrize("name", SMALL)
def test_no_action_is_missing_unseen(name: str) -> None:
    text, declared = written(SMALL[name]), stages(SMALL[name])
    matches = list(ACTION.finditer(text))

    assert len(matches) > 8
    for match in matches:
        if name == "lent" and match[0] in {"sqs:SendMessage", "sqs:GetQueueUrl"}:
            continue  # allowed on a parameter too, which may mean any queue
        # Somebody else's queue is asked for its attributes by Lambda and by the code, in a statement each.
        twice = name == "lent" and match[0] == "sqs:GetQueueAttributes"
        other = (
            text.replace(match[0], "xray:PutTraceSegments") if twice else changed(text, match, "xray:PutTraceSegments")
        )
        seen = rules(other, declared)
        assert seen & {"action-missing", "mapping-not-allowed", "failure-destination-not-allowed"}, match[0]


@pytest.mark.parametrize("name", SMALL)
def test_no_setting_differs_unseen(name: str) -> None:
    text, declared = written(SMALL[name]), stages(SMALL[name])
    matches = list(SETTING.finditer(text))

    assert len(matches) > 3
    for match in matches:
        assert "setting-differs" in rules(changed(text, match, "61", 1), declared), match[0]


@pytest.mark.parametrize("name", SMALL)
def test_no_name_is_missing_or_misled_unseen(name: str) -> None:
    text, declared = written(SMALL[name]), stages(SMALL[name])
    matches = list(NAME.finditer(text))

    assert matches
    for match in matches:
        assert "resource-not-mapped" in rules(changed(text, match, f"{match[1]}-not", 1), declared), match[0]
        other = changed(text, match, f'"{match[1]}": "${{ThereIsNone}}"')
        assert "resource-of-wrong-type" not in rules(other, declared), "what is not known is no finding"


def test_no_pattern_differs_unseen() -> None:
    text, declared = written([orders.shop]), stages([orders.shop])

    assert "filter-differs" in rules(text.replace('["order"]', '["orders"]'), declared)
    assert "filter-differs" not in rules(text.replace('{"kind":', '{ "kind" :'), declared)
