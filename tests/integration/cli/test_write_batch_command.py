"""``dsql-outbox write``: many events in one transaction."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.support.commands import Command, invoke, lines
from tests.support.proxy.postgres_proxy import PostgresProxy
from tests.support.writer.written_events import event, failures, ids, receipts, summary

from dsql_outbox.cli.write import command

AsFile = Callable[[Sequence[bytes]], Path]


@pytest.fixture(autouse=True)
def batch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "BATCH", getattr(request, "param", 25))


def in_batches(of: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("batch", [of], indirect=True)


@pytest.fixture
def file(tmp_path: Path) -> AsFile:
    """Events in a file, which is read in one piece; a pipe comes in pieces of its own."""

    def file(events: Sequence[bytes]) -> Path:
        path = tmp_path / f"{len(events)}.jsonl"
        path.write_bytes(lines(events))
        return path

    return file


def transactions(sql: psycopg.Connection[Any]) -> list[int]:
    """Sizes of the transactions that stored events, the biggest first."""
    query = "SELECT count(*) FROM outbox.business_events GROUP BY xmin::text ORDER BY 1 DESC"
    return [size for (size,) in sql.execute(query)]


def test_events_at_hand_share_a_transaction_and_keep_their_order_per_subject(
    url: str, sql: psycopg.Connection[Any], file: AsFile
) -> None:
    events = [event(f"car-{n % 3}", n) for n in range(60)]
    done = invoke("write", "--database", url, file(events))
    assert done.code == 0
    assert transactions(sql) == [25, 25, 10]
    versions = {str(r.event_id): r.entities[0].version for r in receipts(done.out)}
    assert [versions[one] for one in ids(events)] == [1 + n // 3 for n in range(60)]


@in_batches(1)
def test_of_one_each_event_has_a_transaction_of_its_own(
    url: str, sql: psycopg.Connection[Any]
) -> None:
    assert invoke("write", "--database", url, stdin=lines([event(), event()])).code == 0
    assert transactions(sql) == [1, 1]


def test_slow_input_is_not_held_back_for_a_full_batch(url: str) -> None:
    with Command("write", "--database", url) as command:
        for one in (event(), event()):
            command.feed(one + b"\n")
            assert receipts(command.line())[0].event_id.hex == ids([one])[0].replace("-", "")
        assert command.finish().code == 0


@in_batches(100)
def test_a_second_run_returns_the_duplicates_of_a_batch_by_one_look_up(
    proxy: PostgresProxy, file: AsFile
) -> None:
    events = [event(f"car-{n}") for n in range(200)]
    flags = ["--database", proxy.url, "--on-duplicate", "return"]
    assert invoke("write", *flags, file(events[:150])).code == 0
    proxy.reset_counts()
    done = invoke("write", *flags, file(events))
    counts = summary(done.err)
    assert (done.code, counts["duplicates"], counts["stored"]) == (0, 150, 50)
    found = receipts(done.out)
    assert sorted(str(r.event_id) for r in found) == sorted(ids(events))
    assert sum(r.status == "duplicate" for r in found) == 150
    assert {r.entities[0].version for r in found} == {1}
    assert proxy.round_trips <= 10, "not one an event"


def test_duplicates_are_failures_each_by_name_if_so_wished(url: str, file: AsFile) -> None:
    events = [event(f"car-{n}") for n in range(4)]
    flags = ["--database", url]
    assert invoke("write", *flags, file(events[1:3])).code == 0
    done = invoke("write", *flags, file(events))
    assert done.code == 1
    assert [failure["eventId"] for failure in failures(done.err)] == ids(events[1:3])
    assert [str(r.event_id) for r in receipts(done.out)] == [ids(events)[0], ids(events)[3]]


def test_an_event_that_the_database_refuses_does_not_take_its_batch_along(
    url: str, sql: psycopg.Connection[Any], file: AsFile
) -> None:
    sql.execute("ALTER TABLE outbox.entities ADD CHECK (entity_id <> 'bad')")
    events = [event("bad" if n == 5 else f"car-{n}") for n in range(12)]
    done = invoke("write", "--database", url, file(events))
    assert done.code == 1
    assert [(f["line"], f["error"]) for f in failures(done.err)] == [(6, "CheckViolation")]
    assert summary(done.err)["stored"] == 11


def test_a_conflicted_batch_is_retried_and_told_per_event(
    proxy: PostgresProxy, file: AsFile
) -> None:
    proxy.refuse(1)
    events = [event(f"car-{n}") for n in range(6)]
    flags = ["--database", proxy.url]
    done = invoke("write", *flags, file(events))
    assert done.code == 0
    assert {(r.attempts, r.conflicts) for r in receipts(done.out)} == {(2, 1)}
    assert summary(done.err)["retried"] == 6
