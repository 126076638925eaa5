"""The documents: their examples run and print what they say, and what they name is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
EMULATOR, TESTING = ROOT / "docs" / "emulator.md", ROOT / "docs" / "testing.md"
OBSERVABILITY = ROOT / "docs" / "observability.md"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# (\w+\.py)\n")
_TEST = re.compile(r"^ *(?:async )?def (test_\w+)", re.MULTILINE)


def blocks(document: Path) -> list[tuple[str, str]]:
    """The language and the text of each block."""
    return _BLOCK.findall(document.read_text())


def examples(document: Path, directory: Path) -> list[str]:
    """The names of the document's Python files, written to a directory. Each block says its file's name in its first line."""
    named: list[str] = []
    for language, text in blocks(document):
        found = _FILE.match(text)
        if language == "python" and found is not None:
            (directory / found[1]).write_text(text)
            named.append(found[1])
    return named


def failures(document: Path) -> list[tuple[str, list[str]]]:
    """The files whose failing run the document shows, with the lines that it says are printed."""
    shown = [text.splitlines() for language, text in blocks(document) if language == "console"]
    return [(lines[0].split()[-1], lines[1:]) for lines in shown if lines[0].startswith("$ pytest ")]


def assert_shown(printed: str, told: list[str]) -> None:
    """Every line that the document shows is printed, in that order; "..." stands for any number of lines."""
    rest = [line.rstrip() for line in printed.splitlines()]
    for line in told:
        if line != "...":
            assert line in rest, f"{line!r} is not printed, or not there:\n{printed}"
            rest = rest[rest.index(line) + 1 :]


@pytest.mark.timeout(120)  # a process of its own, and an AWS server
def test_the_examples_run_and_print_what_the_documents_say(tmp_path: Path) -> None:
    files = [name for document in (EMULATOR, TESTING, OBSERVABILITY) for name in examples(document, tmp_path)]
    failing = failures(TESTING)
    # Without the plugins of this project's own tests, and with fewer seeds: 200 take 20 seconds.
    plugins = ["-p", "pipeline.testing.plugin", "-p", "pytest_asyncio.plugin", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", "-q", "--show-capture=no", "--faults-seeds", "5", *plugins]

    ran = subprocess.run(
        [*command, *(name for name in files if name.startswith("test_"))],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=110,
        # pytest prints more where it finds itself in CI.
        env={**{name: value for name, value in os.environ.items() if name != "CI"}, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )  # fmt: skip

    failed = re.findall(r"^FAILED (\w+\.py)", ran.stdout, re.MULTILINE)
    assert failed == [name for name, _ in failing], ran.stdout + ran.stderr
    for _, told in failing:
        assert_shown(ran.stdout, told)
    assert len(re.findall(r"^def test_", "".join((tmp_path / name).read_text() for name in files), re.MULTILINE)) > 8


#: A function that the example of a process that is scraped imports.
_MEASURED_APP = """
from pipeline import Pipeline, sources

shop = Pipeline("shop", idempotency=None, log_level="CRITICAL")


@shop.handler(sources.SQS("orders"))
async def price(order: dict[str, str]) -> None: ...
"""
_SCRAPE = """
import urllib.request
from measured import price, server

class Context:
    def get_remaining_time_in_millis(self) -> int:
        return 10_000

price({"Records": [{"messageId": "m", "eventSource": "aws:sqs", "body": "{}"}]}, Context())
print(urllib.request.urlopen(f"http://127.0.0.1:{server.server_address[1]}/metrics", timeout=10).read().decode())
price.close()
server.shutdown()
"""


def test_a_process_that_is_set_up_as_the_document_says_is_scraped(tmp_path: Path) -> None:
    assert "measured.py" in examples(OBSERVABILITY, tmp_path)
    (tmp_path / "app.py").write_text(_MEASURED_APP)
    ran = subprocess.run(
        [sys.executable, "-c", _SCRAPE],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50,
        env={**os.environ, "METRICS_PORT": "0"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    (line,) = [line for line in ran.stdout.splitlines() if line.startswith("pipeline_records_total{")]
    assert 'pipeline_handler="price"' in line
    assert 'pipeline_outcome="succeeded"' in line
    assert line.endswith(" 1.0")


@pytest.mark.timeout(120)  # an AWS server, and a process for the function
def test_the_command_of_the_emulators_document_prints_what_it_says(tmp_path: Path) -> None:
    (console,) = [text.splitlines() for language, text in blocks(EMULATOR) if language == "console"]
    feed = next(line for line in console if line.startswith("$ printf")).removeprefix("$ ")
    command = next(line for line in console if line.startswith("$ pipeline")).removeprefix("$ pipeline ").split()
    for name in ("app.py", "template.yaml"):
        shutil.copy(ROOT / "tests" / "deploy" / "local" / "plain" / name, tmp_path)
    subprocess.run(["sh", "-c", feed], cwd=tmp_path, check=True)

    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ran.stdout.splitlines()[-1:] == console[-1:], ran.stderr[-2000:]


def test_the_tests_that_documents_name_are_there() -> None:
    there = {name for path in (ROOT / "tests").rglob("test_*.py") for name in _TEST.findall(path.read_text())}
    for document in DOCUMENTS:
        named = set(re.findall(r"`(test_\w+)`", document.read_text()))
        assert named - there == set(), document.name


def test_what_differs_from_aws_is_told_and_no_more() -> None:
    text = EMULATOR.read_text()
    mended, left = text.split("### What is mended")[1].split("### What is not")
    still = set().union(*(differences(name) for name in ("bus", "stream", "bucket")))
    still |= {*differences("table", of="moto"), "test_queries_that_are_none"}  # a case of that one: `DIFFERENT`

    assert set(re.findall(r"`(test_\w+)`", left)) == still
    assert set(re.findall(r"`(test_\w+)`", mended)) == differences("queue")


def differences(suite: str, *, of: str = "") -> set[str]:
    """The tests that a contract suite says to fail somewhere. Read, because to import the suites takes seconds."""
    text = (ROOT / "tests" / "contract" / f"test_{suite}_service.py").read_text()
    table = text.split("\nDIFFERENCES", 1)[1].split("\n}\n", 1)[0]
    if of:
        table = table.split(f'"{of}": {{')[1].split("\n    }", 1)[0]
    found = set(re.findall(r"""f?["'](test_\w+)""", table))
    assert found
    return found


def test_links_lead_somewhere() -> None:
    for document in DOCUMENTS:
        text = document.read_text()
        for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", text):
            if target.startswith("http"):
                continue
            found = document if not target else document.parent / target
            assert found.exists(), f"{document.name}: {target}"
            if anchor and found.suffix == ".md":
                assert anchor in anchors(found), f"{document.name}: {target}#{anchor}"
        for name in re.findall(r"\[([^\]\[`]+)\](?![(:\[])", re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)):
            if document == EMULATOR:
                assert f"\n[{name}]: http" in text, name


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
