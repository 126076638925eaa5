"""Rules, and what they find: values only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from pipeline.deploy.lint.model import Model


class Severity(Enum):
    """`ERROR`: records are lost, run twice or stand still, or AWS refuses the template. `WARNING`: they may.

    `NOTE`: nothing is wrong with how it runs; something is missing on the day when somebody needs it.
    """

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Rule:
    """What is looked for.

    `id`: short words joined by hyphens; it stands in suppressions and is never renamed. `title`: what is wrong, in a
    few words. `why`: what happens because of it. `fix`: what to write. `source`: where that is known from.
    """

    id: str
    severity: Severity
    title: str
    why: str
    fix: str
    source: str

    def at(self, subject: str, line: int, detail: str, *, resource: str | None = None, fix: str = "") -> Finding:
        """What this rule found. `subject`: the name shown. `resource`: the logical id, where they differ."""
        return Finding(self, resource or subject, subject, line, detail, fix or self.fix)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong in one place.

    `resource`: the logical id where it can be suppressed. `detail`: what stands there, in one sentence.
    """

    rule: Rule
    resource: str
    subject: str
    line: int
    detail: str
    fix: str

    @property
    def message(self) -> str:
        """What is wrong here, and why that matters."""
        return f"{self.detail}. {self.rule.why}"


def together(findings: Iterable[Finding]) -> Iterator[Finding]:
    """One finding for each place: what a rule says of it several times, joined."""
    places: dict[tuple[str, str, int], list[Finding]] = {}
    for one in findings:
        places.setdefault((one.rule.id, one.subject, one.line), []).append(one)
    for several in places.values():
        details = dict.fromkeys(one.detail for one in several)
        fixes = dict.fromkeys(one.fix for one in several)
        yield replace(several[0], detail="; ".join(details), fix="; ".join(fixes))


#: A rule at work: from what a template says, in one world, to what is wrong with it.
Check: TypeAlias = "Callable[[Model], Iterable[Finding]]"
