"""Users' projects outside of this repository, and the command run in them."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent.parent
#: This machine's own, so that what is built can be run here.
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
MACHINE = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
_NO_INDEX = re.compile(
    r"error sending request|failed to fetch|dns error|could not connect|client error \(connect\)", re.IGNORECASE
)

ORDERS = '''
"""Orders, priced."""

import json
import os
from importlib import resources

import clock
import helper
from pipeline import Pipeline, sinks, sources

NAME = os.environ.get("SHOP", "shop")
PRICES = json.loads(resources.files("shop").joinpath("prices.json").read_text())

shop = Pipeline(NAME)


@shop.handler(
    sources.SQS(f"{NAME}-orders"),
    sinks=[
        sinks.DynamoDB(f"{NAME}-ledger", partition_key="order_id"),
        sinks.SQS(f"{NAME}-invoices"),
        sinks.EventBridge("default", detail_type="order.priced"),
        sinks.Kinesis(f"{NAME}-lines", partition_key="order_id"),
        sinks.S3(f"{NAME}-archive"),
    ],
    key="order_id",
)
async def price(order: dict) -> dict:
    return {"order_id": order["order_id"], "cents": PRICES[order["sku"]], "at": clock.NOON, "by": helper.NAME}
'''

#: What of it belongs in the artifact.
OWN = [
    "clock.py",
    "shop/__init__.py",
    "shop/orders.py",
    "shop/prices.json",
    "shop/settings.yaml",
    "templates/letter.txt",
]


def write(directory: Path, files: dict[str, str]) -> Path:
    """A tree of text files."""
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return directory


def shop(directory: Path, **more: str) -> Path:
    """A project with a package, a module, data, tests, an environment of its own and things beside them."""
    site = f".venv/lib/python{PYTHON}/site-packages"
    return write(
        directory,
        {
            "pyproject.toml": '[tool.pipeline]\napp = "shop.orders:shop"\ninclude = ["templates"]\nservices = ["translate"]\n',
            "shop/__init__.py": "",
            "shop/orders.py": ORDERS,
            "shop/prices.json": '{"tea": 250}',
            "shop/settings.yaml": "voice: polly  # a service that only this file names\n",
            "shop/types.pyi": "",
            "shop/tests/__init__.py": "",
            "shop/tests/test_orders.py": "",
            "shop/.cache/secret": "",
            "shop/.env": "",
            "shop/__pycache__/orders.cpython-39.pyc": "",
            "clock.py": "NOON = 12\n",
            "unused.py": "",
            "other/__init__.py": "",
            "templates/letter.txt": "Dear",
            "tests/test_shop.py": "",
            ".venv/pyvenv.cfg": "",
            f"{site}/helper.py": 'NAME = "helper"\n',
            ".git/config": "",
            **more,
        },
    )


def package(project: Path, *arguments: object, path: str | None = None) -> subprocess.CompletedProcess[str]:
    """`pipeline package ARGUMENTS` in a project, with the project's environment on the Python path."""
    environment = {
        **os.environ,
        "PATH": f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ['PATH']}" if path is None else path,
        "PYTHONPATH": str(project / f".venv/lib/python{PYTHON}/site-packages"),
        "PIPELINE_PACKAGE_PYTHON": PYTHON,
        "PIPELINE_PACKAGE_PLATFORM": MACHINE,
    }
    command = [sys.executable, "-P", "-m", "pipeline", "package", *map(str, arguments)]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def done(result: subprocess.CompletedProcess[str]) -> str:
    """What a command printed that had to succeed; the test is skipped when it needed an index and there is none."""
    if result.returncode != 0 and _NO_INDEX.search(result.stderr):
        message = f"the package index is out of reach: {result.stderr.strip()[-300:]}"
        if os.environ.get("PIPELINE_REQUIRE_SERVERS"):
            pytest.fail(message)
        pytest.skip(message)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def make(target: str, directory: Path) -> None:
    """A target of this repository's Makefile, as `sam build --build-in-source` calls it, for this machine."""
    # The environment is there, because these tests run in it.
    command = ["make", "--assume-old=.venv/.has-demo", "--makefile", str(ROOT / "Makefile"), target]
    environment = {
        **os.environ,
        "ARTIFACTS_DIR": str(directory),
        "PIPELINE_PACKAGE_PYTHON": PYTHON,
        "PIPELINE_PACKAGE_PLATFORM": MACHINE,
    }
    done(subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False))


def uv(*arguments: object, cwd: Path = ROOT) -> str:
    """uv, from this repository's tools or from the PATH."""
    found = shutil.which("uv", path=f"{ROOT / '.tools' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.fail("uv is needed: pip install uv")
    environment = {**os.environ, "UV_PYTHON_DOWNLOADS": "never"}
    command = [found, *map(str, arguments), "--python", sys.executable]
    return done(subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False))


def names(directory: Path) -> set[str]:
    """Every file below a directory, bytecode left out."""
    return {
        path.relative_to(directory).as_posix()
        for path in directory.rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }


def digest(directory: Path) -> str:
    """Of names, contents, permissions and times: all that a zip file has of a tree."""
    tree = [
        (
            path.relative_to(directory).as_posix(),
            path.stat().st_mode,
            path.stat().st_mtime,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(directory.rglob("*"))
    ]
    return hashlib.sha256(json.dumps(tree).encode()).hexdigest()
