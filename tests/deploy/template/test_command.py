"""`pipeline template`: where it writes, what it says, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli.commands import cli
from tests.deploy.template.reading import read

SHOP = """
from pipeline import Pipeline, sinks, sources

shop = Pipeline("shop")


@shop.handler(sources.SQS("orders"), sinks=[sinks.Memory()])
async def price(order: dict) -> dict: ...
"""
OTHER = SHOP.replace("shop", "other").replace("orders", "tasks").replace("price", "work")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "storefront.py").write_text(SHOP)
    yield tmp_path
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def template(*arguments: str) -> Result:
    found = CliRunner().invoke(cli, ["template", *arguments])
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    return found


def test_the_template_goes_to_stdout_and_notes_to_stderr(project: Path) -> None:
    found = template("storefront")

    assert found.exit_code == 0
    assert next(iter(read(found.stdout)["Resources"])) == "OrdersQueue"
    assert found.stderr.splitlines()[0].startswith("shop.price: the sink 'memory' is for tests on this machine")
    assert found.stderr.splitlines()[1] == "10 alarms on 13 metrics: $1.30 a month"
    assert list(project.glob("*.yaml")) == []


def test_output_writes_and_writes_again(project: Path) -> None:
    assert template("storefront", "--output", "out.yaml").stdout == ""
    first = (project / "out.yaml").read_bytes()

    assert first.decode() == template("storefront").stdout
    assert template("storefront", "--output", "out.yaml").exit_code == 0
    assert (project / "out.yaml").read_bytes() == first


def test_check_compares(project: Path) -> None:
    template("storefront", "--output", "template.yaml")
    assert template("storefront", "--check").exit_code == 0

    (project / "template.yaml").write_text(
        (project / "template.yaml").read_text().replace("Timeout: 30", "Timeout: 31")
    )
    before = (project / "template.yaml").read_bytes()
    edited = template("storefront", "--check")
    assert edited.exit_code == 0, "what somebody changed is kept, so there is nothing to write"
    assert "Resources.ShopPriceFunction was edited by hand: kept" in edited.stderr

    (project / "storefront.py").write_text(SHOP.replace('"orders"', '"orders", max_receive_count=7'))
    sys.modules.pop("storefront")
    found = template("storefront", "--check")
    assert found.exit_code == 1
    assert "-      RedrivePolicy" not in found.stdout
    assert "+        maxReceiveCount: 7" in found.stdout
    assert "template.yaml is out of step: run pipeline template --output template.yaml --merge" in found.stderr
    assert (project / "template.yaml").read_bytes() == before


def test_an_edited_file_is_overwritten_only_by_a_merge_which_keeps_the_edit(project: Path) -> None:
    template("storefront", "--output", "template.yaml")
    path = project / "template.yaml"
    path.write_bytes(
        path.read_bytes().replace(b"\nResources:", b"\nHooks: # mine\n  A: 1\n\nResources:").replace(b"\n", b"\r\n")
    )
    before = path.read_bytes()
    (project / "storefront.py").write_text(SHOP.replace('"orders"', '"orders", max_receive_count=7'))
    sys.modules.pop("storefront")

    refused = template("storefront", "--output", "template.yaml")
    assert (refused.exit_code, path.read_bytes()) == (1, before)
    assert "Hooks was added by hand: kept" in refused.stderr
    assert "--merge keeps the edits" in refused.stderr

    merged = template("storefront", "--merge")
    assert merged.exit_code == 0
    assert b"\r\nHooks: # mine\r\n  A: 1\r\n" in path.read_bytes()
    assert b"maxReceiveCount: 7\r\n" in path.read_bytes()
    assert path.read_bytes().count(b"\n") == path.read_bytes().count(b"\r\n")
    after = path.read_bytes()
    assert template("storefront", "--check").exit_code == 0
    assert template("storefront", "--merge").exit_code == 0
    assert path.read_bytes() == after


@pytest.mark.parametrize("option", ["--output", "--merge", "--check"])
@pytest.mark.parametrize(
    "content", [b"a: [", b"", b"- a\n", b'{"Resources": {}}', b"\xff\xfe\x00", b"a: &a [*a]\n", b"Resources: {A: {}}\n"]
)
def test_a_file_that_is_no_template_is_refused_and_left_alone(project: Path, option: str, content: bytes) -> None:
    path = project / "template.yaml"
    path.write_bytes(content)
    found = template("storefront", option, *(["template.yaml"] if option == "--output" else []))

    assert (found.exit_code, path.read_bytes()) == (2, content)
    assert "template.yaml" in found.stderr or "the template is nested" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("path", ["nowhere/out.yaml", "storefront.py/out.yaml"])
def test_what_cannot_be_written_is_misuse(project: Path, path: str) -> None:
    found = template("storefront", "--output", path)

    assert found.exit_code == 2
    assert f"{path} cannot be written" in found.stderr


def test_checking_a_file_that_is_not_there_is_misuse(project: Path) -> None:
    found = template("storefront", "--check")

    assert found.exit_code == 2
    assert "template.yaml cannot be read" in found.stderr


# TARGET


def test_a_package_is_all_of_its_modules(project: Path) -> None:
    (project / "apps").mkdir()
    (project / "apps" / "__init__.py").touch()
    (project / "apps" / "one.py").write_text(SHOP)
    (project / "apps" / "two.py").write_text(OTHER)
    found = template("apps")

    functions = [
        one["Properties"]["Handler"]
        for one in read(found.stdout)["Resources"].values()
        if one["Type"].endswith("Function")
    ]
    assert functions == ["apps.one.price", "apps.two.work"]
    named = template("apps.two:other")
    assert "apps.one" not in named.stdout


def test_the_project_says_what_is_meant_without_a_target(project: Path) -> None:
    without = template()
    (project / "pyproject.toml").write_text('[tool.pipeline]\napp = "storefront"\nlayer = true\n')
    found = template()

    assert without.exit_code == 2
    assert "there is no TARGET: give one" in without.stderr
    assert found.exit_code == 0
    assert "DependenciesLayer" in read(found.stdout)["Resources"]


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("twice", SHOP + "again = Pipeline('shop')\n", "two pipelines are named 'shop': rename one of them"),
        ("bare", "from pipeline import Pipeline\nshop = Pipeline('shop')\n", "shop: there is no handler, so there is nothing to deploy"),
        ("nothing", "x = 1\n", "module 'nothing' holds no Pipeline"),
        ("broken", "x = 1\n\ny = 1 / 0\n", "module 'broken' does not import: ZeroDivisionError: division by zero\n  {}, line 3, in <module>: y = 1 / 0"),
        ("syntax", "x = 1\nx x\n", "module 'syntax' does not import: SyntaxError: invalid syntax ({}, line 2)"),
        ("needs", "\nimport nosuchpackage\n", "module 'needs' does not import: ModuleNotFoundError: No module named 'nosuchpackage'\n  {}, line 2, in <module>: import nosuchpackage"),
        ("leaves", "import sys\nsys.exit('bye')\n", "module 'leaves' does not import: SystemExit: bye\n  {}, line 2, in <module>: sys.exit('bye')"),
        ("outside", "import os\ndef region():\n    return os.environ['NO_SUCH_VARIABLE']\nregion()\n", "KeyError: 'NO_SUCH_VARIABLE'\n  {0}, line 3, in region: return os.environ['NO_SUCH_VARIABLE']\n  {0}, line 4, in <module>: region()"),
        ("misuse", "from pipeline import *\nshop = Pipeline('a b')\n", "module 'misuse' does not import: ConfigurationError: Pipeline('a b')"),
    ],
)  # fmt: skip
def test_a_target_that_cannot_be_deployed_is_one_sentence_with_the_users_own_line(
    project: Path, name: str, source: str, said: str
) -> None:
    path = project / f"{name}.py"
    path.write_text(source)
    found = template(name)

    assert (found.exit_code, found.stdout) == (2, "")
    assert said.format(path) in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("nosuch", "there is no module 'nosuch' in"),
        ("storefront:nosuch", "'storefront:nosuch' does not exist; there is `storefront:shop`"),
        ("storefront:price", "is a Handler, not a Pipeline; there is `storefront:shop`"),
        ("storefront.py", "'storefront.py' is a path: name the module, as `storefront`"),
        ("./apps/one.py", "is a path: name the module, as `apps.one`"),
        ("storefront:", ""),
    ],
)
def test_a_target_that_is_none_says_what_there_is(project: Path, target: str, said: str) -> None:
    found = template(target)

    assert found.exit_code == (2 if said else 0)
    assert said in found.stderr


def test_a_merge_that_leaves_a_reference_without_its_resource_fails_and_says_so(project: Path) -> None:
    output = project / "template.yaml"
    assert template("storefront", "--output", str(output)).exit_code == 0
    mine = "Resources:\n  Mine:\n    Type: AWS::SNS::Topic\n    Properties:\n      DisplayName: !Ref NoSuchTable\n"
    output.write_text(output.read_text().replace("Resources:\n", mine, 1))
    found = template("storefront", "--output", str(output), "--merge")

    assert found.exit_code == 1
    assert "Resources.Mine refers to 'NoSuchTable', which is not in the template" in found.stderr
    assert template("storefront", "--check", "--output", str(output)).exit_code == 1
