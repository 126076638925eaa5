"""The store over Valkey and Redis: what only a server, and the way to it, can get wrong."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import logging
import random
import shutil
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes as digests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from pipeline import Claim, Pipeline, sinks, sources, stores
from pipeline.checks import refuse_shared_entries
from pipeline.decisions.idempotency import (
    Advance,
    AlreadyDone,
    Busy,
    Claimed,
    ClaimRequest,
    Complete,
    Entry,
    Forget,
    Release,
    Renewal,
)
from pipeline.deploy.template.assembly import template
from pipeline.emulator.local import Local
from pipeline.engine.environment import ProcessEnvironment
from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.stores import hashes, redis_server
from pipeline.stores.protocol import taken_over
from pipeline.stores.redis import _Answer
from pipeline.stores.redis_server import address_of
from pipeline.testing import invoke
from tests.support import redis_server as servers
from tests.support.redis_server import RedisServer, Way

TTL = 1_000
LEASE = 60.0
SECRET = "p%40ss-w0rd"  # in a URL; the password is p@ss-w0rd
PASSWORD = "p@ss-w0rd"


@dataclass
class Asker:
    """A store in one environment."""

    store: stores.Redis
    environment: ProcessEnvironment
    clock: Any

    def request(self, owner: str, key: str = "k", *, is_alone: bool = True) -> ClaimRequest:
        return ClaimRequest(id=key, owner=owner, lease_until=self.clock.now() + LEASE, ttl=TTL, is_alone=is_alone)

    async def claim(self, owner: str, key: str = "k") -> Any:
        (reply,) = await self.store.claim([self.request(owner, key)], self.environment)
        return reply

    async def complete(self, owner: str, key: str = "k") -> Any:
        (reply,) = await self.store.settle([Complete(id=key, owner=owner, ttl=TTL)], self.environment)
        return reply

    async def look(self, key: str = "k") -> Any:
        (found,) = await self.store.look([key], self.environment)
        return found


@pytest.fixture(params=["valkey", "redis"])
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of the test's own: the development tools' Valkey, and Redis where this machine has one."""
    program = servers.program() if request.param == "valkey" else shutil.which("redis-server")
    if program is None:
        pytest.skip("no redis-server on the PATH; the tests run over Valkey")
    made = RedisServer(program)
    made.start()
    yield made
    made.kill()


@pytest.fixture
def asker(server: RedisServer, environment: ProcessEnvironment, clock: Any) -> Asker:
    return Asker(stores.Redis(server.url), environment, clock)


@pytest.fixture
async def way(server: RedisServer) -> AsyncIterator[Way]:
    async with servers.way_to(server) as made:
        yield made


@pytest.fixture
async def far(way: Way, environment: ProcessEnvironment, clock: Any) -> Asker:
    """An asker whose way can be cut; it is connected."""
    made = Asker(stores.Redis(f"redis://127.0.0.1:{way.port}"), environment, clock)
    await made.store.create(environment)
    return made


# The server.


async def test_a_server_that_dies_is_an_outage_and_the_next_one_is_found(asker: Asker, server: RedisServer) -> None:
    assert await asker.claim("a") == Claimed(1)
    server.kill()
    reply = await asker.claim("b")
    assert isinstance(reply, StoreUnavailable)
    assert f"127.0.0.1:{server.port}/0" in str(reply)
    assert isinstance(await asker.complete("a"), StoreUnavailable)
    assert isinstance(await asker.look(), StoreUnavailable)
    server.start()
    assert await asker.claim("b") == Claimed(1), "a server without persistence comes back empty"


async def test_a_server_that_forgets_the_script_is_told_again(asker: Asker, server: RedisServer) -> None:
    await asker.claim("a")
    assert server.ask("SCRIPT", "FLUSH") == b"+OK\r\n"
    requests = [asker.request("a", f"key-{n}") for n in range(20)]
    assert await asker.store.claim(requests, asker.environment) == [Claimed(1)] * 20
    assert server.ask("SCRIPT", "FLUSH") == b"+OK\r\n"
    assert await asker.complete("a") is True


