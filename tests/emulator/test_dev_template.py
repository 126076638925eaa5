"""`pipeline dev --template`: in this process where that shows the same, else in one of its own."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import feed
from pipeline.cli.commands import cli
from pipeline.cli.dev import renew_template
from pipeline.deploy.local.run import TemplateRun

PLAIN = Path(__file__).parents[1] / "deploy" / "local" / "plain" / "template.yaml"
QUEUE = """
Transform: AWS::Serverless-2016-10-31
Parameters:
  Word: {Type: String}
Resources:
  Price:
    Type: AWS::Serverless::Function
    Properties:
      Runtime: python3.12
      CodeUri: .
      Handler: pricing.handler
      Timeout: 600
      Environment: {Variables: {WORD: !Ref Word}}
      Events:
        Orders: {Type: SQS, Properties: {Queue: !GetAtt Orders.Arn, BatchSize: 1}}
  Orders: {Type: AWS::SQS::Queue, Properties: {VisibilityTimeout: 3600}}
"""
HANDLER = """
import os

def handler(event, context):
    print(VERSION, os.environ["WORD"], event["Records"][0]["body"], flush=True)
    while "block" in event["Records"][0]["body"]:
        pass
"""


def dev(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["dev", *arguments])


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "template.yaml").write_text(QUEUE)
    (tmp_path / "pricing.py").write_text(f"VERSION = 'first'\n{HANDLER}")
    (tmp_path / "orders").write_text("a\n")
    return tmp_path


@pytest.mark.parametrize("where", [[], ["--in-process"]])
def test_a_plain_handler_runs_until_its_queue_is_empty(project: Path, where: list[str]) -> None:
    orders = [{"order_id": name, "quantity": 1} for name in "aba"]
    (project / "orders").write_text("".join(json.dumps(order) + "\n" for order in orders))
    given = ["--feed", "OrdersQueue=orders", "--until-drained", "--summary", "report.json", *where]
    done = dev("--template", str(PLAIN), *given)
    assert done.exit_code == 0, done.output
    assert "OrdersFunction: 3 records (3 succeeded" in done.stdout
    assert json.loads((project / "report.json").read_text())["handlers"]["OrdersFunction"]["succeeded"] == 3


def test_a_record_that_is_given_up_makes_the_exit_code_1(project: Path) -> None:
    (project / "orders").write_text('{"order_id": "a", "quantity": 0}\n')
    given = ["--feed", "OrdersQueue=orders", "--until-drained", "--time-scale", "1000", "--in-process"]
    done = dev("--template", str(PLAIN), *given)
    assert done.exit_code == 1, done.output
    assert "1 exhausted), 3 deliveries, 1 dead-lettered" in done.stdout


def test_parameters_reach_the_function(project: Path) -> None:
    given = ["--feed", "Orders=orders", "--until-drained", "--parameter", "Word=hello"]
    done = dev("--template", "template.yaml", *given)
    assert done.exit_code == 0, done.output
    assert "first hello a\n" in done.stderr


@pytest.mark.parametrize(
    ("template", "arguments", "message"),
    [
        ("Resources: {Orders: {Type: 'AWS::SQS::Queue'}}", [], "nothing to run: template.yaml has no event source mapping"),
        ("Resources: [", [], "template.yaml:"),
        (None, [], "it cannot be read: No such file or directory"),
        (QUEUE, ["--parameter", "Word"], "write NAME=VALUE"),
        (QUEUE, ["--parameter", "Word=x", "--feed", "Odrers=orders"], "there is no source 'Odrers': Orders"),
        (QUEUE, ["--parameter", "Word=x", "shop"], "give a TARGET or --template, not both"),
        (QUEUE, ["--parameter", "Word=x", "--endpoint", "http://127.0.0.1:1"], "no AWS server answers there"),
    ],
)  # fmt: skip
def test_misuse_is_one_plain_error_and_exit_code_2(
    project: Path, template: str | None, arguments: list[str], message: str
) -> None:
    (project / "template.yaml").unlink()
    if template is not None:
        (project / "template.yaml").write_text(template)
    done = dev("--template", "template.yaml", *arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_an_endpoint_where_nobody_answers_is_said_at_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.emulator.probe._ANSWER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        done = dev("--template", "template.yaml", "--parameter", "Word=x", "--endpoint", url)
    assert done.exit_code == 2
    assert "something listens there, and does not answer" in done.stderr


async def test_what_an_edit_of_the_template_brings_is_told_once(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template = project / "template.yaml"
    async with TemplateRun(template, {"Word": "x"}, in_process=True) as env:
        for line in ("      Layers: [one]\n", "      Layers: [one]\n      Description: more\n"):
            template.write_text(QUEUE.replace("      Timeout: 600\n", f"{line}      Timeout: 600\n"))
            await renew_template(env, [template])
    told = capsys.readouterr().err.splitlines()
    assert told == [f"{template}:12: note: Price: layers are not used; install what they hold beside this toolkit"]


def test_lines_are_read_with_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_LONGEST", 100)
    path = tmp_path / "lines"
    path.write_bytes(b"a\r\n\n" + b"b" * 100 + b"\n" + b"c" * 101 + b"\n" + b"d" * 1000 + b"\ne\n" + b"f" * 500)
    with path.open("rb") as file:
        found = list(feed._lines(file))
    assert found == [(1, b"a"), (3, b"b" * 100), (4, None), (5, None), (6, b"e"), (7, None)]


def test_few_long_lines_are_sent_at_once() -> None:
    lines = [(number, b"x" * 1_000_000) for number in range(100)]
    assert len(feed._chunk(iter(lines), 50)) == 5
    assert len(feed._chunk(iter([(1, b"x")] * 100), 50)) == 50


class Terminal:
    """A run in a process of its own, whose stdout and stderr are a terminal."""

    def __init__(self, *arguments: str) -> None:
        self._end, theirs = pty.openpty()
        command = [sys.executable, "-m", "pipeline", "dev", *arguments]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "140"}
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True
        )
        os.close(theirs)
        self._seen = ""

    def until(self, *texts: str) -> str:
        """What it showed, until all of these stood there since the last call."""
        while not all(text in self._seen for text in texts):
            try:
                self._seen += os.read(self._end, 65536).decode(errors="replace")
            except OSError:  # it has ended
                raise AssertionError(self._seen) from None
        seen, self._seen = self._seen, ""
        return seen

    def rest(self) -> str:
        seen = self._seen
        while True:
            try:
                seen += os.read(self._end, 65536).decode(errors="replace")
            except OSError:
                os.close(self._end)
                return seen

    def children(self) -> list[int]:
        listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
        pairs = [[int(word) for word in line.split()] for line in listed.stdout.splitlines()]
        return [pid for pid, parent in pairs if parent == self.process.pid]


def ended(pid: int) -> None:
    """Return when there is no such process any more; the test's own limit ends a wait in vain."""
    while True:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
        if not state.stdout.strip() or state.stdout.startswith("Z"):
            return


