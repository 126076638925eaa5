"""What is searched: by the tests, and in minutes by `python -m tests.protocol`."""

from __future__ import annotations

from tests.protocol.world import AFTER_DONE, ATTEMPTS, FOREIGN_END, NOT_DONE, OVERLAP, STUCK, Setup

SHORT = ("complete", "fail")

#: Whole searches, and the least number of worlds that each must come to: a search that finds less has lost something.
WHOLE = {
    "two owners": (Setup(), 33_000),
    "two owners, batched": (Setup(is_batched=True), 39_000),
    "two owners that ask beside others first": (Setup(asks_beside=True, endings=(*SHORT, "reject")), 19_000),
    "two owners, entries that expire": (Setup(ttl=3, endings=SHORT, renewals="never"), 28_000),
    "two owners, batched, entries that expire": (
        Setup(ttl=3, endings=SHORT, renewals="never", is_batched=True, loses_answers=False),
        29_000,
    ),
    "two owners of two records of a stream": (
        Setup(is_stream=True, endings=("complete", "reject"), renewals="never", loses_answers=False),
        37_000,
    ),
    "two owners, a second apart, that are killed": (
        Setup(lease=4, remaining=1, skews=(0, 1), renewals="may", endings=(*SHORT, "keep", "outage")),
        19_000,
    ),
    "two owners, two seconds apart, that renew in time": (
        Setup(lease=3, skews=(0, 2), renewals="in time", endings=SHORT),
        6_200,
    ),
}

#: Searches that end at a number of worlds, every one nearer than the last having been looked at.
BOUNDED = {
    "three owners": (Setup(slots=3, endings=SHORT, renewals="never"), 30_000),
    "three owners, batched, that renew": (Setup(slots=3, endings=SHORT, is_batched=True), 12_000),
    # The count of attempts has a test of its own: test_mended.py.
    "two owners, writes that land late": (
        Setup(
            late_copies=("create", "take", "end"),
            endings=(*SHORT, "reject"),
            renewals="never",
            unwatched=(ATTEMPTS,),
        ),
        20_000,
    ),
}

LONG = {
    "two owners of two records of a stream, everything": Setup(is_stream=True),
    "two owners, two attempts": Setup(cap=2),
    "two owners, longer leases": Setup(lease=3, endings=(*SHORT, "keep")),
    "two owners, a second apart, that are killed, batched": Setup(
        lease=4, remaining=2, skews=(1, 0), is_batched=True, endings=(*SHORT, "keep", "outage")
    ),
    "two owners, batched, writes that land late": Setup(
        late_copies=("create", "take", "end"), endings=SHORT, renewals="never", is_batched=True, unwatched=(ATTEMPTS,)
    ),
    "two of ours and one of Powertools', that do not raise": Setup(
        slots=3, peers=1, peers_fail=False, endings=("complete",), renewals="never"
    ).only(OVERLAP, AFTER_DONE, NOT_DONE, FOREIGN_END, STUCK),
    **{name: setup for name, (setup, _) in BOUNDED.items()},
}
