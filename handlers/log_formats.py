"""The lines of two logs as values: Apache httpd's error log (the form up to 2.2) and Hadoop's HDFS log (log4j)."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

#: Characters, without the line's end. Our own limit: a record of a stream may be larger, a log line is not.
LONGEST = 65_536
#: What a producer uses for lines that `parse` refuses.
UNPARSABLE = "unparsable"
#: Error and worse, in the words of Apache (`LogLevel`) and of log4j.
ALERTS = frozenset({"emerg", "alert", "crit", "fatal", "error"})

_KNOWN = (
    "known formats: apache-error, '[Tue Feb 03 10:20:30 2009] [error] [client 192.0.2.1] text' (the client may be "
    "missing); hdfs, '090203 102030 17 INFO dfs.DataNode: text'"
)
# Every repetition has an upper limit or ends the pattern, and none stands in another: matching takes linear time.
_APACHE = re.compile(r"\[([A-Z][a-z]{2} [A-Z][a-z]{2} [0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2} [0-9]{4})\] ")
_APACHE_REST = re.compile(
    r"\[(emerg|alert|crit|error|warn|notice|info|debug)\] ?(?:\[client ([0-9A-Za-z.:-]{1,255})\] ?)?(.*)"
)
_HDFS = re.compile(r"([0-9]{6} [0-9]{6}) ")
_HDFS_REST = re.compile(r"[0-9]{1,19} (FATAL|ERROR|WARN|INFO|DEBUG|TRACE) ([0-9A-Za-z_.$]{1,255}): ?(.*)")
_BLOCK = re.compile(r"\bblk_-?[0-9]{1,19}(?![0-9])")  # a block's id is a signed number of 64 bits
_CHILD = re.compile(r"\bchild [0-9]{1,10}(?![0-9])")


@dataclass(frozen=True, slots=True)
class Entry:
    format: Literal["apache-error", "hdfs"]
    at: str  #: ISO 8601, to the second; neither log names its zone: UTC is assumed
    level: str  #: the log's own word in lower case: "notice", "error", "warn", "info"
    source: str  #: HDFS: the component; Apache: the client's address, or "httpd" where no client is named
    message: str
    refers_to: tuple[str, ...]  #: each once, as first named: HDFS blocks ("blk_-12"), Apache's children ("child 6725")


class UnknownFormat(ValueError):
    """A line in no known format. The message says where it departs from one, and quotes nothing of the line."""


def parse(line: str) -> Entry:
    """Read one line, with or without its line end; `UnknownFormat` for any other text, or one longer than `LONGEST`."""
    line = line.rstrip("\r\n")
    if len(line) > LONGEST:
        raise UnknownFormat(f"the line has {len(line):,} characters: send at most {LONGEST:,}; {_KNOWN}")
    if time := _APACHE.match(line):
        at, level, client, message = _parts(line, time, "%a %b %d %H:%M:%S %Y", _APACHE_REST)
        # A client's line may quote what the client sent, so that a child in it is none of ours.
        children = [] if client else _CHILD.findall(message)
        return Entry("apache-error", at, level, client or "httpd", message, tuple(dict.fromkeys(children)))
    if time := _HDFS.match(line):
        at, level, component, message = _parts(line, time, "%y%m%d %H%M%S", _HDFS_REST)
        return Entry("hdfs", at, level.lower(), component, message, tuple(dict.fromkeys(_BLOCK.findall(message))))
    raise UnknownFormat(f"at character 1: no format's time stands there; {_KNOWN}")


def is_alert(entry: Entry) -> bool:
    """Whether somebody must look: error and worse. Not a warning: HDFS's are of one block that one reader did not get."""
    return entry.level in ALERTS


def partition_key(line: str) -> str:
    """What must stay in order with this line: its first block or child, else its component, client or "httpd".

    At most 255 characters (Kinesis allows 256); `UNPARSABLE` for a line that `parse` refuses.
    """
    try:
        entry = parse(line)
    except UnknownFormat:
        return UNPARSABLE
    return entry.refers_to[0] if entry.refers_to else entry.source


def _parts(line: str, time: re.Match[str], form: str, rest: re.Pattern[str]) -> tuple[str, str, str, str]:
    """The time, and the three groups of what follows it: empty where a line has none."""
    try:
        at = datetime.strptime(time[1], form).replace(tzinfo=UTC).isoformat()
    except ValueError:  # its own message quotes the time
        raise UnknownFormat(f"at character 1: a time that no calendar has; {_KNOWN}") from None
    if not (found := rest.fullmatch(line, time.end())):
        raise UnknownFormat(f"at character {time.end() + 1}: after the time, nothing of that format; {_KNOWN}")
    level, source, message = found.groups("")
    return at, level, source, message
