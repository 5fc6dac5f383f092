"""The operator's tool that erases what is stored of an entity."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final
from uuid import uuid4

import msgspec

from dsql_outbox.operations.tool import Operator
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import StaleVersion
from dsql_outbox.outbox.event.erasure import EntityErasure, Fields
from dsql_outbox.outbox.event.event import JsonEvent
from dsql_outbox.outbox.message import parse_subject_key
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.operation import operation
from dsql_outbox.writer.async_writer import AsyncWriter
from dsql_outbox.writer.settings import WriterSettings
from dsql_outbox.writer.transact.transaction import AsyncTransaction

from .erase import EraseRun, erasure_id, pseudonym_of

_TRIES: Final = 100
"""How often the notice is written again, as another event has touched the entity meanwhile."""

_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Erasures(Operator):
    """Erases what is stored of an entity.

    The constructor does no I/O. Use ``async with`` or call `close`. `settings` are those of the
    writer of the event that says so, such as its source.
    """

    def __init__(
        self, database: Database, settings: WriterSettings | None = None, *, user: str | None = None
    ) -> None:
        super().__init__(database, user=user)
        self._database = database
        # Neither the backlog nor conflicts concern it, and a keeper may not read them.
        given = settings or WriterSettings()
        self._settings = replace(given, backlog_check=None)

    def erase(  # noqa: PLR0913 - one argument per option
        self,
        entity: str,
        fields: Iterable[str] | None = None,
        *,
        reason: str,
        ids: bool = False,
        rate: float | None = None,
        dry_run: bool = False,
    ) -> EraseRun:
        """Erase what the events of an entity say of it. Returns a run: iterate to do its work.

        `entity` is ``TYPE/ID``. `fields` are names, which are erased at any depth, or paths such
        as ``$.address.street``; None erases all. First the event "TYPE Erased" is written, with
        what is left of the entity's state. With `ids`, a pseudonym takes the place of the id, and
        that event closes it: a later one with the old id is not erased.
        `rate` is the limit in events per second (None is no limit).
        If nothing is to be erased, nothing is written. A run that was killed is continued by
        the same call.

        Raises `SettingsError` for a malformed entity or field, and, when it runs without `ids`, for
        an entity that no event has touched; then `JobRefused`, `SchemaError` and the driver's
        errors, too.
        """
        chosen = None if fields is None else Fields(fields)
        erasure = EntityErasure(*parse_subject_key(entity), chosen)
        return EraseRun(
            self._session,
            erasure,
            self._entry("erase", reason),
            partial(self._announce, reason, erasure, ids=ids),
            ids=ids,
            rate=rate,
            dry_run=dry_run,
        )

    async def _announce(
        self,
        reason: str,
        erasure: EntityErasure,
        pseudonym: str | None,
        *,
        ids: bool,
        renames: bool,
    ) -> None:
        event_id = uuid4()
        key = erasure_id(event_id, erasure, ids=ids)
        who = operation("erase", reason=reason, user=self._user)
        row: dict[str, object] = {
            "id": key,
            "entity_type": erasure.entity_type,
            "entity_id": erasure.entity_id,
            "event_id": event_id,
            "reason": who["reason"],
            "user": who["user"],
        }
        renamed = erasure._replace(pseudonym=pseudonym or pseudonym_of(key)) if renames else None
        notice = partial(self._notice, erasure, renamed, row)
        async with AsyncWriter(self._database, self._settings) as writer:
            for left in range(_TRIES, 0, -1):
                try:
                    await writer.transact(notice)
                except StaleVersion:
                    if left == 1:
                        raise
                else:
                    return

    async def _notice(
        self,
        erasure: EntityErasure,
        renamed: EntityErasure | None,
        row: Mapping[str, object],
        transaction: AsyncTransaction,
    ) -> None:
        """Write the event and the row of the erasure, and close the id, in one transaction."""
        entity = await transaction.entity(erasure.entity_type, erasure.entity_id)
        assert entity is not None  # noqa: S101 - an event has touched it
        left = erasure.of_state(entity.data)
        state = entity.data if left is None else left.data
        event = notice_event(erasure, row["event_id"], state)
        receipt = await transaction.append(JsonEvent(event), expected_version=entity.version)
        row = {**row, "version": receipt.entities[0].version}
        await self._execute(transaction, "erasure_record", row)
        if renamed is not None:
            there = renamed.of_state(state)
            row = {
                **row,
                "new_id": renamed.pseudonym,
                "state": state if there is None else there.data,
            }
            await self._execute(transaction, "erase_entity_move", row)
            await self._execute(transaction, "erase_entity_close", row)

    async def _execute(
        self, transaction: AsyncTransaction, name: str, row: Mapping[str, object]
    ) -> None:
        await transaction.connection.execute(statement(name, self._database.schema), row)


def notice_event(erasure: EntityErasure, event_id: object, state: str) -> bytes:
    """The event that says that an entity is erased; `state` is what is left of it."""
    entity_type, entity_id, *_ = erasure
    attributes = {name: raw for name, raw in _members(state).items() if name != "entityHeader"}
    header = {"entityId": entity_id, "entityType": entity_type}
    name = f"{entity_type} Erased"
    kind = "".join(name.split()) or "Erased"
    return msgspec.json.encode(
        {
            "eventHeader": {"uuid": event_id, "eventName": name, "eventType": kind},
            "entities": [{"entityHeader": header} | attributes],
        }
    )
