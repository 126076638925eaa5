"""What is wrong is said in one sentence, and leaves nothing behind that looks like an artifact."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from pipeline.deploy.package.build import Request, build
from pipeline.errors import ConfigurationError
from tests.deploy.package.projects import package, write

HANDLERS = "import pipeline\n"
TOML = '[tool.pipeline]\napp = "shop"\n'


def refused(project: Path, *arguments: str, path: str | None = None) -> tuple[int, str]:
    """The exit code and the sentence of a command that must fail, and leave nothing."""
    before = {found.name for found in project.parent.iterdir()}
    result = package(project, *arguments, path=path)

    assert {found.name for found in project.parent.iterdir()} == before
    assert "Traceback" not in result.stderr
    return result.returncode, " ".join(result.stderr.split())


@pytest.mark.parametrize(
    ("files", "arguments", "sentence"),
    [
        ({}, ["shop"], "there is neither uv.lock nor requirements.txt in"),
        ({"requirements.txt": ""}, [], "there is no TARGET: give one, such as `handlers.shop`"),
        (
            {"requirements.txt": ""},
            ["nowhere"],
            "'nowhere' does not import: ModuleNotFoundError: No module named 'nowhere'",
        ),
        ({"requirements.txt": ""}, ["shop.py"], "'shop.py' is a path: name the module, as `shop`"),
        ({"requirements.txt": ""}, ["shop:handler"], "'shop:handler' does not import: AttributeError"),
        ({"requirements.txt": ""}, ["json"], "nothing of json is below"),
        ({"requirements.txt": "", "shop.py": "\n1 / 0\n"}, ["shop"], "ZeroDivisionError: division by zero ("),
        ({"requirements.txt": "", "shop.py": "\nif\n"}, ["shop"], "shop.py, line 2)"),
        ({"requirements.txt": "", "shop.py": "raise SystemExit(3)\n"}, ["shop"], "does not import: SystemExit: 3"),
        ({"requirements.txt": "", "shop.py": "import os\nos._exit(3)\n"}, ["shop"], "ended with exit code 3"),
        (
            {"requirements.txt": ""},
            ["shop", "--platform", "sparc"],
            "'sparc' is not one of 'aarch64', 'arm64', 'x86_64'",
        ),
        ({"requirements.txt": ""}, ["shop", "--python", "3.9"], "'3.9' is not one of"),
        ({"requirements.txt": "", "pyproject.toml": "["}, ["shop"], "pyproject.toml cannot be read"),
        (
            {"requirements.txt": "", "pyproject.toml": f'{TOML}include = "a"\n'},
            [],
            "include = 'a': give a list of texts",
        ),
        ({"requirements.txt": "", "pyproject.toml": f'{TOML}include = ["a"]\n'}, [], "include: there is no 'a' in"),
        ({"requirements.txt": "", "pyproject.toml": f'{TOML}include = ["../a"]\n'}, [], "'../a' is not below"),
        ({"uv.lock": "nonsense", "pyproject.toml": TOML}, [], "uv: "),
    ],
)
def test_one_sentence_says_what_is_wrong(
    files: dict[str, str], arguments: list[str], sentence: str, tmp_path: Path
) -> None:
    project = write(tmp_path / "project", {"shop.py": HANDLERS, **files})
    code, said = refused(project, "../artifact", *arguments, *["--part", "code"])

    assert sentence in said
    assert code in (1, 2)


def test_a_directory_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    project = write(tmp_path / "project", {"shop.py": HANDLERS, "requirements.txt": "", "old/file": "kept"})
    code, said = refused(project, "old", "shop")

    assert code == 2
    assert "old is not empty: give a new directory, or remove it first" in said
    assert (project / "old/file").read_text() == "kept"


def test_an_empty_directory_is_as_good_as_none(tmp_path: Path) -> None:
    """SAM makes it before it calls make; it stays when packaging fails."""
    project = write(tmp_path / "project", {"shop.py": HANDLERS, "requirements.txt": ""})
    (project / "made").mkdir()

    assert package(project, "made", "nowhere").returncode == 2
    assert list((project / "made").iterdir()) == []
    assert package(project, "made", "shop", "--part", "code").returncode == 0
    assert (project / "made/shop.py").is_file()


def test_of_a_package_every_module_is_imported(tmp_path: Path) -> None:
    """What only the second module uses is copied too."""
    files = {"shop/__init__.py": "", "shop/a.py": "", "shop/b.py": "import beside\n", "beside.py": "", "third.py": ""}
    project = write(tmp_path / "project", {**files, "requirements.txt": ""})

    assert package(project, "../artifact", "shop", "--part", "code").returncode == 0
    assert {"shop", "beside.py"} == {path.name for path in (tmp_path / "artifact").iterdir()} - {
        "__pycache__",
        "pipeline",
    }


def test_functions_beside_a_layer_get_only_code(tmp_path: Path) -> None:
    project = write(tmp_path / "project", {"shop.py": HANDLERS, "requirements.txt": "nothing-is-installed\n"})
    write(project, {"pyproject.toml": f"{TOML}layer = true\n"})

    assert package(project, "../artifact").returncode == 0
    assert {"shop.py", "pipeline"} <= {path.name for path in (tmp_path / "artifact").iterdir()}


def test_without_uv_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    project = write(tmp_path / "project", {"shop.py": HANDLERS, "requirements.txt": ""})

    assert refused(project, "../artifact", "shop", path="/nowhere") == (
        1,
        "Error: uv is needed to install the dependencies, and was not found: pip install uv",
    )


def test_a_package_without_a_wheel_is_named_with_what_to_do(tmp_path: Path) -> None:
    files = {"shop.py": HANDLERS, "requirements.txt": "--no-index\n--find-links dist\nthing==1.0\n"}
    project = write(tmp_path / "project", files)
    (project / "dist").mkdir()
    with tarfile.open(project / "dist/thing-1.0.tar.gz", "w:gz") as archive:
        text = b"Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n"
        member = tarfile.TarInfo("thing-1.0/PKG-INFO")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    code, said = refused(project, "../artifact", "shop")

    assert code == 1
    assert "Error: uv: " in said
    assert "thing==1.0 has no usable wheels" in said
    assert "choose a version that has a wheel for" in said
    assert len(said) < 500


def test_dependencies_that_lack_the_toolkits_are_no_artifact(tmp_path: Path) -> None:
    project = write(tmp_path / "project", {"shop.py": HANDLERS, "requirements.txt": ""})
    code, said = refused(project, "../artifact", "shop")

    assert code == 2
    assert (
        "requirements.txt does not install aiobotocore, aws-lambda-powertools, msgspec, orjson, urllib3, which fanout-pipeline"
        in said
    )


@pytest.mark.parametrize("wrong", [{"part": "half"}, {"python": "2.7"}, {"platform": "vax"}])
def test_a_request_is_checked_without_the_command_line_too(wrong: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give one of"):
        build(Request(tmp_path / "artifact", tmp_path, ("shop",), **wrong), print)
