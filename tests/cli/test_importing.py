"""Importing a user's module touches no network, and what it tried is said with the user's own line."""

from __future__ import annotations

import socket
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from pipeline.cli import importing, targets

SHOP = """
from pipeline import Pipeline
shop = Pipeline("shop")
"""
#: An address for documentation (RFC 5737): nothing answers there, should the watch not refuse.
AWAY = "192.0.2.1"
KEYS = dict(aws_access_key_id="a", aws_secret_access_key="b", region_name="eu-west-1")  # noqa: C408


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in (
        "AWS_PROFILE",
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_EC2_METADATA_DISABLED",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # botocore waits before it tries again
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def load(project: Path, source: str) -> str | None:
    """Import it as every command does; what was refused."""
    (project / "reaching.py").write_text(textwrap.dedent(source) + SHOP)
    try:
        assert [pipeline.name for pipeline in targets.load("reaching")] == ["shop"]
    except click.UsageError as error:
        return error.message
    return None


REACHING = {
    "boto3": (f"import boto3\ns3 = boto3.client('s3', **{KEYS})\ns3.list_buckets()", "s3.eu-west-1.amazonaws.com", 3),
    "credentials of an instance": ("import urllib.request\n\nurllib.request.urlopen('http://169.254.169.254/latest/meta-data/iam/')", "169.254.169.254", 3),
    "aiobotocore": (
        f"""import asyncio
from aiobotocore.session import get_session

async def look():
    async with get_session().create_client("sqs", **{KEYS}) as sqs:
        await sqs.list_queues()

asyncio.run(look())""",
        "sqs.eu-west-1.amazonaws.com",
        (6, 8),
    ),
    "urllib": (f"import urllib.request\nurllib.request.urlopen('http://{AWAY}:81/')", f"{AWAY}:81", 2),
    "a name": ("import urllib.request\nurllib.request.urlopen('https://example.com/')", "example.com:443", 2),
    "a socket": (f"import socket\nsocket.create_connection(('{AWAY}', 82), 1)", f"{AWAY}:82", 2),
    "a raw socket": (f"import socket\nwith socket.socket() as one:\n    one.connect(('{AWAY}', 83))", f"{AWAY}:83", 3),
    "a datagram": (f"import socket\nwith socket.socket(type=socket.SOCK_DGRAM) as one:\n    one.sendto(b'x', ('{AWAY}', 84))", f"{AWAY}:84", 3),
    "a datagram's parts": (f"import socket\nwith socket.socket(type=socket.SOCK_DGRAM) as one:\n    one.sendmsg([b'x'], [], 0, ('{AWAY}', 85))", f"{AWAY}:85", 3),
    "connect_ex": (f"import socket\nwith socket.socket() as one:\n    one.connect_ex(('{AWAY}', 86))", f"{AWAY}:86", 3),
    "IPv6": ("import socket\nwith socket.socket(socket.AF_INET6) as one:\n    one.connect(('2001:db8::1', 87))", "2001:db8::1:87", 3),
    "a look-up only": ("import socket\nsocket.getaddrinfo('example.com', 443)", "example.com:443", 2),
    "an old look-up": ("import socket\nsocket.gethostbyname('example.com')", "example.com", 2),
    "an old look-up with aliases": ("import socket\nsocket.gethostbyname_ex('example.com')", "example.com", 2),
    "a look-up of an address": (f"import socket\nsocket.gethostbyaddr('{AWAY}')", AWAY, 2),
    "a thread": (
        (f"import socket, threading\n\ndef reach():\n    try:\n        socket.create_connection(('{AWAY}', 88), 1)\n    except OSError:\n        pass\n\n"
        "one = threading.Thread(target=reach)\none.start()\none.join()"),
        f"{AWAY}:88",
        5,
    ),
    "a thread of a pool": (
        "import socket\nfrom concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor() as pool:\n    list(pool.map(socket.gethostbyname, ['example.com']))",
        "example.com",
        (3, 4),
    ),
    "hidden": (f"import socket\ntry:\n    socket.create_connection(('{AWAY}', 89), 1)\nexcept Exception:\n    pass", f"{AWAY}:89", 3),
    "hidden by leaving": (f"import socket\ntry:\n    socket.create_connection(('{AWAY}', 90), 1)\nexcept Exception:\n    raise SystemExit(0)", f"{AWAY}:90", 3),
}  # fmt: skip


@pytest.mark.parametrize("name", REACHING)
def test_reaching_a_network_while_being_imported_is_refused(project: Path, name: str) -> None:
    source, address, line = REACHING[name]
    said = load(project, source)

    assert said is not None, "it was let through"
    assert "importing 'reaching' tried to connect to" in said
    assert address in said
    lines = line if isinstance(line, tuple) else (line,)
    assert any(f"({project / 'reaching.py'}, line {one})" in said for one in lines), said
    assert "@pipeline.resource" in said
    assert len(said) < 400 + len(str(project))


FINE = {
    "a client that is not called": f"import boto3\ns3 = boto3.client('s3', **{KEYS})",
    "a child process": "import subprocess, sys\nassert subprocess.run([sys.executable, '-c', 'print(1)'], capture_output=True).stdout == b'1\\n'",
    "a socket of this machine": (
        "import socket, tempfile, os\nplace = os.path.join(tempfile.mkdtemp(), 's')\nserver = socket.socket(socket.AF_UNIX)\nserver.bind(place)\nserver.listen()\n"
        "client = socket.socket(socket.AF_UNIX)\nclient.connect(place)\nserver.accept()[0].close()\nclient.close()\nserver.close()"
    ),
    "a pair of sockets": "import socket\none, other = socket.socketpair()\none.send(b'x')\none.close()\nother.close()",
    "files": "from pathlib import Path\nassert Path(__file__).read_text()",
    "a loop": "import asyncio\nasyncio.run(asyncio.sleep(0))",
    "the name of this machine": "import socket\nsocket.gethostname()",
}  # fmt: skip


@pytest.mark.parametrize("name", FINE)
@pytest.mark.filterwarnings("default::ResourceWarning")
def test_what_stays_on_this_machine_is_let(project: Path, name: str) -> None:
    assert load(project, FINE[name]) is None


@pytest.mark.parametrize(
    "source", [FINE["files"], REACHING["a socket"][0], REACHING["hidden"][0], "raise ValueError('x')"]
)
def test_afterwards_connections_are_made_again(project: Path, source: str) -> None:
    load(project, source)

    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 5).close()
        assert socket.gethostbyname("127.0.0.1") == "127.0.0.1"


def test_the_next_module_is_not_blamed(project: Path) -> None:
    assert load(project, REACHING["hidden"][0]) is not None
    sys.modules.pop("reaching")

    assert load(project, FINE["files"]) is None


def test_inside_one_another_both_are_watched() -> None:
    with pytest.raises(click.UsageError, match=r"importing 'outer' tried"), importing.watched("outer"):
        with importing.watched("inner"):
            pass
        with pytest.raises(OSError, match="no connection"):
            socket.create_connection((AWAY, 91), 1)
