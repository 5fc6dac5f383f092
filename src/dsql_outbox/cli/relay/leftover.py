"""The text about the messages that a run leaves in the outbox."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from dsql_outbox.cli.output import counted

LIMIT: Final = 1_000
"""Messages that are counted at most."""

_TOPICS: Final = 3


class WaitingTopic(NamedTuple):
    """A row of ``waiting_topics``; `blocked` counts the messages of all topics."""

    topic: str
    messages: int
    is_paused: bool
    blocked: int


def leftover(rows: Sequence[WaitingTopic]) -> str:
    """Say how many messages wait, and in which topics; empty if none waits.

    `rows` are those of the statement ``waiting_topics``, which counted `LIMIT` + 1
    messages at most.
    """
    total = sum(row.messages for row in rows)
    if not total:
        return ""
    number = f"more than {LIMIT:,} messages" if total > LIMIT else counted(total, "message")
    verb = "waits" if total == 1 else "wait"
    places = [
        f"{row.messages:,} in {row.topic}{' (paused)' if row.is_paused else ''}"
        for row in rows[:_TOPICS]
    ]
    if len(rows) > _TOPICS:
        places.append(f"the rest in {counted(len(rows) - _TOPICS, 'other topic')}")
    return f"{number} {verb} in the outbox: {', '.join(places)}; {_advice(rows)}"


def _advice(rows: Sequence[WaitingTopic]) -> str:
    blocked = rows[0].blocked
    known = [f"{blocked:,} blocked: see dsql-outbox messages list --blocked"] if blocked else []
    if any(row.is_paused for row in rows):
        known.append("for paused topics, see dsql-outbox topics list")
    return "; ".join(known) or "see dsql-outbox messages list"
