"""The main jobs on this machine: webhooks from a queue, and log lines from a stream.

Each feeds a made-up sample to `pipeline dev`, waits until every source is empty, and checks the
summary against what was counted while the sample was made.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from time import monotonic

sys.path.insert(0, str(Path(__file__).parent.parent))

from demo import logs, webhooks  # the checkout is not installed


def main() -> int:
    begin = monotonic()
    results: list[bool] = []
    with tempfile.TemporaryDirectory() as folder:
        for job in (webhooks, logs):
            started = monotonic()
            results.append(job.run(Path(folder)))
            print(f"That took {monotonic() - started:.0f} s.\n")
    print(f"{'All' if all(results) else 'NOT all'} summaries add up; {monotonic() - begin:.0f} s in all.")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
