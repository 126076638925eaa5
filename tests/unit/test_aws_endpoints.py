"""Where calls go, as whom, and in which region: the same as botocore's own clients, whatever is configured."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import (
    EndpointResolutionError,
    InvalidConfigError,
    InvalidRegionError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.loaders import Loader
from botocore.session import Session

from pipeline.aws import settings
from pipeline.aws.calls import SERVICES, Call, _asked_of_rules
from pipeline.aws.client import client
from pipeline.aws.endpoints import Endpoint, Endpoints
from pipeline.aws.models import Models
from pipeline.engine.environment import ProcessEnvironment

KEYS = {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "secret"}
TABLE = "arn:aws:dynamodb:eu-west-1:210987654321:table/t"
STREAM = "arn:aws:kinesis:eu-west-1:210987654321:stream/s"
#: One call of every kind that the rules look at.
CALLS = [
    Call("dynamodb", "PutItem", {"TableName": "t"}),
    Call("dynamodb", "UpdateItem", {"TableName": TABLE}),
    Call("dynamodb", "DeleteItem", {"TableName": TABLE}),
    Call("dynamodb", "BatchExecuteStatement", {"Statements": []}),
    Call("dynamodb", "BatchGetItem", {"RequestItems": {TABLE: {}}}),
    Call("dynamodb", "BatchWriteItem", {"RequestItems": {"t": []}}),
    Call("dynamodb", "BatchWriteItem", {"RequestItems": {TABLE: []}}),
    Call("dynamodb", "TransactWriteItems", {"TransactItems": [{"Put": {"TableName": "t"}}, {"Put": {"TableName": "t"}}]}),
    Call("dynamodb", "TransactWriteItems", {"TransactItems": [{"Put": {"TableName": TABLE}}]}),
    Call("sqs", "SendMessageBatch", {"QueueUrl": "https://sqs.us-west-2.amazonaws.com/1/q"}),
    Call("sqs", "GetQueueUrl", {"QueueName": "q"}),
    Call("kinesis", "PutRecords", {"StreamName": "s"}),
    Call("kinesis", "PutRecords", {"StreamARN": STREAM}),
    Call("events", "PutEvents", {"Entries": []}),
]  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_") or name == "REQUESTS_CA_BUNDLE"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def found() -> settings.Settings:
    return settings.from_environment() if settings.is_in_environment() else settings.from_session()


def ours(call: Call) -> Endpoint | str:
    """Where a call goes; or the error, as text."""
    known = found()
    credentials = known.credentials()
    assert credentials is not None
    try:
        endpoints = Endpoints(call.service, known, signing_name=call.service)
        return endpoints.of(_asked_of_rules(call), credentials.account_id)
    except EndpointResolutionError as error:
        return str(error)


@cache
def models() -> Models:
    """Read once: it takes longer than all else here."""
    return Models()


class Theirs:
    """botocore's own clients, with what is configured now."""

    def __init__(self) -> None:
        self._session = Session()
        self._session.register_component("data_loader", models())
        self._made: dict[tuple[str, str | None], Any] = {}
        self._sent: list[Any] = []

    def __call__(self, call: Call) -> Endpoint | str:
        """The URL of a call, and what its signature is for; or the error, as text."""
        region = os.environ.get("AWS_REGION")
        which = call.service, region
        made = self._made[which] = self._made.get(which) or self._client(call.service, region)
        method = next(name for name, one in SERVICES[call.service].operations.items() if one == call.operation)
        try:
            getattr(made, method)(**call.parameters)
        except EndpointResolutionError as error:
            return str(error)
        except _Stopped:
            pass
        request = self._sent.pop()
        # Credential=AKIA/20261121/eu-west-1/sqs/aws4_request
        scope = request.headers["Authorization"].decode().partition("Credential=")[2].partition(",")[0].split("/")
        return Endpoint(request.url, scope[2], scope[3])

    def _client(self, service: str, region: str | None) -> Any:
        config = Config(parameter_validation=False)
        made = self._session.create_client(service, region_name=region, config=config)
        made.meta.events.register("before-send.*.*", self._stop)
        return made

    def _stop(self, request: Any, **_: Any) -> None:
        self._sent.append(request)
        raise _Stopped


class _Stopped(Exception):
    """A call that goes no further."""


