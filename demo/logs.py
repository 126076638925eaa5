"""Log lines from a stream: archived by the hour, with alerts for those that somebody must look at."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from demo import local, logs_sample


def run(folder: Path) -> bool:
    """Feed the sample; true when the summary says what was counted while the sample was made."""
    feed = folder / "lines.log"
    expected = logs_sample.write(feed)
    unreadable = expected.unknown + expected.undecodable
    print(f"Feeding {expected.lines + unreadable} log lines to the stream 'log-lines' on an embedded AWS server:")
    print(f"{expected.lines} good, {expected.alerts} of them alerts, and {unreadable} that cannot be read.\n")
    result = local.run("handlers.logs", "log-lines", feed)
    archive = result.handlers["archive"]
    causes = causes_in(result)
    rows = [
        ("lines read", archive["succeeded"], expected.lines),
        ("lines in the archive 'log-archive'", archive["outputs"].get("log-archive", 0), expected.lines),
        ("alerts on the queue 'log-alerts'", archive["outputs"].get("log-alerts", 0), expected.alerts),
        ("rejected, with their cause, to the dead-letter queue", archive["dead_lettered"], unreadable),
        ("... because they are in no known format", causes["UnknownFormat"], expected.unknown),
        ("... because they are no text (UTF-8)", causes["PayloadError"], expected.undecodable),
        ("records that ran out of attempts", result.summary["exhausted"], 0),
    ]
    return local.adds_up(rows, result)


def causes_in(result: local.Result) -> Counter[str]:
    """How many records were rejected for each kind of error; a record that was delivered again counts once."""
    causes = {line["record_id"]: line["error"] for line in result.log if line.get("message") == "record.rejected"}
    return Counter(causes.values())