@pytest.mark.parametrize("command", ["claim", "complete"])
async def test_a_key_that_holds_something_else_fails_only_its_own_position(
    asker: Asker, server: RedisServer, command: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("SET", "pipeline:key-1", "colour=red")
    if command == "claim":
        requests = [asker.request("a", f"key-{n}") for n in range(3)]
        replies: Any = await asker.store.claim(requests, asker.environment)
    else:
        await asker.claim("a", "key-0")
        await asker.claim("a", "key-2")
        ends = [Complete(id=f"key-{n}", owner="a", ttl=TTL) for n in range(3)]
        replies = await asker.store.settle(ends, asker.environment)
    assert isinstance(replies[1], StoreUnavailable)
    assert "WRONGTYPE" in str(replies[1])
    assert "red" not in str(replies[1])
    assert [replies[0], replies[2]] == ([Claimed(1)] * 2 if command == "claim" else [True, True])


async def test_a_hash_that_is_no_entry_is_an_outage_and_not_a_go(asker: Asker, server: RedisServer) -> None:
    server.ask("HSET", "pipeline:k", "colour", "red")
    for reply in (await asker.claim("a"), await asker.look(), await asker.complete("a")):
        assert isinstance(reply, StoreUnavailable)
        assert "red" not in str(reply)
    server.ask("HSET", "pipeline:j", "status", "INPROGRESS", "expiration", "secret-text")
    reply = await asker.claim("a", "j")
    assert isinstance(reply, StoreUnavailable)
    assert "secret-text" not in str(reply)


@pytest.mark.parametrize(
    ("commands", "code"),
    [
        ([("REPLICAOF", "127.0.0.1", "1")], "READONLY"),
        ([("CONFIG", "SET", "maxmemory", "1")], "OOM"),
        ([("ACL", "SETUSER", "default", "-hgetall", "-evalsha")], "NOPERM"),
    ],
)
async def test_a_server_that_refuses_to_write_is_an_outage(
    asker: Asker, server: RedisServer, commands: list[tuple[str, ...]], code: str
) -> None:
    await asker.claim("a", "before")
    for command in commands:
        assert server.ask(*command) == b"+OK\r\n"
    reply = await asker.claim("a")
    assert isinstance(reply, StoreUnavailable)
    assert code in str(reply)


async def test_a_server_that_is_busy_is_an_outage(asker: Asker, server: RedisServer) -> None:
    await asker.claim("a", "before")
    server.ask("CONFIG", "SET", "lua-time-limit", "10")
    endless = threading.Thread(target=server.ask, args=("EVAL", "while true do end", "0"))
    endless.start()
    reply: Any = Claimed(1)
    for n in range(1_000):  # until the other connection's script is seen to run
        reply = await asker.claim("a", f"key-{n}")
        if isinstance(reply, StoreUnavailable):
            break
    while not server.ask("SCRIPT", "KILL").startswith(b"+OK"):
        pass
    endless.join()
    assert isinstance(reply, StoreUnavailable)
    assert "BUSY" in str(reply)
    assert await asker.claim("b", "after") == Claimed(1)


async def test_a_server_that_says_nothing_is_given_up(
    asker: Asker, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_server, "_ANSWER_SECONDS", 0.2)
    await asker.claim("a")
    with server.stopped():
        assert isinstance(await asker.claim("b"), StoreUnavailable)
    assert isinstance(await asker.claim("b"), Busy)


async def test_a_cluster_is_refused_by_name(clock: Any, environment: ProcessEnvironment, tmp_path: Path) -> None:
    options = ("--cluster-enabled", "yes", "--cluster-config-file", str(tmp_path / "nodes"))
    with servers.running(*options, "--cluster-port", str(servers.free_port())) as server:
        asker = Asker(stores.Redis(server.url), environment, clock)
        reply = await asker.claim("a")
        assert isinstance(reply, StoreUnavailable)
        assert "cluster" in str(reply)
        with pytest.raises(StoreUnavailable, match="cluster"):
            await asker.store.create(environment)


@pytest.mark.parametrize(
    ("policy", "memory", "is_told"),
    [("allkeys-lru", "100mb", True), ("volatile-ttl", "100mb", True), ("noeviction", "100mb", False),
     ("allkeys-lru", "0", False)],
)  # fmt: skip
async def test_a_server_that_drops_entries_is_told_once(
    asker: Asker, server: RedisServer, caplog: pytest.LogCaptureFixture, policy: str, memory: str, is_told: bool
) -> None:
    server.ask("CONFIG", "SET", "maxmemory", memory)
    server.ask("CONFIG", "SET", "maxmemory-policy", policy)
    await asker.store.create(asker.environment)
    await asker.store.create(asker.environment)
    await asker.claim("a")
    assert [policy in record.getMessage() for record in caplog.records] == ([True] if is_told else [])


async def test_a_user_with_few_rights_is_enough(server: RedisServer, environment: Any, clock: Any) -> None:
    rights = ["ping", "evalsha", "script|load", "hgetall", "exists", "hmget", "hset", "hdel", "del", "expire"]
    answer = server.ask("ACL", "SETUSER", "worker", "on", ">pw", "~pipeline:*", *(f"+{right}" for right in rights))
    assert answer == b"+OK\r\n"
    asker = Asker(stores.Redis(f"redis://worker:pw@127.0.0.1:{server.port}/0"), environment, clock)
    assert await asker.claim("a") == Claimed(1)
    assert await asker.complete("a") is True
    assert (await asker.look()).status == "COMPLETED"


# The way to it.


async def test_a_lost_answer_is_asked_for_again(far: Asker, way: Way) -> None:
    for word, expected in (("claim", Claimed(1)), ("complete", True), ("claim", AlreadyDone())):
        way.lose_answers = 1
        assert await getattr(far, word)("a") == expected
    assert way.connections == 4, "no answer was lost"


async def test_a_lost_answer_to_a_takeover_does_not_lose_it(far: Asker, way: Way) -> None:
    await far.claim("a")
    await far.store.settle([Release(id="k", owner="a", ttl=TTL, attempts=1, outputs="[kept]")], far.environment)
    way.lose_answers = 1
    assert await far.claim("b") == Claimed(2, "[kept]")


async def test_when_no_answer_comes_it_is_an_outage_and_the_claim_is_not_lost(far: Asker, way: Way) -> None:
    way.lose_answers = 2
    assert isinstance(await far.claim("a"), StoreUnavailable)
    assert await far.claim("a") == Claimed(1)
    way.lose_answers = 2
    assert isinstance(await far.complete("a"), StoreUnavailable)
    assert await far.complete("a") is True


async def test_a_connection_that_was_idle_for_long_is_not_used_again(far: Asker, way: Way) -> None:
    """One that was forgotten on the way says nothing, and its answers would be waited for."""
    await far.claim("a")
    far.clock.advance(60)
    assert isinstance(await far.claim("b"), Busy)
    assert way.connections == 1
    far.clock.advance(61)
    assert await far.complete("a") is True
    assert way.connections == 2
    assert await far.claim("b") == AlreadyDone()
    assert way.connections == 2


async def test_each_connection_is_idle_by_itself(far: Asker, way: Way) -> None:
    way.holds = asyncio.Event()
    calls = [asyncio.ensure_future(far.look(f"k{n}")) for n in range(3)]
    await way.until_asked(b"EVALSHA", 3)
    way.holds.set()
    await asyncio.gather(*calls)
    assert way.connections == 3
    for _ in range(4):
        far.clock.advance(30)
        await far.look()  # over one of them
    assert way.connections == 3
    await asyncio.gather(*(far.look(f"k{n}") for n in range(3)))
    assert way.connections == 5


async def test_a_cancelled_call_leaves_no_answer_for_the_next_one(far: Asker, way: Way) -> None:
    await far.claim("a", "first")
    await far.complete("a", "first")
    await far.claim("b", "second")
    for _ in range(3):
        way.holds = asyncio.Event()
        way.waiting.clear()
        call = asyncio.ensure_future(far.store.look(["first", "first"], far.environment))
        await way.waiting.wait()  # it is asked, and the answer is on its way
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        way.holds.set()
        way.holds = None
        found = await far.look("second")
        assert (found.status, found.owner) == ("INPROGRESS", "b")


@pytest.mark.parametrize("steps", range(25))
async def test_a_call_may_be_cancelled_at_any_step(far: Asker, steps: int) -> None:
    await far.claim("a", "first")
    call = asyncio.ensure_future(far.store.look(["first"] * 3, far.environment))
    for _ in range(steps):
        await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await far.claim("b", "second") == Claimed(1)
    found = await far.look("second")
    assert found.owner == "b"


async def test_a_thousand_claims_travel_together(far: Asker, way: Way) -> None:
    await far.claim("a", "before")
    way.requests.clear()
    way.holds = asyncio.Event()
    requests = [far.request("a", f"key-{n}") for n in range(1_000)]
    call = asyncio.ensure_future(far.store.claim(requests, far.environment))
    await way.until_asked(b"EVALSHA", 1_000)  # all are asked before one is answered
    way.holds.set()
    assert await call == [Claimed(1)] * 1_000
    assert way.connections == 1


async def test_what_is_too_large_for_one_journey_makes_several(asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_server, "_TOGETHER", 1_000)
    requests = [asker.request("a", f"key-{n}") for n in range(50)]
    assert await asker.store.claim(requests, asker.environment) == [Claimed(1)] * 50
    found = await asker.store.look([f"key-{n}" for n in range(50)], asker.environment)
    assert [entry.id for entry in found if isinstance(entry, Entry)] == [f"key-{n}" for n in range(50)]


async def test_fifty_racing_for_one_key_get_it_once(server: RedisServer, clock: Any) -> None:
    for state in ("absent", "released", "lapsed", "expired"):
        askers = [Asker(stores.Redis(server.url), ProcessEnvironment(clock=clock), clock) for _ in range(2)]
        if state != "absent":
            await askers[0].claim("first", state)
        if state == "released":
            release = Release(id=state, owner="first", ttl=TTL, attempts=1)
            await askers[0].store.settle([release], askers[0].environment)
        clock.advance({"lapsed": LEASE + 1, "expired": TTL + 2}.get(state, 0))
        replies = await asyncio.gather(*(askers[n % 2].claim(f"owner-{n}", state) for n in range(50)))
        won = [n for n, reply in enumerate(replies) if isinstance(reply, Claimed)]
        assert len(won) == 1, state
        assert sum(isinstance(reply, Busy) for reply in replies) == 49
        assert await askers[0].complete(f"owner-{won[0]}", state) is True
        for asker in askers:
            await asker.environment.aclose()


async def test_a_takeover_is_refused_when_another_run_has_been_there(asker: Asker) -> None:
    """Also when it gave the claim back since, so that status and lease are again what they were."""
    release = {"id": "k", "ttl": TTL}
    await asker.claim("a")
    await asker.store.settle([Release(owner="a", attempts=1, **release)], asker.environment)
    stale = await asker.look()
    await asker.claim("b")
    await asker.store.settle([Release(owner="b", attempts=2, outputs="[kept]", **release)], asker.environment)
    now = asker.clock.now()
    write = hashes.take_over(stale, taken_over(stale, asker.request("c"), now), now)
    (answer,) = await asker.store._write([write], asker.environment)
    assert answer == _Answer(is_written=False, found=await asker.look())
    assert await asker.claim("c") == Claimed(3, "[kept]")


# Who may come in.


async def test_a_password_opens_and_is_never_repeated(
    environment: ProcessEnvironment, clock: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    with servers.running(password=PASSWORD) as server:
        place = f"127.0.0.1:{server.port}"
        monkeypatch.setenv("REDIS_URL", f"redis://:{SECRET}@{place}")
        good = Asker(stores.Redis(), environment, clock)
        assert await good.claim("a") == Claimed(1)
        told = [repr(good.store), str(good.store.resource), good.store.note]
        for url, code in (
            (f"redis://:wrong-{SECRET}@{place}", "WRONGPASS"),
            (f"redis://nobody:{SECRET}@{place}", "WRONGPASS"),
            (f"redis://{place}", "NOAUTH"),
        ):
            asker = Asker(stores.Redis(url), environment, clock)
            reply = await asker.claim("a")
            assert isinstance(reply, StoreUnavailable)
            assert code in str(reply)
            with pytest.raises(StoreUnavailable, match=code) as raised:
                await asker.store.create(environment)
            told += [str(reply), repr(reply), str(raised.value), repr(asker.store), str(asker.store.resource)]
        told += [record.getMessage() for record in caplog.records]
    assert not [text for text in told if "w0rd" in text or "nobody" in text]


@pytest.mark.parametrize(
    "url",
    [
        "", "localhost:6379", "http://localhost", "rediss://", "rediss:///0", "rediss://:w0rd#1@host/0",
        "rediss://:w0/rd@host/0", "rediss://:w0rd?@host/0", "rediss://user:12/w0rd@host:6379/0", "rediss://host/w0rd",
        "rediss://host:port-w0rd/0", "rediss://:w0rd@host?ssl_cert_reqs=none", "redis://[::w0rd]/0",
        "redis://:w0rd@redis.example.com:6379/0", "redis://:w0rd@10.0.0.7", "unix:///run/w0rd.sock", None, 7,
    ],
)  # fmt: skip
def test_a_url_that_will_not_do_is_refused_without_quoting_it(url: Any) -> None:
    with pytest.raises(ConfigurationError) as raised:
        address_of(url, ca=None, insecure=False, what="stores.Redis(url)")
    assert "stores.Redis(url)" in str(raised.value)
    assert "w0rd" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://redis.example.com", ("redis.example.com:6379/0", None, None, True)),
        ("valkeys://u:p%2Fq@h:7000/3", ("h:7000/3", "u", "p/q", True)),
        ("redis://localhost", ("localhost:6379/0", None, None, False)),
        ("valkey://[::1]:7000/2", ("[::1]:7000/2", None, None, False)),
        ("redis://:pw@127.0.0.1/", ("127.0.0.1:6379/0", None, "pw", False)),
    ],
)
def test_what_a_url_means(url: str, expected: tuple[Any, ...]) -> None:
    found = address_of(url, ca=None, insecure=False, what="url")
    assert (str(found), found.user, found.password, found.is_encrypted) == expected
    assert repr(found) == str(found)


