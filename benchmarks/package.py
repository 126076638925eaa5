"""What is in a function's artifact: megabytes by package, before and after trimming, beside Powertools with boto3."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.children import ROOT
from benchmarks.report import Report, table
from pipeline.deploy.package import dependencies
from pipeline.deploy.package.build import PLATFORMS, Request, build

PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
#: Rows of the table by package; the others are one row.
LARGEST = 12


@dataclass(frozen=True)
class File:
    """One file of an artifact."""

    package: str
    is_bytecode: bool
    size: int
    zipped: int


def run() -> Report:
    """Three artifacts, each made once: sizes do not vary."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        begun = time.perf_counter()
        build(Request(scratch / "ours", ROOT, python=PYTHON, platform=_machine()), lambda _: None)
        seconds = time.perf_counter() - begun
        requirements = dependencies.requirements(ROOT, scratch)
        _pip(scratch / "plain", "--no-deps", "--require-hashes", "-r", str(requirements))
        for package in ("pipeline", "handlers"):
            shutil.copytree(ROOT / package, scratch / "plain" / package, ignore=shutil.ignore_patterns("__pycache__"))
        _compile(scratch / "plain")
        theirs = [f"{one}=={version(one)}" for one in ("aws-lambda-powertools", "boto3")]
        _pip(scratch / "theirs", *theirs)
        ours, plain, powertools = (list(_files(scratch / one)) for one in ("ours", "plain", "theirs"))
    sides = {"ours": ours, "the same, by pip install --target": plain, "Powertools and boto3, by pip": powertools}
    return Report(
        "package",
        f"The artifact of this repository's functions for {_machine()}, Python {PYTHON}, as `pipeline package` makes it "
        f"({seconds:.0f} s, wheels cached), beside a plain installation of the same lock file with both packages copied "
        f"whole, and {' with '.join(theirs)}. MB of 10^6 bytes; zipped is each file deflated, as in a zip file",
        [
            table(
                ["MB", "sources", "with bytecode", "zipped", "with bytecode"],
                [[name, *(f"{value:.1f}" for value in _totals(files).values())] for name, files in sides.items()],
            ),
            "By package, MB: sources before and after trimming, then with bytecode, then all of it zipped:",
            table(["", "before", "after", "with bytecode", "zipped"], _by_package(plain, ours)),
        ],
        {
            "seconds": seconds,
            "totals": {name: _totals(files) for name, files in sides.items()},
            "by_package": {name: _sizes(files, lambda file: file.size) for name, files in sides.items()},
        },
    )


def _totals(files: list[File]) -> dict[str, float]:
    sources = [file for file in files if not file.is_bytecode]
    return {
        "sources": sum(file.size for file in sources) / 1e6,
        "with_bytecode": sum(file.size for file in files) / 1e6,
        "sources_zipped": sum(file.zipped for file in sources) / 1e6,
        "with_bytecode_zipped": sum(file.zipped for file in files) / 1e6,
    }


def _by_package(before: list[File], after: list[File]) -> list[list[str]]:
    columns = [
        _sizes([file for file in before if not file.is_bytecode], lambda file: file.size),
        _sizes([file for file in after if not file.is_bytecode], lambda file: file.size),
        _sizes(after, lambda file: file.size),
        _sizes(after, lambda file: file.zipped),
    ]
    names = sorted(columns[0], key=lambda name: -columns[0][name])
    rows = [[name, *(f"{column.get(name, 0):.2f}" for column in columns)] for name in names[:LARGEST]]
    rest = [sum(column.get(name, 0) for name in names[LARGEST:]) for column in columns]
    return [*rows, [f"{len(names) - LARGEST} others", *(f"{value:.2f}" for value in rest)]]


def _sizes(files: list[File], of: Callable[[File], int]) -> dict[str, float]:
    """Megabytes by package."""
    found: Counter[str] = Counter()
    for file in files:
        found[file.package] += of(file)
    return {name: size / 1e6 for name, size in found.most_common()}


def _files(directory: Path) -> Iterator[File]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            parts = path.relative_to(directory).parts
            top = path.name.partition(".")[0] if parts[0] == "__pycache__" else parts[0].removesuffix(".py")
            yield File(
                package="metadata (*.dist-info)" if top.endswith(".dist-info") else top,
                is_bytecode=path.suffix == ".pyc",
                size=path.stat().st_size,
                zipped=len(zlib.compress(path.read_bytes(), wbits=-15)),
            )


def _pip(into: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--target", str(into)]
    subprocess.run([*command, *arguments], check=True, capture_output=True)


def _compile(directory: Path) -> None:
    subprocess.run([sys.executable, "-m", "compileall", "-qq", str(directory)], check=False)


def _machine() -> str:
    return PLATFORMS[{"AMD64": "x86_64"}.get(platform.machine(), platform.machine())]
