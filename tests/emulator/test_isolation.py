import os

import pytest

from pipeline.emulator.isolation import check_endpoint, isolated
from pipeline.errors import ConfigurationError


@pytest.mark.parametrize(
    "url",
    [
        "https://sqs.us-east-1.amazonaws.com",
        "https://sqs.us-east-1.amazonaws.com.",
        "https://SQS.eu-west-1.AmazonAWS.com/",
        "https://sqs.cn-north-1.amazonaws.com.cn",
        "https://sqs.us-east-1.api.aws",
        "https://vpce-1-2.sqs.us-east-1.vpce.amazonaws.com",
        "https://queue.example.com",
        "http://8.8.8.8:5000",
        "http://169.254.169.254",
        "http://0.0.0.0:5000",
        "localhost:5000",
        "file:///tmp/x",
        "",
        "http://localhost@sqs.us-east-1.amazonaws.com",
        "http://sqs.amazonaws.internal",
    ],
)
def test_an_endpoint_outside_this_machine_and_its_private_network_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError):
        check_endpoint(url)


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:5000", "http://localhost:4566", "http://[::1]:5000", "http://moto:5000", "http://10.1.2.3"],
)
def test_an_endpoint_on_this_machine_or_in_a_private_network_is_accepted(url: str) -> None:
    check_endpoint(url)


def test_nothing_of_the_users_own_configuration_is_seen_during_a_run_and_all_of_it_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = {
        "AWS_PROFILE": "production",
        "AWS_ENDPOINT_URL_SQS": "https://sqs.us-east-1.amazonaws.com",
        "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        "AWS_ACCESS_KEY_ID": "real",
        "PIPELINE_RESOURCES": '{"sqs:orders": "https://sqs.us-east-1.amazonaws.com/1/orders"}',
    }
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with isolated("http://127.0.0.1:1"):
        assert os.environ["AWS_ENDPOINT_URL"] == "http://127.0.0.1:1"
        assert os.environ["AWS_ACCESS_KEY_ID"] == "testing"
        assert os.environ["AWS_CONFIG_FILE"] == os.devnull
        left = set(mine) - {"AWS_ACCESS_KEY_ID"}
        assert not left & set(os.environ)
    assert dict(os.environ) == before