def configured(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    for name, value in {**KEYS, **variables}.items():
        monkeypatch.setenv(name, value)


ENVIRONMENTS: list[dict[str, str]] = [
    {"AWS_REGION": "eu-west-1"},
    {"AWS_DEFAULT_REGION": "us-east-2"},
    {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "us-east-2"},
    {"AWS_REGION": "cn-north-1"},
    {"AWS_REGION": "us-gov-west-1"},
    {"AWS_REGION": "us-iso-east-1"},
    {"AWS_REGION": "us-isob-east-1"},
    {"AWS_REGION": "eusc-de-east-1"},
    {"AWS_REGION": "xx-new-9"},
    {"AWS_REGION": "local"},
    {"AWS_REGION": "us-east-1", "AWS_USE_FIPS_ENDPOINT": "true"},
    {"AWS_REGION": "us-east-1", "AWS_USE_FIPS_ENDPOINT": "TRUE"},
    {"AWS_REGION": "us-east-1", "AWS_USE_FIPS_ENDPOINT": "1"},
    {"AWS_REGION": "fips-us-east-1"},
    {"AWS_REGION": "us-gov-east-1-fips"},
    {"AWS_REGION": "us-gov-east-1", "AWS_USE_FIPS_ENDPOINT": "true"},
    {"AWS_REGION": "eu-west-1", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
    {"AWS_REGION": "us-west-2", "AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_USE_FIPS_ENDPOINT": "true"},
    {"AWS_REGION": "cn-north-1", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
    {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:5000"},
    {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://127.0.0.1:5000/"},
    {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://moto:5000/some/path"},
    {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://[::1]:5000"},
    {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": ""},
    {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://a", "AWS_USE_FIPS_ENDPOINT": "true"},
    {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://a", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true"},
    {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "http://a", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "no"},
    {
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL": "http://all",
        "AWS_ENDPOINT_URL_DYNAMODB": "http://dynamodb",
        "AWS_ENDPOINT_URL_SQS": "http://sqs",
        "AWS_ENDPOINT_URL_KINESIS": "http://kinesis",
        "AWS_ENDPOINT_URL_EVENTBRIDGE": "http://eventbridge",
        "AWS_ENDPOINT_URL_EVENTS": "http://not-this-one",
    },
    {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_EVENTS": "http://not-this-one"},
    {"AWS_REGION": "eu-west-1", "AWS_ACCOUNT_ID": "123456789012"},
    {"AWS_REGION": "eu-west-1", "AWS_ACCOUNT_ID": "123456789012", "AWS_ACCOUNT_ID_ENDPOINT_MODE": "disabled"},
    {"AWS_REGION": "eu-west-1", "AWS_ACCOUNT_ID": "123456789012", "AWS_ACCOUNT_ID_ENDPOINT_MODE": "REQUIRED"},
    {"AWS_REGION": "cn-north-1", "AWS_ACCOUNT_ID": "123456789012"},
    {"AWS_REGION": "eu-west-1", "AWS_ACCOUNT_ID": "123456789012", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
    {"AWS_REGION": "us-east-1", "AWS_ACCOUNT_ID": "123456789012", "AWS_USE_FIPS_ENDPOINT": "true"},
]


@pytest.mark.parametrize(
    "variables", ENVIRONMENTS, ids=lambda found: " ".join(f"{k[4:]}={v}" for k, v in found.items())
)
def test_calls_go_where_botocores_go(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, variables)
    assert settings.is_in_environment()
    theirs = Theirs()

    differing = {}
    for call in CALLS:
        expected, was = theirs(call), ours(call)
        if was != expected:
            differing[call.operation, str(call.parameters)] = was, expected
    assert differing == {}


def regions() -> Iterator[tuple[str, str]]:
    """Every region of every partition in which a service is said to be."""
    for partition in Loader().load_data("endpoints")["partitions"]:
        for service in SERVICES:
            for region in partition["services"].get(service, {}).get("endpoints", {}):
                if region in partition["regions"]:
                    yield service, region


@pytest.mark.parametrize("service", SERVICES)
def test_every_region_has_the_endpoint_that_botocore_gives_it(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, {})
    (call, *_) = [call for call in CALLS if call.service == service]
    places = [region for name, region in regions() if name == service]
    assert len(places) > 30
    theirs = Theirs()
    for region in places:
        monkeypatch.setenv("AWS_REGION", region)
        assert ours(call) == theirs(call)


FILES = {
    "a region": ("[default]\nregion = eu-south-1\n", {}),
    "a profile": ("[default]\nregion = eu-south-1\n[profile b]\nregion = sa-east-1\n", {"AWS_PROFILE": "b"}),
    "the older variable": ("[profile b]\nregion = sa-east-1\n", {"AWS_DEFAULT_PROFILE": "b", "AWS_PROFILE": "c"}),
    "an endpoint": ("[default]\nregion = eu-west-1\nendpoint_url = http://file\n", {}),
    "an endpoint under a variable's": (
        "[default]\nregion = eu-west-1\nendpoint_url = http://file\n",
        {"AWS_ENDPOINT_URL": "http://variable"},
    ),
    "services": (
        (
            "[default]\nregion = eu-west-1\nservices = s\nendpoint_url = http://all\n[services s]\n"
            "dynamodb =\n  endpoint_url = http://tables\neventbridge =\n  endpoint_url = http://bus\n"
        ),
        {},
    ),
    "services under a variable's": (
        "[default]\nregion = eu-west-1\nservices = s\n[services s]\nsqs =\n  endpoint_url = http://queues\n",
        {"AWS_ENDPOINT_URL": "http://variable"},
    ),
    "ignored endpoints": (
        "[default]\nregion = eu-west-1\nendpoint_url = http://file\nignore_configured_endpoint_urls = true\n",
        {"AWS_ENDPOINT_URL_SQS": "http://variable"},
    ),
    "fips": ("[default]\nregion = us-east-1\nuse_fips_endpoint = true\n", {}),
    "fips, and a variable": (
        "[default]\nregion = us-east-1\nuse_fips_endpoint = true\n",
        {"AWS_USE_FIPS_ENDPOINT": "false"},
    ),
    "dual stack": ("[default]\nregion = us-east-1\nuse_dualstack_endpoint = true\n", {}),
    "no account": (
        "[default]\nregion = us-east-1\naccount_id_endpoint_mode = disabled\n",
        {"AWS_ACCOUNT_ID": "123456789012"},
    ),
}


@pytest.mark.parametrize("which", FILES)
def test_what_a_file_says_counts_as_botocore_counts_it(
    which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, variables = FILES[which]
    (tmp_path / "config").write_text(text)
    configured(monkeypatch, {"AWS_CONFIG_FILE": str(tmp_path / "config"), **variables})
    assert not settings.is_in_environment()

    theirs = Theirs()
    for call in CALLS:
        assert ours(call) == theirs(call)


def test_a_file_in_its_usual_place_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, {})
    (tmp_path / ".aws").mkdir()
    for name in ("config", "credentials"):
        path = tmp_path / ".aws" / name
        path.write_text("[default]\nregion = eu-south-1\n")
        assert not settings.is_in_environment()
        assert found().region == "eu-south-1"
        path.unlink()
    assert settings.is_in_environment()


def test_a_variable_comes_before_a_files_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, {"AWS_REGION": "eu-west-1"})
    assert found().authorities is None
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/requests.pem")
    assert found().authorities == "/requests.pem"
    (tmp_path / "config").write_text("[default]\nca_bundle = /file.pem\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert found().authorities == "/file.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", "/aws.pem")
    assert found().authorities == "/aws.pem"


# Mistakes


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({}, NoRegionError),
        ({"AWS_REGION": "eu-west-1.evil.com/"}, InvalidRegionError),
        ({"AWS_REGION": "-x"}, InvalidRegionError),
        ({"AWS_REGION": "eu-west-1", "AWS_CA_BUNDLE": " "}, InvalidConfigError),
        ({"AWS_REGION": "eu-west-1", "AWS_ACCOUNT_ID_ENDPOINT_MODE": "x"}, InvalidConfigError),
        ({"AWS_REGION": "eu-west-1", "AWS_PROFILE": "none"}, ProfileNotFound),
        ({"AWS_REGION": "eu-west-1", "AWS_PROFILE": ""}, ProfileNotFound),
    ],
)
def test_a_mistake_is_the_error_that_it_is_in_botocore(
    variables: dict[str, str], error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(monkeypatch, variables)
    with pytest.raises(error) as theirs_:
        Theirs()(CALLS[0])
    with pytest.raises(error) as ours_:
        ours(CALLS[0])
    if error is not InvalidConfigError:
        assert str(ours_.value) == str(theirs_.value)


@pytest.mark.parametrize("url", ["localhost:5000", "http://", "http://a b", "nothing"])
def test_an_endpoint_that_is_no_url_is_the_error_that_it_is_in_botocore(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(monkeypatch, {"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": url})
    with pytest.raises(ValueError, match="Invalid endpoint") as theirs_:
        Theirs()(CALLS[0])
    with pytest.raises(ValueError, match="Invalid endpoint") as ours_:
        ours(CALLS[0])
    assert str(ours_.value) == str(theirs_.value)


# Credentials


def test_credentials_of_the_environment_need_no_session(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, {"AWS_REGION": "eu-west-1", "AWS_SESSION_TOKEN": "t", "AWS_ACCOUNT_ID": "1"})
    monkeypatch.setattr(settings, "_session", None)
    assert found().credentials() == ("AKIA", "secret", "t", "1")


@pytest.mark.parametrize(
    "variables",
    [
        KEYS,
        {**KEYS, "AWS_SESSION_TOKEN": "t"},
        {**KEYS, "AWS_SECURITY_TOKEN": "older", "AWS_SESSION_TOKEN": "t"},
        {**KEYS, "AWS_SESSION_TOKEN": ""},
        {**KEYS, "AWS_CREDENTIAL_EXPIRATION": "2999-01-01T00:00:00Z", "AWS_SESSION_TOKEN": "t"},
        {},
        {"AWS_SECRET_ACCESS_KEY": "secret"},
    ],
)
def test_credentials_are_those_that_botocore_finds(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    expected = Session().get_credentials()
    was = found().credentials()
    if expected is None:
        assert was is None
    else:
        assert was is not None
        frozen = expected.get_frozen_credentials()
        assert (was.access_key, was.secret_key, was.token or None) == (
            frozen.access_key,
            frozen.secret_key,
            frozen.token or None,
        )


def test_credentials_of_the_environment_that_say_when_they_end_are_not_used_beyond_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    configured(monkeypatch, {"AWS_REGION": "eu-west-1", "AWS_CREDENTIAL_EXPIRATION": "2001-01-01T00:00:00Z"})
    with pytest.raises(RuntimeError, match="expired"):
        found().credentials()


def test_half_of_the_credentials_is_the_error_that_it_is_in_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    with pytest.raises(PartialCredentialsError):
        found().credentials()


def test_credentials_of_a_profile_are_asked_for_at_every_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that gives credentials for a moment: botocore's object refreshes them, and nothing here keeps them."""
    count = tmp_path / "count"
    script = tmp_path / "give.sh"
    script.write_text(
        f"#!/bin/sh\necho x >> {count}\nn=$(wc -l < {count})\n"
        'echo "{\\"Version\\": 1, \\"AccessKeyId\\": \\"K$n\\", \\"SecretAccessKey\\": \\"s\\", '
        '\\"SessionToken\\": \\"t\\", \\"Expiration\\": \\"2001-01-01T00:00:00Z\\"}"\n'.replace("2001", "2999")
    )
    script.chmod(0o755)
    (tmp_path / "config").write_text(f"[default]\nregion = eu-west-1\ncredential_process = {script}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    known = found()
    assert not count.exists(), "nothing is asked before it is needed"
    first = known.credentials()
    assert first is not None
    assert first.access_key == "K1"
    again = known.credentials()
    assert again is not None
    assert again.access_key == "K1", "they hold until 2999"

    script.write_text(script.read_text().replace("2999", "2001"))
    expiring = found()
    with pytest.raises(Exception, match="expired"):
        expiring.credentials()


# What only botocore can tell


async def test_where_botocores_data_is_replaced_its_own_client_makes_all_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(monkeypatch, {"AWS_REGION": "eu-west-1"})
    environment = ProcessEnvironment()
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    try:
        made = await client(environment, "dynamodb")
        assert type(made).__module__ != "pipeline.aws.calls"
        assert made.meta.region_name == "eu-west-1"
    finally:
        await environment.aclose()
    monkeypatch.delenv("AWS_DATA_PATH")
    assert not settings.has_own_data()
    (tmp_path / ".aws" / "models").mkdir(parents=True)
    assert settings.has_own_data()


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({"AWS_REGION": "cn-north-1"}, "https://dynamodb.cn-north-1.amazonaws.com.cn/"),
        ({"AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL_DYNAMODB": "http://x:1"}, "http://x:1/"),
    ],
)
async def test_a_client_says_where_its_calls_go(
    variables: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    configured(monkeypatch, variables)
    environment = ProcessEnvironment()
    try:
        made = await client(environment, "dynamodb")
        assert (made.meta.endpoint_url, made.meta.region_name) == (url, variables["AWS_REGION"])
    finally:
        await environment.aclose()


def test_an_endpoint_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    configured(monkeypatch, {"AWS_REGION": "eu-west-1"})
    known = Endpoints("dynamodb", found(), signing_name="dynamodb")
    assert known.usual == Endpoint("https://dynamodb.eu-west-1.amazonaws.com/", "eu-west-1", "dynamodb")
    assert known.of({"ResourceArn": TABLE}, None) is known.of({"ResourceArn": TABLE}, None)
