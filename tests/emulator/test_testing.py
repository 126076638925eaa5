import subprocess
import sys


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_test_kit_and_the_plugin_import_nothing_of_the_local_run() -> None:
    heavy = (
        "[m for m in sys.modules if m.split('.')[0] in ('moto','click','rich','flask','aiobotocore','pytest_asyncio')]"
    )
    code = f"import pipeline.testing, pipeline.testing.plugin, sys; print({heavy})"
    assert run(code) == "[]"
    code = "import pipeline.testing, sys; print([m for m in sys.modules if m.startswith(('pipeline.emulator', 'pipeline.cli'))])"
    assert run(code) == "[]"


def test_the_functions_keep_their_names_although_modules_share_them() -> None:
    code = (
        "import pipeline.testing.local, pipeline.testing.invoke\n"
        "from pipeline.testing import local, invoke\n"
        "print(callable(local), callable(invoke))"
    )
    assert run(code) == "True True"
