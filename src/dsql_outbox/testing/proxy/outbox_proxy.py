"""A proxy in front of an outbox, with the faults that every user of a writer must expect."""

from typing import Final

from dsql_outbox.outbox import DEFAULT_SCHEMA, Database

from .postgres_proxy import PostgresProxy


class OutboxProxy(PostgresProxy):
    """A proxy in front of an outbox, as a context manager; its faults affect writes of events.

    `url` is the database's URL; the outbox tables are in `schema`. `conflicts`
    and `lost_commit` affect `write` and `write_many`. For other statements use
    `refuse`, `cut` and the other faults of `PostgresProxy`.
    """

    def __init__(self, url: str, *, schema: str = DEFAULT_SCHEMA) -> None:
        super().__init__(url)
        self.database: Final = Database(self.url, schema=schema, isolation="repeatable read")
        """The database, reached through the proxy."""
        self._write = f'INTO "{schema}".business_events'

    def conflicts(self, count: int) -> None:
        """Refuse the next `count` writes with a conflict as on Aurora DSQL: 40001, OC000."""
        self.refuse(count, matching=self._write)

    def lost_commit(self) -> None:
        """Let the next write commit, and close the connection before its answer arrives."""
        self.cut("after_commit", matching=self._write)
