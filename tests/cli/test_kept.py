"""The log file of a local run: begun anew, bounded, and no reason to fail."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from pipeline.cli import kept
from pipeline.cli.commands import cli
from pipeline.cli.kept import Announced, KeptLines

_open: list[KeptLines] = []


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    while _open:
        _open.pop().close()


@pytest.fixture
def url() -> Iterator[str]:
    """Where something listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def begun(path: Path = kept.LOG, **options: int) -> KeptLines:
    made = KeptLines(path, **options)
    _open.append(made)
    made.begin()
    return made


def test_the_file_is_begun_anew_in_a_directory_that_git_does_not_see() -> None:
    first = begun()
    first.write("one\n")
    second = begun()
    second.write("two\n")
    first.write("three\n")
    assert kept.LOG.read_text() == "two\n"
    assert (kept.DIRECTORY / ".gitignore").read_text() == "*\n"
    first.close()
    second.close()
    second.write("four\n")
    assert kept.LOG.read_text() == "two\n"


def test_nothing_is_touched_before_the_begin() -> None:
    made = KeptLines(kept.LOG)
    made.write("lost\n")
    made.close()
    assert not kept.DIRECTORY.exists()


def test_of_a_large_file_the_older_half_is_dropped_at_a_line() -> None:
    lines = begun(max_bytes=1_000)
    for number in range(1_000):
        lines.write(f"line {number}\n")
        assert kept.LOG.stat().st_size <= 1_000
        assert all(one.startswith("line ") for one in kept.LOG.read_text().splitlines())
    found = kept.LOG.read_text().splitlines()
    assert found[-1] == "line 999"
    assert len(found) > 30
    numbers = [int(one.removeprefix("line ")) for one in found]
    assert numbers == list(range(numbers[0], 1_000))
    assert [path.name for path in kept.DIRECTORY.iterdir() if path.name not in (".gitignore", "log.jsonl")] == []


def test_a_run_that_is_displaced_leaves_the_others_file_alone() -> None:
    first = begun(max_bytes=100)
    second = begun(max_bytes=100)
    second.write("mine\n")
    first.write("x" * 200 + "\n")
    assert kept.LOG.read_text() == "mine\n"


def test_lines_of_several_threads_stay_whole() -> None:
    lines = begun(max_bytes=10_000)

    def write(letter: str) -> None:
        for _ in range(200):
            lines.write(f"{letter} {'x' * 50}\n")

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {len(one) for one in kept.LOG.read_text().splitlines()} == {52}


def test_half_a_surrogate_pair_is_written() -> None:
    lines = begun()
    lines.write("\ud800\n")
    assert kept.LOG.read_text() == "\\ud800\n"


def test_a_file_that_can_no_longer_be_written_is_let_go(directory: Path) -> None:
    lines = begun(max_bytes=10)
    kept.LOG.unlink()
    lines.write("longer than ten bytes\n")  # its older half cannot be dropped
    assert isinstance(lines.error, FileNotFoundError)
    lines.write("more\n")


def test_a_directory_in_its_place_is_an_error_at_the_begin(directory: Path) -> None:
    kept.LOG.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        begun()


def test_a_run_says_where_its_services_listen_while_it_lasts(url: str) -> None:
    assert kept.announced() is None
    run = Announced(url, "shop", has_pipelines=False)
    kept.announce(run)
    assert kept.announced() == run
    assert run.pid == os.getpid()
    kept.withdraw()
    assert kept.announced() is None


def test_the_word_of_a_run_that_is_gone_counts_for_nothing(url: str) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    kept.announce(Announced(url, pid=child))
    assert kept.announced() is None
    kept.withdraw()
    assert kept.RUN.exists(), "it is another's"


def test_a_process_that_has_the_number_of_a_run_that_was_killed_is_no_run() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        kept.announce(Announced(url, pid=os.getppid()))
        assert kept.announced() is not None
    assert kept.announced() is None, "nothing listens there"


def test_only_a_run_of_another_process_is_another(url: str) -> None:
    kept.announce(Announced(url))
    assert kept.another() is None, "in a container every run has the same number"
    kept.announce(Announced(url, pid=os.getppid()))
    assert kept.another() == kept.announced() is not None


@pytest.mark.parametrize("log", [".pipeline/log.jsonl", "link.jsonl", "{cwd}/.pipeline/log.jsonl"])
def test_the_file_of_the_run_that_goes_on_is_known_by_any_name(directory: Path, log: str) -> None:
    kept.DIRECTORY.mkdir()
    (directory / "link.jsonl").symlink_to(kept.LOG)
    assert kept.is_default(Path(log.format(cwd=directory)))
    assert not kept.is_default(Path("log.jsonl"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"pid": "x"}',
        '{"pid": 99999999999999999999, "endpoint_url": ""}',
        '{"pid": 1, "endpoint_url": 3}',
        '{"pid": 0, "endpoint_url": "http://127.0.0.1:1", "target": null, "has_pipelines": true}',
        '{"pid": 1, "endpoint_url": "http://127.0.0.1:99999", "target": null, "has_pipelines": true}',
        '{"pid": -1, "endpoint_url": "http://127.0.0.1:1", "target": null, "has_pipelines": true}',
        "\xff",
    ],
)
def test_a_damaged_word_counts_for_nothing(text: str) -> None:
    kept.DIRECTORY.mkdir()
    kept.RUN.write_bytes(text.encode("latin-1"))
    assert kept.announced() is None
    kept.withdraw()


@pytest.mark.parametrize(
    "url", ["https://sqs.eu-west-1.amazonaws.com", "http://169.254.169.254", "http://[", "ftp://a"]
)
def test_a_run_elsewhere_than_on_this_machine_counts_for_nothing(url: str) -> None:
    kept.announce(Announced(url))
    assert kept.announced() is None


def test_a_run_that_listens_is_not_asked_at_an_address_that_no_run_has(url: str) -> None:
    kept.announce(Announced(url))
    assert kept.announced() is not None
    kept.announce(Announced(url.replace("127.0.0.1", "0.0.0.0")))
    assert kept.announced() is None


def test_what_is_no_regular_file_stays_what_it_is(directory: Path) -> None:
    (directory / "real.log").write_text("before\n")
    (directory / "link.log").symlink_to("real.log")
    begun(Path("link.log"), max_bytes=10).write("longer than ten bytes\n")
    assert (directory / "link.log").is_symlink()
    assert (directory / "real.log").read_text() == "before\nlonger than ten bytes\n"
    os.mkfifo("pipe")
    with pytest.raises(OSError, match="No such device"):
        begun(Path("pipe"))  # nobody reads it
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        begun(Path("pipe")).write("one\n")
        assert os.read(reader, 100) == b"one\n"
    finally:
        os.close(reader)
    assert (directory / "pipe").is_fifo()
    begun(Path("/dev/null")).write("one\n")
    assert Path("/dev/null").is_char_device()


def test_the_file_is_the_users_alone() -> None:
    begun()
    assert kept.LOG.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("log", ["orders.ndjson", "link.ndjson"])
def test_what_is_fed_is_not_written_over(directory: Path, log: str) -> None:
    (directory / "orders.ndjson").write_text("{}\n")
    (directory / "link.ndjson").symlink_to("orders.ndjson")
    found = CliRunner().invoke(cli, ["dev", "nosuch", "--feed", "orders=orders.ndjson", "--log", log])
    assert found.exit_code == 2
    assert f"{log} is fed to 'orders'" in found.stderr
    assert (directory / "orders.ndjson").read_text() == "{}\n"
