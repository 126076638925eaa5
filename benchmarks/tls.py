"""A stand-in for DynamoDB and SQS behind TLS: it answers at once, and remembers nothing.

Its clients trust it through a file with a full set of authorities, as real clients have, and one more.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

#: Answers that do not depend on the request.
_ANSWERS: dict[str, dict[str, Any]] = {
    "PutItem": {},
    "UpdateItem": {},
    "DeleteItem": {},
    "BatchWriteItem": {"UnprocessedItems": {}},
    "TransactWriteItems": {},
    "SendMessage": {"MessageId": "m", "MD5OfMessageBody": "-"},
}


class Service(BaseHTTPRequestHandler):
    """One connection; an operation is named in a header."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        self.request.do_handshake()
        super().setup()

    def do_POST(self) -> None:
        sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        reply = json.dumps(self._answer(operation, sent)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def _answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        match operation:
            case "GetQueueUrl":
                host, port = self.server.server_address[:2]
                return {"QueueUrl": f"https://{host}:{port}/123456789012/{request['QueueName']}"}
            case "SendMessageBatch":
                sent = [{"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "-"} for entry in request["Entries"]]
                return {"Successful": sent, "Failed": []}
            case "BatchExecuteStatement":
                return {"Responses": [{} for _ in request["Statements"]]}
            case "BatchGetItem":
                return {"Responses": {table: [] for table in request["RequestItems"]}, "UnprocessedKeys": {}}
            case _:
                return _ANSWERS[operation]

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the library
        pass


@contextmanager
def serving() -> Iterator[dict[str, str]]:
    """The stand-in in a process of its own; yields the environment variables by which clients find and trust it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_certificate(folder)
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.tls", name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            bundle = str(folder / "authorities.pem")
            url = f"https://127.0.0.1:{int(process.stdout.readline())}"
            yield {"AWS_ENDPOINT_URL": url, "AWS_CA_BUNDLE": bundle, "SSL_CERT_FILE": bundle}
        finally:
            process.kill()
            process.communicate()


def authorities(bundle: str) -> int:
    """How many certificates a file holds."""
    return Path(bundle).read_text().count("BEGIN CERTIFICATE")


def _write_certificate(folder: Path) -> None:
    """A certificate for 127.0.0.1, its key, and botocore's authorities with this one added."""
    import botocore
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a stand-in on loopback")])
    now = datetime.datetime.now(tz=datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(secret + certificate)
    trusted = Path(botocore.__file__).with_name("cacert.pem").read_bytes()
    (folder / "authorities.pem").write_bytes(trusted + b"\n" + certificate)


def _serve(folder: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    # The handshake is made in the connection's own thread.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
