"""A stand-in for DynamoDB, SQS, Kinesis and S3 on loopback: it answers at once, and remembers nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Stub(BaseHTTPRequestHandler):
    """One connection. All but S3 speak JSON, and name the operation in a header."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if "X-Amz-Target" not in self.headers:
            self._reply(self._upload(), "application/xml")
            return
        operation = self.headers["X-Amz-Target"].rpartition(".")[2]
        self._reply(json.dumps(self._answer(operation, json.loads(sent))).encode(), "application/x-amz-json-1.0")

    def do_PUT(self) -> None:
        """S3: an object, or a part of one."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self._reply(b"", "application/xml", ETag='"stub"')

    def handle_expect_100(self) -> bool:
        """S3's clients wait for this before they send a body; the library leaves it in the buffer."""
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _reply(self, reply: bytes, kind: str, **headers: str) -> None:
        self.send_response(200)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(reply)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply)

    def _upload(self) -> bytes:
        """S3: an upload in parts begins, or is complete."""
        if self.path.endswith("?uploads"):
            return b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
        return b"<CompleteMultipartUploadResult><ETag>stub</ETag></CompleteMultipartUploadResult>"

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
        if operation == "PutRecords":
            return {
                "FailedRecordCount": 0,
                "Records": [{"SequenceNumber": "1", "ShardId": "s"}] * len(request["Records"]),
            }
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
