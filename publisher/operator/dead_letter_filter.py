"""Dead letters: their type, the filter that selects them, and the pages that read them."""

from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

import msgspec

from dsql_outbox.outbox import parse_subject_key, subject_key
from dsql_outbox.publisher.outbox_rows import read_headers
from dsql_outbox.publisher.session import OperatorSession

from .pages import FIRST_ID, LAST_ID, PAGE_ROWS, Block, id_ranges


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that was given up.

    `subject` is ``TYPE/ID``, as in the message's key. `replay` is the number of the
    replay of the event, 0 for the original message. `payload_bytes` is the size of
    the payload, and `payload` the exact text of the event, or None unless requested.
    `headers` is empty if the stored headers cannot be parsed. `position` is in
    microseconds.
    """

    event_id: UUID
    died_at: datetime
    subject: str
    subject_version: int
    topic: str
    error: str
    attempts: int
    replay: int
    created_at: datetime
    shard: int
    position: int
    headers: dict[str, str]
    payload_bytes: int
    payload: str | None = None


class LetterKey(NamedTuple):
    """The key of a dead letter in the order of its table.

    `died_at` is the text of the database, which has times that Python has not; as a place to
    read from, None is before all letters of the event.
    """

    event_id: UUID
    died_at: str | None = None


FIRST_LETTER: Final = LetterKey(FIRST_ID)
"""Before every letter."""


class LetterFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Selects the dead letters that match every field that is set.

    `subject` is ``TYPE/ID``. `error` is a part of the error's text, in any case.
    `since` (inclusive) and `until` (exclusive) are times of death, with a time zone.
    `event_ids` make the read a look-up by key. Without them it scans all dead
    letters.
    """

    event_ids: tuple[UUID, ...] = ()
    subject: str | None = None
    topic: str | None = None
    error: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def parameters(self) -> dict[str, Any]:
        """The parameters of the statement. Raises `SettingsError` for a malformed `subject`."""
        subject = (None, None) if self.subject is None else parse_subject_key(self.subject)
        return {
            "subject_type": subject[0],
            "subject_id": subject[1],
            "topic": self.topic,
            "error": self.error,
            "since": None if self.since is None else self.since.isoformat(),
            "until": None if self.until is None else self.until.isoformat(),
        }


class KeyedLetter(NamedTuple):
    """A dead letter and its key."""

    key: LetterKey
    letter: DeadLetter


async def read_letters(
    session: OperatorSession, which: LetterFilter
) -> AsyncGenerator[KeyedLetter]:
    """The selected dead letters, without payload, in order of event id and time of death."""
    for ids in id_ranges(which.event_ids):
        after = LetterKey(ids.first)
        seen = PAGE_ROWS
        while seen == PAGE_ROWS:
            seen, after, found = await read_letter_block(
                session, which, after, PAGE_ROWS, last=ids.last
            )
            for letter in found:
                yield letter


async def read_letter_block(
    session: OperatorSession,
    which: LetterFilter,
    after: LetterKey,
    rows: int,
    *,
    last: UUID = LAST_ID,
) -> Block[LetterKey, KeyedLetter]:
    """The selected letters among the next `rows` after a key, up to the event id `last`."""
    bounds = after._asdict() | {"last": last, "rows": rows}
    found = await session.rows("letter_page", which.parameters() | bounds)
    seen, *key = found[0][:3]
    reached = LetterKey(*key) if seen else after
    return Block(seen, reached, [_letter(row[3:]) for row in found if row[3] is not None])


def _letter(row: Any) -> KeyedLetter:
    event_id, key, died_at, shard, position, subject_type, subject_id, version, topic = row[:9]
    headers, payload_bytes, created_at, error, attempts, replays = row[9:]
    letter = DeadLetter(
        event_id=event_id,
        died_at=died_at,
        subject=subject_key(subject_type, subject_id),
        subject_version=version,
        topic=topic,
        error=error,
        attempts=attempts,
        replay=replays,
        created_at=created_at,
        shard=shard,
        position=position,
        headers=read_headers(headers).by_name,
        payload_bytes=payload_bytes,
    )
    return KeyedLetter(LetterKey(event_id, key), letter)
