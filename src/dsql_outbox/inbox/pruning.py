"""Forgetting old messages, in pages of the consumer's keys."""

from datetime import timedelta
from functools import partial
from typing import Any, Final

import msgspec
import psycopg

from dsql_outbox.outbox.database.exchange import NumberedQuery, pipeline, rows_of
from dsql_outbox.outbox.errors import SettingsError
from dsql_outbox.outbox.settings import MAX_TRANSACTION_ROWS
from dsql_outbox.outbox.unit_of_work.budget import INBOX, Spending, retry
from dsql_outbox.outbox.unit_of_work.connections.lender import Lender
from dsql_outbox.outbox.unit_of_work.primitives import Exchange, Program

from .memory import Statements

PAGE: Final = MAX_TRANSACTION_ROWS

_Row = list[bytes | None]
_Key = tuple[str, str]  # the source and the id of a remembered message


class Pruned(msgspec.Struct, frozen=True):
    """How far a pruning is: how many remembered messages were read, and how many forgotten."""

    read: int = 0
    forgotten: int = 0


class Pruning:
    """One run, page by page. `done` is how far it is; `has_more` says that a page may follow."""

    def __init__(
        self, statements: Statements, connections: Lender[Any], older_than: timedelta
    ) -> None:
        if older_than <= timedelta(0):
            raise SettingsError(f"older_than must be above 0, got {older_than}")
        self._statements = statements
        self._connections = connections
        self._seconds = str(older_than.total_seconds())
        self._after: _Key = ("", "")
        self.done = Pruned()
        self.has_more = True

    def page(self) -> Program[Pruned]:
        """Read the next keys of the consumer, and forget the old ones; returns `done`."""
        rows = yield from self._fetch(self._statements.page, self._page(self._after))
        old = [_key(row) for row in rows if row[2] == b"t"]
        if old:
            yield from self._fetch(self._statements.forget, self._statements.keyed(old))
        self._after = _key(rows[-1]) if rows else self._after
        self.has_more = len(rows) == PAGE
        self.done = Pruned(self.done.read + len(rows), self.done.forgotten + len(old))
        return self.done

    def _page(self, after: _Key) -> dict[str, str]:
        source, dedupe_id = after
        parameters = {"source": source, "dedupe_id": dedupe_id}
        limits = {"seconds": self._seconds, "rows": str(PAGE)}
        return {"consumer": self._statements.consumer} | parameters | limits

    def _fetch(self, query: NumberedQuery, parameters: dict[str, str]) -> Program[list[_Row]]:
        """Run a statement that may run twice, again after an error that passes."""
        once = partial(self._fetch_once, query, parameters)
        work = partial(self._connections.lend, once)
        try:
            return (yield from retry(work, Spending([INBOX])))
        except psycopg.Error as error:
            translated = self._statements.translate(error)
            if translated is error:
                raise
            raise translated from error

    def _fetch_once(
        self, query: NumberedQuery, parameters: dict[str, str], connection: Any
    ) -> Program[list[_Row]]:
        sent = [(query, query.encode(parameters))]
        return rows_of((yield Exchange(connection, pipeline(connection, sent)))[0])


def _key(row: _Row) -> _Key:
    return (row[0] or b"").decode(), (row[1] or b"").decode()
