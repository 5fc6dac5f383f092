"""Replay of stored events; their messages are rebuilt from ``business_events`` alone."""

from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox import (
    DEFAULT_SOURCE,
    Database,
    SettingsError,
    Touched,
    array_literal,
    message_headers,
    subject_key,
)
from dsql_outbox.publisher.session import Operator, OperatorTransaction

from .dead_letters import MAX_REPLAYED
from .pages import FIRST_ID
from .replay_positions import Candidate, Placed
from .replay_rate import Pace
from .requeue import Replayed, Requeue

_ENTITY_PAGE: Final = 500
_PERIOD_PAGE: Final = 5_000

_touches: Final = msgspec.json.Decoder(tuple[Touched, ...])


class Replay(Operator):
    """Sends stored events again, whether or not they were delivered before.

    Each message gets a new position in the outbox, after all messages of its
    subject, and a dedupe id of its own. `reason` is recorded. `rate` is the limit in
    events per second (None is no limit). With `dry_run` nothing is changed. `source`
    must equal the writers' setting, because the database does not store it.

    The constructor does no I/O, and raises `SettingsError` for a rate that is not
    above 0. Use ``async with`` or call `close`. Every method returns a generator that
    yields each event after its transaction; close a generator that is left early.
    All methods raise `SchemaError` if the tables are missing, and the driver's errors.
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
        self._schema = database.schema
        super().__init__(database)
        self._requeue = Requeue(
            self._session, _Events(source), reason=reason, pace=Pace(rate), dry_run=dry_run
        )

    async def events(self, event_ids: Iterable[UUID]) -> AsyncGenerator[Replayed]:
        """Replay the given events, in the given order."""
        async with aclosing(self._requeue.run(_each(event_ids))) as told:
            async for each in told:
                yield each

    async def entity(
        self, entity_type: str, entity_id: str, *, after: int = 0
    ) -> AsyncGenerator[Replayed]:
        """Replay the events that touched an entity, in order of its versions.

        The first is the one after version `after`, the last that of the version at the
        call. Raises `SettingsError` for an entity that no event has touched.
        """
        keys = self._stream({"entity_type": entity_type, "entity_id": entity_id}, after)
        async with aclosing(self._requeue.run(keys)) as told:
            async for each in told:
                yield each

    async def period(self, since: datetime, until: datetime) -> AsyncGenerator[Replayed]:
        """Replay the events saved at or after `since` and before `until`, in order of position.

        There is no index on the time, so this scans the whole table of events;
        `events_stored` tells its size. Raises `SettingsError` if there are more than
        `MAX_REPLAYED` events, before any is replayed.
        """
        async with aclosing(self._requeue.run(self._saved(since, until))) as told:
            async for each in told:
                yield each

    async def events_stored(self) -> int | None:
        """The estimated number of events, from the database's statistics; None if it has none."""
        rows = await self._session.rows("events_estimate", {"schema": self._schema})
        return rows[0][0] if rows and rows[0][0] >= 0 else None

    async def _stream(self, entity: dict[str, Any], after: int) -> AsyncGenerator[UUID]:
        rows = await self._session.rows("entity_version", entity)
        if not rows:
            key = subject_key(entity["entity_type"], entity["entity_id"])
            raise SettingsError(f"no event has touched entity {key} of schema {self._schema}")
        page = entity | {"last": rows[0][0], "rows": _ENTITY_PAGE}
        while rows := await self._session.rows("replay_entity_page", page | {"after": after}):
            for _, event_id in rows:
                yield event_id
            after = rows[-1][0]

    async def _saved(self, since: datetime, until: datetime) -> AsyncGenerator[UUID]:
        found: list[tuple[int, UUID]] = []
        page: dict[str, Any] = {"since": since, "until": until, "rows": _PERIOD_PAGE}
        after, seen = FIRST_ID, _PERIOD_PAGE
        while seen == _PERIOD_PAGE:
            rows = await self._session.rows("replay_period_page", page | {"after": after})
            seen, after = rows[0][:2]
            found += [(row[2], row[3]) for row in rows if row[2] is not None]
            if len(found) > MAX_REPLAYED:
                raise SettingsError(
                    f"more than {MAX_REPLAYED} events were saved in this period: "
                    "replay it in shorter ones"
                )
        found.sort()
        for _, event_id in found:
            yield event_id


class _Events:
    """The stored events as a source of messages to replay (see `requeue.Source`)."""

    def __init__(self, source: str) -> None:
        self._source = source

    async def candidates(
        self, transaction: OperatorTransaction, keys: Sequence[UUID], /
    ) -> tuple[list[Candidate | UUID], int]:
        ids = {"event_ids": array_literal(keys)}
        rows = await transaction.rows("replay_candidates", ids)
        found: dict[UUID, Candidate] = {}
        now_us = 0
        for row in rows:
            event_id, event_type, created, subject_type, subject_id, size, touches, *rest = row
            position, replays, waiting, now_us = rest
            found[event_id] = Candidate(
                event_id=event_id,
                key=subject_key(subject_type, subject_id),
                headers=self._headers(event_id, event_type, created, touches),
                size=size,
                last_position=position,
                replays=replays,
                waiting=waiting,
            )
        return [found.get(key, key) for key in keys], now_us

    async def put(
        self, transaction: OperatorTransaction, placed: Sequence[Placed], columns: dict[str, str], /
    ) -> None:
        await transaction.change("replay_requeue", columns, len(placed))

    def _headers(
        self, event_id: UUID, event_type: str, created: datetime | None, touches: str
    ) -> dict[str, str]:
        """The headers as the writer made them, without the trace context, which is not stored."""
        listed = [
            f"{subject_key(touch.entity_type, touch.entity_id)}@{touch.version}"
            for touch in _touches.decode(touches)
        ]
        time = None if created is None else created.astimezone(UTC)
        headers = message_headers(str(event_id), event_type, time, self._source)
        return headers | {"entities": ",".join(listed)}


async def _each(event_ids: Iterable[UUID]) -> AsyncGenerator[UUID]:
    for event_id in event_ids:
        yield event_id
