"""A small server that answers some calls like AWS, and hands the others on to another server."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

#: Status and body, by the operation's name, from its parameters.
Answer = Callable[[dict[str, Any]], tuple[int, Any]]


class Standing:
    """What a stand-in answers, and what it was asked."""

    def __init__(self, answers: Mapping[str, Answer], behind: str | None = None) -> None:
        self.answers = dict(answers)
        self.behind = behind
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.endpoint_url = ""

    def calls(self, operation: str) -> list[dict[str, Any]]:
        """The parameters of each call of an operation."""
        return [parameters for name, parameters in self.asked if name == operation]


@contextmanager
def standing(answers: Mapping[str, Answer], behind: str | None = None) -> Iterator[Standing]:
    """A server on a free port. Paths under /pipeline/ are not there."""
    standing = Standing(answers, behind)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, kind, answer = _answer(standing, self.path, dict(self.headers), body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    standing.endpoint_url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield standing
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answer(standing: Standing, path: str, headers: dict[str, str], body: bytes) -> tuple[int, str, bytes]:
    target = headers.get("X-Amz-Target") or headers.get("x-amz-target")
    if path.startswith("/pipeline/"):
        return 404, "text/html", b"<html>"
    if target is None:
        parameters: dict[str, Any] = {name: value for name, (value, *_) in parse_qs(body.decode()).items()}
        operation = str(parameters.pop("Action", ""))
    else:
        operation, parameters = target.rpartition(".")[2], json.loads(body or b"{}")
    standing.asked.append((operation, parameters))
    if operation in standing.answers:
        status, answer = standing.answers[operation](parameters)
        if isinstance(answer, bytes):
            return status, "text/xml", answer
        return status, "application/x-amz-json-1.1", json.dumps(answer).encode()
    assert standing.behind is not None, operation
    request = urllib.request.Request(f"{standing.behind}{path}", data=body, headers=headers, method="POST")  # noqa: S310
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310
            return response.status, response.headers["Content-Type"], response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def refused(code: str, message: str = "not today", status: int = 400) -> Answer:
    """An error of a JSON protocol."""
    return lambda _: (status, {"__type": code, "message": message})


def stack_of(resources: Mapping[str, tuple[str, str]]) -> Answer:
    """ListStackResources: kind and physical id by logical id, one to a page."""

    def answer(parameters: dict[str, Any]) -> tuple[int, bytes]:
        if parameters["StackName"] != "shop":
            text = f"Stack with id {parameters['StackName']} does not exist"
            return (
                400,
                f"<ErrorResponse><Error><Type>Sender</Type><Code>ValidationError</Code><Message>{text}</Message></Error></ErrorResponse>".encode(),
            )
        number = int(parameters.get("NextToken", 0))
        name, (kind, physical) = list(resources.items())[number]
        following = f"<NextToken>{number + 1}</NextToken>" if number + 1 < len(resources) else ""
        member = (
            f"<member><LogicalResourceId>{name}</LogicalResourceId><ResourceType>{kind}</ResourceType>"
            f"<PhysicalResourceId>{escape(physical)}</PhysicalResourceId><ResourceStatus>CREATE_COMPLETE</ResourceStatus>"
            "<LastUpdatedTimestamp>2026-11-21T10:00:00Z</LastUpdatedTimestamp></member>"
        )
        return 200, (
            "<ListStackResourcesResponse xmlns='http://cloudformation.amazonaws.com/doc/2010-05-15/'><ListStackResourcesResult>"
            f"<StackResourceSummaries>{member}</StackResourceSummaries>{following}"
            "</ListStackResourcesResult></ListStackResourcesResponse>"
        ).encode()

    return answer
