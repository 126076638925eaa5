"""HTTP to AWS: one set of connections and one TLS context for all services, for calls that are made in threads.

Proxies, certificate authorities and the names of errors are botocore's, and so are its helpers where it has them. What
botocore's own HTTP session does otherwise: it reads the certificate authorities again for each connection.
"""

from __future__ import annotations

import ssl
import sys
import threading
import time
import zlib
from collections.abc import Mapping
from http.client import responses
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.httpsession import ProxyConfiguration, create_urllib3_context, get_cert_path, mask_proxy_url
from botocore.utils import get_environ_proxies
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, ProxyManager, Timeout
from urllib3 import exceptions as broken
from urllib3.connection import HTTPConnection, HTTPSConnection

from pipeline.telemetry.otel import unseen

#: Bytes of an answer once it is unpacked. The largest that a service gives is BatchGetItem's, of 16 MB.
MAX_UNPACKED = 64 * 1024 * 1024
#: How long a connection may have been idle and be used again, as with aiobotocore. What was forgotten on the way, by
#: a NAT gateway say, may not even be refused: a call over it would wait for its time-out.
IDLE_SECONDS = 12.0


class Answer(NamedTuple):
    """What came back, whatever its status."""

    status: int
    headers: Mapping[str, str]  #: their names in any case
    body: bytes

    @property
    def reason(self) -> str:
        """The status in words."""
        return responses.get(self.status, "")


class Failure(NamedTuple):
    """Nothing came back, or not all of it. The request may have been carried out nevertheless."""

    error: Exception
    is_stale: bool = False  #: a kept connection turned out to be closed: a new one is worth trying at once


class Transport:
    """Sends requests, each in the thread that asks. Connections are kept; any number of threads may use it.

    A connection is kept only when its answer was read to the end.
    """

    def __init__(self, *, connections: int, connect_seconds: float, authorities: str | None = None) -> None:
        """`connections`: how many are kept for each host. `authorities`: a file of certificates; None: botocore's."""
        self._kept = connections
        self._connect_seconds = connect_seconds
        self._authorities = authorities
        self._lock = threading.Lock()
        self._context: Any = None
        self._managers: dict[str, PoolManager] = {}
        self._ways: dict[str, _Way] = {}

    def send(self, url: str, headers: Mapping[str, str], body: bytes, *, read_seconds: float) -> Answer | Failure:
        """POST, and wait for the whole answer. `read_seconds` is what may pass between two pieces of it."""
        with unseen():
            return self._send(url, headers, body, read_seconds)

    def _send(self, url: str, headers: Mapping[str, str], body: bytes, read_seconds: float) -> Answer | Failure:
        way = None
        opened = 0
        try:
            way = self._ways.get(url) or self._way(url)
            opened = way.pool.num_connections
            found = way.pool.urlopen(
                "POST",
                way.target,
                body=body,
                headers=headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
                decode_content=False,
                timeout=Timeout(connect=self._connect_seconds, read=read_seconds),
            )
            return Answer(found.status, found.headers, _unpacked(found.data, found.headers.get("Content-Encoding", "")))
        except Exception as error:
            is_kept = way is not None and way.pool.num_connections == opened
            translated = _translated(error, url, None if way is None else way.proxy)
            return Failure(translated, is_stale=is_kept and isinstance(translated, ConnectionClosedError))

    def close(self) -> None:
        """Close the connections that are idle; one in use is closed after its call. Waits for nothing."""
        with self._lock:
            managers = list(self._managers.values())
            self._managers.clear()
            self._ways.clear()
        for manager in managers:
            manager.clear()

    def _way(self, url: str) -> _Way:
        proxy = ProxyConfiguration(get_environ_proxies(url)).proxy_url_for(url)
        with self._lock:
            if self._context is None and "https:" in (url[:6], (proxy or "")[:6]):
                # Not before it is needed: reading the authorities takes longer than all else here.
                self._context = _tls_context(self._authorities)
            way = _Way(self._manager(proxy).connection_from_url(url), _target(url, proxy), proxy)
            self._ways[url] = way
        return way

    def _manager(self, proxy: str | None) -> PoolManager:
        """The connections that go through a proxy, or through none."""
        key = f"{proxy} {self._context is None}"  # those that were made without TLS have no context
        if key not in self._managers:
            # No pool is ever put out in favour of another one: `_ways` holds them.
            options: dict[str, Any] = {
                "num_pools": sys.maxsize,
                "maxsize": self._kept,
                "ssl_context": self._context,
            }
            if proxy is None:
                made = PoolManager(**options)
            else:
                sent = ProxyConfiguration().proxy_headers_for(proxy)
                made = ProxyManager(proxy, proxy_headers=sent, proxy_ssl_context=self._context, **options)
            made.pool_classes_by_scheme = _POOLS
            self._managers[key] = made
        return self._managers[key]


