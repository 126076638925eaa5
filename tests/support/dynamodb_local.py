"""AWS's own DynamoDB Local: downloaded once, below .tools/, and started by the tests that need it.

It is the oracle for statements and conditions: moto accepts a second INSERT of one key. Needs `java` (17 or later) and,
for the download of 51 MB from Maven Central, `mvn`. Tests that use the fixture `dynamodb_local`, or whose parameter has
the mark of that name, make sure of the download before the first test runs: it takes longer than a test may.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_POM = Path(__file__).with_suffix(".pom.xml")
_CACHE = Path(__file__).parents[2] / ".tools" / "dynamodb-local"
_INSTALL_SECONDS, _START_SECONDS = 600, 40

#: For parameters that get the fixture by its name.
MARK = "dynamodb_local"


class NotToBeHad(Exception):
    """There is no DynamoDB Local here, and why."""


def version() -> str:
    """The pinned version."""
    (found,) = re.findall(r"<artifactId>DynamoDBLocal</artifactId>\s*<version>([^<]+)<", _POM.read_text())
    return str(found)


def installed() -> Path:
    """The directory with its `lib`, downloaded if it is not there yet. Raises `NotToBeHad`."""
    home = _CACHE / version()
    if home.is_dir():
        return home
    _CACHE.mkdir(parents=True, exist_ok=True)
    with _CACHE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several workers one downloads, and the others wait
        if not home.is_dir():
            _download(home)
    return home


def _download(home: Path) -> None:
    for command in ("java", "mvn"):
        if shutil.which(command) is None:
            raise NotToBeHad(f"DynamoDB Local {version()} cannot be downloaded: there is no `{command}`")
    with tempfile.TemporaryDirectory(dir=_CACHE, prefix=".download-") as scratch:
        command = [
            "mvn",
            "-q",
            "-B",
            "-f",
            str(_POM),
            "dependency:copy-dependencies",
            f"-DoutputDirectory={scratch}/lib",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS)
        except subprocess.TimeoutExpired:
            raise NotToBeHad(f"DynamoDB Local {version()}: no download within {_INSTALL_SECONDS} s") from None
        if done.returncode:
            said = (done.stdout + done.stderr).strip()[-500:]
            raise NotToBeHad(f"DynamoDB Local {version()} cannot be downloaded: {said}")
        made = Path(scratch) / "made"
        made.mkdir()
        (Path(scratch) / "lib").rename(made / "lib")
        made.rename(home)  # whole, or not at all


def require(why: object) -> None:
    """Skip the test; in CI it fails instead, because a proof that did not run proves nothing."""
    if os.environ.get("PIPELINE_REQUIRE_SERVERS"):
        pytest.fail(f"{why} (PIPELINE_REQUIRE_SERVERS is set)", pytrace=False)
    pytest.skip(str(why))


def is_needed_by(item: pytest.Item) -> bool:
    """Whether a collected test uses it."""
    return MARK in getattr(item, "fixturenames", ()) or item.get_closest_marker(MARK) is not None


@contextlib.contextmanager
def running() -> Iterator[str]:
    """The URL of a server of its own, which is empty and keeps everything in memory. Raises `NotToBeHad`."""
    if shutil.which("java") is None:
        raise NotToBeHad("DynamoDB Local cannot run: there is no `java`")
    home, port = installed(), _free_port()
    java = [
        "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-Djava.library.path=lib", "-cp", "lib/*",
        "com.amazonaws.services.dynamodbv2.local.main.ServerRunner", "-inMemory", "-disableTelemetry", "-port", str(port),
    ]  # fmt: skip
    # It ends when our end of the pipe is closed: also when this process is killed.
    shell = ["sh", "-c", '"$@" </dev/null & server=$!; read -r _; kill $server; wait $server', "sh", *java]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(shell, cwd=home, stdin=subprocess.PIPE, stdout=log, stderr=log, env=_variables())
        try:
            _await(port, process)
        except TimeoutError:
            log.seek(0)
            said = log.read().decode(errors="replace").strip()[-500:] or "it said nothing"
            raise NotToBeHad(f"DynamoDB Local does not start: {said}") from None
        else:
            yield f"http://127.0.0.1:{port}"
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait()


def _variables() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "JAVA_", "_JAVA"))}
    return {**kept, "DDB_LOCAL_TELEMETRY": "0"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until it answers: with an error, because the request has no signature."""
    ends, pause = time.monotonic() + _START_SECONDS, threading.Event()
    while time.monotonic() < ends and process.poll() is None:
        with contextlib.suppress(OSError):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            try:
                connection.request("POST", "/", b"{}")
                connection.getresponse().read()
                return
            finally:
                connection.close()
        pause.wait(0.1)
    raise TimeoutError
