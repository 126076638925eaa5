"""A stream's handler, killed at seeded points and started again without feeding: nothing is lost, done lines stay done."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import signal
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import pytest

from handlers.log_formats import is_alert, parse
from handlers.logs import logs
from pipeline.decisions.idempotency import COMPLETED, Entry
from pipeline.decisions.keys import entry_id, key_text
from pipeline.emulator import embedded
from pipeline.stores.items import entry_of
from pipeline.testing import local
from tests.simulation.victim import POINTS, Idle, run
from tests.support import log_lines
from tests.support.log_lines import DAMAGED, FILES, REAL, Line, Version

#: Real lines: four runs that are killed five times each, 20 points. Otherwise one, killed once at each point.
#: It begins with the point that leaves most to be repeated.
_ROUNDS, _KILLS, _BEGIN = (4, 5, 0) if REAL else (1, len(POINTS), POINTS.index("between sink and completion"))
#: The handler's own batches need thousands of lines.
_BATCH_SIZE, _SAMPLE = (500, 0) if REAL else (8, 24)
#: The count at which a point kills, at most: each is reached so often while there is work.
_MOST = dict(zip(POINTS, (8, 200, 20, 6, 12, 6) if REAL else (2, 6, 2, 2, 3, 3), strict=True))
#: Longer than any lease: what the dead process held has lapsed.
_LONG = 600.0


@pytest.mark.timeout(1_500 if REAL else 120)  # processes, one after the other
@pytest.mark.parametrize("seed", range(_ROUNDS))
async def test_a_stream_killed_and_started_again_loses_nothing_and_repeats_only_what_was_in_work(seed: int) -> None:
    chance = random.Random(seed)
    sent = log_lines.with_damaged([line for file in FILES for line in log_lines.lines_of(file, _SAMPLE)])
    server = await asyncio.to_thread(embedded.lease)
    try:
        url = server.endpoint_url
        await feed(url, sent)
        in_work: Counter[str] = Counter()  #: the ids of lines, and at how many kills each was in work
        skipped, done = 0.0, 0
        for kill in range(_KILLS):
            point = POINTS[(_BEGIN + seed * _KILLS + kill) % len(POINTS)]
            code, _ = await run("logs", server, skipped, point, chance.randint(1, _MOST[point]), _BATCH_SIZE)
            assert code == -signal.SIGKILL, f"{point} was never reached"
            skipped = await asyncio.to_thread(server.advance, _LONG)
            held, done = claims(url)
            print(f"seed {seed}: killed {point}: {len(held)} lines were in work, {done} were done")
            in_work.update(held)
        code, output = await run("logs", server, skipped, "never", 1, _BATCH_SIZE)
        assert code == 0, "a stream's run ends"
        held_at_last, done_at_last = claims(url)
        stream, archive = log_lines.in_stream(url), log_lines.in_archive(url)
        alerts, letters = server.peek("log-alerts"), server.peek("log-lines-stream-dlq")
    finally:
        embedded.give_back(server)

    assert sorted(line.data for line in stream.values()) == sorted(sent)
    report = json.loads(output)
    assert (report["records"], report["duplicates"], report["exhausted"]) == (len(sent), done, 0)
    assert done > 0, "completed lines came back, as duplicates"
    assert (held_at_last, done_at_last) == (set(), len(sent))

    by_hash = {entry_id("logs.archive", key_text(name)): name for name in stream}
    in_work = Counter({by_hash[entry]: times for entry, times in in_work.items()})
    good = {name: line for name, line in stream.items() if line.data not in DAMAGED}
    copies = check_archive(good, archive, in_work)
    repeated_alerts = check_alerts(good, alerts, in_work)
    check_letters({name: stream[name] for name in stream.keys() - good.keys()}, letters, in_work)
    together, decided, undecided = check_order_of_objects(good, archive)
    put = Counter(line["id"] for version in archive for line in version.lines)
    print(
        f"seed {seed}: {len(sent)} lines, {len(in_work)} in work at {_KILLS} kills, {len(archive)} PUTs; "
        f"{sum(times > 1 for times in put.values())} lines were put more than once, and "
        f"{sum(times > 1 for times in copies.values())} stand more than once, at most {max(copies.values())} times; "
        f"{len(alerts)} alerts, {repeated_alerts} of them repeats; {len(letters)} letters for {len(DAMAGED)} damaged; "
        f"neighbours of one key: {together} in one object, {decided} in order across objects, {undecided} undecidable"
    )


async def feed(endpoint_url: str, sent: Sequence[bytes]) -> None:
    """Make the resources, let the bucket keep what is put over, and send everything once."""
    async with local(logs, endpoint_url=endpoint_url, runtime=lambda *_: Idle()) as env:
        await env.client("s3").put_bucket_versioning(
            Bucket="log-archive", VersioningConfiguration={"Status": "Enabled"}
        )
        await env.send("log-lines", sent, key=log_lines.key_of)


def claims(endpoint_url: str) -> tuple[set[str], int]:
    """The entries that are held, and how many are of lines that are settled.

    A dead process's last requests may still be on their way through the server: it looks until nothing changes.
    """
    before: list[Entry] | None = None
    while (found := entries(endpoint_url)) != before:
        before = found
    held = {entry.id for entry in found if entry.status != COMPLETED and entry.in_progress_expiration}
    done = [entry for entry in found if entry.status == COMPLETED or entry.rejected]
    return held, len(done)


def entries(endpoint_url: str) -> list[Entry]:
    with log_lines.client("dynamodb", endpoint_url) as dynamodb:
        pages = dynamodb.get_paginator("scan").paginate(TableName="logs-idempotency")
        found = [entry_of(item) for page in pages for item in page["Items"]]
    return sorted((entry for entry in found if entry), key=lambda entry: entry.id)


def check_archive(good: dict[str, Line], archive: Sequence[Version], in_work: Counter[str]) -> Counter[str]:
    """Each line at least once, a repeat only of what was in work at a kill, and all of its copies the same."""
    copies: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for version in archive:
        for line in version.lines:
            copies[line["id"]].append(line)
    assert copies.keys() == good.keys()
    for name, found in copies.items():
        assert all(line == found[0] for line in found)
        assert (found[0]["key"], found[0]["entry"]) == (good[name].key, entry_of_line(good[name]))
    # Put over or not: what was in work at n kills was put at most n + 1 times.
    assert not {name: len(found) for name, found in copies.items() if len(found) > 1 + in_work[name]}
    log_lines.assert_in_order(archive, good)
    return Counter(line["id"] for version in archive if version.is_latest for line in version.lines)


def check_alerts(good: dict[str, Line], alerts: Sequence[dict[str, Any]], in_work: Counter[str]) -> int:
    """The same of the alerts; returns how many repeats there are."""
    bodies = [json.loads(alert["body"]) for alert in alerts]
    times = Counter(body["id"] for body in bodies)
    wanted = {name for name, line in good.items() if is_alert(parse(line.data.decode()))}
    assert times.keys() == wanted
    assert wanted
    assert all(body == {"id": body["id"], **entry_of_line(good[body["id"]])} for body in bodies)
    assert not {name: count for name, count in times.items() if count > 1 + in_work[name]}
    ids: dict[str, set[str]] = defaultdict(set)
    for body, alert in zip(bodies, alerts, strict=True):
        ids[body["id"]].add(json.loads(alert["attributes"]["pipeline"])["id"])
    assert all(len(found) == 1 for found in ids.values()), "a repeat has the same id"
    return times.total() - len(wanted)


def check_letters(damaged: dict[str, Line], letters: Sequence[dict[str, Any]], in_work: Counter[str]) -> None:
    """Each damaged line has a letter with its bytes and its cause; a second one only if it was in work at a kill."""
    numbers = {(line.key, str(line.number), name.split("/")[1].split(":")[0]): name for name, line in damaged.items()}
    times: Counter[str] = Counter()
    for letter in letters:
        told = letter["attributes"]
        name = numbers[told["partition_key"], told["sequence_number"], told["shard_id"]]
        data = base64.b64decode(letter["body"])
        assert data == damaged[name].data
        assert json.loads(told["pipeline_cause"])["cause"].startswith(DAMAGED[data])
        times[name] += 1
    assert times.keys() == damaged.keys()
    assert not {name: count for name, count in times.items() if count > 1 + in_work[name]}


def check_order_of_objects(good: dict[str, Line], archive: Sequence[Version]) -> tuple[int, int, int]:
    """Where a line first stands is not written before where its key's line before it first stands.

    S3 tells the second of a write, so neighbours that were first written within one second, in two objects, are only
    counted. The bucket keeps what was put over; otherwise a repeat of an object would hide when it was first there.
    """
    first: dict[str, Version] = {}
    for version in sorted(archive, key=lambda version: version.modified):
        for archived in version.lines:
            first.setdefault(archived["id"], version)
    keys: dict[str, list[Line]] = defaultdict(list)
    for line in sorted(good.values(), key=lambda line: line.number):
        keys[line.key].append(line)
    together = decided = undecided = 0
    for some in keys.values():
        for earlier, later in pairwise(some):
            one, other = first[earlier.id], first[later.id]
            assert one.modified <= other.modified, f"{later.id} was archived before {earlier.id}"
            together += one is other
            decided += one.modified < other.modified
            undecided += one is not other and one.modified == other.modified
    return together, decided, undecided


def entry_of_line(line: Line) -> dict[str, Any]:
    entry = asdict(parse(line.data.decode()))
    return {**entry, "refers_to": list(entry["refers_to"])}
