"""A sample of log lines, made up: two formats, errors in both, lines that stand there twice, and unreadable ones."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

GOOD, ALERTS, REPEATS = 600, 45, 15

#: Each is one line in no known format.
UNKNOWN = [
    b"this is no log line",
    b'{"level": "error", "message": "JSON, which nobody asked for"}',
    b"[Sun Feb 31 10:20:30 2026] [error] a day that no calendar has",
    b"[Sat Nov 21 25:00:00 2026] [error] an hour that no day has",
    b"[Sat Nov 21 10:20:30 2026] [shout] no level of httpd's",
    b"[Sat Nov 21 10:20:30 2026] cut off after the ti",
    b"261121 102030 17 LOUD dfs.Sample: no level of log4j's",
    b"261121 102030 a thread without a number",
    b"261121",
    b"\x00\x01\x02 text, but not for reading",
    b"[Sat Nov 21 10:20:30 2026] [error] " + b"longer than any line may be " * 2_500,
    "日志 in another format".encode(),
]
#: Each is one line that is not UTF-8.
UNDECODABLE = [
    b"\xff\xfe not the start of any character",
    b"[Sat Nov 21 10:20:30 2026] [error] caf\xe9, in Latin-1",
    b"261121 102030 17 INFO dfs.Sample: cut off within a charact\xc3",
    b"\x1f\x8b\x08 compressed by somebody",
]


@dataclass(frozen=True)
class Expected:
    """What the run must come to, counted while the sample was made."""

    lines: int  #: read and archived
    alerts: int
    unknown: int
    undecodable: int


def write(path: Path) -> Expected:
    """Write the sample, the same every time."""
    chance = random.Random(11)
    begin = datetime(2026, 11, 21, 8, tzinfo=UTC)
    moments = [begin + timedelta(seconds=20 * number) for number in range(GOOD - REPEATS)]
    alerts = set(chance.sample(range(len(moments)), ALERTS))
    good = [
        chance.choice((apache, hdfs))(chance, moment, is_alert=number in alerts)
        for number, moment in enumerate(moments)
    ]
    # A log may say the same twice in a second: two lines, and two records.
    repeats = chance.sample([line for number, line in enumerate(good) if number not in alerts], REPEATS)
    lines = [line.encode() for line in good + repeats] + UNKNOWN + UNDECODABLE
    chance.shuffle(lines)
    path.write_bytes(b"\n".join(lines) + b"\n")
    return Expected(lines=GOOD, alerts=ALERTS, unknown=len(UNKNOWN), undecodable=len(UNDECODABLE))


def apache(chance: random.Random, moment: datetime, *, is_alert: bool) -> str:
    time = f"[{moment:%a %b %d %H:%M:%S %Y}]"
    if is_alert:
        client = f"192.0.2.{chance.randrange(1, 40)}"
        return f"{time} [error] [client {client}] no such page: /shop/{chance.randrange(900)}"
    return f"{time} [{chance.choice(['notice', 'warn'])}] worker child {chance.randrange(6000, 6030)} is ready again"


def hdfs(chance: random.Random, moment: datetime, *, is_alert: bool) -> str:
    block = f"blk_{chance.randrange(-60, 60) * 7_919 or 1}"
    head = f"{moment:%y%m%d %H%M%S} {chance.randrange(10, 99)}"
    if is_alert:
        return f"{head} {chance.choice(['ERROR', 'FATAL'])} dfs.SampleNode$Writer: the disk refused {block}"
    return f"{head} {chance.choice(['INFO', 'WARN'])} dfs.SampleNode: passed {block} on to 198.51.100.{chance.randrange(9)}"