class _Kept:
    """A connection that knows for how long it has been idle. By the clock on the wall: it goes on while a Lambda is frozen."""

    _answered = 0.0

    def getresponse(self) -> Any:
        found = super().getresponse()  # type: ignore[misc]  # of the class that it is mixed into
        self._answered = time.time()
        return found

    @property
    def is_connected(self) -> bool:
        """Whether another call may use it; else urllib3 connects anew."""
        is_open: bool = super().is_connected  # type: ignore[misc]
        return is_open and time.time() - self._answered < IDLE_SECONDS


class _PlainConnection(_Kept, HTTPConnection):
    pass


class _SecureConnection(_Kept, HTTPSConnection):
    pass


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection  # pyright: ignore[reportAssignmentType]


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection  # pyright: ignore[reportAssignmentType]


_POOLS: Any = {"http": _PlainPool, "https": _SecurePool}


class _Way(NamedTuple):
    """How a URL is reached: found once, because looking takes a tenth of a call's time."""

    pool: HTTPConnectionPool
    target: str
    proxy: str | None


def _tls_context(authorities: str | None) -> Any:
    context = create_urllib3_context()
    context.minimum_version = max(context.minimum_version, ssl.TLSVersion.TLSv1_2)
    context.check_hostname = True
    context.load_verify_locations(cafile=authorities or str(get_cert_path(True)))
    return context


def _target(url: str, proxy: str | None) -> str:
    """What stands in the request's first line: a proxy without a tunnel needs the whole URL."""
    if proxy is not None and url.startswith("http:"):
        return url
    parts = urlsplit(url)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


def _unpacked(body: bytes, encoding: str) -> bytes:
    """An answer's body. Nobody asked for a packed one, but something between here and AWS may pack it."""
    if encoding.strip().lower() not in ("gzip", "x-gzip", "deflate"):
        return body
    packed = zlib.decompressobj(zlib.MAX_WBITS | 32)
    whole = packed.decompress(body, MAX_UNPACKED)
    if not packed.eof:
        raise ValueError(f"a packed answer that is damaged, or of more than {MAX_UNPACKED:,} bytes")
    return whole


def _translated(error: Exception, url: str, proxy: str | None) -> Exception:
    """botocore's name for what went wrong on the way."""
    match error:
        case broken.NewConnectionError():
            found = EndpointConnectionError(endpoint_url=url, error=error)
        case broken.ProxyError():
            found = ProxyConnectionError(proxy_url=mask_proxy_url(proxy or ""), error=error)
        case broken.ConnectTimeoutError():
            found = ConnectTimeoutError(endpoint_url=url, error=error)
        case broken.ReadTimeoutError():
            found = ReadTimeoutError(endpoint_url=url, error=error)
        case broken.SSLError():
            found = SSLError(endpoint_url=url, error=error)
        case broken.ProtocolError():
            found = ConnectionClosedError(endpoint_url=url, error=error)
        case _:
            found = HTTPClientError(error=error)
    raised: Exception = found
    return raised
