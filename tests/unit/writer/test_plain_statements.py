"""The plain form: which statements, in which order, and which of several errors counts."""

import re
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

import dsql_outbox.schema
from dsql_outbox.outbox import Entity, Event
from dsql_outbox.outbox.event.event_parser import parse_event
from dsql_outbox.outbox.failure import FailureKind, classify
from dsql_outbox.outbox.unit_of_work.commit import require_committed
from dsql_outbox.writer.statement.parameters import prepare
from dsql_outbox.writer.statement.plain import Plain

FILES = sorted(Path(dsql_outbox.schema.__file__).parent.glob("statements/plain_*.sql"))
WRITES_IN_CTE = re.compile(r"\bAS\s*\(\s*(INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE)


def statements() -> list[str]:
    event = parse_event(Event.new("CarSold", [Entity("Car", "C-1")]))
    prepared = prepare(event, uuid4().hex, "t", "/test", {})
    return [query.query.decode() for query, _ in Plain("outbox").statements([prepared], 16)]


def test_the_tables_are_written_entities_first() -> None:
    *writes, _ = statements()
    tables = [re.findall(r'INSERT INTO "outbox"\.(\w+)', write) for write in writes]
    assert tables == [["entities"], ["business_events"], ["event_headers"], ["outbox"]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_no_statement_has_a_data_modifying_cte(file: Path) -> None:
    assert not WRITES_IN_CTE.search(file.read_text())


def test_the_single_form_has_one() -> None:
    """The control of the test above."""
    probe = FILES[0].with_name("event_write_one.sql")
    assert WRITES_IN_CTE.search(probe.read_text())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("ROLLBACK", FailureKind.INTERRUPTED),
        ("SET", FailureKind.IN_DOUBT),
        (None, FailureKind.IN_DOUBT),
    ],
)
def test_a_commit_that_answers_anything_else_is_an_error(
    answer: str | None, kind: FailureKind
) -> None:
    """Only ROLLBACK says that nothing is stored."""
    with pytest.raises(psycopg.Error, match=f"answered {answer} to COMMIT") as raised:
        require_committed(answer)
    assert classify(raised.value, sent=True).kind is kind
