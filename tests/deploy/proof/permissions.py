"""Which permissions a function used: the calls on their way to AWS, in IAM's words."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

#: Of requests and answers; the server behind has its own connection.
_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"}


class Use(NamedTuple):
    """One permission that a call needs."""

    action: str
    resource: str


class Recorder:
    """A proxy on loopback that carries everything out, and keeps which permissions it needed."""

    def __init__(self, upstream: str, *, account: str, region: str) -> None:
        self.used: set[Use] = set()
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0),
            _routes(
                urlsplit(upstream).netloc,
                lambda *call: self.used.update(needed(*call, place=f"{region}:{account}")),
            ),
        )
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def needed(method: str, url: str, target: str, body: bytes, *, place: str) -> Iterator[Use]:
    """What a call needs, as AWS's service authorization reference has it; `ValueError` for a call not known here."""
    service, _, operation = target.partition(".")
    members = json.loads(body) if service else {}
    match service:
        case "AmazonSQS":
            queue = members["QueueUrl"].rpartition("/")[2]
            yield Use(f"sqs:{operation.removesuffix('Batch')}", f"arn:aws:sqs:{place}:{queue}")
        case "DynamoDB_20120810":
            tables = members["RequestItems"] if "RequestItems" in members else [members["TableName"]]
            for table in tables:
                yield Use(f"dynamodb:{operation}", f"arn:aws:dynamodb:{place}:table/{table}")
        case "AWSEvents":
            for entry in members["Entries"]:
                bus = entry["EventBusName"].rpartition("/")[2]
                yield Use(f"events:{operation}", f"arn:aws:events:{place}:event-bus/{bus}")
        case "Kinesis_20131202":
            yield Use(f"kinesis:{operation}", f"arn:aws:kinesis:{place}:stream/{members['StreamName']}")
        case "":
            path, query = urlsplit(url).path, parse_qs(urlsplit(url).query, keep_blank_values=True)
            yield Use(f"s3:{_object_action(method, query)}", f"arn:aws:s3:::{path.lstrip('/')}")
        case _:
            raise ValueError(f"{target} is not known here: add it")


def allowed(use: Use, statements: list[dict[str, Any]]) -> bool:
    """Whether a role's statements, which only allow, cover a use."""
    return any(
        use.action in _listed(statement["Action"])
        and any(fnmatchcase(use.resource, pattern) for pattern in _listed(statement["Resource"]))
        for statement in statements
        if statement["Effect"] == "Allow"
    )


def _object_action(method: str, query: Mapping[str, Any]) -> str:
    match method:
        case "PUT" | "POST" if method == "PUT" or {"uploads", "uploadId"} & set(query):
            return "PutObject"
        case "DELETE" if "uploadId" in query:
            return "AbortMultipartUpload"
        case _:
            raise ValueError(f"{method} with {sorted(query)} is not known here: add it")


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _routes(upstream: str, record: Callable[[str, str, str, bytes], None]) -> type[BaseHTTPRequestHandler]:
    class Routes(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _carry_out(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            record(self.command, self.path, self.headers.get("X-Amz-Target", ""), body)
            connection = http.client.HTTPConnection(upstream, timeout=30)
            sent = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
            connection.request(self.command, self.path, body, sent)
            answer = connection.getresponse()
            text = answer.read()
            connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def do_POST(self) -> None:
            self._carry_out()

        def do_PUT(self) -> None:
            self._carry_out()

        def do_DELETE(self) -> None:
            self._carry_out()

        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

    return Routes
