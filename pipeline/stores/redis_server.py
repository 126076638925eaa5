"""A Valkey or Redis server: where it is, its connections, and its errors as the toolkit's.

The client library is imported at the first connection: importing it takes longer than everything else that a
function imports, and only who uses this store should pay for it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import unquote, urlsplit

from msgspec import Struct

from pipeline.errors import ConfigurationError, StoreUnavailable
from pipeline.ports import Clock, Environment
from pipeline.stores.hashes import SCRIPT, SCRIPT_SHA

_CONNECT_SECONDS = 3
_ANSWER_SECONDS = 5
#: Seconds that a connection may have been idle and be used again. What was forgotten on the way while a Lambda environment
#: was frozen, without a word, takes what is sent and answers nothing.
_IDLE_SECONDS = 60
#: Connections of one environment. Calls are shared by records already, so few run side by side, and a server
#: has one set of them for all environments.
_CONNECTIONS = 10
#: Bytes that travel together: as much as a server answers well within its time.
_TOGETHER = 8_000_000
#: How often a script is loaded that the server has just forgotten, before the server counts as unavailable.
_LOADS = 3

_SCHEMES = {"rediss": True, "valkeys": True, "redis": False, "valkey": False}
_SHAPE = "rediss://user:password@host:6379/0, with special characters of user and password as %.."

#: What servers say, and what it means here. Only these words are repeated: the rest of an answer may quote data.
_MEANINGS = {
    "BUSY": "a script of somebody else's has been running for too long",
    "CLUSTERDOWN": "it is a cluster that is down",
    "CROSSSLOT": "it is a cluster, which is not supported",
    "LOADING": "it is still loading its data",
    "MASTERDOWN": "it is a replica that has lost its primary",
    "MISCONF": "it cannot write to its disk, and takes no writes meanwhile",
    "MOVED": "it is a cluster, which is not supported",
    "NOAUTH": "it asks for a password",
    "NOPERM": "the user may not do this: it needs EVALSHA, SCRIPT and what the script calls, on these keys",
    "NOREPLICAS": "too few of its replicas are there",
    "NOSCRIPT": "it keeps forgetting the script",
    "OOM": "its memory is full",
    "READONLY": "it is a replica, or has become one: name the primary",
    "TRYAGAIN": "it is a cluster that is moving its keys",
    "WRONGPASS": "it refuses the user name or the password",
    "WRONGTYPE": "the key holds something else: give this store a prefix of its own",
}
_CODE = re.compile(r"\b(" + "|".join(_MEANINGS) + r")\b")
#: The client library takes these codes off, and tells them by classes.
_CODES = {
    "AuthenticationError": "WRONGPASS",
    "AuthenticationWrongNumberOfArgsError": "WRONGPASS",
    "AskError": "MOVED",
    "BusyLoadingError": "LOADING",
    "MovedError": "MOVED",
    "NoPermissionError": "NOPERM",
    "NoScriptError": "NOSCRIPT",
    "OutOfMemoryError": "OOM",
    "ReadOnlyError": "READONLY",
}
#: Errors whose texts are the client library's own, about hosts and sockets.
_TRANSPORT = ("ConnectionError", "TimeoutError")

_log = logging.getLogger("pipeline")

Command = tuple[str | int, ...]


class Address(Struct, frozen=True, kw_only=True):
    """Where a server is, and how one gets in. As text it has no user and no password."""

    host: str
    port: int = 6379
    database: int = 0
    user: str | None = None
    password: str | None = None
    is_encrypted: bool = True
    ca: str | None = None  #: the path of a PEM file with the certificates to trust; None: the system's

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.database}"

    __repr__ = __str__

    @property
    def is_here(self) -> bool:
        """True for a server on this machine."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def address_of(url: object, *, ca: str | None, insecure: bool, what: str) -> Address:
    """The address that a URL means. `what` names where it was given: no error quotes the URL, it may hold a password.

    Raises `ConfigurationError`, also for a connection without TLS to another machine unless that is `insecure`.
    """
    if not isinstance(url, str) or not url:
        raise ConfigurationError(f"{what} has no URL: give one such as {_SHAPE}")
    address = _parsed(url, ca, what)
    if not address.is_encrypted and ca is not None:
        raise ConfigurationError(f"{what}: ca= is for TLS, and the URL asks for none: write rediss://")
    if not (address.is_encrypted or address.is_here or insecure):
        raise ConfigurationError(
            f"{what}: {address} would be reached without TLS, password included: write rediss://, or say insecure=True"
        )
    return address


