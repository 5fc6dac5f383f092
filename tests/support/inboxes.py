"""Inboxes for threads and for asyncio, called in the same way."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from anyio.from_thread import BlockingPortal
from tests.support.dsql.server import KINDS

from dsql_outbox.inbox import AsyncInbox, Handled, Inbox, Received
from dsql_outbox.outbox import Database
from dsql_outbox.outbox.message import parse_subject_key

OpenInbox = Callable[..., "InboxCaller"]

ADD = "INSERT INTO public.effects VALUES (%s)"


class InboxCaller:
    """Calls `once` with functions that run SQL. `runs` counts the calls of the function."""

    def __init__(self, portal: BlockingPortal, kind: str, url: str, consumer: str) -> None:
        self.runs = 0
        self.inbox: Any = (Inbox if kind == "threads" else AsyncInbox)(Database(url), consumer)
        self._portal = portal
        self._kind = kind

    def once(
        self,
        message: Received | UUID | str,
        query: str = ADD,
        at_run: Callable[[int], object] | None = None,
        **options: Any,
    ) -> Handled[int]:
        """Add an effect for the message; the function's value is the number of its run."""

        def ran() -> int:
            self.runs += 1
            if at_run is not None:
                at_run(self.runs)
            return self.runs

        text = message.id if isinstance(message, Received) else message

        def plain(connection: psycopg.Connection[Any]) -> int:
            connection.execute(query.encode(), (str(text),) if "%s" in query else None)
            return ran()

        async def lazy(connection: psycopg.AsyncConnection[Any]) -> int:
            await connection.execute(query.encode(), (str(text),) if "%s" in query else None)
            return ran()

        return self.call("once", message, plain if self._kind == "threads" else lazy, **options)

    def call(self, method: str, *given: Any, **options: Any) -> Any:
        """Call a method of the inbox."""
        work = partial(getattr(self.inbox, method), *given, **options)
        return work() if self._kind == "threads" else self._portal.call(work)

    def close(self) -> None:
        """Close the inbox."""
        self.call("close")


@pytest.fixture(params=KINDS)
def open_inbox(
    request: pytest.FixtureRequest, portal: BlockingPortal, effects: None
) -> Iterator[OpenInbox]:
    """Makes inboxes: each test runs with `Inbox` and with `AsyncInbox`."""
    del effects
    opened: list[InboxCaller] = []

    def open_inbox(url: str, consumer: str = "mailer") -> InboxCaller:
        opened.append(InboxCaller(portal, request.param, url, consumer))
        return opened[-1]

    yield open_inbox
    for caller in opened:
        caller.close()


@pytest.fixture
def effects(url: str) -> None:
    """A table of effects without any key: only the inbox keeps an effect from coming twice."""
    with psycopg.connect(url, autocommit=True) as sql:
        sql.execute("DROP TABLE IF EXISTS public.effects")
        sql.execute("CREATE TABLE public.effects (message text NOT NULL)")


def effects_in(url: str) -> list[str]:
    """The effects, sorted."""
    with psycopg.connect(url, autocommit=True) as sql:
        return [each for (each,) in sql.execute("SELECT message FROM public.effects ORDER BY 1")]


def remembered(url: str) -> list[tuple[str, str]]:
    """What the inboxes remember: consumers and ids, sorted."""
    with psycopg.connect(url, autocommit=True) as sql:
        query = "SELECT consumer, dedupe_id FROM outbox.inbox ORDER BY 1, 2"
        return [(consumer, each) for consumer, each in sql.execute(query)]


def new_received(
    position: int = 1,
    previous: int = 0,
    key: str = "Loan/1",
    event_id: UUID | None = None,
    replay: int | None = None,
    source: str = "/dsql-outbox",
) -> Received:
    """A received message with an id of its own."""
    found = event_id or uuid4()
    subject_type, subject_id = parse_subject_key(key)
    dedupe_id = str(found) if replay is None else f"{found}/r{replay}"
    return Received(
        id=found,
        dedupe_id=dedupe_id,
        source=source,
        topic="events.LoanPaid",
        subject_type=subject_type,
        subject_id=subject_id,
        position=position,
        previous_position=previous,
        replay=replay,
        trace={},
        headers={},
        data=b"{}",
    )
