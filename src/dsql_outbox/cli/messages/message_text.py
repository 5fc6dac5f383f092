"""A message that was not delivered as text cells, for a list or for one record."""

from datetime import datetime
from typing import Final

from dsql_outbox.cli.output import one_line, without_places
from dsql_outbox.operations.undelivered import UndeliveredMessage

HEADER: Final = ("event", "state", "since", "attempts", "topic", "subject", "error")


def cells(message: UndeliveredMessage) -> tuple[str, ...]:
    """The cells of one row, in the order of `HEADER`."""
    return (
        str(message.event_id),
        _state(message),
        _time(message.since),
        str(message.attempts),
        message.topic,
        f"{message.subject}@{message.subject_version}",
        without_places(message.error or ""),
    )


def fields(message: UndeliveredMessage) -> list[tuple[str, str]]:
    """All fields of a message that are set, as pairs of name and value."""
    first, *places = (message.error or "").split("\n  ")
    pairs = [
        ("event", str(message.event_id)),
        ("state", _state(message)),
        ("type", message.type),
        ("subject", f"{message.subject}@{message.subject_version}"),
        ("target", message.target or ""),
        ("topic", message.topic),
        ("created", _time(message.created_at)),
        ("died", _time(message.died_at) if message.died_at else ""),
        ("attempts", str(message.attempts)),
        ("next attempt", _time(message.retry_at) if message.retry_at else ""),
        ("error", one_line(first)),
        *(("", one_line(place)) for place in places),
        ("replay", str(message.replay)),
        ("shard, position", f"{message.shard_name}, {message.position}"),
        *((f"header {name}", value) for name, value in sorted(message.headers.items())),
        ("payload", message.payload or f"{message.payload_bytes} bytes; --payload shows them"),
    ]
    return [(name, value) for name, value in pairs if value]


def _state(message: UndeliveredMessage) -> str:
    """The state, and what keeps the message."""
    parts: list[str] = [message.state]
    if message.retry_at is not None:
        parts.append(f"until {_time(message.retry_at)}")
    notes = {"blocked": message.blocked, "behind another": message.behind, "paused": message.paused}
    return ", ".join([*parts, *(note for note, holds in notes.items() if holds)])


def _time(at: datetime) -> str:
    return at.isoformat(sep=" ", timespec="seconds")
