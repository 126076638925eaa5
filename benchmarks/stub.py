"""A stand-in for DynamoDB and SQS on loopback: it answers at once, and remembers nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Stub(BaseHTTPRequestHandler):
    """One connection. Both services speak JSON, and name the operation in a header."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        reply = json.dumps(self._answer(operation, request)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def _answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        if operation == "GetQueueUrl":
            host, port = self.server.server_address[:2]
            return {"QueueUrl": f"http://{host}:{port}/123456789012/{request['QueueName']}"}
        if operation == "SendMessageBatch":
            return {
                "Successful": [
                    {"Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "-"} for entry in request["Entries"]
                ],
                "Failed": [],
            }
        if operation == "SendMessage":
            return {"MessageId": "m", "MD5OfMessageBody": "-"}
        if operation in ("PutItem", "UpdateItem", "DeleteItem"):
            return {}
        raise ValueError(f"the stub does not know {operation}")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the library
        pass


@contextmanager
def running() -> Iterator[str]:
    """The stub in a process of its own; yields its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.stub"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), Stub)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
