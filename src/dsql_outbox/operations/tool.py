"""The base of the operator's tools, and the row that says what one of them was called for."""

from collections.abc import Mapping
from typing import Self

from dsql_outbox.outbox.database.database import Database
from dsql_outbox.schema.operation import Verb, operation
from dsql_outbox.schema.session import Session, SessionTransaction


class OperationEntry:
    """The row of one call of a verb; `parameters` are those of ``operation_record``."""

    def __init__(self, session: Session, parameters: Mapping[str, str]) -> None:
        self.reason = parameters["reason"]
        self._session = session
        self._parameters = parameters
        self.is_written = False
        """Whether the row is committed; set by a caller of `write_in` that may come again."""

    async def write(self) -> None:
        """Write the row in a transaction of its own, before the first change, and once."""
        if not self.is_written:
            await self._session.execute("operation_record", self._parameters)
            self.is_written = True

    async def write_in(self, transaction: SessionTransaction) -> None:
        """Write the row in the transaction of the change."""
        await transaction.execute("operation_record", self._parameters)

    async def change(self, name: str, parameters: Mapping[str, object]) -> bool:
        """Run one named statement. Returns whether it changed a row; the entry is written then."""

        async def work(transaction: SessionTransaction) -> bool:
            has_changed = await transaction.execute(name, parameters) > 0
            if has_changed:
                await self.write_in(transaction)
            return has_changed

        return await self._session.transaction(work)


class Operator:
    """The base of the operator's tools: it owns a session and closes it.

    With `read_only`, the database refuses every change. `user` is recorded with each change;
    the default is the user of the process.
    """

    def __init__(
        self, database: Database, *, read_only: bool = False, user: str | None = None
    ) -> None:
        self._session = Session(database, locks=True, read_only=read_only)
        self._user = user

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _entry(self, verb: Verb, reason: str, of: str = "") -> OperationEntry:
        """Raises `SettingsError` for a text with the character NUL; `of` is the verb's object."""
        parameters = operation(verb, reason=reason, user=self._user, of=of)
        return OperationEntry(self._session, parameters)
