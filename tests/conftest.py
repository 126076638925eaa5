"""What tests of every kind share: a moto server for the whole run, and environments to reach it."""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import HealthCheck, settings

from pipeline.emulator import embedded
from pipeline.engine.environment import ProcessEnvironment
from tests.support import dynamodb_local as local

# How hypothesis searches: differently each time on a developer's machine, the same way in CI.
# No deadline for one example: a shared core stops for longer than any of them takes.
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("dev"), derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")

#: Why there is no DynamoDB Local, when it was looked for in vain.
_LOCAL = pytest.StashKey[local.NotToBeHad]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{local.MARK}: uses the fixture of that name.")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell's background job is started deaf to Ctrl-C, and so is what it starts; tests send it to their children.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What takes longer than a test may, before the tests."""
    if not session.config.option.collectonly and any(map(local.is_needed_by, session.items)):
        try:
            local.installed()
        except local.NotToBeHad as why:
            session.config.stash[_LOCAL] = why


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """The URL of the local run's own moto server: a process of its own, shared by the whole test run."""
    server = embedded.lease()
    yield server.endpoint_url
    server.stop()


@pytest.fixture(scope="session")
def dynamodb_local(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of AWS's own DynamoDB Local: a process of its own, shared by the tests of this worker."""
    missing = request.config.stash.get(_LOCAL, None)
    if missing is not None:
        local.require(missing)
    try:
        with local.running() as endpoint:
            yield endpoint
    except local.NotToBeHad as why:
        local.require(why)


@pytest.fixture
def aws(moto_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The process speaks to moto, with dummy credentials and nothing of the developer's own."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "PIPELINE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_endpoint)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return moto_endpoint


@pytest.fixture
async def environment() -> AsyncIterator[ProcessEnvironment]:
    """A process's environment, closed after the test."""
    made = ProcessEnvironment()
    yield made
    await made.aclose()


@pytest.fixture
def unique() -> str:
    """A name that no other test uses: the server is shared."""
    return f"t{uuid.uuid4().hex[:12]}"
