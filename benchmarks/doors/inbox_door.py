"""`Inbox.once`, beside the same two statements in a bare retried transaction of psycopg."""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import psycopg
from benchmarks.doors.line import Line

from dsql_outbox import Database
from dsql_outbox.inbox import Inbox

REMEMBER = (
    "INSERT INTO outbox.inbox VALUES ('bare', '', %s, %s, clock_timestamp())"
    " ON CONFLICT (consumer, source, dedupe_id) DO NOTHING"
)
EFFECT = "INSERT INTO public.effects VALUES (%s)"
_TRIES = 4


@contextmanager
def lines(url: str) -> Iterator[Iterator[Line]]:
    """Yield the line of the inbox."""
    with Inbox(Database(url), "ours") as inbox, psycopg.connect(url, autocommit=True) as own:
        own.execute("CREATE TABLE public.effects (message text NOT NULL)")

        def bare() -> None:
            text = str(uuid4())
            for _ in range(_TRIES):
                try:
                    with own.transaction():
                        if own.execute(REMEMBER, (text, uuid4())).rowcount:
                            own.execute(EFFECT, (text,))
                except psycopg.errors.SerializationFailure:
                    continue
                return

        def once() -> None:
            text = str(uuid4())
            inbox.once(text, lambda connection: connection.execute(EFFECT, (text,)))

        yield iter([Line("inbox: once", bare, once)])
