"""The operator's tool that erases what is stored of an entity."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Final
from uuid import uuid4

import msgspec

from dsql_outbox.operations.tool import Operator
from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import StaleVersion
from dsql_outbox.outbox.event.erasure import EntityErasure
from dsql_outbox.outbox.event.event import JsonEvent
from dsql_outbox.outbox.message import parse_subject_key
from dsql_outbox.schema.named_statements import statement
from dsql_outbox.schema.operation import operation
from dsql_outbox.writer.async_writer import AsyncWriter
from dsql_outbox.writer.settings import WriterSettings
from dsql_outbox.writer.transact.transaction import AsyncTransaction

from .erase import EraseRun

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
        # The backlog does not concern it, and a keeper may not read it.
        self._settings = replace(settings or WriterSettings(), backlog_check=None)

    def erase(
        self, entity: str, *, reason: str, rate: float | None = None, dry_run: bool = False
    ) -> EraseRun:
        """Erase what the events of an entity say of it. Returns a run: iterate to do its work.

        `entity` is ``TYPE/ID``. First the event "TYPE Erased" is written, without a state. `rate`
        is the limit in events per second (None is no limit). If nothing is to be erased, nothing
        is written. A run that was killed is continued by the same call.

        Raises `SettingsError` for a malformed entity, and, when it runs, for one that no event has
        touched; then `JobRefused`, `SchemaError` and the driver's errors, too.
        """
        erasure = EntityErasure(*parse_subject_key(entity))
        return EraseRun(
            self._session,
            erasure,
            self._entry("erase", reason),
            partial(self._announce, reason, erasure),
            rate=rate,
            dry_run=dry_run,
        )

    async def _announce(self, reason: str, erasure: EntityErasure) -> None:
        who = operation("erase", reason=reason, user=self._user)
        row: dict[str, object] = {
            "entity_type": erasure.entity_type,
            "entity_id": erasure.entity_id,
            "event_id": uuid4(),
            "reason": who["reason"],
            "user": who["user"],
        }
        notice = partial(self._notice, erasure, row)
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
        row: Mapping[str, object],
        transaction: AsyncTransaction,
    ) -> None:
        """Write the event and the row of the erasure, in one transaction."""
        entity = await transaction.entity(erasure.entity_type, erasure.entity_id)
        assert entity is not None  # noqa: S101 - an event has touched it
        left = erasure.of_state(entity.data)
        state = entity.data if left is None else left.data
        event = notice_event(erasure, row["event_id"], state)
        receipt = await transaction.append(JsonEvent(event), expected_version=entity.version)
        row = {**row, "version": receipt.entities[0].version}
        query = statement("erasure_record", self._database.schema)
        await transaction.connection.execute(query, row)


def notice_event(erasure: EntityErasure, event_id: object, state: str) -> bytes:
    """The event that says that an entity is erased; `state` is what is left of it."""
    entity_type, entity_id = erasure
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
