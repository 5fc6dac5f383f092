"""What an ``sqs://`` URL may say."""

import pytest

from dsql_outbox.brokers.aws.batch_client import AwsAddress
from dsql_outbox.brokers.sqs import parse_sqs_url
from dsql_outbox.outbox import SettingsError


def test_a_queue_by_its_name_has_these_defaults() -> None:
    settings = parse_sqs_url("sqs://my_events-1")

    assert (settings.name, settings.url) == ("my_events-1", None)
    assert settings.address == AwsAddress(region=None, endpoint=None, timeout=5.0)
    assert not settings.is_fifo
    assert str(settings) == "SQS queue my_events-1"


def test_a_queue_by_its_url_tells_the_region() -> None:
    settings = parse_sqs_url("sqs://sqs.eu-west-1.amazonaws.com/123456789012/orders.fifo")

    assert settings.url == "https://sqs.eu-west-1.amazonaws.com/123456789012/orders.fifo"
    assert (settings.name, settings.is_fifo) == ("orders.fifo", True)
    assert settings.address.region == "eu-west-1"


def test_parameters_are_read() -> None:
    settings = parse_sqs_url("sqs://a?timeout=0.5&region=eu-west-1&endpoint=http://localhost:4566")

    assert settings.address == AwsAddress(
        region="eu-west-1", endpoint="http://localhost:4566", timeout=0.5
    )


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("sqs://", "an SQS URL is sqs://NAME or"),
        ("sqs:a", "an SQS URL is sqs://NAME or"),
        ("sqs://a b", "an SQS URL is sqs://NAME or"),
        ("sqs://a.txt", "an SQS URL is sqs://NAME or"),
        ("sqs://host/a", "an SQS URL is sqs://NAME or"),
        ("sqs://" + "a" * 81, "an SQS URL is sqs://NAME or"),
        ("sqs://key:s3cret@a", "credentials are the AWS SDK's"),
        ("sqs://a?fifo=yes", "unknown in an SQS URL: fifo; known are endpoint, region, timeout"),
        ("sqs://a?timeout=0", "timeout of an SQS URL must be seconds above 0"),
        ("sqs://a?endpoint=http://key:s3cret@host", "endpoint of an SQS URL is http://HOST"),
        ("sqs://a?endpoint=localhost", "endpoint of an SQS URL is http://HOST"),
    ],
)
def test_what_breaks_a_rule_is_refused_without_showing_secrets(url: str, rule: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_sqs_url(url)

    assert rule in str(refused.value)
    assert "s3cret" not in str(refused.value)
