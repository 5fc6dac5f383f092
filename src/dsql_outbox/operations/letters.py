"""Dead letters by key: for a statement on them, and as messages to send again."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self
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


class Letters:
    """The dead letters as a source of messages to send again (see `requeue.Source`)."""

    done: ResultStatus = "retried"

    async def candidates(
        self, transaction: SessionTransaction, keys: Sequence[LetterKey], /
    ) -> list[Candidate | UUID]:
        """The candidates of these letters (see `requeue.Source`)."""
        rows = await transaction.fetch("letter_candidates", _candidate, letter_columns(keys))
        found = {(row.event_id, row.died_at): row for row in rows}
        return [found.get(key, key.event_id) for key in keys]

    async def put(
        self, transaction: SessionTransaction, placed: Sequence[Placed], columns: dict[str, str], /
    ) -> None:
        """Insert the outbox rows, and delete the letters."""
        died_ats = array_literal(each.candidate.died_at for each in placed)
        columns = columns | {"died_ats": died_ats}
        await transaction.change("letter_requeue", columns, len(placed))
        await transaction.change("letter_delete", columns, len(placed))


def _candidate(*, subject_type: str, subject_id: str, headers: str, **rest: Any) -> Candidate:
    """The candidate of a row of ``letter_candidates``."""
    stored = read_headers(headers)
    return Candidate(
        key=subject_key(subject_type, subject_id),
        type=stored.by_name.get("type", ""),
        headers=stored.by_name,
        fault=stored.fault,
        **rest,
    )
