"""`pipeline trace` over lines in a file, from outside."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import kept
from pipeline.cli.commands import cli
from tests.cli.stand_in import standing
from tests.cli.story_worlds import line

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
LINES = [
    line("record.failed", 0, "a", error="RuntimeError", reason="away\x1b[2J", delay=1, attempt=1),
    line("record.succeeded", 5, "a", attempt=2),
]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def trace(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(cli, ["trace", *arguments], input=stdin)


def test_it_reads_what_the_local_run_kept() -> None:
    kept.DIRECTORY.mkdir()
    kept.LOG.write_text("\n".join(LINES))
    found = trace("a")
    assert found.exit_code == 0
    assert "shop/price: record a" in found.stdout
    assert "RuntimeError: away\\u001b[2J" in found.stdout
    assert "\x1b" not in found.output
    assert found.stderr == ""


def test_saved_lines_can_be_piped_in_or_named(directory: Path) -> None:
    (directory / "saved.log").write_text("noise\n" + "\n".join(LINES))
    assert trace("a", "--log", "saved.log").stdout == trace("a", "--log", "-", stdin="\n".join(LINES)).stdout
    assert trace("a", "--log", "-", stdin=b"\xff\xfe\n" + LINES[0].encode()).exit_code == 0


def test_json_is_one_object() -> None:
    found = json.loads(trace("a", "--log", "-", "--json", stdin="\n".join(LINES)).stdout)
    (record,) = found["records"]
    assert record["stands"]["state"] == "succeeded"
    assert [one["outcome"] for one in record["lines"]] == ["failed", "succeeded"]
    assert record["lines"][0]["reason"] == "away\x1b[2J"
    assert found["is"] == "record"


def test_json_has_each_line_whole() -> None:
    one = line(
        "record.failed", 0, "a", error="E", traceId=TRACE, payload={"s": None, "n": 5, "big": 1e300}, exception="Trace"
    )
    odd = line("looked", 1, "a", location="shop:3").replace('"looked"', '"looked","odd":[NaN,1e999]')
    (record,) = json.loads(trace("a", "--log", "-", "--json", stdin=f"{one}\n{odd}").stdout)["records"]
    assert record["lines"][0]["line"] == json.loads(one)
    assert record["lines"][0]["trace_id"] == TRACE
    assert record["lines"][1]["line"]["odd"] == ["NaN", "1e999"]


@pytest.mark.parametrize(
    "asked",
    [TRACE, TRACE.upper(), f"1-{TRACE[:8]}-{TRACE[8:]}", f"Root=1-{TRACE[:8]}-{TRACE[8:]};Parent=53995c3f42cd8ad8;Sampled=1",
     f"00-{TRACE}-53995c3f42cd8ad8-01"],
)  # fmt: skip
def test_a_trace_is_found_however_it_is_written(asked: str) -> None:
    found = trace(asked, "--log", "-", stdin=line("record.failed", 0, "a", traceId=TRACE))
    assert f"trace {TRACE}" in found.stdout


def test_a_local_run_has_all_lines_and_its_queues_only_while_it_lasts() -> None:
    kept.DIRECTORY.mkdir()
    kept.LOG.write_text(line("record.exhausted", 0, "a", error="E"))
    after = trace("a")
    assert "leave one at DEBUG only" not in after.stderr
    assert "dlq peek" not in after.stdout
    with standing({}) as server:
        kept.announce(kept.Announced(server.endpoint_url))
        assert "pipeline dlq peek --source orders" in trace("a").stdout
    assert "pipeline dlq peek" in trace("a", "--log", str(kept.LOG)).stdout, "lines from elsewhere"


def test_functions_of_a_template_may_not_have_left_all_lines() -> None:
    kept.DIRECTORY.mkdir()
    kept.LOG.write_text(line("record.failed", 0, "a", error="E", function_version="$LATEST"))
    assert "leave one at DEBUG only" in trace("a").stderr


def test_that_successes_are_not_among_the_lines_is_said() -> None:
    assert "leave one at DEBUG only" in trace("a", "--log", "-", stdin=LINES[0]).stderr


def test_nothing_found_is_exit_code_1() -> None:
    found = trace("nosuch\x1b[2J", "--log", "-", stdin="\n".join(LINES))
    assert found.exit_code == 1
    assert "no line of a record in stdin has the id 'nosuch" in found.stderr
    assert "\x1b" not in found.stderr
    assert json.loads(trace("nosuch", "--json", "--log", "-", stdin="").stdout)["records"] == []


def test_without_an_id_it_lists_what_went_wrong() -> None:
    found = trace("--log", "-", stdin="\n".join(LINES))
    assert found.exit_code == 0
    assert "failed" in found.stdout
    assert "1 record: RuntimeError: away\\u001b[2J" in found.stdout
    assert "pipeline trace a" in found.stdout
    (trouble,) = json.loads(trace("--log", "-", "--json", stdin="\n".join(LINES)).stdout)["troubles"]
    assert (trouble["event"], trouble["record_id"], trouble["lines"]) == ("record.failed", "a", 1)


def test_what_is_named_next_reads_the_same_lines(directory: Path) -> None:
    (directory / "my lines.log").write_text("\n".join([line("record.failed", 0, "-a", error="E", reason="away")]))
    found = trace("--log", "my lines.log")
    (command,) = [text for text in found.stdout.splitlines() if "pipeline trace" in text]
    assert command.strip() == "pipeline trace --log 'my lines.log' -- -a"
    assert "shop/price: record -a" in trace(*shlex.split(command)[2:]).stdout


def test_where_nothing_went_wrong_it_says_so() -> None:
    found = trace("--log", "-", stdin=f"no line\n{line('record.succeeded', 1, 'a')}\n")
    assert (found.exit_code, found.stdout) == (0, "nothing went wrong, by the lines in stdin\n")


@pytest.mark.parametrize(
    "text", ["", "no line\n", "[1]\n", '{\n  "message": 1\n}\n', "\x1f\x8b\x08", '{"message":"record.fa']
)
def test_of_what_is_no_log_it_is_not_said_that_nothing_went_wrong(text: str) -> None:
    found = trace("--log", "-", stdin=text)
    assert (found.exit_code, found.stdout) == (1, "")
    assert "there is no log line in stdin: it is to have one JSON object a line" in found.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a"], "`pipeline dev` writes it"),
        (["a", "--log", "nosuch.log"], "nosuch.log cannot be read: No such file"),
        ([" "], "RECORD_ID is empty"),
        ([], "`pipeline dev` writes it"),
    ],
)
def test_misuse_is_exit_code_2(arguments: list[str], message: str) -> None:
    found = trace(*arguments)
    assert found.exit_code == 2
    assert message in found.stderr
    assert "Traceback" not in found.stderr
