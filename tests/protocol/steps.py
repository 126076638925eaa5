"""Every step that can come next in a world, and what must hold in each.

A step is one atomic write to the entry, with the decision on its answer, or something that happens to a run:
its work ends, it dies, its answer is lost, a second passes. Between any two steps of a run come any steps of
the others. A broken promise is the world's `fault`; nothing follows it.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from pipeline.decisions.idempotency import (
    COMPLETED,
    IN_PROGRESS,
    AlreadyDone,
    Busy,
    Claimed,
    ClaimReply,
    ClaimRequest,
    Complete,
    Entry,
    Forget,
    Lapsed,
    Release,
    Renewal,
    Settlement,
    Step,
)
from tests.protocol.rules import Rules
from tests.protocol.world import (
    AFTER_DONE,
    ASKING,
    AT_WORK,
    ATTEMPTS,
    ENDING,
    FALSE_ANSWER,
    FOREIGN_END,
    FOREIGN_RENEWAL,
    KEY,
    LETTER,
    NEVER,
    NOT_DONE,
    NOW,
    OUTPUTS,
    OVERLAP,
    OWN_REFUSED,
    RUNNING,
    SLOTS,
    WRITING,
    Copy,
    Run,
    Setup,
    World,
    earlier,
    gone,
    in_order,
    tidy,
)

#: What happened, and the world after it. "{}" stands for the run.
Next = tuple[int | None, str, World]
OWED = "owed"


class Steps:
    """The steps of one setup under one set of rules."""

    def __init__(self, setup: Setup, rules: Rules) -> None:
        self.setup = setup
        self.rules = rules
        self._clocks = [NOW + skew for skew in setup.skews]
        self._shares_owners = not rules.has_token_per_run
        self._unwatched = frozenset(setup.unwatched)
        self._highest = setup.cap + 2  # more attempts than this mean the same
        # Asked for at each step, and always the same.
        self._floor = setup.floor
        self._is_symmetric = setup.is_symmetric

    def first(self) -> World:
        """No entry, and nobody there."""
        return World(runs=(None,) * self.setup.slots)

    def of(self, world: World) -> Iterator[Next]:
        """Every step, with the world as it comes: owners that are gone not yet numbered, nothing looked at."""
        if not world.fault:
            yield from self._steps(world)

    def looked_at(self, world: World) -> World:
        """The world in its own form; with its fault, if what must hold does not."""
        tidied = tidy(world)
        fault = tidied.fault or self.fault_of(tidied)
        return tidied if fault == tidied.fault else replace(tidied, fault=fault)

    def key(self, world: World) -> World:
        """The world that stands for all that are like this one."""
        return in_order(world) if self._is_symmetric and not self._shares_owners else world

    def fault_of(self, world: World) -> str:
        """What is wrong with a world as it stands."""
        at_work = [
            run
            for run, clock in zip(world.runs, self._clocks, strict=False)
            if run is not None and run.doing in AT_WORK and not run.is_lost and clock <= run.until
        ]
        if len(at_work) > 1 and self._broken(OVERLAP):
            return OVERLAP
        entry = world.entry
        if entry is None or entry.status != IN_PROGRESS:
            return ""
        fault = self._broken(ATTEMPTS) if entry.attempts != world.counted else ""
        return fault or (self._broken(OUTPUTS) if entry.outputs != world.owed else "")

    def _broken(self, promise: str) -> str:
        return "" if promise in self._unwatched else promise

    def _steps(self, world: World) -> Iterator[Next]:
        if self._may_tick(world):
            yield None, "a second passes", self._tick(world)
        entry = world.entry
        if entry is not None and self.setup.ttl < NEVER and entry.expiration < NOW:
            swept = replace(world, entry=None, holder=None, counted=0, owed=None)
            yield None, "the table deletes the expired entry", swept
        for index, copy in enumerate(world.copies):
            rest = replace(world, copies=world.copies[:index] + world.copies[index + 1 :])
            yield None, f"a late copy of {copy.owner}'s write ({copy.plan}) lands", self._land(rest, copy)
        may_come = True
        for slot, run in enumerate(world.runs):
            is_peer = slot >= self.setup.slots - self.setup.peers
            if run is None:
                if may_come:
                    yield from self._arrivals(world, slot, is_peer)
                may_come = not self._is_symmetric  # slots that are alike fill in order
                continue
            if self.setup.is_crashing:
                yield slot, "{} dies", self._left(world, slot)
            if run.is_peer:
                yield from self._peer(world, slot, run)
                continue
            if run.doing == ASKING:
                yield from self._ask(world, slot, run)
            elif run.doing == ENDING:
                yield from self._end(world, slot, run)
            else:
                yield from self._work(world, slot, run)
            if run.doing != ASKING:
                yield from self._renew(world, slot, run)

    # Time

    def _may_tick(self, world: World) -> bool:
        if self.setup.renewals != "in time":
            return True
        return all(
            run is None or run.is_lost or run.until - clock >= self.setup.lease
            for run, clock in zip(world.runs, self._clocks, strict=False)
        )

    def _tick(self, world: World) -> World:
        setup, floor, expires = self.setup, self._floor, self.setup.ttl < NEVER
        runs: list[Run | None] = []
        left: list[str] = []
        for run, clock in zip(world.runs, self._clocks, strict=False):
            if run is None:
                runs.append(None)
                continue
            kill = None if run.killed_at is None else run.killed_at - 1
            gives_up = run.doing == ASKING and not run.is_peer and not setup.asks_late and clock > run.until - 1
            if gives_up or (kill is not None and clock > kill):
                runs.append(None)
                left.append(run.owner)
                continue
            until = max(run.until - 1, floor) if run.until < NEVER else run.until
            runs.append(replace(run, until=until, killed_at=kill, seen=earlier(run.seen, floor, expires)))
        copies = tuple(
            replace(copy, until=max(copy.until - 1, floor), seen=earlier(copy.seen, floor, expires))
            for copy in world.copies
        )
        done = world.done if world.done is None or not expires else world.done - 1
        after = replace(
            world,
            entry=earlier(world.entry, floor, expires),
            runs=tuple(runs),
            copies=copies,
            done=None if done is not None and done < 0 else done,
        )
        for owner in left:
            after = gone(after, owner) if self.rules.has_token_per_run else after
            after = tidy(after)
        return after

    # Runs come and go

    def _arrivals(self, world: World, slot: int, is_peer: bool) -> Iterator[Next]:
        setup, clock = self.setup, self._clocks[slot]
        owner = SLOTS[slot] if self.rules.has_token_per_run else SLOTS[0]
        remaining = setup.remaining
        if is_peer:
            lease = setup.lease if remaining is None else remaining
            theirs = clock + lease if setup.peers_have_context else NEVER
            yield slot, "{} (Powertools) comes", self._with(world, slot, Run(owner, theirs, is_peer=True))
            return
        until = self.rules.lease_until(clock, setup.lease, remaining)
        run = Run(owner, until, killed_at=None if remaining is None else clock + remaining)
        for record in ("r", "s") if setup.is_stream else ("",):
            what = f"{{}} comes, for the record {record}" if record else "{} comes"
            for is_alone in (False, True) if setup.asks_beside else (True,):
                text = what if is_alone or not setup.asks_beside else f"{what}, beside others"
                yield slot, text, self._with(world, slot, replace(run, record=record, is_alone=is_alone))

    def _with(self, world: World, slot: int, run: Run | None, **changes: object) -> World:
        runs = (*world.runs[:slot], run, *world.runs[slot + 1 :])
        return replace(world, runs=runs, **changes)

    def _left(self, world: World, slot: int, **changes: object) -> World:
        run = world.runs[slot]
        assert run is not None
        after = self._with(world, slot, None, **changes)
        return gone(after, run.owner) if self.rules.has_token_per_run else after

    # Asking

    def _request(self, owner: str, until: float, record: str = "", *, is_alone: bool = True) -> ClaimRequest:
        return ClaimRequest(
            id=KEY, owner=owner, lease_until=until, ttl=self.setup.ttl, record=record, is_alone=is_alone
        )

    def _ask(self, world: World, slot: int, run: Run) -> Iterator[Next]:
        clock = self._clocks[slot]
        request = self._request(run.owner, run.until, run.record, is_alone=run.is_alone)
        if run.plan == "read":
            yield from self._decided(world, slot, run, request, clock)
            if not self.rules.reads_are_consistent and run.seen is not None:
                stale = replace(world, entry=run.seen)
                for index, text, after in self._decided(stale, slot, run, request, clock):
                    yield index, f"{text} (the read is stale)", replace(after, entry=world.entry)
            return
        written = self._written(world, run.plan, request, run.seen, clock)
        if written is None:
            if self.rules.refused_means_go:
                yield slot, "{}'s write is refused, and it goes on", self._go(world, slot, run, Claimed(1))
            elif self.setup.is_batched:  # such a refusal brings nothing back
                refused = replace(run, plan="read", seen=None)
                yield slot, "{}'s write is refused", self._with(world, slot, refused)
            else:
                yield from self._decided(world, slot, run, request, clock)
            return
        assert written.entry is not None
        what = "creates the entry" if run.plan == "create" else "takes the entry over"
        yield slot, f"{{}} {what}", self._go(written, slot, run, self.rules.claimed(written.entry))
        if self.setup.loses_answers:
            seen = None if self.rules.reads_are_consistent else written.entry
            plan = replace(run, plan="read", seen=seen) if self.setup.is_batched else run
            yield slot, f"{{}} {what}; the answer is lost", self._with(written, slot, plan)
        yield from self._copied(world, slot, run, Copy(run.plan, run.owner, run.until, run.seen), run.plan)

    def _written(
        self, world: World, plan: str, request: ClaimRequest, seen: Entry | None, clock: float
    ) -> World | None:
        """The world after a claim's conditional write; None when it is refused."""
        rules, entry = self.rules, world.entry
        if plan == "create":
            found = rules.found_by(request, entry, clock)
            is_taken = self.setup.is_batched and entry is not None  # INSERT knows no time
            if is_taken or not rules.may_create(found):
                return None
            new, counted, owed = rules.created(request, clock), 1, None
        elif plan == "replace":
            assert seen is not None
            if not rules.is_replaceable(entry, seen):
                return None
            new, counted, owed = rules.created(request, clock), 1, None
        else:
            assert seen is not None
            if not rules.is_unchanged(entry, seen):
                return None
            new = rules.taken_over(seen, request, clock)
            if entry is not None:  # UpdateItem: what it does not set stays as it is
                new = replace(
                    entry,
                    owner=new.owner,
                    expiration=new.expiration,
                    in_progress_expiration=new.in_progress_expiration,
                    attempts=new.attempts,
                    outputs=new.outputs if new.outputs != seen.outputs else entry.outputs,
                )
            new = replace(new, attempts=min(new.attempts, self._highest))
            counted, owed = min(world.counted + 1, self._highest), world.owed
        if plan != "take":
            world = replace(world, dead=())
        return replace(world, entry=new, holder=request.owner, counted=counted, owed=owed)

    def _decided(self, world: World, slot: int, run: Run, request: ClaimRequest, clock: float) -> Iterator[Next]:
        """What the run does about the entry that it found."""
        rules, entry = self.rules, world.entry
        step = rules.step_of(rules.found_by(request, entry, clock), request)
        if entry is None or step is Step.CREATE:
            plan = "replace" if self.setup.is_batched and entry is not None else "create"
            asking = replace(run, plan=plan, seen=entry if plan == "replace" else None)
            yield slot, "{} finds that there is nothing that counts", self._with(world, slot, asking)
        elif step is Step.TAKE_OVER:
            asking = replace(run, plan="take", seen=entry)
            yield slot, "{} finds a claim to take over", self._with(world, slot, asking)
        elif step is Step.RUN:
            yield slot, "{} finds its own claim", self._go(world, slot, run, rules.claimed(entry))
        else:
            reply = rules.refusal(step, entry)
            fault = self._fault_of_refusal(world, run, reply)
            yield slot, f"{{}} is told {type(reply).__name__}", self._left(world, slot, fault=fault)

    def _fault_of_refusal(self, world: World, run: Run, reply: ClaimReply) -> str:
        if isinstance(reply, AlreadyDone) and not world.was_done and run.record not in world.dead:
            return self._broken(NOT_DONE)
        if isinstance(reply, (Busy, Lapsed)) and world.holder == run.owner:
            return self._broken(OWN_REFUSED)
        return ""

    def _go(self, world: World, slot: int, run: Run, reply: Claimed) -> World:
        """The claim is held, as far as the run knows."""
        if world.done is not None and self._broken(AFTER_DONE):
            return replace(world, fault=AFTER_DONE)
        doing = RUNNING
        if reply.attempt > self.setup.cap:
            doing = LETTER
        elif reply.outputs is not None:
            doing = WRITING
        going = replace(
            run,
            doing=doing,
            plan="",
            seen=None,
            attempt=reply.attempt,
            outputs=reply.outputs,
            rejected=reply.rejected,
        )
        return self._with(world, slot, going)

    def _copied(self, world: World, slot: int, run: Run, copy: Copy, kind: str) -> Iterator[Next]:
        if kind in self.setup.late_copies and not world.copies:
            waiting = replace(world, copies=(copy,))
            yield slot, f"{{}} sends ({kind}), hears nothing, and will send again", waiting

    # Working

    def _work(self, world: World, slot: int, run: Run) -> Iterator[Next]:
        endings = self.setup.endings
        if run.doing == LETTER:
            # The letter is written; only then the claim ends.
            yield slot, "{}'s dead letter is written", self._ends(world, slot, run, "reject")
            if "keep" in endings:
                yield slot, "{}'s dead letter cannot be written", self._ends(world, slot, run, "letter failed")
            return
        if run.doing == RUNNING:
            after_run = self._ends(world, slot, run, "complete") if self.rules.completes_before_sinks else None
            ran = after_run or self._with(world, slot, replace(run, doing=WRITING))
            yield slot, "{}'s handler has run", ran
            if "fail" in endings:
                yield slot, "{}'s handler fails", self._ends(world, slot, run, "fail")
            if "outage" in endings:
                yield slot, "{}'s handler cannot begin, for an outage", self._ends(world, slot, run, "outage")
            if "reject" in endings:
                yield slot, "{}'s handler rejects the record", self._with(world, slot, replace(run, doing=LETTER))
            return
        if run.is_lost:
            yield slot, "{} has lost its claim, and writes to no sink", self._left(world, slot)
            return
        accepted = replace(run, has_accepted=True)
        yield slot, "{}'s sinks accept", self._ends(world, slot, accepted, "complete")
        if "keep" in endings:
            yield slot, "{}'s sinks are unavailable", self._ends(world, slot, run, "keep")

    def _ends(self, world: World, slot: int, run: Run, how: str) -> World:
        ttl, outputs, counts = self.setup.ttl, None, 1
        rejected = run.rejected
        ending: Settlement
        if how == "complete":
            ending = Complete(id=KEY, owner=run.owner, ttl=ttl)
        elif how == "reject" and not self.setup.is_stream:
            ending = Forget(id=KEY, owner=run.owner, ttl=ttl)
        else:
            attempts = run.attempt
            if how in ("outage", "keep", "letter failed"):
                attempts, counts = max(run.attempt - 1, 0), 0
            if how == "keep":
                outputs = OWED
            if how == "letter failed":
                outputs = run.outputs
            if how == "reject":
                attempts, counts, rejected = 0, -1, (*(name for name in run.rejected if name != run.record), run.record)
            rejected = tuple(sorted(rejected))
            ending = Release(id=KEY, owner=run.owner, ttl=ttl, attempts=attempts, outputs=outputs, rejected=rejected)
        dead = world.dead
        if how == "reject" and self.setup.is_stream:
            dead = tuple(sorted({*dead, run.record}))
        # What the run was given it needs no more.
        ended = replace(run, doing=ENDING, ending=ending, counts=counts, attempt=0, outputs=None, rejected=())
        return self._with(world, slot, ended, dead=dead)

    # Ending

    def _end(self, world: World, slot: int, run: Run) -> Iterator[Next]:
        assert run.ending is not None
        after = self._settled(world, run.ending, run.counts, self._clocks[slot], has_accepted=run.has_accepted)
        what = type(run.ending).__name__.lower()
        if after is None:
            fault = ""
            if self.rules.is_done(run.ending, world.entry) and not run.was_written:
                is_absent = world.entry is None and isinstance(run.ending, Forget)
                fault = "" if is_absent else self._broken(FALSE_ANSWER)
            yield slot, f"{{}}'s {what} is refused, or was written before", self._left(world, slot, fault=fault)
            return
        yield slot, f"{{}}'s {what} is written", self._left(after, slot)
        if self.setup.loses_answers:
            again = replace(run, was_written=True)
            yield slot, f"{{}}'s {what} is written; the answer is lost", self._with(after, slot, again)
        copy = Copy("end", run.owner, ending=run.ending, counts=run.counts)
        if not run.was_written:
            yield from self._copied(world, slot, run, copy, "end")

    def _settled(
        self, world: World, ending: Settlement, counts: int, clock: float, *, has_accepted: bool
    ) -> World | None:
        """The world after a claim was ended; None when that is refused."""
        entry, owner = world.entry, ending.owner
        if entry is None or not self.rules.is_held(entry, owner):
            return None
        if world.holder != owner and self._broken(FOREIGN_END):
            return replace(world, fault=FOREIGN_END)
        if isinstance(ending, Complete):
            return replace(
                world,
                entry=self.rules.settled(entry, ending, clock),
                holder=None,
                counted=0,
                owed=None,
                done=self.setup.ttl,
                was_done=world.was_done or has_accepted,
            )
        if isinstance(ending, Release):
            counted = 0 if counts < 0 else max(world.counted - 1 + counts, 0)
            new = self.rules.settled(entry, ending, clock)
            return replace(world, entry=new, holder=None, counted=counted, owed=ending.outputs)
        return replace(world, entry=None, holder=None, counted=0, owed=None)

    def _renew(self, world: World, slot: int, run: Run) -> Iterator[Next]:
        if self.setup.renewals == "never" or run.is_lost:
            return
        until: float = self._clocks[slot] + self.setup.lease
        if run.killed_at is not None:
            until = self.rules.lease_until(self._clocks[slot], self.setup.lease, run.killed_at - self._clocks[slot])
        if until <= run.until:
            return
        after = self._renewed(world, run.owner, until)
        if after is None:
            if run.doing != ENDING:
                yield slot, "{}'s renewal is refused", self._with(world, slot, replace(run, is_lost=True))
            return
        yield slot, "{} renews", self._with(after, slot, replace(run, until=until))
        yield from self._copied(after, slot, run, Copy("renew", run.owner, until), "renew")

    def _renewed(self, world: World, owner: str, until: float) -> World | None:
        entry = world.entry
        if entry is None or not self.rules.may_renew(entry, owner):
            return None
        if world.holder != owner and self._broken(FOREIGN_RENEWAL):
            return replace(world, fault=FOREIGN_RENEWAL)
        renewal = Renewal(id=KEY, owner=owner, lease_until=until, ttl=self.setup.ttl)
        return replace(world, entry=self.rules.renewed(entry, renewal, NOW))

    def _land(self, world: World, copy: Copy) -> World:
        if copy.plan == "renew":
            after = self._renewed(world, copy.owner, copy.until)
        elif copy.plan == "end":
            assert copy.ending is not None
            accepted = isinstance(copy.ending, Complete)
            after = self._settled(world, copy.ending, copy.counts, NOW, has_accepted=accepted)
        else:
            request = self._request(copy.owner, copy.until)
            after = self._written(world, copy.plan, request, copy.seen, NOW)
        if after is None:
            return world
        if copy.plan != "end":
            return after
        runs = tuple(run and (replace(run, was_written=True) if run.owner == copy.owner else run) for run in after.runs)
        return replace(after, runs=runs)

    # Powertools

    def _peer(self, world: World, slot: int, run: Run) -> Iterator[Next]:
        """A run of Powertools: PutItem where there is nothing that counts; then unconditional writes."""
        clock, entry = self._clocks[slot], world.entry
        if run.doing == ASKING:
            lease = entry.in_progress_expiration if entry is not None and entry.status == IN_PROGRESS else None
            is_free = entry is None or entry.expiration < clock or (lease is not None and lease < clock * 1000)
            if not is_free:
                yield slot, "{} is told that somebody is at it, or was", self._left(world, slot)
                return
            put = Entry(
                id=KEY,
                status=IN_PROGRESS,
                expiration=clock + self.setup.ttl,
                in_progress_expiration=int(run.until * 1000) if self.setup.peers_have_context else None,
            )
            if world.done is not None and self._broken(AFTER_DONE):
                yield slot, "{} begins", replace(world, fault=AFTER_DONE)
                return
            begun = self._with(world, slot, replace(run, doing=RUNNING), entry=put, holder=run.owner)
            if entry is None or entry.expiration < clock:
                begun = replace(begun, counted=0, owed=None)
            yield slot, "{} puts its own entry in the place of what is there", begun
            return
        fields = {"id": KEY, "status": COMPLETED, "expiration": clock + self.setup.ttl, "data": '"theirs"'}
        done = Entry(**fields) if entry is None else replace(entry, **fields)  # type: ignore[arg-type]
        yield (
            slot,
            "{} completes, whoever holds the entry",
            self._left(world, slot, entry=done, holder=None, owed=None, done=self.setup.ttl, was_done=True),
        )
        if self.setup.peers_fail:
            yield (
                slot,
                "{}'s function raises, and it deletes the entry, whoever's it is",
                self._left(world, slot, entry=None, holder=None, counted=0, owed=None),
            )
