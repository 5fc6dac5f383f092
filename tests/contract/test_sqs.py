"""What is special about SQS: entries, requests, and a server that goes and comes back."""

from collections.abc import Generator
from functools import partial
from threading import Event
from time import monotonic

import anyio
import pytest
from tests.support.brokers.readable_brokers import SqsBroker
from tests.support.brokers.sqs_server import (
    CREDENTIALS,
    ScriptedSqs,
    SqsServer,
    fail,
    scripted_sqs,
    take_all,
)
from tests.support.proxy.tcp_proxy import TcpProxy

from dsql_outbox.outbox import SettingsError, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Rejected, Retry, Unavailable
from dsql_outbox.testing.sink_contract import (
    Answers,
    Before,
    deliver,
    in_order,
    new_message,
    published,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that every SQS of the tests takes, and no settings of whoever runs them."""
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def sqs() -> Generator[ScriptedSqs]:
    """An SQS that answers by script."""
    with scripted_sqs() as server:
        yield server


def url(sqs: ScriptedSqs) -> str:
    return f"sqs://events?region=eu-west-1&timeout=2&endpoint={sqs.endpoint}"


def failed(entry: dict[str, str], code: str, *, sender: bool) -> dict[str, object]:
    return {"Id": entry["Id"], "SenderFault": sender, "Code": code, "Message": "because"}


# --- queues ----------------------------------------------------------------------------


async def test_a_fifo_queue_knows_a_message_again_and_keeps_its_group(
    sqs_fifo_broker: SqsBroker,
) -> None:
    message = new_message(key="Loan/7")

    async with sqs_fifo_broker.open() as sink:
        outcomes = [*await published(sink, [message]), *await published(sink, [message])]

    assert outcomes == [Delivered()] * 2
    (stored,) = await sqs_fifo_broker.received()
    assert stored["Attributes"]["MessageGroupId"] == "Loan/7"
    assert stored["Attributes"]["MessageDeduplicationId"] == message.dedupe_id


async def test_a_queue_that_is_missing_is_what_the_error_says(sqs_server: SqsServer) -> None:
    missing = f"sqs://none?region=eu-west-1&endpoint={sqs_server.endpoint}"

    with pytest.raises(SinkUnavailable, match=r"SQS queue none cannot be used: .*not exist"):
        async with open_sink(missing):
            pass


async def test_without_a_region_the_error_asks_for_it() -> None:
    with pytest.raises(SettingsError, match=r"the region is not known; add \?region="):
        async with open_sink("sqs://events"):
            pass


# --- entries and requests --------------------------------------------------------------


async def test_entries_of_a_request_fail_each_for_itself(sqs: ScriptedSqs) -> None:
    def respond(entries: list[dict[str, str]]) -> tuple[int, dict[str, object]]:
        refusals = [
            failed(entries[1], "InvalidMessageContents", sender=True),
            failed(entries[2], "InternalError", sender=False),
            failed(entries[3], "KmsThrottled", sender=True),
        ]
        return 200, {"Successful": take_all(entries[:1])[1]["Successful"], "Failed": refusals}

    async with open_sink(url(sqs)) as sink:
        sqs.script = [respond]
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(4)])

    assert outcomes == [
        Delivered(),
        Rejected("refused by SQS: InvalidMessageContents"),
        Retry("refused by SQS: InternalError"),
        Unavailable("refused by SQS: KmsThrottled"),
    ]


async def test_what_sqs_would_not_keep_as_it_is_is_rejected_and_not_sent(sqs: ScriptedSqs) -> None:
    bad = new_message(payload='{"a":"\uffff"}'.encode())

    async with open_sink(url(sqs)) as sink:
        outcomes = await published(sink, [bad, new_message(key="Loan/2")])

    assert outcomes == [Rejected("SQS takes no character U+FFFF"), Delivered()]
    assert [len(entries) for entries in sqs.requests] == [1]


async def test_a_refused_request_is_sent_again_entry_by_entry(sqs: ScriptedSqs) -> None:
    async with open_sink(url(sqs)) as sink:
        sqs.script = [fail("BatchRequestTooLong"), fail("InvalidParameterValue")]
        outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(3)])

    assert outcomes == [
        Rejected("refused by SQS: InvalidParameterValue"),
        Delivered(),
        Delivered(),
    ]


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("ExpiredToken", 403),
        ("InvalidClientTokenId", 403),
        ("ServiceUnavailable", 503),
    ],
)
async def test_a_refusal_that_is_about_sqs_or_the_login_is_an_unavailable_sink(
    sqs: ScriptedSqs, code: str, status: int
) -> None:
    async with open_sink(url(sqs)) as sink:
        sqs.script = [fail(code, status)]
        with pytest.raises(SinkUnavailable, match=rf"SQS queue events cannot be used: .*{code}"):
            await published(sink, [new_message()])


async def test_a_refusal_that_is_about_the_queue_makes_it_unavailable(sqs: ScriptedSqs) -> None:
    codes = {
        "QueueDoesNotExist": 400,
        "AWS.SimpleQueueService.NonExistentQueue": 400,
        "AccessDeniedException": 403,
        "RequestThrottled": 400,
        "ThrottlingException": 400,
        "KMS.DisabledException": 400,
        "KmsAccessDenied": 400,
    }
    async with open_sink(url(sqs)) as sink:
        for code, status in codes.items():
            sqs.script = [fail(code, status)]
            outcomes = await published(sink, [new_message(key=f"Loan/{n}") for n in range(2)])
            assert outcomes == [Unavailable(f"refused by SQS: {code}")] * 2


async def test_answers_come_while_other_requests_of_the_call_wait(sqs: ScriptedSqs) -> None:
    is_over = Event()

    def be_slow(entries: list[dict[str, str]]) -> tuple[int, dict[str, object]]:
        is_over.wait(10)
        return take_all(entries)

    answers = Answers(30)
    async with open_sink(url(sqs)) as sink, anyio.create_task_group() as tasks:
        sqs.script = [be_slow]
        tasks.start_soon(sink.publish, [new_message(key=f"Loan/{n}") for n in range(30)], answers)
        with anyio.fail_after(5):
            while len(answers.order) < 20:
                await answers.next()
        assert answers.outcomes.count(Delivered()) == 20
        is_over.set()

    assert answers.outcomes == [Delivered()] * 30


async def test_where_one_request_of_several_failed_its_messages_count_as_not_attempted(
    sqs: ScriptedSqs,
) -> None:
    messages = [new_message(key=f"Loan/{n}") for n in range(20)]

    async with open_sink(url(sqs)) as sink:
        sqs.script = [fail("ServiceUnavailable", 503)]
        outcomes = await published(sink, messages)

    assert sorted(map(str, outcomes)) == ["Delivered()"] * 10 + ["NotAttempted()"] * 10


# --- a server that goes ----------------------------------------------------------------


def leave(proxy: TcpProxy) -> None:
    """What clients see of a server that is killed."""
    proxy.pause_listening()
    proxy.cut_all(reset=True)


async def test_a_server_killed_between_waves_is_unavailable_and_then_gets_the_rest(
    sqs_broker: SqsBroker, sqs_proxy: TcpProxy
) -> None:
    messages = [new_message(key=f"Loan/{n % 2}") for n in range(6)]

    async with sqs_broker.open() as inner:
        sink = Before(inner, messages[3].event_id, partial(leave, sqs_proxy))
        waves = await in_order(sink, messages)
        assert isinstance(waves.unavailable, SinkUnavailable)
        assert waves.outcomes == [Delivered()] * 2 + [NotAttempted()] * 4

        sqs_proxy.resume_listening()
        await deliver(inner, messages[2:])

    arrived = [stored.event_id for stored in await sqs_broker.stored()]
    for key in ("Loan/0", "Loan/1"):
        sent = [message.event_id for message in messages if message.key == key]
        assert [event_id for event_id in arrived if event_id in sent] == sent


async def test_a_call_without_messages_asks_whether_sqs_is_there(
    sqs_broker: SqsBroker, sqs_proxy: TcpProxy
) -> None:
    async with sqs_broker.open() as sink:
        assert await published(sink, []) == []
        leave(sqs_proxy)
        with pytest.raises(SinkUnavailable):
            await published(sink, [])


async def test_a_server_that_is_silent_is_given_up_within_the_timeout(sqs: ScriptedSqs) -> None:
    is_over = Event()

    def be_silent(entries: list[dict[str, str]]) -> tuple[int, dict[str, object]]:
        is_over.wait(10)
        return take_all(entries)

    async with open_sink(url(sqs)) as sink:
        sqs.script = [be_silent]
        started = monotonic()
        with pytest.raises(SinkUnavailable, match=r"Read timeout"):
            await published(sink, [new_message()])
        took = monotonic() - started
        is_over.set()

    assert took < 8, "the server is silent for ten"


@pytest.mark.parametrize("setting", ["endpoint=http://a..b", "region=no_region!"])
async def test_a_setting_that_can_never_work_is_refused(setting: str) -> None:
    with pytest.raises(SettingsError, match=r"^SQS queue events: "):
        async with open_sink(f"sqs://events?{setting}&timeout=0.2"):
            pass


async def test_no_server_is_an_unavailable_sink_that_names_the_queue() -> None:
    nowhere = "sqs://events?region=eu-west-1&endpoint=http://127.0.0.1:1"

    with pytest.raises(SinkUnavailable, match=r"SQS queue events cannot be used: Could not conn"):
        async with open_sink(nowhere):
            pass
