"""`pipeline dev` on a stream."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli.commands import cli
from pipeline.emulator.reload import forget

CLICKS = """
from pipeline import Backoff, Pipeline, Record, sinks, sources

clicks = Pipeline("clicks")
source = sources.Kinesis("clicks", shards=4)


@clicks.handler(source, key="id", sinks=[sinks.File("scored.ndjson")])
def score(click: dict) -> dict:
    return click


@clicks.handler(source, retry=Backoff(attempts=1))
def measure(click: Record[bytes]) -> None:
    click.payload.decode()
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "clickstream.py").write_text(CLICKS)
    yield tmp_path
    forget(tmp_path)


def test_each_line_of_a_file_is_a_record_and_bytes_that_are_no_text_are_sent_as_they_are(project: Path) -> None:
    lines = [json.dumps({"id": n}).encode() for n in range(120)]
    (project / "clicks.ndjson").write_bytes(b"\n".join([*lines, b"", b'{"id": "\xff"}', lines[0]]) + b"\n")
    arguments = ["--feed", "clicks=clicks.ndjson", "--until-drained", "--summary", "report.json"]
    done = CliRunner().invoke(cli, ["dev", "clickstream", *arguments])
    report = json.loads((project / "report.json").read_text())
    score, measure = report["handlers"]["score"], report["handlers"]["measure"]
    assert (score["records"], score["succeeded"], score["duplicates"], score["rejected"]) == (122, 120, 1, 1)
    assert score["dead_lettered"] == 1
    # The bytes reached it unchanged: they cannot be decoded.
    assert (measure["records"], measure["succeeded"], measure["exhausted"]) == (122, 121, 1)
    assert report["refused_lines"] == 0
    assert "score: 122 records (120 succeeded, 1 duplicates, 1 rejected, 0 exhausted)" in done.stdout
    written = [json.loads(line)["id"] for line in (project / "scored.ndjson").read_text().splitlines()]
    assert sorted(written) == list(range(120))
    assert done.exit_code == 1  # a record was exhausted