def test_a_terminal_shows_the_table_and_edits_and_a_second_ctrl_c_leaves_nothing(project: Path) -> None:
    (project / "orders").write_text("a\nblock\n")
    shown = Terminal("--template", "template.yaml", "--parameter", "Word=hello", "--feed", "Orders=orders")
    shown.until("fed; ready at http://127.0.0.1:", "first hello a", "first hello block")
    shown.until("handler", "deliveries", "waiting", "lag", "Price")
    (project / "pricing.py").write_text("def handler(:\n")
    shown.until("not reloaded: the edited code does not import, so the old code goes on: SyntaxError")
    (project / "pricing.py").write_text(f"VERSION = 'second'\n{HANDLER}")
    shown.until("reloaded: pricing.py")
    (project / "template.yaml").write_text("Resources: [\n")
    shown.until("not reloaded: template.yaml:")
    children = shown.children()
    assert len(children) >= 2, "the server, and the function that blocks"
    shown.process.send_signal(signal.SIGINT)
    shown.until("Ctrl-C again ends at once")
    shown.process.send_signal(signal.SIGINT)
    rest = shown.rest()
    assert shown.process.wait() == 130
    assert rest.rstrip().endswith("\x1b[?25h"), "the cursor is there again"
    assert "Traceback" not in rest
    for pid in children:
        ended(pid)


def test_ctrl_c_while_the_server_starts_ends_the_run(project: Path) -> None:
    """The module is imported just before."""
    (project / "shop.py").write_text(
        textwrap.dedent("""
            from pipeline import Pipeline, sources

            shop = Pipeline("shop")
            @shop.handler(sources.SQS("orders"))
            def price(order: dict) -> None: ...
            print("imported", flush=True)
        """)
    )
    shown = Terminal("shop")
    shown.until("imported")
    shown.process.send_signal(signal.SIGINT)
    rest = shown.rest()
    assert shown.process.wait() == 130
    assert "Traceback" not in rest


def test_what_functions_in_processes_of_their_own_log_is_kept(project: Path) -> None:
    said = '{"service": "x", "handler": "h", "record_id": "r1", "message": "record.rejected", "source": "Orders"}'
    (project / "pricing.py").write_text(f"def handler(event, context):\n    print({said!r}, flush=True)\n")
    given = ["--feed", "Orders=orders", "--until-drained", "--parameter", "Word=hello"]
    done = dev("--template", "template.yaml", *given)
    assert done.exit_code == 0, done.output
    assert said in done.stderr
    assert said in (project / ".pipeline" / "log.jsonl").read_text()
    told = CliRunner().invoke(cli, ["trace", "r1"])
    assert "went to the dead letters of Orders" in told.stdout
