"""botocore's data files, as the toolkit reads them: the same data, and no more of it than is needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from botocore.exceptions import DataNotFoundError, UnknownServiceError
from botocore.loaders import Loader

from pipeline.aws import models
from pipeline.aws.client import client
from pipeline.aws.models import SERVICES, Models
from pipeline.engine.environment import ProcessEnvironment


@pytest.fixture(autouse=True)
def nothing_read_before() -> None:
    """botocore completes endpoints in place as it looks them up: what clients of other tests did is not in the file."""
    models._read_once.cache_clear()


#: Every file that a client, a waiter or a paginator of the toolkit's services may ask for.
KINDS = ["service-2", "endpoint-rule-set-1", "waiters-2", "paginators-1"]


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_what_botocore_reads(service: str, kind: str) -> None:
    try:
        expected = Loader().load_service_model(service, kind)
    except DataNotFoundError:  # there are no waiters for queues and events
        with pytest.raises(DataNotFoundError):
            Models().load_service_model(service, kind)
        return
    found = Models().load_service_model(service, kind)

    # As text, because the order counts as well: of parameters, and of an endpoint's rules.
    assert json.dumps(found) == json.dumps(expected)


@pytest.mark.parametrize("name", ["endpoints", "partitions", "_retry", "sdk-default-configuration"])
def test_what_all_services_share_is_what_botocore_reads(name: str) -> None:
    assert json.dumps(Models().load_data(name)) == json.dumps(Loader().load_data(name))
    assert Models().load_data_with_path(name)[1] == Loader().load_data_with_path(name)[1]


def test_another_service_is_found_and_an_unknown_one_is_not() -> None:
    assert Models().load_service_model("sts", "service-2") == Loader().load_service_model("sts", "service-2")
    with pytest.raises(UnknownServiceError):
        Models().load_service_model("no-such-service", "service-2")


def test_a_data_path_comes_before_botocores_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "dynamodb" / "2999-01-01"
    folder.mkdir(parents=True)
    (folder / "service-2.json").write_text('{"metadata": {"apiVersion": "2999-01-01"}}')
    monkeypatch.setenv("SOMEWHERE", str(tmp_path))

    for loader in (Models("$SOMEWHERE"), Models(f"/nowhere:{tmp_path}")):
        assert loader.load_service_model("dynamodb", "service-2")["metadata"]["apiVersion"] == "2999-01-01"
        assert loader.determine_latest_version("sqs", "service-2") == "2012-11-05"


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The services whose folders were looked for by looking through all."""
    seen: list[str] = []
    plain = Loader.list_available_services

    def counted(self: Loader, type_name: str) -> list[str]:
        seen.append(type_name)
        found: list[str] = plain(self, type_name)
        return found

    monkeypatch.setattr(Loader, "list_available_services", counted)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    return seen


@pytest.mark.parametrize("service", SERVICES)
async def test_no_client_of_the_toolkit_looks_through_the_folders_of_all_services(
    service: str, listed: list[str]
) -> None:
    environment = ProcessEnvironment()
    try:
        made = await client(environment, service)
        assert made.meta.region_name == "eu-west-1"
        assert listed == []
    finally:
        await environment.aclose()


async def test_a_users_data_path_holds_for_the_toolkits_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listed: list[str]
) -> None:
    endpoints = Loader().load_data("endpoints")
    endpoints["partitions"][0]["dnsSuffix"] = "example.org"
    (tmp_path / "endpoints.json").write_text(json.dumps(endpoints))
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    environment = ProcessEnvironment()
    try:
        made = await client(environment, "kinesis")
        assert made.meta.endpoint_url.endswith("example.org")
    finally:
        await environment.aclose()
