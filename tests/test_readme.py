"""The README's examples, as a reader would try them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent / "README.md"
LINES = README.read_text().splitlines()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)


def test_the_two_commands_and_a_whole_example_stand_before_line_thirty() -> None:
    head = "\n".join(LINES[:30])

    assert "make demo" in head
    assert "make test" in head
    assert len(re.findall("^```", head, re.MULTILINE)) == 2, "the example begins and ends there"


@pytest.mark.timeout(120)  # a process that starts an AWS server of its own
def test_the_first_example_runs_and_prints_what_the_readme_says(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(blocks("python")[0])
    console = blocks("console")[0].splitlines()
    feed = next(line for line in console if line.startswith("$ printf")).removeprefix("$ ")
    command = next(line for line in console if line.startswith("$ pipeline")).removeprefix("$ pipeline ").split()
    subprocess.run(["sh", "-c", feed], cwd=tmp_path, check=True)

    ran = subprocess.run(
        [sys.executable, "-m", "pipeline", *command], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.splitlines()[-1] == console[-1]


def test_the_test_of_the_readme_passes(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(blocks("python")[0])
    (tmp_path / "test_shop.py").write_text(blocks("python")[1])

    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert "1 passed" in ran.stdout, ran.stdout[-2000:]


def test_the_longer_example_declares_what_it_says(tmp_path: Path) -> None:
    code = "import sys, types; httpx = sys.modules['httpx'] = types.ModuleType('httpx')\n"
    code += "class AsyncClient: ...\nhttpx.AsyncClient = AsyncClient\n" + blocks("python")[2]
    (tmp_path / "crm_example.py").write_text(code + "\nassert [stage.name for stage in crm.stages()] == ['sync']\n")

    subprocess.run([sys.executable, str(tmp_path / "crm_example.py")], check=True)


def test_every_file_that_the_readme_links_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        if not target.startswith("http"):
            assert (README.parent / target).exists(), target


def test_the_streams_example_runs(tmp_path: Path) -> None:
    program = """
from pipeline.testing import invoke
result = invoke(clean, [{"celsius": 21.5}])
print([type(outcome).__name__ for outcome in result.outcomes], sorted(result.outputs))
"""
    (tmp_path / "plant.py").write_text(blocks("python")[3] + program)

    ran = subprocess.run([sys.executable, "plant.py"], cwd=tmp_path, capture_output=True, text=True, check=False)

    assert ran.stdout.splitlines()[-1] == "['Succeeded'] ['clean-readings', 'readings-archive']", ran.stderr[-2000:]
