"""What is certain to be unused, and what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deploy.package import dependencies, scan, trim
from pipeline.deploy.package.code import gather
from pipeline.deploy.package.scan import Scan
from pipeline.errors import ConfigurationError
from tests.deploy.package.projects import names, write


def trimmed(site: Path, *loaded: str) -> set[str]:
    """What is left of a directory of installed packages."""
    found = Scan()
    scan.add(found, {path.relative_to(site).as_posix(): path for path in site.rglob("*.py")})
    trim.unused_files(site, found, loaded)
    return names(site)


@pytest.mark.parametrize(
    "importing",
    [
        {"thing/a.py": "from thing.tests import data"},
        {"thing/a.py": "from .tests import data"},
        {"thing/a.py": "from . import tests"},
        {"thing/a.py": "def later():\n    import thing.tests.data"},
        {"thing/b/c.py": "from ..tests.data import VALUE"},
        {"thing/__init__.py": "from .tests import data"},
        {"else.py": "NAME = 'thing.tests.data'"},
    ],
)
def test_tests_that_something_imports_stay(importing: dict[str, str], tmp_path: Path) -> None:
    """As numpy's, which numpy.testing imports."""
    files = {"thing/__init__.py": "", "thing/tests/__init__.py": "", "thing/tests/data.py": "", **importing}

    assert "thing/tests/data.py" in trimmed(write(tmp_path, files))


def test_tests_that_only_they_import_go(tmp_path: Path) -> None:
    files = {
        "thing/__init__.py": "",
        "thing/tests/__init__.py": "from .data import VALUE\nfrom thing.tests import data\nNAME = 'thing.tests.data'",
        "thing/tests/data.py": "VALUE = 1",
        "thing/testing/__init__.py": "",
        "thing/latest/tests.py": "",
    }

    assert trimmed(write(tmp_path, files)) == {
        "thing/__init__.py",
        "thing/testing/__init__.py",
        "thing/latest/tests.py",
    }


def test_tests_that_the_targets_loaded_stay(tmp_path: Path) -> None:
    files = {"thing/__init__.py": "", "thing/tests/__init__.py": ""}

    assert "thing/tests/__init__.py" in trimmed(write(tmp_path, files), "thing.tests")


def test_documentation_is_not_guessed_by_its_name(tmp_path: Path) -> None:
    """botocore.docs is imported by botocore.client."""
    assert trimmed(write(tmp_path, {"thing/docs/__init__.py": ""})) == {"thing/docs/__init__.py"}


@pytest.mark.parametrize(("source", "left"), [("", False), ("import lazy_loader\nlazy_loader.attach_stub()", True)])
def test_stubs_stay_where_modules_are_loaded_by_them(source: str, left: bool, tmp_path: Path) -> None:
    assert ("a.pyi" in trimmed(write(tmp_path, {"a.pyi": "", "a.py": source}))) is left


def test_metadata_keeps_what_is_read_at_run_time(tmp_path: Path) -> None:
    info = "thing-1.0.dist-info"
    kept = {f"{info}/METADATA": "", f"{info}/entry_points.txt": "", f"{info}/licenses/LICENSE": "", "thing.py": ""}
    gone = {
        f"{info}/INSTALLER": "uv",
        f"{info}/REQUESTED": "",
        f"{info}/direct_url.json": "",
        "bin/thing": "",
        ".lock": "",
    }
    record = "thing.py,sha256=1,0\nbin/thing,sha256=2,0\nthing-1.0.dist-info/RECORD,,\n"

    assert trimmed(write(tmp_path, {**kept, **gone, f"{info}/RECORD": record})) == {*kept, f"{info}/RECORD"}
    assert (tmp_path / info / "RECORD").read_text() == "thing-1.0.dist-info/RECORD,,\nthing.py,sha256=1,0\n"


def models(site: Path, mentioned: set[str], *wanted: str) -> list[str] | None:
    data = "botocore/data"
    services = {f"{data}/{name}/1/service-2.json": "" for name in ("ec2", "polly", "sagemaker-runtime", "sqs", "sts")}
    write(site, {**services, f"{data}/endpoints.json": "", f"{data}/sqs/1/examples-1.json": ""})
    found = trim.models(site, mentioned, wanted)
    assert "botocore/data/endpoints.json" in names(site)
    assert found is None or found[1] == 5
    return None if found is None else found[0]


def test_models_stay_of_what_is_mentioned_or_wanted(tmp_path: Path) -> None:
    assert models(tmp_path, {"sqs", "runtime.sagemaker", "nothing"}, "polly") == [
        "polly",
        "sagemaker-runtime",
        "sqs",
        "sts",
    ]
    assert not (tmp_path / "botocore/data/ec2").exists()
    assert [name for name in names(tmp_path) if "examples" in name] == []


def test_a_star_keeps_every_model(tmp_path: Path) -> None:
    assert models(tmp_path, set(), "*") == ["ec2", "polly", "sagemaker-runtime", "sqs", "sts"]


