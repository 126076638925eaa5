"""Log lines as values: each known form, everything else refused without a quote, and never more than linear time."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.log_formats import ALERTS, LONGEST, UNPARSABLE, Entry, UnknownFormat, is_alert, parse, partition_key

#: A directory with real logs, `apache_error.log` and `hdfs.log`, when there is one.
_REAL = os.environ.get("PIPELINE_REAL_LOGS")

APACHE = "[Tue Feb 03 10:20:30 2009] "
HDFS = "090203 102030 17 INFO dfs.DataNode: "
AT = "2009-02-03T10:20:30+00:00"

KNOWN = [
    (
        APACHE + "[notice] jk2_init() Found child 4711 in scoreboard slot 3",
        Entry(
            "apache-error", AT, "notice", "httpd", "jk2_init() Found child 4711 in scoreboard slot 3", ("child 4711",)
        ),
        "child 4711",
    ),
    (
        APACHE + "[error] mod_jk child workerEnv in error state 6",
        Entry("apache-error", AT, "error", "httpd", "mod_jk child workerEnv in error state 6", ()),
        "httpd",
    ),
    (
        APACHE + "[error] [client 192.0.2.7] File does not exist: /srv/child 9",
        Entry("apache-error", AT, "error", "192.0.2.7", "File does not exist: /srv/child 9", ()),
        "192.0.2.7",
    ),
    (
        APACHE + "[warn] [client 2001:db8::1] slow",
        Entry("apache-error", AT, "warn", "2001:db8::1", "slow", ()),
        "2001:db8::1",
    ),
    (
        APACHE + "[emerg] [client <script>] odd",
        Entry("apache-error", AT, "emerg", "httpd", "[client <script>] odd", ()),
        "httpd",
    ),
    (APACHE + "[debug] ", Entry("apache-error", AT, "debug", "httpd", "", ()), "httpd"),
    (
        "090203 102030 17 INFO dfs.DataNode$DataXceiver: Receiving block blk_-42 src: /192.0.2.1:5 dest: /192.0.2.2:6",
        Entry(
            *("hdfs", AT, "info", "dfs.DataNode$DataXceiver"),
            "Receiving block blk_-42 src: /192.0.2.1:5 dest: /192.0.2.2:6",
            ("blk_-42",),
        ),
        "blk_-42",
    ),
    (
        "090203 102030 17 INFO dfs.FSDataset: Deleting block blk_7 file /data/subdir3/blk_7",
        Entry("hdfs", AT, "info", "dfs.FSDataset", "Deleting block blk_7 file /data/subdir3/blk_7", ("blk_7",)),
        "blk_7",
    ),
    (
        "090203 102030 17 WARN dfs.FSNamesystem: BLOCK* ask 192.0.2.1:5 to delete  blk_2 blk_-1 blk_2",
        Entry(
            *("hdfs", AT, "warn", "dfs.FSNamesystem"),
            "BLOCK* ask 192.0.2.1:5 to delete  blk_2 blk_-1 blk_2",
            ("blk_2", "blk_-1"),
        ),
        "blk_2",
    ),
    (
        "090203 102030 1 FATAL dfs.NameNode: no blk_ here, nor blk_12345678901234567890, nor a_blk_3",
        Entry(
            *("hdfs", AT, "fatal", "dfs.NameNode"),
            "no blk_ here, nor blk_12345678901234567890, nor a_blk_3",
            (),
        ),
        "dfs.NameNode",
    ),
]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize(("line", "entry", "key"), KNOWN)
def test_a_known_line(line: str, entry: Entry, key: str, end: str) -> None:
    assert parse(line + end) == entry
    assert partition_key(line + end) == key


UNKNOWN = [
    ("", "at character 1: no format's time"),
    ("secret", "at character 1: no format's time"),
    ("[Tue Feb 03 10:20:30.123456 2009] [core:error] [pid 3] secret", "at character 1: no format's time"),
    (" " + HDFS + "secret", "at character 1: no format's time"),
    ("[Tue Feb 30 10:20:30 2009] [error] secret", "at character 1: a time that no calendar has"),
    ("[Sec Ret 03 10:20:30 2009] [error] secret", "at character 1: a time that no calendar has"),
    ("[Tue Feb 03 10:20:30 0000] [error] secret", "at character 1: a time that no calendar has"),
    ("091303 102030 17 INFO dfs.DataNode: secret", "at character 1: a time that no calendar has"),
    ("090203 102060 17 INFO dfs.DataNode: secret", "at character 1: a time that no calendar has"),
    (APACHE + "secret", "at character 28: after the time"),
    (APACHE + "[secret] text", "at character 28: after the time"),
    ("090203 102030 17 INFO secret", "at character 15: after the time"),
    ("090203 102030 17 info dfs.DataNode: secret", "at character 15: after the time"),
    (HDFS + "two\nlines of secret", "at character 15: after the time"),
    (HDFS + "secret" * LONGEST, "the line has 393,252 characters: send at most 65,536"),
]


@pytest.mark.parametrize(("line", "where"), UNKNOWN)
def test_any_other_line_is_refused_and_not_quoted(line: str, where: str) -> None:
    with pytest.raises(UnknownFormat) as refused:
        parse(line)

    said = str(refused.value)
    assert said.startswith(where)
    assert "apache-error" in said
    assert "hdfs" in said
    assert "secret" not in said.lower()
    # The error of the calendar quotes the time: it is not shown with ours.
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    assert partition_key(line) == UNPARSABLE


def test_the_longest_line_is_read_and_one_character_more_is_not() -> None:
    line = HDFS + "x" * (LONGEST - len(HDFS))

    assert parse(line + "\r\n").message == line.removeprefix(HDFS)
    with pytest.raises(UnknownFormat):
        parse(line + "x")


@pytest.mark.parametrize(
    ("line", "alert"),
    [
        *((f"{APACHE}[{level}] text", True) for level in ["emerg", "alert", "crit", "error"]),
        *((f"{APACHE}[{level}] text", False) for level in ["warn", "notice", "info", "debug"]),
        *((f"090203 102030 17 {level} dfs.DataNode: text", True) for level in ["FATAL", "ERROR"]),
        *((f"090203 102030 17 {level} dfs.DataNode: text", False) for level in ["WARN", "INFO", "DEBUG", "TRACE"]),
    ],
)
def test_error_and_worse_are_alerts(line: str, alert: bool) -> None:
    assert is_alert(parse(line)) is alert


#: How a line may begin, and the pieces of which both formats consist, so that random lines come close to them.
BEGINNINGS = [
    *("", "090203 102030 ", "090203 102030 17 INFO ", HDFS),
    *(APACHE, APACHE + "[error] ", APACHE + "[error] [client ", APACHE + "[error] [client 192.0.2.7] "),
]
PIECES = [
    *("[error] ", "[client ", "192.0.2.7] ", "090203 102030 ", "17 ", "WARN ", "dfs.DataNode", "dfs.", ": ", "$"),
    *("blk_", "blk_-1", "blk_-", "blk_1 ", "child ", "child 1", "-", "0", "99", "\u0663", " ", "\n", "\r", "\r\n"),
    *("\0", "\ud800", "[", "]"),
]
any_text = st.text(st.characters(exclude_categories=()))
near = st.lists(st.sampled_from(PIECES) | st.text(st.characters(exclude_categories=()), max_size=3)).map("".join)


@given(any_text | st.builds(str.__add__, st.sampled_from(BEGINNINGS), near | any_text))
@settings(deadline=None)
def test_any_text_is_parsed_or_refused(line: str) -> None:
    key = partition_key(line)

    assert 1 <= len(key) <= 256, "what Kinesis takes"
    try:
        entry = parse(line)
    except UnknownFormat:
        assert key == UNPARSABLE
        return
    assert datetime.fromisoformat(entry.at).utcoffset() is not None
    assert entry.level == entry.level.lower()
    assert line.rstrip("\r\n").endswith(entry.message)
    assert len(set(entry.refers_to)) == len(entry.refers_to)
    assert all(name in entry.message for name in entry.refers_to)
    assert key in {entry.source, *entry.refers_to}
    assert is_alert(entry) == (entry.level in ALERTS)


def check_time(beginning: str, repeated: str, end: str) -> None:
    room = LONGEST - len(beginning) - len(end)
    line = beginning + (repeated * (room // len(repeated) + 1))[:room] + end
    assert len(line) == LONGEST

    # Linear is some milliseconds. Quadratic is 65,536 squared by the length of what is repeated: hundreds of millions
    # of steps, so seconds.
    took = min(cpu_seconds(line) for _ in range(2))
    assert took < 0.25, f"{took:.2f} s for {beginning!r}, {repeated!r} again and again, {end!r}"
    assert len(partition_key(line)) <= 256


def cpu_seconds(line: str) -> float:
    """This process's own time, so that a busy machine does not count."""
    start = time.process_time()
    partition_key(line)
    return time.process_time() - start


ENDS = ["", "\n!", ": x", "] x"]


@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_the_longest_line_of_any_piece_takes_linear_time(beginning: str) -> None:
    for piece in PIECES:
        for end in ENDS:
            check_time(beginning, piece, end)


@given(st.sampled_from(BEGINNINGS), near.filter(bool), st.sampled_from(ENDS))
@settings(deadline=None)
def test_the_longest_line_of_any_text_takes_linear_time(beginning: str, repeated: str, end: str) -> None:
    check_time(beginning, repeated, end)


@pytest.mark.skipif(not _REAL, reason="PIPELINE_REAL_LOGS names no directory with apache_error.log and hdfs.log")
@pytest.mark.parametrize(("file", "name"), [("apache_error.log", "apache-error"), ("hdfs.log", "hdfs")])
def test_every_real_line_is_parsed(file: str, name: str) -> None:
    assert _REAL is not None
    lines = (Path(_REAL) / file).read_text().splitlines()
    entries = [parse(line) for line in lines]

    assert lines
    assert {entry.format for entry in entries} == {name}
    assert UNPARSABLE not in {partition_key(line) for line in lines}
