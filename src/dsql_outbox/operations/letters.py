"""Dead letters by key: for a statement on them, and as messages to send again."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Self
from uuid import UUID

from dsql_outbox.outbox.database.array_literals import array_literal
from dsql_outbox.outbox.message import subject_key
from dsql_outbox.schema.outbox_rows import read_headers
from dsql_outbox.schema.session import SessionTransaction

from .replay_positions import Candidate, Placed
from .requeue import ResultStatus
from .undelivered import Keyed


class LetterKey(NamedTuple):
    """The key of a dead letter; `died_at` is text, since Python has not every time."""

    event_id: UUID
    died_at: str

    @classmethod
    def of(cls, found: Keyed) -> Self:
        """The key of a dead message."""
        return cls(found.message.event_id, found.key[1])


def letter_columns(keys: Sequence[LetterKey]) -> dict[str, str]:
    """The parameters of a statement on these dead letters."""
    return {
        "event_ids": array_literal(key.event_id for key in keys),
        "died_ats": array_literal(key.died_at for key in keys),
    }


class _CandidateRow(NamedTuple):
    """A row of ``letter_candidates``."""

    event_id: UUID
    key: str
    died_at: datetime
    topic: str
    shard: int
    subject_type: str
    subject_id: str
    bytes: int
    headers: str
    last_position: int
    replays: int
    waiting: bool
    now_us: int


class Letters:
    """The dead letters as a source of messages to send again (see `requeue.Source`)."""

    done: ResultStatus = "retried"

    async def candidates(
        self, transaction: SessionTransaction, keys: Sequence[LetterKey], /
    ) -> tuple[list[Candidate | UUID], int]:
        """The candidates of these letters, and the time of the database (see `requeue.Source`)."""
        rows = await transaction.fetch("letter_candidates", _CandidateRow, letter_columns(keys))
        found = {LetterKey(row.event_id, row.key): _candidate(row) for row in rows}
        return [found.get(key, key.event_id) for key in keys], rows[-1].now_us if rows else 0

    async def put(
        self, transaction: SessionTransaction, placed: Sequence[Placed], columns: dict[str, str], /
    ) -> None:
        """Insert the outbox rows, and delete the letters."""
        died_ats = array_literal(each.candidate.died_at for each in placed)
        columns = columns | {"died_ats": died_ats}
        await transaction.change("letter_requeue", columns, len(placed))
        await transaction.change("letter_delete", columns, len(placed))


def _candidate(row: _CandidateRow) -> Candidate:
    stored = read_headers(row.headers)
    return Candidate(
        event_id=row.event_id,
        died_at=row.key,
        key=subject_key(row.subject_type, row.subject_id),
        type=stored.by_name.get("type", ""),
        topic=row.topic,
        shard=row.shard,
        at=row.died_at,
        headers=stored.by_name,
        fault=stored.fault,
        size=row.bytes,
        last_position=row.last_position,
        replays=row.replays,
        waiting=row.waiting,
    )
