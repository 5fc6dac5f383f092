"""What ``sns://`` and ``eventbridge://`` URLs may say."""

from collections.abc import Callable

import pytest

from dsql_outbox.brokers.aws.batch_client import AwsAddress
from dsql_outbox.brokers.eventbridge import parse_eventbridge_url
from dsql_outbox.brokers.sns import parse_sns_url
from dsql_outbox.outbox import SettingsError

TOPIC = "arn:aws:sns:eu-west-1:123456789012:orders"
BUS = "arn:aws:events:eu-west-1:123456789012:event-bus/orders"


def test_a_topic_by_its_arn_tells_the_region_and_its_kind() -> None:
    standard, fifo = parse_sns_url(f"sns://{TOPIC}"), parse_sns_url(f"sns://{TOPIC}.fifo")

    assert (standard.arn, standard.is_fifo, fifo.is_fifo) == (TOPIC, False, True)
    assert standard.address == AwsAddress(region="eu-west-1", endpoint=None, timeout=5.0)
    assert str(standard) == "SNS topic orders"


def test_a_bus_is_given_by_its_name_or_its_arn() -> None:
    by_name, by_arn = (parse_eventbridge_url(f"eventbridge://{bus}") for bus in ("orders", BUS))

    assert (by_name.bus, by_name.address.region) == ("orders", None)
    assert (by_arn.bus, by_arn.address.region) == (BUS, "eu-west-1")
    assert str(by_name) == str(by_arn) == "EventBridge bus orders"


@pytest.mark.parametrize(
    ("parse", "url", "rule"),
    [
        (parse_sns_url, "sns://", "an SNS URL is sns://arn:aws:sns:REGION:ACCOUNT:NAME"),
        (parse_sns_url, "sns://orders", "an SNS URL is sns://arn:"),
        (parse_sns_url, f"sns:{TOPIC}", "an SNS URL is sns://arn:"),
        (parse_sns_url, f"sns://{TOPIC}.txt", "an SNS URL is sns://arn:"),
        (parse_sns_url, f"sns://key:s3cret@{TOPIC}", "credentials are the AWS SDK's"),
        (parse_sns_url, f"sns://{TOPIC}?fifo=yes", "unknown in an SNS URL: fifo"),
        (parse_eventbridge_url, "eventbridge://", "an EventBridge URL is eventbridge://NAME"),
        (parse_eventbridge_url, "eventbridge://a/b", "an EventBridge URL is"),
        (parse_eventbridge_url, "eventbridge:a", "an EventBridge URL is"),
        (parse_eventbridge_url, "eventbridge://k:s3cret@a", "credentials are the AWS SDK's"),
        (parse_eventbridge_url, "eventbridge://a?timeout=0", "timeout of an EventBridge URL"),
    ],
)
def test_what_breaks_a_rule_is_refused_without_showing_secrets(
    parse: Callable[[str], object], url: str, rule: str
) -> None:
    with pytest.raises(SettingsError) as refused:
        parse(url)

    assert rule in str(refused.value)
    assert "s3cret" not in str(refused.value)