def test_a_service_that_botocore_does_not_know_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"knows no service 'poly'; it knows polly"):
        models(tmp_path, set(), "poly")


def test_without_botocore_there_are_no_models(tmp_path: Path) -> None:
    assert trim.models(tmp_path, {"sqs"}, []) is None


@given(st.from_regex(r"[a-z0-9]+(-[a-z0-9]+)*", fullmatch=True), st.sampled_from(" \n'\":=/._,()"), st.text(max_size=5))
def test_a_word_is_found_wherever_it_stands_alone(
    tmp_path_factory: pytest.TempPathFactory, word: str, edge: str, around: str
) -> None:
    path = tmp_path_factory.mktemp("words") / "settings.yaml"
    path.write_text(f"{around}{edge}{word}{edge}{around}", encoding="utf-8", errors="replace")

    assert word in set(scan.words([path]))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("fanout-pipeline==0.9", True),
        ("Fanout_Pipeline[cli]>=1 ; python_version > '3'", True),
        ("fanout.pipeline @ file:///dist/fanout_pipeline-0.9-py3-none-any.whl", True),
        ("./dist/fanout_pipeline-0.9.0-py3-none-any.whl", True),
        ("/home/a/dist/fanout_pipeline-0.9.0-py3-none-any.whl --hash=sha256:0", True),
        ("-r more.txt", True),
        ("# fanout-pipeline", False),
        ("orjson  # for fanout-pipeline", False),
        ("fanout-pipeline-extras==1", False),
        ("my-fanout-pipeline==1", False),
        ("fanout-pipelines", False),
        ("-r missing.txt", False),
        ("", False),
    ],
)
def test_whether_requirements_name_the_toolkit(line: str, named: bool, tmp_path: Path) -> None:
    write(tmp_path, {"requirements.txt": f"orjson==3\n{line}\n", "more.txt": "fanout-pipeline\n"})

    assert dependencies.names(tmp_path / "requirements.txt", "fanout-pipeline") is named


@pytest.mark.parametrize(
    ("name", "loaded", "elsewhere"),
    [
        ("pipeline/cli/dev.py", [], True),
        ("pipeline/__main__.py", [], True),
        ("pipeline/aws/cloudformation/stack.py", [], True),
        ("pipeline/aws/sqs.py", [], False),
        ("pipeline/client.py", [], False),
        ("pipeline/testing/invoke.py", ["pipeline.testing"], False),
        ("shop/cli/main.py", [], False),
    ],
)
def test_what_of_the_toolkit_is_for_elsewhere(name: str, loaded: list[str], elsewhere: bool) -> None:
    assert trim.is_for_elsewhere(name, loaded) is elsewhere


def test_the_toolkit_is_copied_from_where_it_was_imported_when_no_lock_file_has_it(tmp_path: Path) -> None:
    write(tmp_path, {"shop.py": "from pipeline import Pipeline\nshop = Pipeline('shop')\n"})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    code = gather(tmp_path, ["shop"], [], scratch, toolkit=True)

    assert {"shop.py", "pipeline/__init__.py", "pipeline/engine/work.py"} <= set(code.files)


def test_what_is_included_stands_where_the_packages_beside_it_stand(tmp_path: Path) -> None:
    write(
        tmp_path / "src",
        {
            "shop.py": "import boto3\nfrom pipeline import Pipeline\nshop = Pipeline('shop')\n",
            "plugins/one.py": "x = 1\n",
        },
    )
    write(tmp_path, {"texts/a.txt": "a", "conftest.py": ""})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(tmp_path / "src"))
        code = gather(tmp_path, ["shop"], ["src/plugins", "texts"], scratch, toolkit=False)

    assert set(code.files) == {"shop.py", "plugins/one.py", "texts/a.txt"}


def test_a_client_that_is_made_on_import_needs_no_region_of_the_build_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    write(
        tmp_path,
        {
            "shop.py": "import boto3\nfrom pipeline import Pipeline\nses = boto3.client('ses')\nshop = Pipeline('shop')\n"
        },
    )
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    assert "shop.py" in gather(tmp_path, ["shop"], [], scratch, toolkit=False).files


@pytest.mark.parametrize(
    ("host", "is_refused"), [("127.0.0.1", False), ("192.0.2.1", True)], ids=["this machine", "another"]
)
def test_packaging_refuses_what_the_other_commands_refuse(tmp_path: Path, host: str, is_refused: bool) -> None:
    reach = f"import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ({host!r}, 9))\n"
    write(tmp_path, {"shop.py": f"{reach}from pipeline import Pipeline\nshop = Pipeline('shop')\n"})
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    if is_refused:
        with pytest.raises(ConfigurationError, match="connections are refused while a module is imported"):
            gather(tmp_path, ["shop"], [], scratch, toolkit=False)
    else:
        assert "shop.py" in gather(tmp_path, ["shop"], [], scratch, toolkit=False).files
