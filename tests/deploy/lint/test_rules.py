"""Each rule has a template in which it alone finds something, on the line that says `# here`; good ones have nothing."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

from pipeline.cli import targets
from pipeline.deploy import lint
from pipeline.deploy.lint.code import Finder
from pipeline.deploy.lint.findings import Severity

HERE = Path(__file__).parent
ROOT = HERE.parent.parent.parent
TEMPLATES = HERE / "templates"
PAGE = (ROOT / "docs" / "lint.md").read_text()
TODAY = datetime.date(2026, 11, 21)
RULES = {rule.id: rule for rule in lint.RULES}


def findings(path: Path) -> list[lint.Finding]:
    """With the target that the first line names."""
    target = re.match(r"# target: (\S+)", path.read_text())
    stages = [stage for one in targets.load(target[1]) for stage in one.stages()] if target else []
    return lint.lint(lint.read(path.read_bytes()), code=Finder(path.parent, stages).find, today=TODAY, stages=stages)


def marked(path: Path) -> list[int]:
    return [number for number, line in enumerate(path.read_text().splitlines(), 1) if line.endswith("# here")]


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_template_gives_exactly_its_finding(rule: str) -> None:
    """Beside notes of other rules: a template that retained and watched everything would show nothing but that."""
    path = TEMPLATES / f"{rule}.yaml"
    found = [one for one in findings(path) if one.rule.severity is not Severity.NOTE or one.rule.id == rule]

    assert len(marked(path)) == 1
    assert [(one.rule.id, one.line) for one in found] == [(rule, line) for line in marked(path)]


def test_every_template_is_of_a_rule() -> None:
    assert {path.stem for path in TEMPLATES.iterdir()} == set(RULES)


@pytest.mark.parametrize("path", sorted((HERE / "good").iterdir()), ids=lambda path: path.name)
def test_a_good_template_gives_none(path: Path) -> None:
    assert [f"{one.line}: {one.rule.id}: {one.subject}: {one.detail}" for one in findings(path)] == []


def test_our_own_template_has_nothing_to_find() -> None:
    assert [f"{one.line}: {one.rule.id}: {one.subject}: {one.detail}" for one in findings(ROOT / "template.yaml")] == []


def test_ids_are_told_apart_and_stay_short() -> None:
    assert len(RULES) == len(lint.RULES)
    assert [rule for rule in RULES if not re.fullmatch(r"[a-z]+(-[a-z]+)+", rule) or len(rule) > 40] == []


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_texts_are_sentences_to_put_together(rule: lint.Rule) -> None:
    for text in (rule.title, rule.why, rule.fix, rule.source):
        assert text
        assert text == text.strip()
        assert not text.endswith(".")


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_the_page_has_every_rule(rule: lint.Rule) -> None:
    (section,) = re.findall(rf"^### {rule.id}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)

    text = " ".join(section.split())
    assert text.startswith(f"{rule.severity.value.capitalize()}: ")
    for part in (rule.why, rule.fix, rule.source):
        assert part in text


def test_the_page_has_no_other_rule() -> None:
    assert set(re.findall(r"^### ([a-z-]+)$", PAGE, re.MULTILINE)) == set(RULES)
