"""A dead letter as text cells, for a list or for one record."""

from datetime import datetime
from typing import Final

from dsql_outbox.cli.output import one_line
from dsql_outbox.publisher import DeadLetter

LETTER_HEADER: Final = ("event", "died", "attempts", "replay", "topic", "subject", "error")


def letter_cells(letter: DeadLetter) -> tuple[str, ...]:
    """The cells of one row, in the order of `LETTER_HEADER`."""
    return (
        str(letter.event_id),
        _time(letter.died_at),
        str(letter.attempts),
        str(letter.replay),
        letter.topic,
        letter.subject,
        one_line(letter.error),
    )


def _time(at: datetime) -> str:
    return at.isoformat(sep=" ", timespec="seconds")


def letter_fields(letter: DeadLetter) -> list[tuple[str, str]]:
    """All fields of a dead letter, as pairs of name and value."""
    return [
        ("event", str(letter.event_id)),
        ("died", _time(letter.died_at)),
        ("created", _time(letter.created_at)),
        ("subject", f"{letter.subject}@{letter.subject_version}"),
        ("topic", letter.topic),
        ("shard, position", f"{letter.shard}, {letter.position}"),
        ("attempts", str(letter.attempts)),
        ("replay", str(letter.replay)),
        ("error", one_line(letter.error)),
        *((f"header {name}", value) for name, value in sorted(letter.headers.items())),
        ("payload", letter.payload or f"{letter.payload_bytes} bytes; --payload shows them"),
    ]
