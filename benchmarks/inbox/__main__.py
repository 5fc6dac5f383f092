"""`once` beside the same two statements in a bare retried transaction of psycopg.

    python -m benchmarks.inbox [MESSAGES]

Both run in turn on one connection each, to a server that waits for its disk. The goal is a
ratio of at most 1.2; exits with 1 if it is missed.
"""

import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any
from uuid import uuid4

import psycopg

from dsql_outbox.inbox import Inbox
from dsql_outbox.outbox import Database
from dsql_outbox.schema import apply
from dsql_outbox.testing import EmbeddedPostgres

GOAL = 1.2
ROUNDS = 15

REMEMBER = (
    "INSERT INTO outbox.inbox VALUES ('bare', %s, %s, clock_timestamp())"
    " ON CONFLICT (consumer, dedupe_id) DO NOTHING"
)
EFFECT = "INSERT INTO public.effects VALUES (%s)"

Work = Callable[[str], object]


def bare(connection: psycopg.Connection[Any], text: str) -> None:
    for _ in range(4):
        try:
            with connection.transaction():
                if connection.execute(REMEMBER, (text, uuid4())).rowcount:
                    connection.execute(EFFECT, (text,))
        except psycopg.errors.SerializationFailure:
            continue
        return


def ours(inbox: Inbox, text: str) -> None:
    inbox.once(text, lambda connection: connection.execute(EFFECT, (text,)))


def seconds(work: Work, messages: int) -> float:
    texts = [str(uuid4()) for _ in range(messages)]
    started = perf_counter()
    for text in texts:
        work(text)
    return (perf_counter() - started) / messages


def compare(url: str, messages: int) -> tuple[float, float, float]:
    """Seconds of `once`, those of the bare transaction, and the median of their ratios."""
    with Inbox(Database(url), "ours") as inbox, psycopg.connect(url, autocommit=True) as own:
        works: list[Work] = [lambda text: ours(inbox, text), lambda text: bare(own, text)]
        for work in works:
            seconds(work, 50)
        rounds = [[seconds(work, messages) for work in works] for _ in range(ROUNDS)]
    once, plain = (median(column) for column in zip(*rounds, strict=True))
    return once, plain, median(first / second for first, second in rounds)


def main() -> int:
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with EmbeddedPostgres() as server:
        database = Database(server.url)
        apply(database)
        with database.connect() as connection:
            connection.execute("CREATE TABLE public.effects (message text NOT NULL)")
        once, plain, ratio = compare(server.url, messages)
    verdict = "ok" if ratio <= GOAL else "MISSED"
    print(
        f"once {once * 1e6:.0f} us, bare {plain * 1e6:.0f} us, ratio {ratio:.2f}"
        f" (goal {GOAL}): {verdict}"
    )
    return int(ratio > GOAL)


if __name__ == "__main__":
    sys.exit(main())
