"""What is special about SNS: standard and FIFO topics, their limit, and failures of entries."""

from collections.abc import Generator
from typing import Any

import pytest
from tests.support.brokers.readable_brokers import SnsBroker
from tests.support.brokers.sqs_server import SqsServer
from tests.support.brokers.stubbed_aws import stubbed

from dsql_outbox.outbox import SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, Rejected, Retry, Unavailable
from dsql_outbox.testing.sink_contract import new_message, published

pytestmark = pytest.mark.anyio

URL = "sns://arn:aws:sns:eu-west-1:123456789012:orders"
LARGE = b'"' + b"x" * (300 << 10) + b'"'


@pytest.fixture
def sns() -> Generator[Any]:
    """An SNS that answers by script."""
    with stubbed("sns") as stub:
        yield stub


def topic_of(sns: Any, **attributes: str) -> None:
    sns.add_response("get_topic_attributes", {"Attributes": attributes})


def stored(*ids: str) -> list[dict[str, str]]:
    return [{"Id": name, "MessageId": "m"} for name in ids]


def failed(name: str, code: str, *, sender: bool) -> dict[str, object]:
    return {"Id": name, "SenderFault": sender, "Code": code, "Message": "because"}


async def test_a_fifo_topic_passes_on_the_group_and_the_dedupe_id(
    sns_fifo_broker: SnsBroker,
) -> None:
    message = new_message(key="Loan/7")

    async with sns_fifo_broker.open() as sink:
        assert await published(sink, [message]) == [Delivered()]

    (found,) = await sns_fifo_broker.received()
    assert found["Attributes"]["MessageGroupId"] == "Loan/7"
    assert found["Attributes"]["MessageDeduplicationId"] == message.dedupe_id


async def test_a_topic_that_is_missing_is_what_the_error_says(sqs_server: SqsServer) -> None:
    with pytest.raises(SinkUnavailable, match=r"SNS topic orders cannot be used: .*not exist"):
        async with open_sink(f"{URL}?endpoint={sqs_server.endpoint}"):
            pass


@pytest.mark.parametrize(
    ("attributes", "outcome"),
    [
        ({}, Rejected),
        ({"MaximumMessageSize": "1048576"}, Delivered),
    ],
)
async def test_the_limit_is_that_of_the_topic(
    sns: Any, attributes: dict[str, str], outcome: type
) -> None:
    topic_of(sns, **attributes)
    if outcome is Delivered:
        sns.add_response("publish_batch", {"Successful": stored("0"), "Failed": []})

    async with open_sink(URL) as sink:
        (found,) = await published(sink, [new_message(payload=LARGE)])

    assert isinstance(found, outcome)


async def test_without_the_right_to_ask_the_default_limit_holds(sns: Any) -> None:
    sns.add_client_error("get_topic_attributes", "AuthorizationError", "no", 403)

    async with open_sink(URL) as sink:
        (found,) = await published(sink, [new_message(payload=LARGE)])

    assert "is over the limit of SNS of 262144 bytes" in str(found)


async def test_entries_of_a_request_fail_each_for_itself(sns: Any) -> None:
    refusals = [
        failed("1", "InvalidParameter", sender=True),
        failed("2", "InternalError", sender=False),
        failed("3", "KMSThrottling", sender=True),
    ]
    topic_of(sns)
    sns.add_response("publish_batch", {"Successful": stored("0"), "Failed": refusals})

    async with open_sink(URL) as sink:
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(4)])

    assert outcomes == [
        Delivered(),
        Rejected("refused by SNS: InvalidParameter"),
        Retry("refused by SNS: InternalError"),
        Unavailable("refused by SNS: KMSThrottling"),
    ]


async def test_a_refused_request_is_sent_again_entry_by_entry(sns: Any) -> None:
    topic_of(sns)
    sns.add_client_error("publish_batch", "BatchRequestTooLong", "because", 400)
    sns.add_client_error("publish_batch", "InvalidParameter", "because", 400)
    sns.add_response("publish_batch", {"Successful": stored("1"), "Failed": []})

    async with open_sink(URL) as sink:
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(2)])

    assert outcomes == [Rejected("refused by SNS: InvalidParameter"), Delivered()]


@pytest.mark.parametrize("code", ["NotFound", "AuthorizationError", "Throttled", "KMSDisabled"])
async def test_a_refusal_that_is_about_the_topic_makes_it_unavailable(sns: Any, code: str) -> None:
    topic_of(sns)
    sns.add_client_error("publish_batch", code, "because", 400)

    async with open_sink(URL) as sink:
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(2)])

    assert outcomes == [Unavailable(f"refused by SNS: {code}")] * 2


@pytest.mark.parametrize("code", ["ExpiredToken", "InternalError", "ServiceUnavailable"])
async def test_a_refusal_that_is_about_sns_or_the_login_is_an_unavailable_sink(
    sns: Any, code: str
) -> None:
    topic_of(sns)
    sns.add_client_error("publish_batch", code, "because", 500)

    async with open_sink(URL) as sink:
        with pytest.raises(SinkUnavailable, match=rf"SNS topic orders cannot be used: .*{code}"):
            await published(sink, [new_message()])
