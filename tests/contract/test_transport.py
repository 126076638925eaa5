"""The light calls on their way: connections, TLS, proxies, signatures, tries, cancellation. Real sockets on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import gzip
import hashlib
import hmac
import ipaddress
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pipeline.aws import transport as module
from pipeline.aws.calls import Call, Client, GoOn
from pipeline.aws.settings import Credentials, Fixed, Settings
from pipeline.aws.transport import Answer, Failure, Transport
from pipeline.engine.environment import ProcessEnvironment

KEYS = Fixed("AKIA", "secret", "token", None)


class Got(NamedTuple):
    """A request as it came."""

    line: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int


#: Answers a request by hand; or a document, which is sent; or None for an empty document.
Act = Callable[["Connection"], None]


class Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: Server
    number = 0

    def setup(self) -> None:
        if self.server.tls is not None:
            self.request = self.server.tls.wrap_socket(self.request, server_side=True)
        self.number = self.server.opened = self.server.opened + 1
        super().setup()

    def finish(self) -> None:
        super().finish()
        self.connection.close()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        got = Got(self.requestline, self.path, dict(self.headers.items()), body, self.number)
        self.server.got.append(got)
        self.server.arrivals.release()
        act = self.server.acts.popleft() if self.server.acts else None
        if act is None:
            self.reply(200, b"{}")
        else:
            act(self)

    def do_CONNECT(self) -> None:
        """As a proxy: a tunnel."""
        self.server.got.append(Got(self.requestline, self.path, dict(self.headers.items()), b"", self.number))
        host, _, port = self.path.rpartition(":")
        with socket.create_connection((host, int(port))) as far:
            self.send_response(200)
            self.end_headers()
            self.wfile.flush()
            back = threading.Thread(target=_carry, args=(far, self.connection), daemon=True)
            back.start()
            _carry(self.connection, far)
            back.join()
        self.close_connection = True

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    tls: ssl.SSLContext | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.got: list[Got] = []
        self.acts: deque[Act | None] = deque()
        self.opened = 0
        self.arrivals = threading.Semaphore(0)  #: one for each request that has come

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def handle_error(self, *_: Any) -> None: ...


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(65_536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)


async def arrived(server: Server, count: int = 1) -> None:
    """So many requests have come."""
    for _ in range(count):
        await asyncio.to_thread(server.arrivals.acquire)


def answer(status: int = 200, body: Any = b"{}", **headers: str) -> Act:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda connection: connection.reply(status, text, **headers)


def reset(connection: Connection) -> None:
    """The connection is cut without an answer."""
    connection.close_connection = True
    connection.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def raw(text: bytes) -> Act:
    """These bytes, and the end."""

    def act(connection: Connection) -> None:
        connection.wfile.write(text)
        connection.close_connection = True

    return act


def hang(until: threading.Event) -> Act:
    def act(connection: Connection) -> None:
        until.wait(30)
        connection.reply(200, b"{}")

    return act


@contextlib.contextmanager
def serving(tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server()
    server.tls = tls
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as made:
        yield made


@pytest.fixture
def url(server: Server) -> str:
    return f"http://127.0.0.1:{server.port}/"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport(connections=4, connect_seconds=3)
    yield made
    made.close()


def post(transport: Transport, url: str, *, read_seconds: float = 10) -> Answer | Failure:
    return transport.send(url, {"X": "y"}, b"{}", read_seconds=read_seconds)


def error_of(came: Answer | Failure) -> Exception:
    assert isinstance(came, Failure), came
    return came.error


# Connections


def test_a_connection_serves_one_call_after_the_other(server: Server, url: str, transport: Transport) -> None:
    for _ in range(3):
        came = post(transport, url)
        assert isinstance(came, Answer)
        assert (came.status, came.body) == (200, b"{}")
    assert [got.connection for got in server.got] == [1, 1, 1]
    assert {got.path for got in server.got} == {"/"}


def test_an_answer_of_any_status_is_an_answer_and_leads_nowhere_else(
    server: Server, url: str, transport: Transport
) -> None:
    server.acts += [answer(302, b"{}", Location="http://127.0.0.1:1/"), answer(500, b"no"), answer(204, b"")]
    came = [post(transport, url) for _ in range(3)]
    assert [one.status if isinstance(one, Answer) else one for one in came] == [302, 500, 204]
    assert server.opened == 1


def test_a_kept_connection_that_was_cut_is_known_as_that(server: Server, url: str, transport: Transport) -> None:
    server.acts += [reset, None, reset]
    first, second, third = (post(transport, url) for _ in range(3))
    assert isinstance(first, Failure)
    assert isinstance(first.error, ConnectionClosedError)
    assert not first.is_stale, "it was new"
    assert isinstance(second, Answer)
    assert isinstance(third, Failure)
    assert third.is_stale
    assert [got.connection for got in server.got] == [1, 2, 2]


def test_a_connection_that_the_server_closed_meanwhile_is_not_used(
    server: Server, url: str, transport: Transport
) -> None:
    def close(connection: Connection) -> None:
        connection.reply(200, b"{}")
        connection.close_connection = True

    server.acts.append(close)
    post(transport, url)
    while not _is_dropped(transport._ways[url].pool):
        pass  # its end is on its way here
    assert isinstance(post(transport, url), Answer)
    assert [got.connection for got in server.got] == [1, 2]


@pytest.mark.parametrize("secure", [False, True])
def test_a_connection_that_was_idle_for_long_is_not_used(
    certified: Any, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    """It may have been forgotten by what stands between, and then nobody would answer."""
    authorities, context = certified("127.0.0.1")
    now = time.time()
    monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now))
    transport = Transport(connections=4, connect_seconds=3, authorities=str(authorities))
    with serving(context if secure else None) as server:
        url = f"http{'s' if secure else ''}://127.0.0.1:{server.port}/"
        for idle in (0, 11, 13, 11, 86_400):
            now += idle
            assert isinstance(post(transport, url), Answer)
        assert [got.connection for got in server.got] == [1, 1, 2, 2, 3]
        transport.close()


def _is_dropped(pool: Any) -> bool:
    from urllib3.util.connection import is_connection_dropped

    return any(kept is not None and is_connection_dropped(kept) for kept in list(pool.pool.queue))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", ConnectionClosedError),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{", ConnectionClosedError),
        (b"not http at all\r\n\r\n", ConnectionClosedError),
        (b"", ConnectionClosedError),
    ],
)
def test_half_an_answer_is_none_and_its_connection_is_not_used_again(
    server: Server, url: str, transport: Transport, text: bytes, kind: type[Exception]
) -> None:
    server.acts.append(raw(text))
    assert isinstance(error_of(post(transport, url)), kind)
    assert isinstance(post(transport, url), Answer)
    assert [got.connection for got in server.got] == [1, 2]


def test_what_does_not_answer_in_time_is_given_up_and_its_connection_closed(
    server: Server, url: str, transport: Transport
) -> None:
    go_on = threading.Event()
    server.acts.append(hang(go_on))
    error = error_of(post(transport, url, read_seconds=0.05))
    go_on.set()
    assert isinstance(error, ReadTimeoutError)
    assert url in str(error)
    assert isinstance(post(transport, url), Answer)
    assert [got.connection for got in server.got] == [1, 2]


def test_nobody_there_is_no_endpoint(transport: Transport) -> None:
    assert isinstance(error_of(post(transport, "http://127.0.0.1:1/")), EndpointConnectionError)
    assert isinstance(error_of(post(transport, "http://no-such-host.invalid/")), EndpointConnectionError)


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "deflate"])
def test_a_packed_answer_is_unpacked(server: Server, url: str, transport: Transport, encoding: str) -> None:
    packed = gzip.compress(b'{"a": 1}')
    server.acts.append(answer(200, packed, Content_Encoding=encoding))
    came = post(transport, url)
    assert isinstance(came, Answer)
    assert came.body == b'{"a": 1}'


def test_nobody_asks_for_a_packed_answer(server: Server, url: str, transport: Transport) -> None:
    post(transport, url)
    assert server.got[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(bytes(100_000)), gzip.compress(b"{}")[:-1], b"no gzip", b""],
    ids=["too large", "cut short", "no gzip", "empty"],  # the bytes hold the time: no two processes agree on it
)
def test_a_packed_answer_that_is_too_large_or_damaged_is_an_error(
    server: Server, url: str, transport: Transport, packed: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED", 50_000)
    server.acts.append(answer(200, packed, Content_Encoding="gzip"))
    assert isinstance(error_of(post(transport, url)), HTTPClientError)


def test_many_hosts_are_remembered(transport: Transport) -> None:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(serving()) for _ in range(12)]
        for _ in range(2):
            for one in servers:
                assert isinstance(post(transport, f"http://127.0.0.1:{one.port}/"), Answer)
        assert [one.opened for one in servers] == [1] * 12


# TLS


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, ssl.SSLContext]]:
    """A certificate for an address or a name, as a file of authorities and as a server's context."""

    def make(name: str) -> tuple[Path, ssl.SSLContext]:
        folder = tmp_path_factory.mktemp("tls")
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(tz=datetime.UTC)
        try:
            known: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            known = x509.DNSName(name)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([known]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(key, hashes.SHA256())
            .public_bytes(serialization.Encoding.PEM)
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / "server.pem").write_bytes(secret + certificate)
        (folder / "authorities.pem").write_bytes(certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem")
        return folder / "authorities.pem", context

    return make


def test_a_server_that_is_certified_is_talked_to_over_one_connection(certified: Any) -> None:
    authorities, context = certified("127.0.0.1")
    with serving(context) as server:
        transport = Transport(connections=4, connect_seconds=3, authorities=str(authorities))
        assert [type(post(transport, f"https://127.0.0.1:{server.port}/")) for _ in range(2)] == [Answer] * 2
        assert server.opened == 1
        transport.close()


@pytest.mark.parametrize(("name", "is_known"), [("127.0.0.1", False), ("elsewhere.example", True), ("127.0.0.2", True)])
def test_a_server_that_is_not_certified_or_under_another_name_is_not_talked_to(
    certified: Any, name: str, is_known: bool
) -> None:
    authorities, context = certified(name)
    with serving(context) as server:
        transport = Transport(connections=4, connect_seconds=3, authorities=str(authorities) if is_known else None)
        assert isinstance(error_of(post(transport, f"https://127.0.0.1:{server.port}/")), SSLError)
        assert server.got == []
        transport.close()


def test_less_than_tls_1_2_is_not_talked(certified: Any) -> None:
    authorities, _ = certified("127.0.0.1")
    context = module._tls_context(str(authorities))
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_the_authorities_are_read_once_for_all_services_and_not_without_tls(
    certified: Any, server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str | None] = []
    plain = module._tls_context

    def counted(authorities: str | None) -> Any:
        made.append(authorities)
        return plain(authorities)

    monkeypatch.setattr(module, "_tls_context", counted)
    authorities, context = certified("127.0.0.1")
    transport = Transport(connections=4, connect_seconds=3, authorities=str(authorities))
    post(transport, url)
    assert made == []
    with serving(context) as one, serving(context) as other:
        for port in (one.port, other.port, one.port):
            assert isinstance(post(transport, f"https://127.0.0.1:{port}/"), Answer)
    assert made == [str(authorities)]
    transport.close()


def test_authorities_that_are_not_there_are_an_error_of_the_call(tmp_path: Path) -> None:
    transport = Transport(connections=4, connect_seconds=3, authorities=str(tmp_path / "none.pem"))
    assert isinstance(error_of(post(transport, "https://127.0.0.1:1/")), HTTPClientError)


# Proxies


def test_a_proxy_gets_plain_requests_whole_and_is_told_who_asks(
    server: Server, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:pass@127.0.0.1:{server.port}")
    assert isinstance(post(transport, "http://sqs.example/some?x=1"), Answer)
    (got,) = server.got
    assert got.line == "POST http://sqs.example/some?x=1 HTTP/1.1"
    assert got.headers["Host"] == "sqs.example"
    assert got.headers["Proxy-Authorization"] == "Basic bWU6cGFzcw=="


def test_a_proxy_carries_tls_through_a_tunnel(server: Server, certified: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"127.0.0.1:{server.port}")
    authorities, context = certified("127.0.0.1")
    with serving(context) as far:
        transport = Transport(connections=4, connect_seconds=3, authorities=str(authorities))
        assert isinstance(post(transport, f"https://127.0.0.1:{far.port}/p"), Answer)
        assert [got.line.rpartition(" ")[0] for got in server.got] == [f"CONNECT 127.0.0.1:{far.port}"]
        assert [got.path for got in far.got] == ["/p"]
        transport.close()


def test_what_no_proxy_names_is_asked_directly(
    server: Server, url: str, transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1,other")
    assert isinstance(post(transport, url), Answer)
    assert server.got[0].path == "/"


def test_a_proxy_that_is_not_there_is_named_without_its_password(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://me:hidden@127.0.0.1:1")
    error = error_of(post(transport, "http://sqs.example/"))
    assert isinstance(error, (ProxyConnectionError, EndpointConnectionError))
    assert "hidden" not in str(error)


# Calls


def settings(url: str, credentials: Callable[[], Credentials | None] = lambda: KEYS) -> Settings:
    return Settings(
        region="eu-west-1",
        use_fips=False,
        use_dualstack=False,
        account_id_mode="preferred",
        authorities=None,
        endpoint_of=lambda _: url,
        credentials=credentials,
    )


async def _no_other() -> Any:
    raise AssertionError("an aiobotocore client was asked for")


class Opener:
    """Makes clients that are closed after the test."""

    def __init__(self, environment: ProcessEnvironment) -> None:
        self._environment = environment
        self.made: list[tuple[Client, Transport]] = []

    def __call__(self, url: str, service: str = "dynamodb", *, at_once: int = 8, **options: Any) -> Client:
        read, full = options.pop("read_seconds", 10), options.pop("full", _no_other)
        transport = Transport(connections=at_once, connect_seconds=3)
        known = settings(url, **options)
        made = Client(service, known, transport, self._environment, at_once=at_once, read_seconds=read, full=full)
        self.made.append((made, transport))
        return made


@pytest.fixture
async def opened(environment: ProcessEnvironment) -> AsyncIterator[Opener]:
    made = Opener(environment)
    yield made
    for client, transport in made.made:
        client.close()
        transport.close()


def throttled(connection: Connection) -> None:
    connection.reply(400, b'{"__type": "ThrottlingException", "message": "slow"}')


async def test_a_call_is_asked_and_answered(server: Server, url: str, opened: Opener) -> None:
    server.acts.append(answer(200, {"UnprocessedItems": {}}))
    made = opened(url)
    assert await made.batch_write_item(RequestItems={"t": []}) == {"UnprocessedItems": {}}
    (got,) = server.got
    assert json.loads(got.body) == {"RequestItems": {"t": []}}
    assert got.headers["X-Amz-Target"] == "DynamoDB_20120810.BatchWriteItem"
    assert got.headers["Content-Type"] == "application/x-amz-json-1.0"
    assert got.headers["User-Agent"] == "fanout-pipeline"


async def test_calls_tell_lambda_by_whom_they_were_made_and_do_not_sign_it(
    server: Server, url: str, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = opened(url)
    await made.put_item(TableName="t")
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "price")
    await made.put_item(TableName="t")
    for count in ("a87bd80c:1|68fd508a:5", "1:e7ff9e16:3"):
        monkeypatch.setenv("_X_AMZN_TRACE_ID", f"Root=1-5759e988-bd862e3fe1be46a994272793;Lineage={count}")
        await made.put_item(TableName="t")
    assert [got.headers.get("X-Amzn-Trace-Id") for got in server.got] == [
        None,
        None,
        "Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=a87bd80c:1%7C68fd508a:5",
        "Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=1:e7ff9e16:3",
    ]
    for got in server.got:
        assert "trace" not in got.headers["Authorization"]
        assert got.headers["Authorization"].endswith(signature(got, "secret", "eu-west-1", "dynamodb"))


def signature(got: Got, secret: str, region: str, service: str) -> str:
    """What the service computes over what it got, by the rules of Signature Version 4."""
    scope, signed, _ = (part.partition("=")[2] for part in got.headers["Authorization"].partition(" ")[2].split(", "))
    headers = {name.lower(): " ".join(value.split()) for name, value in got.headers.items()}
    lines = "".join(f"{name}:{headers[name]}\n" for name in signed.split(";"))
    body = hashlib.sha256(got.body).hexdigest()
    request = f"POST\n{got.path}\n\n{lines}\n{signed}\n{body}"
    stamp, wanted = headers["x-amz-date"], scope.partition("/")[2]
    assert wanted == f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{wanted}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in wanted.split("/"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


@pytest.mark.parametrize("path", ["", "/", "/some/path/"])
@pytest.mark.parametrize("token", [None, "token+/="])
async def test_the_service_computes_the_same_signature_over_what_it_got(
    server: Server, opened: Opener, path: str, token: str | None
) -> None:
    made = opened(
        f"http://127.0.0.1:{server.port}{path}", "sqs", credentials=lambda: Fixed("AKIA", "s/e+c=", token, None)
    )
    await made.send_message_batch(QueueUrl="q", Entries=[{"MessageBody": "é\u2028😀"}])
    (got,) = server.got
    assert got.path == (path or "/")
    assert got.headers["Authorization"].endswith(f"Signature={signature(got, 's/e+c=', 'eu-west-1', 'sqs')}")
    assert "host;" in got.headers["Authorization"]
    assert got.headers.get("X-Amz-Security-Token") == token


@pytest.mark.parametrize("act", [throttled, answer(503, b""), reset])
async def test_what_passes_is_tried_again_after_a_delay(
    server: Server, url: str, opened: Opener, clock: Any, act: Act
) -> None:
    server.acts += [act, act]
    assert await opened(url).put_item(TableName="t") == {}
    assert len(server.got) == 3
    assert len(clock.slept) == 2
    assert all(0 <= slept <= longest for slept, longest in zip(clock.slept, (1, 2), strict=True))


async def test_three_tries_are_all_and_the_last_error_is_raised(
    server: Server, url: str, opened: Opener, clock: Any
) -> None:
    server.acts += [throttled] * 4
    with pytest.raises(ClientError, match=r"ThrottlingException.*PutItem operation.*slow"):
        await opened(url).put_item(TableName="t")
    server.acts.clear()
    server.acts += [reset] * 4
    with pytest.raises(ConnectionClosedError):
        await opened(url).put_item(TableName="t")
    assert len(server.got) == 6


@pytest.mark.parametrize("act", [answer(400, {"__type": "ValidationException"}), answer(403, b"{}"), answer(404, b"")])
async def test_what_will_not_pass_is_asked_once(server: Server, url: str, opened: Opener, clock: Any, act: Act) -> None:
    server.acts.append(act)
    with pytest.raises(ClientError):
        await opened(url).put_item(TableName="t")
    assert len(server.got) == 1
    assert clock.slept == []


async def test_a_page_that_is_no_answer_is_no_success(server: Server, url: str, opened: Opener) -> None:
    server.acts.append(answer(200, b"<html>sign in</html>", Content_Type="text/html"))
    with pytest.raises(ResponseParserError, match="text/html"):
        await opened(url).put_item(TableName="t")


async def test_a_kept_connection_that_died_is_replaced_at_once(
    server: Server, url: str, opened: Opener, clock: Any
) -> None:
    made = opened(url)
    server.acts += [None, reset, None, reset, reset]
    for _ in range(2):
        assert await made.put_item(TableName="t") == {}
    assert clock.slept == [], "nothing is the matter with the service"
    assert await made.put_item(TableName="t") == {}
    assert len(clock.slept) == 1, "one dead connection is replaced at once; then it is trouble"
    assert len(server.got) == 6


async def test_when_too_much_fails_nothing_is_tried_again_until_something_succeeds(
    server: Server, url: str, opened: Opener
) -> None:
    made = opened(url)
    server.acts += [throttled] * 400
    for _ in range(60):
        with pytest.raises(ClientError):
            await made.put_item(TableName="t")
    assert len(server.got) == 60 + 100, "500 tokens, 5 for each try"
    server.acts.clear()
    for _ in range(5):
        await made.put_item(TableName="t")
    server.acts.append(throttled)
    before = len(server.got)
    assert await made.put_item(TableName="t") == {}
    assert len(server.got) == before + 2


async def test_a_transaction_has_one_token_for_all_its_tries(server: Server, url: str, opened: Opener) -> None:
    made = opened(url)
    server.acts.append(throttled)
    for _ in range(2):
        await made.transact_write_items(TransactItems=[{"Put": {"TableName": "t"}}])
    await made.transact_write_items(TransactItems=[{"Put": {"TableName": "t"}}], ClientRequestToken="mine")
    first, second, third, fourth = (json.loads(got.body)["ClientRequestToken"] for got in server.got)
    assert first == second
    assert third != first
    assert fourth == "mine"
    assert 1 <= len(first) <= 36


# Clocks


def stamp(got: Got) -> float:
    found = datetime.datetime.strptime(got.headers["X-Amz-Date"], "%Y%m%dT%H%M%S%z")
    return found.timestamp()


@pytest.mark.parametrize("ahead", [-7_200, 7_200])
@pytest.mark.parametrize("code", ["RequestTimeTooSkewed", "InvalidSignatureException", "SignatureDoesNotMatch"])
async def test_a_wrong_clock_is_set_right_once(
    server: Server, url: str, opened: Opener, clock: Any, ahead: int, code: str
) -> None:
    def skewed(connection: Connection) -> None:
        date = email.utils.formatdate(time.time() + ahead, usegmt=True)
        connection.send_response_only(403)
        connection.send_header("Date", date)
        body = json.dumps({"__type": f"com.amazon.coral.service#{code}", "message": "no"}).encode()
        connection.send_header("Content-Length", str(len(body)))
        connection.end_headers()
        connection.wfile.write(body)

    made = opened(url)
    server.acts.append(skewed)
    assert await made.put_item(TableName="t") == {}
    assert await made.put_item(TableName="t") == {}
    first, second, third = server.got
    assert abs(stamp(first) - time.time()) < 60
    assert abs(stamp(second) - time.time() - ahead) < 60
    assert abs(stamp(third) - time.time() - ahead) < 60, "and stays so"
    assert server.got[1].headers["Authorization"].endswith(signature(second, "secret", "eu-west-1", "dynamodb"))
    assert clock.slept == []

    server.acts += [skewed, skewed]
    with pytest.raises(ClientError, match=code):
        await made.put_item(TableName="t")
    assert len(server.got) == 4, "the clock was right: it is something else"


@pytest.mark.parametrize("date", [{}, {"Date": "no date"}])
async def test_a_wrong_signature_by_a_right_clock_is_an_error(
    server: Server, url: str, opened: Opener, date: dict[str, str]
) -> None:
    server.acts.append(answer(403, {"__type": "InvalidSignatureException", "message": "no"}, **date))
    with pytest.raises(ClientError, match="InvalidSignatureException"):
        await opened(url).put_item(TableName="t")
    assert len(server.got) == 1


# Credentials


async def test_credentials_are_asked_for_in_a_thread_at_each_try(server: Server, url: str, opened: Opener) -> None:
    asked: list[int] = []

    def now() -> Fixed:
        asked.append(threading.get_ident())
        return Fixed(f"K{len(asked)}", "secret", None, None)

    server.acts.append(throttled)
    await opened(url, credentials=now).put_item(TableName="t")
    assert threading.get_ident() not in asked
    names = [got.headers["Authorization"].partition("Credential=")[2].partition("/")[0] for got in server.got]
    assert names == ["K1", "K2"]


async def test_no_credentials_is_the_error_that_it_is_in_botocore(server: Server, url: str, opened: Opener) -> None:
    with pytest.raises(NoCredentialsError, match="Unable to locate credentials"):
        await opened(url, credentials=lambda: None).put_item(TableName="t")
    assert server.got == []


# Other operations


class Full:
    """An aiobotocore client, as far as it is asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    async def create_table(self, **parameters: Any) -> str:
        self.asked.append(parameters)
        return "made"

    def get_waiter(self, name: str) -> Full:
        self.asked.append(name)
        return self

    async def wait(self, **parameters: Any) -> None:
        self.asked.append(parameters)


async def test_other_operations_are_those_of_the_full_client(server: Server, url: str, opened: Opener) -> None:
    full, made = Full(), list[int]()

    async def make() -> Full:
        made.append(1)
        return full

    client = opened(url, full=make)
    method = client.create_table
    waiter = client.get_waiter("table_exists")
    await client.put_item(TableName="t")
    assert made == [], "not before it is needed"
    assert await method(TableName="t") == "made"
    await waiter.wait(TableName="t")
    assert full.asked == [{"TableName": "t"}, "table_exists", {"TableName": "t"}]
    with pytest.raises(AttributeError):
        client._no_operation  # noqa: B018 - asked for


async def test_what_goes_around_calls_may_answer_change_or_fail_them(server: Server, url: str, opened: Opener) -> None:
    client, order = opened(url), list[str]()

    async def inner(call: Call, go_on: GoOn) -> dict[str, Any]:
        order.append(f"{call.service} {call.operation} {call.parameters}")
        answer = await go_on()
        return {**answer, "inner": True}

    async def outer(call: Call, go_on: GoOn) -> dict[str, Any]:
        order.append("outer")
        return {} if call.parameters["TableName"] == "answered" else await go_on()

    client.around += [inner, outer]
    assert await client.put_item(TableName="t") == {"inner": True}
    assert await client.put_item(TableName="answered") == {}
    assert order == ["outer", "dynamodb PutItem {'TableName': 't'}", "outer"]
    assert len(server.got) == 1


# Threads


async def test_a_call_that_is_cancelled_returns_at_once_and_its_connection_is_read_to_the_end(
    server: Server, url: str, opened: Opener
) -> None:
    go_on, client = threading.Event(), opened(url, at_once=2)
    server.acts.append(hang(go_on))
    task = asyncio.create_task(client.put_item(TableName="first"))
    await arrived(server)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not go_on.is_set()
    assert await client.put_item(TableName="second") == {}
    go_on.set()
    for name in ("third", "fourth"):
        assert await client.put_item(TableName=name) == {}
    first, *others = server.got
    assert all(other.connection != first.connection for other in others[:1]), "it still waited for its answer"


async def test_no_more_than_so_many_calls_run_at_once(server: Server, url: str, opened: Opener) -> None:
    go_on, client = threading.Event(), opened(url, at_once=3)
    server.acts += [hang(go_on)] * 3
    tasks = [asyncio.create_task(client.put_item(TableName=str(number))) for number in range(7)]
    await arrived(server, 3)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(server.got) == 3
    go_on.set()
    assert await asyncio.gather(*tasks) == [{}] * 7
    assert server.opened == 3


async def test_closing_waits_for_no_call(server: Server, url: str, opened: Opener) -> None:
    go_on, client = threading.Event(), opened(url)
    server.acts.append(hang(go_on))
    task = asyncio.create_task(client.put_item(TableName="t"))
    await arrived(server)
    before = time.monotonic()
    for made, transport in opened.made:
        made.close()
        transport.close()
    assert time.monotonic() - before < 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()


def test_an_answer_after_the_loop_has_ended_is_dropped_in_silence(
    server: Server, url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    go_on = threading.Event()
    server.acts.append(hang(go_on))
    kept: list[Client] = []
    transport = Transport(connections=2, connect_seconds=3)

    async def leave() -> None:
        client = Client(
            "dynamodb", settings(url), transport, ProcessEnvironment(), at_once=2, read_seconds=10, full=_no_other
        )
        kept.append(client)
        task = asyncio.create_task(client.put_item(TableName="t"))
        await arrived(server)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    before = set(threading.enumerate())
    asyncio.run(leave())
    go_on.set()
    kept[0].close()
    for thread in set(threading.enumerate()) - before:
        if thread.name.startswith("pipeline-"):
            thread.join(10)
            assert not thread.is_alive()
            assert thread.daemon
    transport.close()
    assert capfd.readouterr() == ("", "")
