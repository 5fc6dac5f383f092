"""The operator's tool for topics: pause, resume, list."""

from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from dsql_outbox.outbox.database.database import Database
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.settings import DEFAULT_TARGET, MAX_NAME
from dsql_outbox.schema.session import Session
from dsql_outbox.schema.target_rows import TargetRow, require_target

from .tool import Operator

_PAGE_ROWS: Final = 1_000


class PausedTopic(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A topic of a target that an operator has paused.

    `target` is None for the default target. `paused_by` is the database role. It did so at
    `paused_at`, `paused_seconds` ago by the clock of the database.
    """

    topic: str
    reason: str
    paused_by: str
    paused_at: datetime
    paused_seconds: float
    target: str | None = None


class Topics(Operator):
    """The topics that an operator has paused.

    Publishers send no message of a paused topic, from some seconds after `pause` until
    some seconds after `resume`. Its messages wait in the outbox, and so do later messages
    of their subjects that go to other topics.

    They are topics of the messages of one `target`. The constructor does no I/O. Use
    ``async with`` or call `close`. All methods raise `SchemaError` if the tables are missing,
    `SettingsError` for a text that is no topic and a target that does not exist, and the
    driver's errors.
    """

    def __init__(
        self, database: Database, target: str = DEFAULT_TARGET, *, user: str | None = None
    ) -> None:
        super().__init__(database, user=user)
        self._target = target

    async def pause(self, topic: str, reason: str = "") -> None:
        """Pause a topic; for one that is paused already, replace the reason, the role and the time.

        Raises `SettingsError` also for a reason with the character NUL.
        """
        _require_topic(topic)
        entry = self._entry("topics pause", reason, topic)
        if self._target != DEFAULT_TARGET:
            rows = await self._session.fetch("target_known", TargetRow, {})
            require_target(rows, self._target, None)
        parameters = {"target": self._target, "topic": topic, "reason": reason}
        await entry.change("topic_pause", parameters)

    async def resume(self, topic: str, reason: str = "") -> bool:
        """Resume a topic. Returns whether an operator had paused it.

        Raises `SettingsError` also for a reason with the character NUL.
        """
        _require_topic(topic)
        entry = self._entry("topics resume", reason, topic)
        return await entry.change("topic_resume", {"target": self._target, "topic": topic})

    async def list(self) -> AsyncGenerator[PausedTopic]:
        """The paused topics in the order of their names; close a generator that is left early."""
        after: str | None = None
        seen = _PAGE_ROWS
        while seen == _PAGE_ROWS:
            found = await read_paused(self._session, after, _PAGE_ROWS, self._target)
            seen = len(found)
            for topic in found:
                yield topic
                after = topic.topic


async def read_paused(
    session: Session, after: str | None, rows: int, target: str
) -> Sequence[PausedTopic]:
    """The next `rows` paused topics of a target after a name, in the order of their names."""
    parameters = {"target": target, "after": after, "rows": rows}
    return await session.fetch("topic_page", PausedTopic, parameters)


async def find_pause(session: Session, target: str, topic: str) -> PausedTopic | None:
    """The pause of one topic, or None."""
    found = await session.fetch("topic_pause_find", PausedTopic, {"target": target, "topic": topic})
    return found[0] if found else None


def _require_topic(topic: str) -> None:
    if not 0 < len(topic) <= MAX_NAME or "\0" in topic:
        raise SettingsError(
            f"a topic has 1 to {MAX_NAME} characters and no NUL, got {topic[: MAX_NAME + 1]!r}"
        )
