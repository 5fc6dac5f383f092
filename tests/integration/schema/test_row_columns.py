"""The columns of each statement are the arguments of what makes an object of its rows.

A row by position is decoded wrongly if they differ in order, one by name fails if they differ in
name. Nothing is run for it: the server describes the statement.
"""

from collections.abc import Iterator
from inspect import signature
from typing import Any, Final

import psycopg
import pytest

from dsql_outbox.cli.doctor.examined_database import Server
from dsql_outbox.cli.relay.leftover import WaitingTopic
from dsql_outbox.operations import (
    event_pages,
    fills,
    letter_groups,
    letters,
    operations,
    records,
    replay,
    status,
    topic_pauses,
    whereabouts,
)
from dsql_outbox.operations.replay_positions import Candidate
from dsql_outbox.operations.undelivered import UndeliveredMessage, found_row
from dsql_outbox.outbox.database.exchange import numbered
from dsql_outbox.publisher.leases import table
from dsql_outbox.publisher.relay import sql_store
from dsql_outbox.schema import tables as schema_tables
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer.program.stream import StreamRow
from dsql_outbox.writer.statement.answers import FoundRow

pytestmark = pytest.mark.postgres_only("the endpoint answers no Describe of a named statement")

BY_POSITION = {
    "event_find": FoundRow._fields,
    "event_stream": StreamRow._fields,
    "outbox_read": ("number", *sql_store.ROW_COLUMNS, "is_cut"),
    "outbox_read_range": ("number", *sql_store.ROW_COLUMNS, "is_cut"),
}

BY_NAME: Final[dict[str, Any]] = {
    "doctor_server": Server,
    "events_newest": (records._newest, records.NewestEvent),
    "failure_find": sql_store._WaitRow,
    "failure_list": sql_store._FailureRow,
    "failure_page": (found_row, UndeliveredMessage),
    "fill_page": fills._EventRow,
    "lease_beat": table._LeaseRow,
    "lease_list": table._LeaseRow,
    "letter_candidates": (letters._candidate, Candidate),
    "letter_find": (found_row, UndeliveredMessage),
    "letter_groups": letter_groups._GroupRow,
    "letter_page": (found_row, UndeliveredMessage),
    "operation_page": (operations._placed, operations.Operation),
    "record_entity": records.EntityRecord,
    "record_event": (records._event, records.EventRecord),
    "record_history": records.VersionRecord,
    "record_replays": records.ReplayRecord,
    "replay_candidates": (replay.StoredEvents("", "").candidate, Candidate),
    "replay_entity_page": event_pages._EntityRow,
    "replay_page": event_pages._TouchRow,
    "schema_shape": schema_tables._ColumnRow,
    "status_counters": status.Counters,
    "status_failures": (status._failure, status.FailedMessage),
    "status_publishers": status._seen,
    "status_shards": (status._shard, status.Shard),
    "topic_page": topic_pauses.PausedTopic,
    "waiting_find": (found_row, UndeliveredMessage),
    "waiting_first": whereabouts._Step,
    "waiting_newest": (records._newest, records.NewestEvent),
    "waiting_page": (found_row, UndeliveredMessage),
    "waiting_topics": WaitingTopic,
}


@pytest.fixture
def sql(outbox_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(outbox_url, autocommit=True) as connection:
        yield connection


def columns(sql: psycopg.Connection, name: str) -> tuple[str, ...]:
    """The names of the columns of a statement, from the server."""
    text = statement(name, "outbox", **dict.fromkeys(("limit", "rows", "shown", "steps"), 1))
    sql.pgconn.prepare(b"described", numbered(name, text).text)
    found = sql.pgconn.describe_prepared(b"described")
    assert found.nfields, found.error_message
    return tuple((found.fname(n) or b"").decode() for n in range(found.nfields))


@pytest.mark.parametrize("name", BY_POSITION)
def test_a_row_by_position_has_its_columns_in_order(sql: psycopg.Connection, name: str) -> None:
    assert columns(sql, name) == BY_POSITION[name]


@pytest.mark.parametrize("name", BY_NAME)
def test_a_row_by_name_has_every_field_once(sql: psycopg.Connection, name: str) -> None:
    found = columns(sql, name)
    function, *more = makers if isinstance(makers := BY_NAME[name], tuple) else (makers,)
    own = [
        each for each in signature(function).parameters.values() if each.kind != each.VAR_KEYWORD
    ]
    fields = {each.name for each in own} | {
        field for kind in more for field in kind.__struct_fields__
    }
    assert len({*found}) == len(found)
    assert {*found} <= fields
    assert {each.name for each in own if each.default is each.empty} <= {*found}
