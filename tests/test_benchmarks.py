"""The benchmarks run: one tiny round of what needs no network, from the stub to the pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cost, idempotency, plots, report, telemetry
from benchmarks.dynamodb_expressions import condition, statement, update
from benchmarks.idempotent import CASES, ITEM, KINESIS, POWERTOOLS, SQS
from benchmarks.report import Report

MODES = {SQS: ("ours, Claim", "ours, Mark"), ITEM: ("ours, Fused",), KINESIS: ("ours, Checkpoint",)}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of results that is not the repository's."""
    for module in (report, cost, plots):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    return tmp_path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> Report:
    """One round over one small event, of each mode in one scenario beside Powertools."""
    for scenario, modes in MODES.items():
        cases = {name: case for name, case in CASES[scenario].items() if name in (POWERTOOLS, *modes)}
        monkeypatch.setitem(CASES, scenario, cases)
    return idempotency.run(sizes={25: 1}, rounds=1)


@pytest.mark.timeout(180)  # a process for each case
def test_a_tiny_round_is_measured_priced_and_drawn(tiny: Report, results: Path) -> None:
    tiny.keep()
    cost.run().keep()
    for name in ("overhead", "streams"):
        (results / f"{name}.json").write_text((Path(report.__file__).parent / "results" / f"{name}.json").read_text())
    drawn = plots.draw(results)

    sqs, item, kinesis = (tiny.numbers["scenarios"][scenario] for scenario in (SQS, ITEM, KINESIS))
    assert sqs["Powertools sync"]["25"]["first"]["calls"] == 2
    assert sqs["ours, Claim"]["25"]["first"]["calls"] == 0.08
    assert [sqs[name]["25"]["first"]["writes"] for name in ("ours, Claim", "ours, Mark")] == [2, 1]
    assert item["ours, Fused"]["25"]["first"]["writes"] == 1
    assert kinesis["ours, Checkpoint"]["25"]["first"]["writes"] == 0.04
    dollars = json.loads((results / "cost.json").read_text())["numbers"]["scenarios"][SQS]
    assert dollars["ours, Claim"]["25"]["first"]["writes"] == pytest.approx(1.25)
    assert all("</svg>" in path.read_text() for path in drawn)


@pytest.mark.timeout(180)  # a process for each case
def test_a_tiny_round_of_telemetry_is_measured(results: Path) -> None:
    found = telemetry.run(sizes={10: (1, 1)}, rounds=1, starts=1, xray=False)
    found.keep()

    assert "Tracer is left out" in (results / "telemetry.md").read_text()
    numbers = json.loads((results / "telemetry.json").read_text())["numbers"]
    assert set(numbers["telemetry_us"]) == set(telemetry.CASES) - set(telemetry.TRACED)
    ours, theirs = (numbers["log"][name]["10"]["megabytes"] for name in (telemetry.OURS, telemetry.LOGGER))
    assert 50 < ours < theirs / 2
    starts = {name: one["modules"] for name, one in numbers["starts"].items()}
    assert starts["ours, OpenTelemetry not installed"] == starts["ours, installed and not used"] == 0
    assert 0 < starts["OpenTelemetry's API alone"] < starts["OpenTelemetry set up, alone"]


def test_the_stub_reads_expressions_as_dynamodb_does() -> None:
    names = (("#n", "size"),)
    item = {"size": {"N": "9"}, "status": {"S": "DONE"}}

    assert condition("attribute_not_exists(gone) AND (#n < :ten OR #n > :ten)", names)(item, {":ten": {"N": "10"}})
    assert not condition("gone < :ten", ())(item, {":ten": {"N": "10"}})
    assert not condition("NOT #n = :ten", names)(item, {":ten": {"N": "9.0"}})
    update("SET #n = #n + :one, added = if_not_exists(added, :one) REMOVE #s", (*names, ("#s", "status")))(
        item, {":one": {"N": "1"}}
    )
    assert item == {"size": {"N": "10"}, "added": {"N": "1"}}


def test_the_stub_finds_the_key_of_a_statement_only_where_it_must_hold() -> None:
    keyed = statement("""UPDATE "t" SET "a" = ? WHERE "id" = ? AND ("b" = ? OR "c" IS MISSING)""")
    either = statement("""DELETE FROM "t" WHERE "id" = ? OR "b" = ?""")

    assert [name for name, _ in keyed.equalities] == ["id"]
    assert either.equalities == ()
    with pytest.raises(ValueError, match="not understood"):
        statement("SELECT * FROM t WHERE id = ? LIMIT 1")
