"""What is special about lines in a file and on standard output."""

import json
import os
import stat
from pathlib import Path

import pytest
from tests.support.brokers.readable_brokers import stdout_to

from dsql_outbox.outbox import SettingsError, SinkUnavailable
from dsql_outbox.publisher import open_sink
from dsql_outbox.publisher.sinks import Delivered, NotAttempted, Rejected
from dsql_outbox.testing.sink_contract import new_message, published

pytestmark = pytest.mark.anyio


async def test_a_line_is_one_object_with_the_event_as_text(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    message = new_message(key="Loan/7", payload=b'{"a": 1}')

    async with open_sink(f"jsonl:{path}") as sink:
        await published(sink, [message])

    assert json.loads(path.read_bytes()) == {
        "topic": "events.LoanCreated",
        "key": "Loan/7",
        "headers": {
            "ce-specversion": "1.0",
            "ce-id": str(message.event_id),
            "ce-source": "/tests",
            "ce-type": "LoanCreated",
            "ce-datacontenttype": "application/json",
            "ce-subject": "Loan/7",
            "traceparent": message.headers["traceparent"],
        },
        "payload": '{"a": 1}',
    }


async def test_a_payload_that_is_no_text_is_in_base64(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    message = new_message(payload=b"\0\0\0\0\x07\xff", datacontenttype="application/avro")

    async with open_sink(f"jsonl:{path}") as sink:
        await published(sink, [message])

    line = json.loads(path.read_bytes())
    assert line.keys() == {"topic", "key", "headers", "payload_base64"}
    assert line["payload_base64"] == "AAAAAAf/"
    assert line["headers"]["ce-datacontenttype"] == "application/avro"


async def test_a_message_that_is_no_text_is_rejected_and_ends_its_run(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    payloads = [b"1", b"2", b"\xff\x80", b"4"]
    messages = [
        *(new_message(key="Loan/1", payload=each) for each in payloads),
        *(new_message(key="Loan/2", payload=each) for each in payloads[2:]),
        new_message(key="Loan/3", payload=b"5"),
    ]

    async with open_sink(f"jsonl:{path}") as sink:
        outcomes = await published(sink, messages)

    rejected = Rejected(
        "a line of JSON takes only UTF-8 as JSON or text; bytes need another content type"
    )
    rest = NotAttempted()
    assert outcomes == [Delivered(), Delivered(), rejected, rest, rejected, rest, Delivered()]
    lines = [json.loads(line)["payload"] for line in path.read_text().splitlines()]
    assert lines == ["1", "2", "5"]


async def test_the_name_of_the_file_and_each_message_are_synced_to_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.jsonl"
    synced: list[tuple[bool, int]] = []
    sync = os.fsync

    def record(descriptor: int) -> None:
        sync(descriptor)
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        synced.append((is_folder, path.stat().st_size))

    monkeypatch.setattr(os, "fsync", record)
    async with open_sink(f"jsonl:{path}") as sink:
        assert synced == [(True, 0)]
        await published(sink, [new_message(), new_message()])

    assert synced[1:] == [(False, path.stat().st_size)]


async def test_a_torn_last_line_is_closed_first(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"whole":1}\n{"to')
    message = new_message()

    async with open_sink(f"jsonl:{path}") as sink:
        await published(sink, [message])
        await published(sink, [message])

    lines = path.read_bytes().split(b"\n")
    assert lines[:2] == [b'{"whole":1}', b'{"to']
    assert [json.loads(line)["key"] for line in lines[2:-1]] == [message.key] * 2
    assert lines[-1] == b""


async def test_a_relative_path_is_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    async with open_sink("jsonl:events.jsonl") as sink:
        await published(sink, [new_message()])

    assert (tmp_path / "events.jsonl").stat().st_size > 0


async def test_a_full_disk_is_an_unavailable_sink_and_names_the_file() -> None:
    async with open_sink("jsonl:/dev/full") as sink:
        with pytest.raises(SinkUnavailable, match=r"/dev/full: No space left on device"):
            await published(sink, [new_message()])


async def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "events.jsonl"

    with pytest.raises(SettingsError, match=f"cannot open {path}: No such file or directory"):
        async with open_sink(f"jsonl:{path}"):
            pass


async def test_a_new_file_is_for_its_owner_alone_and_no_link_is_followed(tmp_path: Path) -> None:
    path, link = tmp_path / "events.jsonl", tmp_path / "link.jsonl"
    async with open_sink(f"jsonl:{path}"):
        assert path.stat().st_mode & 0o777 == 0o600
    link.symlink_to(path)
    with pytest.raises(SettingsError, match=r"link\.jsonl is a link: name the file"):
        async with open_sink(f"jsonl:{link}"):
            pass


@pytest.mark.parametrize("url", ["jsonl:", "jsonl://events.jsonl", "jsonl:a\0b", "stdout:more"])
async def test_a_url_that_breaks_the_form_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match=r"jsonl:FILE|stdout: and nothing more"):
        async with open_sink(url):
            pass


async def test_a_reader_that_has_gone_is_an_unavailable_sink() -> None:
    reading, writing = os.pipe()
    with stdout_to(writing):
        os.close(writing)
        async with open_sink("stdout:") as sink:
            assert await published(sink, [new_message()]) == [Delivered()]
            os.close(reading)
            with pytest.raises(SinkUnavailable, match=r"standard output: Broken pipe"):
                await published(sink, [new_message()])