def _parsed(url: str, ca: str | None, what: str) -> Address:
    wrong = ConfigurationError(f"{what} is no URL of a server: write it as {_SHAPE}")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise wrong from None
    database = parts.path.removeprefix("/") or "0"
    if parts.scheme not in _SCHEMES or not host or not (database.isascii() and database.isdigit()):
        raise wrong
    if parts.query or parts.fragment:
        # Client libraries take options there, such as one that trusts every certificate.
        raise ConfigurationError(f"{what}: leave out what follows '?' or '#': options are arguments of stores.Redis")
    return Address(
        host=host,
        port=6379 if port is None else port,
        database=int(database),
        user=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        is_encrypted=_SCHEMES[parts.scheme],
        ca=ca,
    )


async def server(environment: Environment, address: Address) -> Server:
    """The environment's connections to a server, made at the first call and closed with it.

    Raises `StoreUnavailable`.
    """
    return await environment.once(("redis", address), lambda: _opened(address, environment.clock))


class Server:
    """The connections to one server."""

    def __init__(self, client: Any, address: Address) -> None:
        self._client = client
        self._address = address
        self._free = asyncio.Semaphore(_CONNECTIONS)

    async def ping(self) -> None:
        """Raises `StoreUnavailable` unless the server answers."""
        (answer,) = await self._exchange([("PING",)])
        if isinstance(answer, Exception):
            raise unavailable(answer, self._address)

    async def check(self) -> None:
        """Refuse a cluster, and say when the server throws entries away. One that keeps this to itself is taken.

        Raises `StoreUnavailable`.
        """
        await self.ping()
        answers = await self._exchange([("INFO", "cluster"), ("INFO", "memory")])
        known: dict[str, Any] = {}
        for answer in answers:
            known |= answer if isinstance(answer, dict) else {}
        if known.get("cluster_enabled") == 1:
            raise StoreUnavailable(
                f"{self._address}: it is a cluster, which is not supported: use a server without cluster mode"
            )
        policy = known.get("maxmemory_policy", "noeviction")
        if policy != "noeviction" and known.get("maxmemory", 0) != 0:
            _log.warning(
                "the idempotency store %s drops entries when its memory is full (maxmemory-policy %s), and their records "
                "run again: set it to noeviction",
                self._address,
                policy,
            )

    async def run_script(self, calls: Sequence[Command]) -> list[Any]:
        """Call the script with each key and its arguments; for each its answer, or `StoreUnavailable`."""
        from valkey.exceptions import NoScriptError

        answers: dict[int, Any] = {}
        for together in _chunks(calls):
            first = len(answers)
            waiting = dict(enumerate(together, first))
            load: list[Command] = []
            for _ in range(1 + _LOADS):
                sent = [*load, *(("EVALSHA", SCRIPT_SHA, 1, *call) for call in waiting.values())]
                found = (await self._exchange(sent))[len(load) :]
                answers |= dict(zip(waiting, found, strict=True))
                waiting = {at: call for at, call in waiting.items() if isinstance(answers[at], NoScriptError)}
                if not waiting:
                    break
                # A new server, one that was restarted, or told to forget: nothing was run.
                load = [("SCRIPT LOAD", SCRIPT)]
        return [self._answer(answers[at]) for at in range(len(calls))]

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        """One round trip: what was answered, values and errors. Trouble on the way is everybody's answer.

        Tried twice: a connection may have been closed while a Lambda environment was frozen. All that is sent may be
        repeated; who was answered before finds what it wrote itself.
        """
        from valkey.exceptions import ConnectionError as Broken

        try:
            # The whole takes no longer, however slowly the answers trickle in. Cancelled, the client library closes
            # the connection, so that nobody reads another's answer.
            async with asyncio.timeout(_CONNECT_SECONDS + _ANSWER_SECONDS), self._free:
                try:
                    return await self._send(commands)
                except Broken as error:
                    if type(error) is not Broken:  # it answered, and refuses
                        raise
                return await self._send(commands)
        except Exception as error:
            return [unavailable(error, self._address)] * len(commands)

    async def _send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        answers: list[Any] = await pipeline.execute(raise_on_error=False)
        return answers

    def _answer(self, answer: Any) -> Any:
        if isinstance(answer, Exception) and not isinstance(answer, StoreUnavailable):
            return unavailable(answer, self._address)
        return answer


