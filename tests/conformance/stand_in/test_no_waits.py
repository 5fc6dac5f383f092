"""No session waits for another one: the first to commit wins, the other learns it at COMMIT."""

from collections.abc import Iterator
from time import monotonic
from typing import Any

import psycopg
import pytest
from tests.support.dsql.governed import GovernedPostgres
from tests.support.writer.checked_tables import Tables

Session = psycopg.Connection[Any]

CONFLICT = "change conflicts with another transaction (OC000)"
NEW = "INSERT INTO records.rows VALUES (9, 0) RETURNING n"
WRITES = [
    "UPDATE records.rows SET n = n + 1 WHERE id = 1 RETURNING n",
    "DELETE FROM records.rows WHERE id < 3 RETURNING n",
    (
        "INSERT INTO records.rows VALUES (1, 5) ON CONFLICT (id) DO UPDATE SET n = rows.n + 1"
        " RETURNING n"
    ),
    "WITH w AS (UPDATE records.rows SET n = n + 1 RETURNING n) SELECT count(*) FROM w",
    NEW,
]


@pytest.fixture
def rows(tables: Tables) -> Tables:
    tables.execute("CREATE TABLE records.rows (id int PRIMARY KEY, n int)")
    tables.execute("INSERT INTO records.rows SELECT id, 0 FROM generate_series(1, 3) id")
    return tables


@pytest.fixture
def sessions(governed: GovernedPostgres, rows: Tables) -> Iterator[list[Session]]:
    assert rows
    opened: list[Session] = [psycopg.connect(governed.url, autocommit=True) for _ in range(3)]
    yield opened
    for each in opened:
        each.close()


def run(session: Session, sql: str) -> Any:
    done = session.execute(sql.encode())
    return done.fetchall() if done.description else done.statusmessage


def fails(session: Session, sql: str) -> str | None:
    with pytest.raises(psycopg.Error) as raised:
        session.execute(sql.encode())
    assert raised.value.sqlstate == "40001"
    return raised.value.diag.message_primary


def test_both_sides_of_a_conflict_can_lose(
    governed: GovernedPostgres, sessions: list[Session]
) -> None:
    governed.both_lose = 1
    first, second, _ = sessions
    for session in (first, second):
        run(session, "BEGIN")
        run(session, WRITES[0])
    assert governed.both_lose == 0
    assert {fails(session, "COMMIT") for session in (first, second)} == {CONFLICT}
    assert run(first, WRITES[0]) == [(1,)]


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("last_first", [False, True])
def test_all_run_in_their_own_snapshots_and_the_first_to_commit_wins(
    sessions: list[Session], write: str, last_first: bool
) -> None:
    for each in sessions:
        run(each, "BEGIN")
    told = [run(each, write) for each in sessions]
    assert told == [told[0]] * 3
    winner, *losers = reversed(sessions) if last_first else sessions
    assert run(winner, "COMMIT") == "COMMIT"
    for each in losers:
        assert fails(each, "COMMIT") == CONFLICT
        assert each.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("end", ["ROLLBACK", "the connection is lost"])
def test_a_transaction_that_is_not_committed_harms_nobody(
    sessions: list[Session], write: str, end: str
) -> None:
    holder, other, alone = sessions
    run(holder, "BEGIN")
    run(holder, write)
    run(other, "BEGIN")
    told = run(other, write)
    if end == "ROLLBACK":
        run(holder, end)
    else:
        holder.close()
    assert run(other, "COMMIT") == "COMMIT"
    assert told
    assert run(alone, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("write", WRITES)
def test_a_statement_alone_does_not_wait_either(sessions: list[Session], write: str) -> None:
    holder, alone, _ = sessions
    run(holder, "BEGIN")
    run(holder, write)
    assert run(alone, write), "it is committed first"
    if write == NEW:  # it cannot be written again, beside the other
        assert fails(holder, "SELECT count(*) FROM records.rows") == CONFLICT
        assert run(holder, "COMMIT") == "ROLLBACK"
    else:
        assert run(holder, "SELECT count(*) FROM records.rows")
        assert fails(holder, "COMMIT") == CONFLICT


def test_what_was_taken_back_is_seen_by_its_own_transaction_and_committed(
    sessions: list[Session], rows: Tables
) -> None:
    one, two, _ = sessions
    run(one, "BEGIN")
    run(two, "BEGIN")
    for turn in range(1, 4):  # each write takes back those of the other session
        for each in (one, two):
            (((n, _),)) = run(
                each,
                "UPDATE records.rows SET n = n + 1 WHERE id = 1 RETURNING n, clock_timestamp()",
            )
            assert n == turn
        assert run(one, "SELECT n FROM records.rows WHERE id = 1") == [(turn,)]
    run(two, "COMMIT")
    assert fails(one, "COMMIT") == CONFLICT
    assert rows.execute("SELECT n FROM records.rows WHERE id = 1") == [{"n": 3}]


def test_what_a_statement_told_is_what_is_committed_though_it_was_taken_back(
    sessions: list[Session], rows: Tables
) -> None:
    one, two, _ = sessions
    rows.execute("ALTER TABLE records.rows ADD at timestamptz")
    run(one, "BEGIN")
    write = "UPDATE records.rows SET at = clock_timestamp() WHERE id = 1 RETURNING at"
    ((at,),) = run(one, write)
    run(two, "BEGIN")
    run(two, write)
    run(two, "ROLLBACK")
    run(one, "COMMIT")
    assert rows.execute("SELECT at FROM records.rows WHERE id = 1") == [{"at": at}]


@pytest.mark.parametrize("lock", ["FOR UPDATE", "FOR KEY SHARE"])
def test_a_lock_of_a_row_counts_as_a_write(sessions: list[Session], lock: str) -> None:
    reader, writer, _ = sessions
    run(reader, "BEGIN")
    run(reader, f"SELECT n FROM records.rows WHERE id = 1 {lock}")
    run(writer, "DELETE FROM records.rows WHERE id = 1")
    assert fails(reader, "COMMIT") == CONFLICT


@pytest.mark.parametrize("begin", [True, False])
def test_a_commit_of_what_was_written_takes_its_time(
    governed: GovernedPostgres, sessions: list[Session], begin: bool
) -> None:
    """Also that of a loser. A COMMIT takes none if nothing was written."""
    one, two, _ = sessions
    governed.commit_time = 3600.0
    for sql in ("BEGIN", "SELECT 1", "COMMIT", "SELECT n FROM records.rows"):
        run(two, sql)
    governed.commit_time = 0.2
    began = monotonic()
    if not begin:
        run(two, WRITES[0])
        assert monotonic() - began >= 0.2
        return
    for each in (one, two):
        run(each, "BEGIN")
        run(each, WRITES[0])
    run(two, "COMMIT")
    assert monotonic() - began >= 0.2
    assert fails(one, "COMMIT") == CONFLICT
    assert monotonic() - began >= 0.4
