"""A message that was not delivered as text cells, for a list or for one record."""

from datetime import UTC, datetime

from dsql_outbox.cli.output import counted, one_line, with_first_place
from dsql_outbox.operations.undelivered import UndeliveredMessage


def listed(message: UndeliveredMessage) -> tuple[str, str]:
    """A message as two lines: which and since when, then where to and what keeps it."""
    key = f"{message.subject}@{message.subject_version}"
    facts = [message.topic, *_keeping(message)]
    if message.target is not None:
        facts.insert(0, f"target {message.target}")
    if message.attempts:
        facts.append(counted(message.attempts, "attempt"))
    error = with_first_place(message.error or "")
    return (
        f"{message.event_id}  {message.state:7}  {_time(message.since)}  {key}",
        f"  {', '.join(facts)}" + (f": {error}" if error else ""),
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
        ("shard, position", f"{message.shard}, {message.position}"),
        *((f"header {name}", value) for name, value in sorted(message.headers.items())),
        ("payload", message.payload or f"{message.payload_bytes} bytes; --payload shows them"),
    ]
    return [(name, value) for name, value in pairs if value]


def _state(message: UndeliveredMessage) -> str:
    """The state, and what keeps the message."""
    return ", ".join([message.state, *_keeping(message)])


def _keeping(message: UndeliveredMessage) -> list[str]:
    """What keeps a message, beside its state."""
    parts = [] if message.retry_at is None else [f"until {_time(message.retry_at)}"]
    notes = {"blocked": message.blocked, "behind another": message.behind, "paused": message.paused}
    return [*parts, *(note for note, holds in notes.items() if holds)]


def _time(at: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
