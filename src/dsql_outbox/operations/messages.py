"""The operator's tool for messages that were not delivered, and for sending events again."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.settings import (
    DEFAULT_SOURCE,
    DEFAULT_TARGET,
    require_source,
)
from dsql_outbox.schema.backlog import has_backlog

from .drop import Drop
from .letter_groups import GROUPED, LetterGroups, read_groups
from .pace import Pace
from .replay import Replay, StoredEvents, rows_estimate, selected_pages
from .requeue import Requeue
from .retry import MAX_RETRIED, Retry
from .selection import Selection
from .status import JobsStatus
from .tool import Operator
from .undelivered import Keyed, Page, UndeliveredMessage, message_pages, read_page, shards_of

_ALL: Final = Selection()


class Messages(Operator):
    """The messages that were not delivered, and stored events that are to be sent again.

    The constructor does no I/O. Use ``async with`` or call `close`. `find`, and the runs of the
    other verbs, work while they are read; close one that is left early. Each statement reads a
    bounded number of rows. All methods raise `SchemaError` if the tables are missing, and the
    driver's errors.
    """

    async def find(
        self, which: Selection = _ALL, *, payload: bool = False
    ) -> AsyncGenerator[UndeliveredMessage]:
        """The selected messages: first the failing ones, then the dead, then those that wait.

        Dead messages come newest first, by time of death; the others shard by shard, in
        the order in which they are sent. With `payload`, one more statement per message reads it.
        Memory does not grow with the number of messages.
        """
        async with aclosing(message_pages(self._session, which)) as pages:
            async for page in pages:
                for each in page:
                    yield await self._with_payload(each) if payload else each.message

    async def page(
        self, which: Selection = _ALL, after: str | None = None, *, rows: int = 50
    ) -> Page:
        """Up to `rows` of the selected messages after a place, in the order of `find`.

        This reads at most 5,000 rows per state, however few match. The messages of one subject
        are found by key: the page has those of its last 1,000 events, and the next page those of
        the 1,000 before. Raises `SettingsError` for a text that is not `Page.after` of another
        page.
        """
        return await read_page(self._session, which, after, rows)

    async def groups(self, which: Selection = _ALL, *, rows: int = GROUPED) -> LetterGroups:
        """The selected dead messages, counted by target, topic and kind of error.

        This reads the newest dead letters, at most `rows` of them, or a tenth of that on a database
        that takes long. A selection by `type` has no groups: the table does not have it.
        """
        return await read_groups(self._session, which, rows)

    async def can_be_sent(self, target: str | None = None) -> bool:
        """Whether a message can be sent now or later, without an operator.

        It is a message of `target`; None: of any. This reads the outbox in pages until it finds
        one.
        """
        first, last = await shards_of(self._session, target)
        return await has_backlog(self._session, first=first, last=last)

    def retry(
        self,
        which: Selection = _ALL,
        *,
        reason: str = "",
        rate: float | None = None,
        limit: int = MAX_RETRIED,
        dry_run: bool = False,
    ) -> Retry:
        """Let a publisher try the selected failing and dead messages again; at most `limit`.

        The failure of a failing message is forgotten, so it has all its attempts again. A message
        behind another one still waits for that one. A dead message is a new row of the outbox: one
        transaction inserts it and deletes the dead letter. Those of one subject are sent in the
        order of its versions. `rate` is the limit in events per second (None is no limit). `reason`
        is recorded.

        Yields the result for each message after its transaction. With `dry_run` nothing is
        changed. Raises `SettingsError` for a rate that is not above 0, and for waiting messages.
        """
        if which.state == "waiting":
            raise SettingsError("a waiting message needs no retry: a publisher sends it")
        return Retry(
            self._session,
            which,
            self._entry("messages retry", reason),
            pace=Pace(rate),
            limit=limit,
            dry_run=dry_run,
        )

    def drop(
        self,
        which: Selection,
        *,
        reason: str = "",
        rate: float | None = None,
        limit: int | None = None,
        dry_run: bool = False,
    ) -> Drop:
        """Give up the selected messages of one state, failing or dead; at most `limit`.

        A failing message moves to the dead letters, so that its subject goes on. One that is
        `behind` another is not moved, but yielded: without it, later messages would no longer
        wait for the message before it. A dead message is deleted for good; its event stays stored.
        `reason` is recorded. `rate` is the limit in events per second (None is no limit).

        Yields each message after its transaction. With `dry_run` nothing is changed. Raises
        `SettingsError` for a rate that is not above 0, and unless the selection has one of these
        states.
        """
        if which.state not in {"failing", "dead"}:
            raise SettingsError(
                "drop needs a state: failing messages become dead letters, dead ones are deleted"
            )
        return Drop(
            self._session,
            which,
            self._entry("messages drop", reason),
            pace=Pace(rate),
            limit=limit,
            dry_run=dry_run,
        )

    def replay(  # noqa: PLR0913 - one argument per option
        self,
        which: Selection = _ALL,
        *,
        entity: str | None = None,
        after: str | None = None,
        reason: str = "",
        rate: float | None = None,
        source: str = DEFAULT_SOURCE,
        target: str = DEFAULT_TARGET,
        dry_run: bool = False,
    ) -> Replay:
        """Send stored events again, whether or not they were delivered before, to one target.

        With `ids`, these events in this order. With `entity`, ``TYPE/ID``, the events that
        touched it, as subject or not, in the order of its versions up to the one at the call.
        Otherwise the events of all subjects, subject by subject, each in its order. The last two
        are narrowed by the `type`, the `topic` and the times of saving, and go on after a place
        that another run has reached. Without `until`, events that are saved after the call are
        left out. Without `ids` and `entity` there is no index, so this reads the whole table
        of touches; `events_stored` estimates the number of events.

        Each message gets a new position in the outbox, after all messages of its subject, and its
        own dedupe id. `reason` is recorded. `rate` is the limit in events per second (None is no
        limit). With `dry_run` nothing is changed. `source` must equal the writers' setting,
        because the database does not store it.

        Raises `SettingsError` for a rate that is not above 0, a malformed place or entity, and
        fields that an event does not have; the replay for an entity that no event has touched, and
        for a target that does not run.
        """
        require_source("replay", source)
        pages, table = selected_pages(self._session, which, entity, after)
        requeue = Requeue(
            self._session,
            StoredEvents(source, target),
            self._entry("messages replay", reason),
            dry_run=dry_run,
        )
        return Replay(self._session, requeue, pages, target, table=table, pace=Pace(rate))

    async def forgotten_before(self) -> datetime | None:
        """The time before which stored events may be forgotten; None if none ever was."""
        rows = await self._session.fetch("status_jobs", JobsStatus, {})
        return rows[0].forgotten_before if rows else None

    async def events_stored(self) -> int | None:
        """The estimated number of events, from the database's statistics; None if it has none."""
        return await rows_estimate(self._session, "business_events")

    async def _with_payload(self, found: Keyed) -> UndeliveredMessage:
        message = found.message
        if message.state == "dead":
            rows = await self._session.fetch_rows("record_payload", {"event_id": message.event_id})
        else:
            rows = await self._session.fetch_rows("waiting_payload", message.row_key)
        return msgspec.structs.replace(message, payload=rows[0][0]) if rows else message


async def messages_of(
    messages: Messages, event_ids: Sequence[UUID]
) -> Mapping[UUID, Sequence[UndeliveredMessage]]:
    """The messages of each event that were not delivered, the dead ones last; a look-up by key."""
    found: dict[UUID, list[UndeliveredMessage]] = {each: [] for each in event_ids}
    if event_ids:
        async with aclosing(messages.find(Selection(ids=tuple(event_ids)))) as kept:
            async for each in kept:
                found[each.event_id].append(each)
    return found
