"""The pages that are timed and looked at, with the ids that lead there."""

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import quote

import psycopg


class Shown(NamedTuple):
    waiting: str
    behind: str
    blocked: str
    dead: str
    entity: str
    middle: str
    pattern: str

    def pages(self) -> Iterator[tuple[str, str]]:
        """Each page's name and path."""
        yield "overview", "/"
        yield "events", "/events"
        yield "event that waits", f"/events/{self.waiting}"
        yield "event behind others", f"/events/{self.behind}"
        yield "event that is blocked, with its payload", f"/events/{self.blocked}?payload=1"
        yield "dead letter", f"/events/{self.dead}"
        yield "entity", f"/entities?key={quote(self.entity, safe='')}"
        yield "dead letters", "/messages?state=dead"
        yield "dead letters of one kind", f"/messages?state=dead&error={quote(self.pattern)}"
        yield "messages of a subject", f"/messages?subject={quote(self.entity, safe='')}"
        yield "dead letters from the middle on", f"/messages?state=dead&after={quote(self.middle)}"
        yield "dead letters with a rare error", "/messages?state=dead&error=does+not+exist"
        yield "dead letters with an error that none has", "/messages?state=dead&error=no+such+error"
        yield "failures", "/messages?state=failing"
        yield "failures that are blocked", "/messages?state=failing&blocked=1"
        yield "failures of a topic that none has", "/messages?state=failing&topic=none"


def ids_of(connection: psycopg.Connection[Any]) -> Shown:
    """Find an event of each kind."""

    def one(query: str) -> str:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return str(row[0])

    last = "SELECT {} FROM outbox.entities WHERE entity_type = 'Loan' ORDER BY entity_id LIMIT 1"
    return Shown(
        waiting=one(
            "SELECT o.event_id FROM outbox.outbox o WHERE previous_position = 0 AND NOT EXISTS "
            "(SELECT FROM outbox.outbox_failures f WHERE f.event_id = o.event_id) LIMIT 1"
        ),
        behind=one(last.format("event_id")),
        blocked=one(
            "SELECT event_id FROM outbox.outbox_failures WHERE retry_at = 'infinity' LIMIT 1"
        ),
        dead=one("SELECT event_id FROM outbox.dead_letters LIMIT 1"),
        entity=one(last.format("entity_type || '/' || entity_id")),
        middle=one(
            "SELECT 'dead/' || event_id || '/' || died_at FROM outbox.dead_letters "
            "WHERE died_at < now() - interval '30 minutes' ORDER BY died_at DESC LIMIT 1"
        ),
        pattern=one(
            "SELECT error_pattern FROM outbox.dead_letters WHERE error LIKE 'the partner%' LIMIT 1"
        ),
    )
