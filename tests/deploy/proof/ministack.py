"""MiniStack: AWS's services, CloudFormation among them, on this machine; the other stand-in beside moto."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections import deque
from functools import cached_property
from typing import Any

import boto3

from tests.deploy.proof.tools import CREDENTIALS, clean_environment, require, tool

_START_SECONDS = 60
_READY = "Running on http"


class MiniStack:
    """The server, in a process of its own."""

    def __init__(self) -> None:
        port = _free_port()
        self.endpoint_url = f"http://127.0.0.1:{port}"
        # By itself it listens on every interface, and opens a port for MQTT.
        own = {"GATEWAY_PORT": str(port), "BIND_HOST": "127.0.0.1", "IOT_MTLS_ENABLED": "0"}
        self._process = subprocess.Popen(
            [tool("ministack")], env=clean_environment(**own),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self._lines: deque[str] = deque(maxlen=50)
        self._clients: dict[str, Any] = {}
        self._wait()
        threading.Thread(target=self._read, daemon=True).start()

    def client(self, service: str) -> Any:
        if service not in self._clients:
            self._clients[service] = self._session.client(service, endpoint_url=self.endpoint_url)
        return self._clients[service]

    def stop(self) -> None:
        for client in self._clients.values():
            client.close()
        self._process.kill()
        self._process.wait()

    @cached_property
    def _session(self) -> Any:
        return boto3.Session(
            CREDENTIALS["AWS_ACCESS_KEY_ID"],
            CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=CREDENTIALS["AWS_REGION"],
        )

    def _wait(self) -> None:
        """Until it says that it listens."""
        assert self._process.stdout is not None
        timer = threading.Timer(_START_SECONDS, self._process.kill)
        timer.start()
        for line in self._process.stdout:
            self._lines.append(line)
            if _READY in line:
                timer.cancel()
                return
        timer.cancel()
        require(f"MiniStack did not start: {''.join(self._lines)[-500:]}")

    def _read(self) -> None:
        """What it says from here on is noise, but a full pipe would stop it."""
        assert self._process.stdout is not None
        with self._process.stdout as output:
            self._lines.extend(output)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
