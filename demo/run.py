"""The main job on this machine: webhooks from a queue, recorded, routed, and put in order.

It feeds a made-up sample to `pipeline dev`, waits until every queue is empty, and checks the
summary against what was counted while the sample was made.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from demo import sample  # noqa: E402 - the checkout is not installed


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        feed, summary, log = (Path(folder) / name for name in ("webhooks.ndjson", "summary.json", "log"))
        expected = sample.write(feed)
        total = expected.succeeded + expected.duplicates + expected.rejected
        print(f"Feeding {total} webhook deliveries to the queue 'github-webhooks' on an embedded AWS server:")
        print(
            f"{expected.succeeded} good, {expected.duplicates} repeats, {expected.rejected} that cannot be handled.\n"
        )
        command = [
            sys.executable, "-m", "pipeline", "dev", "handlers.webhooks",
            "--feed", f"github-webhooks={feed}",
            "--until-drained", "--time-scale", "20", "--summary", str(summary),
        ]  # fmt: skip
        with log.open("w") as lines:
            status = subprocess.run(command, cwd=ROOT, stderr=lines, check=False).returncode
        if status not in (0, 1) or not summary.exists():
            print(log.read_text()[-3000:], file=sys.stderr)
            return status or 1
        return check(json.loads(summary.read_text()), expected)


def check(summary: dict[str, Any], expected: sample.Expected) -> int:
    record, timeline = summary["handlers"]["record"], summary["handlers"]["timeline"]
    rows = [
        ("deliveries recorded", record["succeeded"], expected.succeeded),
        ("repeats skipped", record["duplicates"], expected.duplicates),
        ("rejected, with their cause, to the dead-letter queue", record["dead_lettered"], expected.rejected),
        ("records that ran out of attempts", summary["exhausted"], 0),
        ("rows in 'webhook-deliveries'", record["outputs"]["webhook-deliveries"], expected.succeeded),
        ("events on the bus 'webhook-events'", record["outputs"]["webhook-events"], expected.succeeded),
        ("moments through 'repository-timeline.fifo', in order", timeline["succeeded"], expected.moments),
    ]
    print()
    for name, found, wanted in rows:
        print(f"  {'ok' if found == wanted else 'NO':<3} {found:>4} of {wanted:>4}  {name}")
    adds_up = all(found == wanted for _, found, wanted in rows) and all(
        one["records"] == one["succeeded"] + one["duplicates"] + one["rejected"] + one["exhausted"]
        for one in (record, timeline)
    )
    print("\nThe summary adds up." if adds_up else "\nThe summary does NOT add up.")
    return 0 if adds_up else 1


if __name__ == "__main__":
    raise SystemExit(main())
