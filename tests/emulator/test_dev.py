"""`pipeline dev` in this process; only what Ctrl-C ends is in one of its own."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.commands import cli

SHOP = """
from pipeline import Backoff, Pipeline, Reject, sinks, sources

shop = Pipeline("shop")
other = Pipeline("other")


@shop.handler(sources.SQS("orders"), sinks=[sinks.DynamoDB("ledger", partition_key="id")], key="id", retry=Backoff(attempts=2, base=1))
def price(order: dict) -> dict:
    if order["id"] == "rejected":
        raise Reject("no")
    if order["id"] == "poison":
        raise RuntimeError("poison")
    return order


@other.handler(sources.SQS("tasks.fifo"), key="id")
def work(task: dict) -> None:
    pass
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "shopfront.py").write_text(SHOP)
    (tmp_path / "orders.ndjson").write_text('{"id": "a"}\n{"id": "b"}\n\n{"id": "rejected"}\n{"id": "a"}\n')
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def dev(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["dev", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nosuch"], "there is no module 'nosuch'"),
        (["shopfront:nosuch"], "'shopfront:nosuch' does not exist; there is `shopfront:shop`, `shopfront:other`"),
        (["shopfront:price"], "is a Handler, not a Pipeline"),
        (["shopfront.py"], "is a path: name the module, as `shopfront`"),
        ([], "there is no TARGET"),
        (["broken"], "module 'broken' does not import: ZeroDivisionError: division by zero"),
        (["needy"], "module 'needy' does not import: ModuleNotFoundError: No module named 'missing_thing'"),
        (["exiting"], "module 'exiting' does not import: SystemExit: 3"),
        (["unparsed"], "module 'unparsed' does not import: SyntaxError"),
        (["empty"], "module 'empty' holds no Pipeline"),
        (["shopfront", "--feed", "orders"], "write NAME=FILE"),
        (["shopfront", "--feed", "orders=nosuch.ndjson"], "'nosuch.ndjson' cannot be read"),
        (["shopfront", "--feed", "odrers=orders.ndjson"], "there is no source 'odrers': orders, tasks.fifo"),
        (["shopfront", "--summary", "nosuch/report.json"], "there is no directory"),
        (["shopfront", "--endpoint", "https://sqs.us-east-1.amazonaws.com"], "never to AWS"),
        (["shopfront", "--endpoint", "http://127.0.0.1:1", "--time-scale", "2"], "needs the embedded server"),
        (["shopfront", "--time-scale", "0.5"], "--time-scale"),
        (["shopfront", "--time-scale", "nan"], "--time-scale': nan is no number of times"),
        (["shopfront", "--time-scale", "inf"], "--time-scale': inf is no number of times"),
    ],
)
def test_misuse_is_one_plain_error_and_exit_code_2(project: Path, arguments: list[str], message: str) -> None:
    (project / "broken.py").write_text("1 / 0\n")
    (project / "needy.py").write_text("import missing_thing\n")
    (project / "exiting.py").write_text("raise SystemExit(3)\n")
    (project / "unparsed.py").write_text("def :\n")
    (project / "empty.py").write_text("")
    result = dev(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_module_of_several_pipelines_runs_to_its_end_and_writes_its_summary(project: Path) -> None:
    (project / "pyproject.toml").write_text('[tool.pipeline]\napp = "shopfront"\n')
    (project / "tasks.ndjson").write_text('{"id": 1}\n{"id": 1}\n{"id": 2}\n')
    feeds = ["--feed", "orders=orders.ndjson", "--feed", "tasks.fifo=tasks.ndjson"]
    done = dev(*feeds, "--until-drained", "--summary", "report.json")
    assert done.exit_code == 0, done.stderr
    report = json.loads((project / "report.json").read_text())
    price, work = report["handlers"]["price"], report["handlers"]["work"]
    assert (price["records"], price["succeeded"], price["duplicates"], price["rejected"]) == (4, 2, 1, 1)
    assert (work["records"], work["succeeded"], work["duplicates"]) == (3, 2, 1)
    assert price["outputs"] == {"ledger": 2}
    assert "price: 4 records (2 succeeded, 1 duplicates, 1 rejected, 0 exhausted)" in done.stdout


def test_an_exhausted_record_or_a_line_that_cannot_be_sent_makes_the_exit_code_1(project: Path) -> None:
    (project / "orders.ndjson").write_bytes(b'{"id": "poison"}\n{"id": "\xff"}\n{"id": "a"}\n')
    arguments = ["--feed", "orders=orders.ndjson", "--until-drained", "--summary", "report.json", "--time-scale", "60"]
    done = dev("shopfront:shop", *arguments)
    assert done.exit_code == 1, done.stderr
    assert "orders.ndjson, line 2, was not sent: it is not UTF-8" in done.stderr
    report = json.loads((project / "report.json").read_text())
    assert (report["records"], report["succeeded"], report["exhausted"], report["refused_lines"]) == (2, 1, 1, 1)


def test_ctrl_c_ends_a_run_without_a_traceback(project: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "dev", "shopfront"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        assert running.stderr.readline().startswith("ready at http://127.0.0.1:")
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
    assert running.returncode == 0
    assert "price: 0 records" in out
    assert "Traceback" not in err


def test_all_log_lines_are_kept_and_those_of_the_pipelines_own_level_are_shown(project: Path) -> None:
    done = dev("shopfront:shop", "--feed", "orders=orders.ndjson", "--until-drained")
    assert done.exit_code == 0, done.stderr
    kept = [json.loads(line) for line in (project / ".pipeline" / "log.jsonl").read_text().splitlines()]
    assert sum(line["message"] == "record.succeeded" for line in kept) == 2
    assert "record.rejected" in done.stderr
    assert "record.succeeded" not in done.stderr
    (rejected,) = [line["record_id"] for line in kept if line["message"] == "record.rejected"]
    told = CliRunner().invoke(cli, ["trace", rejected])
    assert told.exit_code == 0
    assert "went to the dead letters of orders" in told.stdout
    assert not (project / ".pipeline" / "run.json").exists()


def test_log_names_another_file_and_misuse_leaves_the_last_one_alone(project: Path) -> None:
    arguments = ["--feed", "orders=orders.ndjson", "--until-drained", "--log", "kept.jsonl"]
    assert dev("shopfront:shop", *arguments).exit_code == 0
    before = (project / "kept.jsonl").read_text()
    assert "record.succeeded" in before
    assert not (project / ".pipeline" / "log.jsonl").exists()
    assert dev("nosuch", *arguments).exit_code == 2
    assert (project / "kept.jsonl").read_text() == before
    refused = dev("shopfront:shop", "--until-drained", "--log", "nosuch/kept.jsonl")
    assert refused.exit_code == 2
    assert "--log: nosuch/kept.jsonl cannot be written: No such file or directory" in refused.stderr


def test_a_directory_that_takes_no_log_file_ends_no_run(project: Path) -> None:
    (project / ".pipeline").write_text("a file")
    done = dev("shopfront:shop", "--feed", "orders=orders.ndjson", "--until-drained")
    assert done.exit_code == 0
    assert "log lines are not kept" in done.stderr


FLOW = """
from pipeline import Backoff, Context, Pipeline, sinks, sources

flow = Pipeline("flow")
tries = []


@flow.handler(sources.SQS("orders"), sinks=[sinks.Kinesis("priced", partition_key="id")], key="id")
def price(order: dict) -> dict:
    return order


@flow.handler(sources.Kinesis("priced"), sinks=[sinks.SQS("mails.fifo", group="id")], key="id", retry=Backoff(attempts=3, base=0.1))
def bill(order: dict, context: Context) -> dict:
    context.logger.debug("billing")
    tries.append(1)
    if len(tries) == 1:
        raise RuntimeError("away")
    return order


@flow.handler(sources.SQS("mails.fifo"), key="id", retry=Backoff(attempts=1))
def mail(order: dict) -> None:
    raise ValueError("no address")
"""


def test_a_flow_through_three_handlers_is_one_story_from_each_of_them(project: Path) -> None:
    (project / "threefold.py").write_text(FLOW)
    (project / "orders.ndjson").write_text('{"id": "a"}\n')
    done = dev("threefold", "--feed", "orders=orders.ndjson", "--until-drained")
    assert done.exit_code == 1, done.stderr
    kept = [json.loads(line) for line in (project / ".pipeline" / "log.jsonl").read_text().splitlines()]
    ids = {line["handler"]: line["record_id"] for line in kept if "record_id" in line}
    stories = {
        handler: json.loads(CliRunner().invoke(cli, ["trace", record, "--json"]).stdout)["records"][0]
        for handler, record in ids.items()
    }
    assert [one["handler"] for one in stories["mail"]["origins"]] == ["price", "bill"]
    assert stories["mail"]["stands"]["state"] == "dead"
    (effect,) = stories["price"]["effects"]
    assert effect["record"]["handler"] == "bill"
    assert [one["record"]["handler"] for one in effect["effects"]] == ["mail"]
    assert [line["message"] for line in stories["bill"]["lines"]] == [
        *("billing", "record.postponed", "billing", "record.succeeded")
    ]  # fmt: skip


def test_dead_letters_of_a_run_that_goes_on_are_seen_from_its_directory(project: Path) -> None:
    (project / "orders.ndjson").write_text('{"id": "rejected"}\n')
    command = [sys.executable, "-m", "pipeline", "dev", "shopfront:shop", "--feed", "orders=orders.ndjson"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            while "record.rejected" not in (line := running.stderr.readline()):
                assert line, "it ended"
            found = CliRunner().invoke(cli, ["dlq", "peek"])
            running.send_signal(signal.SIGINT)
            running.communicate(timeout=20)
        finally:
            running.kill()
    assert found.exit_code == 0, found.output
    assert "orders-dlq: 1 dead letter (shop.price)" in found.stdout
    assert f"pipeline trace {json.loads(line)['record_id']}" in found.stdout
    after = CliRunner().invoke(cli, ["dlq", "peek"])
    assert after.exit_code == 2
    assert "no `pipeline dev` runs in this directory" in after.stderr
    assert "start one without --until-drained" in after.stderr
    assert "`pipeline trace RECORD_ID`" in after.stderr


def test_a_second_run_in_one_directory_leaves_what_is_seen_of_the_first_alone(project: Path) -> None:
    (project / "poison.ndjson").write_text('{"id": "rejected"}\n')
    command = [sys.executable, "-m", "pipeline", "dev", "shopfront:shop", "--feed", "orders=poison.ndjson"]
    second = ["shopfront:shop", "--feed", "orders=orders.ndjson", "--until-drained"]
    log, run = project / ".pipeline" / "log.jsonl", project / ".pipeline" / "run.json"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        try:
            while "record.rejected" not in (line := running.stderr.readline()):
                assert line, "it ended"
            told = f"another `pipeline dev` (process {running.pid}) runs in this directory"
            announced, file = run.read_text(), log.stat().st_ino
            plain = dev(*second)
            elsewhere = dev(*second, "--log", "mine.jsonl")
            same = dev(*second, "--log", str(log))
            left = run.read_text(), log.stat().st_ino
            lines = log.read_text()
            peeked = CliRunner().invoke(cli, ["dlq", "peek"])
            running.send_signal(signal.SIGINT)
            _, rest = running.communicate(timeout=20)
        finally:
            running.kill()
    assert (plain.exit_code, elsewhere.exit_code, same.exit_code) == (0, 0, 2), plain.stderr + elsewhere.stderr
    assert plain.stderr.count(told) == elsewhere.stderr.count(told) == same.stderr.count(told) == 1
    assert "--log FILE" in plain.stderr
    assert "pipeline trace --log mine.jsonl" in elsewhere.stderr
    assert left == (announced, file)
    assert {json.loads(one).get("record_id") for one in lines.splitlines()} >= {json.loads(line)["record_id"]}
    assert lines.count('"record.rejected"') == 1, "only the first run's"
    assert (project / "mine.jsonl").read_text().count('"record.rejected"') == 1
    assert "orders-dlq: 1 dead letter (shop.price)" in peeked.stdout
    assert "Traceback" not in rest
    assert not run.exists()
    later = dev(*second)
    assert "another" not in later.stderr
    assert log.stat().st_ino != file or log.read_text() != lines
    assert log.read_text().count('"record.succeeded"') == 2
