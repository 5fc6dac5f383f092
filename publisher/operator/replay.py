"""Replay of stored events; their messages are rebuilt from ``business_events`` alone."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from itertools import islice
from typing import Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox import (
    DEFAULT_SOURCE,
    Database,
    Touched,
    array_literal,
    message_headers,
    require_source,
    subject_key,
)
from dsql_outbox.publisher.outbox_rows import Headers, read_headers
from dsql_outbox.publisher.session import Operator, OperatorTransaction

from .event_pages import START, EventFilter, EventPage, Place, StoredKey, all_pages, entity_pages
from .replay_positions import Candidate, Placed
from .replay_rate import MAX_ROWS, Pace
from .requeue import Replayed, Requeue

_ALL: Final = EventFilter()

_touches: Final = msgspec.json.Decoder(tuple[Touched, ...])


class ReplayProgress(msgspec.Struct, frozen=True):
    """How far a replay is.

    `read` is the number of rows that were read to find the events, out of about `total`;
    None if that is not known. `place` is where `after` of the same method continues; None
    at the start, and for a replay by id.
    """

    read: int = 0
    total: int | None = None
    place: str | None = None


class Replay(Operator):
    """Sends stored events again, whether or not they were delivered before.

    Each message gets a new position in the outbox, after all messages of its subject, and its
    own dedupe id. `reason` is recorded. `rate` is the limit in events per second (None is no
    limit). With `dry_run` nothing is changed. `source` must equal the writers' setting,
    because the database does not store it.

    One object is one run: call one of `events`, `entity` and `stored`, once. Each returns
    a generator that yields each event after its transaction; close a generator that is
    left early. `stop` ends the run before the next transaction. `progress` says where
    another run continues. Memory does not grow with the number of events.

    The constructor does no I/O, and raises `SettingsError` for a rate that is not
    above 0. Use ``async with`` or call `close`. All methods raise `SchemaError` if the
    tables are missing, and the driver's errors.
    """

    def __init__(
        self,
        database: Database,
        *,
        reason: str = "",
        rate: float | None = None,
        source: str = DEFAULT_SOURCE,
        dry_run: bool = False,
    ) -> None:
        super().__init__(database)
        require_source("Replay", source)
        self._requeue = Requeue(
            self._session, _Events(source), reason=reason, pace=Pace(rate), dry_run=dry_run
        )
        self._read = ReplayProgress()

    @property
    def progress(self) -> ReplayProgress:
        """How far the run is: everything up to `place` is replayed and committed."""
        last = self._requeue.last
        if last is None or last.place is None:
            return self._read
        return msgspec.structs.replace(self._read, place=last.place)

    def stop(self) -> None:
        """End the run after the transaction in progress; the generator then ends."""
        self._requeue.stop()

    def events(self, event_ids: Iterable[UUID]) -> AsyncGenerator[Replayed]:
        """Replay the given events, in the given order."""
        return self._run(_pages_of(event_ids))

    def entity(
        self, entity_type: str, entity_id: str, which: EventFilter = _ALL, *, after: int = 0
    ) -> AsyncGenerator[Replayed]:
        """Replay the selected events that touched an entity, in order of its versions.

        The first is after version `after`, the last is that of the version at the call.
        Raises `SettingsError` for an entity that no event has touched.
        """
        return self._run(entity_pages(self._session, (entity_type, entity_id), which, after))

    def stored(
        self, which: EventFilter = _ALL, *, after: str | None = None
    ) -> AsyncGenerator[Replayed]:
        """Replay the selected events of all subjects, subject by subject, each in its order.

        `after` is a place ``TYPE/ID@VERSION`` that another run has reached; SettingsError
        for any other text. Without `until` in the filter, events that are saved after the
        call are left out. There is no index on type, topic or time, so this reads the
        whole table of touches; `events_stored` estimates its size.
        """
        place = START if after is None else Place.parse(after)
        return self._run(all_pages(self._session, which, place), "event_headers")

    async def events_stored(self) -> int | None:
        """The estimated number of events, from the database's statistics; None if it has none."""
        return await self._estimate("business_events")

    async def _run(
        self, pages: AsyncGenerator[EventPage], table: str | None = None
    ) -> AsyncGenerator[Replayed]:
        total = None if table is None else await self._estimate(table)
        read = 0
        async with aclosing(pages):
            async for page in pages:
                async with aclosing(self._requeue.run(page.keys)) as told:
                    async for each in told:
                        yield each
                if self._requeue.is_stopping:
                    return
                read += page.read
                self._requeue.last = None
                self._read = ReplayProgress(read, total, page.place)

    async def _estimate(self, table: str) -> int | None:
        asked = {"schema": self._session.schema, "table": table}
        rows = await self._session.rows("rows_estimate", asked)
        return rows[0][0] if rows and rows[0][0] >= 0 else None


async def _pages_of(event_ids: Iterable[UUID]) -> AsyncGenerator[EventPage]:
    rest = iter(event_ids)
    while keys := [StoredKey(event_id) for event_id in islice(rest, MAX_ROWS)]:
        yield EventPage(keys, len(keys))


class _Events:
    """The stored events as a source of messages to replay (see `requeue.Source`)."""

    def __init__(self, source: str) -> None:
        self._source = source

    async def candidates(
        self, transaction: OperatorTransaction, keys: Sequence[StoredKey], /
    ) -> tuple[list[Candidate | UUID], int]:
        ids = {"event_ids": array_literal(key.event_id for key in keys)}
        rows = await transaction.rows("replay_candidates", ids)
        found: dict[UUID, Candidate] = {}
        now_us = 0
        for row in rows:
            event_id, event_type, topic, shard, created, saved, *rest = row
            subject_type, subject_id, size, touches, own, position, replays, waiting, now_us = rest
            stored = Headers({}) if own is None else read_headers(own)
            ours = stored_headers(event_id, event_type, created, touches, self._source)
            found[event_id] = Candidate(
                event_id=event_id,
                key=subject_key(subject_type, subject_id),
                type=event_type,
                topic=topic,
                shard=shard,
                at=saved,
                headers=stored.by_name | ours.by_name,
                size=size,
                last_position=position,
                replays=replays,
                waiting=waiting,
                fault=stored.fault or ours.fault,
            )
        return [found.get(key.event_id, key.event_id) for key in keys], now_us

    async def put(
        self, transaction: OperatorTransaction, placed: Sequence[Placed], columns: dict[str, str], /
    ) -> None:
        await transaction.change("replay_requeue", columns, len(placed))


def stored_headers(
    event_id: UUID, event_type: str, created: datetime | None, touches: str, source: str
) -> Headers:
    """The headers of a stored event as the writer made them, without the trace context.

    The trace context is not stored.
    """
    time = None if created is None else created.astimezone(UTC)
    headers = message_headers(str(event_id), event_type, time, source)
    try:
        listed = [
            f"{subject_key(touch.entity_type, touch.entity_id)}@{touch.version}"
            for touch in _touches.decode(touches)
        ]
    except msgspec.MsgspecError:  # its text may quote the touches
        return Headers(headers, "the stored touches are no JSON array of entities")
    return Headers(headers | {"entities": ",".join(listed)})
