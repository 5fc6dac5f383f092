"""``dsql-outbox write`` while the database is out of reach: what it says, and its exit code."""

import json
from functools import partial
from time import monotonic

import pytest
from tests.support.commands import Command, invoke, lines
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer.written_events import event

from dsql_outbox.cli.write import command
from dsql_outbox.observability.log_hook import log_facts
from dsql_outbox.servers.server_process import free_port
from dsql_outbox.writer.tuned_settings import TunedSettings


def test_a_first_connection_that_is_refused_is_told_at_once_and_ends_in_69() -> None:
    """The first line comes long before the end, and no line has the password."""
    port = free_port()
    url = f"postgresql://writer:secret@127.0.0.1:{port}/shop"
    with Command("write", "--database", url, "--max-outage", 2) as command:
        command.feed(event() + b"\n")
        first = command.error_line()
        told = monotonic()
        done = command.finish()
    assert "WARNING Transient failure (OperationalError) detected for event" in first
    assert f"attempt 1 at 127.0.0.1:{port}: connection " in first
    assert "Connection refused" in first
    assert "(outage, 0.0 of 2 s); no connection to it has succeeded yet: check the host" in first
    assert monotonic() - told > 0.5
    assert done.code == 69
    assert "secret" not in first + done.err


def test_a_storm_is_summed_up_before_the_command_ends(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON, so that what lines stand for can be added up."""
    monkeypatch.setattr(log_facts._writes, "_interval", 60.0)
    monkeypatch.setattr(command, "BATCH", 1)
    monkeypatch.setattr(command, "WriterSettings", partial(TunedSettings, base=0.002, cap=0.05))
    proxy.refuse(14)
    flags = ["--log-format", "json"]
    done = invoke(
        "write", "--database", proxy.url, *flags, stdin=lines(event(f"car-{n}") for n in range(14))
    )
    found = [json.loads(line) for line in done.err.splitlines()]
    counts = [line["count"] for line in found if "conflict" in line.get("message", "")[:30]]
    assert counts[:10] == [1] * 10
    assert len(counts) == 11
    assert sum(counts) == 14


def test_a_server_without_writes_ends_it_with_69_and_the_place_to_go_on(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a failover. Without the stop, every event of the rest would fail alone."""
    proxy.refuse(1000, sqlstate="25006", message="cannot execute INSERT in a read-only transaction")
    monkeypatch.setattr(command, "BATCH", 1)
    done = invoke("write", "--database", proxy.url, stdin=lines(event() for _ in range(60)))
    assert (done.code, done.out) == (69, b"")
    assert "stopped: the database accepts no writes; write again from line 1 of -" in done.err
    assert 1 <= done.err.count('"error":"ReadOnlySqlTransaction"') <= 4
