"""`dsql_outbox.testing` as its users have it: by its document, in a pytest of their own."""

import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from urllib.parse import urlsplit

import anyio
import pytest
from tests.support.checkout import ROOT

from dsql_outbox.outbox import SinkUnavailable
from dsql_outbox.publisher import Delivered, Rejected, Retry
from dsql_outbox.testing import MemorySink, OtlpReceiver
from dsql_outbox.testing.sink_contract import new_message, published

pytestmark = pytest.mark.anyio

DOCUMENT = ROOT / "docs" / "testing.md"
_, ENDPOINT = (
    (ROOT / "docs" / "fastapi.md").read_text().split("## An endpoint that is called twice")
)
SINKS = ROOT / "docs" / "writing-a-sink.md"


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a pytest of one's own says of the examples of the documents."""
    folder = tmp_path_factory.mktemp("documents")
    (example,) = re.findall(r"(?ms)^```python\n(.*?)^```$", DOCUMENT.read_text())
    (folder / "test_example.py").write_text(example)
    program, *_, its_tests = re.findall(r"(?ms)^```python\n(.*?)^```$", ENDPOINT)
    (folder / "payments.py").write_text(program)
    (folder / "test_payments.py").write_text(its_tests)
    sink = re.findall(r"(?ms)^```python\n(.*?)^```$", SINKS.read_text())[-1]
    (folder / "test_sink.py").write_text(sink.replace("acme://localhost", "stdout:"))
    # The newest starlette prefers a package that the oldest allowed one does not know.
    warnings = ["-W", "error", "-W", "ignore:Using `httpx` with"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", *warnings],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return done.stdout + done.stderr


def outcomes(said: str, file: str) -> Counter[str]:
    """How often each outcome came in a file."""
    return Counter(re.findall(rf"(?m)^{file}\.py::.* (PASSED|FAILED|SKIPPED|ERROR)", said))


@pytest.mark.slow
def test_the_example_of_the_document_runs(said: str) -> None:
    assert outcomes(said, "test_example") == {"PASSED": 3}, said


@pytest.mark.slow
def test_the_endpoint_that_is_called_twice_runs(said: str) -> None:
    assert outcomes(said, "test_payments") == {"PASSED": 2}, said


@pytest.mark.slow
def test_the_contract_suite_runs_as_its_document_says_and_finds_what_is_missing(said: str) -> None:
    """The broker of the document reads nothing back, so only what stores nothing passes."""
    assert outcomes(said, "test_sink") == {"FAILED": 19, "PASSED": 3, "SKIPPED": 4}, said
    assert re.search("test_a_call_without_messages_stores_nothing.* PASSED", said)


def test_only_the_plugin_imports_pytest() -> None:
    code = "import sys, dsql_outbox.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_the_sink_answers_as_it_is_told_and_then_delivers() -> None:
    sink, message = MemorySink(), new_message()
    sink.fail(message.event_id, Retry("no"), Rejected("never"))
    sink.fail(message.event_id, Retry("lost"), stored=True)
    outcomes = [(await published(sink, [message]))[0] for _ in range(4)]
    assert outcomes == [Retry("no"), Rejected("never"), Retry("lost"), Delivered()]
    assert sink.messages == [message, message]


async def test_a_sink_that_is_down_keeps_nothing() -> None:
    sink = MemorySink()
    sink.down = True
    with pytest.raises(SinkUnavailable):
        await published(sink, [new_message()])
    assert sink.ids == []


async def test_waiting_ends_when_the_messages_are_here() -> None:
    sink, messages = MemorySink(), [new_message(), new_message()]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(published, sink, messages)
        assert await sink.published(2) == messages


def test_waiting_ends_in_a_thread_too() -> None:
    sink, message = MemorySink(), new_message()
    thread = threading.Thread(target=anyio.run, args=(published, sink, [message]))
    thread.start()
    assert sink.wait_published(1) == [message]
    thread.join()


async def test_waiting_in_vain_says_how_many_came() -> None:
    with pytest.raises(TimeoutError, match=r"0 of 1 messages came within 0\.01 s"):
        await MemorySink().published(1, timeout=0.01)


def test_a_receiver_listens_inside_its_block_only() -> None:
    with OtlpReceiver() as receiver:
        address = "127.0.0.1", urlsplit(receiver.endpoint).port
        socket.create_connection(address).close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address).close()
