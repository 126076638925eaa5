"""What an artifact carries and no function can use. Only what is certain to be unused goes.

- Files that build or check a package, and the notes of its installation.
- Directories of tests that nothing outside of them imports.
- The command line, the local run, the deployment and the testing of this toolkit, unless the code imports them.
- Of botocore's data, which is most of what is installed: examples, and the models of services that no
  source mentions. botocore makes a client from the text that names its service, so a service that
  the code can ask for stands in some source, or comes from outside: then `[tool.pipeline] services` says so.
"""

from __future__ import annotations

import csv
import difflib
import io
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from pipeline.deploy.package.scan import Scan
from pipeline.errors import ConfigurationError

#: botocore itself asks for these: credentials from a role, a web identity, or a profile.
_FOR_CREDENTIALS = frozenset({"signin", "sso", "sso-oidc", "sts"})
#: Names that botocore takes for others.
_ALIASES = {"runtime.sagemaker": "sagemaker-runtime"}
#: Cython's and C's sources, type stubs, bytecode of another installation.
_UNUSED_SUFFIXES = frozenset({".c", ".pxd", ".pxi", ".pyc", ".pyi", ".pyx"})
#: What importlib.metadata reads, and what the licences ask for when a layer is shared.
_METADATA = frozenset({"METADATA", "RECORD", "entry_points.txt", "top_level.txt"})
_LICENCES = ("LICEN", "NOTICE", "COPYING", "AUTHORS")
#: The toolkit's package, and what of it a deployed function never imports.
TOOLKIT = "pipeline"
_FOR_ELSEWHERE = tuple(
    f"{TOOLKIT}/{name}"
    for name in ("cli", "deploy", "emulator", "testing", "aws/cloudformation", "aws/operators", "__main__.py")
)


def unused_files(site: Path, scan: Scan, loaded: Collection[str]) -> None:
    """Remove, below the directory that modules are imported from, what no function can use.

    `loaded` are modules that are known to be imported.
    """
    shutil.rmtree(site / "bin", ignore_errors=True)  # scripts, which name the interpreter that installed them
    (site / ".lock").unlink(missing_ok=True)  # uv's own
    for path in _files(site):
        if path.suffix in _UNUSED_SUFFIXES and not (path.suffix == ".pyi" and scan.reads_stubs):
            path.unlink()
    mentioned = {*scan.imports, *(("", name) for name in loaded)}
    about_tests = [(who, what) for who, what in mentioned if "test" in what]
    for path in sorted(site.rglob("test*")):
        if path.name in ("test", "tests") and path.is_dir():
            dotted = ".".join(path.relative_to(site).parts)
            if not any(_within(what, dotted) and not _within(who, dotted) for who, what in about_tests):
                shutil.rmtree(path)
    for path in sorted(site.glob("*.dist-info")):
        _trim_metadata(path)


def toolkit(site: Path, loaded: Collection[str]) -> None:
    """Remove, of an installed toolkit, what it has for other places than Lambda."""
    if any(site.glob("fanout_pipeline-*.dist-info")):
        for path in _files(site / TOOLKIT):
            if is_for_elsewhere(path.relative_to(site).as_posix(), loaded):
                path.unlink()


def is_for_elsewhere(name: str, loaded: Collection[str]) -> bool:
    """Whether a file, by its path in the artifact, is one that the toolkit has for other places than Lambda."""
    found = next((part for part in _FOR_ELSEWHERE if name == part or name.startswith(f"{part}/")), None)
    return found is not None and not any(_within(module, found.replace("/", ".")) for module in loaded)


def models(site: Path, mentioned: Collection[str], wanted: Sequence[str]) -> tuple[list[str], int] | None:
    """Remove the models of services that are neither mentioned nor wanted (`*` wants all).

    Returns what is kept and how many there were, or None when botocore is not there. Raises
    `ConfigurationError` when botocore knows no such service as is wanted.
    """
    data = site / "botocore" / "data"
    if not data.is_dir():
        return None
    known = {path.name for path in data.iterdir() if path.is_dir()}
    for name in wanted:
        if name != "*" and name not in known:
            near = difflib.get_close_matches(name, known, 3)
            raise ConfigurationError(
                f"[tool.pipeline] services: botocore knows no service '{name}'"
                + (f"; it knows {', '.join(near)}" if near else "")
            )
    asked = {_ALIASES.get(name, name) for name in mentioned} | set(wanted) | _FOR_CREDENTIALS
    kept = known if "*" in wanted else known & asked
    for name in known - kept:
        shutil.rmtree(data / name)
    for path in data.rglob("examples-1.json*"):  # for botocore's own documentation
        path.unlink()
    return sorted(kept), len(known)


def _trim_metadata(directory: Path) -> None:
    for path in _files(directory):
        if path.name not in _METADATA and not path.name.upper().startswith(_LICENCES):
            path.unlink()
    record = directory / "RECORD"
    if record.is_file():
        site = directory.parent
        rows = [row for row in csv.reader(io.StringIO(record.read_text(encoding="utf-8"))) if (site / row[0]).is_file()]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(sorted(rows))
        record.write_text(text.getvalue(), encoding="utf-8")


def _files(directory: Path) -> Iterator[Path]:
    return (path for path in sorted(directory.rglob("*")) if path.is_file())


def _within(module: str, dotted: str) -> bool:
    return module == dotted or module.startswith(f"{dotted}.")
