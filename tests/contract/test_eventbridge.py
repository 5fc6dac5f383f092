"""What is special about EventBridge: a bus that must exist, and failures of entries."""

from collections.abc import Generator
from typing import Any

import pytest
from tests.support.brokers.sqs_server import SqsServer
from tests.support.brokers.stubbed_aws import stubbed

from dsql_outbox.outbox import SettingsError, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, Rejected, Retry, Unavailable
from dsql_outbox.testing.sink_contract import new_message, published

pytestmark = pytest.mark.anyio

URL = "eventbridge://orders"


@pytest.fixture
def events() -> Generator[Any]:
    """An EventBridge that answers by script; its bus exists."""
    with stubbed("events") as stub:
        stub.add_response("describe_event_bus", {"Name": "orders"})
        yield stub


def answer(events: Any, *codes: str) -> None:
    """The next request is answered with these error codes; an empty one is a success."""
    entries = [
        {"ErrorCode": code, "ErrorMessage": "because"} if code else {"EventId": "e"}
        for code in codes
    ]
    events.add_response("put_events", {"FailedEntryCount": 0, "Entries": entries})


async def test_entries_of_a_request_fail_each_for_itself(events: Any) -> None:
    expected = {
        "": Delivered(),
        "InternalFailure": Retry("refused by EventBridge: InternalFailure"),
        "MalformedDetail": Rejected("refused by EventBridge: MalformedDetail"),
        "InvalidArgument": Rejected("refused by EventBridge: InvalidArgument"),
    } | {
        code: Unavailable(f"refused by EventBridge: {code}")
        for code in (
            "ThrottlingException",
            "AccessDeniedException",
            "NotAuthorizedForSourceException",
            "NotAuthorizedForDetailTypeException",
            "InvalidAccountIdException",
        )
    }
    answer(events, *expected)

    async with open_sink(URL) as sink:
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(9)])

    assert outcomes == [*expected.values()]


async def test_a_refused_request_is_sent_again_entry_by_entry(events: Any) -> None:
    for _ in range(2):
        events.add_client_error("put_events", "ValidationException", "because", 400)
    answer(events, "")

    async with open_sink(URL) as sink:
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(2)])

    assert outcomes == [
        Rejected("refused by EventBridge: ValidationException"),
        Delivered(),
    ]


async def test_throttling_of_a_request_makes_the_bus_unavailable(events: Any) -> None:
    events.add_client_error("put_events", "ThrottlingException", "because", 400)

    async with open_sink(URL) as sink:
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(2)])

    assert outcomes == [Unavailable("refused by EventBridge: ThrottlingException")] * 2


async def test_an_internal_failure_of_a_request_is_an_unavailable_sink(events: Any) -> None:
    events.add_client_error("put_events", "InternalException", "because", 500)

    async with open_sink(URL) as sink:
        with pytest.raises(SinkUnavailable, match="EventBridge bus orders cannot be used"):
            await published(sink, [new_message()])


async def test_a_bus_that_is_missing_is_what_the_error_says(sqs_server: SqsServer) -> None:
    missing = f"{URL}?region=eu-west-1&endpoint={sqs_server.endpoint}"

    with pytest.raises(
        SinkUnavailable, match=r"EventBridge bus orders cannot be used: .*not exist"
    ):
        async with open_sink(missing):
            pass


@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException"])
async def test_a_bus_that_is_not_known_to_exist_any_more_is_an_unavailable_sink(
    events: Any, code: str
) -> None:
    """AWS acknowledges events for a bus that is gone, and drops them."""
    events.add_client_error("describe_event_bus", code, "because", 400)

    async with open_sink(URL) as sink:
        with pytest.raises(SinkUnavailable, match=code):
            await published(sink, [])


async def test_without_a_region_the_error_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")

    with pytest.raises(SettingsError, match=r"the region is not known; add \?region="):
        async with open_sink(URL):
            pass
