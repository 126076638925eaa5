"""Functions on runtimes that AWS no longer keeps up."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from pipeline.deploy.lint.findings import Check, Finding, Rule, Severity
from pipeline.deploy.lint.model import Model

# Deprecated since, and not to be created any more since: AWS Lambda developer guide, Lambda runtimes, as cfn-lint 1.58
# (schema of 2026-10-20) has them. Those that have no date of their own for the second are left to the first.
_RUNTIMES = {
    "dotnet6": ("2024-12-20", "2027-02-01"),
    "dotnet8": ("2026-11-10", "2027-02-01"),
    "dotnet9": ("2026-11-10", ""),
    "dotnet10": ("2028-11-14", "2028-12-14"),
    "dotnetcore2.1": ("2022-01-05", "2022-01-05"),
    "dotnetcore3.1": ("2023-04-03", "2023-04-03"),
    "go1.x": ("2024-01-08", "2024-02-08"),
    "java8": ("2024-01-08", "2024-02-08"),
    "java8.al2": ("2027-06-30", "2027-07-31"),
    "java11": ("2027-06-30", "2027-07-31"),
    "java17": ("2027-06-30", "2027-07-31"),
    "java21": ("2029-06-30", "2029-07-31"),
    "java25": ("2029-06-30", "2029-07-31"),
    "nodejs": ("2016-08-30", "2016-09-30"),
    "nodejs4.3": ("2020-02-03", "2020-02-03"),
    "nodejs6.10": ("2019-07-12", "2019-07-12"),
    "nodejs8.10": ("2020-02-04", "2020-02-04"),
    "nodejs10.x": ("2021-07-30", "2021-07-30"),
    "nodejs12.x": ("2023-03-31", "2023-03-31"),
    "nodejs14.x": ("2023-12-04", "2024-01-09"),
    "nodejs16.x": ("2024-06-12", "2027-02-01"),
    "nodejs18.x": ("2025-09-01", "2027-02-01"),
    "nodejs20.x": ("2026-04-30", "2027-02-01"),
    "nodejs22.x": ("2027-04-30", "2027-06-01"),
    "nodejs24.x": ("2028-04-30", "2028-06-01"),
    "provided": ("2024-01-08", "2024-02-08"),
    "provided.al2": ("2026-07-31", "2027-02-01"),
    "provided.al2023": ("2029-06-30", "2029-07-31"),
    "python2.7": ("2021-07-15", "2021-07-15"),
    "python3.6": ("2022-07-18", "2022-07-18"),
    "python3.7": ("2023-12-04", "2024-01-09"),
    "python3.8": ("2024-10-14", "2027-02-01"),
    "python3.9": ("2025-12-15", "2027-02-01"),
    "python3.10": ("2026-10-31", "2027-02-01"),
    "python3.11": ("2027-06-30", "2027-07-31"),
    "python3.12": ("2028-10-31", "2028-11-30"),
    "python3.13": ("2029-06-30", "2029-07-31"),
    "python3.14": ("2029-06-30", "2029-07-31"),
    "ruby2.5": ("2021-07-30", "2021-07-30"),
    "ruby2.7": ("2023-12-07", "2024-01-09"),
    "ruby3.2": ("2026-03-31", "2027-02-01"),
    "ruby3.3": ("2027-03-31", "2027-04-30"),
    "ruby3.4": ("2028-03-31", "2028-04-30"),
    "ruby4.0": ("2029-03-31", "2029-04-30"),
}
#: The newest of each language.
_NEWEST = {
    "dotnet": "dotnet10", "go": "provided.al2023", "java": "java25", "nodejs": "nodejs24.x",
    "provided": "provided.al2023", "python": "python3.14", "ruby": "ruby4.0",
}  # fmt: skip

_SOURCE = "AWS Lambda developer guide, Lambda runtimes (dates as of 2026-10-20)"
RUNTIME_DEPRECATED = Rule(
    id="runtime-deprecated",
    severity=Severity.WARNING,
    title="a runtime gets no security updates any more",
    why="AWS no longer patches it, and will soon refuse to create and then to update functions on it",
    fix="Move to a newer runtime",
    source=_SOURCE,
)
RUNTIME_BLOCKED = Rule(
    id="runtime-blocked",
    severity=Severity.ERROR,
    title="a runtime on which no function can be created",
    why="Lambda refuses to create a function on it: the template deploys nowhere anew",
    fix="Move to a newer runtime",
    source=_SOURCE,
)


def runtime_deprecated(model: Model) -> Iterator[Finding]:
    for name, runtime, line in _runtimes(model):
        since, blocked = _dates(runtime)
        if since is not None and since <= model.today and not (blocked is not None and blocked <= model.today):
            yield RUNTIME_DEPRECATED.at(name, line, f"{runtime} is deprecated since {since}", fix=_fix(runtime))


def runtime_blocked(model: Model) -> Iterator[Finding]:
    for name, runtime, line in _runtimes(model):
        _, blocked = _dates(runtime)
        if blocked is not None and blocked <= model.today:
            detail = f"no function is created on {runtime} since {blocked}"
            yield RUNTIME_BLOCKED.at(name, line, detail, fix=_fix(runtime))


def _runtimes(model: Model) -> Iterator[tuple[str, str, int]]:
    for function in model.functions.values():
        if function.runtime.value is not None:
            yield function.id, function.runtime.value, function.runtime.line


def _dates(runtime: str) -> tuple[date | None, date | None]:
    since, blocked = _RUNTIMES.get(runtime, ("", ""))
    return (date.fromisoformat(since) if since else None), (date.fromisoformat(blocked) if blocked else None)


def _fix(runtime: str) -> str:
    family = next((name for name in _NEWEST if runtime.startswith(name)), "")
    return f"Move to {_NEWEST[family]}" if family else "Move to a newer runtime"


CHECKS: tuple[tuple[Rule, Check], ...] = (
    (RUNTIME_DEPRECATED, runtime_deprecated),
    (RUNTIME_BLOCKED, runtime_blocked),
)
