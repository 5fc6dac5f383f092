"""The gate of a call: how long work beside a settled call may take."""

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from tests.support.clock import Clock

from dsql_outbox.outbox.unit_of_work import gate
from dsql_outbox.outbox.unit_of_work.gate import Gate


def test_work_aside_ends_within_a_second_and_not_after_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    monkeypatch.setattr(gate, "monotonic", clock)
    assert Gate(None).housekeeping_deadline == clock.now + 1.0
    assert Gate(0.2).housekeeping_deadline == clock.now + 0.2
    assert Gate(20.0).housekeeping_deadline == clock.now + 1.0


@pytest.mark.parametrize(
    ("is_inherited", "status", "text"),
    [
        (True, TransactionStatus.INTRANS, "another process opened the connection"),
        (False, TransactionStatus.IDLE, "the transaction is IDLE instead of INTRANS"),
    ],
)
def test_a_commit_goes_only_into_the_open_transaction_of_this_process(
    *, is_inherited: bool, status: TransactionStatus, text: str
) -> None:
    pgconn = SimpleNamespace(transaction_status=status)
    connection: Any = SimpleNamespace(is_inherited=is_inherited, pgconn=pgconn)
    own = Gate(1.0)
    with pytest.raises(psycopg.ProgrammingError, match=f"^COMMIT was not sent: {text}$"):
        own.admit("COMMIT", connection, TransactionStatus.INTRANS)
    assert not own.sent