def test_plain_connections_to_other_machines_are_said_aloud() -> None:
    assert repr(stores.Redis("redis://10.0.0.7", insecure=True)) == "stores.Redis(10.0.0.7:6379/0)"
    with pytest.raises(ConfigurationError, match="insecure=True"):
        stores.Redis("redis://10.0.0.7")
    with pytest.raises(ConfigurationError, match="rediss"):
        stores.Redis("redis://localhost", ca="ca.pem")


@pytest.mark.parametrize("options", [{"prefix": ""}, {"prefix": None}, {"variable": ""}])
def test_options_that_will_not_do_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        stores.Redis("rediss://host", **options)


async def test_a_url_that_is_not_there_is_an_outage_that_names_the_variable(
    environment: ProcessEnvironment, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    asker = Asker(stores.Redis(), environment, clock)
    reply = await asker.claim("a")
    assert isinstance(reply, StoreUnavailable)
    assert "REDIS_URL" in str(reply)


async def test_a_certificate_is_checked_with_its_name(
    server: RedisServer, environment: ProcessEnvironment, clock: Any, tmp_path: Path
) -> None:
    ours, other = _certificate(tmp_path / "ours", "localhost"), _certificate(tmp_path / "other", "localhost")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(ours)
    async with servers.way_to(server, tls) as way:
        good = Asker(stores.Redis(f"rediss://localhost:{way.port}", ca=str(ours)), environment, clock)
        assert await good.claim("a") == Claimed(1)
        for store in (
            stores.Redis(f"rediss://localhost:{way.port}", ca=str(other)),
            stores.Redis(f"rediss://localhost:{way.port}"),
            stores.Redis(f"rediss://127.0.0.1:{way.port}", ca=str(ours)),  # a certificate for another name
        ):
            reply = await Asker(store, environment, clock).claim("b", "other")
            assert isinstance(reply, StoreUnavailable)
            assert "certificate" in str(reply).lower()
        assert await good.complete("a") is True
        await environment.aclose()


def _certificate(path: Path, name: str) -> Path:
    """A certificate that signs itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, digests.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


# Time, and what is stored.


def _seconds_left(server: RedisServer, key: str = "pipeline:k") -> int:
    return int(server.ask("TTL", key).removeprefix(b":"))


async def test_the_server_keeps_an_entry_a_while_longer_than_it_counts(asker: Asker, server: RedisServer) -> None:
    await asker.claim("a")
    assert TTL < TTL + hashes.GRACE - 60 <= _seconds_left(server) <= TTL + hashes.GRACE
    server.ask("EXPIRE", "pipeline:k", "500")
    await asker.store.renew(
        [Renewal(id="k", owner="a", lease_until=asker.clock.now() + LEASE, ttl=TTL)], asker.environment
    )
    assert _seconds_left(server) > TTL, "a renewal prolongs the lease, and the entry with it"
    await asker.complete("a")
    assert _seconds_left(server) > TTL


async def test_expiry_follows_the_clock_of_the_toolkit(asker: Asker, server: RedisServer) -> None:
    asker.clock._now = 1_000_000.5  # half a century behind the server
    await asker.claim("a")
    await asker.complete("a")
    asker.clock.advance(TTL)
    assert await asker.claim("b") == AlreadyDone(), "in its last second an entry is still alive"
    asker.clock.advance(1)
    assert await asker.look() is not None, "the server still has it"
    assert await asker.claim("b") == Claimed(1)


async def test_an_entry_that_the_server_has_dropped_is_absent(asker: Asker, server: RedisServer) -> None:
    await asker.claim("a")
    server.ask("PEXPIRE", "pipeline:k", "0")
    assert await asker.look() is None
    assert await asker.complete("a") is False
    assert await asker.claim("b") == Claimed(1)


async def test_a_time_to_live_beyond_all_measure_is_kept_for_long(asker: Asker, server: RedisServer) -> None:
    entry = Entry(id="k", status="COMPLETED", expiration=2**62)
    assert await asker.store.mark([entry], asker.environment) == [None]
    assert _seconds_left(server) > 2**30
    assert await asker.look() == entry


async def test_what_is_marked_is_found_whole(asker: Asker) -> None:
    whole = Entry(
        id="k", status="INPROGRESS", expiration=int(asker.clock.now()) - 5, in_progress_expiration=7, data='{"a": "é"}',
        validation="hash", owner="a", attempts=3, outputs="[1]", rejected=("s/1", "s/2"), position="42",
    )  # fmt: skip
    bare = Entry(id="k", status="COMPLETED", expiration=int(asker.clock.now()) + 5)
    other = Entry(id="j", status="COMPLETED", expiration=int(asker.clock.now()) + 5)
    assert await asker.store.mark([bare, other, whole], asker.environment) == [None] * 3
    assert await asker.store.look(["k", "missing", "j", "k"], asker.environment) == [whole, None, other, whole]
    assert await asker.store.mark([bare], asker.environment) == [None]
    assert await asker.look() == bare, "fields of the entry before are left"


async def test_nothing_is_asked_for_nothing(environment: ProcessEnvironment) -> None:
    store = stores.Redis("redis://127.0.0.1:1")
    assert await store.claim([], environment) == []
    assert await store.look([], environment) == []


async def test_checkpoints_only_move_forward_by_bytes(asker: Asker) -> None:
    chance = random.Random(7)
    letters = "aBÅä10 -_~|\N{GRINNING FACE}"
    stands = None
    for _ in range(200):
        position = "".join(chance.choice(letters) for _ in range(chance.randint(1, 3)))
        (moved,) = await asker.store.advance([Advance(id="k", position=position, ttl=TTL)], asker.environment)
        assert moved is (stands is None or position > stands), (stands, position)
        stands = position if moved else stands
        if chance.random() < 0.2:
            stands = None
            await asker.store.mark([Entry(id="k", status="COMPLETED", expiration=2_000_000_000)], asker.environment)


@pytest.mark.parametrize("seed", range(12))
async def test_it_does_what_a_store_in_memory_does(asker: Asker, seed: int) -> None:
    """The same calls to both; every answer, and what stands there afterwards, must be the same."""
    chance = random.Random(seed)
    memory = stores.Memory()
    clock, environment = asker.clock, asker.environment
    owners, keys = [f"owner-{n}" for n in range(4)], ["k", "j"]
    for step in range(120):
        owner, key = chance.choice(owners), chance.choice(keys)
        until = clock.now() + LEASE
        request = ClaimRequest(
            id=key, owner=f"{owner}-{chance.randint(0, step // 4)}" if chance.random() < 0.3 else owner,
            lease_until=until, ttl=TTL, record=chance.choice(["", "r1", "r2"]), is_alone=chance.random() < 0.7,
            validation=chance.choice([None, None, "v1", "v2"]),
        )  # fmt: skip
        ends = [
            Complete(id=key, owner=request.owner, ttl=TTL, data=chance.choice([None, "[1]"])),
            Release(
                id=key, owner=request.owner, ttl=TTL, attempts=chance.randint(0, 3),
                outputs=chance.choice([None, "[kept]"]), rejected=chance.choice([(), ("r1",)]),
            ),
            Forget(id=key, owner=request.owner, ttl=TTL),
        ]  # fmt: skip
        calls: list[tuple[str, list[Any]]] = [
            ("claim", [request]),
            ("claim", [request, ClaimRequest(id=key, owner=f"late-{step}", lease_until=until, ttl=TTL, is_alone=True)]),
            ("settle", [chance.choice(ends)]),
            ("renew", [Renewal(id=key, owner=request.owner, lease_until=until, ttl=TTL)]),
            ("advance", [Advance(id="checkpoint", position=str(chance.randint(0, 99)), ttl=TTL)]),
        ]
        word, asked = chance.choice([*calls[:3], *calls])
        expected = await getattr(memory, word)(asked, environment)
        assert await getattr(asker.store, word)(asked, environment) == expected, (step, word, asked)
        ids = [*keys, "checkpoint"]
        assert await asker.store.look(ids, environment) == await memory.look(ids, environment), (step, word, asked)
        if chance.random() < 0.2:
            clock.advance(chance.choice([1, LEASE + 1, TTL / 2, TTL + 2]))


def test_addresses_of_this_machine() -> None:
    def is_here(url: str) -> bool:
        return address_of(url, ca=None, insecure=True, what="url").is_here

    assert [is_here(f"redis://{host}") for host in ("localhost", "127.0.0.9", "[::1]", "a.localhost")] == [True] * 4
    elsewhere = ("10.0.0.7", "redis", "redis.internal", "localhost.example.com", "192.168.1.1", "0.0.0.0")
    assert [is_here(f"redis://{host}") for host in elsewhere] == [False] * 6
    assert ipaddress.ip_address("10.0.0.7").is_private, "a private network is where production's server stands"


# Beside the server: what the rest of the toolkit makes of a store that is none of AWS's.

shop = Pipeline("shop", idempotency=Claim(store=stores.Redis()))


@shop.handler(sources.SQS("orders"), key="id", sinks=[sinks.SQS("out")])
def price(order: dict[str, Any]) -> dict[str, Any]:
    return order


def _with(store: stores.Redis) -> Pipeline:
    made = Pipeline("shop", idempotency=Claim(store=store, prefix="same"))

    @made.handler(sources.SQS("orders"), key="id")
    def handle(order: dict[str, Any]) -> None: ...

    return made


def test_invoke_asks_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1")
    result = invoke(price, [{"id": 1}, {"id": 1}, {"id": 2}])
    assert result.outputs == {"out": [{"id": 1}, {"id": 2}]}


def test_the_template_says_what_it_cannot_declare() -> None:
    made = template([shop])
    text = str(made.sections)
    assert "REDIS_URL" not in text
    assert "redis:" not in text, "a grant or a name for what has no ARN"
    (note,) = [note for note in made.notes if "Redis" in note]
    assert note.startswith("shop.price: ")
    assert "REDIS_URL" in note
    assert "VpcConfig" in note


def test_one_server_and_one_prefix_are_one_place() -> None:
    def stages(*given: stores.Redis) -> Any:
        return [stage for store in given for stage in _with(store).stages()]

    one = stores.Redis(f"rediss://:{SECRET}@host/1")
    with pytest.raises(ConfigurationError, match="share"):
        refuse_shared_entries(stages(one, stores.Redis("rediss://host:6379/1")))
    refuse_shared_entries(stages(one, stores.Redis("rediss://host/2"), stores.Redis("rediss://host/1", prefix="p:")))


@pytest.mark.parametrize("url", ["rediss://redis.example.com", "rediss://10.0.0.7:6379/0", "rediss://redis", None])
async def test_a_local_run_reaches_no_other_machine(
    url: str | None, environment: ProcessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url is None:
        monkeypatch.delenv("REDIS_URL", raising=False)
    else:
        monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        async with Local(shop, endpoint_url="http://127.0.0.1:1"):
            pytest.fail("it started")


async def test_a_local_run_with_a_server_of_this_machine(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", server.url)
    async with Local(shop, skip_idle=True) as run:
        await run.send("orders", [{"id": 1}, {"id": 2}])
        await run.drain()
        await run.send("orders", [{"id": 1}, {"id": 3}])
        report = await run.drain()
    counts = report.handlers["price"]
    assert (counts.succeeded, counts.duplicates) == (3, 1)
    assert server.ask("DBSIZE") == b":3\r\n"