@asynccontextmanager
async def _opened(address: Address, clock: Clock) -> AsyncIterator[Server]:
    try:
        from valkey.asyncio import Connection, ConnectionPool, SSLConnection, Valkey
    except ImportError:
        raise StoreUnavailable("stores.Redis has no client library: install 'fanout-pipeline[redis]'") from None

    class Pool(ConnectionPool):
        """Closes a connection that was idle for long, by the clock on the wall, which goes on while a Lambda is frozen."""

        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self._used: dict[Any, float] = {}  # no more than the pool has, which keeps all

        async def ensure_connection(self, connection: Any) -> None:
            if clock.now() - self._used.get(connection, clock.now()) > _IDLE_SECONDS:
                await connection.disconnect(nowait=True)  # nobody answers a farewell
            await super().ensure_connection(connection)

        async def release(self, connection: Any) -> None:
            self._used[connection] = clock.now()
            await super().release(connection)

    # The library's own default is not to look whose certificate it is.
    tls: dict[str, Any] = {"ssl_ca_certs": address.ca, "ssl_check_hostname": True} if address.is_encrypted else {}
    pool = Pool(
        connection_class=SSLConnection if address.is_encrypted else Connection,
        **tls,
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.user,
        password=address.password,
        socket_connect_timeout=_CONNECT_SECONDS,
        socket_timeout=_ANSWER_SECONDS,
        socket_keepalive=True,
        lib_name=None,  # two more commands at each connection, which servers of last year refuse
        lib_version=None,
    )
    try:
        made = Server(Valkey(connection_pool=pool), address)
        await made.check()
        yield made
    finally:
        # What is closed needs no answer; a server that is gone gives none.
        with suppress(Exception):
            await pool.aclose()


def unavailable(error: Exception, address: Address) -> StoreUnavailable:
    """A failed call as the toolkit's error, naming what went wrong and no data; a programming error is raised again."""
    if isinstance(error, StoreUnavailable):
        return error
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"{address}: no answer within {_CONNECT_SECONDS + _ANSWER_SECONDS} s")
    if isinstance(error, OSError):
        return StoreUnavailable(f"{address}: {type(error).__name__}: {error.strerror or 'no connection'}")
    from valkey.exceptions import ValkeyClusterException, ValkeyError

    if not isinstance(error, (ValkeyError, ValkeyClusterException)):
        raise error
    name = type(error).__name__
    if name in _TRANSPORT:
        return StoreUnavailable(f"{address}: {name}: {error}")
    said = _CODE.search(str(error))
    code = _CODES.get(name) or (said[1] if said else None)
    if code == "WRONGPASS" and address.password is None:
        code = "NOAUTH"
    return StoreUnavailable(f"{address}: {name if code is None else f'{code}: {_MEANINGS[code]}'}")


def _chunks(commands: Sequence[Command]) -> Iterator[list[Command]]:
    """Commands as they travel together."""
    together: list[Command] = []
    size = 0
    for command in commands:
        length = sum(len(part) for part in command if isinstance(part, str))
        if together and size + length > _TOGETHER:
            yield together
            together, size = [], 0
        together.append(command)
        size += length
    if together:
        yield together
