"""For the tests of a project: the events that a block has written."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.event.event_parser import EventSource
from dsql_outbox.outbox.receipt import Receipt
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.writer.statement.answers import found_events

from .databases import connection_of
from .settings import outbox_settings

_Appended = dict[UUID, EventSource]

_captures: ContextVar[tuple[tuple[str, _Appended], ...]] = ContextVar(
    "dsql_outbox_django_captures", default=()
)


def note_append(using: str, event: EventSource, receipt: Receipt) -> None:
    """Tell the open captures of an event."""
    for alias, appended in _captures.get():
        if alias == using:
            appended[receipt.event_id] = event


@contextmanager
def captured_events(using: str = DEFAULT_DB_ALIAS) -> Generator[list[EventSource]]:
    """Collect the events of `append` in the block, in a list that is full at its end.

    It has those that are stored then, in the order of their appends, as Django's connection sees
    them: in a `TestCase` also what its transaction has not committed.

        with captured_events() as events:
            self.client.post("/orders/", {"item": "book"})
        assert [event.type for event in events] == ["OrderPlaced"]
    """
    appended: _Appended = {}
    token = _captures.set((*_captures.get(), (using, appended)))
    events: list[EventSource] = []
    try:
        yield events
    finally:
        _captures.reset(token)
    if appended:
        query = statement("event_find", outbox_settings().schema).decode()
        with connection_of(using).cursor() as cursor:
            cursor.execute(query, {"ids": array_literal(appended)})
            stored = found_events(cursor.fetchall())
        events += [event for each, event in appended.items() if each in stored]
