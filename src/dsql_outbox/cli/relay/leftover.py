"""The text about the messages that a run leaves in the outbox."""

from collections.abc import Sequence
from typing import Any, Final

from dsql_outbox.cli.output import counted

LIMIT: Final = 1_000
"""Messages that are counted at most."""

_TOPICS: Final = 3


def leftover(rows: Sequence[Sequence[Any]]) -> str:
    """Say how many messages wait, and in which topics; empty if none waits.

    `rows` are those of the statement ``waiting_topics``, which counted `LIMIT` + 1
    messages at most.
    """
    total = sum(count for _, count, _, _ in rows)
    if not total:
        return ""
    number = f"more than {LIMIT:,} messages" if total > LIMIT else counted(total, "message")
    verb = "waits" if total == 1 else "wait"
    places = [
        f"{count:,} in {topic}{' (paused)' if paused else ''}"
        for topic, count, paused, _ in rows[:_TOPICS]
    ]
    if len(rows) > _TOPICS:
        places.append(f"the rest in {counted(len(rows) - _TOPICS, 'other topic')}")
    return f"{number} {verb} in the outbox: {', '.join(places)}; {_advice(rows)}"


def _advice(rows: Sequence[Sequence[Any]]) -> str:
    blocked = rows[0][3]
    known = [f"{blocked:,} blocked: see dsql-outbox messages list --blocked"] if blocked else []
    if any(paused for _, _, paused, _ in rows):
        known.append("for paused topics, see dsql-outbox topics list")
    return "; ".join(known) or "see dsql-outbox messages list"
