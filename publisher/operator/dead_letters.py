"""The operator's tool for dead letters: find, replay, drop."""

from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing
from typing import Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox import array_literal, subject_key
from dsql_outbox.publisher.outbox_rows import read_headers
from dsql_outbox.publisher.session import Operator, OperatorTransaction

from .dead_letter_filter import (
    FIRST_LETTER,
    DeadLetter,
    KeyedLetter,
    LetterFilter,
    LetterKey,
    read_letter_block,
    read_letters,
)
from .pages import Block, Page, read_page
from .replay_positions import Candidate, Placed
from .replay_rate import MAX_BYTES, MAX_ROWS, Pace
from .requeue import Replayed, Requeue

MAX_REPLAYED: Final = 100_000
"""Most dead letters of one run; their keys are held in memory to sort them."""

_ALL: Final = LetterFilter()
_BLOCKS: Final = (500, 4_500)


class DeadLetters(Operator):
    """The messages that were given up.

    The constructor does no I/O. Use ``async with`` or call `close`. Every method
    takes a `LetterFilter`, reads at most 1,000 rows per statement, and returns a
    generator; close a generator that is left early. All methods raise `SchemaError`
    if the tables are missing, `SettingsError` for a malformed filter, and the
    driver's errors.
    """

    async def find(
        self, which: LetterFilter = _ALL, *, payload: bool = False
    ) -> AsyncGenerator[DeadLetter]:
        """The selected dead letters, in order of event id.

        With `payload`, one more statement per letter reads it. Memory does not grow
        with the number of letters.
        """
        async with aclosing(read_letters(self._session, which)) as letters:
            async for each in letters:
                yield await self._with_payload(each) if payload else each.letter

    async def page(
        self, which: LetterFilter = _ALL, after: LetterKey = FIRST_LETTER, *, rows: int = 50
    ) -> Page[LetterKey, DeadLetter]:
        """Up to `rows` of the selected dead letters after a key, in order of event id.

        This reads at most 5,000 rows, however few match. The `event_ids` of the filter
        are ignored.
        """

        async def block(key: LetterKey, size: int) -> Block[LetterKey, KeyedLetter]:
            return await read_letter_block(self._session, which, key, size)

        page = await read_page(block, lambda each: each.key, after, rows, _BLOCKS)
        return Page([each.letter for each in page.found], page.read, page.after)

    async def replay(
        self,
        which: LetterFilter = _ALL,
        *,
        reason: str = "",
        rate: float | None = None,
        limit: int = MAX_REPLAYED,
        dry_run: bool = False,
    ) -> AsyncGenerator[Replayed]:
        """Move the selected dead letters back into the outbox; at most `limit` of them.

        One transaction inserts the outbox row and deletes the dead letter. Those of one
        subject are sent in the order of its versions. `rate` is the limit in events
        per second (None is no limit), and `reason` is recorded. With `dry_run` nothing
        is changed. Raises `SettingsError` for a rate that is not above 0.
        """
        requeue = Requeue(
            self._session, _Letters(), reason=reason, pace=Pace(rate), dry_run=dry_run
        )
        keys = await self._in_order(which, min(limit, MAX_REPLAYED))
        async with aclosing(requeue.run(keys)) as told:
            async for each in told:
                yield each

    async def drop(
        self, which: LetterFilter = _ALL, *, limit: int | None = None, dry_run: bool = False
    ) -> AsyncGenerator[DeadLetter]:
        """Delete the selected dead letters for good; at most `limit` of them.

        Yields each one after its deletion is committed. The events stay stored. With
        `dry_run` nothing is changed.
        """
        async with (
            aclosing(_first(read_letters(self._session, which), limit)) as letters,
            aclosing(_batches(letters)) as batches,
        ):
            async for batch in batches:
                if not dry_run:
                    await self._delete(batch)
                for each in batch:
                    yield each.letter

    async def _with_payload(self, found: KeyedLetter) -> DeadLetter:
        rows = await self._session.rows("letter_payload", found.key._asdict())
        return msgspec.structs.replace(found.letter, payload=rows[0][0]) if rows else found.letter

    async def _delete(self, letters: Sequence[KeyedLetter]) -> None:
        await self._session.count("letter_delete", _columns([each.key for each in letters]))

    async def _in_order(self, which: LetterFilter, limit: int) -> list[LetterKey]:
        """The keys of the selected dead letters, by version of their subject, oldest first."""
        found: list[tuple[int, LetterKey]] = []
        async with aclosing(_first(read_letters(self._session, which), limit)) as letters:
            async for key, letter in letters:
                found.append((letter.subject_version, key))
        found.sort()
        return [key for _, key in found]


class _Letters:
    """The dead letters as a source of messages to replay (see `requeue.Source`)."""

    async def candidates(
        self, transaction: OperatorTransaction, keys: Sequence[LetterKey], /
    ) -> tuple[list[Candidate | UUID], int]:
        rows = await transaction.rows("letter_candidates", _columns(keys))
        found: dict[LetterKey, Candidate] = {}
        now_us = 0
        for row in rows:
            event_id, died_key, died_at, topic, shard, subject_type, subject_id, *rest = row
            size, headers, position, replays, waiting, now_us = rest
            stored = read_headers(headers)
            found[LetterKey(event_id, died_key)] = Candidate(
                event_id=event_id,
                died_at=died_key,
                key=subject_key(subject_type, subject_id),
                type=stored.by_name.get("type", ""),
                topic=topic,
                shard=shard,
                at=died_at,
                headers=stored.by_name,
                fault=stored.fault,
                size=size,
                last_position=position,
                replays=replays,
                waiting=waiting,
            )
        return [found.get(key, key.event_id) for key in keys], now_us

    async def put(
        self, transaction: OperatorTransaction, placed: Sequence[Placed], columns: dict[str, str], /
    ) -> None:
        died_ats = array_literal(each.candidate.died_at for each in placed)
        columns = columns | {"died_ats": died_ats}
        await transaction.change("letter_requeue", columns, len(placed))
        await transaction.change("letter_delete", columns, len(placed))


def _columns(keys: Sequence[LetterKey]) -> dict[str, str]:
    return {
        "event_ids": array_literal(key.event_id for key in keys),
        "died_ats": array_literal(key.died_at for key in keys),
    }


async def _first(
    letters: AsyncGenerator[KeyedLetter], limit: int | None
) -> AsyncGenerator[KeyedLetter]:
    count = 0
    async with aclosing(letters):
        async for letter in letters:
            if count == limit:
                return
            count += 1
            yield letter


async def _batches(letters: AsyncIterable[KeyedLetter]) -> AsyncGenerator[list[KeyedLetter]]:
    """Split the dead letters into batches that one transaction may delete."""
    batch: list[KeyedLetter] = []
    size = 0
    async for each in letters:
        letter = each.letter
        own = letter.payload_bytes + sum(map(len, letter.headers.values()))
        size += own
        if batch and (len(batch) == MAX_ROWS or size > MAX_BYTES):
            yield batch
            batch, size = [], own
        batch.append(each)
    if batch:
        yield batch
