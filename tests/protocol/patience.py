"""Is anybody ever stuck? What one who keeps asking comes to, from any entry that the search has reached."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.decisions.idempotency import Busy, ClaimRequest, Entry, Lapsed, Step
from tests.protocol.rules import Rules
from tests.protocol.world import KEY, NOW, STUCK, Setup, World

#: The engine's own least wait (`engine.endings`): a lease ends within a millisecond.
_LEAST = 0.01


def never_stuck(setup: Setup, rules: Rules) -> Callable[[World], str]:
    """A look at a world: nobody else does anything any more; the one who asks gets the claim, or an answer.

    It asks beside others first, alone when it is told to, and again when it is told that the lease ends. That
    must be no later than a lease from now, by the clock that is farthest ahead, and then it must be so. A claim
    of Powertools' that has no lease ends with its entry.
    """
    if STUCK in setup.unwatched:
        return lambda world: ""
    answers: dict[Entry | None, str] = {}

    def look(world: World) -> str:
        entry = world.entry
        if entry not in answers:
            answers[entry] = "" if _comes_through(setup, rules, entry) else STUCK
        return answers[entry]

    return look


def _comes_through(setup: Setup, rules: Rules, entry: Entry | None) -> bool:
    now, has_waited, is_alone = float(NOW), False, False
    # The lease may be bounded by the invocation's time, and a second more; or be the peer's whole time.
    latest = NOW + max(setup.lease, setup.remaining or 0) + max(map(abs, setup.skews)) + 1
    if setup.peers and entry is not None and entry.in_progress_expiration is None:
        latest = entry.expiration + 1
    while True:
        request = ClaimRequest(
            id=KEY, owner="z", lease_until=now + setup.lease, ttl=setup.ttl, record="z", is_alone=is_alone
        )
        step = rules.step_of(rules.found_by(request, entry, now), request)
        if entry is None or step in (Step.CREATE, Step.TAKE_OVER):
            return True
        if step is Step.RUN:
            return False  # not its own
        reply = rules.refusal(step, entry)
        if isinstance(reply, Lapsed):
            if is_alone:
                return False
            is_alone = True
        elif isinstance(reply, Busy):
            if has_waited or reply.until > latest:
                return False
            has_waited, now = True, reply.until + _LEAST
        else:
            return True
