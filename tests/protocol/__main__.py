"""The long searches: `python -m tests.protocol [WORLDS]`. Exit code 1 when a promise is broken.

WORLDS: how many worlds one search may know, 1,000,000 by default, at which all of them are whole.
"""

from __future__ import annotations

import sys
import time

from tests.protocol.patience import never_stuck
from tests.protocol.rules import PRODUCT
from tests.protocol.search import search
from tests.protocol.setups import LONG


def main() -> int:
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    broken = 0
    for name, setup in LONG.items():
        begun = time.monotonic()
        found = search(setup, limit=limit, look=never_stuck(setup, PRODUCT))
        print(f"{name}: {found}, {time.monotonic() - begun:.0f} s", flush=True)
        if found.fault:
            broken += 1
            print(found.told(), flush=True)
    return 1 if broken else 0


sys.exit(main())
